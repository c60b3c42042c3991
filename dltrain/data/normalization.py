"""Statistics of the training split, and normalization of raw inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from dltrain.data.errors import DataError
from dltrain.data.exact import KEPT

BYTE = 255.0  # uint8 images are read as fractions of full brightness, so that statistics are in [0, 1]


class Normalizer:
    """Compute `(x - mean) / std`, x the raw value (bytes divided by 255). mean and std: (C, 1, 1), (C, 1) or (F,).

    average: mean of the raw training inputs, where `mean` is not
    """

    def __init__(
        self, mean: Tensor, std: Tensor, dtype: torch.dtype = torch.float32, average: Tensor | None = None
    ) -> None:
        self.mean, self.std, self.dtype, self.average = mean, std, dtype, average
        self._shift, self._scale, self._byte_scale = -mean / std, 1.0 / std, 1.0 / (BYTE * std)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return `inputs` (B, ...), uint8 or floating, as normalized floats on the same device."""
        scale = self._byte_scale if inputs.dtype == torch.uint8 else self._scale
        # computed in float32, whatever the precision of the result
        return torch.addcmul(self._shift, inputs.float(), scale).to(self.dtype)

    def to(self, device: torch.device) -> Normalizer:
        """Return the same map with its statistics on `device`."""
        average = None if self.average is None else self.average.to(device)
        return Normalizer(self.mean.to(device), self.std.to(device), self.dtype, average)

    @classmethod
    def of(cls, statistics: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> Normalizer:
        """Return the map of an earlier run. Raises DataError for an average of another shape than the mean."""
        mean, average = statistics["mean"], statistics.get("average")
        if average is not None and average.shape != mean.shape:
            raise DataError(
                f"normalization.safetensors of the run has a mean of shape {tuple(mean.shape)} and an average of shape "
                f"{tuple(average.shape)}; put that of the run back"
            )
        return cls(mean, statistics["std"], dtype, average)


def normalizer(
    inputs: Tensor | Iterable[Tensor], mode: str, dtype: torch.dtype = torch.float32, last: bool = False
) -> Normalizer:
    """Compute the statistics of training inputs (N, C, …) or (N, F), with `last` (N, T, F), for `mode` (L3, L4).

    `unit`: mean 0 and variance 1 per channel or feature (constant ones are only centered); `center`: mean 0; `none`:
    unchanged, bytes divided by 255. Images of bytes may also come in parts, so that not all are in memory.
    """
    if mode not in ("unit", "center", "none"):
        raise ValueError(f"dataset.normalize is {mode!r}; it must be unit, center or none")
    if last and isinstance(inputs, Tensor):
        inputs = inputs.flatten(0, -2)
    mean, std = moments(inputs, checked=mode != "none")
    average = None
    if mode == "none":
        # of images only: columns have no pixels to be covered, and their mean may be beyond float32
        average, mean = mean if mean.ndim == 3 else None, torch.zeros_like(mean)
    if mode != "unit":
        std = torch.ones_like(std)
    return Normalizer(mean, std, dtype, average)


def moments(inputs: Tensor | Iterable[Tensor], checked: bool = False) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation per channel (C, 1, 1) or feature (F,), in float32 from sums in float64.

    The deviation of a constant feature is 1. With `checked`, raises DataError for features that float32 cannot normalize.
    """
    if not isinstance(inputs, Tensor) or inputs.dtype == torch.uint8:
        mean, variance = _byte_moments(inputs.split(4096) if isinstance(inputs, Tensor) else inputs)
        axes = inputs.ndim - 2 if isinstance(inputs, Tensor) else 2
        # rounding leaves a constant feature a tiny variance, by which nothing must be divided
        constant = variance <= (1e-7 * mean.abs().clamp_min(1e-30)).square()
    else:
        others = (0, *range(2, inputs.ndim))
        variance, mean = torch.var_mean(inputs.double(), others, correction=0)
        constant = inputs.amax(others) == inputs.amin(others)
        axes = inputs.ndim - 2
    if checked:
        _check(mean, variance.sqrt(), constant)
    std = torch.where(constant, 1.0, variance.sqrt())
    shape = (-1,) + (1,) * axes
    return mean.float().view(shape), std.float().view(shape)


def _check(mean: Tensor, std: Tensor, constant: Tensor) -> None:
    """Raise DataError for a feature that is not constant and whose normalization in float32 loses its differences or overflows."""
    single = torch.finfo(torch.float32)
    lost = (single.eps / 2 * mean.abs() > KEPT * std) & ~constant
    tiny = (std < single.tiny) & ~constant
    if not bool((lost | tiny).any()):
        return
    i = int((lost | tiny).int().argmax())
    cure = (
        "Write it in a smaller unit"
        if tiny[i]
        else "Subtract the offset first, or use a CSV file, whose columns are centered in float64"
    )
    raise DataError(
        f"feature {i} has mean {float(mean[i]):.6g} and deviation {float(std[i]):.3g}: float32 cannot represent its normalized "
        f"values. {cure}"
    )


def _byte_moments(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return exact mean and variance of bytes (B, C, …) from their histogram, without a float copy of the images."""
    counts: list[Tensor] = []
    for part in parts:
        found = [torch.bincount(channel.flatten(), minlength=256).double() for channel in part.unbind(1)]
        counts = [former + more for former, more in zip(counts, found, strict=True)] if counts else found
    values = torch.arange(256, dtype=torch.float64) / BYTE
    means, variances = [], []
    for count in counts:
        share = count / count.sum()
        mean = (share * values).sum()
        means.append(mean)
        variances.append((share * (values - mean) ** 2).sum())
    return torch.stack(means), torch.stack(variances)
