"""The runs that are compared: what their folders say of configuration, data and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dltrain.config.keys import (
    ELSEWHERE,
    REPLICATES,
    SPLIT_BY,
    differences,
    is_observing,
    is_of_problem,
    is_safe,
    keys_given,
    text_of,
    with_defaults,
)
from dltrain.config.saved import flat, load_bounded
from dltrain.direction import NO_SCORES, RATES, Mode, direction_of, metrics_of
from dltrain.errors import CheckpointProblem
from dltrain.storage.folder_names import SWEEP_RECORD
from dltrain.storage.index import number_of, scan
from dltrain.storage.job_names import job_number
from dltrain.storage.summary import read_json, read_summary, texts

# fields of a summary that a table of runs shows
_SHOWN = ("status", "metric", "objective", "best_epoch", "seconds")


# the override by which each run chooses its rate
AUTO = "lr=auto"


@dataclass
class Member:
    """A run that is compared."""

    path: Path
    label: str = ""

    @cached_property
    def summary(self) -> dict[str, Any]:
        return read_summary(self.path)

    @cached_property
    def config(self) -> dict[str, Any]:
        """Return the configuration by dotted key, with the words by group."""
        saved = self.summary.get("config")
        if isinstance(saved, dict):
            return saved
        if not (self.path / "config.yaml").is_file():
            raise CheckpointProblem(f"{self.path} has no config.yaml: its run has not begun.")
        return flat(load_bounded(self.path / "config.yaml"))

    @cached_property
    def own_metrics(self) -> dict[str, dict[str, object]]:
        return metrics_of(self.config)

    def direction(self, metric: str) -> Mode | None:
        """Return whether lower or higher is better: as the run compared its metric, or as its words and the program say of others."""
        mode = self.summary.get("mode")
        if metric == self.summary.get("metric") and mode in ("min", "max"):
            return "max" if mode == "max" else "min"
        return "min" if metric == "seconds" else direction_of(metric, self.own_metrics)

    @cached_property
    def data(self) -> dict[str, Any]:
        """Return data.json; empty where it is missing or damaged."""
        try:
            return read_json(self.path / "data.json")
        except (OSError, ValueError):
            return {}

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the data of the training; "" where it is not known."""
        return str(self.data.get("fingerprint") or "")

    @property
    def first_weights(self) -> str:
        """Return the digest of the file that its initial weights come from; "" where there is none, or it is not known."""
        return str(self.summary.get("first_weights") or "")

    @property
    def searched_rate(self) -> bool:
        """Return whether its rate is one that lr=auto found, wherever that was set."""
        return AUTO in self.overrides or "lr" in texts(self.summary.get("searched"))

    @property
    def code(self) -> dict[str, str]:
        """Return the digests of the user's own files that it was trained with; empty where there are none, or they are not known."""
        found = self.summary.get("code")
        return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    @property
    def overrides(self) -> list[str]:
        """Return what was asked for, with the length that a resumed run was given."""
        found = [self.summary.get(key) for key in ("overrides", "longer")]
        return [str(text) for texts in found if isinstance(texts, list) for text in texts]

    @property
    def command(self) -> str:
        return str(self.summary.get("command") or "")

    @property
    def given(self) -> set[str]:
        return keys_given(self.overrides)

    @property
    def trained(self) -> list[tuple[str, str]]:
        """Return all keys that decide what is trained, beside the repetition, with their values as text."""
        config = with_defaults(as_asked(self))
        return sorted(
            (key, text_of(value))
            for key, value in config.items()
            if key not in (*REPLICATES, *ELSEWHERE) and not is_safe(key) and not is_observing(key, config)
        )

    @property
    def replicate(self) -> tuple[Any, ...]:
        """Return the values in which the repetitions of a configuration differ: seed, fold and seed of the split."""
        first, *others = REPLICATES
        found = self.summary.get(first, self.config.get(first)), *(self.config.get(key) for key in others)
        # a record of somebody else may hold a list
        return tuple(repr(value) if isinstance(value, list | dict) else value for value in found)

    @property
    def scored_on(self) -> tuple[Any, ...]:
        """Return what decides on which samples it is scored, beside the repetition: the data, wherever they lie, and their split.

        Of a run without samples, the function that it minimizes.
        """
        return self.fingerprint, *(text_of(self.config.get(key)) for key in SPLIT_BY), *self.problem.items()

    @property
    def data_name(self) -> str:
        """Return the word of its dataset; of a run without samples, that of the function that it minimizes."""
        return self.problem.get("model") or str(self.config.get("dataset") or "unknown data")

    @property
    def problem(self) -> dict[str, str]:
        """Return the keys of the function that a run without samples minimizes; empty where it has samples."""
        dataset = self.config.get("dataset")
        return {
            key: text_of(value) for key, value in sorted(self.config.items()) if is_of_problem(key, dataset)
        }

    @cached_property
    def scores(self) -> dict[str, float]:
        """Return the scores at the best evaluation, those of the test split, and the time, by name."""
        best, test = (self.summary.get(key) for key in ("best", "test"))
        found = {
            str(key): value
            for key, value in (best if isinstance(best, dict) else {}).items()
            if key not in NO_SCORES
        }
        found |= {f"test/{key}": value for key, value in (test if isinstance(test, dict) else {}).items()}
        found |= {key: self.summary.get(key) for key in RATES}
        if isinstance(metric := self.summary.get("metric"), str):
            found[metric] = self.summary.get("objective", found.get(metric))
        return {key: value for key, item in found.items() if (value := number_of(item)) is not None}


def members_of(folder: Path) -> list[Member]:
    """Return the run of a folder, or the runs of a sweep that have begun."""
    if not (folder / SWEEP_RECORD).is_file():
        return [Member(folder)]
    jobs = [path for path, _, is_sweep, _ in scan(folder) if not is_sweep]
    return [Member(folder / path) for path in sorted(jobs, key=_job_number)]


def _job_number(name: str) -> tuple[int, str]:
    return job_number(name) or 0, name


def choices_of(members: Sequence[Member], asked: bool = False) -> list[dict[str, Any]]:
    """Return, for each run, the words and the keys in which the runs differ.

    Args:
        asked: whether a rate that lr=auto chose counts as auto: repetitions of one configuration may choose different ones
    """
    given = {key for member in members for key in member.given}
    configs = [with_defaults(as_asked(member) if asked else member.config) for member in members]
    return differences(configs, given) if members else []


def as_asked(member: Member) -> dict[str, Any]:
    """Return the configuration of a run, with lr=auto where it was asked for."""
    rate = {"lr": "auto", "optimizer.lr": "auto"} if member.searched_rate else {}
    return member.config | {key: value for key, value in rate.items() if key in member.config}


def rates_note(members: Sequence[Member]) -> str:
    """Return which rates lr=auto chose for the repetitions of a configuration; empty where it chose one."""
    rates = [member.config.get("optimizer.lr") for member in members if member.searched_rate]
    texts = [f"{rate:.3g}" for rate in rates if isinstance(rate, int | float)]
    return f"{AUTO} chose {', '.join(texts)}" if len(set(texts)) > 1 else ""


def rows_of(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Return a row for each run: its choices, and what came out."""
    rows = []
    for member, choices in zip(members, choices_of(members), strict=True):
        test = member.summary.get("test")
        scores = {f"test/{name}": value for name, value in (test if isinstance(test, dict) else {}).items()}
        rows.append(
            {"run": member.label, **choices, **{name: member.summary.get(name) for name in _SHOWN}, **scores}
        )
    return rows
