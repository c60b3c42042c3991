"""dltrain: one word for each choice, one folder for each experiment.

From Python: `train`, `load`, `sweep` and `compare` (docs/api.md), and the verbs that look at runs (docs/runs.md). They are
imported when they are used, and torch with the first run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dltrain import errors as errors
    from dltrain.api import Run as Run
    from dltrain.api import Sweep as Sweep
    from dltrain.api import compare as compare
    from dltrain.api import load as load
    from dltrain.api import sweep as sweep
    from dltrain.api import train as train
    from dltrain.commands.archive import archive as archive
    from dltrain.commands.diff import diff as diff
    from dltrain.commands.restore import restore as restore
    from dltrain.commands.runs import runs as runs
    from dltrain.commands.show import show as show
    from dltrain.commands.tag import tag as tag
    from dltrain.commands.trash import trash as trash
    from dltrain.errors import UserError as UserError
    from dltrain.run.prediction import Predictions as Predictions
    from dltrain.run.table import Table as Table

__version__ = "0.1.0"

# name → module that defines it
_PLACES = dict.fromkeys(("Run", "Sweep", "compare", "load", "train"), "dltrain.api") | {
    **{
        name: f"dltrain.commands.{name}"
        for name in ("archive", "diff", "restore", "runs", "show", "tag", "trash")
    },
    "UserError": "dltrain.errors",
    "Predictions": "dltrain.run.prediction",
    "Table": "dltrain.run.table",
}
# `sweep` is the package dltrain.sweep, which can be called; `errors` holds the exceptions
_MODULES = ("sweep", "errors")
__all__ = [
    "Predictions",
    "Run",
    "Sweep",
    "Table",
    "UserError",
    "archive",
    "compare",
    "diff",
    "errors",
    "load",
    "restore",
    "runs",
    "show",
    "sweep",
    "tag",
    "train",
    "trash",
]


# hidden from type checkers, which would take any misspelled name for one of these
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name in _PLACES:
            return getattr(import_module(_PLACES[name]), name)
        if name in _MODULES:
            return import_module(f"dltrain.{name}")
        raise AttributeError(f"module 'dltrain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
