"""`dltrain report RUN`: write report.html of a run or a sweep: curves, mistakes, findings."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltrain.commands.resume import split_arguments, take_config_dir
from dltrain.config import saved
from dltrain.config.asked import choices_of
from dltrain.config.compose import CONFIG_NAME, open_catalogue, open_hydra
from dltrain.config.door import door_for_saved
from dltrain.errors import CheckpointProblem, ResourceProblem, UserError, nearest, typed
from dltrain.storage.files import replace
from dltrain.storage.folder_names import SWEEP_RECORD
from dltrain.text import show, utf8

if TYPE_CHECKING:
    from dltrain.config.catalogue import Catalogue
    from dltrain.report.page import Samples
    from dltrain.report.record import Record

NAME = "report.html"
HELP = """
    One file that opens in any browser, offline: the result beside a constant guess, curves with zoom and logarithmic
    scale, classes and mistakes, layers, what was asked, time and memory, and what the numbers say, in sentences.
    RUN may be a run that is still training. Of a sweep (a folder with sweep.json) its report is written again.

  --samples               add sample inputs and the most confident mistakes as pictures; needs the data and the model
  --output FILE.html      where; by default RUN/report.html
  --json                  one JSON document on standard output, with the findings
  key=value               where the data are now, for --samples: dataset.root=moved, device=cpu

Examples
  dltrain report outputs/digits_mlp/2026-01-31_12-00-00-abcd
  dltrain report outputs/digits_mlp/2026-01-31_12-00-00-abcd --samples --output digits.html
  dltrain report outputs/digits_mlp/2026-01-31_12-00-00-abcd --json
"""


@dataclass
class Arguments:
    """The command line of `report`."""

    run: Path
    output: Path
    samples: bool = False
    as_json: bool = False
    overrides: list[str] = field(default_factory=list)
    config_dir: str | None = None


def run(arguments: list[str]) -> int:
    """Write the report, and print its path; with `--json` the findings as well."""
    asked = read(arguments)
    catalogue = open_catalogue(asked.config_dir)
    if (asked.run / SWEEP_RECORD).is_file():
        kind, findings = "sweep", again(asked, catalogue)
    else:
        kind, findings = "run", write(asked, catalogue)
    if asked.as_json:
        print(json.dumps({kind: str(asked.run), "report": str(asked.output), "findings": findings}))
    else:
        show(str(asked.output))
    return 0


def write(asked: Arguments, catalogue: Catalogue) -> list[dict[str, Any]]:
    """Write the report of a run; return its findings."""
    from dltrain.report import findings, page, record

    found = record.read(asked.run)
    samples = samples_of(asked, catalogue) if asked.samples else None
    listed, unread = choices(found, catalogue)
    with written(asked.output):
        replace(asked.output, utf8(page.render(found, listed, unread, samples)))
    return [asdict(finding) for finding in findings.findings(found)]


def choices(found: Record, catalogue: Catalogue) -> tuple[list[tuple[str, ...]] | None, str]:
    """Return where the configuration differs from the defaults; None, and why, where it cannot be read."""
    try:
        content = saved.load_bounded(found.path / "config.yaml")
        overrides = found.summary.get("overrides")
        given = [str(text) for text in overrides] if isinstance(overrides, list) else []
        listed = choices_of(content, given, catalogue, str(found.summary.get("command") or ""))
    except (UserError, OSError) as error:
        return None, str(error)
    return [(item.key, item.value, item.default, item.source) for item in listed], ""


def samples_of(asked: Arguments, catalogue: Catalogue) -> Samples:
    """Return sample inputs and mistakes of the run's best weights."""
    config = saved.read(asked.run, catalogue, asked.overrides)
    door = door_for_saved(config, catalogue, asked.overrides)

    from dltrain.run.pictures import samples_of_run

    return samples_of_run(asked.run, config, door)


def again(asked: Arguments, catalogue: Catalogue) -> list[dict[str, Any]]:
    """Write the report of a sweep again; return what it notes."""
    if asked.samples:
        raise UserError(
            f"`--samples` shows samples of a run, and {asked.run} is a sweep. Name one of its jobs: "
            f"{typed('report', asked.run / '0', '--samples')}"
        )
    from dltrain.sweep.report_again import report_again
    from dltrain.sweep.sweep import Source

    source = Source(catalogue, open_hydra(catalogue), asked.config_dir, CONFIG_NAME)
    with written(asked.output):
        notes = report_again(asked.run, source, asked.output)
    return [{"kind": "note", "text": note, "command": ""} for note in notes]


@contextmanager
def written(file: Path) -> Iterator[None]:
    """Turn a failure to write the report into a ResourceProblem with the way out."""
    try:
        yield
    except OSError as error:
        raise ResourceProblem(
            f"{file} could not be written ({error.strerror}). Write it elsewhere: --output FILE.html"
        ) from None


# The command line ---------------------------------------------------------------------------------------------------


def read(arguments: list[str]) -> Arguments:
    """Sort the arguments. Raises UserError for an unknown option, CheckpointProblem for what is no run."""
    arguments, config_dir = take_config_dir(arguments)
    rest: list[str] = []
    output: str | None = None
    following = iter(arguments)
    for argument in following:
        option, equals, value = argument.partition("=")
        if option in ("--output", "-o"):
            output = value if equals else next(following, "")
        elif argument in ("--samples", "--json"):
            continue
        elif argument.startswith("-"):
            hint = nearest(option, ("--output", "--samples", "--json", "--help"))
            raise UserError(f"`{argument}` is no option of report.{hint}\nIts page: dltrain report --help")
        else:
            rest.append(argument)
    paths, overrides = split_arguments(rest)
    if len(paths) != 1:
        raise UserError("Name one run folder or sweep: dltrain report outputs/NAME/DATE_TIME-xxxx")
    run = paths[0]
    check_run(run)
    if overrides and "--samples" not in arguments:
        raise UserError(
            f"`{overrides[0]}` says where the data are, which only --samples needs. Add --samples, or leave it out"
        )
    return Arguments(
        run, output_of(run, output), "--samples" in arguments, "--json" in arguments, overrides, config_dir
    )


def check_run(run: Path) -> None:
    """Refuse a folder that is neither a run nor a sweep, and name the newest one in it."""
    marks = ("config.yaml", SWEEP_RECORD)
    if any((run / name).is_file() for name in (*marks, "summary.json")):
        return
    inside = sorted(file.parent for name in marks for file in run.glob(f"*/{name}"))
    hint = (
        f"The newest in it: {typed('report', inside[-1])}"
        if inside
        else "Name one: outputs/NAME/DATE_TIME-xxxx"
    )
    raise CheckpointProblem(f"{run} is neither a run nor a sweep. {hint}")


def output_of(run: Path, given: str | None) -> Path:
    """Return the file to write. Raises UserError for one that is no HTML file, or in no folder."""
    if given is None:
        return run / NAME
    file = Path(given)
    if file.suffix.lower() not in (".html", ".htm") or file.is_dir():
        raise UserError(f"`--output` is {given or 'empty'}; it must be a file whose name ends in .html")
    if not file.parent.is_dir():
        raise UserError(
            f"`--output` is {given}, and there is no folder {file.parent}. Make it first: {shlex.join(['mkdir', '-p', str(file.parent)])}"
        )
    return file
