"""Matrices of geometric transforms, and two ways to resample pictures by them.

Every geometric transform is, for each sample, a 3×3 matrix from positions in the new picture to positions in the old
one, in pixels from the picture's center, x to the right and y down. The matrices of a chain of transforms are
multiplied, so that the picture is resampled and blurred only once. The conventions are those of
torchvision.transforms.v2.functional: positive angles turn counter-clockwise; the center lies between pixels when the
side is even; sampling is bilinear with align_corners=False; pixels outside the picture are black.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rows(*entries: Tensor) -> Tensor:
    """Stack nine vectors (B,), row by row, to matrices (B, 3, 3)."""
    return torch.stack(torch.broadcast_tensors(*entries), dim=1).view(-1, 3, 3)


def affine(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> Tensor:
    """Return matrices (B, 3, 3) that map (x, y) to (a·x + b·y + c, d·x + e·y + f)."""
    zero = torch.zeros_like(a)
    return rows(a, b, c, d, e, f, zero, zero, zero + 1)


def shifting(right: Tensor, down: Tensor) -> Tensor:
    """Return matrices that move the picture by `right` and `down` pixels (B,)."""
    zero = torch.zeros_like(right)
    return affine(zero + 1, zero, -right, zero, zero + 1, -down)


def rotation(radians: Tensor) -> Tensor:
    """Return matrices that turn the picture counter-clockwise by `radians` (B,) around its center."""
    cosine, sine, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    return affine(cosine, -sine, zero, sine, cosine, zero)


def shearing(tangent_x: Tensor, tangent_y: Tensor) -> Tensor:
    """Return matrices that shear the picture along x by `tangent_x` (B,), then along y by `tangent_y` (B,)."""
    zero = torch.zeros_like(tangent_x)
    return affine(1 + tangent_x * tangent_y, tangent_x, zero, tangent_y, zero + 1, zero)


def stretching(x: Tensor, y: Tensor) -> Tensor:
    """Return matrices that scale the picture by the factors `x` and `y` (B,); −1 mirrors it."""
    zero = torch.zeros_like(x)
    return affine(1 / x, zero, zero, zero, 1 / y, zero)


def perspective(corners: Tensor, height: int, width: int) -> Tensor:
    """Return matrices that map the new picture's corners to the points `corners` (B, 4, 2) of the old one.

    The points are clockwise from the top left, (x, y) in pixels from the center. Closed form of Heckbert 1989
    (Fundamentals of Texture Mapping and Image Warping, §2.2.3); a linear solve would need a host sync for its error code.
    """
    # (B, 2) each
    p0, p1, p2, p3 = corners.unbind(1)
    (x1, y1), (x2, y2), (sx, sy) = ((q.unbind(1)) for q in (p1 - p2, p3 - p2, p0 - p1 + p2 - p3))
    determinant = x1 * y2 - x2 * y1
    g = (sx * y2 - x2 * sy) / determinant
    h = (x1 * sy - sx * y1) / determinant
    (a, d), (b, e) = (p1 - p0 + g[:, None] * p1).unbind(1), (p3 - p0 + h[:, None] * p3).unbind(1)
    from_unit_square = rows(a, b, p0[:, 0], d, e, p0[:, 1], g, h, torch.ones_like(g))
    half, zero = torch.full_like(g, 0.5), torch.zeros_like(g)
    return from_unit_square @ affine(half * 2 / width, zero, half, zero, half * 2 / height, half)


def positions(length: int, like: Tensor) -> Tensor:
    """Return pixel centers along one side, from the picture's center: −(length−1)/2, …, (length−1)/2."""
    return torch.arange(length, device=like.device, dtype=like.dtype) - (length - 1) / 2


def warp(
    inputs: Tensor,
    matrix: Tensor,
    fill: Tensor | None = None,
    displacement: Tensor | None = None,
    projective: bool = False,
    memory: Tensor | None = None,
) -> Tensor:
    """Resample pictures (B, C, H, W) bilinearly, in float32 or float64.

    Args:
        inputs: pictures (B, C, H, W)
        matrix: (B, 3, 3) from positions in the new picture to positions in the old one
        fill: (C, 1, 1), the value outside the picture; 0 if None
        displacement: (B, 2, H, W), x and y in pixels, added to the positions
        projective: whether the matrices' last rows are used
        memory: overwritten if given, of the inputs' shape
    """
    # positions in half precision would miss pixels
    if inputs.dtype not in (torch.float32, torch.float64):
        fill = None if fill is None else fill.float()
        return warp(inputs.float(), matrix, fill, displacement, projective).to(inputs.dtype)
    height, width = inputs.shape[-2:]
    grid = sampling_grid(matrix.to(inputs.dtype), height, width, displacement, projective)
    if fill is None:
        return F.grid_sample(inputs, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    # shift the fill value to 0, which the sampler uses outside: no mask is needed, and edges blend with it exactly
    lifted = torch.sub(inputs, fill, out=memory)
    sampled = F.grid_sample(lifted, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.add_(fill)


def sampling_grid(
    matrix: Tensor, height: int, width: int, displacement: Tensor | None, projective: bool
) -> Tensor:
    """Return the grid (B, H, W, 2) for `grid_sample`, in units of half a side.

    A sum of one term for each column and one for each row, stored as (B, 2, H, W), is forty times faster on a CPU than
    the matrix product of `affine_grid`.
    """
    to_sides = [matrix[:, 0] * (2 / width), matrix[:, 1] * (2 / height), matrix[:, 2]]
    # (B, 2 or 3, 3)
    rows_of = torch.stack(to_sides if projective else to_sides[:2], dim=1)
    x, y = positions(width, matrix), positions(height, matrix)
    grid = (rows_of[:, :, :1] * x)[:, :, None, :] + (rows_of[:, :, 1:2] * y + rows_of[:, :, 2:])[..., None]
    if projective:
        grid = grid[:, :2] / grid[:, 2:]
    if displacement is not None:
        grid[:, 0].add_(displacement[:, 0], alpha=2 / width)
        grid[:, 1].add_(displacement[:, 1], alpha=2 / height)
    return grid.permute(0, 2, 3, 1)


def pick(inputs: Tensor, matrix: Tensor, fill: Tensor, memory: Tensor | None = None) -> Tensor:
    """Resample pictures (B, C, H, W) by a gather, where `matrix` only mirrors and shifts by whole pixels.

    Args:
        inputs: pictures (B, C, H, W)
        matrix: (B, 3, 3) from positions in the new picture to positions in the old one
        fill: (C, 1, 1), the value outside the picture
        memory: overwritten if given, (B, C, H·W + 1)
    """
    height, width = inputs.shape[-2:]
    x, y = whole_pixels(matrix, height, width)
    # the index of one black pixel after the last one
    outside = height * width
    x = torch.where((x >= 0) & (x < width), x, outside)
    y = torch.where((y >= 0) & (y < height), y * width, outside)
    index = (y[:, :, None] + x[:, None, :]).clamp_max_(outside)
    if memory is None:
        memory = inputs.new_empty((*inputs.shape[:2], outside + 1))
    memory[:, :, :outside] = inputs.flatten(2)
    memory[:, :, outside] = fill.flatten()
    return gather(memory, index)


def pick_mirrored(inputs: Tensor, matrix: Tensor) -> Tensor:
    """Resample as `pick`, with the mirror image outside, up to one side away and without repeating the border pixel."""
    height, width = inputs.shape[-2:]
    x, y = whole_pixels(matrix, height, width)
    return gather(inputs.flatten(2), mirrored(y, height)[:, :, None] * width + mirrored(x, width)[:, None, :])


def gather(pixels: Tensor, index: Tensor) -> Tensor:
    """Return the pixels (B, C, H, W) at `index` (B, H, W) of `pixels` (B, C, P), the same in every channel."""
    batch, height, width = index.shape
    channels = pixels.shape[1]
    everywhere = index.view(batch, 1, height * width).expand(-1, channels, -1)
    return pixels.gather(2, everywhere).view(batch, channels, height, width)


def whole_pixels(matrix: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the columns (B, W) and rows (B, H) of the old picture for those of the new one."""
    x = matrix[:, 0, :1] * positions(width, matrix) + (matrix[:, 0, 2:] + (width - 1) / 2)
    y = matrix[:, 1, 1:2] * positions(height, matrix) + (matrix[:, 1, 2:] + (height - 1) / 2)
    return x.round().long(), y.round().long()


def mirrored(pixel: Tensor, length: int) -> Tensor:
    """Reflect pixel indices less than `length` outside on either side into 0, …, length−1."""
    return (length - 1) - ((length - 1) - pixel.abs()).abs()
