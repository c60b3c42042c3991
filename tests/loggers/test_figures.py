import io
import time

import numpy as np
import pytest
import torch
from PIL import Image

from dltrain.loggers.figures import (
    RIGHT,
    WRONG,
    cells,
    confusion_matrix,
    fitting_font,
    font,
    image_grid,
    oklab_to_rgb,
    png,
    ramp,
    shortened,
    verdict,
)


def lightness(rgb: np.ndarray) -> np.ndarray:
    """OKLab's L of sRGB, by the published inverse matrices."""
    encoded = rgb / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    to_cone = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    return np.cbrt(linear @ to_cone.T) @ np.array([0.2104542553, 0.7936177850, -0.0040720468])


@pytest.mark.parametrize(
    "lab, rgb",
    [
        ((1.0, 0.0, 0.0), (255, 255, 255)),
        ((0.0, 0.0, 0.0), (0, 0, 0)),
        ((0.62796, 0.22486, 0.12585), (255, 0, 0)),
        ((0.45201, -0.03246, -0.31153), (0, 0, 255)),
    ],
)
def test_oklab_agrees_with_published_values(lab: tuple[float, ...], rgb: tuple[int, ...]) -> None:
    found = oklab_to_rgb(*(np.array(value) for value in lab))
    assert np.abs(found.astype(int) - rgb).max() <= 1


@pytest.mark.parametrize("hue", [RIGHT, WRONG])
def test_equal_steps_of_depth_look_equal(hue: float) -> None:
    shades = lightness(ramp(np.linspace(0, 1, 17) ** 2, hue))  # the root of the share is the depth
    steps = np.diff(shades)
    assert (steps < 0).all()
    assert steps == pytest.approx(np.full(16, steps.mean()), abs=0.006)


def test_both_colours_are_equally_dark_at_equal_shares() -> None:
    share = np.linspace(0, 1, 9)
    assert lightness(ramp(share, RIGHT)) == pytest.approx(lightness(ramp(share, WRONG)), abs=0.01)


def test_cells_are_coloured_by_the_share_of_their_row() -> None:
    table = np.array([[90, 10], [1, 9]])
    picture = cells(table, 10)
    middle = picture[5::10, 5::10]
    assert (middle[0, 0] == middle[1, 1]).all()  # 90 % of the row, whatever the number of samples
    assert (middle[0, 1] == middle[1, 0]).all()
    assert middle[0, 0, 2] > middle[0, 0, 0] and middle[0, 1, 0] > middle[0, 1, 2]  # blue, orange


def test_a_class_without_samples_stays_empty() -> None:
    picture = cells(np.array([[0, 0], [1, 9]]), 10)
    assert picture[5, 5].min() > 240 and picture[5, 15].min() > 240


@pytest.mark.parametrize("size", [1, 2, 3, 5, 10, 26, 47, 100])
@pytest.mark.parametrize("named", [True, False])
def test_confusion_matrix_of_any_size(size: int, named: bool) -> None:
    counts = torch.eye(size, dtype=torch.int64) * 90 + 1
    names = [f"class number {i}" for i in range(size)] if named else []
    start = time.process_time()
    picture = confusion_matrix(counts, names, "Confusion matrix, test split")
    assert time.process_time() - start < 2
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert min(picture.shape[:2]) > 200 and max(picture.shape[:2]) < 2000
    assert (picture[[0, -1]] == 255).all() and (picture[:, [0, -1]] == 255).all()  # nothing is cut off


def test_counts_are_printed_where_there_are_some() -> None:
    with_counts = confusion_matrix(torch.tensor([[50, 0], [0, 50]]))
    others = confusion_matrix(torch.tensor([[70, 0], [0, 70]]))
    assert with_counts.shape == others.shape
    changed = np.argwhere((with_counts != others).any(-1))
    assert len(changed) > 20


@pytest.mark.parametrize("shape", [(2, 3), (0, 0), (2,), (2, 2, 2)])
def test_a_matrix_that_is_not_square_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a confusion matrix is square, this one has shape"):
        confusion_matrix(torch.zeros(shape, dtype=torch.int64))


def test_a_missing_name_is_refused() -> None:
    with pytest.raises(ValueError, match="2 class names for 3 classes: give one for each class"):
        confusion_matrix(torch.eye(3, dtype=torch.int64), ["a", "b"])


def test_verdict() -> None:
    assert (
        verdict(np.array([[1200, 0], [300, 0]])) == "80.00% right: 1,200 of 1,500 · colour: share of the row"
    )
    assert verdict(np.zeros((2, 2), dtype=np.int64)).startswith("no samples")


@pytest.mark.parametrize("digits, cell, fits", [(1, 64, True), (4, 24, True), (3, 16, False), (2, 16, True)])
def test_fitting_font(digits: int, cell: int, fits: bool) -> None:
    text = fitting_font(digits, cell)
    assert (text is not None) is fits
    assert text is None or text.getlength("0" * digits) <= cell


def test_shortened() -> None:
    assert shortened("cat", font(12), 100) == "cat"
    short = shortened("a very long name of a class", font(12), 60)
    assert short.endswith("…") and font(12).getlength(short) <= 60
    assert shortened("cat", font(12), 0) == "…"


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_image_grid_shows_every_pixel_unsmoothed(channels: int) -> None:
    images = torch.rand(5, channels, 4, 6, generator=torch.Generator().manual_seed(1))
    picture = image_grid(images, scale=3)
    shown = images if channels == 3 else images[:, :1].expand(-1, 3, -1, -1)
    expected = (shown * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert picture.shape == (2 * (4 * 3 + 6) + 6, 3 * (6 * 3 + 6) + 6, 3)
    for i in range(5):
        y, x = 6 + i // 3 * (4 * 3 + 6), 6 + i % 3 * (6 * 3 + 6)
        tile = picture[y : y + 12, x : x + 18]
        for dy in range(3):
            assert (tile[dy::3, dy::3] == expected[i]).all()


def test_image_grid_enlarges_small_images_and_leaves_room_for_labels() -> None:
    plain, labelled = (image_grid(torch.zeros(4, 1, 8, 8), labels) for labels in ((), ("0", "1", "2", "3")))
    assert plain.shape == (2 * 102 + 6, 2 * 102 + 6, 3) or plain.shape[1] == 3 * 102 + 6
    assert labelled.shape[0] > plain.shape[0] and labelled.shape[1] == plain.shape[1]
    assert image_grid(torch.zeros(1, 3, 224, 224)).shape == (236, 236, 3)


def test_image_grid_survives_values_outside_the_range() -> None:
    images = torch.tensor([float("nan"), -1.0, 2.0, 1.0]).reshape(1, 1, 2, 2)
    tile = image_grid(images, scale=1)[6:8, 6:8, 0]
    assert tile.tolist() == [[0, 0], [255, 255]]


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (1, 4, 4), (3, 7)])
def test_image_grid_without_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"an image grid needs images of shape \(K, C, H, W\), these have"):
        image_grid(torch.zeros(shape))


def test_png_is_lossless() -> None:
    picture = image_grid(torch.rand(3, 3, 5, 5), scale=2)
    assert (np.asarray(Image.open(io.BytesIO(png(picture)))) == picture).all()
