"""DataError, and helpers for its messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from dltrain.text import LIKE, LONG, close

# broken samples that a message names
_NAMED = 10
# names that a list in a message shows, and pairs of names that are compared letter by letter, in about half a second
SHOWN, _PAIRS = 8, 20_000

# first word of the notes on columns without any value of the training: their rows are predicted, with exit code 3
FOREIGN = "foreign"


class DataError(ValueError):
    """The data cannot be used; the message names the key, the file or sample, the rule and the cure."""


class BrokenSamples(DataError):
    """Samples that cannot be used: the name of each and the reason, and a cure for all. total: among how many they are."""

    def __init__(self, broken: Sequence[tuple[str, str]], cure: str, total: int = 0) -> None:
        self.broken, self.cure = list(broken), cure
        reasons: dict[str, list[str]] = {}
        for name, reason in self.broken[:_NAMED]:
            reasons.setdefault(reason, []).append(name)
        listed = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())
        if len(self.broken) == 1:
            super().__init__(f"cannot use the image {listed}; {cure}")
            return
        of = f" of {total:,}" if total else ""
        rest = f"; … ({len(self.broken) - _NAMED:,} more)" if len(self.broken) > _NAMED else ""
        super().__init__(f"cannot use {len(self.broken):,}{of} images; {cure}:\n{listed}{rest}")

    @classmethod
    def together(cls, errors: Sequence[BrokenSamples], total: int) -> BrokenSamples:
        """Return one error for all samples of several."""
        cures = dict.fromkeys(error.cure for error in errors)
        return cls([item for error in errors for item in error.broken], "; ".join(cures), total)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the known name closest to `name`, or an empty string."""
    found = close(name, known)
    return f" (did you mean {found[0]!r}?)" if found else ""


def renamed(missing: Sequence[str], others: Sequence[str]) -> str:
    """Return which of the other columns the missing ones may be, for a message: names that are alike but for case and marks, or close.

    Each column is proposed once, for the name that it is closest to; the missing ones are those that a message shows.
    """
    missing = missing[:SHOWN]
    found: dict[str, str] = {}
    alike: dict[str, list[str]] = {}
    for other in reversed(others):
        alike.setdefault(_letters(other), []).append(other)
    for name in missing:
        if same := alike.get(_letters(name)):
            found[name] = same.pop()
    rest = [name for name in missing if name not in found]
    taken = set(found.values())
    left = [other for other in others if other not in taken]
    for ratio, name, other in _by_likeness(rest, left if len(rest) * len(left) <= _PAIRS else ()):
        if ratio >= LIKE and name not in found and other not in taken:
            found[name] = other
            taken.add(other)
    told = [f"{found[name]!r} for {name!r}" for name in missing if name in found]
    return f" (did you mean {some(told)}?)" if told else ""


def _by_likeness(names: Sequence[str], others: Sequence[str]) -> list[tuple[float, str, str]]:
    """Return all pairs of names with how alike they are, from 0 to 1, the most alike first."""
    pairs = [
        (difflib.SequenceMatcher(None, _letters(name), _letters(other)).ratio(), name, other)
        for name in names
        for other in others
        if max(len(name), len(other)) <= LONG
    ]
    return sorted(pairs, key=lambda pair: -pair[0])


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def some(names: Iterable[object], limit: int = SHOWN) -> str:
    """Join the first `limit` names by commas, and state how many are left out."""
    shown = [str(name) for name in names]
    rest = len(shown) - limit
    return ", ".join(shown[:limit]) + (f", … ({rest} more)" if rest > 0 else "")
