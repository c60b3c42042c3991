"""Images per second of dltrain's augmentation beside torchvision v2 called once for each image, in one run.

usage: python benchmarks/augmentation.py [--batch 512] [--repeats 9] [--threads 1]

Both sides get 3×32×32 float pictures in memory and the same parameters. They are timed in turns, so that a
busy machine slows both, and the median of the ratios is printed. Aims: 8 with a separate (reflecting) crop,
14 with the crop folded into the warp, 8 for flip and crop alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dltrain.augmentation.geometric import Crop, Flip, Geometric, Rotate, Scale, Shear, Shift
from dltrain.augmentation.pipeline import Augmentation
from dltrain.data.spec import DataSpec

SPEC = DataSpec((3, 32, 32), 10, "classification", torch.full((3, 1, 1), 0.47), torch.full((3, 1, 1), 0.25))


@dataclass
class Case:
    """One line of the table: our transforms, torchvision's for one image, and the least ratio to reach."""

    name: str
    ours: Sequence[Geometric]
    theirs: Callable[[Tensor], Tensor]
    aim: float


def cases() -> list[Case]:
    from torchvision.transforms import v2

    shear, bilinear = (-10.0, 10.0, -10.0, 10.0), v2.InterpolationMode.BILINEAR
    affine = v2.RandomAffine(10.0, (2 / 32, 2 / 32), (0.9, 1.1), shear, bilinear)
    flip, black = v2.RandomHorizontalFlip(), v2.RandomCrop(32, padding=4)
    mirror = v2.RandomCrop(32, padding=4, padding_mode="reflect")
    warps = [Shift(SPEC), Rotate(SPEC), Shear(SPEC), Scale(SPEC), Flip(SPEC)]
    ours, ours_mirror = Crop(SPEC), Crop(SPEC, mode="reflect")
    six = "shift+rotate+shear+scale+flip+crop"
    return [
        Case(f"{six}, folded", [*warps, ours], v2.Compose([affine, flip, black]), 14),
        Case(f"{six}, apart (reflect)", [*warps, ours_mirror], v2.Compose([affine, flip, mirror]), 8),
        Case("flip+crop", [Flip(SPEC), ours], v2.Compose([flip, black]), 8),
        Case("flip+crop (reflect)", [Flip(SPEC), ours_mirror], v2.Compose([flip, mirror]), 8),
    ]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(case: Case, batch: int, repeats: int) -> tuple[float, float, float]:
    """Our and their images per second, and the median of the ratios of neighbouring timings."""
    inputs, targets = torch.rand(batch, 3, 32, 32), torch.zeros(batch, dtype=torch.long)
    generator, augmentation = torch.Generator().manual_seed(0), Augmentation(case.ours)

    def ours() -> object:
        return augmentation(inputs, targets, generator)

    def theirs() -> object:
        return torch.stack([case.theirs(picture) for picture in inputs])

    for warm_up in (ours, theirs):
        warm_up()
    pairs = [(statistics.median(seconds(ours) for _ in range(9)), seconds(theirs)) for _ in range(repeats)]
    fast, slow = (statistics.median(column) for column in zip(*pairs, strict=True))
    return batch / fast, batch / slow, statistics.median(b / a for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s), batch {options.batch} of 3×32×32")
    for case in cases():
        ours, theirs, ratio = compare(case, options.batch, options.repeats)
        verdict = "reached" if ratio >= case.aim else "MISSED"
        speeds = f"{ours:9,.0f} images/s   v2 per image {theirs:7,.0f}"
        print(f"{case.name:52} {speeds}   ×{ratio:5.1f}   aim ×{case.aim}: {verdict}")


main()
