"""No text of a stranger takes the square of its length: a million letters are read, shown or refused within a second."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

import dltrain
from dltrain import text
from dltrain.config import compose, grammar, python_values, user_files, yaml_files
from dltrain.data.errors import renamed
from dltrain.errors import UserError, in_quotes, nearest, split_command
from dltrain.storage.job_names import job_name

PACKAGE = Path(dltrain.__file__).parent
METHODS = ("search", "match", "fullmatch", "sub", "split", "findall", "finditer")
FLAGS = ("VERBOSE", "DOTALL", "IGNORECASE", "MULTILINE", "ASCII")
# letters of a text that a pattern reads in 1 ms, or, where it takes the square, in 0.1 s and more
LENGTH, MOST_SECONDS = 10_000, 0.05


def patterns() -> Iterator[tuple[str, str, re.Pattern[str], str]]:
    """Yield file, line, pattern and method of each use of `re` in the package; what is put in stands for a name."""
    for file in sorted(PACKAGE.rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re"):
                continue
            parts = node.args[0].values if isinstance(node.args[0], ast.JoinedStr) else [node.args[0]]
            if not all(isinstance(part, ast.Constant | ast.FormattedValue) for part in parts):
                continue
            written = "".join(str(p.value) if isinstance(p, ast.Constant) else "abc" for p in parts)
            said = ast.unparse(node)
            flags = sum(getattr(re, flag) for flag in FLAGS if f"re.{flag}" in said)
            named = re.match(r"\s*(\w+)[^=]*= *re\.compile", source.splitlines()[node.lineno - 1])
            uses = set(re.findall(rf"\b{named[1]}\.(\w+)\(", source)) & {*METHODS} if named else set()
            for method in sorted(uses) or [node.func.attr if node.func.attr in METHODS else "search"]:
                yield file.name, str(node.lineno), re.compile(written, flags), method


PATTERNS = list(patterns())


def attacks(pattern: re.Pattern[str]) -> Iterator[tuple[str, str, str]]:
    """Yield a beginning, what is repeated after it, and an end that does not fit, from the letters of a pattern."""
    signs = sorted(
        set(re.sub(r"\\.", "", pattern.pattern)) - set("abcdefghijklmnopqrstuvwxyzBCDEFGHIJKLMNOPQRSTUVWXYZ")
    )
    words = re.findall(r"[A-Za-z]{2,}", pattern.pattern)[:2]
    for repeated in {*signs, "a", "1", " ", "\\", "a.", "- "}:
        for begin in ("", "a", "${", *words):
            for end in ("\0", "x\ny"):
                yield begin, repeated, end


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def applied(pattern: re.Pattern[str], method: str, said: str) -> object:
    found = pattern.sub("", said) if method == "sub" else getattr(pattern, method)(said)
    return list(found) if method == "finditer" else found


def slow(pattern: re.Pattern[str], method: str) -> tuple[str, str, str] | None:
    """Return the attack that takes a pattern more time than its length accounts for."""
    for begin, repeated, end in attacks(pattern):
        # what doubles with each letter would not return from the longer one
        for length in (24, LENGTH):
            said = begin + repeated * length + end
            # a busy machine may be slow once
            if all(
                seconds(lambda said=said: applied(pattern, method, said)) > MOST_SECONDS for _ in range(2)
            ):
                return begin, repeated, end
    return None


def test_the_uses_of_patterns_are_found():
    assert len(PATTERNS) > 90
    assert {"text.py", "compose.py", "user_files.py", "job_names.py"} <= {file for file, *_ in PATTERNS}


@pytest.mark.ci
def test_no_pattern_takes_the_square_of_a_text():
    found = [(file, line, slow(pattern, method)) for file, line, pattern, method in PATTERNS]
    assert [place for place in found if place[2] is not None] == []


@pytest.mark.parametrize(
    "pattern, method",
    [(r"[`'\"),.;:]*$", "search"), (r"\s*([\w.]+?)\s*(?:[:=\s]\s*(\S.*))?$", "match"), (r"(a+)+$", "match")],
)
def test_a_pattern_that_does_is_noticed(pattern, method):
    assert slow(re.compile(pattern), method) is not None


MILLION = 1_000_000


def refused(call: Callable[[], object]) -> object:
    try:
        return call()
    except UserError as error:
        return str(error)


READERS: dict[str, Callable[[str], object]] = {
    "shown": text.shown,
    "quoted for Hydra": in_quotes,
    "quoted for YAML": python_values._quoted,
    "name of a folder": lambda said: job_name(1, {"x": said}),
    "list of foreign letters": lambda said: compose.quote_foreign(f"tags=[é,a{said}b]"),
    "overrides": lambda said: compose.parse([f"tags=[é,a{said}b]"], None),
    "overrides, in quotes": lambda said: compose.parse([f'tags="{said}x"'], None),
    "overrides, many": lambda said: compose.parse([said[:4] or "a"] * 300_000, None),
    "lines of YAML": lambda said: yaml_files._misspelled((said[:999] + "\n") * 1000),
    "entry of defaults": lambda said: user_files._IN_ONE.match(f"a{said}x\ny"),
    "nearest word": lambda said: nearest(said, [f"b{said}"] * 3),
    "command": lambda said: split_command(said[:50_000]),
    "closest": lambda said: text.close(said, [f"b{said}"] * 3),
}


@pytest.mark.ci
@pytest.mark.parametrize("name", READERS)
def test_a_million_letters_take_a_second(name):
    for repeated in (")", " ", "a", "\\", "é", "[", "a, ", "${"):
        said = (repeated * MILLION)[:MILLION]
        taken = seconds(lambda said=said: refused(lambda: READERS[name](said)))
        assert taken < 1.5, repeated


def test_long_names_of_columns_are_not_compared():
    # so many different letters that difflib leaves none of them out as too frequent
    draw, letters = Random(0), [chr(0x4E00 + i) for i in range(300)]
    name, other = ("".join(draw.choices(letters, k=40_000)) for _ in range(2))
    assert seconds(lambda: renamed([name], [other])) < 1


@pytest.mark.parametrize("value", ["a\\", 'a\\"b', '\\\\"', "\\\\", 'x"y', "a\\b", '"', "\\\\\\b\\"])
def test_a_text_in_quotes_is_read_as_it_was(value):
    [override] = grammar.parser().parse_overrides([f"notes={in_quotes(value)}"])
    assert override.value() == value


@pytest.mark.parametrize(
    "marks, kept", [("", ""), (")", ")"), ("`),", "`),"), ("'''''", "'''"), (")a,", ",")]
)
def test_a_cut_value_keeps_the_marks_behind_it(marks, kept):
    assert text.shown(f"`{'x' * 300}{marks} end") == f"`{'x' * 79}…{kept} end"


@pytest.mark.parametrize(
    "value, name",
    [("[a, b ,c]", "a+b+c"), (" a", "_a"), ("a , , b", "a++b"), ("a  b", "a_b"), ("(1,2) ", "1+2_")],
)
def test_names_of_folders_stay_as_they_were(value, name):
    assert job_name(3, {"x": value}) == f"3-x={name}"
