"""Keys of the command line that change nothing for the model that was built: its layers say so, not its keys."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import nn

from dltrain.augmentation.mix import CutMix, Mixup
from dltrain.augmentation.pipeline import Augmentation
from dltrain.config.door import is_shipped
from dltrain.config.groups import LIST_GROUPS
from dltrain.config.schema import Config
from dltrain.data.spec import DataSpec
from dltrain.declare import HasUnused, Unused
from dltrain.errors import UserError
from dltrain.models.parts import Residual
from dltrain.optimizers.groups import SteppingOptimizer
from dltrain.optimizers.stepping import chain_of
from dltrain.run.parameter_groups import unused_decay
from dltrain.training.evaluation import dropout_layers


def copying(augmentation: Augmentation | None) -> list[Any]:
    """Return the transforms that leave targets alone: a copy that is mixed with another sample has no single target."""
    transforms = augmentation.transforms if augmentation is not None else []
    return [transform for transform in transforms if not isinstance(transform, Mixup | CutMix)]


def word_for_copies(spec: DataSpec) -> str:
    """Return an augmentation that these samples can have."""
    return "shift" if len(spec.input_shape) == 3 else "noise"


def check_effect(
    config: Config,
    model: nn.Module,
    augmentation: Augmentation | None,
    spec: DataSpec,
    given: Collection[str],
) -> None:
    """Refuse what was asked for on the command line of a training and has nothing to act on in this model. Raises UserError."""
    check_layers(config, model, given)
    check_draws(config, model, augmentation, spec, given)


def check_layers(config: Config, model: nn.Module, given: Collection[str]) -> None:
    """Refuse keys of a shipped model for layers that it does not have with its other keys; a model of the user's may use functions."""
    keys = config.model
    if not type(model).__module__.startswith("dltrain."):
        return
    dropout = [key for key in ("model.dropout", "regularization.dropout.p") if key in given]
    if "regularization" in given and "dropout" in config.words["regularization"]:
        dropout.append("regularization")
    if dropout and keys.get("dropout") and not dropout_layers(model):
        raise UserError(
            f"`model.dropout` is {keys['dropout']:g} and has no effect: this model has no hidden layer, whose units it would drop.\n"
            "Add model.hidden=[128], or leave dropout out."
        )
    for key in ("activation", "norm"):
        if f"model.{key}" in given and keys.get("hidden") == []:
            raise UserError(
                f"`model.{key}` has no effect without a hidden layer.\nAdd model.hidden=[128], or leave model.{key} out."
            )
    if "model.residual" in given and keys.get("residual") is True and not has_skips(model):
        raise UserError(
            "`model.residual` has no effect: a skip connection needs a hidden layer as wide as its input, and this model has "
            "none.\nAdd model.hidden=[128,128], or leave model.residual out."
        )
    if "model.width" in given and keys.get("depth") == 1:
        raise UserError(
            "`model.width` has no effect in a single matrix.\nAdd model.depth=2, or leave model.width out."
        )


def unused_keys(
    config: Config,
    model: nn.Module,
    optimizer: SteppingOptimizer,
    regularization: Mapping[str, Any],
    augmentation: Augmentation | None,
) -> dict[str, Unused]:
    """Return keys that change nothing for this model and these data, with the reasons; `regularization` is by words."""
    *_, inner = chain_of(optimizer)
    found = {
        f"optimizer.{key}": unused
        for key, unused in (*unused_of(inner).items(), *unused_decay(model, config, inner).items())
    }
    # set_momentum sets the first of `betas` where there is no momentum
    set_by_schedule = "optimizer.momentum" if "momentum" in optimizer.param_groups[0] else "optimizer.betas"
    if config.momentum_schedule.get("_target_") and set_by_schedule in found:
        found["momentum_schedule"] = found[set_by_schedule]
    for word, rule in regularization.items():
        # an attribute of this name may be anything in a rule of the user
        parameters = getattr(rule, "parameters", None) if is_shipped(type(rule).__module__) else None
        if isinstance(parameters, list) and not any(parameter.requires_grad for parameter in parameters):
            found[f"regularization.{word}"] = Unused("it acts on no weight that is trained")
    transforms = augmentation.transforms if augmentation is not None else []
    for word, transform in zip(config.augmentation, transforms, strict=True):
        found |= {f"augmentation.{word}.{key}": unused for key, unused in unused_of(transform).items()}
    return found


def unused_of(part: object) -> Mapping[str, Unused]:
    return part.unused_keys() if isinstance(part, HasUnused) else {}


def refuse_unused(unused: Mapping[str, Unused], config: Config, given: Collection[str]) -> None:
    """Raise UserError for what the command line gives and changes nothing: a key, a word of a list, or one of its keys.

    A word of a group with one choice, such as momentum_schedule, is not refused; the header has a line on it.
    """
    listed = {f"{group}.{word}" for group in LIST_GROUPS if group in given for word in config.words[group]}
    for key, (why, cure) in unused.items():
        if "." in key and any(text == key or text.startswith(f"{key}.") for text in (*given, *listed)):
            added = f"Add {cure}, or leave" if cure else "Leave"
            raise UserError(f"`{key}` has no effect: {why}.\n{added} {key} out.")


def unused_lines(unused: Mapping[str, Unused]) -> Iterator[str]:
    """Yield a line for each reason, with the keys that it holds for."""
    for reason in dict.fromkeys(unused.values()):
        keys = ", ".join(key for key, found in unused.items() if found == reason)
        cure = f" · to use {'it' if ',' not in keys else 'them'}: {reason.cure}" if reason.cure else ""
        yield f"unused   {keys}: {reason.why}{cure}"


def has_skips(model: nn.Module) -> bool:
    return any(isinstance(module, Residual) for module in model.modules())


def check_draws(
    config: Config,
    model: nn.Module,
    augmentation: Augmentation | None,
    spec: DataSpec,
    given: Collection[str],
) -> None:
    """Refuse draws of `dltrain evaluate` that it could not make of this model and its augmentation."""
    asked = config.evaluation
    if "evaluation.mc_dropout" in given and asked.mc_dropout and not dropout_layers(model):
        cure = (
            "Add" if "dropout" in config.model else "Choose a model with dropout, such as model=mlp, and add"
        )
        raise UserError(
            f"`evaluation.mc_dropout` has no effect: it draws dropout, and this model has none.\n{cure} regularization=[dropout], "
            "or leave evaluation.mc_dropout out."
        )
    if "evaluation.tta" in given and asked.tta and not asked.tta_words and not copying(augmentation):
        raise UserError(
            "`evaluation.tta` has no effect: it augments the samples that are scored, and this run has no augmentation that "
            f"leaves targets alone.\nAdd evaluation.tta_words=[{word_for_copies(spec)}], or leave evaluation.tta out."
        )
