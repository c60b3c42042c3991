"""Whether data are those of the training of a run, and how they differ."""

from __future__ import annotations

from dltrain.data.contract import Contract
from dltrain.data.errors import some
from dltrain.text import counted


def data_changes(known: Contract | None, found: Contract | None) -> str:
    """Return what tells other data from those that a run knows; empty where they are the same, sample by sample and in the same order.

    Whatever divides the data of a run again asks this first: in other data its val and test splits would hold rows of the training. Data
    without a contract, such as an objective, have no samples.
    """
    if known is None or found is None:
        return ""
    before, now = set(known.skipped), set(found.skipped)
    if before != now:
        changes = (("now also", now - before), ("no longer", before - now))
        listed = "; ".join(f"{word} {some(sorted(names), 10)}" for word, names in changes if names)
        return f"other images are skipped: {listed}"
    then, here = (sum(one.sizes.values()) for one in (known, found))
    if known.fingerprint != found.fingerprint:
        more = f"{counted(here, 'sample')} now, and {then:,} then"
        return more if then != here else "other samples, or the same in another order"
    if known.content and found.content:
        return "other values in some samples" * (known.content != found.content)
    files = known.files and found.files and known.files != found.files
    return "other files, by name and size" if files else ""
