"""Color, noise and the policies' operations against torchvision's functional ones, sample by sample."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dltrain.augmentation import color, policies
from dltrain.augmentation.color import Color, Noise
from dltrain.augmentation.draws import Draw, draw_for
from dltrain.augmentation.mix import Cutout
from dltrain.augmentation.policies import OPERATIONS, RandAugment, Space, TrivialAugment, operate
from dltrain.data.spec import DataSpec

MEAN = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
STD = torch.tensor([0.25, 0.2, 0.3]).view(3, 1, 1)
SPEC = DataSpec((3, 17, 12), 10, "classification", MEAN, STD)
GRAY = DataSpec((1, 8, 8), 10, "classification", MEAN[:1], STD[:1])
TABLE = DataSpec((30,), 2, "classification", torch.zeros(30), torch.ones(30))
N = 10_000


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bytes_as_floats(batch: int = 8) -> Tensor:
    """Raw pictures that are exact bytes, with a dark and a constant channel among them."""
    raw = torch.randint(256, (batch, *SPEC.input_shape), generator=generator(5)) / 255
    raw[1] = (raw[1] * 0.3 * 255).round() / 255
    raw[2, 0] = 100 / 255
    return raw


@pytest.mark.parametrize("word", [Color, RandAugment, TrivialAugment])
def test_floats_beyond_0_to_1_are_refused(word: Any) -> None:
    """They were cut off at 0 and 1: digits from 0 to 16 became noise."""
    for low, high in ((0.0, 16.0), (-1.0, 1.0)):
        with pytest.raises(
            ValueError, match=rf"those of this dataset go from {low:g} to {high:g}\. Save them as uint8"
        ):
            word(replace(SPEC, value_range=(low, high)))
    word(replace(SPEC, value_range=(0.1, 0.9)))


def test_black_is_the_lowest_value_of_floats_below_0() -> None:
    assert torch.equal(SPEC.black, -MEAN / STD)
    dark = replace(SPEC, value_range=(-1.0, 1.0))
    assert torch.equal(dark.black, (-1 - MEAN) / STD)
    assert torch.equal(Cutout(dark, 2, "black").cover, dark.black)


def test_color_agrees_with_torchvision_sample_by_sample() -> None:
    from torchvision.transforms.v2 import functional as tv

    raw, transform = bytes_as_floats(), Color(SPEC, 0.8, 0.7, 1.0)
    factors = transform.parameters(draw_for(raw, generator()))
    outputs, _ = transform((raw - MEAN) / STD, torch.zeros(8), generator())
    for i, (light, contrast, saturation) in enumerate(torch.stack(factors, 1).tolist()):
        twin = tv.adjust_contrast(tv.adjust_brightness(raw[i], light), contrast)
        torch.testing.assert_close((outputs * STD + MEAN)[i], tv.adjust_saturation(twin, saturation))


def test_color_without_reach_changes_nothing() -> None:
    raw = torch.rand(4, 1, 8, 8)
    inputs = (raw - MEAN[:1]) / STD[:1]
    outputs, _ = Color(GRAY, 0.0, 0.0, 1.0)(inputs, torch.zeros(4), generator())
    torch.testing.assert_close(outputs, inputs)  # one channel has no saturation


def test_color_marginals() -> None:
    factors = Color(SPEC, 0.1, 0.2, 0.3).parameters(Draw(N, 17, 12, generator(), torch.device("cpu")))
    for values, reach in zip(factors, (0.1, 0.2, 0.3), strict=True):
        assert abs(values.mean() - 1) < 4 * reach / math.sqrt(3 * N)
        assert abs(values.std() - reach / math.sqrt(3)) < 0.02 * reach
        assert 1 - reach <= values.min() and values.max() <= 1 + reach
    assert torch.corrcoef(torch.stack(factors))[0, 1:].abs().max() < 4 / math.sqrt(N)


@pytest.mark.parametrize("shape", [(500, 30), (100, 3, 5, 4)])
def test_noise_has_the_given_deviation(shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape, generator=generator(1))
    outputs, _ = Noise(TABLE, 0.3)(inputs, torch.zeros(len(inputs)), generator())
    difference = outputs - inputs
    assert abs(difference.mean()) < 4 * 0.3 / math.sqrt(inputs.numel())
    assert abs(difference.std() - 0.3) < 0.02
    assert not torch.equal(difference[0], difference[1])


WIDE = Space(0.9, (5.0, 7.0), 100.0, 0.9, 6)


def twin_operation(name: str, picture: Tensor, level: float, sign: float) -> Tensor:
    """One picture through torchvision; the tones on bytes, as Pillow has them."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as tv

    bilinear, amount = InterpolationMode.BILINEAR, sign * level
    blend, as_bytes = 1 + amount * WIDE.blend, (picture * 255).round().byte()
    degrees = math.degrees(math.atan(amount * WIDE.shear))
    match name:
        case "shear_x":
            return tv.affine(picture, 0.0, [0, 0], 1.0, [degrees, 0.0], bilinear)
        case "shear_y":
            return tv.affine(picture, 0.0, [0, 0], 1.0, [0.0, degrees], bilinear)
        case "translate_x":
            return tv.affine(picture, 0.0, [int(amount * 5.0), 0], 1.0, [0.0, 0.0])
        case "translate_y":
            return tv.affine(picture, 0.0, [0, int(amount * 7.0)], 1.0, [0.0, 0.0])
        case "rotate":
            return tv.rotate(picture, amount * WIDE.rotate, bilinear)
        case "brightness":
            return tv.adjust_brightness(picture, blend)
        case "saturation":
            return tv.adjust_saturation(picture, blend)
        case "contrast":
            return tv.adjust_contrast(picture, blend)
        case "sharpness":
            return tv.adjust_sharpness(picture, blend)
        case "posterize":
            return tv.posterize(as_bytes, 8 - round(level * WIDE.bits)) / 255
        case "solarize":
            return tv.solarize(picture, 1 - level)
        case "autocontrast":
            return tv.autocontrast(picture)
        case "equalize":
            return tv.equalize(as_bytes) / 255
    return picture


@pytest.mark.parametrize("number, name", list(enumerate(OPERATIONS)))
def test_each_operation_agrees_with_torchvision(number: int, name: str) -> None:
    raw = bytes_as_floats()
    level, sign = torch.linspace(0, 1, 8), torch.tensor([1.0, -1.0] * 4)
    outputs = operate(raw, torch.full((8,), number), level, sign, WIDE)
    twins = [twin_operation(name, *x) for x in zip(raw, level.tolist(), sign.tolist(), strict=True)]
    torch.testing.assert_close(outputs, torch.stack(twins), atol=2e-4, rtol=0)


def test_operations_mix_within_a_batch() -> None:
    raw = bytes_as_floats(28)
    numbers, level = torch.arange(28) % 14, torch.full((28,), 0.5)
    together = operate(raw, numbers, level, torch.ones(28), WIDE)
    for i in range(28):
        alone = operate(raw[i : i + 1], numbers[i : i + 1], level[:1], torch.ones(1), WIDE)
        torch.testing.assert_close(together[i : i + 1], alone)


def test_equalize_on_coarse_pictures_agrees_with_pillows_rule() -> None:
    from torchvision.transforms.v2 import functional as tv

    coarse = (torch.rand(6, 3, 32, 32, generator=generator()) * 12).floor() * 20
    torch.testing.assert_close(color.equalize(coarse / 255), tv.equalize(coarse.byte()) / 255)


def test_policies_draw_every_operation_equally_often() -> None:
    numbers, signs = policies.operations_and_signs(Draw(N, 1, 1, generator(), torch.device("cpu")))
    shares = torch.bincount(numbers, minlength=14) / N
    assert len(shares) == 14 and (shares - 1 / 14).abs().max() < 4 * math.sqrt(1 / 14 / N)
    assert abs(signs.mean()) < 4 / math.sqrt(N) and signs.abs().min() == 1


@pytest.mark.parametrize("policy", [RandAugment(SPEC, 3, 20), TrivialAugment(SPEC), RandAugment(GRAY)])
def test_policies_stay_between_black_and_white(policy: Any) -> None:
    shape = (64, *(GRAY if len(policy.mean) == 1 else SPEC).input_shape)
    raw = torch.rand(shape, generator=generator())
    targets = torch.arange(64)
    outputs, same = policy((raw - policy.mean) / policy.std, targets, generator())
    outputs = outputs * policy.std + policy.mean
    assert same is targets
    assert outputs.min() > -1e-5 and outputs.max() < 1 + 1e-5
    changed = (outputs - raw).flatten(1).abs().amax(1) > 1e-3
    assert changed.float().mean() > 0.5


@pytest.mark.parametrize(
    "make, word",
    [
        (Color, "color"),
        (RandAugment, "randaugment"),
        (TrivialAugment, "trivialaugment"),
    ],
)
def test_tables_are_refused(make: Any, word: str) -> None:
    with pytest.raises(ValueError, match=f"augmentation={word} needs pictures"):
        make(TABLE)
