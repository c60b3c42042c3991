"""The small datasets of the scikit-learn package, read without importing it (the import takes 2.5 s)."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dltrain.data.errors import DataError
from dltrain.data.raw import RawData
from dltrain.data.tables.rules import Format, Rule
from dltrain.declare import declares

# the name of the last column in scikit-learn's frames
_TARGET = "target"
_BREAST_CANCER = tuple(
    f"{prefix}{name}{suffix}"
    for prefix, suffix in (("mean ", ""), ("", " error"), ("worst ", ""))
    for name in (
        "radius",
        "texture",
        "perimeter",
        "area",
        "smoothness",
        "compactness",
        "concavity",
        "concave points",
        "symmetry",
        "fractal dimension",
    )
)
_WINE = (
    "alcohol",
    "malic_acid",
    "ash",
    "alcalinity_of_ash",
    "magnesium",
    "total_phenols",
    "flavanoids",
    "nonflavanoid_phenols",
    "proanthocyanins",
    "color_intensity",
    "hue",
    "od280/od315_of_diluted_wines",
    "proline",
)
_IRIS = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")
_DIABETES = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")


@declares(gives={"images", "classes"})
def digits() -> RawData:
    """1797 gray 8×8 images of handwritten digits, ten classes; included, the default.

    Images are (1, 8, 8) with 17 gray levels, scaled to [0, 1].

    Use: a first try of anything: a run takes seconds.
    Defaults: test_fraction is 0.2, since a tenth of so few images measures accuracy only to about 1 %.
    Paper: Alpaydin & Kaynak 1998, UCI Optical Recognition of Handwritten Digits
    """
    numbers = small_integers(_text("digits.csv.gz")).reshape(-1, 65)
    images = torch.from_numpy(numbers[:, :64].astype(np.float32)).view(-1, 1, 8, 8) / 16
    return RawData(
        inputs=images,
        targets=torch.from_numpy(numbers[:, 64].astype(np.int64)),
        task="classification",
        class_names=tuple("0123456789"),
    )


@declares(gives={"rows", "classes"})
def breast_cancer() -> RawData:
    """569 tumors, 30 measurements of cell nuclei, malignant or benign; included.

    Use: a table with two classes.
    Defaults: test_fraction is 0.2, since a tenth would be 57 samples.
    Paper: Wolberg, Street & Mangasarian 1993, UCI Breast Cancer Wisconsin (Diagnostic)
    """
    return _table("breast_cancer.csv", _BREAST_CANCER)


@declares(gives={"rows", "classes"})
def wine() -> RawData:
    """178 wines, 13 chemical measurements, three growers; included.

    Use: a small table whose features differ in scale by a factor of 1000; see dataset.normalize.
    Defaults: test_fraction is 0.2, since a tenth would be 18 samples.
    Paper: Forina et al. 1991, UCI Wine
    """
    return _table("wine_data.csv", _WINE)


@declares(gives={"rows", "classes"})
def iris() -> RawData:
    """150 flowers, 4 lengths in cm, three species; included.

    Use: the smallest table; a test split of 30 samples says little, so use folds=5.
    Defaults: test_fraction is 0.2, since a tenth would be 15 samples.
    Paper: Fisher 1936, The use of multiple measurements in taxonomic problems
    """
    return _table("iris.csv", _IRIS)


@declares(gives={"rows", "quantities"})
def diabetes() -> RawData:
    """442 patients, 10 measurements, progression of diabetes after a year (regression); included.

    The targets range from 25 to 346 and are not scaled.

    Use: a small regression.
    Defaults: test_fraction is 0.2, since a tenth would be 44 samples.
    Paper: Efron, Hastie, Johnstone & Tibshirani 2004, Least angle regression
    """
    features = np.loadtxt(_text("diabetes_data_raw.csv.gz").decode().splitlines())
    targets = np.loadtxt(_text("diabetes_target.csv.gz").decode().splitlines())
    return RawData(
        inputs=_floats(features),
        targets=_floats(targets),
        task="regression",
        feature_names=_DIABETES,
        target_rules=(Rule(_TARGET, Format("number", ".")),),
    )


def small_integers(text: bytes) -> NDArray[np.uint8]:
    """Return all numbers below 100 of a comma-separated text, in order; ten times faster than numpy's parser.

    >>> small_integers(b"7,0,12\\n3,45,6\\n").tolist()
    [7, 0, 12, 3, 45, 6]
    """
    characters = np.frombuffer(b",," + text, np.uint8)
    digit = characters >= ord("0")
    # the units digit of each number is followed by a separator
    last = np.flatnonzero(digit[:-1] & ~digit[1:])
    tens = np.where(digit[last - 1], characters[last - 1] - ord("0"), 0)
    return (tens * 10 + characters[last] - ord("0")).astype(np.uint8)


def _table(file: str, feature_names: tuple[str, ...]) -> RawData:
    """Read a table whose first line holds row and column counts and class names, and whose last column is the class."""
    header, *rows = _text(file).decode().split()
    numbers = np.loadtxt(rows, delimiter=",")
    class_names = tuple(header.split(",")[2:])
    return RawData(
        inputs=_floats(numbers[:, :-1]),
        targets=torch.from_numpy(numbers[:, -1].astype(np.int64)),
        task="classification",
        class_names=class_names,
        feature_names=feature_names,
        target_rules=(Rule(_TARGET, Format("category"), class_names),),
    )


def _floats(numbers: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(numbers.astype(np.float32))


def _text(file: str) -> bytes:
    """Return the content of one of scikit-learn's data files, decompressed."""
    # find_spec locates the folder without importing the package
    package = find_spec("sklearn")
    places = list(package.submodule_search_locations or []) if package else []
    for place in places:
        path = Path(place) / "datasets" / "data" / file
        if path.is_file():
            return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    raise DataError(
        f"{file} of scikit-learn's package is not there; install it (pip install 'scikit-learn>=1.5') or use a "
        "dataset of your own: dataset=csv dataset.path=FILE"
    )
