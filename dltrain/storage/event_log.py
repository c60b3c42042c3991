"""events.jsonl: what happens to a run, one JSON object a line, for programs that watch it.

A resumed run does again what came after its checkpoint: these events are removed, as the rows of metrics.csv are, so that
the file holds each step, evaluation and checkpoint once. When a run was started, resumed and ended stays.
"""

from __future__ import annotations

import json
import math
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from heapq import merge
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from dltrain.storage.files import replace_by, unshare
from dltrain.storage.growing_file import GrowingFile
from dltrain.storage.summary import MAX_LINES_BYTES, Row, column_of, complete_lines, opened
from dltrain.strict_json import loads
from dltrain.text import utf8

EVENTS = "events.jsonl"
FORMAT = 1
SAVED, EVALUATED = "checkpoint_saved", "evaluated"
# of a process, and true whatever is done again
ENDED = "run_ended"
SESSION = ("run_started", "run_resumed", ENDED)
# what it says of a result, beside the scores
RESULT = (
    "status",
    "stop_reason",
    "error",
    "objective",
    "best_epoch",
    "epochs",
    "steps",
    "seconds",
    "images_per_second",
    "peak_memory_bytes",
)
# steps may wait that long for the next evaluation before they are written
SECONDS = 1.0


class EventLog:
    """The events of a run folder.

    Args:
        note: receives the problem when the file cannot be written
        may_write: whether the file may be written now; if not, events wait
    """

    def __init__(
        self, folder: Path, note: Callable[[str], None], may_write: Callable[[], bool] = lambda: True
    ) -> None:
        self._file = GrowingFile(folder / EVENTS, note, may_write)
        self._note = note
        self._written = time.monotonic()

    def add(self, event: str, step: int, values: Mapping[str, Any] | None = None) -> None:
        """Add an event; it is written by `write`, or with a later event once a second has passed."""
        self._file.add(line(event, step, values or {}))
        if time.monotonic() - self._written > SECONDS:
            self.write()

    def write(self) -> None:
        self._file.write()
        self._written = time.monotonic()

    def rewind(self, step: int, rows: Sequence[Row] = (), saved: Iterable[int] = ()) -> None:
        """Remove what a run that continues after `step` does again; a folder of an earlier version has no events.

        `rows` are those of metrics.csv, and `saved` the steps of its checkpoints: of a run that ended on a full disk, their last
        events are missing, and are written again.
        """
        file = self._file.file
        if not file.is_file():
            return
        try:
            stream = opened(file, MAX_LINES_BYTES)
        except (OSError, ValueError) as error:
            return self._unread(error)
        with stream:
            try:
                self._file.replace(kept_lines(complete_lines(stream), step, rows, saved))
            except ValueError as error:
                self._unread(error)

    def _unread(self, error: Exception) -> None:
        # later events are added to it, and it may have another name elsewhere
        unshare(self._file.file)
        self._note(f"{self._file.file} cannot be read, and its later events stay: {str(error)[:100]}")


def result_of(values: Mapping[str, Any], best: Mapping[str, Any], test: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of a run as the event `run_ended` has it: `status`, `best/val/loss`, `test/accuracy` and so on."""
    scores = {f"best/{key}": value for key, value in best.items()}
    return (
        {name: values.get(name) for name in RESULT}
        | scores
        | {f"test/{key}": value for key, value in test.items()}
    )


def complete(folder: Path, summary: Mapping[str, Any]) -> None:
    """Add the end of a finished run that was killed before it could."""
    last, steps = "", summary.get("steps")
    best, test = (summary.get(key) or {} for key in ("best", "test"))
    try:
        for event in read_events(folder):
            last = event["event"] if event["event"] in SESSION else last
    except (OSError, ValueError):
        return
    if (
        last in (ENDED, "")
        or type(steps) is not int
        or not isinstance(best, dict)
        or not isinstance(test, dict)
    ):
        return
    ended = line(ENDED, steps, result_of({"error": "", **summary}, best, test))
    # in one move: a last line that the kill cut short goes, and a file of the user with another name here stays as it is
    with opened(folder / EVENTS, MAX_LINES_BYTES) as stream:
        replace_by(folder / EVENTS, (utf8(text) for text in chain(complete_lines(stream), [ended])))


def kept_lines(
    lines: Iterable[str], step: int, rows: Sequence[Row] = (), saved: Iterable[int] = ()
) -> Iterator[str]:
    """Yield the lines of the events that a run which continues after `step` does not do again, and the last ones that are missing."""
    first, last, is_saved = -1, {EVALUATED: 0, SAVED: 0}, False
    for written in lines:
        event = read_event(written)
        if event is not None and (event["event"] in SESSION or event["step"] <= step):
            yield written
            first = event["step"] if first < 0 else first
            if event["event"] in last:
                last[event["event"]] = event["step"]
            is_saved |= event["event"] == SAVED and event["step"] == step
    # a run of an earlier version that was resumed has events from there on
    begun = {event: max(number, first) for event, number in last.items()}
    steps = {k for k in saved if begun[SAVED] < k <= step}
    if step and not is_saved:
        # killed between the checkpoint and its event
        steps.add(step)
    yield from _lost_lines(_between(rows, begun[EVALUATED], step), sorted(steps))


def _between(rows: Sequence[Row], after: int, until: int) -> Iterator[Row]:
    """Yield the rows of steps above `after`, up to `until`."""
    steps = column_of(rows, "step")
    yield from (rows[place] for place in range(bisect_right(steps, after), bisect_right(steps, until)))


def _lost_lines(rows: Iterable[Row], saved: Iterable[int]) -> Iterator[str]:
    """Yield the events of evaluations and of checkpoints by step; the evaluation comes before the checkpoint of its step."""
    evaluated = ((int(row["step"]), line(EVALUATED, *split_row(row))) for row in rows)
    told = ((step, line(SAVED, step, {})) for step in saved)
    yield from (text for _, text in merge(evaluated, told, key=itemgetter(0)))


def split_row(row: Mapping[str, float]) -> tuple[int, dict[str, float]]:
    """Return the step of a row and its other values."""
    return int(row["step"]), {name: value for name, value in row.items() if name != "step"}


def line(event: str, step: int, values: Mapping[str, Any]) -> str:
    """Return an event as a line of JSON; values that JSON does not have are null."""
    now = datetime.now().astimezone().isoformat(timespec="milliseconds")
    content = {"format": FORMAT, "time": now, "event": event, "step": step}
    return json.dumps(content | {key: _finite(value) for key, value in values.items()}) + "\n"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_event(line: str) -> dict[str, Any] | None:
    """Return the event of a line; None for a line that is none."""
    try:
        event = loads(line)
    except ValueError:
        return None
    known = (
        isinstance(event, dict) and isinstance(event.get("event"), str) and isinstance(event.get("step"), int)
    )
    return event if known else None


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a run folder; none where there is no file. A last line that a kill cut short is left out.

    Raises OSError for a file that cannot be read, ValueError for one with a line that is no event.
    """
    if not (folder / EVENTS).is_file():
        return
    with opened(folder / EVENTS, MAX_LINES_BYTES) as stream:
        for number, written in enumerate(complete_lines(stream), start=1):
            event = read_event(written)
            if event is None:
                raise ValueError(f"line {number} is no event: {written[:-1][:60]!r}")
            yield event
