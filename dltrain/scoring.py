"""Scoring runs that are done: each by its best weights, and several together as an ensemble."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltrain.build import build
from dltrain.config.door import Door
from dltrain.config.schema import Config
from dltrain.errors import CheckpointProblem, UserError
from dltrain.training.evaluation import evaluating, outputs_of
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
        parts.model.load_state_dict(best_weights(path))
        outputs.append({name: predict(parts, plan, split) for name, split in splits_of(parts).items()})
        scores += [
            Score(str(path), name, len(split), measure(parts, *outputs[-1][name]))
            for name, split in splits_of(parts).items()
        ]
    return scores + (ensemble(parts, outputs) if len(paths) > 1 else [])


def splits_of(parts: Parts) -> dict[str, Any]:
    return {name: split for name, split in (("val", parts.val), ("test", parts.test)) if split is not None}


def best_weights(path: Path) -> dict[str, Tensor]:
    """checkpoints/best.safetensors of a run."""
    from safetensors.torch import load_file

    file = path / "checkpoints" / "best.safetensors"
    if not file.is_file():
        raise CheckpointProblem(
            f"{path} has no checkpoints/best.safetensors: it has not finished. Go on with: dltrain resume {path}"
        )
    return load_file(file)


def predict(parts: Parts, plan: Plan, split: Any) -> tuple[Tensor, Tensor]:
    """All logits (N, C) and targets (N, …) of a split."""
    with evaluating(parts.model):
        pairs = list(outputs_of(parts.model, split, plan.evaluation_batch_size, plan.device, plan.precision))
    return torch.cat([logits for logits, _ in pairs]), torch.cat([targets for _, targets in pairs])


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
        stacked = torch.stack(logits)
        classes = parts.spec.task == "classification"
        mean = stacked.softmax(-1).mean(0).clamp_min(1e-12).log() if classes else stacked.mean(0)
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
