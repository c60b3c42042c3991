"""Small convolutional networks: the reference CNN and LeNet-5."""

from __future__ import annotations

from torch import Tensor, nn

from dltrain.models.parts import check_probability, image_size, make_activation, make_norm
from dltrain.ranges import Activation, Count, Fraction, Norm


class CNN(nn.Module):
    """Small convolutional network: 3×3 convolutions, each halving the image.

        h ← maxpool₂(activation(norm(conv₃ₓ₃(h)))) for each entry of channels; outputs = W·flatten(h) + b

    A 3×3 convolution, norm, activation and 2×2 max pooling for each entry of `channels`, then a linear head.

    inputs: (B, C, H, W); outputs: (B, num_classes). Pooling stops at a side of one pixel, so that any image
    fits. The small reference CNN of the benchmarks. Raises ValueError where a sample is not an image.

    Use: the first network to try on images; the reference task of the benchmarks.
    Defaults: 16 and 32 channels with batch norm, above 0.985 on MNIST in 3 epochs.

    Args:
        channels: channels of the convolutions
        activation: after each convolution
        norm: normalisation before each activation
        dropout: probability to drop an input of the linear head
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        channels: list[Count] = (16, 32),
        activation: Activation = "relu",
        norm: Norm = "batch",
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__()
        inner, height, width = image_size(input_shape, "cnn")
        if not channels or any(count < 1 for count in channels):
            raise ValueError(
                f"model.channels is {list(channels)}; it must list at least one integer >= 1, as in "
                "model.channels=[16,32]"
            )
        check_probability("model.dropout", dropout)
        self.activation = activation
        layers: list[nn.Module] = []
        for outer in channels:
            # a bias before a normalisation is undone by it
            layers += [
                nn.Conv2d(inner, outer, 3, padding=1, bias=norm == "none"),
                make_norm(norm, outer, images=True),
            ]
            layers += [make_activation(activation), pool := _pool(nn.MaxPool2d, height, width)]
            height, width, inner = _pooled(pool, height), _pooled(pool, width), outer
        self.features = nn.Sequential(*layers)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(inner * height * width, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.drop(self.features(inputs).flatten(1)))
        return outputs


class LeNet(nn.Module):
    """LeNet-5: two 5×5 convolutions, average pooling, three linear layers.

        conv 6 → pool → conv 16 → pool → 120 → 84 → outputs

    LeNet-5: two 5×5 convolutions of 6 and 16 channels with 2×2 average pooling, then 120, 84 and the outputs.

    inputs: (B, C, H, W); outputs: (B, num_classes). LeCun et al. 1998, "Gradient-based learning applied to
    document recognition", with a plain linear head. Images smaller than the paper's 32×32 are padded by 2
    pixels (61,706 parameters on 28×28 as on 32×32); tiny ones once more before the second convolution. Raises
    ValueError where a sample is not an image.

    Use: small grey images; 61,706 parameters on MNIST.
    Defaults: the paper's tanh and average pooling.
    Paper: LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition"

    Args:
        activation: after each layer
        dropout: probability to drop a unit after the layers of 120 and 84
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        activation: Activation = "tanh",
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__()
        channels, height, width = image_size(input_shape, "lenet")
        check_probability("model.dropout", dropout)
        self.activation = activation
        layers: list[nn.Module] = []
        for inner, outer, smallest in ((channels, 6, 32), (6, 16, 14)):
            padding = 0 if min(height, width) >= smallest else 2
            height, width = height + 2 * padding - 4, width + 2 * padding - 4
            layers += [nn.Conv2d(inner, outer, 5, padding=padding), make_activation(activation)]
            layers += [pool := _pool(nn.AvgPool2d, height, width)]
            height, width = _pooled(pool, height), _pooled(pool, width)
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Sequential(
            nn.Linear(16 * height * width, 120),
            make_activation(activation),
            nn.Dropout(dropout),
            nn.Linear(120, 84),
            make_activation(activation),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(84, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.hidden(self.features(inputs).flatten(1)))
        return outputs


def _pool(kind: type[nn.MaxPool2d] | type[nn.AvgPool2d], height: int, width: int) -> nn.Module:
    return kind(2) if min(height, width) >= 2 else nn.Identity()


def _pooled(pool: nn.Module, side: int) -> int:
    return side if isinstance(pool, nn.Identity) else side // 2
