"""Decisions between two classes by a threshold on the probability of one of them, and the thresholds that score best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dltrain.data.spec import Task
from dltrain.errors import UserError, listing, nearest
from dltrain.metrics.counts import Counted
from dltrain.metrics.measures import Measures
from dltrain.metrics.probabilities import OfProbabilities, of_logits
from dltrain.metrics.protocol import Metric, Values
from dltrain.metrics.samples import accuracy

# by which a threshold is suggested
F1_OF_CLASS, BALANCED = "f1", "balanced_accuracy"


@dataclass(frozen=True)
class Threshold:
    """The class at `place` is predicted where its probability is at least `value`, else the other one.

    name: of the class
    """

    place: int
    value: float
    name: str

    @classmethod
    def of(
        cls, name: str, value: float, task: Task, classes: int, class_names: Sequence[object]
    ) -> Threshold:
        """Return the threshold of a class by its name. Raises UserError for another task, more classes or another name."""
        asked = f"`--threshold` is {name}={value:g}"
        if task != "classification":
            raise UserError(f"{asked}, and the run is a {task}, which has no classes. Leave it out")
        if classes != 2:
            raise UserError(
                f"{asked}, and the run has {classes} classes; a threshold decides between two. Leave it out"
            )
        names = [str(known) for known in class_names] or ["0", "1"]
        if name not in names:
            raise UserError(
                f"{asked}, and {name} is no class of the run.{nearest(name, names)}\n{listing('Classes', names)}"
            )
        return cls(names.index(name), value, name)

    def decide(self, outputs: Tensor) -> Tensor:
        """Return the class (N,) of logits (N, 2), by their softmax in float64."""
        above = outputs.double().softmax(-1)[:, self.place] >= self.value
        return torch.where(above, self.place, 1 - self.place)

    def decided(self, outputs: Tensor) -> Tensor:
        """Return outputs (N, 2) whose largest is that of the decision."""
        return torch.nn.functional.one_hot(self.decide(outputs), 2).to(outputs)

    def __str__(self) -> str:
        return f"{self.name} where p({self.name}) ≥ {self.value:g}"


@dataclass(frozen=True)
class _Decided:
    """A function of the samples, of decisions."""

    metric: Values
    threshold: Threshold

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.metric(self.threshold.decided(outputs), targets)


class _DecidedMetric(Metric):
    """A metric that is updated batch by batch, of decisions."""

    def __init__(self, metric: Metric, threshold: Threshold) -> None:
        self.metric, self.threshold = metric, threshold

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.metric.update(self.threshold.decided(outputs), targets)

    def compute(self) -> Tensor | float:
        return self.metric.compute()


def at_threshold(
    functions: Mapping[str, Values], measures: Measures, threshold: Threshold
) -> tuple[dict[str, Values], Measures, list[str]]:
    """Return metrics that follow a threshold where they depend on decisions alone, and the names of those that do.

    These are accuracy and the metrics of the confusion matrix; others, such as the loss and auroc, stay as they are.
    """
    plain = {name: of_logits(metric) for name, metric in functions.items()}
    by_sample = {name: getattr(metric, "func", metric) is accuracy for name, metric in plain.items()}
    by_split = {name: isinstance(metric, Counted) for name, metric in measures.metrics.items()}
    changed = {n: _decided(m, threshold) if by_sample[n] else m for n, m in functions.items()}
    objects = {n: _DecidedMetric(m, threshold) if by_split[n] else m for n, m in measures.metrics.items()}
    following = [name for name, follows in (by_sample | by_split).items() if follows]
    return changed, replace(measures, metrics=objects), following


def _decided(metric: Values, threshold: Threshold) -> Values:
    """Return a function of decisions, which are by the probabilities of the loss where the function is."""
    plain: Values = _Decided(of_logits(metric), threshold)
    return replace(metric, measure=plain) if isinstance(metric, OfProbabilities) else plain


# Suggestions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Best:
    """The threshold with the highest score of a kind, that score, and the score at 0.5."""

    kind: str
    threshold: float
    score: float
    at_half: float


def best_thresholds(outputs: Tensor, targets: Tensor, place: int | None = None) -> tuple[int, list[Best]]:
    """Return a class, and the thresholds on its probability with the highest F1 of it and the highest balanced accuracy.

    outputs: (N, 2) of the validation split. place: the class, the rarer one for None; of equal scores, the threshold nearest to
    0.5 is returned, and of a gap between two probabilities its shortest decimal. Nothing is returned where a class is absent.
    """
    counts = torch.bincount(targets.cpu(), minlength=2)
    place = (int(counts.argmin()) if counts[0] != counts[1] else 1) if place is None else place
    if not counts.all():
        return place, []
    p = outputs.double().softmax(-1)[:, place].cpu()
    truth = (targets.cpu() == place).double()
    values, order = p.sort(descending=True)
    hits, found = truth[order].cumsum(0), torch.arange(1, len(p) + 1)
    # equal probabilities are decided alike: the last of them counts
    last = torch.cat([values[1:] != values[:-1], torch.tensor([True])]).nonzero().flatten()
    hits, found, edges = hits[last], found[last].double(), values[last]
    below = torch.cat([edges[1:], torch.zeros(1, dtype=torch.float64)])
    positives, negatives = truth.sum(), len(p) - truth.sum()
    scores = {
        F1_OF_CLASS: 2 * hits / (found + positives),
        BALANCED: (hits / positives + 1 - (found - hits) / negatives) / 2,
    }
    half = int((edges >= 0.5).sum()) - 1
    # of no sample above 0.5: no hit
    none = {F1_OF_CLASS: 0.0, BALANCED: 0.5}
    bests = []
    for kind, each in scores.items():
        candidates = (each >= each.max() - 1e-12).nonzero().flatten().tolist()
        found_at = [simplest(float(below[i]), float(edges[i])) for i in candidates]
        threshold = min(found_at, key=lambda value: abs(value - 0.5))
        bests.append(Best(kind, threshold, float(each.max()), float(each[half]) if half >= 0 else none[kind]))
    return place, bests


def simplest(low: float, high: float) -> float:
    """Return the number in (low, high] with the fewest decimals, the one nearest to 0.5 of these; 0 and 1 are none."""
    if low < 0.5 <= high:
        return 0.5
    for digits in range(1, 16):
        scale: Any = 10**digits
        value = int(high * scale) / scale if high < 0.5 else (int(low * scale) + 1) / scale
        if low < value <= high and 0 < value < 1:
            return value
    return high
