"""The best weights of a run that is done."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from dltrain.config.own_code import changed_since
from dltrain.data.errors import some
from dltrain.errors import CheckpointProblem, typed
from dltrain.storage.lock import is_held
from dltrain.storage.summary import read_json
from dltrain.text import say


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
    """Read checkpoints/best.safetensors of a run, and report files of its code that have changed since.

    Raises CheckpointProblem where they are missing or damaged.
    """
    from safetensors import SafetensorError

    from dltrain.storage.tensors import load_tensors

    file = path / "checkpoints" / "best.safetensors"
    if not file.is_file() and is_held(path / "run.lock"):
        raise CheckpointProblem(
            f"{path} is still training, and its best weights (checkpoints/best.safetensors) are written when it ends. "
            f"Its state: {typed('show', path)}"
        )
    if not file.is_file():
        raise CheckpointProblem(
            f"{path} has no checkpoints/best.safetensors: it has not finished. Go on with: {typed('resume', path)}"
        )
    say_of_code(path)
    try:
        return load_tensors(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointProblem(f"{file} is damaged ({error})") from None


def say_of_code(path: Path, so: str = "so its weights may give other results now") -> None:
    """Say which files of the user's own code have changed since a run was trained, and what follows."""
    try:
        summary = read_json(path / "summary.json")
    except (OSError, ValueError):
        return
    if edits := changed_since(summary.get("code")):
        say(f"{some(edits, 4)} since {path.name} was trained, {so}")
