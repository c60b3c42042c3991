"""Jobs of a sweep that train the same, though their values differ."""

from __future__ import annotations

import json
from collections.abc import Sequence

from dltrain.config.keys import with_defaults
from dltrain.config.schema import Config
from dltrain.sweep.jobs import Chosen

# groups whose words act in the given order
_ORDERED = ("wrap", "augmentation")
_CONSTANT = {"start": 1.0, "warmup_steps": 0, "warmup_epochs": 0.0}


def effect_of(config: Config) -> str:
    """Return a text that is equal for configurations that are written differently and train the same.

    Known are null for the default batch size and number of epochs, schedule=constant that changes nothing, and the order of
    regularization.
    """
    plain = with_defaults(config.plain)
    for group in _ORDERED:
        plain[group] = list((plain.get(group) or {}).items())
    schedule = plain.get("schedule") or {}
    target = str(schedule.get("_target_"))
    if target == "dltrain.schedules.constant" and all(schedule.get(k, v) == v for k, v in _CONSTANT.items()):
        target = "None"
    if target == "None":
        plain["schedule"] = {}
    return json.dumps(plain, sort_keys=True, default=str)


def equal_jobs(jobs: Sequence[tuple[Chosen, Config]]) -> str:
    """Return a line that names two jobs that train the same, and how many repeat another one; empty where none does."""
    first: dict[str, Chosen] = {}
    pairs = []
    for values, config in jobs:
        known = first.setdefault(effect_of(config), values)
        if known is not values:
            pairs.append((known, values))
    if not pairs:
        return ""
    shown = [
        " ".join(f"{key}={value}" for key, value in job.items() if job[key] != other.get(key))
        or "the defaults"
        for job, other in (pairs[0], pairs[0][::-1])
    ]
    count = f"{len(pairs)} of {len(jobs)} jobs repeat another one" if len(pairs) > 1 else "two jobs are equal"
    return f"{count}: {shown[0]} trains as {shown[1]} does; leave one of them out"
