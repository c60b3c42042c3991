"""`sweep.backend=ray` on a Ray of this machine and on two nodes, one of which is killed, against the numbers of `local`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Run
from sweeping import add_faulty_model, finished, is_alive, notes, summaries, sweep_folder, wait_for

from dltrain.storage.job_names import job_folders

pytest.importorskip("ray", reason="needs the extra ray: pip install 'dltrain[ray]'")

REPOSITORY = Path(__file__).parents[2]
# on 127.0.0.1 only, no report to Ray's makers, and no token, also where an earlier Ray left one in the home folder
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "PYTHONPATH": str(REPOSITORY),
    "OMP_NUM_THREADS": "1",
}
RAY = "sweep.backend=ray"
# seconds of training for each job, so that a fault hits it in its middle
LONG = ["epochs=300", "early_stopping=none", "threads=1", "checkpoint.every_epochs=5", "quiet=true"]


class TwoNodes:
    """A cluster whose second node can be killed."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("two_nodes.py"))],
            cwd=folder,
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(folder / "errors.txt", "w"),
            text=True,
        )
        self.address = self.told()

    def told(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        assert self.told() == word

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=120)


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory) -> Iterator[TwoNodes]:
    cluster = TwoNodes(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture
def started(workdir) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """The program in a process and a session of its own; what still runs is killed at the end."""
    made = []

    def start(*arguments: str, cluster: TwoNodes | None = None) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)} | (ENVIRONMENT if cluster else {})
        process = subprocess.Popen(
            [sys.executable, "-m", "dltrain", *arguments],
            env=environment,
            stdout=open("output.txt", "a"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        made.append(process)
        return process

    yield start
    for process in made:
        if process.poll() is None:
            process.kill()
            process.wait()


def rows_of(folder: Path) -> dict[str, int]:
    files = folder.glob("outputs/*/*/*/metrics.csv")
    return {file.parent.name: file.read_text().count("\n") - 1 for file in files}


def assert_equal_to_local(dltrain, workdir: Path, swept: Path, *texts: str) -> None:
    """Every job is there once, done, with the rows of an undisturbed sweep."""
    assert dltrain(*texts, "sweep.backend=local", "output=alone") == 0
    (alone,) = (file.parent for file in (workdir / "alone").glob("*/*/sweep.json"))
    ours, theirs = job_folders(swept), job_folders(alone)
    assert ours.keys() == theirs.keys() and theirs
    assert {job["status"] for job in summaries(swept).values()} == {"completed"}
    for number in theirs:
        assert Run(ours[number]).timeless_rows == Run(theirs[number]).timeless_rows


def processes_in(folder: Path) -> list[int]:
    """The processes that work in a folder: those of a driver, of the Ray that it started, and of its jobs."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                inside = Path(os.readlink(entry / "cwd")).is_relative_to(folder)
            except OSError:
                continue
            if inside and is_alive(int(entry.name)):
                found.append(int(entry.name))
    return found


def listening(processes: list[int]) -> set[str]:
    """The addresses at which some processes listen, as /proc/net/tcp writes them."""
    sockets = set()
    for number in processes:
        for entry in Path(f"/proc/{number}/fd").iterdir():
            with suppress(OSError):
                sockets.add(os.readlink(entry))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].partition(":")[0])
    return found


@pytest.mark.ci
def test_a_sweep_is_begun_on_ray_interrupted_and_finished_on_local(dltrain, workdir, started):
    """The short form: Ray on 127.0.0.1 only, exit code and saved jobs after SIGINT, no process left, equal numbers."""
    texts = ["-m", "lr=0.1,0.01", *LONG]
    driver = started(*texts, RAY, "sweep.jobs=2")
    wait_for(lambda: sum(n > 10 for n in rows_of(workdir).values()) == 2)
    ours = processes_in(workdir)
    # 127.0.0.1, and the same written as an address of IPv6
    assert listening(ours) == {"0100007F", "0000000000000000FFFF00000100007F"}
    # as a terminal does: to the driver and all processes of its group
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(timeout=120) == 130
    swept = sweep_folder(workdir)
    assert {job["status"] for job in summaries(swept).values()} == {"interrupted"}
    wait_for(lambda: not processes_in(workdir), 20)
    assert dltrain(*texts, "sweep.backend=local") == 0
    assert sweep_folder(workdir) == swept
    assert_equal_to_local(dltrain, workdir, swept, *texts)


@pytest.mark.cluster
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_sweep_of_local_is_finished_on_ray_whatever_ends_the_drivers(
    dltrain, workdir, started, number, code
):
    texts = ["-m", "lr=0.1,0.03,0.01", *LONG]
    for backend, ending, expected in [("local", signal.SIGTERM, 143), ("ray", number, code)]:
        before = rows_of(workdir)
        driver = started(*texts, f"sweep.backend={backend}")
        wait_for(lambda before=before: sum(rows_of(workdir).values()) > sum(before.values()) + 40)
        driver.send_signal(ending)
        assert driver.wait(timeout=120) == expected
        # two helpers of Ray look for their killed parent from time to time only
        wait_for(lambda: not processes_in(workdir), 240)
    assert started(*texts, RAY).wait(timeout=300) == 0
    assert_equal_to_local(dltrain, workdir, sweep_folder(workdir), *texts)


@pytest.mark.cluster
def test_a_node_is_killed_and_the_driver_too_and_no_job_is_lost_or_doubled(
    dltrain, workdir, started, two_nodes
):
    texts = ["-m", "lr=0.1,0.03,0.01", "seed=0,1", *LONG]
    keys = [RAY, f"sweep.backend.address={two_nodes.address}"]
    driver = started(*texts, *keys, cluster=two_nodes)
    wait_for(lambda: sum(n > 20 for n in rows_of(workdir).values()) >= 2)
    two_nodes.ask("kill")
    wait_for(lambda: "lost its worker" in Path("output.txt").read_text())
    wait_for(lambda: len(finished(workdir)) >= 2)
    driver.kill()
    driver.wait()
    done = finished(workdir)
    two_nodes.ask("add")
    assert started(*texts, *keys, cluster=two_nodes).wait(timeout=300) == 0
    after = finished(workdir)
    # what was done is not run again
    assert {name: after[name] for name in done} == done
    assert "Traceback" not in Path("output.txt").read_text()
    assert "(raylet)" not in Path("output.txt").read_text()
    assert_equal_to_local(dltrain, workdir, sweep_folder(workdir), *texts)


@pytest.mark.cluster
def test_a_killed_worker_is_replaced_and_a_job_s_own_failure_is_not_tried_again(
    dltrain, workdir, started, two_nodes
):
    add_faulty_model(workdir)
    (workdir / "slow").touch()
    keys = ["-m", "model=faulty", "epochs=40", RAY, f"sweep.backend.address={two_nodes.address}"]
    driver = started(*keys, "model.fault=none,kill", "early_stopping=none", cluster=two_nodes)
    wait_for(lambda: len(notes(workdir)) > 15)
    workers = subprocess.run(["pgrep", "-f", "^ray::run"], capture_output=True, text=True).stdout.split()
    assert workers
    os.kill(int(workers[0]), signal.SIGKILL)
    assert driver.wait(timeout=300) == 7
    text = Path("output.txt").read_text()
    assert "job 0 lost its worker (WorkerCrashedError)" in text
    jobs = summaries(sweep_folder(workdir))
    assert jobs[0]["status"] == "completed" and jobs[1]["status"] == "failed"
    assert "SIGKILL" in jobs[1]["stop_reason"]
    built = [fault for event, fault, *_ in notes(workdir) if event == "built"]
    assert built.count("kill") == 1 and built.count("none") == 2


SEEING = """
import os
from torch import nn

class Seeing(nn.Module):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.layer = nn.Linear(64, num_classes)
        with open("seen.txt", "a") as file:
            file.write(f"{os.environ.get('CUDA_VISIBLE_DEVICES')!r}\\n")

    def forward(self, inputs):
        return self.layer(inputs.flatten(1))
"""


@pytest.mark.cluster
def test_jobs_share_a_gpu_by_fractions_and_see_none_that_they_did_not_ask_for(workdir, started, two_nodes):
    (workdir / "seeing.py").write_text(SEEING)
    (workdir / "conf" / "model").mkdir(parents=True)
    (workdir / "conf" / "model" / "seeing.yaml").write_text("_target_: seeing.Seeing\n")
    keys = ["-m", "model=seeing", "epochs=1", RAY, f"sweep.backend.address={two_nodes.address}", "quiet=true"]
    for gpus, seen in [("0.5", "'0'\n'0'\n"), ("0", "''\n''\n")]:
        words = ["lr=0.1,0.2", f"sweep.backend.gpus={gpus}", "sweep.backend.cpus=0.5", "sweep.fresh=true"]
        assert started(*keys, *words, cluster=two_nodes).wait(timeout=120) == 0
        assert (workdir / "seen.txt").read_text() == seen
        (workdir / "seen.txt").unlink()


@pytest.mark.cluster
def test_what_cannot_run_is_refused_and_nothing_is_made(workdir, started, two_nodes):
    address = f"sweep.backend.address={two_nodes.address}"
    cases = {
        (address, "sweep.backend.cpus=3"): "the largest has 2 CPUs, 1 GPUs; 1 CPUs, 0 GPUs",
        (address, "sweep.backend.gpus=2"): "can run a job with 1 CPUs and 2 GPUs",
        ("sweep.backend.address=127.0.0.1:9",): "no Ray cluster answers there",
    }
    for keys, message in cases.items():
        Path("output.txt").unlink(missing_ok=True)
        assert started("-m", "lr=0.1,0.2", RAY, *keys, cluster=two_nodes).wait(timeout=120) == 2
        text = Path("output.txt").read_text()
        assert message in text and len(text.strip().splitlines()) <= 3
    assert not (workdir / "outputs").exists()


@pytest.mark.cluster
def test_a_worker_of_ray_serves_many_jobs(workdir):
    """A new one imports torch for seconds. What Ray itself takes for a job is printed."""
    script = Path(__file__).with_name("no_op_jobs.py")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    output = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=True
    ).stdout
    print(output)
    assert json.loads(output)["workers"] <= 2
