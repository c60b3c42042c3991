"""A run as a model for other programs: ONNX, torch.export or safetensors, checked against the run before it is kept."""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dltrain.config.door import Door
from dltrain.config.schema import Config
from dltrain.data.raw import RawData
from dltrain.data.table import TableInputs
from dltrain.data.tables.columns import Column, Columns
from dltrain.data.tables.encode import encode
from dltrain.data.tables.read import Table
from dltrain.data.tables.reading import Reading
from dltrain.errors import CheckFailed, DataProblem, ResourceProblem, UserError, typed
from dltrain.run.card import Agreement, card
from dltrain.run.data import data_problems, load_data
from dltrain.run.deployed import Deployed
from dltrain.run.loader import loader
from dltrain.run.prediction import Predictor, predictor
from dltrain.run.usage import usage
from dltrain.text import utf8

if TYPE_CHECKING:
    from torch.export import ExportedProgram

SAMPLES = 10_000  # that are compared with the run, at most
_VALUES = 2**27  # of their inputs
BATCH = 500
TOLERANCE = 1e-4  # of the largest output

# what takes raw inputs and gives the outputs by name, as an exported model does
Exported = Callable[[list[Any]], dict[str, Any]]


def export(path: Path, config: Config, door: Door, form: str, folder: Path) -> Agreement:
    """Write the model of a run to a new folder, with a model card, once it agrees with the run.

    Raises UserError for a model that cannot be recorded, CheckFailed where the outputs differ.
    """
    made = predictor(path, config, door, "cpu")
    # whatever the run used: an exported model computes in float32
    plain = replace(made.config.evaluation, mc_dropout=0, tta=0, tta_words=[])
    made = replace(made, precision="fp32", config=replace(made.config, evaluation=plain))
    deployed = Deployed(made)
    inputs, wanted, about = samples_of(path, made, deployed)
    program = record(deployed, str(config.words["model"]))
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    is_new = not folder.parent.exists()
    beside.mkdir(parents=True)
    try:
        run = WRITERS[form](deployed, program, beside)
        agreement = compare(deployed, in_batches(run, inputs), wanted, about)
        (beside / "README.md").write_bytes(utf8(card(path, config, deployed, form, agreement)))
        os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        if is_new:
            # of a failed export, the folder that was made for it is empty
            with suppress(OSError):
                folder.parent.rmdir()
    return agreement


def record(deployed: Deployed, model: str) -> ExportedProgram:
    """Return the operations of a model as a torch.export.ExportedProgram. Raises UserError where they depend on the data."""
    example = deployed.example()
    samples = torch.export.Dim("samples", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(
                deployed, example, dynamic_shapes=(tuple({0: samples} for _ in example),)
            )
        except OSError as error:
            raise ResourceProblem(
                f"torch.export cannot write its temporary files: {error}. Free some space, or set another folder: export TMPDIR=FOLDER"
            ) from None
        # torch.export raises its own kinds, which are private
        except Exception as error:
            raise UserError(
                f"model={model} cannot be exported: torch.export does not record its forward:\n{first_line(error)}"
            ) from error


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]


# Samples ----------------------------------------------------------------------------------------------------------


def samples_of(path: Path, made: Predictor, deployed: Deployed) -> tuple[list[Any], Tensor, Agreement]:
    """Return raw inputs of the data of the run, evenly chosen, what the run gives for them, and how many of which data they are.

    Of a table there are more rows, with values that these data may not hold; see `odd_rows`.
    """
    contract = made.known_contract()
    try:
        raw = load_data(made.config, made.door, contract)
    except DataProblem as error:
        key = "root" if "root" in made.config.dataset else "path"
        raise DataProblem(
            f"{error}\nAn export is compared with the run on its data; put them back, or say where they are: "
            f"{typed('export', path)} dataset.{key}=NEW"
        ) from error
    chosen = evenly(len(raw), contract.input_shape)
    about = Agreement(len(chosen), 0.0, f"of dataset={made.config.words['dataset']}")
    if isinstance(raw.inputs, TableInputs):
        columns = tuple(column.take(chosen.numpy()) for column in raw.inputs.columns)
        inputs = [taken.values(column) for taken, column in zip(deployed.columns, columns, strict=True)]
        odd, more = odd_rows(deployed, columns)
        encoded = np.concatenate([encode(rows, contract.columns)[0] for rows in (columns, odd)])
        both = [
            [*first, *second] if isinstance(first, list) else np.concatenate([first, second])
            for first, second in zip(inputs, more, strict=True)
        ]
        return both, outputs_of(made, torch.from_numpy(encoded)), about
    # of gray images without the axis of the colors
    samples = tensors_of(raw, chosen).reshape(len(chosen), *contract.input_shape)
    if not deployed.takes_bytes:
        samples = samples.float()
    return [samples], outputs_of(made, samples), about


def odd_rows(deployed: Deployed, columns: Sequence[Column]) -> tuple[tuple[Column, ...], list[Any]]:
    """Return rows of missing values, unknown texts and all words for a missing text, as the reader has them, and as raw inputs.

    The data of a run need not hold them, and an export that took `k.A.` for a level would pass without them.
    """
    texts = [*deployed.odd_texts()]
    rows = np.arange(len(texts)) % len(columns[0].values)
    contract = deployed.contract
    reading = Reading(contract.missing_words(), not_missing=contract.not_missing)
    read: list[Column] = []
    inputs: list[Any] = []
    for taken, column, rule in zip(deployed.columns, columns, deployed.contract.columns, strict=True):
        if taken.kind == "text":
            table = Table(Path(rule.name), {rule.name: pa.chunked_array([texts])})
            read.append(Columns(table, reading, [rule.name]).parse(rule.name, rule.format))
            inputs.append(texts)
        else:
            read.append(half_missing(column.take(rows)))
            inputs.append(taken.values(read[-1]))
    return tuple(read), inputs


def half_missing(column: Column) -> Column:
    """Return a column whose every second value is missing."""
    empty = {"date": np.datetime64("NaT"), "category": -1}.get(column.format.kind, np.nan)
    values = column.values.copy()
    values[::2] = empty
    return replace(column, values=values)


def tensors_of(raw: RawData, chosen: Tensor) -> Tensor:
    with data_problems():
        samples = raw.samples
        return samples[chosen] if isinstance(samples, Tensor) else samples.read(chosen)


def evenly(count: int, shape: tuple[int, ...]) -> Tensor:
    """Return at most `SAMPLES` positions of `count`, fewer where they are large."""
    most = min(count, SAMPLES, max(1, _VALUES // max(1, int(np.prod(shape)))))
    return torch.linspace(0, count - 1, most).round().long()


def outputs_of(made: Predictor, inputs: Tensor) -> Tensor:
    from dltrain.run.samples import InMemory

    return torch.from_numpy(made.predict(InMemory(inputs)).outputs)


def compare(deployed: Deployed, found: Mapping[str, Any], wanted: Tensor, about: Agreement) -> Agreement:
    """Compare the outputs of an exported model with those of the run. Raises CheckFailed where they differ."""
    contract = deployed.contract
    names = deployed.output_names
    if contract.task == "classification":
        outputs = torch.as_tensor(np.asarray(found[names[2]]))
    else:
        values = torch.stack([torch.as_tensor(np.asarray(found[name])) for name in names], 1).double()
        scale = contract.target_scale
        outputs = (values if scale is None else (values - scale.mean) / scale.std).float()
    largest = float(wanted.abs().max()) or 1.0
    difference = float((outputs - wanted).abs().max()) / largest if len(wanted) else 0.0
    if not difference <= TOLERANCE:
        raise CheckFailed(
            f"the exported model differs from the run by {difference:.1e} of the largest output, more than {TOLERANCE:g} "
            f"({about.samples:,} samples {about.data}); nothing was written"
        )
    if contract.task == "classification":
        wanted = deployed.to_softmax(wanted)
        check_probabilities(torch.as_tensor(np.asarray(found[names[1]])), wanted, TOLERANCE * max(largest, 1))
        check_labels(deployed, list(found[names[0]]), wanted, TOLERANCE * largest)
    return replace(about, difference=difference)


def check_probabilities(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    """Refuse probabilities (N, C) that are not those of the run's logits (N, C)."""
    difference = float((found - wanted.double().softmax(-1)).abs().max()) if len(wanted) else 0.0
    if not difference <= tolerance:
        raise CheckFailed(
            f"a probability of the exported model differs from the run's by {difference:.1e}; nothing was written"
        )


def check_labels(deployed: Deployed, labels: list[object], wanted: Tensor, tolerance: float) -> None:
    """Refuse a label that is not the run's, unless its two most probable classes are nearer than the tolerance."""
    classes = deployed.facts()["classes"]
    best = wanted.topk(min(2, wanted.shape[1]), 1)
    sure = (best.values[:, 0] - best.values[:, -1]) > 2 * tolerance
    wrong = [
        i
        for i, label in enumerate(labels)
        if bool(sure[i]) and str(label) != str(classes[best.indices[i, 0]])
    ]
    if wrong:
        raise CheckFailed(
            f"the exported model calls {len(wrong)} of {len(labels):,} samples otherwise than the run; nothing was written"
        )


def in_batches(run: Exported, inputs: list[Any]) -> dict[str, Any]:
    """Return the outputs of an exported model for all samples, some at a time, as the run computes them: memory is that of a batch."""
    count = len(inputs[0])
    parts = [run([part[at : at + BATCH] for part in inputs]) for at in range(0, max(count, 1), BATCH)]
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}


# Formats ----------------------------------------------------------------------------------------------------------


def write_onnx(deployed: Deployed, program: ExportedProgram, folder: Path) -> Exported:
    from dltrain.run.onnx_file import run_onnx, write

    write(deployed, program, folder / "model.onnx")
    return lambda inputs: run_onnx(deployed, folder / "model.onnx", inputs)


def write_torch(deployed: Deployed, program: ExportedProgram, folder: Path) -> Exported:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # written by us: torch and safetensors turn the error of a full disk into one of their own
        content = io.BytesIO()
        torch.export.save(program, content, extra_files={"facts.json": json.dumps(deployed.facts())})
    (folder / "model.pt2").write_bytes(content.getbuffer())
    return write_loader(deployed, folder, None)


def write_safetensors(deployed: Deployed, program: ExportedProgram, folder: Path) -> Exported:
    from safetensors.torch import save

    graph, weights = source_of(program)
    facts = deployed.facts() | {"weights": list(weights)}
    content = save(weights, metadata={"dltrain": json.dumps(facts)})
    (folder / "model.safetensors").write_bytes(content)
    return write_loader(deployed, folder, graph)


WRITERS: dict[str, Callable[[Deployed, ExportedProgram, Path], Exported]] = {
    "onnx": write_onnx,
    "torch": write_torch,
    "safetensors": write_safetensors,
}


def source_of(program: ExportedProgram) -> tuple[str, dict[str, Tensor]]:
    """Return the operations of a program as Python code, and its tensors in the order of the arguments.

    Raises UserError for operations that are no code, such as branches.
    """
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        name = str(node.target)
        if name.startswith("aten._assert"):
            graph.erase_node(node)
        elif name == "aten.dropout.default":
            # evaluation drops nothing
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    program.graph_module.recompile()
    code = str(program.graph_module.code)
    if "self." in code:
        raise UserError(
            "the model has operations that torch.export keeps as a module, not as code. Use --format torch"
        )
    arguments = [spec for spec in program.graph_signature.input_specs if spec.target is not None]
    tensors = {
        spec.target: (program.state_dict if spec.target in program.state_dict else program.constants)[
            spec.target
        ]
        for spec in arguments
    }
    # `x = None` stays: it frees a tensor that no later operation needs
    return code.replace("def forward(self, ", "def forward("), {
        name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()
    }


def write_loader(deployed: Deployed, folder: Path, graph: str | None) -> Exported:
    about, example = usage(deployed)
    text = loader("The model of a run of dltrain, with what its inputs become inside.", example, about, graph)
    (folder / "model.py").write_bytes(utf8(text))

    namespace: dict[str, Any] = {"__file__": str(folder / "model.py"), "__name__": "model"}
    exec(compile(text, str(folder / "model.py"), "exec"), namespace)  # noqa: S102

    def run(inputs: list[Any]) -> dict[str, Any]:
        data = dict(zip(deployed.input_names, inputs, strict=True)) if deployed.columns else inputs[0]
        if deployed.columns:
            data = {
                column.name: as_written(column.kind, values)
                for column, values in zip(deployed.columns, data.values(), strict=True)
            }
        found: dict[str, Any] = namespace["predict"](data)
        return found

    return run


def as_written(kind: str, values: Any) -> list[object]:
    """Return raw inputs as a file may have them and a loader takes them: blanks around texts, ISO dates, words for missing values."""
    if kind == "text":
        return [f" {value} " for value in values]
    if kind == "date":
        return [
            " NA " if np.isnan(value) else str(np.datetime64(round(value * 1e6), "us"))
            for value in values.tolist()
        ]
    return [" NA " if np.isnan(value) else value for value in values.tolist()]
