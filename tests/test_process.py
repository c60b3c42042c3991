"""What a run and the light commands must not import; real processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import Run, job_at

from dltrain.cli import dispatch

HEAVY = (
    "torch._dynamo",
    "torchvision",
    "sklearn",
    "matplotlib",
    "scipy",
    "pandas",
    "tensorflow",
    "sympy",
    "fsspec",
)

STOCK = """
import hydra
@hydra.main(version_base="1.3", config_path=None)
def main(cfg): pass
main()
"""


def run_and_list(workdir, arguments, modules):
    """Run a command in a process of its own; which of the modules it imported, and its exit code."""
    code = (
        "import sys\nfrom dltrain.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    code = end.code\n"
        f"print('IMPORTED', code, *[m for m in {modules!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=workdir, capture_output=True, text=True, check=False
    )
    last = done.stdout.strip().splitlines()[-1].split()
    assert last[0] == "IMPORTED", done.stdout + done.stderr
    return int(last[1]), last[2:]


def test_default_run_imports_nothing_heavy(workdir):
    assert run_and_list(workdir, [], HEAVY) == (0, [])


# In every process that Python starts, as on Windows; `filelock` has chosen between fcntl and msvcrt before.
WITHOUT_POSIX = """
import os, signal, sys
import filelock
for name in ("fcntl", "resource", "termios", "pty", "pwd", "grp"):
    sys.modules[name] = None
for name in ("fork", "statvfs", "sysconf", "setsid", "killpg", "getuid", "sched_getaffinity"):
    delattr(os, name)
del signal.SIGHUP, signal.SIGUSR1
"""


@pytest.fixture
def without_posix(workdir, tmp_path_factory):
    """Run `dltrain` in processes that lack what only POSIX has."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(WITHOUT_POSIX)
    env = os.environ | {"PYTHONPATH": str(folder)}

    def run(*arguments):
        command = [sys.executable, "-m", "dltrain", *map(str, arguments)]
        done = subprocess.run(command, cwd=workdir, capture_output=True, text=True, check=False, env=env)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


@pytest.mark.ci
def test_a_run_needs_nothing_that_only_posix_has(workdir, without_posix):
    without_posix("epochs=1", "quiet=true")
    assert len(list(workdir.glob("outputs/*/*/summary.json"))) == 1


@pytest.mark.ci
def test_a_sweep_and_a_resume_need_nothing_that_only_posix_has(workdir, without_posix):
    """The results are those of this process, which has all of POSIX."""
    without_posix("-m", "lr=0.01,0.001", "epochs=2", "model=linear", "sweep.jobs=2", "evaluation.test=true")
    (folder,) = (file.parent for file in workdir.glob("outputs/*/*/sweep.json"))
    for job, lr in enumerate(("0.01", "0.001")):
        dispatch([f"lr={lr}", "epochs=2", "model=linear", "quiet=true", f"output=alone{job}"])
        (alone,) = workdir.glob(f"alone{job}/*/*")
        assert Run(job_at(folder, job)).timeless_rows == Run(alone).timeless_rows
        # of a sweep, the test split is scored for the winner only
        assert Run(job_at(folder, job)).summary["test"] == (Run(alone).summary["test"] if job == 0 else {})
    without_posix("resume", job_at(folder, 0), "epochs=3")
    dispatch(["lr=0.01", "epochs=3", "model=linear", "quiet=true", "output=whole"])
    (whole,) = workdir.glob("whole/*/*")
    assert Run(job_at(folder, 0)).timeless_rows == Run(whole).timeless_rows
    without_posix("-m", "lr=0.1,0.2", "epochs=1", "batch_size=auto", "quiet=true", "sweep.backend=local")


def test_help_and_refusals_import_no_torch(workdir):
    assert run_and_list(workdir, ["--help"], ("torch", "hydra", "numpy")) == (0, [])
    assert run_and_list(workdir, ["optimizer=adma"], ("torch", "numpy")) == (2, [])
    assert run_and_list(workdir, ["lr=nan"], ("torch", "numpy")) == (2, [])
    assert run_and_list(workdir, ["-m", "lr=0.1,nan"], ("torch", "numpy")) == (2, [])


def test_help_and_refusals_import_less_than_stock_hydra(workdir):
    """Modules are counted, not seconds: importing them is what a light command costs, on a busy machine too."""
    (workdir / "stock.py").write_text(STOCK)
    count = "import sys, runpy, atexit\natexit.register(lambda: print('MODULES', len(sys.modules)))\n"
    stock = count + "sys.argv = ['stock.py', '--help']\nrunpy.run_path('stock.py', run_name='__main__')"
    ours = count + "from dltrain.cli import main\nmain({!r})"
    assert modules_of(ours.format(["--help"]), workdir) < 0.5 * modules_of(stock, workdir)
    assert modules_of(ours.format(["lr=-1"]), workdir) < 1.2 * modules_of(stock, workdir)


def modules_of(code, workdir):
    """How many modules a program has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=workdir, capture_output=True, text=True, check=False
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("MODULES")]
    return int(line.split()[1])
