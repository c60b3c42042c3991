"""`pytest -m mutation`: every planted bug is caught by the default tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutations import MUTATIONS
from planting import ROOT, Mutation, Verdict, copy_to, plant, try_out


def test_there_are_many_and_each_has_its_name():
    assert len(MUTATIONS) >= 100
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS)
    assert all(m.old != m.new for m in MUTATIONS)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of one function with one test of one of its two branches."""
    source = tmp_path / "source"
    for folder in ("dltrain", "tests"):
        (source / folder).mkdir(parents=True)
    (source / "dltrain" / "__init__.py").write_text("")
    (source / "dltrain" / "sign.py").write_text("def sign(x):\n    return -1 if x < 0 else 1\n")
    (source / "tests" / "test_sign.py").write_text(
        "from dltrain.sign import sign\n\ndef test_negative():\n    assert sign(-2) == -1\n"
    )
    monkeypatch.setattr("planting.ROOT", source)
    copy_to(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.ci
@pytest.mark.parametrize(
    "old, new, tests, kind, reason",
    [
        ("-1 if", "1 if", "test_sign.py", "caught", "test_sign.py::test_negative"),
        ("else 1", "else 0", "test_sign.py", "missed", "tests/test_sign.py"),
        ("else 2", "else 0", "test_sign.py", "stale", "its text stands 0 times in dltrain/sign.py"),
        ("1", "0", "test_sign.py", "stale", "its text stands 2 times in dltrain/sign.py"),
        ("-1 if", "1 if", "test_gone.py", "stale", "none of its tests is there: test_gone.py"),
        ("-1 if", "- 1 1 if", "test_sign.py", "caught", "test_sign.py"),
    ],
)
def test_verdicts(small, old, new, tests, kind, reason):
    before = (small / "dltrain" / "sign.py").read_text()
    assert try_out(Mutation("a", "sign.py", old, new, tests), small) == Verdict(kind, reason)
    assert (small / "dltrain" / "sign.py").read_text() == before


def test_a_file_that_is_gone_is_stale(small):
    assert plant(Mutation("a", "gone.py", "1", "2", "x"), small) == "dltrain/gone.py is gone"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutation") / "copy"
    copy_to(folder)
    return folder


@pytest.mark.mutation
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_bug_is_caught(mutation: Mutation, copy: Path) -> None:
    assert (ROOT / "dltrain" / mutation.file).is_file()
    verdict = try_out(mutation, copy)
    assert verdict.kind == "caught", f"{verdict.kind}: {verdict.reason}"
