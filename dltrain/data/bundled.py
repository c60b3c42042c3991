"""The small datasets of scikit-learn's package, read without importing it (the import costs 2.5 s)."""

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


def digits() -> RawData:
    """1797 grey 8×8 images of handwritten digits, ten classes; embedded, the default.

    1797 grey images (1, 8, 8) of handwritten digits, 17 levels scaled to [0, 1] (UCI, Alpaydin 1998).

    Use: the first data to try anything on: a run takes seconds.
    Defaults: a fifth is kept for the test, since a tenth of so few images would measure accuracy to 1 % only.
    Paper: Alpaydin & Kaynak 1998, UCI Optical Recognition of Handwritten Digits

    Args:
        test_fraction: share of the samples kept for the test, cut by split_seed
    """
    numbers = small_integers(_text("digits.csv.gz")).reshape(-1, 65)
    images = torch.from_numpy(numbers[:, :64].astype(np.float32)).view(-1, 1, 8, 8) / 16
    return RawData(
        inputs=images,
        targets=torch.from_numpy(numbers[:, 64].astype(np.int64)),
        task="classification",
        class_names=tuple("0123456789"),
    )


def breast_cancer() -> RawData:
    """569 tumours, 30 measurements of cell nuclei, malignant or benign; embedded.

    569 tumours, 30 measurements of cell nuclei, malignant or benign (Wolberg et al. 1993).

    Use: a table with two classes.
    Defaults: a fifth is kept for the test, since a tenth would be 57 samples.
    Paper: Wolberg, Street & Mangasarian 1993, UCI Breast Cancer Wisconsin (Diagnostic)

    Args:
        test_fraction: share of the samples kept for the test, cut by split_seed
    """
    return _table("breast_cancer.csv", _BREAST_CANCER)


def wine() -> RawData:
    """178 wines, 13 chemical measurements, three growers; embedded.

    178 wines, 13 chemical measurements, three growers (UCI, Forina et al.).

    Use: a small table whose features differ in scale by a factor of 1000: see dataset.normalize.
    Defaults: a fifth is kept for the test, since a tenth would be 18 samples.
    Paper: Forina et al. 1991, UCI Wine

    Args:
        test_fraction: share of the samples kept for the test, cut by split_seed
    """
    return _table("wine_data.csv", _WINE)


def iris() -> RawData:
    """150 flowers, 4 lengths, three species; embedded.

    150 flowers, 4 lengths in cm, three species (Fisher 1936).

    Use: the smallest table; a test of 30 samples says little: use folds=5.
    Defaults: a fifth is kept for the test, since a tenth would be 15 samples.
    Paper: Fisher 1936, The use of multiple measurements in taxonomic problems

    Args:
        test_fraction: share of the samples kept for the test, cut by split_seed
    """
    return _table("iris.csv", _IRIS)


def diabetes() -> RawData:
    """442 patients, 10 measurements, progression of diabetes in a year (regression); embedded.

    442 patients, 10 measurements, progression of diabetes after a year, 25 to 346 (Efron et al. 2004).

    Use: a small regression; the targets (25 to 346) are not scaled.
    Defaults: a fifth is kept for the test, since a tenth would be 44 samples.
    Paper: Efron, Hastie, Johnstone & Tibshirani 2004, Least angle regression

    Args:
        test_fraction: share of the samples kept for the test, cut by split_seed
    """
    features = np.loadtxt(_text("diabetes_data_raw.csv.gz").decode().splitlines())
    targets = np.loadtxt(_text("diabetes_target.csv.gz").decode().splitlines())
    return RawData(_floats(features), _floats(targets), "regression", feature_names=_DIABETES)


def small_integers(text: bytes) -> NDArray[np.uint8]:
    """All numbers below 100 of a comma-separated text, in order: ten times faster than numpy's parser.

    >>> small_integers(b"7,0,12\\n3,45,6\\n").tolist()
    [7, 0, 12, 3, 45, 6]
    """
    characters = np.frombuffer(b",," + text, np.uint8)
    digit = characters >= ord("0")
    last = np.flatnonzero(digit[:-1] & ~digit[1:])  # the ones of each number; a separator follows it
    tens = np.where(digit[last - 1], characters[last - 1] - ord("0"), 0)
    return (tens * 10 + characters[last] - ord("0")).astype(np.uint8)


def _table(file: str, feature_names: tuple[str, ...]) -> RawData:
    """The first line holds the number of rows and columns and the class names, the last column the class."""
    header, *rows = _text(file).decode().split()
    numbers = np.loadtxt(rows, delimiter=",")
    return RawData(
        inputs=_floats(numbers[:, :-1]),
        targets=torch.from_numpy(numbers[:, -1].astype(np.int64)),
        task="classification",
        class_names=tuple(header.split(",")[2:]),
        feature_names=feature_names,
    )


def _floats(numbers: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(numbers.astype(np.float32))


def _text(file: str) -> bytes:
    """Content of one of scikit-learn's data files, unpacked."""
    package = find_spec("sklearn")  # finds the folder and does not import it
    places = list(package.submodule_search_locations or []) if package else []
    for place in places:
        path = Path(place) / "datasets" / "data" / file
        if path.is_file():
            return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    raise DataError(
        f"{file} of scikit-learn's package is not there; install it (pip install 'scikit-learn>=1.5') or use "
        "a "
        "dataset of your own: dataset=csv dataset.path=FILE"
    )
