"""The classifiers of torchvision.models, adapted to the channels and classes of the data."""

from __future__ import annotations

import copy
import difflib
import pickle
import urllib.error
import warnings
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.declare import declares
from dltrain.models.parts import image_size
from dltrain.ranges import Fraction


@declares(needs={"images"})
def torchvision_model(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    name: str = "resnet18",
    weights: str | None = None,
    dropout: Fraction | None = None,
) -> nn.Module:
    """A classifier of torchvision.models, with or without trained weights.

        torchvision.models.get_model(name, weights=weights), adapted to the channels and classes of the data

    Maps inputs (B, C, H, W) to outputs (B, num_classes). The last layer is replaced if the number of classes
    differs, the first convolution if the number of channels differs. Raises ValueError for an unknown name,
    for weights that do not exist or cannot be downloaded, for a dropout without a dropout layer, and for
    images that the network cannot take.

    Use: published networks and fine-tuning; images should be as large as the network expects.
    Defaults: resnet18 without weights, so that nothing is downloaded.
    Paper: see torchvision's documentation of the network
    Lecture: L1 L2

    Args:
        name: name of a classifier
        weights: name of trained weights, such as DEFAULT or IMAGENET1K_V1
        dropout: probability of the network's dropout layers; null keeps theirs
    """
    # takes seconds
    from torchvision import models

    channels, _, _ = image_size(input_shape, "torchvision")
    _check_name(name, models.list_models(module=models))
    model = _build(models, name, weights)
    replace_head(model, num_classes)
    adapt_first_convolution(model, channels, trained=weights is not None)
    if dropout is not None:
        set_dropout(model, dropout, f"model.name={name}")
    check_output(model, input_shape, num_classes, f"model=torchvision model.name={name}")
    return model


def _check_name(name: str, names: list[str]) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "model.name=resnet18 is one"
        raise ValueError(
            f"model.name is {name!r}, which is none of the {len(names)} classifiers of torchvision; {hint}"
        )


def _build(models: ModuleType, name: str, weights: str | None) -> nn.Module:
    choices: dict[str | None, Any] = {entry.name: entry for entry in models.get_model_weights(name)}
    choices |= {"DEFAULT": models.get_model_weights(name).DEFAULT} if choices else {}
    if weights is not None and weights not in choices:
        raise ValueError(
            f"model.weights is {weights!r}; {name} has {', '.join(map(str, choices)) or 'none'}; or use null"
        )
    try:
        # two networks warn about a future change of their initialization
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            model: nn.Module = models.get_model(name, weights=choices.get(weights))
    except (urllib.error.URLError, OSError) as error:
        raise ValueError(_no_weights(choices[weights], weights, error)) from error
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        if weights is None:
            raise
        file = Path(torch.hub.get_dir(), "checkpoints", choices[weights].url.rpartition("/")[2])
        raise ValueError(
            f"model.weights={weights}: {file} is damaged ({type(error).__name__}); delete it and try again"
        ) from error
    return _without_side_heads(model)


def _without_side_heads(model: nn.Module) -> nn.Module:
    """Remove the auxiliary heads of Inception and GoogLeNet, which return tuples in training."""
    for head in ("AuxLogits", "aux1", "aux2"):
        if hasattr(model, head):
            setattr(model, head, None)
            model.aux_logits = False  # type: ignore[assignment]
    return model


def _no_weights(entry: Any, weights: str | None, error: Exception) -> str:
    return (
        f"model.weights={weights} could not be downloaded ({error}); download {entry.url} on another "
        f"machine and put it into {torch.hub.get_dir()}/checkpoints, or use model.weights=null"
    )


def replace_head(model: nn.Module, num_classes: int) -> None:
    """Replace the last layer by one with `num_classes` outputs, unless it has as many already."""
    heads = (nn.Linear, nn.Conv2d)
    name, old = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, heads)][-1]
    if isinstance(old, nn.Linear) and old.out_features != num_classes:
        _replace(model, name, nn.Linear(old.in_features, num_classes, old.bias is not None))
    elif isinstance(old, nn.Conv2d) and old.out_channels != num_classes:
        _replace(model, name, nn.Conv2d(old.in_channels, num_classes, 1))


def adapt_first_convolution(model: nn.Module, channels: int, trained: bool) -> None:
    """Replace the first convolution by one with `channels` inputs.

    Trained filters are averaged, so that they respond to a gray image as they did to its RGB copies.
    """
    name, old = next((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d))
    if old.in_channels == channels:
        return
    new = copy.deepcopy(old)
    new.in_channels = channels
    gray = old.weight.detach().sum(1, keepdim=True) / channels
    new.weight = nn.Parameter(gray.repeat(1, channels, 1, 1))
    if not trained:
        new.reset_parameters()
    _replace(model, name, new)


def set_dropout(model: nn.Module, dropout: float, key: str) -> None:
    """Set the probability of all dropout layers; raise ValueError if there are none."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Dropout)]
    if not layers:
        raise ValueError(
            f"model.dropout is {dropout}, but the network of {key} has no dropout layer; use model.dropout=null, "
            "or a network that has one, such as model.name=mobilenet_v3_small"
        )
    for layer in layers:
        layer.p = dropout


def check_output(model: nn.Module, input_shape: tuple[int, ...], num_classes: int, key: str) -> None:
    """Raise ValueError if the model fails on two samples; runs on the meta device, which computes nothing."""
    state = {name: tensor.to("meta") for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    inputs = torch.empty((2, *input_shape), device="meta")
    model.eval()
    try:
        outputs: Tensor = torch.func.functional_call(model, state, (inputs,))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{key} cannot take images of the shape {tuple(input_shape)} ({reason}); "
            "use larger images, or model=resnet20"
        ) from error
    finally:
        model.train()
    assert outputs.shape == (2, num_classes), outputs.shape


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)
