"""The network of the CIFAR-10 speed recipe."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dltrain.models.parts import image_size, make_activation
from dltrain.ranges import Activation, Count, Fraction, Part, Positive


class SpeedCNN(nn.Module):
    """airbench94, the network of the CIFAR-10 speed recipe, for initializer=whitening.

        h = activation(conv₂ₓ₂(x))  with whitening filters, which are not trained
        h ← activation(norm(conv₃ₓ₃(activation(norm(maxpool₂(conv₃ₓ₃(h)))))))  for each entry of widths
        outputs = logit_scale·W·dropout(max(h))

    Maps inputs (B, C, H, W) to outputs (B, num_classes). The scales of the batch norms stay 1; their shifts
    and the bias of the first layer are trained. A side of one pixel is not pooled, so small images fit.
    Raises ValueError if a sample is not an image of at least 2×2 pixels, or for empty `widths`.

    Symbols: max over the pixels
    Use: color images of 32×32 pixels in the shortest time; 1.97 M parameters on CIFAR-10.
    Defaults: the paper's.
    Paper: Jordan 2024, arXiv:2404.00498

    Args:
        widths: channels of each group of two convolutions
        activation: activation function after the first convolution and after each norm
        dropout: probability to drop an input of the linear head
        logit_scale: factor of the outputs
        norm_momentum: weight of the newest batch in the running statistics of the batch norms
        train_whitening: train the weights of the first layer too
    """

    needs = frozenset({"images"})

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        widths: Sequence[Count] = (64, 256, 256),
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
            raise ValueError("model.widths is []; list one group or more, as in model.widths=[64,256]")
        self.activation, self.logit_scale = activation, logit_scale
        # each direction of a 2×2 patch, and its negative
        inner = 2 * 4 * channels
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


def _group(inner: int, outer: int, pool: bool, activation: Activation, momentum: float) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(inner, outer, 3, padding=1, bias=False)]
    layers += [nn.MaxPool2d(2)] if pool else []
    layers += [_shift_norm(outer, momentum), make_activation(activation)]
    layers += [nn.Conv2d(outer, outer, 3, padding=1, bias=False), _shift_norm(outer, momentum)]
    return [*layers, make_activation(activation)]


def _shift_norm(channels: int, momentum: float) -> nn.BatchNorm2d:
    """Build a batch norm whose scale stays 1."""
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=momentum)
    norm.weight.requires_grad_(False)
    return norm
