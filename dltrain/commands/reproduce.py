"""`dltrain reproduce RUN [--replay K]`: train a run again, whole or in random stretches, and compare."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dltrain.commands.resume import newest_run, split_arguments, take_config_dir
from dltrain.commands.verify import OWN_KEYS, words_of_others
from dltrain.config import saved
from dltrain.config.compose import open_catalogue
from dltrain.config.door import door_for_saved
from dltrain.errors import FindingsFailure, UserError
from dltrain.storage.folder_names import check_files
from dltrain.text import show

if TYPE_CHECKING:
    from dltrain.run.reproduction import Comparison

HELP = """
    dltrain reproduce outputs/NAME/DATE_TIME-xxxx              train all of it again, and compare
    dltrain reproduce outputs/NAME/DATE_TIME-xxxx --replay 3   three random stretches between checkpoints
    dltrain reproduce outputs/NAME/DATE_TIME-xxxx tolerance=0.01

Trains in a temporary folder with the threads of the run, and compares rows, weights, states, scores and reports. It says
`same bits`, `same within noise` (relative deviations up to the tolerance, 0.001; only where versions, threads, processor
or device differ, or on a GPU), or `different`, the first step that differs, and the likely cause: exit code 10. A forgery
whose hashes were all rewritten passes `dltrain verify`; --replay K finds it with the printed probability.
"""
UNEXPLAINED = "the records were changed: versions, threads, processor, data and code are those of the run"


def run(arguments: list[str]) -> int:
    """Train again and print the comparison. Raises FindingsFailure where the run is different."""
    as_json = "--json" in arguments
    arguments, config_dir = take_config_dir([text for text in arguments if text != "--json"])
    arguments, replay = take_replay(arguments)
    paths, given = split_arguments(arguments)
    if len(paths) != 1:
        raise UserError("Name one run folder: dltrain reproduce outputs/NAME/DATE_TIME-xxxx")
    trust = [text for text in given if text.startswith("trust=")]
    path, tolerance = newest_run(paths[0]), tolerance_of([text for text in given if text not in trust])
    check_files(path)
    catalogue = open_catalogue(config_dir)
    config = saved.read(path, catalogue, trust)
    door = door_for_saved(config, catalogue, trust)

    # imports torch
    from dltrain.run.reproduction import TOLERANCE, reproduce

    found = reproduce(path, config, door, replay, TOLERANCE if tolerance is None else tolerance)
    if not found.where and (words := words_of_others(path, catalogue)):
        # no replay shows how its keys are called
        found.step, found.where = found.total, f"config.yaml, words: {words[0]}; expected {OWN_KEYS}"
    show(json.dumps(found.as_json(), indent=2) if as_json else page(found))
    if found.where:
        raise FindingsFailure(f"{path} was not reproduced: step {found.step} differs.")
    return 0


def take_replay(arguments: list[str]) -> tuple[list[str], int | None]:
    """Take `--replay K` out of the arguments."""
    rest, value, following = [], None, iter(arguments)
    for argument in following:
        option, equals, text = argument.partition("=")
        if option == "--replay":
            value = text if equals else next(following, "")
        else:
            rest.append(argument)
    if value is None:
        return rest, None
    if not (value.isascii() and value.isdecimal() and 0 < len(value) < 10 and int(value) > 0):
        raise UserError(f"`--replay` is {value!r}; it must be a number of stretches, such as --replay 3")
    return rest, int(value)


def tolerance_of(given: list[str]) -> float | None:
    """Return the value of `tolerance=`, the only key that the command takes."""
    value = None
    for text in given:
        key, _, number = text.partition("=")
        if key != "tolerance":
            raise UserError(
                f"`{text}` would make it another run: `dltrain reproduce` takes --replay K and tolerance=NUMBER.\n"
                "For a run with changes: dltrain rerun RUN key=value"
            )
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not 0 <= value < 1:
            raise UserError(f"`tolerance` is {number}; it must be a float in [0, 1)")
    return value


def page(found: Comparison) -> str:
    """Return what was replayed and how it compares, as lines."""
    mark = "✗" if found.where else "✓"
    lines = [f"{mark} {found.path}: {found.verdict}"]
    if found.where:
        lines += [f"  first difference   step {found.step}, {found.where}"]
        lines += [f"  likely cause       {'; '.join(found.causes) or UNEXPLAINED}"]
    elif found.deviation:
        lines += [
            f"  deviation          {found.deviation:.2g} at most; {'; '.join(found.causes) or 'rounding'}"
        ]
    spans = ", ".join(map(str, found.replayed))
    lines += [f"  replayed           steps {spans} of {found.total:,} ({found.share:.0%})"]
    counts = ", ".join(f"{count} {kind}" for kind, count in found.same.items())
    lines += [f"  same               {counts or 'nothing'}"]
    lines += [f"  not compared       {text}" for text in found.left_out]
    if not found.where and found.share < 1:
        lines += [
            f"  A forged step whose hashes were all rewritten is found with probability {found.share:.0%}, the share replayed."
        ]
    return "\n".join(lines)
