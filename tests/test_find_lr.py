"""`dltrain find-lr`: the trials of `lr=auto`, shown; what it suggests, and what it refuses."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from dltrain.cli import dispatch
from dltrain.commands.find_lr import Asked
from dltrain.errors import UserError
from dltrain.run.tuning import CANDIDATES

PAGE = Path(__file__).parents[1] / "docs" / "find-lr.md"
BRIEF = ("model=linear", "dataset.limit=200", "--steps", "20")


def found(capsys, *arguments):
    code = dispatch(["find-lr", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_it_finds_what_lr_auto_finds_and_leaves_nothing(workdir, train, capsys):
    code, said = found(capsys, "model=linear", "dataset.limit=200")
    assert code == 0
    assert [trial["lr"] for trial in said["trials"]] == [
        1e-4,
        3.2e-4,
        1e-3,
        3.2e-3,
        0.01,
        0.032,
        0.1,
        0.32,
        1.0,
    ]
    assert not (workdir / "outputs").exists()
    chosen = train("model=linear", "dataset.limit=200", "lr=auto", "steps=1").rows[0]["lr"]
    assert said["best"] == pytest.approx(chosen, rel=0.02)
    assert said["best"] == min(said["trials"], key=lambda trial: trial["loss"])["lr"]


def test_a_trial_is_the_run_of_that_rate(train, capsys):
    _, said = found(capsys, *BRIEF, "--from", "0.01", "--to", "0.1", "--points", "2")
    run = train(
        "model=linear",
        "dataset.limit=200",
        "steps=20",
        "lr=0.1",
        "early_stopping=none",
    )
    assert said["trials"][1]["loss"] == pytest.approx(run.rows[-1]["val/loss"], rel=1e-6)


def test_early_stopping_ends_no_trial(train, capsys):
    """Losses were compared after other numbers of steps, each ten evaluations after its best."""
    hasty = ("early_stopping.patience=1", "early_stopping.min_delta=0.5", "evaluation.every_steps=2")
    trial = (*BRIEF, "--from", "0.01", "--to", "0.1", "--points", "2")
    losses = [found(capsys, *trial, *words)[1]["trials"] for words in (hasty, ())]
    assert losses[0] == losses[1]
    run = train("model=linear", "dataset.limit=200", "steps=20", "lr=0.1", *hasty)
    assert run.summary["steps"] < 20


@pytest.mark.parametrize("words", [("schedule=cosine", "schedule.warmup_epochs=25"), ("averaging=swa", "averaging.start_step=120")],
                         ids="".join)  # fmt: skip
def test_what_does_not_fit_into_a_trial_is_said_to_be_of_a_trial(dltrain, workdir, capsys, words):
    """`the run has 100 steps`, though it had 150."""
    run = (*words, "model=linear", "dataset.limit=320", "epochs=30")
    with pytest.raises(
        UserError,
        match=r"Each rate is tried in a run of 100 steps, in which this does not fit: .*\n.*--steps 150; or set lr",
    ) as said:
        dltrain(*run, "lr=auto", "quiet=true")
    cure = shlex.split(re.search(r"dltrain (find-lr --steps \d+)", str(said.value))[1])
    code, told = found(capsys, *cure[1:], *run, "--points", "2")
    assert code == 0 and told["steps"] == 150


def test_trials_keep_the_shares_of_the_classes(workdir, train, capsys):
    """Of 12,000 samples, one in twenty positive: evenly drawn, the trials learned other frequencies and chose lr=1."""
    draws = np.random.default_rng(0)
    targets = (draws.random(12000) < 0.05).astype(int)
    inputs = (draws.normal(size=(12000, 4)) + targets[:, None] * 0.6).astype("f4")
    np.savez("rare.npz", inputs=inputs, targets=targets)
    data = ("dataset=npz", "dataset.path=rare.npz", "model=linear")
    said = found(capsys, *data, "--from", "0.1", "--to", "1", "--points", "3")[1]
    # the order of whole runs on all samples
    whole = [train(*data, f"lr={trial['lr']}", "steps=100").rows[-1]["val/loss"] for trial in said["trials"]]
    assert whole == sorted(whole)
    assert said["best"] == 0.1


def test_the_random_numbers_of_the_caller_are_as_before(capsys):
    """Two runs of it say the same, whatever was drawn before."""
    _, first = found(capsys, *BRIEF)
    torch.rand(7)
    assert found(capsys, *BRIEF)[1] == first


def test_the_printed_command_trains_with_the_best_rate(workdir, dltrain, capsys):
    assert dispatch(["find-lr", *BRIEF, "name=with blank"]) == 0
    *_, command = capsys.readouterr().out.splitlines()
    assert command.startswith("dltrain model=linear dataset.limit=200 'name=with blank' lr=")
    assert dltrain(*shlex.split(command)[1:], "steps=1") == 0


def test_the_printed_command_names_the_folder_and_the_file_of_the_words(workdir, dltrain, capsys):
    Path("mine/conf").mkdir(parents=True)
    Path("mine/conf/small.yaml").write_text("defaults: [config, _self_]\nmodel: {hidden: [8]}\n")
    options = ["--config-dir", "mine/conf", "--config-name", "small"]
    assert dispatch(["find-lr", *options, "dataset.limit=200", "--points", "2", "--steps", "1"]) == 0
    *_, command = capsys.readouterr().out.splitlines()
    assert command.startswith("dltrain --config-dir mine/conf --config-name small dataset.limit=200 lr=")
    assert dltrain(*shlex.split(command)[1:], "steps=1") == 0


@pytest.mark.parametrize(
    "low, high, told, low_next, high_next",
    [
        ("1e-5", "1e-4", "It is the highest rate tried; a higher one may be better:", 1e-5, 1e-2),
        ("0.1", "100", "It is the lowest rate tried; a lower one may be better:", 1e-3, 1.0),
    ],
)
def test_an_end_of_the_range_is_told_with_a_command_that_looks_beyond(
    capsys, low, high, told, low_next, high_next
):
    options = [*BRIEF, "name=with blank", "--from", low, "--to", high, "--points", "2"]
    dispatch(["find-lr", *options])
    *_, said, command, _, train = capsys.readouterr().out.splitlines()
    assert said == told
    assert train.startswith("dltrain model=linear dataset.limit=200 'name=with blank' lr=")
    assert shlex.split(command)[0] == "dltrain"
    code, further = found(capsys, *shlex.split(command)[2:])
    assert code == 0
    assert [trial["lr"] for trial in further["trials"]] == [low_next, high_next]
    assert further["steps"] == 20
    assert found(capsys, *options)[1]["further"] == command


def test_no_command_looks_beyond_a_rate_inside_the_range(capsys):
    assert found(capsys, *BRIEF, "--from", "1e-6", "--to", "1e4", "--points", "3")[1]["further"] is None


def test_when_all_diverge_the_exit_code_says_so(capsys):
    code, said = found(
        capsys, *BRIEF, "optimizer=sgd", "dataset=diabetes", "--from", "1e30", "--to", "1e32", "--points", "2"
    )
    assert (code, said["best"]) == (5, None)
    assert [trial["loss"] for trial in said["trials"]] == [None, None]
    dispatch(
        [
            "find-lr",
            *BRIEF,
            "optimizer=sgd",
            "dataset=diabetes",
            "--from",
            "1e30",
            "--to",
            "1e32",
            "--points",
            "2",
        ]
    )
    *_, said, command = capsys.readouterr().out.splitlines()
    assert said == "Every rate from 1e+30 to 1e+32 diverged. Try lower ones:"
    assert command.endswith(" --from 1e+27 --to 1e+30 --points 2 --steps 20")
    assert found(capsys, *shlex.split(command)[2:])[0] == 5


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["lr=0.1"], "`lr` is what `dltrain find-lr` looks for"),
        (["optimizer=lbfgs"], "optimizer=lbfgs finds the length of its steps itself: lr=1"),
        (["--pionts", "3"], "Did you mean `--points`?"),
        (["--points", "1"], "`--points` is 1; it must be: a whole number >= 2"),
        (["--steps"], "`--steps` is missing; it must be: a whole number >= 1"),
        (["--from", "nan"], "`--from` is nan; it must be: a number > 0"),
        (["--from=1", "--to=0.1"], "`--from` is 1 and `--to` 0.1: the first must be the lower one"),
        (["batch_size=1,2"], "several values"),
        (["-m"], "`-m` is no option of find-lr"),
        (["-cn", "none"], "`--config-name` is none"),
    ],
)
def test_what_cannot_be_searched_is_refused(workdir, arguments, said):
    with pytest.raises(UserError) as refused:
        dispatch(["find-lr", *arguments])
    assert said in str(refused.value)
    assert not (workdir / "outputs").exists()


def commands_of(page):
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    return [re.split(r"\s#\s", line)[0] for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("command", commands_of(PAGE.read_text(encoding="utf-8")))
def test_commands_of_the_page(workdir, capsys, command):
    program, verb, *arguments = shlex.split(command)
    assert (program, verb) == ("dltrain", "find-lr")
    brief = [*arguments, "--points", "2", "--steps", "1", "dataset.limit=100"]
    assert dispatch([verb, *brief]) == 0
    assert capsys.readouterr().out
    assert not any(workdir.iterdir())


def test_the_optimizers_that_the_page_names_need_no_search():
    (names,) = re.findall(r"themselves \((.*?)\)", PAGE.read_text(encoding="utf-8"))
    words = re.findall(r"`(\w+)`", names)
    assert words
    for word in words:
        with pytest.raises(UserError, match="its default, is right"):
            dispatch(["find-lr", f"optimizer={word}"])


def test_its_page(capsys):
    assert dispatch(["find-lr", "--help"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("dltrain find-lr [group=word …]\n")
    assert all(option in page for option in ("--from", "--to", "--points", "--steps", "--json"))


@pytest.mark.parametrize("optimizer", ["lbfgs", "newton_cg", "steepest"])
def test_lr_auto_says_that_it_searches_nothing_where_find_lr_is_refused(dltrain, capsys, optimizer):
    words = ("model=linear", "dataset.limit=200", f"optimizer={optimizer}", "steps=1", "batch_size=full")
    with pytest.raises(UserError, match=r"finds the length of its steps itself: lr=1") as refused:
        dltrain("find-lr", *words)
    assert dltrain(*words, "lr=auto") == 0
    assert f"dltrain: lr=auto makes no search: {str(refused.value).rstrip('.')}\n" in capsys.readouterr().err
    for silent in (("lr=auto", "quiet=true"), ("lr=1",)):
        assert dltrain(*words, *silent) == 0
        assert "makes no search" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("best", "side", "cure"),
    [(1.0, "highest", "such as lr=3\n"), (1e-4, "lowest", "such as lr=3e-05\n"), (0.01, "", "")],
)
def test_lr_auto_says_that_the_best_rate_is_an_end_of_its_range(
    dltrain, monkeypatch, capsys, best, side, cure
):
    """`find-lr` said so of the same trials, and `lr=auto` trained with lr 1 without a word."""

    def losses(rates, *_, **__):
        return ((rate, abs(math.log(rate / best))) for rate in rates)

    monkeypatch.setattr("dltrain.run.tuning.losses_of", losses)
    for words in (["lr=auto"], ["lr=auto", "quiet=true"]):
        assert dltrain("dataset=iris", "model=linear", "epochs=1", *words) == 0
        told = f"lr=auto: {best:g} is the {side} rate that it tries" in (err := capsys.readouterr().err)
        assert told == (bool(side) and "quiet=true" not in words)
        assert not told or cure in err


def test_both_searches_try_the_same_rates():
    """`lr=auto` tried 0.316228 and `find-lr` 0.32, so that they could choose rates that differ by a factor of 3."""
    assert list(CANDIDATES) == Asked().rates
