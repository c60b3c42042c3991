"""Scores of runs, as lines and as JSON."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from torch import Tensor

from dltrain.data.errors import some
from dltrain.metrics import bootstrap
from dltrain.metrics.report import class_rows, confusion_lines, names_of, per_class_lines
from dltrain.metrics.targets import TargetRow
from dltrain.metrics.thresholds import BALANCED, F1_OF_CLASS, Best, Threshold
from dltrain.screen.numbers import number
from dltrain.text import counted, show, shown

CONSTANT = "constant guess"
# what a threshold is suggested by, as it is shown
KINDS = {F1_OF_CLASS: "f1 of {}", BALANCED: "balanced_accuracy"}


@dataclass(frozen=True)
class Score:
    """The scores of a run (or of the ensemble) on one split.

    intervals: low and high end by metric; counts: (C, C) of true class (row) and predicted class, of a classification; trained_on:
    samples that are equal to one of the training of the run, None where that is not known or the data are its own; trained_on_unknown: why it is
    not known, of other data; constant: scores of a
    constant guess; left_out: lines on rows that do not fit the columns of the run; threshold: by which classes are predicted, and
    following the metrics that it changes; suggested: thresholds on the probability of the class `suggested_for`, of the val split;
    notes: lines on what the metrics mean; by_target: scores of each target, of a regression on several
    """

    run: str
    split: str
    samples: int
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    counts: Tensor | None = None
    class_names: tuple[str, ...] = ()
    trained_on: int | None = None
    trained_on_unknown: str = ""
    constant: dict[str, float] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    threshold: Threshold | None = None
    following: Sequence[str] = ()
    suggested: Sequence[Best] = ()
    suggested_for: str = ""
    notes: tuple[str, ...] = ()
    by_target: tuple[TargetRow, ...] = ()


def print_scores(scores: list[Score]) -> None:
    """Print one aligned line for each run and split, and below it that of a constant guess."""
    width = max(len(score.run) for score in scores)
    width = max(width, len(CONSTANT)) if any(score.constant for score in scores) else width
    names = list(dict.fromkeys(name for score in scores for name in score.values))
    show(f"{'run':<{width}}  {'split':<5}  {'samples':>8}  " + "  ".join(f"{name:>12}" for name in names))
    told: list[tuple[str, dict[str, float]]] = []
    for score in scores:
        lines = [(score.run, score.values)]
        if score.constant and (score.split, score.constant) not in told:
            lines.append((CONSTANT, score.constant))
            told.append((score.split, score.constant))
        for name, values in lines:
            cells = [number(values[key]) if key in values else "–" for key in names]
            show(
                f"{name:<{width}}  {score.split:<5}  {score.samples:>8}  "
                + "  ".join(f"{c:>12}" for c in cells)
            )


def print_details(scores: list[Score], resamples: int) -> None:
    """Print what the metrics mean, the threshold, the intervals of all scores, and by class or target those of the last split of each run."""
    for note in dict.fromkeys(note for score in scores for note in score.notes):
        show(note)
    for score in scores:
        for line in filter(None, (undefined(score), absent(score))):
            show(line)
    if (threshold := scores[0].threshold) is not None:
        changed = [*scores[0].following, "confusion matrix", "report by class"]
        show(f"\nthreshold: {threshold}; it changes {', '.join(changed)}, and no other score")
    if any(score.intervals for score in scores):
        show(
            f"\n{100 * bootstrap.LEVEL:.0f} % intervals ({resamples:,} bootstrap resamples, seed {bootstrap.SEED})"
        )
        names = list(dict.fromkeys(name for score in scores for name in score.intervals))
        width = max(len(score.run) for score in scores)
        show(f"{'run':<{width}}  {'split':<5}  " + "  ".join(f"{name:>18}" for name in names))
        for score in scores:
            ends = (score.intervals.get(name) for name in names)
            cells = ["–" if pair is None else f"{number(pair[0])} … {number(pair[1])}" for pair in ends]
            show(f"{score.run:<{width}}  {score.split:<5}  " + "  ".join(f"{cell:>18}" for cell in cells))
    for score in {score.run: score for score in scores}.values():
        if score.counts is not None:
            show(f"\n{score.run}, {score.split} split")
            show("\n".join(per_class_lines(score.counts, score.class_names)))
            if matrix := confusion_lines(score.counts, score.class_names):
                show("\n" + "\n".join(matrix))
        if score.by_target:
            show(f"\n{score.run}, {score.split} split")
            show("\n".join(per_target_lines(score.by_target)))
    for score in scores:
        for line in suggestion(score):
            show(line)


def per_target_lines(rows: Sequence[TargetRow], most: int = 40) -> list[str]:
    """Return the report by target as aligned lines; of more than `most` targets, those with the lowest r2."""
    left_out = ""
    if len(rows) > most:
        left_out = f"the {most} of {len(rows)} targets with the lowest r2"
        rows = sorted(rows, key=lambda row: (row.r2 != row.r2, row.r2))[:most]
    names = [shown(row.name) for row in rows]
    width = max(map(len, ("target", *names)))
    lines = [f"{'target':<{width}}  {'mae':>12}  {'rmse':>12}  {'r2':>9}"]
    lines += [f"{left_out}:"] if left_out else []
    for name, row in zip(names, rows, strict=True):
        lines.append(f"{name:<{width}}  {number(row.mae):>12}  {number(row.rmse):>12}  {number(row.r2):>9}")
    return lines


def undefined(score: Score) -> str:
    """Return a line on the metrics that are no number, of samples of one class with the reason; empty where all are numbers."""
    names = [name for name, value in score.values.items() if math.isnan(value)]
    if not names:
        return ""
    verb = "is" if len(names) == 1 else "are"
    text = f"nan      {', '.join(names)} {verb} not defined for the {score.split} split of {score.run}"
    present = [] if score.counts is None else score.counts.sum(1).nonzero().flatten().tolist()
    if len(present) == 1 and score.counts is not None:
        text += f": all samples are of class {shown(names_of(score.counts, score.class_names)[present[0]])}"
    return text


def absent(score: Score) -> str:
    """Return a line on the classes of which a split has no sample; empty where it has all."""
    names = [] if score.counts is None else names_of(score.counts, score.class_names)
    missing = [] if score.counts is None else (score.counts.sum(1) == 0).nonzero().flatten().tolist()
    if not missing:
        return ""
    return (
        f"absent   the {score.split} split of {score.run} has no sample of {some(shown(names[k]) for k in missing)}: averages over the "
        "classes leave out those that are neither there nor predicted"
    )


def suggestion(score: Score) -> list[str]:
    """Return lines on thresholds with higher scores on the val split; none where 0.5 has the highest."""
    name = score.suggested_for
    lines = []
    for best in score.suggested:
        if best.score > best.at_half and best.threshold not in (0.0, 0.5, 1.0):
            option = shlex.quote(f"{name}={best.threshold!r}")
            kind = KINDS[best.kind].format(shown(name))
            lines.append(f"  --threshold {option}: {kind} {best.score:.4f} (at 0.5 {best.at_half:.4f})")
    head = f"\n{score.run}, thresholds on p({shown(name)}) with the highest scores on {score.split} ({counted(score.samples, 'sample')})"
    return [head, *lines] if lines else []


def as_json(scores: list[Score], resamples: int) -> str:
    """Return the scores as one JSON document; a value that is not finite is null."""
    listed = []
    for score in scores:
        item: dict[str, object] = {
            "run": score.run,
            "split": score.split,
            "samples": score.samples,
            "values": score.values,
            "intervals": score.intervals,
            "trained_on": score.trained_on,
            "left_out": list(score.left_out),
        }
        if score.trained_on_unknown:
            item["trained_on_unknown"] = score.trained_on_unknown
        if score.constant:
            item["constant"] = score.constant
        if score.threshold is not None:
            item["threshold"] = {
                "class": score.threshold.name,
                "value": score.threshold.value,
                "changes": list(score.following),
            }
        if score.suggested:
            best = [asdict(one) for one in score.suggested]
            item["suggested_thresholds"] = {"class": score.suggested_for, "best": best}
        if score.counts is not None:
            item["per_class"] = [asdict(row) for row in class_rows(score.counts, score.class_names)]
            item["classes"] = names_of(score.counts, score.class_names)
            item["confusion_matrix"] = score.counts.tolist()
        if score.by_target:
            item["per_target"] = [asdict(row) for row in score.by_target]
        listed.append(item)
    how = {"resamples": resamples, "level": bootstrap.LEVEL, "seed": bootstrap.SEED}
    content = finite({"format": 1, "bootstrap": how, "scores": listed})
    return json.dumps(content, indent=1, allow_nan=False)


def finite(value: object) -> object:
    """Return plain data with None for numbers that are not finite, which JSON does not know."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
