"""`sweep.backend=ray` against a cluster that trains nothing; Ray itself is not imported (tests/cluster)."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from sweeping import states

from dltrain.config.compose import compose
from dltrain.config.door import rights_of_user
from dltrain.config.validation import validate
from dltrain.errors import UserError
from dltrain.storage.job_names import job_number
from dltrain.sweep import driver
from dltrain.sweep.backends import ray, ray_cluster, ray_connection, ray_task
from dltrain.sweep.backends.protocol import Sweep, complete
from dltrain.sweep.backends.ray import Ray
from dltrain.sweep.backends.ray_cluster import Canceled, Lost, Node, OutOfMemory
from dltrain.sweep.backends.ray_task import task_of, text_of
from dltrain.sweep.backends.worker import Task
from dltrain.sweep.driver import Driver
from dltrain.sweep.live import Quiet
from dltrain.sweep.plan.reading import read_plan
from dltrain.sweep.sweep import open_study

DONE = {"code": 0, "reason": ""}


class Cluster:
    """Ray in memory: two nodes of one CPU. `outcomes` are what happens to a job, one for each of its tasks; then it is done."""

    def __init__(self, outcomes: dict[int, list[object]] | None = None) -> None:
        self.outcomes = outcomes or {}
        self.tasks: list[dict] = []
        self.excluded: list[str] = []
        self.canceled: list[tuple[int, bool]] = []
        self.closed = 0
        self.most = 0
        self.ended: set[int] = set()
        self.turn = lambda: None
        self.all = [Node("a", "one", {"CPU": 1.0}), Node("b", "two", {"CPU": 1.0})]

    def nodes(self) -> list[Node]:
        return [node for node in self.all if node.id not in self.excluded]

    def start(self, text: str) -> int:
        self.tasks.append(json.loads(text))
        self.most = max(self.most, len(self.tasks) - len(self.ended))
        return len(self.tasks) - 1

    def wait(self, refs: list[int], seconds: float) -> list[int]:
        self.turn()
        return [ref for ref in refs if ref not in self.ended][:1]

    def result(self, ref: int) -> dict:
        self.ended.add(ref)
        task = self.tasks[ref]
        folder = Path(task["folder"])
        (folder / "ray.json").write_text(json.dumps({"format": 1, "attempt": task["attempt"]}))
        waiting = self.outcomes.get(task["number"])
        outcome = waiting.pop(0) if waiting else DONE
        if callable(outcome):
            outcome = outcome(folder)
        if isinstance(outcome, Exception):
            raise outcome
        if any(canceled == ref for canceled, _ in self.canceled):
            raise Canceled
        if outcome is DONE:
            summary = {"status": "completed", "objective": 1.0, "best": {}}
            (folder / "summary.json").write_text(json.dumps(summary))
        return outcome

    def exclude(self, node: str) -> None:
        self.excluded.append(node)

    def cancel(self, ref: int, force: bool = False) -> None:
        self.canceled.append((ref, force))

    def close(self) -> None:
        self.closed += 1

    def probe(self, folder: Path) -> None: ...

    def runs(self) -> Counter[int]:
        return Counter(task["number"] for task in self.tasks)


def use(monkeypatch, cluster: Cluster) -> None:
    monkeypatch.setattr(ray, "connect", lambda *facts: None)
    monkeypatch.setattr(ray, "Cluster", lambda *facts: cluster)


@pytest.fixture
def driver_of(opened, tmp_path, monkeypatch):
    catalogue, hydra = opened
    monkeypatch.setattr(driver, "IDLE", 0.0)
    for name in ("LOOK", "AGAIN"):
        monkeypatch.setattr(ray, name, 0.0)

    def make(cluster: Cluster, *texts: str, **keys) -> Driver:
        use(monkeypatch, cluster)
        plan = read_plan(list(texts), "config", catalogue, hydra, rights_of_user(catalogue))
        sweep = Sweep(2, plan.settings, rights=plan.rights, catalogue=catalogue)
        backend = complete(Ray(sweep, **keys), sweep, "sweep.backend=ray")
        return Driver(plan, open_study(plan, tmp_path), tmp_path, backend, Quiet())

    return make


def test_every_job_is_one_task_and_no_more_than_twice_the_places_are_queued(driver_of):
    cluster = Cluster()
    sweep = driver_of(cluster, "lr=0.1,0.2,0.3", "seed=0,1,2")
    assert sweep.run()
    assert states(sweep) == dict.fromkeys(range(9), "completed")
    assert cluster.runs() == Counter(range(9)) and cluster.most == 4 and cluster.closed == 1


def test_nodes_that_join_or_leave_change_how_many_jobs_are_queued(driver_of, monkeypatch):
    monkeypatch.setattr(ray, "COUNT", 0.0)
    cluster = Cluster()
    sweep = driver_of(cluster, "lr=0.1,0.2,0.3", "seed=0,1,2,3")
    cluster.turn = lambda: cluster.all.append(Node("c", "three", {"CPU": 1.0}))
    assert sweep.run()
    assert sweep.backend.places > 2 and cluster.most > 4


def test_sweep_jobs_and_whole_resources_bound_the_queue(driver_of):
    assert driver_of(Cluster(), "lr=0.1", "sweep.jobs=3").backend.capacity == 3
    node = Node("a", "one", {"CPU": 4.0, "GPU": 2.0})
    assert [node.places({"CPU": c, "GPU": g}) for c, g in [(1, 0), (0.1, 0), (1, 0.5), (3, 2), (1, 3)]] == [
        4,
        40,
        4,
        1,
        0,
    ]


def test_a_lost_worker_costs_another_task_and_the_job_is_done_once(driver_of, capsys):
    cluster = Cluster({0: [Lost("WorkerCrashedError"), Lost("NodeDiedError")]})
    sweep = driver_of(cluster, "lr=0.1,0.2")
    assert sweep.run() and states(sweep) == {0: "completed", 1: "completed"}
    assert cluster.runs() == {0: 3, 1: 1}
    assert [task["attempt"] for task in cluster.tasks if task["number"] == 0] == [1, 2, 3]
    assert "job 0 lost its worker (NodeDiedError) and runs again" in capsys.readouterr().err


def test_a_job_that_loses_its_worker_without_progress_fails_and_with_progress_goes_on(driver_of):
    def progress(folder: Path) -> object:
        made = len(list(folder.glob("checkpoints/*")))
        checkpoint = folder / "checkpoints" / f"step-{made:08d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "manifest.json").touch()
        return Lost("WorkerCrashedError")

    cluster = Cluster({0: [progress] * 6, 1: [Lost("WorkerCrashedError")] * 6})
    sweep = driver_of(cluster, "lr=0.1,0.2", retries=2)
    assert sweep.run() and states(sweep) == {0: "completed", 1: "failed"}
    assert cluster.runs() == {0: 7, 1: 3}
    assert "lost 3 times in a row without a new checkpoint: WorkerCrashedError" in sweep.jobs[1].reason


def test_a_job_that_waits_for_its_next_worker_is_canceled_at_once(driver_of, monkeypatch):
    monkeypatch.setattr(ray, "AGAIN", 3600.0)
    cluster = Cluster({0: [Lost("NodeDiedError")]})
    sweep = driver_of(cluster, "lr=0.1,0.2")
    cluster.turn = lambda: os.kill(os.getpid(), signal.SIGINT) if len(cluster.ended) == 1 else None
    assert sweep.run() is False and cluster.runs() == {0: 1, 1: 1}


def test_a_job_s_own_failure_is_not_tried_again_but_one_without_memory_is_once_alone(driver_of):
    cluster = Cluster({0: [{"code": -11, "reason": ""}], 1: [OutOfMemory()], 2: [OutOfMemory()] * 3})
    sweep = driver_of(cluster, "lr=0.1,0.2,0.3,0.4")
    assert sweep.run()
    assert states(sweep) == {0: "failed", 1: "completed", 2: "failed", 3: "completed"}
    assert cluster.runs() == {0: 1, 1: 2, 2: 2, 3: 1}
    assert "SIGSEGV" in sweep.jobs[0].reason and "out of memory" in sweep.jobs[2].reason


def test_a_node_that_does_not_see_the_folder_gets_no_further_jobs(driver_of, capsys):
    cluster = Cluster({n: [{"blind": "two", "node": "b"}] for n in (0, 1)})
    sweep = driver_of(cluster, "lr=0.1,0.2,0.3")
    assert sweep.run() and states(sweep) == dict.fromkeys(range(3), "completed")
    assert set(cluster.excluded) == {"b"} and cluster.runs() == {0: 2, 1: 2, 2: 1}
    assert capsys.readouterr().err.count("the node two does not see") == 1


def test_a_signal_cancels_every_task_once_and_the_next_driver_runs_what_is_missing(driver_of):
    cluster = Cluster()
    cluster.turn = lambda: os.kill(os.getpid(), signal.SIGINT) if not cluster.canceled else None
    sweep = driver_of(cluster, "lr=0.1,0.2,0.3", "seed=0,1")
    assert sweep.run() is False
    assert cluster.canceled == [(1, False), (2, False), (3, False)]
    again = Cluster()
    sweep = driver_of(again, "lr=0.1,0.2,0.3", "seed=0,1")
    assert sweep.run() and states(sweep) == dict.fromkeys(range(6), "completed")
    assert again.runs() == Counter(range(1, 6))


def test_a_second_signal_kills_the_workers(driver_of):
    cluster = Cluster()
    cluster.turn = lambda: os.kill(os.getpid(), signal.SIGINT)
    cluster.wait = lambda refs, seconds: cluster.turn() or []
    sweep = driver_of(cluster, "lr=0.1,0.2")
    assert sweep.run() is False
    assert {ref for ref, force in cluster.canceled if force} == {0, 1} and cluster.closed == 1


def test_a_pruner_stops_jobs_by_their_metrics_csv(driver_of):
    def rows(folder: Path) -> object:
        number = job_number(folder.name)
        lines = [f"{e},{21 * e},{float(number)}" for e in range(1, 5)]
        (folder / "metrics.csv").write_text("epoch,step,val/loss\n" + "\n".join(lines) + "\n")
        return DONE

    cluster = Cluster({n: [rows] for n in range(8)})
    sweep = driver_of(cluster, "lr=0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8", "sweep.pruner=median", "epochs=9")
    assert sweep.run()
    assert any(job.pruned for job in sweep.jobs)
    assert sweep.study.trials()[0].intermediate_values


# Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys, settings, message",
    [
        ({"gpus": 1.5}, {}, "sweep.backend.gpus=1 or sweep.backend.gpus=0.5"),
        ({}, {"jobs_per_gpu": 2}, "To let several jobs share a GPU: sweep.backend.gpus=0.5"),
        ({"cpus": 2.0}, {}, "the largest has 1 CPUs, 0 GPUs.\nLower sweep.backend.cpus"),
        ({"gpus": 0.5}, {}, "no node of the Ray cluster can run a job with 1 CPUs and 0.5 GPUs"),
    ],
)
def test_what_ray_cannot_run_is_refused(monkeypatch, keys, settings, message):
    cluster = Cluster()
    use(monkeypatch, cluster)
    with pytest.raises(UserError) as error:
        Ray(Sweep(2, settings), **keys)
    assert message in str(error.value) and str(error.value).count("\n") <= 2


def test_a_cluster_that_is_refused_is_left(monkeypatch):
    cluster = Cluster()
    use(monkeypatch, cluster)
    with pytest.raises(UserError):
        Ray(Sweep(2), cpus=2.0)
    assert cluster.closed == 1


def test_a_dry_run_connects_to_nothing(dltrain, monkeypatch, capsys):
    monkeypatch.setattr(ray, "connect", lambda *facts: 1 / 0)
    keys = ["sweep.backend=ray", "sweep.backend.cpus=0.5", "sweep.dry_run=true"]
    assert dltrain("-m", "lr=0.1,0.2", *keys) == 0
    assert "a task of Ray with 0.5 CPUs and 0 GPUs" in capsys.readouterr().out


def test_without_ray_the_line_that_installs_it_is_printed(dltrain, monkeypatch, workdir):
    monkeypatch.setattr(Ray, "requires", frozenset({"ray_that_is_missing"}))
    with pytest.raises(UserError, match="pip install ray_that_is_missing"):
        dltrain("-m", "lr=0.1,0.2", "sweep.backend=ray")
    assert list(workdir.iterdir()) == []


@pytest.fixture
def answering():
    """A port that answers with some bytes."""
    sockets = []

    def listen(answer: bytes) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)

        def serve() -> None:
            line, _ = server.accept()
            line.recv(100)
            line.sendall(answer)
            line.close()

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield listen
    for server in sockets:
        server.close()


@pytest.mark.parametrize("address", ["ray://10.0.0.5:10001", "10.0.0.5", ":6379", "host:port", ""])
def test_an_address_is_a_host_and_a_port(address):
    with pytest.raises(UserError, match=r"must be HOST:PORT .*\n.*=10.0.0.5:6379"):
        ray_connection.check_address(address)


@pytest.mark.parametrize("answer", [b"HTTP/1.0 400 Bad request\r\n", b""])
def test_a_port_of_something_else_is_no_cluster(answering, answer):
    address = answering(answer)
    with pytest.raises(UserError, match=f"{address}, and no Ray cluster answers there"):
        ray_connection.check_address(address)
    with pytest.raises(UserError, match="no Ray cluster answers there"):
        ray_connection.check_address("127.0.0.1:9")


def test_a_grpc_server_may_be_ray(answering):
    # the settings of a real one
    ray_connection.check_address(answering(bytes.fromhex("000018040000000000") + bytes(24)))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sees": False}, "the node two of the Ray cluster does not see /data, which its jobs need"),
        ({"error": "ModuleNotFoundError: No module named 'dltrain'"}, "cannot run jobs: ModuleNotFoundError"),
        ({"versions": {"dltrain": "0.0.1", "torch": "2.14.1"}}, "has dltrain 0.0.1, this machine"),
        ({"versions": {"dltrain": "0.1.0", "torch": "missing"}}, "has torch missing, this machine"),
    ],
)
def test_a_node_that_lacks_something_is_named(change, message):
    here = {"dltrain": "0.1.0", "torch": "2.14.1"}
    whole = {"sees": True, "versions": here}
    ray_cluster.check_answer("two", whole, Path("/data"), here)
    with pytest.raises(UserError) as error:
        ray_cluster.check_answer("two", whole | change, Path("/data"), here)
    assert message in str(error.value) and str(error.value).count("\n") <= 2


def test_the_file_that_nodes_look_for_is_seen_and_removed(tmp_path):
    with ray_cluster.visible_file(tmp_path / "outputs" / "deep") as file:
        assert file.parent == tmp_path
        answer = json.loads(ray_task.probe(str(file)))
        assert answer["sees"] is True and answer["versions"] == ray_task.versions()
    assert list(tmp_path.iterdir()) == []
    assert json.loads(ray_task.probe(str(file)))["sees"] is False


def test_addresses_of_this_machine_alone_need_no_warning():
    assert [
        ray_connection.is_loopback(a)
        for a in ("127.0.0.1:1", "[::1]:1", "localhost:1", "10.0.0.5:1", "head:1")
    ] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_ray_keeps_no_handler_of_a_signal():
    former = signal.getsignal(signal.SIGTERM)
    with ray_connection.own_signals():
        signal.signal(signal.SIGTERM, lambda *_: None)
    assert signal.getsignal(signal.SIGTERM) is former


def test_what_ray_says_as_it_cannot_join_is_explained():
    mismatch = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
        "This process on 10.0.0.5 was started with:\n    Ray: 2.53.0\n    Python: 3.12.1\n"
    )
    told = {
        mismatch: "other versions (Ray: 2.60.0, Python: 3.11.7) than this machine (Ray: 2.53.0, Python: 3.12.1)",
        "no\nUnauthenticated: InvalidAuthToken": "wants another token than this command has",
        "Failed\nmore": "no Ray cluster answers there: Failed\n",
    }
    for text, message in told.items():
        error = str(ray_connection.explained("10.0.0.5:6379", text))
        assert message in error and error.count("\n") == 1


# A task -----------------------------------------------------------------------------------------------------------


def test_a_task_is_text_without_secrets_and_comes_back_equal(opened, tmp_path, monkeypatch):
    catalogue, hydra = opened
    monkeypatch.setenv("DLTRAIN_TEST_TAG", "hidden-7")
    texts = ["optimizer=adam", "lr=0.1", "regularization=[l2,dropout]", "tags=['${oc.env:DLTRAIN_TEST_TAG}']"]
    config = validate(compose(texts, catalogue, hydra, "config"))
    assert "hidden-7" in str(config.tags)
    rights = rights_of_user(catalogue)
    task = Task(3, tmp_path, config, rights, "dltrain -m", tuple(texts), str(tmp_path), asks=False)
    text = text_of(task, 2)
    assert "hidden-7" not in text
    assert task_of(json.loads(text)) == task
    monkeypatch.delenv("DLTRAIN_TEST_TAG")
    with pytest.raises(UserError, match="DLTRAIN_TEST_TAG"):
        task_of(json.loads(text))


class Channel:
    def __init__(self, messages: list[tuple]) -> None:
        self.messages = messages

    def poll(self, seconds: float) -> bool:
        return True

    def recv(self) -> tuple:
        if not self.messages:
            raise EOFError
        return self.messages.pop(0)


class Process:
    """A job's process that sends some messages."""

    def __init__(self, *messages: tuple, code: int = 0) -> None:
        self.channel, self.code = Channel([*messages]), code
        self.signals: list[int] = []

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def end(self) -> int:
        return self.code


def test_a_task_waits_for_its_process_and_returns_how_it_ended():
    row = (3, "row", 1, 1.0, 0.5, 0.5)
    assert ray_task.attend(Process((3, "listens"), row, (3, "ended", 3, "no data")), []) == (3, "no data")
    assert ray_task.attend(Process((3, "listens"), code=-9), []) == (-9, "")


def test_a_request_to_stop_reaches_the_process_once_and_not_before_it_listens():
    process = Process((3, "listens"), (3, "begun", 5), (3, "row", 1), (3, "ended", 130, ""))
    assert ray_task.attend(process, [signal.SIGINT]) == (130, "")
    assert process.signals == [signal.SIGINT]
    early = Process((3, "ended", 130, ""))
    ray_task.attend(early, [signal.SIGINT])
    assert early.signals == []


@pytest.fixture
def worker(monkeypatch):
    """This process as a worker of Ray, without GPUs; what `run` asks of the pool of processes is listed."""
    context = SimpleNamespace(get_node_id=lambda: "abc")
    faked = SimpleNamespace(get_runtime_context=lambda: context, get_gpu_ids=list)
    calls: list[object] = []

    def start(*arguments: object) -> Process:
        calls.append(arguments)
        calls.append(hasattr(sys.modules["__main__"], "__file__"))
        os.kill(os.getpid(), signal.SIGINT)
        return Process((3, "listens"), (3, "row", 1), (3, "ended", 130, ""))

    script = ModuleType("__main__")
    script.__file__ = "default_worker.py"
    monkeypatch.setitem(sys.modules, "ray", faked)
    monkeypatch.setitem(sys.modules, "__main__", script)
    monkeypatch.setattr(ray_task.pool, "warm_up", lambda: calls.append("warm_up"))
    monkeypatch.setattr(ray_task.pool, "start", start)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    return calls


def test_a_worker_starts_the_process_of_local_from_a_warm_server_and_survives_a_request_to_stop(
    opened, tmp_path, worker
):
    catalogue, hydra = opened
    config = validate(compose(["lr=0.1"], catalogue, hydra, "config"))
    task = Task(3, tmp_path, config, rights_of_user(catalogue), "", ("lr=0.1",), str(tmp_path), asks=False)
    former = signal.getsignal(signal.SIGINT)
    assert json.loads(ray_task.run(text_of(task, 2))) == {"code": 130, "reason": ""}
    # the script of Ray's worker is hidden from multiprocessing, which would run it again in each job
    assert worker == ["warm_up", (ray_task.work, task), False]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert signal.getsignal(signal.SIGINT) is former
    note = json.loads((tmp_path / "ray.json").read_text())
    assert (note["format"], note["node"], note["attempt"]) == (1, "abc", 2)


def test_a_worker_that_does_not_see_the_folder_says_so_and_starts_nothing(worker):
    text = json.dumps({"folder": "/nowhere", "cwd": "/"})
    assert json.loads(ray_task.run(text))["node"] == "abc" and worker == []


@pytest.mark.parametrize("gpus, devices", [(0.0, ["cuda"]), (1.0, ["cuda:1"])])
def test_a_device_that_a_job_would_not_see_is_refused(gpus, devices):
    with pytest.raises(UserError, match="Use device=auto sweep.backend.gpus=1"):
        ray.check({"CPU": 1.0, "GPU": gpus}, {}, devices)
    ray.check({"CPU": 1.0, "GPU": 1.0}, {}, ["cuda", "auto"])


def test_the_newest_checkpoint_is_that_of_the_largest_step(tmp_path):
    for name in ("step-99999999", "step-100000000"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "manifest.json").touch()
    assert ray.newest_checkpoint(tmp_path) == "step-100000000"
