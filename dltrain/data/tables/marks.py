"""Which mark the numbers of a column show to be the decimal one: a point or a comma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dltrain.data.tables import text

_ONE_POINT = r"^[+-]?\d+\.\d+$"
# of a computer, 192.168.100.101
_ADDRESS = r"^\d{1,3}(\.\d{3}){3}$"
_FEW = 0.05


@dataclass(frozen=True)
class MarkEvidence:
    """Examples of numbers that show which mark is the decimal one in a column; None where there is none."""

    comma: str | None  # 1,5 or 1.234.567: the decimal mark is a comma
    point: str | None  # 1.5 or 1,234,567
    either: str | None  # 1,234 or 1.234


def mark_evidence(texts: Any) -> MarkEvidence:
    """Look for decimal marks in numbers.

    `1,5` and `1.234,5` have a decimal comma, `1.5` and `1,234.5` a decimal point. A single group of three digits, `1,234` or
    `1.234`, may be both; a point is a decimal one beside more than a few numbers such as 1234.
    """
    if not text.matches(texts, "[.,]").any():
        return MarkEvidence(None, None, None)
    comma, grouped = text.matches(texts, text.DECIMAL_COMMA), text.matches(texts, text.GROUPED_COMMA)
    points = text.matches(texts, text.GROUPED_POINT)
    point = points & text.matches(texts, _ONE_POINT)
    commas = (comma & ~grouped) | (points & ~point & ~text.matches(texts, _ADDRESS))
    pointed = (grouped & ~comma) | _decimal_points(texts)
    either = _example(texts, comma & grouped)
    whole = text.matches(texts, r"^[+-]?\d{4,}$").sum()
    if either is None and whole <= _FEW * len(texts):
        either = _example(texts, point & ~pointed)
    return MarkEvidence(_example(texts, commas), _example(texts, pointed), either)


def point_evidence(texts: Any) -> str | None:
    """Return a number whose point is a decimal mark, `1.5` or `0.125`; None where there is none: `1.234` may group digits."""
    return _example(texts, _decimal_points(texts))


def _decimal_points(texts: Any) -> text.Flags:
    pointed = text.matches(texts, r"^[+-]?\d*\.\d+([eE][+-]?\d+)?$")
    return pointed & ~text.matches(texts, r"^[+-]?[1-9]\d{0,2}\.\d{3}$")


def _example(texts: Any, chosen: text.Flags) -> str | None:
    rows = np.flatnonzero(chosen)
    return str(texts[int(rows[0])].as_py()) if len(rows) else None
