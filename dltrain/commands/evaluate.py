"""`dltrain evaluate RUN… [key=value …]`: score runs and their ensemble, on dataset.path=FILE too; --json."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from dltrain.commands.asked import distinct_runs, moved_data, take_threshold
from dltrain.commands.configurations import check_no_sweep
from dltrain.commands.decided import check_decided, columns_of, of_own_data, tell_idle_seed
from dltrain.commands.resume import split_arguments, take_config_dir, warn_of_direction
from dltrain.commands.train import say_what_is_read
from dltrain.config import saved
from dltrain.config.catalogue import Catalogue
from dltrain.config.compose import compose, open_catalogue, open_hydra
from dltrain.config.data_files import check_beside
from dltrain.config.door import door_for_saved
from dltrain.config.keys import DIVIDING, SPLITTING, check_division, check_used, keys_of
from dltrain.config.schema import Config, DatasetKnobs
from dltrain.config.validation import check_copies, plain_config
from dltrain.errors import DataProblem, UserError

COMMON = frozenset(field.name for field in fields(DatasetKnobs))


HELP = """
    RUN is a run folder; several are scored one by one, and as an ensemble on the splits that they share. The val and test
    splits are scored, of other data (dataset.path=FILE, dataset.root=FOLDER) all samples. Below stand the scores of
    each class, or of each target of a regression on several, in its units.

  --threshold CLASS=0.3   of two classes: predict CLASS where its probability is at least 0.3; accuracy, the confusion matrix and what
                          follows from it change, the loss and auroc do not. Without it thresholds are proposed, by the val split
  --json                  one JSON document on standard output
  key=value               metrics=[f1,auroc], evaluation.bootstrap=200, evaluation.tta=8, dataset.path=FILE

    objective is what the training minimized, where loss measures something else. Of an ensemble, evaluation.tta and
    evaluation.mc_dropout: loss_sd and deviation are the standard deviations of the loss and of a quantity over the
    passes, entropy is that of the mean probabilities, and disagreement the part of it that the passes do not share.

Examples
  dltrain evaluate outputs/csv/2026-01-31_12-00-00-abcd
  dltrain evaluate outputs/csv/2026-01-31_12-00-00-abcd metrics=[f1,auroc]
  dltrain evaluate outputs/csv/2026-01-31_12-00-00-abcd --threshold yes=0.3
"""


def run(arguments: list[str]) -> int:
    """Print the scores of each run's best weights, and of their mean output where there are several; 3 where rows were left out."""
    as_json, typed = "--json" in arguments, arguments
    arguments, config_dir = take_config_dir([text for text in arguments if text != "--json"])
    arguments, decision = take_threshold(arguments)
    paths, given = split_arguments(arguments)
    if not paths:
        raise UserError("Name at least one run folder: dltrain evaluate outputs/NAME/DATE_TIME-xxxx")
    for path in paths:
        check_no_sweep(path, "scored", ["evaluate"], given)
    paths = distinct_runs(paths)
    catalogue = open_catalogue(config_dir)
    instead, overrides = chosen_metrics(given, catalogue)
    whole = names_other_data(overrides)
    configs = [read(path, catalogue, overrides, instead, whole) for path in paths]
    originals = [saved.read(path, catalogue, of_own_data(overrides), instead=instead) for path in paths]
    doors = [door_for_saved(config, catalogue, overrides) for config in configs]
    for path, config in zip(paths, configs, strict=True):
        warn_of_direction(path, config)
    say_what_is_read(configs[0], catalogue)

    from dltrain.run import scores
    from dltrain.run.scoring import score_runs

    resamples = configs[0].evaluation.bootstrap
    try:
        found = score_runs(
            paths, configs, doors, resamples, whole, originals, decision, without_test(overrides, configs[0])
        )
    except DataProblem as error:
        raise moved_data(error, configs, paths, ["evaluate", *typed], catalogue) from error
    if as_json:
        print(scores.as_json(found, resamples))
    else:
        scores.print_scores(found)
        scores.print_details(found, resamples)
    return DataProblem.exit_code if any(score.left_out for score in found) else 0


def read(
    path: Path, catalogue: Catalogue, overrides: list[str], instead: dict[str, dict[str, Any]], whole: bool
) -> Config:
    """Return the configuration by which a run is scored. Raises UserError for a change that a score does not depend on."""
    repeat = saved.repeating(path, catalogue)
    if not whole:
        check_division(overrides, path, repeat)
    check_used(overrides, path, repeat)
    config = saved.read(path, catalogue, overrides, instead=instead)
    if whole:
        original = saved.read(path, catalogue, of_own_data(overrides), instead=instead)
        # the images of a run without a size may be brought to that of its model
        pictures = ("image_size", "resize") if original.dataset.get("image_size") is not None else ()
        check_decided(path, config, overrides, catalogue, (*columns_of(config.dataset), *pictures))
        check_beside("evaluate", path, config, original, overrides, catalogue)
    tell_idle_seed(overrides, config)
    return named_copies(config, catalogue)


def without_test(overrides: Iterable[str], config: Config) -> bool:
    """Return whether an override leaves the test split out.

    A job of a sweep has evaluation.test=false without an override, and its test split is scored.
    """
    return "evaluation.test" in keys_of(overrides) and not config.evaluation.test


def chosen_metrics(overrides: list[str], catalogue: Catalogue) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the nodes of `metrics=[…]`, composed like those of a run, with their default keys, and the other changes."""
    words = [text for text in overrides if text.startswith("metrics=")]
    if not words:
        return {}, overrides
    nodes = plain_config(compose(words, catalogue, open_hydra(catalogue)))["metrics"]
    return {"metrics": nodes}, [text for text in overrides if text not in words]


def names_other_data(overrides: list[str]) -> bool:
    """Return whether the changes name other data than those of the runs, all of which are scored.

    Raises UserError for a change beside it that would divide these data.
    """
    keys = [
        text.partition("=")[0].removeprefix("dataset.") for text in overrides if text.startswith("dataset.")
    ]
    own = [key for key in keys if key not in (*COMMON, *SPLITTING)]
    dividing = [key for key in keys if f"dataset.{key}" in DIVIDING or key in SPLITTING]
    if own and dividing:
        raise UserError(
            f"`dataset.{dividing[0]}` belongs to the training, and of other data (`dataset.{own[0]}`) every sample is scored.\n"
            f"Leave out dataset.{dividing[0]}"
        )
    return bool(own)


def named_copies(config: Config, catalogue: Catalogue) -> Config:
    """Return the configuration with the words of `evaluation.tta_words` instead of the augmentation of the training.

    A word that the run was trained with keeps its keys, another has its defaults. Raises UserError for an unknown word.
    """
    if not config.evaluation.tta_words:
        return config
    known = catalogue.words["augmentation"]
    nodes: dict[str, Any] = {}
    check_copies(config.evaluation.tta_words, catalogue)
    for word in config.evaluation.tta_words:
        nodes[word] = config.augmentation.get(word) or known[word].configuration()["augmentation"][word]
    return replace(config, augmentation=nodes)
