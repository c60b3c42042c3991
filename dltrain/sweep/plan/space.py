"""The axes of a sweep: from the command line's grammar, or from `sweep.space` in YAML, to configurations.

An axis has options, each a tuple of overrides (`("lr=0.1",)`, or several where axes are zipped), or a range of numbers.
A configuration is a choice for every axis that is active; an axis with `when` is active only beside those values.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property, lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep
from hydra.errors import OverrideParseException

from dltrain.config.compose import parse
from dltrain.errors import UserError, nearest


@dataclass(frozen=True)
class Axis:
    """One axis: `options` (overrides by label), or the range low … high where `options` is empty."""

    name: str
    options: tuple[tuple[str, tuple[str, ...]], ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    when: dict[str, list[str]] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        return [label for label, _ in self.options]

    @cached_property
    def by_label(self) -> dict[str, tuple[str, ...]]:
        """The overrides of each option."""
        return dict(self.options)

    def overrides(self, value: Any) -> list[str]:
        """Return the overrides of one value: a label of the options, or a number of the range."""
        if self.options:
            return list(self.by_label[value])
        return [f"{self.name}={value!r}"]

    def holds(self, value: Any) -> bool:
        """Return whether a value is one of the options, or a number of the range."""
        if self.options:
            return value in self.by_label
        return isinstance(value, int | float) and self.low <= value <= self.high

    def is_active(self, chosen: dict[str, Any]) -> bool:
        return all(str(chosen.get(name)) in values for name, values in self.when.items())


def to_plain(axes: list[Axis]) -> list[dict[str, Any]]:
    """Axes as JSON data, for sweep.json."""
    plain: list[dict[str, Any]] = json.loads(json.dumps([asdict(axis) for axis in axes]))
    return plain


def from_plain(items: list[dict[str, Any]]) -> list[Axis]:
    return [
        Axis(**item | {"options": tuple((label, tuple(texts)) for label, texts in item["options"])})
        for item in items
    ]


# From the command line --------------------------------------------------------------------------------------------


def axis_of(override: Override) -> Axis:
    """Return the axis of one swept override. Raises UserError for one without values."""
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        return _interval(key, override)
    if isinstance(value, RangeSweep) and not value.shuffle:
        texts = [repr(v) for v in value.range()]
    else:
        texts = list(override.sweep_string_iterator())
    if not texts:
        raise UserError(f"`{override.input_line}` gives no value. Write the values with commas: {key}=a,b")
    return Axis(key, tuple((text, (f"{key}={text}",)) for text in texts))


def _interval(key: str, override: Override) -> Axis:
    value = override.value()
    assert isinstance(value, IntervalSweep) and value.start is not None and value.end is not None
    low, high, log = float(value.start), float(value.end), "log" in value.tags
    whole = "int" in value.tags or (isinstance(value.start, int) and isinstance(value.end, int))
    return checked_range(Axis(key, low=low, high=high, log=log, whole=whole), str(override.input_line))


def checked_range(axis: Axis, source: str) -> Axis:
    """Return an axis if its range holds more than one number. Raises UserError for another."""
    if not axis.low < axis.high:
        raise UserError(f"`{source}` is an empty range: its low end must be below its high end.")
    if axis.log and axis.low <= 0:
        raise UserError(f"`{source}` is searched in the logarithm, so its low end must be above 0.")
    return axis


def zipped(axes: list[Axis], names: list[str]) -> list[Axis]:
    """Join the named axes into one, value by value. Raises UserError where their lengths differ."""
    if not names:
        return axes
    known = {axis.name: axis for axis in axes}
    for name in names:
        if name not in known:
            raise UserError(
                f"`sweep.zip` names {name}, which is no axis of this sweep.{nearest(name, known)} "
                f"Its axes: {', '.join(known) or 'none'}"
            )
    lengths = {name: len(known[name].options) for name in names}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        counts = ", ".join(f"{name} has {n or 'a range'}" for name, n in lengths.items())
        raise UserError(f"`sweep.zip` pairs axes value by value, so they need equally many values: {counts}.")
    rows = zip(*(known[name].options for name in names), strict=True)
    options = tuple(
        (",".join(label for label, _ in row), tuple(text for _, texts in row for text in texts))
        for row in rows
    )
    joined = Axis(",".join(names), options)
    first = next(i for i, axis in enumerate(axes) if axis.name in names)
    rest = [axis for axis in axes if axis.name not in names]
    return [*rest[:first], joined, *rest[first:]]


def without_repeats(axes: list[Axis]) -> list[Axis]:
    """Return the axes without values that are given twice; beside another value of a zipped axis a value is another one."""
    return [replace(axis, options=_distinct(axis.options)) for axis in axes]


def _distinct(options: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    found: dict[Any, tuple[str, tuple[str, ...]]] = {}
    for option in options:
        found.setdefault(tuple(_comparable(parse_one(text)) for text in option[1]), option)
    return tuple(found.values())


def _comparable(override: Override) -> Any:
    """Return the key and the value of an override, equal where the configurations are: 1 and 1.0, but not 1 and true."""

    def value(item: Any) -> Any:
        if isinstance(item, list):
            return tuple(map(value, item))
        if isinstance(item, dict):
            return tuple((str(key), value(inner)) for key, inner in item.items())
        return (isinstance(item, bool), item) if isinstance(item, int | float) else str(item)

    return override.key_or_group, value(override.value())


# From YAML --------------------------------------------------------------------------------------------------------


# keys of an axis in YAML
KEYS = ("values", "low", "high", "log", "int", "when")


def axes_of_yaml(space: Mapping[str, Any], place_of: Callable[[str], str] = lambda key: "") -> list[Axis]:
    """Return the axes of `sweep.space`: key → list of values, or {low, high, log, int, when} or {values, when}.

    `place_of` returns the file and line of an axis, for the message. Raises UserError for an axis that cannot be read.
    """
    axes: list[Axis] = []
    for key, node in space.items():
        try:
            axes.append(_yaml_axis(str(key), node, {axis.name: axis for axis in axes}))
        except UserError as error:
            where = place_of(str(key))
            raise UserError(f"{where}: {error}" if where else str(error)) from None
    return axes


def _yaml_axis(key: str, node: Any, earlier: dict[str, Axis]) -> Axis:
    node = {"values": node} if isinstance(node, list | str) else node
    form = f"Write `{key}: [a, b]`, `{key}: {{low: 1e-4, high: 0.1, log: true}}` or `{key}: {{values: [a, b], when: {{KEY: WORD}}}}`"
    if not isinstance(node, dict):
        raise UserError(f"`sweep.space.{key}` is {node}; it must be a list of values, or a mapping.\n{form}")
    for name in node:
        if name not in KEYS:
            hint = nearest(str(name), KEYS)
            raise UserError(
                f"`sweep.space.{key}.{name}` is no key of an axis.{hint}\nKeys of an axis: {', '.join(KEYS)}"
            )
    of_ranges = {"low", "high", "log", "int"} & set(node)
    if ("values" in node and of_ranges) or ("values" not in node and not {"low", "high"} <= of_ranges):
        raise UserError(f"`sweep.space.{key}` is {node}; it needs values, or low and high.\n{form}")
    for name in ("log", "int"):
        if not isinstance(node.get(name, False), bool):
            raise UserError(f"`sweep.space.{key}.{name}` is {node[name]}; it must be: true or false")
    when = _conditions(key, node.get("when"), earlier)
    if "values" in node:
        if isinstance(node["values"], str) and (called := _called(key, node["values"])) is not None:
            return replace(called, when=when)
        if not isinstance(node["values"], list) or not node["values"]:
            raise UserError(
                f"`sweep.space.{key}.values` is {node['values']}; it must be a list of values.\n{form}"
            )
        return Axis(key, tuple((text, (f"{key}={text}",)) for text in _texts(node["values"])), when=when)
    low, high = node["low"], node["high"]
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in (low, high)):
        raise UserError(f"`sweep.space.{key}` goes from {low!r} to {high!r}; both ends must be numbers.")
    axis = Axis(key, (), float(low), float(high), bool(node.get("log")), bool(node.get("int")), when)
    return checked_range(axis, f"sweep.space.{key}")


def _called(key: str, text: str) -> Axis | None:
    """Return the axis of a text such as `logspace(-4, -1, 4)`, in the grammar of the command line; None for one value."""
    override = parse([f"{key}={text}"], None)[0]
    several = override.is_sweep_override() and not isinstance(override.value(), Glob)
    return axis_of(override) if several else None


def _conditions(key: str, when: Any, earlier: dict[str, Axis]) -> dict[str, list[str]]:
    """Return the values of earlier axes beside which an axis is active. Raises UserError for one that never occurs."""
    if when is None:
        return {}
    path = f"sweep.space.{key}.when"
    if not isinstance(when, dict):
        raise UserError(
            f"`{path}` is {when}; it must be a mapping of an earlier axis: `when: {{optimizer: adam}}`"
        )
    found = {str(name): _texts(values) for name, values in when.items()}
    for name, values in found.items():
        if name not in earlier:
            raise UserError(f"`{path}` names {name}, which is no axis before it.{nearest(name, earlier)}")
        labels = earlier[name].labels
        if not labels:
            raise UserError(f"`{path}` names {name}, which is a range. Name an axis of values, such as words")
        for value in values:
            if value not in labels:
                raise UserError(
                    f"`{path}.{name}` is {value}, which the axis {name} never has.{nearest(value, labels)}\n"
                    f"Its values: {', '.join(labels)}"
                )
    return found


def _texts(values: Any) -> list[str]:
    """Values of YAML as the command line writes them."""
    items = values if isinstance(values, list) else [values]
    return [json.dumps(v) if not isinstance(v, str) else v for v in items]


# Configurations ---------------------------------------------------------------------------------------------------


def check_values_of(axes: Sequence[Axis]) -> None:
    """Raise UserError for a range: a grid needs values."""
    for axis in axes:
        if not axis.options:
            raise UserError(
                f"`{axis.name}` is an interval; a grid needs values: {axis.name}=0.1,0.01 or range(1,5). "
                "To search an interval: sweep=tpe."
            )


def grid(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """Yield every combination in Hydra's order, the last axis first; inactive axes are left out, and nothing comes twice."""
    check_values_of(axes)
    seen = set()
    for labels in itertools.product(*(axis.labels for axis in axes)):
        chosen = active(axes, dict(zip((a.name for a in axes), labels, strict=True)))
        if (key := tuple(chosen.items())) not in seen:
            seen.add(key)
            yield chosen


def active(axes: Sequence[Axis], values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of those axes whose conditions hold."""
    chosen: dict[str, Any] = {}
    for axis in axes:
        if axis.is_active(chosen):
            chosen[axis.name] = values[axis.name]
    return chosen


def overrides_of(axes: Sequence[Axis], chosen: dict[str, Any]) -> list[str]:
    return [text for axis in axes if axis.name in chosen for text in axis.overrides(chosen[axis.name])]


def corners(axes: list[Axis]) -> Iterator[dict[str, Any]]:
    """Configurations in which every value of every axis occurs: what can be checked of a search beforehand.

    Each axis is varied alone, beside each combination of words that its condition names.
    """
    first = {axis.name: _samples(axis)[0] for axis in axes}
    seen = set()
    for axis in axes:
        for value in _samples(axis):
            values = first | {name: wanted[0] for name, wanted in axis.when.items()} | {axis.name: value}
            chosen = active(axes, values)
            if (key := tuple(chosen.items())) not in seen:
                seen.add(key)
                yield chosen


def _samples(axis: Axis) -> list[Any]:
    if axis.options:
        return list(axis.labels)
    ends = (axis.low, axis.high)
    return [int(v) for v in ends] if axis.whole else list(ends)


# created once: that takes as long as parsing an override
_parser = cache(OverridesParser.create)
_NUMBER = re.compile(r"([a-z_]+(?:\.[a-z_]+)*=)-?(?:0|[1-9]\d*)(\.\d+)?(e-?\d+)?")


def parse_one(text: str) -> Override:
    """Parse one override; of a key with a number, the key is parsed once, since the grammar takes 0.1 ms.

    Raises UserError for text that is none, as the record of somebody else may hold.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return _parse(text)
    number = text[match.end(1) :]
    value = float(number) if match[2] or match[3] else int(number)
    return replace(_parse_key(match[1]), _value=value, input_line=text)


def _parse(text: str) -> Override:
    try:
        parsed: Override = _parser().parse_overrides([text])[0]
    except OverrideParseException:
        parsed = parse([text], None)[0]
    return parsed


@lru_cache(maxsize=1024)
def _parse_key(key: str) -> Override:
    return _parse(f"{key}0")
