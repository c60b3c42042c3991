"""What each key of a dataset may do after the training and as an axis: every key is in a list, and the lists tell the truth."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from dltrain import api
from dltrain.config.compose import open_catalogue
from dltrain.config.keys import (
    DIVIDING,
    OF_COLUMNS,
    OF_PICTURES,
    READING,
    REPLICATES,
    SAME_SAMPLES,
    SPLITTING,
    may_change_data,
    splits_data,
)

# keys that say where data are, or which they are: `evaluate` reads other data by them, and as an axis they are other data
OTHER_DATA = {
    "path", "root", "test_path", "labels", "file_column", "inputs", "targets", "samples", "hidden", "outputs", "noise", "seed",
}  # fmt: skip
# keys that act on other data in `evaluate`, which says what they leave out, and that `predict` refuses
LEFT_OUT = {"missing", "broken"}
# keys that change nothing in the data
MACHINE = {"cache", "download", "resident_share"}
CLASSES = {
    "of columns": {*OF_COLUMNS},
    "of pictures": {*OF_PICTURES},
    "reading": {*READING},
    "dividing": {key.removeprefix("dataset.") for key in DIVIDING} | {*SPLITTING},
    "other data": OTHER_DATA,
    "left out": LEFT_OUT,
    "machine": MACHINE,
}


def shipped_keys() -> set[str]:
    words = open_catalogue().words["dataset"].values()
    keys = {path.removeprefix("dataset.") for word in words for path in word.params}
    knobs = open_catalogue().knobs
    return keys | {path.removeprefix("dataset.") for path in knobs if path.startswith("dataset.")}


def test_every_key_is_in_a_list():
    """A new key has no effect after the training until somebody decides which it has."""
    found = {key: [name for name, keys in CLASSES.items() if key in keys] for key in shipped_keys()}
    # the position of the array of inputs is read by evaluate, and by predict
    assert {key: names for key, names in found.items() if len(names) != 1} == {
        "inputs": ["reading", "other data"],
        "test_path": ["dividing", "other data"],
    }
    assert not set().union(*CLASSES.values()) - shipped_keys()
    assert {key.removeprefix("dataset.") for key in SAME_SAMPLES} <= shipped_keys()


def test_axes_of_data_are_other_data_or_the_same_samples():
    kept = SAME_SAMPLES | {*REPLICATES}
    for key in shipped_keys():
        name = f"dataset.{key}"
        assert (splits_data(name) or may_change_data(name, ["[a]"])) == (name not in kept), key


AXES = {
    "limit": ("20", "40"), "bootstrap": ("false", "true"), "class_weights": ("none", "balanced"), "normalize": ("unit", "none"),
    "target_scale": ("unit", "none"), "features": ("[x]", "[x,color]"), "drop": ("[x]", "[color]"), "keep": ("[]", "[id]"),
    "categorical": ("auto", "[z,color,when]"), "dates": ("parts", "number"),
}  # fmt: skip


@pytest.mark.parametrize("key", AXES)
def test_the_same_samples_have_the_same_truth(workdir, train, key):
    """The second truth of the list: the validation split, as it was scored."""
    draw = random.Random(0)
    rows = [
        f"{draw.gauss(0, 1):.3f},{i % 3},{'rgb'[i % 3]},2024-0{1 + i % 9}-11,n{i},{i % 2}.5,{'ab'[i % 2]}"
        for i in range(80)
    ]
    Path("t.csv").write_text("\n".join(["x,z,color,when,id,price,kind", *rows]))
    target = "kind" if key == "class_weights" else "price"
    words = ("dataset=csv", "dataset.path=t.csv", f"dataset.target={target}", "model=linear", "steps=1")
    one, other = (
        api.load(train(*words, f"dataset.{key}={value}").path).predict(split="val") for value in AXES[key]
    )
    assert one.where.tolist() == other.where.tolist() and len(one.where) == 7
    assert one.truth.tolist() == other.truth.tolist()
