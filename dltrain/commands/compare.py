"""`dltrain compare RUN…`: compare runs and sweeps: means over seeds, paired tests, figures."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltrain.commands import listing
from dltrain.commands.asked import (
    NUMBER,
    TEXT,
    TEXTS,
    document_schema,
    note,
    object_schema,
    print_json,
    read_options,
    run_folders,
)
from dltrain.errors import UserError
from dltrain.screen.table import Column, lines, number, one_line, terminal_width, write
from dltrain.storage.folder_names import SWEEP_RECORD
from dltrain.storage.job_names import job_label, job_number

if TYPE_CHECKING:
    from dltrain.sweep.outcome.comparison import Comparison
    from dltrain.sweep.outcome.groups import Group
    from dltrain.sweep.outcome.members import Member

HELP = """
    RUN is a run, or a sweep, which stands for its jobs. Runs that differ in seed, fold and dataset.split_seed alone are
    repetitions of one configuration; copies, where these are the same, count once. The mean is shown with its 95 % interval
    (Student), and the best is tested against each other one, by a paired t-test where both have the same repetitions, else by
    Welch's, corrected for the number of tests (Holm). Below five repetitions nothing is tested. Runs on different data or
    splits are ranked and tested within the same ones only. Without --metric the objective is compared.

  --metric NAME           a score: val/accuracy, test/accuracy, seconds
  --figure FILE.pdf       curves over epochs, the mean with its interval over seeds; also .svg and .png. The data are
                          written beside it as FILE.pdf.csv. Needs: pip install altair vl-convert-python
  --html FILE.html        a page with the table and the curves, which needs neither network nor packages
  --y COLUMN              what the curves show: a column of metrics.csv; by default the metric
  --x epoch|step|seconds  over what; by default epoch
  --size 8.5x6            width and height of the figure in cm
  --font NAME, --font-size 9 (pt), --title TEXT
  --json                  one JSON document on standard output

Examples
  dltrain compare outputs/digits_mlp/2026-01-31_12-00-00-abcd outputs/digits_mlp/2026-01-31_12-05-00-12ef
  dltrain compare d61b --metric val/accuracy                  the configurations of a sweep
  dltrain compare d61b 12ef --figure curves.pdf --size 8.5x6 --font-size 8
  dltrain compare d61b --html compare.html
"""
_GROUP = object_schema(
    choices={"type": "object"},
    runs=TEXTS,
    values={"type": "array", "items": NUMBER},
    mean=NUMBER,
    deviation=NUMBER,
    half_width=NUMBER,
    test={"enum": ["", "paired", "welch"]},
    p=NUMBER,
    verdict=TEXT,
    data={"type": "integer", "minimum": 1},
    place={"type": "integer", "minimum": 1},
)
SCHEMA = document_schema(
    metric=TEXT,
    mode={"enum": ["min", "max"]},
    configurations={"type": "array", "items": _GROUP},
    conclusion=TEXTS,
    notes=TEXTS,
    files=TEXTS,
)
# options about any curves, and about a figure alone
_CURVES = {"--y": "COLUMN", "--x": "epoch|step|seconds"}
_FIGURE = {
    "--size": "WIDTHxHEIGHT",
    "--font": "NAME",
    "--font-size": "POINTS",
    "--title": "TEXT",
}


def run(arguments: list[str]) -> int:
    """Print the comparison and draw the figure."""
    valued = {"--metric": "NAME", "--figure": "FILE.pdf", "--html": "FILE.html", **_CURVES, **_FIGURE}
    rest, given = read_options("compare", arguments, valued)
    check_used(given)
    from dltrain.sweep.outcome import comparison, figure, figure_table

    style, page_file = None, Path(given["--html"]) if "--html" in given else None
    if "--figure" in given:
        style = figure.Style.read(Path(given["--figure"]), given)
        figure.check_file(style.file)
        figure_table.check_table(style.file)
    if page_file is not None:
        figure.check_name("--html", page_file, (".html",))
    x = figure.read_x(given.get("--x", figure.Style.x))
    found = comparison.compare(members_of(run_folders("compare", rest)), given.get("--metric"))
    # notes on the figure do not apply to the page, which draws its own chart
    own = replace(found, notes=[*found.notes])
    files = figure.draw(found, style) if style is not None else []
    if page_file is not None:
        from dltrain.sweep.outcome.page import write_page

        write_page(own, page_file, x, given.get("--y"))
        files.append(page_file)
    if "--json" in given:
        print_json(document_of(found, files))
        return 0
    write("\n".join(page(found)))
    for file in files:
        note(f"{file} is written")
    return 0


def check_used(given: Mapping[str, str]) -> None:
    """Refuse an option that would have no effect."""
    for options, needed in ((_FIGURE, ("--figure",)), (_CURVES, ("--figure", "--html"))):
        for option in options:
            if option in given and not any(name in given for name in needed):
                raise UserError(f"`{option}` is about {' and '.join(needed)}: add --figure FILE.pdf")


def members_of(folders: Sequence[Path]) -> list[Member]:
    """Return the runs of several folders, labeled by the ends of their names."""
    from dltrain.sweep.outcome import members

    found: list[Member] = []
    for folder in folders:
        for member in members.members_of(folder):
            member.label = short_name(member.path)
            found.append(member)
    return found


def short_name(folder: Path) -> str:
    """Return the end of a run's name, `97d0`, or of a job's, `97d0/3`: every verb finds the run by it."""
    folder = folder.absolute()
    if job_number(folder.name) is None or not (folder.parent / SWEEP_RECORD).is_file():
        return folder.name.rpartition("-")[2]
    return f"{folder.parent.name.rpartition('-')[2]}/{job_label(folder.name)}"


def document_of(found: Comparison, files: Sequence[Path] = ()) -> dict[str, Any]:
    """Return a comparison as plain data."""
    groups = [
        {
            "choices": group.choices,
            "runs": [str(member.path) for member in group.members],
            **{
                key: getattr(group, key)
                for key in (
                    "values",
                    "mean",
                    "deviation",
                    "half_width",
                    "test",
                    "p",
                    "verdict",
                    "data",
                    "place",
                )
            },
        }
        for group in found.groups
    ]
    return {
        "metric": found.metric,
        "mode": found.mode,
        "configurations": groups,
        "conclusion": found.conclusion,
        "notes": [found.warning, *found.notes] if found.warning else found.notes,
        "files": list(map(str, files)),
    }


def page(found: Comparison) -> Iterator[str]:
    """Yield the table and the conclusions from it."""
    from dltrain.sweep.outcome.groups import COMMANDS, data_names

    groups = found.groups
    arrow = listing.ARROWS[found.mode]
    best = ["bold" if group.verdict == "best" else "" for group in groups]
    names = data_names(found.by_data)
    data = [Column("data", [names[group.data - 1] for group in groups])] if found.warning else []
    if found.warning:
        yield from textwrap.wrap(one_line(found.warning), min(terminal_width(), 120))
        yield ""
    yield from lines(
        [
            *data,
            Column("#", [str(group.place) for group in groups], right=True),
            Column("configuration", [group.name or "–" for group in groups], least=20),
            Column("runs", [_runs(group) for group in groups], rank=3),
            Column(
                f"{found.metric} {arrow}", [number(group.mean) for group in groups], right=True, styles=best
            ),
            Column("± 95 %", [_interval(group.half_width) for group in groups], right=True, rank=1),
            Column("n", [str(len(group.units)) for group in groups], right=True, rank=2),
            Column("against the best", [group.verdict for group in groups]),
        ]
    )
    yield ""
    for text in (*found.conclusion, *found.notes):
        # a command is copied, so its line is not broken
        if text.startswith(COMMANDS):
            yield f"  {one_line(text)}"
            continue
        sentence = text[:1].upper() + text[1:] if text.startswith(("one run", "at most")) else text
        yield from textwrap.wrap(one_line(sentence), min(terminal_width(), 120))


def _runs(group: Group) -> str:
    labels = [member.label for member in group.members]
    return " ".join(labels) if len(labels) < 3 else f"{labels[0]} … {labels[-1]}"


def _interval(half_width: float) -> str:
    return "" if half_width != half_width else f"{half_width:.2g}"
