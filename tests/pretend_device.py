"""An accelerator without a GPU, for tests of where tensors lie and of how often the host reads them.

A tensor on `pretend:0` holds a CPU tensor, with which it computes. As on a GPU, an operation that mixes it with a CPU
tensor of one axis or more raises a RuntimeError; each read by the host is kept in `reads`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
reads: list[str] = []
_aten = torch.ops.aten
_MAY_MIX = (_aten._to_copy.default, _aten.copy_.default, _aten.index.Tensor, _aten.index_put_.default)

_setup_privateuseone_for_python_backend(NAME)


class PretendTensor(Tensor):
    """A tensor that says it is on the accelerator, around one on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> PretendTensor:
        made: PretendTensor = Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), dtype=inner.dtype, device=f"{NAME}:0"
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class Pretending(TorchDispatchMode):
    """Within it, what names the device without having a tensor on it, such as `.to("pretend")`, finds it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        named = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == NAME
        return _compute(func, args, kwargs) if named else func(*args, **kwargs)


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the CPU tensors within, and say where its result lies."""
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    mine = {id(t.inner): t for t in tensors if isinstance(t, PretendTensor)}
    if mine and func not in _MAY_MIX and any(t.dim() for t in tensors if not isinstance(t, PretendTensor)):
        raise RuntimeError(f"{func}: Expected all tensors to be on the same device, {NAME}:0 and cpu")
    asked = kwargs.get("device")
    to_host = asked is not None and torch.device(asked).type == "cpu"
    if func is _aten._local_scalar_dense.default or (mine and to_host):
        reads.append(str(func))
    plain = {**kwargs, "device": "cpu"} if asked is not None else kwargs
    args, plain = tree_map(lambda t: t.inner if isinstance(t, PretendTensor) else t, (args, plain))
    result = func(*args, **plain)
    written_here = func is _aten.copy_.default and id(args[0]) not in mine  # into a tensor of the CPU
    stays = not to_host and not written_here
    return tree_map(lambda t: _wrapped(t, mine) if stays else t, result)


def _wrapped(value: Any, mine: dict[int, PretendTensor]) -> Any:
    """A result on the accelerator; an operation in place returns the tensor that it was given."""
    if not isinstance(value, Tensor) or isinstance(value, PretendTensor):
        return value
    return mine[id(value)] if id(value) in mine else PretendTensor(value)


def on_device(tensor: Tensor) -> Tensor:
    return PretendTensor(tensor.clone())
