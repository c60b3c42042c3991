"""An accelerator without a GPU: where tensors lie, and where the host would wait for the device.

A tensor on `pretend:0` holds a CPU tensor, with which it computes. As on a GPU, an operation that mixes it with a CPU
tensor of one axis or more, or with a generator of the CPU, raises a RuntimeError. Each place where the host would wait
for a GPU is kept in `reads`: `.item()`, `bool(tensor)`, copies to the host, operations whose result has a size that
depends on the values, and copies to the device that are not `non_blocking`. Inside `accelerator()` the program runs on it
whatever its knob `device` says: autocast, generators, streams, pinned memory and safetensors do what they do on a GPU.
"""

from __future__ import annotations

import itertools
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
reads: list[str] = []
_clock = itertools.count()
_aten = torch.ops.aten
_MAY_MIX = (_aten._to_copy.default, _aten.copy_.default, _aten.index.Tensor, _aten.index_put_.default)
# the host waits for these on a GPU: their result is a number, or has a size that depends on the values
_WAITED_FOR = {
    _aten._local_scalar_dense, _aten.equal, _aten.nonzero, _aten.masked_select, _aten._unique2, _aten.unique_dim,
    _aten.unique_consecutive, _aten.bincount, _aten._linalg_check_errors, _aten.is_nonzero,
}  # fmt: skip


class Device:
    """What `torch.pretend` offers: the part of `torch.cuda` that the program uses."""

    class Stream:
        """A queue of operations; here each is done at once, but a tensor of another queue must be waited for."""

        def __init__(self, device: torch.device) -> None:
            self.waited: dict[Device.Stream, int] = {}

        def wait_stream(self, other: Device.Stream) -> None:
            self.waited[other] = next(_clock)

        def synchronize(self) -> None:
            _note("synchronize")

    def __init__(self) -> None:
        self.streams = [self.Stream(torch.device("cpu"))]

    def current_stream(self, device: torch.device | None = None) -> Stream:
        return self.streams[-1]

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self.streams.append(stream)
        yield
        self.streams.pop()

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None: ...

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_device = Device()
_setup_privateuseone_for_python_backend(NAME, backend_module=_device)


class PretendTensor(Tensor):
    """A tensor that says it is on the accelerator, around one on the CPU."""

    inner: Tensor
    made_on: Device.Stream
    made_at: int

    @staticmethod
    def __new__(cls, inner: Tensor) -> PretendTensor:
        made: PretendTensor = Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), dtype=inner.dtype, device=f"{NAME}:0"
        )
        made.inner = inner
        made.made_on, made.made_at = _device.current_stream(), next(_clock)
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})

    def tolist(self) -> Any:
        _note("tolist")
        return self.inner.tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first")

    def record_stream(self, stream: Device.Stream) -> None:
        assert stream is not self.made_on

    def storage(self) -> Any:
        return self.inner.storage()

    def untyped_storage(self) -> Any:
        return self.inner.untyped_storage()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = on_device(self.inner).requires_grad_(self.requires_grad)
        made = (
            torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied
        )
        memo[id(self)] = made
        return made


class Pretending(TorchDispatchMode):
    """Within it, what names the device without having a tensor on it, such as `.to("pretend")`, finds it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = _unpinned(kwargs or {})
        named = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == NAME
        return _compute(func, args, kwargs) if named else func(*args, **kwargs)


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the CPU tensors within, and say where its result lies."""
    kwargs = _unpinned(kwargs)
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    mine = {id(t.inner): t for t in tensors if isinstance(t, PretendTensor)}
    others = [t for t in tensors if not isinstance(t, PretendTensor) and t.dim()]
    if mine and others and func not in _MAY_MIX:
        raise RuntimeError(f"{func}: Expected all tensors to be on the same device, {NAME}:0 and cpu")
    stream = _device.current_stream()
    if any(t.made_on is not stream and stream.waited.get(t.made_on, -1) < t.made_at for t in mine.values()):
        raise RuntimeError(f"{func}: a tensor of another stream, which is not waited for")
    asked = kwargs.get("device")
    to_host = asked is not None and torch.device(asked).type == "cpu"
    if _waits(func, args, kwargs, to_host, bool(others)):
        _note(str(func))
    plain = {**kwargs, "device": "cpu"} if asked is not None else kwargs
    args, plain = tree_map(lambda t: t.inner if isinstance(t, PretendTensor) else t, (args, plain))
    result = func(*args, **plain)
    written_here = func is _aten.copy_.default and id(args[0]) not in mine  # into a tensor of the CPU
    stays = not to_host and not written_here
    return tree_map(lambda t: _wrapped(t, mine) if stays else t, result)


def _unpinned(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**kwargs, "pin_memory": False} if kwargs.get("pin_memory") else kwargs


def _waits(func: Any, args: Any, kwargs: dict[str, Any], to_host: bool, mixes: bool) -> bool:
    """Return whether the host waits for the device, or for a copy to it."""
    if func in _MAY_MIX[:2]:
        crosses = mixes or to_host or (func is _MAY_MIX[0] and not isinstance(args[0], PretendTensor))
        return crosses and not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
    if func in _MAY_MIX[2:]:
        masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
        filled = func is _MAY_MIX[3] and args[2].numel() == 1  # becomes masked_fill
        return mixes or bool(masks and not filled)
    return func.overloadpacket in _WAITED_FOR


def _note(what: str) -> None:
    """Keep an operation with the line of the program that asked for it; only the thread that trains is waited for."""
    if threading.current_thread() is not threading.main_thread():
        return
    frames = [
        f for f in traceback.extract_stack() if "/dltrain/" in f.filename and "/tests/" not in f.filename
    ]
    where = f" at {frames[-1].filename.rpartition('/dltrain/')[2]}:{frames[-1].lineno}" if frames else ""
    reads.append(what + where)


def _wrapped(value: Any, mine: dict[int, PretendTensor]) -> Any:
    """A result on the accelerator; an operation in place returns the tensor that it was given."""
    if not isinstance(value, Tensor) or isinstance(value, PretendTensor):
        return value
    return mine[id(value)] if id(value) in mine else PretendTensor(value)


def on_device(tensor: Tensor) -> Tensor:
    return PretendTensor(tensor.clone())


# The whole program on it ------------------------------------------------------------------------------------------


class Generator(torch.Generator):
    """A generator that knows its device; it draws what one of the CPU draws."""

    place: str

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls, "cpu")
        made.place = torch.device(device).type
        return made

    @property
    def device(self) -> torch.device:
        return torch.device(self.place)


class _Generators(TorchFunctionMode):
    """Raise, as torch does, where the generator of one device fills a tensor of another."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        generator = kwargs.get("generator")
        if generator is not None:
            first = args[0].device if args and isinstance(args[0], Tensor) else "cpu"
            place = torch.device(kwargs.get("device") or first).type
            if place != getattr(generator, "place", "cpu"):
                raise RuntimeError(
                    f"Expected a '{place}' device type for generator but found '{generator.device}'"
                )
        return func(*args, **kwargs)


_IN_BF16 = "linear matmul mm bmm addmm addbmm baddbmm conv1d conv2d scaled_dot_product_attention"
_IN_FLOAT32 = (
    "softmax.int log_softmax.int layer_norm group_norm cross_entropy_loss nll_loss mse_loss l1_loss huber_loss smooth_l1_loss "
    "binary_cross_entropy_with_logits exp log pow.Tensor_Scalar norm.Scalar sum cumsum prod"
)
_KEY = "AutocastPrivateUse1"


def _autocast_to(op: Any, dtype: torch.dtype) -> Callable[..., Any]:
    def cast(*args: Any, **kwargs: Any) -> Any:
        def to(value: Any) -> Any:
            floats = isinstance(value, PretendTensor) and value.dtype in (torch.float32, torch.bfloat16)
            return value.to(dtype) if floats else value

        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, _KEY))):
            return op(*tree_map(to, args), **tree_map(to, kwargs))

    return cast


_others = torch.library.Library("_", "IMPL")
_others.fallback(torch.library.fallthrough_kernel, _KEY)
_library = torch.library.Library("aten", "IMPL")
for _names, _dtype in ((_IN_BF16, torch.bfloat16), (_IN_FLOAT32, torch.float32)):
    for _name in _names.split():
        _packet, _, _overload = _name.partition(".")
        _library.impl(
            _name, _autocast_to(getattr(getattr(_aten, _packet), _overload or "default"), _dtype), _KEY
        )


@contextmanager
def accelerator() -> Iterator[list[str]]:
    """Run the program inside on the accelerator; yields `reads`, which starts empty."""
    from dltrain.run import build, machine, prediction, scoring

    def choose(asked: str) -> torch.device:
        return torch.device(f"{NAME}:0")

    swapped = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    reads.clear()
    try:
        with ExitStack() as stack:
            for module in (build, machine, prediction, scoring):
                stack.enter_context(patch.object(module, "choose_device", choose))
            stack.enter_context(patch.object(torch, "inference_mode", torch.no_grad))
            stack.enter_context(patch.object(torch, "Generator", Generator))
            stack.enter_context(patch.object(Tensor, "pin_memory", lambda tensor, *device: tensor))
            stack.enter_context(_Generators())
            stack.enter_context(Pretending())
            yield reads
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swapped)
