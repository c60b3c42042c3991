"""Names of classes that are written otherwise in another place, and mean one class: in upper or lower case, yes for true."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from dltrain.data.errors import some

# what people write for true and false, in any case
TRUTHS: dict[str, bool] = {
    **dict.fromkeys(("true", "yes", "y", "t", "on", "1", "1.0"), True),
    **dict.fromkeys(("false", "no", "n", "f", "off", "0", "0.0"), False),
}


def folded(name: str) -> str:
    r"""Return a name without its case and its Unicode form: an ö of one letter (as on Windows) or of two (as in names of files on macOS).

    >>> folded("O\u0308l") == folded("\u00f6l")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def same_form(names: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Return the known name for each one that is none of them, and differs from it in its Unicode form only."""
    forms = {unicodedata.normalize("NFC", name): name for name in known}
    found = {name: forms.get(unicodedata.normalize("NFC", name), name) for name in names if name not in known}
    return {name: form for name, form in found.items() if form != name}


def spellings(counts: Mapping[str, int]) -> dict[str, str]:
    """Return the most frequent spelling for each name that differs from another one in its case only.

    >>> spellings({"yes": 40, "Yes": 2, "no": 3})
    {'Yes': 'yes'}
    """
    first: dict[str, str] = {}
    for name in sorted(counts, key=lambda name: -counts[name]):
        first.setdefault(folded(name), name)
    return {name: known for name in counts if (known := first[folded(name)]) != name}


def one_coding(counts: Mapping[str, int]) -> dict[str, str]:
    """Return the most frequent name of each truth for the others, where all names are true, false, 1 and 0.

    >>> one_coding({"1": 9, "0": 8, "True": 1, "False": 1})
    {'True': '1', 'False': '0'}
    >>> one_coding({"1": 9, "0": 8, "2": 1}), one_coding({"1": 9, "True": 1})
    ({}, {'True': '1'})
    """
    plain = {name: name.casefold() for name in counts}
    words = {"true", "false"} & {*plain.values()}
    if not words or not {*plain.values()} <= {"true", "false", "1", "0", "1.0", "0.0"}:
        return {}
    first: dict[bool, str] = {}
    for name in sorted(counts, key=lambda name: -counts[name]):
        first.setdefault(TRUTHS[plain[name]], name)
    return {name: known for name in counts if (known := first[TRUTHS[plain[name]]]) != name}


def as_known(names: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Return the known class for each name that is none, but differs in its case only from a single one, or is the same truth.

    >>> as_known(["a", "B", "c"], ["A", "b", "B"])
    {'a': 'A'}
    >>> as_known(["YES", "0"], ["false", "true"])
    {'YES': 'true', '0': 'false'}
    """
    alike: dict[str, list[str]] = {}
    for name in known:
        alike.setdefault(folded(name), []).append(name)
    exact = set(known)
    found = {name: alike.get(folded(name), []) for name in names if name not in exact}
    return same_truth(names, known) | {name: ways[0] for name, ways in found.items() if len(ways) == 1}


def same_truth(names: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Return the known name for each one that is none of them and is the same truth, where the known ones are true and false.

    >>> same_truth(["true", "no", "maybe"], ["no", "yes"]), same_truth(["true"], ["a", "b"])
    ({'true': 'yes'}, {})
    """
    truths = {TRUTHS.get(name.casefold()): name for name in known}
    if len(known) != 2 or set(truths) != {True, False}:
        return {}
    return {
        name: truths[truth]
        for name in names
        if name not in known and (truth := TRUTHS.get(name.casefold())) is not None
    }


def respelled(renamed: Mapping[str, str], counts: Mapping[str, int] | None = None) -> str:
    """Return what names count as, for a line: `'Yes' (2) counts as 'yes'`."""
    parts = [
        f"{name!r}{f' ({counts[name]:,})' if counts else ''} counts as {known!r}"
        for name, known in renamed.items()
    ]
    return some(parts, 6)
