"""Statistics over the repetitions of a configuration: mean, deviation, confidence interval, and whether the best is distinct."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Sequence

from dltrain.direction import mean_of

ENOUGH = 5  # below, a paired test has no power worth the name
LEVEL = 0.05


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (n − 1; nan for one value)."""
    return mean_of(values), statistics.stdev(values) if len(values) > 1 else math.nan


def independent(values: Sequence[float], parts: Sequence[Hashable]) -> list[float]:
    """Return the values that vary independently: the mean of each part, or all values where they are of one part.

    Runs of one fold and split are trained and scored on the same samples: their seeds tell nothing of other samples, and as many
    values would make the interval as narrow as one likes.

    Args:
        parts: the fold and the seed of the split of each value

    >>> independent([1.0, 3.0, 5.0, 9.0], [0, 0, 1, 1]), independent([1.0, 3.0], [0, 0])
    ([2.0, 7.0], [1.0, 3.0])
    """
    found: dict[Hashable, list[float]] = {}
    for value, part in zip(values, parts, strict=True):
        found.setdefault(part, []).append(value)
    return list(values) if len(found) < 2 else [mean_of(column) for column in found.values()]


def half_width(values: Sequence[float], level: float = 0.95) -> float:
    """Return half the width of Student's confidence interval of the mean; nan for one value."""
    if len(values) < 2:
        return math.nan
    from scipy.special import stdtrit

    return (
        float(stdtrit(len(values) - 1, 0.5 + level / 2)) * statistics.stdev(values) / math.sqrt(len(values))
    )


def paired_p(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the two-sided p of Student's paired t-test; 1 where all differences are zero."""
    differences = [a - b for a, b in zip(left, right, strict=True)]
    mean, deviation = mean_and_deviation(differences)
    if deviation == 0 or math.isnan(deviation):
        return 1.0 if mean == 0 or math.isnan(deviation) else 0.0
    from scipy.special import stdtr

    t = mean / (deviation / math.sqrt(len(differences)))
    return float(2 * stdtr(len(differences) - 1, -abs(t)))


def welch_p(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the two-sided p of Welch's t-test for samples that are not paired; 1 where both are constant and equal."""
    shares = [statistics.variance(values) / len(values) for values in (left, right)]
    gap, error = statistics.fmean(left) - statistics.fmean(right), sum(shares)
    if error == 0:
        return 1.0 if gap == 0 else 0.0
    from scipy.special import stdtr

    freedom = error**2 / sum(
        share**2 / (len(values) - 1) for share, values in zip(shares, (left, right), strict=True)
    )
    return float(2 * stdtr(freedom, -abs(gap) / math.sqrt(error)))


def holm(ps: Sequence[float]) -> list[float]:
    """Correct p values for their number, by Holm's step-down (1979)."""
    corrected, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = largest
    return corrected


def verdicts(best: Sequence[float], others: Sequence[Sequence[float]]) -> list[str]:
    """Compare the best configuration with each other one, paired by repetition and corrected by Holm.

    "too few runs to tell" below five repetitions, "not distinguishable" with the corrected p above the level, else the corrected p.
    """
    tested = [
        i
        for i, other in enumerate(others)
        if min(len(best), len(other)) >= ENOUGH and len(best) == len(other)
    ]
    corrected = dict(zip(tested, holm([paired_p(best, others[i]) for i in tested]), strict=True))
    return [verdict(corrected.get(i)) for i in range(len(others))]


def verdict(p: float | None) -> str:
    """Return what a corrected p says; None stands for a test with too few repetitions."""
    if p is None:
        return "too few runs to tell"
    return f"p = {p:.2g}" if p < LEVEL else f"not distinguishable, p = {p:.2g}"


def share_interval(share: float, parts: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of the fraction of the variance that `parts` groups of `count` values explain (η²).

    The F of an analysis of variance has a noncentral distribution; the ends of the interval are the fractions under which a larger
    or a smaller F is as rare as the level says (Steiger 2004). The low end is 0 where chance alone gives as much. Needs count > parts.
    """
    if share >= 1 or parts < 2:
        return share, share
    from scipy.special import ncfdtr

    freedom, rest = parts - 1, count - parts
    f = share / (1 - share) * rest / freedom

    def noncentrality(p: float) -> float:
        low, high = 0.0, 1.0
        while ncfdtr(freedom, rest, high, f) > p:
            low, high = high, 2 * high
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if ncfdtr(freedom, rest, middle, f) > p else (low, middle)
        return low

    ends = [noncentrality(p) for p in (0.5 + level / 2, 0.5 - level / 2)]
    return ends[0] / (ends[0] + count), ends[1] / (ends[1] + count)
