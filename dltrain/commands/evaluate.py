"""`dltrain evaluate RUN…`: score trained runs on their splits, and several of them as an ensemble."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dltrain.commands.resume import split_arguments, take_config_dir, warn_of_direction
from dltrain.config import saved
from dltrain.config.catalogue import Catalogue
from dltrain.config.compose import open_catalogue
from dltrain.config.door import door_for_saved
from dltrain.config.schema import Config
from dltrain.errors import UserError, listing, nearest


def run(arguments: list[str]) -> int:
    """Print the scores of each run's best weights, and of the mean of their outputs where there are several."""
    arguments, config_dir = take_config_dir(arguments)
    paths, overrides = split_arguments(arguments)
    if not paths:
        raise UserError("Name at least one run folder: dltrain evaluate outputs/NAME/DATE_TIME-xxxx")
    catalogue = open_catalogue(config_dir)
    configs = [named_copies(saved.read(path, catalogue, overrides), catalogue) for path in paths]
    doors = [door_for_saved(config, catalogue, overrides) for config in configs]
    for path, config in zip(paths, configs, strict=True):
        warn_of_direction(path, config)

    from dltrain.run import scoring

    scoring.print_scores(scoring.score_runs(paths, configs, doors))
    return 0


def named_copies(config: Config, catalogue: Catalogue) -> Config:
    """Return the configuration with the words of `evaluation.tta_words` instead of the augmentation of the training.

    A word that the run was trained with keeps its keys, another has its defaults. Raises UserError for an unknown word.
    """
    if not config.evaluation.tta_words:
        return config
    known = catalogue.words["augmentation"]
    nodes: dict[str, Any] = {}
    for word in config.evaluation.tta_words:
        if word not in known or known[word].target is None:
            raise UserError(
                f"`evaluation.tta_words` names {word}, which is no augmentation.{nearest(word, known)}\n"
                f"{listing('Words of augmentation', known)}"
            )
        nodes[word] = config.augmentation.get(word) or known[word].configuration()["augmentation"][word]
    return replace(config, augmentation=nodes)
