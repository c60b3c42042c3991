"""The metrics of one run that are objects: copied for each evaluation, updated batch by batch, read once at its end."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from dltrain.data.spec import DataSpec
from dltrain.direction import BETTER
from dltrain.errors import assigned, assigned_list
from dltrain.metrics.counts import F1, BalancedAccuracy, CohenKappa, brief, names_in, ordered, values_of
from dltrain.metrics.foreign import Adapter, is_torchmetrics
from dltrain.metrics.probabilities import ToSoftmax
from dltrain.metrics.protocol import Metric, Values
from dltrain.metrics.sums import R2, RMSE

# columns that every run has, or that are computed from others
RESERVED = ("loss", "objective", "gap")
# the task of each kind of targets that a metric may need
NEEDED = {"classes": "classification", "quantities": "regression"}
UPDATE, COMPUTE = "def update(self, outputs, targets) -> None", "def compute(self) -> float"


@dataclass(frozen=True)
class Measures:
    """Metrics by the name of their column, the data whose units they are in, and how outputs become the logits of probabilities."""

    metrics: Mapping[str, Metric] = field(default_factory=dict)
    spec: DataSpec | None = None
    to_softmax: ToSoftmax | None = None

    def __bool__(self) -> bool:
        return bool(self.metrics)

    def fresh(self) -> Measures:
        """Return a copy that has seen no sample; `self` never sees any."""
        return replace(self, metrics=copy.deepcopy(dict(self.metrics))) if self.metrics else self

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take a batch of outputs (B, K) and targets of the model, which are standardized where those of training were."""
        if not self.metrics:
            return
        if self.spec is not None and self.spec.task == "regression":
            outputs = outputs.reshape(len(outputs), -1)
            targets = self.spec.in_units(targets.reshape(outputs.shape))
            outputs = self.spec.in_units(outputs)
        if self.to_softmax is not None:
            outputs = self.to_softmax(outputs)
        for metric in self.metrics.values():
            if isinstance(metric, nn.Module):
                metric.to(outputs.device)
            metric.update(outputs, targets)

    def compute(self) -> dict[str, float]:
        """Return the value of each metric."""
        return {name: float(metric.compute()) for name, metric in self.metrics.items()}

    def of(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Return the value of each metric for all outputs and targets of a split at once."""
        found = self.fresh()
        found.update(outputs, targets)
        return found.compute()


def unbalanced(spec: DataSpec) -> tuple[Measures, str]:
    """Return what is measured beside accuracy where a class is rare, and the line that says so; nothing elsewhere.

    A class is rare that has less than half of an equal share of the training samples, of which a bootstrap sample may be drawn.
    """
    counts, samples = spec.class_counts, sum(spec.class_counts)
    rarest = counts.index(min(counts))
    if 2 * spec.num_classes * counts[rarest] >= samples:
        return Measures(), ""
    name = spec.class_names[rarest] if spec.class_names else rarest
    metrics = {"balanced_accuracy": BalancedAccuracy(), "f1": F1(spec)}
    share = 100 * counts[rarest] / samples
    said = f"class {name!s} has {share:.3g} % of the training samples"
    return Measures(metrics, spec), f"metrics  accuracy, balanced_accuracy and f1 (macro) · {said}"


def of_quantities(spec: DataSpec) -> Measures:
    """Return what is measured beside the mean absolute error of a regression where no metrics are chosen."""
    return Measures({"rmse": RMSE(), "r2": R2()}, spec)


def averages_note(metrics: Mapping[str, Metric], spec: DataSpec) -> tuple[str, ...]:
    """Return lines that say which metrics are averages over the classes, and of which class others are."""
    names = names_in(spec)
    means = _means_of_two(metrics) if len(names) == 2 else []
    averages = {
        average: [name for name in metrics if name not in means and average_of(metrics[name]) == average]
        for average in ("macro", "weighted", "micro")
    }
    told = ", ".join(f"{', '.join(found)} ({average})" for average, found in averages.items() if found)
    notes = [f"metrics  {told} · averages over the {len(names)} classes"] if told else []
    alike = [name for name in means if getattr(metrics[name], "equal_for_two", False)]
    if alike:
        notes.append(
            f"metrics  {', '.join(alike)} {'is' if len(alike) == 1 else 'are'} equal for both classes"
        )
    if differing := [name for name in means if name not in alike]:
        notes.append(_about_means(differing, names, _rarer(spec)))
    for place in range(len(names)):
        if ones := [name for name, metric in metrics.items() if _class_of(metric) == place]:
            notes.append(_about_one(ones, metrics, names, place, _rarer(spec)))
    return (*notes, *_distance_notes(metrics, spec))


def _distance_notes(metrics: Mapping[str, Metric], spec: DataSpec) -> list[str]:
    """Return lines that say by which order of more than two classes a metric measures distances, and how to set another one."""
    names = names_in(spec)
    lines = []
    for word, metric in metrics.items() if len(names) > 2 else ():
        # those of torchmetrics know the order of the data alone
        inner = getattr(metric, "metric", metric)
        order = getattr(inner, "order", list(names))
        if (
            getattr(inner, "weights", None) not in ("linear", "quadratic")
            or order == ordered(names, None)
            and values_of(names)
        ):
            continue
        cure = (
            f" · another: {shlex.quote(assigned_list(f'metrics.{word}.order', order))}"
            if isinstance(metric, CohenKappa) and order == list(names)
            else ""
        )
        lines.append(f"metrics  {word}: distances of the classes in the order {brief(order)}{cure}")
    return lines


def _rarer(spec: DataSpec) -> int:
    """Return the rarer of two classes in the training split; the second where they are equal."""
    return 0 if spec.class_counts and spec.class_counts[0] < spec.class_counts[1] else 1


def _means_of_two(metrics: Mapping[str, Metric]) -> list[str]:
    """Return the metrics that can be of one class alone, and are means over both."""
    return [name for name, metric in metrics.items() if getattr(metric, "average", None) == "macro"]


def _about_means(means: Sequence[str], names: Sequence[object], rarer: int) -> str:
    """Return how to see one class of two: the mean hides a rare one.

    An average precision of 0.05 for one sample in thirty is 0.52 as the mean with the other class's 0.98.
    """
    verb = "is the mean" if len(means) == 1 else "are the means"
    chosen = "" if rarer == 1 else f" {_positive(means[-1], names[0])}"
    return (
        f"metrics  {', '.join(means)} {verb} over both classes · of {names[rarer]} alone: "
        f"metrics.{means[-1]}.average=binary{chosen}"
    )


def _about_one(
    ones: Sequence[str], metrics: Mapping[str, Metric], names: Sequence[object], place: int, rarer: int
) -> str:
    """Return of which class metrics are; of two classes also how to see the rarer one, where the metric has a key for it."""
    text = f"metrics  {', '.join(ones)} {'is' if len(ones) == 1 else 'are'} of class {names[place]}"
    if len(names) != 2 or place == rarer or isinstance(metrics[ones[-1]], Adapter):
        return text
    return f"{text} · of {names[rarer]}: {_positive(ones[-1], names[rarer])}"


def _positive(metric: str, name: object) -> str:
    return shlex.quote(assigned(f"metrics.{metric}.positive", name))


def _class_of(metric: Metric) -> int | None:
    """Return the class that a metric is of alone; None for one of both classes."""
    if isinstance(metric, Adapter):
        return 1 if metric.binary else None
    return getattr(metric, "positive", None) if getattr(metric, "average", None) == "binary" else None


# Building and checking --------------------------------------------------------------------------------------------


def facts_of(spec: DataSpec, target: object) -> tuple[object, ...]:
    """Return the arguments of the program in the order of the group: spec, num_classes, num_outputs, class_names, task."""
    # torchmetrics' word for classes
    task = "multiclass" if is_torchmetrics(target) else spec.task
    return spec, spec.num_classes, spec.num_classes, spec.class_names, task


def as_metric(built: object, name: str, spec: DataSpec, fitting: Mapping[str, str]) -> Values | Metric:
    """Return what a word of `metrics` built, adapted to the protocols and checked.

    fitting: the words for each task, for the message. Raises ValueError, without the word's name, for what does not fit.
    """
    if name in RESERVED:
        raise ValueError(f"a column `{name}` exists already; rename the file of the word")
    metric: Any = Adapter(built) if is_torchmetrics(type(built)) else built
    needs = getattr(getattr(metric, "func", metric), "needs", ())
    unfit = [kind for kind, task in NEEDED.items() if kind in needs and task != spec.task]
    if unfit:
        raise ValueError(
            f"it needs {unfit[0]}, and the task of this dataset is {spec.task}. "
            + (f"For it: {fitting[spec.task]}" if spec.task in fitting else "Leave it out: metrics=[]")
        )
    if isinstance(metric, Adapter):
        metric.check_classes(spec.num_classes)
    if not _is_function(metric):
        _check_direction(metric)
    return metric


def is_object(metric: Values | Metric) -> bool:
    """Return whether a metric is updated batch by batch; else it is a function of the samples."""
    return not _is_function(metric)


def _is_function(metric: object) -> bool:
    return callable(metric) and not hasattr(metric, "update")


def _check_direction(metric: object) -> None:
    direction = getattr(metric, "direction", None)
    if direction is not None and direction not in BETTER:
        raise ValueError(f'`{type(metric).__name__}.direction` is {direction!r}; it must be "min" or "max"')


def check_samples(metrics: Mapping[str, Values], outputs: Tensor, targets: Tensor) -> None:
    """Try each function of the samples on a few. Raises ValueError, beginning with the word, for an error or another shape."""
    for name, metric in metrics.items():
        try:
            values = metric(outputs, targets)
        except Exception as error:
            raise ValueError(f"metrics.{name}: {_failure(error, outputs, targets)}") from error
        if not isinstance(values, Tensor) or values.shape != (len(outputs),):
            shown = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"metrics.{name} gives {shown}; it must be one value for each sample, a tensor of shape (B,).\n"
                f"For a metric that is no mean over samples write a class: {UPDATE}, {COMPUTE}"
            )


def _failure(error: Exception, outputs: Tensor, targets: Tensor) -> str:
    if isinstance(error, ValueError) and _is_of_metric(error):
        return str(error)
    shapes = f"outputs of shape {tuple(outputs.shape)} and targets of shape {tuple(targets.shape)}"
    reason = (str(error).strip().splitlines() or [""])[0]
    return f"it fails with {shapes}:\n{type(error).__name__}: {reason}"


def _is_of_metric(error: Exception) -> bool:
    """Return whether a metric that was tried raised an error itself, with a message for its user, and not what it calls."""
    place = error.__traceback__ and error.__traceback__.tb_next
    return place is not None and place.tb_next is None


def check_values(measures: Measures, outputs: Tensor, targets: Tensor) -> None:
    """Try each metric on a few samples. Raises ValueError, beginning with the word, for an error or another than one number."""
    for name, metric in measures.metrics.items():
        alone = replace(measures, metrics={name: metric}).fresh()
        kind, step = type(metric).__name__, "update"
        try:
            alone.update(outputs, targets)
            step = "compute"
            value = next(iter(alone.metrics.values())).compute()
        except Exception as error:
            raise ValueError(
                f"metrics.{name}: `{kind}.{step}`: {_failure(error, outputs, targets)}"
            ) from error
        if not _is_number(value):
            shown = (
                f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:60]
            )
            raise ValueError(
                f"metrics.{name}: `{kind}.compute` returns {shown}; it must be one number for all samples."
                + (f"\nFor one number: metrics.{name}.average=macro" if averages(metric) else "")
            )


def averages(metric: object) -> bool:
    """Return whether a metric, or the one that it adapts, has a choice of averages."""
    return hasattr(getattr(metric, "metric", metric), "average")


def average_of(metric: object) -> object:
    """Return the average over the classes that a metric, or the one that it adapts, is; None without a choice."""
    return getattr(getattr(metric, "metric", metric), "average", None)


def _is_number(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, int | float) or (hasattr(value, "item") and getattr(value, "size", 0) == 1)
