"""What a run and the light commands must not import; real processes."""

from __future__ import annotations

import subprocess
import sys

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


def test_a_run_needs_nothing_that_only_posix_has(workdir):
    """`filelock` chooses fcntl or msvcrt; all else of POSIX is hidden."""
    code = (
        "import os, sys, filelock\n"
        "for name in ('fcntl', 'resource', 'termios', 'pty', 'pwd', 'grp'):\n    sys.modules[name] = None\n"
        "for name in ('fork', 'statvfs', 'sysconf', 'setsid', 'killpg', 'getuid'):\n    delattr(os, name)\n"
        "from dltrain.cli import main\nmain(['epochs=1', 'quiet=true'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=workdir, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list(workdir.glob("outputs/*/*/summary.json"))) == 1


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
