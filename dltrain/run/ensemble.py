"""Predictions of several models together: the mean of their outputs in the space of their loss, as `evaluate` has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from dltrain.data.contract import Contract
from dltrain.data.errors import some
from dltrain.errors import DataProblem, UserError
from dltrain.losses import combine, to_softmax, yardstick
from dltrain.run.prediction import Predictions, Predictor, loss_of, spec_of


def check_ensemble(predictors: Sequence[Predictor], names: Sequence[str]) -> None:
    """Refuse models that do not predict the same: another task, other classes or other quantities. Raises UserError."""
    contracts = [predictor.known_contract() for predictor in predictors]
    first = contracts[0]
    for name, contract in zip(names[1:], contracts[1:], strict=True):
        both = f"{names[0]} and {name} are no ensemble: "
        if contract.task != first.task:
            raise UserError(f"{both}the first is a {first.task}, the second a {contract.task}.")
        found = (_predicted(first), _predicted(contract))
        if found[0] != found[1]:
            raise UserError(
                f"{both}they predict {some(map(repr, found[0]))} and {some(map(repr, found[1]))}."
            )


def _predicted(contract: Contract) -> tuple[object, ...]:
    quantities = tuple(rule.name for rule in contract.targets) if contract.task == "regression" else ()
    return contract.class_names or quantities or tuple(range(contract.outputs))


def ensemble(predictors: Sequence[Predictor], members: Sequence[Predictions]) -> Predictions:
    """Return the mean of several predictions in the space of their loss, as `evaluate` has it; what one leaves out is left out."""
    if len(members) == 1:
        return members[0]
    others = [set(member.where.tolist()) for member in members[1:]]
    shared = [name for name in members[0].where.tolist() if all(name in other for other in others)]
    if not shared and all(map(len, members)):
        raise DataProblem("no input can be predicted by all of the runs")
    outputs = [torch.from_numpy(member.outputs[_places(member, shared)]) for member in members]
    contract = members[0].contract
    if len({(member.contract.target_mean, member.contract.target_std) for member in members}) > 1:
        outputs = [
            output.double() if scale is None else scale.to_units(output)
            for output, scale in zip(outputs, (m.contract.target_scale for m in members), strict=True)
        ]
        contract = replace(contract, target_mean=(), target_std=())
    losses = [loss_of(predictor) for predictor in predictors]
    loss = losses[-1]
    if len({type(one) for one in losses}) > 1:
        outputs = [to_softmax(one, output) for one, output in zip(losses, outputs, strict=True)]
        loss = yardstick(spec_of(predictors[-1]))
    mean = combine(loss, torch.stack(outputs))
    notes = tuple(dict.fromkeys(note for member in members for note in member.notes))
    broken = {item.where: item for member in members for item in member.broken}
    where = members[0].where[_places(members[0], shared)]
    truth = members[0].truth
    return Predictions(mean.numpy(), contract, where, notes, tuple(broken.values()), truth, loss=loss)


def _places(member: Predictions, shared: list[Any]) -> list[int]:
    place = {name: i for i, name in enumerate(member.where.tolist())}
    return [place[name] for name in shared]
