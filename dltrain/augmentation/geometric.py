"""Geometric transforms of pictures, which fuse with their neighbours into one resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from dltrain.augmentation import geometry
from dltrain.augmentation.checks import picture_shape, require
from dltrain.augmentation.draws import Draw, draw_for
from dltrain.augmentation.protocols import GEOMETRY
from dltrain.data.spec import DataSpec
from dltrain.ranges import Count, Index, NonNegative, Positive, Share

Border = Literal["fill", "reflect"]


class Geometric:
    """A transform that is one matrix for each sample; subclasses draw it.

    `whole_pixels`: it only mirrors and shifts by whole pixels, so it can be a gather. `projective`: the last
    row of its matrices counts. `border`: what it shows from outside, None when it never looks there.
    """

    stage = GEOMETRY
    whole_pixels = False
    projective = False
    border: Border | None = "fill"

    def __init__(self, spec: DataSpec, word: str) -> None:
        self.channels, self.height, self.width = picture_shape(spec, word)
        self.black = (-spec.mean / spec.std).expand(self.channels, 1, 1)

    def matrix(self, draw: Draw) -> Tensor:
        """(B, 3, 3): from positions in the new picture to positions in the old one."""
        raise NotImplementedError

    def displacement(self, draw: Draw) -> Tensor | None:
        """(B, 2, H, W), x and y: pixels added to the positions in the old picture, or None."""
        return None

    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        generator: torch.Generator,
        indices: Tensor | None = None,
        epoch: int = 0,
    ) -> tuple[Tensor, Tensor]:
        return Fused([self])(inputs, targets, generator, indices, epoch)


class Fused:
    """Neighbouring geometric transforms as one resampling: a gather if all keep whole pixels, or one warp.

    The first of `members` is applied first. Unlike a chain of calls, the result is sampled once, and what
    leaves the picture in the middle of the chain comes back. An elastic displacement is drawn in the frame of
    the new picture.
    """

    stage = GEOMETRY

    def __init__(self, members: Sequence[Geometric]) -> None:
        self.members = list(members)
        self.black = members[0].black
        self.gathers = all(member.whole_pixels for member in members)
        self.reflects = any(member.border == "reflect" for member in members)
        self.projective = any(member.projective for member in members)
        self.memory: Tensor | None = None

    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        generator: torch.Generator,
        indices: Tensor | None = None,
        epoch: int = 0,
    ) -> tuple[Tensor, Tensor]:
        draw = draw_for(inputs, generator, indices, epoch)
        self.black = self.black.to(inputs)  # copies at the first call only
        matrix, displacement = self.compose(draw)
        if self.reflects:
            return geometry.pick_mirrored(inputs, matrix), targets
        if self.gathers:
            memory = self.kept((*inputs.shape[:2], inputs.shape[2] * inputs.shape[3] + 1), inputs)
            return geometry.pick(inputs, matrix, self.black, memory), targets
        memory = self.kept(inputs.shape, inputs)
        return geometry.warp(inputs, matrix, self.black, displacement, self.projective, memory), targets

    def kept(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Memory kept from call to call; on a CPU fresh pages cost more than the arithmetic."""
        kept = self.memory
        if kept is None or (kept.shape, kept.dtype, kept.device) != (shape, like.dtype, like.device):
            kept = self.memory = like.new_empty(shape)
        return kept

    def compose(self, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """The product of the members' matrices (B, 3, 3) and the sum of their displacements."""
        matrix, total = self.members[0].matrix(draw), self.members[0].displacement(draw)
        for member in self.members[1:]:
            matrix = matrix @ member.matrix(draw)
            extra = member.displacement(draw)
            total = extra if total is None else total if extra is None else total + extra
        return matrix, total


class Flip(Geometric):
    """Mirror each picture left to right by chance.

        x′ = −x with probability p, else x
        y′ = −y with probability vertical_p, else y

    Mirror left to right with probability `p`, top to bottom with `vertical_p`.

    Symbols: x, y pixels from the centre
    Use: photographs; not digits or letters, which change their meaning.
    Defaults: every second picture, never upside down (torchvision's p).
    Lecture: L1 L3

    Args:
        p: probability to mirror left to right
        vertical_p: probability to mirror top to bottom
    """

    whole_pixels = True
    border = None

    def __init__(self, spec: DataSpec, p: Share = 0.5, vertical_p: Share = 0.0) -> None:
        super().__init__(spec, "flip")
        require(0 <= p <= 1, "flip.p", p, "a probability in [0, 1]", "0.5 mirrors every second picture")
        require(
            0 <= vertical_p <= 1, "flip.vertical_p", vertical_p, "a probability in [0, 1]", "0 keeps up up"
        )
        self.p, self.vertical_p = p, vertical_p

    def parameters(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Whether each picture is mirrored left to right, and top to bottom."""
        return draw.chance(self.p), draw.chance(self.vertical_p)

    def matrix(self, draw: Draw) -> Tensor:
        sideways, upside = self.parameters(draw)
        return geometry.stretching(1 - 2 * sideways.float(), 1 - 2 * upside.float())


class AlternatingFlip(Geometric):
    """Mirror every picture in every second epoch.

        mirrored in epoch e if (coin(index, seed) + e) is odd
        coin = a fixed fair hash

    Mirror every picture in every second epoch, half of them in even and half in odd epochs.

    Which half is a fixed function of the sample's index and `seed`, so that a sample is seen both ways in any
    two epochs (Jordan 2024, arXiv:2404.00498). Needs the samples' indices and the epoch; ValueError without
    indices.

    Use: in place of flip where epochs are few: any two epochs show a picture both ways.
    Defaults: seed 0, the same halves in every run.
    Paper: Jordan 2024, arXiv:2404.00498

    Args:
        seed: chooses which half is mirrored first
    """

    whole_pixels = True
    border = None

    def __init__(self, spec: DataSpec, seed: Index = 0) -> None:
        super().__init__(spec, "alternating_flip")
        require(seed >= 0, "alternating_flip.seed", seed, "a whole number >= 0", "0 is the default")
        self.seed = seed

    def parameters(self, draw: Draw) -> Tensor:
        """Whether each picture is mirrored in this epoch."""
        if draw.indices is None:
            raise ValueError(
                "augmentation=alternating_flip needs the indices of the samples and the epoch; "
                "use augmentation=flip where they are not known"
            )
        return (coin(draw.indices, self.seed) + draw.epoch) % 2 == 1

    def matrix(self, draw: Draw) -> Tensor:
        mirrored = 1 - 2 * self.parameters(draw).float()
        return geometry.stretching(mirrored, torch.ones_like(mirrored))


def coin(indices: Tensor, seed: int) -> Tensor:
    """A fair coin for each index, 0 or 1: one bit of a hash in wrapping 64-bit integers."""
    mixed = (indices.long() + 1) * 0x1E3779B97F4A7C15 + seed * 0x2545F491
    mixed = (mixed ^ (mixed >> 29)) * 0x3F58476D1CE4E5B9
    return (mixed >> 40) & 1


class Shift(Geometric):
    """Move each picture by a few whole pixels.

        x′ = x + i, y′ = y + j
        i, j uniform over the whole numbers in ±pixels

    Move the picture by whole pixels, uniform in −pixels..pixels along each side; black enters.

    Use: objects that are not centred; whole pixels keep the picture sharp.
    Defaults: 2 pixels, a sixteenth of 32.
    Lecture: L1 L3

    Args:
        pixels: greatest move along each side, in pixels (less than the side)
    """

    whole_pixels = True

    def __init__(self, spec: DataSpec, pixels: Count = 2) -> None:
        super().__init__(spec, "shift")
        room = min(self.height, self.width)
        require(
            1 <= pixels < room,
            "shift.pixels",
            pixels,
            f"a whole number in 1..{room - 1}",
            "2 suits 32 pixels",
        )
        self.pixels = pixels

    def parameters(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Pixels to the right and pixels down, positive or negative."""
        return draw.integers(-self.pixels, self.pixels), draw.integers(-self.pixels, self.pixels)

    def matrix(self, draw: Draw) -> Tensor:
        right, down = self.parameters(draw)
        return geometry.shifting(right.float(), down.float())


class Crop(Geometric):
    """Cut each picture at random out of itself padded.

        x′ = x + i, y′ = y + j
        i, j uniform over the whole numbers in ±padding

    Cut the picture's size at a uniform place out of the picture padded by `padding` pixels on all sides.

    `mode` constant pads with black, reflect with the mirror image (without the border pixel itself). Constant
    fuses with any neighbour; reflect with flips only.

    Use: the standard for small photographs, with flip.
    Defaults: the paper's 4 pixels of black for 32 × 32.
    Paper: He et al. 2016, arXiv:1512.03385 (section 4.2)
    Lecture: L1 L3

    Args:
        padding: pixels added on each side before the cut (less than the side)
        mode: padded with black, or with the mirror image; constant fuses with rotate and the like
    """

    whole_pixels = True

    def __init__(
        self, spec: DataSpec, padding: Count = 4, mode: Literal["constant", "reflect"] = "constant"
    ) -> None:
        super().__init__(spec, "crop")
        room = min(self.height, self.width)
        require(
            1 <= padding < room,
            "crop.padding",
            padding,
            f"a whole number in 1..{room - 1}",
            "4 suits 32 pixels",
        )
        require(
            mode in ("constant", "reflect"),
            "crop.mode",
            mode,
            "constant or reflect",
            "constant pads with black",
        )
        self.padding = padding
        self.border = "reflect" if mode == "reflect" else "fill"

    def parameters(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Left and top edge of the cut within the padded picture, in 0..2·padding."""
        return draw.integers(0, 2 * self.padding), draw.integers(0, 2 * self.padding)

    def matrix(self, draw: Draw) -> Tensor:
        left, top = self.parameters(draw)
        return geometry.shifting((self.padding - left).float(), (self.padding - top).float())


class Rotate(Geometric):
    """Turn each picture around its centre.

        x′ = cos θ·x + sin θ·y, y′ = −sin θ·x + cos θ·y
        θ uniform in ±degrees

    Turn the picture around its centre by an angle uniform in ±degrees; positive is counter-clockwise.

    Symbols: x right, y down, pixels from the centre; positive θ turns counter-clockwise, as torchvision's
        rotate
    Use: digits and photographs held at a slant; bilinear, black corners.
    Defaults: 10 degrees, small enough for a 6 to stay a 6.
    Lecture: L1 L3

    Args:
        degrees: greatest angle to either side
    """

    def __init__(self, spec: DataSpec, degrees: Annotated[float, "in (0, 180]"] = 10.0) -> None:
        super().__init__(spec, "rotate")
        require(0 < degrees <= 180, "rotate.degrees", degrees, "in (0, 180]", "10 keeps a 6 a 6")
        self.degrees = degrees

    def parameters(self, draw: Draw) -> Tensor:
        """Angles in degrees."""
        return draw.uniform(-self.degrees, self.degrees)

    def matrix(self, draw: Draw) -> Tensor:
        return geometry.rotation(self.parameters(draw) * (math.pi / 180))


class Shear(Geometric):
    """Slide the rows and the columns of each picture against each other.

        x′ = x − tan a·y, then y′ = y − tan b·x′
        a, b uniform in ±degrees

    Slide the rows, then the columns against each other by angles uniform in ±degrees.

    Symbols: x right, y down, pixels from the centre, as torchvision's affine(shear=[a, b])
    Use: handwriting; bilinear, black corners.
    Defaults: 10 degrees.
    Lecture: L1 L3

    Args:
        degrees: greatest angle along each side, below 80
    """

    def __init__(self, spec: DataSpec, degrees: Positive = 10.0) -> None:
        super().__init__(spec, "shear")
        require(0 < degrees < 80, "shear.degrees", degrees, "in (0, 80)", "10 slants visibly")
        self.degrees = degrees

    def parameters(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Angles along x and along y, in degrees."""
        return draw.uniform(-self.degrees, self.degrees), draw.uniform(-self.degrees, self.degrees)

    def matrix(self, draw: Draw) -> Tensor:
        along_x, along_y = (torch.tan(angle * (math.pi / 180)) for angle in self.parameters(draw))
        return geometry.shearing(along_x, along_y)


class Scale(Geometric):
    """Enlarge or shrink each picture around its centre.

        x′ = s·x, y′ = s·y
        s uniform in [min, max]

    Enlarge the picture around its centre by a factor uniform in [min, max]; the rim is black.

    Symbols: x, y pixels from the centre
    Use: objects at different distances; bilinear, black rim below 1.
    Defaults: a tenth to either side.
    Lecture: L1 L3

    Args:
        min: smallest factor
        max: greatest factor, not below min
    """

    def __init__(self, spec: DataSpec, min: Positive = 0.9, max: Positive = 1.1) -> None:
        super().__init__(spec, "scale")
        require(0 < min < math.inf, "scale.min", min, "> 0", "0.9 shrinks by a tenth at most")
        require(min <= max < math.inf, "scale.max", max, f">= scale.min, which is {min}", "1.1 goes with 0.9")
        self.min, self.max = min, max

    def parameters(self, draw: Draw) -> Tensor:
        """Factors; 2 shows everything twice as large."""
        return draw.uniform(self.min, self.max)

    def matrix(self, draw: Draw) -> Tensor:
        factor = self.parameters(draw)
        return geometry.stretching(factor, factor)


class Distort(Geometric):
    """See each picture from a slanted angle and through wavy glass.

        p = H·p′ + D(p′)
        H takes the corners to corners·(1 + u), u uniform in ±perspective
        D = elastic·(G_sigma ∗ noise)

    See the picture from an angle (perspective) and through wavy glass (elastic, Simard et al. 2003).

    `perspective`: each corner shows a point up to this fraction of half the side away from it. `elastic`: the
    root mean square of the displacement along each side, in pixels, of Gaussian noise smoothed over `sigma`
    pixels.

    Symbols: p old, p′ new position; G Gaussian filter, scaled so that D has root mean square = elastic
    Use: handwriting (elastic), photographs of flat things (perspective).
    Defaults: mild for 28 to 32 pixels: corners move by up to a tenth of the side, pixels by about one.
    Paper: Simard, Steinkraus & Platt 2003 (ICDAR)
    Lecture: L1 L3

    Args:
        perspective: greatest move of a corner, as a fraction of half the side; 0 leaves it out
        elastic: root mean square of the displacement along each side in pixels; 0 leaves it out
        sigma: smoothness of the displacement: standard deviation of the filter in pixels
    """

    projective = True

    def __init__(
        self,
        spec: DataSpec,
        perspective: Annotated[float, "in [0, 0.5)"] = 0.2,
        elastic: NonNegative = 1.0,
        sigma: Positive = 4.0,
    ) -> None:
        super().__init__(spec, "distort")
        rule = "in [0, 0.5), or corners could fold over"
        require(0 <= perspective < 0.5, "distort.perspective", perspective, rule, "0 leaves perspective out")
        require(0 <= elastic < math.inf, "distort.elastic", elastic, ">= 0", "0 leaves the elastic part out")
        require(0 < sigma < math.inf, "distort.sigma", sigma, "> 0", "4 pixels for pictures of 32")
        self.perspective, self.elastic, self.sigma = perspective, elastic, sigma
        half = torch.tensor([self.width, self.height]) / 2
        self.corners = half * torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
        self.smooth_x, self.smooth_y = smoother(self.width, sigma), smoother(self.height, sigma)

    def parameters(self, draw: Draw) -> Tensor:
        """The points (B, 4, 2) that the corners show: clockwise from the top left, pixels from the centre."""
        self.corners = self.corners.to(draw.device)  # copies at the first call only
        moves = torch.rand(draw.size, 4, 2, generator=draw.generator, device=draw.device) * 2 - 1
        return self.corners * (1 + self.perspective * moves)

    def matrix(self, draw: Draw) -> Tensor:
        return geometry.perspective(self.parameters(draw), self.height, self.width)

    def displacement(self, draw: Draw) -> Tensor | None:
        if self.elastic == 0:
            return None
        self.smooth_x, self.smooth_y = self.smooth_x.to(draw.device), self.smooth_y.to(draw.device)
        shape = (draw.size, 2, self.height, self.width)
        noise = torch.randn(shape, generator=draw.generator, device=draw.device)
        return self.elastic * (self.smooth_y @ noise @ self.smooth_x.T)


def smoother(length: int, sigma: float) -> Tensor:
    """A Gaussian filter as a matrix (length, length) that keeps the variance of white noise exactly 1."""
    place = torch.arange(length)
    weights = torch.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2)
    return weights / weights.norm(dim=1, keepdim=True)
