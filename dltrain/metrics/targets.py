"""The report by target of a regression on several quantities, each in its own units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dltrain.metrics.report import as_csv
from dltrain.metrics.sums import R2, RMSE

PER_TARGET = "per_target.csv"
SCORES = ("mae", "rmse", "r2")


@dataclass(frozen=True)
class TargetRow:
    """Scores of one target, in its units."""

    name: str
    mae: float
    rmse: float
    r2: float


def target_rows(outputs: Tensor, targets: Tensor, names: Sequence[str] = ()) -> tuple[TargetRow, ...]:
    """Return a row for each target; none for a single one, whose scores are those of the run.

    outputs, targets: (N, K) in real units. names: of the targets, y0, y1 and so on where they have none.
    """
    outputs, targets = (values.reshape(len(values), -1).double().cpu() for values in (outputs, targets))
    if outputs.shape[1] < 2:
        return ()
    rows = []
    for k, (found, true) in enumerate(zip(outputs.T, targets.T, strict=True)):
        rmse, r2 = RMSE(), R2()
        for metric in (rmse, r2):
            metric.update(found[:, None], true[:, None])
        mae = float((found - true).abs().mean())
        name = str(names[k]) if names else f"y{k}"
        rows.append(TargetRow(name, mae, float(rmse.compute()), float(r2.compute())))
    return tuple(rows)


def per_target_csv(rows: Sequence[TargetRow]) -> str:
    """Return the report by target as CSV: target, mae, rmse, r2."""
    return as_csv([("target", *SCORES), *((row.name, row.mae, row.rmse, row.r2) for row in rows)])
