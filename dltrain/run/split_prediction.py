"""Predictions for a split of the data that a run was trained on, beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from dltrain.data.batches import Split
from dltrain.data.changes import data_changes
from dltrain.data.prepare import Source
from dltrain.data.split_names import SplitName
from dltrain.errors import UserError, typed
from dltrain.run.data import build_data, other_data
from dltrain.run.prediction import Predictions, Predictor
from dltrain.run.table import Array
from dltrain.storage.run_folder import checked_statistics


@dataclass(frozen=True)
class OfSplit:
    """Predictions for a split. file: the file of the rows; empty where they come from several, or from none."""

    found: Predictions
    file: str


def predict_split(member: Predictor, path: Path, name: SplitName, batch_size: int | None = None) -> OfSplit:
    """Return what a run says of a split of its data, with the outputs of `evaluate` to the last bit.

    Raises DataProblem where the data are gone or have changed, and UserError for a split that the run does not have.
    """
    contract = member.known_contract()
    splits = build_data(
        member.config, member.door, member.device, checked_statistics(path, contract), contract
    )
    if changed := data_changes(contract, splits.contract):
        words = ("predict", str(path), "--split", name)
        raise other_data(path, member.config, changed, words, "predict")
    source = cast(Source, splits.source)
    if name not in source.positions:
        raise UserError(
            f"`--split` is {name}, and {path} has no such split; it has {', '.join(source.positions)}"
        )
    split = cast(Split, getattr(splits, name))
    size, passes = member.checked_size(batch_size), member.passes()
    with passes.ready():
        batches = enumerate(split.batches(torch.arange(len(split)), size))
        outputs = [passes.outputs(b.inputs, b.targets, b.indices, number).cpu() for number, b in batches]
    positions = source.positions[name]
    places = source.locate(positions)
    found = member.predictions(torch.cat(outputs, 1), places.rows)
    targets = source.targets[positions].numpy()
    truth = np.array(found.class_names)[targets] if contract.task == "classification" else targets
    return OfSplit(replace(found, truth=truth), places.file)


def check_shared(
    members: Sequence[OfSplit], paths: Sequence[Path], name: str, predictors: Sequence[Predictor]
) -> None:
    """Raise UserError if runs do not have the same samples in a split; the message lists the alternatives."""
    first = members[0]
    for member, path in zip(members[1:], paths[1:], strict=True):
        if member.file != first.file or not _same(member.found, first.found):
            raise UserError(
                f"{paths[0]} and {path} do not share their {name} split (folds, other data, or another dataset.split_seed): no "
                f"ensemble of them.\nEach by itself: {typed('predict', path, '--split', name)}"
                + _of_shared_test(predictors, paths, name)
            )


def _of_shared_test(predictors: Sequence[Predictor], paths: Sequence[Path], name: str) -> str:
    """Return the way to an ensemble of runs that differ in their fold alone, and so share their test split."""
    datasets = [predictor.config.dataset for predictor in predictors]
    shared = (
        all(predictor.config.fold is not None for predictor in predictors)
        and all(predictor.known_contract().sizes.get("test") for predictor in predictors)
        and all(dataset == datasets[0] for dataset in datasets)
    )
    if not (shared and name != "test"):
        return ""
    return f"\nTogether, on the test split that they share: {typed('predict', *paths, '--split', 'test')}"


def _same(one: Predictions, other: Predictions) -> bool:
    pairs: list[tuple[Array | None, Array | None]] = [(one.where, other.where), (one.truth, other.truth)]
    return all(np.array_equal(cast(Array, a), cast(Array, b)) for a, b in pairs)
