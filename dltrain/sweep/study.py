"""The study of a sweep: Optuna's, kept in one file in the sweep's folder, written by the driver alone."""

from __future__ import annotations

import math
import os
import time
import warnings
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from dltrain.storage.files import unshare
from dltrain.storage.folder_names import SWEEP_STUDY
from dltrain.sweep.jobs import STARTUP, Chosen
from dltrain.sweep.journal import damaged
from dltrain.sweep.plan.grid import Grid
from dltrain.sweep.plan.space import Axis, active

Direction = Literal["minimize", "maximize"]
NAME = "sweep"
PAUSES = (0.1, 0.5, 2.0)  # seconds between the tries to write; then the sweep stops


class Listed(optuna.samplers.BaseSampler):
    """A sampler that reads each trial from a grid."""

    def __init__(self, configurations: Grid | list[Chosen]) -> None:
        self.configurations = configurations

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Any, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.configurations[trial.number][param_name]


class NoLock(JournalFileOpenLock):
    """The sweep's own lock keeps other drivers out, and a lock file would outlive a driver that was killed."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None: ...


class Journal(JournalFileBackend):
    """Optuna's journal file, whole after every append: a failed one is taken back, tried again, and then raises OSError."""

    def __init__(self, file: Path) -> None:
        self.file = file
        # a stranger's folder may hold a file of the user as a hard link
        unshare(file)
        super().__init__(str(file), NoLock(str(file)))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        for pause in PAUSES:
            try:
                return self.append_once(logs)
            except OSError:
                time.sleep(pause)
        self.append_once(logs)

    def append_once(self, logs: list[dict[str, Any]]) -> None:
        size = self.file.stat().st_size  # a deleted journal must not start again in its middle
        try:
            super().append_logs(logs)
        except OSError:
            os.truncate(self.file, size)
            raise


# What Optuna raises, asserts among it, for entries and values that it did not write.
ODD_ENTRY = (KeyError, TypeError, ValueError, IndexError, AttributeError, AssertionError)


class Study:
    """Asks for configurations, takes reports and results; every call is on the disk when it returns.

    Its file, if there is one, has passed `check_journal`.
    """

    def __init__(
        self,
        folder: Path,
        axes: list[Axis],
        sampler: Any,
        directions: list[Direction],
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.axes = axes
        self.file = folder / SWEEP_STUDY
        with quiet():
            try:
                self.storage = JournalStorage(Journal(self.file))
                self.study = optuna.create_study(
                    study_name=NAME,
                    storage=self.storage,
                    sampler=sampler,
                    directions=directions,
                    load_if_exists=True,
                )
                wanted = [direction.upper() for direction in directions]
                if [direction.name for direction in self.study.directions] != wanted:
                    raise damaged(self.file, ": it searches in another direction")
            except ODD_ENTRY:
                raise damaged(self.file) from None
        self.has_pruner = False
        self.reported: dict[int, set[int]] = {}
        self.distributions: dict[str, BaseDistribution] = {}
        for trial in self.trials():
            self.share(trial)

    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def ask(self) -> tuple[Trial, Chosen]:
        """Return the next trial and its configuration."""
        with quiet():
            trial = self.study.ask()
            return trial, self.configure(trial)

    def resume(self, frozen: FrozenTrial) -> tuple[Trial, Chosen]:
        """Return a trial that an earlier driver began, and its configuration."""
        with quiet():
            trial = Trial(self.study, frozen._trial_id)
            self.reported[trial.number] = set(frozen.intermediate_values)
            return trial, self.configure(trial)

    def configure(self, trial: Trial) -> Chosen:
        """Suggest a value for every active axis, in order, so that conditions can look at earlier ones."""
        chosen: Chosen = {}
        for axis in self.axes:
            if axis.is_active(chosen):
                chosen[axis.name] = suggest(trial, axis)
        self.share(self.trials()[trial.number])
        return active(self.axes, chosen)

    def share(self, trial: FrozenTrial) -> None:
        """Keep the values of an axis once: Optuna keeps a copy for each trial, 77 kB of an axis with 1,000 values."""
        for name, own in trial.distributions.items():
            shared = self.distributions.setdefault(name, own)
            if shared == own:
                trial.distributions[name] = shared

    def report(self, trial: Trial, step: int, value: float) -> None:
        """Report one evaluation, unless it is NaN or was reported before a resume."""
        seen = self.reported.setdefault(trial.number, set())
        if step not in seen and math.isfinite(value):
            seen.add(step)
            trial.report(value, step)

    def use_sampler(self, sampler: optuna.samplers.BaseSampler) -> None:
        self.study.sampler = sampler

    def set_pruner(self, settings: dict[str, Any], evaluations: int) -> None:
        """Build the pruner, which counts in evaluations, once a job has reported how many there are."""
        pruner = None
        if not self.has_pruner:
            pruner = make_pruner(settings["pruner"], evaluations, settings["min_evaluations"])
        self.has_pruner = True
        if pruner is not None:
            self.use_pruner(pruner)

    def use_pruner(self, pruner: optuna.pruners.BasePruner) -> None:
        self.study.pruner = pruner

    def should_prune(self, trial: Trial) -> bool:
        with quiet():
            return bool(trial.should_prune())

    def finish(self, trial: Trial, values: list[float] | None, pruned: bool = False) -> None:
        """Close a trial: pruned, failed (no values), or with its values."""
        with quiet():
            if pruned:  # Optuna takes the last report as the value; giving one as well raises
                self.study.tell(trial, state=TrialState.PRUNED)
            elif values is None:
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                self.study.tell(trial, values)


def suggest(trial: Trial, axis: Axis) -> Any:
    if axis.options:
        return trial.suggest_categorical(axis.name, axis.labels)
    if axis.whole:
        return trial.suggest_int(axis.name, int(axis.low), int(axis.high), log=axis.log)
    return trial.suggest_float(axis.name, axis.low, axis.high, log=axis.log)


class quiet(warnings.catch_warnings):
    """Optuna's notes on what is experimental are for its own users."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")


def make_pruner(word: str, evaluations: int, first: int | str) -> optuna.pruners.BasePruner | None:
    """Return the pruner of a word; its unit is an evaluation. `auto` leaves a ninth of the evaluations alone.

    Median (Golovin et al. 2017), ASHA (Li et al. 2018, arXiv:1810.05934), Hyperband (Li et al. 2016, arXiv:1603.06560).
    """
    least = max(1, evaluations // 9) if first == "auto" else int(first)
    makers: dict[str, Any] = {
        "none": lambda: None,
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=STARTUP[word], n_warmup_steps=least),
        "asha": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=least, reduction_factor=3),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(
            min_resource=least, max_resource=max(evaluations, least), reduction_factor=3
        ),
    }
    pruner: optuna.pruners.BasePruner | None = makers[word]()
    return pruner
