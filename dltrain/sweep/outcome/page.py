"""A comparison as one HTML file, which needs no network."""

from __future__ import annotations

import json
from pathlib import Path

from dltrain.direction import BETTER
from dltrain.screen.table import number
from dltrain.storage.files import replace
from dltrain.sweep.outcome.comparison import Comparison
from dltrain.sweep.outcome.extent import extent_of
from dltrain.sweep.outcome.figure import MOST, Style, best_of, chart, curve, name_of
from dltrain.text import utf8

TEMPLATE = Path(__file__).with_name("comparison.html")


def write_page(found: Comparison, file: Path, x: str, y: str | None) -> None:
    """Write the table, what it says, and the curves of the best configurations."""
    import jinja2
    import vl_convert

    shown, column = best_of(found), y or found.metric
    rows = [row for group in shown for row in curve(group, x, column)]
    extent = extent_of(rows, column)
    spec = chart(rows, Style(file, x=x), column, [name_of(group) for group in shown], extent, on_screen=True)
    table = [
        {
            "label": name_of(group),
            "mean": number(group.mean),
            "interval": "" if group.half_width != group.half_width else f"{group.half_width:.2g}",
            "n": len(group.values),
            "verdict": group.verdict,
            "place": group.place,
            "best": group.place == 1,
            "runs": " ".join(member.label for member in group.members[:20]),
        }
        for group in found.groups
    ]
    template = jinja2.Environment(autoescape=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(
        title=f"{found.metric} of {len(found.groups)} configurations, {BETTER[found.mode]}",
        sentences=[*filter(None, [found.warning]), *found.conclusion, *found.notes],
        metric=found.metric,
        rows=table,
        y=column,
        shown=MOST,
        left_out=len(found.groups) > MOST,
        cut=extent.note,
        bundle=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
        # names of strangers do not end the script
        spec=json.dumps(spec).replace("<", "\\u003c"),
    )
    replace(file, utf8(page))
