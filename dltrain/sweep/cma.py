"""Optuna's CMA-ES with its state in the study as plain numbers."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna import samplers
from optuna.trial import FrozenTrial

from dltrain.errors import CheckpointProblem

MOST_SAMPLES = 100_000  # of a generation
_COMPRESSED = "_c_1d"
# eigenvectors and eigenvalues, None before the first draw
_DRAWN = ("_B", "_D")
# what a search changes, and what follows from its first step size; all else follows from the dimension and the population
_LEARNED = frozenset((*_DRAWN, "_p_sigma", "_pc", "_mean", "_c_1d", "_sigma", "_tolx", "_funhist_values"))
# of a step size or a mean, as cmaes itself limits them: squares stay finite
SMALLEST, LARGEST = 1e-100, 1e32
# memory for later generations, not initialized yet
_AHEAD = ("_funhist_values",)
# number of generations; all other integers follow from the dimension
_COUNTS = ("_g",)


class PlainCma(samplers.CmaEsSampler):
    """CMA-ES that stores its distribution as JSON.

    Optuna stores a pickle, and unpickling the study of a sweep from somebody else could run code. The draws are equal to the last
    bit. Raises CheckpointProblem for a state that no search wrote.
    """

    def _split_optimizer_str(self, optimizer_str: str) -> dict[str, str]:
        # Optuna pickled its own object a line before, so that nothing of the study is unpickled
        return super()._split_optimizer_str(text_of(pickle.loads(bytes.fromhex(optimizer_str))))

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        prefix = f"{self._attr_key_optimizer}:"
        for trial in reversed(completed_trials):
            parts = {key: text for key, text in trial.system_attrs.items() if key.startswith(prefix)}
            if parts:
                try:
                    return optimizer_of(self._concat_optimizer_attrs(parts))
                except (ValueError, KeyError, TypeError) as error:
                    raise _unknown(f"at trial {trial.number} ({str(error)[:80]})") from None
        return None

    def sample_relative(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        try:
            found = super().sample_relative(*arguments, **named)
        # numbers that no search wrote, though each is possible
        except (ArithmeticError, ValueError, AssertionError) as error:
            raise _unknown(f"({str(error)[:80]})") from None
        if not all(math.isfinite(value) for value in found.values() if isinstance(value, float)):
            raise _unknown("(it draws no finite numbers)")
        return found


def _unknown(where: str) -> CheckpointProblem:
    return CheckpointProblem(
        f"study.log holds no state of sweep=cmaes {where}, or one of an earlier version, so what the search has learned is unknown.\n"
        "Begin a new sweep: sweep.fresh=true"
    )


def text_of(optimizer: Any) -> str:
    """Return the state of a `cmaes.CMA` optimizer as JSON, without its random generator, which Optuna seeds before each draw.

    >>> text_of(type("Optimizer", (), {"__getstate__": lambda self: {"_g": 1, "_mean": np.zeros(2)}})())
    '{"_g": 1, "_mean": [0.0, 0.0]}'
    """
    state = optimizer.__getstate__()
    return json.dumps(
        {name: value.tolist() if hasattr(value, "tolist") else value for name, value in state.items()}
    )


def optimizer_of(text: str) -> Any:
    """Return the optimizer of a state. Raises ValueError for one that no search wrote, such as a pickle."""
    import cmaes

    try:
        state = json.loads(text)
        size, samples = len(state["_mean"]), state["_popsize"]
        whole = size > 0 and type(samples) is int and 2 <= samples <= MOST_SAMPLES
        # before a matrix of that size is made
        if not whole or len(state[_COMPRESSED]) != size * (size + 1) // 2:
            raise ValueError("its sizes do not agree")
        like = cmaes.CMA(
            mean=np.zeros(size),
            sigma=1.0,
            bounds=np.array([[0.0, 1.0]] * size),
            population_size=samples,
            n_max_resampling=10 * size,
        )
        found = _checked(state, like.__getstate__())
    except (KeyError, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(f"it is no state of a search ({error!r})") from None
    like.__setstate__(found)
    return like


def _checked(state: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a state with the types of another state. Raises ValueError, TypeError if shapes or fields differ."""
    if state.keys() != like.keys():
        raise ValueError("it has other fields")
    return {name: _value(name, state[name], wanted) for name, wanted in like.items()}


def _value(name: str, value: Any, wanted: Any) -> Any:
    if name in _DRAWN or isinstance(wanted, np.ndarray):
        if value is None and wanted is None:
            return None
        array = np.array(value, dtype=np.float64)
        if wanted is not None and array.shape != wanted.shape:
            raise ValueError(f"{name} has another shape")
        # NaN is not below it
        if name not in _AHEAD and not (np.abs(array) <= LARGEST).all():
            raise ValueError(f"{name} is not finite, or beyond {LARGEST:g}")
        if name not in _LEARNED and not np.allclose(array, wanted, rtol=1e-9, atol=0):
            raise ValueError(f"{name} is not that of its sizes")
        return array
    if name in _COUNTS:
        if type(value) is not int or value < 0:
            raise ValueError(f"{name} is no count of generations")
        return value
    if isinstance(wanted, bool | int):
        if value is not wanted and (type(value) is not int or value != wanted):
            raise ValueError(f"{name} is not {wanted}")
        return wanted
    if type(value) not in (int, float) or not (SMALLEST <= value <= LARGEST or value == wanted == 0):
        raise ValueError(f"{name} is no number from {SMALLEST:g} to {LARGEST:g}")
    if name not in _LEARNED and not math.isclose(value, wanted, rel_tol=1e-9):
        raise ValueError(f"{name} is not that of its sizes")
    return float(value)
