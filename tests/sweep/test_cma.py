"""CMA-ES with its state as plain numbers: the draws are Optuna's, also in a continued study, and no pickle is read."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

pytest.importorskip("cmaes", reason="an extra")

from dltrain.errors import CheckpointProblem  # noqa: E402
from dltrain.sweep.cma import PlainCma, optimizer_of, text_of  # noqa: E402

TRIALS, DIMENSIONS = 60, 3


def sphere(trial: optuna.Trial) -> float:
    return sum((trial.suggest_float(f"x{i}", -3, 3) - 0.3 * i) ** 2 for i in range(DIMENSIONS))


def search(sampler: type[optuna.samplers.CmaEsSampler], file: Path, *lengths: int) -> list[dict[str, float]]:
    """Return the parameters of all trials of a study that is continued by a new sampler after each of `lengths` trials."""
    for length in lengths:
        storage = JournalStorage(JournalFileBackend(str(file)))
        study = optuna.create_study(
            storage=storage,
            study_name="s",
            load_if_exists=True,
            sampler=sampler(seed=length, n_startup_trials=1),
        )
        study.optimize(sphere, length)
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("lengths", [(TRIALS,), (25, 1, TRIALS - 26)])
def test_the_draws_are_optuna_s_to_the_last_bit(tmp_path, lengths):
    theirs = search(optuna.samplers.CmaEsSampler, tmp_path / "theirs", *lengths)
    ours = search(PlainCma, tmp_path / "ours", *lengths)
    assert ours == theirs
    assert min(sphere_at(params) for params in ours) < 0.2
    attributes = [
        text
        for line in (tmp_path / "ours").read_text().splitlines()
        for text in (json.loads(line).get("system_attr") or {}).items()
    ]
    states = [text for key, text in attributes if key.startswith("cma:optimizer:0")]
    assert states and all(text.startswith('{"') for text in states)


def sphere_at(params: dict[str, float]) -> float:
    return sum((params[f"x{i}"] - 0.3 * i) ** 2 for i in range(DIMENSIONS))


class Payload:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_a_pickle_in_a_study_is_not_run(tmp_path):
    """Found by a hostile tester: the study.log of a stranger ran code."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.log")))
    study = optuna.create_study(storage=storage, study_name="s", sampler=PlainCma(seed=1, n_startup_trials=1))
    study.optimize(sphere, 2)
    marker = tmp_path / "PWNED"
    trial = study.ask()
    storage.set_trial_system_attr(trial._trial_id, "cma:optimizer:0", pickle.dumps(Payload(marker)).hex())
    study.tell(trial, sphere(trial))
    with pytest.raises(CheckpointProblem, match="study.log holds no state of sweep=cmaes at trial 2"):
        study.optimize(sphere, 1)
    assert not marker.exists()
    # what the attribute would have done
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()


def test_numbers_that_are_possible_and_lead_nowhere_are_refused(tmp_path):
    import cmaes
    import numpy as np

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.log")))
    study = optuna.create_study(storage=storage, study_name="s", sampler=PlainCma(seed=1, n_startup_trials=1))
    state = json.loads(
        text_of(
            cmaes.CMA(mean=np.zeros(3), sigma=0.5, bounds=np.array([[0.0, 1.0]] * 3), n_max_resampling=30)
        )
    )
    trial = study.ask()
    text = json.dumps(state | {"_pc": [1e32] * 3})
    storage.set_trial_system_attr(trial._trial_id, "cma:optimizer:0", text)
    study.tell(trial, sphere(trial))
    with pytest.raises(CheckpointProblem, match="study.log holds no state of sweep=cmaes"):
        study.optimize(sphere, 30)


@pytest.mark.parametrize("value", [5, None, ["{}"], 1.5])
def test_an_attribute_that_is_no_text_is_refused(tmp_path, value):
    """Found by a hostile tester: TypeError."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.log")))
    study = optuna.create_study(storage=storage, study_name="s", sampler=PlainCma(seed=1, n_startup_trials=1))
    trial = study.ask()
    storage.set_trial_system_attr(trial._trial_id, "cma:optimizer:0", value)
    study.tell(trial, sphere(trial))
    with pytest.raises(CheckpointProblem, match="study.log holds no state of sweep=cmaes at trial 0"):
        study.optimize(sphere, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"_mean": [0.0] * 100_000},
        {"_popsize": 10**12},
        {"_popsize": True},
        {"_n_dim": 5},
        {"_n_max_resampling": 10**12},
        {"_weights": [1.0]},
        {"_pc": "x"},
        {"_pc": [float("nan")] * 3},
        {"more": 1},
        {"_sigma": None},
        {"_g": 1.5},
        {"_sigma": float("nan")},
        {"_sigma": "nan"},
        {"_sigma": 10**400},
        {"_sigma": -1.0},
        {"_mean": [10**400] * 3},
        {"_mean": [1e200] * 3},
        {"_mean": [], "_c_1d": []},
        {"_c_1d": [1e308] * 6},
        {"_bounds": [[0.0, 1e9]] * 3},
        {"_sigma": 0},
        {"_d_sigma": 0},
        {"_cc": 7},
        {"_c_sigma": 3},
        {"_c1": 1e18},
        {"_weights": [1e18] * 7},
    ],
)
def test_a_state_that_no_search_wrote_is_refused(change):
    import cmaes
    import numpy as np

    bounds = np.array([[0.0, 1.0]] * 3)
    text = text_of(cmaes.CMA(mean=np.zeros(3), sigma=0.5, bounds=bounds, n_max_resampling=30))
    assert text_of(optimizer_of(text)) == text
    with pytest.raises(ValueError):
        optimizer_of(json.dumps(json.loads(text) | change))
    for other in ("", "8004", "[]", "[" * 100_000, "{}"):
        with pytest.raises(ValueError):
            optimizer_of(other)
