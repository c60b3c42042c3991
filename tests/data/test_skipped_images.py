"""`dataset.broken=skip`: images that cannot be used are left out, listed, kept in data.json, and held fixed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dltrain import api, errors
from dltrain.data import cache, skipped
from dltrain.data.errors import DataError
from dltrain.data.image_folder import image_folder
from dltrain.data.prepare import prepare

SKIP: dict[str, Any] = {"broken": "skip"}


def picture(path: Path, seed: int, size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


@pytest.fixture
def folder(workdir: Path) -> Path:
    """40 images of two classes, of which three cannot be used."""
    for i in range(40):
        picture(workdir / "pets" / ("cat", "dog")[i % 2] / f"{i:02}.png", i)
    (workdir / "pets" / "cat" / "04.png").write_bytes(b"no image")
    damage(workdir / "pets" / "dog" / "11.png")
    (workdir / "pets" / "dog" / "13.png").write_bytes(b"")
    return workdir / "pets"


@pytest.mark.parametrize("keys", [{}, {"cache": False}, {"image_size": 3}])
def test_the_data_are_those_of_a_folder_without_the_broken_files(folder, keys, workdir):
    found = image_folder(str(folder), **SKIP, **keys)
    assert list(found.skipped) == ["cat/04.png", "dog/11.png", "dog/13.png"]
    (note,) = (note for note in found.notes if note.startswith("skipped"))
    assert note.startswith("skipped  3 of 40 images cannot be used: cat/04.png (") and "dog/13.png (" in note
    clean = workdir / "clean"
    for file in sorted(folder.rglob("*.png")):
        if str(file.relative_to(folder)) not in found.skipped:
            (clean / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (clean / file.relative_to(folder)).write_bytes(file.read_bytes())
    plain = image_folder(str(clean), **keys)
    assert found.targets.tolist() == plain.targets.tolist()
    one, other = (prepare(raw, split_seed=3, resident_share=0.5) for raw in (found, plain))
    for name in ("train", "val", "test"):
        assert (getattr(one, name).inputs == getattr(other, name).inputs).all()
    # what was skipped is part of what the data are
    assert one.fingerprint() != other.fingerprint()
    assert one.contract is not None and one.contract.skipped == found.skipped


def test_files_are_decoded_once_for_the_list(folder, monkeypatch):
    image_folder(str(folder), **SKIP)
    monkeypatch.setattr(skipped, "read_pixels", lambda *_: pytest.fail("decoded again"))
    assert len(image_folder(str(folder), **SKIP).skipped) == 3
    for file in cache.folder().glob("*"):
        file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(pytest.fail.Exception, match="decoded again"):
        image_folder(str(folder), **SKIP)


def test_a_cache_that_is_nested_deeply_is_made_again(folder):
    first = image_folder(str(folder), **SKIP)
    for file in cache.folder().glob("*"):
        file.write_bytes(b"[" * 100_000)
    assert image_folder(str(folder), **SKIP).skipped == first.skipped


def test_only_ten_are_named_and_all_are_kept(folder):
    for i in range(100, 112):
        (folder / "cat" / f"{i}.png").write_bytes(b"x")
    found = image_folder(str(folder), **SKIP)
    (note,) = (note for note in found.notes if note.startswith("skipped"))
    assert note.startswith("skipped  15 of 52 images") and note.count(".png (") == 10
    assert note.endswith("… (5 more)") and len(found.skipped) == 15


def test_sizes_are_refused_still_and_a_folder_without_an_image_that_can_be_used(folder):
    picture(folder / "cat" / "20.png", 1, (7, 5))
    with pytest.raises(DataError, match=r"several sizes"):
        image_folder(str(folder), **SKIP)
    for file in folder.rglob("*.png"):
        file.write_bytes(b"x")
    with pytest.raises(DataError, match=r"cannot use 40 of 40 images; take broken images out[^;]*:"):
        image_folder(str(folder), image_size=4, **SKIP)


def test_a_table_of_labels(folder):
    rows = [
        f"{file.relative_to(folder)},{7 * i % 41},{('train', 'val', 'test')[7 * i % 41 % 3]}"
        for i, file in enumerate(sorted(folder.rglob("*.png")))
    ]
    (folder / "labels.csv").write_text("\n".join(["file,age,part", *rows]) + "\n")
    keys: dict[str, Any] = {
        "labels": str(folder / "labels.csv"),
        "task": "regression",
        "target": "age",
        "split_column": "part",
    }
    found = image_folder(str(folder), **SKIP, **keys)
    ages = dict(row.split(",")[:2] for row in rows)
    names = [str(Path(found.describe(i)).relative_to(folder)) for i in range(len(found))]
    assert [float(ages[name]) for name in names] == found.targets.flatten().tolist() and len(names) == 37
    assert found.split is not None and found.split.tolist() == [int(ages[name]) % 3 for name in names]


def trained(folder: Path, *words: str) -> api.Run:
    return api.train(
        "dataset=image_folder", f"dataset.root={folder}", "model=linear", "quiet=true", "epochs=1", *words
    )


def test_a_run_lists_them_and_its_verbs_agree(folder, dltrain, capsys):
    with pytest.raises(errors.DataProblem, match="or leave them out: dataset.broken=skip"):
        trained(folder)
    run = trained(folder, "dataset.broken=skip")
    assert list(json.loads((run.path / "data.json").read_text())["skipped"]) == [
        "cat/04.png",
        "dog/11.png",
        "dog/13.png",
    ]
    (line,) = (line for line in run.summary["inferred"] if line.startswith("skipped"))
    assert "dog/11.png" in line and "dog/11.png" in run.report().read_text()
    # its own data: no exit code 3
    assert dltrain("evaluate", run.path, "evaluation.bootstrap=0") == 0
    assert not {Path(file).name for file in run.predict(split="train").where} & {"04.png", "11.png", "13.png"}
    # other data: what is left out of the score is said, with exit code 3
    picture(folder / "cat" / "50.png", 50)
    capsys.readouterr()
    assert dltrain("evaluate", run.path, f"dataset.root={folder}", "evaluation.bootstrap=0") == 3
    assert "3 of 41 images cannot be used: cat/04.png" in capsys.readouterr().err


def test_resume_and_rerun_refuse_another_set_and_the_cure_works(folder, dltrain):
    run = trained(folder, "dataset.broken=skip")
    assert dltrain("rerun", run.path, "quiet=true") == 0
    picture(folder / "dog" / "13.png", 13)
    damage(folder / "dog" / "15.png")
    for verb in (("rerun", run.path), ("resume", run.path, "epochs=2")):
        with pytest.raises(errors.DataProblem) as caught:
            dltrain(*verb)
        first, second = str(caught.value).splitlines()
        assert "now also dog/15.png; no longer dog/13.png" in first
        assert second.endswith(f"dltrain rerun {run.path} dataset.broken=skip")
    cure = re.search(r"dltrain (rerun .*)", second)
    assert cure is not None and dltrain(*cure[1].split(), "quiet=true") == 0
    # the former files, put back
    (folder / "dog" / "13.png").write_bytes(b"")
    picture(folder / "dog" / "15.png", 15)
    assert dltrain("resume", run.path, "epochs=2") == 0
