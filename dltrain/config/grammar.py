"""Hydra's grammar of overrides, with one more function: `lr=logspace(-4,-1,4)` gives 0.0001, 0.001, 0.01, 0.1."""

import math
import re
from collections.abc import Iterable
from typing import Union

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep, Sweep

from dltrain.errors import UserError
from dltrain.text import is_foreign

# what a value can call, with an example of each
FORMS = {
    "choice": "choice(0.1,0.01)",
    "range": "range(1,5)",
    "interval": "interval(0.001,0.1)",
    "logspace": "logspace(-4,-1,4)",
    "tag": "tag(log,interval(0.001,0.1))",
    "shuffle": "shuffle(0.1,0.01)",
    "sort": "sort(0.1,0.01)",
    "glob": "glob(*)",
    "str": "str(1)",
    "int": "int(1)",
    "float": "float(1)",
    "bool": "bool(true)",
    "json_str": "json_str({a:1})",
}
DIGITS = 6  # significant digits of a value of `logspace`
MOST_VALUES = 10_000
# values of an axis: twice what a grid of a million jobs, 20 configurations of 50,000 seeds, needs
MOST_OF_AXIS = 100_000
# of all overrides together: commas, colons, brackets and overrides, of which Hydra's parser reads 4,000 a second, and levels of brackets
MOST_MARKS, MOST_LEVELS = 20_000, 60
# as well: spaces, signs and letters beyond ASCII, of which it reads 25,000 a second, and all letters, of which it reads a million
MOST_SIGNS, MOST_LETTERS = 60_000, 500_000
# in a row: Hydra takes the square of their number
MOST_BACKSLASHES = 1000
_MARKS, _SIGNS = re.compile(r"[][(){},:]"), re.compile(r"[^A-Za-z0-9_]")
# 10^37 and 10^-37 are normal numbers of float32
MOST_EXPONENT = 37


def parser(loader: ConfigLoader | None = None) -> OverridesParser:
    """Return Hydra's parser of overrides, which knows `logspace` as well; `loader` resolves globs of words."""
    found = OverridesParser.create(config_loader=loader)
    found.functions.register(name="logspace", func=logspace)
    return found


class Refused(ValueError):
    """Arguments of `logspace` that are refused; `cures` are pairs of what is wanted and the value to write."""

    def __init__(self, reason: str, *cures: tuple[str, str]) -> None:
        super().__init__(reason)
        self.cures = cures


# Hydra checks arguments by these annotations at run time: they must not be strings, and it does not know `int | float`
def logspace(low: Union[int, float], high: Union[int, float], count: int) -> ChoiceSweep:  # noqa: UP007
    """Return `count` values from 10^low to 10^high, evenly spaced in the logarithm, rounded to six significant digits.

    The arguments are those of `torch.logspace`. Raises Refused for ends that could be meant as values, or are too large.
    """
    if isinstance(count, bool) or not 2 <= count <= MOST_VALUES:
        raise Refused(f"the count is {count}; it must be: int from 2 to {MOST_VALUES}")
    values = _as_values(low, high, count)
    if low == high or not all(abs(end) <= MOST_EXPONENT for end in (low, high)):
        reason = f"the ends are powers of ten; they must be: two different numbers from -{MOST_EXPONENT} to {MOST_EXPONENT}"
        raise Refused(reason, *values)
    powers = _powers(low, high, count)
    if any(0 < end < 1 for end in (low, high)):
        listed = (f"For 10^{low} to 10^{high}", ",".join(map(str, powers)))
        raise Refused(
            "the ends are powers of ten, and one between 0 and 1 looks like a value", *values, listed
        )
    return ChoiceSweep(list=list(powers), simple_form=False)


def _powers(low: float, high: float, count: int) -> list[int | float]:
    """Return the values of `logspace`; whole ones as integers, for keys that take no others."""
    values = [float(f"{10.0 ** (low + (high - low) * k / (count - 1)):.{DIGITS}g}") for k in range(count)]
    return [int(value) if value.is_integer() and value < 1e15 else value for value in values]


def _as_values(low: float, high: float, count: int) -> list[tuple[str, str]]:
    """Return the cure for a user who meant the ends as values; none where they cannot be meant so."""
    if not (0 < low < math.inf and 0 < high < math.inf) or low == high:
        return []
    first, last = math.log10(low), math.log10(high)
    listed = ",".join(map(str, _powers(first, last, count)))
    whole = first.is_integer() and last.is_integer()
    return [
        (f"For values from {low} to {high}", f"logspace({first:.0f},{last:.0f},{count})" if whole else listed)
    ]


def check_lengths(texts: Iterable[str]) -> None:
    """Refuse overrides that take long to parse, before they are: they may be those of a record."""
    total = signs = letters = 0
    for text in texts:
        marks = _MARKS.findall(text)
        total += len(marks) + 1
        if total > MOST_MARKS:
            raise UserError(
                f"`{text[:80]}`: the overrides have more than {MOST_MARKS:,} values. Write long lists into a file of conf/, "
                "or a range such as 'seed=range(1,1000)'"
            )
        letters, signs = letters + len(text), signs + len(_SIGNS.findall(text))
        if letters > MOST_LETTERS or signs > MOST_SIGNS:
            raise UserError(
                f"`{text[:80]}`: the overrides have more than {MOST_LETTERS:,} letters, or {MOST_SIGNS:,} spaces and signs. "
                "Write long values into a file of conf/"
            )
        if "\\" * (MOST_BACKSLASHES + 1) in text:
            raise UserError(f"`{text[:80]}` has more than {MOST_BACKSLASHES:,} backslashes in a row.")
        level = deepest = 0
        for mark in marks:
            level += (mark in "[({") - (mark in "])}")
            deepest = max(deepest, level)
        if deepest > MOST_LEVELS:
            raise UserError(
                f"`{text[:80]}` has {deepest} brackets one in another; {MOST_LEVELS} are read at most."
            )


def check_encoding(text: str) -> None:
    """Refuse an override with letters that no record can hold: a name in another encoding than UTF-8."""
    if is_foreign(text):
        raise UserError(
            f"`{text}` is in another encoding than UTF-8, so that no record can hold it. Write it again; "
            "a file or folder of that name is renamed by: mv OLD NEW"
        )


def check_ends(override: Override) -> None:
    """Refuse an axis that cannot be listed: ends that are not finite, too many values, or a function among values."""
    value, text = override.value(), str(override.input_line)
    key = text.partition("=")[0]
    if isinstance(value, RangeSweep) and not (
        _finite(value.start, value.stop, value.step) and value.step != 0
    ):
        raise UserError(
            f"`{text}`: start, end and step of a range must be finite, and the step other than 0. For example: '{key}={FORMS['range']}'"
        )
    if isinstance(value, RangeSweep) and (count := _count_of(value)) > MOST_OF_AXIS:
        raise UserError(
            f"`{text[:80]}` has {count:,} values; an axis has at most {MOST_OF_AXIS:,}. Write a larger step, or "
            f"search a part of them: sweep=random sweep.trials=20 '{key}=interval({value.start},{value.stop})'"
        )
    if isinstance(value, IntervalSweep) and not _finite(value.start, value.end):
        raise UserError(
            f"`{text}`: both ends of an interval must be finite. For example: '{key}={FORMS['interval']}'"
        )
    items = value.list if isinstance(value, ChoiceSweep) else value
    if isinstance(items, list) and any(isinstance(item, Sweep | Glob) for item in items):
        raise UserError(
            f"`{text}`: range, interval, choice, glob and logspace cannot stand among other values.\nList all of its values, divided by commas"
        )


def _count_of(found: RangeSweep) -> int:
    """Return the number of values of a range whose ends are finite, without listing them."""
    assert found.start is not None and found.stop is not None
    start, stop, step = float(found.start), float(found.stop), float(found.step)
    count = (stop - start) / step
    return min(math.ceil(count), 10**18) if 0 < count < math.inf else 0 if count <= 0 else 10**18


def _finite(*numbers: float | None) -> bool:
    try:
        return all(number is not None and math.isfinite(number) for number in numbers)
    except OverflowError:
        # a whole number that no float holds
        return False
