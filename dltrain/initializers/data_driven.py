"""Initializers that use a batch of data: unit variance in every layer, whitened patches in the first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dltrain.data.spec import Batch
from dltrain.initializers import closed_form
from dltrain.ranges import InitializerWord, Positive
from dltrain.weight_layers import first_layer, weight_layers


def lsuv(module: nn.Module, generator: torch.Generator, batch: Batch | None = None) -> None:
    """LSUV: orthogonal weights, scaled to unit variance of each layer's outputs on data.

        W ← W/std(outputs of the layer on a batch), layer by layer in the order of execution

    Biases are 0, so that outputs are linear in the weights of the layer and a single forward pass gives
    exactly what the paper iterates for.

    Use: deep networks with any activation, without a formula for the gain.
    Paper: Mishkin & Matas 2015, arXiv:1511.06422
    """
    closed_form.orthogonal(module, generator, gain=1.0)
    scaled: set[nn.Module] = set()

    def rescale(layer: nn.Module, args: tuple[Tensor, ...], outputs: Tensor) -> Tensor | None:
        # a layer that is used twice keeps the scale of its first use
        if layer in scaled:
            return None
        scaled.add(layer)
        deviation = outputs.std()
        # a layer whose outputs are constant keeps its weights
        deviation = torch.where(deviation > 0, deviation, 1.0)
        layer.get_parameter("weight").div_(deviation)
        return outputs / deviation

    # without attention's in_proj_weight, whose outputs are not those of a module
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
    """A first layer that whitens its input patches.

        w_k = v_k/√(λ_k + eps) for k = 1 … K
        w_(K+k) = −w_k

    Filters beyond the 2K start as the other layers do. The patches of a linear layer are whole samples, which
    takes O(d³) for d features. Raises ValueError if the first layer is a grouped convolution or has padding
    given as a word.

    Symbols: v_k, λ_k = eigenvectors and eigenvalues of the covariance of the patches, largest first;
        K = number of λ_k > eps
    Use: model=speed_cnn, whose first layer is not trained; any model of correlated inputs.
    Defaults: the paper's, which takes the patches of 5000 images.
    Paper: Jordan 2024, arXiv:2404.00498

    Args:
        eps: constant added to the eigenvalues
        others: initializer of the other layers
    """
    inputs = _inputs(module, batch, "whitening")
    closed_form.by_word(others)(module, generator)
    # a study problem has no weight layer
    layer = first_layer(module)
    if layer is not None:
        patches = _patches(layer.module, _first_input(module, layer.module, inputs))
        filters = whitening_filters(patches, eps)
        count = min(2 * len(filters), layer.weight.shape[0])
        with torch.no_grad():
            rows = torch.cat([filters, -filters])[:count]
            layer.weight[:count] = rows.view(count, *layer.weight.shape[1:]).to(layer.weight)
            if layer.bias is not None:
                layer.bias.zero_()


def whitening_filters(patches: Tensor, eps: float) -> Tensor:
    """Return float64 filters (K, D) whose outputs on patches (N, D) are uncorrelated with variance 1, up to eps.

    K counts the directions with a variance above eps, since the others would amplify noise.
    """
    covariance = torch.cov(patches.double().T).reshape(patches.shape[1], patches.shape[1])
    # ascending
    values, vectors = torch.linalg.eigh(covariance)
    filters = (vectors / (values.clamp(min=0) + eps).sqrt()).T
    return filters[values > eps].flip(0)


def _patches(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return the inputs of the layer's filters: (N, in·kernel) for a convolution, (N, in) for a linear layer."""
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
    if not seen:
        raise ValueError(
            "initializer=whitening needs a first layer that the model calls, as in self.first(inputs); use initializer=lsuv"
        )
    return seen[0]


def _inputs(module: nn.Module, batch: Batch | None, word: str) -> Tensor:
    if batch is None:
        raise ValueError(
            f"initializer={word} needs a batch of data and was given none; use another initializer"
        )
    parameter = next(module.parameters())
    return batch.inputs.to(parameter.device, parameter.dtype)


def _forward(module: nn.Module, inputs: Tensor, hooks: list[torch.utils.hooks.RemovableHandle]) -> None:
    """Run the module once, as in training but without dropout; only the hooks change anything."""
    try:
        with torch.no_grad(), _without_noise(module):
            module(inputs)
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _without_noise(module: nn.Module) -> Iterator[None]:
    """Switch dropout off and let batch norms use the statistics of the batch; restore modes and running statistics."""
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
