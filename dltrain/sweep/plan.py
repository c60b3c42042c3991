"""What a sweep will run: its axes, its repetitions, its jobs, all composed and validated before the first one starts."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from dltrain.config.catalogue import leaves
from dltrain.config.compose import Composition
from dltrain.config.door import Rights
from dltrain.config.schema import Config, Node, objective_of
from dltrain.config.secrets import put, secrets_of
from dltrain.config.validation import check_axes, check_value
from dltrain.direction import BETTER, Mode, direction_of, resolve_mode
from dltrain.errors import UserError
from dltrain.sweep import space
from dltrain.sweep.composer import Composer
from dltrain.sweep.jobs import Job
from dltrain.sweep.space import REPLICATES, Axis

DEFAULT_EPOCHS = 30  # as build has it
COMMON = (
    "jobs", "jobs_per_gpu", "seeds", "zip", "space", "pruner", "min_evaluations", "timeout", "dry_run", "resume", "fresh",
    "reuse", "vectorize",
)  # fmt: skip
HOW = (
    "jobs",
    "jobs_per_gpu",
    "timeout",
    "dry_run",
    "resume",
    "fresh",
    "reuse",
    "vectorize",
)  # these may differ in a resumed sweep


@dataclass
class Plan:
    """One sweep, checked. `configurations` is the list of a grid, None for a search."""

    axes: list[Axis]
    replicates: list[
        dict[str, Any]
    ]  # the repetitions of a configuration, as values of the axes seed and fold
    fixed: list[str]  # overrides of every job
    settings: dict[str, Any]  # the keys of conf/sweep
    word: str
    composer: Composer
    first: Config
    test: bool  # whether the winner's test split was asked for
    configurations: list[dict[str, Any]] | None = None
    trial_of: dict[tuple[int, int], int] = field(default_factory=dict)  # (trial, replicate) → job of a grid
    rights: Rights = Rights(frozenset())  # what its configurations may name
    losses: list[Node] = field(
        default_factory=list
    )  # the different losses that its jobs minimize (`check_all`)

    @property
    def trials(self) -> int:
        if self.configurations is not None:
            return len(self.configurations)
        return int(self.settings["trials"])

    @property
    def search_axes(self) -> list[Axis]:
        return [axis for axis in self.axes if axis.name not in REPLICATES]

    @property
    def blind(self) -> bool:
        """Whether the configurations do not depend on results, so that they can be asked for beforehand."""
        return self.configurations is not None or self.word in ("random", "qmc")

    @property
    def metric(self) -> str:
        return str(self.first.early_stopping.get("metric", "val/loss"))

    @property
    def mode(self) -> Mode:
        """The direction of the metric."""
        return mode_of(self.first)

    @property
    def objectives(self) -> list[str]:
        """Several objectives; empty for the one of early stopping."""
        return [str(name) for name in self.settings.get("objectives") or []]

    @property
    def modes(self) -> list[Mode]:
        """The direction of each objective; what is no metric, such as parameters, is better the lower."""
        return [direction_of(name, self.first.metrics) or "min" for name in self.objectives] or [self.mode]

    def jobs(self, trial: int, chosen: dict[str, Any], folder: Path) -> list[Job]:
        """The jobs of a trial: one for each repetition."""
        jobs = []
        for r, replicate in enumerate(self.replicates):
            number = self.trial_of.get((trial, r), trial * len(self.replicates) + r)
            values = {
                a.name: {**chosen, **replicate}[a.name]
                for a in self.axes
                if a.name in {**chosen, **replicate}
            }
            jobs.append(Job(number, trial, values, self.overrides(values), folder / str(number)))
        return jobs

    def overrides(self, values: dict[str, Any]) -> list[str]:
        return [*space.overrides_of(self.axes, values), *self.fixed]

    def identity(self) -> dict[str, Any]:
        """What must be equal for a sweep to be gone on with, as JSON data."""
        settings = {k: v for k, v in self.settings.items() if k not in HOW}
        return {
            "sweep": self.word,
            "fixed": sorted(self.fixed),
            "axes": space.to_plain(self.axes),
            "settings": settings,
            "test": self.test,
        }


def make_plan(
    parsed: list[Override], composition: Composition, first: Config, composer: Composer, rights: Rights
) -> Plan:
    """Read axes and settings, and check all that is known beforehand. Raises UserError."""
    settings = sweep_settings(composition)
    axes = axes_of(parsed, composition, settings, first)
    fixed, test = fixed_overrides(parsed)
    repeated = [axis for axis in axes if axis.name in REPLICATES]
    if any(axis.name == "seed" for axis in repeated):  # that of sweep.seeds begins at a given seed
        fixed = [text for text in fixed if not text.startswith("seed=")]
    plan = Plan(
        axes,
        list(space.grid(repeated)) if repeated else [{}],
        fixed,
        settings,
        composition.choices["sweep"][0],
        composer,
        first,
        test,
        rights=rights,
    )
    if settings.get("_target_") is not None:
        rights.door(first.trust).check_name(settings["_target_"], "sweep")
        check_trials(plan)
    else:
        enumerate_grid(plan)
    check_pruner(plan)
    return plan


def check_trials(plan: Plan) -> None:
    """Refuse a search without a number of trials: only a grid knows how many there are."""
    if plan.settings["trials"] is None:
        raise UserError(
            f"`sweep.trials` is null, and sweep={plan.word} does not end by itself. Write sweep.trials=30"
        )


def sweep_settings(composition: Composition) -> dict[str, Any]:
    """The `sweep` node as plain data, each value checked against its rule."""
    from omegaconf import OmegaConf

    node = OmegaConf.to_container(composition.cfg.sweep, resolve=True)
    assert isinstance(node, dict)
    asking = {path.removeprefix("sweep."): text for path, text in secrets_of(composition.cfg).items()}
    settings = {str(key): value for key, value in node.items()}
    put(settings, asking)  # an axis over `${oc.env:…}` is written down as it was asked for
    table = composition.catalogue.params(composition.choices)
    for key, value in settings.items():
        if key in ("_target_", "space"):
            continue
        if f"sweep.{key}" not in table:
            raise UserError(f"`sweep.{key}` is no key of sweep={composition.choices['sweep'][0]}.")
        check_value(table[f"sweep.{key}"], value)
    return settings


def axes_of(
    parsed: list[Override], composition: Composition, settings: dict[str, Any], first: Config
) -> list[Axis]:
    """All axes, in order: of YAML, of the command line, and the repetitions of sweep.seeds."""
    given = [space.axis_of(o) for o in parsed if o.is_sweep_override()]
    names = [axis.name for axis in given]
    fixed = {o.get_key_element() for o in parsed if not o.is_sweep_override()}
    for name in names:
        if names.count(name) > 1 or name in fixed:
            raise UserError(f"`{name}` is given twice. Write all its values in one list: {name}=a,b,c")
    check_axes(settings["space"])
    yaml = [a for a in space.axes_of_yaml(settings["space"]) if a.name not in names and a.name not in fixed]
    axes = space.without_repeats(space.zipped([*yaml, *given], settings["zip"]))
    if settings["seeds"] > 1:
        if "seed" in names:
            raise UserError(
                "`sweep.seeds` and the axis `seed` both say which seeds to run. Give one of them."
            )
        texts = [str(first.seed + i) for i in range(settings["seeds"])]
        axes.append(Axis("seed", tuple((text, (f"seed={text}",)) for text in texts)))
    for axis in axes:
        if axis.name in REPLICATES and not axis.options:
            raise UserError(f"`{axis.name}` repeats a configuration and needs values: {axis.name}=0,1,2")
    return axes


def fixed_overrides(parsed: list[Override]) -> tuple[list[str], bool]:
    """The overrides of every job, the test split closed; and whether its score was asked for."""
    fixed = [
        str(o.input_line)
        for o in parsed
        if not o.is_sweep_override() and o.key_or_group.split(".")[0] != "sweep"
    ]
    asked = [o for o in parsed if o.key_or_group == "evaluation.test" and not o.is_sweep_override()]
    test = bool(asked) and asked[-1].value() is True
    kept = [text for text in fixed if not text.startswith("evaluation.test=")]
    return [*kept, "evaluation.test=false"], test


def enumerate_grid(plan: Plan) -> None:
    """List the configurations of a grid; job numbers follow Hydra's order over all axes."""
    configurations: list[dict[str, Any]] = []
    index: dict[tuple[Any, ...], int] = {}
    order = {tuple(sorted(r.items())): i for i, r in enumerate(plan.replicates)}
    limit = plan.settings.get("trials") or math.inf
    number = itertools.count()
    for values in space.grid(plan.axes):
        chosen = {k: v for k, v in values.items() if k not in REPLICATES}
        key = tuple(chosen.items())
        if key not in index:
            if len(configurations) >= limit:
                continue
            index[key] = len(configurations)
            configurations.append(chosen)
        replicate = {k: v for k, v in values.items() if k in REPLICATES}
        plan.trial_of[index[key], order[tuple(sorted(replicate.items()))]] = next(number)
    plan.configurations = configurations
    if plan.settings["pruner"] != "none":
        place = {i: t for t, i in enumerate(shuffled(len(configurations)))}
        plan.configurations = sorted(configurations, key=lambda chosen: place[index[tuple(chosen.items())]])
        plan.trial_of = {(place[i], r): number for (i, r), number in plan.trial_of.items()}


def shuffled(length: int) -> list[int]:
    """The order in which a grid is tried where jobs are pruned: by chance, the same every time.

    A pruner compares with what came before, and the neighbours of a bad configuration are bad: in the order of the axes
    ASHA trained 55 % of a grid's epochs, in this one 24 % (docs/speed.md).
    """
    order = list(range(length))
    random.Random(0).shuffle(order)
    return order


def mode_of(config: Config) -> Mode:
    """The direction of a run's objective."""
    stopping = config.early_stopping
    return resolve_mode(stopping.get("metric", "val/loss"), stopping.get("mode", "auto"), config.metrics)


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


def check_prunable(plan: Plan, config: Config) -> None:
    """Refuse a pruner for a job that is evaluated only at its end."""
    word, every = plan.settings["pruner"], config.evaluation.every_epochs
    if word == "none":
        return
    length = config.steps if config.evaluation.every_steps else config.epochs or DEFAULT_EPOCHS
    interval = config.evaluation.every_steps or every
    if length and interval and (config.steps is None or config.evaluation.every_steps) and interval >= length:
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


def check_metrics(plan: Plan, config: Config) -> None:
    """Refuse a job that measures what jobs are compared by in another way than the first one, such as by another average."""
    for metric in plan.objectives or [plan.metric]:
        word = metric.rpartition("/")[2]
        then, now = plan.first.metrics.get(word), config.metrics.get(word)
        if then is not None and now is not None and now != then:
            key = next(key for key in {**then, **now} if then.get(key) != now.get(key))
            raise UserError(
                f"`metrics.{word}.{key}` is {now.get(key)}, but {then.get(key)} in the first job, and the jobs are compared by {metric}.\n"
                f"Give one value; to see both, add a word of your own: conf/metrics/NAME.yaml with `defaults: [{word}]`"
            )


def check_all(plan: Plan) -> list[Config]:
    """Compose and validate every configuration; of a search: every value of every axis."""
    configurations = plan.configurations
    if configurations is None:
        configurations = list(space.corners(plan.search_axes))
    found = []
    for chosen in configurations:
        for replicate in plan.replicates:
            values = {**chosen, **replicate}
            try:
                found.append(plan.composer.config(plan.overrides(values)))
                plan.rights.door(found[-1].trust).check_names(found[-1].plain)
                check_prunable(plan, found[-1])
                check_comparable(plan, found[-1])
                check_metrics(plan, found[-1])
            except UserError as error:
                shown = " ".join(f"{k}={v}" for k, v in values.items())
                raise type(error)(f"{error}\nin the job {shown}; nothing was run.") from None
    for config in found:
        if (loss := objective_of(config)) not in plan.losses:
            plan.losses.append(loss)
    check_scale(plan, found)
    return found


def check_scale(plan: Plan, configs: list[Config]) -> None:
    """Refuse to compare by what is minimized where an axis changes that: its values are on different scales."""
    metrics = plan.objectives or [str(config.early_stopping.get("metric")) for config in configs]
    watched = next((name for name in metrics if name.endswith("/objective")), None)
    settings = [dict(leaves(loss)) for loss in plan.losses]
    keys = sorted({key for found in settings for key in found})
    values = {key: {str(found.get(key)) for found in settings} for key in keys}
    changed = [f"{key} is {' or '.join(sorted(found))}" for key, found in values.items() if len(found) > 1]
    if watched and changed:
        key, cure = "early_stopping.metric", watched.removesuffix("objective") + "loss"
        if plan.objectives:
            key, cure = "sweep.objectives", f"[{','.join(plan.objectives)}]".replace(watched, cure)
        raise UserError(
            f"`{key}` names {watched}, which is the loss that is minimized, and the axes change that loss "
            f"({'; '.join(changed)}): its values would not compare.\n"
            f"The plain loss does not depend on them: {key}={cure}"
        )
