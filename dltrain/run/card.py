"""The model card of an export, from the run's own files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from pathlib import Path
from typing import Any

import dltrain
from dltrain.config.schema import Config
from dltrain.data.class_names import TRUTHS, same_truth
from dltrain.data.contract import Contract
from dltrain.data.errors import some
from dltrain.data.pixels import RESIZES, conversions
from dltrain.data.tables.durations import UNIT
from dltrain.data.tables.rules import Rule
from dltrain.metrics.targets import PER_TARGET, SCORES
from dltrain.report.record import number_in, numbers_of, read_targets
from dltrain.run.deployed import ColumnInput, Deployed, is_long
from dltrain.run.usage import sample, usage
from dltrain.screen.table import one_line
from dltrain.storage.index import number_of
from dltrain.storage.summary import read_summary
from dltrain.text import counted

_FILES = {"onnx": "model.onnx", "torch": "model.pt2, model.py", "safetensors": "model.safetensors, model.py"}
# groups whose words say how the model was trained
_TRAINING = ("optimizer", "schedule", "loss", "initializer", "regularization", "augmentation", "averaging")


@dataclass(frozen=True)
class Agreement:
    """The agreement of an exported model with the run.

    difference: the largest, as a share of the largest output. data: of which samples.
    """

    samples: int
    difference: float
    data: str


def card(path: Path, config: Config, deployed: Deployed, form: str, agreement: Agreement) -> str:
    """Return README.md: data, task, scores, training, use and versions."""
    summary, contract = read_summary(path), deployed.contract
    sections = [
        f"# {_text(config.words['model'])} on {_text(config.words['dataset'])}",
        f"A {contract.task} model with {number_in(summary, 'parameters') or 0:,.0f} parameters, trained and exported by dltrain "
        f"{dltrain.__version__} from the run {_code(path.name)}.",
        "## Use",
        _use(deployed, form),
        _inputs(deployed, form),
        "## Scores",
        _scores(summary),
        *_by_target(path),
        "## Data",
        _rows(_data(config, deployed)),
        "## Training",
        _rows(_training(config, summary)),
        "## Check",
        f"The exported model was compared with the run on {counted(agreement.samples, 'sample')} {_text(agreement.data)}: the outputs differ by at "
        f"most {agreement.difference:.1e} of the largest one (float32, on a CPU).",
        f"## Files\n\n{_FILES[form]}, README.md",
    ]
    return "\n\n".join(sections) + "\n"


def _use(deployed: Deployed, form: str) -> str:
    about, example = usage(deployed)
    if form != "onnx":
        needs = "torch" if form == "torch" else "torch and safetensors"
        lines = ["from model import predict      # in this folder", "", f"predict({example})"]
        return (
            f"Needs {needs}; dltrain need not be installed. {about}\n\n```python\nimport torch\n"
            + "\n".join(lines)
            + "\n```"
        )
    feeds = [
        f"{json.dumps(column.name)}: {_array(column, rule)}"
        for column, rule in zip(deployed.columns, deployed.contract.columns, strict=True)
    ]
    if not feeds:
        shape = ", ".join(map(str, deployed.contract.input_shape))
        kind = "uint8" if deployed.takes_bytes else "float32"
        feeds = [f'"{deployed.input_names[0]}": np.zeros((2, {shape}), np.{kind})']
    inside = ",\n    ".join(feeds)
    return (
        "Needs onnxruntime and numpy, or any other program that reads ONNX.\n\n```python\nimport numpy as np\nimport onnxruntime\n\n"
        f'session = onnxruntime.InferenceSession("model.onnx")\n{_unpacked(deployed)} = session.run(None, {{\n    {inside},\n}})\n```'
    )


def _array(column: ColumnInput, rule: Rule) -> str:
    """Return a value of a column and a missing one as an array, as code."""
    if column.kind == "text":
        return f'np.array([{sample(column, rule)}, ""], object)'
    if column.kind == "date":
        return "np.array([1.7e9, np.nan])"
    return f"np.array([{float(sample(column, rule))}, np.nan])"


def _unpacked(deployed: Deployed) -> str:
    """Return variables for the list of outputs, as code; a single one in parentheses."""
    names = [
        name if name.isidentifier() and not iskeyword(name) else f"output_{i}"
        for i, name in enumerate(deployed.output_names)
    ]
    return ", ".join(names) if len(names) > 1 else f"({names[0]},)"


def _inputs(deployed: Deployed, form: str) -> str:
    contract = deployed.contract
    if deployed.columns:
        rows = [("input", "what it is")]
        for column, rule in zip(deployed.columns, contract.columns, strict=True):
            rows.append((_code(column.name), _meaning(column, rule, form == "onnx")))
    else:
        shape = ", ".join(map(str, contract.input_shape))
        kind = "uint8 from 0 to 255" if deployed.takes_bytes else "float32, as the dataset has them"
        rows = [
            ("input", "what it is"),
            (_code(deployed.input_names[0]), f"(N, {shape}) {kind}; normalization is inside"),
        ]
        if contract.files or contract.resize:
            # what becomes of a file before it is the input
            rows.append(("image files", conversions(contract.input_shape[0], contract.full_scale)))
        if contract.resize:
            rows.append(("images of other sizes", _other_sizes(contract)))
    names = deployed.output_names
    if contract.task == "classification":
        label = "the name of the most probable class" if contract.class_names else "the most probable class"
        probabilities = (
            "the softmax of the logits"
            if deployed.of_softmax
            else "by the loss, not the softmax of the logits"
        )
        more = [
            (names[0], label),
            (names[1], f"(N, C), {probabilities}"),
            (names[2], "(N, C), the outputs of the model"),
        ]
        rows += [(f"output {_code(name)}", text) for name, text in more]
    else:
        rows += [(f"output {_code(name)}", "(N,) float64 in the units of the data") for name in names]
    words = _missing_texts(deployed, form == "onnx")
    return _rows(rows) + (f"\n\n{words}" if words else "")


def _meaning(column: ColumnInput, rule: Rule, arrays: bool) -> str:
    """Return what a column takes; arrays: as ONNX has them, not lists of Python."""
    levels = _text(some(map(repr, rule.levels) if column.kind == "text" else rule.levels, 8))
    if column.kind == "text":
        other = "other words for true and false, such as TRUE and 1, count as these, " * bool(
            same_truth([*TRUTHS], rule.levels)
        )
        return f"text, empty where missing: {levels} ({other}another counts as none)"
    kind, missing = (" (float64)", "NaN where missing") if arrays else ("", "None where missing")
    if column.kind == "date":
        return f"{f'seconds since 1970-01-01 in UTC, a time without a zone taken for UTC{kind}' if arrays else 'ISO text'}; {missing}"
    if rule.format.kind == "category":
        return f"number{kind}, one of {levels} (another counts as none); {missing}"
    if rule.format.kind == "boolean":
        return f"{f'1 for true, 0 for false{kind}' if arrays else 'true or false'}; {missing}"
    if rule.format.unit == "%":
        return f"percents as numbers{kind}, 27 for 27%; {missing}"
    if rule.format.unit == UNIT:
        return (
            f"durations in seconds, or times of a day in seconds since midnight, as numbers{kind}; {missing}"
        )
    if rule.format.unit:
        return f"amounts in {_text(rule.format.unit)} as numbers{kind}; {missing}"
    return f"number{kind}; {missing}"


def _missing_texts(deployed: Deployed, arrays: bool) -> str:
    """Return which texts count as missing, and what becomes of blanks; empty without a column of texts."""
    if not any(column.kind == "text" for column in deployed.columns):
        return ""
    words = [_code(word) for word in deployed.missing if word]
    told = f"A text is missing where it is empty, or {', '.join(words[:-1])} or {words[-1]}, in any case"
    if not arrays:
        return f"{told}; blanks around it are taken off."
    long = [_code(word) for word in deployed.missing if is_long(word, deployed.letters)]
    some_cases = f"; {', '.join(long)} only as written here, in lower, upper and title case" * bool(long)
    return f"{told}{some_cases}. Blanks around a text must be taken off first."


# by `dataset.resize`: what `dltrain.data.pixels` calls, for a reader who has Pillow but not dltrain
_CALLS = {
    "crop": "ImageOps.fit(image, {size}, Image.Resampling.BILINEAR)",
    "stretch": "image.resize({size}, Image.Resampling.BILINEAR)",
    "pad": "ImageOps.pad(image, {size}, Image.Resampling.BILINEAR)",
}


def _other_sizes(contract: Contract) -> str:
    """Return how images are brought to the size of the model, with the calls of Pillow."""
    channels, height, width = contract.input_shape
    mode = "L" if channels == 1 else "RGB"
    call = _CALLS[contract.resize].format(size=(width, height))
    return (
        f"converted as image files, {RESIZES[contract.resize]} (bilinear, with antialiasing), with Pillow `{call}`; of a JPEG before it is decoded "
        f'`image.draft("{mode}", {(2 * width, 2 * height)})`'
    )


def _scores(summary: Mapping[str, Any]) -> str:
    best = numbers_of(summary.get("best"))
    tables = {
        "validation": {k.removeprefix("val/"): v for k, v in best.items() if k.startswith("val/")},
        "test": numbers_of(summary.get("test")),
        "a constant guess": numbers_of(summary.get("constant")),
    }
    shown = {name: values for name, values in tables.items() if values}
    names = list(dict.fromkeys(name for values in shown.values() for name in values))
    rows: list[Sequence[str]] = [("", *map(_text, names))]
    rows += [(name, *(_cell(values.get(metric)) for metric in names)) for name, values in shown.items()]
    return _rows(rows)


def _by_target(path: Path) -> list[str]:
    """Return the scores of each target of a regression on several; nothing for other runs."""
    if not (path / PER_TARGET).is_file():
        return []
    rows: list[Sequence[str]] = [("target", *SCORES)]
    rows += [
        (_text(row["target"]), *(_cell(row[name]) for name in SCORES))
        for row in read_targets(path / PER_TARGET)
    ]
    return ["Each target in its units:", _rows(rows)]


def _data(config: Config, deployed: Deployed) -> list[Sequence[str]]:
    contract = deployed.contract
    rows: list[Sequence[str]] = [("", ""), ("dataset", _text(config.words["dataset"]))]
    # a value from the environment may be a secret: its expression is shown
    rows += [
        (key, _text(config.secrets.get(f"dataset.{key}", config.dataset[key])))
        for key in ("path", "root", "target")
        if config.dataset.get(key)
    ]
    if contract.class_names:
        rows.append(("classes", _text(some(contract.class_names, 20))))
    rows.append(("samples", ", ".join(f"{_text(name)} {count:,}" for name, count in contract.sizes.items())))
    return [*rows, ("fingerprint", _text(contract.fingerprint))]


def _training(config: Config, summary: Mapping[str, Any]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("", "")]
    for group in _TRAINING:
        word = config.words.get(group)
        text = word if isinstance(word, str) else ", ".join(word or [])
        if text not in ("", "none"):
            rows.append((group, _text(text)))
    secret = set(config.secrets)
    versions = summary.get("versions")
    rows += [
        (key, _text(value))
        for key, value in (
            ("lr", config.plain.get("lr")),
            ("batch_size", config.batch_size),
            ("seed", config.seed),
        )
        if value is not None and key not in secret
    ]
    rows += [
        (
            "epochs",
            f"{number_in(summary, 'epochs') or 0:g}, the best: {number_in(summary, 'best_epoch') or 0:g} ({_text(summary['status'])})",
        ),
        ("command", _code(summary.get("command", ""))),
        ("device", _text(summary.get("device", ""))),
        (
            "versions",
            _text(", ".join(f"{name} {version}" for name, version in versions.items()))
            if isinstance(versions, dict)
            else "",
        ),
    ]
    return rows


def _cell(value: object) -> str:
    found = number_of(value)
    return "" if found is None else f"{found:.4g}"


def _text(value: object) -> str:
    """Return a value from the run's files, which may come from somebody else, so that Markdown takes nothing of it for its own."""
    return re.sub(r"[\\`<>\[\]]", r"\\\g<0>", one_line(value))


def _code(value: object) -> str:
    """Return a value from the run's files as code, which it cannot end."""
    inside = one_line(value).replace("`", "'")
    return f"`{inside}`"


def _rows(rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, the first row of which is its header."""
    lines = ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows]
    width = lines[0].count(" | ") + 1
    return "\n".join([lines[0], "|" + "---|" * width, *lines[1:]])
