"""The walk through methods_rows.txt: each of its words is in `--help`, in the manual and in a test, and learns."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from test_together import DOWNLOADED, GIVEN, WORDS, write_files

from dltrain.cli import dispatch
from dltrain.commands.handbook import pages
from dltrain.commands.help import group_lines, word_page
from dltrain.commands.help import page as help_page
from dltrain.config import saved
from dltrain.config.catalogue import Catalogue
from dltrain.config.compose import open_catalogue
from dltrain.config.door import Door, all_targets
from dltrain.config.search_path import catalogue_dir
from dltrain.data.raw import RawData
from dltrain.run.scoring import score_runs
from dltrain.training.trainer import Trainer
from dltrain.verbs import verbs

HERE = Path(__file__).parent
PAGES = pages()
METHODS = "\n".join(PAGES.values())
ROWS = [line for line in (HERE / "methods_rows.txt").read_text().splitlines() if not line.startswith("#")]
SAMPLE = ("optimizer=sgd", "schedule=cosine", "initializer=orthogonal", "regularization=max_norm", "augmentation=mixup",
          "dataset=iris", "model=linear", "initializer=zeros*", "dataset=none", "averaging=swa")  # fmt: skip
# What a word is put beside, where the default run has no place for it.
BESIDE = {
    "loss=mse": "dataset=diabetes", "loss=mae": "dataset=diabetes optimizer=rprop epochs=60", "loss=huber": "dataset=diabetes loss.delta=50",
    "dataset=none": "model=quadratic", "model=quadratic": "dataset=none", "model=rosenbrock": "dataset=none steps=500",
    "model=saddle": "dataset=none", "dataset=diabetes": "loss=mse",
    "regularization=stochastic_depth": "model.residual=true model.hidden=[128,128]",
    "initializer=whitening": "model=cnn", "dataset.class_weights=balanced": "dataset=breast_cancer",
    "folds=5": "fold=0", "model.bottleneck=16": "model.hidden=[64,64]", "batch_size=1": "epochs=2 optimizer=sgd lr=0.01",
    "batch_size=full": "epochs=150", "lr=auto": "epochs=10", "evaluation.mc_dropout=5": "regularization=[dropout]",
    "evaluation.tta=5": "augmentation=[shift]", "schedule.warmup_epochs=1": "schedule=cosine",
    "dataset.resident_share=0.0": "workers=0",
    **{f"metrics={word}": "dataset=diabetes loss=mse" for word in ("mae", "rmse", "mape", "r2", "spearman")},
}  # fmt: skip
OBJECTIVE = "early_stopping=none optimizer=adam lr=0.1"
# With these the loss cannot halve for a reason of their own: they beat the majority (or the mean) only.
FLOOR = {
    "regularization=label_smoothing": "the smoothed target has an entropy of its own",
    "dataset=diabetes": "a tumour of noise: the best R² known is about one half",
    "loss=mse": "as dataset=diabetes",
    "loss=mae": "as dataset=diabetes",
    "loss=huber": "as dataset=diabetes",
    **{f"metrics={word}": "as dataset=diabetes" for word in ("mae", "rmse", "mape", "r2", "spearman")},
}


def named_in(word: str, text: str) -> bool:
    """Whether a text names the word, as it is or as a class: `gradient_noise`, GradientNoise."""
    alone = rf"(?<![a-z]){re.escape(word)}(?![a-z_])"
    return bool(
        re.search(alone, text) or re.search(rf"(?<![a-z]){word.replace('_', '')}\b", text, re.IGNORECASE)
    )


@pytest.mark.parametrize("row", ROWS)
def test_the_word_is_in_the_help_and_on_the_page(row):
    """Under its own group. That it runs, and what it gives, is for tests/golden and the tests of its family."""
    choice = row.rstrip("*")
    key, _, word = choice.partition("=")
    catalogue = Catalogue(catalogue_dir())
    if key in catalogue.words:
        assert named_in(word, "\n".join(list(group_lines(catalogue, key))[1:]))
        # the overlays have no page
        if f"methods/{key}.md" in PAGES:
            assert re.search(rf"^\| \[?`{word}`", PAGES[f"methods/{key}.md"], re.MULTILINE)
        else:
            assert f"`{choice}`" in METHODS
    else:
        assert key in catalogue.knobs or key in catalogue.params(every_word(catalogue)) or key in verbs()
        name = key.split(".")[-1]
        assert re.search(
            rf"\b{name}\b", "\n".join(help_page(catalogue)) + "\n".join(word_pages(catalogue, key))
        )
        assert re.search(rf"`[^`]*\b{name}\b", METHODS)


def every_word(catalogue: Catalogue) -> dict[str, list[str]]:
    return {group: list(words) for group, words in catalogue.words.items()}


def word_pages(catalogue: Catalogue, key: str) -> list[str]:
    """The help of all words of the group that a key belongs to."""
    group = key.split(".")[0]
    return [line for word in catalogue.words.get(group, {}) for line in word_page(catalogue, group, word)]


def learnable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures with a bright patch whose place tells the class, for the datasets that are downloaded."""
    for module, (names, shape) in DOWNLOADED.items():
        for name in names:
            classes = 100 if name == "cifar100" else 10
            generator = torch.Generator().manual_seed(0)
            targets = torch.arange(20 * classes) % classes
            inputs = torch.randint(60, (len(targets), *shape), dtype=torch.uint8, generator=generator)
            side = math.isqrt(classes) + 1
            for i, target in enumerate(targets.tolist()):
                y, x = (shape[1] // side) * (target // side), (shape[2] // side) * (target % side)
                inputs[i, :, y : y + 3, x : x + 3] += 180
            raw = RawData(inputs, targets, "classification")

            def loader(root, download, labels="fine", raw=raw):
                return raw

            loader.__module__ = module  # the door looks where a target comes from
            monkeypatch.setattr(f"{module}.{name}", loader)


def learn(
    row: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[float, float, float | None, float]:
    """First and best loss on validation, best accuracy there, and the share of the largest class."""
    learnable(monkeypatch)
    write_files(folder)
    choice = row.rstrip("*")
    key, _, word = choice.partition("=")
    given = f"{GIVEN.get(choice, '')} {BESIDE.get(choice, '')}"
    given += " regularization=[l2]" if key == "penalty_schedule" else ""
    given += f" regularization=[{key.split('.')[1]}]" if key.startswith("regularization.") else ""
    given += " optimizer=momentum" if key == "momentum_schedule" else ""
    given += f" {OBJECTIVE}" if "dataset=none" in f"{choice} {given}" else ""
    given = re.sub(
        r"(\S*milestones|\S*cycles|\S*growth|\S*every_steps|dataset.limit|dataset.samples|batch_size)=\S+",
        "",
        given,
    )
    if choice == "initializer=pretrained":
        assert dispatch(["quiet=true", "epochs=1", "name=first"]) == 0
        given += f" initializer.path={next(folder.glob('outputs/first/*'))}"
    if choice == "model=speed_cnn":
        given = "initializer=whitening"  # the widths of the paper
    if choice.startswith("batch_size"):
        given = BESIDE.get(choice, "")
    seen: dict[str, object] = {}
    fit = Trainer.fit

    def watched(trainer: Trainer) -> None:
        split = trainer.parts.val
        seen["first"], seen["targets"] = trainer.validation.score(split)["loss"], split.targets
        fit(trainer)
        seen["best"] = trainer.state.best_row

    monkeypatch.setattr(Trainer, "fit", watched)
    assert dispatch([choice, *given.split(), "quiet=true", "threads=1"]) == 0
    targets, best = seen["targets"], seen["best"]
    share = float(torch.bincount(targets).max() / len(targets)) if not targets.is_floating_point() else 0.0
    return seen["first"], best["val/loss"], best.get("val/accuracy"), share


def ensemble_learns(folder: Path) -> None:
    """The mean output of two runs is better than their mean (L3)."""
    for seed in (0, 1):
        assert dispatch([f"seed={seed}", "epochs=5", "quiet=true"]) == 0
    paths = [file.parent for file in folder.glob("outputs/*/*/summary.json")]
    catalogue = open_catalogue()
    doors = [Door(all_targets(catalogue), [])] * 2
    scores = score_runs(paths, [saved.read(path, catalogue, []) for path in paths], doors)
    *single, together = [score.values for score in scores if score.split == "test"]
    assert together["loss"] < sum(values["loss"] for values in single) / 2 < 0.5 * math.log(10)
    assert together["accuracy"] > 0.9


def score_with(run: Path, override: str) -> dict[str, float]:
    """What `dltrain evaluate RUN override` finds on the test split."""
    catalogue = open_catalogue()
    config = saved.read(run, catalogue, [override])
    (score,) = (
        s for s in score_runs([run], [config], [Door(all_targets(catalogue), [])]) if s.split == "test"
    )
    return score.values


def check_learning(row: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if row == "check":  # a verb: its last line is a model that learns some samples by heart
        assert dispatch(["check"]) == 0
        return
    if row == "evaluate":  # a verb: the mean of two runs, each of which learns
        ensemble_learns(folder)
        return
    first, best, accuracy, majority = learn(row, folder, monkeypatch)
    if row.endswith("*"):  # the symmetric start: hidden units stay equal, and the net stays near the majority
        assert accuracy is not None and accuracy < 0.5
        return
    assert accuracy is None or accuracy > majority
    assert best < (0.8 if row in FLOOR else 0.5) * first
    if row.startswith(
        ("evaluation.mc_dropout", "evaluation.tta")
    ):  # a run is scored with it, after it has learnt
        (run,) = folder.glob("outputs/*/*/summary.json")
        scores = score_with(run.parent, row)
        assert scores["loss"] < 0.5 * first and scores["accuracy"] > majority


@pytest.mark.ci
@pytest.mark.parametrize("row", SAMPLE)
def test_a_sample_of_the_words_learns(row, workdir, monkeypatch):
    check_learning(row, workdir, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_every_word_learns(row, workdir, monkeypatch):
    if row == "model=timm" and "timm" not in WORDS["model"]:
        pytest.skip("timm is not installed")
    check_learning(row, workdir, monkeypatch)


@pytest.mark.gpu
@pytest.mark.parametrize("row", [row for row in ROWS if row != "model=timm"])
def test_every_word_learns_on_a_gpu(row, workdir, monkeypatch):
    """`device=auto` and `precision=auto`: on a GPU, in bfloat16."""
    assert torch.cuda.is_available()
    check_learning(row, workdir, monkeypatch)
