import io
import math
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_events import cut_short, fit, result, rows, run_info

from dltrain.loggers.events import Progress
from dltrain.loggers.terminal import Table, Terminal, logdir
from dltrain.screen.numbers import clock, minutes, number, rate
from dltrain.screen.output import SafeStream

HEADER = """\
digits-mlp
  data     digits · 1,294 train · 143 val · 360 test · 1×8×8 inputs → 3 classes
  model    mlp · 52,650 parameters
  training adam · lr 0.001 · schedule cosine · batch 64 · at most 30 epochs of 10 steps
  goal     val/loss, lower is better · early stopping patience
  machine  cpu · fp32 · 2 threads · seed 0
  folder   outputs/digits-mlp/2026-01-31_12-00-00-ab12
"""
FIRST = (
    "epoch 1/30  step 10  train/loss 1.0000  train/accuracy 0.5000  val/loss 0.7333  val/accuracy 0.5200"
    "  lr 0.001  time 0.03 s  best\n"
)
RESULT = """
✓ early stopped: val/loss has not improved for 10 evaluations
  best     epoch 20 · val/loss 0.1000 · val/accuracy 0.9000
  test     loss 0.1100 · accuracy 0.8900
  time     2.31 s · 30 epochs · 300 steps · 42.1k samples/s · 318.0 MiB
  folder   outputs/digits-mlp/2026-01-31_12-00-00-ab12
  curves   tensorboard --logdir outputs
"""


class Screen(io.StringIO):
    """A terminal that remembers everything written to it."""

    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """The lines that stay on the screen when the run is over: control sequences applied."""
        kept: list[str] = [""]
        row = column = 0
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.getvalue()):
            if part == "\n":
                row, column = row + 1, 0
                kept += [""] * (row + 1 - len(kept))
            elif part == "\r":
                column = 0
            elif part.startswith("\x1b"):
                if part.endswith("A"):
                    row -= int(part[2:-1] or 1)
                elif part.endswith("K"):
                    kept[row] = ""
            else:
                kept[row] = kept[row][:column].ljust(column) + part + kept[row][column + len(part) :]
                column += len(part)
        return [line.rstrip() for line in kept]


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("COLUMNS", "100"), ("LINES", "40"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def _with_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard has written into the folder of `run_info()`."""
    monkeypatch.chdir(tmp_path)
    run_info().folder.mkdir(parents=True)
    (run_info().folder / "events.out.tfevents.1").touch()


def test_no_curves_are_shown_where_tensorboard_wrote_none() -> None:
    (run_info().folder / "events.out.tfevents.1").unlink()
    assert plain_output().endswith("".join(RESULT.splitlines(keepends=True)[:-1]))


def plain_output(**changes: Any) -> str:
    stream = io.StringIO()
    fit(Terminal(quiet=False, stream=stream), run_info(**changes), result())
    return stream.getvalue()


def test_plain_output_is_header_one_line_an_evaluation_and_result() -> None:
    text = plain_output()
    assert text.startswith(HEADER + FIRST)
    assert text.endswith(RESULT)
    assert len(re.findall(r"^epoch ", text, re.MULTILINE)) == 30
    assert len(re.findall(r"  best$", text, re.MULTILINE)) == 20  # falls until epoch 20
    assert "\x1b" not in text and "\r" not in text


def test_plain_output_of_a_run_without_test_split_and_accuracy() -> None:
    stream = io.StringIO()
    terminal = Terminal(quiet=False, stream=stream)
    terminal.run_started(run_info(task="regression", sizes={"train": 5}))
    terminal.evaluated({"epoch": 0.5, "step": 3, "train/loss": 1e-7, "val/loss": math.nan})
    terminal.run_ended(result(test={}, status="failed", stop_reason="the loss is not finite", best={}))
    assert "epoch 0.5/30  step 3  train/loss 1.00e-07  val/loss nan\n" in stream.getvalue()
    assert "✗ failed: the loss is not finite" in stream.getvalue()
    assert "  test " not in stream.getvalue() and "  best " not in stream.getvalue()


def test_quiet_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    fit(Terminal(quiet=True), run_info(), result())
    fit(Terminal(quiet=True), run_info(), ValueError("x"))
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("wide")
def test_terminal_keeps_a_table_that_fits_on_a_screen_and_holds_the_best() -> None:
    screen = Screen()
    fit(Terminal(quiet=False, stream=screen), run_info(max_epochs=30), result())
    lines = screen.lines()
    table = [line for line in lines if re.match(r"[★ ] +\d+ +[\d.]+ ", line)]
    assert len(lines) <= 36 and len(table) <= 14
    starred = [line.split()[1] for line in table if line.startswith("★")]
    assert starred[-1] == "20"  # the best of all is marked, and is the last mark
    assert table[-1].split()[0] == "30"  # the newest is there
    assert "  curves   tensorboard --logdir outputs" in lines
    assert not any("epoch 30/30" in line for line in lines)  # the live line is gone


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("epochs, most", [(5, 5), (12, 12), (100, 20), (1000, 30)])
def test_long_runs_do_not_fill_the_screen(epochs: int, most: int) -> None:
    screen = Screen()
    fit(Terminal(quiet=False, stream=screen), run_info(max_epochs=epochs), result())
    table = [line for line in screen.lines() if re.match(r"[★ ] +\d+ +[\d.]+ ", line)]
    assert min(epochs, 8) <= len(table) <= most
    assert len(table) == epochs or epochs > 12


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    screen = Screen()
    terminal = Terminal(quiet=False, stream=screen)
    fit(terminal, run_info(folder=Path("outputs/d/1"), name="d"), result(stop_reason=""))
    terminal.run_started(run_info(folder=Path("outputs/d/1"), name="d"))
    terminal.draw()
    assert max(map(len, screen.lines())) <= width
    assert any("val" in line for line in screen.lines())


@pytest.mark.usefixtures("wide")
def test_live_line_shows_where_how_fast_and_how_long() -> None:
    screen = Screen()
    terminal = Terminal(quiet=False, stream=screen)
    terminal.run_started(run_info())
    terminal.meter.start -= 60
    terminal.meter.last -= 60
    terminal.due = 0
    terminal.stepped(Progress(8, 75, 300, 5e-4, 64, {"loss": 0.25}, "train"))
    live = screen.lines()[-1]
    terminal.run_ended(cut_short("KeyboardInterrupt"))
    assert re.search(r"epoch 8/30 ━+─+  25%  3:00 left  loss 0.2500  80/s  lr 0.0005", live)


@pytest.mark.usefixtures("wide")
def test_interrupt_keeps_the_newest_evaluation_and_says_where() -> None:
    screen = Screen()
    fit(Terminal(quiet=False, stream=screen), run_info(max_epochs=18), KeyboardInterrupt())
    lines = screen.lines()
    assert any(re.match(r"★ +18 ", line) for line in lines)
    assert any(line.startswith("✗ KeyboardInterrupt at epoch ") for line in lines)
    assert screen.getvalue().count("\x1b[?25l") == screen.getvalue().count("\x1b[?25h")  # the cursor is back


@pytest.mark.usefixtures("wide")
def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Screen()
    fit(Terminal(quiet=False, stream=screen), run_info(), result())
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", screen.getvalue())


@pytest.mark.usefixtures("wide")
def test_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen = Screen()
    fit(Terminal(quiet=False, stream=screen), run_info(), result())
    assert screen.getvalue() == plain_output()


@pytest.mark.usefixtures("wide")
def test_the_live_line_is_drawn_by_time_and_not_by_step() -> None:
    terminal = Terminal(quiet=False, stream=Screen())
    draws = 0
    real = terminal.draw

    def counted() -> None:
        nonlocal draws
        draws += 1
        real()

    terminal.draw = counted  # type: ignore[method-assign]
    start = time.perf_counter()
    fit(terminal, run_info(max_epochs=200), result())
    assert draws <= 2 + 8 * (time.perf_counter() - start)


@pytest.mark.parametrize("quiet", [True, False])
def test_a_step_costs_less_than_two_microseconds(quiet: bool) -> None:
    terminal = Terminal(quiet, stream=io.StringIO())
    terminal.run_started(run_info())
    progress = Progress(1, 1, 300, 1e-3, 64, None, "train")

    def seconds() -> float:
        start = time.perf_counter()
        for _ in range(10_000):
            terminal.stepped(progress)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) / 10_000 < 2e-6


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(28, "No space left"), ValueError("closed file")]
)
@pytest.mark.parametrize("tty", [True, False])
def test_a_dead_reader_makes_it_silent(error: Exception, tty: bool, wide: None) -> None:
    class Dead(io.StringIO):
        encoding = "utf-8"  # type: ignore[assignment]

        def isatty(self) -> bool:
            return tty

        def write(self, text: str) -> int:
            raise error

        flush = write  # type: ignore[assignment]

    fit(Terminal(quiet=False, stream=Dead()), run_info(), result())


@pytest.mark.parametrize("redirect, code", [("| head -n 1", 0), (">&-", 0), ("> /dev/full", 0)])
def test_closed_stdout_in_a_real_process(redirect: str, code: int, tmp_path: Path) -> None:
    script = "from test_events import *; fit(Terminal(False), run_info(max_epochs=3000), result())"
    command = f"set -o pipefail; {sys.executable} -c '{script}' {redirect}"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    # Buffered, as people run it: what the buffer still holds must not fail at exit.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"} | {
        "PYTHONPATH": paths
    }
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_other_encodings_get_ascii(encoding: str) -> None:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding, write_through=True)
    fit(Terminal(quiet=False, stream=stream), run_info(dataset="Ziffern-日本"), result())
    text = buffer.getvalue().decode("ascii")
    assert "data     Ziffern-?? | 1,294 train" in text and "1x8x8 inputs > 3 classes" in text
    assert "+ early stopped" in text


def test_safe_stream_tells_rich_what_it_asks() -> None:
    stream = SafeStream(io.StringIO())
    assert not stream.isatty() and stream.encoding == "utf-8"
    stream.silence()
    assert stream.write("lost") == 4 and not stream.isatty()
    with pytest.raises(OSError, match="the stream was closed"):
        stream.fileno()


@pytest.mark.parametrize(
    "value, text",
    [(0, "0.0000"), (1.23456, "1.2346"), (-0.5, "-0.5000"), (0.001, "0.0010"), (9.9e-4, "9.90e-04")]
    + [(123.456, "123.46"), (1e5, "1.00e+05"), (math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    "value, text",
    [
        (0.031, "0.03 s"),
        (9.994, "9.99 s"),
        (12.34, "12.3 s"),
        (65, "1:05"),
        (7231, "2:00:31"),
        (math.nan, "nan s"),
    ],
)
def test_clock(value: float, text: str) -> None:
    assert clock(value) == text


@pytest.mark.parametrize("value, text", [(0.4, "0:00"), (59.6, "1:00"), (3599.7, "1:00:00"), (-3, "0:00")])
def test_minutes(value: float, text: str) -> None:
    assert minutes(value) == text


@pytest.mark.parametrize("value, text", [(12.4, "12"), (1234, "1.2k"), (2.5e6, "2.5M"), (0, "0")])
def test_rate(value: float, text: str) -> None:
    assert rate(value) == text


@pytest.mark.parametrize(
    "folder, name, expected",
    [
        ("outputs/digits-mlp/2026", "digits-mlp", "outputs"),
        ("outputs/digits-mlp/2026/7", "digits-mlp", "outputs"),  # a job of a sweep
        ("outputs/a/b/2026", "a/b", "outputs"),
        ("digits-mlp/2026", "digits-mlp", "."),
        ("elsewhere/run", "digits-mlp", "elsewhere"),
        ("/data/my runs/digits-mlp/2026", "digits-mlp", "/data/my runs"),
    ],
)
def test_logdir(
    folder: str, name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert logdir(run_info(Path(folder), name=name)) == expected


def test_rich_is_not_imported_for_plain_and_quiet_output() -> None:
    script = (
        "import sys; from test_events import *; fit(Terminal(False), run_info(), result());"
        "fit(Terminal(True), run_info(), result()); assert 'rich' not in sys.modules, 'rich'"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


@pytest.mark.parametrize("epochs", [1, 7, 30, 100])
def test_the_best_evaluation_is_always_in_the_table(epochs: int) -> None:
    for best in range(1, epochs + 1):
        table = Table(run_info(max_epochs=epochs))
        lines = []
        for epoch in range(1, epochs + 1):
            lines += table.add({"epoch": epoch, "val/loss": abs(epoch - best)}, 80)
        lines += table.flush(80)
        starred = [line[1][0].split()[0] for line in lines if line and line[0][0] == "★ "]
        assert starred[-1] == str(best)


def test_rows_of_the_helper_are_best_at_20() -> None:
    assert min(rows(30), key=lambda row: row["val/loss"])["epoch"] == 20


def test_a_metric_that_is_not_finite_is_named_once(tmp_path):
    """A schedule leaves such an evaluation out, and it is never the best: neither may happen without a word."""
    screen = io.StringIO()
    terminal = Terminal(quiet=False, stream=screen)
    terminal.run_started(replace(run_info(), plateaus=("val/loss", "val/auroc")))
    for row in rows(3):
        terminal.evaluated({**row, "val/loss": math.nan, "val/auroc": 0.5 if row["step"] < 30 else math.inf})
    named = [line for line in screen.getvalue().splitlines() if line.startswith("!")]
    assert named == [
        "! val/loss is nan at step 10: it is not the best, and the schedule leaves it out",
        "! val/auroc is inf at step 30: the schedule leaves it out",
    ]
