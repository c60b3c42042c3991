"""Use torch's optimizers and its backward pass without their slow imports, by its private functions.

The first optimizer imports `torch._dynamo`, which takes 4 to 5 s (torch 2.15). Two private paths lead there: methods of `Optimizer` wrapped by
`torch._disable_dynamo`, which look for a cached result in the attribute `__dynamo_disable` of what they
wrap; and `_use_grad_for_differentiable`, which wraps most `step` methods and imports the module to mark graph
breaks. If torch does not have one of them, nothing is changed and only the start is slower.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def backward(outputs: Tensor, gradient: Tensor) -> None:
    """Add to `.grad` the gradient of Σ outputs·gradient, two tensors of the same shape.

    The same as `outputs.backward(gradient)`, which imports sympy to compare the shapes: 0.3 s of every run. The check
    itself costs 7 % of a small step.
    """
    run = getattr(torch.autograd.graph, "_engine_run_backward", None)
    if run is None:
        outputs.backward(gradient)
        return
    # keep_graph, create_graph, inputs
    run((outputs,), (gradient,), False, False, (), allow_unreachable=True, accumulate_grad=True)


def skip_dynamo_import() -> None:
    """Keep torch.optim from importing `torch._dynamo`.

    Call it before the first optimizer is constructed, and not with compile=true. It does nothing if the module is
    already imported, and may be called twice.
    """
    if "torch._dynamo" in sys.modules:
        return
    for method in vars(torch.optim.Optimizer).values():
        _cache_undecorated(method)
    for optimizer in vars(torch.optim).values():
        if isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer):
            _step_without_graph_breaks(optimizer)


def _cache_undecorated(method: Any) -> None:
    """Store the undecorated function where `torch._disable_dynamo` looks for the disabled one."""
    function = getattr(method, "__wrapped__", None)
    if function is not None and not hasattr(function, "__dynamo_disable"):
        setattr(function, "__dynamo_disable", function)  # noqa: B010 (a plain name would be mangled in a class)


def _step_without_graph_breaks(optimizer: type[torch.optim.Optimizer]) -> None:
    step = vars(optimizer).get("step")
    if getattr(getattr(step, "__code__", None), "co_name", "") == "_use_grad" and hasattr(
        step, "__wrapped__"
    ):
        optimizer.step = _graph_only_if_differentiable(step.__wrapped__)  # type: ignore[union-attr,method-assign]


def _graph_only_if_differentiable(step: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(step)
    def wrapped(self: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step(self, *args, **kwargs)

    return wrapped
