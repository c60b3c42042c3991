"""Loggers that send elsewhere do so where the user's own command or word says it, never because a record does."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from faults import cut_run, only_run

STRANGER = "http://evil.example:5000"
STUB = """
from pathlib import Path
class MlflowClient:
    def __init__(self, tracking_uri):
        with open({file!r}, "a") as stream:
            stream.write(tracking_uri + "\\n")
        raise RuntimeError("no server")
"""
SMALL = (
    "model.hidden=[4]",
    "quiet=true",
    "steps=40",
    "checkpoint.every_steps=10",
    "evaluation.every_steps=10",
)


@pytest.fixture
def contacted(workdir: Path, tmp_path_factory, monkeypatch) -> Iterator[Path]:
    """The file that lists the addresses with which a stand-in for the package of MLflow was asked to connect."""
    folder, file = tmp_path_factory.mktemp("stub"), tmp_path_factory.mktemp("net") / "contacted"
    (folder / "mlflow").mkdir()
    (folder / "mlflow" / "__init__.py").write_text("")
    (folder / "mlflow" / "entities.py").write_text("")
    (folder / "mlflow" / "tracking.py").write_text(STUB.format(file=str(file)))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("DLTRAIN_CACHE", str(workdir / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
        monkeypatch.delitem(sys.modules, name)
    yield file
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
        del sys.modules[name]


def addresses(file: Path) -> list[str]:
    found = file.read_text().split() if file.exists() else []
    file.unlink(missing_ok=True)
    return found


def name_logger(run: Path, **keys: object) -> None:
    """Let the record of a run name MLflow, as a stranger's may."""
    file = run / "config.yaml"
    content = yaml.safe_load(file.read_text())
    content["logger"]["mlflow"] = {
        "_target_": "dltrain.loggers.mlflow.MLflow",
        "experiment": "x",
        "tracking_uri": None,
        **keys,
    }
    content["words"]["logger"] = [*content["words"]["logger"], "mlflow"]
    file.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("address", [STRANGER, "sqlite:///../elsewhere.db", None])
def test_a_record_sends_nowhere(workdir, dltrain, contacted, capsys, address):
    run = cut_run(workdir, 15, *SMALL).path
    name_logger(run, tracking_uri=address)
    key, value = ("tracking_uri", address) if address else ("experiment", "x")
    for verb in ("resume", "rerun"):
        capsys.readouterr()
        assert dltrain(verb, run) == 0
        said = capsys.readouterr().err
        assert f"logger.mlflow is left out: its `{key}` is {value} in the record" in said
        assert f"logger.mlflow.{key}=" in said
    assert dltrain("evaluate", run) == dltrain("reproduce", run) == 0
    assert addresses(contacted) == []


def test_a_user_who_names_the_place_has_the_logger(workdir, dltrain, contacted):
    run = cut_run(workdir, 15, *SMALL).path
    name_logger(run, tracking_uri=STRANGER)
    with pytest.raises(Exception, match="MLflow failed"):
        dltrain("rerun", run, f"logger.mlflow.tracking_uri={STRANGER}")
    assert addresses(contacted) == [STRANGER]


def test_a_run_of_the_user_keeps_its_logger(workdir, dltrain, contacted, capsys):
    """What the user's own command named is remembered on this machine."""
    own = "http://127.0.0.1:9"
    with pytest.raises(Exception, match="MLflow failed"):
        dltrain("logger=[mlflow]", f"logger.mlflow.tracking_uri={own}", "name=own", *SMALL)
    assert addresses(contacted) == [own]
    run = only_run(workdir, "own").path
    with pytest.raises(Exception, match="MLflow failed"):
        dltrain("rerun", run)
    assert addresses(contacted) == [own]
    # another machine, or a cache that was deleted
    (workdir / "cache" / "loggers.txt").unlink()
    assert dltrain("rerun", run) == 0
    assert "is left out" in capsys.readouterr().err
    assert addresses(contacted) == []


def test_a_word_of_the_user_s_own_conf_says_it_too(workdir, dltrain, contacted):
    run = cut_run(workdir, 15, *SMALL).path
    name_logger(run, tracking_uri="http://team.example")
    word = workdir / "conf" / "logger" / "team.yaml"
    word.parent.mkdir(parents=True)
    word.write_text(
        "_target_: dltrain.loggers.mlflow.MLflow\ntracking_uri: http://team.example\nexperiment: x\n"
    )
    with pytest.raises(Exception, match="MLflow failed"):
        dltrain("rerun", run)
    assert addresses(contacted) == ["http://team.example"]


def test_a_sweep_of_a_stranger_sends_nowhere(workdir, dltrain, contacted, capfd):
    assert dltrain("-m", "lr=0.1,0.01", "name=sw", "sweep.jobs=1", *SMALL) == 0
    (folder,) = workdir.glob("outputs/sw/*")
    record = json.loads((folder / "sweep.json").read_text())
    texts = ["logger=[mlflow]", f"logger.mlflow.tracking_uri={STRANGER}"]
    record["overrides"] += texts
    record["identity"]["fixed"] = sorted([*record["identity"]["fixed"], *texts])
    record |= {"finished": False, "first": {}}
    (folder / "sweep.json").write_text(json.dumps(record))
    for job in folder.glob("*-lr=*"):
        shutil.rmtree(job)
    (folder / "books.sqlite").unlink(missing_ok=True)
    capfd.readouterr()
    assert dltrain("-m", f"sweep.resume={folder}") == 0
    assert "repeat the whole command of the sweep" in capfd.readouterr().err
    assert addresses(contacted) == []


@pytest.mark.parametrize(("mode", "sends"), [("offline", False), ("online", True)])
def test_weights_and_biases_sends_online_only(mode, sends):
    from dltrain.loggers.wandb import WandB

    assert WandB.destination({"mode": mode}) == (("mode", "online") if sends else None)
