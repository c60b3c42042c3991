"""Sample inputs of a run and the mistakes of its best weights, as pictures for the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dltrain.config.door import Door
from dltrain.config.schema import Config
from dltrain.data.batches import Joined, Split
from dltrain.data.spec import DataSpec
from dltrain.errors import UserError
from dltrain.loggers.figures import png, to_rgb
from dltrain.losses import to_softmax
from dltrain.report.page import Picture, Samples
from dltrain.run.scoring import build_scored, load_best, predict
from dltrain.screen.numbers import number
from dltrain.storage.run_folder import read_contract

MISTAKES, INPUTS = 24, 12
LARGEST = 96  # pixels of a longer side


def samples_of_run(path: Path, config: Config, door: Door) -> Samples:
    """Return samples of the test split (validation where there is none) with what the best weights say of them.

    Raises UserError for a run whose inputs are not images.
    """
    contract = read_contract(path)
    parts, plan = build_scored(
        config, door, path, contract, whole=False, words=("report", str(path), "--samples")
    )
    if not shows_images(parts.spec) or not parts.splits:
        raise UserError("`--samples` shows images, and the inputs of this run are not images. Leave it out")
    load_best(parts, path)
    name, split = list(parts.splits.items())[-1]
    passes, targets = predict(parts, plan, split)
    captions, wrong = judged(parts.spec, to_softmax(parts.loss, passes[0]).cpu(), targets.cpu())
    spread = torch.arange(min(INPUTS, len(split))) * len(split) // min(INPUTS, len(split))
    about = "Most confident mistakes" if parts.spec.task == "classification" else "Largest errors"
    return Samples(
        name,
        f"{about} on the {name} split",
        pictures(parts.spec, split, wrong[:MISTAKES], captions),
        pictures(parts.spec, split, spread, captions),
    )


def shows_images(spec: DataSpec) -> bool:
    return len(spec.input_shape) == 3 and spec.input_shape[0] in (1, 3)


def judged(spec: DataSpec, outputs: Tensor, targets: Tensor) -> tuple[list[str], Tensor]:
    """Return a caption for each sample, with truth and prediction, and the positions of the mistakes, the worst first.

    Of classes these are the wrong ones by the probability of the predicted class, of quantities all by their absolute error.
    outputs: of classes the logits whose softmax are the probabilities.
    """
    if spec.task != "classification":
        values, truths = spec.in_units(outputs), spec.in_units(targets)
        errors = (values - truths).abs().flatten(1).sum(1)
        pairs = zip(truths.flatten(1).tolist(), values.flatten(1).tolist(), strict=True)
        captions = [f"true {_listed(truth)}, predicted {_listed(value)}" for truth, value in pairs]
        return captions, errors.argsort(descending=True, stable=True)
    sure, predicted = outputs.double().softmax(-1).max(-1)
    truth = targets if targets.dim() == 1 else targets.argmax(-1)
    names = spec.class_names or tuple(map(str, range(outputs.shape[-1])))
    captions = [
        f"true {names[t]}, predicted {names[p]} ({share:.2f})"
        for t, p, share in zip(truth.tolist(), predicted.tolist(), sure.tolist(), strict=True)
    ]
    wrong = (truth != predicted).nonzero().flatten()
    return captions, wrong[sure[wrong].argsort(descending=True, stable=True)]


def _listed(values: list[float]) -> str:
    return ", ".join(map(number, values))


def pictures(
    spec: DataSpec, split: Split | Joined, positions: Tensor, captions: Sequence[str]
) -> list[Picture]:
    """Return samples of a split as PNG files, as they are before the normalization; large ones are made smaller."""
    if len(positions) == 0:
        return []
    inputs = next(iter(split.batches(positions, len(positions)))).inputs.float().cpu()
    raw = inputs * spec.std.cpu() + spec.mean.cpu()
    shrink = LARGEST / max(raw.shape[-2:])
    if shrink < 1:
        raw = torch.nn.functional.interpolate(raw, scale_factor=shrink, mode="bilinear", antialias=True)
    tiles = to_rgb(raw)
    return [
        Picture(png(tile), captions[place]) for tile, place in zip(tiles, positions.tolist(), strict=True)
    ]
