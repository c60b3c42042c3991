"""The test scores of a run beside those of a constant guess."""

from __future__ import annotations

import math

from dltrain.direction import Mode, direction_of, metrics_of
from dltrain.report.record import Record
from dltrain.screen.numbers import number

SHARES = ("accuracy", "top_k")  # metrics that are fractions of the samples


def compared_score(record: Record) -> str:
    """Return the score by which a run and a constant guess are compared: that of the run's metric, else accuracy, else the loss.

    Accuracy comes before the loss, the default metric; "" where both have no score.
    """
    own = record.metric.rpartition("/")[2]
    preferred = ("accuracy", "loss") if own == "loss" else (own, "accuracy", "loss")
    return next((name for name in preferred if name in record.tests and name in record.constant), "")


def mode_of(record: Record, name: str) -> Mode:
    """Return whether lower or higher values of a test score are better: of the run's metric as the run compared it."""
    is_own = record.metric.rpartition("/")[2] == name
    if is_own and record.summary.get("mode") in ("min", "max"):
        return "max" if record.summary["mode"] == "max" else "min"
    return direction_of(name, metrics_of(record.summary.get("config"))) or "min"


def margin_of(record: Record, name: str) -> float:
    """Return two standard errors of the score of a constant guess; 0 for a score that is no fraction of the samples."""
    share = record.constant[name]
    if name not in SHARES or not 0 <= share <= 1 or record.scored <= 0:
        return 0.0
    return 2 * math.sqrt(share * (1 - share) / record.scored)


def loss_beside(record: Record, compared: str) -> tuple[bool, str]:
    """Return whether the test loss is lower than that of a constant guess, and the clause that says so.

    No clause where one of them is unknown, or the loss is the score that was compared.
    """
    test, constant = record.tests.get("loss"), record.constant.get("loss")
    if compared == "loss" or test is None or constant is None:
        return False, ""
    is_lower = test < constant
    clause = f"; by loss it is {'' if is_lower else 'not '}better ({number(test)}, guess {number(constant)})"
    return is_lower, clause
