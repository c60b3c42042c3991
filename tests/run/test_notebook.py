"""Progress in a notebook: one output that is replaced."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from dltrain.screen import notebook, output


class Shown:
    """What a notebook would show: the newest content of each output, and how often it was sent."""

    def __init__(self) -> None:
        self.contents: list[dict[str, str]] = []
        self.sent = 0

    def display(self, content: dict[str, str], raw: bool, display_id: bool) -> Any:
        place = len(self.contents)
        self.contents.append(content)
        self.sent += 1

        def update(content: dict[str, str], raw: bool) -> None:
            self.contents[place] = content
            self.sent += 1

        return types.SimpleNamespace(update=update)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """A kernel's display, and an output stream of its kind."""
    found = Shown()
    module = types.ModuleType("IPython.display")
    module.display = found.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(output, "in_notebook", lambda stream: True)
    return found


def test_hundreds_of_epochs_are_one_short_output(workdir, shown, capsys):
    from dltrain.cli import dispatch

    assert dispatch(["model=linear", "epochs=60", "early_stopping=none"]) == 0
    (content,) = shown.contents
    lines = content["text/plain"].splitlines()
    rows = [line for line in lines if re.match(r"[★ ] +\d+ +\d", line)]
    assert 8 <= len(rows) <= 20
    assert rows[-1].split()[1 if "★" in rows[-1] else 0] == "60"
    assert "✓ completed: all 1260 steps done" in lines
    assert lines[-1].strip().startswith("curves")
    assert max(map(len, lines)) <= 100
    assert "epoch 60/60" not in content["text/plain"]  # the live line is gone
    assert '<span style="color:#2e8b57">★ </span>' in content["text/html"]
    assert capsys.readouterr().out == ""


def test_drawings_wait_for_one_another(shown, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(notebook, "perf_counter", lambda: now[0])
    screen = notebook.NotebookScreen()
    for i in range(1000):
        now[0] += 0.001
        screen.print([(f"line {i}", "")])
    assert 9 <= shown.sent <= 11
    screen.close()
    screen.print([("<end>", "bold red")])
    assert shown.contents[0]["text/plain"].splitlines()[-2:] == ["line 999", "<end>"]
    assert shown.contents[0]["text/html"].endswith(
        '<span style="color:#c0392b;font-weight:bold">&lt;end&gt;</span></pre>'
    )


EXECUTE = """
import json, sys, nbclient, nbformat
cells = json.loads(sys.stdin.read())
book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
nbclient.NotebookClient(book, kernel_name="ours", timeout=300, allow_errors=True).execute()
print(json.dumps([cell.outputs for cell in book.cells]))
"""
CELLS = [
    "import dltrain\nrun = dltrain.train('model=linear', epochs=40, early_stopping='none')",
    "run",
    "dltrain.compare([run, run])",
    "dltrain.train(optimizer='adm')",
    "swept = dltrain.sweep('model=linear', lr=[0.1, 0.01], epochs=1, quiet=True)\nswept",
    "import asyncio\nasync def work(): return dltrain.train(quiet=True, epochs=1).summary.status\nawait work()",
]


@pytest.mark.slow
def test_an_executed_notebook(workdir):
    """A real kernel: 20 seconds."""
    for package in ("nbclient", "ipykernel"):
        pytest.importorskip(package, reason="nbclient and ipykernel are in the dev extra")
    kernel = Path("jupyter/kernels/ours")
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(
        json.dumps({"argv": command, "display_name": "ours", "language": "python"})
    )
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE],
        input=json.dumps(CELLS),
        env=os.environ | {"JUPYTER_PATH": str(Path("jupyter").absolute())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    trained, run, compared, refused, swept, awaited = json.loads(done.stdout.splitlines()[-1])
    (output,) = trained
    assert output["output_type"] == "display_data"
    text = output["data"]["text/plain"]
    assert "✓ completed: all 840 steps done" in text
    assert len(text.splitlines()) < 45
    assert "completed, val/loss" in run[0]["data"]["text/plain"]
    assert "<table>" in compared[0]["data"]["text/html"]
    assert refused[0]["ename"] == "UserError"
    assert "Did you mean `adam`?" in refused[0]["evalue"]
    assert len(refused[0]["traceback"]) <= 6
    (table,) = swept
    assert "2 runs, 0 failed" in table["data"]["text/plain"]
    assert awaited[0]["data"]["text/plain"] == "'completed'"
