"""What a real sweep leaves behind, column by column, against the folders of its jobs; what the pruner was told."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import Run, job_at
from pages import data_in
from test_sweep_parts import axes, planted

from dltrain.cli import dispatch
from dltrain.config.compose import open_catalogue, open_hydra
from dltrain.config.door import rights_of_record, rights_of_user
from dltrain.sweep.backends.worker import Watch
from dltrain.sweep.jobs import Job
from dltrain.sweep.outcome.ranking import rank, winner
from dltrain.sweep.outcome.report import write_report
from dltrain.sweep.plan.composer import Composer
from dltrain.sweep.plan.plan import Plan
from dltrain.sweep.plan.reading import read_plan

COMMON = ("dataset.limit=150", "early_stopping=none", "quiet=true", "sweep.jobs=2", "sweep.backend=local")
FAILS = "1e+30"


@pytest.fixture(scope="module")
def composer():
    catalogue = open_catalogue()
    return Composer(catalogue, open_hydra(catalogue))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Three jobs: one whose best is not its last, one that is worse, one that diverges."""
    folder = tmp_path_factory.mktemp("sweep")
    code = dispatch(
        ["-m", f"lr=0.02,0.0005,{FAILS}", "epochs=11", *COMMON, f"output={folder}", "name=records"]
    )
    assert code == 7
    (record,) = folder.glob("*/*/sweep.json")
    return record.parent


def table(sweep: Path) -> list[dict[str, str]]:
    with open(sweep / "results.csv", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def best_row(run: Run) -> dict[str, float]:
    return min(run.rows, key=lambda row: row["val/loss"])


def test_columns_of_results_csv_are_those_of_the_jobs(sweep):
    rows = table(sweep)
    assert [row["job"] for row in rows] == ["0", "1", "2"]
    assert [row["lr"] for row in rows] == ["0.02", "0.0005", FAILS]
    assert [row["status"] for row in rows] == ["completed", "completed", "failed"]
    scores = {"val/loss", "val/accuracy", "train/loss", "train/accuracy"}
    known = {"job", "lr", "status", "objective", "best_epoch", "seconds", "reason", "folder", *scores}
    assert set(rows[0]) == known, "a new column needs a line below"
    for row in rows[:2]:
        run = Run(job_at(sweep, int(row["job"])))
        best = best_row(run)
        assert {name: float(row[name]) for name in scores} == {name: best[name] for name in scores}
        assert float(row["objective"]) == best["val/loss"]
        assert float(row["best_epoch"]) == best["epoch"]
        assert float(row["seconds"]) == pytest.approx(run.summary["seconds"], abs=6e-4)
        assert row["reason"] == ""
        assert os.path.samefile(row["folder"], run.path)
    assert float(rows[0]["best_epoch"]) < 11, "the case needs a best that is not the last"


def test_failed_job_has_its_reason_and_no_numbers(sweep):
    row = table(sweep)[2]
    assert row["objective"] == row["val/loss"] == row["train/accuracy"] == ""
    assert "not finite" in row["reason"]
    assert row["reason"] == json.loads((job_at(sweep, 2) / "summary.json").read_text())["stop_reason"]


# report.html --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tables as lists of cells, the facts, and the text and classes of every element."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.classes: list[str] = []
        self.elements: list[tuple[str, str, list[str]]] = []  # tag, class, [text]
        self.open: list[tuple[str, str, list[str]]] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = (tag, str(dict(attrs).get("class") or ""), [""])
        self.elements.append(element)
        if tag not in ("meta", "path", "circle", "rect"):
            self.open.append(element)
        if tag == "tr":
            self.rows.append([])
            self.classes.append(element[1])

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element[2][0] += data
        if self.open and self.open[-1][0] in ("td", "th"):
            self.rows[-1].append(data)

    def texts(self, tag: str, kind: str = "") -> list[str]:
        return [text[0] for name, classes, text in self.elements if name == tag and kind in classes]


@pytest.fixture
def page(sweep):
    return Page(sweep / "report.html")


def test_ranking_in_the_report(sweep, page):
    head, *lines = page.rows
    assert head == ["#", "job", "configuration", "val/loss", "best epoch", "status"]
    runs = [Run(job_at(sweep, number)) for number in (0, 1)]
    ranked = sorted(
        zip("01", ("lr=0.02", "lr=0.0005"), runs, strict=True), key=lambda j: best_row(j[2])["val/loss"]
    )
    for place, (line, (number, label, run)) in enumerate(zip(lines, ranked, strict=True), start=1):
        best = best_row(run)
        assert [line[0], line[1], line[2]] == [str(place), number, label]
        assert float(line[3]) == pytest.approx(best["val/loss"], rel=1e-3)
        assert float(line[4]) == pytest.approx(best["epoch"], rel=1e-3)
        assert line[5] == "completed"
    assert page.classes == ["", "best", ""]


def test_counts_and_best_in_the_report(sweep, page):
    facts = {
        n: v for v, n in re.findall(r"<b>(\d+)</b><span>(\w+)</span>", (sweep / "report.html").read_text())
    }
    assert facts["jobs"] == "3" and facts["done"] == "2" and facts["failed"] == "1"
    assert facts["pruned"] == facts["missing"] == "0"
    assert any("lr=0.02" in text for text in page.texts("code"))
    assert any("small is good" in text or "lower is better" in text for text in page.texts("p"))


def test_failed_job_in_the_report(sweep, page):
    (failure,) = page.texts("div", "fail")
    assert f"lr={FAILS}" in failure and "not finite" in failure
    assert f"{job_at(sweep, 2).name}/run.log" in failure and "dltrain" in failure


def test_curves_in_the_report(sweep, page):
    """One curve for each job with rows; its points are the rows, the best job's marked and drawn last."""
    (chart,) = data_in((sweep / "report.html").read_text())["charts"]
    assert (chart["place"], chart["title"]) == ("curves", "val/loss")
    assert [(curve["name"], curve["best"]) for curve in chart["series"]] == [
        ("lr=0.0005", False),
        ("lr=0.02", True),
    ]
    for job, curve in zip((1, 0), chart["series"], strict=True):
        rows = Run(job_at(sweep, job)).rows
        assert curve["x"] == [row["epoch"] for row in rows]
        assert curve["values"] == pytest.approx([row["val/loss"] for row in rows], rel=1e-5)
        assert chart["range"][0] <= min(curve["values"]) and "low" not in curve


NASTY = "<script>alert(\"1\")</script> & </td><b title='x'>"


def test_report_escapes_everything(composer, tmp_path):
    """Labels, reasons, notes, names of axes and of the folder are text and never markup."""
    folder = tmp_path / "<i>name" / "<u>date"
    folder.mkdir(parents=True)
    words = axes((NASTY, [NASTY, "b"]), ("lr", ["1", "<s>"]))
    first = composer.config(["early_stopping.metric=train/accuracy", "early_stopping.mode=max"])
    plan = Plan(words, [{}], [], {"trials": 4}, "<em>", composer, first, False)
    jobs = []
    for trial, chosen in enumerate({NASTY: a, "lr": b} for a in (NASTY, "b") for b in ("1", "<s>")):
        job = Job(trial, trial, chosen, [f"{NASTY}={chosen[NASTY]}"], folder / str(trial), "completed")
        job.folder.mkdir()
        (job.folder / "metrics.csv").write_text(
            f"epoch,step,train/accuracy\n1,1,0.{trial}1\n2,2,0.{trial}2\n"
        )
        job.summary = {"objective": trial / 10, "best_epoch": 2, "best": {}}
        jobs.append(job)
    jobs[3].fail(NASTY)
    write_report(plan, rank(plan, jobs), jobs, [NASTY], folder)
    page = Page(folder / "report.html")
    tags = {tag for tag, _, _ in page.elements}
    assert not tags & {"u", "s", "em"} and page.texts("i") == [""] * len(page.texts("div", "share"))
    assert len(page.texts("script")) == 2
    data = data_in((folder / "report.html").read_text())
    assert [axis["name"] for axis in data["axes"]] == [NASTY, "lr"] and data["axes"][0]["labels"] == [
        NASTY,
        "b",
    ]
    assert not [tag for tag, _, _ in page.elements if tag == "td" and "x" in tag]
    assert NASTY in page.texts("div", "warn")[0] and NASTY in page.texts("div", "fail")[0]
    assert any(NASTY in cell for row in page.rows for cell in row)
    assert all(len(row) == len(page.rows[0]) for row in page.rows)
    assert page.texts("h1") == ["<i>name"] and any(NASTY in dot["label"] for dot in data["configurations"])


# The winner ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["min", "max"])
def test_winner_among_repetitions_is_their_best(composer, tmp_path, mode):
    plan, jobs = planted(composer, tmp_path, mode)
    rows = rank(plan, jobs)
    best = min if mode == "min" else max
    means = {}
    for job in jobs:
        means.setdefault(job.trial, []).append(job.objective)
    assert rows[0].mean == pytest.approx(best(math.fsum(v) / len(v) for v in means.values()))
    found = winner(plan, rows)
    assert found.objective == best(job.objective for job in rows[0].jobs)
    assert found.objective != (max if mode == "min" else min)(job.objective for job in rows[0].jobs)


# What the pruner was told -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, evaluations",
    [
        (("epochs=4",), 4),
        (
            (
                "steps=11",
                "evaluation.every_steps=3",
                "evaluation.every_epochs=null",
                "checkpoint.every_steps=3",
            ),
            4,
        ),
    ],
    ids=["epochs", "steps"],
)
def test_pruner_is_told_each_evaluation_by_its_number(workdir, dltrain, monkeypatch, words, evaluations):
    from dltrain.sweep.study import Study

    told, pruners = {}, []
    report, use = Study.report, Study.use_pruner

    def recording(self, trial, step, value):
        told.setdefault(trial.number, []).append((step, value))
        report(self, trial, step, value)

    monkeypatch.setattr(Study, "report", recording)
    monkeypatch.setattr(
        Study, "use_pruner", lambda self, pruner: (pruners.append(pruner), use(self, pruner))[1]
    )
    dltrain("-m", "lr=0.01,0.003", *words, *COMMON, "sweep.pruner=hyperband", "sweep.min_evaluations=3")
    (pruner,) = pruners
    assert (pruner._min_resource, pruner._max_resource) == (3, evaluations)
    (record,) = workdir.glob("outputs/*/*/sweep.json")
    assert set(told) == {0, 1}
    lr_of = {
        s["overrides"][0]: Run(f.parent)
        for f in record.parent.glob("*/summary.json")
        if (s := json.loads(f.read_text()))
    }
    losses = {tuple(row["val/loss"] for row in run.rows) for run in lr_of.values()}
    for reports in told.values():
        assert [step for step, _ in reports] == list(range(1, len(reports) + 1))
    assert {tuple(value for _, value in reports) for reports in told.values()} == losses
    assert max(map(len, losses)) == evaluations


class Channel:
    def __init__(self) -> None:
        self.sent: list[tuple] = []

    def send(self, message: tuple) -> None:
        self.sent.append(message)

    def recv(self) -> str:
        return "enough"


@pytest.mark.parametrize("step, number", [(5, 1), (10, 2), (15, 3), (17, 4)])
def test_evaluations_are_counted_from_the_beginning_of_the_run(step, number):
    """Also in a job that was resumed, whose watch is new; the last one may come early."""
    channel = Channel()
    watch = Watch(channel, 7, "val/accuracy", 5, asks=True)
    row = {"step": float(step), "epoch": 0.5, "val/accuracy": 0.25, "val/loss": 3.0}
    assert watch(row, 0.5) == "enough"
    assert channel.sent == [(7, "row", number, 0.5, 0.25, 0.5)]


def test_a_job_of_a_record_is_repeated_with_the_rights_of_a_record(workdir):
    """Overrides of a stranger's sweep.json, typed as they are, would have the rights of the command line."""
    catalogue = open_catalogue()
    hydra = open_hydra(catalogue)
    texts = ["lr=0.1,0.2", "trust=[theirs]"]
    rights = {"user": rights_of_user(catalogue), "record": rights_of_record(catalogue, ["lr=0.1"])}
    plans = {who: read_plan(texts, "config", catalogue, hydra, given) for who, given in rights.items()}
    told = {who: plan.rerun_command(plan.job_of(0, Path("s"))) for who, plan in plans.items()}
    assert told["user"].startswith("dltrain lr=0.1 'trust=[theirs]'")
    assert told["record"] == "dltrain rerun s/0-lr=0.1"
