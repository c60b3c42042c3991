"""The picture of a loss surface, drawn with Pillow: the loss along a line, and on a plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dltrain.loggers.figures import FAINT, GRID, INK, RIGHT, WRONG, font, oklab_to_rgb, png
from dltrain.screen.numbers import number

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

SIDE, LEFT, TOP, GAP = 420, 90, 90, 110  # pixels of a panel and around it
BANDS = 12  # contour lines' intervals


def landscape(
    line: Sequence[tuple[float, float]], plane: Sequence[float], points: int, radius: float
) -> bytes:
    """Return a PNG: the loss along the line from start (0) to solution (1), and the (points²) losses of the plane.

    Losses of the plane are coloured by their logarithm, blue where they are low, in `BANDS` bands whose edges are
    contour lines. A loss that is not finite is grey.
    """
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (2 * SIDE + LEFT + GAP + 40, SIDE + TOP + 70), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((20, 16), "Loss around the solution", INK, font(19))
    values = np.asarray(plane, dtype=float).reshape(points, points)
    finite = values[np.isfinite(values)]
    edges = f"{number(finite.min())} (blue) to {number(finite.max())}" if finite.size else "nowhere finite"
    draw.text((LEFT, 58), "from the start (0) to the solution (1)", FAINT, font(13))
    draw.text((LEFT + SIDE + GAP, 58), f"random plane, ±{radius:g} of each filter: {edges}", FAINT, font(13))
    _draw_line(draw, line)
    panel = Image.fromarray(bands(values)[::-1]).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    canvas.paste(panel, (LEFT + SIDE + GAP, TOP))
    middle = (LEFT + SIDE + GAP + SIDE / 2, TOP + SIDE / 2)
    draw.line((middle[0] - 6, middle[1], middle[0] + 6, middle[1]), "white", 2)
    draw.line((middle[0], middle[1] - 6, middle[0], middle[1] + 6), "white", 2)
    return png(np.asarray(canvas))


def bands(values: NDArray[np.float64], enlarged: int = SIDE) -> NDArray[np.uint8]:
    """Map (n, n) losses to (enlarged, enlarged, 3): interpolated linearly, in bands of their logarithm."""
    logs = np.log10(np.maximum(np.where(np.isfinite(values), values, np.nan), 1e-12))
    fine = _enlarged(logs, enlarged)
    low, high = np.nanmin(logs, initial=np.inf), np.nanmax(logs, initial=-np.inf)
    share = np.clip((fine - low) / (high - low), 0, 1) if high > low else np.zeros_like(fine)
    band = np.floor(np.nan_to_num(share) * BANDS * 0.999) / (BANDS - 1)
    hue = np.radians(RIGHT + (WRONG + 360 - RIGHT) * band)
    colours = oklab_to_rgb(0.45 + 0.45 * band, 0.09 * np.cos(hue), 0.09 * np.sin(hue))
    return np.where(np.isnan(fine)[..., None], np.asarray(GRID, dtype=np.uint8), colours).astype(np.uint8)


def _enlarged(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    old, new = np.linspace(0, 1, len(values)), np.linspace(0, 1, size)
    wide = np.stack([np.interp(new, old, row) for row in values])
    return np.stack([np.interp(new, old, column) for column in wide.T]).T


def _draw_line(draw: ImageDraw, line: Sequence[tuple[float, float]]) -> None:
    """Draw the curve with its frame, its ends named, and a mark at the start and at the solution."""
    finite = [(t, loss) for t, loss in line if math.isfinite(loss)]
    draw.rectangle((LEFT, TOP, LEFT + SIDE, TOP + SIDE), outline=GRID)
    if not finite:
        return
    low, high = min(loss for _, loss in finite), max(loss for _, loss in finite)
    first, last = line[0][0], line[-1][0]

    def place(t: float, loss: float) -> tuple[float, float]:
        height = (loss - low) / (high - low) if high > low else 0.5
        return LEFT + SIDE * (t - first) / (last - first), TOP + SIDE * (0.97 - 0.94 * height)

    for t in (0.0, 1.0):
        x = place(t, low)[0]
        draw.line((x, TOP, x, TOP + SIDE), GRID, 1)
        draw.text((x, TOP + SIDE + 8), f"{t:g}", FAINT, font(13), anchor="ma")
    for loss in (low, high):
        draw.text((LEFT - 8, place(first, loss)[1]), number(loss), FAINT, font(13), anchor="rm")
    draw.line([place(t, loss) for t, loss in finite], INK, 2, joint="curve")
