"""The books of a sweep: what a driver that is killed leaves, what the next one reads, and what a job costs in memory."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import tracemalloc
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import pytest
from conftest import job_at
from pages import data_in
from sweeping import Instant, Killed, states, summaries, summary_of, sweep_folder

from dltrain.config.door import rights_of_user
from dltrain.errors import CheckpointProblem, UserError
from dltrain.sweep import books
from dltrain.sweep.backends.protocol import Sweep, complete
from dltrain.sweep.driver import Driver
from dltrain.sweep.jobs import Job
from dltrain.sweep.live import Quiet
from dltrain.sweep.outcome import charts, report
from dltrain.sweep.outcome.files import write_csv
from dltrain.sweep.outcome.ranking import rank
from dltrain.sweep.plan.checks import check_all
from dltrain.sweep.plan.plan import Plan
from dltrain.sweep.plan.reading import read_plan
from dltrain.sweep.report_again import read_jobs
from dltrain.sweep.sweep import open_study

AXES = ("lr=0.1,0.2,0.3,0.4", "seed=range(10)", "model=linear")
BRIEF = ("model=linear", "steps=2", "quiet=true")


@pytest.fixture(scope="module")
def plans() -> dict[tuple[str, ...], Plan]:
    """Plans that were checked: several drivers can run one."""
    return {}


@pytest.fixture
def plan_of(opened, plans):
    catalogue, hydra = opened

    def make(*texts: str) -> Plan:
        if texts not in plans:
            plans[texts] = read_plan(list(texts), "config", catalogue, hydra, rights_of_user(catalogue))
            check_all(plans[texts])
        return plans[texts]

    return make


@pytest.fixture
def driver_of(plan_of, tmp_path):
    def make(backend: Instant, *texts: str) -> Driver:
        plan = plan_of(*(texts or AXES))
        full = complete(backend, Sweep(backend.places, plan.settings), "instant")
        return Driver(plan, open_study(plan, tmp_path), tmp_path, full, Quiet())

    return make


@pytest.fixture
def read(monkeypatch):
    """The numbers of the jobs whose summaries are read."""
    numbers: list[int] = []
    former = Job.read

    def counting(self: Job) -> None:
        numbers.append(self.number)
        former(self)

    monkeypatch.setattr(Job, "read", counting)
    return numbers


def rows(folder: Path, what: str) -> list[tuple]:
    connection = sqlite3.connect(folder / "books.sqlite")
    found = connection.execute(what).fetchall()
    connection.close()
    return found


def test_the_next_driver_reads_no_folder_that_the_books_know(driver_of, tmp_path, read):
    first = driver_of(Instant())
    assert first.run() and not (tmp_path / "study.log").exists(), "a grid needs no study"
    ended = {
        job.number: (job.chosen, job.state, job.objective, job.summary, job.seconds) for job in first.jobs
    }
    assert rows(tmp_path, "SELECT count(*), min(state), max(state) FROM jobs") == [
        (40, "completed", "completed")
    ]
    assert len({digest for (digest,) in rows(tmp_path, "SELECT digest FROM jobs")}) == 40
    read.clear()
    again = driver_of(Instant())
    assert read == [] and {job.number: (job.chosen, job.state, job.objective, job.summary, job.seconds) for job in again.jobs} == ended  # fmt: skip
    assert again.leader is not None and again.leader.objective == 0.0 and again.num_done == 40
    # what is no longer as it was is read, and what was deleted runs again
    (job_at(tmp_path, 7) / "summary.json").write_text(
        json.dumps(summary_of(again.jobs[7]) | {"objective": -1.0})
    )
    shutil.rmtree(job_at(tmp_path, 9))
    backend = Instant()
    third = driver_of(backend)
    assert read == [7] and third.leader.number == 7
    assert third.run() and backend.ran == [9] and len(third.jobs) == 40
    assert rows(tmp_path, "SELECT objective FROM jobs WHERE number = 7") == [(-1.0,)]


def lose_notes(driver: Driver, backend: Instant) -> None:
    """Let the books be as they are after a kill of the driver, if it comes."""
    close = driver.books.close

    def closed() -> None:
        if len(backend.ran) == backend.limit:
            driver.books.connection.close()
        else:
            close()

    driver.books.close = closed


@pytest.mark.parametrize("seed", range(3))
def test_drivers_that_are_killed_run_each_job_once(driver_of, seed):
    """Each is killed between a job's summary and its note; a tenth of the workers is killed, too."""
    draw = random.Random(seed)
    faults = {number: -9 for number in range(0, 40, 10)}
    ran: Counter[int] = Counter()
    for turn in range(8):
        backend = Instant(places=draw.randint(1, 5), faults=faults)
        retry = ("sweep.retry=failed",) if turn > 5 else ()
        driver = driver_of(backend, *AXES, *retry)
        backend.limit = draw.randint(4, 12) if turn < 6 else None
        lose_notes(driver, backend)
        with suppress(Killed):
            driver.run()
        ran.update(backend.ran)
        if not retry and driver.num_done == 40:
            assert Counter(states(driver).values()) == {"completed": 36, "failed": 4}
    assert ran == dict.fromkeys(range(40), 1)
    assert states(driver_of(Instant())) == dict.fromkeys(range(40), "completed")


@pytest.mark.parametrize("damage", ["bytes", "gone", "view", "forged", "killed", "log", "folder"])
def test_books_that_cannot_be_used_are_made_again(driver_of, tmp_path, read, damage, capsys):
    driver_of(Instant()).run()
    file = tmp_path / "books.sqlite"
    if damage == "bytes":
        file.write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    elif damage == "gone":
        file.unlink()
    elif damage == "killed":
        kill_a_driver_that_writes(file)
    elif damage == "folder":
        (tmp_path / "books.sqlite-journal").mkdir()
    elif damage == "log":
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    else:
        connection = sqlite3.connect(file)
        if damage == "view":
            connection.execute("ALTER TABLE jobs RENAME TO other")
            connection.execute("CREATE VIEW jobs AS SELECT * FROM other")
        else:
            connection.execute("UPDATE jobs SET best = '[1]', best_epoch = 'x', seconds = '{'")
        connection.commit()
        connection.close()
    read.clear()
    backend = Instant()
    driver = driver_of(backend)
    assert driver.run() and backend.ran == [] and sorted(read) == list(range(40))
    assert states(driver) == dict.fromkeys(range(40), "completed")
    said = capsys.readouterr()
    assert ("it is made again from the folders of the jobs" in said.out + said.err) == (
        damage in ("bytes", "view", "killed", "log", "folder")
    )
    assert list(tmp_path.glob("books.sqlite-*")) == list(tmp_path.glob("books.sqlite-journal/"))


def kill_a_driver_that_writes(file: Path) -> None:
    """Leave the journal of a transaction, and books of which some pages are already new."""
    pid = os.fork()
    if pid == 0:
        base = sqlite3.connect(file, isolation_level=None)
        base.execute("PRAGMA cache_size=1")
        base.execute("BEGIN IMMEDIATE")
        base.execute("UPDATE jobs SET objective = -9")
        base.execute("SELECT count(*) FROM jobs").fetchall()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert file.with_name(f"{file.name}-journal").stat().st_size > 0


def test_books_of_a_newer_format_are_refused(driver_of, tmp_path):
    driver_of(Instant()).run()
    connection = sqlite3.connect(tmp_path / "books.sqlite")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(
        CheckpointProblem, match="books.sqlite has format 2, of a newer dltrain.*\nUpdate dltrain, or delete"
    ):
        driver_of(Instant())
    (tmp_path / "books.sqlite").unlink()
    assert driver_of(Instant()).num_done == 40


@pytest.mark.ci
def test_a_disk_that_refuses_the_books_loses_nothing(driver_of, tmp_path, monkeypatch, capsys):
    """Such as a reader that holds them locked: the rows wait."""
    driver = driver_of(Instant())
    driver.books.connection.execute("PRAGMA busy_timeout = 0")
    reader = sqlite3.connect(tmp_path / "books.sqlite", isolation_level=None)
    reader.execute("BEGIN EXCLUSIVE")
    driver.note(driver.plan.job_of(3, tmp_path))
    driver.books.flush(now=True)
    assert list(driver.books.waiting) == [3]
    reader.execute("COMMIT")
    driver.books.flush(now=True)
    assert not driver.books.waiting and reader.execute("SELECT number, state FROM jobs").fetchall() == [
        (3, "waiting")
    ]
    reader.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(books, "PATIENCE", 0.0)
    backend = Instant()
    assert driver_of(backend).run() and len(backend.ran) == 40, "books in memory"
    assert "books.sqlite cannot be written (database is locked)" in "".join(capsys.readouterr())
    reader.close()
    driver.books.close()


def test_a_job_that_is_done_costs_the_driver_little_memory(plan_of, tmp_path):
    plan = plan_of(*AXES)
    held = []
    for _ in range(2):
        tracemalloc.start()
        jobs = [plan.job_of(number % 40, tmp_path) for number in range(400)]
        for job in jobs:
            job.config = plan.first
            job.summary = json.loads(json.dumps(summary_of(job)))
            job.trim()
        held.append(tracemalloc.get_traced_memory()[0] / len(jobs))
        tracemalloc.stop()
    assert held[1] < 1600, "bytes of a job"


def test_a_job_that_is_refused_when_it_starts_fails_and_others_go_on(driver_of, monkeypatch, tmp_path):
    """Of a large grid, three values that exclude each other are met only then."""
    driver = driver_of(Instant())
    compose = driver.plan.composer.config

    def refusing(overrides: list[str]):
        if "lr=0.2" in overrides and "seed=3" in overrides:
            raise UserError("these three exclude each other")
        return compose(overrides)

    monkeypatch.setattr(driver.plan.composer, "config", refusing)
    assert driver.run()
    assert Counter(states(driver).values()) == {"completed": 39, "failed": 1}
    summary = json.loads((job_at(tmp_path, 13) / "summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("failed", "these three exclude each other")


def test_a_sweep_of_an_earlier_version_goes_on(workdir, dltrain):
    """It has a study and neither books nor the configuration of its first job."""
    assert dltrain("-m", "lr=0.1,0.01,0.001", *BRIEF) == 0
    folder = sweep_folder(workdir)
    record = json.loads((folder / "sweep.json").read_text())
    del record["first"], record["stages"]
    (folder / "sweep.json").write_text(json.dumps(record | {"finished": False}))
    (folder / "books.sqlite").unlink()
    (folder / "study.log").write_text("")
    shutil.rmtree(job_at(folder, 1))
    before = (job_at(folder, 0) / "summary.json").stat().st_mtime_ns
    assert dltrain("-m", "lr=0.1,0.01,0.001", *BRIEF) == 0
    assert sorted(summaries(sweep_folder(workdir))) == [0, 1, 2]
    assert (job_at(folder, 0) / "summary.json").stat().st_mtime_ns == before


def test_a_default_that_changed_begins_a_new_sweep(workdir, dltrain, capfd):
    """The words are the same, and mean something else: such as with a newer dltrain."""
    assert dltrain("-m", "lr=0.1,0.01", "model=linear", "steps=2") == 0
    folder = sweep_folder(workdir)
    record = json.loads((folder / "sweep.json").read_text())
    record["first"]["shuffle"] = "never"
    (folder / "sweep.json").write_text(json.dumps(record | {"finished": False}))
    with pytest.raises(
        UserError, match="begun with other defaults.*: shuffle was never, is epoch.\nUse the dltrain that"
    ):
        dltrain("-m", f"sweep.resume={folder}")
    assert dltrain("-m", "lr=0.1,0.01", "model=linear", "steps=2") == 0
    assert "which was begun with other defaults: shuffle was never, is epoch" in capfd.readouterr().out
    assert len(list(folder.parent.glob("*/sweep.json"))) == 2


# Report -----------------------------------------------------------------------------------------------------------


@pytest.mark.ci
def test_the_report_of_a_large_sweep_draws_a_sample(plan_of, tmp_path, monkeypatch):
    plan = plan_of("lr=range(1,51)", "batch_size=range(1,51)", "seed=0,1")
    jobs = [plan.job_of(number, tmp_path) for number in range(plan.total)]
    for job in jobs:
        job.state, job.summary = "completed", summary_of(job)
        job.trim()
    for job in jobs[-80:]:
        job.state, job.reason = "failed", "killed"
    curves: list[Path] = []
    monkeypatch.setattr(
        charts, "read_curve", lambda file, metric: curves.append(file) or {1.0: 0.5, 2.0: 0.4}
    )
    ranked = rank(plan, jobs)
    report.write_report(plan, ranked, jobs, [], tmp_path)
    page = (tmp_path / "report.html").read_text()
    data = data_in(page)
    assert len(data["configurations"]) == charts.MAX_DRAWN
    assert [dot["place"] for dot in data["configurations"]][:100] == list(range(1, 101))
    # two repetitions each
    assert len(data["charts"][0]["series"]) == charts.MAX_CURVES // 2
    assert len(curves) == len(set(curves)) == charts.MAX_CURVES
    assert page.count('<div class="fail">') == report.MAX_FAILURES
    for said in (
        "2,260 more are in results.csv.",
        "1,460 more are not drawn",
        "30 more are in results.csv, with",
        "2,400 more configurations are in their folders",
    ):
        assert said in page, said
    assert len(page) < 1_500_000
    jobs[-1].reason = "=HYPERLINK(A1)"
    write_csv(plan, jobs, tmp_path / "results.csv")
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert len(lines) == 5001 and ",'=HYPERLINK(A1)," in lines[-1]


def test_test_scores_of_a_stranger_are_numbers_or_none():
    job = Job(0, 0, {}, [], Path("0"))
    for test in (None, "abc", [1], {"accuracy": [1]}, {"accuracy": "0.5"}):
        job.summary = {"test": test}
        assert job.test_scores == {}
    job.summary = {"test": {"accuracy": 0.5}}
    assert job.test_scores == {"accuracy": 0.5}


def test_a_report_written_again_reads_the_books(driver_of, tmp_path, read):
    driver = driver_of(Instant())
    driver.run()
    read.clear()
    content = (tmp_path / "books.sqlite").read_bytes()
    found = read_jobs(driver.plan, tmp_path)
    assert read == [] and [job.objective for job in found] == [job.objective for job in driver.jobs]
    assert (tmp_path / "books.sqlite").read_bytes() == content
