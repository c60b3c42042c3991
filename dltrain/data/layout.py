"""Samples of two axes (A, B), which are gray images, sequences or channels: their shape does not tell.

Libraries differ: Keras and the recurrent layers of torch have the features last, `nn.Conv1d`, aeon and sktime the channels first, and
arrays of gray images have neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dltrain.data.contract import Contract
from dltrain.data.raw import Encoder, Layout, RawData

# samples whose deviations are compared
_COMPARED = 4096
# largest by smallest deviation of features, from which one of all together is said to hide some
_UNEQUAL = 100.0
NOTE = "inputs   "


def known_axes(contract: Contract | None, statistics: Mapping[str, Tensor] | None) -> int | None:
    """Return the number of axes of a sample in an earlier run; None without one."""
    if contract is not None:
        return len(contract.input_shape)
    # of images it is (C, 1, 1)
    return None if statistics is None else statistics["mean"].ndim


def arranged(raw: RawData, layout: Layout, known: int | None = None) -> RawData:
    """Return samples (N, A, B) as `layout` has them: gray images (N, 1, A, B), or as they are, as floats, with the features named.

    known: the number of axes of a sample in the run whose data these are, which decides where `layout` does not
    """
    if isinstance(raw.inputs, Encoder) or len(raw.inputs.shape) != 3 or not isinstance(raw.inputs, Tensor):
        count = (
            1 if isinstance(raw.inputs, Encoder) else len(raw.inputs.shape) - isinstance(raw.inputs, Tensor)
        )
        axes = "1 axis" if count == 1 else f"{count} axes"
        reason = f"samples of {axes} have one layout; it is for samples (A, B)"
        return replace(raw, layout="auto", unused={**raw.unused, "layout": reason})
    chosen = raw.layout if layout == "auto" else layout
    if chosen == "auto" and known is not None and known != 3:
        # a run from before there were layouts
        return replace(raw, inputs=raw.inputs.float())
    notes = (*raw.notes, NOTE + _note(raw.inputs, chosen))
    if chosen in ("auto", "image"):
        return replace(raw, inputs=raw.inputs[:, None], layout="image", notes=notes)
    return replace(raw, inputs=raw.inputs.float(), layout=chosen, notes=notes)


def layout_line(notes: Sequence[str]) -> str:
    """Return the line on samples of two axes among notes, to be added to a message; empty where there is none."""
    return "".join(f"\n{note}" for note in notes if note.startswith(NOTE))


def _note(inputs: Tensor, layout: Layout) -> str:
    _, first, last = inputs.shape
    if layout == "sequence":
        return f"sequences of {first} steps with {last} features, one mean and deviation for each feature"
    if layout == "channels":
        return f"{first} channels of {last} steps, one mean and deviation for each channel"
    images = f"{first}×{last} values as gray images, one mean and deviation for all"
    if layout == "image":
        return images
    return (
        f"{images}{_unequal(inputs)}; for one per feature: of sequences of {last} features dataset.layout=sequence, of {first} channels "
        "dataset.layout=channels"
    )


def _unequal(inputs: Tensor) -> str:
    """Return how far the deviations of features differ along the axis where they differ most, as a part of the note."""
    if not inputs.is_floating_point():
        return ""
    some = inputs[:: max(1, len(inputs) // _COMPARED)]
    found = {
        name: torch.std(some, axes, correction=0) for name, axes in {"last": (0, 1), "first": (0, 2)}.items()
    }
    ends = {
        name: deviations[deviations > 0].aminmax()
        for name, deviations in found.items()
        if (deviations > 0).any()
    }
    if not ends:
        return ""
    name = max(ends, key=lambda name: float(ends[name].max / ends[name].min))
    low, high = (float(end) for end in ends[name])
    if high < _UNEQUAL * low:
        return ""
    return f", though those of the {name} axis have deviations from {low:.3g} to {high:.3g}"
