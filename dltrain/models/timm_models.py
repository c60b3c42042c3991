"""Any model of the package timm, where it is installed."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from dltrain.models.parts import image_size
from dltrain.ranges import Fraction


def timm_model(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    name: str = "resnet18",
    pretrained: bool = False,
    dropout: Fraction = 0.0,
    stochastic_depth: Fraction = 0.0,
) -> nn.Module:
    """Any model of the package timm (pip install timm).

        timm.create_model(name) for the channels, the image size and the classes of the data

    Build timm's `name` for the data's channels, image size and classes.

    inputs: (B, C, H, W); outputs: (B, num_classes). Raises ValueError where timm is not installed, has no
    such model, cannot have its weights, or the model has none of the keys that were set.

    Use: the field's current networks.
    Defaults: resnet18 without weights, so that nothing is downloaded.
    Paper: see timm's documentation of the network
    Lecture: L1 L2

    Args:
        name: a model of timm
        pretrained: download trained weights
        dropout: probability to drop an input of the head
        stochastic_depth: probability to drop the last residual branch, where the network has some
    """
    channels, height, width = image_size(input_shape, "timm")
    timm = _import_timm()
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "model.name=resnet18 is one"
        raise ValueError(f"model.name is {name!r}, which timm {timm.__version__} does not have; {hint}")
    keys = {"in_chans": channels, "num_classes": num_classes, "drop_rate": dropout}
    keys |= {"drop_path_rate": stochastic_depth} if stochastic_depth else {}
    return _create(timm, name, pretrained, keys, (height, width))


def _import_timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            "model=timm needs the package timm, which is not installed; run: pip install timm"
        ) from error
    return timm


def _create(timm: Any, name: str, pretrained: bool, keys: dict[str, Any], size: tuple[int, int]) -> nn.Module:
    try:
        try:
            model: nn.Module = timm.create_model(name, pretrained=pretrained, img_size=size, **keys)
        except TypeError:  # convolutional nets take any size and know no img_size
            model = timm.create_model(name, pretrained=pretrained, **keys)
    except TypeError as error:
        raise ValueError(
            f"model.name={name} of timm refuses one of its keys ({error}); leave model.stochastic_depth at 0"
        ) from error
    except Exception as error:  # timm's hub raises many kinds where there is no network
        if not pretrained:
            raise
        raise ValueError(
            f"model.pretrained=true: the weights of timm's {name} could not be had ({error}); download "
            "them where there is a network, or use model.pretrained=false"
        ) from error
    return model
