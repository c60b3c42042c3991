"""Describe in sentences, with the numbers, what the columns of metrics.csv show about a run."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import mean, median
from typing import Literal

from dltrain.direction import improves
from dltrain.errors import typed
from dltrain.report.guess import compared_score, loss_beside, margin_of, mode_of
from dltrain.report.record import Record, Row, number_in
from dltrain.screen.numbers import number
from dltrain.storage.proposed import beyond_record, is_rerun, name_option
from dltrain.storage.summary import FINISHED, column_of, texts

Kind = Literal["bad", "warn", "note", "good"]

FEW = 8  # evaluations below which no trend is reported
FALLING = 0.03  # fraction of train/loss by which it falls over the last quarter
RISEN = 0.05  # fraction of its best value by which val/loss rises
GAP = 0.05  # difference of two accuracies
SMALL_LR = 0.01  # fraction of the largest learning rate
IDLE = 0.2  # fraction of the evaluations under it that is reported
TINY_GRADIENT = 1e-6
SPIKE = 50.0  # times the gradient norm of the evaluations around
VANISHED = 1e-3  # fraction of the largest gradient of a layer
DEAD = 0.5
NOISE = (".dropout", ".stochastic_depth")  # ends of keys: what switches units or layers off in training


@dataclass(frozen=True)
class Finding:
    """A sentence about a run. command: what to type, if anything."""

    kind: Kind
    text: str
    command: str = ""


def findings(record: Record) -> list[Finding]:
    """Return the findings, the worst first; a note if there are none."""
    found = [finding for rule in RULES for finding in rule(record)]
    if not found:
        count = len(record.rows)
        what = f"{count} evaluation{'s' if count > 1 else ''}"
        return [Finding("note", f"Nothing conspicuous in {what}.")] if count else []
    return sorted(found, key=lambda finding: ("bad", "warn", "note", "good").index(finding.kind))


def not_finite(record: Record) -> Iterator[Finding]:
    """Report where a loss stops being a number."""
    for name in ("train/loss", "val/loss"):
        bad = [k for k, value in enumerate(column_of(record.rows, name, 0.0)) if not math.isfinite(value)]
        if bad:
            yield Finding(
                "bad",
                f"{name} is not finite in {len(bad)} of {len(record.rows)} evaluations, first in {at(record.rows[bad[0]])}: "
                "a smaller lr, or regularization=[gradient_clipping], keeps it finite.",
                proposed(record, "find-lr", *without(record, "lr")),
            )


def not_learning(record: Record) -> Iterator[Finding]:
    """Report that the training loss is where it began."""
    losses = record.column("train/loss")
    if len(losses) < 3 or not has_stalled(losses):
        return
    first, last = losses[0][1], losses[-1][1]
    yield Finding(
        "bad",
        f"train/loss did not fall: {number(first)} in the first evaluation, {number(last)} in the last. It does not learn.",
        proposed(record, "check", *overrides(record)),
    )


def has_stalled(losses: list[tuple[float, float]]) -> bool:
    first, lowest = losses[0][1], min(value for _, value in losses[1:])
    return lowest > first - 0.01 * abs(first)


def overfitting(record: Record) -> Iterator[Finding]:
    """Report that val/loss rises while train/loss falls."""
    validation, training = record.column("val/loss"), dict(record.column("train/loss"))
    if len(validation) < FEW:
        return
    epoch, lowest = min(validation, key=lambda point: point[1])
    end = mean(value for _, value in validation[-3:])
    last = validation[-1][0]
    if end - lowest <= RISEN * abs(lowest) or training.get(last, math.inf) >= training.get(epoch, -math.inf):
        return
    yield Finding(
        "warn",
        f"val/loss rose from {number(lowest)} in epoch {epoch:g} to {number(end)} (mean of the last three evaluations), "
        f"while train/loss fell from {number(training[epoch])} to {number(training[last])}: overfitting since epoch {epoch:g}. "
        "The best weights are kept; regularization, augmentation or more data push the minimum lower.",
    )


def still_falling(record: Record) -> Iterator[Finding]:
    """Report that the training ended before its loss leveled off."""
    losses = record.column("train/loss")
    is_running = record.summary["status"] == "running"
    if is_running or len(losses) < FEW or has_stalled(losses) or any(overfitting(record)):
        return
    quarter = losses[-max(4, len(losses) // 4) :]
    half = len(quarter) // 2
    early, late = mean(v for _, v in quarter[:half]), mean(v for _, v in quarter[-half:])
    if early - late <= FALLING * abs(early) or not best_is_late(record):
        return
    text = (
        f"train/loss was still falling at the end: {number(early)} to {number(late)} over the last {len(quarter)} evaluations "
        f"({100 * (early - late) / abs(early):.0f} %), and the best {record.metric} is that of epoch "
        f"{record.best.get('epoch', losses[-1][0]):g} of {losses[-1][0]:g}"
    )
    if record.summary["status"] not in FINISHED:
        cure = f". The run is {record.summary['status']}: go on with it."
        yield Finding("warn", text + cure, typed("resume", record.path))
        return
    epochs = f"epochs={2 * math.ceil(losses[-1][0])}"
    command = typed("rerun", record.path, epochs)
    has_epochs = without(record, "steps") == overrides(record)
    yield Finding("warn", f"{text}: train longer.", command if has_epochs else "")


def best_is_late(record: Record) -> bool:
    """Return whether the best evaluation is in the last tenth of the run."""
    return record.best.get("step", math.inf) >= 0.9 * record.rows[-1]["step"]


def remarked(record: Record) -> Iterator[Finding]:
    """Report what was planned and is not in the weights."""
    for remark in texts(record.summary.get("remarks")):
        yield Finding("warn", f"{remark}.")


def gap(record: Record) -> Iterator[Finding]:
    """Report the distance between training and validation at the best evaluation."""
    best = record.best
    train, val = best.get("train/accuracy", math.nan), best.get("val/accuracy", math.nan)
    if train - val > GAP:
        yield Finding(
            "note",
            f"In the best epoch train/accuracy is {number(train)} and val/accuracy {number(val)}: a gap of {number(train - val)}. "
            "Regularization, augmentation or more data narrow it.",
        )
    train, val = best.get("train/loss", math.nan), best.get("val/loss", math.nan)
    # at the first of the weights of which train/loss is the mean
    before = row_before(record, best).get("val/loss", math.inf)
    if train > 1.2 * max(val, before) > 0:
        yield Finding(
            "note",
            f"In the best epoch train/loss ({number(train)}) is above val/loss ({number(val)}): "
            f"{training_only(record)}the model underfits.",
        )


def row_before(record: Record, row: Row) -> Row:
    """Return the evaluation before a row; empty before the first."""
    return max(
        (other for other in record.rows if other["step"] < row.get("step", -math.inf)),
        key=lambda other: other["step"],
        default={},
    )


def training_only(record: Record) -> str:
    """Return what, beside the model, raises the training loss above that of validation; "" where a run has nothing."""
    config = config_of(record)
    found = [
        f"its {group} ({', '.join(names)})"
        for group in ("augmentation", "regularization", "sampler")
        if (names := words_in(config, group))
    ]
    # parameters of models, such as model.dropout
    found += [key for key, value in config.items() if key.endswith(NOISE) and number_in(config, key)]
    told = f"{' and '.join(found)} act{'s' * (len(found) == 1)} in training only, or " if found else ""
    averages = words_in(config, "averaging")
    return told + (f"its averaging ({averages[0]}) acts in validation only, or " if averages else "")


def config_of(record: Record) -> dict[str, object]:
    """Return the configuration of a run by dotted key; empty where its summary has none."""
    config = record.summary.get("config")
    return config if isinstance(config, dict) else {}


def words_in(config: Mapping[str, object], group: str) -> list[str]:
    """Return the words that a run chose of a group, but for `none`."""
    chosen = config.get(group)
    words = chosen if isinstance(chosen, list) else [chosen]
    return [str(word) for word in words if word not in (None, "none")]


def idle_lr(record: Record) -> Iterator[Finding]:
    """Report how long the learning rate was at the bottom of its schedule."""
    rates = record.column("lr")
    if len(rates) < FEW:
        return
    highest = max(value for _, value in rates)
    low = (
        len(rates) - 1 - max(i for i, (_, value) in enumerate(rates) if value > SMALL_LR * highest)
        if highest > 0
        else 0
    )
    if low >= IDLE * len(rates):
        yield Finding(
            "note",
            f"lr was below {SMALL_LR:.0%} of its maximum ({number(highest)}) in the last {low} of {len(rates)} evaluations, "
            f"down to {number(rates[-1][1])}: these epochs hardly moved the weights.",
        )


def gradient_norm(record: Record) -> Iterator[Finding]:
    """Report gradients that vanish or spike."""
    norms = record.column("grad_norm")
    if len(norms) < 3:
        return
    values = [value for _, value in norms]
    if values[-1] < TINY_GRADIENT:
        yield Finding(
            "note",
            f"grad_norm is {number(values[-1])} in the last evaluation (first: {number(values[0])}): the gradient has vanished, "
            "at a minimum or in a saturated model.",
        )
    times, i = max(
        ((v / around, i) for i, v in enumerate(values) if (around := neighbors(values, i)) > 0),
        default=(0.0, 0),
    )
    if times > SPIKE:
        yield Finding(
            "warn",
            f"grad_norm reached {number(values[i])} in epoch {norms[i][0]:g}, {times:,.0f} times that of the evaluations around it "
            f"(median {number(neighbors(values, i))}): such steps throw the weights far.",
            clipped(record),
        )


def neighbors(values: list[float], i: int, reach: int = 3) -> float:
    """Return the median of the values before and after one, without it."""
    return median([*values[max(0, i - reach) : i], *values[i + 1 : i + 1 + reach]])


def layers(record: Record) -> Iterator[Finding]:
    """Report layers whose gradient vanishes, and dead units, from the columns of diagnostics=[layers]."""
    if not record.rows:
        return
    gradients = by_layer(record.rows[-1], "gradient")
    if len(gradients) > 1:
        most = max(gradients, key=lambda name: gradients[name])
        least = min(gradients, key=lambda name: gradients[name])
        ratio = gradients[least] / gradients[most] if gradients[most] > 0 else 1.0
        if ratio < VANISHED:
            yield Finding(
                "bad",
                f"Layer {least} receives {ratio:.1e} of the gradient of layer {most} ({number(gradients[least])} and "
                f"{number(gradients[most])} in the last evaluation): it vanishes on the way.",
            )
    for name, share in by_layer(record.rows[-1], "dead").items():
        if share > DEAD:
            yield Finding(
                "warn", f"{share:.0%} of the units of layer {name} are dead: no sample activates them."
            )


def by_layer(row: Row, quantity: str) -> dict[str, float]:
    """Return a quantity of diagnostics=[layers] by layer, where it is finite."""
    found = {re.fullmatch(rf"layers/(.+)/{quantity}", name): value for name, value in row.items()}
    return {match[1]: value for match, value in found.items() if match and math.isfinite(value)}


def constant_guess(record: Record) -> Iterator[Finding]:
    """Compare a test score with that of a constant guess; where it is not better, the loss as well."""
    name = compared_score(record)
    if not name:
        return
    test, constant = record.tests[name], record.constant[name]
    mode, margin = mode_of(record, name), margin_of(record, name)
    guess = f"({number(constant)}{f' ± {number(margin)}, {record.scored:,} samples' if margin else ''})"
    if improves(test, constant, mode, margin):
        yield Finding("good", f"Test {name} {number(test)}: better than a constant guess {guess}.")
        return
    within = improves(test, constant, mode)
    verdict = (
        "not distinguishable from a constant guess by " + name
        if within
        else "not better than a constant guess"
    )
    has_lower_loss, by_loss = loss_beside(record, name)
    kind: Kind = "warn" if within or has_lower_loss else "bad"
    yield Finding(kind, f"Test {name} {number(test)}: {verdict} {guess}{by_loss}.")


RULES: tuple[Callable[[Record], Iterator[Finding]], ...] = (
    not_finite, not_learning, remarked, overfitting, still_falling, gap, idle_lr, gradient_norm, layers, constant_guess,
)  # fmt: skip


# Commands -----------------------------------------------------------------------------------------------------------


def overrides(record: Record) -> list[str]:
    given = record.summary.get("overrides")
    return [str(text) for text in given] if isinstance(given, list) else []


def without(record: Record, *keys: str) -> list[str]:
    """Return the overrides of a run but for those of some keys."""
    return [text for text in overrides(record) if text.partition("=")[0] not in keys]


def command_of(record: Record) -> str:
    return str(record.summary.get("command") or "")


def proposed(record: Record, *words: str) -> str:
    """Return a command of words and overrides of a run; "" where its record holds what only the user may say.

    None for a repeated run either, whose overrides are changes of another one.
    """
    command = command_of(record)
    told = not is_rerun(command) and not beyond_record(overrides(record), command)
    return typed(*words, *name_option(command)) if told else ""


def clipped(record: Record) -> str:
    """Return the command of a run with gradient clipping; none for one that has other regularization."""
    if without(record, "regularization") != overrides(record) or words_in(
        config_of(record), "regularization"
    ):
        return ""
    change = "regularization=[gradient_clipping]"
    return proposed(record, *overrides(record), change) or typed("rerun", record.path, change)


def at(row: Row) -> str:
    return f"epoch {row.get('epoch', row['step']):g}"
