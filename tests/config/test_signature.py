"""Annotations as rules, docstrings as notes: what a word's target says about its keys, read without importing it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dltrain.config.rules import parse_rule
from dltrain.config.signature import REQUIRED, read_docstring, read_signature

HEAD = """
from __future__ import annotations
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
import typing
from typing import Annotated, Any, Literal, Optional, Union
from dltrain.ranges import Count, Fraction, Positive, Runtime
Rate = Annotated[float, "> 0"]
Names = Literal["a", "b"]
"""

RULES = {
    "int": "int",
    "float | None": "float or null",
    "None | float": "null or float",
    "Optional[int]": "int or null",
    "Union[int, str]": "int or str",
    "bool": "bool",
    "Path": "path",
    "Positive": "float > 0",
    "Rate | None": "float > 0 or null",
    "Names": "a or b",
    'Literal["x", 3, None]': "x or 3 or null",
    'typing.Literal["x"]': "x",
    'Annotated[int, ">= 2"]': "int >= 2",
    "list[int]": "list of int",
    "Sequence[str]": "list of str",
    "tuple[float, float]": "pair of float",
    "tuple[int, ...]": "list of int",
    "tuple[Fraction, Fraction]": "pair of float in [0, 1)",
    "list[Count] | None": "list of int >= 1 or null",
    'Annotated[list[float], "> 0"]': "list of float > 0",
    'Positive | Literal["auto"]': "float > 0 or auto",
    "dict[str, float]": "dict",
    '"int | None"': "int or null",
    "Any": None,
    "torch.Tensor": None,
    "tuple[int, int, int]": None,
    "list[int | str]": None,
    "int | Unknown": None,
}


def written(folder: Path, text: str) -> Path:
    file = folder / "described.py"
    file.write_text(HEAD + text)
    return file


@pytest.mark.parametrize("annotation, rule", RULES.items(), ids=RULES)
def test_an_annotation_is_a_rule(tmp_path, annotation, rule):
    written(tmp_path, f"def f(x: {annotation}): ...\n")
    signature = read_signature("described.f", folders=(tmp_path,))
    assert signature.parameters[0].rule == rule
    if rule is not None:
        assert parse_rule(rule).text == rule


@pytest.mark.parametrize(
    "default, value",
    [
        ("3", 3),
        ("-1e-3", -0.001),
        ("(1, 2)", [1, 2]),
        ("None", None),
        ("'a'", "a"),
        ("[]", []),
        ("compute()", None),
    ],
)
def test_a_default_is_plain_data(tmp_path, default, value):
    written(tmp_path, f"def f(x={default}): ...\n")
    assert read_signature("described.f", folders=(tmp_path,)).parameters[0].default == value


CLASSES = {
    "a class": "class C:\n    def __init__(self, model, x: int = 1, *, y: float = 2.0): ...\n",
    "a class that inherits": "class B:\n    def __init__(self, model, x: int = 1, y: float = 2.0): ...\nclass C(B): ...\n",
    "a dataclass": "@dataclass(frozen=True)\nclass C:\n    model: Any\n    x: int = 1\n    y: float = 2.0\n",
    "a function": "def C(model, x: int = 1, /, y: float = 2.0): ...\n",
    "a constant": "ONE = 1\ndef C(model, x: int = ONE, y: float = 2.0): ...\n",
    "what the program passes": "def C(model, x: int = 1, y: float = 2.0, fused: Runtime = None): ...\n",
}


@pytest.mark.parametrize("text", CLASSES.values(), ids=CLASSES)
def test_arguments_are_found(tmp_path, text):
    written(tmp_path, text)
    signature = read_signature("described.C", lambda names, function: {names[0][0]}, (tmp_path,))
    assert [(p.name, p.rule, p.default) for p in signature.parameters] == [
        ("x", "int", 1),
        ("y", "float", 2.0),
    ]
    assert not signature.open_ended


def test_keys_of_keyword_arguments_are_open(tmp_path):
    written(tmp_path, "def f(x=1, **rest): ...\nclass C:\n    def __init__(self, **rest): ...\n")
    assert read_signature("described.f", folders=(tmp_path,)).open_ended
    assert read_signature("described.C", folders=(tmp_path,)).open_ended


def test_imports_are_followed_and_nothing_is_run(tmp_path):
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("from .inner import f as g\nraise SystemExit('run')\n")
    (package / "inner.py").write_text("def f(x: int = 4): ...\n")
    assert read_signature("pack.g", folders=(tmp_path,)).defaults() == {"x": 4}
    assert "pack" not in sys.modules


@pytest.mark.parametrize("text", ["def f(:\n", "\0", "f = print\n", ""])
def test_what_cannot_be_read_has_no_schema(tmp_path, text):
    (tmp_path / "described.py").write_text(text)
    assert read_signature("described.f", folders=(tmp_path,)) is None


def test_a_parameter_without_default_must_be_given(tmp_path):
    written(tmp_path, "def f(path: Path, x: int = 1): ...\n")
    assert read_signature("described.f", folders=(tmp_path,)).defaults() == {"path": REQUIRED, "x": 1}


DOCSTRING = """
Multiply the rate by a factor.

    s = factor^k;
    k = ⌊t/T⌋

More about it, over
two lines.

Symbols: T = every
Paper: Somebody 2020,
    arXiv:2001.00001
Lecture: L2 L3

Args:
    factor: what it is multiplied by
    every (int): how often,
        in epochs
"""


def test_a_docstring_holds_notes_and_meanings():
    notes, meanings, details = read_docstring(DOCSTRING)
    assert notes == {
        "summary": "Multiply the rate by a factor.",
        "rule": "s = factor^k;  k = ⌊t/T⌋",
        "symbols": "T = every",
        "paper": "Somebody 2020, arXiv:2001.00001",
        "lecture": "L2 L3",
    }
    assert meanings == {"factor": "what it is multiplied by", "every": "how often, in epochs"}
    assert details == "More about it, over two lines."
