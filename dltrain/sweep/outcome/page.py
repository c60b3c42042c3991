"""A comparison as one HTML file, which needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dltrain.direction import BETTER
from dltrain.report.charts import MOST_POINTS, rounded
from dltrain.report.page import fill
from dltrain.screen.table import number
from dltrain.storage.files import replace
from dltrain.sweep.outcome.comparison import Comparison
from dltrain.sweep.outcome.extent import extent_of
from dltrain.sweep.outcome.figure import DASHES, MOST, about_curves, best_of, curve, name_of
from dltrain.sweep.outcome.groups import COMMANDS
from dltrain.text import utf8

# characters of the name of a curve
LONGEST = 300


def write_page(found: Comparison, file: Path, x: str, y: str | None) -> None:
    """Write the table, what it says, and the curves of the best configurations."""
    shown, column = best_of(found), y or found.metric
    curves = [curve(group, x, column) for group in shown]
    extent = extent_of([row for rows in curves for row in rows], found.direction(column))
    chart = {
        "place": "curves",
        "title": column,
        "wide": True,
        "range": [rounded(extent.low), rounded(extent.high)],
        "log": extent.log,
        "exact": bool(extent.note),
        "series": [
            series_of(name_of(group), rows, x, DASHES[i] if i else None)
            for i, (group, rows) in enumerate(zip(shown, curves, strict=True))
        ],
    }
    table = [
        {
            "label": name_of(group),
            "mean": number(group.mean),
            "interval": "" if group.half_width != group.half_width else f"{group.half_width:.2g}",
            "n": len(group.units),
            "verdict": group.verdict,
            "place": group.place,
            "best": group.place == 1,
            "runs": " ".join(member.label for member in group.members[:20]),
        }
        for group in found.groups
    ]
    page = fill(
        Path(__file__).with_name("comparison.html"),
        {"unit": x, "charts": [chart]},
        title=f"{found.metric} of {len(found.groups)} configurations, {BETTER[found.mode]}",
        commands=COMMANDS,
        sentences=[*filter(None, [found.warning]), *found.conclusion, *found.notes],
        metric=found.metric,
        rows=table,
        y=column,
        shown=MOST,
        left_out=len(found.groups) > MOST,
        cut=extent.note,
        about_curves=about_curves(found.metric, column),
    )
    replace(file, utf8(page))


def series_of(name: str, rows: list[dict[str, Any]], x: str, dash: list[int] | None) -> dict[str, Any]:
    """Return a curve as charts.js draws it: thinned out, with the ends of its interval where it is a mean."""
    step = max(1, len(rows) // MOST_POINTS)
    kept = [*rows[:-1:step], rows[-1]]
    columns = {"x": x, "values": "mean"} | ({"low": "low", "high": "high"} if rows[0]["n"] > 1 else {})
    found: dict[str, Any] = {key: [rounded(row[column]) for row in kept] for key, column in columns.items()}
    return {"name": name[:LONGEST], **({"dash": dash} if dash else {}), **found}
