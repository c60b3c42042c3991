"""A diagnostic of a user's own: numbers of the model at every evaluation, which change nothing."""

from __future__ import annotations

from dltrain.diagnostics.probe import Probe


class Margins:
    """How far the right output is above the largest wrong one.

    Args:
        samples: number of training samples that are measured
    """

    def __init__(self, samples: int = 128) -> None:
        self.samples = samples

    def measure(self, probe: Probe) -> dict[str, float]:
        """Return the mean margin and the fraction of negative ones."""
        outputs = probe.model(probe.inputs).detach()
        right = outputs.gather(1, probe.targets[:, None])
        wrong = outputs.scatter(1, probe.targets[:, None], float("-inf")).amax(1, keepdim=True)
        margins = right - wrong
        return {"mean": float(margins.mean()), "negative": float((margins < 0).float().mean())}
