"""The direction of every metric: whether lower or higher values are better."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

Mode = Literal["min", "max"]
# auto follows the metric
Choice = Literal["auto", "min", "max"]

# by the last part of a column's name, such as accuracy for val/accuracy
_DIRECTIONS: dict[str, Mode] = {
    "loss": "min",
    "objective": "min",
    "gap": "min",
    "error": "min",
    "mae": "min",
    "mse": "min",
    "rmse": "min",
    "mape": "min",
    "r2": "max",
    "spearman": "max",
    "accuracy": "max",
    "top_k": "max",
    "balanced_accuracy": "max",
    "precision": "max",
    "recall": "max",
    "f1": "max",
    "auroc": "max",
    "average_precision": "max",
    "cohen_kappa": "max",
    "mcc": "max",
    "calibration_error": "min",
    "images_per_second": "max",
}
BETTER: dict[Mode, str] = {"min": "lower is better", "max": "higher is better"}
# measured in training, too: means over samples
_OF_SAMPLES = ("loss", "objective", "accuracy", "top_k", "mae", "mape")
# names that only metrics of the user may have: none is proposed
_OF_THE_USER = frozenset(("error", "mse"))

# why configurations are not ranked by it
NO_RANK = "gap does not say which model is better: one that has learned nothing has none"

# columns of metrics.csv that say how far a run is and at what rate; with the gradient's norm, those that are neither better nor worse
RATES = ("seconds", "images_per_second")
PROGRESS = ("epoch", "step", "lr", *RATES)
NO_SCORES = (*PROGRESS, "grad_norm")
# numbers of summary.json that are costs of a whole run: lower is better; the row of an evaluation has its own `seconds`
TIMES = ("seconds", "peak_memory_bytes")
COSTS = ("parameters", *TIMES)
# end of the key by which the node of a metric states its direction
STATED = "._direction_"


def direction_of(metric: str, metrics: Mapping[str, object] | None = None) -> Mode | None:
    """Return whether lower (`min`) or higher (`max`) values of a column are better, or None if unknown.

    metrics: the nodes of the chosen metrics by word, of which the user's own state their direction as `_direction_`
    """
    name = metric.rpartition("/")[2]
    node = (metrics or {}).get(name)
    stated = node.get("_direction_") if isinstance(node, Mapping) else None
    if stated == "min" or stated == "max":
        return stated
    return _DIRECTIONS.get(name)


def metrics_of(config: object) -> dict[str, dict[str, object]]:
    """Return the nodes of the chosen metrics of a saved configuration by dotted key, as far as `direction_of` reads them."""
    found = {}
    for key, value in config.items() if isinstance(config, Mapping) else ():
        group, _, rest = str(key).partition(".")
        if group == "metrics" and rest.endswith(STATED):
            found[rest.removesuffix(STATED)] = {"_direction_": value}
    return found


def resolve_mode(metric: str, mode: Choice, metrics: Mapping[str, object] | None = None) -> Mode:
    """Replace `auto` by the direction of the metric. Raises ValueError for a metric of unknown direction."""
    if mode != "auto":
        return mode
    direction = direction_of(metric, metrics)
    if direction is None:
        raise ValueError(_unknown("metric", "mode", metric))
    return direction


def improves(value: float, best: float | None, mode: Mode, min_delta: float = 0.0) -> bool:
    """Return whether a finite value is better than `best` by more than `min_delta`."""
    if best is None or not math.isfinite(value):
        return math.isfinite(value)
    return value < best - min_delta if mode == "min" else value > best + min_delta


def mean_of(values: Sequence[float]) -> float:
    """Return the mean over the repetitions of a configuration."""
    return math.fsum(values) / len(values)


def rank_of_mean(values: Sequence[float], whole: bool, mode: Mode) -> tuple[bool, float]:
    """Return a sort key of a configuration: the best mean of its repetitions first, after them those that lack one.

    Args:
        whole: whether each repetition gave a value
    """
    mean = mean_of(values) if values else math.inf
    return not whole, mean if mode == "min" or not values else -mean


def problems(plain: Mapping[str, Any], words: Iterable[str] = ()) -> dict[str, str]:
    """Return why the `mode` of a group does not fit its `metric`, by group, for a configuration as plain data.

    words: all words of `metrics`, for the nearest name
    """
    found = {}
    for group, metric, mode in _watchers(plain):
        direction = direction_of(metric, plain.get("metrics"))
        if mode == "auto" and direction is None:
            chosen = list(plain.get("metrics") or {})
            found[group] = _unknown(f"{group}.metric", f"{group}.mode", metric, chosen, words)
        elif mode != "auto" and direction not in (None, mode):
            found[group] = (
                f"`{group}.mode` is {mode}, but of {metric} {BETTER[direction or mode]}.\n"
                f"Write {group}.mode=auto, which follows the metric."
            )
    return found


def resolved_modes(plain: Mapping[str, Any]) -> dict[str, Mode]:
    """Return the direction that each `mode` of a configuration stands for, by dotted path."""
    return {
        f"{group}.mode": resolve_mode(metric, mode, plain.get("metrics"))
        for group, metric, mode in _watchers(plain)
        if mode != "auto" or direction_of(metric, plain.get("metrics")) is not None
    }


def _watchers(plain: Mapping[str, Any]) -> Iterator[tuple[str, str, Choice]]:
    """Yield group, metric and mode of each group that compares evaluations."""
    for group, node in plain.items():
        if isinstance(node, dict) and isinstance(node.get("metric"), str):
            mode = node.get("mode")
            if mode in ("auto", "min", "max"):
                yield group, node["metric"], mode


def _unknown(
    metric_key: str, mode_key: str, metric: str, chosen: Sequence[str] = (), words: Iterable[str] = ()
) -> str:
    known = {*words, *chosen, *(_DIRECTIONS.keys() - _OF_THE_USER)} - {"none"}
    near = "" if metric.rpartition("/")[2] in (*known, *NO_SCORES) else _nearest(metric, known)
    name = near.rpartition("/")[2]
    lines = [
        f"`{metric_key}` is {metric}, and {mode_key}=auto does not know whether lower or higher is better."
    ]
    if near:
        add = f" Write metrics=[{','.join([*chosen, name])}] {metric_key}={near}"
        lines.append(f"Did you mean `{near}`?{add if name in words and name not in chosen else ''}")
    lines.append(
        f"{'Otherwise say' if near else 'Say'} which: {mode_key}=min (lower is better) or {mode_key}=max (higher); a metric of "
        'yours says it itself by `direction = "max"` in its class.'
    )
    return "\n".join(lines)


def value_of(row: Mapping[str, float], metric: str) -> float:
    """Return a metric from a row of metrics.csv; `gap` is |val/loss − train/loss|. Raises KeyError where the row lacks it."""
    return abs(row["val/loss"] - row["train/loss"]) if metric == "gap" else row[metric]


def value_in(row: Mapping[str, float], metric: str) -> float:
    """Return a metric from a row of metrics.csv; NaN where the row lacks it."""
    try:
        return value_of(row, metric)
    except KeyError:
        return math.nan


def _nearest(metric: str, names: Iterable[str]) -> str:
    """Return the column whose name begins so, or is most similar; of equal ones that with the same first letter."""
    split, _, own = metric.rpartition("/")
    rated = [
        (name.startswith(own), difflib.SequenceMatcher(None, own, name).ratio(), name[:1] == own[:1], name)
        for name in names
    ]
    begins, ratio, _, name = max(rated)
    if ratio < 0.5 and not begins:
        return ""
    split = split if split in ("val", "train") and name in _OF_SAMPLES else "val"
    return name if name in ("gap", "images_per_second") else f"{split}/{name}"
