"""Sweep backends: the driver's part of the protocol, against a backend that trains nothing, and a user's own."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import job_at
from sweeping import states, summaries, sweep_folder

from dltrain.config.compose import open_catalogue
from dltrain.config.door import rights_of_record, rights_of_user
from dltrain.errors import ResourceProblem, UserError
from dltrain.sweep.backends.protocol import Ended, Evaluated, Started, Sweep, complete
from dltrain.sweep.backends.worker import command_of
from dltrain.sweep.driver import Driver
from dltrain.sweep.jobs import Job
from dltrain.sweep.live import Quiet
from dltrain.sweep.plan.checks import check_all
from dltrain.sweep.plan.reading import read_plan
from dltrain.sweep.sweep import open_study


class Fake:
    """A backend that writes the summaries of runs, one event at a time; `outcomes` are exit codes by job number."""

    def __init__(
        self, places: int = 1, outcomes: dict[int, list[int]] | None = None, evaluations: int = 0
    ) -> None:
        self.places, self.outcomes, self.evaluations = places, outcomes or {}, evaluations
        self.waiting: list[Job] = []
        self.ended: list[Ended] = []
        self.log: list[str] = []
        self.closed = False

    def submit(self, job: Job) -> None:
        assert job.config is not None and not self.closed
        self.log.append(f"submit {job.number}")
        self.waiting.append(job)
        assert len(self.waiting) <= self.places

    def events(self):
        yield from self.ended
        self.ended.clear()
        job = self.choose()
        if job is None:
            return
        yield Started(job)
        for number in range(1, self.evaluations + 1):
            yield Evaluated(job, number, self.evaluations, number, float(job.number))
            if job not in self.waiting:
                return
        self.waiting.remove(job)
        code = self.outcomes.get(job.number, [0]).pop(0) if self.outcomes.get(job.number) else 0
        yield self.end(job, code)

    def choose(self) -> Job | None:
        return self.waiting[0] if self.waiting else None

    def end(self, job: Job, code: int) -> Ended:
        self.log.append(f"end {job.number}")
        job.folder.mkdir(exist_ok=True)
        if code == 0:
            summary = {"status": "completed", "objective": float(job.number), "best": {}, "best_epoch": 1}
            (job.folder / "summary.json").write_text(json.dumps(summary))
        return Ended(job, code, "out of memory" if code == 6 else "")

    def cancel(self, job: Job) -> None:
        self.log.append(f"cancel {job.number}")
        if job in self.waiting:
            self.waiting.remove(job)
            self.ended.append(Ended(job, 130))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def driver_of(opened, tmp_path):
    catalogue, hydra = opened

    def make(backend, *texts: str) -> Driver:
        plan = read_plan(list(texts), "config", catalogue, hydra, rights_of_user(catalogue))
        check_all(plan)
        sweep = Sweep(backend.places, plan.settings)
        return Driver(plan, open_study(plan, tmp_path), tmp_path, complete(backend, sweep, "fake"), Quiet())

    return make


# The driver -------------------------------------------------------------------------------------------------------


def test_every_job_is_submitted_once_and_never_more_than_there_are_places(driver_of):
    backend = Fake(places=2)
    driver = driver_of(backend, "lr=0.1,0.2,0.3,0.4,0.5")
    assert driver.run() is True
    assert states(driver) == dict.fromkeys(range(5), "completed")
    assert Counter(backend.log) == {f"{event} {n}": 1 for event in ("submit", "end") for n in range(5)}
    assert backend.closed


def test_a_search_asks_for_the_next_trial_after_a_result(driver_of):
    backend = Fake()
    driver = driver_of(backend, "sweep=tpe", "sweep.trials=4", "lr=interval(0.01,0.1)")
    assert driver.run()
    assert backend.log == [f"{event} {n}" for n in range(4) for event in ("submit", "end")]
    assert [trial.value for trial in driver.study.trials()] == [0.0, 1.0, 2.0, 3.0]


def test_a_job_that_ran_out_of_memory_is_submitted_once_more_alone(driver_of):
    backend = Fake(places=3, outcomes={1: [6], 2: [6, 6]})
    driver = driver_of(backend, "lr=0.1,0.2,0.3,0.4,0.5")
    driver.run()
    assert states(driver) == {0: "completed", 1: "completed", 2: "failed", 3: "completed", 4: "completed"}
    assert backend.log[-4:] == ["submit 1", "end 1", "submit 2", "end 2"]
    assert driver.jobs[2].reason == "out of memory"


@pytest.mark.parametrize(
    "code, reason",
    [
        (3, "exit code 3"),
        (-9, "SIGKILL"),
        (0, "exit code 0 before the run was done"),
    ],
)
def test_a_job_without_a_summary_has_failed_by_its_exit_code(driver_of, code, reason):
    backend = Fake()
    backend.end = lambda job, _: Ended(job, code)
    driver = driver_of(backend, "lr=0.1")
    driver.run()
    assert driver.jobs[0].state == "failed" and reason in driver.jobs[0].reason
    assert (
        json.loads((driver.jobs[0].folder / "summary.json").read_text())["stop_reason"]
        == driver.jobs[0].reason
    )


def test_a_job_whose_folder_another_process_uses_is_left_to_the_next_driver(driver_of):
    """A job of a killed driver may go on for long on another machine: it has not failed."""
    backend = Fake()
    backend.end = lambda job, _: Ended(job, 9, "is in use by process 7")
    driver = driver_of(backend, "lr=0.1")
    assert driver.run()
    assert states(driver) == {0: "interrupted"} and not driver.jobs[0].folder.exists()


def test_a_signal_cancels_every_job_once_and_the_next_driver_runs_what_is_missing(driver_of):
    backend = Fake(places=2)
    choose, turns = backend.choose, []

    def interrupted():
        turns.append(1)
        if len(turns) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return choose()

    backend.choose = interrupted
    driver = driver_of(backend, "lr=0.1,0.2,0.3,0.4")
    assert driver.run() is False
    assert driver.received is signal.SIGTERM and backend.closed
    # job 1 ended while the signal came; job 2 was submitted in the place of job 0, and never began
    assert states(driver) == {0: "completed", 1: "completed", 2: "waiting"}
    assert [line for line in backend.log if "cancel" in line] == ["cancel 2"]
    again = Fake(places=2)
    second = driver_of(again, "lr=0.1,0.2,0.3,0.4")
    assert second.run()
    assert sorted(line for line in again.log if "submit" in line) == ["submit 2", "submit 3"]
    assert states(second) == dict.fromkeys(range(4), "completed")


def test_a_second_signal_ends_the_sweep_at_once(driver_of):
    backend = Fake()

    def events():
        os.kill(os.getpid(), signal.SIGINT)
        return ()

    backend.events = events
    driver = driver_of(backend, "lr=0.1,0.2")
    assert driver.run() is False
    assert backend.closed and states(driver) == {0: "interrupted"}


def test_jobs_that_wait_are_withdrawn_after_the_timeout(driver_of):
    backend = Fake(places=3)
    driver = driver_of(backend, "lr=0.1,0.2,0.3,0.4", "sweep.timeout=1000")

    def later() -> None:
        driver.begun -= 1000

    backend.choose = later
    assert driver.run() is True
    assert states(driver) == dict.fromkeys(range(3), "waiting")
    assert sorted(line for line in backend.log if "cancel" in line) == ["cancel 0", "cancel 1", "cancel 2"]


def test_the_pruner_cancels_a_job_of_any_backend_that_reports_evaluations(driver_of):
    backend = Fake(evaluations=4)
    backend.gives = frozenset({"evaluations"})
    driver = driver_of(backend, "lr=0.1,0.2,0.3,0.4,0.5,0.6", "sweep.pruner=median", "epochs=4")
    assert driver.run()
    # medians of what came before: every later job is worse
    pruned = {n for n, state in states(driver).items() if state == "pruned"}
    assert pruned and {f"cancel {n}" for n in pruned} <= set(backend.log)
    for number in pruned:
        summary = json.loads((job_at(driver.folder, number) / "summary.json").read_text())
        assert summary["status"] == "pruned" and "fell behind" in summary["stop_reason"]
    assert Counter(trial.state.name for trial in driver.study.trials())["PRUNED"] == len(pruned)


def test_equal_configurations_of_a_search_do_not_run_beside_each_other(driver_of):
    backend = Fake(places=4)
    driver = driver_of(backend, "sweep=random", "sweep.trials=8", "lr=choice(0.1,0.2)", "sweep.reuse=false")
    backend.end_of, end = [], backend.end

    def whole(job, code):
        event = end(job, code)
        (job.folder / "checkpoints").mkdir(exist_ok=True)
        return event

    backend.end = whole
    assert driver.run()
    assert len([line for line in backend.log if "submit" in line]) == 2
    assert states(driver) == dict.fromkeys(range(8), "completed")


class Crash(Exception):
    pass


# seeds by marker; many: `DLTRAIN_ORDERS=10000 pytest -m slow tests/sweep/test_backends.py`
ORDERS = int(os.environ.get("DLTRAIN_ORDERS", "12"))
SEEDS = [
    0,
    *(pytest.param(seed, marks=pytest.mark.ci) for seed in range(1, 12)),
    *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(12, ORDERS)),
]


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_the_order_and_the_crashes_no_job_is_lost_or_run_again(driver_of, seed):
    """The driver dies at random events; jobs end in a random order, some by a crash of their own."""
    draw = random.Random(seed)
    done: Counter[int] = Counter()
    outcomes = {n: [draw.choice([0, 0, 1, -9])] for n in range(6)}

    def life(crashes: bool) -> Driver:
        backend = Fake(places=draw.randint(1, 3), outcomes=outcomes)
        backend.choose = lambda: draw.choice(backend.waiting) if backend.waiting else None
        end = backend.end

        def ending(job, code):
            if crashes and draw.random() < 0.25:
                raise Crash
            done[job.number] += 1
            return end(job, code)

        backend.end = ending
        return driver_of(backend, "lr=0.1,0.2,0.3", "seed=0,1")

    for _ in range(30):
        driver = life(crashes=True)
        try:
            driver.run()
        except Crash:
            assert driver.backend.closed
            continue
        break
    else:
        driver = life(crashes=False)
        driver.run()
    assert all(job.is_done for job in driver.jobs) and len(driver.jobs) == 6
    assert done == dict.fromkeys(range(6), 1)


def test_a_full_disk_ends_the_sweep_with_the_other_jobs_canceled(driver_of):
    backend = Fake(places=2)
    backend.end = lambda job, _: Ended(job, 6, os.strerror(28))
    driver = driver_of(backend, "lr=0.1,0.2,0.3")
    with pytest.raises(ResourceProblem, match="job 0: No space left on device"):
        driver.run()
    assert "cancel 1" in backend.log and backend.closed


# A backend of a user's own ----------------------------------------------------------------------------------------

MODULE = """
from dltrain.sweep.backends.protocol import Ended, Started

class Good:
    def __init__(self, sweep, note="x"): self.jobs = []
    def submit(self, job): self.jobs.append(job)
    def events(self):
        while self.jobs:
            job = self.jobs.pop()
            yield Started(job)
            yield Ended(job, 3, f"not trained: {job.command[0]}")
    def cancel(self, job): pass
    def close(self): pass

class NoCancel:
    def __init__(self, sweep): pass
    def submit(self, job): pass
    def events(self): return []
    def close(self): pass

class SubmitsNothing(Good):
    def submit(self): pass

class WaitsForMore(Good):
    def events(self, timeout): return []

class KnowsNoSweep(Good):
    def __init__(self, note="x"): self.jobs = []

class Attribute(Good):
    close = 3

class Numbers(Good):
    def events(self): return [3]

def build(sweep): return object()
"""

REFUSED = {
    "NoCancel": r"NoCancel, which has no method `cancel\(self, job\)`",
    "SubmitsNothing": r"has submit\(\), and must have `submit\(self, job\)`",
    "WaitsForMore": r"has events\(timeout\), and must have `events\(self\)`",
    "Attribute": r"has no method `close\(self\)`",
    "build": r"`sweep\.backend` gives an object of object, which has no method `submit\(self, job\)`",
    "Nothing": r"cannot be imported",
}


@pytest.fixture
def own(workdir, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("my_backends", None)
    (workdir / "my_backends.py").write_text(MODULE)
    (workdir / "conf" / "sweep" / "backend").mkdir(parents=True)

    def write(name: str, text: str = "") -> None:
        (workdir / "conf" / "sweep" / "backend" / "mine.yaml").write_text(
            f"_target_: my_backends.{name}\n{text}"
        )

    yield write
    sys.modules.pop("my_backends", None)


def refusal(dltrain, workdir, *arguments: str) -> str:
    """The message of a refusal, which creates nothing."""
    with pytest.raises(UserError) as error:
        dltrain("-m", "lr=0.1,0.2", *arguments)
    assert error.value.exit_code == 2 and len(str(error.value).splitlines()) <= 3
    assert not (workdir / "outputs").exists()
    return str(error.value)


def test_a_backend_of_ones_own_needs_one_file(dltrain, workdir, own, capfd):
    own("Good")
    assert dltrain("-m", "lr=0.1,0.2", "sweep.backend=mine", "sweep.backend.note=y") == 7
    jobs = summaries(sweep_folder(workdir))
    assert {job["status"] for job in jobs.values()} == {"failed"}
    assert jobs[0]["stop_reason"] == f"not trained: {sys.executable}"
    capfd.readouterr()
    assert dltrain("sweep.backend", "--help") == 0
    assert " mine" in capfd.readouterr().out


@pytest.mark.parametrize("name", REFUSED)
def test_a_class_that_does_not_fit_is_refused_before_anything_exists(dltrain, workdir, own, name):
    import re

    own(name)
    assert re.search(REFUSED[name], refusal(dltrain, workdir, "sweep.backend=mine"))


@pytest.mark.parametrize("arguments, message", [
    (["sweep.backend=locl"], "`sweep.backend=locl`: there is no such word. Did you mean `local`?"),
    (["sweep.backend=mine", "sweep.backend.nota=1"], "`sweep.backend.nota` is no key of sweep.backend=mine. Did you mean `sweep.backend.note`"),
    (["sweep.backend=[local]"], "takes one word, not the list ['local']. Write sweep.backend=local"),
    (["sweep.backend=mine", "sweep.pruner=asha"], "does not report evaluations"),
    (["sweep.backend=local,stacked"], "cannot be an axis"),
    (["sweep.vectorize=never", "sweep.backend=stacked"], "the former name of sweep.backend=local"),
    (["sweep.vectorize=sometimes"], "`sweep.vectorize` is sometimes"),
    (["experiment=texts"], "Write there: `- override /sweep/backend: local`"),
], ids=lambda value: str(value)[:40])  # fmt: skip
def test_mistakes_about_the_backend(dltrain, workdir, own, arguments, message):
    own("Good")
    (workdir / "conf" / "experiment").mkdir()
    (workdir / "conf" / "experiment" / "texts.yaml").write_text("sweep:\n  backend: local\n")
    assert message in refusal(dltrain, workdir, *arguments)


def test_a_recipe_chooses_a_backend_with_its_keys(dltrain, workdir, own):
    own("Good")
    (workdir / "conf" / "experiment").mkdir()
    (workdir / "conf" / "experiment" / "swept.yaml").write_text(
        "defaults:\n  - override /sweep/backend: mine\nsweep:\n  backend: {note: z}\n"
    )
    assert dltrain("-m", "lr=0.1,0.2", "experiment=swept") == 7
    assert not refusal_in_single_run(dltrain, "experiment=swept", "steps=1", "quiet=true")


def refusal_in_single_run(dltrain, *arguments: str) -> int:
    return dltrain(*arguments)


def test_a_backend_need_not_look_at_the_sweep(dltrain, workdir, own):
    own("KnowsNoSweep")
    assert dltrain("-m", "lr=0.1,0.2", "sweep.backend=mine", "quiet=true") == 7
    assert len(summaries(sweep_folder(workdir))) == 2


def test_events_of_another_kind_end_the_sweep_with_a_message(dltrain, own):
    own("Numbers")
    with pytest.raises(UserError, match=r"`events` of `sweep\.backend=mine` gave 3; it must give Started"):
        dltrain("-m", "lr=0.1,0.2", "sweep.backend=mine")


def test_the_former_name_still_works_and_says_so(dltrain, capfd):
    assert dltrain("-m", "optimizer=adam,lbfgs", "sweep.vectorize=never", "sweep.dry_run=true") == 0
    printed = capfd.readouterr()
    assert "sweep.vectorize=never is now sweep.backend=local" in printed.err
    assert "train together" not in printed.out and "processes of their own" not in printed.out


def test_a_stranger_s_record_cannot_choose_the_backend(dltrain, workdir, own):
    """Of a record, `how` the sweep runs is left out."""
    own("Good")
    assert dltrain("-m", "lr=0.1,0.2", "sweep.backend=mine", "quiet=true") == 7
    folder = sweep_folder(workdir)
    record = json.loads((folder / "sweep.json").read_text())
    assert "sweep.backend=mine" in record["overrides"]
    (workdir / "my_backends.py").write_text("open('hacked', 'w')")
    sys.modules.pop("my_backends")
    assert dltrain("-m", f"sweep.resume={folder}") == 7
    assert not (workdir / "hacked").exists()


# A job as a command -----------------------------------------------------------------------------------------------


def command(workdir: Path, *overrides: str, rights=None) -> list[str]:
    catalogue = open_catalogue()
    job = Job(3, 0, {}, list(overrides), workdir / "job")
    return command_of(job, rights or rights_of_user(catalogue), None, "config")


@pytest.mark.ci
def test_a_job_is_a_command_that_equals_the_run(workdir, train):
    words = ("lr=0.01", "steps=5", "threads=1", "evaluation.test=false")
    done = subprocess.run(command(workdir, *words), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    alone = train(*words)
    weights = "checkpoints/best.safetensors"
    assert (workdir / "job" / weights).read_bytes() == (alone.path / weights).read_bytes()
    assert (workdir / "job" / ".hydra" / "overrides.yaml").is_file()


@pytest.mark.ci
@pytest.mark.parametrize("override, code, reason", [
    ("lr=-1", 2, "`lr` is -1"),
    ("model._target_=my_models.Bug", 2, "my_models.py, line 2: ZeroDivisionError: division by zero"),
])  # fmt: skip
def test_a_command_records_why_it_failed(workdir, override, code, reason, capfd):
    from dltrain.sweep.backends import worker

    (workdir / "my_models.py").write_text(
        "class Bug:\n    def __init__(self, shape, classes, **keys): 1 / 0\n"
    )
    arguments = command(workdir, override, "steps=1")
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    summary = json.loads((workdir / "job" / "summary.json").read_text())
    assert summary["status"] == "failed" and reason in summary["stop_reason"]
    assert worker.MODULE in arguments


def test_a_command_has_the_rights_of_the_sweep(workdir):
    """A job of a resumed record may name the words of the catalogue, and no code of the working folder."""
    (workdir / "helper.py").write_text("open('hacked', 'w')\nclass M: pass\n")
    catalogue = open_catalogue()
    arguments = command(workdir, "model._target_=helper.M", rights=rights_of_record(catalogue, []))
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 2 and "neither in the catalogue nor" in done.stderr
    assert not (workdir / "hacked").exists()
