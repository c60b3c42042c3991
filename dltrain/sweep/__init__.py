"""Sweeps: many runs of one command. The package can be called: `dltrain.sweep(…)` of the Python API."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from dltrain.api import Sweep


class _Callable(ModuleType):
    """A package with the name of a function of the API: importing it must not hide the function."""

    def __call__(self, *words: str, config_dir: str | Path | None = None, **knobs: object) -> Sweep:
        """Run a sweep in processes of its own and return its runs; see `dltrain.api.sweep`."""
        from dltrain import api

        return api.sweep(*words, config_dir=config_dir, **knobs)


sys.modules[__name__].__class__ = _Callable
