"""Run folders and names of a stranger: work that grows with the square, letters without UTF-8, Markdown, formulas, hard links."""

from __future__ import annotations

import ast
import csv
import errno
import json
import logging
import os
import re
import shutil
import sys
import time
import tracemalloc
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import as_ci, job_at
from equality import default
from faults import copy_of, everything, swept

import dltrain as package
from dltrain import strict_json
from dltrain.cli import main
from dltrain.config.saved import dump, load_bounded
from dltrain.data.errors import DataError
from dltrain.data.image_files import Found
from dltrain.data.npz import read_array
from dltrain.data.tables.read import read as read_table
from dltrain.errors import (
    CheckFailed,
    CheckpointProblem,
    DataProblem,
    FolderInUse,
    ResourceProblem,
    UserError,
)
from dltrain.storage import checkpoint, event_log, files, folder_names, manifest, shelves, summary, tags
from dltrain.storage.event_log import EventLog, read_events
from dltrain.storage.lock import Lock
from dltrain.storage.run_folder import STATISTICS
from dltrain.sweep.begun import locked
from dltrain.sweep.journal import check_journal
from dltrain.sweep.sweep import explained

SURROGATE = "\ud800x"


@pytest.fixture
def run(workdir) -> Path:
    """A finished run of a stranger, by its path from the working folder."""
    return copy_of(
        type(swept())(job_at(swept().path, 0)), workdir / "outputs" / "theirs" / "2026-01-31_12-00-00-abcd"
    ).path.relative_to(workdir)


def says(folder: Path, **changes: object) -> None:
    content = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(content | changes))


def has_classes(folder: Path, name: str) -> None:
    content = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(
        json.dumps(content | {"class_names": [f"{name}{i}" for i in range(10)]})
    )


def images(file: str) -> str:
    import numpy as np

    np.savez(file, inputs=np.zeros((3, 1, 8, 8), np.float32))
    return file


# Work that grows with the square --------------------------------------------------------------------------------------


class Counted(str):
    """A text that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)  # type: ignore[arg-type]

    __hash__ = str.__hash__


@pytest.mark.parametrize("text", [")" * 900_000 + "x", "a" * 900_000], ids=["marks", "letters"])
def test_long_values_of_a_record_are_shown_at_once(run, dltrain, text):
    """Found by a hostile tester: `show`, `diff` and `report` took hours."""
    says(run, notes=text, command=text, stop_reason=text, metric=text, overrides=[f"notes={text}"])
    start = time.process_time()
    assert dltrain("show", run) == dltrain("diff", run, run) == dltrain("report", run) == 0
    assert time.process_time() - start < 5


MANY = 1000


@pytest.fixture
def counted(monkeypatch) -> list[Counted]:
    monkeypatch.setattr(Counted, "compared", 0)
    return [Counted(f"tag{i}") for i in range(MANY)]


def test_a_doubled_key_is_found_in_one_pass(counted):
    with pytest.raises(ValueError, match="duplicate key 'tag999'"):
        strict_json._unique([(name, 1) for name in (*counted, counted[-1])])
    assert Counted.compared < 10 * MANY


def test_many_tags_are_merged_in_one_pass(counted, monkeypatch):
    content = {"format": 1, "added": [Counted(f"{tag}+") for tag in counted], "removed": [*counted[1:]]}
    monkeypatch.setattr(summary, "read_json", lambda file: content)
    assert summary.merged_tags(Path(), counted) == ["tag0", *content["added"]]
    assert Counted.compared < 20 * MANY


def test_many_tags_are_changed_in_one_pass(counted, monkeypatch, tmp_path):
    content = {"format": 1, "added": [Counted(f"{tag}+") for tag in counted], "removed": [*counted[1:]]}
    monkeypatch.setattr(tags, "read_json", lambda file: content)
    assert tags.write_tags(tmp_path, counted, ["new"], ["tag0"])[-2:] == ["tag999+", "new"]
    assert Counted.compared < 40 * MANY


# Memory ---------------------------------------------------------------------------------------------------------------


def peak_of(act: Callable[[], object]) -> int:
    """Return the bytes that Python allocated at most."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_rows_take_eight_bytes_a_number(tmp_path):
    (tmp_path / "metrics.csv").write_text("step\n" + "".join(f"{k}\n" for k in range(30_000)))
    assert peak_of(lambda: summary.read_rows(tmp_path / "metrics.csv")) < 1_000_000
    assert len(summary.read_rows(tmp_path / "metrics.csv")) == 30_000


def test_a_verified_run_keeps_no_events(tmp_path):
    (tmp_path / "events.jsonl").write_text('{"event":"a","step":1}\n' * 5_000)
    assert peak_of(lambda: deque(read_events(tmp_path), 0)) < 300_000


def test_a_resumed_run_keeps_no_events(tmp_path):
    (tmp_path / "events.jsonl").write_text('{"event":"a","step":1}\n' * 5_000)
    log = EventLog(tmp_path, print)
    assert peak_of(lambda: log.rewind(0)) < 300_000


@pytest.mark.parametrize("bound, rows", [("MAX_ROWS", 5), ("MAX_NUMBERS", 10)])
def test_rows_are_bounded(tmp_path, monkeypatch, bound, rows):
    file = tmp_path / "metrics.csv"
    monkeypatch.setattr(summary, bound, rows)
    lines = [f"{k},2\n" for k in range(6)]
    file.write_text("".join(["step,x\n", *lines[:5], "1"]))
    assert list(summary.read_rows(file)) == [{"step": k, "x": 2.0} for k in range(5)]
    file.write_text("".join(["step,x\n", *lines]))
    with pytest.raises(CheckpointProblem, match="metrics.csv is no table of a run: it has more than"):
        summary.read_rows(file)


def test_a_line_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "MAX_LINE", 100)
    (tmp_path / "events.jsonl").write_text('{"event":"' + "a" * 100)
    with pytest.raises(ValueError, match="a line of more than 100 letters"):
        list(read_events(tmp_path))


def test_ten_million_steps_of_ten_columns_are_no_stranger_s():
    assert summary.MAX_ROWS >= 10_000_000 and summary.MAX_NUMBERS >= 100_000_000
    # epoch and step, eight numbers of seventeen digits, and an event of 200 letters
    assert 10_000_000 * max(2 * 9 + 8 * 20, 200) <= summary.MAX_LINES_BYTES


@pytest.mark.skipif(not hasattr(os, "O_NONBLOCK"), reason="files of the kernel")
def test_a_file_that_would_wait_for_the_kernel_is_opened_without(tmp_path, monkeypatch):
    """Such as a link to /proc/kmsg, which is a regular file by its status."""
    (tmp_path / "x.json").write_text("{}")
    seen, opened = [], os.open
    monkeypatch.setattr(
        os, "open", lambda file, flags, *rest: seen.append(flags) or opened(file, flags, *rest)
    )
    assert summary.read_json(tmp_path / "x.json") == {}
    assert seen[0] & os.O_NONBLOCK


# Tags of two processes ------------------------------------------------------------------------------------------------


def test_two_tags_at_once_are_both_kept(run, monkeypatch):
    """Another process adds its tag between the reading and the writing of this one, unless it has to wait."""
    read, waits = tags.read_changes, []

    def read_then_other(folder: Path) -> dict:
        found = read(folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tags, "read_changes", read)
            patch.setattr(tags, "PATIENCE", 0.0)
            try:
                tags.write_tags(folder, [], ["other"], [])
            except FolderInUse:
                waits.append(folder)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(tags, "read_changes", read_then_other)
        package.tag(run, add=["mine"])
    if waits:
        package.tag(run, add=["other"])
    assert set(package.tag(run)[run]) >= {"mine", "other"}
    assert not list(run.glob(".tags*"))


def test_two_writers_of_a_file_do_not_share_a_temporary_name(tmp_path, monkeypatch):
    file, sync = tmp_path / "report.html", files.sync

    def other_writes(path: Path) -> None:
        monkeypatch.setattr(files, "sync", sync)
        files.replace(file, b"theirs")

    monkeypatch.setattr(files, "sync", other_writes)
    files.replace(file, b"mine")
    assert file.read_bytes() == b"mine" and list(tmp_path.iterdir()) == [file]


def test_a_sweep_removes_what_a_killed_driver_was_writing(tmp_path):
    (tmp_path / ".results.csv.abcd.tmp").write_text("half")
    with locked(tmp_path):
        assert [file.name for file in tmp_path.iterdir()] == ["sweep.lock"]


# Letters that UTF-8 does not have -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["safetensors", as_ci("onnx")])
def test_an_export_with_letters_that_utf8_lacks(run, dltrain, form):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    says(run, command=SURROGATE, device=SURROGATE, versions={SURROGATE: SURROGATE})
    has_classes(run, SURROGATE)
    assert dltrain("export", run, "--format", form) == 0
    assert r"\ud800x" in (run / "export" / form / "README.md").read_text(encoding="utf-8")


def test_reports_and_predictions_with_letters_that_utf8_lacks(run, dltrain):
    says(run, notes=SURROGATE, command=SURROGATE, stop_reason=SURROGATE, versions={SURROGATE: SURROGATE})
    has_classes(run, SURROGATE)
    assert dltrain("report", run) == 0
    assert dltrain("compare", run, run, "--html", "c.html") == 0
    images("x.npz")
    for ending in ("csv", "json", *["parquet"] * (find_spec("pyarrow") is not None)):
        assert dltrain("predict", run, "x.npz", "--output", f"p.{ending}") == 0
    assert r"p(\ud800x0)" in Path("p.csv").read_text(encoding="utf-8")
    assert r"\ud800x" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_classes_whose_folders_are_in_another_encoding(workdir, dltrain):
    """Found by a hostile tester: a zip of Windows left such names, and the run ended in a traceback."""
    from PIL import Image

    names = ["gr\udcfcn", "rot"]
    for name in names:
        Path("photos", name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (8, 8), (i, 20 * i, 0)).save(Path("photos", name, f"{i}.png"))
    assert dltrain("dataset=image_folder", "dataset.root=photos", "model=cnn", "epochs=1", "name=p") == 0
    (folder,) = Path("outputs", "p").iterdir()
    assert json.loads((folder / "data.json").read_text())["class_names"] == names
    assert dltrain("verify", folder) == dltrain("evaluate", folder) == dltrain("report", folder) == 0
    assert dltrain("predict", folder, "photos", "--output", "p.csv") == 0
    assert r"gr\udcfcn" in Path("p.csv").read_text()


@pytest.mark.parametrize("text", ["dataset.root=gr\udcfcn", "notes='\ud800'", "output=o\udcff"])
def test_an_override_in_another_encoding_is_refused(workdir, dltrain, text):
    for verb in ([], ["check"], ["-m"]):
        with pytest.raises(UserError, match="is in another encoding than UTF-8.*: mv OLD NEW"):
            dltrain(*verb, text)
    assert list(workdir.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_tables_and_exports_of_a_name_in_another_encoding_are_refused(run, dltrain, workdir):
    for name in ("t\udcff.csv", "t\udcff.parquet", "t\udcff.json"):
        Path(name).write_bytes(b"a,b\n1,2\n")
        with pytest.raises(DataError, match="has a name in another encoding than UTF-8.*: mv OLD NEW"):
            read_table(workdir / name, "auto")
    with pytest.raises(UserError, match="has a name in another encoding.*: --output FOLDER"):
        dltrain("export", run, "--output", "o\udcff")
    assert not list(workdir.glob("*o\udcff*"))


def test_a_record_of_a_folder_in_another_encoding_is_written():
    """The folders `.hydra` of a sweep's jobs name the working folder."""
    assert yaml.load(dump({"cwd": "/gr\udcfcn"}), yaml.SafeLoader) == {"cwd": "/gr\udcfcn"}


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_a_folder_whose_name_is_not_utf8(run, dltrain):
    odd = run.rename(run.with_name("2026-01-01_00-00-00-\udcff\udcfe"))
    assert dltrain("report", odd) == dltrain("tag", odd, "+x") == 0
    assert dltrain("compare", odd, odd, "--html", "c.html") == 0


# Markdown and formulas ------------------------------------------------------------------------------------------------


def test_a_model_card_holds_no_markup_of_a_stranger(run, dltrain):
    evil = "<script>alert(1)</script> [x](javascript:alert(1)) `` ` \\<b>\r\n# head | cell"
    says(run, command=evil, device=evil, versions={evil: evil}, test={"accuracy": 0.5, evil: 1.0})
    has_classes(run, evil)
    assert dltrain("export", run, "--format", "safetensors") == 0
    card = (run / "export" / "safetensors" / "README.md").read_text()
    unescaped = re.sub(r"\\[\\`<>\[\]]", "", card)
    outside = "".join(unescaped.split("`")[::2])
    assert "<" not in outside and "](" not in outside
    assert "\r" not in card and "\n# head" not in card


def test_predictions_hold_no_formula_of_a_stranger(run, dltrain, capsys):
    has_classes(run, "=HYPERLINK(1)")
    images("x.npz")
    assert dltrain("predict", run, "x.npz", "--output", "p.csv") == 0
    with open("p.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["label"][:11] for row in rows} == {"'=HYPERLINK"}
    assert "p(=HYPERLINK(1)0)" in rows[0]


# A disk that is full --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form, name", [("safetensors", "model.safetensors"), ("torch", "model.pt2")])
def test_an_export_on_a_full_disk(run, monkeypatch, capfd, form, name):
    """torch and safetensors write by themselves, and call a full disk by names of their own."""
    write = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if self.name == name:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(self))
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    stdout = os.dup(1)
    try:
        with pytest.raises(SystemExit) as end:
            main(["export", str(run), "--format", form])
    finally:
        os.dup2(stdout, 1)
    assert end.value.code == 6 and "cannot be written: File too large" in capfd.readouterr().err
    assert not [file for file in run.rglob("*export*/**/*") if file.is_file()]


def test_an_export_without_room_for_temporary_files(run, dltrain, monkeypatch):
    def refuse(*_, **__):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr("torch.export.export", refuse)
    with pytest.raises(ResourceProblem, match="No usable temporary directory found. Free some space"):
        dltrain("export", run, "--format", "safetensors")


# Files of another user ------------------------------------------------------------------------------------------------


def test_what_cannot_be_deleted_ends_the_emptying_though_another_process_deletes_the_same(
    workdir, monkeypatch
):
    """A file that is gone meanwhile led to another try for as long as any other file could not be deleted."""
    (workdir / "a").mkdir()
    tries = iter(range(20))

    def never(folder, ignore_errors=False):
        next(tries)
        if not ignore_errors:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(folder / "b"))

    monkeypatch.setattr(shelves.shutil, "rmtree", never)
    with pytest.raises(ResourceProblem, match="b cannot be deleted"):
        shelves._delete(workdir / "a")


def test_a_sweep_that_may_not_write_advises_no_space():
    with (
        pytest.raises(ResourceProblem, match="Make it yours to read and write, then continue: again"),
        explained("again"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", "sweep.lock")


def test_the_trash_is_emptied_but_for_files_of_another_user(workdir, monkeypatch):
    trash, unlink = workdir / ".dltrain" / "trash" / "outputs", os.unlink
    trash.mkdir(parents=True)
    for name in ("a", "theirs", "z"):
        (trash / name).touch()

    def refuse(path, *, dir_fd=None):
        if os.fspath(path).endswith("theirs"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(ResourceProblem, match=r"theirs cannot be deleted \(Permission denied"):
        shelves.empty(workdir)
    (left,) = (file.name for file in workdir.rglob("*") if file.is_file())
    assert left.startswith(".deleting-") and left.endswith("-theirs")


# Paths ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["a\0b.csv", "a" * 300 + ".csv", "a/" * 3000 + "x.csv"])
@pytest.mark.parametrize("key", ["dataset.path", "output"])
def test_a_path_that_no_system_takes(run, dltrain, key, path):
    config = yaml.safe_load((run / "config.yaml").read_text())
    if key == "output":
        config["output"] = path
    else:
        common = {name: value for name, value in config["dataset"].items() if not name.startswith("_")}
        config["dataset"] = common | {"_target_": "dltrain.data.table.csv", "path": path, "target": "y"}
        config["words"]["dataset"] = "csv"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="each of its parts at most 255, and no NUL") as error:
        dltrain("rerun", run)
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize(
    "word, key", [("csv", "dataset.path"), ("npz", "dataset.path"), ("image_folder", "dataset.root")]
)
def test_a_home_that_does_not_exist(workdir, dltrain, word, key):
    more = ("dataset.target=y",) if word == "csv" else ()
    with pytest.raises(DataProblem, match="~nosuchuser/x"):
        dltrain(f"dataset={word}", f'{key}="~nosuchuser/x.csv"', *more)


@pytest.mark.parametrize("read", [
    lambda file: summary.read_text(file, 10), load_bounded,
    lambda file: read_table(file, ","), lambda file: read_array(file, "inputs"),
])  # fmt: skip
def test_files_of_no_size_are_not_read(tmp_path, monkeypatch, read):
    """As /proc/kmsg, whose reading waits for the next message of the kernel."""
    file = tmp_path / "kmsg"
    file.touch()

    def waits(*_, **__):
        raise AssertionError("it is read")

    monkeypatch.setattr(Path, "read_text", waits)
    monkeypatch.setattr("os.fdopen", waits)
    monkeypatch.setattr("pyarrow.input_stream", waits)
    monkeypatch.setattr("numpy.load", waits)
    with suppress(DataError, CheckpointProblem):
        assert read(file) in ("", {})


def test_images_of_folders_above_are_not_the_data_s(tmp_path):
    """A link of a stranger's to / led through all files of the machine."""
    (tmp_path / "above.png").touch()
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "a.png").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.png").touch()
    (tmp_path / "photos" / "cat" / "up").symlink_to(tmp_path)
    (tmp_path / "photos" / "dog").symlink_to(tmp_path / "elsewhere")
    assert [name for name, _ in Found.below(tmp_path / "photos").images] == ["cat/a.png", "dog/b.png"]


def test_the_archive_lies_beside_the_output_of_a_stranger(run, workdir, monkeypatch):
    """Not beside a folder above it, which the name in his summary.json may claim."""
    home = workdir / "home" / "me"
    home.mkdir(parents=True)
    (workdir / "outputs").rename(home / "outputs")
    theirs = home / run
    says(theirs, name="home/me/outputs/theirs")
    (workdir / "elsewhere").mkdir()
    monkeypatch.chdir(workdir / "elsewhere")
    assert package.archive(theirs) == [home / ".dltrain" / "archive" / run]


# Hard links -----------------------------------------------------------------------------------------------------------


def test_a_lock_that_is_a_file_of_the_user_is_not_written(tmp_path):
    victim, folder = tmp_path / "precious", tmp_path / "run"
    victim.write_text("precious")
    folder.mkdir()
    for name in ("run.lock", "sweep.lock"):
        os.link(victim, folder / name)
    lock = Lock(folder)
    with pytest.raises(FolderInUse):
        Lock(folder)
    lock.release()
    with locked(folder), pytest.raises(FolderInUse), locked(folder):
        pass
    assert victim.read_text() == "precious"


def test_a_log_that_is_a_file_of_the_user_is_not_written(tmp_path):
    from dltrain.run.record import log_of

    victim = tmp_path / "precious"
    victim.write_text("precious")
    os.link(victim, tmp_path / "run.log")
    handler = log_of(tmp_path)
    handler.emit(logging.LogRecord("dltrain", logging.INFO, "", 0, "x", (), None))
    handler.close()
    assert victim.read_text() == "precious"
    assert (tmp_path / "run.log").read_text().startswith("precious[")


def test_records_of_a_job_and_pictures_that_are_files_of_the_user_are_not_written(tmp_path, opened):
    """A resumed sweep writes `.hydra` again, and a resumed run its surface."""
    from dltrain.diagnostics.surface import _write
    from dltrain.sweep.backends.worker import write_hydra_folder

    victim, inside = tmp_path / "precious", tmp_path / "job" / ".hydra"
    victim.write_text("precious")
    inside.mkdir(parents=True)
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
        os.link(victim, inside / name)
    os.link(victim, tmp_path / "loss_line.csv")
    write_hydra_folder(tmp_path / "job", 0, ("lr=0.1",), default(opened[0]))
    _write(tmp_path / "loss_line.csv", ("t", "loss"), [(0.0, 1.0)])
    assert victim.read_text() == "precious"
    assert (inside / "overrides.yaml").read_text() == "- lr=0.1\n"
    assert (tmp_path / "loss_line.csv").read_text() == "t,loss\n0.0,1.0\n"


def test_books_and_studies_that_are_files_of_the_user_are_not_written(tmp_path):
    from dltrain.sweep.books import connected
    from dltrain.sweep.study import Journal

    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
    connected(tmp_path / "mine/books.sqlite").close()
    Journal(tmp_path / "mine/study.log").append_logs([{"op_code": 0}])
    before = [(tmp_path / "mine" / name).read_bytes() for name in ("books.sqlite", "study.log")]
    for name in ("books.sqlite", "study.log"):
        os.link(tmp_path / "mine" / name, tmp_path / "theirs" / name)
    with connected(tmp_path / "theirs/books.sqlite") as books:
        books.execute("INSERT INTO jobs (number) VALUES (7)")
    books.close()
    Journal(tmp_path / "theirs/study.log").append_logs([{"op_code": 1}])
    assert [(tmp_path / "mine" / name).read_bytes() for name in ("books.sqlite", "study.log")] == before
    assert len((tmp_path / "theirs/study.log").read_text().splitlines()) == 2


def test_a_study_that_is_a_file_of_the_user_is_not_cut_and_one_without_lines_is_refused(tmp_path):
    """The half line of a killed driver is dropped: a file without a line end would be emptied."""
    victim, study = tmp_path / "token", tmp_path / "study.log"
    victim.write_text("a token without line end")
    os.link(victim, study)
    check_journal(study, 10)
    assert victim.read_text() == "a token without line end" and study.read_text() == ""
    with open(study, "wb") as stream:
        stream.truncate(10**9)
    tracemalloc.start()
    with pytest.raises(CheckpointProblem, match="line 1: it has more than 1,000,000 bytes"):
        check_journal(study, 10)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@pytest.mark.parametrize("entry", [
    {"op_code": 4, "worker_id": "a", "study_id": 0, "state": 4, "system_attrs": {"fixed_params": {"lr": 50.0}}},
    {"op_code": 6, "worker_id": "a", "trial_id": 0, "state": 4},
    {"op_code": 9, "worker_id": "a", "trial_id": 0, "system_attr": {"fixed_params": {"lr": 50.0}}},
])  # fmt: skip
def test_a_study_that_prescribes_a_trial_is_refused(tmp_path, entry):
    """Its values may lie outside the axes; no sweep writes one."""
    (tmp_path / "study.log").write_text(json.dumps(entry) + "\n")
    with pytest.raises(CheckpointProblem, match="it prescribes a trial, which no sweep does"):
        check_journal(tmp_path / "study.log", 10)


def test_a_study_that_searches_in_another_direction_is_refused(tmp_path):
    """Found by a hostile tester: it went towards the highest loss, while the ranking was by the lowest."""
    from dltrain.sweep import samplers
    from dltrain.sweep.study import Study

    for directions in ([2], [1, 1]):
        entry = {"op_code": 0, "worker_id": "a", "study_name": "sweep", "directions": directions}
        (tmp_path / "study.log").write_text(json.dumps(entry) + "\n")
        with pytest.raises(CheckpointProblem, match="is damaged: it searches in another direction"):
            Study(tmp_path, [], samplers.tpe(0, seed=0), ["minimize"])
    Study(tmp_path, [], samplers.random(0, seed=0), ["minimize", "minimize"])


def test_a_sweep_of_more_jobs_than_are_looked_at_goes_on(workdir, dltrain):
    """Found by a hostile tester: a traceback from 1,001 folders of jobs on."""
    shutil.copytree(swept().path, workdir / "S")
    for name in ("manifest.json", "books.sqlite"):
        (workdir / "S" / name).unlink(missing_ok=True)
    record = workdir / "S/sweep.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"finished": False}))
    for number in range(1001):
        (workdir / f"S/{5000 + number}-x").mkdir()
    assert dltrain("-m", "sweep.resume=S") == 0
    (workdir / "S/other").mkdir()
    (workdir / "S/other/link").symlink_to(workdir)
    record.write_text(json.dumps(json.loads(record.read_text()) | {"finished": False}))
    with pytest.raises(CheckpointProblem, match="S/other/link is a link"):
        dltrain("-m", "sweep.resume=S")


def test_a_log_that_is_a_link_is_not_written(tmp_path):
    """Found by a hostile tester: of a job that the books of a stranger know, nobody looked at the folder."""
    from types import SimpleNamespace

    from dltrain.run.record import log_of
    from dltrain.sweep.winner import test_scores

    victim, log = tmp_path / "victim", tmp_path / "job" / "run.log"
    log.parent.mkdir()
    log.symlink_to(victim)
    for write in (
        files.open_appending,
        lambda file: log_of(file.parent).emit(logging.makeLogRecord({"msg": "x"})),
    ):
        with suppress(CheckpointProblem):
            write(log)
        assert not victim.exists()
    with pytest.raises(CheckpointProblem, match="run.log is a link"):
        test_scores(None, SimpleNamespace(test_scores={}, folder=log.parent))
    log.unlink()
    victim.write_text("precious")
    os.link(victim, log)
    with files.open_appending(log) as stream:
        stream.write(" and more")
    assert (victim.read_text(), log.read_text()) == ("precious", "precious and more")
    for other in (Path("/dev/null"), tmp_path):
        with pytest.raises(CheckpointProblem, match="is no regular file, so it is no log of a run"):
            files.open_appending(other)


def test_an_archive_that_is_a_link_gets_no_cache(workdir, train, dltrain, capsys):
    """Found by a hostile tester: `.runs.sqlite` was written into the folder that it leads to."""
    run = train("steps=1")
    victim = workdir / "victim"
    (workdir / ".dltrain" / "archive").mkdir(parents=True)
    (workdir / "outputs").rename(victim)
    (workdir / "outputs").mkdir()
    (workdir / ".dltrain/archive/outputs").symlink_to(victim)
    before = sorted(victim.rglob("*"))
    assert dltrain("runs", "--archived") == 0
    assert run.path.name[-4:] in capsys.readouterr().out
    assert sorted(victim.rglob("*")) == before


@pytest.mark.parametrize("file", ["/proc/version", "/proc/self/mem"])
def test_weights_that_are_a_file_of_the_kernel_are_refused(train, dltrain, file):
    run = train("steps=1", "model=linear")
    weights = run.path / "checkpoints/best.safetensors"
    weights.unlink()
    weights.symlink_to(file)
    with pytest.raises(CheckpointProblem, match="best.safetensors is damaged"):
        dltrain("evaluate", run.path)


@pytest.mark.parametrize("seed", [[1], {"a": 1}])
def test_a_seed_that_is_no_number_is_compared(train, dltrain, capsys, seed):
    runs = [train("steps=1", "model=linear", f"seed={seed}").path for seed in (0, 1)]
    file = runs[0] / "summary.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seed": seed}))
    assert dltrain("compare", *runs) == 0


# where a file may be opened for writing in place: nobody else's, or unshared before
IN_PLACE = {
    "cli.py": "the process's own streams",
    "commands/init.py": "new files of a new folder",
    "config/build.py": "the catalogue of the package, by its developer",
    "data/cache.py": "a temporary file with a random name",
    "data/download.py": "a temporary file with a random name",
    "loggers/tensorboard.py": "a new file, named by time and process",
    "run/export.py": "a new folder beside the one that it becomes",
    "storage/checkpoint.py": "a new folder beside the one that it becomes",
    "storage/files.py": "`replace` itself, and new files",
    "storage/growing_file.py": "a file that was unshared when it was opened",
    "sweep/backends/worker.py": "the process's own streams",
    "sweep/outcome/files.py": "a new file, whose name was freed before",
}


def test_files_of_a_run_are_replaced_or_unshared_before_they_are_written():
    """A hard link in a stranger's folder is another name of any file of the user: `replace` puts a new file in its place."""
    root = Path(package.__file__).parent
    found = {
        file.relative_to(root).as_posix()
        for file in root.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and writes_in_place(node)
    }
    assert found == IN_PLACE.keys()


def writes_in_place(call: ast.Call) -> bool:
    """Return whether a call opens a file for writing."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("write_text", "write_bytes"):
        return True
    words = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str)]
    return name in ("open", "fdopen") and any(
        set(mode) <= set("rwabx+t") and set(mode) & set("wax+") for mode in modes
    )


def write_bomb(file: Path, kind: str) -> None:
    """Write a small file that unpacks to a gigabyte or more."""
    import zlib

    import pyarrow as pa
    from pyarrow import feather, parquet

    rows = 20_000_000
    if kind == "csv":
        block, packer = b"0,p\n" * 2**20, zlib.compressobj(9, wbits=31)
        content = [packer.compress(b"a,y\n"), *(packer.compress(block) for _ in range(60)), packer.flush()]
        file.write_bytes(b"".join(content))
    elif kind == "texts":
        words = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(200_000, np.int32)), pa.array(["p" * 100_000])
        )
        parquet.write_table(
            pa.table({"a": words.cast(pa.dictionary(pa.int32(), pa.string()))}), file, compression="zstd"
        )
    else:
        table = pa.table({"a": pa.array(np.zeros(rows)), "y": pa.array(np.zeros(rows))})
        write = parquet.write_table if kind == "parquet" else feather.write_feather
        write(table, file, compression="zstd")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("b.parquet", "parquet"), ("t.parquet", "texts"), ("b.feather", "feather"), ("b.csv.gz", "csv")],
)
def test_a_table_that_unpacks_to_fill_the_memory_is_refused(workdir, dltrain, name, kind):
    """Found by a hostile tester: files of 300 kB took 4.7 to 6.4 GB."""
    write_bomb(Path(name), kind)
    assert Path(name).stat().st_size < 2_000_000
    with pytest.raises(UserError, match="unpacks to more than 100 times") as error:
        dltrain("dataset=csv", f"dataset.path={name}", "dataset.target=y", "epochs=1", "name=x")
    assert error.value.exit_code == 3
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    "change", [{"left_out": [[]]}, {"left_out": {"a": []}}, {"skipped": {"a": 1}}, {"sizes": []}]
)
def test_data_json_of_other_types_is_refused(workdir, dltrain, change):
    path = copy_of(swept(), workdir / "sweep").path
    job = job_at(path, 0)
    file = job / "data.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointProblem, match="another type than a run writes"):
        dltrain("evaluate", job)


def test_json_of_many_lists_is_refused_before_it_is_read():
    """96 MB of empty lists took seconds and gigabytes."""
    with pytest.raises(ValueError, match="more than 5,000,000 lists"):
        strict_json.loads("[" + "[]," * 5_000_000 + "[]]")


# Folders of a stranger ------------------------------------------------------------------------------------------------


def nested(folder: Path, depth: int) -> None:
    """Folders that lie in each other; the names of all are longer than a path of the system."""
    here = os.getcwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    for _ in range(depth):
        os.mkdir("deep-down")
        os.chdir("deep-down")
    Path("file").write_text("x")
    os.chdir(here)


def test_the_names_of_files_are_those_of_the_records():
    """A folder in the place of any of them is refused: a name that is added elsewhere must be here, too."""
    records = (*manifest.RECORDS, *manifest.SWEEP_RECORDS, manifest.NAME, summary.TAGS, event_log.EVENTS)
    tensors = (checkpoint.WEIGHTS, checkpoint.AVERAGED, checkpoint.STATE, checkpoint.MANIFEST, STATISTICS)
    names = {Path(name).name for name in (*records, *tensors) if not name.startswith(".hydra")}
    assert names <= folder_names.FILES


def test_folders_that_are_nested_without_end_are_refused(workdir, dltrain, capsys, request):
    """1,500 of them fit into 12 kB of a zip, and Python's own walk ends in a RecursionError."""
    run = copy_of(everything()[0], workdir / "outputs" / "x" / "run").path
    nested(run / "junk", 1500)
    # pytest could not delete them
    request.addfinalizer(lambda: shelves.flatten(workdir))
    for verb in ("resume", "reproduce", "show"):
        with pytest.raises(CheckpointProblem, match="folders that are nested more than 32 deep"):
            dltrain(verb, run)
    with pytest.raises(CheckFailed):
        dltrain("verify", run)
    assert "nested more than 32 deep" in capsys.readouterr().out
    assert dltrain("trash", run) == dltrain("trash", "--empty", "--yes") == 0
    assert not list(workdir.glob(".dltrain/**/*run*")) and not list(workdir.glob("outputs/**/.dltrain*/*"))


def test_a_folder_is_flattened_and_its_links_stay_links(tmp_path):
    nested(tmp_path / "a", 3)
    (tmp_path / "kept").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "kept")
    shelves.flatten(tmp_path / "a")
    folders = [path for path in (tmp_path / "a").iterdir() if path.is_dir() and not path.is_symlink()]
    assert len(folders) == 3 and not any(inner.is_dir() for path in folders for inner in path.iterdir())
    assert [path for path in tmp_path.rglob("file") if path.is_file()]
    assert (tmp_path / "kept").is_dir()


@pytest.mark.parametrize(
    "name", ["manifest.json", "metrics.csv", "summary.json", "checkpoints/best.safetensors"]
)
def test_a_folder_in_the_place_of_a_file_is_refused(workdir, dltrain, name):
    run = copy_of(everything()[0], workdir / "run").path
    (run / name).unlink()
    (run / name).mkdir()
    with pytest.raises(CheckpointProblem, match=f"{name} is a folder, and a run has a file of that name"):
        dltrain("resume", run, "steps=80")


def test_a_hidden_folder_is_no_run(workdir, dltrain):
    """A run that was killed before its config.yaml has one in `.hydra`."""
    (workdir / "run" / ".hydra").mkdir(parents=True)
    (workdir / "run" / ".hydra" / "config.yaml").write_text("{}\n")
    for verb in ("resume", "verify"):
        with pytest.raises(CheckpointProblem, match="run is not a run folder"):
            dltrain(verb, "run")


# Files of a stranger --------------------------------------------------------------------------------------------------


def test_a_quote_that_nothing_closes_is_told(tmp_path):
    """Behind it is one value, of more letters than the csv module takes."""
    rows = "1,2,p\n2,3,q\n" * 50
    for start in ("a,b,y\n", 'a,b,y\n1, "2",p\n'):
        file = tmp_path / "t.csv"
        file.write_text(start + rows + '"' + "x,\n" * 100_000)
        with pytest.raises(DataError, match="t.csv"):
            read_table(file, "auto")


def test_texts_of_newer_types_of_arrow_are_read(tmp_path):
    pa = pytest.importorskip("pyarrow")
    feather = pytest.importorskip("pyarrow.feather")
    table = pa.table({"a": pa.array(["u", "v"] * 9, pa.string_view()), "y": pa.array([1, 2] * 9)})
    feather.write_feather(table, tmp_path / "t.feather")
    found = read_table(tmp_path / "t.feather", "auto")
    assert found.columns["a"].type == pa.string() and found.columns["a"].to_pylist()[:2] == ["u", "v"]


@pytest.mark.parametrize(
    "sizes", [{"a": 1}, {"train": -1, "val": 1, "test": 1}, {"train": "1", "val": 1, "test": 1}], ids=str
)
def test_sizes_that_no_run_wrote_are_refused(workdir, dltrain, sizes):
    run = copy_of(everything()[0], workdir / "run").path
    content = json.loads((run / "data.json").read_text()) | {"sizes": sizes}
    (run / "data.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointProblem, match="data.json cannot be read"):
        dltrain("export", run, "--format", "safetensors")


def test_an_axis_that_no_sweep_wrote_is_refused(workdir, dltrain):
    folder = copy_of(swept(), workdir / "sweep").path
    text = (folder / "sweep.json").read_text()
    (axis,) = json.loads(text)["identity"]["axes"]
    options = axis["options"]
    wrong = (
        {"options": [[True, ["lr=1"]], options[1]]}, {"options": [True]}, {"options": [["a", "lr=1"]]}, {"low": "0"},
        {"other": 1}, {"log": 1}, {"when": []}, {"when": {"a": "b"}}, {"name": 3},
    )  # fmt: skip
    for change in wrong:
        content = json.loads(text)
        content["identity"]["axes"] = [axis | change]
        (folder / "sweep.json").write_text(json.dumps(content))
        for arguments in (("report", folder), ("-m", f"sweep.resume={folder}")):
            with pytest.raises(CheckpointProblem, match="sweep.json is no record of a sweep"):
                dltrain(*arguments)
