"""run.log: what happened, line by line, for whoever looks at the folder later."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from dltrain.training.callbacks import Progress, Result, RunInfo

_log = logging.getLogger(__name__)


class RunLog:
    """Writes the start, every evaluation and the end of a run to the log."""

    def on_fit_start(self, info: RunInfo) -> None:
        _log.info("%s (step %d of %d)", info.command or "dltrain", info.resumed_step, info.total_steps)
        for name, words in info.summary():
            _log.info("%s: %s", name, ", ".join(words))

    def on_step_end(self, progress: Progress) -> None:
        """Steps are not logged."""

    def on_epoch_end(self, row: Mapping[str, float]) -> None:
        _log.info("%s", " ".join(f"{name}={value:.6g}" for name, value in row.items()))

    def on_fit_end(self, result: Result) -> None:
        scores = " ".join(f"test/{name}={value:.6g}" for name, value in result.test.items())
        _log.info("%s: %s %s", result.status, result.stop_reason, scores)

    def on_exception(self, error: BaseException) -> None:
        """The error itself is logged with its traceback by whoever caught it."""
