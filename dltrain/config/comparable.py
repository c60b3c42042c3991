"""Which keys of a configuration decide how a metric is computed: its values in runs that differ in one do not compare.

Configurations are by dotted key, with the words by group, as `config.saved.flat` returns them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dltrain.screen.table import typed

# what the samples are on which the metrics of training are measured, and with which units
_TRAINING = (
    "augmentation",
    "sampler",
    "dataset.limit",
    "dataset.bootstrap",
    "model.dropout",
    "model.stochastic_depth",
)
_BY_SPLIT = {"train": _TRAINING}
_BY_NAME = {"gap": _TRAINING, "objective": ("loss", "dataset.class_weights", "dataset.target_scale")}
_DEFAULTS = {"dataset.target_scale": "unit"}


def definition_of(metric: str) -> tuple[str, ...]:
    """Return the keys, or groups of them, that decide how a metric is computed, beside the data.

    >>> definition_of("val/f1"), definition_of("val/loss")
    (('metrics.f1',), ('metrics.loss',))
    """
    split, _, name = metric.rpartition("/")
    return (f"metrics.{name}", *_BY_NAME.get(name, ()), *_BY_SPLIT.get(split, ()))


def changes(metric: str, configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the different values of each key that decides how a metric is computed; nothing where all are equal.

    A key that a configuration lacks is not compared: it belongs to another word, or to a metric that it does not choose.
    """
    groups = definition_of(metric)
    keys = [key for key in sorted(set().union(*configs)) if _is_in(key, groups)]
    found: dict[str, list[Any]] = {}
    for key in keys:
        values: list[Any] = []
        for value in (c.get(key, _DEFAULTS.get(key)) for c in configs if key in c or key in _DEFAULTS):
            if value not in (*values, {}):
                values.append(value)
        if len(values) > 1:
            found[key] = values
    return _told(found)


def _is_in(key: str, groups: Sequence[str]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def _told(found: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Leave out the keys of words that differ themselves, and the target where another key says it."""
    below = {
        key: values for key, values in found.items() if key.partition(".")[0] not in found or "." not in key
    }
    plain = {key: values for key, values in below.items() if not key.rpartition(".")[2].startswith("_")}
    return plain or below


def described(found: Mapping[str, Sequence[Any]]) -> str:
    """Return changes as text.

    >>> described({"loss.delta": [2.0, 0.1], "sampler": ["none", "hard"]})
    'loss.delta is 0.1 or 2; sampler is hard or none'
    """
    parts = (f"{key} is {' or '.join(sorted(map(_text, values)))}" for key, values in sorted(found.items()))
    return "; ".join(parts)


def _text(value: Any) -> str:
    return "none" if value in (None, []) else str(typed(value))


def plain_of(metric: str) -> str:
    """Return the metric that compares where another one is computed differently: the plain loss, of val for those of training."""
    split = metric.rpartition("/")[0]
    return f"{split if split not in ('', 'train') else 'val'}/loss"
