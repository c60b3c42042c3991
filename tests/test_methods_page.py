"""docs/methods.md says what the code says, and covers every word."""

from __future__ import annotations

from pathlib import Path

import pytest

from dltrain.commands.handbook import TITLES, page
from dltrain.config.catalogue import OVERLAYS, Catalogue
from dltrain.config.groups import OF_SWEEPS
from dltrain.config.search_path import catalogue_dir

FILE = Path(__file__).parents[1] / "docs" / "methods.md"
WITH_FORMULA = (
    "optimizer",
    "schedule",
    "initializer",
    "regularization",
    "augmentation",
    "loss",
    "metrics",
    "diagnostics",
)


def test_the_page_is_current():
    assert FILE.read_text(encoding="utf-8") == page(), "run: python docs/methods.py"


def test_every_group_of_methods_is_on_the_page():
    groups = set(Catalogue(catalogue_dir()).words) - set(OVERLAYS) - set(OF_SWEEPS)
    assert groups == set(TITLES)


@pytest.mark.parametrize("group", WITH_FORMULA)
def test_every_word_has_its_formula(group):
    text = FILE.read_text(encoding="utf-8")
    for word in set(Catalogue(catalogue_dir()).words[group]) - {"none"}:
        section = text.partition(f"### {group}={word}\n")[2].partition("\n### ")[0]
        assert "```\n" in section, word
        assert "**Use:**" in section, word


def test_every_proof_that_is_named_exists():
    """docs/proofs.md: `file::test, ::test; file::test`."""
    page = (FILE.parent / "proofs.md").read_text(encoding="utf-8")
    rows = [line.split(" | ")[1] for line in page.splitlines() if "::test" in line]
    assert len(rows) > 40
    for row in rows:
        for place in row.split("; "):
            if "::" not in place:
                continue
            file, *tests = place.replace(",", "").split("::")
            text = (FILE.parents[1] / file).read_text(encoding="utf-8")
            for name in tests:
                assert f"def {name.split()[0]}(" in text, f"{file}::{name}"
