"""A table of a run's numbers, or of runs: columns of numpy by name, shown in a terminal and in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dltrain.errors import UserError, nearest
from dltrain.screen.table import one_line

# of numbers, texts or objects
Array: TypeAlias = NDArray[Any]

if TYPE_CHECKING:
    import pandas

SHOWN = 20  # rows; of more, the first and the last


class Table(Mapping[str, Array]):
    """Columns of one length by name. Numbers are float64, or int64 where all are whole numbers of Python; others objects.

    >>> table = Table({"epoch": [1, 2], "val/loss": [0.5, 0.25]})
    >>> float(table["val/loss"].min())
    0.25
    >>> table
    epoch  val/loss
        1       0.5
        2      0.25
    """

    def __init__(self, columns: Mapping[str, Sequence[object] | Array]) -> None:
        self._columns = {name: column_of(values) for name, values in columns.items()}

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, object]]) -> Table:
        """Return the table of rows; a name that a row lacks is None there, or nan among numbers."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        return cls({name: [row.get(name) for row in rows] for name in names})

    def __getitem__(self, name: str) -> Array:
        if name not in self._columns:
            raise KeyError(
                f"{name} is no column.{nearest(name, self._columns)} Columns: {', '.join(self._columns)}"
            )
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    # a mapping would compare its arrays as if they were single values
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __len__(self) -> int:
        """Return the number of columns, as of any mapping; `num_rows` is that of the rows."""
        return len(self._columns)

    @property
    def num_rows(self) -> int:
        return len(next(iter(self._columns.values()), []))

    def rows(self) -> list[dict[str, object]]:
        """Return the rows as dicts of Python's own numbers and texts."""
        lists = [column.tolist() for column in self._columns.values()]
        return [dict(zip(self._columns, row, strict=True)) for row in zip(*lists, strict=True)]

    def to_pandas(self) -> pandas.DataFrame:
        """Return a pandas.DataFrame. Raises UserError where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise UserError("to_pandas() needs pandas, which is not installed: pip install pandas") from None
        return pandas.DataFrame(self._columns)

    def __repr__(self) -> str:
        cells = [[name, *texts] for name, texts in self._texts().items()]
        widths = [max(map(len, column)) for column in cells]
        is_left = [self._columns[name].dtype == object for name in self._columns]
        lines = (
            "  ".join(
                cell.ljust(width) if left else cell.rjust(width)
                for cell, width, left in zip(row, widths, is_left, strict=True)
            ).rstrip()
            for row in zip(*cells, strict=True)
        )
        return "\n".join(lines) + self._size()

    def _repr_html_(self) -> str:
        texts = self._texts()
        head = "".join(f"<th>{html.escape(name)}</th>" for name in texts)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in zip(*texts.values(), strict=True)
        )
        size = f"<p>{html.escape(self._size().strip())}</p>" if self._size() else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{size}"

    def _texts(self) -> dict[str, list[str]]:
        """Return the cells that are shown."""
        half = SHOWN // 2
        if self.num_rows <= SHOWN:
            return {
                one_line(name): list(map(cell, column.tolist())) for name, column in self._columns.items()
            }
        return {
            one_line(name): [*map(cell, column[:half].tolist()), "…", *map(cell, column[-half:].tolist())]
            for name, column in self._columns.items()
        }

    def _size(self) -> str:
        return f"\n({self.num_rows} rows)" if self.num_rows > SHOWN else ""


def column_of(values: Sequence[object] | Array) -> Array:
    """Return values as int64, float64 (None is nan), or objects."""
    if isinstance(values, np.ndarray):
        return values
    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {int} and None not in values:
        return np.array(values, np.int64)
    if kinds and kinds <= {int, float}:
        return np.array([np.nan if value is None else value for value in values], np.float64)
    column = np.empty(len(values), object)
    column[:] = values
    return column


def cell(value: object) -> str:
    """Return a value as it is shown: six digits of a number, nothing for what is missing."""
    if value is None or value != value:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else one_line(value)
