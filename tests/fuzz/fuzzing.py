"""Give changed inputs to a parser; record unexpected exceptions, hangs, and files written elsewhere."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from mutate import changed
from parsers import Parser

from dltrain.text import shown

SECONDS = 5.0  # for one input
KEPT = 10  # findings of a parser with different places


@dataclass(frozen=True)
class Finding:
    """An input and what it did."""

    content: bytes
    what: str


@dataclass
class Result:
    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)


class Hang(BaseException):
    """An input took too long."""


_inside: list[str] = []  # the folder that may be written to, while an input is read
_outside: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _inside or event != "open" or not isinstance(arguments[0], str | bytes):
        return
    if (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if not path.startswith(_inside[-1]) and path != os.devnull:
            _outside.append(path)


sys.addaudithook(_watch)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Hang after some seconds."""

    def stop(*_: Any) -> None:
        raise Hang

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def tried(parser: Parser, content: bytes, folder: Path) -> str | None:
    """Return what is wrong with what an input did; "" where it was accepted, None where it was refused with a message."""
    _outside.clear()
    _inside.append(os.path.realpath(folder))
    try:
        with limited(SECONDS):
            parser.call(content, folder)
        said = ""
    except parser.mistakes as error:
        # as the command line prints it
        text = shown(str(error))
        said = None if text.strip() and len(text) < 5000 else f"a message of {len(text)} letters"
    except Hang:
        said = f"it took more than {SECONDS} s"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        ours = [f for f in traceback.extract_tb(error.__traceback__) if "dltrain" in f.filename]
        place = ours[-1] if ours else last
        said = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {str(error)[:100]}"
    finally:
        _inside.pop()
    return f"it wrote {_outside[0]}" if _outside else said


def fuzz(name: str, parser: Parser, inputs: int, seed: int = 0, seconds: float = float("inf")) -> Result:
    """Give a parser so many inputs, which follow from the seed."""
    draw, result, begun, places = Random(f"{name} {seed}"), Result(), time.perf_counter(), set()
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="dltrain-fuzz-", dir=memory) as root, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(root, "x")
        while result.inputs < inputs and time.perf_counter() - begun < seconds:
            folder.mkdir()
            content = changed(parser.seeds, draw)
            said = tried(parser, content, folder)
            result.inputs += 1
            result.accepted += said == ""
            place = (said or "").partition(": ")[0]
            if said and place not in places and len(places) < KEPT:
                places.add(place)
                result.findings.append(Finding(content, said))
            shutil.rmtree(folder)
    result.seconds = time.perf_counter() - begun
    return result
