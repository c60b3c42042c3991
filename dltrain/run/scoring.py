"""Scoring runs that are done: each by its best weights, and several together as an ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dltrain.config.door import Door
from dltrain.config.schema import Config, undivided
from dltrain.data.batches import Joined, Split
from dltrain.data.changes import data_changes
from dltrain.data.contract import Contract, target_names
from dltrain.data.errors import some
from dltrain.data.raw import VAL
from dltrain.data.spec import DataSpec
from dltrain.data.split_names import SPLIT_NAMES
from dltrain.losses import combine, to_softmax
from dltrain.metrics import bootstrap
from dltrain.metrics.counts import confusion_of
from dltrain.metrics.report import names_of
from dltrain.metrics.targets import TargetRow, target_rows
from dltrain.metrics.thresholds import Threshold, at_threshold, best_thresholds
from dltrain.run.build import (
    build_augmentation,
    build_loss,
    build_model,
    check_outputs,
    choose_metrics,
    measures,
)
from dltrain.run.constant import constant_beside
from dltrain.run.data import build_data, other_data
from dltrain.run.draws import Draws, Passes
from dltrain.run.layer_use import former_use
from dltrain.run.machine import choose_device, set_machine
from dltrain.run.measured import zero_notes
from dltrain.run.other_data import (
    SAME_DATA,
    Trained,
    is_copy,
    say_joined,
    say_left_out,
    say_of_data,
    trained_on,
)
from dltrain.run.plan import choose_batch_size, make_plan
from dltrain.run.scored import Predicted, Scored, in_shared_units, same_targets, shared_measures
from dltrain.run.scores import Score
from dltrain.run.uncertainty import uncertainty
from dltrain.run.weights import load_best
from dltrain.storage.run_folder import checked_statistics, read_contract
from dltrain.text import SayOnce, say
from dltrain.training.parts import Plan


def grouped_by(config: Config) -> str:
    """Return that samples of a group are not independent, as the resamples of an interval take them; "" where there are no groups."""
    found = next((key for key in ("group_column", "groups") if config.dataset.get(key)), "")
    if not found:
        return ""
    return (
        f"the intervals take samples as independent, and those of one group (dataset.{found}={config.dataset[found]}) are not: "
        "the score is less certain than they say"
    )


def score_runs(
    paths: list[Path],
    configs: list[Config],
    doors: list[Door],
    resamples: int = 0,
    whole: bool = False,
    originals: list[Config] | None = None,
    decision: tuple[str, float] | None = None,
    without_test: bool = False,
) -> list[Score]:
    """Score each run's best weights on val and test; with several runs also the mean of their outputs (L3).

    resamples: number of the bootstrap; 0 gives no intervals. whole: all samples of other data than those of the runs are scored as one
    split, `all`, unless the data turn out to be a copy. originals: the configurations of the runs without changes, by which their data are
    found again to tell which samples were trained on; None does not look. decision: a class of two, and the probability to predict it from.
    without_test: leave the test split out.
    Raises CheckpointProblem for a run without best weights. Of a split that several runs do not share there is no ensemble.
    """
    scores: list[Score] = []
    outputs: list[Predicted] = []
    losses: list[object] = []
    specs: list[DataSpec] = []
    predicted: list[list[str]] = []
    left_out_splits = {"test"} if without_test else set()
    # what several runs say alike
    tell = SayOnce()
    if whole and all(is_copy(*run) for run in zip(paths, configs, doors, strict=True)):
        whole, originals = False, None
        tell(SAME_DATA)
    for i, (path, config, door) in enumerate(zip(paths, configs, doors, strict=True)):
        parts, plan = build_scored(config, door, path, read_contract(path), whole)
        trained = None
        if originals is not None:
            original = replace(originals[i], device=config.device)
            trained = trained_on(path, config, original, door, plan.device, whole)
        if whole:
            say_joined(config, parts.spec.sizes, tell)
        if resamples and (groups := grouped_by(config)):
            tell(groups)
        seen = say_of_data(path, parts.splits, parts.contract, parts.spec.notes, trained, tell)
        left_out = say_left_out(parts.spec.notes, whole, tell)
        known = trained.targets if isinstance(trained, Trained) else None if whole else parts.train.targets
        load_best(parts, path)
        plain, parts = parts, with_decision(parts, decision)
        draws = Draws.of(config)
        outputs.append({})
        losses.append(parts.loss)
        specs.append(parts.spec)
        predicted.append(target_names(parts.contract))
        for name, split in parts.splits.items():
            if name in left_out_splits:
                continue
            passes, targets = predict(parts, plan, split, draws)
            outputs[-1][name] = mean_output(parts, passes), targets
            for note in zero_notes(parts.metrics, parts.spec, {name: targets}):
                tell(note)
            score = scored(parts, str(path), name, passes, targets, resamples)
            constant = constant_beside(plain.spec, plain.metrics, plain.measures, known, targets)
            score = replace(
                score, trained_on=seen.get(name), constant=constant, left_out=left_out, notes=parts.notes
            )
            unknown = trained if isinstance(trained, str) else ""
            scores.append(replace(score, trained_on_unknown=unknown))
    if len(paths) == 1:
        return scores
    shared = in_shared_units(*shared_measures(parts, losses, configs, outputs), specs)
    return scores + ensemble(*shared, resamples, predicted)


def build_scored(
    config: Config,
    door: Door,
    path: Path,
    contract: Contract | None,
    whole: bool,
    words: Sequence[str] | None = None,
) -> tuple[Scored, Plan]:
    """Build what scoring needs of a run, without its initializer, optimizer and rules.

    words: the command, for the cure of data that have changed; None is `evaluate`. Raises DataProblem for these, unless they are scored
    as a `whole`: divided again, their val and test splits would hold samples of the training.
    """
    set_machine(config)
    device = choose_device(config.device)
    config = undivided(config) if whole else config
    splits = build_data(config, door, device, checked_statistics(path, contract), contract, tolerant=True)
    if not whole and (changed := data_changes(contract, splits.contract)):
        command = words or ("evaluate", str(path))
        raise other_data(path, config, changed, command, "" if words else "evaluate")
    size = choose_batch_size(None, len(splits.train))
    unfilled = replace(config, initializer={})
    model, _, _ = build_model(unfilled, door, splits, device, size, former_use(path))
    loss = build_loss(config, door, splits.spec, device)
    chosen, objects, notes = choose_metrics(config, door, splits, loss)
    metrics, _ = measures(loss, splits.spec, chosen)
    check_outputs(model, loss, metrics, splits, config, objects)
    found = {"train": splits.train, "val": splits.val, "test": splits.test}
    present = {name: split for name, split in found.items() if split is not None}
    scored: Mapping[str, Split | Joined] = (
        {"all": Joined(list(present.values()))}
        if whole
        else {k: v for k, v in present.items() if k != "train"}
    )
    plan = make_plan(replace(config, accumulate=1), device, size, 1)
    return Scored(
        model,
        splits.spec,
        scored,
        loss,
        metrics,
        objects,
        build_augmentation(config, door, splits.spec),
        splits.contract,
        splits.train,
        notes=notes if config.metrics else (),
    ), plan


def scored(parts: Scored, run: str, split: str, passes: Tensor, targets: Tensor, resamples: int) -> Score:
    """Score the outputs (P, N, K) of one or several passes over a split."""
    outputs = mean_output(parts, passes)
    values = measure(parts, outputs, targets) | uncertainty(
        parts.metrics["loss"], parts.spec, passes, targets, parts.loss
    )
    found = bootstrap.intervals(parts.metrics, parts.measures, outputs, targets, resamples)
    if parts.spec.task != "classification":
        score = Score(run, split, len(targets), values, found)
        return replace(score, by_target=by_target(parts, outputs, targets))
    threshold = parts.threshold
    outputs = to_softmax(parts.loss, outputs)
    decided = outputs if threshold is None else threshold.decided(outputs)
    counts = confusion_of(decided, targets).long().cpu()
    score = Score(run, split, len(targets), values, found, counts, parts.spec.class_names)
    if threshold is not None:
        return replace(score, threshold=threshold, following=parts.following)
    # other data are not there to choose by, and the test split least of all
    if split != SPLIT_NAMES[VAL] or outputs.shape[1] != 2:
        return score
    place, best = best_thresholds(outputs, targets)
    return replace(score, suggested=best, suggested_for=names_of(counts, parts.spec.class_names)[place])


def by_target(parts: Scored, outputs: Tensor, targets: Tensor) -> tuple[TargetRow, ...]:
    """Return the scores of each target of a regression, in its units; outputs and targets are those of the model."""
    if parts.spec.task != "regression":
        return ()
    found, true = (parts.spec.in_units(values.reshape(len(values), -1)) for values in (outputs, targets))
    return target_rows(found, true, target_names(parts.contract))


def with_decision(parts: Scored, decision: tuple[str, float] | None) -> Scored:
    """Return parts whose metrics of predicted classes follow a threshold. Raises UserError where it does not fit the data."""
    if decision is None:
        return parts
    spec = parts.spec
    threshold = Threshold.of(*decision, spec.task, spec.num_classes, spec.class_names)
    metrics, objects, following = at_threshold(parts.metrics, parts.measures, threshold)
    return replace(parts, metrics=metrics, measures=objects, threshold=threshold, following=following)


def predict(
    parts: Scored, plan: Plan, split: Split | Joined, draws: Draws | None = None
) -> tuple[Tensor, Tensor]:
    """Return all logits (P, N, C) of a split in each of P passes, and targets (N, …); one pass without draws.

    Raises UserError for draws that the model or its augmentation does not have (`dltrain.run.draws.Passes`).
    """
    passes = Passes(
        parts.model, draws or Draws(), parts.augmentation, parts.spec, plan.seed, plan.device, plan.precision
    )
    outputs, targets = [], []
    with passes.ready():
        batches = split.batches(torch.arange(len(split)), plan.evaluation_batch_size)
        for number, batch in enumerate(batches):
            outputs.append(passes.outputs(batch.inputs, batch.targets, batch.indices, number))
            targets.append(batch.targets)
    return torch.cat(outputs, 1), torch.cat(targets)


def _why_apart(apart: list[str], predicted: Sequence[list[str]]) -> str:
    """Return why several runs have no ensemble on the splits `apart`."""
    splits = f"{' and '.join(apart)} split{'s' * (len(apart) > 1)}"
    for names in predicted[1:]:
        if names != predicted[0]:
            first, other = (some(map(repr, of)) for of in (predicted[0], names))
            return f"the runs predict {first} and {other} on their {splits}"
    return f"the runs do not share their {splits} (folds, other data, or another dataset.split_seed)"


def mean_output(parts: Scored, passes: Tensor) -> Tensor:
    """Return one output for each sample from those of several passes: their mean in the space of the loss."""
    return passes[0] if len(passes) == 1 else combine(parts.loss, passes)


def measure(parts: Scored, logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Return every metric of all outputs of a split."""
    means = {name: float(metric(logits, targets).double().mean()) for name, metric in parts.metrics.items()}
    return means | parts.measures.of(logits, targets)


def ensemble(
    parts: Scored, outputs: list[Predicted], resamples: int = 0, predicted: Sequence[list[str]] = ()
) -> list[Score]:
    """Return the mean of several models' outputs, in the space of their loss, on the splits that they share, and name the others.

    predicted: the target columns of each run
    """
    scores, apart = [], []
    for name, (first, targets) in outputs[0].items():
        logits = [output[name][0] for output in outputs]
        if any(
            other.shape != first.shape or not same_targets(output[name][1], targets)
            for output, other in zip(outputs, logits, strict=True)
        ):
            apart.append(name)
            continue
        members = torch.stack(logits)
        scores.append(scored(parts, f"ensemble of {len(outputs)}", name, members, targets, resamples))
    if apart:
        say(f"{_why_apart(apart, predicted)}: scored one by one there, without an ensemble")
    return scores
