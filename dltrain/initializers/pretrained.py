"""Weights from a file or from the folder of an earlier run, and parts that stay frozen."""

from __future__ import annotations

import difflib
import fnmatch
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dltrain.data.spec import Batch
from dltrain.initializers.layers import weight_layers
from dltrain.ranges import Count, FilePath, Positive

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


class Loaded(NamedTuple):
    """What was loaded: `str()` of it is shown with the run, and `new` names the parameters that were not."""

    matched: int  # parameters that come from the file
    new: list[str]
    summary: str  # names of the new ones, whole layers as `layer.*`
    notes: list[str]  # what was done to the file's names

    def __str__(self) -> str:
        text = f"{self.matched} of {self.matched + len(self.new)} tensors loaded"
        return "; ".join([text, *([f"new: {self.summary}"] if self.new else []), *self.notes])


def pretrained(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    path: FilePath | None = None,
    strict: bool = True,
    freeze: list[str] = (),
    thaw_epoch: Count | None = None,
    head_lr_scale: Positive = 1.0,
) -> Loaded:
    """Weights from a file or from an earlier run, for fine-tuning.

        w = the tensor of the same name and shape in the file

    Copy weights from `path`: a .safetensors or .pt file, or a run folder (its best weights).

    Returns what was loaded. Raises ValueError, listing matched, missing and unexpected tensors, unless all of
    them match or strict is false; then what matches is copied, which must be one parameter at least
    (statistics of batch norms and their counters are none), and the rest keeps its start. Freezes the
    parameters whose names match a pattern of `freeze`; raises ValueError where one of them was not loaded.
    `thaw_epoch` and `head_lr_scale` are for whoever builds the run: see `thaw` and `head_parameters`. (L1, L2
    on fine-tuning.)

    Use: little data, or going on from an earlier run; torchvision's own weights are model.weights=DEFAULT.
    Defaults: everything must match, and everything is trained.
    Lecture: L1 L2

    Args:
        path: a .safetensors or .pt file, or a run folder (its best weights); has to be given
        strict: refuse unless all tensors match; false copies those that match
        freeze: names or shell patterns of parameters that are not trained, as in [layers] or ["*.bias"]
        thaw_epoch: epochs after which the frozen ones are trained too; null never
        head_lr_scale: factor of lr for the last layer
    """
    check_thawing(freeze, thaw_epoch, head_lr_scale)
    parameters, state = dict(module.named_parameters()), module.state_dict()
    tensors, notes = read_tensors(path)
    tensors, removed = without_prefix(tensors, parameters)
    comparison = compare(state, tensors)
    matched = set(comparison.matched)
    loaded = sum(name in matched for name in parameters)
    if not loaded or (strict and any(comparison[1:])):
        cure = "set initializer.strict=false to copy what matches" if loaded else "use another file or model"
        kind = "" if loaded or not comparison.matched else ", none of which is a weight"
        raise ValueError(f"initializer.path={path} does not fit the model: {comparison}{kind}; {cure}")
    new = [name for name in parameters if name not in matched]
    check_frozen_are_loaded(module, freeze, new, "initializer.freeze")
    with torch.no_grad():
        for name in comparison.matched:
            state[name].copy_(tensors[name])
    if freeze:
        freeze_parameters(module, freeze)
    return Loaded(loaded, new, _some(as_layers(new, list(parameters))).strip(" ()"), notes + removed)


def check_frozen_are_loaded(module: nn.Module, patterns: Sequence[str], new: Sequence[str], key: str) -> None:
    """Raise ValueError where a pattern of `key` freezes a parameter that has its random start, as `new` names them."""
    frozen = {name for pattern in patterns for name in matching(module, pattern, key)}
    noise = [name for name in new if name in frozen]
    if noise:
        raise ValueError(
            f"{key}={list(patterns)} freezes {len(noise)} tensors that the file does not have{_some(noise)}: they would "
            f"stay random; freeze fewer layers, or use a file that holds them"
        )


def as_layers(names: Sequence[str], everything: Sequence[str]) -> list[str]:
    """Shorten names to `layer.*` where all tensors of that layer are among them."""
    chosen, found = set(names), []
    for name in names:
        parts = name.split(".")
        layers = [".".join(parts[: i + 1]) + "." for i in range(len(parts) - 1)]
        whole = (p for p in layers if all(n in chosen for n in everything if n.startswith(p)))
        layer = next(whole, None)
        found.append(name if layer is None else f"{layer}*")
    return list(dict.fromkeys(found))


def without_prefix(
    tensors: Mapping[str, Tensor], names: Iterable[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Remove the first parts that all names of a file share, as `module.`, where only the rest names parameters.

    DataParallel, torch.compile and Lightning save such names. Returns the tensors and what to tell about it.
    """
    known, rest, prefix = set(names), dict(tensors), ""
    while rest and not known & rest.keys():
        first = {name.partition(".")[0] for name in rest}
        if len(first) > 1 or any("." not in name for name in rest):
            return dict(tensors), []
        prefix += first.pop() + "."
        rest = {name.partition(".")[2]: tensor for name, tensor in rest.items()}
    return rest, [f"prefix {prefix} removed"] if prefix and rest else []


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


def read_tensors(path: str | None) -> tuple[dict[str, Tensor], list[str]]:
    """Read the tensors of a file or run folder onto the CPU, and what to tell about them; no code in the file is run.

    Raises ValueError.
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
    return (_read_safetensors(file), []) if file.suffix == ".safetensors" else _read_pickle(file)


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(
            f"initializer.path={file} cannot be read ({error}); the file is damaged: copy it anew"
        ) from error


def _read_pickle(file: Path) -> tuple[dict[str, Tensor], list[str]]:
    try:
        mapped = zipfile.is_zipfile(file)  # torch maps no packed archive: a small one could unpack to much
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch's unpickler raises all kinds for what is no file of its own
        raise ValueError(
            f"initializer.path={file} is no plain file of tensors ({type(error).__name__}); "
            "save it with torch.save(model.state_dict(), path) or as .safetensors"
        ) from error
    notes = []
    # as training scripts often save it, beside other things
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            notes.append(f"from {wrapper} in the file")
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(
            f"initializer.path={file} holds something other than named tensors; save it with "
            "torch.save(model.state_dict(), path)"
        )
    return content, notes


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
