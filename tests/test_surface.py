"""The names that users type are frozen in surface.txt: to add, rename or remove one is a decision."""

from __future__ import annotations

from pathlib import Path

import dltrain
from dltrain.config.catalogue import Catalogue
from dltrain.config.groups import GROUPS
from dltrain.config.search_path import catalogue_dir
from dltrain.verbs import verbs

FILE = Path(__file__).with_name("surface.txt")
HOW = """the names that users type have changed.
New, on purpose? Write these lines into tests/surface.txt, with a page of docs/ and a line of CHANGELOG.md:
{new}
Gone, on purpose? The old name works for one version with a hint (ALIASES of dltrain/config/compose.py); then delete:
{gone}"""


def public(owner: type) -> list[str]:
    return [name for name in (*dir(owner), *owner.__annotations__) if not name.startswith("_")]


def surface() -> set[str]:
    """Return the groups, knobs, verbs and Python names, one line each."""
    catalogue = Catalogue(catalogue_dir(), [])
    return {
        *(f"group {name}" for name in {*GROUPS, *catalogue.words}),
        *(f"knob {path}" for path in catalogue.knobs),
        *(f"verb {name}" for name in verbs()),
        *(f"python dltrain.{name}" for name in dltrain.__all__),
        *(f"python {owner.__name__}.{name}" for owner in (dltrain.Run, dltrain.Sweep) for name in public(owner)),
    }  # fmt: skip


def changes(now: set[str], frozen: set[str]) -> str | None:
    """Return what to do about the differences; None where there are none."""
    new, gone = ("\n".join(sorted(names)) or "-" for names in (now - frozen, frozen - now))
    return HOW.format(new=new, gone=gone) if now != frozen else None


def test_the_surface_is_frozen():
    lines = FILE.read_text(encoding="utf-8").splitlines()
    assert lines == sorted(set(lines)), "tests/surface.txt is sorted, without blank lines"
    told = changes(surface(), set(lines))
    assert told is None, told


def test_a_change_is_told_with_the_line_to_write():
    told = changes({"verb check", "verb weigh"}, {"verb check", "knob lr"}) or ""
    assert "Write these lines into tests/surface.txt" in told
    assert "CHANGELOG.md:\nverb weigh\n" in told
    assert told.endswith("then delete:\nknob lr")
