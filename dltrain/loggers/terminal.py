"""The display of a run: header, live line, evaluations, result.

rich draws on terminals and is imported there only; pipes and files get plain lines, a quiet run gets nothing.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple, TextIO

from dltrain.loggers.events import Best, Progress, Result, RunInfo, has_curves, not_finite
from dltrain.screen.notebook import Line
from dltrain.screen.numbers import bar, clock, in_bytes, minutes, number, rate
from dltrain.screen.output import SafeStream, Screen, open_screen
from dltrain.text import counted, short_path

REFRESH_SECONDS = 0.25
MARKS = {"completed": ("✓", "green"), "early_stopped": ("✓", "green"), "converged": ("✓", "green")}
MARKS["failed"] = MARKS["diverged"] = ("✗", "red")
TIMES = {"lr": "lr", "seconds": "time"}  # columns beside the metrics, and how a plain line names them


class Column(NamedTuple):
    """One column of the table of evaluations; `rank` says which columns go first on a narrow terminal."""

    key: str
    group: str
    head: str
    width: int
    rank: int


class Terminal:
    """Header, live line, evaluations and result on `stream` (default: stdout); nothing when `quiet`."""

    def __init__(self, quiet: bool, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self.stream = stream
        self.screen: Screen | None = None
        self.due = math.inf  # when the live line is drawn next, in seconds of perf_counter

    def run_started(self, run: RunInfo) -> None:
        if self.quiet:
            return
        info = self.info = run
        self.screen = open_screen(SafeStream(self.stream or sys.stdout))
        self.table = Table(info)
        self.meter = Meter(info)
        for line in header(info, self.screen.width):
            self.screen.print(line)
        self.progress = before_first_step(info)
        self.told: set[str] = set()  # metrics whose first value that is not finite was named
        self.due, self.waits = 0.0, False  # when to draw next; whether a row waits in what is drawn
        if self.screen.is_live:
            self.draw()

    def stepped(self, progress: Progress) -> None:
        if perf_counter() < self.due:
            return
        self.progress = progress
        self.draw()

    def evaluated(self, row: Mapping[str, float]) -> None:
        if self.screen is None:
            return
        for metric, text in not_finite(self.info, row).items():
            if metric not in self.told:
                self.screen.print([("! ", "yellow"), (text, "")])
                self.told.add(metric)
        if not self.screen.is_live:
            self.screen.print(self.table.plain(row))
            return
        lines = self.table.add(row, self.screen.width)
        if lines and self.waits:
            self.draw()  # takes the waiting row away, which would stand below the newer one
        for line in lines:
            self.screen.print(line)
        if perf_counter() >= self.due:
            self.draw()

    def run_ended(self, result: Result) -> None:
        if self.screen is None:
            return
        self.finish(self.screen)
        if result.error:
            where = f"{result.error} at epoch {self.progress.epoch}, step {self.progress.step:,}"
            self.screen.print([("✗ ", "red"), (where, "bold"), (f"  {short_path(self.info.folder)}", "")])
            return
        for line in outcome(self.info, result, self.screen.width):
            self.screen.print(line)

    def finish(self, screen: Screen) -> None:
        """Take the live region down and print the evaluation that still waited for its place in the table."""
        self.due = math.inf
        screen.close()
        for line in self.table.flush(screen.width):
            screen.print(line)

    def draw(self) -> None:
        assert self.screen is not None
        if not self.screen.is_live:
            self.due = math.inf
            return
        waiting = self.table.waiting(self.screen.width)
        self.waits = bool(waiting)
        self.screen.live([*waiting, self.meter.line(self.progress, self.screen.width or 80)])
        self.due = perf_counter() + REFRESH_SECONDS


def before_first_step(info: RunInfo) -> Progress:
    epoch = 1 + info.resumed_step // max(1, info.steps_per_epoch)
    return Progress(epoch, info.resumed_step, info.total_steps, info.lr, info.batch_size, None, "train")


class Meter:
    """The live line: progress, speed and remaining time."""

    def __init__(self, info: RunInfo) -> None:
        self.max_epochs = info.max_epochs
        self.first_step = self.step = info.resumed_step
        self.loss = math.nan
        self.speed = 0.0  # samples per second, smoothed
        self.start = self.last = perf_counter()

    def line(self, progress: Progress, width: int) -> Line:
        """Return the live line, cut to `width` by leaving out whole facts, the least important first."""
        self.measure(progress)
        share = min(1.0, progress.step / max(1, progress.total_steps))
        epoch = f"  epoch {progress.epoch}/{self.max_epochs} "
        facts = [f"{share:4.0%}", f"{self.left(progress)} left"]
        if progress.phase == "val":
            facts.append("evaluating")
        elif not math.isnan(self.loss):
            facts.append(f"loss {number(self.loss)}")
        facts += [f"{rate(self.speed)}/s", f"lr {progress.lr:.3g}"]
        room = width - len(epoch) - 12
        while facts and len("  ".join(facts)) > room:
            facts.pop()
        text = "  ".join(facts)
        return [(epoch, "bold"), *bar(share, min(24, room - len(text) + 10)), (f" {text}", "")]

    def measure(self, progress: Progress) -> None:
        now = perf_counter()
        done = (progress.step - self.step) * progress.batch_size
        if done > 0 and now > self.last:
            current = done / (now - self.last)
            self.speed = 0.7 * self.speed + 0.3 * current if self.speed else current
        if progress.values is not None:
            self.loss = progress.values.get("loss", self.loss)
        self.step, self.last = progress.step, now

    def left(self, progress: Progress) -> str:
        done = progress.step - self.first_step
        if done <= 0:
            return "-:--"
        return minutes((self.last - self.start) / done * (progress.total_steps - progress.step))


class Table:
    """The evaluations as aligned lines.

    The first few are all printed, later ones in groups of growing size: of each group the new best, or else the last, so
    that hundreds of epochs fit on a screen.
    """

    def __init__(self, info: RunInfo) -> None:
        self.best = Best(info.metric, info.mode)
        self.max_epochs = info.max_epochs
        self.seen = 0
        self.open = 0  # evaluations in the group that is not printed yet
        self.kept: tuple[Mapping[str, float], bool] | None = None
        self.latest: Mapping[str, float] | None = None
        self.columns: list[Column] = []

    def add(self, row: Mapping[str, float], width: int | None) -> list[Line]:
        """Take one evaluation in; returns the lines that are ready to be printed."""
        improved = self.best.improves(row)
        if improved or self.kept is None or not self.kept[1]:
            self.kept = (dict(row), improved)
        self.latest = dict(row)
        lines = [] if self.columns else self.start(row, width or 80)
        self.seen += 1
        self.open += 1
        due = self.max_epochs <= 12 or self.open >= 1 + (self.seen - 1) // 4
        return lines + (self.flush(width) if due else [])

    def start(self, row: Mapping[str, float], width: int) -> list[Line]:
        self.columns = fitting_columns(row, width)
        return [[], *([groups] if (groups := group_line(self.columns)) else []), head_line(self.columns)]

    def flush(self, width: int | None) -> list[Line]:
        """Return the line of the open group, if there is one."""
        if self.kept is None:
            return []
        (row, improved), self.kept, self.open = self.kept, None, 0
        return [self.line(row, "★" if improved else " ", "" if improved else "dim")]

    def waiting(self, width: int | None) -> list[Line]:
        """Return the newest evaluation while it is not printed, to be shown above the live line."""
        return [self.line(self.latest, " ", "dim italic")] if self.kept is not None and self.latest else []

    def line(self, row: Mapping[str, float], mark: str, style: str) -> Line:
        cells = "".join(cell(c.key, row.get(c.key)).rjust(c.width) for c in self.columns)
        return [(f"{mark} ", "green"), (cells, style)]

    def plain(self, row: Mapping[str, float]) -> Line:
        """Return one evaluation as one line of `name value` pairs, for pipes and files."""
        names = [key for key in row if key.startswith(("train/", "val/"))]
        facts = [f"epoch {row.get('epoch', math.nan):g}/{self.max_epochs}", f"step {row.get('step', 0):g}"]
        facts += [f"{key} {number(row[key])}" for key in names]
        facts += [f"{name} {cell(key, row[key])}" for key, name in TIMES.items() if key in row]
        return [("  ".join(facts), ""), ("  best" if self.best.improves(row) else "", "")]


def header(info: RunInfo, width: int | None) -> list[Line]:
    """Return the lines that say what runs, on which data and device."""
    lines: list[Line] = [[(info.name, "bold")]]
    for label, facts in info.summary():
        lines += labelled(label, facts, width)
    return lines + labelled("folder", (short_path(info.folder),), width)


def outcome(info: RunInfo, result: Result, width: int | None) -> list[Line]:
    """Return the lines that say how the run ended, its scores, and where its folder is."""
    mark, style = MARKS.get(result.status, ("!", "yellow"))
    reason = f": {result.stop_reason}" if result.stop_reason else ""
    status = result.status.replace("_", " ")
    lines: list[Line] = [[], [(f"{mark} ", style), (status, f"bold {style}"), (reason, "")]]
    lines += [[("! ", "yellow"), (remark, "")] for remark in result.remarks]
    best = tuple(
        f"{key} {number(value)}" for key, value in result.best.items() if key.startswith(("train/", "val/"))
    )
    if best:
        lines += labelled("best", (f"epoch {result.best_epoch:g}", *best), width)
    if result.test:
        facts = (f"{key.removeprefix('test/')} {number(value)}" for key, value in result.test.items())
        lines += labelled("test", tuple(facts), width, "bold")
    if result.constant:
        constant = tuple(f"{key} {number(value)}" for key, value in result.constant.items())
        lines += labelled("constant", constant, width)
    lines += labelled("time", effort(result), width)
    lines += labelled("folder", (short_path(info.folder),), width)
    if not has_curves(Path(info.folder)):
        return lines
    return lines + labelled("curves", (f"tensorboard --logdir {shlex.quote(logdir(info))}",), width, "cyan")


def effort(result: Result) -> list[str]:
    facts = [clock(result.seconds), counted(result.epochs, "epoch"), counted(result.steps, "step")]
    if result.images_per_second > 0:
        facts.append(f"{rate(result.images_per_second)} samples/s")
    if result.peak_memory_bytes > 0:
        facts.append(in_bytes(result.peak_memory_bytes))
    return facts


def labelled(label: str, facts: Sequence[str], width: int | None, style: str = "") -> list[Line]:
    """Return `label  fact · fact · …`, continued under the first fact where the terminal is narrow."""
    rows = [facts[0]]
    for fact in facts[1:]:
        if width is not None and 11 + len(rows[-1]) + 3 + len(fact) > width:
            rows.append(fact)
        else:
            rows[-1] += f" · {fact}"
    heads = [label] + [""] * (len(rows) - 1)
    return [[(f"  {head:<9}", "dim"), (text, style)] for head, text in zip(heads, rows, strict=True)]


def fitting_columns(row: Mapping[str, float], width: int) -> list[Column]:
    """Return the columns of the table for these values: as many as fit, chosen by rank, in the order of reading."""
    columns = [Column("epoch", "", "epoch", 6, 0)]
    for group in ("train", "val"):
        keys = [key for key in row if key.startswith(f"{group}/")]
        for i, key in enumerate(keys):
            name = key.split("/", 1)[1]
            columns.append(Column(key, group, name, max(len(name), 6) + 3, 1 + i))
    tail = (("lr", "lr", 10, 20), ("seconds", "time", 9, 21), ("grad_norm", "grad norm", 12, 22))
    columns += [Column(key, "", head, size, rank) for key, head, size, rank in tail if key in row]
    fitting: list[Column] = []
    for column in sorted(columns, key=lambda c: c.rank):
        if 2 + sum(c.width for c in fitting) + column.width <= width:
            fitting.append(column)
    return [column for column in columns if column in fitting]


def group_line(columns: Sequence[Column]) -> Line:
    """Return `── train ──` over the columns of a split."""
    line: Line = [("  ", "")]
    for i, column in enumerate(columns):
        if not column.group:
            line.append((" " * column.width, ""))
        elif i == 0 or columns[i - 1].group != column.group:
            size = sum(c.width for c in columns if c.group == column.group)
            line.append(("   " + f" {column.group} ".center(size - 3, "─"), "dim"))
    return line if any(c.group for c in columns) else []


def head_line(columns: Sequence[Column]) -> Line:
    return [("  ", ""), ("".join(c.head.rjust(c.width) for c in columns), "dim")]


def cell(key: str, value: float | None) -> str:
    if value is None:
        return ""
    if key == "epoch":
        return f"{value:g}"
    if key == "lr":
        return f"{value:.3g}"
    return clock(value) if key == "seconds" else number(value)


def logdir(info: RunInfo) -> str:
    """Return the folder that contains the runs of every name, such as `outputs` for outputs/NAME/RUN."""
    folder = Path(info.folder).absolute()
    name = Path(info.name).parts
    for parent in folder.parents:
        if name and parent.parts[-len(name) :] == name:
            return short_path(parent.parents[len(name) - 1])
    return short_path(folder.parent)
