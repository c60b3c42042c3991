"""Vanishing and exploding: activations, gradients and updates by layer, and dead units."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from dltrain.diagnostics.probe import Probe
from dltrain.initializers.layers import ACTIVATIONS
from dltrain.weight_layers import weight_layers


class Layers:
    """Size of activations, gradients and updates by layer, and the fraction of dead units.

        √mean(z²), ‖∂L/∂W‖ and ‖ΔW‖/‖W‖ of each layer
        fraction of units whose activation is the same for all samples

    No gradient reaches the weights of a dead unit, such as a ReLU that is always 0. Its column has the name of the
    activation module; in images the unit must be constant at all positions, too. A layer that thaws later has no gradient (nan)
    and an update of 0 until then; one that is frozen to the end has no columns. Costs one gradient of `samples`.

    Symbols: z the layer's output before its activation; ΔW the last step
    Use: a deep network that does not train: numbers that shrink or grow from layer to layer vanish or explode; updates of
        about 1e-3 of the weights are usual.
    Defaults: 256 samples, whose mean is accurate to a few percent.
    Paper: Glorot & Bengio 2010; He et al. 2015, arXiv:1502.01852
    Lecture: L0 L1 L2 L4

    Args:
        samples: training samples of the loss
    """

    needs = frozenset({"samples", "layers"})

    def __init__(self, samples: Annotated[int, ">= 2"] = 256) -> None:
        self.samples = samples
        # names of the layers that are trained, now or once they thaw
        self.trained: frozenset[str] | None = None

    def begin(self, model: nn.Module) -> None:
        """Note the layers that are trained, before those that thaw later are frozen: a row has columns of all of them."""
        self.trained = frozenset(_trained(model))

    def measure(self, probe: Probe) -> dict[str, float]:
        trained = frozenset(_trained(probe.model)) if self.trained is None else self.trained
        layers = [layer for layer in weight_layers(probe.model) if layer.name in trained]
        seen: dict[str, list[Tensor]] = defaultdict(list)
        handles = [
            layer.module.register_forward_hook(_keep(seen[f"{_short(layer.name)}/activation"], _size))
            for layer in layers
        ]
        handles += [
            module.register_forward_hook(_keep(seen[f"{name}/dead"], _dead_share))
            for name, module in probe.model.named_modules()
            if isinstance(module, ACTIVATIONS)
        ]
        try:
            _, grads = probe.gradients()
        finally:
            for handle in handles:
                handle.remove()
        columns = {name: torch.stack(values).mean() for name, values in seen.items() if values}
        gradients = {id(p): g for p, g in zip(probe.parameters, grads, strict=True)}
        updates = {id(p): u for p, u in zip(probe.model.parameters(), probe.update, strict=False)}
        for layer in layers:
            name = _short(layer.name)
            gradient = gradients.get(id(layer.weight))
            columns[f"{name}/gradient"] = (
                layer.weight.new_tensor(math.nan) if gradient is None else _norm(gradient)
            )
            if id(layer.weight) in updates:
                weight = _norm(layer.weight).clamp(min=torch.finfo(torch.float32).tiny)
                columns[f"{name}/update"] = _norm(updates[id(layer.weight)]) / weight
        # one host sync for all columns
        values = torch.stack(list(columns.values())).tolist() if columns else []
        return dict(zip(columns, values, strict=True))


def _trained(model: nn.Module) -> list[str]:
    return [layer.name for layer in weight_layers(model) if layer.weight.requires_grad]


def _short(name: str) -> str:
    return name.removesuffix(".weight")


def _norm(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor.detach()).float()


def _keep(kept: list[Tensor], measure: Callable[[Tensor], Tensor]) -> Callable[..., None]:
    """Return a forward hook that appends a number computed from the output, once for each use of the module."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            kept.append(measure(output.detach()))

    return hook


def _size(output: Tensor) -> Tensor:
    return output.float().square().mean().sqrt()


def _dead_share(output: Tensor) -> Tensor:
    """Return the fraction of dead units along axis 1, or along the last axis of tokens (B, N, D)."""
    unit = output.ndim - 1 if output.ndim == 3 else 1
    values = output.movedim(unit, 0).flatten(1)
    return (values.amax(1) == values.amin(1)).float().mean()
