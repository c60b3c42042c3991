"""Load weights from a file or from the folder of an earlier run; freeze and thaw parameters."""

from __future__ import annotations

import fnmatch
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn

from dltrain.data.spec import Batch
from dltrain.errors import nearest_path
from dltrain.ranges import Count, FilePath, Positive
from dltrain.text import close
from dltrain.weight_layers import last_layer

BEST_WEIGHTS = Path("checkpoints/best.safetensors")
# names of each kind that a message lists
SHOWN = 5


class Comparison(NamedTuple):
    """Names of tensors: in both with equal shapes; in the model only; in the file only; in both with other shapes."""

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]

    def __str__(self) -> str:
        labels = ("matched", "missing from the file", "unexpected in the file", "of another shape")
        return "; ".join(
            f"{len(names)} {label}{_some(names)}" for label, names in zip(labels, self, strict=True)
        )


class Differences(NamedTuple):
    """Differences between the data of the run that saved the weights and the current data, as text; empty without any."""

    # of the outputs: the last layer of the run is for other classes or quantities
    outputs: str = ""
    # of the shape of a sample, which may not matter
    shape: str = ""
    # what else to know
    notes: tuple[str, ...] = ()


class Loaded(NamedTuple):
    """The result of loading weights; the header and the summary of a run show `str()` of it."""

    # number of parameters that come from the file
    matched: int
    # parameters that do not
    new: list[str]
    # the new ones, whole layers as `layer.*`
    summary: str
    # changes of the file's names
    notes: list[str]

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
    freeze: Sequence[str] = (),
    thaw_epoch: Count | None = None,
    head_lr_scale: Positive = 1.0,
    differences: Annotated[Differences | None, "runtime"] = None,
) -> Loaded:
    """Weights from a file or from an earlier run, for fine-tuning.

        w = the tensor of the same name and shape in the file

    The last layer is new where it has another shape in the file, or where the earlier run had other classes or
    targets. A table has the features of that run, also of levels that it lacks. Raises ValueError for whole numbers in
    place of floats; listing matched, missing and unexpected tensors, if no parameter matches, or if `strict` is set and
    not all tensors match; and if `freeze` names an unknown parameter or one that was not loaded, if it leaves nothing to
    train, or if `thaw_epoch` is set without it.

    Use: little data, or continuing from an earlier run; the weights of torchvision are set by
        model.weights=DEFAULT.
    Defaults: all tensors but those of the last layer must match, and all parameters are trained.
    Lecture: L1 L2

    Args:
        path: a .safetensors or .pt file, or a run folder (its best weights); must be given
        strict: require that all tensors match, but for a last layer of another size; false loads those that do and
            keeps the initialization of the others
        freeze: names or shell patterns of parameters that are not trained, as in [layers] or ["*.bias"]
        thaw_epoch: number of epochs after which frozen parameters are trained too; null never trains them
        head_lr_scale: factor of lr for the last layer
    """
    if thaw_epoch is not None and not freeze:
        raise ValueError(
            f"initializer.thaw_epoch is {thaw_epoch}, but nothing is frozen; name the frozen layers, as in "
            "initializer.freeze=[layers]"
        )
    parameters, state = dict(module.named_parameters()), module.state_dict()
    tensors, notes = read_tensors(path)
    tensors, removed = without_prefix(tensors, parameters)
    differences = differences or Differences()
    replaced = replaced_head(module, tensors, differences)
    comparison = compare(without(state, replaced), without(tensors, replaced))
    matched = set(comparison.matched)
    loaded = sum(name in matched for name in parameters)
    if not loaded or (strict and any(comparison[1:])):
        cure = "set initializer.strict=false to copy what matches" if loaded else "use another file or model"
        kind = "" if loaded or not comparison.matched else ", none of which is a weight"
        found = "; ".join(filter(None, [differences.shape, str(compare(state, tensors))]))
        raise ValueError(f"initializer.path={path} does not fit the model: {found}{kind}; {cure}")
    check_floats(state, tensors, comparison.matched, f"initializer.path={path}")
    new = [name for name in parameters if name not in matched]
    check_frozen_are_loaded(module, freeze, new, "initializer.freeze")
    with torch.no_grad():
        for name in comparison.matched:
            state[name].copy_(tensors[name])
    if freeze:
        freeze_parameters(module, freeze)
    summary = _some(as_layers(new, list(parameters))).strip(" ()")
    why = f" ({differences.outputs})" if replaced and differences.outputs else ""
    noted = [*filter(None, [differences.shape]), *differences.notes]
    return Loaded(loaded, new, summary + why, notes + removed + noted)


def replaced_head(
    module: nn.Module, tensors: Mapping[str, Tensor], differences: Differences
) -> frozenset[str]:
    """Return the names of the last layer's parameters where they must be new; empty where the file has those of this model."""
    head = {id(parameter) for parameter in head_parameters(module)}
    named = {name: parameter for name, parameter in module.named_parameters() if id(parameter) in head}
    inside = {name: parameter for name, parameter in named.items() if name in tensors}
    reshaped = any(
        len(tensors[name]) != len(parameter) for name, parameter in inside.items() if tensors[name].ndim
    )
    # a head of another width belongs to another body
    fits = all(tensors[name].shape[1:] == parameter.shape[1:] for name, parameter in inside.items())
    return frozenset(named if inside and fits and (reshaped or differences.outputs) else ())


def without(tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def check_floats(
    state: Mapping[str, Tensor], tensors: Mapping[str, Tensor], matched: Sequence[str], what: str
) -> None:
    """Raise ValueError for whole or complex numbers where the model has floats: a copy would not be the weights."""
    wrong = [
        name for name in matched if state[name].is_floating_point() and not tensors[name].is_floating_point()
    ]
    if wrong:
        kind = str(tensors[wrong[0]].dtype).removeprefix("torch.")
        raise ValueError(
            f"{what} has {kind} where the model has floats{_some(wrong)}: it is quantized, or not a file of weights; save "
            "the weights as floats, as in torch.save(model.state_dict(), path)"
        )


def check_frozen_are_loaded(module: nn.Module, patterns: Sequence[str], new: Sequence[str], key: str) -> None:
    """Raise ValueError if a pattern of `key` freezes a parameter of `new`, which is still random."""
    frozen = {name for pattern in patterns for name in matching(module, pattern, key)}
    noise = [name for name in new if name in frozen]
    if noise:
        raise ValueError(
            f"{key}={list(patterns)} freezes {len(noise)} tensors that the file does not have{_some(noise)}: they would "
            f"stay random; freeze fewer layers, or use a file that holds them"
        )


def as_layers(names: Sequence[str], everything: Sequence[str]) -> list[str]:
    """Shorten names to `layer.*` if they contain all tensors of that layer."""
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
    """Remove a prefix that all names of a file share, such as `module.`, if only the rest names parameters.

    DataParallel, torch.compile and Lightning save such names. Returns the tensors and notes about the change.
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


def weights_file(path: str) -> Path:
    """Return the file of weights that a path names: of a run folder, its best ones."""
    file = Path(os.path.expanduser(path))
    return file / BEST_WEIGHTS if file.is_dir() else file


def read_tensors(path: str | None) -> tuple[dict[str, Tensor], list[str]]:
    """Read the tensors of a file or run folder onto the CPU; code in the file is not run.

    Returns the tensors and notes about changes. Raises ValueError if there is no such file, or it cannot be
    read.
    """
    if path is None:
        raise ValueError(
            "initializer=pretrained needs initializer.path: a .safetensors or .pt file, or a run folder"
        )
    file = weights_file(path)
    if not file.is_file():
        raise ValueError(
            f"initializer.path={path}: there is no file {file}; give a .safetensors or .pt file, or the "
            f"folder of a run that kept its best weights.{nearest_path(file)}".rstrip(".")
        )
    return (_read_safetensors(file), []) if file.suffix == ".safetensors" else _read_pickle(file)


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(
            f"initializer.path={file} cannot be read ({error}); the file is damaged: copy it again"
        ) from error


def _read_pickle(file: Path) -> tuple[dict[str, Tensor], list[str]]:
    try:
        # a mapped archive cannot be compressed, so a small file cannot expand to a large one
        mapped = zipfile.is_zipfile(file)
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    # torch's unpickler raises many kinds of errors for a file that torch did not write
    except Exception as error:
        raise ValueError(
            f"initializer.path={file} is not a file of tensors ({type(error).__name__}); "
            "save it with torch.save(model.state_dict(), path) or as .safetensors"
        ) from error
    notes = []
    # keys under which training scripts often save the weights, beside other data
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            notes.append(f"from {wrapper} in the file")
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(
            f"initializer.path={file} holds other data than named tensors; save it with "
            "torch.save(model.state_dict(), path)"
        )
    return content, notes


def matching(module: nn.Module, pattern: str, key: str) -> list[str]:
    """Return the names that match a shell pattern, or lie in the layer of that name; raise ValueError if none do."""
    parameters = dict(module.named_parameters())
    found = fnmatch.filter(parameters, pattern) or fnmatch.filter(parameters, f"{pattern}.*")
    if not found:
        near = close(pattern, parameters, 3, 0.3) or list(parameters)[:3]
        raise ValueError(f"{key} has {pattern!r}, which matches no parameter; near: {', '.join(near)}")
    return found


def freeze_parameters(
    module: nn.Module, patterns: Sequence[str], key: str = "initializer.freeze"
) -> list[str]:
    """Stop the gradients of the parameters whose names match a pattern (`layers.*`), and return their names.

    Raises ValueError, naming `key`, for a pattern that matches nothing, and if nothing is left to train. The
    running statistics of batch norms in frozen layers are still updated.
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
    """Make the parameters with these names, as `freeze_parameters` returned them, trainable again."""
    parameters = dict(module.named_parameters())
    for name in names:
        parameters[name].requires_grad_(True)
        parameters[name].grad = None


def head_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return weight and bias of the last weight layer, for a parameter group with its own lr; none of a study problem."""
    last = last_layer(module)
    return [] if last is None else list(last.module.parameters(recurse=False))


def _some(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" ({', '.join(names[:SHOWN])}{more})"
