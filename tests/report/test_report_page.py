"""report.html: what stands in it is what the run folder holds, whole, escaped, small and offline."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import boxes, drawn, in_browser
from PIL import Image

from dltrain import report as report_package
from dltrain.errors import CheckpointProblem
from dltrain.report.charts import charts_of, place_of
from dltrain.report.page import Picture, Samples, render
from dltrain.report.record import read
from dltrain.storage.lock import Lock

HOSTILE = "</script><img src=x onerror=\"alert('1')\">'\"{{ 7*7 }}<!--&"
CLASS_HEADS = ["class", "precision", "recall", "f1", "support"]


class Page(HTMLParser):
    """The elements of a page with their attributes and texts, and the rows of its tables by section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.cell = self.script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.cell, self.script = tag in ("td", "th"), tag == "script"
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif self.cell:
            self.tables[-1][-1].append("")
        elif tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.cell, self.script = self.cell and tag not in ("td", "th"), False

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.cell:
            self.tables[-1][-1][-1] += data
        elif self.script:
            self.scripts[-1] += data

    def table(self, head: str) -> list[list[str]]:
        """Return the rows of the table whose first column has this head."""
        return next(rows for rows in self.tables if rows[0][0] == head)

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])


def folder(path: Path, rows: list[dict[str, Any]], names: list[str] | None = None, **summary: Any) -> Path:
    """Write a run folder with these rows, a report of three classes, and a summary."""
    path.mkdir(parents=True)
    write(path / "metrics.csv", [list(rows[0]), *(list(row.values()) for row in rows)])
    best = min(rows, key=lambda row: row["val/loss"])
    facts = {"status": "completed", "metric": "val/loss", "mode": "min", "best": best, "seconds": 12.5}
    (path / "summary.json").write_text(json.dumps(facts | {"test": {"accuracy": 0.8, "loss": 0.4}} | summary))
    names = names or ["ant", "bee", "cat"]
    counts = np.array([[40, 5, 5], [0, 30, 0], [10, 0, 10]])
    matrix = [[name, *row] for name, row in zip(names, counts.tolist(), strict=True)]
    write(path / "confusion_matrix.csv", [["true \\ predicted", *names], *matrix])
    lines = [[name, 0.8, 0.8, 0.9 - 0.1 * k, int(counts[k].sum())] for k, name in enumerate(names)]
    write(path / "per_class.csv", [CLASS_HEADS, *lines, ["macro mean", 0.8, 0.8, 0.8, 100]])
    return path


def write(file: Path, rows: list[list[Any]]) -> None:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    file.write_text(stream.getvalue())


def curves(count: int, **more: Any) -> list[dict[str, Any]]:
    """Return rows whose lowest val/loss is in the middle."""
    return [
        {"epoch": i + 1, "step": 5 * (i + 1), "lr": 0.1, "train/loss": 2 / (i + 1), "val/loss": 0.5 + abs(i - count // 2) / count, **more}
        for i in range(count)
    ]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return folder(tmp_path / "digits" / "run", curves(9), command="dltrain epochs=9")


def page_of(run: Path, *asked: Any, **more: Any) -> Page:
    return Page(render(read(run), *asked, **more))


def test_the_curves_are_the_columns(run):
    data = page_of(run).data
    with open(run / "metrics.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert data["x"] == [float(row["epoch"]) for row in rows]
    assert data["best"] == 5 and data["every"] == 1 and data["left_out"] == []
    drawn = {
        f"{s['name']}/{chart['title']}": s["values"] for chart in data["charts"] for s in chart["series"]
    }
    assert set(drawn) == {"train/loss", "val/loss", "lr/lr"}
    assert drawn["val/loss"] == pytest.approx([float(row["val/loss"]) for row in rows], rel=1e-5)


def test_the_result_stands_beside_a_constant_guess(run):
    head, loss, accuracy = page_of(run).table("metric")
    assert head == ["metric", "train, best epoch", "val, best epoch", "test", "constant guess"]
    # classes of 50, 30 and 20 samples
    entropy = -sum(p * np.log(p) for p in (0.5, 0.3, 0.2))
    assert loss == ["loss", "0.4000", "0.5000", "0.4000", f"{entropy:.4f}"]
    assert accuracy == ["accuracy", "–", "–", "0.8000", "0.5000"]


def test_a_measured_constant_guess_names_the_split_that_was_scored(tmp_path):
    scored = page_of(folder(tmp_path / "a" / "run", curves(9), constant={"loss": 1.0}))
    about = "Constant guess: the mean of the training targets, or the fractions of their classes, on the {} split."
    assert about.format("test") in scored.words
    job = page_of(folder(tmp_path / "b" / "run", curves(9), constant={"loss": 1.0}, test={}))
    assert about.format("validation") in job.words


def test_classes_and_mistakes(run):
    page = page_of(run)
    assert [row[0] for row in page.table("class")] == ["class", "cat", "bee", "ant"]
    assert page.table("true")[1:] == [
        ["cat", "ant", "10", "50.0%"], ["ant", "bee", "5", "10.0%"], ["ant", "cat", "5", "10.0%"],
    ]  # fmt: skip
    matrix = page.table("true \\ predicted")
    assert [row[1:] for row in matrix[1:]] == [["40", "5", "5"], ["0", "30", "0"], ["10", "0", "10"]]


def test_what_was_asked_and_the_files(run):
    page = page_of(run, [("lr", "0.1", "null", "command line")])
    assert page.table("differs from the defaults")[1] == ["lr", "0.1", "null", "command line"]
    size = (run / "metrics.csv").stat().st_size
    assert ["metrics.csv", f"{size} B"] in page.table("file")
    assert "dltrain epochs=9" in page.words
    assert any("as by default" in text for text in page_of(run, []).words)
    assert any("the defaults: damaged" in text for text in page_of(run, None, "damaged").words)


def test_a_job_has_its_number_in_the_title_and_its_own_command(tmp_path):
    sweep = tmp_path / "digits_mlp" / "2026-11-26_19-09-27-820e"
    whole = "dltrain -m lr=0.1,0.2 sweep.seeds=5 --config-name main"
    overrides = ["lr=0.2", "seed=1", "evaluation.test=false"]
    job = folder(sweep / "31-lr=0.2,seed=1", curves(9), command=whole, overrides=overrides)
    assert "this job alone" not in render(read(job))
    (sweep / "sweep.json").write_text("{}")
    text = render(read(job), [])
    assert "<title>digits_mlp 820e/31</title>" in text and "<h1>digits_mlp 820e/31 " in text
    words = Page(text).words
    assert whole in words
    assert "dltrain lr=0.2 seed=1 evaluation.test=false --config-name main" in words
    foreign = folder(sweep / "32-lr=0.2", curves(9), command=whole, overrides=["lr=0.2", "trust=[theirs]"])
    words = Page(render(read(foreign), [])).words
    assert f"dltrain rerun {foreign}" in words and not any("theirs" in word for word in words)


def test_layers_have_a_table_and_charts(tmp_path):
    columns = {"layers/features.0/gradient": 0.25, "layers/head/gradient": 0.5, "layers/features.0/dead": 0}
    page = page_of(folder(tmp_path / "run", curves(4, **columns)))
    assert page.table("layer") == [
        ["layer", "gradient", "dead"], ["features.0", "0.2500", "0"], ["head", "0.5000", "–"],
    ]  # fmt: skip
    (chart,) = (chart for chart in page.data["charts"] if chart["title"] == "layers: gradient")
    assert chart["place"] == "diagnostics" and [s["name"] for s in chart["series"]] == ["features.0", "head"]


# Offline, escaped, small --------------------------------------------------------------------------------------------


def hostile(tmp_path: Path) -> Page:
    names = [HOSTILE, f"{HOSTILE}2", "cat"]
    columns = {f"layers/{HOSTILE}/gradient": 1.0, f"val/{HOSTILE}": 0.5, HOSTILE: 1.0}
    texts = {"status": HOSTILE, "stop_reason": HOSTILE, "name": HOSTILE, "notes": HOSTILE, "tags": [HOSTILE], "command": HOSTILE,
             "inferred": [HOSTILE], "device": HOSTILE, "written": HOSTILE, "overrides": [HOSTILE], "metric": HOSTILE,
             "versions": {HOSTILE: HOSTILE}, "git": {HOSTILE: HOSTILE}, "test": {HOSTILE: 1.0}, "startup": {HOSTILE: 1.0}}  # fmt: skip
    run = folder(tmp_path / "x" / "run", curves(4, **columns), names, **texts)
    (run / "<img src=x onerror=1>").write_text("")
    picture = io.BytesIO()
    Image.new("L", (4, 4)).save(picture, "png")
    samples = Samples(
        HOSTILE, HOSTILE, [Picture(picture.getvalue(), HOSTILE)], [Picture(picture.getvalue(), HOSTILE)]
    )
    return page_of(run, [(HOSTILE, HOSTILE, HOSTILE, HOSTILE)], HOSTILE, samples)


def test_hostile_texts_stay_texts(tmp_path):
    page = hostile(tmp_path)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 2
    assert [str(a["src"])[:22] for tag, a in page.elements if tag == "img"] == ["data:image/png;base64,"] * 2
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    allowed = {"html", "head", "meta", "title", "style", "body", "a", "header", "h1", "h2", "h3", "span", "p", "div", "b", "nav",
               "main", "section", "ul", "li", "code", "table", "thead", "tbody", "tr", "th", "td", "noscript", "kbd", "details",
               "summary", "dl", "dt", "dd", "img", "script"}  # fmt: skip
    assert set(tags) <= allowed
    titles = [chart["title"] for chart in page.data["charts"]]
    assert HOSTILE in titles or any(HOSTILE[:30] in title for title in titles)
    assert sum(HOSTILE in text for text in page.words) > 15
    assert not any("49" in text for text in page.words if "7*7" in text)


def test_only_the_script_of_the_page_may_run(run):
    page = page_of(run)
    (policy,) = (a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert (
        policy
        == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


def test_nothing_is_fetched(tmp_path):
    text = render(read(folder(tmp_path / "run", curves(4))))
    assert not re.findall(r"\w+://[^\"'\s]*", text)
    assert not re.search(r"@import|url\((?!#)|<link|src=(?!\"data:)", text)


PACKAGE = Path(report_package.__file__).parent


def test_charts_are_drawn_by_the_library_and_its_license_is_in_each_page(run):
    script = (PACKAGE / "charts.js").read_text()
    assert "new uPlot(" in script and "createElement" in script
    assert not re.search(
        r"createElementNS|innerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script
    )
    for name, digest in json.loads((PACKAGE / "vendor" / "uPlot.json").read_text())["sha256"].items():
        content = (PACKAGE / "vendor" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert not re.search(rb"\beval\b|new Function", content)
    page = page_of(run)
    assert (
        "Permission is hereby granted, free of charge" in page.scripts[1]
        and "Leon Sorokin" in page.scripts[1]
    )


def test_the_largest_page_has_three_megabytes_at_most(tmp_path):
    rows = curves(1500, **{f"layers/{'x' * 90}{k}/gradient": 1 / (k + 3) for k in range(120)})
    names = [f"{'class ' * 20}{k}" for k in range(100)]
    run = folder(tmp_path / "run", rows[:2], notes="n" * 4_000_000, overrides=["o" * 4_000_000])
    write(run / "metrics.csv", [list(rows[0]), *(list(row.values()) for row in rows)])
    draw = np.random.default_rng(0)
    counts = draw.integers(0, 1000, (100, 100)).tolist()
    matrix = [[name, *row] for name, row in zip(names, counts, strict=True)]
    write(run / "confusion_matrix.csv", [["", *names], *matrix])
    write(run / "per_class.csv", [CLASS_HEADS, *([name, 0.5, 0.5, 0.5, 9] for name in names)])
    stream = io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(stream, "png")
    noise = [Picture(stream.getvalue(), "true a, predicted b (50%)")] * 36
    found = read(run)
    text = render(found, [], "", Samples("test", "Mistakes", noise[:24], noise[24:]))
    assert 1_500_000 < len(text.encode()) < 3_000_000
    data = charts_of(found)
    assert data["every"] > 1 and len(data["x"]) < 1500
    assert data["x"][-1] == 1500 and data["best"] in data["x"]


def test_a_great_many_columns_are_counted(tmp_path):
    rows = curves(3, **{f"d/{k}/v": 1.0 for k in range(3000)})
    data = charts_of(read(folder(tmp_path / "run", rows)))
    shown = sum(len(chart["series"]) for chart in data["charts"])
    assert shown == 2000 and len(data["left_out"]) == 3003 - 2000
    assert "val/loss" not in data["left_out"]


# Runs that are not whole --------------------------------------------------------------------------------------------


def test_a_run_that_has_just_begun(tmp_path):
    (tmp_path / "config.yaml").write_text("lr: 1\n")
    page = page_of(tmp_path)
    assert "No evaluation yet." in page.words and page.data["charts"] == []
    assert "killed" in page.words
    lock = Lock(tmp_path)
    assert "running" in page_of(tmp_path).words
    lock.release()


@pytest.mark.parametrize(
    ("status", "shown"), [("interrupted", "interrupted"), ("running", "killed"), ("failed", "failed")]
)
def test_a_run_that_did_not_end_shows_its_best_evaluation(tmp_path, status, shown):
    rows = [row | {"val/accuracy": row["epoch"] % 4} for row in curves(10)]
    page = page_of(
        folder(tmp_path / "run", rows, status=status, best=None, metric="val/accuracy", mode="max")
    )
    assert shown in page.words and "No evaluation yet." not in page.words
    assert "best val/accuracy, epoch 3" in page.words and page.data["best"] == 3


def test_one_evaluation_has_no_curves(tmp_path):
    page = page_of(folder(tmp_path / "run", curves(1)))
    assert page.data["charts"] == [] and not any(a.get("id") == "curves" for _, a in page.elements)


def test_values_that_are_not_finite_are_gaps(tmp_path):
    rows = curves(4)
    rows[2]["train/loss"] = "nan"
    (loss,) = (c for c in page_of(folder(tmp_path / "run", rows)).data["charts"] if c["title"] == "loss")
    assert [value is None for value in loss["series"][0]["values"]] == [False, False, True, False]


@pytest.mark.parametrize(
    "file,content,told",
    [
        ("metrics.csv", "epoch,step\n1,x\n", "metrics.csv is no table of a run"),
        ("per_class.csv", "class,f1\nant,x\n", "per_class.csv is no report by class"),
        ("per_class.csv", "a,b\n1,2\n", "per_class.csv is no report by class"),
        ("confusion_matrix.csv", "t,a\na,1,2\n", "is no confusion matrix: it is not square"),
        ("confusion_matrix.csv", "t,a\na,x\n", "is no confusion matrix"),
        ("summary.json", "[]", "summary.json cannot be read"),
    ],
)
def test_a_damaged_file_is_named(run, file, content, told):
    (run / file).write_text(content)
    with pytest.raises(CheckpointProblem, match=told):
        read(run)


@pytest.mark.parametrize(
    "damage", [{"best": 3}, {"test": [1]}, {"seconds": "x"}, {"inferred": 5}, {"tags": 5}, {"versions": "x"}, {"metric": None}]
)  # fmt: skip
def test_a_summary_with_other_types_has_a_page(tmp_path, damage):
    assert page_of(folder(tmp_path / "run", curves(4), **damage)).table("file")


# In a browser -------------------------------------------------------------------------------------------------------


@pytest.mark.ci
@in_browser
def test_a_browser_draws_every_curve(tmp_path):
    run = folder(
        tmp_path / "run",
        curves(9, **{f"val/{HOSTILE}": 1.0, "layers/a/gradient": 1.0, "layers/b/gradient": 2.0}),
    )
    charts = drawn(render(read(run)), tmp_path)
    with open(run / "metrics.csv") as stream:
        rows = list(csv.DictReader(stream))
    shown = {chart["title"]: chart["data"] for chart in charts}
    columns = {title: len(data) - 1 for title, data in shown.items()}
    assert columns == {"loss": 2, "lr": 1, HOSTILE: 1, "layers: gradient": 2}
    for data, name in zip(shown["loss"], ("epoch", "train/loss", "val/loss"), strict=True):
        assert data == pytest.approx([float(row[name]) for row in rows], rel=1e-5)
    assert all(chart["painted"] > 1000 for chart in charts)


@pytest.mark.ci
@in_browser
def test_a_browser_leaves_gaps_and_has_labels_of_one_format(tmp_path):
    rows = curves(9) + [row | {"epoch": 10, "step": 50, "train/loss": 1e-4} for row in curves(1)]
    rows[4]["train/loss"], rows[6]["train/loss"] = "nan", -1.0
    charts = drawn(render(read(folder(tmp_path / "run", rows))), tmp_path)
    (loss,) = (chart for chart in charts if chart["title"] == "loss")
    assert [k for k, value in enumerate(loss["data"][1]) if value is None] == [4]
    below, left = loss["axes"]
    assert below == [str(epoch) for epoch in range(1, 11)] and left == ["-1", "0", "1", "2"]


@pytest.mark.ci
@in_browser
def test_on_a_narrow_screen_a_box_says_that_it_scrolls_where_it_does(tmp_path):
    wide = {f"val/metric_number_{k}": 0.5 for k in range(12)}
    run = folder(tmp_path / "digits" / ("a_long_name_of_a_run_" * 5) / "run", curves(9, **wide))
    page = render(read(run), [["lr", "0.1", "0.2", "command line"]] * 3).replace(
        "<details>", "<details open>"
    )
    found = boxes(page, tmp_path)
    assert any(overflows for overflows, _ in found)
    assert all(overflows == says for overflows, says in found), found
    # the card of the files, whose folder has a long path
    assert found[-2] == (False, False)


def test_the_rate_is_of_samples_whatever_they_are():
    assert place_of("images_per_second") == ("speed", "samples/s", "samples/s")


@pytest.mark.skipif(shutil.which("node") is None, reason="runs the script of the page in node")
@pytest.mark.parametrize("marks, labels", [
    ([0.0009, 0.00095, 0.001], ["9.0e-4", "9.5e-4", "1.0e-3"]),
    ([0, 50000, 100000], ["0", "5e4", "1e5"]),
    ([1000000, 1050000], ["1.00e6", "1.05e6"]),
    ([100, 1e5, 1e8], ["1e2", "1e5", "1e8"]),
    ([0, 0.5, 1], ["0", "0.5", "1"]),
    ([2000, 50000], ["2000", "50000"]),
])  # fmt: skip
def test_the_labels_of_an_axis_have_one_format(marks, labels):
    script = (PACKAGE / "charts.js").read_text()
    functions = [
        script[script.index(f"  function {name}(") :].partition("\n  }\n")[0] + "\n}"
        for name in ("shown", "labels")
    ]
    code = (
        "\n".join(functions) + f"\nconsole.log(JSON.stringify([labels({json.dumps(marks)}), shown(1050000)]))"
    )
    printed = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == [labels, "1.05e6"]


@pytest.mark.skipif(shutil.which("node") is None, reason="runs the script of the page in node")
def test_an_axis_has_three_ticks_at_least():
    script = (PACKAGE / "charts.js").read_text()
    functions = [
        script[script.index(f"  function {name}(") :].partition("\n  }\n")[0] + "\n}"
        for name in ("ticks", "logTicks")
    ]
    code = (
        "\n".join(functions)
        + """
const ends = [...Array(400).keys()].map((k) => [0.01 * (1 + k * 0.037), 0.01 * (1 + k * 0.037) * (1.05 + (k % 23) * 0.8)]);
console.log(JSON.stringify(ends.map(([low, high]) => [ticks(low, high, 5), logTicks(low, high)].map((found) => found.length))));"""
    )
    printed = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True).stdout
    counts = [count for pair in json.loads(printed) for count in pair]
    assert min(counts) >= 3 and max(counts) <= 12
