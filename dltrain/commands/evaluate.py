"""`dltrain evaluate RUN…`: score trained runs on their splits, and several of them as an ensemble."""

from __future__ import annotations

from dltrain.commands.resume import split_arguments
from dltrain.config import saved
from dltrain.config.compose import open_catalogue
from dltrain.config.door import door_for_saved
from dltrain.errors import UserError


def run(arguments: list[str]) -> int:
    """Print the scores of each run's best weights, and of the mean of their outputs where there are several."""
    paths, overrides = split_arguments(arguments)
    if not paths:
        raise UserError("Name at least one run folder: dltrain evaluate outputs/NAME/DATE_TIME-xxxx")
    catalogue = open_catalogue()
    configs = [saved.read(path, catalogue, overrides) for path in paths]
    doors = [door_for_saved(config, catalogue, overrides) for config in configs]

    from dltrain import scoring

    scoring.print_scores(scoring.score_runs(paths, configs, doors))
    return 0
