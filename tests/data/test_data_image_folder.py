"""Images on disk: layouts, sizes, colors, and the file that cannot be read."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dltrain.data import image_folder as module
from dltrain.data.batches import ResidentSplit, StreamingSplit
from dltrain.data.errors import DataError
from dltrain.data.image_folder import ImageFiles, image_folder
from dltrain.data.prepare import prepare
from dltrain.data.raw import RawData

GENERATOR = np.random.default_rng(0)


def picture(path: Path, width: int = 6, height: int = 4, mode: str = "RGB") -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = GENERATOR.integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return pixels


def uncached(root: str, **keys: Any) -> RawData:
    return image_folder(root, cache=False, **keys)


def files_of(raw: RawData) -> ImageFiles:
    assert isinstance(raw.inputs, ImageFiles)
    return raw.inputs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, count in (("cat", 12), ("dog", 15)):
        for i in range(count):
            picture(tmp_path / name / f"{i:02}.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_a_folder_for_each_class(folder: Path) -> None:
    raw = uncached(str(folder))
    assert raw.class_names == ("cat", "dog") and raw.split is None
    assert raw.targets.tolist() == [0] * 12 + [1] * 15
    assert files_of(raw).shape == (3, 4, 6)
    assert raw.describe(13) == str(folder / "dog" / "01.png")


def test_pixels_are_those_of_the_files(folder: Path) -> None:
    truth = np.asarray(Image.open(folder / "dog" / "03.png")).transpose(2, 0, 1)
    read = files_of(uncached(str(folder))).read(torch.tensor([15, 0]))
    assert np.array_equal(read[0], truth)
    assert read.dtype == torch.uint8 and read.shape == (2, 3, 4, 6) and read.is_contiguous()


def test_folders_named_after_splits_are_splits(tmp_path: Path) -> None:
    for part, count in (("train", 10), ("val", 3), ("test", 2)):
        for name in ("a", "b"):
            for i in range(count):
                picture(tmp_path / part / name / "deeper" / f"{i}.JPG")
    raw = uncached(str(tmp_path))
    assert raw.split is not None
    assert raw.split.tolist() == [0] * 20 + [1] * 6 + [2] * 4
    assert prepare(raw).spec.sizes == {"train": 20, "val": 6, "test": 4}


def test_gray_palette_and_transparent_images_are_converted_to_the_requested_color(tmp_path: Path) -> None:
    for i, mode in enumerate(("RGB", "L", "P", "RGBA", "1")):
        picture(tmp_path / "a" / f"{i}.png", mode=mode)
    assert files_of(uncached(str(tmp_path))).read(torch.arange(5)).shape == (5, 3, 4, 6)
    assert files_of(uncached(str(tmp_path), color="grey")).read(torch.arange(5)).shape == (5, 1, 4, 6)


@pytest.mark.parametrize(("size", "shape"), [(5, (3, 5, 5)), ([8, 10], (3, 8, 10)), (300, (3, 300, 300))])
def test_images_are_brought_to_one_size(
    tmp_path: Path, size: int | list[int], shape: tuple[int, ...]
) -> None:
    for i, (width, height) in enumerate(((6, 4), (40, 20), (9, 33), (5, 5))):
        picture(tmp_path / "a" / f"{i}.jpg", width, height)
    reader = files_of(uncached(str(tmp_path), size=size))
    assert reader.shape == shape
    assert reader.read(torch.arange(4)).shape == (4, *shape)


def test_scaling_keeps_what_is_in_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 20:60] = (10, 200, 30)  # the square around the center
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "x.png")
    read = files_of(uncached(str(tmp_path), size=8)).read(torch.tensor([0]))
    assert (read[0, :, :, 1:-1].flatten(1).float() - torch.tensor([[10.0], [200.0], [30.0]])).abs().max() <= 1


def test_resident_and_streamed_images_are_the_same(folder: Path) -> None:
    raw = uncached(str(folder))
    resident, streamed = prepare(raw), prepare(raw, resident_share=0.0)
    assert isinstance(resident.train, ResidentSplit) and isinstance(streamed.train, StreamingSplit)
    assert resident.fingerprint() == streamed.fingerprint()
    order = torch.arange(len(resident.train)).flip(0)
    for left, right in zip(resident.train.batches(order, 4), streamed.train.batches(order, 4), strict=True):
        torch.testing.assert_close(left.inputs, right.inputs)
        assert left.targets.equal(right.targets)


def test_the_reader_travels_to_workers(folder: Path) -> None:
    reader = files_of(uncached(str(folder)))
    assert pickle.loads(pickle.dumps(reader)).read(torch.tensor([3])).equal(reader.read(torch.tensor([3])))
    assert len(reader) == 27


def test_images_are_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, first = uncached(str(folder)), image_folder(str(folder))
    assert isinstance(first.inputs, torch.Tensor)
    assert first.inputs.equal(files_of(plain).read(torch.arange(27)))
    assert first.describe(13) == plain.describe(13)
    assert prepare(first).fingerprint() != ""
    with monkeypatch.context() as patch:
        patch.setattr(ImageFiles, "_pixels", lambda *_: pytest.fail("decoded twice"))
        again = image_folder(str(folder))
    assert isinstance(again.inputs, torch.Tensor) and again.inputs.equal(first.inputs)
    pixels = picture(folder / "dog" / "03.png")
    changed = image_folder(str(folder))
    assert isinstance(changed.inputs, torch.Tensor)
    assert np.array_equal(changed.inputs[15], pixels.transpose(2, 0, 1))
    monkeypatch.setattr(module, "_CACHED_AT_MOST", 100)
    assert isinstance(image_folder(str(folder)).inputs, ImageFiles)


def read_all(folder: Path, share: float) -> None:
    splits = prepare(uncached(str(folder)), resident_share=share)
    for split in (splits.train, splits.val, splits.test):
        assert split is not None
        list(split.batches(None, 8))


@pytest.mark.parametrize("damage", [b"", b"no image at all", None])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_an_image_that_cannot_be_read_is_named(folder: Path, damage: bytes | None, share: float) -> None:
    bad = folder / "dog" / "03.png"
    bad.write_bytes(bad.read_bytes()[:60] if damage is None else damage)
    message = "^cannot read the image .*dog/03.png .*take it out of the folder$"
    with pytest.raises(DataError, match=message) as error:
        read_all(folder, share)
    with pytest.raises(DataError, match=message):
        image_folder(str(folder))
    assert not list(folder.glob(".dltrain-cache*"))
    assert len(str(error.value).splitlines()) == 1
    bad.unlink()  # the cure
    prepare(uncached(str(folder)))


def test_an_unreadable_first_image_is_named(folder: Path) -> None:
    (folder / "cat" / "00.png").write_bytes(b"x")
    with pytest.raises(DataError, match="cannot read the image .*cat/00.png"):
        uncached(str(folder))


def test_images_of_different_size_are_refused_with_a_cure_that_works(folder: Path) -> None:
    picture(folder / "dog" / "03.png", 7, 5)
    with pytest.raises(DataError, match=r"03.png is 7 wide and 5 high, .* set dataset.size=\[4,6\]"):
        prepare(uncached(str(folder)))
    prepare(uncached(str(folder), size=[4, 6]))


def test_other_refusals(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dataset.root is .*nowhere, which is not a folder"):
        uncached(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no image in .*; put them at .*CLASS/NAME.jpg"):
        uncached(str(tmp_path))
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="holds test but no train"):
        uncached(str(tmp_path))
