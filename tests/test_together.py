"""Everything goes with everything: every pair of words of two groups, in a run of three steps."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from covering import Row, covering_rows
from torch import Tensor

from dltrain.cli import dispatch
from dltrain.config.catalogue import LIST_GROUPS, Catalogue
from dltrain.config.conflicts import PAIRS
from dltrain.config.search_path import catalogue_dir
from dltrain.data.raw import RawData
from dltrain.errors import UserError

GROUPS = (
    "dataset model initializer optimizer wrap averaging schedule momentum_schedule penalty_schedule regularization "
    "augmentation loss sampler early_stopping"
).split()
SAMPLE = 30  # rows that run by default
DOWNLOADED = {
    "dltrain.data.mnist": (("mnist", "fashion_mnist", "kmnist"), (1, 28, 28)),
    "dltrain.data.cifar": (("cifar10", "cifar100"), (3, 32, 32)),
    "dltrain.data.svhn": (("svhn",), (3, 32, 32)),
}
# What a word needs to be given, or to be small enough for a test.
GIVEN = {
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
    "model=torchvision": "model.name=mobilenet_v3_small",
}
for _group in ("schedule", "momentum_schedule", "penalty_schedule"):  # periods that fit into three steps
    GIVEN[f"{_group}=step"] = f"{_group}.every_steps=1"
    GIVEN[f"{_group}=multistep"] = f"{_group}.milestones=[0.3,0.6]"
    GIVEN[f"{_group}=cosine_restarts"] = f"{_group}.cycles=2 {_group}.growth=1"
    GIVEN[f"{_group}=triangular"] = f"{_group}.cycles=1"

# What two words need to be told when they meet.
TOLD = {
    ("model=mlp", "regularization=stochastic_depth"): "model.residual=true model.hidden=[16,16]",
    ("dataset=diabetes", "augmentation=mixup"): "augmentation.mixup.regression=true",
    **{
        (f"loss={loss}", f"augmentation={word}"): f"augmentation.{word}.regression=true"
        for loss in ("mse", "mae", "huber")
        for word in ("mixup", "cutmix")
    },
    **{
        (f"dataset={word}", f"loss={loss}"): text
        for loss in ("mse", "mae", "huber")
        for word, text in {
            "csv": "dataset.target=u",
            "npz": "dataset.task=regression",
            "teacher": "dataset.task=regression",
        }.items()
    },
    ("optimizer=adamw", "regularization=weight_decay"): "optimizer.weight_decay=0",
    **{
        ("dataset=none", f"regularization={word}"): f"regularization.{word}.all_parameters=true"
        for word in ("l1", "l2", "elastic_net", "weight_decay")
    },
}
LIMIT = "steps=3 batch_size=16 dataset.limit=64 evaluation.every_steps=2 threads=1"


def catalogue_words() -> dict[str, list[str]]:
    """All words of the groups, less those of packages that are not installed."""
    catalogue = Catalogue(catalogue_dir())
    words = {group: sorted(catalogue.words[group]) for group in GROUPS}
    if importlib.util.find_spec("timm") is None:
        words["model"].remove("timm")
    return words


def overrides(row: Row) -> list[str]:
    chosen = [f"{group}={word}" for group, word in row.items()]
    told = [text for pair, text in TOLD.items() if set(pair) <= set(chosen)]
    given = [GIVEN[choice] for choice in chosen if choice in GIVEN]
    return " ".join([*chosen, LIMIT, *given, *told]).split()


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random pictures of the right shape for the datasets that are downloaded."""
    for module, (names, shape) in DOWNLOADED.items():
        classes = dict.fromkeys(names, 10) | {"cifar100": 100}

        def make(name: str, shape: tuple[int, ...] = shape, classes: dict[str, int] = classes) -> object:
            generator = torch.Generator().manual_seed(0)
            count = 3 * classes[name] + 200
            inputs = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=generator)
            raw = RawData(inputs, torch.arange(count) % classes[name], "classification")
            return lambda root, download, labels="fine": raw

        for name in names:
            monkeypatch.setattr(f"{module}.{name}", make(name))


def write_files(folder: Path) -> None:
    """A table, arrays and a folder of pictures for the datasets that are a user's own."""
    from PIL import Image

    rng = np.random.default_rng(0)
    rows = [f"{a},{b},{'ab'[int(a > b)]}" for a, b in rng.random((120, 2)).round(3)]
    (folder / "table.csv").write_text("\n".join(["u,v,y", *rows]))
    pictures = rng.integers(0, 256, (120, 12, 12), dtype=np.uint8)
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
