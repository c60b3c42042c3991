"""evaluate, resume, rerun, Hydra's own flags, lists of words, sweeps, seed 0, debug words, odd working folders."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import Run, assert_equal, run_folders

from dltrain.cli import main
from dltrain.errors import CheckpointProblem, UserError
from dltrain.storage.job_names import job_number
from dltrain.verbs import verbs


def said_by(dltrain, capsys, *arguments):
    capsys.readouterr()
    assert dltrain(*arguments) == 0
    return capsys.readouterr().out


# evaluate ----------------------------------------------------------------------------------------------------------


def scores_in(page):
    """{(run, split): (samples, loss, accuracy)} of the table that `evaluate` prints."""
    table = page.partition("\n\n")[0].splitlines()
    columns = len(table[0].split()) - 1
    rows = [line.rsplit(maxsplit=columns) for line in table[1:]]
    return {
        (name, split): (int(n), float(loss), float(accuracy)) for name, split, n, loss, accuracy, *_ in rows
    }


def test_bootstrap_samples_make_a_bagged_ensemble(dltrain, train, capsys):
    """The mean of the probabilities of runs that share their val and test splits."""
    short = ("dataset.bootstrap=true", "model=linear", "epochs=2", "early_stopping=none")
    runs = [train(*short, f"seed={seed}") for seed in (0, 1)]
    first, second = (run.summary["inferred"] for run in runs)
    assert first != second
    assert re.fullmatch(
        r"drawn: \d+ of the 1,294 training samples, in 1,294 draws with replacement", first[-1]
    )
    page = said_by(dltrain, capsys, "evaluate", str(runs[0].path), str(runs[1].path))
    assert re.search(r"^ensemble of 2 +val +144 ", page, re.MULTILINE)
    assert re.search(r"^ensemble of 2 +test +359 ", page, re.MULTILINE)


def test_runs_with_other_targets_have_no_ensemble_and_say_why(dltrain, workdir, capsys):
    """They were said to have other splits, where the order of two targets differed."""
    rows = "".join(f"{i / 7:.3f},{i * 37 % 11 / 3:.3f},{i * 5 % 13 / 3:.3f}\n" for i in range(60))
    (workdir / "two.csv").write_text("x,y,z\n" + rows)
    common = (
        "dataset=csv",
        "dataset.path=two.csv",
        "model=linear",
        "epochs=1",
        "logger=[none]",
        "quiet=true",
    )
    for name, targets in (("a", "[y,z]"), ("b", "[z,y]")):
        assert dltrain(*common, f"dataset.target={targets}", f"name={name}") == 0
    runs = [str(next((workdir / "outputs" / name).iterdir())) for name in "ab"]
    assert dltrain("evaluate", *runs, "evaluation.bootstrap=0") == 0
    assert (
        "the runs predict 'y', 'z' and 'z', 'y' on their val and test splits: scored one by one there, without an ensemble"
        in capsys.readouterr().err
    )


def test_evaluate_gives_the_scores_of_the_summary(dltrain, train, capsys):
    run = train("epochs=3")
    scores = scores_in(said_by(dltrain, capsys, "evaluate", run.path))
    for split, known in (("val", run.summary["best"]), ("test", run.summary["test"])):
        _, loss, accuracy = scores[str(run.path), split]
        prefix = "val/" if split == "val" else ""
        assert loss == pytest.approx(known[f"{prefix}loss"], abs=1e-4)
        assert accuracy == pytest.approx(known[f"{prefix}accuracy"], abs=1e-4)


def test_evaluate_of_several_runs_adds_their_ensemble(dltrain, train, capsys):
    runs = [train("steps=60", f"seed={seed}").path for seed in (0, 1)]
    scores = scores_in(said_by(dltrain, capsys, "evaluate", *runs))
    # beside them, since the training splits are those of one dataset, the same constant guess
    names = (*map(str, runs), "constant guess", "ensemble of 2")
    assert set(scores) == {(name, s) for name in names for s in ("val", "test")}
    assert scores["constant guess", "test"][1] > scores[str(runs[0]), "test"][1]
    assert scores["ensemble of 2", "test"][1] < max(scores[str(run), "test"][1] for run in runs)


# resume and rerun --------------------------------------------------------------------------------------------------


def test_rerun_ends_in_equal_weights(dltrain, train, workdir):
    run = train("epochs=2", "model=cnn", "augmentation=[shift]", "regularization=[dropout]")
    before = run_folders(workdir)
    assert dltrain("rerun", run.path) == 0
    (again,) = (Run(path) for path in run_folders(workdir) - before)
    assert_equal(again.best_weights, run.best_weights)
    assert_equal(again.timeless_rows, run.timeless_rows)
    assert yaml.safe_load((again.path / "config.yaml").read_text()) == yaml.safe_load(
        (run.path / "config.yaml").read_text()
    )


def test_rerun_with_a_changed_key_is_the_run_with_that_key(dltrain, train, workdir):
    run, wanted = train("epochs=2"), train("epochs=2", "lr=0.01", "model.hidden=[32]")
    before = run_folders(workdir)
    assert dltrain("rerun", run.path, "lr=0.01", "model.hidden=[32]") == 0
    (again,) = (Run(path) for path in run_folders(workdir) - before)
    assert_equal(again.best_weights, wanted.best_weights)


def test_rerun_of_a_job_says_that_the_test_split_is_not_scored(dltrain, workdir, capsys):
    """A sweep sets evaluation.test=false for its jobs, and nothing said so."""
    assert dltrain("-m", "model=linear", "epochs=1", "lr=0.1,0.01") == 0
    job = next(workdir.glob("outputs/*/*/0-*"))
    for changes, is_told in (
        ([], True),
        (["evaluation.test=true"], False),
        (["evaluation.test=false"], False),
    ):
        capsys.readouterr()
        assert dltrain("rerun", job, *changes) == 0
        said = "".join(capsys.readouterr())
        assert ("To score it: evaluation.test=true" in said) == is_told
        newest = max(workdir.glob("outputs/*/*/summary.json"), key=lambda file: file.stat().st_mtime_ns)
        assert bool(json.loads(newest.read_text())["test"]) == ("evaluation.test=true" in changes)


def test_rerun_takes_steps_in_place_of_epochs(dltrain, train, workdir):
    run = train("epochs=2")
    before = run_folders(workdir)
    assert dltrain("rerun", run.path, "steps=5") == 0
    (again,) = (Run(path) for path in run_folders(workdir) - before)
    assert again.summary["steps"] == 5


@pytest.mark.parametrize("arguments, says, code", [
    (["evaluate"], "Name at least one run folder", 2),
    (["resume"], "Name one run folder", 2),
    (["rerun"], "Name one run folder", 2),
    (["rerun", "nowhere"], "nowhere is no folder", 4),
    (["evaluate", "."], r"is not a run folder: it has no config.yaml", 4),
    (["resume", "RUN"], r"is finished \(completed\): there is nothing to resume. To repeat it: dltrain rerun", 4),
    (["resume", "RUN", "lr=0.1"], r"`lr` cannot change in a resumed run", 2),
    (["rerun", "RUN", "optimzer.lr=1"], r"`optimzer.lr` is no key of this run.*Did you mean `optimizer.lr`\?", 2),
    (["rerun", "RUN", "lr=-1"], r"`lr` is -1; it must be: float > 0", 2),
    (["rerun", "RUN", "--fast"], "no option of this command", 2),
])  # fmt: skip
def test_what_the_verbs_refuse(dltrain, train, arguments, says, code):
    run = train("steps=2") if "RUN" in arguments else None
    with pytest.raises(UserError, match=says) as refused:
        dltrain(*(run.path if a == "RUN" and run else a for a in arguments))
    assert refused.value.exit_code == code
    assert len(str(refused.value).splitlines()) <= 3


def test_a_run_folder_that_lost_its_weights_says_so(dltrain, train):
    run = train("steps=2")
    (run.path / "checkpoints" / "best.safetensors").unlink()
    with pytest.raises(CheckpointProblem):
        dltrain("evaluate", run.path)


# Hydra's own flags -------------------------------------------------------------------------------------------------

FLAGS = [
    (["--cfg", "job", "optimizer=sgd"], "_target_: dltrain.optimizers.torch_optimizers.sgd"),
    (["-c", "job", "-p", "optimizer"], "_target_: dltrain.optimizers.torch_optimizers.adam"),
    (["--cfg", "job", "--resolve"], "lr: 0.001"),
    (["--cfg", "hydra"], "sweeper:"),
    (["--info"], "Hydra 1.3"),
    (["--info", "searchpath"], "| main "),
    (["--info", "defaults"], "optimizer/adam"),
    (["--hydra-help"], "--multirun"),
    (["--version"], "dltrain "),
    (["--shell-completion", "install=bash"], "complete "),
    (["-sc", "install=bash"], "complete "),
]


@pytest.mark.parametrize("arguments, says", FLAGS, ids=[" ".join(row[0]) for row in FLAGS])
def test_flag(dltrain, workdir, capsys, arguments, says):
    assert says in said_by(dltrain, capsys, *arguments)
    assert not any(workdir.iterdir())


def test_the_composed_config_can_be_read_back(dltrain, capsys):
    page = said_by(dltrain, capsys, "--cfg", "job", "regularization=[l2,dropout]", "lr=0.5")
    config = yaml.safe_load(page)
    assert config["lr"] == 0.5
    assert set(config["regularization"]) == {"l2", "dropout"}


@pytest.mark.parametrize("typed, offered", [
    ("optimizer=ad", {"optimizer=adam", "optimizer=adamw"}),
    ("optimizer=adam mod", {"model=", "model."}),
    ("optimizer=adam optimizer.ep", {"optimizer.eps="}),
    ("see", {"seed="}),
])  # fmt: skip
def test_completion_offers_words_and_keys(dltrain, monkeypatch, capsys, typed, offered):
    monkeypatch.setenv("COMP_LINE", f"dltrain {typed}")
    monkeypatch.setenv("COMP_POINT", str(len(f"dltrain {typed}")))
    assert offered <= set(said_by(dltrain, capsys, "--shell-completion", "query=bash").split())


def test_the_completion_of_bash_is_installed_by_its_own_script(workdir):
    """In a real bash: the script registers a function for `dltrain`, which fills COMPREPLY."""
    program = workdir / "bin" / "dltrain"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.argv[0] = 'dltrain'\nfrom dltrain.cli import main\nmain()\n"
    )
    program.chmod(0o755)
    script = """
eval "$(dltrain -sc install=bash)"
complete -p dltrain
COMP_LINE="dltrain optimizer=adamw sched"; COMP_POINT=${#COMP_LINE}; COMP_CWORD=2
hydra_bash_completion
echo "${COMPREPLY[@]}"
"""
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, cwd=workdir, capture_output=True, text=True, check=False
    )
    first, second = done.stdout.strip().splitlines()
    assert first.endswith("-F hydra_bash_completion dltrain")
    assert set(second.split()) == {"schedule=", "schedule."}, done.stderr


@pytest.mark.parametrize("arguments, says", [
    (["--foo"], "There is no option --foo"),
    (["--confg-dir", "x"], r"There is no option --confg-dir\. Did you mean `--config-dir`\?"),
    (["--cfg", "jbo"], "invalid choice: 'jbo'"),
    (["--config-dir", "nowhere"], "`--config-dir` is nowhere, which is no folder"),
    (["model=foo", "--help"], "`model=foo`: there is no such word"),
    (["optimizer=adma", "--cfg", "job"], r"Did you mean `adam`\?"),
    (["model.hiden=3", "--cfg", "job"], r"Did you mean `model.hidden`\?"),
])  # fmt: skip
def test_flags_that_are_refused(dltrain, workdir, arguments, says):
    with pytest.raises(UserError, match=says) as refused:
        dltrain(*arguments)
    assert refused.value.exit_code == 2
    assert not any(workdir.iterdir())


# help --------------------------------------------------------------------------------------------------------------


def test_help_names_every_group_word_and_knob(dltrain, capsys):
    from dltrain.config.compose import open_catalogue

    page, catalogue = said_by(dltrain, capsys, "--help"), open_catalogue()
    for group, words in catalogue.words.items():
        assert f"  {group}=" in page
        assert all(word in page.split() for word in words)
    assert all(f"  {p.path}=" in page for p in catalogue.knobs.values() if p.rule is not None)
    assert max(map(len, page.splitlines())) <= 120


def test_help_of_a_word_tells_its_keys_and_its_learning_rate(dltrain, capsys):
    page = said_by(dltrain, capsys, "optimizer=adam", "--help")
    assert "arXiv:1412.6980" in page
    assert "optimizer.betas=[0.9, 0.999]" in page
    assert "  lr=0.001" in page
    assert "${" not in page


def test_help_of_a_recipe_has_no_empty_line_for_a_long_key(dltrain, capsys):
    assert dltrain("experiment=tabular", "--help") == 0
    lines = capsys.readouterr().out.rstrip("\n").splitlines()
    assert all(line.strip() for line in lines)


@pytest.mark.parametrize("verb", verbs())
def test_help_of_a_verb(dltrain, capsys, verb):
    assert said_by(dltrain, capsys, verb, "--help").startswith(f"dltrain {verb}")
    assert f"dltrain {verb}" in said_by(dltrain, capsys, "--help")


# lists of words, seeds ----------------------------------------------------------------------------------------------


def test_one_word_stands_for_a_list_of_one(train):
    assert_equal(
        train("steps=3", "regularization=l2").best_weights,
        train("steps=3", "regularization=[l2]").best_weights,
    )


def test_a_list_keeps_its_words_and_their_keys(train):
    run = train(
        "steps=2",
        "augmentation=[shift,mixup]",
        "augmentation.mixup.alpha=0.4",
        "regularization=[l1,gradient_clipping]",
    )
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert list(config["augmentation"]) == ["shift", "mixup"]
    assert config["augmentation"]["mixup"]["alpha"] == 0.4
    assert config["words"]["regularization"] == ["l1", "gradient_clipping"]


def test_seed_0_is_a_seed_like_others(train):
    runs = [train("steps=5", f"seed={seed}") for seed in (0, 0, 1)]
    assert [run.summary["seed"] for run in runs] == [0, 0, 1]
    assert_equal(runs[0].best_weights, runs[1].best_weights)
    first = next(iter(runs[0].best_weights))
    assert not runs[0].best_weights[first].equal(runs[2].best_weights[first])


def test_steps_take_the_place_of_a_recipe_s_epochs(train):
    assert train("experiment=tabular", "steps=3").summary["steps"] == 3


# sweeps ------------------------------------------------------------------------------------------------------------


def sweep(dltrain, workdir, *arguments):
    """The exit code of a sweep, and its jobs in their order."""
    before = run_folders(workdir)
    code = dltrain("-m", *arguments, "quiet=true")
    return code, [
        Run(p) for p in sorted(run_folders(workdir) - before, key=lambda p: job_number(p.name) or 0)
    ]


@pytest.mark.parametrize("axis, values", [
    ("seed=range(0,3)", ["seed=0", "seed=1", "seed=2"]),
    ("optimizer=glob(adam*,exclude=adamax)", ["optimizer=adam", "optimizer=adamw"]),
    ("lr=choice(0.1,0.01)", ["lr=0.1", "lr=0.01"]),
    ("regularization=[l2],[l1,dropout]", ["regularization=[l2]", "regularization=[l1,dropout]"]),
    ("batch_size=16,full", ["batch_size=16", "batch_size=full"]),
])  # fmt: skip
def test_sweep(dltrain, workdir, axis, values):
    code, jobs = sweep(dltrain, workdir, axis, "steps=2")
    assert code == 0
    assert [job.summary["overrides"][0] for job in jobs] == values
    assert all(job.summary["status"] == "completed" for job in jobs)
    assert all(job.summary["test"] == {} for job in jobs), "a choice among jobs must not see the test split"


def test_a_job_that_diverges_fails_alone(dltrain, workdir, capsys):
    code, jobs = sweep(dltrain, workdir, "optimizer=sgd", "lr=0.1,1e30,0.01", "steps=8")
    assert code == 7
    assert [job.summary["status"] for job in jobs] == ["completed", "failed", "completed"]
    assert "not finite" in jobs[1].summary["stop_reason"]
    assert "2 of 3 jobs done" in capsys.readouterr().out


@pytest.mark.parametrize("axis, says", [
    ("lr=0.1,nan", "`lr` is nan; it must be: float > 0"),
    ("lr=range(0,2)", "`lr` is 0; it must be: float > 0"),
    ("lr=interval(0.1,1)", "is an interval; a grid needs values"),
    ("optimizer=adam,sgdd", r"no such word\. Did you mean `sgd`\?"),
    ("optimizer=glob(x*)", r"`optimizer=glob\(x\*\)` fits no word of optimizer"),
    ("optimizer.beta=1,2", r"Did you mean `optimizer.betas`\?"),
])  # fmt: skip
def test_a_sweep_is_checked_before_its_first_job(dltrain, workdir, axis, says):
    with pytest.raises(UserError, match=says):
        dltrain("-m", axis)
    assert not any(workdir.iterdir())


# debug words -------------------------------------------------------------------------------------------------------


def test_debug_overfit_reaches_zero(train):
    run = train("debug=overfit")
    assert run.summary["best"]["train/loss"] < 0.01
    assert run.summary["best"]["train/accuracy"] == 1


def test_debug_profile_leaves_a_trace(train):
    run = train("debug=profile", "steps=6")
    (trace,) = (file for file in run.path.rglob("*.json*") if "trace" in file.name)
    assert trace.stat().st_size > 1000


def test_debug_fast_is_ten_steps(train):
    assert train("debug=fast", "model=cnn").summary["steps"] == 10


# the process -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_python_m_dltrain_in_a_folder_with_spaces_and_umlauts(workdir):
    """One real process for all of it: train, sweep, evaluate and rerun; words and code of one's own."""
    here = workdir / "Meine Läufe & Größen"
    (here / "conf" / "model").mkdir(parents=True)
    (here / "conf" / "model" / "größe.yaml").write_text("_target_: eigenes.Netz\n", encoding="utf-8")
    (here / "eigenes.py").write_text(
        "from torch import nn\ndef Netz(input_shape, num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n", encoding="utf-8")  # fmt: skip
    code = (
        "from dltrain.cli import dispatch\nfrom pathlib import Path\n"
        "assert dispatch(['model=größe', 'steps=2', 'quiet=true', 'output=Ergebnisse 1', 'name=erster Lauf']) == 0\n"
        "(run,) = Path('Ergebnisse 1').glob('erster Lauf/*')\n"
        "assert dispatch(['-m', 'seed=0,1', 'steps=2', 'quiet=true', 'output=Ergebnisse 2']) == 0\n"
        "assert dispatch(['evaluate', str(run)]) == 0\nassert dispatch(['rerun', str(run), 'steps=3']) == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(here.rglob("summary.json"))) == 4


def test_main_exits_with_the_code_of_the_mistake(workdir, capsys):
    with pytest.raises(SystemExit) as end:
        main(["optimizer=adma"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(
        "dltrain: `optimizer=adma`: there is no such word. Did you mean `adam`?"
    )


def test_a_failed_run_says_so_in_its_summary(dltrain, workdir, capsys):
    with pytest.raises(SystemExit) as end:
        main(["optimizer=sgd", "lr=1e30", "steps=5", "quiet=true"])
    assert end.value.code == 5
    (summary,) = (json.loads(f.read_text()) for f in workdir.rglob("summary.json"))
    assert summary["status"] == "failed"
    assert not math.isfinite(summary.get("objective") or math.nan)
