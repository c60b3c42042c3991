"""Where the pixels of a picture come from: matrices, and the two ways to follow them.

Every geometric transform is, for each sample, a 3×3 matrix that takes a position of the new picture to a
position of the old one, in pixels from the picture's centre, x to the right and y downwards. Matrices of
neighbours multiply, so any number of transforms costs one resampling, and blurs once. The conventions are
torchvision's (transforms.v2. functional): positive angles turn counter-clockwise as in `rotate`; the centre
is the middle of the picture, between the pixels when the side is even; sampling is bilinear with
align_corners=False; what lies outside is black.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rows(*entries: Tensor) -> Tensor:
    """Nine vectors (B,), row by row, as matrices (B, 3, 3)."""
    return torch.stack(torch.broadcast_tensors(*entries), dim=1).view(-1, 3, 3)


def affine(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> Tensor:
    """Matrices (B, 3, 3) that take (x, y) to (a·x + b·y + c, d·x + e·y + f)."""
    zero = torch.zeros_like(a)
    return rows(a, b, c, d, e, f, zero, zero, zero + 1)


def shifting(right: Tensor, down: Tensor) -> Tensor:
    """The picture moves `right` and `down` (pixels, (B,) each)."""
    zero = torch.zeros_like(right)
    return affine(zero + 1, zero, -right, zero, zero + 1, -down)


def rotation(radians: Tensor) -> Tensor:
    """The picture turns counter-clockwise by `radians` (B,) around its centre."""
    cosine, sine, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    return affine(cosine, -sine, zero, sine, cosine, zero)


def shearing(tangent_x: Tensor, tangent_y: Tensor) -> Tensor:
    """Rows slide against each other by `tangent_x`, then columns by `tangent_y` ((B,) each)."""
    zero = torch.zeros_like(tangent_x)
    return affine(1 + tangent_x * tangent_y, tangent_x, zero, tangent_y, zero + 1, zero)


def stretching(x: Tensor, y: Tensor) -> Tensor:
    """The picture grows by the factors `x` and `y` (B,) each; −1 mirrors it."""
    zero = torch.zeros_like(x)
    return affine(1 / x, zero, zero, zero, 1 / y, zero)


def perspective(corners: Tensor, height: int, width: int) -> Tensor:
    """The new picture's corners show the old one's points `corners` (B, 4, 2).

    Clockwise from the top left, (x, y) in pixels from the centre. The closed form of Heckbert 1989
    (Fundamentals of Texture Mapping and Image Warping, §2.2.3): no linear solve, which on a GPU would wait
    for its error code.
    """
    p0, p1, p2, p3 = corners.unbind(1)  # (B, 2) each
    (x1, y1), (x2, y2), (sx, sy) = ((q.unbind(1)) for q in (p1 - p2, p3 - p2, p0 - p1 + p2 - p3))
    determinant = x1 * y2 - x2 * y1
    g = (sx * y2 - x2 * sy) / determinant
    h = (x1 * sy - sx * y1) / determinant
    (a, d), (b, e) = (p1 - p0 + g[:, None] * p1).unbind(1), (p3 - p0 + h[:, None] * p3).unbind(1)
    from_unit_square = rows(a, b, p0[:, 0], d, e, p0[:, 1], g, h, torch.ones_like(g))
    half, zero = torch.full_like(g, 0.5), torch.zeros_like(g)
    return from_unit_square @ affine(half * 2 / width, zero, half, zero, half * 2 / height, half)


def positions(length: int, like: Tensor) -> Tensor:
    """Pixel centres along one side, from the picture's centre: −(length−1)/2 … (length−1)/2."""
    return torch.arange(length, device=like.device, dtype=like.dtype) - (length - 1) / 2


def warp(
    inputs: Tensor,
    matrix: Tensor,
    fill: Tensor | None = None,
    displacement: Tensor | None = None,
    projective: bool = False,
    memory: Tensor | None = None,
) -> Tensor:
    """Resample pictures (B, C, H, W) bilinearly at the positions that `matrix` (B, 3, 3) names.

    `fill` (C, 1, 1) is seen outside, 0 if None; `displacement` (B, 2, H, W) is added to the positions, x and
    y in pixels; `projective` says that the matrices' last rows count; `memory`, of the inputs' shape, is
    written over in place of allocating. Computed in float32 or float64.
    """
    if inputs.dtype not in (torch.float32, torch.float64):  # positions in half precision miss pixels
        fill = None if fill is None else fill.float()
        return warp(inputs.float(), matrix, fill, displacement, projective).to(inputs.dtype)
    height, width = inputs.shape[-2:]
    grid = sampling_grid(matrix.to(inputs.dtype), height, width, displacement, projective)
    if fill is None:
        return F.grid_sample(inputs, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    # black becomes 0 for the sampler, which then needs no mask, and edges blend with black exactly
    lifted = torch.sub(inputs, fill, out=memory)
    sampled = F.grid_sample(lifted, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.add_(fill)


def sampling_grid(
    matrix: Tensor, height: int, width: int, displacement: Tensor | None, projective: bool
) -> Tensor:
    """Where `grid_sample` looks for each new pixel: (B, H, W, 2) in units of half a side.

    A sum of one term for each column and one for each row, laid out as (B, 2, H, W): forty times faster on a
    CPU than the matrix product of `affine_grid`.
    """
    to_sides = [matrix[:, 0] * (2 / width), matrix[:, 1] * (2 / height), matrix[:, 2]]
    rows_of = torch.stack(to_sides if projective else to_sides[:2], dim=1)  # (B, 2 or 3, 3)
    x, y = positions(width, matrix), positions(height, matrix)
    grid = (rows_of[:, :, :1] * x)[:, :, None, :] + (rows_of[:, :, 1:2] * y + rows_of[:, :, 2:])[..., None]
    if projective:
        grid = grid[:, :2] / grid[:, 2:]
    if displacement is not None:
        grid[:, 0].add_(displacement[:, 0], alpha=2 / width)
        grid[:, 1].add_(displacement[:, 1], alpha=2 / height)
    return grid.permute(0, 2, 3, 1)


def pick(inputs: Tensor, matrix: Tensor, fill: Tensor, memory: Tensor | None = None) -> Tensor:
    """Move whole pixels of (B, C, H, W) where `matrix` mirrors and shifts by whole pixels only: a gather.

    Outside lies `fill` (C, 1, 1). `memory`, (B, C, H·W + 1), is written over in place of allocating.
    """
    height, width = inputs.shape[-2:]
    x, y = whole_pixels(matrix, height, width)
    outside = height * width  # the number of one black pixel behind the last
    x = torch.where((x >= 0) & (x < width), x, outside)
    y = torch.where((y >= 0) & (y < height), y * width, outside)
    index = (y[:, :, None] + x[:, None, :]).clamp_max_(outside)
    if memory is None:
        memory = inputs.new_empty((*inputs.shape[:2], outside + 1))
    memory[:, :, :outside] = inputs.flatten(2)
    memory[:, :, outside] = fill.flatten()
    return gather(memory, index)


def pick_mirrored(inputs: Tensor, matrix: Tensor) -> Tensor:
    """As `pick`, but outside lies the mirror image, without the border pixel itself; less than a side far."""
    height, width = inputs.shape[-2:]
    x, y = whole_pixels(matrix, height, width)
    return gather(inputs.flatten(2), mirrored(y, height)[:, :, None] * width + mirrored(x, width)[:, None, :])


def gather(pixels: Tensor, index: Tensor) -> Tensor:
    """The pixels (B, C, P) with the numbers `index` (B, H, W), the same in every channel: (B, C, H, W)."""
    batch, height, width = index.shape
    channels = pixels.shape[1]
    everywhere = index.view(batch, 1, height * width).expand(-1, channels, -1)
    return pixels.gather(2, everywhere).view(batch, channels, height, width)


def whole_pixels(matrix: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Columns (B, W) and rows (B, H) of the old picture for the new one's."""
    x = matrix[:, 0, :1] * positions(width, matrix) + (matrix[:, 0, 2:] + (width - 1) / 2)
    y = matrix[:, 1, 1:2] * positions(height, matrix) + (matrix[:, 1, 2:] + (height - 1) / 2)
    return x.round().long(), y.round().long()


def mirrored(pixel: Tensor, length: int) -> Tensor:
    """Pixel numbers less than `length` outside on either side, reflected into 0..length−1."""
    return (length - 1) - ((length - 1) - pixel.abs()).abs()
