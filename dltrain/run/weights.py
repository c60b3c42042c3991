"""The best weights of a run that is done."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from dltrain.errors import CheckpointProblem, typed


class WithModel(Protocol):
    """Anything with a model: the parts of a run."""

    @property
    def model(self) -> nn.Module: ...


def load_best(parts: WithModel, path: Path) -> None:
    """Give the model the best weights of a run. Raises CheckpointProblem for weights that are not this model's."""
    load_weights(parts.model, best_weights(path), path)


def load_weights(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Give a model the weights of a run. Raises CheckpointProblem for weights that are not this model's."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise CheckpointProblem(
            f"{path}/checkpoints/best.safetensors does not fit its config.yaml: {reason}"
        ) from None


def best_weights(path: Path) -> dict[str, Tensor]:
    """Read checkpoints/best.safetensors of a run. Raises CheckpointProblem where it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path / "checkpoints" / "best.safetensors"
    if not file.is_file():
        raise CheckpointProblem(
            f"{path} has no checkpoints/best.safetensors: it has not finished. Go on with: {typed('resume', path)}"
        )
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointProblem(f"{file} is damaged ({error})") from None
