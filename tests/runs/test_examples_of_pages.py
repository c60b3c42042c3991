"""Every command of docs/runs.md, of docs/quickstart.md about runs, and of the help pages of the verbs, run as it stands."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from made import make_run, make_sweep

from dltrain.commands.schema import of_verb
from dltrain.config.compose import compose, open_catalogue, open_hydra
from dltrain.config.validation import validate
from dltrain.errors import UserError
from dltrain.verbs import verbs

ROOT = Path(__file__).parents[2]
OURS = ("runs", "show", "diff", "compare", "tag", "archive", "trash", "restore")
QUICKSTART, PAGE = (
    (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("quickstart.md", "runs.md")
)


def commands_of(page: str) -> list[str]:
    """Return the commands of a page's bash blocks about these verbs, each without its remark."""
    lines = [
        line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()
    ]
    parts = [part.strip() for line in lines for part in re.split(r"\s#\s", line)[0].split("&&")]
    return [
        part
        for part in parts
        if part.startswith(tuple(f"dltrain {verb} " for verb in OURS)) or part == "dltrain runs"
    ]


def examples_of(verb: str) -> list[str]:
    """Return the commands of a help page, without remarks."""
    _, _, examples = import_module(f"dltrain.commands.{verb}").HELP.partition("Examples\n")
    return [re.split(r"\s{3,}", line.strip())[0] for line in examples.splitlines() if line.strip()]


COMMANDS = [
    *commands_of(PAGE),
    *commands_of(QUICKSTART),
    *(example for verb in OURS for example in examples_of(verb)),
]


def test_each_verb_has_examples():
    assert {command.split()[1] for command in COMMANDS} == set(OURS)
    assert all(len(examples_of(verb)) >= 3 for verb in OURS)


@pytest.mark.parametrize(
    "example", [example for verb in ("check", "find_lr") for example in examples_of(verb)]
)
def test_an_example_of_a_verb_that_trains_is_composed(workdir, example):
    """Found in a review: the page of `check` showed a loss that there is not."""
    catalogue = open_catalogue()
    texts = [text for text in shlex.split(example) if "=" in text]
    validate(compose(texts, catalogue, open_hydra(catalogue)))


@pytest.fixture
def here(workdir):
    """What the pages speak of."""
    stamp = "2026-01-31_12-00-00"
    for folder in (
        f"digits_mlp/{stamp}-abcd",
        "digits_mlp/2026-01-31_12-05-00-12ef",
        "n/x-23d7",
        "NAME/RUN",
        "first_tries/a",
    ):
        make_run(workdir / "outputs" / folder)
    choices = [
        {"optimizer": word, "optimizer.lr": lr} for word in ("adam", "momentum") for lr in (0.1, 0.01, 0.001)
    ]
    jobs = [
        {"objective": 0.1 * i + 0.01 * seed, "config": {**choice, "seed": seed}}
        for i, choice in enumerate(choices)
        for seed in range(5)
    ]
    make_sweep(workdir / "outputs" / "digits_linear" / f"{stamp}-d61b", jobs)


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS))
def test_example(here, dltrain, monkeypatch, capsys, command):
    program, *arguments = shlex.split(command)
    assert program == "dltrain"
    if "--figure" in arguments and (find_spec("altair") is None or find_spec("vl_convert") is None):
        with pytest.raises(UserError, match="pip install altair"):
            dltrain(*arguments)
        return
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    monkeypatch.setattr("sys.stdin.readline", lambda: "delete\n", raising=False)
    arguments = [
        str(name)
        for text in arguments
        for name in (sorted(Path().glob(text)) if text.endswith("*") and "/" in text else [text])
    ]
    verb, first = arguments[0], arguments[-1]
    if verb == "restore":
        name = Path(first).name
        dltrain("trash", name if "/" not in first else f"outputs/digits_mlp/{name}")
    if "--empty" in arguments:
        arguments.append("--yes")
    assert dltrain(*arguments) == 0
    assert capsys.readouterr().out


def test_the_page_from_python_runs(here, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "docs/runs.md", "exec"), {})


@pytest.mark.parametrize("verb", OURS)
def test_help_and_schema_of_each_verb(dltrain, capsys, verb):
    assert dltrain(verb, "--help") == 0
    page = capsys.readouterr().out
    assert page.startswith(f"dltrain {verb} ")
    assert max(map(len, page.splitlines())) <= 130
    for option in set(re.findall(r"--[a-z][a-z-]+", page)) - {"--json", "--help", "--archived"}:
        assert option in (ROOT / "dltrain" / "commands" / f"{verb}.py").read_text().partition("SCHEMA")[2], (
            option
        )
    assert dltrain("schema", verb) == 0
    assert of_verb(verb)["oneOf"]


def test_a_verb_without_a_schema_is_refused():
    with pytest.raises(UserError, match="Did you mean `runs`"):
        of_verb("run")
    assert "train" not in verbs()
