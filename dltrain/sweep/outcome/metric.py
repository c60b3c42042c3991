"""The metric by which runs are compared: its direction, and whether all of them measure the same by it."""

from __future__ import annotations

from collections.abc import Sequence

from dltrain.config.comparable import changes, definition_of, described, plain_of
from dltrain.config.keys import REPLICATES, SCORED_ON
from dltrain.data.errors import some
from dltrain.direction import NO_RANK, RATES, Mode
from dltrain.errors import CheckpointProblem, UserError, listing
from dltrain.sweep.outcome.members import Member, choices_of


def check_apart(members: Sequence[Member], metric: str) -> None:
    """Refuse times and memory of runs that were trained as one stack, which are those of the stack and fall by job number."""
    stacked = [label_of(member) for member in members if member.summary.get("stacked") is True]
    if stacked and metric in RATES:
        raise UserError(
            f"`--metric` is {metric}, and {some(stacked, 3)} {'was' if len(stacked) == 1 else 'were'} trained as one stack of jobs, "
            f"so that the {metric} of a job is that of the stack. Repeat the sweep with sweep.backend=local"
        )


def label_of(member: Member) -> str:
    """Return how a run is called: by its label, or its folder."""
    return member.label or str(member.path)


def check_tasks(members: Sequence[Member]) -> None:
    """Raise CheckpointProblem where the runs have different tasks."""
    tasks = {
        str(member.data["task"]): member for member in members if isinstance(member.data.get("task"), str)
    }
    if len(tasks) > 1:
        (one, left), (other, right) = list(tasks.items())[:2]
        raise CheckpointProblem(
            f"{left.path} is a {one} and {right.path} a {other}: their scores do not compare. Name runs of one task."
        )


def shared_direction(members: Sequence[Member], metric: str) -> Mode | None:
    """Return whether lower or higher is better in all runs that know it; None where none does or they differ."""
    modes = {mode for member in members if (mode := member.direction(metric)) is not None}
    return modes.pop() if len(modes) == 1 else None


def direction_among(members: Sequence[Member], metric: str) -> Mode:
    """Return whether lower or higher is better. Raises UserError, with the cure, where it is not known or the runs differ."""
    mode = shared_direction(members, metric)
    if mode is not None:
        return mode
    owners = {member.direction(metric): label_of(member) for member in members}
    if "min" in owners and "max" in owners:
        raise UserError(
            f"`--metric` is {metric}, of which higher is better in {owners['max']} and lower in {owners['min']}. "
            "Compare those with one direction."
        )
    directed = [name for name in members[0].scores if shared_direction(members, name)]
    raise UserError(
        f"`--metric` is {metric}, of which it is not known whether lower or higher is better: a word of yours says it by "
        f'`direction = "max"` in its class or `_direction_: max` in its file, for runs from then on.\n{listing("Scores with a direction", directed)}'
    )


def differently_computed(members: Sequence[Member], metric: str) -> str:
    """Return in which way runs on the same data compute a metric differently, or why the metric ranks nothing; "" where it compares."""
    if metric == "gap" and any(set(choices).difference(REPLICATES) for choices in choices_of(members)):
        return NO_RANK
    alike: dict[str, list[Member]] = {}
    for member in members:
        alike.setdefault(repr([member.config.get(key) for key in SCORED_ON]), []).append(member)
    for part in alike.values():
        found = changes(metric, [member.config for member in part])
        if why := described(found) if found else edited(metric, part):
            return f"the values of {metric} do not compare ({why})"
    return ""


def edited(metric: str, members: Sequence[Member]) -> str:
    """Return that the file of an own metric, or of the loss of `objective`, was edited between runs; "" where it was not."""
    states: dict[str, set[str]] = {}
    for member in members:
        for key in definition_of(metric):
            module = str(member.config.get(f"{key}._target_") or "").rpartition(".")[0].replace(".", "/")
            for file in (f"{module}.py", f"{module}/__init__.py"):
                if file in member.code:
                    states.setdefault(file, set()).add(member.code[file])
    files = [file for file, known in states.items() if len(known) > 1]
    return f"{files[0]} was edited" if files else ""


def plain_metric(members: Sequence[Member], metric: str, different: str, refused: bool) -> str:
    """Return the metric that compares in place of another one. Raises UserError where that was asked for, or there is none."""
    instead = plain_of(metric)
    known = any(instead in member.scores for member in members)
    if not known or refused:
        cure = f"Compare by --metric {instead}" if known else "Name runs that compute it in the same way"
        raise UserError(f"{different[:1].upper()}{different[1:]}.\n{cure}")
    return instead
