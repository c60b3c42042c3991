"""The differences between the data of a run and those of the run that its initial weights come from."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from dltrain.data.contract import Contract
from dltrain.data.errors import some
from dltrain.data.prepare import Splits
from dltrain.data.tables.cures import typed
from dltrain.errors import UserError
from dltrain.initializers.pretrained import Differences
from dltrain.storage.run_folder import read_contract, read_statistics

# A shift of normalized inputs beyond the first, in deviations of the source run, is reported; so is a scale beyond the second.
_SHIFT, _SCALE = 0.1, 1.1
_SHOWN = 3


def differences_from(path: str | None, splits: Splits) -> Differences:
    """Compare the data of the run that a file of weights belongs to, if it is one, with the present data.

    Raises UserError for a table of other columns, CheckpointProblem for a run whose files cannot be read.
    """
    folder = run_of(path)
    there = read_contract(folder) if folder is not None else None
    here = splits.contract
    if folder is None or there is None or here is None:
        return Differences()
    _check_columns(there, here, str(path))
    shape = ""
    if there.input_shape != here.input_shape:
        shape = f"trained on samples of shape {there.input_shape}, these have {here.input_shape}"
    scales = (*_normalization(read_statistics(folder), splits), *_target_scale(there, here))
    return Differences(_outputs(there, here), shape, scales)


def run_of(path: object) -> Path | None:
    """Return the run folder that a file of weights belongs to; None for another file."""
    if not isinstance(path, str):
        return None
    place = Path(os.path.expanduser(path))
    if place.parent.name == "checkpoints":
        place = place.parent.parent
    # of a name that is too long, pathlib raises
    return place if os.path.isdir(place) else None


def _check_columns(there: Contract, here: Contract, path: str) -> None:
    """Refuse other features: the weights of the first layer would meet other quantities."""
    old, new = ([name for rule in c.columns for name in rule.features] for c in (there, here))
    if not old or not new or old == new:
        return
    missing, added = ([name for name in a if name not in b] for a, b in ((old, new), (new, old)))
    which = "; ".join(
        f"{what} {some(map(repr, names), 4)}"
        for what, names in (("not here:", missing), ("new:", added))
        if names
    )
    raise UserError(
        f"initializer.path={path} was trained on other columns ({which or 'in another order'}).\n"
        f"Weights are for the columns of their run: {_columns_cure(there, here)}, or start without them: initializer=default"
    )


def _columns_cure(there: Contract, here: Contract) -> str:
    """Return how a table has the columns of a run: without those that are new, where there are all of it."""
    old, new = ([rule.name for rule in c.columns] for c in (there, here))
    more = [name for name in new if name not in old]
    if not more or not set(old) <= {*new, *here.left_out}:
        return "give a table with the same ones"
    dropped = [name for name, reason in here.left_out.items() if reason == "dropped" and name not in old]
    return f"leave the new ones out, {typed('drop', [*dropped, *more])}"


def same_outputs(there: Contract, here: Contract) -> bool:
    """Return whether weights of the last layer mean the same for both data."""
    return not _outputs(there, here)


def _outputs(there: Contract, here: Contract) -> str:
    if there.task != here.task:
        return f"a {there.task} there, a {here.task} here"
    if there.task == "classification":
        # by their names, whatever the column is called; class folders have none
        same = (there.class_names, there.outputs) == (here.class_names, here.outputs)
        return "" if same else f"{_classes(there)} there, {_classes(here)} here"
    old, new = ([rule.name for rule in c.targets] for c in (there, here))
    if old != new or there.outputs != here.outputs:
        return f"{some(old) or there.outputs} there, {some(new) or here.outputs} here"
    return ""


def _classes(contract: Contract) -> str:
    names = some(contract.class_names, _SHOWN)
    return f"{contract.outputs} classes" + f": {names}" * bool(names)


def _normalization(there: dict[str, Tensor] | None, splits: Splits) -> tuple[str, ...]:
    """Return a line where inputs are shifted or scaled in another way than in the source run."""
    mean, std = splits.spec.mean.cpu(), splits.spec.std.cpu()
    if there is None or there["mean"].shape != mean.shape:
        return ()
    shift = ((mean - there["mean"]) / there["std"]).abs()
    scale = std / there["std"]
    far = (shift > _SHIFT) | (scale > _SCALE) | (scale < 1 / _SCALE)
    if not far.any():
        return ()
    if len(mean) > _SHOWN:
        return (
            f"normalized by this training split, which differs in {int(far.sum())} of {len(mean)} features",
        )
    numbers = [
        ", ".join(f"{float(v):.3g}" for v in t.flatten()) for t in (there["mean"], there["std"], mean, std)
    ]
    return (
        f"normalized by mean {numbers[2]} and deviation {numbers[3]}, there {numbers[0]} and {numbers[1]}",
    )


def _target_scale(there: Contract, here: Contract) -> tuple[str, ...]:
    """Return a line where the same targets are standardized in another way: the loaded head then gives other real values."""
    old, new = (contract.target_scale for contract in (there, here))
    if old is None or new is None or old.mean.shape != new.mean.shape:
        return ()
    shift, scale = ((new.mean - old.mean) / old.std).abs(), new.std / old.std
    if not bool(((shift > _SHIFT) | (scale > _SCALE) | (scale < 1 / _SCALE)).any()):
        return ()
    numbers = [
        ", ".join(f"{v:.3g}" for v in t.tolist()[:_SHOWN]) for t in (new.mean, new.std, old.mean, old.std)
    ]
    return (
        f"targets standardized by mean {numbers[0]} and deviation {numbers[1]}, there {numbers[2]} and {numbers[3]}",
    )
