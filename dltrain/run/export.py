"""A run as a model for other programs: ONNX, torch.export or safetensors, checked against the run before it is kept."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dltrain.config.door import Door
from dltrain.config.schema import Config
from dltrain.data.raw import RawData
from dltrain.data.table import TableInputs
from dltrain.data.tables.encode import encode
from dltrain.errors import CheckFailed, DataProblem, UserError
from dltrain.run.card import Agreement, card
from dltrain.run.data import data_problems, load_data
from dltrain.run.deployed import Deployed
from dltrain.run.loader import loader
from dltrain.run.prediction import Predictor, predictor
from dltrain.run.usage import usage

if TYPE_CHECKING:
    from torch.export import ExportedProgram

SAMPLES = 10_000  # that are compared with the run, at most
_VALUES = 2**27  # of their inputs
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
    inputs, wanted, data = samples_of(made, deployed)
    program = record(deployed, str(config.words["model"]))
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    beside.mkdir(parents=True)
    try:
        run = WRITERS[form](deployed, program, beside)
        agreement = compare(deployed, run(inputs), wanted, data)
        (beside / "README.md").write_text(card(path, config, deployed, form, agreement), encoding="utf-8")
        os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
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
        # torch.export raises its own kinds, which are private
        except Exception as error:
            raise UserError(
                f"model={model} cannot be exported: torch.export does not record its forward:\n{first_line(error)}"
            ) from error


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]


# Samples ----------------------------------------------------------------------------------------------------------


def samples_of(made: Predictor, deployed: Deployed) -> tuple[list[Any], Tensor, str]:
    """Return raw inputs of the data of the run, evenly chosen, what the run gives for them, and how to call these data."""
    contract = made.known_contract()
    try:
        raw = load_data(made.config, made.door, contract)
    except DataProblem as error:
        raise DataProblem(
            f"{error}\nAn export is compared with the run on its data; put them back, or name others: dataset.path=…"
        ) from error
    chosen = evenly(len(raw), contract.input_shape)
    data = f"of dataset={made.config.words['dataset']}"
    if isinstance(raw.inputs, TableInputs):
        columns = tuple(column.take(chosen.numpy()) for column in raw.inputs.columns)
        encoded = torch.from_numpy(encode(columns, contract.columns)[0])
        inputs = [taken.values(column) for taken, column in zip(deployed.columns, columns, strict=True)]
        return inputs, outputs_of(made, encoded), data
    samples = tensors_of(raw, chosen)
    if not deployed.takes_bytes:
        samples = samples.float()
    return [samples], outputs_of(made, samples), data


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


def compare(deployed: Deployed, found: Mapping[str, Any], wanted: Tensor, data: str) -> Agreement:
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
    agreement = Agreement(len(wanted), difference, data)
    if not difference <= TOLERANCE:
        raise CheckFailed(
            f"the exported model differs from the run by {difference:.1e} of the largest output, more than {TOLERANCE:g} "
            f"({len(wanted):,} samples {data}); nothing was written"
        )
    if contract.task == "classification":
        check_labels(deployed, list(found[names[0]]), wanted, TOLERANCE * largest)
    return agreement


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


# Formats ----------------------------------------------------------------------------------------------------------


def write_onnx(deployed: Deployed, program: ExportedProgram, folder: Path) -> Exported:
    from dltrain.run.onnx_file import run_onnx, write

    write(deployed, program, folder / "model.onnx")
    return lambda inputs: run_onnx(deployed, folder / "model.onnx", inputs)


def write_torch(deployed: Deployed, program: ExportedProgram, folder: Path) -> Exported:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(
            program, folder / "model.pt2", extra_files={"facts.json": json.dumps(deployed.facts())}
        )
    return write_loader(deployed, folder, None)


def write_safetensors(deployed: Deployed, program: ExportedProgram, folder: Path) -> Exported:
    from safetensors.torch import save_file

    graph, weights = source_of(program)
    facts = deployed.facts() | {"weights": list(weights)}
    save_file(weights, folder / "model.safetensors", metadata={"dltrain": json.dumps(facts)})
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
    # `x = None` frees a tensor that no later operation needs
    code = re.sub(r";  (\w+ = )+None", "", code).replace("def forward(self, ", "def forward(")
    return code, {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def write_loader(deployed: Deployed, folder: Path, graph: str | None) -> Exported:
    about, example = usage(deployed)
    text = loader("The model of a run of dltrain, with what its inputs become inside.", example, about, graph)
    (folder / "model.py").write_text(text, encoding="utf-8")

    def run(inputs: list[Any]) -> dict[str, Any]:
        namespace: dict[str, Any] = {"__file__": str(folder / "model.py"), "__name__": "model"}
        exec(compile(text, str(folder / "model.py"), "exec"), namespace)  # noqa: S102
        data = dict(zip(deployed.input_names, inputs, strict=True)) if deployed.columns else inputs[0]
        if deployed.columns:
            data = {
                column.name: seconds_as_text(values) if column.kind == "date" else values
                for column, values in zip(deployed.columns, data.values(), strict=True)
            }
        found: dict[str, Any] = namespace["predict"](data)
        return found

    return run


def seconds_as_text(seconds: Any) -> list[str | None]:
    """Return times as a loader takes them: ISO texts."""
    return [
        None if np.isnan(value) else str(np.datetime64(round(value * 1e6), "us"))
        for value in seconds.tolist()
    ]
