"""Samples for which predictions are wanted, held to the contract of a run: tables, arrays, image files, data in memory.

Columns of a table are matched by name, never by position; other data by their shape.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dltrain.config.schema import Node
from dltrain.data.contract import Contract
from dltrain.data.errors import DataError, some
from dltrain.data.exact import plain_array, real_numbers, real_tensor
from dltrain.data.image_files import Found
from dltrain.data.npz import as_inputs, read_array
from dltrain.data.pixels import ENDINGS
from dltrain.run.samples import Broken, InMemory, Pictures, Samples
from dltrain.run.table import Array

if TYPE_CHECKING:
    from dltrain.data.tables.read import Table

NAMED = 20  # broken rows that are named one by one
ARRAYS = (".npz", ".npy")
TABLES = (
    *(".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson"),
    *(".parquet", ".pq", ".arrow", ".feather", ".ipc", ".gz", ".bz2", ".zst"),
)


# What a user names ------------------------------------------------------------------------------------------------


class Given:
    """A file, a folder of images, or standard input, as the user named it; it is read once, however many runs take it.

    Args:
        name: a path, or `-` for `content`
        content: the text of a CSV file that came from standard input
        tolerant: leave out what cannot be read, and say so, instead of raising DataError
        kept: columns of a table that are copied beside the predictions
    """

    def __init__(
        self, name: str, content: bytes | None = None, tolerant: bool = False, kept: Sequence[str] = ()
    ) -> None:
        self.path = Path(os.path.expanduser(name))
        self.name = "standard input" if content is not None else name
        self.content, self.tolerant, self.kept = content, tolerant, kept
        self._tables: dict[str, Table] = {}

    def table(self, delimiter: str = "auto") -> Table:
        from dltrain.data.tables.read import read, read_text

        if delimiter not in self._tables:
            self._tables[delimiter] = (
                read(self.path, delimiter, tolerant=self.tolerant)
                if self.content is None
                else read_text(self.content, self.name, delimiter, self.tolerant)
            )
        return self._tables[delimiter]

    @cached_property
    def suffix(self) -> str:
        return ".csv" if self.content is not None else self.path.suffix.lower()

    def samples(self, contract: Contract, dataset: Node) -> Samples:
        """Return the samples for the model of a run, whose `dataset` keys say how files are read. Raises DataError."""
        if self.content is None and not self.path.exists():
            raise DataError(f"{self.name} is neither a file nor a folder")
        if contract.columns:
            return self._rows(contract, dataset)
        takes = takes_of(contract)
        if self.suffix in TABLES:
            raise DataError(f"{self.name} is a table, and {takes}")
        if self.suffix in ARRAYS:
            return self._arrays(contract, dataset)
        if len(contract.input_shape) != 3:
            raise DataError(f"{self.name} is not an array file, and {takes}")
        files, notes = self._images()
        return Pictures(files, contract, notes, self.tolerant)

    def _rows(self, contract: Contract, dataset: Node) -> Samples:
        if self.content is None and (self.path.is_dir() or self.suffix in (*ARRAYS, *ENDINGS)):
            raise DataError(f"{self.name} has no columns, and {takes_of(contract)}")
        return rows_of(
            self.table(str(dataset.get("delimiter", "auto"))),
            contract,
            str(dataset.get("decimal", "auto")),
            self.tolerant,
            [str(word) for word in dataset.get("missing_words", ())],
            str(dataset.get("date_format", "auto")),
            self.kept,
        )

    def _arrays(self, contract: Contract, dataset: Node) -> Samples:
        if self.suffix == ".npy":
            array = _npy(self.path)
        else:
            array = read_array(self.path, _array_name(self.path, str(dataset.get("inputs", "inputs"))))
        images = len(contract.input_shape) == 3
        channels = str(dataset.get("channels", "auto"))
        inputs = as_inputs(array, channels, contract.input_shape) if images else array
        samples = array_of(inputs, contract.input_shape, self.name, np.shape(array))
        return finite(samples, self.name, self.tolerant)

    def _images(self) -> tuple[list[str], tuple[str, ...]]:
        if not self.path.is_dir():
            return [str(self.path)], ()
        found = Found.below(self.path)
        if not found.images:
            raise DataError(f"no image in {self.name}; endings read: {' '.join(ENDINGS)}")
        unused = found.unused()
        notes = (f"unused   of {self.name}: {', '.join(unused)}",) if unused else ()
        return [str(self.path / path) for path, _ in found.images], notes


def takes_of(contract: Contract) -> str:
    """Return what the model takes, as the end of a sentence."""
    if contract.columns:
        names = some(repr(rule.name) for rule in contract.columns)
        return f"the model takes the columns of a table (CSV, Parquet, Arrow, JSON), by name: {names}"
    shape = ", ".join(map(str, contract.input_shape))
    if len(contract.input_shape) == 3:
        _, height, width = contract.input_shape
        return (
            f"the model takes images of {width}×{height} pixels: image files, folders of them, or an .npz file with an array "
            f"'inputs' of shape (N, {shape})"
        )
    return f"the model takes arrays without column names: an .npz file with an array 'inputs' of shape (N, {shape})"


def _array_name(path: Path, wanted: str) -> str:
    """Return the array of an .npz file to predict for: the one that the dataset of the run names, or the only one."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
    except Exception:
        return wanted
    if wanted in names or len(names) != 1:
        return wanted
    return str(names[0])


def _npy(path: Path) -> Array:
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(
            f"cannot read {path} ({str(error)[:100]}); save a plain array with numpy.save"
        ) from error
    return array


# Tables -----------------------------------------------------------------------------------------------------------


def rows_of(
    table: Table,
    contract: Contract,
    decimal: str = "auto",
    tolerant: bool = False,
    missing_words: Sequence[str] = (),
    date_format: str = "auto",
    kept: Sequence[str] = (),
) -> InMemory:
    """Return the rows of a table as the contract encodes them. Raises DataError for what does not fit."""
    table = table.named_as([rule.name for rule in (*contract.columns, *contract.targets)])
    if not len(table):
        return InMemory(torch.empty(0), broken=_broken(table, table.broken))
    rows = contract.encode_table(table, False, decimal, tolerant, missing_words, date_format)
    used = {*kept, *(rule.name for rule in (*contract.columns, *contract.targets))}
    extra = [name for name in table.columns if name not in used]
    unused = (f"unused   columns of {table.path.name}: {some(extra)}",) if extra else ()
    broken = _broken(table, sorted(rows.broken))
    return InMemory(rows.inputs, table.numbers[rows.positions.numpy()], (*rows.notes, *unused), broken)


def _broken(table: Table, items: Sequence[tuple[int, str]]) -> list[Broken]:
    """Return rows that cannot be predicted, with the lines of the first of them, for which the file is read again."""
    lines = table.lines_of({number for number, _ in items[:NAMED]})
    return [Broken(number, reason, lines.get(number, "")) for number, reason in items]


def table_of(data: Any, contract: Contract) -> Table:
    """Return the columns of a DataFrame, an Arrow table, a dict of columns, one row or several rows."""
    import pyarrow as pa

    from dltrain.data.tables.read import Table as FileTable

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
        "give a dict of columns, a list of dicts, a DataFrame, or the path of a CSV, Parquet or JSON file"
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
        # masked values are missing
        mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
        if isinstance(values, np.ndarray):
            values = plain_array(np.ma.getdata(values))
        return pa.chunked_array([pa.array(values, mask=mask, from_pandas=True)])
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"column {name!r} holds values of several kinds ({str(error).splitlines()[0][:100]}); give numbers, texts, "
            "dates or None alone"
        ) from error


# Arrays -----------------------------------------------------------------------------------------------------------


def array_of(
    data: Any, shape: tuple[int, ...], name: str = "the data", given: tuple[int, ...] | None = None
) -> Tensor:
    """Return samples (N, *shape), uint8 images or floats; a single sample, or images of one channel without it, are completed.

    given: the shape in the file, for messages; None is that of the data
    """
    takes = f"the model takes arrays of shape (N, {', '.join(map(str, shape))})"
    if isinstance(data, Mapping) or hasattr(data, "__arrow_c_stream__"):
        raise DataError(f"{type(data).__name__} is no array, and its data have no column names: {takes}")
    try:
        found = (
            real_tensor(data, f"the values of {name}")
            if isinstance(data, Tensor)
            else torch.from_numpy(real_numbers(data, f"the values of {name}").copy())
        )
    except DataError:
        raise
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{name} is no array of numbers ({str(error).splitlines()[0][:80]}); {takes}"
        ) from error
    samples = _completed(found, shape)
    if samples is None:
        there = tuple(found.shape) if given is None else given
        last = (*shape[1:], shape[0])
        cure = "; move the channels to the front: np.moveaxis(data, -1, 1)" if there[1:] == last else ""
        cure = (
            "; for a single image, put it into a list: np.moveaxis(data, -1, 0)[None]"
            if there == last
            else cure
        )
        raise DataError(f"{name} has shape {there}, and {takes}{cure}")
    if len(shape) == 3 and not samples.is_floating_point() and samples.dtype != torch.uint8:
        raise DataError(
            f"the images are {samples.dtype}; give bytes (uint8, 0 to 255), or floats as in the training"
        )
    if not len(samples):
        raise DataError(f"{name} holds no sample")
    return samples if samples.dtype == torch.uint8 and len(shape) == 3 else samples.float()


def finite(samples: Tensor, name: str, tolerant: bool) -> InMemory:
    """Return samples without those that have a value that is not finite. Raises DataError unless these may be left out."""
    if not samples.is_floating_point():
        return InMemory(samples)
    sound = torch.isfinite(samples).flatten(1).all(1)
    if sound.all():
        return InMemory(samples)
    reason = "it has a value that is not finite; all values must be finite numbers"
    rows = (~sound).nonzero().flatten() + 1
    if not (tolerant and sound.any()):
        raise DataError(f"sample {int(rows[0])} of {name}: {reason}")
    where = sound.nonzero().flatten().numpy() + 1
    return InMemory(samples[sound], where, broken=[Broken(row, reason) for row in rows.tolist()])


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
