"""`dltrain reproduce`: the first step that differs from the records, though every hash was rewritten."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Run, job_at
from faults import at_step, copy_of, everything, only_run, swept
from safetensors.torch import load_file, save_file
from test_faults_verify import small

from dltrain.commands.verify import verify_run
from dltrain.config.compose import open_catalogue
from dltrain.errors import CheckFailed, UserError
from dltrain.run import experiment, reproduction
from dltrain.storage import manifest
from dltrain.training.signals import Interrupted
from dltrain.training.trainer import Trainer
from dltrain.training.validation import Validation

__all__ = ["small"]


def rehash(run: Path) -> None:
    """Rewrite every hash, as a forger who knows the format does."""
    for folder in (run / "checkpoints").glob("step-*"):
        facts = json.loads((folder / "manifest.json").read_text())
        facts["sha256"] = {name: manifest.digest(folder / name) for name in facts["sha256"]}
        lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line[0].isdigit() or float(line.split(",")[1]) <= facts["step"]]
        lines = manifest.Lines()
        lines.add("".join(kept))
        facts["metrics"] = lines.as_json()
        (folder / "manifest.json").write_text(json.dumps(facts))
    manifest.write(run, manifest.covered(run))


def change_row(run: Path, draw: random.Random) -> int:
    head, *lines = (run / "metrics.csv").read_text().splitlines()
    names, number = head.split(","), draw.randrange(len(lines))
    cells = lines[number].split(",")
    column = draw.choice([i for i, n in enumerate(names) if "/" in n or n == "grad_norm"])
    cells[column] = repr(float(cells[column]) * (1 + 1e-9) + 1e-12)
    lines[number] = ",".join(cells)
    (run / "metrics.csv").write_text("\n".join([head, *lines]) + "\n")
    return int(cells[names.index("step")])


@pytest.mark.parametrize(
    "change",
    [
        {"threads": "x"},
        {"threads": -1},
        {"threads": True},
        {"versions": 3},
        {"git": [1]},
        {"best": "x"},
        {"test": 3},
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused(small, dltrain, tmp_path, change):
    """A folder of somebody else ends in a message, not in a traceback, and `verify` lists the problem."""
    run = shutil.copytree(small, tmp_path / "copy")
    (key,), file = change, run / "summary.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=f"summary.json: `{key}` is .*, which no run wrote") as refused:
        dltrain("reproduce", str(run))
    with pytest.raises(CheckFailed):
        dltrain(*shlex.split(str(refused.value).rpartition(": dltrain ")[2]))


def test_a_word_that_no_replay_can_tell_from_another_differs(small, dltrain, capsys):
    """Found by a hostile tester: adam said that it was amsgrad, by the name that its class had in earlier versions."""
    text = (small / "config.yaml").read_text()
    target, former = "dltrain.optimizers.torch_optimizers.adam", "torch.optim.Adam"
    (small / "config.yaml").write_text(
        text.replace(target, former).replace("optimizer: adam", "optimizer: amsgrad")
    )
    for file in (small / "summary.json", *small.glob("checkpoints/step-*/manifest.json")):
        changed = (
            file.read_text().replace(target, former).replace('"optimizer": "adam"', '"optimizer": "amsgrad"')
        )
        file.write_text(changed)
    rehash(small)
    with pytest.raises(CheckFailed):
        dltrain("verify", small)
    with pytest.raises(CheckFailed, match="was not reproduced"):
        dltrain("reproduce", small)
    assert "config.yaml, words: optimizer=amsgrad" in capsys.readouterr().out.split("first difference")[1]


def test_what_was_asked_is_compared(small, dltrain, capsys):
    file = small / "summary.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"overrides": ["lr=0.5"]}))
    rehash(small)
    with pytest.raises(CheckFailed, match="was not reproduced"):
        dltrain("reproduce", small)
    assert "summary.json, overrides: lr=0.5; expected 0.001" in capsys.readouterr().out


@pytest.mark.parametrize("step", ["nan", "inf", "1.5"])
def test_a_step_that_is_no_whole_number_is_refused(small, dltrain, tmp_path, step):
    run = shutil.copytree(small, tmp_path / "copy")
    head, first, *rest = (run / "metrics.csv").read_text().splitlines()
    cells = dict(zip(head.split(","), first.split(","), strict=True)) | {"step": step}
    (run / "metrics.csv").write_text("\n".join([head, ",".join(cells.values()), *rest, ""]))
    with pytest.raises(
        UserError, match="metrics.csv is no table of a run: it has a step that is no whole number"
    ):
        dltrain("reproduce", str(run))


def chosen_checkpoint(run: Path, draw: random.Random) -> Path:
    return draw.choice(sorted((run / "checkpoints").glob("step-*")))


def change_weight(run: Path, draw: random.Random) -> int:
    folder = chosen_checkpoint(run, draw)
    weights = load_file(folder / "weights.safetensors")
    tensor = weights[draw.choice(sorted(weights))].view(-1)
    tensor[draw.randrange(len(tensor))] += 1e-5
    save_file(weights, folder / "weights.safetensors")
    return int(folder.name.partition("-")[2])


def change_state(run: Path, draw: random.Random) -> int:
    folder = chosen_checkpoint(run, draw)
    state = torch.load(folder / "state.pt", weights_only=True)
    state["optimizer"]["state"][0]["exp_avg"].view(-1)[0] += 1e-6
    torch.save(state, folder / "state.pt")
    return int(folder.name.partition("-")[2])


def change_best(run: Path, draw: random.Random) -> int:
    file = run / "checkpoints" / "best.safetensors"
    weights = load_file(file)
    next(iter(weights.values())).view(-1)[0] += 1e-5
    save_file(weights, file)
    return int(Run(run).summary["best"]["step"])


def change_score(run: Path, draw: random.Random) -> int:
    said = Run(run).summary
    said["test"]["accuracy"] += 0.01
    (run / "summary.json").write_text(json.dumps(said))
    return int(said["steps"])


def change_seed(run: Path, draw: random.Random) -> int:
    content = yaml.safe_load((run / "config.yaml").read_text())
    content["seed"] = 5
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    for file in (run / "checkpoints").glob("step-*/manifest.json"):
        facts = json.loads(file.read_text())
        facts["config"]["seed"] = 5
        file.write_text(json.dumps(facts))
    return int(Run(run).rows[0]["step"])


PLANTED = (
    [change_row] * 8 + [change_weight] * 5 + [change_state] * 4 + [change_best, change_score, change_seed]
)


def test_the_first_differing_step_of_20_planted_differences(small, dltrain, capsys):
    original, draw, wrong = Path("original"), random.Random(16), []
    shutil.copytree(small, original)
    for number, plant in enumerate(PLANTED):
        step = plant(small, draw)
        rehash(small)
        hashes = [f for f in verify_run(small, open_catalogue(), False).findings if "SHA-256" in str(f)]
        capsys.readouterr()
        with pytest.raises(CheckFailed) as error:
            dltrain("reproduce", small, "--json")
        said = json.loads(capsys.readouterr().out)
        if said["first_different_step"] != step or hashes or f"step {step} " not in str(error.value):
            wrong.append((number, plant.__name__, step, said, hashes))
        shutil.rmtree(small)
        shutil.copytree(original, small)
    assert wrong == []


def rewrite(file: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def said(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """A forgery of summary.json."""
    return lambda run: rewrite(run / "summary.json", change)


def perfect(summary: dict, **changes: object) -> None:
    summary |= {"test": {"loss": 1e-4, "accuracy": 1.0}, "objective": 1e-3, **changes}


def shorter(run: Path, **changes: object) -> None:
    """Take the last evaluation away, and the best of the others for the result."""
    for file in (run / "checkpoints").glob("step-00000006"):
        shutil.rmtree(file)
    text = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(text[:-1]))
    best = Run(run).rows[-1]
    file = run / "events.jsonl"
    events = [line for line in file.read_text().splitlines(keepends=True) if json.loads(line)["step"] < 6]
    file.write_text("".join(events))
    shutil.copy(
        run / "checkpoints" / "step-00000004" / "weights.safetensors",
        run / "checkpoints" / "best.safetensors",
    )
    facts = {"steps": 4, "epochs": 2.0, "best_epoch": 2.0, "best": best, "objective": best["val/loss"]}
    rewrite(run / "summary.json", lambda summary: summary.update(facts | changes))


def gone(*names: str) -> Callable[[Path], None]:
    return lambda run: [(run / name).unlink() for name in names] and None


def with_status(status: str, **changes: object) -> Callable[[Path], None]:
    return said(lambda summary: perfect(summary, status=status, **changes))


def never_best(run: Path) -> None:
    """An unfinished run with weights of a stranger, which `predict` would use."""
    change_best(run, random.Random(0))
    rewrite(
        run / "summary.json", lambda s: [s.pop(name) for name in ("test", "objective", "best", "best_epoch")]
    )
    rewrite(run / "summary.json", lambda s: s.update(status="interrupted"))


def unfinished(**changes: object) -> Callable[[Path], None]:
    """A finished run that says a signal ended it, and little of its end."""
    ends = ("test", "objective", "best", "best_epoch", "epochs", "constant")
    return said(lambda s: s.update({**dict.fromkeys(ends), "status": "interrupted"} | changes))


def without_checkpoints(run: Path) -> None:
    """Noise that another machine would explain, and no weights to compare but the best."""
    for folder in (run / "checkpoints").glob("step-*"):
        shutil.rmtree(folder)
    rewrite(
        run / "summary.json",
        lambda s: s.update(stacked=True, test={k: v * 1.0009 for k, v in s["test"].items()}),
    )


def other_event(run: Path) -> None:
    text = (run / "events.jsonl").read_text()
    first = next(line for line in text.splitlines() if '"evaluated"' in line)
    forged = json.dumps(json.loads(first) | {"val/accuracy": 1.0})
    (run / "events.jsonl").write_text(text.replace(first, forged))


def not_a_number(run: Path) -> None:
    """A learning rate at which no run gets far."""
    content = yaml.safe_load((run / "config.yaml").read_text())
    content["lr"] = content["optimizer"]["lr"] = 1e38
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    for file in (run / "checkpoints").glob("step-*/manifest.json"):
        rewrite(file, lambda facts: facts["config"].update({"lr": 1e38, "optimizer.lr": 1e38}))


FORGED: dict[str, tuple[Callable[[Path], None], str]] = {
    **{
        status: (with_status(status), "summary.json, (status|best|objective|test)")
        for status in ("degraded", "pruned", "interrupted", "failed", "running", "diverged", "early_stopped")
    },
    "degraded, with a problem": (with_status("degraded", problems=["x"]), "summary.json, (objective|test)"),
    "completed early": (shorter, "summary.json, status: 'completed', after 4 of 6 steps"),
    "data.json": (
        lambda run: rewrite(run / "data.json", lambda c: c["class_names"].reverse()),
        "data.json, class_names",
    ),
    "constant": (said(lambda s: s["constant"].update(accuracy=0.01)), "summary.json, constant"),
    "parameters": (said(lambda s: s.update(parameters=5)), "summary.json, parameters"),
    "metric": (said(lambda s: s.update(metric="val/accuracy")), "summary.json, metric"),
    "mode": (said(lambda s: s.update(mode="max")), "summary.json, mode"),
    "steps": (said(lambda s: s.update(steps=99999)), "summary.json, steps"),
    "best epoch": (said(lambda s: s.update(best_epoch=1.0)), "summary.json, best_epoch"),
    "reason": (said(lambda s: s.update(stop_reason="converged")), "summary.json, stop_reason"),
    "lr": (said(lambda s: s["config"].update(lr=0.5)), "summary.json, config, lr"),
    "no best weights": (gone("checkpoints/best.safetensors"), "best.safetensors: it is missing"),
    "no report": (gone("per_class.csv"), "per_class.csv: it is missing"),
    "no reports": (gone("per_class.csv", "confusion_matrix.csv"), "per_class.csv: it is missing"),
    "best weights of an unfinished run": (never_best, "weights that no evaluation found"),
    "a constant guess of an unfinished run": (unfinished(constant={"loss": 0.001}), "summary.json, constant"),
    "steps of an unfinished run": (
        unfinished(steps=99999),
        "summary.json, steps: 99999, and the last record is of step 6",
    ),
    "noise without checkpoints": (
        without_checkpoints,
        "summary.json, test: .*, and the best weights are equal to the last bit",
    ),
    "an event": (other_event, "events.jsonl, step 2: val/accuracy 1.0"),
    "noise": (
        said(lambda s: s.update(stacked=True, test={k: v * 1.0009 for k, v in s["test"].items()})),
        "summary.json, test: .*, and the weights up to step 6 are equal to the last bit",
    ),
    "not finite": (not_a_number, ""),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_record_is_different_whatever_it_says_of_its_end(small, dltrain, capsys, name):
    """Found by a hostile tester, all hashes rewritten: scores of a run that was `degraded`, and what nothing compared."""
    forge, expected = FORGED[name]
    forge(small)
    rehash(small)
    with pytest.raises(CheckFailed):
        dltrain("reproduce", small)
    assert re.search(f"first difference   step [0-9]+, .*{expected}", capsys.readouterr().out)


@pytest.mark.parametrize("columns", ["twice", "row"])
def test_a_table_that_readers_read_differently_is_refused(small, dltrain, columns):
    """Of two columns of one name, or two rows of one step, each reader takes another one."""
    file = small / "metrics.csv"
    head, first, *rest = file.read_text().splitlines(keepends=True)
    lines = (
        [f"val/accuracy,{head}", *(f"1.0,{line}" for line in (first, *rest))]
        if columns == "twice"
        else [head, first, first, *rest]
    )
    file.write_text("".join(lines))
    manifest.write(small, manifest.covered(small))
    reason = "it has two columns 'val/accuracy'" if columns == "twice" else "its row 2 is of step 2, after 2"
    with pytest.raises(UserError, match=f"metrics.csv is no table of a run: {reason}"):
        dltrain("reproduce", small)
    with pytest.raises(CheckFailed):
        dltrain("verify", small)


def test_averages_of_a_checkpoint_are_compared(workdir, dltrain):
    """Found by a hostile tester: `resume` takes them for the best weights."""
    run = copy_of(everything()[0], workdir / "run").path
    files = sorted((run / "checkpoints").glob("step-*/averaged.safetensors"))
    save_file({name: tensor * 0 + 1 for name, tensor in load_file(files[0]).items()}, files[0])
    rehash(run)
    with pytest.raises(CheckFailed, match=f"step {int(files[0].parent.name[5:])} differs"):
        dltrain("reproduce", run)
    files[0].unlink()
    rewrite(files[0].parent / "manifest.json", lambda facts: facts["sha256"].pop(files[0].name))
    rehash(run)
    with pytest.raises(CheckFailed):
        dltrain("reproduce", run)


def honest(dltrain, capsys, run: Path) -> str:
    capsys.readouterr()
    assert dltrain("reproduce", run) == 0
    page = capsys.readouterr().out
    assert "same bits" in page
    return page


def test_runs_that_ended_otherwise_are_the_same(workdir, dltrain, capsys, monkeypatch):
    """Pruned, failed, degraded, extended and interrupted: their steps are compared, and what they say of their end."""
    common = ("steps=20", "evaluation.every_steps=5", "threads=1", "quiet=true")
    reason = lambda row, best: "too slow" if row["step"] == 10 else None  # noqa: E731
    with monkeypatch.context() as patch:
        original = Trainer.__init__
        patch.setattr(Trainer, "__init__", lambda *args: original(*args[:5], reason))
        dltrain(*common, "name=pruned")
    pruned = only_run(workdir, "pruned")
    assert pruned.summary["status"] == "pruned" and pruned.summary["test"]
    assert "status pruned (decided by the sweep)" in honest(dltrain, capsys, pruned.path)
    rewrite(pruned.path / "summary.json", lambda s: s["test"].update(accuracy=1.0))
    rehash(pruned.path)
    with pytest.raises(CheckFailed):
        dltrain("reproduce", pruned.path)

    def full(file: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(file))

    with monkeypatch.context() as patch, pytest.raises(UserError):
        patch.setattr(experiment, "replace", full)
        dltrain(*common, "name=degraded")
    page = honest(dltrain, capsys, only_run(workdir, "degraded").path)
    assert "per_class.csv (it was not written)" in page

    def broken(trainer: Trainer) -> None:
        raise OSError(5, "Input/output error", "x")

    with monkeypatch.context() as patch, pytest.raises(UserError):
        at_step(patch, 13, broken)
        dltrain(*common, "checkpoint.every_steps=5", "name=failed")
    failed = only_run(workdir, "failed")
    assert failed.summary["status"] == "failed"
    assert "status failed" in honest(dltrain, capsys, failed.path)

    dltrain(*common, "name=longer")
    longer = only_run(workdir, "longer")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_step(patch, 22, lambda trainer: signal.raise_signal(signal.SIGINT))
        dltrain("resume", longer.path, "steps=40")
    assert longer.summary["status"] == "interrupted"
    assert "status interrupted" in honest(dltrain, capsys, longer.path)


def test_the_winner_of_a_sweep_is_the_same_with_the_scores_of_its_test_split(workdir, dltrain, capsys):
    """Its jobs do not score it; the sweep adds the scores of the best."""
    common = ("model.hidden=[8]", "evaluation.test=true", "threads=1", "quiet=true", "sweep.backend=local")
    assert dltrain("-m", "lr=0.01,0.001", "epochs=1", "name=won", *common) == 0
    (folder,) = workdir.glob("outputs/won/*")
    winner = folder / json.loads((folder / "sweep.json").read_text())["best"]
    assert Run(winner).summary["test"]
    assert dltrain("verify", folder) == 0
    honest(dltrain, capsys, winner)
    rewrite(winner / "summary.json", lambda s: s["test"].update(accuracy=1.0))
    rehash(winner)
    with pytest.raises(CheckFailed):
        dltrain("reproduce", winner)


def test_the_same_bits_also_of_a_run_with_everything(workdir, dltrain, capsys):
    """Dropout, mixup, EMA, plateau and accumulation, of a run that was killed and resumed."""
    cut = copy_of(everything()[1], workdir / "cut").path
    assert dltrain("resume", cut) == 0
    capsys.readouterr()
    for arguments, share in (((), "(100%)"), (("--replay", "1"), "probability")):
        assert dltrain("reproduce", cut, *arguments) == 0
        page = capsys.readouterr().out
        assert "same bits" in page and share in page
    assert sorted(f.name for f in workdir.iterdir()) == ["cut"]


def test_replay_states_the_share_that_it_replayed(small, dltrain, capsys):
    assert dltrain("reproduce", small, "--replay", "1", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    ((start, end),) = said["replayed"]
    assert said["replayed_share"] == (end - start) / Run(small).summary["steps"]
    assert said["verdict"] == "same bits"


def test_another_machine_may_deviate_by_noise_and_is_named_as_the_cause(small, dltrain, capsys, monkeypatch):
    score = Validation.score
    monkeypatch.setattr(
        Validation,
        "score",
        lambda *args: {name: value * (1 + 1e-9) for name, value in score(*args).items()},
    )
    monkeypatch.setattr(reproduction, "processor", lambda: "riscv64 RVV")
    assert dltrain("reproduce", small) == 0
    page = capsys.readouterr().out
    assert "same within noise" in page and re.search(r"processor .* → riscv64 RVV", page)
    with pytest.raises(CheckFailed):
        dltrain("reproduce", small, "tolerance=0")
    assert "likely cause       processor " in capsys.readouterr().out


def test_other_data_are_named_as_the_cause(small, dltrain, capsys):
    lines = Path("table.csv").read_text().splitlines()
    Path("table.csv").write_text(
        "\n".join([lines[0], *("9" + line.lstrip("-") for line in lines[1:])]) + "\n"
    )
    with pytest.raises(CheckFailed):
        dltrain("reproduce", small)
    assert "likely cause       data (other " in capsys.readouterr().out


def test_jobs_of_a_sweep_are_reproduced(workdir, dltrain, capsys):
    folder = copy_of(swept(), workdir / "sweep").path
    assert dltrain("reproduce", job_at(folder, 1)) == 0
    assert "same bits" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, rule", [
    (("--replay", "0"), "must be a number of stretches"), (("--replay",), "must be a number of stretches"),
    (("--replay=x",), "must be a number of stretches"), (("lr=1",), "would make it another run"),
    (("tolerance=-1",), r"must be a float in \[0, 1\)"), (("tolerance=nan",), "must be a float"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(small, dltrain, arguments, rule):
    with pytest.raises(UserError, match=rule):
        dltrain("reproduce", small, *arguments)
    with pytest.raises(UserError, match="Name one run folder"):
        dltrain("reproduce")


def test_an_objective_without_data_is_sound_and_the_same(workdir, dltrain, capsys):
    dltrain("dataset=none", "model=rosenbrock", "steps=10", "threads=1", "quiet=true", "name=x")
    run = only_run(workdir, "x").path
    assert dltrain("verify", run) == 0
    honest(dltrain, capsys, run)
