"""The model card of an export tells what to do with raw inputs, and doing it gives what the run has."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from dltrain.data.contract import Contract
from dltrain.data.pixels import RESIZES, Form, conversions, read_pixels
from dltrain.data.tables.rules import Format, Rule
from dltrain.run.card import _meaning, _other_sizes
from dltrain.run.deployed import ColumnInput


def contract_of(shape: tuple[int, int, int], resize: str) -> Contract:
    return Contract("classification", shape, ("a", "b"), (), (), (), (), {}, "", resize=resize)


@pytest.mark.parametrize("name", ["tall.png", "wide.png", "large.jpg"])
@pytest.mark.parametrize("resize", RESIZES)
def test_an_image_that_is_scaled_as_the_card_says_has_the_pixels_of_the_run(resize, name, tmp_path: Path):
    shape = {"tall.png": (72, 47), "wide.png": (31, 85), "large.jpg": (300, 211)}[name]
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    told = _other_sizes(contract_of((3, 32, 40), resize))
    scale, draft = re.findall(r"`(.*?)`", told)
    image = Image.open(tmp_path / name)
    if name.endswith("jpg"):
        eval(draft, {"image": image})
        assert image.size != (211, 300), "decoded at a fraction"
    found = eval(scale, {"image": image, "Image": Image, "ImageOps": ImageOps})
    wanted = read_pixels(str(tmp_path / name), Form(32, 40, "rgb", resize))[0]
    assert np.array_equal(np.asarray(found), wanted)


def test_the_order_of_scaling_and_padding_is_told():
    orders = {"crop": "cropped around the center and scaled (", "stretch": "files, stretched (", "pad": "scaled and padded with black ("}  # fmt: skip
    for resize, told in orders.items():
        assert told in _other_sizes(contract_of((1, 8, 8), resize))
    assert '`image.draft("L", (16, 16))`' in _other_sizes(contract_of((1, 8, 8), "pad"))


@pytest.mark.parametrize("white", [65535, 4095, 1001])
def test_16_bits_become_bytes_as_the_card_says(white: int, tmp_path: Path):
    """Of all 65,536 values, by the formula that the card has and by division in float64."""
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / "a.png")
    formula, mode = re.findall(r"`(.*?)`", conversions(1, white))
    found = eval(formula, {"image": Image.open(tmp_path / "a.png"), "np": np})
    assert mode == 'image.convert("L")'
    wanted = read_pixels(str(tmp_path / "a.png"), Form(256, 256, "grey", white=white))[0][..., 0]
    assert np.array_equal(found, wanted)
    assert np.array_equal(wanted, np.minimum(np.rint(values * 255.0 / white), 255))


@pytest.mark.parametrize(("levels", "said"), [(("no", "yes"), True), (("a", "b"), False)])
def test_other_words_for_true_and_false_are_said_to_count(levels, said):
    told = _meaning(ColumnInput("owner", "text", {}), Rule("owner", Format("category"), levels, None), True)
    assert (
        "words for true and false, such as TRUE and 1, count as these, another counts as none" in told
    ) == said
