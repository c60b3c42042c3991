"""What a sweep survives: rows 22 and 27 to 30 of docs/trust.md (27's other faults stand in test_sweep_runs.py)."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing

import optuna
import pytest
from conftest import InTerminal, job_at
from optuna.storages.journal import JournalFileBackend
from sweeping import add_faulty_model, finished, is_alive, notes, start, summaries, sweep_folder, wait_for

from dltrain.errors import CheckpointProblem, FolderInUse, ResourceProblem
from dltrain.storage.lock import Lock
from dltrain.sweep import samplers, study
from dltrain.sweep.backends import pool, worker
from dltrain.sweep.backends.worker import work
from dltrain.sweep.begun import locked
from dltrain.sweep.journal import check_journal
from dltrain.sweep.plan import space
from dltrain.sweep.study import Listed, Study, quiet
from dltrain.training import signals

GRID = [{"lr": "1"}, {"lr": "2"}, {"lr": "1"}]


@pytest.fixture
def faulty(workdir):
    add_faulty_model(workdir)


def grid_study(folder) -> Study:
    axis = space.Axis("lr", (("1", ("lr=1",)), ("2", ("lr=2",))))
    check_journal(folder / "study.log", 100)
    return Study(folder, [axis], Listed(GRID), ["minimize"])


# The journal ------------------------------------------------------------------------------------------------------


def test_30_half_a_line_of_a_killed_driver_is_dropped(tmp_path):
    first = grid_study(tmp_path)
    first.finish(first.ask()[0], [0.5])
    with open(tmp_path / "study.log", "ab") as file:
        file.write(b'{"op_code":4,"study_id":0,"wor')
    for _ in range(2):  # the second reads what the first appended
        again = grid_study(tmp_path)
        assert [trial.value for trial in again.trials()][:1] == [0.5]
        again.ask()
    assert len(grid_study(tmp_path).trials()) == 3


def test_37_a_study_of_more_trials_than_the_sweep_has_is_refused(tmp_path):
    """Found in review: each of 300,000 trials of a stranger's study.log was begun again, at a cost that grew with their number."""
    study = grid_study(tmp_path)
    for _ in range(3):
        study.ask()
    check_journal(study.file, 3)
    with pytest.raises(
        CheckpointProblem, match=r"study.log is damaged at line \d+: it holds more trials than the sweep"
    ):
        check_journal(study.file, 2)


def test_30_a_lock_that_a_killed_driver_left_costs_nothing(tmp_path):
    os.symlink("study.log", tmp_path / "study.log.lock")
    begun = time.monotonic()
    grid_study(tmp_path).ask()
    assert time.monotonic() - begun < 5  # Optuna's own lock waits for 30 s


def test_30_a_damaged_journal_is_refused_in_words(tmp_path):
    grid_study(tmp_path).ask()
    content = (tmp_path / "study.log").read_bytes()
    (tmp_path / "study.log").write_bytes(content[:20] + b"\n" + content[30:])
    with pytest.raises(CheckpointProblem, match="study.log is damaged at line 1"):
        grid_study(tmp_path)


def failing_fsync(monkeypatch, times: int) -> None:
    """The next writes reach the file, and then the disk says that they did not."""
    real, left = os.fsync, [times]

    def fsync(file: int) -> None:
        if left[0] > 0:
            left[0] -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("failures", [1, 3])
def test_30_a_failed_write_is_taken_back_and_tried_again(tmp_path, monkeypatch, failures):
    monkeypatch.setattr(study, "PAUSES", (0.0, 0.0, 0.0))
    grids = grid_study(tmp_path)
    failing_fsync(monkeypatch, failures)
    trial, chosen = grids.ask()
    grids.finish(trial, [0.5])
    assert [t.number for t in grid_study(tmp_path).trials()] == [0]
    assert (chosen, grids.trials()[0].value) == ({"lr": "1"}, 0.5)


def test_30_a_write_that_fails_to_the_end_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "PAUSES", (0.0, 0.0))
    grids = grid_study(tmp_path)
    before = (tmp_path / "study.log").read_bytes()
    with monkeypatch.context() as patch:
        failing_fsync(patch, 3)
        with pytest.raises(OSError, match="Input/output error"):
            grids.ask()
    assert (tmp_path / "study.log").read_bytes() == before
    (tmp_path / "study.log").unlink()
    with pytest.raises(FileNotFoundError):  # not begun anew in its middle
        grids.ask()


@pytest.mark.parametrize("word", ["random", "tpe", "gp", "cmaes", "qmc", "nsga2"])
def test_a_search_that_goes_on_does_not_draw_again_what_it_drew(word, tmp_path):
    axes = space.axes_of_yaml({"x": {"low": 0, "high": 1}, "y": {"low": 0, "high": 1}})
    drawn = []
    for begun in (0, 4, 8):
        with quiet():
            sampler = getattr(samplers, word)(begun, seed=3)
        search = Study(tmp_path, axes, sampler, ["minimize"])
        for _ in range(4):
            trial, chosen = search.ask()
            search.finish(trial, [chosen["x"]])
            drawn.append(tuple(chosen.values()))
    assert len(set(drawn)) == 12


# The disk ---------------------------------------------------------------------------------------------------------

FINISH = 6  # Optuna's operation that closes a trial


def full_journal(monkeypatch) -> None:
    """No room left for the results of trials."""
    real = JournalFileBackend.append_logs

    def append(self, logs):
        if any(log["op_code"] == FINISH for log in logs):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "study.log")
        real(self, logs)

    monkeypatch.setattr(study, "PAUSES", (0.0,))
    monkeypatch.setattr(JournalFileBackend, "append_logs", append)


@pytest.mark.ci
def test_30_a_full_disk_stops_the_sweep_in_words_and_the_running_jobs_save(
    workdir, dltrain, faulty, monkeypatch
):
    command = (
        "-m",
        "model=faulty",
        "lr=0.01,0.02",
        "epochs=30,2",
        "early_stopping=none",
        "sweep.zip=[lr,epochs]",
        # whose results are in a study
        "sweep.pruner=median",
    )
    command += ("quiet=true", "sweep.jobs=2")
    (workdir / "slow").touch()
    with monkeypatch.context() as patch:
        full_journal(patch)
        with pytest.raises(
            ResourceProblem, match=r"had to stop: .*No space left.*study.log[\s\S]*sweep.resume="
        ) as full:
            dltrain(*command)
    assert full.value.exit_code == 6
    folder = sweep_folder(workdir)
    jobs = summaries(folder)
    assert (jobs[0]["status"], jobs[1]["status"]) == ("interrupted", "completed")
    assert list((job_at(folder, 0) / "checkpoints").glob("step-*/manifest.json"))
    done = finished(workdir)
    (workdir / "slow").unlink()
    assert dltrain(*command) == 0
    assert {
        n: t for n, t in finished(workdir).items() if n in done
    } == done  # its result was kept beside the study
    assert summaries(folder)[0]["status"] == "completed"
    assert [trial.values is not None for trial in grid_trials(folder)] == [True, True]


def grid_trials(folder):
    """The trials as optuna-dashboard reads them: by Optuna's own storage."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.log")))
    return optuna.load_study(study_name="sweep", storage=storage).trials


@pytest.mark.ci
def test_30_a_job_that_finds_the_disk_full_stops_the_sweep_and_is_run_again(workdir, dltrain, faulty):
    command = ("-m", "model=faulty", "model.fault=disk,none", "epochs=1", "quiet=true", "sweep.jobs=1")
    with pytest.raises(
        ResourceProblem, match=r"job 0: a file could not be written \(No space left on device\)"
    ):
        dltrain(*command)
    (workdir / "room").touch()
    assert dltrain(*command) == 0
    assert {job["status"] for job in summaries(sweep_folder(workdir)).values()} == {"completed"}


def test_09_a_job_that_could_not_write_its_rows_keeps_its_result(workdir, dltrain, faulty):
    assert (
        dltrain("-m", "model=faulty", "model.fault=degraded,none", "epochs=1", "quiet=true", "sweep.jobs=1")
        == 0
    )
    folder = sweep_folder(workdir)
    jobs = summaries(folder)
    assert jobs[0]["status"] == "degraded" and "metrics.csv could not be written" in jobs[0]["problems"][0]
    assert f",degraded,{jobs[0]['objective']!r}," in (folder / "results.csv").read_text()
    with closing(sqlite3.connect(folder / "books.sqlite")) as books:
        assert books.execute("SELECT state, objective FROM jobs WHERE number = 0").fetchall() == [
            ("degraded", jobs[0]["objective"])
        ]


def test_30_a_search_whose_study_is_gone_is_refused(workdir, dltrain):
    command = ("-m", "sweep=random", "sweep.trials=1", "lr=interval(0.001,0.1)", "steps=1", "quiet=true")
    assert dltrain(*command) == 0
    folder = sweep_folder(workdir)
    (folder / "study.log").unlink()
    before = (job_at(folder, 0) / "summary.json").read_bytes()
    with pytest.raises(CheckpointProblem, match="study.log does not know job 0"):
        dltrain("-m", f"sweep.resume={folder}")
    assert (job_at(folder, 0) / "summary.json").read_bytes() == before


# Memory -----------------------------------------------------------------------------------------------------------


def test_22_a_job_that_ran_out_of_memory_is_run_once_more_alone(workdir, dltrain, faulty):
    (workdir / "others").touch()
    faults = "none,memory_beside_others,memory,none"
    command = (
        "-m",
        "model=faulty",
        f"model.fault={faults}",
        "model.tag=0,1,2,3",
        "sweep.zip=[model.fault,model.tag]",
    )
    assert dltrain(*command, "epochs=2", "quiet=true", "sweep.jobs=2", "sweep.backend=local") == 7
    jobs = summaries(sweep_folder(workdir))
    assert [jobs[n]["status"] for n in range(4)] == ["completed", "completed", "failed", "completed"]
    assert "memory" in jobs[2]["stop_reason"]
    seen = notes(workdir)
    built = Counter(tag for event, _, tag, _, _ in seen if event == "built")
    assert built == {0: 1, 1: 2, 2: 2, 3: 1}
    for tag in (1, 2):
        again = [note[3] for note in seen if note[2] == tag][-1]  # the process of the second try
        times = [note[4] for note in seen if note[3] == again]
        assert not [n for n in seen if n[3] != again and min(times) <= n[4] <= max(times)]


# The driver -------------------------------------------------------------------------------------------------------


def test_29_a_second_driver_of_a_running_sweep_is_refused(workdir, dltrain):
    command = ("-m", "lr=0.1,0.2", "steps=1", "quiet=true")
    assert dltrain(*command) == 0
    folder = sweep_folder(workdir)
    record = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps(record | {"finished": False}))
    before = finished(workdir)
    with locked(folder):
        for again in (command, ("-m", f"sweep.resume={folder}")):
            with pytest.raises(FolderInUse, match="is being run by process") as refused:
                dltrain(*again)
            assert refused.value.exit_code == 9
    assert finished(workdir) == before
    assert sweep_folder(workdir) == folder


def test_29_a_job_that_another_backend_has_begun_or_ended_is_left_as_it_is(workdir, monkeypatch):
    """Slurm may start a job that waited in its queue while another backend went on."""
    monkeypatch.setattr(worker, "ORPHAN_SECONDS", 0.0)
    monkeypatch.setattr(signals, "hold_interrupt", lambda: None)
    folder = workdir / "0"
    command = ["0", str(folder), "model=linear", "steps=2", "quiet=true"]
    folder.mkdir()
    (folder / "metrics.csv").write_text("step\n7\n")
    lock = Lock(folder)
    assert worker.main(command) == FolderInUse.exit_code
    assert (folder / "metrics.csv").read_text() == "step\n7\n"
    lock.release()
    summary = json.dumps({"status": "completed", "objective": 0.5})
    (folder / "summary.json").write_text(summary)
    assert worker.main(command) == 0
    assert (folder / "summary.json").read_text() == summary
    assert (folder / "metrics.csv").read_text() == "step\n7\n"


class Gone(BaseException): ...


@pytest.mark.parametrize("asks", [False, True])
def test_28_a_job_whose_driver_is_killed_ends_at_its_next_evaluation_and_has_not_failed(monkeypatch, asks):
    def gone(code: int) -> None:
        raise Gone

    monkeypatch.setattr(worker.os, "_exit", gone)
    ours, theirs = multiprocessing.Pipe()
    watch = worker.Watch(theirs, 0, "val/loss", 1, asks)
    ours.close()
    with pytest.raises(Gone):
        watch({"step": 1.0, "epoch": 1.0, "val/loss": 0.5}, 0.5)


FAULTS = "none,diverge,raise,kill,not_finite,none"
HOSTILE = ("-m", "model=faulty", f"model.fault={FAULTS}", "model.tag=0,1,2,3,4,5", "sweep.zip=[model.fault,model.tag]",
           "epochs=3", "sweep.jobs=2")  # fmt: skip


def kill_and_resume(workdir, dltrain, done: int, pause: float = 0.0) -> None:
    """A sweep of six jobs, four of them faulty, whose driver is killed after so many: the others alone run again."""
    (workdir / "slow").touch()
    driver = start(workdir, *HOSTILE)
    wait_for(lambda: any(workdir.glob("outputs/*/*/sweep.json")) and len(finished(workdir)) >= done)
    time.sleep(pause)
    driver.kill()
    driver.communicate()
    (workdir / "slow").unlink()
    wait_for(lambda: orphans_are_gone(workdir))
    folder, before, built = sweep_folder(workdir), finished(workdir), notes(workdir)
    assert dltrain(*HOSTILE) == 7
    again = [tag for event, _, tag, _, _ in notes(workdir)[len(built) :] if event == "built"]
    assert sorted(again) == sorted({*range(6)} - {*before})
    assert {n: t for n, t in finished(workdir).items() if n in before} == before
    assert sweep_folder(workdir) == folder
    check_hostile(folder)


def orphans_are_gone(workdir) -> bool:
    """No process of a job is left: each ends with its driver."""
    return not any(is_alive(note[3]) for note in notes(workdir))


def rows_of_books(folder) -> list[tuple[str]]:
    with closing(sqlite3.connect(folder / "books.sqlite")) as books:
        return books.execute("select state from jobs").fetchall()


def check_hostile(folder) -> None:
    jobs = summaries(folder)
    with open(folder / "results.csv") as file:
        table = file.read()
    assert table.count("completed") == 2 and table.count("failed") == 4
    assert "is not finite at step 1" in jobs[1]["stop_reason"]
    assert "a bug in the model" in jobs[2]["stop_reason"]
    assert "SIGKILL" in jobs[3]["stop_reason"]
    assert "is not a finite number in any evaluation" in table
    page = (folder / "report.html").read_text()
    for reason in (
        "is not finite at step 1",
        "a bug in the model",
        "SIGKILL",
        "is not a finite number in any evaluation",
    ):
        assert reason in page
    assert Counter(state for (state,) in rows_of_books(folder)) == {"completed": 2, "failed": 4}
    assert not list(folder.glob("**/*.tmp"))


@pytest.mark.ci
def test_28_a_killed_sweep_of_faulty_jobs_goes_on_with_the_missing_ones(workdir, dltrain, faulty):
    kill_and_resume(workdir, dltrain, done=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_28_at_any_moment(workdir, dltrain, faulty, seed):
    draw = random.Random(seed)
    kill_and_resume(workdir, dltrain, done=draw.randrange(6), pause=draw.random() * 0.3)


@pytest.mark.ci
@pytest.mark.parametrize("how, code", [("SIGTERM", 143), ("closed terminal", 129)])
def test_a_signal_to_the_driver_saves_the_jobs_and_is_its_exit_code(workdir, faulty, how, code):
    """A closed terminal signals the driver and the fork server alike, and takes no more output."""
    command = ("-m", "model=faulty", "seed=0,1", "epochs=40", "early_stopping=none", "sweep.jobs=2")
    (workdir / "slow").touch()
    program = InTerminal("-m", "dltrain", *command, "sweep.backend=local")
    program.wait_for(lambda: len(list(workdir.glob("outputs/*/*/*/checkpoints/step-*/manifest.json"))) >= 4)
    if how == "SIGTERM":
        program.process.send_signal(signal.SIGTERM)
    assert (program.end() if how == "SIGTERM" else program.close()) == code
    folder = sweep_folder(workdir)
    assert {job["status"] for job in summaries(folder).values()} == {"interrupted"}
    assert not json.loads((folder / "sweep.json").read_text())["finished"]
    assert (folder / "report.html").is_file()


def test_a_signal_while_a_job_is_being_started_reaches_that_job_too(workdir, dltrain, faulty, monkeypatch):
    """It was in no list yet, and ran to its end, for which the driver waited."""
    started = pool.start

    def start_and_signal(target, *arguments):
        worker = started(target, *arguments)
        # others are started before the sweep listens for signals, and for the results at its end
        if target is work:
            os.kill(os.getpid(), signal.SIGTERM)
        return worker

    monkeypatch.setattr(pool, "start", start_and_signal)
    (workdir / "slow").touch()
    command = ("-m", "model=faulty", "seed=0,1", "epochs=40", "early_stopping=none", "sweep.jobs=1")
    assert dltrain(*command, "sweep.backend=local") == 143
    assert "completed" not in {job["status"] for job in summaries(sweep_folder(workdir)).values()}


@pytest.mark.ci
def test_ctrl_c_once_saves_and_the_same_command_goes_on(workdir, dltrain, faulty, capfd):
    command = (
        "-m",
        "model=faulty",
        "seed=0,1",
        "epochs=40",
        "early_stopping=none",
        "sweep.jobs=2",
        "sweep.backend=local",
    )
    (workdir / "slow").touch()
    driver = start(workdir, *command)
    wait_for(lambda: len(list(workdir.glob("outputs/*/*/*/checkpoints/step-*/manifest.json"))) >= 4)
    driver.send_signal(signal.SIGINT)
    printed, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "goes on" in printed
    folder = sweep_folder(workdir)
    assert {job["status"] for job in summaries(folder).values()} == {"interrupted"}
    assert not json.loads((folder / "sweep.json").read_text())["finished"]
    (workdir / "slow").unlink()
    rows = {n: (job_at(folder, n) / "metrics.csv").read_text() for n in (0, 1)}
    assert dltrain(*command) == 0
    assert f"going on with the unfinished sweep {folder.relative_to(workdir)}" in capfd.readouterr().out
    assert {job["epochs"] for job in summaries(folder).values()} == {40}
    assert {job["status"] for job in summaries(folder).values()} == {"completed"}
    for n in (0, 1):  # it went on from where it stopped
        assert (job_at(folder, n) / "metrics.csv").read_text().startswith(rows[n])
