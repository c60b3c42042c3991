"""The objective of a step without a trainer: value and gradient of plain torch, however often it is called."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dltrain.batch_norm import batch_norms
from dltrain.data.spec import Batch
from dltrain.regularization.decay import DecoupledDecay
from dltrain.regularization.penalties import L2
from dltrain.training.forward import Forward
from dltrain.training.guard import NonFinite
from dltrain.training.objective import Objective, Streams, Terms
from dltrain.training.parts import Plan, Rules

CPU = torch.device("cpu")
PLAN = Plan(seed=3, device=CPU, precision="fp32", batch_size=12, steps_per_epoch=1, total_steps=1, accumulate=1,
            evaluate_every=1, evaluation_batch_size=12, checkpoint_every=None, checkpoint_seconds=None, log_every=None,
            compile=False)  # fmt: skip
SCALE = 0.5


class Scene:
    """A small model with a batch, and what its objective recorded and checked."""

    def __init__(self, *layers: nn.Module, pieces: int = 1, rules: Rules | None = None) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(5, 4), *layers, nn.Linear(4, 3))
        self.inputs, self.targets = torch.randn(12, 5), torch.randint(3, (12,))
        self.recorded: list[int] = []
        self.checked: list[float] = []
        self.terms = Terms(
            forward=Forward(self.model, CPU, "fp32"),
            loss=nn.CrossEntropyLoss(reduction="none"),
            rules=rules or Rules(),
            optimizer=torch.optim.SGD(self.model.parameters(), lr=0.1),
            streams=Streams(PLAN),
            parameters=list(self.model.parameters()),
            norms=batch_norms(self.model),
            pieces=lambda samples: pieces,
            check=lambda value, gradients, step: self.checked.append(float(value)),
            record=lambda batch, outputs, losses, total: self.recorded.append(len(losses)),
            before_rules=lambda: None,
        )
        self.objective = Objective(Batch(self.inputs, self.targets, torch.arange(12)), 7, SCALE, self.terms)

    def gradients(self) -> list[torch.Tensor]:
        return [parameter.grad.clone() for parameter in self.model.parameters()]

    def expected(self, strength: float = 0.0) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Value and gradient by plain torch."""
        loss = nn.functional.cross_entropy(self.model(self.inputs), self.targets)
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        loss = loss + SCALE * strength / 2 * sum(m.square().sum() for m in matrices)
        return loss.detach(), list(torch.autograd.grad(loss, list(self.model.parameters())))


def assert_close(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("pieces", [1, 4])
def test_value_and_gradient_are_those_of_the_mean_loss_with_its_penalty(pieces):
    scene = Scene(nn.Tanh(), pieces=pieces)
    scene.terms.rules.penalties.append(L2(scene.model, strength=0.3))
    value, gradients = scene.expected(strength=0.3)
    torch.testing.assert_close(scene.objective(), value)
    assert_close(scene.gradients(), gradients)
    assert scene.recorded == [12 // pieces] * pieces


def test_graph_of_the_gradient_gives_the_hessian():
    scene = Scene(nn.Tanh(), pieces=3)
    scene.terms.rules.penalties.append(L2(scene.model, strength=0.3))
    params = list(scene.model.parameters())
    value, gradients = scene.objective.gradients(params)
    expected, plain = scene.expected(strength=0.3)
    torch.testing.assert_close(value.detach(), expected)
    assert_close([g.detach() for g in gradients], plain)
    (curvature,) = torch.autograd.grad(gradients[1].sum(), params[1])
    assert curvature.abs().sum() > 0


def test_every_call_has_the_same_draws_and_moves_statistics_once():
    scene = Scene(nn.BatchNorm1d(4), nn.Dropout(0.5))
    first = scene.objective()
    gradients, statistics = scene.gradients(), scene.model[1].running_mean.clone()
    assert torch.equal(scene.objective(), first)
    assert_close(scene.gradients(), gradients)
    assert torch.equal(scene.model[1].running_mean, statistics)
    assert scene.recorded == [12]
    assert len(scene.checked) == 1


def test_another_step_draws_otherwise():
    scene = Scene(nn.Dropout(0.5))
    other = Objective(scene.objective.batch, 8, SCALE, scene.terms)
    assert not torch.equal(scene.objective(), other())


def test_weights_decay_once_a_step_after_the_gradient():
    scene = Scene()
    scene.terms.rules.decays.append(DecoupledDecay(scene.model, strength=0.2))
    before = scene.model[0].weight.detach().clone()
    value, gradients = scene.expected()
    torch.testing.assert_close(scene.objective(), value)
    assert_close(scene.gradients(), gradients)
    scene.objective()
    scene.objective.decay()
    torch.testing.assert_close(scene.model[0].weight.detach(), before * (1 - 0.1 * 0.2 * SCALE))


def test_a_value_that_is_not_finite_ends_the_call_before_the_decay():
    scene = Scene()
    scene.terms.rules.decays.append(DecoupledDecay(scene.model, strength=0.2))

    def refuse(*_: object) -> None:
        raise NonFinite(7, float("nan"), None)

    object.__setattr__(scene.terms, "check", refuse)
    before = scene.model[0].weight.detach().clone()
    with pytest.raises(NonFinite):
        scene.objective()
    assert torch.equal(scene.model[0].weight, before)
