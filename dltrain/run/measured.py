"""The measurements of every split: the metrics of the configuration, or those of the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dltrain.config.door import Door
from dltrain.config.schema import Config, Node
from dltrain.data.prepare import Splits
from dltrain.data.spec import DataSpec
from dltrain.data.units import in_units
from dltrain.errors import UserError, nearest
from dltrain.losses import is_yardstick, softmax_of, yardstick
from dltrain.metrics.measures import (
    Measures,
    as_metric,
    averages_note,
    facts_of,
    is_object,
    of_quantities,
    unbalanced,
)
from dltrain.metrics.probabilities import of_probabilities
from dltrain.metrics.samples import NEARLY_ZERO, RELATIVE, TASK_WORDS, default_metrics
from dltrain.run.data import SCHEDULES, is_of_val
from dltrain.text import counted
from dltrain.training.parts import Metric, Parts

# ratio of the deviations of two targets from which on the smaller one is below 1 % of their squared error
UNLIKE = 10.0


def choose_metrics(
    config: Config, door: Door, splits: Splits, loss: Metric
) -> tuple[dict[str, Metric], Measures, tuple[str, ...]]:
    """Choose the metrics of the configuration: functions of the samples, objects, and a line about them.

    loss: what is minimized, by whose probabilities the objects measure.

    None chosen: those of the task; of a regression mae, rmse and r2; where a class is rare, more than accuracy. Raises
    UserError for one that does not fit.
    """
    spec = splits.spec
    functions: dict[str, Metric] = {}
    objects: dict[str, Any] = {}
    for word, node in config.metrics.items():
        built = build_metric(node, word, door, spec)
        (objects if is_object(built) else functions)[word] = built
    if config.metrics:
        return functions, Measures(objects, spec, softmax_of(loss)), averages_note(objects, spec)
    functions = dict(default_metrics(spec.task))
    if spec.task == "regression":
        return functions, of_quantities(spec), ()
    if spec.task != "classification":
        return functions, Measures(), ()
    found, note = unbalanced(spec)
    return functions, replace(found, to_softmax=softmax_of(loss)), (note,) if note else ()


def zero_notes(
    metrics: Mapping[str, Metric], spec: DataSpec, targets: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Return a line where a metric divides by `targets`, by split, some of which are 0 or nearly: it says little then."""
    plain = {name: getattr(metric, "measure", metric) for name, metric in metrics.items()}
    names = [name for name, metric in plain.items() if getattr(metric, "func", metric) in RELATIVE]
    if not names:
        return ()
    sizes = torch.cat([spec.in_units(some).abs() for some in targets.values()])
    where = " and ".join(targets)
    count = int((sizes <= NEARLY_ZERO * sizes.mean()).sum())
    if not count:
        return ()
    return (
        f"metrics  {', '.join(names)}: {count:,} of {counted(sizes.numel(), 'target')} of {where} are 0 or nearly, by which it divides; "
        "mae, rmse and r2 do not",
    )


def build_metric(node: Node, word: str, door: Door, spec: DataSpec) -> Any:
    key = f"metrics.{word}"
    target = door.locate(node.get("_target_"), key)
    built = door.build(node, key, *facts_of(spec, target))
    try:
        return as_metric(built, word, spec, TASK_WORDS)
    except ValueError as error:
        raise UserError(f"{key}: {error}") from None


def measures(
    loss: Metric, spec: DataSpec, chosen: Mapping[str, Metric] | None = None
) -> tuple[dict[str, Metric], str]:
    """Return what is measured in every split, and which of it is the training objective.

    `loss` is the yardstick of the task, so that runs with different losses compare; a loss that differs from it is
    measured beside it, as `objective`. All but the objective is in real units where targets were standardized, and of
    classes by the probabilities of the loss (`Softmaxed`). `chosen` are the functions of the samples that are
    measured besides; None for those of the task.
    """
    functions = default_metrics(spec.task) if chosen is None else chosen
    if is_yardstick(loss, spec) and spec.target_scale is None:
        return {"loss": loss, **functions}, "loss"
    reported: dict[str, Metric] = {"loss": yardstick(spec), **functions}
    found = {
        name: of_probabilities(in_units(metric, spec), softmax_of(loss)) for name, metric in reported.items()
    }
    return found | {"objective": loss}, "objective"


def mixed_units(spec: DataSpec, names: Sequence[str], metric: str) -> tuple[str, ...]:
    """Return a line where the monitored loss of several targets, in their real units, follows the largest of them.

    names: those of the targets; empty where they have none.
    """
    scale = spec.target_scale
    if scale is None or metric.rpartition("/")[2] != "loss":
        return ()
    deviations = scale.std.tolist()
    low, high = min(deviations), max(deviations)
    if high < UNLIKE * low:
        return ()
    large, small = (str(names[i]) if names else f"y{i}" for i in map(deviations.index, (high, low)))
    alike = f"{metric.rpartition('/')[0]}/objective"
    return (
        f"targets  {metric} is in real units: {large} (deviation {high:.3g}) outweighs {small} ({low:.3g}) · all targets alike: "
        f"early_stopping.metric={alike}",
    )


def check_metrics(parts: Parts) -> None:
    """Raise UserError if early stopping or a plateau schedule looks at something that is not measured."""
    splits = ("train", "val") if parts.val is not None else ("train",)
    columns = [f"{split}/{name}" for split in splits for name in parts.metrics]
    columns += [f"{split}/{name}" for split in splits[1:] for name in parts.measures.metrics]
    columns += ["gap"] if parts.val is not None else []
    schedules = zip(SCHEDULES, (parts.schedule, parts.momentum_schedule, parts.penalty_schedule), strict=True)
    plateaus = ((key, schedule) for key, schedule in schedules if schedule in parts.plateaus)
    looks: list[tuple[str, Any]] = [("early_stopping", parts.early_stopping), *plateaus]
    missing = {key: watcher.metric for key, watcher in looks if watcher.metric not in columns}
    for key, metric in missing.items():
        measured = f"It measures: {', '.join(columns)}"
        if parts.val is None and is_of_val(metric):
            cures = " ".join(f"{other}.metric={_of_train(name, columns)}" for other, name in missing.items())
            raise UserError(
                f"`{key}.metric` is {metric}, which this run does not measure: it has no val split. Add {cures}\n{measured}"
            )
        cure = _missing_word(key, metric, parts)
        name = metric.rpartition("/")[2]
        same = [column for column in reversed(columns) if column.rpartition("/")[2] == name]
        near = f" Did you mean `{same[0]}`?" if same else "" if cure else nearest(metric, columns)
        raise UserError(
            f"`{key}.metric` is {metric}, which this run does not measure.{near}\n{measured}{cure}"
        )


def _of_train(metric: str, columns: Sequence[str]) -> str:
    """Return the column of the training split for one of val: the same metric where it is measured there, else the loss."""
    column = f"train/{metric.rpartition('/')[2]}"
    return column if column in columns else "train/loss"


def _missing_word(key: str, metric: str, parts: Parts) -> str:
    """Return the words that would measure a column, where its name is that of a shipped metric for this task."""
    name = metric.rpartition("/")[2]
    chosen = [word for word in (*parts.metrics, *parts.measures.metrics) if word not in ("loss", "objective")]
    if name not in TASK_WORDS.get(parts.spec.task, "").split(", ") or name in chosen or parts.val is None:
        return ""
    column = f" {key}.metric=val/{name}" if metric != f"val/{name}" else ""
    return f"\nTo measure it: metrics=[{','.join([*chosen, name])}]{column}"
