"""Checks of a sweep's plan before the first job starts, and of each job's configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dltrain.config.comparable import changes, described, plain_of
from dltrain.config.saved import flat
from dltrain.config.schema import Config, objective_of
from dltrain.defaults import DEFAULT_EPOCHS
from dltrain.direction import BETTER, COSTS, NO_RANK, NO_SCORES, direction_of
from dltrain.errors import UserError, listing, nearest
from dltrain.sweep.jobs import STARTUP, Chosen
from dltrain.sweep.plan import sources
from dltrain.sweep.plan.coverage import ALL, to_check
from dltrain.sweep.plan.equals import equal_jobs
from dltrain.sweep.plan.plan import Plan, mode_of
from dltrain.text import say


def check_search(plan: Plan) -> None:
    """Refuse a search over nothing, and one without a number of trials: only a grid knows how many there are."""
    if not plan.search_axes:
        raise UserError(
            f"`sweep={plan.word}` searches, and there is no axis to search: all trials would be equal. Give one, as in\n"
            f"dltrain -m sweep={plan.word} 'lr=tag(log,interval(1e-4,1e-1))'"
        )
    if plan.settings["trials"] is None:
        raise UserError(
            f"`sweep.trials` is null, and sweep={plan.word} does not end by itself. Write sweep.trials=30"
        )


def check_pruner(plan: Plan) -> None:
    """Refuse a pruner where nothing can be pruned."""
    word = plan.settings["pruner"]
    if word == "none":
        return
    if plan.objectives:
        raise UserError(
            f"`sweep.pruner` is {word}, and sweep={plan.word} has several objectives: there is no order by which to stop "
            "a job. Use sweep.pruner=none."
        )
    if len(plan.replicates) > 1:
        raise UserError(
            f"`sweep.pruner` is {word}, and every configuration is run {len(plan.replicates)} times: a mean of jobs that "
            "stopped at different times says nothing. Prune first, then repeat the best."
        )


def idle_pruner(plan: Plan) -> str:
    """Return a line where a sweep has too few jobs for its pruner to stop one; empty where it has enough."""
    word = plan.settings["pruner"]
    needed = STARTUP.get(word, 0)
    if plan.total > needed:
        return ""
    return f"sweep.pruner={word} stops no job: it compares with {needed} that are done, and the sweep has {plan.total}"


def check_prunable(plan: Plan, config: Config) -> None:
    """Refuse a pruner for a job that is evaluated only at its end, or not often enough for it."""
    word, every = plan.settings["pruner"], config.evaluation.every_epochs
    if word == "none":
        return
    length = config.steps if config.evaluation.every_steps else config.epochs or DEFAULT_EPOCHS
    interval = config.evaluation.every_steps or every
    if not (length and interval and (config.steps is None or config.evaluation.every_steps)):
        return
    first, evaluations = plan.settings["min_evaluations"], -(-length // interval)
    if interval < length and isinstance(first, int) and first >= evaluations:
        raise UserError(
            f"`sweep.min_evaluations` is {first}, and a job has {evaluations} evaluations: none would be pruned. "
            f"Use sweep.min_evaluations=auto, or sweep.pruner=none."
        )
    if interval >= length:
        raise UserError(
            f"`sweep.pruner` is {word}, and a job is evaluated only at its end: there is nothing to prune by. "
            "Evaluate more often (evaluation.every_epochs=1), or use sweep.pruner=none."
        )


def check_comparable(plan: Plan, config: Config) -> None:
    """Refuse a job that has another objective than the first one, such as by a recipe that sets it."""
    metric = str(config.early_stopping.get("metric", "val/loss"))
    if (metric, mode_of(config)) != (plan.metric, plan.mode):
        raise UserError(
            f"`early_stopping.metric` is {metric} ({BETTER[mode_of(config)]}), but {plan.metric} ({BETTER[plan.mode]}) in the "
            f"first job: they cannot be compared.\nGive one for all jobs: early_stopping.metric={plan.metric} early_stopping.mode=auto"
        )


def check_metrics(plan: Plan, configs: Sequence[Config]) -> None:
    """Refuse jobs that measure in different ways what they are compared by, such as by another average."""
    for metric in plan.objectives or [plan.metric]:
        found = changes(metric, [flat(config.plain | {"words": config.words}) for config in configs])
        if not found:
            continue
        word, plain = metric.rpartition("/")[2], plain_of(metric)
        cure = _plain_metrics(plan, metric, plain)
        without = plan.first.dataset.get("val_fraction") == 0 and plan.first.folds is None
        split = "dataset.val_fraction=0.1 " if without and plain.startswith("val/") else ""
        own = f"; or a word of your own for each: conf/metrics/NAME.yaml with `defaults: [{word}]`"
        raise UserError(
            f"`{'sweep.objectives' if plan.objectives else 'early_stopping.metric'}` names {metric}, and the axes change how it is "
            f"computed ({described(found)}): its values would not compare.\n"
            f"{plain} does not depend on that: {split}{cure}{own if word in plan.first.metrics else ''}"
        )


def _plain_metrics(plan: Plan, metric: str, plain: str) -> str:
    """Return the override that compares the jobs by another metric in the place of one."""
    if not plan.objectives:
        return f"early_stopping.metric={plain}"
    names = dict.fromkeys({metric: plain}.get(name, name) for name in plan.objectives)
    return f"sweep.objectives=[{','.join(names)}]"


def check_gap(plan: Plan) -> None:
    """Refuse to rank configurations by the gap, which is smallest where nothing was learned."""
    if plan.search_axes and "gap" in (plan.objectives or [plan.metric]):
        raise UserError(
            f"`{'sweep.objectives' if plan.objectives else 'early_stopping.metric'}` names gap, and {NO_RANK}.\n"
            f"Rank by the loss: {_plain_metrics(plan, 'gap', 'val/loss')}"
        )


def check_all(plan: Plan) -> list[Config]:
    """Compose and validate the configurations of `to_check`, and check every value by its own rule; return those composed."""
    found, jobs = [], []
    for values in to_check(plan):
        with in_job(values):
            found.append(plan.composer.config(plan.overrides(values)))
            check_job(plan, found[-1])
            jobs.append((values, found[-1]))
    # of a search these are no jobs, but corners of its space
    if plan.configurations is not None and (equal := equal_jobs(jobs)):
        say(equal)
    if idle := idle_pruner(plan):
        say(idle)
    if plan.configurations is None or plan.total > ALL:
        check_each_value(plan)
    for config in found:
        if (loss := objective_of(config)) not in plan.losses:
            plan.losses.append(loss)
    check_metrics(plan, found)
    check_gap(plan)
    check_directions(plan)
    plan.files = sources.digests(plan.composer)
    return found


@contextmanager
def in_job(values: Chosen) -> Iterator[None]:
    """Add to a UserError in which job it is."""
    try:
        yield
    except UserError as error:
        shown = " ".join(f"{k}={v}" for k, v in values.items())
        raise type(error)(f"{error}\nin the job {shown}; nothing was run.") from None


def check_job(plan: Plan, config: Config) -> None:
    """Check one configuration of a plan beside its own validation. Raises UserError."""
    plan.rights.door(config.trust).check_names(config.plain)
    check_prunable(plan, config)
    check_comparable(plan, config)


def check_each_value(plan: Plan) -> None:
    """Check every value of every axis by the rule of its key, which the words of the composed configurations give."""
    for axis in plan.axes:
        for label, texts in axis.options:
            with in_job({axis.name: label}):
                for text in texts:
                    plan.composer.check_value(text)


def check_directions(plan: Plan) -> None:
    """Refuse names among several objectives that no job has, or of which it is not known whether lower or higher is better."""
    for name in plan.objectives:
        split, _, metric = name.rpartition("/")
        if not split and name not in COSTS:
            is_score = name not in NO_SCORES and direction_of(name, plan.first.metrics) is not None
            known = [*COSTS, f"val/{name}"] if is_score else COSTS
            raise UserError(
                f"`sweep.objectives` names {name}, which is no score and no cost of a run.{nearest(name, known)}\n"
                f"{listing('Costs', COSTS)}. Scores have the name of their split: val/loss"
            )
        if split in ("train", "val", "test") and direction_of(name, plan.first.metrics) is None:
            cure = (
                f"Say which in its file: `_direction_: max` (higher is better) or `_direction_: min` in conf/metrics/{metric}.yaml."
                if metric in plan.first.metrics
                else "Name a metric that the jobs measure: dltrain metrics --help"
            )
            raise UserError(
                f"`sweep.objectives` names {name}, of which it is not known whether lower or higher is better.\n{cure}"
            )
