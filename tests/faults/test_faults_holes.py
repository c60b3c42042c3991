"""Text of others, caches, wide tables, tracebacks in the place of an exit code, lost status."""

from __future__ import annotations

import ast
import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import corpus
import pytest
import torch
from conftest import job_at
from faults import at_step, copy_of, cut_run, swept
from PIL import Image

import dltrain as package
from dltrain.cli import dispatch, main
from dltrain.config import door
from dltrain.config.asked import keys_of_sweep
from dltrain.config.compose import quote_foreign
from dltrain.config.declarations import declared
from dltrain.config.own_code import imported_by
from dltrain.data import cache
from dltrain.errors import DataProblem, ResourceProblem, UserError, split_command
from dltrain.processors import cores
from dltrain.run.verification import keys_of_command
from dltrain.storage import manifest
from dltrain.storage.files import copy
from dltrain.storage.proposed import options_of
from dltrain.storage.run_folder import read_contract
from dltrain.sweep.jobs import Job
from dltrain.sweep.reuse import compares, finished_runs, take_over
from dltrain.text import shown

ESCAPE = "\x1b]0;owned\x07\x1b[31m"

# 55: text of others --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text, expected", [
    ("plain, größe 数 \u3000 \n second line", "plain, größe 数 \u3000 \n second line"),
    ("\x1b[31m", r"\x1b[31m"), ("a\rb\tc\x07", r"a\rb\tc\x07"), ("\u202egnp", r"\u202egnp"), ("\udc80", r"\udc80"),
    ("9" * 201, "9" * 80 + "…"), ("9" * 200, "9" * 200), ("x " * 2000, "x " * 1000 + "…"),
])  # fmt: skip
def test_55_text_is_fit_for_a_terminal(text, expected):
    assert shown(text) == expected


@pytest.mark.parametrize("text, end", [
    (")" * 900_000 + "x", "…"), ("x" * 900_000 + "`).", "…`)."), ("x" * 300 + "'\"),.;:`", "…;:`"), ("." * 900_000, "......"[:3]),
])  # fmt: skip
def test_55_a_long_value_of_marks_is_cut_at_once(text, end):
    """Found by a hostile tester: 900,000 marks in the notes of a run took `show` two hours."""
    begin = time.process_time()
    assert shown(text) == text[:80] + "…" * (not end.startswith("…")) + end
    assert time.process_time() - begin < 1


def test_55_a_long_command_is_no_command():
    """The time of shlex grows with the square of the length, and a record may hold 10 MB."""
    begin = time.process_time()
    for command in ("dltrain " + ")" * 900_000 + "x", "dltrain 'open"):
        with pytest.raises(ValueError):
            split_command(command)
        assert keys_of_command(command) == []
        assert keys_of_sweep(command, frozenset({"lr"})) == {"lr"}
        assert options_of(command) == ("", "")
    assert split_command("dltrain -m 'lr=1, 2'") == ["dltrain", "-m", "lr=1, 2"]
    assert time.process_time() - begin < 1


def test_55_blanks_of_a_stranger_take_no_time(dltrain, workdir):
    """Found by a hostile tester: an entry of a recipe, and an item of a list in sweep.json, took the square of their blanks."""
    (workdir / "conf" / "experiment").mkdir(parents=True)
    entry = '"a' + " " * 900_000 + 'x\\ny"'
    (workdir / "conf/experiment/s.yaml").write_text(f"# @package _global_\ndefaults:\n  - {entry}\n")
    begin = time.process_time()
    with pytest.raises(UserError):
        dltrain("experiment=s", "dry_run=true")
    assert quote_foreign("tags=[é,a" + " " * 1_000_000 + "b]").startswith("tags=[")
    assert quote_foreign("tags=[é, 'a, b' ,c d]") == "tags=[\"é\",'a, b',c d]"
    assert time.process_time() - begin < 5


def test_36_a_large_file_beside_a_stranger_s_run_is_not_read(workdir):
    """Found by a hostile tester: a name without a module was looked for in a sparse file of 4 GB."""
    (workdir / "code.py").write_text("class Net: ...\n")
    with open(workdir / "big.py", "wb") as stream:
        stream.truncate(2**33)
    os.mkfifo(workdir / "pipe.py")
    assert "`_target_: code.Net`" in door._missing("Net", is_own=True)
    assert "MODULE.Mzz" in door._missing("Mzz", is_own=True)
    # of a record
    assert "MODULE.Net" in door._missing("Net", is_own=False)
    assert declared("big.Net") == declared("nowhere.Net")
    assert list(imported_by(workdir / "big.py")) == []


def test_55_a_class_with_a_name_in_another_encoding_is_a_class(dltrain, workdir):
    """As a zip of Windows leaves it; data.json ended in a traceback."""
    for name in (b"a\xff", b"b"):
        folder = workdir / "img" / os.fsdecode(name)
        folder.mkdir(parents=True)
        for number in range(8):
            Image.new("L", (4, 4), 20 * number).save(folder / f"{number}.png")
    assert dltrain("dataset=image_folder", "dataset.root=img", "model=linear", "steps=1", "quiet=true") == 0
    (run,) = workdir.glob("outputs/*/*")
    assert read_contract(run).class_names == (os.fsdecode(b"a\xff"), "b")
    assert dltrain("verify", run) == 0


def test_55_tables_from_python_are_fit_for_a_terminal():
    shown_by_python = repr(package.Table({ESCAPE: [ESCAPE, "b\n"]}))
    assert "\x1b" not in shown_by_python and "\x07" not in shown_by_python
    assert len(shown_by_python.splitlines()) == 3


def test_55_predictions_and_schema_are_fit_for_a_terminal(dltrain, workdir, monkeypatch, capsys):
    """Names of classes come from a run's data.json."""
    table("t.csv", "v", ESCAPE)
    assert (
        dltrain(
            "dataset=csv", "dataset.path=t.csv", "dataset.target=y", "model=linear", "epochs=1", "quiet=true"
        )
        == 0
    )
    (run,) = workdir.glob("outputs/*/*")
    capsys.readouterr()
    for arguments in (("--json",), ("--output", "-")):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        assert dltrain("predict", run, "t.csv", *arguments) == 0
        said = capsys.readouterr().out
        assert "owned" in said and "\x1b" not in said and "\x07" not in said, arguments
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert dltrain("predict", run, "t.csv", "--output", "-") == 0
    assert ESCAPE in capsys.readouterr().out, "a program reads the names as they are"


def table(file: str, name: str, label: str) -> None:
    rows = "\n".join(f"{i % 7},{i % 5},{('a', label)[i % 2]}" for i in range(40))
    Path(file).write_text(f"u,{name},y\n{rows}\n", encoding="utf-8")


@pytest.mark.parametrize("arguments", [
    (f"model={ESCAPE}",), (f"optimizer.{ESCAPE}=1",), (f"notes={ESCAPE}", "lr=-1"), (f"tags=['{ESCAPE}']", "lr=-1"), (f"lr='{ESCAPE}'",),
    ("dataset=csv", f"dataset.path='{ESCAPE}.csv'", "dataset.target=y"), ("dataset=csv", "dataset.path=t.csv", "dataset.target=z"),
    ("dataset=csv", "dataset.path=t.csv", f"dataset.target='{ESCAPE}'"), ("evaluate", f"{ESCAPE}"), ("verify", f"{ESCAPE}"),
    (f"name='{ESCAPE}'",), (f"output='{ESCAPE}/x'", "lr=-1"), (f"--{ESCAPE}",), (ESCAPE,), (f"-{ESCAPE}",), (f"{ESCAPE}=1",),
    ("-m", f"optimizer=adam,{ESCAPE}"), (f"device={ESCAPE}",), (f"trust=['{ESCAPE}']", "model._target_=x.y"), (f"model._target_='{ESCAPE}.x'",),
    ("reproduce", "run", ESCAPE), ("resume", "run", f"{ESCAPE}=1"), ("seed=0x" + "f" * 5000,), ("lr=" + "9" * 5000,), ("name=" + "x" * 5000,),
])  # fmt: skip
def test_55_messages_never_hold_escapes_nor_long_values(workdir, capfd, arguments):
    table("t.csv", f"v{ESCAPE}", f"b{ESCAPE}")
    (workdir / "run").mkdir()
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    said = "".join(capfd.readouterr())
    assert end.value.code in (2, 3, 4), said
    assert "\x1b" not in said and "\x07" not in said
    assert len(said) < 1500 and said.startswith("dltrain: ")


def test_55_tables_and_headers_hold_no_escapes(workdir, dltrain, capfd):
    """Names of columns and classes, tags and notes of a run that is trained, scored and used."""
    file = f"t{ESCAPE.replace('/', '')}.csv"
    table(file, f"v{ESCAPE}", f"b{ESCAPE}")
    table("t.csv", f"v{ESCAPE}", f"b{ESCAPE}")
    arguments = (
        "dataset=csv",
        f"dataset.path='{file}'",
        "dataset.target=y",
        "model=linear",
        "epochs=1",
        "name=x",
        f"notes='{ESCAPE}'",
    )
    assert dltrain(*arguments) == 0
    (run,) = workdir.glob("outputs/x/*")
    assert dltrain("evaluate", run) == dltrain("predict", run, "t.csv") == dltrain("verify", run) == 0
    assert dltrain("check", *arguments) in (0, 10)
    said = "".join(capfd.readouterr())
    assert r"\x1b" in said and "\x1b" not in said and "\x07" not in said
    assert "\x1b" not in (run / "run.log").read_text()


# pages of our own words, scripts for a shell, JSON (which escapes by itself), cells of tables (screen/table.py, which have passed)
OWN = {"help.py", "completion.py", "complete.py", "schema.py", "text.py", "cli.py", "table.py"}


def test_55_everything_is_printed_by_one_function():
    wrong = []
    for file in Path(package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())) if file.name not in OWN else ():
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                text = ast.unparse(node)
                if "json" not in text and "file=log" not in text:
                    wrong.append(f"{file.name}: {text}")
    assert wrong == []


def test_55_letters_that_an_encoding_lacks(workdir):
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-m", "dltrain", "optimizer=adam", "--help"]
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == 0 and b"Traceback" not in done.stderr and b"optimizer.betas" in done.stdout


# 56: caches and wide tables ------------------------------------------------------------------------------------------


def test_56_a_cache_that_lies_is_made_again(workdir):
    source = workdir / "source"
    file = cache.place(source)
    source.write_text("x")
    true = {"inputs": torch.arange(100, dtype=torch.uint8), "targets": torch.arange(100)}
    first = cache.decoded(source, [source], lambda: dict(true))
    assert torch.equal(first["inputs"], true["inputs"]) and file.is_file()

    def never():
        raise AssertionError("the cache is whole")

    assert torch.equal(cache.decoded(source, [source], never)["targets"], true["targets"])
    content = torch.load(file, weights_only=True)
    for forged in (
        content | {"inputs": content["inputs"] + 1},
        content | {"targets": content["targets"].flip(0)},
        {name: value for name, value in content.items() if name != "digest"},
        content | {"more": torch.zeros(3)},
        content | {"inputs": [1, 2]},
    ):
        torch.save(forged, file)
        assert torch.equal(cache.decoded(source, [source], lambda: dict(true))["inputs"], true["inputs"])
    assert torch.equal(cache.decoded(source, [source], never)["inputs"], true["inputs"])


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_56_a_cache_is_a_regular_file(workdir, kind):
    source, elsewhere = workdir / "source", workdir / "elsewhere.pt"
    source.write_text("x")
    file = cache.place(source)
    cache.decoded(source, [source], lambda: {"inputs": torch.ones(3)})
    file.rename(elsewhere)
    {"link": lambda: file.symlink_to(elsewhere), "pipe": lambda: os.mkfifo(file), "folder": file.mkdir}[
        kind
    ]()
    before = elsewhere.read_bytes()
    assert cache.decoded(source, [source], lambda: {"inputs": torch.zeros(3)})["inputs"].sum() == 0
    assert elsewhere.read_bytes() == before


@pytest.mark.parametrize("columns, rule", [(100_000, "at most 30,000 columns"), (40_000, "at most 30,000")])
def test_56_a_table_of_too_many_columns(workdir, dltrain, columns, rule):
    name = "c" if columns == 100_000 else ""
    heads = ",".join(f"{name}{i}" for i in range(columns))
    (workdir / "wide.csv").write_text(f"{heads},y\n" + ",".join(["1"] * columns) + ",a\n")
    with pytest.raises(DataProblem, match=rule):
        dltrain("dataset=csv", "dataset.path=wide.csv", "dataset.target=y")


# 57: a code of the table in the place of a traceback -------------------------------------------------------------------


def ended(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


def test_57_the_working_folder_was_deleted(workdir, capsys):
    (workdir / "gone").mkdir()
    os.chdir(workdir / "gone")
    (workdir / "gone").rmdir()
    try:
        assert ended("steps=1") == 2
    finally:
        os.chdir(workdir)
    assert "working folder was deleted" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EFBIG, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_57_a_disk_that_takes_no_more(workdir, capfd, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number), "outputs/x")

    monkeypatch.setattr("dltrain.cli.dispatch", refuse)
    stdout = os.dup(1)
    try:
        assert ended("steps=1") == 6
    finally:
        os.dup2(stdout, 1)
    assert capfd.readouterr().err.splitlines() == [
        f"dltrain: outputs/x cannot be written: {os.strerror(number)}"
    ]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
@pytest.mark.parametrize("file", ["theirs", "folder/that/cannot/be/made"])
def test_57_a_file_of_another_user(workdir, capsys, monkeypatch, number, file):
    """Permissions are no traceback, and the folder that refuses a new file is named."""

    def refuse(*_):
        raise OSError(number, os.strerror(number), file)

    (workdir / "theirs").touch()
    (workdir / "folder").mkdir()
    monkeypatch.setattr("dltrain.cli.dispatch", refuse)
    assert ended("tag", "--json") == 6
    place, said = file.partition("/")[0], capsys.readouterr()
    text = f"{place} cannot be read or written ({os.strerror(number)}). To see who may: ls -ld {place}"
    assert said.err == f"dltrain: {text}\n"
    assert json.loads(said.out) == {"error": text, "exit_code": 6}


@pytest.mark.parametrize("hidden", ["[100000000000]", "[1000000000000000000]"])
def test_57_a_model_that_no_memory_holds(workdir, dltrain, hidden):
    with pytest.raises(
        ResourceProblem, match="model=mlp is too large for the memory.*\nMake it smaller"
    ) as error:
        dltrain(f"model.hidden={hidden}")
    assert error.value.exit_code == 6 and list(workdir.iterdir()) == []


@pytest.mark.parametrize("arguments, rule", [
    (("threads=1000000000",), r"`threads` is 1000000000; it must be: int in \[1, 1024\]"),
    (("model._partial_=true",), "`_partial_`|no key of"), (("+model._partial_=true",), "is always called"),
    (("model.hidden=[10000000000000000000]",), "Overflow"),
    (("batch_size=100000000000",), "at most that"),
])  # fmt: skip
def test_57_values_that_ended_in_tracebacks(workdir, dltrain, arguments, rule):
    with pytest.raises(UserError, match=rule) as error:
        dltrain(*arguments)
    assert len(str(error.value).splitlines()) <= 3 and list(workdir.iterdir()) == []


# 58: what a run says of itself -----------------------------------------------------------------------------------------


def test_58_a_resumed_run_logs_like_a_first_one(workdir, dltrain):
    run = cut_run(
        workdir, 30, "steps=60", "checkpoint.every_steps=10", "evaluation.every_steps=10", "quiet=true"
    )
    (run.path / "run.log").unlink(missing_ok=True)
    assert dltrain("resume", run.path) == 0
    log = (run.path / "run.log").read_text()
    assert log.count("step=") == 4 and "data: digits" in log and "completed" in log


def test_58_the_status_is_true_on_a_full_disk(workdir, monkeypatch):
    """No file can be made any more, also not that of the summary: its status stayed `running`."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")

    with monkeypatch.context() as patch:
        at_step(patch, 15, lambda trainer: patch.setattr("dltrain.storage.files.sync", full))
        with pytest.raises(ResourceProblem):
            dispatch(["steps=40", "checkpoint.every_steps=20", "quiet=true", "name=x"])
    (run,) = workdir.glob("outputs/x/*")
    said = json.loads((run / "summary.json").read_text())
    assert said["status"] == "failed" and "could not be written" in said["stop_reason"]
    assert [f for f in run.rglob("*.tmp")] == []


SPOILED = {
    "a forged score": lambda job: edit_summary(job, objective=0.0),
    "another configuration": lambda job: (job / "config.yaml").write_text((job / "config.yaml").read_text() + "\n"),
    "other weights": lambda job: (job / "checkpoints" / "best.safetensors").write_bytes(b"x"),
    "a manifest that leads outside": lambda job: (job / "manifest.json").write_text('{"format": 1, "sha256": {"../../x": "0"}}'),
    "a manifest of a later format": lambda job: (job / "manifest.json").write_text('{"format": 99, "sha256": {}}'),
    "code as a class": lambda job: (job / "config.yaml").write_text("model: {_target_: os.system}\nwords: {}\n"),
    "forged without a manifest": lambda job: void(
        (job / "manifest.json").unlink(), edit_summary(job, objective=1e-9)
    ),
    "forged with an empty manifest": lambda job: void(
        (job / "manifest.json").write_text('{"format": 1, "sha256": {}}'), edit_summary(job, objective=1e-9)
    ),
    "forged beside a manifest of other files": lambda job: void(
        edit_json(job / "manifest.json", lambda content: content["sha256"].pop("metrics.csv"))
    ),
    "a link": lambda job: (job / "more").symlink_to("/etc/passwd"),
    "an alias bomb": lambda job: (job / "config.yaml").write_text(corpus.BOMB),
}  # fmt: skip


def edit_json(file: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def edit_summary(job: Path, **changes: object) -> None:
    said = json.loads((job / "summary.json").read_text())
    (job / "summary.json").write_text(json.dumps(said | changes))


@pytest.mark.parametrize("name", SPOILED)
def test_58_reuse_of_a_stranger_s_sweep(workdir, name):
    """Only runs with the hashes of their manifests are taken over."""
    folder = copy_of(swept(), workdir / "outputs" / "name" / "sweep").path
    assert len(list(finished_runs(workdir / "outputs"))) == 2
    SPOILED[name](job_at(folder, 0))
    assert [path for _, path in finished_runs(workdir / "outputs")] == [job_at(folder, 1)]


def forged(job: Path, change: Callable[[dict], object]) -> None:
    edit_json(job / "summary.json", change)
    manifest.write(job, manifest.covered(job))


FORGED = {
    "objective": lambda said: said.update(objective=1e-9),
    "objective and best": lambda said: said.update(objective=1e-9, best={**said["best"], "val/loss": 1e-9}),
    "a score": lambda said: said["best"].update({"val/accuracy": 1.0}),
    "a score more": lambda said: said["best"].update({"val/f1": 1.0}),
    "the row": lambda said: said["best"].update(step=said["best"]["step"] + 1),
    "the epoch": lambda said: said.update(best_epoch=9.0),
    "no best": lambda said: said.update(best={}),
}


@pytest.mark.parametrize("name", FORGED)
def test_58_reuse_believes_no_summary_that_its_own_rows_refute(workdir, name):
    """Found by a hostile tester: with new hashes, an objective of 1e-9 was taken over and ranked first."""
    folder = copy_of(swept(), workdir / "outputs" / "name" / "sweep").path
    forged(job_at(folder, 1), lambda said: None)
    assert len(list(finished_runs(workdir / "outputs"))) == 2
    forged(job_at(folder, 0), FORGED[name])
    assert [path for _, path in finished_runs(workdir / "outputs")] == [job_at(folder, 1)]


def test_58_reuse_copies_records_checkpoints_and_logs_only(workdir):
    """Found by a hostile tester: payloads were copied, too, and sparse files of 2 MB became 3 GB."""
    source = job_at(copy_of(swept(), workdir / "outputs" / "name" / "sweep").path, 0)
    before = {path.relative_to(source) for path in source.rglob("*")}
    for name in (
        "payload.py",
        ".git/config",
        "checkpoints/more",
        "checkpoints/step-00000001/manifest.json.py",
    ):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("x")
    with open(source / "run.log", "ab") as stream:
        stream.truncate(2**33)
    job = Job(0, 0, {}, ["lr=0.01"], workdir / "sweep" / "0-lr=0.01")
    job.folder.parent.mkdir()
    take_over(job, source)
    assert {path.relative_to(job.folder) for path in job.folder.rglob("*")} == before
    assert (job.folder / "run.log").stat().st_size == 2**33
    assert sum(512 * path.stat().st_blocks for path in job.folder.rglob("*") if path.is_file()) < 2**24
    assert job.summary["reused"] == str(source)
    for path in before - {Path("summary.json"), Path("manifest.json"), Path("run.log")}:
        if (source / path).is_file():
            assert (job.folder / path).read_bytes() == (source / path).read_bytes()


def test_a_copy_has_the_bytes_of_a_file_with_holes(tmp_path):
    rng, content = random.Random(0), bytearray(5_000_000)
    with open(tmp_path / "a", "wb") as stream:
        for place in (0, 1_000_000, 2_500_001, 4_900_000):
            part = rng.randbytes(70_000)
            content[place : place + len(part)] = part
            stream.seek(place)
            stream.write(part)
        stream.truncate(len(content))
    for source in ("a", "empty", "whole"):
        (tmp_path / "whole").write_bytes(content[:70_000])
        (tmp_path / "empty").touch()
        copy(tmp_path / source, tmp_path / f"{source}.copy")
        assert (tmp_path / f"{source}.copy").read_bytes() == (tmp_path / source).read_bytes()
    assert (tmp_path / "a").read_bytes() == bytes(content)


BESIDE: dict[str, Callable[[Path], None]] = {
    "pipe": lambda file: os.mkfifo(file),
    "deep": lambda file: void(file.write_text("[" * 100_000)),
    "list": lambda file: void(file.write_text("[]")),
    "long": lambda file: void(file.write_text('{"loss": "plain", "x": "' + "x" * 20_000_000 + '"}')),
    "a key twice": lambda file: void(file.write_text('{"loss": "x", "loss": "plain"}')),
    "not text": lambda file: void(file.write_bytes(b"\xff\xfe")),
    "a folder": lambda file: file.mkdir(),
}


def void(*_: object) -> None: ...


@pytest.mark.parametrize("name", BESIDE)
def test_58_reuse_passes_by_a_record_that_is_none(workdir, name):
    """A pipe in the place of a sweep.json made `sweep.reuse` wait, and a deep one ended it in a traceback."""
    folder = copy_of(swept(), workdir / "outputs" / "name" / "sweep").path
    other = workdir / "outputs" / "name" / "other"
    (other / "0").mkdir(parents=True)
    (other / "0" / "summary.json").write_text("{}")
    BESIDE[name](other / "sweep.json")
    signal.alarm(60)
    try:
        assert {path.parent for _, path in finished_runs(workdir / "outputs")} == {folder}
        assert not compares(other / "sweep.json")
    finally:
        signal.alarm(0)


def test_58_threads_of_a_stranger_s_summary_are_bounded_by_the_machine(dltrain, workdir, capsys):
    """A run of a version that saved no threads in config.yaml resumes with those of summary.json."""
    run = cut_run(workdir, 5, "steps=10", "early_stopping=none", "quiet=true")
    for name in ("config.yaml", "summary.json"):
        text = (run.path / name).read_text()
        (run.path / name).write_text(
            re.sub(r'(threads"?): \d+', r"\1: " + ("null" if name == "config.yaml" else "900"), text)
        )
    capsys.readouterr()
    before = torch.get_num_threads()
    try:
        dltrain("resume", run.path)
        used = run.summary["threads"]
    finally:
        torch.set_num_threads(before)
    assert used == cores()
    assert f"`threads` is 900; {used} are used" in capsys.readouterr().err
