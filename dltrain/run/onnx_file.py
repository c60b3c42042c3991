"""An exported program as an ONNX file whose inputs are named columns (texts too) and whose outputs are class names or units."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dltrain.errors import UserError
from dltrain.run.deployed import Deployed

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto
    from torch.export import ExportedProgram

_BATCH = 1024


def write(deployed: Deployed, program: ExportedProgram, file: Path) -> None:
    """Write a program of torch.export as ONNX. Raises UserError, naming it, for an operation that ONNX lacks."""
    import onnx

    model = converted(deployed, program)
    onnx.checker.check_model(model)
    onnx.save(model, file)


def converted(deployed: Deployed, program: ExportedProgram) -> ModelProto:
    """Return the ModelProto of a program, with texts in and out."""
    import onnx
    import torch

    names = [f"input_{i}" for i in range(len(deployed.input_names))]
    results = [f"output_{i}" for i in range(len(deployed.output_names))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = torch.onnx.export(
                program, dynamo=True, input_names=names, output_names=results, verbose=False, optimize=True
            )
        # several private kinds, each of which quotes the one below it
        except Exception as error:
            raise refused(error) from error
    assert made is not None
    # names of the graph cannot meet those of columns behind a prefix
    model = onnx.compose.add_prefix(made.model_proto, "model/")
    return with_names(
        model, deployed, [f"model/{name}" for name in names], [f"model/{name}" for name in results]
    )


def refused(error: BaseException) -> UserError:
    """Return the refusal for a program that cannot be written as ONNX, with the operation that it lacks."""
    texts, cause = [str(error)], error
    while (cause := cause.__cause__ or cause.__context__) is not None:  # type: ignore[assignment]
        texts.append(str(cause))
    operation = re.search(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'", "\n".join(texts))
    lacks = (
        f"ONNX lacks the operation {operation[1]}"
        if operation
        else f"torch.onnx: {texts[-1].splitlines()[0][:150]}"
    )
    return UserError(
        f"the model cannot be written as ONNX: {lacks}.\nUse --format torch, or --format safetensors"
    )


def with_names(model: ModelProto, deployed: Deployed, names: list[str], results: list[str]) -> ModelProto:
    """Name inputs and outputs as the data have them; texts become numbers at the start, and class numbers names at the end."""
    from onnx import TensorProto, helper

    graph = model.graph
    before, after, inputs, outputs = [], [], [], []
    for value, inner, outer in zip(list(graph.input), names, deployed.input_names, strict=True):
        column = next((c for c in deployed.columns if c.name == outer), None)
        if column is not None and column.kind == "text":
            inputs.append(helper.make_tensor_value_info(outer, TensorProto.STRING, ["samples"]))
            before.append(
                helper.make_node(
                    "LabelEncoder", [outer], [inner], domain="ai.onnx.ml", keys_strings=list(column.codes),
                    values_int64s=list(column.codes.values()), default_int64=-1,
                )
            )  # fmt: skip
            continue
        inputs.append(renamed(value, outer))
        before.append(helper.make_node("Identity", [outer], [inner]))
    classes = deployed.facts()["classes"]
    texts = bool(deployed.contract.class_names)
    for place, (value, inner, outer) in enumerate(
        zip(list(graph.output), results, deployed.output_names, strict=True)
    ):
        if place == 0 and classes and texts:
            outputs.append(helper.make_tensor_value_info(outer, TensorProto.STRING, ["samples"]))
            after.append(
                helper.make_node(
                    "LabelEncoder", [inner], [outer], domain="ai.onnx.ml", keys_int64s=list(range(len(classes))),
                    values_strings=classes, default_string="",
                )
            )  # fmt: skip
            continue
        outputs.append(renamed(value, outer))
        after.append(helper.make_node("Identity", [inner], [outer]))
    nodes = [*before, *graph.node, *after]
    for kept, new in ((graph.input, inputs), (graph.output, outputs), (graph.node, nodes)):
        held = list(new)
        del kept[:]
        kept.extend(held)
    if "ai.onnx.ml" not in {entry.domain for entry in model.opset_import}:
        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    helper.set_model_props(model, {"dltrain": json.dumps(deployed.facts())})
    return model


def renamed(value: ValueInfoProto, name: str) -> ValueInfoProto:
    """Return the declaration of a tensor under another name, with `samples` as its first dimension."""
    import onnx

    fresh = onnx.ValueInfoProto()
    fresh.CopyFrom(value)
    fresh.name = name
    del fresh.metadata_props[:]
    fresh.type.tensor_type.shape.dim[0].dim_param = "samples"
    return fresh


def run_onnx(deployed: Deployed, file: Path, inputs: list[Any]) -> dict[str, Any]:
    """Return the outputs of the file for raw inputs, by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    arrays = [np.asarray(values, object if isinstance(values, list) else None) for values in inputs]
    parts = []
    for first in range(0, len(arrays[0]), _BATCH):
        feed = {
            name: array[first : first + _BATCH]
            for name, array in zip(deployed.input_names, arrays, strict=True)
        }
        parts.append(session.run(deployed.output_names, feed))
    return dict(
        zip(deployed.output_names, (np.concatenate(part) for part in zip(*parts, strict=True)), strict=True)
    )
