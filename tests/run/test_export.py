"""`dltrain export`: raw rows and bytes go in, names and real units come out, elsewhere and as the run has them."""

from __future__ import annotations

import ast
import csv
import importlib.util
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dltrain import api, errors
from dltrain.cli import dispatch
from dltrain.commands import export as verb
from dltrain.data.tables.encode import DATE_PARTS
from dltrain.data.tables.encode import part_of as part_by_numpy
from dltrain.run import export as exporting
from dltrain.run.deployed import part_of

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(
    not HAS_ONNX, reason="onnx, onnxscript and onnxruntime are in the export extra"
)
Rows = list[dict[str, Any]]
COLUMNS = ("age", "color", "sold", "wild €", "rooms")


def rows_of(count: int, seed: int = 3) -> Rows:
    """Return rows with numbers, texts, dates, truths, numbers that are categories, and missing values of each."""
    draw = np.random.default_rng(seed)
    rows: Rows = []
    for i in range(count):
        age = round(float(draw.normal(40, 9)), 2)
        rows.append(
            {
                "age": "" if i % 17 == 3 else age,
                "color": ("red", "green", "NA", 'o\'ne "two"')[i // 2 % 4],
                "sold": "" if i % 13 == 5 else f"{1995 + i % 20}-0{1 + i % 9}-2{i % 9} 1{i % 10}:30:00",
                "wild €": ("true", "false", "")[i % 3],
                "rooms": (1, 2, 3.5, "")[i % 4],
                "kind": ("ant", "bee", "cat")[int(age > 36) + int(age > 44)],
                "price": round(3e5 + 4e3 * age + 5e4 * (i % 3), 1),
            }
        )
    return rows


def write(path: Path, rows: Rows) -> Path:
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def trained(folder: Path, target: str, *words: str) -> api.Run:
    other = "price" if target == "kind" else "kind"
    keys = {
        "dataset.path": write(folder / "t.csv", rows_of(150)), "dataset.target": target, "dataset.drop": [other],
        "dataset.categorical": ["color", "rooms"], "output": folder,
    }  # fmt: skip
    return api.train(*words, dataset="csv", steps=40, lr=0.02, quiet=True, **keys)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    return trained(tmp_path_factory.mktemp("kinds"), "kind", "model=linear")


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    return trained(tmp_path_factory.mktemp("prices"), "price", "model=linear")


NEW = [row | {"color": "mauve"} if i == 4 else row for i, row in enumerate(rows_of(40, seed=9))]

LOADED = """
import csv, json, sys

sys.modules["dltrain"] = None  # an import of it fails
sys.path.insert(0, sys.argv[1])
from model import predict

with open(sys.argv[2]) as stream:
    rows = list(csv.DictReader(stream))
found = predict({name: [row[name] for row in rows] for name in sys.argv[3:]})
print(json.dumps({name: v if isinstance(v, list) else v.tolist() for name, v in found.items()}))
"""


def elsewhere(folder: Path, rows: Path) -> dict[str, Any]:
    """Return what an exported model says of a file, in a process where dltrain cannot be imported."""
    command = [sys.executable, "-I", "-c", LOADED, str(folder), str(rows), *COLUMNS]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def agree(run: api.Run, rows: Path, found: dict[str, Any]) -> None:
    wanted = run.predict(rows)
    if wanted.contract.task == "classification":
        assert list(found["label"]) == wanted.labels.tolist()
        np.testing.assert_allclose(found["probabilities"], wanted.probabilities, atol=1e-5)
        np.testing.assert_allclose(found["logits"], wanted.outputs, atol=1e-4)
    else:
        np.testing.assert_allclose(found["price"], wanted.values[:, 0], rtol=1e-5)


@pytest.mark.ci
def test_safetensors_work_where_dltrain_is_not_installed(kinds, workdir, capsys):
    rows = write(workdir / "new.csv", NEW)
    assert dispatch(["export", str(kinds.path), "--format", "safetensors", "--output", "out"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("out: README.md, model.py, model.safetensors\n")
    assert "checked on 150 samples of dataset=csv: the outputs differ by at most" in said
    with pytest.warns(UserWarning, match="'mauve'"):
        agree(kinds, rows, elsewhere(workdir / "out", rows))
    card = Path("out/README.md").read_text()
    (example,) = (line for line in card.splitlines() if line.startswith("predict("))
    assert set(ast.literal_eval(example[len("predict(") : -1])) == {"age", "color", "sold", "wild €", "rooms"}
    score = f"{kinds.summary['test']['accuracy']:.4g} |"
    sizes = ", ".join(f"{name} {size}" for name, size in kinds._predictor.contract.sizes.items())
    for told in ("# linear on csv", "ant, bee, cat", "| test |", score, sizes, "| optimizer | adam |"):
        assert told in card
    assert kinds.summary["versions"]["torch"] in card
    with pytest.raises(
        errors.UserError, match="out is there already, and an export replaces nothing. Name another"
    ):
        kinds.export("safetensors", "out")


@needs_onnx
def test_onnx_takes_raw_rows_and_gives_names(kinds, workdir):
    folder = kinds.export(output=workdir / "out")
    rows = write(workdir / "new.csv", NEW)
    with pytest.warns(UserWarning, match="'mauve'"):
        agree(kinds, rows, by_onnx(folder))
    assert "session.run(None, {" in (folder / "README.md").read_text()


def by_onnx(folder: Path) -> dict[str, Any]:
    """Return what the ONNX file says of NEW, whose values are read by hand."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    numbers = {name: [float(row[name] or "nan") for row in NEW] for name in ("age", "rooms")}
    dates = [
        datetime.fromisoformat(row["sold"]).replace(tzinfo=UTC).timestamp() if row["sold"] else np.nan
        for row in NEW
    ]
    truths = [{"true": 1.0, "false": 0.0, "": np.nan}[row["wild €"]] for row in NEW]
    feed = {name: np.array(values) for name, values in (numbers | {"sold": dates, "wild €": truths}).items()}
    feed["color"] = np.array([row["color"] for row in NEW], object)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def code_of(card: str) -> str:
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0]


@needs_onnx
@pytest.mark.parametrize("targets", [["price"], ["price", "wait"], ["class"]])
def test_the_code_of_the_card_of_quantities_runs(targets: list[str], workdir, monkeypatch):
    rows = rows_of(90)
    for i, row in enumerate(rows):
        row["class"] = row["wait"] = 10.5 * row["rooms"] if row["rooms"] else i
        row["sched"] = f"{i % 3} days 0{i % 9}:25:00"
    file = write(workdir / "t.csv", rows)
    features = ["sched", "color"]
    run = api.train(dataset="csv", steps=4, quiet=True, model="linear", **{
        "dataset.path": file, "dataset.target": targets, "dataset.features": features, "dataset.task": "regression"
    })  # fmt: skip
    run.export("onnx", "out")
    card = Path("out/README.md").read_text()
    assert (
        "`sched` | durations in seconds, or times of a day in seconds since midnight, as numbers (float64)"
        in card
    )
    monkeypatch.chdir("out")
    found: dict[str, Any] = {}
    exec(code_of(card), found)
    sched, color = run._predictor.contract.columns
    with pytest.warns(UserWarning, match="sched has no unit, and is taken for s as in the training"):
        wanted = run.predict(
            {"sched": [float(f"{sched.fill:.6g}"), None], "color": [color.levels[0], None]}
        ).values
    for i, name in enumerate(targets):
        name = "output_0" if name == "class" else name
        np.testing.assert_allclose(found[name], wanted[:, i], rtol=1e-5)


def test_the_calendar_of_an_export_is_that_of_the_training():
    """Against numpy's datetime64: leap years, centuries, times before 1970."""
    draw = np.random.default_rng(0)
    days = draw.integers(-200_000, 60_000, 20_000)
    times = (days * 86_400_000_000 + draw.integers(0, 86_400_000_000, 20_000)).astype("datetime64[us]")
    edges = np.array(
        ["1600-02-29", "1900-03-01", "1969-12-31T23:59:59", "2000-12-31", "2024-02-29T12"], "datetime64[us]"
    )
    times = np.concatenate([times, edges])
    seconds = torch.from_numpy(times.astype(np.int64) / 1e6)
    for part in DATE_PARTS:
        np.testing.assert_allclose(
            part_of(seconds, part).numpy(), part_by_numpy(times, part), rtol=0, atol=1e-9
        )


# raw texts, each as the reader of the training has it: a missing value, an unknown level, the level `red`
TEXTS = ["k.A.", "K.a.", "Unbekannte Farbe", "NA", "nUlL", "", "mauve", "red", "n/a", "#N/A"]


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    """A run with words of its own for missing values, and a column of percents."""
    folder = tmp_path_factory.mktemp("worded")
    rows = [
        {
            "color": ("red", "green", "k.A.")[i % 3], "share": "k.A." if i % 7 == 1 else f"{i % 9 + 20} %",
            "sold": "" if i % 5 == 2 else f"{1 + i % 28:02}.03.2023", "beds": 1 + i % 3, "kind": ("ant", "bee", "bee")[i % 3],
        }
        for i in range(60)
    ]  # fmt: skip
    keys = {
        "dataset.path": write(folder / "t.csv", rows), "dataset.target": "kind", "dataset.categorical": ["color", "beds"],
        "dataset.missing_words": ["k.A.", " Unbekannte Farbe "], "output": folder,
    }  # fmt: skip
    return api.train("model=linear", dataset="csv", steps=10, lr=0.1, quiet=True, **keys)


def with_texts(run: api.Run, column: str, texts: list[str], rest: dict[str, Any], folder: Path) -> Any:
    """Return the outputs of a run for rows that differ in one column of texts."""
    rows = [rest | {column: text} for text in texts]
    with warnings.catch_warnings():
        # of the unknown level
        warnings.simplefilter("ignore")
        return run.predict(write(folder / "texts.csv", rows)).outputs


REST = {"share": "22%", "sold": "07.03.2023", "beds": 2}
LOADED_REST = {"share": 22, "sold": "2023-03-07", "beds": 2}


def test_words_of_ones_own_for_a_missing_text_are_known_to_an_export(worded, workdir):
    """In a loader also with blanks around them, and among numbers and dates."""
    namespace: dict[str, Any] = {"__file__": str(worded.export("safetensors", "out") / "model.py")}
    exec(Path("out/model.py").read_text(), namespace)
    wanted = with_texts(worded, "color", TEXTS, REST, workdir)
    assert abs(wanted[0] - wanted[6]).max() > 1e-3, "a missing text and an unknown one differ"
    columns = {name: [value] * len(TEXTS) for name, value in LOADED_REST.items()}
    found = namespace["predict"](columns | {"color": [f" {text} " for text in TEXTS]})
    np.testing.assert_allclose(found["logits"], wanted, atol=1e-5)
    told = Path("out/README.md").read_text()
    assert "| `share` | percents as numbers, 27 for 27%; None where missing |" in told
    assert "| `beds` | number, one of 1, 2, 3 (another counts as none); None where missing |" in told
    assert "where it is empty, or `Unbekannte Farbe`, `k.A.`, `#n/a`," in told
    assert "in any case; blanks around it are taken off" in told
    odd = ["K.A. ", " na", "-", None, float("nan"), " 22 "]
    count = len(odd)
    wanted = with_texts(worded, "share", ["", "", "", "", "", "22%"], REST | {"color": "red"}, workdir)
    columns = {name: [value] * count for name, value in (LOADED_REST | {"color": "red"}).items()}
    found = namespace["predict"](columns | {"share": odd})
    np.testing.assert_allclose(found["logits"], wanted, atol=1e-5)
    dates = ["K.A. ", " na", "-", None, "NaT", " 2023-03-07 "]
    wanted = with_texts(worded, "sold", ["", "", "", "", "", "07.03.2023"], REST | {"color": "red"}, workdir)
    found = namespace["predict"](columns | {"share": [22] * count, "sold": dates})
    np.testing.assert_allclose(found["logits"], wanted, atol=1e-5)


@pytest.fixture(scope="module")
def truths(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    """A run with truths, durations and a level that looks like a word for a missing value."""
    folder = tmp_path_factory.mktemp("truths")
    rows = [
        {
            "x": (i * 37 % 60) / 7, "flag": "true" if i % 3 else "false", "answer": ("yes", "no")[i % 4 == 1],
            "wait": f"0{i % 9}:30:00", "land": ("NA", "DE", "")[i % 3], "kind": "ab"[i * 7 % 5 > 2],
        }
        for i in range(60)
    ]  # fmt: skip
    keys = {"dataset.path": write(folder / "t.csv", rows), "dataset.target": "kind", "output": folder}
    words = {"dataset.not_missing": ["NA"], "dataset.missing_words": ["-inf"]}
    return api.train("model=linear", dataset="csv", steps=10, lr=0.1, quiet=True, **keys, **words)


SOUND = {"x": 3.0, "flag": True, "answer": "yes", "wait": 5400, "land": "DE"}
LOOSE = {
    "a number in letters": ({"x": "three"}, "column 'x' has 'three'; give numbers"),
    "no finite number": ({"x": float("inf")}, "column 'x' has inf; all values must be finite"),
    "no truth": ({"flag": 5}, "column 'flag' has 5; it must be true or false"),
    "a word for no truth": ({"flag": "maybe"}, "column 'flag' has 'maybe'; give true or false"),
    "a list": ({"x": [1]}, r"column 'x' has \[1\]; give numbers"),
}


def test_a_loader_takes_what_predict_takes_and_refuses_what_it_refuses(truths, workdir):
    namespace: dict[str, Any] = {"__file__": str(truths.export("safetensors", "out") / "model.py")}
    exec(Path("out/model.py").read_text(), namespace)
    predict = namespace["predict"]
    forms: list[dict[str, Any]] = [
        SOUND, {"answer": "YES"}, {"answer": True}, {"answer": "0"}, {"flag": "no"}, {"flag": "1"}, {"land": "NA"},
        {"land": "na"}, {"land": ""}, {"wait": None}, {"x": float("-inf")},
    ]  # fmt: skip
    rows = [{name: (SOUND | form)[name] for name in SOUND} for form in forms]
    file = [row | {"wait": "01:30:00" if row["wait"] else "", "flag": str(row["flag"])} for row in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = truths.predict(write(workdir / "new.csv", file))
    rows[0] = rows[0] | {"wait": timedelta(minutes=90)}
    found = predict({name: [row[name] for row in rows] for name in SOUND})
    np.testing.assert_allclose(found["logits"], wanted.outputs, atol=1e-5)
    assert abs(wanted.outputs[6] - wanted.outputs[8]).max() > 1e-3, "NA is a level"
    for form, told in LOOSE.values():
        with pytest.raises(ValueError, match=told):
            predict({name: [value] for name, value in (SOUND | form).items()})
    columns = {name: [value, value] for name, value in SOUND.items()}
    with pytest.raises(ValueError, match="the data lack the columns \\['x'\\]"):
        predict({name: values for name, values in columns.items() if name != "x"})
    with pytest.raises(ValueError, match="different lengths: .*'x': 1"):
        predict(columns | {"x": [1]})


def test_a_loader_takes_bytes_where_the_training_had_bytes_and_nothing_else(workdir):
    """Floats in [0, 1] were read as if they went to 255."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 6, 6), np.uint8)
    np.savez("t.npz", inputs=pixels, targets=np.arange(40) % 2)
    run = api.train(dataset="npz", model="linear", steps=2, quiet=True, **{"dataset.path": "t.npz"})
    namespace: dict[str, Any] = {"__file__": str(run.export("safetensors", "out") / "model.py")}
    exec(Path("out/model.py").read_text(), namespace)
    predict, images = namespace["predict"], torch.from_numpy(pixels[:5])
    unit = images / 255
    for other, told in (
        (unit, r"the images are torch.float32; the model takes uint8, 0 to 255: of floats in \[0, 1\], "),
        (images.long(), "the images are torch.int64; the model takes uint8"),
        (images[0], r"shape \(1, 6, 6\); the model takes \(N, 1, 6, 6\)"),
    ):
        with pytest.raises(ValueError, match=told):
            predict(other)
    cure = (255 * unit).round().to(torch.uint8)
    np.testing.assert_allclose(predict(cure)["logits"], run.predict(pixels[:5]).outputs, atol=1e-5)
    # of floats, the other way round
    np.savez("f.npz", inputs=(pixels / 255).astype(np.float32), targets=np.arange(40) % 2)
    run = api.train(dataset="npz", model="linear", steps=2, quiet=True, **{"dataset.path": "f.npz"})
    namespace = {"__file__": str(run.export("safetensors", "floats") / "model.py")}
    exec(Path("floats/model.py").read_text(), namespace)
    with pytest.raises(ValueError, match="the images are torch.uint8; the model takes floats"):
        namespace["predict"](images)


@needs_onnx
def test_truths_of_another_spelling_are_known_to_onnx(truths, workdir):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(truths.export("onnx", "out") / "model.onnx"))
    words = ["yes", "YES", "True", "1", "no", "N", "off"]
    columns = {"x": 3.0, "flag": 1.0, "wait": 5400.0}
    feed = {name: np.full(len(words), value) for name, value in columns.items()}
    texts = {"answer": np.array(words, object), "land": np.full(len(words), "DE", object)}
    found = session.run(["logits"], feed | texts)[0]
    np.testing.assert_array_equal(found, found[[0, 0, 0, 0, 4, 4, 4]])
    assert abs(found[0] - found[4]).max() > 1e-3


@needs_onnx
def test_words_of_ones_own_for_a_missing_text_are_known_to_onnx(worded, workdir):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(worded.export("onnx", "out") / "model.onnx"))
    date = datetime(2023, 3, 7, tzinfo=UTC).timestamp()
    numbers = {
        name: np.full(len(TEXTS), value) for name, value in (("share", 22.0), ("sold", date), ("beds", 2.0))
    }
    told = Path("out/README.md").read_text()
    assert "| `share` | percents as numbers (float64), 27 for 27%; NaN where missing |" in told
    assert (
        "`Unbekannte Farbe` only as written here, in lower, upper and title case. Blanks around a text must"
        in told
    )
    found = session.run(["logits"], numbers | {"color": np.array(TEXTS, object)})[0]
    np.testing.assert_allclose(found, with_texts(worded, "color", TEXTS, REST, workdir), atol=1e-5)


def test_the_cases_of_a_word_are_bounded():
    """Found by a hostile tester: circled letters and Roman numerals have two cases, and are no letters."""
    from dltrain.run.deployed import cases

    circled, roman = "".join(map(chr, range(0x24D0, 0x24EA))), "".join(map(chr, range(0x2170, 0x217A)))
    for word in (circled, roman, "abcdefghi", "ſ" * 9, "ǆ" * 30):
        assert {word.lower(), word.upper()} <= cases(word)
        assert len(cases(word)) <= 5
    assert len(cases("abcdefgh")) == 2**8
    assert cases("ⓐ") == {"ⓐ", "Ⓐ"}
    assert len(cases("abcde", 4)) == 3


def test_very_many_words_for_a_missing_value_take_little_room(worded, workdir, monkeypatch):
    made, facts = [], exporting.Deployed.facts
    monkeypatch.setattr(
        exporting.Deployed, "facts", lambda deployed: made.append(deployed) or facts(deployed)
    )
    worded.export("safetensors", "all")
    monkeypatch.setattr("dltrain.run.deployed._MANY", 10)
    worded.export("safetensors", "few")
    whole, few = ({**next(c.codes for c in one.columns if c.kind == "text")} for one in (made[0], made[-1]))
    assert few.keys() <= whole.keys()
    # the known words have at most four letters
    assert {"nUlL", "n/A", "#N/a n/A"} <= few.keys()
    assert len(few) <= len(made[0].missing) * 2**4 + 3


def test_an_export_that_misreads_a_missing_text_is_not_kept(worded, workdir, monkeypatch):
    """The data of the run have no `Unbekannte Farbe`; the check looks for it nevertheless."""
    facts = exporting.Deployed.facts

    def forgetful(deployed):
        whole = facts(deployed)
        return whole | {"missing": [word for word in whole["missing"] if word != "unbekannte farbe"]}

    monkeypatch.setattr(exporting.Deployed, "facts", forgetful)
    monkeypatch.setattr(
        "dltrain.run.deployed.cases", lambda word, letters: {word.lower()} - {"unbekannte farbe"}
    )
    with pytest.raises(errors.CheckFailed, match="differs from the run by"):
        worded.export("safetensors", "out")


def test_what_disagrees_is_not_kept(kinds, workdir, monkeypatch):
    outputs_of = exporting.outputs_of
    monkeypatch.setattr(exporting, "outputs_of", lambda *given: outputs_of(*given) * 1.01)
    with pytest.raises(
        errors.CheckFailed, match="differs from the run by .* of the largest output, more than 0.0001"
    ):
        kinds.export("safetensors", "new/out")
    assert sorted(workdir.iterdir()) == []
    (workdir / "mine").mkdir()
    with pytest.raises(errors.CheckFailed):
        kinds.export("safetensors", "mine/out")
    assert sorted(workdir.rglob("*")) == [workdir / "mine"]
    assert errors.CheckFailed.exit_code == 10


@pytest.mark.parametrize("form", ["torch", "safetensors", pytest.param("onnx", marks=needs_onnx)])
def test_an_export_has_the_sigmoids_of_bce(form, workdir, monkeypatch):
    """Also where all of them are so small that float32 has no such number, e⁻³⁰⁰."""
    run = trained(workdir, "kind", "model=linear", "loss=bce")
    made = run._predictor
    (head,) = (layer for layer in made.model.modules() if isinstance(layer, torch.nn.Linear))
    with torch.no_grad():
        head.bias -= 300
    monkeypatch.setattr(exporting, "predictor", lambda *given: made)
    rows = write(workdir / "new.csv", NEW)
    folder = run.export(form, workdir / "out")
    found = by_onnx(folder) if form == "onnx" else elsewhere(folder, rows)
    with pytest.warns(UserWarning, match="'mauve'"):
        agree(run, rows, found)
    shares = torch.tensor(found["logits"]).double().sigmoid()
    assert float(shares.max()) < 1e-100
    np.testing.assert_allclose(found["probabilities"], shares / shares.sum(1, keepdim=True), atol=1e-4)
    assert "not the softmax of the logits" in (folder / "README.md").read_text()


def test_labels_may_change_only_where_two_classes_are_near(kinds):
    deployed = exporting.Deployed(kinds._predictor)
    wanted = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0 - 1e-6, 0.0]])
    exporting.check_labels(deployed, ["ant", "bee"], wanted, 1e-4)
    with pytest.raises(errors.CheckFailed, match="calls 1 of 2 samples otherwise"):
        exporting.check_labels(deployed, ["bee", "ant"], wanted, 1e-4)


Verb = Callable[..., Any]
REFUSED: dict[str, tuple[list[str], str]] = {
    "no run": ([], "Name one run folder: dltrain export outputs"),
    "no folder": (["nowhere"], "nowhere is no folder"),
    "option": (["{run}", "--fromat", "onnx"], "Did you mean `--format`"),
    "format": (["{run}", "--format", "onx"], "`--format` is onx; it must be onnx, torch or safetensors. Did you mean `onnx`"),
    "output": (["{run}", "--output"], "`--output` needs a value: FOLDER"),
    "data": (["{run}", "--format=torch", "dataset.path=gone.csv"], "gone.csv.*is not a file"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_refused(case, kinds, workdir):
    arguments, told = REFUSED[case]
    with pytest.raises(errors.UserError, match=told) as caught:
        dispatch(["export", *(text.format(run=kinds.path) for text in arguments)])
    assert len(str(caught.value).splitlines()) <= 3
    assert sorted(workdir.iterdir()) == []


def test_missing_packages_are_named_with_the_command(kinds, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(verb, "find_spec", lambda name: None if name == "onnxruntime" else find("json"))
    with pytest.raises(errors.UserError, match="run: pip install onnxruntime\n.*--format torch"):
        dispatch(["export", str(kinds.path)])


MODELS = """
import torch
from torch import nn

class Branching(nn.Module):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.head = nn.Linear(64, num_classes)
    def forward(self, x):
        x = x.flatten(1)
        return self.head(x) if x.sum() > 0 else self.head(-x)

class Bessel(Branching):
    def forward(self, x):
        return self.head(torch.special.bessel_j0(x.flatten(1)))
"""


@pytest.mark.slow
def test_models_of_ones_own(workdir):
    """A model whose operations depend on the data is refused; so is one that ONNX cannot have, which torch can."""
    (workdir / "mine.py").write_text(MODELS)
    (workdir / "conf/model").mkdir(parents=True)
    for word in ("branching", "bessel"):
        (workdir / f"conf/model/{word}.yaml").write_text(f"_target_: mine.{word.title()}\n")
    branching, bessel = (api.train(model=word, steps=2, quiet=True) for word in ("branching", "bessel"))
    with pytest.raises(
        errors.UserError, match="model=branching cannot be exported: torch.export does not record"
    ):
        branching.export("torch")
    assert (bessel.export("torch") / "model.pt2").exists()
    if HAS_ONNX:
        with pytest.raises(errors.UserError, match=r"ONNX lacks the operation (aten|prims)\.\w*bessel_j0"):
            bessel.export("onnx")
        assert not (bessel.path / "export/onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch", "safetensors", pytest.param("onnx", marks=needs_onnx)])
def test_quantities_come_out_in_real_units(form, prices, workdir):
    folder = prices.export(form, workdir / "out")
    rows = write(workdir / "new.csv", NEW)
    with pytest.warns(UserWarning, match="'mauve'"):
        agree(prices, rows, by_onnx(folder) if form == "onnx" else elsewhere(folder, rows))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch", "safetensors", pytest.param("onnx", marks=needs_onnx)])
def test_bytes_go_in_where_the_training_had_bytes(form, workdir):
    for i in range(24):
        here = workdir / "pets" / ("cat", "dog")[i % 2]
        here.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(i)
        Image.fromarray(draw.integers(0, 256, (12, 12, 3), np.uint8)).save(here / f"{i:02}.png")
    run = api.train(dataset="image_folder", model="cnn", steps=4, quiet=True, **{"dataset.root": "pets"})
    folder = run.export(form, "out")
    images = np.random.default_rng(7).integers(0, 256, (5, 3, 12, 12), np.uint8)
    wanted = run.predict(images)
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        label, probabilities, _ = session.run(None, {"images": images})
    else:
        namespace: dict[str, Any] = {"__file__": str(folder / "model.py"), "__name__": "model"}
        exec((folder / "model.py").read_text(), namespace)
        found = namespace["predict"](torch.from_numpy(images))
        label, probabilities = found["label"], found["probabilities"]
    assert list(label) == wanted.labels.tolist()
    np.testing.assert_allclose(probabilities, wanted.probabilities, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        "mlp",
        "linear",
        "deep_linear",
        "lenet",
        "cnn",
        "resnet20",
        "vit_tiny",
        "speed_cnn",
        "mlp model.norm=batch",
        "mlp loss=bce",
    ],
)
def test_every_model_agrees_in_every_format(model, workdir):
    """On all 1,797 digits; `export` itself raises where outputs or classes differ."""
    word, *keys = model.split()
    run = api.train(f"model={word}", *keys, steps=20, quiet=True)
    for form in ("torch", "safetensors", *(["onnx"] if HAS_ONNX else [])):
        assert run.export(form).name == form
