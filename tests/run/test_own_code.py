"""The digests of the user's own code in a run, and what says that it changed."""

from __future__ import annotations

import hashlib
import json
import os
import sys

import pytest

from dltrain import api
from dltrain.cli import dispatch
from dltrain.config.own_code import changed_since
from dltrain.errors import FindingsFailure

MODEL = """
import torch
from own_parts import act

class Net(torch.nn.Module):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.layer = torch.nn.Linear(input_shape[0], num_classes)

    def forward(self, x):
        return act(self.layer(x.flatten(1)))
"""


@pytest.fixture
def project(workdir, monkeypatch):
    """A model of the working folder, which imports a module beside it."""
    (workdir / "conf" / "model").mkdir(parents=True)
    (workdir / "conf" / "model" / "mine.yaml").write_text("_target_: own_net.Net\n")
    (workdir / "own_net.py").write_text(MODEL)
    (workdir / "own_parts.py").write_text("import torch\nact = torch.relu\n")
    (workdir / "other.py").write_text("")
    monkeypatch.syspath_prepend(str(workdir))
    yield workdir
    forget()


def forget() -> None:
    """Let the modules be imported again."""
    for name in ("own_net", "own_parts"):
        sys.modules.pop(name, None)


def test_a_run_keeps_the_digests_of_the_code_that_it_names_and_of_what_that_imports(project, train):
    run = train("dataset=iris", "model=mine", "steps=3", "quiet=true")
    assert run.summary["code"] == {
        name: hashlib.sha256((project / name).read_bytes()).hexdigest()
        for name in ("own_net.py", "own_parts.py")
    }
    assert "code" not in train("dataset=iris", "model=linear", "steps=1", "quiet=true").summary


def test_the_digest_is_that_of_the_code_that_was_imported_though_it_is_edited_during_the_training(
    project, train
):
    before = hashlib.sha256((project / "own_parts.py").read_bytes()).hexdigest()
    net = project / "own_net.py"
    net.write_text(
        net.read_text().replace(
            "return act", "open('own_parts.py', 'a').write('# edited')\n        return act"
        )
    )
    run = train("dataset=iris", "model=mine", "steps=3", "quiet=true")
    assert (project / "own_parts.py").read_text().endswith("# edited")
    assert run.summary["code"]["own_parts.py"] == before


@pytest.mark.ci
def test_changed_code_is_named_where_weights_are_used_and_compared(project, train, capsys):
    run = train("dataset=iris", "model=mine", "steps=3", "quiet=true")
    capsys.readouterr()
    assert dispatch(["evaluate", str(run.path)]) == 0
    assert "since" not in capsys.readouterr().err
    (project / "own_parts.py").write_text("import torch\nact = torch.tanh\n")
    assert dispatch(["evaluate", str(run.path)]) == 0
    said = (
        f"own_parts.py changed since {run.path.name} was trained, so its weights may give other results now"
    )
    assert said in capsys.readouterr().err
    with pytest.warns(UserWarning, match="own_parts.py changed since"):
        assert api.load(run.path).model is not None
    again = train("dataset=iris", "model=mine", "steps=3", "quiet=true")
    assert dispatch(["diff", str(run.path), str(again.path), "--json"]) == 0
    (code,) = json.loads(capsys.readouterr().out)["code"]
    assert code["key"] == "own_parts.py" and code["a"] != code["b"]


@pytest.mark.ci
def test_reproduce_names_the_file_that_changed(project, train, capsys):
    run = train("dataset=iris", "model=mine", "steps=30", "lr=0.1", "quiet=true")
    (project / "own_parts.py").write_text("import torch\nact = torch.tanh\n")
    forget()
    with pytest.raises(FindingsFailure, match="was not reproduced"):
        dispatch(["reproduce", str(run.path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert "code own_parts.py changed" in found["likely_causes"]


def edit(project) -> None:
    (project / "own_parts.py").write_text("import torch\nact = torch.tanh\n")
    forget()


def test_a_rerun_says_that_code_changed_and_compare_proposes_none(project, train, capsys):
    """The reruns that `compare` proposed for the former code trained the present one, and nothing said so."""
    words = ("dataset=iris", "model=mine", "steps=3", "quiet=true")
    run = train(*words)
    edit(project)
    again = train(*words)
    capsys.readouterr()
    assert dispatch(["rerun", str(run.path), "seed=1"]) == 0
    said = (
        f"own_parts.py changed since {run.path.name} was trained, and this run trains with the present code"
    )
    assert said in capsys.readouterr().err
    assert dispatch(["compare", str(run.path), str(again.path)]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "own_parts.py changed since, so that a repetition needs the former file" in page
    assert f"rerun {run.path}" not in page and "dltrain -m dataset=iris model=mine" in page


def test_a_run_that_goes_on_with_edited_code_keeps_a_remark(project, train, capsys):
    """The best score was of the former code beside a test score of the present one, and no record told."""
    run = train("dataset=iris", "model=mine", "epochs=2", "lr=0.1", "quiet=true")
    edit(project)
    capsys.readouterr()
    assert dispatch(["resume", str(run.path), "epochs=3"]) == 0
    assert "own_parts.py changed since" in (err := capsys.readouterr().err)
    assert "and it goes on with the present code" in err
    told = "own_parts.py changed before a resume: earlier evaluations are of the former code"
    for epochs in (3, 4):
        assert json.loads((run.path / "summary.json").read_text())["remarks"] == [told]
        assert dispatch(["show", str(run.path)]) == 0 and told in " ".join(capsys.readouterr().out.split())
        assert dispatch(["verify", str(run.path)]) == 0
        if epochs == 3:
            assert dispatch(["resume", str(run.path), "epochs=4"]) == 0


def test_a_stranger_s_record_reads_no_file_elsewhere(workdir):
    (workdir / "own.py").write_text("")
    (workdir.parent / "beside.py").write_text("")
    os.symlink(workdir.parent / "beside.py", workdir / "link.py")
    os.mkfifo(workdir / "pipe.py")
    record = {
        name: "0"
        for name in (
            "own.py",
            "../beside.py",
            "link.py",
            "/etc/passwd",
            "pipe.py",
            "a\x1b[2J.py",
            "x" * 5000 + ".py",
            3,
        )
    }
    assert changed_since(record) == ["own.py changed", "pipe.py was deleted"]
    assert changed_since({"gone.py": "0"}) == ["gone.py was deleted"]
    assert changed_since(None) == changed_since([1]) == []
    # realpath and stat of each: 60,000 took 88 s
    many = {f"{number}.py": "0" for number in range(3000)}
    assert len(changed_since(many)) == 1000
