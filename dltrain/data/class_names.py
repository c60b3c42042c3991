"""Names of classes that differ in upper and lower case only: people write them alike, and mean one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dltrain.data.errors import some


def spellings(counts: Mapping[str, int]) -> dict[str, str]:
    """Return the most frequent spelling for each name that differs from another one in its case only.

    >>> spellings({"yes": 40, "Yes": 2, "no": 3})
    {'Yes': 'yes'}
    """
    first: dict[str, str] = {}
    for name in sorted(counts, key=lambda name: -counts[name]):
        first.setdefault(name.casefold(), name)
    return {name: known for name in counts if (known := first[name.casefold()]) != name}


def as_known(names: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Return the known class for each name that is none, but differs in its case only from a single one.

    >>> as_known(["a", "B", "c"], ["A", "b", "B"])
    {'a': 'A'}
    """
    alike: dict[str, list[str]] = {}
    for name in known:
        alike.setdefault(name.casefold(), []).append(name)
    exact = set(known)
    found = {name: alike.get(name.casefold(), []) for name in names if name not in exact}
    return {name: ways[0] for name, ways in found.items() if len(ways) == 1}


def respelled(renamed: Mapping[str, str], counts: Mapping[str, int] | None = None) -> str:
    """Return what names count as, for a line: `'Yes' (2) counts as 'yes'`."""
    parts = [
        f"{name!r}{f' ({counts[name]:,})' if counts else ''} counts as {known!r}"
        for name, known in renamed.items()
    ]
    return some(parts, 6)
