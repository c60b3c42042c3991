"""The lines of each parser that the fuzz inputs execute: `python -m tests.fuzz --coverage --inputs 20000`."""

from __future__ import annotations

import ast
import inspect
import sys
import tempfile
import textwrap
import types
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzzing import fuzz
from parsers import Parser


@dataclass
class Covered:
    """Lines of a parser: how many there are, and those that no input reached, by file."""

    lines: int = 0
    missing: dict[str, list[int]] = field(default_factory=dict)

    @property
    def share(self) -> float:
        return 1 - sum(map(len, self.missing.values())) / max(self.lines, 1)

    def __str__(self) -> str:
        left = "; ".join(f"{file} {', '.join(map(str, lines))}" for file, lines in self.missing.items())
        return f"{self.share:>5.0%} of {self.lines} lines" + f", not {left}" * bool(left)


def covered(name: str, parser: Parser, inputs: int, seed: int) -> Covered:
    """Give the seeds and so many changed inputs to a parser, and return which lines of its code were executed."""
    import coverage

    found, ranges = Covered(), list(bodies(parser.code))
    recorder = coverage.Coverage(data_file=None, include=sorted({file for file, _ in ranges}))
    recorder.start()
    try:
        for content in parser.seeds:
            with tempfile.TemporaryDirectory() as folder, suppress(Exception):
                parser.call(content, Path(folder))
        fuzz(name, parser, inputs, seed)
    finally:
        recorder.stop()
    for file in dict.fromkeys(file for file, _ in ranges):
        _, statements, _, missing, _ = recorder.analysis2(file)
        ours = {line for other, lines in ranges if other == file for line in lines}
        found.lines += len(ours & set(statements))
        if left := sorted(ours & set(missing)):
            found.missing[Path(file).name] = left
    return found


def bodies(code: tuple[Any, ...]) -> Iterator[tuple[str, range]]:
    """Yield file and lines of the body of each function of some functions, classes and modules."""
    for owner in code:
        if isinstance(owner, types.ModuleType | type):
            module = owner.__name__ if isinstance(owner, types.ModuleType) else owner.__module__
            parts = [part_of(part) for part in vars(owner).values()]
            yield from bodies(tuple(p for p in parts if is_own(p, module) and p is not owner))
        else:
            plain = inspect.unwrap(owner)
            lines, first = inspect.getsourcelines(plain)
            (tree,) = ast.parse(textwrap.dedent("".join(lines))).body
            assert isinstance(tree, ast.FunctionDef)
            yield (
                inspect.getsourcefile(plain) or "",
                range(first + tree.body[0].lineno - 1, first + len(lines)),
            )


def part_of(part: Any) -> Any:
    """Return the function of a method or property."""
    return next(
        (inner for name in ("__func__", "fget", "func") if (inner := getattr(part, name, None))), part
    )


def is_own(part: Any, module: str) -> bool:
    """Return whether a class or function was written in a module: dataclasses write some of their own."""
    if getattr(part, "__module__", None) != module:
        return False
    plain = inspect.unwrap(part)
    return isinstance(part, type) or (
        inspect.isfunction(plain) and plain.__code__.co_filename == sys.modules[module].__file__
    )
