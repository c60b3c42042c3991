"""run.log: what happened, line by line, for whoever looks at the folder later."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from dltrain.loggers.events import Result, RunInfo, not_finite
from dltrain.text import shown

_log = logging.getLogger(__name__)


class RunLog:
    """Writes the start, every evaluation and the end of a run to the log."""

    def run_started(self, run: RunInfo) -> None:
        self.info = run
        _log.info("%s (step %d of %d)", shown(run.command or "dltrain"), run.resumed_step, run.total_steps)
        for name, words in run.summary():
            _log.info("%s: %s", name, shown(", ".join(words)))

    def evaluated(self, row: Mapping[str, float]) -> None:
        _log.info("%s", " ".join(f"{name}={value:.6g}" for name, value in row.items()))
        for text in not_finite(self.info, row).values():
            _log.warning("%s", text)

    def run_ended(self, result: Result) -> None:
        # whoever caught an error has logged it
        if result.error:
            return
        scores = " ".join(f"test/{name}={value:.6g}" for name, value in result.test.items())
        _log.info("%s: %s %s", result.status, result.stop_reason, scores)
        for remark in result.remarks:
            _log.warning("%s", remark)
