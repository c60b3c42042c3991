"""`dltrain export RUN`: write the model for other programs: ONNX, torch.export, safetensors."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

from dltrain.commands.decided import check_decided, columns_of
from dltrain.commands.resume import split_arguments, take_config_dir
from dltrain.config import saved
from dltrain.config.compose import open_catalogue
from dltrain.config.door import door_for_saved
from dltrain.config.keys import OF_PICTURES, check_division, check_used
from dltrain.errors import CheckpointProblem, UserError, nearest
from dltrain.text import counted, is_foreign, show

FORMATS = ("onnx", "torch", "safetensors")
# packages beside those of every installation
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime")}
HELP = """
    Columns of a table, bytes or floats go in, class names with probabilities or real units come out; dltrain is not needed
    to use it. It is compared with the run on up to 10,000 of its samples before it is kept, beside a model card.

  --format onnx           model.onnx, for onnxruntime and others (needs onnx, onnxscript, onnxruntime); the default
  --format torch          model.pt2 of torch.export, and model.py, which loads it
  --format safetensors    model.safetensors, and model.py, which loads it with torch and safetensors
  --output FOLDER         where; by default RUN/export/FORMAT
  --json                  one JSON document on standard output
  key=value               where the data are now, for the comparison: dataset.path=moved.csv

Examples
  dltrain export outputs/csv/2026-01-31_12-00-00-abcd
  dltrain export outputs/csv/2026-01-31_12-00-00-abcd --format safetensors --output model
"""


@dataclass
class Arguments:
    """The command line of `export`."""

    run: Path
    form: str = "onnx"
    output: Path | None = None
    as_json: bool = False
    overrides: list[str] = field(default_factory=list)
    config_dir: str | None = None

    @property
    def folder(self) -> Path:
        return self.output or self.run / "export" / self.form


def run(arguments: list[str]) -> int:
    """Write the model, and say where it is and how near to the run."""
    asked = read(arguments)
    check(asked)
    catalogue = open_catalogue(asked.config_dir)
    repeat = saved.repeating(asked.run, catalogue)
    check_used(asked.overrides, asked.run, repeat)
    check_division(asked.overrides, asked.run, repeat)
    config = saved.read(asked.run, catalogue, asked.overrides)
    check_decided(asked.run, config, asked.overrides, catalogue, (*columns_of(config.dataset), *OF_PICTURES))
    door = door_for_saved(config, catalogue, asked.overrides)

    from dltrain.run.export import export

    agreement = export(asked.run, config, door, asked.form, asked.folder)
    if asked.as_json:
        show(
            json.dumps(
                {
                    "run": str(asked.run),
                    "format": asked.form,
                    "folder": str(asked.folder),
                    **asdict(agreement),
                }
            )
        )
        return 0
    show(f"{asked.folder}: {', '.join(sorted(file.name for file in asked.folder.iterdir()))}")
    show(
        f"checked on {counted(agreement.samples, 'sample')} {agreement.data}: the outputs differ by at most {agreement.difference:.1e} of the largest"
    )
    return 0


def read(arguments: list[str]) -> Arguments:
    """Sort the arguments. Raises UserError for an unknown option or format."""
    arguments, config_dir = take_config_dir(arguments)
    rest: list[str] = []
    given: dict[str, str] = {}
    following = iter(arguments)
    for argument in following:
        option, equals, value = argument.partition("=")
        if option in ("--format", "--output", "-o"):
            given["--output" if option == "-o" else option] = value if equals else next(following, "")
        elif argument.startswith("-") and argument != "--json":
            hint = nearest(option, ("--format", "--output", "--json", "--help"))
            raise UserError(f"`{argument}` is no option of export.{hint}\nIts page: dltrain export --help")
        elif argument != "--json":
            rest.append(argument)
    paths, overrides = split_arguments(rest)
    if len(paths) != 1:
        raise UserError("Name one run folder: dltrain export outputs/NAME/DATE_TIME-xxxx")
    form = check_format(given.get("--format", FORMATS[0]))
    output = Path(given["--output"]) if given.get("--output") else None
    if "--output" in given and output is None:
        raise UserError("`--output` needs a value: FOLDER")
    return Arguments(paths[0], form, output, "--json" in arguments, overrides, config_dir)


def check(asked: Arguments) -> None:
    """Refuse a folder that is there, and a format whose packages are not installed; imports none of them."""
    if asked.output is None and asked.folder.parent.is_symlink():
        raise CheckpointProblem(
            f"{asked.folder.parent} is a link, and an export is written into the run's own folder. Remove it, or name a folder: --output FOLDER"
        )
    if os.path.lexists(asked.folder):
        raise UserError(
            f"{asked.folder} is there already, and an export replaces nothing. Name another folder: --output {shlex.quote(f'{asked.folder}-2')}"
        )
    if is_foreign(str(asked.folder)):
        raise UserError(
            f"{asked.folder} has a name in another encoding than UTF-8, and an export cannot be written there. "
            "Name another folder: --output FOLDER"
        )
    missing = [name for name in NEEDED.get(asked.form, ()) if find_spec(name) is None]
    if missing:
        raise UserError(
            f"`--format {asked.form}` needs {', '.join(missing)}, not installed; run: pip install {' '.join(missing)}\n"
            "Without further packages: --format torch, or --format safetensors"
        )


def check_format(form: str) -> str:
    """Return a format. Raises UserError where there is none of that name."""
    if form not in FORMATS:
        raise UserError(
            f"`--format` is {form}; it must be {', '.join(FORMATS[:-1])} or {FORMATS[-1]}.{nearest(form, FORMATS)}"
        )
    return form
