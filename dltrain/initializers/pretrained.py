"""Weights from a file or from the folder of an earlier run, and parts that stay frozen."""

from __future__ import annotations

import difflib
import fnmatch
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dltrain.data.spec import Batch
from dltrain.initializers.layers import weight_layers

BEST_WEIGHTS = Path("checkpoints/best.safetensors")
SHOWN = 5  # names of each kind that a message lists


class Comparison(NamedTuple):
    """Names of tensors: in both with one shape; in the model alone; in the file alone; in both with two
    shapes.
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]

    def __str__(self) -> str:
        labels = ("matched", "missing from the file", "unexpected in the file", "of another shape")
        return "; ".join(
            f"{len(names)} {label}{_some(names)}" for label, names in zip(labels, self, strict=True)
        )


def pretrained(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    path: str | None = None,
    strict: bool = True,
    freeze: Sequence[str] = (),
    thaw_epoch: int | None = None,
    head_lr_scale: float = 1.0,
) -> None:
    """Copy weights from `path`: a .safetensors or .pt file, or a run folder (its best weights).

    Raises ValueError, listing matched, missing and unexpected tensors, unless all of them match or strict is
    false; then what matches is copied and the rest keeps its start. Freezes the parameters whose names match
    a pattern of `freeze`. `thaw_epoch` and `head_lr_scale` are for whoever builds the run: see `thaw` and
    `head_parameters`. (L1, L2 on fine-tuning.)
    """
    check_thawing(freeze, thaw_epoch, head_lr_scale)
    tensors = read_tensors(path)
    state = module.state_dict()
    comparison = compare(state, tensors)
    if not comparison.matched or (strict and any(comparison[1:])):
        cure = (
            "set initializer.strict=false to copy what matches"
            if comparison.matched
            else "use another file or model"
        )
        raise ValueError(f"initializer.path={path} does not fit the model: {comparison}; {cure}")
    with torch.no_grad():
        for name in comparison.matched:
            state[name].copy_(tensors[name])
    if freeze:
        freeze_parameters(module, freeze)


def compare(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> Comparison:
    """Compare the names and shapes of a model's state with those of a file's tensors."""
    common = [name for name in state if name in tensors]
    return Comparison(
        matched=[name for name in common if state[name].shape == tensors[name].shape],
        missing=[name for name in state if name not in tensors],
        unexpected=[name for name in tensors if name not in state],
        reshaped=[
            f"{name} (file {tuple(tensors[name].shape)}, model {tuple(state[name].shape)})"
            for name in common
            if state[name].shape != tensors[name].shape
        ],
    )


def read_tensors(path: str | None) -> dict[str, Tensor]:
    """Read the tensors of a file or run folder onto the CPU; no code in the file is run. Raises
    ValueError.
    """
    if path is None:
        raise ValueError(
            "initializer=pretrained needs initializer.path: a .safetensors or .pt file, or a run folder"
        )
    file = Path(path).expanduser()
    if file.is_dir():
        file = file / BEST_WEIGHTS
    if not file.is_file():
        raise ValueError(
            f"initializer.path={path}: there is no file {file}; give a .safetensors or .pt file, or the "
            "folder of a run that kept its best weights"
        )
    return _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(
            f"initializer.path={file} cannot be read ({error}); the file is damaged: copy it anew"
        ) from error


def _read_pickle(file: Path) -> dict[str, Tensor]:
    try:
        mapped = zipfile.is_zipfile(file)  # torch maps no packed archive: a small one could unpack to much
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch's unpickler raises all kinds for what is no file of its own
        raise ValueError(
            f"initializer.path={file} is no plain file of tensors ({type(error).__name__}); "
            "save it with torch.save(model.state_dict(), path) or as .safetensors"
        ) from error
    for wrapper in ("state_dict", "model"):  # as training scripts often save it, beside other things
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(
            f"initializer.path={file} holds something other than named tensors; save it with "
            "torch.save(model.state_dict(), path)"
        )
    return content


def matching(module: nn.Module, pattern: str, key: str) -> list[str]:
    """Names of the parameters that match a shell pattern, or lie in the layer of that name. Raises ValueError for none."""
    parameters = dict(module.named_parameters())
    found = fnmatch.filter(parameters, pattern) or fnmatch.filter(parameters, f"{pattern}.*")
    if not found:
        near = difflib.get_close_matches(pattern, parameters, n=3, cutoff=0.3) or list(parameters)[:3]
        raise ValueError(f"{key} has {pattern!r}, which matches no parameter; near: {', '.join(near)}")
    return found


def freeze_parameters(
    module: nn.Module, patterns: Sequence[str], key: str = "initializer.freeze"
) -> list[str]:
    """Stop the gradients of the parameters whose names match a pattern (`layers.*`), and return their names.

    Raises ValueError, naming `key`, for a pattern that matches nothing, and when nothing would be left to train.
    Batch-norm statistics of frozen layers still move.
    """
    parameters = dict(module.named_parameters())
    chosen = {name for pattern in patterns for name in matching(module, pattern, key)}
    if chosen == {
        name for name, parameter in parameters.items() if parameter.requires_grad or name in chosen
    }:
        raise ValueError(
            f"{key}={list(patterns)} leaves nothing to train; leave the head out, as in {key}=[layers]"
        )
    for name in chosen:
        parameters[name].requires_grad_(False)
    return [name for name in parameters if name in chosen]


def thaw(module: nn.Module, names: Sequence[str]) -> None:
    """Let the parameters with these names, as `freeze_parameters` returned them, be trained again."""
    parameters = dict(module.named_parameters())
    for name in names:
        parameters[name].requires_grad_(True)
        parameters[name].grad = None


def head_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return weight and bias of the last weight layer, for a parameter group with its own lr."""
    last = weight_layers(module)[-1]
    return list(last.module.parameters(recurse=False))


def check_thawing(freeze: Sequence[str], thaw_epoch: int | None, head_lr_scale: float) -> None:
    """Raise ValueError for a thaw without a freeze, a negative epoch, or a scale that is not above 0."""
    if thaw_epoch is not None and not freeze:
        raise ValueError(
            f"initializer.thaw_epoch is {thaw_epoch}, but nothing is frozen; name the frozen parts, as in "
            "initializer.freeze=[layers]"
        )
    if thaw_epoch is not None and thaw_epoch < 1:
        raise ValueError(
            f"initializer.thaw_epoch is {thaw_epoch}; it must be >= 1, or null: frozen to the end"
        )
    if not head_lr_scale > 0:
        raise ValueError(
            f"initializer.head_lr_scale is {head_lr_scale}; it must be > 0: the factor of lr for the head"
        )


def _some(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" ({', '.join(names[:SHOWN])}{more})"
