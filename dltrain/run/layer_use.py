"""Find which layers a model uses first and last: by a forward pass of a new run, or in the record of an earlier one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from dltrain.config.keys import OWN
from dltrain.storage.summary import read_summary
from dltrain.weight_layers import Use, note_use, use_of, watch

# of summary.json
KEY = "layers"


def is_own(model: nn.Module) -> bool:
    """Return whether the model is of a class of the program, which registers its layers in the order of use."""
    return type(model).__module__.startswith(OWN)


def find_use(model: nn.Module, former: Use | None, samples: Callable[[], Tensor]) -> None:
    """Note the first and the last layer on a model: those of a `former` run, or those that `samples` go through."""
    if is_own(model):
        return
    if former is not None:
        note_use(model, former)
    else:
        watch(model, samples())


def use_fields(model: nn.Module) -> dict[str, object]:
    """Return the field of summary.json by which a resumed or scored run has the same last layer; none without a forward pass."""
    use = use_of(model)
    return {} if use is None or use == Use() else {KEY: use._asdict()}


def former_use(path: Path) -> Use | None:
    """Return the first and the last layer of an earlier run; None for one that was stopped before its first summary.

    A run of a version that did not record them keeps the order of registration: its optimizer state is in that order.
    """
    summary = read_summary(path)
    if "parameters" not in summary:
        return None
    found = summary.get(KEY)
    if not isinstance(found, dict):
        return Use()
    names = {key: found[key] for key in ("first", "last", "matrix") if isinstance(found.get(key), str)}
    gain = found.get("gain")
    return Use(**names, gain=gain if isinstance(gain, float) and math.isfinite(gain) else None)
