"""The network of the CIFAR-10 speed recipe."""

from __future__ import annotations

from torch import Tensor, nn

from dltrain.models.parts import check_probability, image_size, make_activation
from dltrain.ranges import Activation, Count, Fraction, Part, Positive


class SpeedCNN(nn.Module):
    """airbench94, the network of the CIFAR-10 speed recipe; use it with initializer=whitening.

        frozen whitening conv₂ₓ₂ → activation → 3 × [conv, maxpool₂, norm, activation, conv, norm, activation]
        → max → W·h·logit_scale

    airbench94: a frozen 2×2 whitening convolution, three groups of two convolutions, scaled logits.

    inputs: (B, C, H, W); outputs: (B, num_classes). Jordan 2024, arXiv:2404.00498; 1.97 M parameters on
    CIFAR-10. Made for `initializer=whitening`, which fills the first layer from patches and starts the others
    as identities. The scales of the batch norms stay 1; their shifts and the first bias are trained. A group
    stops pooling at a side of one pixel, so that small images fit. Raises ValueError where a sample is not an
    image of at least 2×2 pixels.

    Use: colour images of 32×32 in the shortest time; 1.97 M parameters.
    Defaults: the paper's.
    Paper: Jordan 2024, arXiv:2404.00498

    Args:
        widths: channels of the groups
        activation: after each norm
        dropout: probability to drop an input of the linear head
        logit_scale: factor of the outputs
        norm_momentum: share of the newest batch in the running statistics of the batch norms
        train_whitening: train the weights of the first layer too
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        widths: list[Count] = (64, 256, 256),
        activation: Activation = "gelu",
        dropout: Fraction = 0.0,
        logit_scale: Positive = 0.1111111111,
        norm_momentum: Part = 0.4,
        train_whitening: bool = False,
    ) -> None:
        super().__init__()
        channels, height, width = image_size(input_shape, "speed_cnn")
        if min(height, width) < 2:
            raise ValueError(
                f"model=speed_cnn needs images of at least 2×2 pixels, not {height}×{width}; use model=cnn"
            )
        if not widths:
            raise ValueError(
                "model.widths is []; it must list at least one integer >= 1, as in model.widths=[64,256]"
            )
        check_probability("model.dropout", dropout)
        self.activation, self.logit_scale = activation, logit_scale
        inner = 2 * 4 * channels  # each direction of a 2×2 patch, and its negative
        self.whiten = nn.Conv2d(channels, inner, 2)
        self.whiten.weight.requires_grad_(train_whitening)
        side = min(height, width) - 1
        layers: list[nn.Module] = [make_activation(activation)]
        for outer in widths:
            layers += _group(inner, outer, side >= 2, activation, norm_momentum)
            inner, side = outer, max(side // 2, 1)
        self.groups = nn.Sequential(*layers)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(inner, num_classes, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.groups(self.whiten(inputs)).amax((2, 3))
        logits: Tensor = self.head(self.drop(features)) * self.logit_scale
        return logits


def _group(inner: int, outer: int, pool: bool, activation: str, momentum: float) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(inner, outer, 3, padding=1, bias=False)]
    layers += [nn.MaxPool2d(2)] if pool else []
    layers += [_shift_norm(outer, momentum), make_activation(activation)]
    layers += [nn.Conv2d(outer, outer, 3, padding=1, bias=False), _shift_norm(outer, momentum)]
    return [*layers, make_activation(activation)]


def _shift_norm(channels: int, momentum: float) -> nn.BatchNorm2d:
    """A batch norm whose scale stays 1."""
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=momentum)
    norm.weight.requires_grad_(False)
    return norm
