"""Vanishing and exploding: the size of activations, gradients and updates by layer, and units that are dead."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from dltrain.diagnostics.probe import Probe, require_at_least
from dltrain.initializers.layers import ACTIVATION_MODULES, weight_layers


class Layers:
    """Size of activations, gradients and updates by layer, and the share of dead units.

        √mean(z²), ‖∂L/∂W‖ and ‖ΔW‖/‖W‖ of each layer
        share of units whose activation is the same for all samples

    For each layer √mean(z²), ‖∂L/∂W‖ and ‖ΔW‖/‖W‖ of the last step, and the share of dead units.

    z is what the layer puts out, before its activation. A unit is dead where its activation gives the same
    number for all `samples` (and all places of a picture), so that no gradient reaches its weights: a ReLU
    that never opens. Such columns bear the name of the activation. Glorot & Bengio 2010; He et al. 2015,
    arXiv:1502.01852 (L1, L4); updates of about a thousandth of the weights are usual (L0, L2). Costs one
    gradient of `samples`.

    Symbols: z the layer's output before its activation; ΔW the last step
    Use: a deep net that does not learn: numbers that shrink or grow from layer to layer vanish or explode.
    Defaults: 256 samples, whose mean is steady to a few per cent.
    Paper: Glorot & Bengio 2010; He et al. 2015, arXiv:1502.01852
    Lecture: L0 L1 L2 L4

    Args:
        samples: training samples that are looked at
    """

    def __init__(self, samples: Annotated[int, ">= 2"] = 256) -> None:
        require_at_least(2, "diagnostics.layers.samples", samples)
        self.samples = samples

    def measure(self, probe: Probe) -> dict[str, float]:
        layers = [layer for layer in weight_layers(probe.model) if layer.weight.requires_grad]
        seen: dict[str, list[Tensor]] = defaultdict(list)
        handles = [
            layer.module.register_forward_hook(_keep(seen[f"{_short(layer.name)}/activation"], _size))
            for layer in layers
        ]
        handles += [
            module.register_forward_hook(_keep(seen[f"{name}/dead"], _dead_share))
            for name, module in probe.model.named_modules()
            if type(module) in ACTIVATION_MODULES
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
            columns[f"{name}/gradient"] = _norm(gradients[id(layer.weight)])
            if id(layer.weight) in updates:
                weight = _norm(layer.weight).clamp(min=torch.finfo(torch.float32).tiny)
                columns[f"{name}/update"] = _norm(updates[id(layer.weight)]) / weight
        values = (
            torch.stack(list(columns.values())).tolist() if columns else []
        )  # one host sync for all of them
        return dict(zip(columns, values, strict=True))


def _short(name: str) -> str:
    return name.removesuffix(".weight")


def _norm(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor.detach()).float()


def _keep(kept: list[Tensor], measure: Callable[[Tensor], Tensor]) -> Callable[..., None]:
    """A forward hook that keeps a number of the output; a layer that is used twice gives two."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            kept.append(measure(output.detach()))

    return hook


def _size(output: Tensor) -> Tensor:
    return output.float().square().mean().sqrt()


def _dead_share(output: Tensor) -> Tensor:
    """Of units along axis 1, or along the last axis of tokens (B, N, D)."""
    unit = output.ndim - 1 if output.ndim == 3 else 1
    values = output.movedim(unit, 0).flatten(1)
    return (values.amax(1) == values.amin(1)).float().mean()
