"""`dltrain reproduce`: the first step that differs from the records, though every hash was rewritten."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Run, job_at
from faults import copy_of, everything, swept
from safetensors.torch import load_file, save_file
from test_faults_verify import small

from dltrain.commands.verify import verify_run
from dltrain.config.compose import open_catalogue
from dltrain.errors import CheckFailed, UserError
from dltrain.run import reproduction
from dltrain.storage import manifest

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


@pytest.mark.parametrize("step", ["nan", "inf", "1.5"])
def test_a_step_that_is_no_whole_number_is_refused(small, dltrain, tmp_path, step):
    run = shutil.copytree(small, tmp_path / "copy")
    head, first, *rest = (run / "metrics.csv").read_text().splitlines()
    cells = dict(zip(head.split(","), first.split(","), strict=True)) | {"step": step}
    (run / "metrics.csv").write_text("\n".join([head, ",".join(cells.values()), *rest, ""]))
    with pytest.raises(UserError, match="metrics.csv has a step that is no whole number"):
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
    change_row(small, random.Random(3))
    rehash(small)
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
