"""All words together: order, streams, no waiting for the device, and the YAML files."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import no_host_sync
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dltrain.augmentation.pipeline import Augmentation
from dltrain.augmentation.protocols import BatchTransform
from dltrain.data.spec import DataSpec

CONF = Path(__file__).parents[2] / "conf" / "augmentation"
SPEC = DataSpec(
    (3, 16, 16), 10, "classification", torch.full((3, 1, 1), 0.45), torch.full((3, 1, 1), 0.25)
)  # fmt: skip
WORDS = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "none")


def build(word: str) -> BatchTransform:
    """Build a word with the keys of its YAML file."""
    node = yaml.safe_load((CONF / f"{word}.yaml").read_text())
    module, name = node.pop("_target_").rsplit(".", 1)
    return getattr(import_module(module), name)(SPEC, **node)


def call(augmentation: Callable[..., Any], size: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    batch = torch.Generator().manual_seed(9)
    inputs = torch.rand(size, 3, 16, 16, generator=batch) * 4 - 1.8
    targets = torch.randint(10, (size,), generator=batch)
    return augmentation(inputs, targets, torch.Generator().manual_seed(seed), torch.arange(size), 1)


@pytest.mark.parametrize("word", WORDS)
def test_draws_come_from_the_generator_alone(word: str) -> None:
    augmentation = Augmentation([build(word)])
    before = torch.random.get_rng_state()
    one, labels = call(augmentation)
    two, same_labels = call(augmentation)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(one, two) and torch.equal(labels, same_labels)
    if word != "alternating_flip":
        assert not torch.equal(one, call(augmentation, seed=1)[0])


@pytest.mark.parametrize("word", WORDS)
def test_every_sample_has_its_own_draw(word: str) -> None:
    """The same picture many times over comes out in many ways."""
    inputs = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2)).expand(64, -1, -1, -1)
    if word in ("mixup", "cutmix"):  # equal partners cannot be seen
        inputs = inputs * torch.linspace(1, 2, 64).view(-1, 1, 1, 1)
    inputs = inputs.clone()
    kept = inputs.clone()
    outputs, _ = Augmentation([build(word)])(
        inputs, torch.zeros(64, dtype=torch.long), torch.Generator().manual_seed(0), torch.arange(64), 0
    )
    assert torch.equal(inputs, kept)  # never in place: the inputs may be the dataset itself
    assert outputs.shape == inputs.shape and outputs.dtype == inputs.dtype and outputs.isfinite().all()
    ways = {tuple(picture.flatten().tolist()) for picture in outputs}
    assert len(ways) >= (2 if "flip" in word else 15)


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a GPU: reading values, sizes out of values, new constants."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        waits = (
            "_local_scalar_dense",
            "nonzero",
            "masked_select",
            "lift_fresh",
            "is_nonzero",
            "equal",
            "bincount",
        )
        assert name.removeprefix("aten::") not in waits, name
        if name in ("aten::index", "aten::index_put_"):
            assert all(index is None or index.dtype != torch.bool for index in args[1]), "boolean index"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("word", WORDS)
def test_nothing_waits_for_the_device(word: str) -> None:
    augmentation = Augmentation([build(word)])
    call(augmentation)
    inputs, targets = torch.randn(8, 3, 16, 16), torch.arange(8)
    generator, indices = torch.Generator().manual_seed(0), torch.arange(8)
    with NoWaiting():
        augmentation(inputs, targets, generator, indices, 1)


def test_the_witness_sees_waiting() -> None:
    for wait in (
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: bool(x[0] > 0),
        lambda x: x.nonzero(),
    ):
        with pytest.raises(AssertionError), NoWaiting():
            wait(torch.randn(3))


@pytest.mark.gpu
@pytest.mark.parametrize("word", WORDS)
def test_on_a_gpu_without_a_host_sync(word: str) -> None:
    augmentation, device = Augmentation([build(word)]), torch.device("cuda")
    inputs, targets = torch.randn(8, 3, 16, 16, device=device), torch.arange(8, device=device)
    generator, indices = torch.Generator(device).manual_seed(0), torch.arange(8, device=device)
    augmentation(inputs, targets, generator, indices, 1)
    with no_host_sync():
        outputs, _ = augmentation(inputs, targets, generator, indices, 1)
    assert outputs.isfinite().all()


def test_stages_have_a_fixed_order() -> None:
    words = ["mixup", "cutout", "noise", "color", "rotate", "flip"]
    straight = [build(word) for word in reversed(words)]
    outputs = [call(Augmentation(chain))[0] for chain in (straight, [*straight[2:], *straight[:2]])]
    assert torch.equal(*outputs)
    assert [type(step).__name__ for step in Augmentation(straight).others] == [
        "Color",
        "Noise",
        "Cutout",
        "Mixup",
    ]
    assert len(Augmentation(straight).fused) == 1


def test_a_users_own_function_takes_its_place_with_the_colors() -> None:
    seen = []

    def own(inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        seen.append(inputs)
        return inputs + 1, targets

    augmentation = Augmentation([build("cutout"), own, build("flip")])
    assert [getattr(step, "__name__", type(step).__name__) for step in augmentation.others] == [
        "own",
        "Cutout",
    ]
    call(augmentation)
    assert len(seen) == 1


def test_nothing_is_drawn_when_nothing_is_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    inputs, targets = torch.randn(4, 3, 16, 16), torch.arange(4)
    assert Augmentation([])(inputs, targets, generator) == (inputs, targets)
    assert torch.equal(before, generator.get_state())


def test_everything_at_once() -> None:
    chain = [build(word) for word in WORDS]
    outputs, labels = call(Augmentation(chain))
    assert outputs.isfinite().all() and outputs.shape == (32, 3, 16, 16)
    torch.testing.assert_close(labels.sum(1), torch.ones(32))


@pytest.mark.ci
def test_torchvision_stays_out() -> None:
    import subprocess
    import sys

    code = (
        "import sys, dltrain.augmentation.pipeline, dltrain.augmentation.policies, dltrain.augmentation.mix\n"
    )
    code += "print(sorted({'torchvision', 'sklearn', 'matplotlib', 'torch._dynamo'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
