"""The data of a run: the dataset of the configuration, split and normalized."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltrain.config.door import Door
from dltrain.config.schema import Config, DatasetKnobs
from dltrain.data.changes import data_changes
from dltrain.data.contract import Contract
from dltrain.data.errors import DataError
from dltrain.data.prepare import Splits, prepare
from dltrain.data.progress import progress_shown
from dltrain.data.raw import Encoder, RawData
from dltrain.data.torch_dataset import as_raw
from dltrain.data.unused import COMMON_KEYS, refuse_unused
from dltrain.errors import DataProblem, UserError, assigned, typed
from dltrain.run.plan import check_memory
from dltrain.run.source import run_of
from dltrain.storage.run_folder import read_contract

SCHEDULES = ("schedule", "momentum_schedule", "penalty_schedule")
# values by which a key asks for nothing; null or an empty list for all others
_OFF = {"class_weights": "none", "bootstrap": False}


def build_data(
    config: Config,
    door: Door,
    device: torch.device,
    statistics: Mapping[str, Tensor] | None,
    contract: Contract | None = None,
    tolerant: bool = False,
) -> Splits:
    """Load the dataset and split it; the splits and folds depend on `dataset.split_seed` only, a bootstrap sample on `seed` and `fold`.

    tolerant: leave out rows of a table that do not fit the contract, and name them in `broken` notes.
    """
    machine: dict[str, Any] = {"device": device, "workers": config.workers, "statistics": statistics}
    machine |= {"worker_timeout": config.worker_timeout, "contract": contract}
    machine["without_val"] = without_val(config)
    common = {key: config.dataset[key] for key in COMMON_KEYS}
    common["bootstrap"] = config.seed if common["bootstrap"] else None
    with data_problems(), progress_shown(not config.quiet):
        raw = load_data(config, door, contract, tolerant)
        if not isinstance(raw.inputs, Tensor | Encoder):
            check_memory(config, len(raw), raw.inputs.shape)
        return prepare(raw, **common, folds=config.folds, fold=config.fold, **machine)


def check_skipped(run: Path, known: Contract | None, found: Contract | None) -> None:
    """Raise DataProblem where other samples are skipped than in the training of a run, whose contract is `known`."""
    if known is None or set(known.skipped) == set(found.skipped if found is not None else ()):
        return
    again = typed("rerun", run, "dataset.broken=skip")
    raise DataProblem(
        f"{run}: the data are not those of its training: {data_changes(known, found)}.\n"
        f"Put the former files back, or train on those that can be used now: {again}"
    )


def check_resumed(run: Path, known: Contract | None, found: Contract | None) -> None:
    """Raise DataProblem where the data of a run to resume are not those that it was trained on."""
    check_skipped(run, known, found)
    if changed := data_changes(known, found):
        raise DataProblem(
            f"{run}: the data are not those that the run was trained on ({changed}). Put the former ones back, or start "
            f"another run with these: {typed('rerun', run)}"
        )


def other_data(path: Path, config: Config, changed: str, words: Sequence[str], all_of: str) -> DataProblem:
    """Return the refusal to divide data that are not those of the training of a run; `changed` says how they differ.

    words: the command that was typed, without its dltrain; all_of: the verb by which all of the present data are used as new ones, if any
    """
    key = next((key for key in ("path", "root") if config.dataset.get(key)), "")
    cures = ["Put the former data back"]
    if key:
        cures[0] += f", or say where they are: {typed(*words)} dataset.{key}=NEW"
    if key and all_of:
        place = str(config.secrets.get(f"dataset.{key}", config.dataset[key]))
        # of `predict` the data are an argument, of `evaluate` a key
        last = place if all_of == "predict" else assigned(f"dataset.{key}", place)
        cures.append(
            f"To use all of the present ones, of which some may be of the training: {typed(all_of, path, last)}"
        )
    return DataProblem(
        "\n".join(
            [
                f"the data of {path} are not those that it was trained on ({changed}), so that its splits are not known.",
                *cures,
            ]
        )
    )


def without_val(config: Config) -> str:
    """Return what to type for a run without a val split: whatever looks at val looks at train then."""
    groups = (
        name for name in ("early_stopping", *SCHEDULES) if is_of_val(getattr(config, name).get("metric"))
    )
    return " ".join(["dataset.val_fraction=0", *(f"{name}.metric=train/loss" for name in groups)])


def is_of_val(metric: object) -> bool:
    """Return whether a column needs a val split."""
    return metric == "gap" or str(metric).startswith("val/")


def load_data(
    config: Config, door: Door, contract: Contract | None = None, tolerant: bool = False
) -> RawData:
    """Load the dataset; tables and arrays are read by the contract of an earlier run, if it is given.

    Without one, its features are those of the run whose weights are loaded, where it has the columns.
    """
    own = {key: value for key, value in config.dataset.items() if key not in COMMON_KEYS}
    if contract is not None:
        runtime = {"contract": contract, "tolerant": tolerant}
        own |= {name: value for name, value in runtime.items() if takes(name, door, config)}
    elif (like := contract_of_weights(config, door)) and takes("like", door, config):
        own["like"] = like
    with data_problems():
        return with_columns(as_raw(door.build(own, "dataset", common=COMMON_KEYS)))


def contract_of_weights(config: Config, door: Door) -> Contract | None:
    """Return the contract of the run of tables that the initial weights come from; None where they do not come from one."""
    node = config.initializer
    folder = run_of(node.get("path"))
    if folder is None or not node.get("_target_"):
        return None
    if "differences" not in inspect.signature(door.locate(node["_target_"], "initializer")).parameters:
        return None
    known = read_contract(folder)
    return known if known is not None and known.columns else None


def with_columns(raw: RawData) -> RawData:
    """Return rows of numbers whose features have names as columns, by which `predict` and `export` find them in other data."""
    inputs = raw.inputs
    if (
        not raw.feature_names
        or not isinstance(inputs, Tensor)
        or inputs.ndim != 2
        or not inputs.isfinite().all()
    ):
        return raw
    from dltrain.data.tables.encode import number_columns

    return replace(raw, inputs=number_columns(raw.feature_names, inputs))


def takes(name: str, door: Door, config: Config) -> bool:
    """Return whether the dataset takes an argument, such as the contract of a run by which it reads other files."""
    return name in inspect.signature(door.locate(config.dataset["_target_"], "dataset")).parameters


def check_unused(splits: Splits, config: Config, door: Door, given: Collection[str]) -> tuple[str, ...]:
    """Refuse keys that were given and change nothing for these data; return lines on those that a file sets so.

    Raises DataProblem.
    """
    asked = {
        key
        for key in given
        if config.dataset.get(name := key.removeprefix("dataset.")) not in (_OFF.get(name), [])
    }
    with data_problems():
        refuse_unused(splits.unused, asked)
    own = inspect.signature(door.locate(config.dataset["_target_"], "dataset")).parameters
    defaults = {"target_scale": "unit"} | {name: parameter.default for name, parameter in own.items()}
    defaults |= asdict(DatasetKnobs())
    return tuple(
        f"unused   dataset.{key}={config.dataset[key]}: {why}"
        for key, why in splits.unused.items()
        if config.dataset.get(key, defaults.get(key)) != defaults.get(key)
    )


@contextmanager
def data_problems() -> Iterator[None]:
    """Turn errors of the data into DataProblem, with its exit code."""
    try:
        yield
    except DataError as error:
        raise DataProblem(str(error)) from error
    except UserError as error:
        if isinstance(error.__cause__, DataError):
            raise DataProblem(str(error.__cause__)) from error
        raise
