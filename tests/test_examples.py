"""Each folder of examples/ is a project of a user's: every command of its commands.txt works in it."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest
from conftest import Run, run_folders

from dltrain.cli import dispatch

EXAMPLES = Path(__file__).parents[1] / "examples"
PROJECTS = sorted(file.parent for file in EXAMPLES.glob("*/commands.txt"))


@pytest.fixture
def project(request: pytest.FixtureRequest, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of an example as the working folder; its modules are forgotten afterwards."""
    shutil.copytree(request.param, workdir, dirs_exist_ok=True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for file in workdir.glob("*.py"):
        # of another test's folder
        sys.modules.pop(file.stem, None)
    before = set(sys.modules)
    yield workdir
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(workdir)):
            del sys.modules[name]


def commands(folder: Path) -> list[list[str]]:
    lines = [line.strip() for line in (folder / "commands.txt").read_text().splitlines()]
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.ci
@pytest.mark.parametrize("project", PROJECTS, ids=lambda folder: folder.name, indirect=True)
def test_every_command_works(project: Path) -> None:
    for program, *arguments in commands(project):
        assert program == "dltrain"
        before = run_folders(project)
        # RUN stands for the newest run folder
        newest = str(max(before, key=lambda folder: folder.stat().st_mtime_ns)) if before else "RUN"
        assert dispatch([newest if argument == "RUN" else argument for argument in arguments]) == 0, arguments


def test_the_page_names_every_example() -> None:
    page = (EXAMPLES.parent / "docs" / "extending.md").read_text()
    assert [folder.name for folder in PROJECTS if f"examples/{folder.name}" not in page] == []


def rows_of(*arguments: str) -> list[dict[str, float]]:
    before = run_folders(Path.cwd())
    assert dispatch([*arguments, "quiet=true", "epochs=2"]) == 0
    (new,) = run_folders(Path.cwd()) - before
    return Run(new).timeless_rows


@pytest.mark.parametrize("project", [EXAMPLES / "averaging"], indirect=True)
def test_the_average_of_one_epoch_is_the_model_itself(project: Path) -> None:
    assert rows_of("averaging=latest", "averaging.number=1") == rows_of()


@pytest.mark.parametrize("project", [EXAMPLES / "wrap"], indirect=True)
def test_a_wrap_without_effect_leaves_the_run_as_it_is(project: Path) -> None:
    """Steps of sgd never go uphill, so that none is left out; only rounding differs."""
    for wrapped, plain in zip(
        rows_of("optimizer=sgd", "wrap=cautious"), rows_of("optimizer=sgd"), strict=True
    ):
        assert wrapped == pytest.approx(plain, rel=1e-4)
    assert rows_of("optimizer=adam", "wrap=cautious") != rows_of("optimizer=adam")
