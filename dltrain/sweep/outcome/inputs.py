"""What the jobs of a sweep were trained on: data and first weights may have changed since it began."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dltrain.data.errors import some
from dltrain.sweep.jobs import Job
from dltrain.sweep.outcome.members import Member

# jobs whose records are read; of more, as many spread evenly
MOST = 200
DATA = "the data"


def mixed_notes(jobs: Sequence[Job]) -> list[str]:
    """Return a note where some jobs were trained on other data, or from other first weights, than the first: they do not compare."""
    first: dict[str, object] = {}
    others: dict[str, list[str]] = {}
    for job in jobs[:: len(jobs) // MOST + 1]:
        for what, value in _inputs_of(Member(job.folder)):
            if first.setdefault(what, value) != value:
                others.setdefault(what.partition("\n")[0], []).append(f"job {job.number}")
    return [
        f"{what} {'were' if what == DATA else 'was'} changed during the sweep: {some(numbers, 5)} had another content than the first, so that "
        "the objectives do not compare. A new sweep on the present ones: sweep.fresh=true"
        for what, numbers in others.items()
    ]


def _inputs_of(member: Member) -> Iterator[tuple[str, Any]]:
    """Yield what a job was trained on by name, below it the keys with which it may differ, and a digest."""
    config = member.config
    if member.data:
        keys = {
            key: value
            for key, value in config.items()
            # a table has the features of the run whose weights are loaded
            if key.partition(".")[0] in ("dataset", "folds", "fold") or key == "initializer.path"
        }
        if config.get("dataset.bootstrap"):
            keys["seed"] = config.get("seed")
        yield f"{DATA}\n{keys}", (member.fingerprint, member.data.get("content"), member.data.get("files"))
    if member.first_weights:
        yield f"initializer.path={config.get('initializer.path')}", member.first_weights
