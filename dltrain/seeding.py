"""Named random streams: every draw is a function of (seed, stream, counter), so that resuming needs no saved state.

Streams: `init` (weights), `shuffle` (order), `augment` (transforms), `dropout` (torch's global generator, since
`nn.Dropout` takes no other), `noise` (gradient noise). Samples of the training split are drawn by `initializer` (for
data-driven initializers), `statistics` (of batch norms), `diagnostics`, `check` and `pictures`.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def derive(seed: int, stream: str, counter: int = 0) -> int:
    """Return the seed of a stream at a counter, such as the step: 63 well-mixed bits."""
    return splitmix(_base(seed, stream), counter) >> 1


def _base(seed: int, stream: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{stream}:{seed}".encode(), digest_size=8).digest(), "little")


def splitmix(state: int, count: int = 1) -> int:
    """Return the `count`-th number of SplitMix64 after a state (Steele et al. 2014).

    It maps adjacent states and counts to unrelated numbers of 64 bits; torch's CPU generator uses the low 32 bits only.
    """
    number: int = mix((state + count * GOLDEN) & _MASK)
    return number


def mix(x: Any) -> Any:
    """Apply the finalizer of SplitMix64 to an int below 2^64, or to an array of uint64."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


class Stream:
    """A named stream on a device; `at(counter)` returns its generator, seeded for that counter."""

    def __init__(self, seed: int, name: str, device: torch.device | str = "cpu") -> None:
        self.base = _base(seed, name)
        self.generator = torch.Generator(device)

    def at(self, counter: int) -> torch.Generator:
        self.generator.manual_seed(splitmix(self.base, counter) >> 1)
        return self.generator


class GlobalStream(Stream):
    """The stream of `nn.Dropout`: torch's global generator of the device."""

    def __init__(self, seed: int, name: str, device: torch.device) -> None:
        self.base = _base(seed, name)
        self.generator = torch.default_generator
        if device.type == "cuda":
            torch.cuda.init()
            self.generator = torch.cuda.default_generators[device.index or 0]


def sample_positions(count: int, wanted: int, seed: int, stream: str) -> Tensor:
    """Return positions (min(wanted, count),) of a random sample of a split with `count` samples, in random order.

    The positions depend on the arguments only, so that a run uses the same samples at every step. The first samples of a
    split would not represent it, since files are often sorted.
    """
    return torch.randperm(count, generator=Stream(seed, stream).at(0))[:wanted]
