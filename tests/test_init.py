"""`dltrain init`: the project that it writes trains and passes its own tests; what is refused leaves nothing behind."""

from __future__ import annotations

import json
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from dltrain.cli import dispatch
from dltrain.commands import init
from dltrain.commands.complete import candidates, split
from dltrain.errors import ResourceProblem, UserError


@pytest.fixture
def project(workdir, monkeypatch, capsys):
    """A new project, with what was printed; its modules are forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = [file.stem for file in init.project_dir().glob("*.py")]
    for name in names:
        # of another test's folder
        sys.modules.pop(name, None)
    assert dispatch(["init", "a b/mine"]) == 0
    yield workdir / "a b" / "mine", capsys.readouterr().out
    for name in names:
        sys.modules.pop(name, None)


def test_the_printed_command_trains_and_its_tests_pass(project, monkeypatch, capsys):
    folder, said = project
    *_, line = said.splitlines()
    (cd, place), (program, *arguments) = (shlex.split(part) for part in line.split(" && "))
    assert (cd, program) == ("cd", "dltrain")
    monkeypatch.chdir(place)
    assert dispatch([*arguments, "steps=3", "quiet=true"]) == 0
    (summary,) = (json.loads(file.read_text()) for file in folder.glob("outputs/*/*/summary.json"))
    assert summary["status"] == "completed"
    assert {"accuracy", "worst_class"} <= summary["test"].keys()
    tests = import_module("test_project")
    own = {name: test for name, test in vars(tests).items() if name.startswith("test_")}
    assert len(own) == 4
    for test in own.values():
        test(*[folder / "tmp"] * test.__code__.co_argcount)


def test_readme_names_every_file_and_word_and_its_commands_are_right(project, monkeypatch, capsys):
    folder, said = project
    readme = (folder / "README.md").read_text()
    assert all(file.name in readme for file in folder.rglob("*") if file.suffix == ".py")
    assert all(
        f" {file.relative_to(folder).as_posix()} " in said for file in folder.rglob("*") if file.is_file()
    )
    monkeypatch.chdir(folder)
    commands = [shlex.split(line, comments=True) for line in re.findall(r"(?m)^(?:dltrain|pytest).*", readme)]
    assert ["dltrain", *init.COMMANDS[0].split()[1:]] in commands
    assert ["pytest"] in commands
    for command in commands:
        if command[0] == "dltrain" and "runs" not in command:
            dry = "sweep.dry_run=true" if "-m" in command else "--cfg"
            assert dispatch([*command[1:], dry, *["job"] * (dry == "--cfg")]) == 0


def test_its_document_and_its_completion(workdir, capsys):
    (workdir / "there").mkdir()
    (workdir / "there" / ".git").mkdir()
    assert {"there/"} == set(candidates(*split("dltrain init t")))
    assert dispatch(["init", "there", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    Draft202012Validator(init.SCHEMA).validate(document)
    assert document["commands"] == ["cd there", *init.COMMANDS]
    assert sorted(document["files"]) == sorted(
        file.relative_to("there").as_posix() for file in Path("there").rglob("*") if file.is_file()
    )


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["full"], r"`full` is not empty: it holds x\. Name a new folder: dltrain init full/my_project"),
        (["full/x"], "`full/x` is a file"),
        (["full/x/y"], "`full/x` is a file"),
        ([], r"`\.` is not empty: it holds full"),
        (["a", "b"], "`b`: init takes one folder: dltrain init a"),
        (["--jsn"], "Did you mean `--json`"),
    ],
)
def test_what_is_refused_changes_nothing(workdir, arguments, says):
    Path("full").mkdir()
    Path("full/x").touch()
    with pytest.raises(UserError, match=says):
        dispatch(["init", *arguments])
    assert sorted(map(str, Path().rglob("*"))) == ["full", "full/x"]


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(28, "No space left"), KeyboardInterrupt()]
)
def test_a_folder_that_cannot_be_written_is_left_as_it_was(workdir, monkeypatch, error):
    """The disk refuses the fifth file."""

    def failing(file, mode):
        if mode == "xb" and len(list(workdir.rglob("*.*"))) == 4:
            raise error
        return open(file, mode)

    monkeypatch.setattr(init, "open", failing, raising=False)
    refused = ResourceProblem if isinstance(error, PermissionError) else type(error)
    with pytest.raises(refused):
        dispatch(["init", "a/b"])
    assert not any(workdir.iterdir())
