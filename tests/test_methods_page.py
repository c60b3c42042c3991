"""The manual's pages of methods cover every word; what docs/proofs.md names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dltrain.commands.handbook import TITLES, pages
from dltrain.config.catalogue import OVERLAYS, Catalogue
from dltrain.config.groups import OF_SWEEPS
from dltrain.config.search_path import catalogue_dir

DOCS = Path(__file__).parents[1] / "docs"
PAGES = pages()
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


def test_every_group_of_methods_has_a_page():
    groups = set(Catalogue(catalogue_dir()).words) - set(OVERLAYS) - set(OF_SWEEPS)
    assert groups == set(TITLES)
    assert {f"methods/{group}.md" for group in groups} < PAGES.keys()
    assert all(f"({group}.md)" in PAGES["methods/index.md"] for group in groups)


@pytest.mark.parametrize("group", WITH_FORMULA)
def test_every_word_has_its_formula(group):
    page = PAGES[f"methods/{group}.md"]
    for word in set(Catalogue(catalogue_dir()).words[group]) - {"none"}:
        section = page.partition(f"\n## {group}={word}\n")[2].partition("\n## ")[0]
        assert "``` { .text .formula }\n" in section, word
        assert "**Use:**" in section, word
        assert f"[`{word}`](#{group}{word})" in page, word


def test_every_proof_that_is_named_exists():
    """docs/proofs.md: `file::test, ::test; file::test`."""
    page = (DOCS / "proofs.md").read_text(encoding="utf-8")
    rows = [line.split(" | ")[1] for line in page.splitlines() if "::test" in line]
    assert len(rows) > 40
    for row in rows:
        for place in row.split("; "):
            if "::" not in place:
                continue
            file, *tests = place.replace(",", "").split("::")
            text = (DOCS.parent / file).read_text(encoding="utf-8")
            for name in tests:
                assert re.search(rf"def {name.split()[0]}\(", text), f"{file}::{name}"
