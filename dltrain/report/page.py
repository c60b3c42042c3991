"""report.html of a run: one file that opens anywhere, offline: styles, script and data are inside, and nothing is fetched.

Names, tags and classes may come from elsewhere: the template escapes every text, the data cannot end their script element,
and the page's own policy allows no script but ours, by its digest.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import dltrain
from dltrain.errors import typed
from dltrain.report.charts import charts_of, layer_table, place_of, thinned
from dltrain.report.findings import findings, overrides, proposed
from dltrain.report.record import Record, columns_of, number_in, numbers_of
from dltrain.screen.numbers import clock, in_bytes, number
from dltrain.storage.job_names import job_label
from dltrain.storage.summary import WHOLE

# what a page holds at most; the files beside it have all
MOST_CLASSES = 100
MOST_CELLS = 30  # classes of a confusion matrix in text; larger ones are pictures
MOST_CONFUSIONS = 12
MOST_NUMBER_ROWS = 100
MOST_NUMBER_COLUMNS = 12
MOST_LAYERS = 200
LONGEST_TEXT = 2_000
_CONTROLS = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(127, 160)), "\ufffd")
LONGEST_LABEL = 30  # of a class in a picture
STYLES = ("vendor/uPlot.min.css", "page.css")
SCRIPTS = ("vendor/uPlot.LICENSE", "vendor/uPlot.iife.min.js", "charts.js")
CONSTANT = "Constant guess: the best that an output independent of the input can reach, by the class frequencies of the scored split."
MEASURED = (
    "Constant guess: the mean of the training targets, or the fractions of their classes, on the {} split."
)


@dataclass(frozen=True)
class Picture:
    """A sample as a PNG file, and what is written below it."""

    picture: bytes
    caption: str


@dataclass(frozen=True)
class Samples:
    """Samples of a split, those that the model is most wrong about apart."""

    split: str
    about_mistakes: str
    mistakes: Sequence[Picture]
    inputs: Sequence[Picture]


def render(
    record: Record,
    asked: Sequence[Sequence[str]] | None = None,
    unread: str = "",
    samples: Samples | None = None,
) -> str:
    """Return the page of a run.

    asked: rows of key, value, default and who chose it; None where config.yaml cannot be compared, for the reason `unread`
    """
    charts = charts_of(record)
    return fill(
        Path(__file__).with_name("run.html"),
        charts,
        record=record,
        title=title_of(record),
        good=record.summary["status"] in (*WHOLE, "running"),
        written=written_at(record),
        facts=facts(record),
        findings=findings(record),
        places={chart["place"] for chart in charts["charts"]},
        told=told(record),
        every=charts["every"],
        left_out=len(charts["left_out"]),
        samples=samples,
        asked=asked,
        unread=unread,
        cost=cost(record),
        files=[(name, in_bytes(size)) for name, size in record.files],
        **results(record),
        **numbers(record),
        **classes(record),
        **layer_rows(record),
    )


# Sections ---------------------------------------------------------------------------------------------------------


def title_of(record: Record) -> str:
    """Return the name of a run; of a job that of its sweep, with the end by which every verb finds the job, `digits_mlp 820e/31`."""
    folder = record.path.absolute()
    sweep = folder.parent
    name = record.summary.get("name") or (sweep.parent if record.is_job else sweep).name
    return f"{name} {sweep.name.rpartition('-')[2]}/{job_label(folder.name)}" if record.is_job else str(name)


def told(record: Record) -> dict[str, Any]:
    """Return the texts of summary.json that the page shows as they are."""
    summary = record.summary
    inferred = summary.get("inferred")
    texts = {key: str(summary.get(key) or "") for key in ("status", "stop_reason", "notes", "command")}
    # the command of a job is that of its sweep
    own = ""
    if record.is_job and overrides(record):
        own = proposed(record, *overrides(record)) or typed("rerun", record.path)
    return {**texts, "own": own, "inferred": inferred if isinstance(inferred, list) else []}


def written_at(record: Record) -> str:
    try:
        return f"{datetime.fromisoformat(str(record.summary.get('written'))):%Y-%m-%d %H:%M}"
    except ValueError:
        return ""


def facts(record: Record) -> list[tuple[str, str]]:
    """Return the numbers at the top: the best evaluation, test scores, time."""
    found = []
    if record.metric in record.best:
        found.append(
            (
                f"best {record.metric}, epoch {record.best.get('epoch', 0):g}",
                number(record.best[record.metric]),
            )
        )
    found += [(f"test {name}", number(value)) for name, value in list(record.tests.items())[:3]]
    for name, key, text in (("time", "seconds", clock), ("parameters", "parameters", "{:,.0f}".format)):
        value = number_in(record.summary, key)
        found += [(name, text(value))] if value is not None else []
    return found


def results(record: Record) -> dict[str, Any]:
    """Return the table of scores: the best evaluation, the test split and a constant guess."""
    heads = {
        "train, best epoch": {
            k.removeprefix("train/"): v for k, v in record.best.items() if k.startswith("train/")
        },
        "val, best epoch": {
            k.removeprefix("val/"): v for k, v in record.best.items() if k.startswith("val/")
        },
        "test": record.tests,
        "constant guess": record.constant,
    }
    names = list(
        dict.fromkeys(name for key, scores in heads.items() if key != "constant guess" for name in scores)
    )
    used = {head: scores for head, scores in heads.items() if any(name in scores for name in names)}
    rows = [(name, *(number(s[name]) if name in s else "–" for s in used.values())) for name in names]
    measured = MEASURED.format(record.scored_split) if record.summary.get("constant") else CONSTANT
    about = measured if "constant guess" in used else ""
    return {"results": rows, "result_heads": ["metric", *used], "constant_about": about}


def numbers(record: Record) -> dict[str, Any]:
    """Return the columns of the curves as a table, evaluations thinned out evenly."""
    curves = [name for name in columns_of(record.rows) if name != "step" and place_of(name)[0] == "curves"]
    heads = curves[:MOST_NUMBER_COLUMNS]
    every = math.ceil(len(record.rows) / MOST_NUMBER_ROWS) or 1
    rows = [
        [short(row.get(name, math.nan)) for name in heads] for row in thinned(record.rows, every, record.best)
    ]
    return {"numbers": rows, "number_heads": heads}


def classes(record: Record) -> dict[str, Any]:
    """Return the report by class, the most frequent mistakes and the confusion matrix."""
    lowest = sorted(record.classes, key=lambda row: float(row["f1"]))
    rows = [
        (
            row["class"],
            *(f"{float(row[name]):.3f}" for name in ("precision", "recall", "f1")),
            f"{float(row['support']):g}",
        )
        for row in lowest[:MOST_CLASSES]
    ]
    names = [row["class"] for row in record.classes]
    matrix = record.confusion if len(record.confusion) == len(names) else []
    return {
        "classes": rows,
        "classes_left_out": len(lowest) - len(rows),
        "class_names": names,
        "split_about": f"On the {record.scored_split} split, with the weights of the best evaluation.",
        "confusions": confusions(matrix, names),
        "matrix": cells(matrix, names) if len(names) <= MOST_CELLS else [],
        "matrix_picture": matrix_picture(matrix, names) if MOST_CELLS < len(names) <= MOST_CLASSES else b"",
    }


def confusions(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """Return true class, predicted class, count and share of the class of the most frequent mistakes."""
    wrong = [(count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) if i != j and count]
    most = sorted(wrong, key=lambda item: (-item[0], item[1:]))[:MOST_CONFUSIONS]
    return [(names[i], names[j], f"{count:,}", f"{count / sum(matrix[i]):.1%}") for count, i, j in most]


def cells(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of a confusion matrix; share: percent of the true class."""
    return [
        {
            "name": names[i],
            "cells": [
                {"count": count, "hit": i == j, "share": round(100 * count / (sum(row) or 1))}
                for j, count in enumerate(row)
            ],
        }
        for i, row in enumerate(matrix)
    ]


def matrix_picture(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> bytes:
    """Draw a confusion matrix that is too large for a table."""
    if not matrix:
        return b""
    import numpy as np

    from dltrain.loggers.figures import paint_matrix, png

    # measuring long names to shorten them takes seconds
    return png(paint_matrix(np.array(matrix), [name[:LONGEST_LABEL] for name in names], ""))


def layer_rows(record: Record) -> dict[str, Any]:
    """Return the quantities of diagnostics=[layers] in the last evaluation, a row for each layer."""
    quantities, layers = layer_table(record.rows[-1]) if record.rows else ([], {})
    rows = [
        (name, *(short(values[key]) if key in values else "–" for key in quantities))
        for name, values in layers.items()
    ]
    return {"layers": rows[:MOST_LAYERS], "layer_heads": ["layer", *quantities]}


def cost(record: Record) -> list[tuple[str, str]]:
    """Return what the run took, and where it ran."""
    summary = record.summary
    found: list[tuple[str, str]] = []
    for name, key, text in (
        ("training", "seconds", clock),
        ("epochs", "epochs", "{:g}".format),
        ("steps", "steps", "{:,.0f}".format),
        ("samples per second", "images_per_second", "{:,.0f}".format),
        ("peak memory", "peak_memory_bytes", in_bytes),
        ("parameters", "parameters", "{:,.0f}".format),
        ("threads", "threads", "{:g}".format),
        ("seed", "seed", "{:g}".format),
    ):
        value = number_in(summary, key)
        found += [(name, text(value))] if value else []
    startup = numbers_of(summary.get("startup"))
    texts = {
        "start-up": ", ".join(f"{name} {clock(value)}" for name, value in startup.items()),
        "device": summary.get("device"),
        "versions": listed(summary.get("versions")),
        "code": listed(summary.get("git")),
        "tags": ", ".join(map(str, summary["tags"])) if isinstance(summary.get("tags"), list) else "",
    }
    return found + [(name, str(text)) for name, text in texts.items() if text]


def listed(value: object) -> str:
    return ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, Mapping) else ""


# Texts ------------------------------------------------------------------------------------------------------------


def short(value: float) -> str:
    """Return a number of a table: whole ones without a point."""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:g}" if float(value).is_integer() and abs(value) < 1e6 else number(value)


def json_inside(value: object) -> str:
    """Return JSON that can stand in a script element: no text in it ends the element or opens a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# The template -----------------------------------------------------------------------------------------------------


def fill(template: Path, data: object, **values: object) -> str:
    """Return the page of a template, which extends page.html; data: what charts.js draws."""
    script = "\n".join(map(source, SCRIPTS))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text: str = environment(template.parent).get_template(template.name).render(
        version=dltrain.__version__,
        style=trusted("\n".join(map(source, STYLES))),
        script=trusted(script),
        script_hash=f"sha256-{digest}",
        data=trusted(json_inside(data)),
        **values,
    )  # fmt: skip
    # HTML has no such characters, and a terminal that shows the file would follow them
    return text.translate(_CONTROLS)


@cache
def source(name: str) -> str:
    """Return a file of this package. The license of uPlot is a comment, as it must be in each copy."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return f"/*! uPlot\n{text}*/" if name.endswith("LICENSE") else text


@cache
def environment(folder: Path) -> Any:
    """Return the environment of the templates, which escapes every text and cuts off what is too long for a page."""
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        finalize=cut,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters["data_url"] = lambda picture: trusted(
        "data:image/png;base64," + base64.b64encode(picture).decode()
    )
    return found


def trusted(text: str) -> Any:
    """Mark a text of ours as HTML."""
    from markupsafe import Markup

    return Markup(text)


def cut(value: object) -> object:
    """Return a value as the page shows it: long texts lose their end, unless they are ours."""
    if hasattr(value, "__html__") or len(text := str(value)) <= LONGEST_TEXT:
        return value
    return f"{text[:LONGEST_TEXT]}… ({len(text):,} characters)"
