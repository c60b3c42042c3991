"""Images on disk: layouts, sizes, colors, and the file that cannot be read."""

from __future__ import annotations

import os
import pickle
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from dltrain.data import cache
from dltrain.data.batches import ResidentSplit, StreamingSplit
from dltrain.data.errors import DataError
from dltrain.data.image_files import Found, ImageFiles
from dltrain.data.image_folder import image_folder
from dltrain.data.pixels import Form, Unusable, inspect_pixels, read_pixels
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


@pytest.mark.parametrize(("size", "shape"), [(5, (3, 5, 5)), ([8, 10], (3, 8, 10)), (300, (3, 300, 300))])
def test_images_are_brought_to_one_size(
    tmp_path: Path, size: int | list[int], shape: tuple[int, ...]
) -> None:
    for i, (width, height) in enumerate(((6, 4), (40, 20), (9, 33), (5, 5))):
        picture(tmp_path / "ab"[i % 2] / f"{i}.jpg", width, height)
    reader = files_of(uncached(str(tmp_path), image_size=size))
    assert reader.shape == shape
    assert reader.read(torch.arange(4)).shape == (4, *shape)


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


def records_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> RawData:
    """Load the folder, which must come from the cache."""
    with monkeypatch.context() as patch:
        patch.setattr(ImageFiles, "records", lambda *_: pytest.fail("decoded twice"))
        return image_folder(str(folder))


def test_images_are_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, first = uncached(str(folder)), image_folder(str(folder))
    assert isinstance(first.inputs, torch.Tensor)
    assert first.inputs.equal(files_of(plain).read(torch.arange(27)))
    assert first.describe(13) == plain.describe(13)
    again = records_of(folder, monkeypatch)
    assert isinstance(again.inputs, torch.Tensor) and again.inputs.equal(first.inputs)
    assert again.notes == first.notes
    assert not [path for path in folder.rglob("*") if "cache" in path.name]


def test_a_file_that_changed_is_decoded_again_even_with_its_old_size_and_time(folder: Path) -> None:
    path = folder / "dog" / "03.bmp"
    picture(path)
    image_folder(str(folder))
    before = path.stat()
    pixels = picture(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    changed = image_folder(str(folder))
    assert isinstance(changed.inputs, torch.Tensor)
    index = next(i for i in range(28) if changed.describe(i) == str(path))
    assert np.array_equal(changed.inputs[index], pixels.transpose(2, 0, 1))


def test_class_folders_that_change_names_change_the_labels(folder: Path) -> None:
    before = image_folder(str(folder))
    (folder / "cat").rename(folder / "x")
    (folder / "dog").rename(folder / "cat")
    (folder / "x").rename(folder / "dog")
    after = image_folder(str(folder))
    assert isinstance(before.inputs, torch.Tensor) and isinstance(after.inputs, torch.Tensor)
    assert after.inputs[after.targets == 0].equal(before.inputs[before.targets == 1])


@pytest.mark.parametrize("damage", ["pixel", "short", "empty", "pipe", "longer"])
def test_a_cache_that_is_not_what_was_written_is_not_believed(folder: Path, damage: str) -> None:
    first = image_folder(str(folder))
    assert isinstance(first.inputs, torch.Tensor)
    right = first.inputs.clone()
    (path,) = cache.folder().glob(f"{folder.name}-*")
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "pixel":
        content[-1000] ^= 1
    if damage == "pipe":
        os.mkfifo(path)
    else:
        ends = {"short": content[:-200], "empty": b"", "longer": content + b"0"}
        path.write_bytes(ends.get(damage, content))
    again = image_folder(str(folder))
    assert isinstance(again.inputs, torch.Tensor) and again.inputs.equal(right)


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
    message = "^cannot use the image .*dog/03.png .*take broken images out of the folder, or replace them; or leave "
    message += "them out: dataset.broken=skip$"
    with pytest.raises(DataError, match=message) as error:
        read_all(folder, share)
    with pytest.raises(DataError, match=message):
        image_folder(str(folder))
    assert not list(cache.folder().glob(f"{folder.name}-*")) and not list(cache.folder().glob("*.tmp"))
    assert len(str(error.value).splitlines()) == 1
    bad.unlink()  # the cure
    prepare(uncached(str(folder)))


@pytest.mark.parametrize("how", [{}, {"cache": False}, {"image_size": 3}])
def test_all_broken_images_are_named_at_once(folder: Path, how: dict[str, Any]) -> None:
    for i in range(13):
        (folder / "cat" / f"broken{i:02}.jpg").write_bytes(b"x")
    whole = folder / "dog" / "whole.jpg"
    picture(whole)
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(DataError) as error:
        image_folder(str(folder), **how)
    first, second = str(error.value).splitlines()
    cure = "take broken images out of the folder, or replace them; or leave them out: dataset.broken=skip"
    assert first == f"cannot use 14 of 41 images; {cure}:"
    assert second.count("/broken") == 10 and second.endswith("(4 more)")


def test_too_many_pixels_for_the_cache_are_looked_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MOST_BYTES", 100)
    assert isinstance(image_folder(str(folder)).inputs, ImageFiles)
    monkeypatch.setattr(ImageFiles, "inspect", lambda *_: pytest.fail("looked at twice"))
    assert isinstance(image_folder(str(folder)).inputs, ImageFiles)


def test_images_of_different_size_are_refused_with_a_cure_that_works(folder: Path) -> None:
    picture(folder / "dog" / "03.png", 7, 5)
    message = r"several sizes .*: 6×4 \(26\), 7×5 \(1\); .*dataset.image_size=4 .* dataset.image_size=\[4,6\]"
    with pytest.raises(DataError, match=message):
        image_folder(str(folder))
    for cure in (4, [4, 6]):
        prepare(uncached(str(folder), image_size=cure))


def test_a_size_that_a_first_look_does_not_meet_is_refused(folder: Path) -> None:
    for i in range(100):
        picture(folder / "ant" / f"{i:03}.png")
    for name in ("050.png", "052.png"):
        picture(folder / "ant" / name, 7, 5)
    reader = ImageFiles(str(folder), [f"ant/{i:03}.png" for i in range(100)], Form(4, 6, "rgb"))
    with pytest.raises(
        DataError, match=r"cannot use 2 images; .*dataset.image_size=\[4,6\]:\n.*050.png, .*052.png"
    ):
        reader.read(torch.arange(100))


# Pixels -----------------------------------------------------------------------------------------------------------


def pixels_of(image: Image.Image, path: Path, form: Form | None = None, **how: Any) -> np.ndarray:
    image.save(path, **how)
    width, height = image.size
    return read_pixels(str(path), form or Form(height, width, "rgb"))[0].astype(int)


def noise(height: int = 5, width: int = 7, channels: int = 3) -> np.ndarray:
    return GENERATOR.integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif", "webp", "jpg"])
def test_exif_orientation(tmp_path: Path, orientation: int, ending: str) -> None:
    """The definition of TIFF 6.0: where row 0 and column 0 of the file are seen."""
    shown = np.zeros((16, 24, 3), np.uint8)
    shown[:8, :8] = 200  # the upper left corner
    flips = {1: (), 2: (1,), 3: (0, 1), 4: (0,), 5: (), 6: (0,), 7: (0, 1), 8: (1,)}[orientation]
    stored = np.swapaxes(shown, 0, 1) if orientation > 4 else shown
    stored = np.flip(stored, {5: (), 6: (0,), 7: (0, 1), 8: (1,)}[orientation] if orientation > 4 else flips)
    exif = Image.Exif()
    exif[0x0112] = orientation
    how: dict[str, Any] = {"webp": {"lossless": True}, "jpg": {"quality": 100}}.get(ending, {})
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **how)
    assert np.array_equal(
        ImageOps.exif_transpose(Image.open(path)).convert("RGB"),
        read_pixels(str(path), Form(16, 24, "rgb"))[0],
    )
    assert np.abs(read_pixels(str(path), Form(16, 24, "rgb"))[0].astype(int) - shown).max() <= 40 * (
        ending == "jpg"
    )
    # the size is that of the upright image, before and after scaling
    small = read_pixels(str(path), Form(4, 6, "rgb", "crop"))[0].astype(int)
    assert small[0, 0, 0] > 150 and small[0, -1, 0] < 50 and small[-1, 0, 0] < 50


def test_sixteen_bits_are_divided_by_257(tmp_path: Path) -> None:
    deep = GENERATOR.integers(0, 65536, (9, 11)).astype(np.uint16)
    deep[0, :2] = (0, 65535)
    for ending in ("png", "tif"):
        found = pixels_of(Image.fromarray(deep), tmp_path / f"a.{ending}")
        assert np.array_equal(found, np.floor(deep / 257 + 0.5).astype(int)[:, :, None].repeat(3, 2))
    (tmp_path / "a.pgm").write_bytes(b"P5 11 9 65535\n" + deep.astype(">u2").tobytes())
    assert np.array_equal(read_pixels(str(tmp_path / "a.pgm"), Form(9, 11, "rgb"))[0], found)


@pytest.mark.parametrize("kind", ["float32", "int32"])
def test_numbers_without_a_white_are_refused_by_name(folder: Path, kind: str) -> None:
    Image.fromarray(GENERATOR.integers(0, 9, (4, 6)).astype(kind)).save(folder / "cat" / "x.tif")
    for cached in (True, False):
        with pytest.raises(
            DataError, match="cat/x.tif .*which value is white is not known; save 8 or 16 bits"
        ):
            image_folder(str(folder), cache=cached)


def test_transparent_pixels_are_on_white(tmp_path: Path) -> None:
    """Over white: alpha · color + (1 - alpha) · 255."""
    rgba = noise(channels=4)
    alpha = rgba[:, :, 3:] / 255.0
    truth = alpha * rgba[:, :, :3] + (1 - alpha) * 255.0
    found = pixels_of(Image.fromarray(rgba), tmp_path / "a.png")
    assert np.abs(found - truth).max() <= 1
    gray = np.ascontiguousarray(rgba[:, :, 2:])
    truth = alpha * gray[:, :, :1] + (1 - alpha) * 255.0
    assert np.abs(pixels_of(Image.fromarray(gray, "LA"), tmp_path / "b.png") - truth).max() <= 1
    palette = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    found = pixels_of(palette, tmp_path / "c.png", transparency=1)
    assert found.tolist() == [[[10, 20, 30], [255, 255, 255]], [[70, 80, 90], [10, 20, 30]]]
    plain = noise()
    opaque = np.concatenate([plain, np.full((5, 7, 1), 255, np.uint8)], 2)
    assert np.array_equal(pixels_of(Image.fromarray(opaque), tmp_path / "d.png"), plain)


def test_gray_cmyk_and_bits(tmp_path: Path) -> None:
    gray = noise(channels=1)[:, :, 0]
    assert np.array_equal(pixels_of(Image.fromarray(gray), tmp_path / "a.png"), gray[:, :, None].repeat(3, 2))
    cmyk = noise(channels=4)
    c, m, y, k = np.moveaxis(cmyk.astype(float), 2, 0)
    truth = np.stack([(255 - ink) * (255 - k) / 255 for ink in (c, m, y)], 2)
    assert np.abs(pixels_of(Image.fromarray(cmyk, "CMYK"), tmp_path / "b.tif") - truth).max() <= 1
    bits = Image.fromarray((gray > 127).astype(np.uint8) * 255).convert("1")
    assert set(np.unique(pixels_of(bits, tmp_path / "c.png"))) == {0, 255}
    color = noise()
    luma = color @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
    found = pixels_of(Image.fromarray(color), tmp_path / "d.png", Form(5, 7, "grey"))
    assert found.shape == (5, 7, 1) and np.abs(found[:, :, 0] - luma).max() <= 1


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_scaling_is_that_of_torchvision(tmp_path: Path, resize: str) -> None:
    from torchvision.transforms.v2.functional import resize as torchvision_resize

    source = noise(48, 64)
    scaled = torchvision_resize(
        torch.from_numpy(source).permute(2, 0, 1), [12, 16 if resize == "crop" else 12], antialias=True
    )
    truth = scaled.permute(1, 2, 0).numpy()[:, 2:14] if resize == "crop" else scaled.permute(1, 2, 0).numpy()
    found = pixels_of(Image.fromarray(source), tmp_path / "a.png", Form(12, 12, "rgb", resize))
    assert np.abs(found - truth).max() <= 1


def test_padding_is_black_and_keeps_the_ratio(tmp_path: Path) -> None:
    white = Image.fromarray(np.full((10, 20, 3), 255, np.uint8))
    found = pixels_of(white, tmp_path / "a.png", Form(8, 8, "rgb", "pad"))
    assert (found[2:6] == 255).all() and (found[:2] == 0).all() and (found[6:] == 0).all()


def test_more_pixels_than_memory_are_refused(tmp_path: Path) -> None:
    Image.new("1", (20_000, 5_000)).save(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size < 100_000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for look in (read_pixels, inspect_pixels):
            with pytest.raises(Unusable, match="20000 × 5000 pixels are more than 90,000,000; scale it down"):
                look(str(tmp_path / "a.png"), Form(8, 8, "rgb", "crop"))


def test_a_webp_has_fewer_pixels_and_a_jpeg_few_scans(tmp_path: Path) -> None:
    """A decoder of WebP holds several copies, and each scan of a JPEG passes over all pixels: 150 kB took a minute."""
    form = Form(8, 8, "rgb", "crop")
    Image.new("L", (9000, 9000)).save(tmp_path / "a.webp", lossless=True)
    with pytest.raises(Unusable, match="9000 × 9000 pixels are more than 40,000,000"):
        read_pixels(str(tmp_path / "a.webp"), form)
    file = tmp_path / "a.jpg"
    Image.new("L", (64, 64)).save(file, progressive=True)
    read_pixels(str(file), form)
    content = file.read_bytes()
    start = content.find(b"\xff\xda")
    scans = content[start:-2]
    file.write_bytes(content[:start] + scans * 50 + content[-2:])
    with pytest.raises(Unusable, match=r"\d+ scans are more than 100"):
        read_pixels(str(file), form)


def test_what_was_done_to_images_is_said(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / name / "plain.png")
        picture(tmp_path / name / "gray.png", mode="L")
    picture(tmp_path / "a" / "clear.png", mode="RGBA")
    Image.new("RGB", (6, 4), "red").save(tmp_path / "b" / "red.png")
    Image.fromarray((2000 * np.arange(24)).reshape(4, 6).astype(np.uint16)).save(tmp_path / "b" / "deep.png")
    (note,) = image_folder(str(tmp_path)).notes
    assert note == "images   7 · 6×4 RGB · 3 gray · 1 of 16 bits, divided by 257 · 1 of a single color"
    (note,) = image_folder(str(tmp_path), image_size=3, resize="pad", color="grey").notes
    assert note.startswith("images   7 · scaled and padded with black to 3×3 gray · 3 gray")


# Folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [("Train", "Validation", "Test"), ("training", "valid", "testing"), ("train_set", "val-images", "TEST DATA"),
     ("training", "dev", "test")],
)  # fmt: skip
def test_split_folders_in_any_spelling(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for name, count in zip(names, (4, 3, 2), strict=True):
        for label in "ab":
            for i in range(count):
                picture(tmp_path / name / label / f"{i}.png")
    raw = uncached(str(tmp_path))
    assert raw.split is not None and raw.split.tolist() == [0] * 8 + [1] * 6 + [2] * 4
    assert f"splits   train from {names[0]}, val from {names[1]}, test from {names[2]}" in raw.notes


def test_what_is_not_used_is_counted(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "extra", "__MACOSX/train/a", ".hidden"):
        picture(tmp_path / name / "x.png")
    for name in ("Thumbs.db", ".DS_Store", "notes.txt", "train/a/._x.png", "train/b/desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    picture(tmp_path / "top.png")
    (tmp_path / "train" / "empty").mkdir()
    raw = uncached(str(tmp_path))
    assert len(raw) == 2
    assert raw.notes[-1] == (
        "unused   1 image in no class folder, 1 image in extra, folders without an image (empty), 1 file that is no image (notes.txt), "
        "6 hidden files and folders"
    )


def test_equal_images_in_two_splits_are_said(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in "ab":
            for i in range(3):
                picture(tmp_path / part / label / f"{i}.png")
    shutil.copy(tmp_path / "train" / "a" / "0.png", tmp_path / "test" / "a" / "again.png")
    again = tmp_path / "test" / "a" / "again.png"
    assert (
        f"copies   equal images in two splits: 1 in train and test ({again})"
        in image_folder(str(tmp_path)).notes
    )


@pytest.mark.parametrize("damage", ["link", "cache"])
def test_a_place_that_cannot_be_used_is_no_traceback(
    dogs: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """A link to nowhere among the images, beside a table of labels; a cache that cannot be written, beside a broken image."""
    if damage == "link":
        (dogs / "dogs" / "gone.txt").symlink_to(dogs / "nowhere")
        raw = labeled(dogs, "id,breed")
        assert len(raw) == 30 and raw.notes[-1] == "unused   1 file that is no image (gone.txt)"
        return
    (dogs / "file").write_bytes(b"")
    monkeypatch.setenv("DLTRAIN_CACHE", str(dogs / "file"))
    labeled(dogs, "id,breed")
    (dogs / "dogs" / "000.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="cannot use the image .*000.jpg"):
        image_folder(str(dogs / "dogs"), labels=str(dogs / "labels.csv"))


def test_a_resize_without_a_size_and_a_size_beyond_all_are_refused(folder: Path) -> None:
    with pytest.raises(
        DataError, match="dataset.resize=pad has no effect without a size; .*dataset.image_size=224"
    ):
        uncached(str(folder), resize="pad")
    for size in (100_000, [1, 100_000_000]):
        with pytest.raises(DataError, match="more than 90,000,000 pixels; .*dataset.image_size=224"):
            uncached(str(folder), image_size=size)
    uncached(str(folder), resize="pad", image_size=224)  # the cure


def test_a_folder_with_a_space_is_quoted_in_the_cure(tmp_path: Path) -> None:
    picture(tmp_path / "my photos" / "zoo" / "cat" / "x.png")
    with pytest.raises(DataError, match="""one folder deeper: 'dataset.root=".*/my photos/zoo"';"""):
        uncached(str(tmp_path / "my photos"))


def test_links_that_fan_out_and_deep_folders_are_refused(folder: Path) -> None:
    """Found by a hostile tester: listing 26 folders with two links each to the next did not end, and 1,000 nested ones raised RecursionError."""
    for level in range(30):
        (folder / f".{level}").mkdir()
        for name in "ab":
            (folder / f".{level}" / name).symlink_to(f"../.{level + 1}")
    (folder / ".30").mkdir()
    shutil.copy(next((folder / "cat").glob("*.png")), folder / ".30")
    (folder / "cat" / "x").symlink_to("../.24")
    # 64 ways are all gone
    assert sum(name.startswith("cat/x/") for name, _ in Found.below(folder).images) == 2**6
    (folder / "cat" / "x").unlink()
    (folder / "cat" / "x").symlink_to("../.0")
    with pytest.raises(
        DataError,
        match=f"is reached in more than 100 ways by links; remove links, which this lists: find {folder} -type l",
    ):
        Found.below(folder)
    (folder / "cat" / "x").unlink()
    deep = "/".join("d" * 100)
    (folder / "cat" / deep).mkdir(parents=True)
    with pytest.raises(DataError, match=f"{folder} has folders .* more than 100 deep, below cat/d/d/"):
        Found.below(folder)
    shutil.rmtree(folder / "cat" / deep)
    assert Found.below(folder).images


def test_links_in_a_circle_end(folder: Path) -> None:
    (folder / "cat" / "up").symlink_to(folder)
    assert len(uncached(str(folder))) == 27


def test_refused_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dataset.root is .*nowhere, which is not a folder"):
        uncached(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no image in .*; put them at .*CLASS/NAME.jpg"):
        uncached(str(tmp_path))
    picture(tmp_path / "x.png")
    (tmp_path / "names.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="1 images, but in no class folder.*dataset.labels=.*names.csv"):
        uncached(str(tmp_path))
    picture(tmp_path / "zoo" / "cat" / "x.png")
    with pytest.raises(DataError, match="one class folder, zoo, .*one folder deeper: dataset.root=.*/zoo;"):
        uncached(str(tmp_path))
    picture(tmp_path / "test" / "a" / "x.png")
    with pytest.raises(DataError, match="holds test but no train"):
        uncached(str(tmp_path))
    picture(tmp_path / "Training" / "b" / "x.png")
    with pytest.raises(DataError, match="images of 'a' in test from test but none in train"):
        uncached(str(tmp_path))
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="Training and train, which both mean train"):
        uncached(str(tmp_path))
    for key in ("target", "file_column", "split_column"):
        with pytest.raises(DataError, match=f"dataset.{key} is x, which is a key of a table of labels"):
            uncached(str(tmp_path), **{key: "x"})


# A table of labels ------------------------------------------------------------------------------------------------


@pytest.fixture
def dogs(tmp_path: Path) -> Path:
    """Thirty images, every second one in a folder of its own, and rows (id, path, breed, set, weight)."""
    for i in range(30):
        picture(tmp_path / "dogs" / ("deep" * (i % 2)) / f"{i:03}.jpg")
    return tmp_path


def row(i: int) -> dict[str, str]:
    return {
        "id": f"{i:03}", "path": f"{'deep/' * (i % 2)}{i:03}.jpg", "breed": ("akita", "boxer", "corgi")[i % 3],
        "set": "train" if i < 20 else "Testing", "weight": f"{i / 3:.2f}",
    }  # fmt: skip


def labeled(
    home: Path, columns: str, rows: Iterable[int] = range(30), more: str = "", **keys: Any
) -> RawData:
    names = columns.split(",")
    lines = [",".join(row(i)[name] for name in names) for i in rows]
    (home / "labels.csv").write_text("\n".join([columns, *lines, more]))
    return uncached(str(home / "dogs"), labels=str(home / "labels.csv"), **keys)


@pytest.mark.parametrize("columns", ["id,breed", "breed,path", "path,breed,set", "id,path,breed,set"])
def test_labels_from_a_table(dogs: Path, columns: str) -> None:
    raw = labeled(dogs, columns, reversed(range(30)))
    assert raw.class_names == ("akita", "boxer", "corgi") and len(raw) == 30
    for i in range(30):
        number = int(Path(raw.describe(i)).stem)
        assert raw.targets[i] == number % 3
        if raw.split is not None:
            assert raw.split[i] == 2 * (number >= 20)
    assert (raw.split is not None) == ("set" in columns)
    how = "path (path)" if "path" in columns else "id (name without ending)"
    assert raw.notes[1].startswith(f"labels   labels.csv · file: {how} · target: breed")


def test_quantities_from_a_table(dogs: Path) -> None:
    raw = labeled(dogs, "path,weight")
    assert raw.task == "regression" and raw.target_scale == "unit" and raw.target_rules[0].name == "weight"
    assert labeled(dogs, "path,weight", target_scale="none").target_scale == "none"
    for i in range(30):
        assert float(raw.targets[i]) == pytest.approx(round(int(Path(raw.describe(i)).stem) / 3, 2))


def test_images_without_a_label_are_counted(dogs: Path) -> None:
    raw = labeled(dogs, "id,breed", range(25), "026,\n")
    assert len(raw) == 25 and "5 of 30 images have no label, and are not used" in raw.notes[1]


@pytest.mark.parametrize(
    ("columns", "more", "keys", "message"),
    [
        ("path,breed,weight", "", {}, "any of 'breed', 'weight' .*; set dataset.target=breed or dataset.target=weight"),
        ("id,breed", "900,akita\n901,boxer", {}, "2 of 32 files .* are not below .*dogs: 900, 901; take their rows out"),
        ("id,breed", "001,akita", {}, r"row 31 of .* gives another label to the file of row 2 .*\(1 such rows\)"),
        ("breed,weight", "", {}, "no column of .* names images below dataset.root: 'akita' is none, and '000.jpg' is one"),
        ("id,breed", "", {"target": "bred"}, "names the column 'bred', which .*did you mean 'breed'"),
        ("path", "", {}, "has no column beside the file names"),
        ("id,breed", "", {"target": "id"}, "column 'id' of .* names the images, .*; set dataset.target or dataset.split_column to another"),
        ("id,breed", "", {"file_column": "breed"}, "column 'breed' of .* names no images .*; .*, or leave dataset.file_column out"),
    ],
)  # fmt: skip
def test_refused_tables(dogs: Path, columns: str, more: str, keys: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        labeled(dogs, columns, more=more, **keys)
    if "set dataset.target" in message:
        assert len(labeled(dogs, columns, target="breed")) == 30  # the cure


def split_folders(home: Path, heads: tuple[str, ...]) -> RawData:
    """Read thirty images, the i-th in the folder heads[i % len], by a table of paths and breeds."""
    paths = [f"{heads[i % len(heads)]}/{i:03}.jpg" for i in range(30)]
    for path in paths:
        picture(home / "set" / path)
    lines = [f"{path},{row(i)['breed']}" for i, path in enumerate(paths)]
    (home / "set.csv").write_text("\n".join(["path,breed", *lines]))
    return uncached(str(home / "set"), labels=str(home / "set.csv"))


def test_folders_named_after_splits_are_splits_with_a_table_of_labels_too(tmp_path: Path) -> None:
    raw = split_folders(tmp_path, ("Training", "test", "Training"))
    assert raw.split is not None
    for i in range(30):
        assert raw.split[i] == 2 * ("/test/" in raw.describe(i))
    assert int((raw.split == 2).sum()) == 10
    assert "splits   train from Training, test from test" in raw.notes


def test_folders_that_hold_some_of_the_labeled_images_are_no_splits_and_are_named(tmp_path: Path) -> None:
    raw = split_folders(tmp_path, ("train", "test", "more"))
    assert raw.split is None
    assert any(
        "drawn at random: the folders test, train hold only 20 of 30 images" in note for note in raw.notes
    )
    assert split_folders(tmp_path / "a", ("train", "more")).split is None


def test_two_columns_of_files_are_ambiguous(dogs: Path) -> None:
    lines = [f"{row(i)['path']},{row(29 - i)['path']},{row(i)['breed']}" for i in range(30)]
    (dogs / "pairs.csv").write_text("\n".join(["left,right,breed", *lines]))
    keys: dict[str, Any] = {"labels": str(dogs / "pairs.csv"), "target": "breed"}
    with pytest.raises(DataError, match="set dataset.file_column=left or dataset.file_column=right"):
        uncached(str(dogs / "dogs"), **keys)
    assert uncached(str(dogs / "dogs"), **keys, file_column="right").targets[0] == 29 % 3


def _scans(folder: Path, low: int, high: int) -> str:
    draw = np.random.default_rng(0)
    for kind in ("ant", "bee"):
        (folder / kind).mkdir(parents=True)
        for i in range(4):
            pixels = draw.integers(low, high, (6, 6), np.uint16, endpoint=True)
            pixels[0, :2] = low, high
            Image.fromarray(pixels).save(folder / kind / f"{i}.png")
    return str(folder)


def test_the_gray_levels_that_are_left_of_a_narrow_range_are_told_with_a_cure(tmp_path: Path) -> None:
    folder = _scans(tmp_path / "twelve", 0, 4095)
    raw = image_folder(folder)
    note = next(line for line in raw.notes if line.startswith("levels"))
    assert "values from 0 to 4,095 (of 8 looked at), and 65,535 is white: 17 of 256 gray levels" in note
    assert note.endswith("to keep 256, say which value is white: dataset.full_scale=4095")
    cured = image_folder(folder, full_scale=4095)
    assert not any(line.startswith("levels") for line in cured.notes)
    assert "8 of 16 bits, divided by 16.0588" in cured.notes[0] and "cut" not in cured.notes[0]
    assert len(torch.unique(cured.inputs)) > 5 * len(torch.unique(raw.inputs))
    assert "8 with values above 1000, cut to white" in image_folder(folder, full_scale=1000).notes[0]
    high = image_folder(_scans(tmp_path / "high", 30000, 31000)).notes
    assert any("5 of 256 gray levels are left; to keep more, use dataset=npz with floats" in n for n in high)
    wide = image_folder(_scans(tmp_path / "wide", 0, 65535)).notes
    assert not any(line.startswith("levels") for line in wide)


def test_names_without_their_ending_are_those_of_the_only_file_that_fits(tmp_path: Path) -> None:
    """Three of 270 rows of a table lacked .png, and nothing said so."""
    folder = Path(_scans(tmp_path / "set", 0, 65535))
    names = [str(path.relative_to(folder)) for path in sorted(folder.glob("*/*.png"))]
    labels = ["cat", "dog"] * 4
    rows = [f"{name},{label}" for name, label in zip(names, labels, strict=True)]
    rows[2] = rows[2].replace(".png", "")
    (tmp_path / "labels.csv").write_text("\n".join(["file,kind", *rows]))
    raw = image_folder(str(folder), labels=str(tmp_path / "labels.csv"))
    assert raw.targets.tolist() == [0, 1] * 4
    told = "labels   labels.csv · file: file (path) · target: kind · 1 name written otherwise, with one file that fits"
    assert told in raw.notes
    Image.open(folder / names[2]).convert("L").save(folder / names[2].replace(".png", ".bmp"))
    with pytest.raises(
        DataError, match="1 of 8 names of files in column 'file' .* lack their ending or folder"
    ):
        image_folder(str(folder), labels=str(tmp_path / "labels.csv"))


def test_images_of_a_group_stay_in_one_split(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    draw = np.random.default_rng(0)
    rows = []
    for i in range(120):
        Image.fromarray(draw.integers(0, 256, (4, 4), np.uint8)).save(folder / f"{i:03}.png")
        rows.append(f"{i:03}.png,{'ab'[i % 2]},p{i // 4},x")
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,patient,site", *rows]))
    raw = image_folder(
        str(folder), labels=str(tmp_path / "labels.csv"), target="label", group_column="patient"
    )
    assert raw.groups is not None and raw.groups.tolist() == raw.groups[::4].repeat_interleave(4).tolist()
    assert len(raw.groups.unique()) == 30
    assert raw.notes[1].endswith("target: label · group: patient · not used: site")
    source = prepare(raw, val_fraction=0.2, test_fraction=0.2).source
    assert source is not None
    groups = [set(raw.groups[rows].tolist()) for rows in source.positions.values()]
    assert len(groups) == 3 and sum(map(len, groups)) == 30
    (folder / "005.png").write_bytes(b"no image")
    keys = {"labels": str(tmp_path / "labels.csv"), "target": "label", "group_column": "patient"}
    kept = image_folder(str(folder), broken="skip", **keys).groups
    assert kept is not None and kept.tolist() == [*raw.groups[:5].tolist(), *raw.groups[6:].tolist()]
    text = (tmp_path / "labels.csv").read_text().replace("p3,", ",", 1)
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(
        DataError, match="column 'patient' has no value in row 13 .*every image needs its group"
    ):
        image_folder(str(folder), labels=str(tmp_path / "labels.csv"), target="label", group_column="patient")
