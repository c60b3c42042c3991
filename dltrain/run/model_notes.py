"""Lines of the header on a model from elsewhere: which layer is its last one, and what an initializer did not find."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn

from dltrain.config.door import Door
from dltrain.config.keys import OWN
from dltrain.config.schema import Config
from dltrain.initializers.layers import known_gain
from dltrain.run.layer_use import is_own
from dltrain.text import counted
from dltrain.weight_layers import GAINS, NORMS, last_layer, use_of, weight_layers

# names that a line lists
_SHOWN = 3


def model_notes(config: Config, door: Door, model: nn.Module, loaded: str) -> Iterator[str]:
    """Yield the lines on a model; `loaded` is the report of an initializer that loads weights."""
    yield from head_note(model)
    yield from gain_note(config, model)
    yield from norm_note(config, model)
    if not loaded:
        yield from left_note(config, door, model)


def norm_note(config: Config, model: nn.Module) -> Iterator[str]:
    """Yield a line where group norms have a single group, which is layer norm."""
    if config.model.get("norm") != "group":
        return
    groups = [layer for layer in model.modules() if isinstance(layer, nn.GroupNorm)]
    single = [layer for layer in groups if layer.num_groups == 1]
    if single:
        widths = ", ".join(map(str, sorted({layer.num_channels for layer in single})))
        yield (
            f"norm     model.norm=group is that of layer in {len(single)} of {counted(len(groups), 'norm')}: {widths} cannot be "
            "divided into groups of 2 or more"
        )


def left_note(config: Config, door: Door, model: nn.Module) -> Iterator[str]:
    """Yield a line on matrices that an initializer leaves as the model drew them, since they are no weights of layers."""
    target = str(config.initializer.get("_target_"))
    # one from elsewhere may fill others, and `default` fills none
    if (
        not target.startswith(OWN)
        or getattr(door.locate(target, "initializer"), "needs", None) == frozenset()
    ):
        return
    kept = {id(layer.weight) for layer in weight_layers(model)}
    kept |= {id(p) for layer in model.modules() if isinstance(layer, NORMS) for p in layer.parameters()}
    names = [name for name, p in model.named_parameters() if p.dim() >= 2 and id(p) not in kept]
    if names:
        more = f" and {len(names) - _SHOWN} more" * (len(names) > _SHOWN)
        yield (
            f"initial  initializer={config.words['initializer']} fills parameters whose names end with weight, and leaves "
            f"{', '.join(names[:_SHOWN])}{more} as the model built them"
        )


def head_note(model: nn.Module) -> Iterator[str]:
    """Yield a line where the last layer is not the one that is registered last, or where no forward pass could tell."""
    layers, last = weight_layers(model), last_layer(model)
    if last is None or len(layers) < 2 or is_own(model):
        return
    if use_of(model) is None:
        yield f"head     {last.name} is taken for the last layer: it is registered last, and forward could not be followed"
    elif last.weight is not layers[-1].weight:
        yield f"head     {last.name} is the last layer, which forward uses last; {layers[-1].name} is registered last"


def gain_note(config: Config, model: nn.Module) -> Iterator[str]:
    """Yield a line where an automatic gain is 1 because no activation of the model is known."""
    node = config.initializer
    key = next((key for key in ("gain", "std") if node.get(key) == "auto"), None)
    ours = str(node.get("_target_")).startswith(OWN)
    if key is None or not ours or len(weight_layers(model)) < 2 or known_gain(model) is not None:
        return
    relu = GAINS["relu"] / math.sqrt(node.get("connections", 1))
    yield (
        f"gain     initializer.{key}=auto takes the gain 1: no activation that has a known one was found in "
        f"model={config.words['model']}; for ReLU: initializer.{key}={relu:.4g}"
    )
