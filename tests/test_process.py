"""What a run must not import, and how quickly the light commands answer; real processes."""

from __future__ import annotations

import subprocess
import sys
import time

HEAVY = ("torch._dynamo", "torchvision", "sklearn", "matplotlib", "scipy", "pandas", "tensorflow")

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


def test_help_and_refusals_import_no_torch(workdir):
    assert run_and_list(workdir, ["--help"], ("torch", "hydra", "numpy")) == (0, [])
    assert run_and_list(workdir, ["optimizer=adma"], ("torch", "numpy")) == (2, [])
    assert run_and_list(workdir, ["lr=nan"], ("torch", "numpy")) == (2, [])
    assert run_and_list(workdir, ["-m", "lr=0.1,nan"], ("torch", "numpy")) == (2, [])


def test_help_is_no_slower_than_stock_hydra(workdir):
    """At most 0.6 s, or 0.8 of a trivial Hydra app's own help; the best of three, in turn."""
    (workdir / "stock.py").write_text(STOCK)
    contenders = {
        "stock": [sys.executable, "stock.py", "--help"],
        "ours": [sys.executable, "-m", "dltrain", "--help"],
        "refusal": [sys.executable, "-m", "dltrain", "lr=-1"],
    }
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(3):
        for name, command in contenders.items():
            begun = time.perf_counter()
            subprocess.run(command, cwd=workdir, capture_output=True, check=False)
            best[name] = min(best[name], time.perf_counter() - begun)
    assert best["ours"] <= max(0.6, 0.8 * best["stock"])
    assert best["refusal"] <= max(0.6, 0.8 * best["stock"])
