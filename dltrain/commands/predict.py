"""`dltrain predict RUN… FILE…`: predict labels with probabilities, or real units, for new data."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltrain.commands.asked import distinct_runs, moved_data, take_threshold
from dltrain.commands.configurations import check_no_sweep
from dltrain.commands.decided import check_decided, check_reading, columns_of, tell_idle_seed
from dltrain.commands.evaluate import named_copies
from dltrain.commands.resume import found_run, newest_run, take_config_dir
from dltrain.config import saved
from dltrain.config.compose import open_catalogue
from dltrain.config.door import door_for_saved
from dltrain.config.keys import OF_PICTURES, check_division, check_used
from dltrain.data.progress import say_reading
from dltrain.data.split_names import SPLIT_NAMES, SplitName
from dltrain.errors import CheckpointProblem, DataProblem, UserError, nearest, nearest_path
from dltrain.storage.manifest import NAME, RECORDS
from dltrain.text import counted, say, show, shown

if TYPE_CHECKING:
    from dltrain.config.schema import Config
    from dltrain.run.inputs import Given
    from dltrain.run.output import Part
    from dltrain.run.prediction import Predictions, Predictor

HELP = """
    RUN is a run folder; several are an ensemble, whose outputs are averaged as in `dltrain evaluate`.
    FILE is a table (CSV, TSV, Parquet, Arrow, .json with a list of rows, .jsonl), an array file (.npz, .npy), an image,
    a folder of images, or - for CSV from standard input. Columns are matched by name; the target may be missing.

  --split test                       the rows of a split of the data of the training (train, val or test), beside the
                                     truth, in place of FILE
  --threshold CLASS=0.3              of two classes: CLASS is the label where its probability is at least 0.3
  --output FILE.csv|.parquet|.json   write all predictions there, over no file of the data; the ending sets the format
  --output -                         CSV on standard output
  --keep COLUMN[,COLUMN]             copy columns of the table, such as an identifier
  --json                             one JSON document on standard output, as FILE.json holds it: "predictions" lists
                                     {file, row, label, probabilities: {CLASS: p}}, or values: {TARGET: v} of a
                                     regression, beside kept columns and the truth; "broken" what is left out, and why
  key=value                          device=cpu, evaluation.batch_size=512, dataset.delimiter=tab, dataset.decimal=comma

    Rows and files that cannot be read are reported and left out; the exit code is 3 then, and where a column holds
    no value of the training. Numbers and dates far outside of the range of the training are named. Rows are counted
    from 1 below the header, without empty lines.

Examples
  dltrain predict outputs/csv/2026-01-31_12-00-00-abcd new.csv
  dltrain predict outputs/csv/2026-01-31_12-00-00-abcd new.csv --keep id --output predictions.csv
  dltrain predict outputs/csv/* new.csv --output predictions.parquet
  dltrain predict outputs/pets/2026-01-31_12-00-00-abcd photos/ more/cat.jpg --json
  dltrain predict outputs/csv/2026-01-31_12-00-00-abcd --split test --output test.csv
  head -100 new.csv | dltrain predict outputs/csv/2026-01-31_12-00-00-abcd - --output -
"""
FORMATS = (".csv", ".parquet", ".json")
STANDARD = "-"
# options with a value, and what it is
VALUES = {
    "--output": "FILE.csv",
    "-o": "FILE.csv",
    "--keep": "COLUMN",
    "--split": "test",
    "--threshold": "CLASS=0.3",
}


@dataclass
class Arguments:
    """The command line of `predict`."""

    runs: list[Path] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    output: str | None = None
    keep: list[str] = field(default_factory=list)
    split: SplitName | None = None
    decision: tuple[str, float] | None = None
    as_json: bool = False
    config_dir: str | None = None


def run(arguments: list[str]) -> int:
    """Print or write the predictions; 3 where an input was left out."""
    asked = read(arguments)
    check_output(asked)
    catalogue = open_catalogue(asked.config_dir)
    repeat = saved.repeating(asked.runs[0], catalogue)
    check_used(asked.overrides, asked.runs[0], repeat)
    check_division(asked.overrides, asked.runs[0], repeat)
    configs = [named_copies(saved.read(path, catalogue, asked.overrides), catalogue) for path in asked.runs]
    tell_idle_seed(asked.overrides, configs[0])
    for path, config in zip(asked.runs, configs, strict=True):
        decided = (*columns_of(config.dataset), *OF_PICTURES)
        check_decided(path, config, asked.overrides, catalogue, decided)
    if asked.split is None:
        check_reading(asked.overrides, columns_of(configs[0].dataset))
    check_kept(asked, configs)
    doors = [door_for_saved(config, catalogue, asked.overrides) for config in configs]
    say_reading(name for name in asked.inputs if name != STANDARD)
    content = sys.stdin.buffer.read() if STANDARD in asked.inputs else None

    from dltrain.run.ensemble import check_ensemble
    from dltrain.run.inputs import Given
    from dltrain.run.machine import set_machine
    from dltrain.run.prediction import check_some, predictor

    predictors = []
    for path, config, door in zip(asked.runs, configs, doors, strict=True):
        set_machine(config)
        predictors.append(predictor(path, config, door, config.device))
        predictors[-1].known_contract()
    check_ensemble(predictors, [str(path) for path in asked.runs])
    threshold = predictors[0].threshold(asked.decision)
    typed = asked.as_json or str(asked.output).lower().endswith((".parquet", ".json"))
    if asked.split is not None:
        try:
            part = of_split(asked.split, predictors, asked.runs, asked.keep, typed)
        except DataProblem as error:
            raise moved_data(error, configs, asked.runs, ["predict", *arguments], catalogue) from error
        return report([part.decided(threshold)], asked)
    given = [
        Given(item, content if item == STANDARD else None, tolerant=True, kept=asked.keep)
        for item in asked.inputs
    ]
    parts = [predicted(item, predictors, asked.keep, typed) for item in given]
    check_some([part.found for part in parts])
    return report([part.decided(threshold) for part in parts], asked)


def predicted(given: Given, predictors: Sequence[Predictor], keep: Sequence[str], typed: bool) -> Part:
    """Return what the runs together say of one input. typed: kept numbers of a CSV file are numbers, not text."""
    from dltrain.run.data import data_problems
    from dltrain.run.ensemble import ensemble

    members = []
    for member in predictors:
        with data_problems():
            samples = given.samples(member.known_contract(), member.config.dataset)
        members.append(member.predict(samples))
    return with_kept(given, ensemble(predictors, members), predictors[0], keep, typed)


def of_split(
    name: SplitName, predictors: Sequence[Predictor], paths: Sequence[Path], keep: Sequence[str], typed: bool
) -> Part:
    """Return what the runs together say of a split of the data that they were trained on."""
    from dltrain.run.ensemble import ensemble
    from dltrain.run.inputs import Given
    from dltrain.run.split_prediction import check_shared, predict_split

    members = [predict_split(member, path, name) for member, path in zip(predictors, paths, strict=True)]
    check_shared(members, paths, name, predictors)
    given = Given(members[0].file or str(predictors[0].config.words["dataset"]))
    return with_kept(
        given, ensemble(predictors, [member.found for member in members]), predictors[0], keep, typed
    )


def with_kept(
    given: Given, found: Predictions, predictor: Predictor, keep: Sequence[str], typed: bool
) -> Part:
    from dltrain.run.output import Part, kept_columns

    dataset = predictor.config.dataset
    delimiter, decimal = (str(dataset.get(key, "auto")) for key in ("delimiter", "decimal"))
    words = [str(word) for word in dataset.get("missing_words", ())]
    return Part(given, found, kept_columns(given, found, keep, delimiter, typed, decimal, words))


def report(parts: list[Part], asked: Arguments) -> int:
    """Print or write predictions, and say on stderr what was left out, filled or not known."""
    from dltrain.data.errors import FOREIGN
    from dltrain.run import output

    notes = list(dict.fromkeys(note for part in parts for note in part.found.notes))
    columns = output.columns_of(parts)
    if str(asked.output).lower().endswith(".parquet"):
        columns = output.typed_labels(columns, parts[0].found)
    content = partial(output.document, parts, [str(path) for path in asked.runs], notes)
    if asked.output is not None and asked.output != STANDARD:
        output.write(Path(asked.output), columns, parts[0].found.table, content)
    if asked.as_json:
        print(output.as_json(told(content(), asked.output)))
    elif asked.output == STANDARD:
        text = output.as_csv(columns, parts[0].found.table)
        # names of classes may come from somebody else, and a terminal would act upon them
        sys.stdout.write(shown(text) if sys.stdout.isatty() else text)
    elif asked.output is None:
        output.show(columns, parts[0].found)
    nested = asked.as_json or str(asked.output).lower().endswith(".json")
    for note in notes + ([] if nested else output.renamed_notes(parts, columns)):
        say(note)
    broken = say_broken(parts)
    if asked.output not in (None, STANDARD):
        samples = sum(len(part.found) for part in parts)
        gone = f", {broken} left out" if broken else ""
        stream = sys.stderr if asked.as_json else sys.stdout
        show(f"{counted(samples, 'prediction')} in {asked.output}{gone}", file=stream)
    foreign = any(note.startswith(FOREIGN) for note in notes)
    return DataProblem.exit_code if broken or foreign else 0


def say_broken(parts: list[Part]) -> int:
    """Name the first inputs that were left out on stderr; return how many there are."""
    from dltrain.run.inputs import NAMED

    broken = [(part.given.name, item) for part in parts for item in part.found.broken]
    for name, item in broken[:NAMED]:
        place = item.where if isinstance(item.where, str) else f"row {item.where} of {name}{item.line}"
        say(f"{place} is left out: {item.reason}")
    if len(broken) > NAMED:
        say(f"{len(broken) - NAMED} more are left out; all of them: --json")
    return len(broken)


def told(content: dict[str, Any], written: str | None) -> dict[str, Any]:
    """Return the document of `--json`: of predictions that are in a file it names the file."""
    if written is None:
        return content
    return {key: value for key, value in content.items() if key != "predictions"} | {"output": written}


# The command line ---------------------------------------------------------------------------------------------------


def read(arguments: list[str]) -> Arguments:
    """Sort the arguments: folders with a config.yaml are runs, other files and folders are inputs."""
    asked = Arguments()
    rest = arguments
    arguments, asked.config_dir = take_config_dir(arguments)
    arguments, asked.decision = take_threshold(arguments)
    following = iter(arguments)
    for argument in following:
        option, equals, value = argument.partition("=")
        if option in VALUES:
            value = value if equals else next(following, "")
            if not value:
                raise UserError(f"`{option}` needs a value: {VALUES[option]}")
            if option == "--keep":
                asked.keep += value.split(",")
            elif option == "--split":
                asked.split = check_split(value)
            else:
                asked.output = value
        elif argument == "--json":
            asked.as_json = True
        elif argument.startswith("-") and argument != STANDARD:
            hint = nearest(option, (*VALUES, "--json", "--help"))
            raise UserError(f"`{argument}` is no option of predict.{hint}\nIts page: dltrain predict --help")
        elif equals and option == "split" and not os.path.exists(argument):
            raise UserError(f"`{argument}`: the split is an option. Write --split {check_split(value)}")
        elif equals and not os.path.exists(argument):
            asked.overrides.append(argument)
        elif is_run(run := str(found_run(argument))):
            asked.runs.append(Path(run))
        else:
            asked.inputs.append(argument)
    for name in asked.inputs:
        place = rest.index(name)
        check_no_sweep(found_run(name), "used", ["predict", *rest[:place]], rest[place + 1 :])
    check_named(asked)
    asked.runs = distinct_runs(asked.runs)
    return asked


def check_split(name: object) -> SplitName:
    """Return the name of a split. Raises UserError for another word."""
    found = [known for known in SPLIT_NAMES if known == name]
    if found:
        return found[0]
    raise UserError(
        f"`--split` is {name}; it must be {', '.join(SPLIT_NAMES[:-1])} or {SPLIT_NAMES[-1]}.{nearest(str(name), SPLIT_NAMES)}"
    )


def is_run(argument: str) -> bool:
    return os.path.isfile(os.path.join(argument, "config.yaml"))


def check_named(asked: Arguments) -> None:
    """Refuse a command line without a run or without an input, and inputs that do not exist."""
    usage = "dltrain predict outputs/NAME/DATE_TIME-xxxx new.csv"
    if not asked.runs:
        if not asked.inputs:
            raise UserError(f"Name a run folder, and what to predict: {usage}")
        first = asked.inputs[0]
        newest = newest_run(Path(first))
        hint = f" Its newest run: {newest}" if is_run(str(newest)) else f" Name one first: {usage}"
        raise CheckpointProblem(f"{first} is no run folder: it has no config.yaml.{hint}")
    if asked.split is not None and asked.inputs:
        raise UserError(
            f"`--split {asked.split}` predicts for a split of the training data, and {asked.inputs[0]} is other data. Leave one of "
            "them out"
        )
    if asked.split is None and not asked.inputs:
        raise UserError(
            "Name what to predict: a table, an .npz file, images, a folder of images, or - for CSV from standard input; of the "
            f"data of the training: --split test\n{usage}"
        )
    if asked.inputs.count(STANDARD) > 1:
        raise UserError("`-` is named twice, and standard input can be read once. Name it once")
    for name in asked.inputs:
        if name != STANDARD and not os.path.exists(os.path.expanduser(name)):
            raise DataProblem(
                f"{name} is neither a run folder nor a file nor a folder of images."
                + nearest_path(Path(os.path.expanduser(name)))
            )


def check_output(asked: Arguments) -> None:
    """Refuse an output that cannot be written, before anything is computed."""
    if asked.output is None:
        return
    if asked.output == STANDARD:
        if asked.as_json:
            raise UserError("`--output -` and `--json` both write to standard output. Leave one of them out")
        return
    file = Path(asked.output)
    if file.suffix.lower() not in FORMATS:
        raise UserError(
            f"`--output` is {asked.output}; its name must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, or be - for standard output"
        )
    if not file.parent.is_dir():
        raise UserError(
            f"`--output` is {asked.output}, and there is no folder {file.parent}. Make it first: {shlex.join(['mkdir', '-p', str(file.parent)])}"
        )
    if file.is_dir():
        raise UserError(f"`--output` is {asked.output}, which is a folder. Name a file")
    if any(os.path.exists(name) and os.path.samefile(file, name) for name in asked.inputs if file.exists()):
        raise UserError(f"`--output` is {asked.output}, which is also an input. Name another file")


def check_kept(asked: Arguments, configs: Sequence[Config]) -> None:
    """Refuse an output that would replace a file of the data of a run, or one of its records."""
    if asked.output in (None, STANDARD) or not os.path.exists(asked.output):
        return
    for path, config in zip(asked.runs, configs, strict=True):
        data = [(f"`dataset.{key}`", value) for key, value in config.dataset.items()]
        for what, value in (*data, *(("a record", path / name) for name in (*RECORDS, NAME))):
            name = os.path.expanduser(str(value))
            if os.path.exists(name) and os.path.samefile(asked.output, name):
                raise UserError(f"`--output` is {asked.output}, {what} of {path}. Name another file")
