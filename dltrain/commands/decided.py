"""Refusals of keys of the data that have no effect once a run is trained, since its data.json decides."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dltrain.config import saved
from dltrain.config.catalogue import Catalogue
from dltrain.config.keys import OF_COLUMNS, OF_PICTURES, READING, keys_of
from dltrain.config.schema import Config, Node
from dltrain.errors import UserError
from dltrain.errors import typed as command
from dltrain.text import say

TARGET_SCALE = "target_scale"


def columns_of(dataset: Node) -> tuple[str, ...]:
    """Return the keys of a dataset with columns by which a run chose and read them; of others, that of their scale."""
    return OF_COLUMNS if dataset.keys() >= {*OF_COLUMNS} else (TARGET_SCALE,) * (TARGET_SCALE in dataset)


def check_decided(
    path: Path, config: Config, overrides: list[str], catalogue: Catalogue, keys: Iterable[str]
) -> None:
    """Refuse changes of keys of the data that would do nothing: data.json of the run has what they decided."""
    typed = {text.partition("=")[0].lstrip("+"): text for text in overrides}
    given = [key for key in keys if f"dataset.{key}" in typed]
    original = saved.read(path, catalogue, of_own_data(overrides)).dataset if given else {}
    for key in given:
        if config.dataset.get(key) == original.get(key):
            continue
        text = typed[f"dataset.{key}"]
        saved.repeating(path, catalogue)(text)
        other = f" If that file has it under another name, rename its column to {original[key]}." * (
            key == "target"
        )
        raise UserError(
            f"`dataset.{key}` cannot change here: data.json of the run has what it decided. Leave {text} out.{other}\n"
            f"For a run with that change: {command('rerun', path, text)}"
        )


def tell_idle_seed(overrides: Iterable[str], config: Config) -> None:
    """Say that a seed changes nothing of a score or a prediction for which nothing is drawn."""
    if "seed" in keys_of(overrides) and not (config.evaluation.mc_dropout or config.evaluation.tta):
        say(
            "`seed` changes nothing here: it decides the draws of evaluation.mc_dropout and evaluation.tta, and neither is set"
        )


def check_reading(overrides: Iterable[str], columns: Iterable[str]) -> None:
    """Refuse keys of the data that have no effect on files to predict for; those of the training are read with --split only.

    columns: keys that are checked already
    """
    for text in overrides:
        group, _, key = text.partition("=")[0].lstrip("+").partition(".")
        if group == "dataset" and key not in (*READING, *columns, *OF_PICTURES):
            raise UserError(
                f"`{text.partition('=')[0]}` has no effect on the files to predict for, which are arguments. Leave {text} out"
            )


def of_own_data(overrides: list[str]) -> list[str]:
    """Return the changes that leave the data of a run and their splits as they were."""
    return [text for text in overrides if not text.startswith(("dataset", "folds=", "fold="))]
