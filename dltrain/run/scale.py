"""Whether arrays and images are on the scale of those of the training."""

from __future__ import annotations

import torch
from torch import Tensor

from dltrain.data.contract import Contract
from dltrain.data.errors import DataError

# Standard deviations, in the mean over all values, of data that are on another scale than those of the training.
FAR = 10.0
_ASKED = "are they on another scale?"
_FEW = 10  # fewer samples may be alike
# of full brightness, by which a filter may overshoot
_BEYOND = 0.5
FLOATS = "floats   images of floats are taken for fractions of full brightness: 1 is a byte of 255"


class Scale:
    """Mean distance of normalized inputs from those of the training, and how much they vary, summed batch by batch.

    Args:
        std: what the inputs were divided by; where that is 1 everywhere, nothing is known of how much they varied
        of_columns: the columns of a table tell it one by one
    """

    def __init__(self, std: Tensor, of_columns: bool = False) -> None:
        self.knows_spread = bool((std != 1).any()) and not of_columns
        self.samples, self.distance, self.moments = 0, 0.0, torch.zeros(3, len(std), dtype=torch.float64)
        self.axes = std.ndim

    def add(self, inputs: Tensor) -> None:
        """Add normalized inputs (B, C, …), (B, F) or (B, T, F)."""
        self.samples += len(inputs)
        self.distance += float(inputs.abs().mean()) * len(inputs)
        if self.knows_spread:
            # without a copy of the inputs; of sequences the features are last
            inputs = inputs if inputs.ndim == self.axes + 1 else inputs.flatten(0, -2)
            found = torch.var_mean(inputs.float(), (0, *range(2, inputs.ndim)), correction=0)
            variance, mean = (value.cpu().double() for value in found)
            count = inputs.numel() / inputs.shape[1]
            sums = (torch.ones_like(mean), mean, variance + mean.square())
            self.moments += count * torch.stack(sums)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return a line on inputs that are far from those of the training on average, or vary far less, whichever channel or feature."""
        if not self.samples:
            return ()
        distance = self.distance / self.samples
        if distance > FAR:
            return (
                f"scale    the inputs are {distance:.0f} standard deviations from those of the training on average: {_ASKED}",
            )
        if not self.knows_spread or self.samples < _FEW:
            return ()
        count, total, squares = self.moments
        spread = float((squares / count - (total / count).square()).clamp_min(0).sqrt().max())
        if spread * FAR > 1:
            return ()
        less = f"{1 / spread:.0f} times less than those of the training" if spread else "not at all"
        return (f"scale    the inputs vary {less}: {_ASKED}",)


def check_values(inputs: Tensor, contract: Contract, mean: Tensor, are_files: bool) -> None:
    """Raise DataError for bytes where a model learned from floats outside [0, 1], and for such floats where it learned from bytes.

    mean: of the training, by channel or feature
    """
    if contract.in_bytes and len(contract.input_shape) == 3 and inputs.is_floating_point():
        low, high = (float(end) for end in inputs.aminmax())
        if low < -_BEYOND or high > 1 + _BEYOND:
            raise DataError(
                f"the images are floats from {low:.4g} to {high:.4g}, and the model was trained on bytes; give bytes (uint8, 0 to 255), or "
                "floats from 0 to 1"
            )
    if inputs.dtype != torch.uint8 or contract.in_bytes:
        return
    low, high = float(mean.min()), float(mean.max())
    if low < 0 or high > 1:
        what = "image files hold" if are_files else "the data are"
        raise DataError(
            f"{what} bytes, and the model was trained on floats with means from {low:.4g} to {high:.4g}; give such floats in an .npz file"
        )
