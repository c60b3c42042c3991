"""Small convolutional networks: the reference CNN and LeNet-5."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dltrain.models.parts import check_probability, image_size, make_activation, make_norm


class CNN(nn.Module):
    """A 3×3 convolution, norm, activation and 2×2 max pooling for each entry of `channels`, then a linear
    head.

    inputs: (B, C, H, W); outputs: (B, num_classes). Pooling stops at a side of one pixel, so that any image
    fits. The small reference CNN of the benchmarks. Raises ValueError where a sample is not an image.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        channels: Sequence[int] = (16, 32),
        activation: str = "relu",
        norm: str = "batch",
        dropout: float = 0.0,
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
    """LeNet-5: two 5×5 convolutions of 6 and 16 channels with 2×2 average pooling, then 120, 84 and the
    outputs.

    inputs: (B, C, H, W); outputs: (B, num_classes). LeCun et al. 1998, "Gradient-based learning applied to
    document recognition", with a plain linear head. Images smaller than the paper's 32×32 are padded by 2
    pixels (61,706 parameters on 28×28 as on 32×32); tiny ones once more before the second convolution. Raises
    ValueError where a sample is not an image.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        activation: str = "tanh",
        dropout: float = 0.0,
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
