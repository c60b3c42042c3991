"""`sweep.backend=slurm` against a cluster that trains nothing, and its script in bash against commands that only note their call.

The last test needs a real Slurm on PATH.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import Run, job_at
from sweeping import states, summaries, sweep_folder

from dltrain.config.door import rights_of_user
from dltrain.errors import UserError
from dltrain.storage.job_names import job_number
from dltrain.sweep import driver
from dltrain.sweep.backends import slurm
from dltrain.sweep.backends.protocol import Ended, Started, Sweep, complete
from dltrain.sweep.backends.rows import evaluated
from dltrain.sweep.backends.slurm import Slurm, SlurmError
from dltrain.sweep.backends.slurm_script import script_of
from dltrain.sweep.driver import Driver
from dltrain.sweep.jobs import Job
from dltrain.sweep.live import Quiet
from dltrain.sweep.plan.reading import read_plan
from dltrain.sweep.sweep import open_study


class Cluster:
    """A queue in memory. `turn` is called before each `squeue`, and changes it as Slurm would."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, str]] = {}
        self.log: list[str] = []
        self.refusals: list[str] = []
        self.turn = lambda: None

    def call(self, *command: str) -> str:
        self.log.append(" ".join(command))
        if command[0] == "squeue":
            self.turn()
            return "".join(f"{k}|{v['state']}|{v['reason']}|{v['script']}\n" for k, v in self.jobs.items())
        if command[0] == "scancel":
            self.jobs[command[1]]["state"] = "CANCELLED"
        elif "--parsable" in command:
            if self.refusals:
                raise SlurmError(self.refusals.pop(0))
            number = str(len(self.jobs) + 100)
            self.jobs[number] = {"state": "PENDING", "reason": "Priority", "script": command[-1]}
            return f"{number};cluster\n"
        return ""

    def alive(self) -> list[str]:
        return [number for number, job in self.jobs.items() if job["state"] in ("PENDING", "RUNNING")]

    def finish(self, number: str) -> None:
        folder = Path(self.jobs[number]["script"]).parent
        (folder / "summary.json").write_text(
            json.dumps({"status": "completed", "objective": 1.0, "best": {}})
        )
        self.jobs[number]["state"] = "COMPLETED"

    def run_all(self) -> None:
        """Each job that runs ends, each that waits runs."""
        for number in self.alive():
            if self.jobs[number]["state"] == "RUNNING":
                self.finish(number)
            else:
                self.jobs[number]["state"] = "RUNNING"

    def count(self, word: str) -> int:
        return sum(line.startswith(word) for line in self.log)


@pytest.fixture
def cluster(monkeypatch):
    made = Cluster()
    made.turn = made.run_all
    monkeypatch.setattr(slurm, "call", lambda *command: made.call(*command))
    monkeypatch.setattr(slurm.shutil, "which", lambda name: f"/bin/{name}")
    for name in ("POLL", "SOON", "PAUSE", "RETRY"):
        monkeypatch.setattr(slurm, name, 0.0)
    monkeypatch.setattr(driver, "IDLE", 0.0)
    return made


@pytest.fixture
def driver_of(opened, tmp_path):
    catalogue, hydra = opened
    folder = tmp_path / "2026-ab12"
    folder.mkdir()
    plan_of = functools.cache(
        lambda texts: read_plan(list(texts), "config", catalogue, hydra, rights_of_user(catalogue))
    )

    def make(*texts: str, **keys) -> Driver:
        plan = plan_of(texts)
        sweep = Sweep(2, plan.settings)
        backend = complete(Slurm(sweep, **keys), sweep, "sweep.backend=slurm")
        return Driver(plan, open_study(plan, folder), folder, backend, Quiet(), lambda job: ["true"])

    return make


# The driver's side ------------------------------------------------------------------------------------------------


def test_every_job_is_submitted_once_and_no_more_than_max_submitted_are_in_the_queue(cluster, driver_of):
    most = []

    def turn() -> None:
        most.append(len(cluster.alive()))
        cluster.run_all()

    cluster.turn = turn
    sweep = driver_of("lr=0.1,0.2,0.3,0.4,0.5", max_submitted=3)
    assert sweep.run()
    assert states(sweep) == dict.fromkeys(range(5), "completed")
    assert cluster.count("sbatch --parsable") == 5 and max(most) == 3 and cluster.count("scancel") == 0
    # one look at the queue for all jobs: submit, run, end, see, for two chunks
    assert cluster.count("squeue") <= 12
    record = json.loads((job_at(sweep.folder, 3) / "slurm.json").read_text())
    assert record["format"] == 1 and cluster.jobs[record["id"]]["script"] == str(
        job_at(sweep.folder, 3) / "job.sbatch"
    )


def test_sweep_jobs_bounds_the_queue_too(cluster):
    assert Slurm(Sweep(2, {"jobs": 2})).places == 2
    assert Slurm(Sweep(2, {"jobs": "auto"})).capacity == 100


class Crash(Exception):
    pass


@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_order_and_the_crashes_no_job_is_lost_or_submitted_twice(
    cluster, driver_of, monkeypatch, seed
):
    """The driver dies at random commands, also between a submission and its record; Slurm requeues jobs at random."""
    draw = random.Random(seed)
    crashes = [True]

    def turn() -> None:
        for number in cluster.alive():
            job = cluster.jobs[number]
            if job["state"] == "RUNNING" and draw.random() < 0.4:
                cluster.finish(number)
            else:
                job["state"] = draw.choice(["RUNNING", "PENDING"])

    def call(*command: str) -> str:
        if crashes[0] and draw.random() < 0.1:
            raise Crash
        output = cluster.call(*command)
        if crashes[0] and draw.random() < 0.2:
            raise Crash
        return output

    cluster.turn = turn
    monkeypatch.setattr(slurm, "call", call)
    for life in range(100):
        crashes[0] = life < 8
        try:
            sweep = driver_of("lr=0.1,0.2,0.3", "seed=0,1", max_submitted=4)
            sweep.run()
            break
        except Crash:
            continue
    assert states(sweep) == dict.fromkeys(range(6), "completed")
    scripts = Counter(job["script"] for job in cluster.jobs.values())
    assert scripts == {str(job_at(sweep.folder, n) / "job.sbatch"): 1 for n in range(6)}


def test_a_job_of_an_earlier_driver_is_found_by_its_id_where_a_site_copies_scripts(cluster, driver_of):
    (folder := driver_of("lr=0.1,0.2").folder / "1-lr=0.2").mkdir()
    (folder / "slurm.json").write_text('{"format": 1, "id": "7"}')
    cluster.jobs["7"] = {"state": "RUNNING", "reason": "None", "script": "copy.sh"}

    def turn() -> None:
        if cluster.count("sbatch --parsable"):
            (folder / "summary.json").write_text('{"status": "completed", "objective": 1.0}')
            cluster.jobs.pop("7", None)
            cluster.run_all()

    cluster.turn = turn
    sweep = driver_of("lr=0.1,0.2")
    assert sweep.run() and states(sweep) == {0: "completed", 1: "completed"}
    assert cluster.count("sbatch --parsable") == 1


def test_files_that_the_script_appends_to_are_no_hard_links(cluster, driver_of, tmp_path):
    """Found by a hostile tester: a line was appended to the user's file that a stranger's folder had as requeues.txt."""
    job = driver_of("lr=0.1").folder / "0-lr=0.1"
    job.mkdir()
    for name in ("slurm.log", "requeues.txt"):
        (tmp_path / name).write_text("mine")
        os.link(tmp_path / name, job / name)
    cluster.turn = cluster.run_all
    assert driver_of("lr=0.1").run()
    for name in ("slurm.log", "requeues.txt"):
        assert not (job / name).samefile(tmp_path / name) and (job / name).read_text() == "mine"


def test_a_signal_leaves_the_jobs_in_the_queue(cluster, driver_of):
    def turn() -> None:
        if cluster.alive():
            os.kill(os.getpid(), signal.SIGINT)

    cluster.turn = turn
    sweep = driver_of("lr=0.1,0.2,0.3", max_submitted=2)
    assert sweep.run() is False
    assert len(cluster.alive()) == 2 and cluster.count("scancel") == 0
    assert sweep.backend.stays.endswith("scancel --name=dltrain-2026-ab12")
    cluster.turn = cluster.run_all
    again = driver_of("lr=0.1,0.2,0.3", max_submitted=2)
    assert again.run() and cluster.count("sbatch --parsable") == 3


@pytest.mark.parametrize("gone", [True, False])
def test_a_job_that_ends_without_a_summary_has_failed_with_the_last_line_of_its_log(cluster, driver_of, gone):
    def turn() -> None:
        for number in cluster.alive():
            (Path(cluster.jobs[number]["script"]).parent / "slurm.log").write_text(
                "begun\nKilled by the node\n\n"
            )
            if gone:
                del cluster.jobs[number]
            else:
                cluster.jobs[number]["state"] = "OUT_OF_MEMORY"

    cluster.turn = turn
    sweep = driver_of("lr=0.1")
    assert sweep.run() and states(sweep) == {0: "failed"}
    state = "left the queue" if gone else "OUT_OF_MEMORY"
    assert sweep.jobs[0].reason == f"Slurm: {state}: Killed by the node"


def test_a_summary_that_another_machine_sees_late_counts(cluster, driver_of):
    seen = []

    def turn() -> None:
        for number, job in cluster.jobs.items():
            job["state"] = "COMPLETED"
            seen.append(number)
            if len(seen) == 2:
                cluster.finish(number)

    cluster.turn = turn
    sweep = driver_of("lr=0.1")
    assert sweep.run() and states(sweep) == {0: "completed"}


def test_a_queue_that_does_not_answer_loses_no_job(cluster, driver_of, capsys):
    turns = []

    def turn() -> None:
        turns.append(1)
        if 2 < len(turns) < 9:
            raise SlurmError("Unable to contact slurm controller")
        cluster.run_all()

    cluster.turn = turn
    sweep = driver_of("lr=0.1,0.2")
    assert sweep.run() and states(sweep) == {0: "completed", 1: "completed"}
    assert cluster.count("sbatch --parsable") == 2
    assert capsys.readouterr().err.count("Unable to contact") == 1


def test_a_refused_submission_is_tried_again(cluster, driver_of, capsys):
    cluster.refusals = ["QOSMaxSubmitJobPerUserLimit"] * 3
    sweep = driver_of("lr=0.1,0.2")
    assert sweep.run() and states(sweep) == {0: "completed", 1: "completed"}
    assert len(cluster.jobs) == 2
    assert capsys.readouterr().err.count("sbatch refuses job 0") == 1


def job_in(folder: Path, opened, *texts: str) -> Job:
    catalogue, hydra = opened
    plan = read_plan(["lr=0.1", *texts], "config", catalogue, hydra, rights_of_user(catalogue))
    job = plan.jobs(0, plan.configurations[0], folder)[0]
    job.config = plan.composer.config(job.overrides)
    job.command = ["true"]
    return job


def look(backend: Slurm) -> list[object]:
    return list(backend.events())


def test_a_requeued_job_starts_again_and_a_canceled_one_is_canceled_until_it_ends(
    cluster, opened, tmp_path, capsys
):
    backend, job = Slurm(Sweep(2, {})), job_in(tmp_path, opened)
    cluster.turn = lambda: None
    backend.submit(job)
    assert look(backend) == []
    (entry,) = cluster.jobs.values()
    for state, events in [
        ("RUNNING", [Started(job)]),
        ("RUNNING", []),
        ("COMPLETING", []),
        ("PENDING", []),
        ("RUNNING", [Started(job)]),
    ]:
        entry["state"] = state
        assert look(backend) == events
    entry["state"], entry["reason"] = "PENDING", "JobHeldUser"
    look(backend)
    assert "job 0 waits in Slurm's queue (id 100): JobHeldUser" in capsys.readouterr().err
    backend.cancel(job)
    assert look(backend) == [] and cluster.log[-1] == "scancel 100"
    assert look(backend) == [Ended(job, 130)] and not backend.submitted


def test_a_job_that_waits_to_be_submitted_is_withdrawn(cluster, opened, tmp_path):
    backend, job = Slurm(Sweep(2, {})), job_in(tmp_path, opened)
    backend.submit(job)
    backend.cancel(job)
    assert look(backend) == [Ended(job, 130)] and not cluster.jobs


@pytest.mark.parametrize(
    "texts, steps, total_steps, every",
    [
        (["epochs=7"], range(21, 148, 21), 147, 21),
        ([], range(21, 100, 21), 630, 21),
        (["epochs=7", "evaluation.every_epochs=3"], [63, 126, 147], 147, 63),
        (["steps=100", "evaluation.every_steps=30"], [30, 60, 90, 100], 100, 30),
    ],
)
def test_evaluations_are_counted_as_the_run_itself_counts_them(
    opened, tmp_path, texts, steps, total_steps, every
):
    job = job_in(tmp_path, opened, *texts)
    rows = [{"step": s, "epoch": s / 21, "val/loss": abs(s - 60) + 1.0} for s in map(float, steps)]
    for number in range(1, len(rows) + 1):
        event = evaluated(job, rows[:number])
        # the formulas of dltrain.sweep.backends.worker
        assert (event.number, event.total) == (
            -(-int(rows[number - 1]["step"]) // every),
            -(-total_steps // every),
        )
        assert event.value == rows[number - 1]["val/loss"]
        assert event.best == min(row["val/loss"] for row in rows[:number])


def test_the_pruner_cancels_jobs_by_the_rows_of_their_metrics(cluster, driver_of):
    def turn() -> None:
        for number in cluster.alive():
            job = cluster.jobs[number]
            folder = Path(job["script"]).parent
            if job["state"] == "PENDING":
                job["state"] = "RUNNING"
                rows = [f"{k},{21 * k},{job_number(folder.name)}" for k in range(1, 4)]
                (folder / "metrics.csv").write_text("\n".join(["epoch,step,val/loss", *rows, ""]))
            elif len([*folder.glob("turn*")]) > 3:
                cluster.finish(number)
            (folder / f"turn{len(cluster.log)}").touch()

    cluster.turn = turn
    sweep = driver_of("lr=0.1,0.2,0.3,0.4,0.5,0.6", "sweep.pruner=median", "epochs=4", max_submitted=1)
    assert sweep.run()
    pruned = [n for n, state in states(sweep).items() if state == "pruned"]
    assert pruned and cluster.count("scancel") == len(pruned)


# Mistakes ---------------------------------------------------------------------------------------------------------


def refused(dltrain, workdir, *arguments: str) -> str:
    with pytest.raises(UserError) as error:
        dltrain("-m", "lr=0.1,0.2", "sweep.backend=slurm", *arguments)
    assert error.value.exit_code == 2 and len(str(error.value).splitlines()) <= 3
    assert not (workdir / "outputs").exists()
    return str(error.value)


@pytest.mark.parametrize("arguments, message", [
    (["sweep.backend.extra=[mail]"], "has 'mail'; each entry is one option of sbatch"),
    (['sweep.backend.extra=["--x\nrm -r data"]'], "has a line break"),
    (["sweep.jobs_per_gpu=2"], "has no effect with sweep.backend=slurm"),
    (["sweep.backend.cpus=0"], "`sweep.backend.cpus` is 0"),
    # YAML reads 1:00:00 as the number 3600, which sbatch takes for minutes
    (["sweep.backend.time=3600"], "`sweep.backend.time` is 3600; it must be: str or null"),
])  # fmt: skip
def test_mistakes_are_refused_before_anything_exists(cluster, dltrain, workdir, arguments, message):
    assert message in refused(dltrain, workdir, *arguments)


def test_a_working_folder_that_would_end_a_line_of_the_script_is_refused(
    cluster, dltrain, workdir, monkeypatch
):
    (workdir / "a\ntouch hacked\n#").mkdir()
    monkeypatch.chdir(workdir / "a\ntouch hacked\n#")
    assert "has control characters, and job.sbatch is read line by line.\n" in refused(dltrain, workdir)


@pytest.mark.parametrize("name", ["a\ntouch hacked\n#", "a\rb", "a\x1bb", "a\u2028b"])
def test_a_folder_that_would_end_a_line_of_the_script_is_refused(cluster, driver_of, opened, tmp_path, name):
    """Found in review: the name of a sweep's folder that came from elsewhere ran as a command on the node."""
    (tmp_path / name).mkdir()
    job = job_in(tmp_path / name, opened)
    with pytest.raises(UserError, match="has control characters.*\n.*sweep.backend=local"):
        script_of(job, [], 1)


def test_the_name_of_a_folder_is_one_word_of_the_script(cluster, opened, tmp_path):
    folder = tmp_path / "a b; touch hacked #"
    folder.mkdir()
    lines = script_of(job_in(folder, opened), [], 1).splitlines()
    named = [line for line in lines if line.startswith("#SBATCH --job-name=")]
    assert shlex.split(named[0].removeprefix("#SBATCH ")) == [f"--job-name=dltrain-{folder.name}"]


def test_options_that_sbatch_refuses_are_refused_in_its_words(
    cluster, dltrain, workdir, monkeypatch, tmp_path
):
    monkeypatch.undo()
    monkeypatch.chdir(workdir)
    programs(
        tmp_path / "bin",
        sbatch='echo "sbatch: error: invalid partition specified: nope" >&2; echo more >&2; exit 1',
    )
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    message = refused(dltrain, workdir, "sweep.backend.partition=nope")
    assert message == "`sweep.backend=slurm`: sbatch refuses: invalid partition specified: nope"


def test_without_slurm_a_dry_run_shows_the_script_and_a_sweep_is_refused(
    dltrain, workdir, monkeypatch, capfd
):
    monkeypatch.setattr(slurm.shutil, "which", lambda name: None)
    assert "`sbatch` is not on PATH.\n" in refused(dltrain, workdir)
    capfd.readouterr()
    assert dltrain("-m", "lr=0.1,0.2", "sweep.backend=slurm", "sweep.dry_run=true", "sweep.backend.time=8:00:00",
                   "sweep.backend.gpus=2", "sweep.backend.memory=8G", 'sweep.backend.extra=["--account=me"]') == 0  # fmt: skip
    lines = capfd.readouterr().out.splitlines()
    directives = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")]
    assert directives[3:] == ["--open-mode=append", "--signal=B:USR1@60", "--requeue", "--time=8:00:00", "--cpus-per-task=1",
                              "--mem=8G", "--gres=gpu:2", "--account=me"]  # fmt: skip
    assert f"--chdir={workdir}" in directives
    (command,) = [line for line in lines if line.endswith("&") and "backends.worker" in line]
    assert shlex.split(command)[0] == sys.executable and "lr=0.1" in command
    assert not (workdir / "outputs").exists()


# The script -------------------------------------------------------------------------------------------------------


def programs(folder: Path, **texts: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)


@pytest.fixture
def script(cluster, opened, tmp_path):
    """Start the script of a job whose command is a line of Python; `squeue` shows `state`, `scontrol` notes its arguments."""

    def start(code: str, state: str = "RUNNING") -> subprocess.Popen:
        programs(tmp_path / "bin", squeue=f"echo {state}", scontrol=f'echo "$@" >> {tmp_path}/scontrol.txt')
        job = job_in(tmp_path, opened)
        job.folder.mkdir(exist_ok=True)
        job.command = [sys.executable, "-c", f"import os, signal, sys, time\n{code}"]
        file = job.folder / "job.sbatch"
        file.write_text(script_of(job, [], 1))
        env = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
        return subprocess.Popen(
            ["bash", str(file)], env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    return start


LISTENS = """
def end(number, frame): time.sleep(0.1); sys.exit(75)
signal.signal(signal.SIGUSR1, end)
print("ready", flush=True)
time.sleep(20)
"""

bash_only = pytest.mark.skipif(os.name == "nt" or not shutil.which("bash"), reason="needs bash")


@bash_only
@pytest.mark.parametrize("code, output", [(0, ""), (3, "exit code 3\n"), (7, "exit code 7\n")])
def test_the_script_ends_with_the_code_of_the_run(script, tmp_path, code, output):
    process = script(f"sys.exit({code})")
    assert process.communicate()[0] == output and process.returncode == code
    assert not (tmp_path / "scontrol.txt").exists()


@bash_only
@pytest.mark.parametrize("state, requeued", [("RUNNING", True), ("COMPLETING", False)])
def test_a_signal_before_the_time_limit_saves_and_requeues_unless_slurm_ends_the_job(
    script, tmp_path, state, requeued
):
    process = script(LISTENS, state)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)
    assert process.wait(10) == 75
    assert (tmp_path / "scontrol.txt").exists() == requeued
    if requeued:
        assert (tmp_path / "scontrol.txt").read_text() == "requeue 7\n"


@bash_only
def test_a_signal_before_the_run_listens_requeues_it_too(script, tmp_path):
    process = script("print('x', flush=True); time.sleep(20)")
    process.stdout.readline()
    process.send_signal(signal.SIGUSR1)
    assert process.wait(10) == 138
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 7\n"


@bash_only
def test_the_script_outlives_the_sigterm_that_slurm_sends_to_all_its_processes(script):
    process = script(LISTENS.replace("SIGUSR1", "SIGTERM").replace("75", "143"), "COMPLETING")
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(10) == 143


@bash_only
def test_a_job_without_progress_is_requeued_three_times(script, tmp_path):
    outputs = lives(script, tmp_path / "0" / "checkpoints", {1: "step-00000021"}, 5)
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 7\n" * 3
    assert outputs[:3] == [("", 75)] * 3
    assert outputs[3] == ("stopped three times in a row without a step: raise sweep.backend.time\n", 1)


@bash_only
def test_a_job_with_progress_is_requeued_however_often_though_its_best_weights_are_the_newest_file(
    script, tmp_path
):
    steps = dict(enumerate(["step-00000007", "step-00000021", "step-00000300", "step-100000000"]))
    outputs = lives(script, tmp_path / "0" / "checkpoints", steps, 4)
    assert outputs == [("", 75)] * 4
    assert (tmp_path / "0" / "requeues.txt").read_text().splitlines() == list(steps.values())


def lives(script, checkpoints: Path, steps: dict[int, str], number: int) -> list[tuple[str, int]]:
    """Return output and exit code of each life of a job; in those that `steps` names it writes a checkpoint."""
    outputs = []
    for life in range(number):
        if life in steps:
            (checkpoints / steps[life]).mkdir(parents=True)
            (checkpoints / "best.safetensors").touch()
        process = script("sys.exit(75)")
        outputs.append((process.communicate()[0], process.returncode))
    return outputs


# A real Slurm -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("sbatch"), reason="needs Slurm on PATH")
def test_a_real_cluster_gives_the_numbers_of_this_machine(dltrain, workdir):
    """A requeue in the middle changes no number. It would take two minutes, unless the job is told to start now."""
    texts = ["-m", "lr=0.1,0.01", "epochs=300", "early_stopping=none", "threads=1", "quiet=true"]
    keys = ["sweep.backend=slurm", "sweep.backend.time=0:10:00"]
    driver = subprocess.Popen([sys.executable, "-m", "dltrain", *texts, *keys])
    metrics = Path("none")
    while driver.poll() is None and rows_of(metrics) < 20:
        time.sleep(0.5)
        metrics = next(workdir.glob("outputs/*/*/0-*/metrics.csv"), metrics)
    number = json.loads((metrics.parent / "slurm.json").read_text())["id"]
    subprocess.run(["scancel", "--batch", "--signal=USR1", number], check=True)
    while driver.poll() is None:
        subprocess.run(["scontrol", "update", f"jobid={number}", "StartTime=now"], capture_output=True)
        time.sleep(1)
    assert driver.returncode == 0
    swept = sweep_folder(workdir)
    assert (job_at(swept, 0) / "requeues.txt").read_text().count("\n") == 1
    assert {job["status"] for job in summaries(swept).values()} == {"completed"}
    assert dltrain(*texts, "sweep.backend=local", "output=alone") == 0
    (alone,) = (file.parent for file in (workdir / "alone").glob("*/*/sweep.json"))
    for number in (0, 1):
        assert Run(job_at(swept, number)).timeless_rows == Run(job_at(alone, number)).timeless_rows


def rows_of(metrics: Path) -> int:
    return metrics.read_text().count("\n") if metrics.exists() else 0
