"""Everything goes with everything: every pair of words of two groups, in a run of three steps."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from covering import CATALOGUE, TOLD, Row, conflict, covering_rows

from dltrain.cli import dispatch
from dltrain.config.catalogue import Catalogue
from dltrain.config.conflicts import Rule, refused_pairs
from dltrain.config.search_path import catalogue_dir
from dltrain.data.raw import RawData
from dltrain.errors import UserError

GROUPS = (
    "dataset model initializer optimizer wrap averaging schedule momentum_schedule penalty_schedule regularization "
    "augmentation loss metrics sampler early_stopping diagnostics"
).split()
SAMPLE = 12  # rows that run by default
DOWNLOADED = {
    "dltrain.data.mnist": (("mnist", "fashion_mnist", "kmnist"), (1, 28, 28)),
    "dltrain.data.cifar": (("cifar10", "cifar100"), (3, 32, 32)),
    "dltrain.data.svhn": (("svhn",), (3, 32, 32)),
}
# What a word needs to be given, or to be small enough for a test.
GIVEN = {
    "dataset=none": "batch_size=1 dataset.limit=null",
    "dataset=csv": "dataset.path=table.csv dataset.target=y",
    "dataset=npz": "dataset.path=arrays.npz",
    "dataset=image_folder": "dataset.root=images workers=0",
    "dataset=teacher": "dataset.samples=200",
    "dataset=cifar100": "dataset.limit=null batch_size=100",
    "model=resnet32": "model.width=4",
    "model=resnet56": "model.width=2",
    "model=wide_resnet": "model.width=1",
    "model=vit_tiny": "model.depth=2",
    "model=speed_cnn": "model.widths=[8,16,16]",
    "model=torchvision": "model.name=mobilenet_v2",
    "metrics=top_k": "metrics.top_k.k=1",
    "averaging=swa": "averaging.every_steps=1",
}
GIVEN["diagnostics=curvature"] = "diagnostics.curvature.iterations=2 diagnostics.curvature.samples=16"
GIVEN["diagnostics=surface"] = "diagnostics.surface.points=3 diagnostics.surface.samples=16"
GIVEN["diagnostics=batch_noise"] = "diagnostics.batch_noise.samples=32 diagnostics.batch_noise.sizes=[8,16]"
for _word in ("layers", "prediction"):
    GIVEN[f"diagnostics={_word}"] = f"diagnostics.{_word}.samples=16"
for _group in ("schedule", "momentum_schedule", "penalty_schedule"):  # periods that fit into three steps
    GIVEN[f"{_group}=step"] = f"{_group}.every_steps=1"
    GIVEN[f"{_group}=multistep"] = f"{_group}.milestones=[0.3,0.6]"
    GIVEN[f"{_group}=cosine_restarts"] = f"{_group}.cycles=2 {_group}.growth=1"
    GIVEN[f"{_group}=triangular"] = f"{_group}.cycles=1"
    for _word in ("exponential", "inverse", "inverse_sqrt", "inverse_k"):
        GIVEN[f"{_group}={_word}"] = f"{_group}.unit=steps"

LIMIT = "steps=3 batch_size=16 dataset.limit=64 evaluation.every_steps=2 threads=1"


def catalogue_words() -> dict[str, list[str]]:
    """All words of the groups, less those of packages that are not installed."""
    catalogue = Catalogue(catalogue_dir())
    words = {group: sorted(catalogue.words[group]) for group in GROUPS}
    if importlib.util.find_spec("timm") is None:
        words["model"].remove("timm")
    return words


def overrides(row: Row, limit: str = LIMIT) -> list[str]:
    chosen = [f"{group}={word}" for group, word in row.items()]
    told = [text for pair, text in TOLD.items() if set(pair) <= set(chosen)]
    given = [GIVEN[choice] for choice in chosen if choice in GIVEN]
    return " ".join([*chosen, limit, *given, *told]).split()


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random pictures of the right shape for the datasets that are downloaded."""
    for module, (names, shape) in DOWNLOADED.items():
        classes = dict.fromkeys(names, 10) | {"cifar100": 100}

        def make(
            name: str, shape: tuple[int, ...] = shape, classes: dict[str, int] = classes
        ) -> Callable[..., RawData]:
            generator = torch.Generator().manual_seed(0)
            count = 3 * classes[name] + 200
            inputs = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=generator)
            raw = RawData(inputs, torch.arange(count) % classes[name], "classification")
            return lambda root, download, labels="fine": raw

        for name in names:
            loader = make(name)
            loader.__module__ = module  # the door looks where a target comes from
            monkeypatch.setattr(f"{module}.{name}", loader)


def write_files(folder: Path) -> None:
    """A table, arrays and a folder of pictures for the datasets that are a user's own."""
    from PIL import Image

    rng = np.random.default_rng(0)
    rows = [f"{a},{b},{'ab'[int(a > b)]}" for a, b in rng.random((120, 2)).round(3)]
    (folder / "table.csv").write_text("\n".join(["u,v,y", *rows]))
    pictures = rng.integers(0, 256, (120, 12, 12), dtype=np.uint8)
    for i, picture in enumerate(
        pictures
    ):  # a bright corner tells the class, of two (images) or three (arrays)
        picture[:4, :4], picture[-4:, -4:] = 80 * (i % 3), 200 * (i % 2)
    np.savez(folder / "arrays.npz", inputs=pictures, targets=np.arange(120) % 3)
    for i, picture in enumerate(pictures[:60]):
        file = folder / "images" / f"class{i % 2}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)


def check_row(row: Row, folder: Path) -> None:
    """Three steps of this row: finite losses, and weights that moved."""
    if row["initializer"] == "pretrained":
        assert dispatch([*overrides(row | {"initializer": "default"}), "quiet=true", "name=first"]) == 0
        (first,) = folder.glob("outputs/first/*")
        extra = [f"initializer.path={first}"]
    else:
        extra = []
    assert dispatch([*overrides(row), *extra, "quiet=true", "name=row"]) == 0
    (run,) = folder.glob("outputs/row/*")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["steps"] == 3
    assert all(math.isfinite(value) for value in summary["best"].values())


WORDS = catalogue_words()
ROWS, IMPOSSIBLE = covering_rows(WORDS)


def name_of(row: Row) -> str:
    return " ".join(f"{group}={word}" for group, word in row.items())


@pytest.fixture
def folder(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    stand_in(monkeypatch)
    write_files(workdir)
    return workdir


def test_every_pair_of_words_is_in_a_row_or_in_the_table_of_what_cannot_go_together():
    words = [(group, word) for group, names in WORDS.items() for word in names]
    held = {pair for row in ROWS for pair in combinations(sorted(row.items()), 2)}
    refused = {tuple(sorted(pair)) for pair in combinations(words, 2) if conflict(*pair)}
    beyond = {tuple(sorted(pair)) for pair in IMPOSSIBLE}
    for pair in combinations(sorted(words), 2):
        if pair[0][0] != pair[1][0]:
            assert (pair in held) != (pair in refused | beyond), pair


def test_pairs_that_a_third_group_excludes_are_those_of_study_problems():
    """Such as model=quadratic with augmentation=flip: the one needs dataset=none, and the other forbids it."""
    for pair in IMPOSSIBLE:
        assert {
            ("dataset", "none"),
            *(("model", word) for word in ("quadratic", "rosenbrock", "saddle")),
        } & set(pair)


def sample() -> list[Row]:
    """Rows of small models that hold every word of every group at least once, as far as `SAMPLE` rows go."""
    heavy = {"resnet32", "resnet56", "wide_resnet", "torchvision", "timm", "speed_cnn", "vit_tiny"}
    light = [row for row in ROWS if row["model"] not in heavy and row["initializer"] != "pretrained"]
    chosen: list[Row] = []
    missing = {item for row in light for item in row.items()}
    while len(chosen) < SAMPLE:
        row = max(light, key=lambda row: len(missing & set(row.items())))
        chosen.append(row)
        light.remove(row)
        missing -= set(row.items())
    return chosen


@pytest.mark.ci
@pytest.mark.parametrize("row", sample(), ids=name_of)
def test_a_sample_of_rows_trains(row, folder):
    check_row(row, folder)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_every_row_trains(row, folder):
    check_row(row, folder)


REFUSED: dict[tuple[Rule, str, str], tuple[str, str]] = {}
for _rule, _one, _other in refused_pairs(CATALOGUE):
    REFUSED.setdefault((_rule, _one.group, _other.group), (_one.label, _other.label))


@pytest.mark.parametrize(
    "rule, labels",
    [pytest.param(key[0], labels, id=" with ".join(labels)) for key, labels in REFUSED.items()],
)
def test_a_pair_that_cannot_go_together_is_refused_with_its_reason(rule, labels, dltrain, folder):
    """One pair of words for each rule and two groups, before anything is built or made."""
    given = [text for label in labels for text in GIVEN.get(label, "").split()]
    with pytest.raises(UserError) as refused:
        dltrain(*labels, *given)
    defaults = "reads no sample|has no samples|a class has no distance"  # as the default dataset does not fit
    assert rule.reason in str(refused.value) or re.search(defaults, str(refused.value))
    assert not (folder / "outputs").exists()


def test_an_operation_without_second_derivative_is_told(folder, dltrain):
    arguments = "model=torchvision model.name=mobilenet_v3_small optimizer=steepest steps=1 batch_size=8 dataset.limit=16"
    with pytest.raises(
        UserError, match=r"optimizer=steepest.*second derivative.*hardsigmoid.*\n.*optimizer=adam"
    ):
        dltrain(*arguments.split(), "quiet=true")
