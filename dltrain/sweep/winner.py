"""The test scores of the winner of a sweep, which are measured once, at its end."""

from __future__ import annotations

from pathlib import Path

from dltrain.config.schema import Config
from dltrain.storage.folder_names import check_files
from dltrain.storage.summary import read_json
from dltrain.sweep.backends import pool
from dltrain.sweep.backends.worker import score_winner
from dltrain.sweep.jobs import Job, number, write_summary
from dltrain.sweep.plan.plan import Plan
from dltrain.training.signals import Interrupted


def test_line(plan: Plan, jobs: list[Job]) -> str:
    """Score the test split with the best weights of each repetition of a configuration; return the means as text."""
    scores = [test_scores(plan, job) for job in jobs]
    named = [name for name in scores[0] if all(name in found for found in scores)]
    means = {name: sum(found[name] for found in scores) / len(scores) for name in named}
    text = ", ".join(f"{name} {number(value)}" for name, value in means.items())
    return text + (f" (means of {len(jobs)} runs)" if len(jobs) > 1 else "")


def test_scores(plan: Plan, best: Job) -> dict[str, float]:
    """Score the winner's test split, once, and write the scores into its summary."""
    if known := best.test_scores:
        return known
    # it may have come through the books alone, and its log and its summary are written
    check_files(best.folder)
    config: Config = plan.composer.config(best.overrides)
    worker = pool.start(score_winner, str(best.folder.resolve()), config, plan.rights, str(Path.cwd()))
    try:
        scores = worker.channel.recv() or {}
    except EOFError:
        scores = {}
    except Interrupted:
        worker.kill()
        raise
    worker.end()
    best.summary["test"] = scores
    write_summary(best.folder, read_json(best.folder / "summary.json") | {"test": scores})
    return scores
