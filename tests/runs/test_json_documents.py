"""Five hundred calls with `--json`, half of them wrong: each prints one document that its schema knows, and agrees with the code."""

from __future__ import annotations

import json
import random
from importlib import import_module
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from made import make_run, make_sweep, stamp

from dltrain.cli import dispatch, main
from dltrain.errors import UserError
from dltrain.storage.lock import Lock

VERBS = ("runs", "show", "diff", "compare", "tag", "archive", "trash", "restore")
RIGHT, WRONG = 250, 250
NAMES = [stamp(n) for n in range(6)]


@pytest.fixture
def output(workdir):
    """Runs of all kinds: whole, failed, without a score, of another task, damaged, old, running; and a sweep."""
    root = workdir / "outputs"
    for number, name in enumerate(NAMES):
        make_run(root / f"n{number % 2}" / name, 0.1 * number, {"seed": number, "lr": 0.1 ** (number % 3)})
    make_sweep(
        root / "swept" / stamp(10),
        [
            {"objective": 0.1 * (n % 5) + n // 5, "config": {"lr": 0.1 / (1 + n // 5), "seed": n % 5}}
            for n in range(10)
        ],
    )
    make_run(
        root / "odd" / stamp(11), None, status="failed", best=..., test=..., stop_reason="it broke\n\x1b[31m"
    )
    make_run(root / "odd" / stamp(12), float("nan"), config=...)
    (make_run(root / "odd" / stamp(13)) / "data.json").write_text('{"task": "regression"}')
    (make_run(root / "odd" / stamp(14)) / "summary.json").write_text("{")
    make_run(root / "odd" / stamp(15), status="running")
    return root


def right_calls(draws):
    """Yield calls that are right, in an order in which they stay so."""
    jobs = [f"000a/{n}" for n in range(10)]
    runs = [name[-4:] for name in NAMES]
    while True:
        one, other = draws.sample(runs + jobs, 2)
        name = draws.choice(runs)
        word = draws.choice(["x", "paper", "a/b"])
        yield [
            "runs",
            *draws.sample(["lr<1", "seed!=3", "status=completed", "tag!=q", "objective>=0.1", "--jobs"], 2),
        ]
        yield [
            "runs",
            "--sort",
            draws.choice(["objective", "-lr", "when", "status"]),
            "--limit",
            str(draws.randrange(5)),
        ]
        yield ["runs", "--columns", draws.choice(["lr,seed", "val/loss", "tag,when,command"])]
        yield ["show", draws.choice([one, "000a", "000b", "000c", "000f"])]
        yield ["diff", one, other]
        yield ["compare", one, other, *draws.choice([[], ["--metric", "val/accuracy"], ["000a"]])]
        yield ["compare", "000a", "--metric", draws.choice(["test/accuracy", "seconds", "val/loss"])]
        yield ["tag", one, *draws.choice([[], [f"+{word}"], [f"-{word}"]])]
        yield ["archive", name]
        yield ["runs", "--archived"]
        yield ["restore", name]
        yield ["trash", name]
        yield ["trash", "--list"]
        yield [
            "restore",
            draws.choice([name, str(Path("outputs") / f"n{int(name, 16) % 2}" / stamp(int(name, 16)))]),
        ]


def wrong_calls(draws):
    """Yield calls with a mistake, and the codes that are right for it."""
    while True:
        verb = draws.choice(VERBS)
        yield [verb, "--jsn"]
        yield [verb, draws.choice(["nowhere", "outputs/none", "0999", "\x1b[2J"])]
        yield ["runs", draws.choice(["optimzer=1", "lr<abc", "=", "accuracy>1", "<3", "a b"])]
        yield ["runs", "--limit", draws.choice(["-1", "x", "1e3"])]
        yield ["runs", "--sort", draws.choice(["lrr", "-", "--"])]
        yield ["show", *draws.choice([[], ["0000", "0001"], ["000e"], ["outputs"], ["outputs/n0"]])]
        yield [
            "diff",
            *draws.choice([[], ["0000"], ["0000", "000a"], ["0000", "0001", "0002"], ["0000", "000e"]]),
        ]
        yield [
            "compare",
            *draws.choice(
                [[], ["0000", "000d"], ["000b"], ["000c"], ["0000", "--metric", "val/acuracy"], ["000e"]]
            ),
        ]
        yield [
            "compare",
            "0000",
            draws.choice(["--size", "--font=x", "--figure=x.doc", "--figure=none/x.pdf"]),
        ]
        yield [
            "compare",
            "0000",
            "--figure",
            "x.pdf",
            *draws.choice([["--x", "time"], ["--size", "3"], ["--font-size", "0"], ["--y", "vall"]]),
        ]
        yield [
            "tag",
            *draws.choice(
                [["0000", "+a b"], ["0000", "+a", "-a"], ["+a"], ["000e/3", "+a"], ["0000", "--a"]]
            ),
        ]
        yield ["archive", *draws.choice([["000f"], ["000a/1"], ["0000", "nowhere"], [], ["."]])]
        yield [
            "trash",
            *draws.choice(
                [["000f"], ["--list", "--empty"], ["--yes"], ["--list", "a", "b"], ["000a/3", "0000"]]
            ),
        ]
        yield ["restore", *draws.choice([[], ["0000"], ["zzzz"], ["outputs/n0"], ["0000", "0001"]])]


VALIDATORS = {verb: Draft202012Validator(import_module(f"dltrain.commands.{verb}").SCHEMA) for verb in VERBS}


def call(arguments, capsys):
    """Return the exit code and the document of a call."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1, arguments
    assert "Traceback" not in said.err
    assert "\x1b" not in said.err + said.out
    document = json.loads(
        said.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON: {arguments}")
    )
    VALIDATORS[arguments[0]].validate(document)
    return int(ended.value.code or 0), document, said.err


def test_five_hundred_documents_agree_with_their_codes(output, capsys):
    draws = random.Random(3)
    lock = Lock(output / "odd" / stamp(15))
    right, wrong = right_calls(draws), wrong_calls(draws)
    for number in range(RIGHT + WRONG):
        is_right = number % 2 == 0
        # a wrong call meets the folders where the right ones left them
        arguments = next(right) if is_right else next(wrong)
        code, document, said = call(arguments, capsys)
        assert ("error" in document) == (code != 0), arguments
        assert document.get("exit_code", 0) == code
        if is_right:
            assert code == 0, (arguments, document)
        elif code == 0:
            # moved away by the right call before it, or found where it is
            assert arguments[0] == "restore", (arguments, document)
            call(["trash", arguments[1]], capsys)
        else:
            assert code in (2, 4, 9)
            assert said.startswith("dltrain: ")
            assert 1 <= len(said.splitlines()) <= 4, said
    lock.release()


def test_a_verb_without_a_schema_is_refused_with_those_that_have_one():
    with pytest.raises(
        UserError, match="`verify` is no verb with a schema. Verbs with one: archive, compare, diff, "
    ) as refused:
        dispatch(["schema", "verify"])
    assert "Did you mean" not in str(refused.value)


def test_every_schema_is_one_and_forbids_what_it_does_not_know():
    for validator in VALIDATORS.values():
        Draft202012Validator.check_schema(validator.schema)
        assert not validator.is_valid({})
        assert not validator.is_valid({"error": "x", "exit_code": 0})
        assert validator.is_valid({"error": "x", "exit_code": 2})


def test_a_document_comes_alone_on_standard_output(output, capsys):
    (output / ".runs.sqlite").mkdir()
    code, document, said = call(["runs"], capsys)
    assert code == 0
    assert len(document["runs"]) == 12
    assert said.startswith("dltrain: ")
