"""Weights & Biases and MLflow: the real packages write, and all that they wrote is read back and compared with the run."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Run, run_folders

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
SMALL = [
    "dataset.limit=150",
    "model.hidden=[8]",
    "epochs=3",
    "log.every_steps=1",
    "tags=[first,second]",
    "notes=two words",
]
BLOCK = 32768


def dltrain(*arguments: str) -> str:
    """The real program in a process of its own, as packages have threads and state; returns what it printed."""
    # no proxy and no server: whoever tries the network fails
    without = {
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "dltrain", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | without,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def run_of(folder: Path, *arguments: str) -> Run:
    before = run_folders(folder)
    assert dltrain(*arguments, *SMALL, "quiet=true") == ""
    (new,) = run_folders(folder) - before
    return Run(new)


def cut_short(folder: Path, *arguments: str) -> Run:
    """Train, and stop in the middle of the second epoch, by the signal of a cluster."""
    code = """
import os, signal, sys
from dltrain.training.trainer import Trainer
observe = Trainer.observe
def cut(self):
    if self.step == 5:
        os.kill(os.getpid(), signal.SIGTERM)
    observe(self)
Trainer.observe = cut
from dltrain.cli import main
main()
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, *SMALL, "quiet=true"], capture_output=True, env=environment
    )
    assert done.returncode in (75, 143), done.stderr.decode()
    (path,) = run_folders(folder)
    return Run(path)


# Weights & Biases -------------------------------------------------------------------------------------------------


def records(file: Path) -> Iterator[Any]:
    """The records of a run's file: LevelDB's log format after a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2 as messages

    data, position, whole = file.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if (left := BLOCK - position % BLOCK) < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        # whole records, and last parts
        if kind in (1, 4):
            record = messages.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def items(updates: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates}


def wandb_runs(run: Run) -> list[dict[str, Any]]:
    """Each part of a run: its facts, configuration, summary, and history by step."""
    found = []
    for file in sorted(run.path.glob("wandb/offline-run-*/*.wandb")):
        part: dict[str, Any] = {"history": {}, "summary": {}, "exit": None}
        for record in records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                part |= {"run": record.run, "config": items(record.run.config.update)}
            elif kind == "history":
                row = items(record.history.item)
                part["history"].setdefault(int(row["_step"]), {}).update(row)
            elif kind == "summary":
                part["summary"] |= items(record.summary.update)
            elif kind == "exit":
                part["exit"] = record.exit.exit_code
        found.append(part)
    return found


def check_history(history: dict[int, dict[str, Any]], run: Run, skipped: tuple[str, ...] = ()) -> None:
    for row in run.rows:
        logged = history[int(row["step"])]
        assert {key: float(logged[key]) for key in row if key not in skipped} == {
            key: value for key, value in row.items() if key not in skipped
        }
    assert sorted(step for step, row in history.items() if "steps/loss" in row) == list(
        range(1, int(run.rows[-1]["step"]) + 1)
    )
    assert history[int(run.rows[0]["step"])]["steps/loss"] == run.rows[0]["train/loss"]


@pytest.fixture
def wandb() -> None:
    pytest.importorskip("wandb", reason="pip install 'dltrain[wandb]'")


@pytest.mark.usefixtures("wandb")
def test_wandb_holds_the_run(workdir):
    run = run_of(workdir, "logger=[wandb]", "logger.wandb.project=study", "logger.wandb.group=mine")
    (logged,) = wandb_runs(run)
    check_history(logged["history"], run)
    facts = logged["run"]
    assert (facts.project, facts.run_group, facts.notes) == ("study", "mine", "two words")
    assert (facts.display_name, list(facts.tags)) == (run.path.name, ["first", "second"])
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert {key: logged["config"][key] for key in config} == config
    for key in ("objective", "best_epoch", "steps", "status"):
        assert logged["summary"][key] == run.summary[key]
    assert {key: logged["summary"][f"test/{key}"] for key in run.summary["test"]} == run.summary["test"]
    assert {key: logged["summary"][f"best/{key}"] for key in run.summary["best"]} == run.summary["best"]
    assert logged["exit"] == 0
    assert not [path for path in run.path.rglob("*") if path.is_symlink()]


@pytest.mark.usefixtures("wandb")
def test_wandb_changes_no_result(workdir):
    watched, alone = (run_of(workdir, f"logger=[{word}]", "model.dropout=0.3") for word in ("wandb", ""))
    assert watched.timeless_rows == alone.timeless_rows
    assert (watched.path / "checkpoints/best.safetensors").read_bytes() == (
        (alone.path / "checkpoints/best.safetensors").read_bytes()
    )


@pytest.mark.usefixtures("wandb")
def test_wandb_continues_a_resumed_run(workdir):
    run = cut_short(workdir, "logger=[wandb]")
    assert dltrain("resume", str(run.path), "quiet=true") == ""
    first, second = wandb_runs(run)
    assert first["run"].run_id == second["run"].run_id
    assert (first["exit"], second["exit"]) == (1, 0)
    assert not first["history"].keys() & second["history"].keys()
    check_history(first["history"] | second["history"], run)


@pytest.mark.usefixtures("wandb")
@pytest.mark.parametrize("how", ["local", "stacked"])
def test_wandb_groups_the_jobs_of_a_sweep(workdir, how):
    dltrain(
        "-m", "logger=[wandb]", "lr=0.1,0.01", f"sweep.backend={how}", "sweep.jobs=1", *SMALL, "quiet=true"
    )
    runs = [Run(file.parent) for file in sorted(workdir.glob("outputs/*/*/*/summary.json"))]
    assert len(runs) == 2
    parts = [part for run in runs for part in wandb_runs(run)]
    assert {part["run"].run_group for part in parts} == {runs[0].path.parent.name}
    assert len({part["run"].run_id for part in parts}) == 2
    for run, part in zip(runs, parts, strict=True):
        check_history(part["history"], run)
        assert part["run"].display_name == run.path.name


@pytest.mark.usefixtures("wandb")
def test_wandb_holds_no_secret(workdir, monkeypatch):
    monkeypatch.setenv("NOTE", "hunter2")
    run = run_of(workdir, "logger=[wandb]", "tags=[a,${oc.env:NOTE}]")
    files = [path for path in run.path.joinpath("wandb").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"hunter2" in path.read_bytes()]


@pytest.mark.usefixtures("wandb")
def test_wandb_online_without_a_login_is_refused(workdir, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(workdir))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-m", "dltrain", "logger=[wandb]", "logger.wandb.mode=online"]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert done.returncode == 2, done.stderr
    assert "logger.wandb: mode=online needs a key: run `wandb login` once" in done.stderr
    assert not (workdir / "outputs").exists()


# MLflow -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def mlflow(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("mlflow", reason="pip install 'dltrain[mlflow]'")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    return lambda: MlflowClient(tracking_uri=f"sqlite:///{workdir}/mlflow.db")


def mlflow_runs(client: Any, experiment: str = "dltrain") -> list[Any]:
    place = client.get_experiment_by_name(experiment).experiment_id
    return client.search_runs([place], order_by=["attributes.start_time"])


def history_of(client: Any, run_id: str) -> dict[int, dict[str, Any]]:
    """Values by step and name; a name has one value at each step."""
    history: dict[int, dict[str, Any]] = {}
    for key in client.get_run(run_id).data.metrics:
        for metric in client.get_metric_history(run_id, key):
            row = history.setdefault(metric.step, {})
            assert key not in row, "logged twice"
            row[key] = metric.value
    return history


def test_mlflow_holds_the_run(workdir, mlflow):
    run = run_of(workdir, "logger=[mlflow]", "logger.mlflow.experiment=study")
    client = mlflow()
    (logged,) = mlflow_runs(client, "study")
    history = history_of(client, logged.info.run_id)
    check_history(history, run)
    assert (logged.info.run_name, logged.info.status) == (run.path.name, "FINISHED")
    tags, parameters = logged.data.tags, logged.data.params
    assert (tags["first"], tags["second"], tags["mlflow.note.content"]) == ("true", "true", "two words")
    assert tags["dltrain.status"] == run.summary["status"]
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert parameters["optimizer.betas"] == str(config["optimizer"]["betas"]) and parameters["epochs"] == "3"
    assert parameters["words.model"] == "mlp"
    last = history[int(run.rows[-1]["step"])]
    for name in ("test", "best"):
        scores = {key: value for key, value in last.items() if key.startswith(f"result/{name}/")}
        assert scores == {f"result/{name}/{key}": value for key, value in run.summary[name].items()}
    assert last["result/objective"] == run.summary["objective"]


def test_mlflow_continues_a_resumed_run(workdir, mlflow):
    run = cut_short(workdir, "logger=[mlflow]")
    client = mlflow()
    (logged,) = mlflow_runs(client)
    assert logged.info.status == "KILLED"
    assert dltrain("resume", str(run.path), "quiet=true") == ""
    (again,) = mlflow_runs(client)
    assert (again.info.run_id, again.info.status) == (logged.info.run_id, "FINISHED")
    check_history({step: row for step, row in history_of(client, again.info.run_id).items() if row}, run)


def test_mlflow_holds_no_step_twice_after_a_kill(workdir, mlflow):
    """Resumed from the first epoch, after the second was logged: as after a kill before a checkpoint."""
    import shutil

    run = run_of(workdir, "logger=[mlflow]", "checkpoint.keep=9")
    for folder in sorted(run.path.glob("checkpoints/step-*"))[1:]:
        shutil.rmtree(folder)
    summary = run.summary | {"status": "running"}
    (run.path / "summary.json").write_text(json.dumps(summary))
    assert dltrain("resume", str(run.path), "quiet=true") == ""
    client = mlflow()
    (logged,) = mlflow_runs(client)
    # but the result of the second end
    history: dict[int, dict[str, Any]] = {}
    for key in logged.data.metrics:
        for metric in (
            client.get_metric_history(logged.info.run_id, key) if not key.startswith("result/") else ()
        ):
            assert key not in history.setdefault(metric.step, {}), "logged twice"
            history[metric.step][key] = metric.value
    check_history(history, run, skipped=("seconds", "images_per_second"))


@pytest.mark.parametrize("how", ["local", "stacked"])
def test_mlflow_gives_the_jobs_of_a_sweep_a_parent(workdir, mlflow, how):
    dltrain(
        "-m", "logger=[mlflow]", "lr=0.1,0.01", f"sweep.backend={how}", "sweep.jobs=1", *SMALL, "quiet=true"
    )
    client = mlflow()
    runs = {file.parent.name: Run(file.parent) for file in workdir.glob("outputs/*/*/*/summary.json")}
    logged = {run.info.run_name: run for run in mlflow_runs(client)}
    (parent,) = logged.keys() - runs.keys()
    assert len(runs) == 2 and len(logged) == 3
    for name, run in runs.items():
        assert logged[name].data.tags["mlflow.parentRunId"] == logged[parent].info.run_id
        assert run.path.parent.name == parent
        check_history(history_of(client, logged[name].info.run_id), run)
