"""Initializers that look at a real batch: unit variance in every layer, whitened patches in the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dltrain.data.spec import Batch
from dltrain.initializers import closed_form
from dltrain.initializers.layers import weight_layers
from dltrain.ranges import InitializerWord, Positive


def lsuv(module: nn.Module, generator: torch.Generator, batch: Batch | None = None) -> None:
    """Orthogonal weights, scaled to unit variance of each layer on real data.

        W ← W / std(outputs of the layer on a batch), layer by layer in the order of execution

    Scale orthogonal weights until every layer's outputs have variance 1 on the batch.

    Mishkin & Matas 2015, arXiv:1511.06422. Biases are zero, so outputs are linear in a layer's weight and
    dividing by the measured deviation is exact: one forward pass in the order of execution does what the
    paper iterates.

    Use: deep networks of any activation, without a formula for the gain.
    Paper: Mishkin & Matas 2015, arXiv:1511.06422
    """
    closed_form.orthogonal(module, generator, gain=1.0)
    scaled: set[nn.Module] = set()

    def rescale(layer: nn.Module, args: tuple[Tensor, ...], outputs: Tensor) -> Tensor | None:
        if layer in scaled:  # a layer that is used twice keeps the scale of its first use
            return None
        scaled.add(layer)
        deviation = outputs.std()
        deviation = torch.where(deviation > 0, deviation, 1.0)  # a layer that sees zeros stays as it is
        layer.get_parameter("weight").div_(deviation)
        return outputs / deviation

    # attention's in_proj_weight is left out: its output is not the output of a module
    owners = [layer.module for layer in weight_layers(module) if layer.name.split(".")[-1] == "weight"]
    _forward(
        module, _inputs(module, batch, "lsuv"), [layer.register_forward_hook(rescale) for layer in owners]
    )


def whitening(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    eps: Positive = 5e-4,
    others: InitializerWord = "dirac",
) -> None:
    """The first layer whitens the patches that it sees.

        filter k = vₖ/√(λₖ + eps) of the patches' covariance, then the negatives of these

    Let the first layer whiten its input patches; the other layers start by the closed form `others`.

    The first filters are the eigenvectors of the patches' covariance, largest first, each divided by
    √(eigenvalue + eps), so that their outputs are uncorrelated with variance 1; the next ones are their
    negatives; what is left over keeps the start of the others. For a linear first layer a patch is the whole
    sample (then O(d³)). Jordan 2024, arXiv:2404.00498, who takes 5000 training images. Raises ValueError for
    grouped convolutions.

    Symbols: vₖ, λₖ = eigenvectors and eigenvalues, largest first
    Use: model=speed_cnn, whose first layer is frozen; any model on correlated inputs.
    Defaults: the paper's.
    Paper: Jordan 2024, arXiv:2404.00498

    Args:
        eps: added to the eigenvalues; directions of less variance are left out
        others: initializer of the other layers
    """
    if not eps > 0:
        raise ValueError(f"initializer.eps is {eps}; it must be > 0: what is added to the eigenvalues")
    inputs = _inputs(module, batch, "whitening")
    _start(others)(module, generator)
    for layer in weight_layers(module)[:1]:  # the study problems have none
        patches = _patches(layer.module, _first_input(module, layer.module, inputs))
        filters = whitening_filters(patches, eps)
        count = min(2 * len(filters), layer.weight.shape[0])
        with torch.no_grad():
            rows = torch.cat([filters, -filters])[:count]
            layer.weight[:count] = rows.view(count, *layer.weight.shape[1:]).to(layer.weight)
            if layer.bias is not None:
                layer.bias.zero_()


def whitening_filters(patches: Tensor, eps: float) -> Tensor:
    """Return (K, D) filters whose outputs on patches (N, D) have the covariance 1, up to eps; float64.

    K counts the directions whose variance is above eps: those without variance would only be amplified noise.
    """
    covariance = torch.cov(patches.double().T).reshape(patches.shape[1], patches.shape[1])
    values, vectors = torch.linalg.eigh(covariance)  # ascending
    filters = (vectors / (values.clamp(min=0) + eps).sqrt()).T
    return filters[values > eps].flip(0)


def _start(others: str) -> Callable[..., None]:
    functions = {function.__name__: function for function in closed_form.CLOSED_FORMS}
    if others not in functions:
        raise ValueError(f"initializer.others is {others!r}; it must be one of {', '.join(functions)}")
    return functions[others]


def _patches(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return what the filters of the layer see: (N, in·kernel) for a convolution, (N, in) for a linear
    layer.
    """
    if not isinstance(layer, nn.Conv2d):
        return inputs.flatten(0, -2)
    if layer.groups > 1 or isinstance(layer.padding, str):
        raise ValueError(
            "initializer=whitening needs a first convolution without groups and with padding in pixels, "
            "which this model does not have; use initializer=lsuv"
        )
    columns = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return columns.transpose(1, 2).flatten(0, 1)


def _first_input(module: nn.Module, layer: nn.Module, inputs: Tensor) -> Tensor:
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    _forward(module, inputs, [hook])
    return seen[0]


def _inputs(module: nn.Module, batch: Batch | None, word: str) -> Tensor:
    if batch is None:
        raise ValueError(
            f"initializer={word} looks at a batch of the data and was given none; use another initializer"
        )
    parameter = next(module.parameters())
    return batch.inputs.to(parameter.device, parameter.dtype)


def _forward(module: nn.Module, inputs: Tensor, hooks: list[torch.utils.hooks.RemovableHandle]) -> None:
    """Run the module once, as in training but without dropout, and leave nothing changed but what the
    hooks did.
    """
    try:
        with torch.no_grad(), _without_noise(module):
            module(inputs)
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _without_noise(module: nn.Module) -> Iterator[None]:
    """Dropout off; batch norms by the batch's statistics, whose running ones are put back."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    modes = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    for layer in module.modules():
        if isinstance(layer, _NormBase):
            layer.train()
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode
        for buffer, saved in buffers:
            buffer.copy_(saved)
