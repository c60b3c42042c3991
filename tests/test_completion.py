"""The tab key: words, keys, values, verbs and run folders, through the real shells where they are installed."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from dltrain.commands.complete import candidates, split
from dltrain.commands.completion import SCRIPTS
from dltrain.commands.resume import check_safe
from dltrain.errors import UserError

LINES = {  # what is typed → some of what is offered, and something that is not
    "dltrain ": (["check", "optimizer=", "lr=", "--help"], "optimizer.betas"),
    "dltrain re": (["resume", "rerun", "regularization="], "check"),
    "dltrain optimizer=ada": (["optimizer=adam", "optimizer=adagrad"], "optimizer=sgd"),
    "dltrain -m optimizer=sgd,ada": (["optimizer=sgd,adam"], "optimizer=sgd,sgd"),
    "dltrain regularization=": (["regularization=l2", "regularization=[l2"], "regularization=[adam"),
    "dltrain regularization=[l2,dr": (["regularization=[l2,dropout"], "regularization=[l2,l2"),
    "dltrain optimizer=adam optimizer.": (["optimizer.betas=", "optimizer.eps="], "optimizer.momentum="),
    "dltrain optimizer=momentum optimizer.": (["optimizer.momentum="], "optimizer.betas="),
    "dltrain regularization=[l2] regularization.": (
        ["regularization.l2.strength="],
        "regularization.l1.strength=",
    ),
    "dltrain model.act": (["model.activation="], "model.norm="),
    "dltrain model.activation=": (
        ["model.activation=relu", "model.activation=gelu"],
        "model.activation=null",
    ),
    "dltrain quiet=": (["quiet=true", "quiet=false"], "quiet=none"),
    "dltrain 'optimizer=ad": (["optimizer=adam"], "optimizer=sgd"),
}


@pytest.mark.parametrize("line, offered, other", [(k, *v) for k, v in LINES.items()], ids=LINES)
def test_what_is_offered(workdir, line, offered, other):
    found = candidates(*split(line))
    assert set(offered) <= set(found)
    assert other not in found


def test_ends_of_names_are_offered(workdir):
    for end in ("97d0", "97ff", "12ab"):
        folder = workdir / "outputs" / "n" / f"2026-01-01_00-00-00-{end}"
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text("{}")
    assert candidates(*split("dltrain show 97")) == ["97d0", "97ff"]
    assert candidates(*split("dltrain diff 97d0 12")) == ["12ab"]


def test_words_of_ones_own_are_offered(workdir):
    (workdir / "conf" / "model").mkdir(parents=True)
    (workdir / "mine.py").write_text(
        "class Net:\n    def __init__(self, shape, classes, width: int = 3): ...\n"
    )
    (workdir / "conf" / "model" / "net.yaml").write_text("_target_: mine.Net\n")
    assert candidates(*split("dltrain model=ne")) == ["model=net"]
    assert candidates(*split("dltrain model=net model.")) == ["model.width="]


def test_the_words_of_a_recipe_offer_their_keys(workdir):
    (workdir / "conf" / "experiment").mkdir(parents=True)
    recipe = "defaults:\n  - override /optimizer: momentum\n  - override /regularization: [l2]\nepochs: 1\n"
    (workdir / "conf" / "experiment" / "base.yaml").write_text(recipe)
    (workdir / "conf" / "experiment" / "r.yaml").write_text("defaults:\n  - base\n  - _self_\nepochs: 2\n")
    for name in ("base", "r"):
        found = candidates(*split(f"dltrain experiment={name} optimizer."))
        assert "optimizer.momentum=" in found and "optimizer.betas=" not in found
        assert "regularization.l2.strength=" in candidates(
            *split(f"dltrain experiment={name} regularization.")
        )
    typed = candidates(*split("dltrain optimizer=adam experiment=r optimizer."))
    assert "optimizer.betas=" in typed and "optimizer.momentum=" not in typed


def test_run_folders_and_files_are_offered(workdir):
    run = workdir / "outputs" / "digits" / "2026-01-01_00-00-00-abcd"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("")
    (workdir / "outputs" / "empty").mkdir()
    assert candidates(*split("dltrain resume ")) == ["outputs/digits/"]
    assert "lr=" in candidates(*split("dltrain rerun outputs/digits/2026-01-01_00-00-00-abcd "))
    assert "outputs/digits/" in candidates(
        *split("dltrain evaluate outputs/digits/2026-01-01_00-00-00-abcd ")
    )
    changes = candidates(*split("dltrain resume outputs/digits/2026-01-01_00-00-00-abcd "))
    assert {"epochs=", "quiet=", "checkpoint.keep="} <= set(changes)
    for change in changes:
        check_safe(f"{change}1", run, pytest.fail)  # what is offered is accepted
    assert candidates(*split("dltrain resume outputs/")) == ["outputs/digits/"]
    assert candidates(*split("dltrain evaluate outputs/digits/2")) == [
        "outputs/digits/2026-01-01_00-00-00-abcd/"
    ]
    assert candidates(*split("dltrain output=out")) == ["output=outputs/"]


@pytest.mark.parametrize("line", ["", "dltrain", "dltrain nothing=", "dltrain = ", "dltrain resume nowhere/"])
def test_what_cannot_be_continued_offers_no_traceback(workdir, line):
    assert isinstance(candidates(*split(line)), list)


def test_neither_torch_nor_hydra_is_imported(workdir):
    code = "import sys; from dltrain.cli import dispatch; dispatch(['complete', 'dltrain opt']);" \
           "print([m for m in ('torch', 'hydra', 'yaml', 'numpy') if m in sys.modules])"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_unknown_shell_is_refused_with_the_commands(dltrain):
    with pytest.raises(UserError, match=r"not bahs. Did you mean `bash`\?\n  eval"):
        dltrain("completion", "bahs")


SHELLS = {
    "bash": ["bash", "--norc", "-c", '. ./script; COMP_LINE="$1"; COMP_POINT=${#1}; _dltrain; printf "%s\\n" "${COMPREPLY[@]}"', "-"],
    "zsh": ["zsh", "-f", "-c", 'compdef() { :; }; compadd() { print -l -- $@; }; . ./script; BUFFER="$1"; CURSOR=${#1}; _dltrain',
            "-"],
    "fish": ["fish", "--no-config", "-c", 'source script; complete -C "$argv[1]"'],
}  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_a_shell(workdir, monkeypatch, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = workdir / "bin" / "dltrain"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dltrain "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{'/usr/bin:/bin'}")
    (workdir / "script").write_text(SCRIPTS[shell])

    def offered(line: str) -> set[str]:
        command = [*SHELLS[shell], line]
        done = subprocess.run(command, cwd=workdir, capture_output=True, text=True, check=False)
        return set(done.stdout.split())

    bare = shell == "bash"  # readline replaces what follows the last `=`
    assert ("adam" if bare else "optimizer=adam") in offered("dltrain optimizer=ad")
    assert ("[l2,dropout" if bare else "regularization=[l2,dropout") in offered(
        "dltrain regularization=[l2,dro"
    )
    assert "resume" in offered("dltrain res")


@pytest.mark.parametrize("name, line", [
    ("outputs/a[1]/", "dltrain trash "), ("outputs/a[1]/R/", "dltrain trash outputs/a[1]/"),
    ("n[1]", "dltrain predict "), ("dataset.path=a[1]/x", "dltrain dataset.path="), ("dataset.path=[1]x", "dltrain dataset.path="),
    ("dataset.path=[1]", "dltrain dataset.path="), ("x=y[1]/", "dltrain show "), ("a]", "dltrain show "), ("a?*/", "dltrain show "),
])  # fmt: skip
def test_brackets_in_a_name_lead_to_no_other_file(workdir, name, line):
    """Found by a hostile tester: `outputs/a[1]/R` was completed to what bash takes for `outputs/a1/R`."""
    for letter in ("", "1"):
        path = workdir / name.replace("[1]", letter).replace("?*", "bc").replace("]", letter)
        path.mkdir(parents=True, exist_ok=True)
    program = workdir / "dltrain"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' '{name}'\n")
    program.chmod(0o755)
    (workdir / "script").write_text(SCRIPTS["bash"])
    typed = """PATH=.:$PATH; . ./script; COMP_LINE="$1"; COMP_POINT=${#1}; compopt() { :; }; _dltrain
        word="${1##*[[:space:]]}"; eval "printf '%s\n' ${word%"${word##*[=:]}"}${COMPREPLY[0]}" """
    done = subprocess.run(
        ["bash", "--norc", "-c", typed, "-", line], cwd=workdir, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [name]


def test_names_that_a_shell_acts_upon_are_quoted(workdir):
    """A folder of somebody else's may be called $(…): executed, the completed line is its name."""
    evil = "$(touch HACKED) a;b"
    for name in (evil, "two\nlines"):
        folder = workdir / "outputs" / "n" / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").touch()
    assert candidates(*split("dltrain show outputs/n/")) == [f"outputs/n/{evil}/"]
    program = workdir / "dltrain"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' 'outputs/n/{evil}/' 'optimizer=[adam,'\n")
    program.chmod(0o755)
    (workdir / "script").write_text(SCRIPTS["bash"])
    typed = """PATH=.:$PATH; . ./script; COMP_LINE="dltrain show "; COMP_POINT=13; _dltrain
        eval "printf '%s\\n' ${COMPREPLY[0]}"; echo "${COMPREPLY[1]}" """
    done = subprocess.run(
        ["bash", "--norc", "-c", typed], cwd=workdir, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"outputs/n/{evil}/", "optimizer=[adam,"]
    assert not (workdir / "HACKED").exists()
