"""Properties of every optimizer: it converges, resumes at any step, keeps dtypes, and refuses what cannot work."""

from __future__ import annotations

import io
import math
from functools import partial

import pytest
import torch
from conftest import every
from optimizer_words import FIRST_ORDER, SECOND_ORDER, Closure, build, find, target
from torch import nn

from dltrain.optimizers.lion import Lion
from dltrain.optimizers.lookahead import Lookahead
from dltrain.optimizers.muon import Muon, orthogonalize
from dltrain.optimizers.newton_cg import NewtonCG
from dltrain.optimizers.quickprop import Quickprop
from dltrain.optimizers.sam import SAM
from dltrain.optimizers.schedule_free import ScheduleFree
from dltrain.optimizers.shampoo import Shampoo
from dltrain.optimizers.steepest import Steepest

WORDS = FIRST_ORDER + SECOND_ORDER
WRAPS = {
    "plain": lambda inner: inner,
    "lookahead": Lookahead,
    "sam": SAM,
    "both": lambda inner: SAM(Lookahead(inner)),
}


def fit(word: str, lr: float, steps: int, loss, weights: list[torch.Tensor]) -> float:
    """Return the last loss, with ten steps of warm-up and a linear decay of lr.

    At a constant lr, optimizers that step by the sign oscillate around the minimum.
    """
    optimizer, closure = build(word, weights, lr=lr), Closure(loss, weights)
    for step in range(steps):
        for group in optimizer.param_groups:
            scale = (1 - step / steps) * min(1.0, (step + 1) / 10) ** 2
            group["lr"] = lr if word in SECOND_ORDER else lr * scale
        optimizer.step(closure)
    return float(loss().detach())


PARABOLA = {
    "gd": 0.1, "sgd": 0.1, "momentum": 0.05, "nesterov": 0.05, "rprop": 0.1, "quickprop": 0.05,
    "adagrad": 1.0, "adadelta": 30.0, "rmsprop": 0.1, "shampoo": 1.0, "adam": 0.3, "amsgrad": 0.3,
    "adamw": 0.3, "adamax": 0.5, "nadam": 0.3, "radam": 0.3, "ranger": 0.6, "muon": 0.3,
    "lion": 0.1, "schedule_free": 0.5, "adafactor": 0.3, "steepest": 1.0, "newton_cg": 1.0,
    "lbfgs": 1.0,
}  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_reaches_the_minimum_of_a_parabola(word):
    weights = [torch.tensor([3.0, -2.0, 1.5, -1.0], dtype=torch.float64).requires_grad_()]
    scales = torch.tensor([1.0, 2.0, 5.0, 0.5], dtype=torch.float64)

    def loss():
        return (scales * (weights[0] - 1) ** 2).sum() / 2

    assert fit(word, PARABOLA[word], 300, loss, weights) < 1e-3


# lr and steps from (-1, 1) on the floor of the valley, where the loss is 4
ROSENBROCK = {
    "gd": (2e-3, 4000), "sgd": (2e-3, 4000), "momentum": (1e-3, 2000), "nesterov": (1e-3, 2000),
    "rprop": (0.01, 1000), "quickprop": (1e-3, 2000), "adagrad": (0.5, 3000),
    "adadelta": (10.0, 2000), "rmsprop": (0.02, 1000), "shampoo": (1.0, 1000), "adam": (0.05, 1000),
    "amsgrad": (0.1, 1000), "adamw": (0.05, 1000), "adamax": (0.2, 1500), "nadam": (0.05, 1000),
    "radam": (0.05, 1500), "ranger": (0.1, 1500), "muon": (0.05, 1000), "lion": (0.01, 1000),
    "schedule_free": (0.2, 2000), "adafactor": (0.1, 2000), "steepest": (1.0, 1500),
    "newton_cg": (1.0, 60), "lbfgs": (1.0, 20),
}  # fmt: skip


@pytest.mark.parametrize("word", every(3, WORDS))
def test_comes_down_the_valley_of_rosenbrock(word):
    weights = [torch.tensor([-1.0, 1.0], dtype=torch.float64).requires_grad_()]

    def loss():
        x, y = weights[0]
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2

    lr, steps = ROSENBROCK[word]
    assert fit(word, lr, steps, loss, weights) < 0.05


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 2)).to(
        dtype
    )


class Training:
    """A small network, its optimizer, and a different batch at each step."""

    def __init__(self, word: str, wrap: str = "plain", dtype: torch.dtype = torch.float64) -> None:
        self.model, self.seen = network(dtype), 0
        self.parameters = list(self.model.parameters())
        self.optimizer = WRAPS[wrap](build(word, self.parameters))
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(12, 8, 1, 3, 3, generator=generator, dtype=torch.float64).to(dtype)
        self.targets = torch.randn(12, 8, 2, generator=generator, dtype=torch.float64).to(dtype)

    def step(self) -> torch.Tensor:
        inputs, targets = self.inputs[self.seen], self.targets[self.seen]
        self.seen += 1
        closure = Closure(lambda: ((self.model(inputs) - targets) ** 2).mean(), self.parameters)
        return self.optimizer.step(closure)

    def saved(self) -> io.BytesIO:
        file = io.BytesIO()
        torch.save(
            {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "seen": self.seen},
            file,
        )
        file.seek(0)
        return file

    def load(self, file: io.BytesIO) -> None:
        state = torch.load(file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.seen = state["seen"]


@pytest.mark.parametrize(
    ("word", "wrap"),
    [(word, "plain") for word in WORDS] + [(w, k) for w in FIRST_ORDER for k in ("lookahead", "both")],
)
def test_resumes_bit_equal_from_every_step(word, wrap):
    straight, files = Training(word, wrap, torch.float32), []
    for _ in range(7):
        files.append(straight.saved())
        straight.step()
    for file in files:
        resumed = Training(word, wrap, torch.float32)
        # loading must replace an existing state
        resumed.step()
        resumed.load(file)
        while resumed.seen < straight.seen:
            resumed.step()
        for ours, theirs in zip(resumed.parameters, straight.parameters, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("word", WORDS)
def test_keeps_the_dtype_of_weights_and_state(word, dtype):
    if dtype == torch.bfloat16 and word == "lbfgs":
        pytest.skip("its line search needs more digits")
    training = Training(word, dtype=dtype)
    for _ in range(3):
        loss = training.step()
    assert loss.dtype == dtype and not loss.requires_grad
    assert all(parameter.dtype == dtype and parameter.isfinite().all() for parameter in training.parameters)
    for state in training.optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor) and value.ndim:
                assert value.dtype in (dtype, torch.float32)


@pytest.mark.parametrize("word", WORDS)
def test_steps_under_no_grad_and_returns_the_loss_before_the_step(word):
    training = Training(word)
    inputs, targets = training.inputs[0], training.targets[0]
    before = ((training.model(inputs) - targets) ** 2).mean().item()
    with torch.no_grad():
        loss = training.step()
    after = ((training.model(inputs) - targets) ** 2).mean().item()
    assert after < before
    if word != "schedule_free":
        assert loss.item() == pytest.approx(before)


@pytest.mark.parametrize("word", [word for word in FIRST_ORDER if word not in ("muon",)])
def test_frozen_parameters_stay(word):
    training = Training(word)
    frozen = training.parameters[0]
    frozen.requires_grad_(False)
    before = frozen.clone()
    training.step()
    assert torch.equal(before, frozen)
    assert not torch.equal(training.parameters[2], Training(word).parameters[2])


@pytest.mark.parametrize("word", SECOND_ORDER[:2])
def test_second_order_optimizers_leave_frozen_parameters_alone(word):
    training = Training(word)
    training.parameters[0].requires_grad_(False)
    before = training.parameters[0].clone()
    training.step()
    assert torch.equal(before, training.parameters[0])


# Facts about single optimizers


def quadratic(kappa: float, size: int = 2) -> tuple[torch.Tensor, torch.Tensor, Closure]:
    """Return weights at the worst start for steepest descent, eigenvalues from 1 to kappa, and a closure."""
    values = torch.linspace(1, kappa, size, dtype=torch.float64)
    start = torch.zeros(size, dtype=torch.float64)
    start[0], start[-1] = kappa, 1.0
    weights = start.requires_grad_()
    return weights, values, Closure(lambda: (values * weights**2).sum() / 2, [weights])


@pytest.mark.parametrize("kappa", [2.0, 10.0, 100.0])
def test_steepest_meets_its_contraction_factor_from_the_worst_start(kappa):
    weights, _, closure = quadratic(kappa)
    optimizer, losses = Steepest([weights]), []
    for _ in range(20):
        losses.append(optimizer.step(closure).item())
    for before, after in zip(losses, losses[1:], strict=False):
        assert after / before == pytest.approx(((kappa - 1) / (kappa + 1)) ** 2, rel=1e-9)


def test_steepest_is_never_above_the_bound_from_random_starts():
    kappa, generator = 30.0, torch.Generator().manual_seed(0)
    for _ in range(20):
        weights, values, _ = quadratic(kappa, 6)
        weights.data.copy_(torch.randn(6, generator=generator, dtype=torch.float64))
        closure = Closure(lambda w=weights, v=values: (v * w**2).sum() / 2, [weights])
        optimizer = Steepest([weights])
        losses = [optimizer.step(closure).item() for _ in range(10)]
        bound = ((kappa - 1) / (kappa + 1)) ** 2 * (1 + 1e-9)
        assert all(after <= bound * before for before, after in zip(losses, losses[1:], strict=False))


def test_steepest_falls_back_where_the_curvature_is_not_positive():
    for loss, gradient in ((lambda w: -(w**2).sum() / 2, -2.0), (lambda w: 3 * w.sum(), 3.0)):
        weights = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
        Steepest([weights], lr=0.5, fallback=0.1).step(Closure(lambda w=weights, f=loss: f(w), [weights]))
        assert weights.item() == pytest.approx(2.0 - 0.5 * 0.1 * gradient)


def test_steepest_step_has_a_ceiling():
    weights = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    Steepest([weights], max_step=5.0).step(Closure(lambda: (1e-3 * weights**2).sum() / 2, [weights]))
    assert weights.item() == pytest.approx(2.0 - 5.0 * 2e-3)


def steps_to(closure: Closure, optimizer: torch.optim.Optimizer, goal: float) -> int:
    for step in range(10_000):
        if optimizer.step(closure).item() < goal:
            return step
    return 10_000


def test_momentum_takes_the_root_of_kappa_in_place_of_kappa():
    """With Polyak's optimal parameters the contraction is 1 - 2/(√κ + 1) instead of 1 - 2/(κ + 1)."""
    steps = {}
    for kappa in (100.0, 400.0, 1600.0):
        root = kappa**0.5
        weights, _, closure = quadratic(kappa)
        plain = steps_to(closure, torch.optim.SGD([weights], lr=2 / (kappa + 1)), 1e-6)
        weights, _, closure = quadratic(kappa)
        lr, momentum = 4 / (root + 1) ** 2, ((root - 1) / (root + 1)) ** 2
        steps[kappa] = (plain, steps_to(closure, torch.optim.SGD([weights], lr=lr, momentum=momentum), 1e-6))
    for kappa in (100.0, 400.0):
        assert steps[4 * kappa][0] / steps[kappa][0] == pytest.approx(4, rel=0.3)  # in proportion to κ
        assert steps[4 * kappa][1] / steps[kappa][1] == pytest.approx(2, rel=0.3)  # in proportion to √κ
        assert steps[kappa][1] < steps[kappa][0] * 2 / kappa**0.5 * 2


def test_gd_on_a_quadratic_equals_the_closed_form():
    weights, values, closure = quadratic(10.0, 5)
    weights.data.fill_(1.0)
    optimizer = build("gd", [weights], lr=0.15)
    for _ in range(20):
        optimizer.step(closure)
    torch.testing.assert_close(weights.detach(), (1 - 0.15 * values) ** 20)


@pytest.mark.parametrize("adaptive", [False, True])
def test_newton_cg_solves_a_quadratic_in_one_step(adaptive):
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    matrix, linear = root @ root.T + torch.eye(8), torch.randn(8, generator=generator, dtype=torch.float64)
    weights = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    closure = Closure(lambda: weights @ matrix @ weights / 2 - linear @ weights, [weights])
    NewtonCG([weights], damping=0.0, adaptive=adaptive, tolerance=1e-12).step(closure)
    torch.testing.assert_close(weights.detach(), torch.linalg.solve(matrix, linear))


def test_newton_cg_goes_downhill_at_negative_curvature():
    weights = torch.tensor([0.1, 1.0], dtype=torch.float64, requires_grad=True)
    closure = Closure(lambda: -(weights[0] ** 2) / 2 + weights[0] ** 4 / 4 + weights[1] ** 2 / 2, [weights])
    optimizer = NewtonCG([weights], damping=0.0)
    losses = [optimizer.step(closure).item() for _ in range(30)]
    assert losses == sorted(losses, reverse=True)
    assert weights.abs().tolist() == pytest.approx([1.0, 0.0], abs=1e-3)


def test_newton_cg_cuts_a_harmful_step_and_damps_more():
    weights = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    # log cosh: Newton's step diverges from starts beyond 1.09
    optimizer = NewtonCG([weights], damping=0.0)
    newton = -torch.tanh(weights) * torch.cosh(weights) ** 2
    closure = Closure(lambda: torch.log(torch.cosh(weights)).sum(), [weights])
    optimizer.step(closure)
    assert weights.item() == pytest.approx(2.0 + newton.item() / 4)
    assert optimizer.state[weights]["damping"].item() == pytest.approx(1e-3)
    assert closure.calls == 3


def test_newton_cg_rejects_a_step_whose_parts_all_increase_the_loss():
    weights = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    closure = Closure(lambda: torch.where(weights == 1.0, weights, weights + math.nan).sum(), [weights])
    NewtonCG([weights]).step(closure)
    assert weights.item() == 1.0
    assert closure.calls == 5


def test_quickprop_finds_the_minimum_of_a_parabola_by_its_third_step():
    weights = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    optimizer = Quickprop([weights], lr=0.4)
    closure = Closure(lambda: ((weights - 1) ** 2).sum() / 2, [weights])
    # 3 → 2.2 by the gradient; then -0.8 · 1.2 / (2 - 1.2) = -1.2 by the parabola
    optimizer.step(closure)
    optimizer.step(closure)
    assert weights.item() == pytest.approx(1.0 - 0.4 * 1.2)


def test_shampoo_equals_full_matrix_adagrad_on_a_vector_and_on_a_matrix_of_rank_one():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    left, right = draw(3), draw(4)
    for grads in ([draw(5) for _ in range(6)], [draw(1) * torch.outer(left, right) for _ in range(6)]):
        weights = torch.zeros_like(grads[0]).requires_grad_()
        optimizer = Shampoo([weights], lr=0.1, momentum=0.0, eps=1e-12, update_every=1)
        whole, expected = (
            torch.zeros(grads[0].numel(), grads[0].numel(), dtype=torch.float64),
            torch.zeros(()),
        )
        for grad in grads:
            weights.grad = grad.clone()
            optimizer.step()
            whole += torch.outer(grad.flatten(), grad.flatten())
            values, vectors = torch.linalg.eigh(whole)
            inverse = torch.where(values > 1e-9, values.clamp(min=1e-30) ** -0.5, 0.0)
            expected = expected - 0.1 * (vectors * inverse) @ vectors.T @ grad.flatten()
        torch.testing.assert_close(weights.detach().flatten(), expected, rtol=1e-5, atol=1e-6)


def test_muon_equals_torchs_on_matrices():
    ours, theirs = (
        torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in range(2)
    )
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    mine = Muon([ours], last=True, **settings)
    reference = torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **settings)
    for step in range(5):
        grad = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        mine.step()
        reference.step()
    # torch orthogonalizes in bfloat16
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.01)


def test_muon_makes_the_singular_values_nearly_equal():
    for shape in ((20, 50), (50, 20)):
        matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(orthogonalize(matrix, 5))
        assert values.min() > 0.6 and values.max() < 1.25


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (20, 20), (1, 7)])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-9), (torch.float32, 2e-3)])
def test_muon_applies_the_quintic_to_small_singular_values_too(shape, dtype, error):
    """Five steps, by the matrix or by its Gram matrix, against the polynomial of the singular values."""
    short = min(shape)
    left, _, right = torch.linalg.svd(
        torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
        full_matrices=False,
    )
    values = torch.logspace(0, -5, short, dtype=torch.float64)
    expected = values / (torch.linalg.vector_norm(values) + 1e-7)
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    found = orthogonalize((left * values @ right).to(dtype), 5).double()
    torch.testing.assert_close(found, left * expected @ right, rtol=0, atol=error)


def test_muon_leaves_vectors_and_the_last_matrix_to_adamw():
    training = Training("muon")
    training.step()
    kinds = ["momentum" in training.optimizer.state[parameter] for parameter in training.parameters]
    assert kinds == [True, False, True, False, False, False]


def test_schedule_free_holds_the_average_of_its_iterates_between_steps():
    weights = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    optimizer, bases = ScheduleFree([weights], lr=0.1, form="sgd"), []
    for _ in range(5):
        optimizer.step(Closure(lambda: (weights**2).sum() / 2, [weights]))
        bases.append(optimizer.state[weights]["base"].item())
    # with a constant lr all iterates have the same weight
    assert weights.item() == pytest.approx(sum(bases) / 5)


def test_schedule_free_carries_over_a_decay_inside_the_closure():
    def decayed(own: float, outside: float) -> float:
        weights = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
        optimizer = ScheduleFree([weights], lr=0.1, form="sgd", weight_decay=own)
        inner = Closure(lambda: (weights**2).sum() / 2, [weights])

        def closure() -> torch.Tensor:
            loss = inner()
            weights.data.mul_(1 - 0.1 * outside)
            return loss

        for _ in range(5):
            optimizer.step(closure)
        return weights.item()

    assert decayed(0.0, 0.2) == pytest.approx(decayed(0.2, 0.0), rel=1e-12)


def test_sam_calls_the_closure_twice_and_returns_the_first_loss():
    weights = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    closure = Closure(lambda: (weights**2).sum() / 2, [weights])
    loss = SAM(torch.optim.SGD([weights], lr=0.1), rho=0.5).step(closure)
    assert closure.calls == 2
    assert loss.item() == 4.5
    assert weights.item() == pytest.approx(3.0 - 0.1 * 3.5)


@pytest.mark.parametrize("wrap", [Lookahead, SAM])
def test_wraps_look_like_the_optimizer(wrap):
    weights = torch.ones(2, requires_grad=True)
    inner = torch.optim.SGD([weights], lr=0.1, momentum=0.9)
    wrapped = wrap(inner)
    wrapped.param_groups[0]["lr"] = 0.2
    assert inner.param_groups[0]["lr"] == 0.2
    assert wrapped.state is inner.state and wrapped.defaults is inner.defaults
    weights.grad = torch.ones(2)
    wrapped.zero_grad()
    assert weights.grad is None
    assert wrap(wrap(inner)).param_groups is inner.param_groups


def test_wraps_are_what_their_files_say():
    assert target(find("wrap", "lookahead")) is Lookahead
    assert target(find("wrap", "sam")) is SAM
    assert find("wrap", "none").target is None


ONE = [torch.ones(1, requires_grad=True)]
REFUSED = [
    (lambda: ScheduleFree(ONE).step(), r"schedule_free got no closure; it must be called as step\(closure\)"),
    (lambda: SAM(Lion(ONE)).step(), r"wrap=\[sam\] got no closure; it must be called as step\(closure\)"),
    (
        lambda: SAM(Lookahead(Steepest(ONE))),
        r"sam\] is around Steepest, which .* must be around a first-order opt",
    ),
    (lambda: SAM(torch.optim.LBFGS(ONE)), r"is around LBFGS, .*choose another, such as optimizer=momentum"),
    (
        lambda: Steepest(ONE).step(lambda: ONE[0]),
        r"optimizer=steepest needs second derivatives, .* use no wrap",
    ),
    (lambda: NewtonCG(ONE).step(lambda: ONE[0]), r"optimizer=newton_cg needs second .*create_graph=True\)"),
]


@pytest.mark.parametrize(("build_it", "message"), REFUSED)
def test_refuses_what_cannot_work(build_it, message):
    with pytest.raises(ValueError, match=message):
        build_it()


def test_shampoo_renews_its_roots_while_they_change():
    """With beta = 1 the period stays within a tenth of the steps; below 1 it is constant."""
    from dltrain.optimizers.shampoo import _is_fresh

    fresh = [step for step in range(5000) if _is_fresh(step, {"update_every": 20, "beta": 1.0})]
    assert fresh[:22] == [*range(20), 20, 40]
    gaps = [(later - earlier, earlier) for earlier, later in zip(fresh, fresh[1:], strict=False)]
    assert all(gap <= max(20, earlier / 10) for gap, earlier in gaps)
    assert max(gap for gap, _ in gaps) == 320
    forgetting = [step for step in range(100, 5000) if _is_fresh(step, {"update_every": 20, "beta": 0.99})]
    assert forgetting == list(range(100, 5000, 20))


THAWED = {
    "schedule_free": ScheduleFree,
    "schedule_free, sgd": partial(ScheduleFree, form="sgd"),
    "muon": Muon,
    "lion": Lion,
    "quickprop": Quickprop,
    "shampoo": Shampoo,
    "adam": torch.optim.Adam,
}


@pytest.mark.parametrize("make", THAWED.values(), ids=THAWED)
def test_a_weight_that_thaws_starts_as_a_new_one(make):
    """The bias of moments follows from a weight's own steps: counted by group, the first steps were up to 31 times lr."""

    def path(thaw):
        generator = torch.Generator().manual_seed(0)
        one, other = (torch.nn.Parameter(torch.randn(3, generator=generator)) for _ in range(2))
        optimizer, found = make([one, other], lr=0.1), []
        for step in range(30):
            other.requires_grad_(step >= thaw)

            def loss():
                optimizer.zero_grad()
                value = (one**2).sum() + (((other - 1) ** 2).sum() if other.requires_grad else 0.0)
                value.backward()
                return value.detach()

            optimizer.step(loss)
            found.append(other.detach().clone())
        return found[thaw : thaw + 20]

    for at_once, later in zip(path(0), path(10), strict=True):
        assert torch.equal(at_once, later)


@pytest.mark.parametrize("make", [Muon, Lion, torch.optim.Adam])
def test_a_frozen_weight_gets_no_state(make):
    """An empty one would be saved, and differ from that of a run that never stepped."""
    one, frozen = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3), requires_grad=False)
    optimizer = make([one, frozen], lr=0.1)
    one.grad = torch.ones(3)
    optimizer.step()
    assert set(optimizer.state_dict()["state"]) == {0}
