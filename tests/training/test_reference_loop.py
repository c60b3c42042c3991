"""A run against an independent loop in plain torch and float64: rates, penalties, clipping, decay, accumulation, SAM.

Every other test of the trainer compares runs with runs; this one knows the recursion. The initial weights, the order and
the data are the run's own, everything else is written out here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dltrain.config.compose import compose, open_catalogue, open_hydra
from dltrain.config.door import Door, shipped_targets
from dltrain.config.validation import validate
from dltrain.run.build import build

STEPS, LR, L2, DECAY, LIMIT, RHO, MOMENTUM = 30, 0.1, 0.02, 0.5, 0.3, 0.2, 0.9


@dataclass(frozen=True)
class Recipe:
    """What a run does, and the words that ask for it."""

    decay: str = "none"  # none, decoupled or coupled
    clip: bool = False
    l2: bool = False
    sam: bool = False
    accumulate: int = 1
    momentum: bool = False

    def words(self) -> list[str]:
        rules = {
            "l2": self.l2,
            "weight_decay": self.decay != "none",
            "gradient_clipping": self.clip,
        }
        chosen = [name for name, wanted in rules.items() if wanted]
        keys = {
            "l2": [f"regularization.l2.strength={L2}"],
            "weight_decay": [
                f"regularization.weight_decay.strength={DECAY}",
                f"regularization.weight_decay.mode={self.decay}",
            ],
            "gradient_clipping": [f"regularization.gradient_clipping.limit={LIMIT}"],
        }
        return [
            f"steps={STEPS}", f"lr={LR}", "schedule=linear", "early_stopping=none", "evaluation.every_epochs=null",
            "evaluation.every_steps=10", "model.hidden=[16]", f"accumulate={self.accumulate}",
            "optimizer=momentum" if self.momentum else "optimizer=sgd", f"regularization=[{','.join(chosen)}]",
            *(text for name in chosen for text in keys[name]),
            *(["wrap=[sam]", f"wrap.sam.rho={RHO}"] if self.sam else []),
        ]  # fmt: skip


def parts_of(words: list[str]) -> tuple[Any, Any]:
    catalogue = open_catalogue()
    config = validate(compose(words, catalogue, open_hydra(catalogue)))
    return build(config, Door(shipped_targets(catalogue), []))


def norm(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors]).norm()


def reference(
    recipe: Recipe, late: int = 0, cleared: bool = True
) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """The rows and the last weights. `late` and `cleared` plant the two bugs that this test must notice."""
    parts, plan = parts_of(recipe.words())
    model = copy.deepcopy(parts.model).double()
    weights = list(model.parameters())
    matrices = [w for w in weights if w.ndim >= 2]
    velocity = [torch.zeros_like(w) for w in weights]
    rows: list[dict[str, float]] = []
    losses, count = 0.0, 0

    def gradient(x: Tensor, y: Tensor) -> tuple[float, list[Tensor]]:
        """Mean loss and its gradient with the penalty's; the pieces of an accumulated batch are one mean."""
        mean = F.cross_entropy(model(x), y)
        penalty = L2 / 2 * sum(w.square().sum() for w in matrices) if recipe.l2 else 0.0
        return mean.item(), list(torch.autograd.grad(mean + penalty, weights))

    for t in range(STEPS):
        epoch, place = divmod(t, plan.steps_per_epoch)
        index = parts.order.order(epoch)[place * plan.batch_size :][: plan.batch_size]
        x, y = parts.train.inputs[index].double(), parts.train.targets[index]
        lr = LR * (1 - max(t - late, 0) / STEPS)
        loss, slopes = gradient(x, y)
        if recipe.sam:
            first, length = slopes, norm(slopes)
            with torch.no_grad():
                kept = [w.clone() for w in weights]
                for w, g in zip(weights, first, strict=True):
                    w.add_(RHO * g / length)
            _, slopes = gradient(x, y)
            if not cleared:
                slopes = [a + b for a, b in zip(first, slopes, strict=True)]
            with torch.no_grad():
                for w, k in zip(weights, kept, strict=True):
                    w.copy_(k)
        own = norm(slopes).item()
        if recipe.clip:
            factor = min(1.0, LIMIT / (norm(slopes).item() + 1e-6))
            slopes = [g * factor for g in slopes]
        with torch.no_grad():
            if recipe.decay == "coupled":
                slopes = [g + DECAY * w if w.ndim >= 2 else g for w, g in zip(weights, slopes, strict=True)]
            if recipe.decay == "decoupled":
                for w in matrices:
                    w.mul_(1 - lr * DECAY)
            for w, v, g in zip(weights, velocity, slopes, strict=True):
                v.mul_(MOMENTUM if recipe.momentum else 0.0).add_(g)
                w.sub_(lr * v)
        losses, count = losses + loss * len(y), count + len(y)
        if (t + 1) % 10 == 0:
            with torch.no_grad():
                validation = F.cross_entropy(model(parts.val.inputs.double()), parts.val.targets).item()
            row = {"step": t + 1, "lr": lr, "train/loss": losses / count, "val/loss": validation}
            rows.append({**row, "grad_norm": own})
            losses, count = 0.0, 0
    return rows, {name: tensor.detach() for name, tensor in model.state_dict().items()}


def check(run: Any, rows: list[dict[str, float]], weights: dict[str, Tensor]) -> None:
    for ours, row in zip(rows, run.rows, strict=True):
        for key, value in ours.items():
            assert row[key] == pytest.approx(value, rel=2e-5), (key, ours["step"])
    for name, tensor in run.last_state()["weights"].items():
        torch.testing.assert_close(tensor.double(), weights[name], rtol=1e-4, atol=2e-6)


RECIPES = {
    "plain": Recipe(),
    "accumulated": Recipe(l2=True, clip=True, accumulate=2),
    "decoupled": Recipe(decay="decoupled", clip=True, momentum=True),
    "coupled": Recipe(decay="coupled", clip=True, momentum=True),
    "sam": Recipe(sam=True),
    "sam, decoupled": Recipe(sam=True, decay="decoupled"),
    "sam, coupled": Recipe(sam=True, decay="coupled", momentum=True),
    "sam, all": Recipe(sam=True, decay="coupled", clip=True, l2=True, accumulate=2),
    "sam, all, decoupled": Recipe(sam=True, decay="decoupled", clip=True, l2=True, momentum=True),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_run_is_the_plain_loop(train, recipe):
    check(train(*recipe.words()), *reference(recipe))


BUGS: dict[str, tuple[Recipe, Callable[[Recipe], Any]]] = {
    "a rate that is one step late": (RECIPES["decoupled"], lambda recipe: reference(recipe, late=1)),
    "gradients that are not cleared": (RECIPES["sam"], lambda recipe: reference(recipe, cleared=False)),
    "SAM without its ascent": (RECIPES["sam"], lambda recipe: reference(Recipe())),
}


@pytest.mark.parametrize("recipe, wrong", BUGS.values(), ids=BUGS)
def test_the_comparison_notices(train, recipe, wrong):
    run = train(*recipe.words())
    rows, weights = wrong(recipe)
    with pytest.raises(AssertionError):
        check(run, rows, weights)
    close = [
        {**row, "lr": mine["lr"], "grad_norm": mine["grad_norm"]}
        for row, mine in zip(rows, run.rows, strict=True)
    ]
    with pytest.raises(AssertionError):  # also without the two columns that name it
        check(run, close, weights)


def test_decay_of_the_rules_is_that_of_the_optimizer_under_sam(train):
    """`optimizer.weight_decay` acts on the final gradient at w, and so does regularization=[weight_decay], coupled."""
    common = RECIPES["sam"].words()
    inside = train(*common, f"optimizer.weight_decay={DECAY}")
    words = [word for word in RECIPES["sam, coupled"].words() if word != "optimizer=momentum"]
    beside = train(*words, "optimizer=sgd")
    for name, tensor in inside.last_state()["weights"].items():
        torch.testing.assert_close(beside.last_state()["weights"][name], tensor, rtol=1e-4, atol=1e-6)


def test_noise_acts_once_under_sam(train):
    """The gradient at the second point, plus one draw: SGD with lr on noise alone moves by lr·noise."""
    words = ["steps=1", "optimizer=sgd", "lr=0.5", "early_stopping=none", "regularization=[gradient_noise]"]
    plain = [word for word in words if not word.startswith("regularization")]
    moved = {}
    for wrap in ("[]", "[sam]"):
        with_noise, without = (
            train(*chosen, f"wrap={wrap}").last_state()["weights"] for chosen in (words, plain)
        )
        moved[wrap] = {name: with_noise[name] - without[name] for name in without}
    for name, tensor in moved["[]"].items():
        assert tensor.abs().max() > 0.01
        torch.testing.assert_close(moved["[sam]"][name], tensor, rtol=0, atol=1e-5)
