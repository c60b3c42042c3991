"""Scoring runs that are done: each by its best weights, and several together as an ensemble."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.augmentation.mix import CutMix, Mixup
from dltrain.augmentation.pipeline import Augmentation
from dltrain.build import build
from dltrain.config.door import Door
from dltrain.config.schema import Config
from dltrain.errors import CheckpointProblem, UserError
from dltrain.seeding import GlobalStream, Stream
from dltrain.training.evaluation import autocast, evaluating
from dltrain.training.parts import Parts, Plan
from dltrain.training.run_folder import read_statistics


@dataclass(frozen=True)
class Score:
    """The scores of a run (or of the ensemble) on one split."""

    run: str
    split: str
    samples: int
    values: dict[str, float]


def score_runs(paths: list[Path], configs: list[Config], doors: list[Door]) -> list[Score]:
    """Val and test scores of each run's best weights; with several runs also of the mean of their outputs (L3).

    Raises CheckpointProblem for a run without best weights, UserError when the runs do not share their data.
    """
    scores, outputs = [], []
    for path, config, door in zip(paths, configs, doors, strict=True):
        parts, plan = build(config, door, read_statistics(path))
        load_best(parts, path)
        draws = Draws(config.evaluation.mc_dropout, config.evaluation.tta)
        outputs.append({name: predict(parts, plan, split, draws) for name, split in splits_of(parts).items()})
        scores += [
            Score(str(path), name, len(split), measure(parts, *outputs[-1][name]))
            for name, split in splits_of(parts).items()
        ]
    return scores + (ensemble(parts, outputs) if len(paths) > 1 else [])


def splits_of(parts: Parts) -> dict[str, Any]:
    return {name: split for name, split in (("val", parts.val), ("test", parts.test)) if split is not None}


def load_best(parts: Parts, path: Path) -> None:
    """Give the model the best weights of a run. Raises CheckpointProblem for weights that are not this model's."""
    try:
        parts.model.load_state_dict(best_weights(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise CheckpointProblem(
            f"{path}/checkpoints/best.safetensors does not fit its config.yaml: {reason}"
        ) from None


def best_weights(path: Path) -> dict[str, Tensor]:
    """checkpoints/best.safetensors of a run."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path / "checkpoints" / "best.safetensors"
    if not file.is_file():
        raise CheckpointProblem(
            f"{path} has no checkpoints/best.safetensors: it has not finished. Go on with: dltrain resume {path}"
        )
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointProblem(f"{file} is damaged ({error})") from None


@dataclass(frozen=True)
class Draws:
    """How many passes with dropout (Gal & Ghahramani 2016, arXiv:1506.02142), and over how many augmented copies."""

    mc_dropout: int = 0
    tta: int = 0


def predict(parts: Parts, plan: Plan, split: Any, draws: Draws | None = None) -> tuple[Tensor, Tensor]:
    """All logits (N, C) and targets (N, …) of a split; with draws, those of the mean output.

    Raises UserError for Monte-Carlo dropout without dropout, and for test-time augmentation without augmentation.
    """
    draws = draws or Draws()
    augment = copies_of(parts) if draws.tta else None
    passes = [
        one_pass(parts, plan, split, number, draws.mc_dropout > 0, augment)
        for number in range(max(draws.mc_dropout, draws.tta, 1))
    ]
    logits = torch.stack([logits for logits, _ in passes])
    return logits[0] if len(passes) == 1 else mean_output(parts, logits), passes[0][1]


def one_pass(
    parts: Parts, plan: Plan, split: Any, number: int, mc_dropout: bool, augment: Augmentation | None
) -> tuple[Tensor, Tensor]:
    """Logits and targets of a split; the draws of a batch depend on the run's seed, the pass and the batch alone."""
    outputs, targets = [], []
    copies, masks = Stream(plan.seed, "tta", plan.device), GlobalStream(plan.seed, "mc_dropout", plan.device)
    batches = split.batches(torch.arange(len(split)), plan.evaluation_batch_size)
    with evaluating(parts.model), drawing_dropout(parts.model, mc_dropout):
        for step, batch in enumerate(batches, start=number << 20):
            inputs = batch.inputs
            if augment is not None:
                inputs, _ = augment(inputs, batch.targets, copies.at(step), batch.indices, number)
            if mc_dropout:
                masks.at(step)
            with autocast(plan.device, plan.precision):
                outputs.append(parts.model(inputs).float())
            targets.append(batch.targets)
    return torch.cat(outputs), torch.cat(targets)


@contextmanager
def drawing_dropout(model: nn.Module, active: bool) -> Iterator[None]:
    """Inside, the dropout layers draw as in training, and everything else evaluates."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0]
    if active and not layers:
        raise UserError(
            "`evaluation.mc_dropout` draws dropout, and this model has none. Train with regularization=[dropout]."
        )
    for layer in layers:
        layer.train(active)
    yield  # `evaluating`, around this, puts all modes back


def copies_of(parts: Parts) -> Augmentation:
    """The run's augmentation without what mixes samples: a mixed sample has no target of its own."""
    transforms = parts.augmentation.transforms if parts.augmentation is not None else []
    kept = [transform for transform in transforms if not isinstance(transform, Mixup | CutMix)]
    if not kept:
        raise UserError(
            "`evaluation.tta` augments the samples that are scored, and this run has no augmentation that leaves targets alone.\n"
            "Name some: dltrain evaluate RUN augmentation=[shift] evaluation.tta=8"
        )
    return Augmentation(kept)


def mean_output(parts: Parts, logits: Tensor) -> Tensor:
    """The mean over the first axis: of probabilities (as their logarithm) for classes, of values otherwise."""
    if parts.spec.task != "classification":
        return logits.mean(0)
    return logits.softmax(-1).mean(0).clamp_min(1e-12).log()


def measure(parts: Parts, logits: Tensor, targets: Tensor) -> dict[str, float]:
    scores = {"loss": parts.loss, **parts.metrics}
    return {name: float(score(logits, targets).double().mean()) for name, score in scores.items()}


def ensemble(parts: Parts, outputs: list[dict[str, tuple[Tensor, Tensor]]]) -> list[Score]:
    """The mean of several models' outputs: probabilities for classes, values for a regression."""
    scores = []
    for name, (first, targets) in outputs[0].items():
        logits = [output[name][0] for output in outputs]
        if any(
            other.shape != first.shape or not torch.equal(output[name][1], targets)
            for output, other in zip(outputs, logits, strict=True)
        ):
            raise UserError(
                f"The runs do not share their {name} split (other data, or another dataset.split_seed): no ensemble of them."
            )
        mean = mean_output(parts, torch.stack(logits))
        scores.append(Score(f"ensemble of {len(outputs)}", name, len(targets), measure(parts, mean, targets)))
    return scores


def print_scores(scores: list[Score]) -> None:
    """One aligned line for each run and split."""
    width = max(len(score.run) for score in scores)
    names = list(scores[0].values)
    print(f"{'run':<{width}}  {'split':<5}  {'samples':>8}  " + "  ".join(f"{name:>10}" for name in names))
    for score in scores:
        values = "  ".join(f"{score.values[name]:10.4f}" for name in names)
        print(f"{score.run:<{width}}  {score.split:<5}  {score.samples:>8}  {values}")
