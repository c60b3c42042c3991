"""What a trained model says of other data, which are held to the contract of its run (data.json).

Columns of a table are matched by name, never by position; other data by their shape. Class names and real units come out.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dltrain.config.door import Door
from dltrain.config.schema import Config
from dltrain.data.contract import Contract
from dltrain.data.errors import DataError, some
from dltrain.data.normalization import Normalizer
from dltrain.errors import UserError
from dltrain.run.build import build
from dltrain.run.data import data_problems
from dltrain.run.machine import choose_device, choose_precision
from dltrain.run.scoring import best_weights, load_best, load_weights
from dltrain.run.table import Table
from dltrain.storage.run_folder import read_contract, read_statistics
from dltrain.training.evaluation import evaluating
from dltrain.training.forward import autocast

if TYPE_CHECKING:
    from dltrain.data.tables.read import Table as FileTable

BATCH_SIZE = 1024
FAR = (
    10.0  # standard deviations, in the mean over all values: data on another scale than those of the training
)


@dataclass(frozen=True, repr=False)
class Predictions:
    """Predictions for N samples.

    outputs: (N, K) float32, what the model gives: logits, or quantities as it learned them (standardized). notes: what was
    filled, and levels that the training did not have.
    """

    outputs: NDArray[np.float32]
    contract: Contract
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.outputs)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Probability (N, C) of each class. Raises UserError for quantities."""
        self._check("probabilities", "classification", "values")
        probabilities: NDArray[np.float64] = torch.from_numpy(self.outputs).double().softmax(-1).numpy()
        return probabilities

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """Number (N,) of the most probable class. Raises UserError for quantities."""
        self._check("classes", "classification", "values")
        return self.outputs.argmax(-1)

    @cached_property
    def labels(self) -> NDArray[Any]:
        """Name (N,) of the most probable class, its number where classes have no names. Raises UserError for quantities."""
        self._check("labels", "classification", "values")
        return np.array(self.class_names)[self.classes]

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """Quantities (N, K) in real units. Raises UserError for classes."""
        self._check("values", "regression", "labels or .probabilities")
        outputs = torch.from_numpy(self.outputs).double()
        scale = self.contract.target_scale
        values: NDArray[np.float64] = (outputs if scale is None else scale.to_units(outputs)).numpy()
        return values

    @property
    def class_names(self) -> tuple[Any, ...]:
        return self.contract.class_names or tuple(range(self.outputs.shape[1]))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the quantities."""
        given = tuple(rule.name for rule in self.contract.targets)
        return given or tuple(f"y{i}" for i in range(self.outputs.shape[1]))

    @cached_property
    def table(self) -> Table:
        """The label and the probability of each class, or each quantity, as columns."""
        if self.contract.task == "regression":
            return Table(dict(zip(self.names, self.values.T, strict=True)))
        columns: dict[str, NDArray[Any]] = {
            f"p({name})": column for name, column in zip(self.class_names, self.probabilities.T, strict=True)
        }
        return Table({"label": self.labels, **columns})

    def _check(self, name: str, task: str, instead: str) -> None:
        if self.contract.task != task:
            raise UserError(
                f"`{name}` belongs to a {task}, and the run is a {self.contract.task}: use .{instead}"
            )

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


@dataclass(frozen=True)
class Predictor:
    """The best model of a run, on its device in evaluation mode, with what makes its inputs."""

    model: nn.Module
    contract: Contract | None  # None for an objective, and for a run of a version that wrote none
    normalize: Normalizer
    device: torch.device
    precision: str

    def __call__(self, data: Any, batch_size: int = BATCH_SIZE) -> Predictions:
        """Predict for new samples. Raises DataProblem, with the difference, for data that do not fit the contract."""
        if self.contract is None:
            raise UserError(
                "This run has no data.json: it was trained on an objective, which has no inputs, or by an earlier version.\n"
                "For the latter, train it again: dltrain rerun RUN"
            )
        if batch_size < 1:
            raise UserError(f"`batch_size` is {batch_size}; it must be at least 1.")
        with data_problems():
            inputs, notes = inputs_of(data, self.contract)
        for note in notes:
            if note.startswith("unseen"):
                warnings.warn(note, stacklevel=3)
        return Predictions(self.outputs(inputs, batch_size), self.contract, notes)

    def outputs(self, inputs: Tensor, batch_size: int) -> NDArray[np.float32]:
        """Return the outputs (N, K) for inputs that are not normalized."""
        found, distance = [], 0.0
        with evaluating(self.model):
            for part in inputs.split(batch_size):
                normal = self.normalize(part.to(self.device))
                distance += float(normal.abs().mean()) * len(part) / len(inputs)
                with autocast(self.device, self.precision):
                    found.append(self.model(normal).float().cpu())
        if distance > FAR:
            warnings.warn(
                f"the inputs are {distance:.0f} standard deviations from those of the training on average: are they on another scale?",
                stacklevel=4,
            )
        return torch.cat(found).numpy()


def predictor(path: Path, config: Config, door: Door, device: str) -> Predictor:
    """Build the model of a run with its best weights; its data are read only where data.json does not tell its sizes.

    Raises CheckpointProblem for a run that has no best weights, UserError for a device that is not there.
    """
    place = choose_device(device)
    contract, statistics = read_contract(path), read_statistics(path)
    if contract is not None and contract.outputs and statistics is not None:
        # before the model is built, which may take long
        weights = best_weights(path)
        model: nn.Module = door.build(config.model, "model", contract.input_shape, contract.outputs)
        load_weights(model, weights, path)
    else:
        parts, _ = build(replace(config, device=cast(Any, device)), door, statistics, contract=contract)
        load_best(parts, path)
        model, contract, statistics = parts.model, parts.contract, parts.statistics
    model.to(place).eval()
    normalize = Normalizer(statistics["mean"], statistics["std"]).to(place)
    return Predictor(model, contract, normalize, place, choose_precision(config.precision, place))


# Inputs -----------------------------------------------------------------------------------------------------------


def inputs_of(data: Any, contract: Contract) -> tuple[Tensor, tuple[str, ...]]:
    """Return inputs (N, …), not normalized, and notes. Raises DataError for data that are not what the contract says."""
    if contract.columns:
        rows = contract.encode_table(table_of(data, contract), targets=False)
        return rows.inputs, rows.notes
    return array_of(data, contract.input_shape), ()


def table_of(data: Any, contract: Contract) -> FileTable:
    """Return the columns of a file, a DataFrame, an Arrow table, a dict of columns, one row or several rows."""
    import pyarrow as pa

    from dltrain.data.tables.read import Table as FileTable
    from dltrain.data.tables.read import read

    if isinstance(data, str | Path):
        return read(Path(data).expanduser(), "auto", key="predict")
    if hasattr(data, "to_dict") and not hasattr(data, "columns"):
        # a pandas.Series is one row
        data = data.to_dict()
    if hasattr(data, "__arrow_c_stream__") or isinstance(data, pa.RecordBatch):
        try:
            whole = pa.table(data)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DataError(
                f"a column holds values of several kinds ({str(error).splitlines()[0][:150]}); give numbers, texts or dates alone"
            ) from error
        columns = dict(zip(whole.column_names, whole.columns, strict=True))
    else:
        columns = {name: _column(name, values) for name, values in _columns_of(data, contract).items()}
    columns = {
        str(name): column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for name, column in columns.items()
    }
    if len({len(column) for column in columns.values()}) > 1:
        sizes = some(f"{name!r} {len(column)}" for name, column in columns.items())
        raise DataError(f"the columns have different lengths: {sizes}; each needs one value for each row")
    if not columns or not len(next(iter(columns.values()))):
        raise DataError("the data hold no row")
    return FileTable(Path("data"), columns)


def _columns_of(data: Any, contract: Contract) -> Mapping[str, Any]:
    names = some(repr(rule.name) for rule in contract.columns)
    if isinstance(data, np.ndarray) and data.dtype.names:
        return {name: data[name] for name in data.dtype.names}
    if isinstance(data, Mapping):
        is_row = not any(_is_column(value) for value in data.values())
        return {name: [value] for name, value in data.items()} if is_row else data
    if isinstance(data, Sequence) and data and all(isinstance(row, Mapping) for row in data):
        for number, row in enumerate(data, 1):
            if row.keys() != data[0].keys():
                names = some(map(repr, row.keys() ^ data[0].keys()))
                raise DataError(
                    f"row {number} and row 1 differ in {names}; give each row all columns, None where one is missing"
                )
        return {name: [row[name] for row in data] for name in data[0]}
    shape = (
        f" of shape {tuple(np.shape(data))}" if isinstance(data, np.ndarray | Tensor | list | tuple) else ""
    )
    raise DataError(
        f"{type(data).__name__}{shape} has no column names, and the model takes columns by name: {names}\n"
        "give a dict of columns, a list of dicts, a DataFrame, or the path of a CSV or Parquet file"
    )


def _is_column(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray | Tensor) and not isinstance(value, str | bytes)


def _column(name: str, values: Any) -> Any:
    import pyarrow as pa

    if not _is_column(values):
        raise DataError(
            f"column {name!r} is {values!r}, and other columns are lists; give it one value for each row"
        )
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    if np.ndim(values) != 1:
        raise DataError(f"column {name!r} has shape {np.shape(values)}; a column has one value for each row")
    try:
        return pa.chunked_array([pa.array(values, from_pandas=True)])
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"column {name!r} holds values of several kinds ({str(error).splitlines()[0][:100]}); give numbers, texts, "
            "dates or None alone"
        ) from error


def array_of(data: Any, shape: tuple[int, ...]) -> Tensor:
    """Return samples (N, *shape), uint8 images or floats; a single sample, or images of one channel without it, are completed."""
    takes = f"the model takes arrays of shape (N, {', '.join(map(str, shape))})"
    if isinstance(data, str | Path | Mapping) or hasattr(data, "__arrow_c_stream__"):
        raise DataError(f"{type(data).__name__} is no array, and its data have no column names: {takes}")
    try:
        found = data.detach().cpu() if isinstance(data, Tensor) else torch.from_numpy(np.array(data))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the data are no array of numbers ({str(error).splitlines()[0][:80]}); {takes}"
        ) from error
    samples = _completed(found, shape)
    if samples is None:
        last = tuple(found.shape[1:]) == (*shape[1:], shape[0])
        cure = "; move the channels to the front: np.moveaxis(data, -1, 1)" if last else ""
        raise DataError(f"the data have shape {tuple(found.shape)}, and {takes}{cure}")
    if len(shape) == 3 and not samples.is_floating_point() and samples.dtype != torch.uint8:
        raise DataError(
            f"the images are {samples.dtype}; give bytes (uint8, 0 to 255), or floats as in the training"
        )
    if not len(samples):
        raise DataError("the data hold no sample")
    if samples.dtype == torch.uint8 and len(shape) == 3:
        return samples
    samples = samples.float()
    bad = (~torch.isfinite(samples).flatten(1).all(1)).nonzero()
    if len(bad):
        raise DataError(
            f"sample {int(bad[0])} has a value that is not finite; all values must be finite numbers"
        )
    return samples


def _completed(found: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """Return samples of the shape, or None where the dimensions do not fit."""
    forms = {shape: 0}
    if len(shape) == 3 and shape[0] == 1:
        forms[shape[1:]] = 1
    for form, missing in forms.items():
        if tuple(found.shape) == form:
            return found.reshape(1, *shape)
        if found.ndim == len(form) + 1 and tuple(found.shape[1:]) == form:
            return found.unsqueeze(1) if missing else found
    return None
