"""The models of the optional package timm."""

from __future__ import annotations

import difflib
from types import ModuleType

from torch import nn

from dltrain.declare import declares
from dltrain.models.parts import image_size
from dltrain.ranges import Fraction


@declares(needs={"images"}, requires={"timm"})
def timm_model(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    name: str = "resnet18",
    pretrained: bool = False,
    dropout: Fraction = 0.0,
    stochastic_depth: Fraction = 0.0,
) -> nn.Module:
    """A model of the package timm (pip install timm).

        timm.create_model(name, pretrained=pretrained) for the channels, the image size and the classes of the data

    Maps inputs (B, C, H, W) to outputs (B, num_classes). Raises ValueError for an
    unknown name, for weights that cannot be downloaded, and for a key that the model does not have.

    Use: recent networks.
    Defaults: resnet18 without weights, so that nothing is downloaded.
    Paper: see timm's documentation of the network
    Lecture: L1 L2

    Args:
        name: name of a model
        pretrained: download trained weights
        dropout: probability to drop an input of the head
        stochastic_depth: probability to drop the last residual branch, if the network has residual branches
    """
    channels, height, width = image_size(input_shape, "timm")
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "model.name=resnet18 is one"
        raise ValueError(f"model.name is {name!r}, which timm {timm.__version__} does not have; {hint}")
    keys = {"in_chans": channels, "num_classes": num_classes, "drop_rate": dropout}
    keys |= {"drop_path_rate": stochastic_depth} if stochastic_depth else {}
    return _create(timm, name, pretrained, keys, (height, width))


def _create(
    timm: ModuleType, name: str, pretrained: bool, keys: dict[str, float], size: tuple[int, int]
) -> nn.Module:
    try:
        try:
            model: nn.Module = timm.create_model(name, pretrained=pretrained, img_size=size, **keys)
        # convolutional networks take any size and have no img_size
        except TypeError:
            model = timm.create_model(name, pretrained=pretrained, **keys)
    except TypeError as error:
        raise ValueError(
            f"model.name={name} of timm refuses one of its keys ({error}); leave model.stochastic_depth at 0"
        ) from error
    # timm's hub raises many kinds of errors without an internet connection
    except Exception as error:
        if not pretrained:
            raise
        raise ValueError(
            f"model.pretrained=true: the weights of timm's {name} could not be downloaded ({error}); "
            "connect to the internet, or use model.pretrained=false"
        ) from error
    return model
