"""Geometric transforms of images; adjacent ones are fused into one resampling.

The file is long because the docstring of each transform is its page in the manual.
"""

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
    """A transform given by a matrix for each sample, which subclasses draw."""

    needs = frozenset({"images"})

    stage = GEOMETRY
    # it only mirrors and shifts by whole pixels, so a gather can compute it
    whole_pixels = False
    # the last row of its matrices is not (0, 0, 1)
    projective = False
    # the pixels outside the picture; None if they are never read
    border: Border | None = "fill"

    def __init__(self, spec: DataSpec, word: str) -> None:
        self.channels, self.height, self.width = picture_shape(spec, word)
        self.black = spec.black.expand(self.channels, 1, 1)

    def matrix(self, draw: Draw) -> Tensor:
        """Draw matrices (B, 3, 3) from positions in the new picture to positions in the old one."""
        raise NotImplementedError

    def displacement(self, draw: Draw) -> Tensor | None:
        """Draw pixels (B, 2, H, W), x and y, to add to the positions in the old picture; None for no displacement."""
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
    """Apply adjacent geometric transforms as one resampling: a gather if all move whole pixels, else one warp.

    The first of `members` is applied first. Unlike in a chain of calls, pixels that leave the picture within the chain
    can come back. An elastic displacement is drawn in the coordinates of the new picture.
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
        # copies at the first call only
        self.black = self.black.to(inputs)
        matrix, displacement = self.compose(draw)
        if self.reflects:
            return geometry.pick_mirrored(inputs, matrix), targets
        if self.gathers:
            memory = self.kept((*inputs.shape[:2], inputs.shape[2] * inputs.shape[3] + 1), inputs)
            return geometry.pick(inputs, matrix, self.black, memory), targets
        memory = self.kept(inputs.shape, inputs)
        return geometry.warp(inputs, matrix, self.black, displacement, self.projective, memory), targets

    def kept(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return memory that is reused between calls: on a CPU, new pages cost more than the arithmetic."""
        kept = self.memory
        if kept is None or (kept.shape, kept.dtype, kept.device) != (shape, like.dtype, like.device):
            kept = self.memory = like.new_empty(shape)
        return kept

    def compose(self, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """Return the product of the members' matrices (B, 3, 3) and the sum of their displacements."""
        matrix, total = self.members[0].matrix(draw), self.members[0].displacement(draw)
        for member in self.members[1:]:
            matrix = matrix @ member.matrix(draw)
            extra = member.displacement(draw)
            total = extra if total is None else total if extra is None else total + extra
        return matrix, total


class Flip(Geometric):
    """Mirror each picture at random.

        x′ = −x with probability p, else x
        y′ = −y with probability vertical_p, else y

    Symbols: x, y pixels from the center
    Use: photographs; not digits or letters, whose meaning changes.
    Defaults: every second picture left to right, as in torchvision, and none top to bottom.
    Lecture: L1 L3

    Args:
        p: probability to mirror left to right
        vertical_p: probability to mirror top to bottom
    """

    whole_pixels = True
    border = None
    gives = frozenset({"mirrors if p"})

    def __init__(self, spec: DataSpec, p: Share = 0.5, vertical_p: Share = 0.0) -> None:
        super().__init__(spec, "flip")
        self.p, self.vertical_p = p, vertical_p

    def parameters(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Draw whether each picture is mirrored left to right, and top to bottom."""
        return draw.chance(self.p), draw.chance(self.vertical_p)

    def matrix(self, draw: Draw) -> Tensor:
        sideways, upside = self.parameters(draw)
        return geometry.stretching(1 - 2 * sideways.float(), 1 - 2 * upside.float())


class AlternatingFlip(Geometric):
    """Mirror each picture left to right in every second epoch.

        x′ = −x if coin(i, seed) + e is odd, else x

    Two consecutive epochs show each picture both ways. Raises ValueError if called without the samples' indices.

    Symbols: x pixels from the center; i the index of the sample; e the epoch, from 0; coin a fixed hash, 0 or 1
    Use: instead of flip in runs of few epochs.
    Defaults: the same halves in every run.
    Paper: Jordan 2024, arXiv:2404.00498

    Args:
        seed: selects the half that is mirrored in even epochs
    """

    whole_pixels = True
    border = None
    gives = frozenset({"mirrors"})

    def __init__(self, spec: DataSpec, seed: Index = 0) -> None:
        super().__init__(spec, "alternating_flip")
        self.seed = seed

    def parameters(self, draw: Draw) -> Tensor:
        """Return whether each picture is mirrored in this epoch."""
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
    """Return one bit of a hash of each index, in wrapping 64-bit integers: 0 and 1 equally often."""
    mixed = (indices.long() + 1) * 0x1E3779B97F4A7C15 + seed * 0x2545F491
    mixed = (mixed ^ (mixed >> 29)) * 0x3F58476D1CE4E5B9
    return (mixed >> 40) & 1


class Shift(Geometric):
    """Shift each picture by a few whole pixels; black pixels enter.

        x′ = x + i, y′ = y + j
        i, j uniform over −pixels, …, pixels

    Symbols: x right, y down
    Use: objects that are not centered; whole pixels keep the picture sharp.
    Defaults: 2 pixels, a sixteenth of 32.
    Lecture: L1 L3

    Args:
        pixels: largest shift along each axis; less than the shorter side
    """

    whole_pixels = True

    def __init__(self, spec: DataSpec, pixels: Count = 2) -> None:
        super().__init__(spec, "shift")
        side = min(self.height, self.width)
        require(pixels < side, "shift.pixels", pixels, f"< {side}, the shorter side", "2 suits 32 pixels")
        self.pixels = pixels

    def parameters(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Draw the shifts to the right and down, in pixels, (B,) each."""
        return draw.integers(-self.pixels, self.pixels), draw.integers(-self.pixels, self.pixels)

    def matrix(self, draw: Draw) -> Tensor:
        right, down = self.parameters(draw)
        return geometry.shifting(right.float(), down.float())


class Crop(Geometric):
    """Pad each picture and crop it at a random position to its size.

        x′ = x + i, y′ = y + j
        i, j uniform over −padding, …, padding

    The mirror image does not repeat the border pixel. Constant padding can be fused with every geometric transform,
    reflected padding with flips only.

    Symbols: x right, y down
    Use: the standard for small photographs, with flip.
    Defaults: the paper's 4 black pixels for 32 × 32.
    Paper: He et al. 2016, arXiv:1512.03385 (section 4.2)
    Lecture: L1 L3

    Args:
        padding: pixels added on each side; less than the shorter side
        mode: pad with black (constant), or with the mirror image (reflect)
    """

    whole_pixels = True

    def __init__(
        self, spec: DataSpec, padding: Count = 4, mode: Literal["constant", "reflect"] = "constant"
    ) -> None:
        super().__init__(spec, "crop")
        side = min(self.height, self.width)
        require(padding < side, "crop.padding", padding, f"< {side}, the shorter side", "4 suits 32 pixels")
        self.padding = padding
        self.border = "reflect" if mode == "reflect" else "fill"

    def parameters(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Draw the left and top edges of the crop in the padded picture, from 0 to 2·padding, (B,) each."""
        return draw.integers(0, 2 * self.padding), draw.integers(0, 2 * self.padding)

    def matrix(self, draw: Draw) -> Tensor:
        left, top = self.parameters(draw)
        return geometry.shifting((self.padding - left).float(), (self.padding - top).float())


class Rotate(Geometric):
    """Rotate each picture around its center.

        x′ = cos θ·x + sin θ·y, y′ = −sin θ·x + cos θ·y
        θ uniform in ±degrees

    Sampling is bilinear; the corners become black.

    Symbols: x right, y down, pixels from the center; a positive θ turns counter-clockwise, as torchvision's rotate
    Use: digits, and photographs of a tilted camera.
    Defaults: 10 degrees, so that a 6 stays a 6.
    Lecture: L1 L3

    Args:
        degrees: largest angle in either direction
    """

    def __init__(self, spec: DataSpec, degrees: Annotated[float, "in (0, 180]"] = 10.0) -> None:
        super().__init__(spec, "rotate")
        self.degrees = degrees

    def parameters(self, draw: Draw) -> Tensor:
        """Draw angles (B,) in degrees."""
        return draw.uniform(-self.degrees, self.degrees)

    def matrix(self, draw: Draw) -> Tensor:
        return geometry.rotation(self.parameters(draw) * (math.pi / 180))


class Shear(Geometric):
    """Shear each picture along both axes.

        x′ = x − tan a·y, then y′ = y − tan b·x′
        a, b uniform in ±degrees

    Sampling is bilinear; the corners become black.

    Symbols: x right, y down, pixels from the center, as torchvision's affine(shear=[a, b])
    Use: handwriting.
    Defaults: 10 degrees, a visible slant.
    Lecture: L1 L3

    Args:
        degrees: largest angle along each axis
    """

    def __init__(self, spec: DataSpec, degrees: Annotated[float, "in (0, 80)"] = 10.0) -> None:
        super().__init__(spec, "shear")
        self.degrees = degrees

    def parameters(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Draw angles along x and along y, in degrees, (B,) each."""
        return draw.uniform(-self.degrees, self.degrees), draw.uniform(-self.degrees, self.degrees)

    def matrix(self, draw: Draw) -> Tensor:
        along_x, along_y = (torch.tan(angle * (math.pi / 180)) for angle in self.parameters(draw))
        return geometry.shearing(along_x, along_y)


class Scale(Geometric):
    """Enlarge or shrink each picture around its center.

        x′ = s·x, y′ = s·y
        s uniform in [min, max]

    Sampling is bilinear; the border of a smaller picture is black.

    Symbols: x, y pixels from the center
    Use: objects at different distances.
    Defaults: a tenth in either direction.
    Lecture: L1 L3

    Args:
        min: smallest factor
        max: largest factor, at least min
    """

    def __init__(self, spec: DataSpec, min: Positive = 0.9, max: Positive = 1.1) -> None:
        super().__init__(spec, "scale")
        require(min <= max, "scale.max", max, f">= scale.min, which is {min}", "1.1 goes with 0.9")
        self.min, self.max = min, max

    def parameters(self, draw: Draw) -> Tensor:
        """Draw factors (B,); 2 doubles the size."""
        return draw.uniform(self.min, self.max)

    def matrix(self, draw: Draw) -> Tensor:
        factor = self.parameters(draw)
        return geometry.stretching(factor, factor)


class Distort(Geometric):
    """Distort each picture by a perspective change and an elastic displacement.

        p = H·p′ + D(p′)
        H maps each corner c to c·(1 + u), u uniform in ±perspective
        D = elastic·(G_sigma ∗ z)

    Symbols: p old, p′ new position from the center; z standard normal for each pixel and axis; G_sigma Gaussian filter,
        scaled so that G_sigma ∗ z has variance 1
    Use: handwriting (elastic), photographs of flat objects (perspective).
    Defaults: mild for 28 to 32 pixels: corners move by up to a tenth of the side, pixels by about one.
    Paper: Simard, Steinkraus & Platt 2003 (ICDAR)
    Lecture: L1 L3

    Args:
        perspective: largest move of a corner, as a fraction of half the side; 0 disables it
        elastic: root mean square of the displacement along each axis in pixels; 0 disables it
        sigma: standard deviation of the filter in pixels; a large one gives a smooth displacement
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
        self.perspective, self.elastic, self.sigma = perspective, elastic, sigma
        half = torch.tensor([self.width, self.height]) / 2
        self.corners = half * torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
        self.smooth_x, self.smooth_y = smoother(self.width, sigma), smoother(self.height, sigma)

    def parameters(self, draw: Draw) -> Tensor:
        """Draw the old positions (B, 4, 2) of the corners: clockwise from the top left, in pixels from the center."""
        # copies at the first call only
        self.corners = self.corners.to(draw.device)
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
    """Return a Gaussian filter as a matrix (length, length) that keeps the variance of white noise at 1."""
    place = torch.arange(length)
    weights = torch.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2)
    return weights / weights.norm(dim=1, keepdim=True)
