"""The manifest of equality has a line for each word, and saving changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import assert_equal
from equality import GROUPS, page, rows
from faults import golden_run, only_run
from test_faults_matrix import ROWS, arguments_of, name_of

from dltrain.cli import dispatch
from dltrain.config.catalogue import Catalogue
from dltrain.config.groups import GROUPS as ALL
from dltrain.config.groups import OF_SWEEPS, OVERLAYS
from dltrain.config.search_path import catalogue_dir

PAGE = Path(__file__).parents[2] / "docs" / "equality.md"


def test_every_word_has_its_line():
    catalogue = Catalogue(catalogue_dir())
    assert set(GROUPS) == set(ALL) - {*OVERLAYS, *OF_SWEEPS, "logger"}  # loggers observe
    wanted = rows()
    assert len(wanted) == sum(len(catalogue.words[group]) for group in GROUPS)
    assert PAGE.read_text(encoding="utf-8") == page(), "python tests/faults/equality.py > docs/equality.md"


def check_saving(row: dict[str, str], workdir: Path) -> None:
    """A run that saves every step, in the foreground, and one that saves at its end only."""
    arguments = [text for text in arguments_of(row) if not text.startswith("checkpoint.")]
    every = golden_run(workdir, *arguments, "checkpoint.every_steps=1", "checkpoint.background=false")
    assert dispatch([*arguments, "checkpoint.every_epochs=null", "name=never"]) == 0
    never = only_run(workdir, "never")
    assert_equal(every.best_weights, never.best_weights)
    assert_equal(every.last_state()["weights"], never.last_state()["weights"])
    assert every.timeless_rows == never.timeless_rows
    assert every.summary["test"] == never.summary["test"]


@pytest.mark.parametrize("row", ROWS[3 :: len(ROWS) // 4], ids=name_of)
def test_saving_changes_nothing_in_a_sample(row, workdir):
    check_saving(row, workdir)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_saving_changes_nothing_in_every_pair(row, workdir):
    check_saving(row, workdir)
