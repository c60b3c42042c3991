"""Geometric transforms against torchvision's functional ones, sample by sample, and their marginals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dltrain.augmentation import geometry
from dltrain.augmentation.draws import Draw, draw_for
from dltrain.augmentation.geometric import (
    AlternatingFlip,
    Crop,
    Distort,
    Flip,
    Fused,
    Geometric,
    Rotate,
    Scale,
    Shear,
    Shift,
    smoother,
)
from dltrain.augmentation.pipeline import Augmentation, fuse
from dltrain.data.spec import DataSpec

MEAN = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
STD = torch.tensor([0.25, 0.2, 0.3]).view(3, 1, 1)
SPEC = DataSpec((3, 17, 12), 10, "classification", MEAN, STD)  # odd and even side, not square
TABLE = DataSpec((30,), 2, "classification", torch.zeros(30), torch.ones(30))


def raw_pictures(batch: int = 8, spec: DataSpec = SPEC) -> Tensor:
    return torch.rand(batch, *spec.input_shape, generator=torch.Generator().manual_seed(5))


def apply(transform: Geometric, raw: Tensor, seed: int = 3, indices: Tensor | None = None) -> Tensor:
    """The transform on normalized pictures, seen in raw pixels again."""
    generator = torch.Generator().manual_seed(seed)
    outputs, _ = transform((raw - MEAN) / STD, torch.zeros(len(raw)), generator, indices)
    return outputs * STD + MEAN


def same_draw(raw: Tensor, seed: int = 3) -> Draw:
    return draw_for(raw, torch.Generator().manual_seed(seed))


def torchvision_twin(transform: Geometric, raw: Tensor, seed: int = 3) -> Tensor:
    """The same draws through torchvision, one picture at a time."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as tv

    bilinear = InterpolationMode.BILINEAR
    height, width = raw.shape[-2:]
    draw = same_draw(raw, seed)
    parameters: Any = transform.parameters(draw)  # type: ignore[attr-defined]
    columns = parameters if isinstance(parameters, tuple) else (parameters,)

    def one(picture: Tensor, *p: Any) -> Tensor:
        match transform:
            case Flip():
                picture = tv.horizontal_flip(picture) if p[0] else picture
                return tv.vertical_flip(picture) if p[1] else picture
            case Shift():
                return tv.affine(picture, 0.0, [int(p[0]), int(p[1])], 1.0, [0.0, 0.0])
            case Crop():
                mode = "reflect" if transform.border == "reflect" else "constant"
                padded = tv.pad(picture, [transform.padding], padding_mode=mode)
                return tv.crop(padded, int(p[1]), int(p[0]), height, width)
            case Rotate():
                return tv.rotate(picture, float(p[0]), bilinear)
            case Shear():
                return tv.affine(picture, 0.0, [0, 0], 1.0, [float(p[0]), float(p[1])], bilinear)
            case Scale():
                return tv.affine(picture, 0.0, [0, 0], float(p[0]), [0.0, 0.0], bilinear)
            case Distort():
                start = (p[0] + torch.tensor([width, height]) / 2).tolist()
                corners = [[0, 0], [width, 0], [width, height], [0, height]]
                return tv.perspective(picture, start, corners, bilinear)
        raise AssertionError(transform)

    return torch.stack([one(*sample) for sample in zip(raw, *columns, strict=True)])


TWINS = [
    Flip(SPEC, 0.5, 0.5),
    Shift(SPEC, 5),
    Crop(SPEC, 4),
    Crop(SPEC, 11, "reflect"),
    Rotate(SPEC, 180.0),
    Shear(SPEC, 50.0),
    Scale(SPEC, 0.5, 2.0),
    Distort(SPEC, 0.45, 0.0),
]


@pytest.mark.parametrize("transform", TWINS, ids=lambda t: type(t).__name__)
def test_each_agrees_with_torchvision_sample_by_sample(transform: Geometric) -> None:
    raw = raw_pictures(16)
    outputs = apply(transform, raw)
    torch.testing.assert_close(outputs, torchvision_twin(transform, raw), atol=2e-4, rtol=0)
    assert len({tuple(picture.flatten().tolist()) for picture in outputs - raw}) > 3  # draws differ


def test_elastic_agrees_with_torchvision() -> None:
    from torchvision.transforms.v2 import functional as tv

    raw, transform = raw_pictures(), Distort(SPEC, 0.0, 1.5, 3.0)
    draw = same_draw(raw)
    transform.parameters(draw)
    pixels = transform.displacement(draw)
    assert pixels is not None
    fraction = pixels.permute(0, 2, 3, 1) * 2 / torch.tensor([12.0, 17.0])
    twin = torch.stack([tv.elastic(p, d[None], fill=None) for p, d in zip(raw, fraction, strict=True)])
    torch.testing.assert_close(apply(transform, raw), twin, atol=1e-5, rtol=0)


def test_a_chain_is_one_affine_of_torchvision() -> None:
    """Shear, then scale, then rotate, then shift is what torchvision calls affine."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as tv

    members = [Shear(SPEC, 20.0), Scale(SPEC), Rotate(SPEC, 40.0), Shift(SPEC, 3)]
    raw, draw = raw_pictures(), same_draw(raw_pictures())
    drawn = [member.parameters(draw) for member in members]  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(3)
    outputs, _ = Augmentation(members)((raw - MEAN) / STD, torch.zeros(8), generator)
    for i, output in enumerate(outputs * STD + MEAN):
        sheared = [float(angle[i]) for angle in drawn[0]]
        moved = [int(pixels[i]) for pixels in drawn[3]]
        twin = tv.affine(
            raw[i], -float(drawn[2][i]), moved, float(drawn[1][i]), sheared, InterpolationMode.BILINEAR
        )
        torch.testing.assert_close(output, twin, atol=2e-4, rtol=0)


def test_gather_and_warp_agree_on_whole_pixels() -> None:
    inputs = torch.randn(32, *SPEC.input_shape)
    members = [Flip(SPEC, 0.5, 0.5), Crop(SPEC, 4), Shift(SPEC, 3)]
    matrix, _ = Fused(members).compose(same_draw(inputs))
    black = -MEAN / STD
    moved = geometry.pick(inputs, matrix, black)
    torch.testing.assert_close(moved, geometry.warp(inputs, matrix, black), atol=1e-4, rtol=0)
    projected = geometry.warp(inputs, matrix, black, torch.zeros(32, 2, 17, 12), projective=True)
    torch.testing.assert_close(moved, projected, atol=1e-4, rtol=0)


def test_a_fused_flip_and_crop_is_one_after_the_other() -> None:
    raw = raw_pictures(64)
    crop, flip = Crop(SPEC, 3, "reflect"), Flip(SPEC)
    fused = Augmentation([crop, flip])
    assert len(fused.fused) == 1
    one, _ = fused(raw, torch.zeros(64), torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    two, _ = flip(crop(raw, torch.zeros(64), generator)[0], torch.zeros(64), generator)
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    "words, runs",
    [
        ("rotate crop flip shift", 1),
        ("flip reflect rotate", 2),
        ("reflect reflect", 2),
        ("rotate flip reflect flip", 2),
        ("flip flip", 1),
    ],
)
def test_neighbors_fuse_unless_their_borders_differ(words: str, runs: int) -> None:
    makers = {"rotate": Rotate, "crop": Crop, "flip": Flip, "shift": Shift}
    chain = [Crop(SPEC, 2, "reflect") if w == "reflect" else makers[w](SPEC) for w in words.split()]
    assert len(fuse(chain)) == runs


def test_outside_is_black_and_edges_blend_with_it() -> None:
    white = torch.ones(4, *SPEC.input_shape)
    outputs = apply(Scale(SPEC, 0.4, 0.5), white)
    assert outputs[:, :, 0, 0].abs().max() < 1e-6
    assert outputs.min() > -1e-6 and outputs.max() < 1 + 1e-6


def test_half_precision_is_resampled_in_float32() -> None:
    inputs = torch.randn(4, *SPEC.input_shape).bfloat16()
    outputs, _ = Rotate(SPEC)(inputs, torch.zeros(4), torch.Generator().manual_seed(0))
    exact, _ = Rotate(SPEC)(inputs.float(), torch.zeros(4), torch.Generator().manual_seed(0))
    assert outputs.dtype == torch.bfloat16
    torch.testing.assert_close(outputs.float(), exact, atol=2e-2, rtol=1e-2)


N = 10_000


def uniform_moments(low: float, high: float) -> tuple[float, float]:
    return (low + high) / 2, (high - low) / math.sqrt(12)


def whole_moments(low: int, high: int) -> tuple[float, float]:
    return (low + high) / 2, math.sqrt(((high - low + 1) ** 2 - 1) / 12)


@pytest.mark.parametrize(
    "transform, moments, extremes",
    [
        (Flip(SPEC, 0.3), [(0.3, math.sqrt(0.21)), (0.0, 0.0)], (0, 1)),
        (Flip(SPEC, 0.0, 1.0), [(0.0, 0.0), (1.0, 0.0)], (0, 1)),
        (Shift(SPEC, 3), [whole_moments(-3, 3)] * 2, (-3, 3)),
        (Crop(SPEC, 4), [whole_moments(0, 8)] * 2, (0, 8)),
        (Rotate(SPEC, 25.0), [uniform_moments(-25, 25)], (-25, 25)),
        (Shear(SPEC, 15.0), [uniform_moments(-15, 15)] * 2, (-15, 15)),
        (Scale(SPEC, 0.8, 1.3), [uniform_moments(0.8, 1.3)], (0.8, 1.3)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Geometric) else "",
)
def test_marginals(transform: Any, moments: list[tuple[float, float]], extremes: tuple[float, float]) -> None:
    drawn = transform.parameters(Draw(N, 17, 12, torch.Generator().manual_seed(0), torch.device("cpu")))
    columns = drawn if isinstance(drawn, tuple) else (drawn,)
    for values, (mean, std) in zip(columns, moments, strict=True):
        values = values.double()
        assert abs(values.mean() - mean) <= 4 * std / math.sqrt(N)
        assert abs(values.std() - std) <= 0.02 * std + 1e-9
        assert extremes[0] <= values.min() and values.max() <= extremes[1]
    if len(columns) == 2 and columns[0].double().std() > 0 and columns[1].double().std() > 0:
        correlation = torch.corrcoef(torch.stack(columns).double())[0, 1]
        assert abs(correlation) < 4 / math.sqrt(N)


def test_distort_marginals() -> None:
    transform = Distort(SPEC, 0.3, 1.5, 3.0)
    draw = Draw(N, 17, 12, torch.Generator().manual_seed(0), torch.device("cpu"))
    moves = transform.parameters(draw) / transform.corners - 1
    assert moves.abs().max() <= 0.3 + 1e-6
    assert (moves.std(0) - 0.3 / math.sqrt(3)).abs().max() < 0.005
    waves = transform.displacement(draw)
    assert waves is not None
    assert (waves.std(0) - 1.5).abs().max() < 0.06  # everywhere, to the rim
    torch.testing.assert_close(smoother(9, 2.0).norm(dim=1), torch.ones(9))


def test_alternating_flip_shows_both_sides_in_any_two_epochs() -> None:
    flip, indices = AlternatingFlip(SPEC), torch.arange(N)
    generator = torch.Generator().manual_seed(0)
    even, odd, later = (
        flip.parameters(Draw(N, 17, 12, generator, torch.device("cpu"), indices, epoch))
        for epoch in (0, 1, 2)
    )
    assert torch.equal(even, ~odd) and torch.equal(even, later)
    assert abs(even.float().mean() - 0.5) < 4 * 0.5 / math.sqrt(N)
    neighbors = (even[1:] == even[:-1]).float().mean()
    assert abs(neighbors - 0.5) < 4 * 0.5 / math.sqrt(N)
    other = AlternatingFlip(SPEC, seed=1).parameters(
        Draw(N, 17, 12, generator, torch.device("cpu"), indices, 0)
    )
    assert abs((even == other).float().mean() - 0.5) < 4 * 0.5 / math.sqrt(N)


def test_alternating_flip_follows_the_index_and_not_the_place() -> None:
    raw, indices = raw_pictures(8), torch.arange(8)
    flip = Augmentation([AlternatingFlip(SPEC)])
    generator = torch.Generator().manual_seed(0)
    straight, _ = flip(raw, indices, generator, indices, 3)
    order = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
    shuffled, _ = flip(raw[order], indices[order], generator, indices[order], 3)
    assert torch.equal(straight[order], shuffled)


def test_alternating_flip_without_indices_is_refused() -> None:
    with pytest.raises(ValueError, match="alternating_flip needs the indices.*use augmentation=flip"):
        AlternatingFlip(SPEC)(raw_pictures(), torch.zeros(8), torch.Generator())


@pytest.mark.parametrize(
    "make, keys, message",
    [
        (Shift, {"pixels": 12}, r"shift\.pixels is 12; it must be < 12, the shorter side"),
        (Crop, {"padding": 12}, r"crop\.padding is 12; it must be < 12, the shorter side"),
        (Scale, {"min": 1.2}, r"scale\.max is 1\.1; it must be >= scale\.min, which is 1\.2"),
    ],
)
def test_bad_parameters_are_refused_in_words(make: Any, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(SPEC, **keys)


@pytest.mark.parametrize("make", [Flip, AlternatingFlip, Shift, Crop, Rotate, Shear, Scale, Distort])
def test_tables_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"needs pictures of shape \(C, H, W\).*\(30,\).*mixup or none"):
        make(TABLE)
