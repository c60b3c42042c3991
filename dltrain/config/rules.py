"""Rules for values, parsed from text such as `float > 0 or auto`.

The text comes from the annotation of a parameter (`config.signature.rule_of`). A rule is one or more alternatives joined
by `or`: a type (`int`, `float`, `bool`, `str`, `path`, `dict`), optionally with a bound (`> 0`, `>= 1`, `in [0, 1)`),
`list of` or `pair of` such a type, a literal word (`null`, `auto`, `relu`), or `""`, the empty text. Each becomes a JSON Schema, by which
values are checked here and in an editor.
"""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dltrain.text import utf8

Schema = dict[str, Any]

SPEC = re.compile(
    r"(?:(?P<many>list|pair) of )?(?P<type>int|float|bool|str|path|dict)"
    r"(?:\s*(?P<sign>>=|<=|>|<)\s*(?P<bound>[-\d.e+]+)|\s+in\s+(?P<open>[\[(])(?P<low>[-\d.e+]+),\s*(?P<high>[-\d.e+]+)(?P<close>[\])]))?"
)
# the rule of an empty text
EMPTY = '""'
# bytes of a path and of each of its parts, which file systems allow
LONGEST_PATH, LONGEST_PART = 4095, 255
_TYPES: dict[str, Schema] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "str": {"type": "string", "minLength": 1},
    "path": {"type": "string", "minLength": 1, "maxLength": LONGEST_PATH},
    "dict": {"type": "object"},
}
_PYTHON: dict[str, Any] = {
    "integer": int,
    "number": int | float,
    "boolean": bool,
    "string": str,
    "object": dict,
}
_BOUNDS = {">": "exclusiveMinimum", ">=": "minimum", "<": "exclusiveMaximum", "<=": "maximum"}
_COMPARE = {
    "exclusiveMinimum": operator.gt,
    "minimum": operator.ge,
    "exclusiveMaximum": operator.lt,
    "maximum": operator.le,
}


@dataclass(frozen=True)
class Rule:
    """A rule with its text.

    Args:
        alternatives: the JSON Schema of each
        words: the literal words, for "did you mean" and for completion
    """

    text: str
    alternatives: tuple[Schema, ...]
    words: tuple[str, ...]

    def accepts(self, value: Any) -> bool:
        """Return whether a plain value satisfies the rule."""
        return any(_accepts(schema, value) for schema in self.alternatives)


# Few texts are shared by hundreds of keys.
@lru_cache(maxsize=1024)
def parse_rule(text: str) -> Rule:
    """Parse a rule.

    >>> parse_rule("float in [0, 1) or auto").accepts(0.5), parse_rule("float > 0").accepts(float("nan"))
    (True, False)
    """
    alternatives: list[Schema] = []
    words: list[str] = []
    for part in (p.strip() for p in text.split(" or ")):
        if match := SPEC.fullmatch(part):
            alternatives.append(_typed(match))
        elif part == EMPTY:
            alternatives.append({"const": ""})
        elif re.fullmatch(r"[\w.:-]+", part):
            words.append(part)
            alternatives.append({"type": "null"} if part == "null" else {"const": part})
        else:
            raise ValueError(f"`{part}` is not a rule (in `{text}`)")
    return Rule(text, tuple(alternatives), tuple(words))


def _typed(match: re.Match[str]) -> Schema:
    item = dict(_TYPES[match["type"]])
    if match["sign"]:
        item[_BOUNDS[match["sign"]]] = float(match["bound"])
    if match["open"]:
        item["minimum" if match["open"] == "[" else "exclusiveMinimum"] = float(match["low"])
        item["maximum" if match["close"] == "]" else "exclusiveMaximum"] = float(match["high"])
    if match["many"] is None:
        return item
    return {"type": "array", "items": item} | (
        {"minItems": 2, "maxItems": 2} if match["many"] == "pair" else {}
    )


def _is_finite(value: float) -> bool:
    """Return whether a number is finite as a float; whole numbers beyond 1.8e308 are not."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_path(value: str) -> bool:
    """Return whether the system can look for a path: it is not too long, and holds no NUL."""
    parts = map(len, utf8(value).split(b"/"))
    return "\0" not in value and len(utf8(value)) <= LONGEST_PATH and max(parts) <= LONGEST_PART


def _accepts(schema: Schema, value: Any) -> bool:
    if "const" in schema:
        return not isinstance(value, bool) and str(value) == schema["const"]
    kind = schema["type"]
    if kind == "null":
        return value is None
    if kind == "array":
        length = schema.get("minItems")
        return (
            isinstance(value, list)
            and length in (None, len(value))
            and all(_accepts(schema["items"], item) for item in value)
        )
    if not isinstance(value, _PYTHON[kind]) or isinstance(value, bool) != (kind == "boolean"):
        return False
    if kind == "string":
        return value != "" and ("maxLength" not in schema or is_path(value))
    if kind == "number" and not _is_finite(value):
        return False
    return all(compare(value, schema[name]) for name, compare in _COMPARE.items() if name in schema)
