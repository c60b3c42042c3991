"""Small convolutional networks: the reference CNN and LeNet-5."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dltrain.models.parts import image_size, make_activation, make_norm
from dltrain.ranges import Activation, Count, Fraction, Norm


class CNN(nn.Module):
    """Small convolutional network: 3×3 convolutions, each followed by pooling.

        h ← maxpool₂(activation(norm(conv₃ₓ₃(h))))  for each entry of channels
        outputs = W·dropout(flatten(h)) + b

    Maps inputs (B, C, H, W) to outputs (B, num_classes). A side of one pixel is not pooled, so images of any
    size fit. Raises ValueError if a sample is not an image, or for empty `channels`.

    Use: the first network to try on images; the reference model of the benchmarks.
    Defaults: 16 and 32 channels with batch norm, which reach an accuracy of 0.985 on MNIST in 3 epochs.

    Args:
        channels: output channels of each convolution
        activation: activation function after each convolution
        norm: normalization before each activation; group has at most 8 groups of at least 2 channels: one, as layer, of an odd number
        dropout: probability to drop an input of the linear head
    """

    needs = frozenset({"images"})

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        channels: Sequence[Count] = (16, 32),
        activation: Activation = "relu",
        norm: Norm = "batch",
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__()
        inner, height, width = image_size(input_shape, "cnn")
        if not channels:
            raise ValueError(
                "model.channels is []; list one convolution or more, as in model.channels=[16,32]"
            )
        self.activation = activation
        layers: list[nn.Module] = []
        for outer in channels:
            # a normalization would remove the bias
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
    """LeNet-5: two 5×5 convolutions with average pooling, then three linear layers.

        h ← avgpool₂(activation(conv₅ₓ₅(h)))  with 6, then 16 channels
        h ← dropout(activation(W·h + b))  with 120, then 84 units
        outputs = W·h + b

    Maps inputs (B, C, H, W) to outputs (B, num_classes). The head is linear, where the paper has radial basis
    functions. Images with a side below the paper's 32 are padded by 2 pixels, so that 28×28 gives the same
    61,706 parameters; very small ones are padded again before the second convolution. Raises ValueError if a
    sample is not an image.

    Use: small gray images.
    Defaults: the paper's tanh; no dropout.
    Paper: LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition"

    Args:
        activation: activation function after each layer but the head
        dropout: probability to drop one of the 120 or 84 units
    """

    needs = frozenset({"images"})

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
