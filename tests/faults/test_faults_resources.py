"""Rows 8, 9, 11, 22 to 26, 43 and 44: disk, memory, workers, pipes and the net.

They start many processes, and run with the marker `slow`; `.ci/run` runs them each time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from faults import EVERYTHING, at_step, checkpoints, equal, everything, flip_byte, only_run

from dltrain.data.errors import DataError
from dltrain.data.streaming import WorkerPool
from dltrain.errors import FolderInUse, ResourceProblem, UserError
from dltrain.loggers.tensorboard import EventFile
from dltrain.storage import checkpoint
from dltrain.storage.run_folder import RunFolder

pytestmark = pytest.mark.slow
USUAL = ("steps=60", "checkpoint.every_steps=10", "early_stopping=none", "quiet=true", "name=bad")


def program(code, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300, **options
    )


# 8, 9: a full disk ------------------------------------------------------------------------------------------------


def test_08_disk_full_in_a_checkpoint(workdir):
    """RLIMIT_FSIZE: the system itself refuses to write more than 60 kB into one file from step 35 on."""
    code = (
        "import resource, dltrain.training.trainer as t\n"
        "original = t.Trainer.observe\n"
        "def observe(self):\n"
        "    if self.step == 35: self.folder.wait(), resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "    original(self)\n"
        "t.Trainer.observe = observe\n"
        "from dltrain.cli import main\nmain()\n"
    )
    done = program(code, *USUAL)
    assert done.returncode == 6
    assert "A checkpoint could not be written to" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    newest = checkpoint.newest(only_run(workdir, "bad").path / "checkpoints")
    assert newest.manifest["step"] == 30
    assert only_run(workdir, "bad").summary["status"] == "failed"


def full_disk(patch):
    real = shutil.disk_usage
    full = SimpleNamespace(free=5000)
    patch.setattr(shutil, "disk_usage", lambda path: full if "bad" in str(path) else real(path))


def test_08_space_is_looked_at_before_and_the_message_names_path_and_bytes(dltrain, workdir, monkeypatch):
    full_disk(monkeypatch)
    with pytest.raises(
        ResourceProblem,
        match=r"outputs/bad/.*checkpoints \(No space left on device: \d{5,} bytes needed, 5000 free",
    ):
        dltrain(*USUAL)
    assert checkpoints(only_run(workdir, "bad")) == []


@pytest.mark.parametrize("background", ["true", "false"])
def test_08_by_policy_the_run_continues_and_ends_as_degraded(dltrain, workdir, monkeypatch, background):
    full_disk(monkeypatch)
    with pytest.raises(ResourceProblem, match="The run is done, but not all of its records") as ended:
        dltrain(*USUAL, "checkpoint.unsaved=continue", f"checkpoint.background={background}")
    assert ended.value.exit_code == 6
    run = only_run(workdir, "bad")
    assert run.summary["status"] == "degraded"
    assert "bytes needed" in run.summary["problems"][0]
    assert run.summary["test"]["accuracy"] > 0.5
    assert run.best_weights


def test_09_full_disk_in_metrics_keeps_the_rows_until_there_is_room(dltrain, workdir):
    import builtins

    original, refused = builtins.open, []

    class HalfWritten:
        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.stream.close()

        def write(self, text):
            self.stream.write(text[:9])
            self.stream.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opening(file, mode="r", *rest, **options):
        stream = original(file, mode, *rest, **options)
        if str(file).endswith("metrics.csv") and mode == "a" and len(refused) < 2:
            refused.append(file)
            return HalfWritten(stream)
        return stream

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", opening)
        with pytest.raises(
            ResourceProblem, match=r"metrics.csv could not be written \(No space left on device\)"
        ) as ended:
            dltrain(*USUAL)
    run = only_run(workdir, "bad")
    assert ended.value.exit_code == 6
    assert run.summary["status"] == "degraded"
    assert [row["step"] for row in run.rows] == [21, 42, 60]
    assert run.summary["test"]["accuracy"] > 0.5


def test_09_full_disk_in_tensorboard_is_told_and_loses_nothing_else(dltrain, workdir, monkeypatch):
    def write(self, step, values):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(EventFile, "write", write)
    with pytest.raises(ResourceProblem, match="TensorBoard could not be written"):
        dltrain(*USUAL)
    run = only_run(workdir, "bad")
    assert run.summary["status"] == "degraded"
    assert len(run.rows) == 3


def test_09_full_disk_in_the_log_is_told_without_a_traceback(workdir):
    code = (
        "import logging\n"
        "def emit(self, record): self.handleError(record)\n"
        "logging.FileHandler.emit = emit\n"
        "from dltrain.cli import main\nmain()\n"
    )
    done = program(code, *USUAL)
    assert done.returncode == 6
    assert "run.log could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert only_run(workdir, "bad").summary["status"] == "degraded"


@pytest.mark.parametrize("background", ["true", "false"])
def test_08_disk_that_does_not_keep_what_was_written_is_found_at_once(
    dltrain, workdir, monkeypatch, background
):
    original = checkpoint.write_hashed

    def spoiled(file, fill):
        digest = original(file, fill)
        if "step-00000030" in str(file):
            flip_byte(file)
        return digest

    monkeypatch.setattr(checkpoint, "write_hashed", spoiled)
    with pytest.raises(ResourceProblem, match=r"could not be written to .*step-00000030 \(.* is damaged"):
        dltrain(*USUAL, f"checkpoint.background={background}")
    newest = checkpoint.newest(only_run(workdir, "bad").path / "checkpoints")
    assert newest.manifest["step"] < 30


# 11: the folder ---------------------------------------------------------------------------------------------------


def test_11_output_that_cannot_be_written_is_refused_before_anything(dltrain, monkeypatch):
    at_step(monkeypatch, 1, lambda trainer: pytest.fail("a step was trained"))
    with pytest.raises(
        ResourceProblem, match="`output` is /proc/none, where no folder can be made"
    ) as refused:
        dltrain("output=/proc/none", "name=x")
    assert refused.value.exit_code == 6
    Path("file").write_text("")
    with pytest.raises(UserError, match="`output` is file/x, where no folder can be made") as refused:
        dltrain("output=file/x", "name=x")
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("background", ["true", "false"])
def test_11_folder_that_vanishes_ends_the_run_and_is_not_made_again(
    dltrain, workdir, monkeypatch, background
):
    def move(trainer):
        trainer.folder.path.rename(workdir / "moved")

    at_step(monkeypatch, 25, move)
    with pytest.raises(ResourceProblem, match="is missing: it was moved or deleted during the run") as ended:
        dltrain(*USUAL, f"checkpoint.background={background}")
    assert ended.value.exit_code == 6
    assert not list(workdir.glob("outputs/bad/*"))
    assert dltrain("resume", workdir / "moved", "quiet=true") == 0


@pytest.mark.parametrize("background", ["true", "false"])
@pytest.mark.parametrize("how", ["its lock is removed", "a copy is in its place"])
def test_17_a_run_that_no_longer_holds_its_folder_writes_nothing_more(
    dltrain, workdir, monkeypatch, how, background
):
    """As after a laptop's sleep: the folder was copied back, or the lock removed, and another process took over and ended."""
    left = []

    def taken_over(trainer):
        path = trainer.folder.path
        trainer.folder.finish_saving()
        if how == "its lock is removed":
            (path / "run.lock").unlink()
        else:
            path.rename(workdir / "moved")
            shutil.copytree(workdir / "moved", path)
            (path / "run.lock").unlink()
        left.append({file: file.read_bytes() for file in path.resolve().rglob("*") if file.is_file()})

    with monkeypatch.context() as patch:
        at_step(patch, 25, taken_over)
        with pytest.raises(FolderInUse, match=r"run.lock was removed or replaced during the run") as ended:
            dltrain(*USUAL, f"checkpoint.background={background}")
    assert ended.value.exit_code == 9
    (run,) = (workdir / "outputs" / "bad").resolve().iterdir()
    now = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    (before,) = left
    changed = {file.name for file in {*now, *before} if now.get(file) != before.get(file)}
    assert changed <= {"run.log"}
    assert dltrain("resume", run, "quiet=true") == 0
    assert dltrain("verify", run) == 0


# 22, 23: memory ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
    ],
    ids=["MemoryError", "CUDA", "CPU"],
)
def test_22_23_memory_ends_with_advice_and_the_run_can_go_on(dltrain, workdir, error):
    calls = []

    def run_out(trainer):
        calls.append(1)
        raise error

    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 35, run_out)
        with pytest.raises(
            ResourceProblem, match=r"not enough for batch_size=64. Try batch_size=32, or accumulate=2"
        ) as ended:
            dltrain(*USUAL)
    assert ended.value.exit_code == 6
    assert calls == [1], "it is not tried again"
    run = only_run(workdir, "bad")
    assert run.summary["status"] == "failed"
    assert dltrain("resume", run.path) == 0


def test_22_memory_that_really_runs_out(workdir):
    """RLIMIT_AS: the allocator itself refuses."""
    code = (
        "import resource, torch, dltrain.training.trainer as t\n"
        "original = t.Trainer.observe\n"
        "def observe(self):\n"
        "    if self.step == 5: torch.empty(1 << 44)\n"
        "    original(self)\n"
        "t.Trainer.observe = observe\n"
        "from dltrain.cli import main\nmain()\n"
    )
    done = program(code, *USUAL)
    assert done.returncode == 6
    assert "Try batch_size=32" in done.stderr


def test_22_killed_by_the_system_can_be_resumed(workdir):
    code = (
        "import os, signal, dltrain.training.trainer as t\n"
        "original = t.Trainer.observe\n"
        "def observe(self):\n"
        "    if self.step == 47: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    original(self)\n"
        "t.Trainer.observe = observe\n"
        "from dltrain.cli import main\nmain()\n"
    )
    assert program(code, *EVERYTHING, "name=cut").returncode == -signal.SIGKILL
    run = only_run(workdir, "cut")
    assert run.summary["status"] == "running"
    resumed = program("from dltrain.cli import main; main()", "resume", str(run.path))
    assert resumed.returncode == 0, resumed.stderr
    equal(run, everything()[0])


# 24 to 26: readers of the data ------------------------------------------------------------------------------------


class Reader:
    """Reads zeros, until the position at which it fails in its way."""

    def __init__(self, how):
        self.how = how

    def __len__(self):
        return 100

    def read(self, indices):
        if 50 in indices:
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "hangs":
                time.sleep(600)
            if self.how == "bad sample":
                raise DataError("photos/cat/50.png cannot be read (sample 50)")
        return torch.zeros(len(indices), 1, dtype=torch.uint8)


@pytest.mark.parametrize(
    "how, says",
    [
        ("killed", r"a worker process that reads the data is gone: .*try workers=0"),
        pytest.param(
            "hangs",
            r"gave nothing for 4 s: one of them hangs; try workers=0 .* worker_timeout",
            marks=pytest.mark.slow,
        ),
        ("bad sample", r"photos/cat/50.png cannot be read \(sample 50\)"),
    ],
)
def test_24_25_26_worker_that_fails_is_told_and_nothing_hangs(how, says):
    pool = WorkerPool(Reader(how), workers=1, pin=False, timeout=4.0)
    with pytest.raises(DataError, match=says):
        list(pool.read(list(torch.arange(100).split(10))))


# 43, 44 -----------------------------------------------------------------------------------------------------------


def test_43_reader_of_the_output_goes_away(workdir):
    command = f"{sys.executable} -m dltrain steps=60 early_stopping=none name=bad | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""
    assert only_run(workdir, "bad").summary["status"] == "completed"


def test_43_full_pipe_waits_for_its_reader_and_nothing_is_lost(workdir):
    command = [
        sys.executable,
        "-m",
        "dltrain",
        "epochs=10",
        "evaluation.every_steps=2",
        "early_stopping=none",
        "name=bad",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    deadline, unread = time.monotonic() + 30, bytearray(4)
    while int.from_bytes(unread, sys.byteorder) < 3500 and time.monotonic() < deadline:
        time.sleep(0.05)
        fcntl.ioctl(process.stdout, termios.FIONREAD, unread)
    time.sleep(0.5)
    assert process.poll() is None  # it prints more than the pipe holds
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, b"")
    assert b"completed" in out
    run = only_run(workdir, "bad")
    assert run.summary["status"] == "completed"
    assert len(run.rows) == 105


def test_43_output_that_cannot_be_written_does_not_stop_the_training(workdir):
    """stdout is a full disk: what is printed is lost, and nothing else."""
    command = f"{sys.executable} -m dltrain steps=60 early_stopping=none name=bad > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr
    assert only_run(workdir, "bad").summary["status"] in ("completed", "degraded")
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m dltrain --help > /dev/full"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (
        6,
        "dltrain: the output cannot be written: No space left on device\n",
    )


def test_an_error_of_our_own_has_the_exit_code_1_and_its_traceback(workdir):
    done = program("import dltrain.cli as c; c.dispatch = lambda a: 1 / 0; c.main([])")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_44_default_run_opens_no_network_socket_and_writes_nothing_outside(workdir):
    code = (
        "import os, socket, sys\n"
        "def hook(event, args):\n"
        "    if event.startswith('socket.') and event not in ('socket.gethostname',):\n"
        "        if event != 'socket.__new__' or args[1] in (socket.AF_INET, socket.AF_INET6):\n"
        "            print('NET', event, args, file=sys.stderr)\n"
        "    if event == 'open' and isinstance(args[0], (str, bytes)) and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR):\n"
        "        path = os.path.realpath(os.fsdecode(args[0]))\n"
        "        if not path.startswith((os.getcwd() + '/outputs/', '/dev/', '/proc/')) and '__pycache__' not in path:\n"
        "            print('WRITE', path, file=sys.stderr)\n"
        "sys.addaudithook(hook)\n"
        "from dltrain.cli import main\nmain()\n"
    )
    done = program(code, "epochs=2", "name=bad")
    assert done.returncode == 0
    assert done.stderr == ""
    assert sorted(p.name for p in workdir.iterdir()) == ["outputs"]


def test_background_save_copies_before_the_loop_goes_on(tmp_path):
    """What is written is the state of the moment of the call, whatever training changes meanwhile."""
    folder = RunFolder(tmp_path, keep=2, facts={}, background=True)
    weights = {"w": torch.zeros(1000)}
    folder.save_checkpoint(1, {"best_row": {}, "m": [weights["w"]]}, weights, None)
    weights["w"].fill_(1.0)
    folder.wait()
    saved = checkpoint.newest(tmp_path / "checkpoints")
    assert saved.weights()["w"].sum() == 0
    assert saved.state()["m"][0].sum() == 0
    folder.close()


# Streams and permissions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("runs >&-", 0),
        ("runs >&- 2>&-", 0),
        ("wrong_verb 2>/dev/full", 2),
        ("wrong_verb 2>&-", 2),
        ("lr=nan <&-", 2),
    ],
)
def test_closed_and_full_streams_keep_the_exit_code(workdir, line, code):
    """Found by a hostile tester: a closed standard output was a traceback, and a full standard error gave 1."""
    done = subprocess.run(
        f"exec {sys.executable} -m dltrain {line}", shell=True, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_summary_that_may_not_be_read_is_no_unfinished_run(workdir, dltrain, monkeypatch):
    from dltrain.storage import summary

    path = everything()[0].path

    def refused(file, most):
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    monkeypatch.setattr(summary, "read_text", refused)
    with pytest.raises(PermissionError):
        summary.read_summary(path)


def test_a_working_folder_that_reads_as_a_link_is_named(workdir, dltrain, monkeypatch):
    (workdir / "${x}").mkdir()
    monkeypatch.chdir(workdir / "${x}")
    with pytest.raises(UserError, match="The working folder is .* Rename the folder"):
        dltrain("epochs=1")


def test_best_weights_below_a_path_that_is_no_utf_8_are_read(tmp_path):
    from safetensors.torch import save

    from dltrain.storage.tensors import load_tensors

    file = tmp_path / os.fsdecode(b"a\xff") / "best.safetensors"
    file.parent.mkdir()
    file.write_bytes(save({"a": torch.arange(3.0)}))
    assert load_tensors(file)["a"].tolist() == [0, 1, 2]
