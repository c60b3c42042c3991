"""Downloads (from files in place of the net), verification, decoding, and the cache of what was decoded."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import socket
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dltrain.data import cache, cifar, mnist, svhn
from dltrain.data.download import RemoteFile, fetch
from dltrain.data.errors import DataError

GENERATOR = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    head = (0x800 | array.ndim).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


def remote(folder: Path, name: str, content: bytes) -> RemoteFile:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return RemoteFile(name, hashlib.sha256(content).hexdigest(), len(content), (f"{folder.as_uri()}/",))


ARRAYS = {
    "train-images-idx3-ubyte": GENERATOR.integers(0, 256, (30, 28, 28)),
    "train-labels-idx1-ubyte": np.arange(30) % 10,
    "t10k-images-idx3-ubyte": GENERATOR.integers(0, 256, (10, 28, 28)),
    "t10k-labels-idx1-ubyte": np.arange(10),
}


@pytest.fixture
def family(tmp_path: Path) -> mnist._Family:
    """A little MNIST on a mirror of files."""
    files = [
        remote(tmp_path / "mirror", f"{name}.gz", gzip.compress(idx(array))) for name, array in ARRAYS.items()
    ]
    facts = [(file.sha256, file.size) for file in files]
    return mnist._Family("MNIST", files[0].mirrors, *facts, class_names=tuple("0123456789"))  # type: ignore[arg-type]


def check(raw: object) -> None:
    from dltrain.data.raw import RawData

    assert isinstance(raw, RawData) and isinstance(raw.inputs, torch.Tensor) and raw.split is not None
    whole = np.concatenate([ARRAYS["train-images-idx3-ubyte"], ARRAYS["t10k-images-idx3-ubyte"]])
    assert np.array_equal(raw.inputs[:, 0], whole)
    assert raw.inputs.shape == (40, 1, 28, 28) and raw.inputs.dtype == torch.uint8
    assert raw.targets.tolist() == [*(np.arange(30) % 10).tolist(), *range(10)]
    assert raw.split.tolist() == [0] * 30 + [2] * 10


def test_mnist_is_downloaded_verified_and_decoded_once(
    family: mnist._Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    check(mnist._load(family, root, True))
    assert sorted(path.name for path in (root / "MNIST" / "raw").iterdir()) == sorted(
        f"{n}.gz" for n in ARRAYS
    )
    monkeypatch.setattr(mnist, "_decode", lambda paths: pytest.fail("decoded twice"))
    check(mnist._load(family, root, False))  # neither the net nor the decoder


@pytest.mark.parametrize("packed", [True, False])
def test_the_layout_of_torchvision_is_read(family: mnist._Family, tmp_path: Path, packed: bool) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, array in ARRAYS.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array))) if packed else (
            folder / name
        ).write_bytes(idx(array))
    check(mnist._load(family, tmp_path, False))


@pytest.mark.filterwarnings("ignore")
def test_torchvision_reads_the_same(family: mnist._Family, tmp_path: Path) -> None:
    from torchvision.datasets import MNIST

    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, array in ARRAYS.items():
        (folder / name).write_bytes(idx(array))
    raw, truth = mnist._load(family, tmp_path, False), MNIST(tmp_path, train=True)
    assert isinstance(raw.inputs, torch.Tensor)
    assert raw.inputs[:30, 0].equal(truth.data) and raw.targets[:30].equal(truth.targets)


def test_the_published_checksums_are_well_formed() -> None:
    for known in (mnist._MNIST, mnist._FASHION_MNIST, mnist._KMNIST):
        for file in known.files():
            assert len(file.sha256) == 64 and int(file.sha256, 16)
            assert all(mirror.endswith("/") for mirror in file.mirrors)


def test_without_net_the_error_names_the_cure(family: mnist._Family, tmp_path: Path) -> None:
    unreachable = replace(family, mirrors=("file:///nowhere/", "file:///nothing/"))
    with pytest.raises(DataError) as error:
        mnist._load(unreachable, tmp_path / "data", True)
    message = str(error.value)
    assert len(message.splitlines()) <= 3
    for words in (
        "could not download train-images-idx3-ubyte.gz from any of 2 addresses",
        "by hand",
        "SHA-256",
    ):
        assert words in message
    assert str(tmp_path / "data" / "MNIST" / "raw") in message
    assert "or set dataset.root to the folder that holds MNIST/raw" in message
    for name, array in ARRAYS.items():  # the cure
        (tmp_path / "data" / "MNIST" / "raw" / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    check(mnist._load(unreachable, tmp_path / "data", True))


@pytest.mark.parametrize(
    "load", [mnist.mnist, mnist.fashion_mnist, mnist.kmnist, cifar.cifar10, cifar.cifar100, svhn.svhn]
)
def test_download_false_opens_no_net(load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(load)
    monkeypatch.setattr(socket, "socket", lambda *args, **keys: pytest.fail("the net was asked"))
    with pytest.raises(DataError, match="is not in .*; set dataset.download=true, or set dataset.root"):
        load(root=str(tmp_path), download=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>404</html>", "got 16 bytes in place of 20"),
        (b"x" * 20, "SHA-256 is .* in place of"),
        (b"x" * 2_000_000, "got more than 20 bytes in place of 20"),
    ],
)
def test_a_wrong_file_is_refused_and_removed(tmp_path: Path, content: bytes, reason: str) -> None:
    file = remote(tmp_path / "mirror", "file.bin", b"0123456789" * 2)
    (tmp_path / "mirror" / "file.bin").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        fetch(file, tmp_path / "data", "or do without")
    assert not list((tmp_path / "data").iterdir())


def test_the_second_mirror_is_asked_when_the_first_lies(tmp_path: Path) -> None:
    good = remote(tmp_path / "good", "file.bin", b"right")
    bad = remote(tmp_path / "bad", "file.bin", b"wrong")
    path = fetch(replace(good, mirrors=bad.mirrors + good.mirrors), tmp_path / "data", "")
    assert path.read_bytes() == b"right"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DataError, match="cannot make the folder .*data.*; set dataset.root to another"):
        fetch(remote(tmp_path / "mirror", "x", b"x"), tmp_path / "data" / "MNIST", "")


def write_idx(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a-ubyte", idx(np.zeros((3, 4, 4)))[:-1], "is not a whole file of images or labels"),
        (
            "a-ubyte",
            b"hello world",
            "is not a whole file of images or labels .its 11 bytes begin with 68656c6c",
        ),
        (
            "a.gz",
            gzip.compress(idx(np.zeros(9)), mtime=0)[:-3],
            "cannot read .*a.gz .*; remove it and let it be downloaded",
        ),
        ("a.gz", b"<html>", "cannot read .*a.gz .Not a gzipped file"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        mnist.read_idx(write_idx(tmp_path / name, content))


def test_images_without_labels_are_refused(family: mnist._Family, tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, array in ARRAYS.items():
        (folder / name).write_bytes(idx(array[:-1] if name == "train-labels-idx1-ubyte" else array))
    with pytest.raises(DataError, match=r"holds \(30, 28, 28\) images for 29 labels; .*remove both files"):
        mnist._load(family, tmp_path, False)


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def records(count: int, label_bytes: int) -> bytes:
    return GENERATOR.integers(0, 10, (count, label_bytes + 3072), dtype=np.uint8).tobytes()


CIFAR_FILES = {
    "data_batch_1.bin": records(4, 1),
    "data_batch_2.bin": records(4, 1),
    "test_batch.bin": records(3, 1),
}


def little_cifar(folder: Path, files: dict[str, bytes]) -> cifar._Archive:
    content = tar_of({f"cifar-10-batches-bin/{name}": data for name, data in files.items()})
    return replace(
        cifar._CIFAR10,
        remote=remote(folder, "cifar-10-binary.tar.gz", content),
        train=(("data_batch_1.bin", 4), ("data_batch_2.bin", 4)),
        test=(("test_batch.bin", 3),),
    )


NAMES = {"batches.meta.txt": b"\n".join(b"class%d" % i for i in range(10)) + b"\n\n"}


@pytest.mark.parametrize("unpacked", [False, True])
def test_cifar_members_are_read_and_nothing_is_unpacked(tmp_path: Path, unpacked: bool) -> None:
    archive = little_cifar(tmp_path / "mirror", {**CIFAR_FILES, **NAMES})
    root = tmp_path / "data"
    if unpacked:
        folder = root / "cifar-10-batches-bin"
        folder.mkdir(parents=True)
        for name, content in {**CIFAR_FILES, **NAMES}.items():
            (folder / name).write_bytes(content)
    raw = cifar._load(archive, root, not unpacked, 0)
    truth = np.frombuffer(b"".join(CIFAR_FILES.values()), np.uint8).reshape(-1, 3073)
    assert isinstance(raw.inputs, torch.Tensor) and raw.split is not None
    assert np.array_equal(raw.inputs.reshape(11, -1), truth[:, 1:]) and raw.inputs.shape == (11, 3, 32, 32)
    assert raw.targets.tolist() == truth[:, 0].tolist()
    assert raw.split.tolist() == [0] * 8 + [2] * 3
    assert raw.class_names == tuple(f"class{i}" for i in range(10))
    if not unpacked:
        assert not any(path.is_dir() for path in root.iterdir())
    cifar._load(archive, root, False, 0)


def test_cifar100_has_fine_and_coarse_labels(tmp_path: Path) -> None:
    files = {
        "train.bin": records(5, 2),
        "test.bin": records(2, 2),
        "coarse_label_names.txt": b"\n".join(b"kind%d" % i for i in range(20)) + b"\n",
        "fine_label_names.txt": b"\n".join(b"class%d" % i for i in range(100)) + b"\n",
    }
    content = tar_of({f"cifar-100-binary/{name}": data for name, data in files.items()})
    archive = replace(
        cifar._CIFAR100,
        remote=remote(tmp_path / "mirror", "cifar-100-binary.tar.gz", content),
        train=(("train.bin", 5),),
        test=(("test.bin", 2),),
    )
    truth = np.frombuffer(files["train.bin"] + files["test.bin"], np.uint8).reshape(-1, 3074)
    for column, (name, count) in enumerate((("kind", 20), ("class", 100))):
        raw = cifar._load(archive, tmp_path / "data", True, column)
        assert raw.targets.tolist() == truth[:, column].tolist()
        assert raw.class_names == tuple(f"{name}{i}" for i in range(count))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {**CIFAR_FILES, "data_batch_2.bin": b"short", **NAMES},
            "data_batch_2.bin holds 5 bytes in place of 12292",
        ),
        ({**CIFAR_FILES, "data_batch_2.bin": records(5, 1), **NAMES}, "holds 12293 bytes in place of 12292"),
        (CIFAR_FILES, "batches.meta.txt holds 0 bytes in place of some"),
    ],
)
def test_a_cifar_archive_that_lacks_something_is_refused(
    tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        cifar._load(little_cifar(tmp_path / "mirror", files), tmp_path / "data", True, 0)


def test_a_cut_cifar_archive_is_named(tmp_path: Path) -> None:
    archive = little_cifar(tmp_path / "mirror", {**CIFAR_FILES, **NAMES})
    (tmp_path / "data").mkdir()
    whole = (tmp_path / "mirror" / "cifar-10-binary.tar.gz").read_bytes()
    (tmp_path / "data" / "cifar-10-binary.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot read .*cifar-10-binary.tar.gz .*remove it"):
        cifar._load(archive, tmp_path / "data", True, 0)


def test_a_link_in_an_archive_is_not_followed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        link = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    archive = little_cifar(tmp_path / "mirror", {})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar-10-binary.tar.gz").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="data_batch_1.bin holds 0 bytes|cannot read"):
        cifar._load(archive, tmp_path / "data", True, 0)


def test_svhn_calls_ten_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    images = GENERATOR.integers(0, 256, (32, 32, 3, 12), dtype=np.uint8)
    labels = np.arange(1, 13)[:, None] % 10
    labels[labels == 0] = 10
    for name, known in (("train_32x32.mat", "_TRAIN"), ("test_32x32.mat", "_TEST")):
        savemat(tmp_path / name, {"X": images, "y": labels.astype(np.uint8)})
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        monkeypatch.setattr(svhn, known, replace(getattr(svhn, known), sha256=digest))
    raw = svhn.svhn(str(tmp_path), download=False)
    assert isinstance(raw.inputs, torch.Tensor) and raw.split is not None
    assert raw.targets[:12].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert np.array_equal(raw.inputs[5], images[:, :, :, 5].transpose(2, 0, 1))
    assert raw.split.tolist() == [0] * 12 + [2] * 12


def test_svhn_files_that_are_not_the_published_ones_are_never_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged MATLAB file ends the process in scipy's reader."""
    import scipy.io

    monkeypatch.setattr(scipy.io, "loadmat", lambda path: pytest.fail("it was parsed"))
    for name in ("train_32x32.mat", "test_32x32.mat"):
        (tmp_path / name).write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(
        DataError,
        match="train_32x32.mat is not the published file .*; remove it and let it be downloaded again",
    ):
        svhn.svhn(str(tmp_path), download=False)


def count_decodes(path: Path, source: Path, calls: list[int]) -> dict[str, torch.Tensor]:
    def decode() -> dict[str, torch.Tensor]:
        calls.append(1)
        return {"numbers": torch.arange(5)}

    return cache.decoded(path, [source], decode)


def test_the_cache_is_rebuilt_when_a_source_changes_or_it_is_damaged(tmp_path: Path) -> None:
    source, calls = tmp_path / "source", list[int]()
    source.write_bytes(b"one")
    for _ in range(3):
        assert count_decodes(tmp_path, source, calls)["numbers"].tolist() == [0, 1, 2, 3, 4]
    assert len(calls) == 1
    source.write_bytes(b"three")
    count_decodes(tmp_path, source, calls)
    assert len(calls) == 2
    path = cache.place(tmp_path)
    flipped = bytearray(path.read_bytes())
    flipped[flipped.index((3).to_bytes(8, "little"))] = 7
    for damage in (b"", b"nonsense", path.read_bytes()[:100], bytes(flipped)):
        path.unlink()
        path.write_bytes(damage)
        assert count_decodes(tmp_path, source, calls)["numbers"].tolist() == [0, 1, 2, 3, 4]
    assert len(calls) == 6
    assert [file.name for file in tmp_path.iterdir()] == ["source"]


def test_a_cache_is_a_regular_file(tmp_path: Path) -> None:
    source, calls, path = tmp_path / "source", list[int](), cache.place(tmp_path)
    source.write_bytes(b"one")
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)  # to read it would hang
    for _ in range(2):
        assert count_decodes(tmp_path, source, calls)["numbers"].tolist() == [0, 1, 2, 3, 4]
    assert len(calls) == 1 and path.is_file()


def test_caches_that_were_not_used_for_long_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLTRAIN_CACHE", str(tmp_path / "caches"))
    monkeypatch.setattr(cache, "MOST_BYTES_OF_ALL", cache.MOST_BYTES + 25)
    for i in range(4):
        assert cache.write(cache.place(tmp_path / f"{i}"), lambda stream: stream.write(bytes(10)))
        os.utime(cache.place(tmp_path / f"{i}"), (i, i))
    left = tmp_path / "caches" / "x.dltrain-cache.tmp"
    left.write_bytes(b"")
    os.utime(left, (0, 0))
    assert cache.write(cache.place(tmp_path / "new"), lambda stream: stream.write(bytes(10)))
    kept = {cache.place(tmp_path / name).name for name in ("2", "3", "new")}
    assert {file.name for file in (tmp_path / "caches").iterdir()} == kept


def test_a_folder_that_cannot_be_written_to_only_costs_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, calls = tmp_path / "source", list[int]()
    source.write_bytes(b"one")
    monkeypatch.setenv("DLTRAIN_CACHE", str(source))  # below a file nobody can write
    for _ in range(2):
        assert count_decodes(tmp_path, source, calls)["numbers"].tolist() == [0, 1, 2, 3, 4]
    assert len(calls) == 2
