"""Shared by the verbs that look at runs: options, runs by name, and documents of `--json`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltrain.errors import CheckpointProblem, DataProblem, UserError, assigned, nearest, typed
from dltrain.storage.folder_names import OUTPUT, SWEEP_RECORD, is_run
from dltrain.storage.index import SUMMARY, Entry, Index, matches_of
from dltrain.storage.job_names import job_number, named_by_number
from dltrain.storage.shelves import shelved
from dltrain.text import say

if TYPE_CHECKING:
    from dltrain.config.catalogue import Catalogue
    from dltrain.config.schema import Config

# null stands for a value that JSON cannot hold, such as nan
NUMBER: dict[str, Any] = {"type": ["number", "null"]}
TEXT: dict[str, Any] = {"type": "string"}
TEXTS: dict[str, Any] = {"type": "array", "items": TEXT}
FAILURE: dict[str, Any] = {
    "type": "object",
    "properties": {"error": TEXT, "exit_code": {"type": "integer", "minimum": 1}},
    "required": ["error", "exit_code"],
    "additionalProperties": False,
}


def document_schema(**properties: Any) -> dict[str, Any]:
    """Return the JSON Schema of a verb's document: these properties, or the mistake that was refused."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "oneOf": [object_schema(**properties), FAILURE],
    }


def object_schema(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def threshold_in(text: str) -> tuple[str, float]:
    """Return the class and the probability of `--threshold CLASS=0.3`. Raises UserError for other forms."""
    name, _, value = text.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not name or not 0 < number < 1:
        raise UserError(
            f"`--threshold` is {text}; it must be a class and the probability from which on it is predicted, between 0 and 1, such "
            "as --threshold yes=0.3"
        )
    return name, number


def decision_of(threshold: Mapping[str, float] | None) -> tuple[str, float] | None:
    """Return the class and the probability of `threshold={"yes": 0.3}` of the Python API. Raises UserError for other forms."""
    if threshold is None:
        return None
    if not isinstance(threshold, Mapping) or len(threshold) != 1:
        raise UserError(
            f'`threshold` is {threshold!r}; it must be one class with a probability, such as {{"yes": 0.3}}'
        )
    ((name, value),) = threshold.items()
    return threshold_in(f"{name}={value}")


def take_threshold(arguments: Sequence[str]) -> tuple[list[str], tuple[str, float] | None]:
    """Take `--threshold CLASS=0.3` out of the arguments of a verb, if it is among them."""
    rest: list[str] = []
    found: tuple[str, float] | None = None
    following = iter(arguments)
    for argument in following:
        if argument == "--threshold":
            found = threshold_in(next(following, ""))
        elif argument.startswith("--threshold="):
            found = threshold_in(argument.partition("=")[2])
        elif argument.startswith("threshold="):
            raise UserError(
                f"`{argument}`: the threshold is an option, with the class that it is for. Write --threshold CLASS={argument.partition('=')[2]}"
            )
        else:
            rest.append(argument)
    return rest, found


def read_options(
    verb: str,
    arguments: Sequence[str],
    valued: Mapping[str, str] | None = None,
    flags: Iterable[str] = (),
    signed: bool = False,
) -> tuple[list[str], dict[str, str]]:
    """Return the arguments that are no options, and the options with their values (flags: "").

    Args:
        valued: what the value of an option is, by option: `{"--sort": "KEY"}`
        flags: options without a value, beside `--json`
        signed: whether a text after one `-` is an argument

    Raises UserError for an unknown option, for one that lacks its value, and for one with two values.
    """
    valued = valued or {}
    rest: list[str] = []
    given: dict[str, str] = {}
    following = iter(arguments)
    for argument in following:
        option, equals, value = argument.partition("=")
        if option in valued:
            value = value if equals else next(following, "")
            if not value:
                raise UserError(f"`{option}` needs a value: {option} {valued[option]}")
            if given.setdefault(option, value) != value:
                raise UserError(
                    f"`{option}` is given twice, as {given[option]} and {value}. Write one of them"
                )
        elif argument in ("--json", *flags):
            given[argument] = ""
        elif argument.startswith("--") or (argument.startswith("-") and not signed):
            hint = nearest(option, (*valued, *flags, "--json", "--help"))
            raise UserError(f"`{argument}` is no option of {verb}.{hint}\nIts page: dltrain {verb} --help")
        else:
            rest.append(argument)
    return rest, given


def distinct_runs(paths: Sequence[Path]) -> list[Path]:
    """Return each run once, and say which was named twice, such as by an absolute path: it would count twice in an ensemble."""
    found: dict[str, Path] = {}
    for path in paths:
        first = found.setdefault(os.path.realpath(path), path)
        if first is not path:
            other = f" ({path})" if str(path) != str(first) else ""
            say(f"{first} is named twice{other}, and counts once")
    return list(found.values())


def moved_data(
    problem: DataProblem,
    configs: Sequence[Config],
    paths: Sequence[Path],
    command: Sequence[str],
    catalogue: Catalogue,
) -> DataProblem:
    """Return a problem of the data of runs, or, where they are no longer in their place, how to say where they are now.

    command: the words that were typed; data that they name are not those of the training
    """
    from dltrain.config.data_files import PLACES, beside, shown

    given = {word.lstrip("+").partition("=")[0] for word in command}
    for config, path in zip(configs, paths, strict=True):
        others = beside(config, catalogue)
        keys = [
            key for key in (*PLACES, *others) if config.dataset.get(key) and f"dataset.{key}" not in given
        ]
        gone = [key for key in keys if not os.path.exists(os.path.expanduser(str(config.dataset[key])))]
        if not gone:
            continue
        # `evaluate` takes no file of the training beside other data unless it is named
        kept = [key for key in keys if key in others and key not in gone and gone[0] in PLACES]
        places = [f"dataset.{key}=NEW" for key in gone]
        places += [assigned(f"dataset.{key}", shown(config, key)) for key in kept]
        return DataProblem(
            f"the data that {path} was trained on are not there: dataset.{gone[0]} is {shown(config, gone[0])}, seen from {Path.cwd()}.\n"
            f"To say where they are: {typed(*command, *places)}"
        )
    return problem


def is_sweep(folder: Path) -> bool:
    return (folder / SWEEP_RECORD).is_file()


def text_of(run: Any) -> str:
    """Return the path of a Run or Sweep, or what names one: a path, or the end of a name."""
    return str(getattr(run, "path", run))


def run_folder(run: Any, output: Path = OUTPUT) -> Path:
    """Return the folder of a run or sweep: of a Run, a path, or the end of a run's name below `outputs`.

    Raises CheckpointProblem where there is none, or more than one.
    """
    text = text_of(run)
    path = named_by_number(Path(text))
    if os.path.isdir(path):
        if is_run(path) or is_sweep(path):
            return path
        newest = max(path.glob(f"*/{SUMMARY}"), default=None, key=lambda file: file.parent.name)
        hint = f" Its newest run: {newest.parent}" if newest else " The runs: dltrain runs"
        raise CheckpointProblem(f"{path} is no run folder: it has no {SUMMARY}.{hint}")
    found = named(text, output)
    if len(found) == 1:
        return found[0]
    if found:
        raise ambiguous(text, found)
    check_shelves(text, output)
    names = [entry.folder_name for entry in entries_of(output)]
    # the end of a job's name is its last value, which names no run
    ends = [name.rpartition("-")[2] for name in names if job_number(name) is None]
    hint = nearest(text, [name for name in (*names, *ends) if name != text])
    raise CheckpointProblem(
        f"`{text}` is no run: there is no such folder, and no such name below {output}.{hint} The runs: dltrain runs"
    )


def check_shelves(text: str, output: Path = OUTPUT) -> None:
    """Raise CheckpointProblem, with the way back, where a text names what was archived or moved to the trash."""
    whole, _, job = text.rstrip("/").rpartition("/")
    for name in (text, whole) if job.isdecimal() else (text,):
        if places := shelved(output, name):
            where = "archived" if places[0].shelf == "archive" else "in the trash"
            raise CheckpointProblem(f"`{text}` is {where}. To bring it back: {typed('restore', name)}")


def ambiguous(text: str, found: Sequence[Path]) -> CheckpointProblem:
    """Return the refusal of a text that names several runs."""
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return CheckpointProblem(
        f"`{text}` is the end of several names: {', '.join(map(str, found[:3]))}{more}. Write more of it"
    )


def named(text: str, output: Path = OUTPUT) -> list[Path]:
    """Return the runs and sweeps below `outputs` whose name ends with a text: `97d0`, or `97d0/3` for a job."""
    return [output / entry.path for entry in matches_of(entries_of(output), text)]


def entries_of(output: Path) -> list[Entry]:
    return Index(output).entries if output.is_dir() else []


def run_folders(verb: str, runs: Sequence[Any]) -> list[Path]:
    """Return the folders of several runs. Raises UserError where none is named, CheckpointProblem as `run_folder`."""
    if not runs:
        raise UserError(f"Name a run: dltrain {verb} outputs/NAME/DATE_TIME-xxxx\nThe runs: dltrain runs")
    return list(dict.fromkeys(map(run_folder, runs)))


def finite(value: Any) -> Any:
    """Return plain data as JSON can hold them: null in place of nan and infinity."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def print_json(document: Mapping[str, Any]) -> None:
    try:
        as_json = json.dumps(document, default=str, allow_nan=False)
    except ValueError:
        as_json = json.dumps(finite(document), default=str)
    print(as_json)


def note(text: str) -> None:
    """Print a line on standard error."""
    if text:
        say(text)
