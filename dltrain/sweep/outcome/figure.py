"""Curves for a paper: the mean over seeds with its interval, as PDF, SVG or PNG, and the data beside it as CSV."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dltrain.config.keys import label
from dltrain.errors import CheckpointProblem, UserError, listing, nearest
from dltrain.storage.files import replace
from dltrain.storage.summary import read_rows
from dltrain.sweep.outcome import statistics
from dltrain.sweep.outcome.comparison import Comparison
from dltrain.sweep.outcome.extent import Extent, Legend, extent_of, legend_of
from dltrain.sweep.outcome.figure_table import as_csv, table_of
from dltrain.sweep.outcome.groups import Group
from dltrain.text import utf8

FORMATS = (".pdf", ".svg", ".png")
NEEDED = {"altair": "altair", "vl_convert": "vl-convert-python"}
OVER = ("epoch", "step", "seconds")
# configurations in one picture; the eye does not distinguish more
MOST = 8
# by Okabe and Ito: distinct also with a red-green weakness, and in print
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
DASHES = ([1, 0], [6, 2], [2, 2], [8, 2, 2, 2], [4, 4], [1, 1], [10, 3], [3, 1, 1, 1])
_CM = 72 / 2.54


@dataclass(frozen=True)
class Style:
    """How a figure looks.

    Args:
        y: the column of metrics.csv; None for the metric that is compared
        x: epoch, step or seconds
        width: in cm
        height: in cm
        font: name of a font; those of the system are found
        font_size: in points
    """

    file: Path
    y: str | None = None
    x: str = "epoch"
    width: float = 12.0
    height: float = 7.5
    font: str = "Liberation Sans"
    font_size: float = 9.0
    title: str = ""

    def legend(self, names: Sequence[str]) -> Legend:
        """Return the place of the legend in this figure."""
        return legend_of(names, self.width * _CM, self.height * _CM, self.font_size, bool(self.title))

    @classmethod
    def read(cls, file: Path, given: Mapping[str, str]) -> Style:
        """Read the options of the command line. Raises UserError for a value that is none."""
        width, height = _size(given.get("--size", f"{cls.width}x{cls.height}"))
        size = _number("--font-size", given.get("--font-size", str(cls.font_size)), 2, 72)
        font, title = given.get("--font", cls.font), given.get("--title", "")
        return cls(file, given.get("--y"), read_x(given.get("--x", cls.x)), width, height, font, size, title)


def read_x(text: str) -> str:
    """Return what curves are drawn over. Raises UserError for anything else."""
    if text not in OVER:
        raise UserError(
            f"`--x` is {text}; it must be {', '.join(OVER[:-1])} or {OVER[-1]}.{nearest(text, OVER)}"
        )
    return text


def _size(text: str) -> tuple[float, float]:
    found = re.fullmatch(r"([\d.]+)[x×,]([\d.]+)", text)
    if found is None:
        raise UserError(f"`--size` is {text}; it must be width and height in cm: --size 8.5x6")
    return _number("--size", found[1], 1, 100), _number("--size", found[2], 1, 100)


def _number(option: str, text: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise UserError(f"`{option}` is {text}; it must be a number from {least} to {most}")
    return value


def check_file(file: Path) -> None:
    """Raise UserError for a figure that cannot be written and for missing packages, before anything is read."""
    check_name("--figure", file, FORMATS)
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise UserError(
            f"`--figure` needs {' and '.join(missing)}, not installed; run: pip install {' '.join(missing)}"
        )


def check_name(option: str, file: Path, formats: tuple[str, ...]) -> None:
    """Raise UserError for a file whose name has another ending, or whose folder does not exist."""
    if file.suffix.lower() not in formats:
        names = f"{', '.join(formats[:-1])} or {formats[-1]}" if len(formats) > 1 else formats[0]
        raise UserError(f"`{option}` is {file}; its name must end in {names}")
    if not file.absolute().parent.is_dir():
        raise UserError(f"`{option}` is {file}, and there is no folder {file.parent}")


def draw(found: Comparison, style: Style) -> list[Path]:
    """Write the figure and its data, and return their files."""
    shown = best_of(found)
    shown = best_of(found, style.legend([name_of(group) for group in shown]).most)
    y = style.y or found.metric
    rows = [row for group in shown for row in curve(group, style.x, y)]
    extent = extent_of(rows, found.direction(y))
    if len(shown) < len(found.groups):
        found.notes.append(
            f"the figure {style.file.name} shows the best {len(shown)} of {len(found.groups)} configurations"
        )
    if extent.note:
        found.notes.append(f"the axis of the figure {style.file.name} is {extent.note}")
    found.notes += filter(None, [about_curves(found.metric, y), about_seconds(shown, style.x)])
    spec = chart(rows, style, y, [name_of(group) for group in shown], extent)
    check_font(spec, style)
    table = table_of(style.file)
    replace(table, utf8(as_csv(rows, style.x, y)))
    replace(style.file, picture(spec, style))
    return [style.file, table]


def best_of(found: Comparison, most: int = MOST) -> list[Group]:
    """Return at most so many configurations, but not more than `MOST`: those with the best places, of each set of data."""
    places = sorted(range(len(found.groups)), key=lambda i: found.groups[i].place)
    return [found.groups[i] for i in sorted(places[: min(most, MOST)])]


def about_curves(metric: str, y: str) -> str:
    """Say why the best value of a curve may not be the one in the table; "" where they show different columns."""
    if y != metric or "/" not in y:
        return ""
    return "The table takes the best epoch of each run, the curves the mean over the runs at each epoch."


def about_seconds(groups: Sequence[Group], x: str) -> str:
    """Say where seconds are those of a stack of jobs; "" where each run has its own."""
    stacked = any(member.summary.get("stacked") is True for group in groups for member in group.members)
    return "the seconds of jobs that were trained as one stack are those of the stack" * (
        stacked and x == "seconds"
    )


def name_of(group: Group) -> str:
    """Return what a configuration is called in a picture."""
    return label(group.choices) or group.members[0].label


def curve(group: Group, x: str, y: str) -> list[dict[str, Any]]:
    """Return a row for each evaluation that all repetitions have: x, the mean of y, and the ends of its interval.

    Repetitions evaluate at the same steps. Their epochs are equal then; `seconds` are averaged.
    Raises CheckpointProblem where there is no curve.
    """
    runs = [_column(member.path, member.label, x, y) for member in group.members]
    steps = [step for step in runs[0] if all(step in run for run in runs)]
    rows = []
    for step in steps:
        values = [run[step][1] for run in runs]
        units = statistics.independent(values, group.parts)
        mean, half = statistics.mean_and_deviation(units)[0], statistics.half_width(units)
        rows.append(
            {
                "configuration": name_of(group),
                x: sum(run[step][0] for run in runs) / len(runs),
                "mean": mean,
                "low": mean if math.isnan(half) else mean - half,
                "high": mean if math.isnan(half) else mean + half,
                "n": len(units),
                "least": min(values),
            }
        )
    if not rows:
        raise CheckpointProblem(f"{name_of(group)}: its repetitions have no evaluation of {y} in common.")
    return rows


def _column(folder: Path, name: str, x: str, y: str) -> dict[float, tuple[float, float]]:
    """Return x and y of each evaluation of a run by step, where both are finite."""
    rows = read_rows(folder / "metrics.csv")
    if rows and y not in rows[0]:
        if y.startswith("test/"):
            raise UserError(f"{y} is scored once, so it has no curve. Another column: --y val/{y[5:]}")
        raise UserError(
            f"`{y}` is no column of {folder / 'metrics.csv'}.{nearest(y, rows[0])} Name one: --y COLUMN\n{listing('Columns', rows[0])}"
        )
    points = {row["step"]: (row.get(x, math.nan), row[y]) for row in rows}
    if x == "seconds":
        total = 0.0
        for step, (seconds, value) in points.items():
            total += seconds
            points[step] = (total, value)
    return {step: point for step, point in points.items() if all(map(math.isfinite, point))}


def chart(
    rows: list[dict[str, Any]],
    style: Style,
    y: str,
    names: list[str],
    extent: Extent,
) -> dict[str, Any]:
    """Return the picture in the grammar of Vega-Lite."""
    import altair

    if extent.log:
        # a logarithm has no place for an end at or below zero: far below the frame, which clips it
        under = min([extent.low**2 / extent.high, *(row["low"] for row in rows if row["low"] > 0)])
        rows = [{**row, "low": max(row["low"], under)} for row in rows]
    several = len(names) > 1
    place = style.legend(names)
    scale = altair.Scale(domain=names, range=list(COLORS[: len(names)]))
    legend = (
        altair.Legend(
            title=None,
            orient="right" if place.beside else "bottom",
            columns=place.columns,
            labelLimit=place.limit,
            symbolType="stroke",
            symbolSize=300,
            symbolStrokeWidth=1.5,
            symbolOpacity=1,
            symbolFillColor="transparent",
            rowPadding=1,
            offset=4,
        )
        if several
        else None
    )
    values = sorted({int(row[style.x]) if float(row[style.x]).is_integer() else row[style.x] for row in rows})
    # epochs and steps are counted
    ticks: dict[str, Any] = (
        {"values": values, "format": "~g"} if style.x != "seconds" and len(values) <= 8 else {}
    )
    base = altair.Chart(altair.Data(values=rows)).encode(
        x=altair.X(f"{style.x}:Q", title=style.x, axis=altair.Axis(grid=False, **ticks)),
        color=altair.Color("configuration:N", scale=scale, legend=legend, sort=names),
    )
    ends = altair.Scale(
        type="log" if extent.log else "linear",
        domain=[extent.low, extent.high],
        zero=False,
        nice=not extent.note,
    )
    name = f"{y} (log scale)" if extent.log else y
    marks: dict[str, Any] = {"values": extent.decades, "format": "~g"} if extent.log else {"tickCount": 5}
    title = altair.Y("mean:Q", title=name, scale=ends, axis=altair.Axis(**marks))
    dash = altair.StrokeDash(
        "configuration:N",
        scale=altair.Scale(domain=names, range=list(DASHES[: len(names)])),
        legend=legend,
        sort=names,
    )
    line = base.mark_line(strokeWidth=1.5, clip=True).encode(y=title, strokeDash=dash)
    band = base.mark_area(opacity=0.2, line=False, clip=True).encode(
        y=altair.Y("low:Q", title=name, scale=ends), y2="high:Q"
    )
    # `fit` makes the size that of the whole figure
    whole = (band + line if any(row["n"] > 1 for row in rows) else line).properties(
        width=style.width * _CM,
        height=style.height * _CM,
        autosize=altair.AutoSizeParams(type="fit", contains="padding"),
    )
    if style.title or extent.note:
        whole = whole.properties(
            title=altair.TitleParams(style.title or extent.note, subtitle=extent.note if style.title else "")
        )
    size = style.font_size
    found: dict[str, Any] = (
        whole.configure(font=style.font, padding=2)
        .configure_axis(labelFontSize=size, titleFontSize=size, titleFontWeight="normal", gridColor="#e6e6e6")
        .configure_legend(labelFontSize=size, titleFontSize=size)
        .configure_title(
            fontSize=size + 1 if style.title else size, fontWeight="normal", subtitleFontSize=size
        )
        .configure_view(stroke=None)
        .to_dict()
    )
    return found


def picture(spec: dict[str, Any], style: Style) -> bytes:
    """Return the file's content; nothing is loaded from the network."""
    import vl_convert

    suffix = style.file.suffix.lower()
    if suffix == ".svg":
        return str(vl_convert.vegalite_to_svg(spec)).encode()
    if suffix == ".png":
        return bytes(vl_convert.vegalite_to_png(spec, ppi=300))
    return bytes(vl_convert.vegalite_to_pdf(spec))


def check_font(spec: dict[str, Any], style: Style) -> None:
    """Raise UserError for a font that is not here: the text of the figure would be missing."""
    import vl_convert

    if style.font == Style.font:
        return
    if (
        f"+{style.font.replace(' ', '')}".lower().encode()
        not in bytes(vl_convert.vegalite_to_pdf(spec)).lower()
    ):
        raise UserError(
            f"`--font` is {style.font}, which is not installed here. Leave it out for {Style.font}, which always is"
        )
