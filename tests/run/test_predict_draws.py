"""`evaluation.mc_dropout` and `evaluation.tta` in `predict`: the outputs of `evaluate`, with its draws, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dltrain import api
from dltrain.commands.evaluate import named_copies
from dltrain.errors import UserError
from dltrain.run import scoring
from dltrain.run.draws import Draws
from dltrain.storage.tensors import load_tensors

DRAWS = {
    "mc_dropout": ("evaluation.mc_dropout=3",),
    "tta": ("evaluation.tta=4",),
    "named": ("evaluation.tta=2", "evaluation.tta_words=[noise]"),
    "both": ("evaluation.tta=2", "evaluation.mc_dropout=3"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    folder = tmp_path_factory.mktemp("draws")
    draw = np.random.default_rng(0)
    classes = np.arange(120) % 2
    inputs = (draw.normal(size=(120, 6)) + classes[:, None]).astype(np.float32)
    np.savez(folder / "d.npz", inputs=inputs, targets=classes)
    words = (
        "model.hidden=[8]",
        "regularization=[dropout]",
        "augmentation=[noise]",
        "evaluation.batch_size=5",
    )
    keys = {"dataset.path": str(folder / "d.npz")}
    return api.train(*words, dataset="npz", steps=5, quiet=True, output=folder, **keys)


def scored(run: api.Run, changes: tuple[str, ...]) -> torch.Tensor:
    """Return what `evaluate` computes for the test split."""
    fresh = api.load(run.path)
    config, door = fresh._saved(list(changes))
    config = named_copies(config, fresh._words())
    parts, plan = scoring.build_scored(config, door, run.path, scoring.read_contract(run.path), whole=False)
    scoring.load_best(parts, run.path)
    passes, _ = scoring.predict(parts, plan, parts.splits["test"], Draws.of(config))
    return scoring.mean_output(parts, passes)


@pytest.mark.parametrize("name", DRAWS)
def test_a_split_has_the_outputs_of_evaluate(run: api.Run, name: str) -> None:
    found = api.load(run.path, *DRAWS[name]).predict(split="test").outputs
    assert torch.equal(torch.from_numpy(found), scored(run, DRAWS[name]))
    assert not np.array_equal(found, run.predict(split="test").outputs)


def test_cutout_of_images_that_are_not_centered_covers_with_their_mean_in_training_and_in_predict(
    tmp_path: Path,
) -> None:
    """Training and `predict` cover with the mean of the training images, which a file of the run keeps."""
    pixels = np.random.default_rng(0).integers(100, 200, (60, 1, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", inputs=pixels, targets=np.arange(60) % 2)
    keys = {"dataset.path": str(tmp_path / "d.npz"), "dataset.normalize": "none", "model.hidden": [4]}
    words = ("augmentation=[cutout]", "augmentation.cutout.size=4")
    run = api.train(*words, dataset="npz", steps=2, quiet=True, output=tmp_path, **keys)
    known = load_tensors(run.path / "checkpoints" / "normalization.safetensors")
    assert known["mean"].item() == 0
    assert 0.5 < known["average"].item() < 0.65
    fresh = api.load(run.path, "evaluation.tta=3")
    assert np.array_equal(fresh.predict(split="test").outputs, scored(run, ("evaluation.tta=3",)).numpy())
    found = api.load(run.path, "evaluation.tta=3").predict(pixels[:10]).outputs
    black = (
        api.load(run.path, "evaluation.tta=3", "augmentation.cutout.fill=black").predict(pixels[:10]).outputs
    )
    assert not np.array_equal(found, black)


def test_the_rows_of_the_test_split_as_a_new_file_have_them_too(run: api.Run, tmp_path: Path) -> None:
    places = run.predict(split="test").where - 1
    with np.load(str(run.path.parents[1] / "d.npz")) as data:
        np.save(tmp_path / "new.npy", data["inputs"][places])
    found = api.load(run.path, *DRAWS["both"]).predict(str(tmp_path / "new.npy")).outputs
    assert torch.equal(torch.from_numpy(found), scored(run, DRAWS["both"]))


def test_draws_that_a_model_cannot_have_are_refused(run: api.Run) -> None:
    with pytest.raises(UserError, match="names mixup or cutmix"):
        api.load(run.path, "evaluation.tta=2", "evaluation.tta_words=[mixup]").predict(split="test")
