"""Rules for values, parsed from text such as `float > 0 or auto`.

The text comes from the annotation of a parameter (`config.signature.rule_of`). A rule is one or more alternatives joined
by `or`: a type (`int`, `float`, `bool`, `str`, `path`, `dict`), optionally with a bound (`> 0`, `>= 1`, `in [0, 1)`),
`list of` or `pair of` such a type, or a literal word (`null`, `auto`, `relu`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_TYPES = ("int", "float", "bool", "str", "path", "dict")
SPEC = re.compile(
    r"(?:(?P<many>list|pair) of )?(?P<type>int|float|bool|str|path|dict)"
    r"(?:\s*(?P<sign>>=|<=|>|<)\s*(?P<bound>[-\d.e+]+)|\s+in\s+(?P<open>[\[(])(?P<low>[-\d.e+]+),\s*(?P<high>[-\d.e+]+)(?P<close>[\])]))?"
)


def _is_float(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_IS_TYPE: dict[str, Callable[[Any], bool]] = {
    "int": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "float": _is_float,
    "bool": lambda v: isinstance(v, bool),
    "str": lambda v: isinstance(v, str) and v != "",
    "path": lambda v: isinstance(v, str) and v != "",
    "dict": lambda v: isinstance(v, dict),
}
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": lambda v, b: v > b,
    ">=": lambda v, b: v >= b,
    "<": lambda v, b: v < b,
    "<=": lambda v, b: v <= b,
}


@dataclass(frozen=True)
class Rule:
    """A rule with its text.

    Args:
        words: the literal words, for "did you mean" and for completion
    """

    text: str
    alternatives: tuple[Callable[[Any], bool], ...]
    words: tuple[str, ...]

    def accepts(self, value: Any) -> bool:
        """Return whether a plain value satisfies the rule."""
        return any(accept(value) for accept in self.alternatives)


def parse_rule(text: str) -> Rule:
    """Parse a rule.

    >>> parse_rule("float in [0, 1) or auto").accepts(0.5), parse_rule("float > 0").accepts(float("nan"))
    (True, False)
    """
    alternatives: list[Callable[[Any], bool]] = []
    words: list[str] = []
    for part in (p.strip() for p in text.split(" or ")):
        match = SPEC.fullmatch(part)
        if match:
            alternatives.append(_typed(match))
        elif re.fullmatch(r"[\w.:-]+", part):
            words.append(part)
            alternatives.append(_literal(part))
        else:
            raise ValueError(f"`{part}` is not a rule (in `{text}`)")
    return Rule(text, tuple(alternatives), tuple(words))


def _literal(word: str) -> Callable[[Any], bool]:
    if word == "null":
        return lambda value: value is None
    return lambda value: not isinstance(value, bool) and str(value) == word


def _typed(match: re.Match[str]) -> Callable[[Any], bool]:
    accept_one = _bounded(_IS_TYPE[match["type"]], match)
    if match["many"] is None:
        return accept_one
    length = 2 if match["many"] == "pair" else None

    def accept_many(value: Any) -> bool:
        return isinstance(value, list) and length in (None, len(value)) and all(map(accept_one, value))

    return accept_many


def _bounded(is_type: Callable[[Any], bool], match: re.Match[str]) -> Callable[[Any], bool]:
    if match["sign"]:
        sign, bound = _COMPARE[match["sign"]], float(match["bound"])
        return lambda value: is_type(value) and sign(value, bound)
    if match["open"]:
        low, high = float(match["low"]), float(match["high"])
        above = _COMPARE[">=" if match["open"] == "[" else ">"]
        below = _COMPARE["<=" if match["close"] == "]" else "<"]
        return lambda value: is_type(value) and above(value, low) and below(value, high)
    return is_type
