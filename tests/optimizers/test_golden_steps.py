"""Ten steps of every optimizer in float64, with a changing lr, decay and two groups, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import optimizer_recursions as recursions
import pytest
import torch
from optimizer_words import FIRST_ORDER, SECOND_ORDER, Closure, build, keys
from torch import Tensor

# the first two in one group, the others in the second
SHAPES = [(3, 4), (4,), (2, 3, 2, 2), (5, 3)]
COUPLING, STEPS = 0.05, 10


def start() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=shape) for shape in SHAPES]


def curvatures() -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.uniform(0.2, 2.0, size=shape) for shape in SHAPES]


def gradient(weights: list[np.ndarray]) -> list[np.ndarray]:
    """Compute the gradient of Σ (a w²/2 + w⁴/4 - w) + c/2 (Σ w)²."""
    total = COUPLING * sum(w.sum() for w in weights)
    return [a * w + w**3 - 1 + total for a, w in zip(curvatures(), weights, strict=True)]


def loss(weights: list[Tensor]) -> Tensor:
    scales = [torch.from_numpy(a) for a in curvatures()]
    separate = sum((a * w**2 / 2 + w**4 / 4 - w).sum() for a, w in zip(scales, weights, strict=True))
    return separate + COUPLING / 2 * sum(w.sum() for w in weights) ** 2


def lr_at(t: int, group: int, lr: float) -> float:
    """Return an lr that oscillates and differs between the groups."""
    return lr * (1 + 0.5 * np.sin(t)) * (1.0, 0.4)[group]


def groups_of(weights: list[Tensor], lr: float, decays: tuple[float, float] | None) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = [{"params": weights[:2]}, {"params": weights[2:], "lr": 0.4 * lr}]
    for group, decay in zip(groups, decays or (), strict=False):
        group["weight_decay"] = decay
    return groups


def torch_steps(
    word: str, lr: float, decays: tuple[float, float] | None, wrap: Any = None, **settings: Any
) -> Any:
    weights = [torch.from_numpy(w).requires_grad_() for w in start()]
    optimizer = build(word, groups_of(weights, lr, decays), lr=lr, **settings)
    optimizer = wrap(optimizer) if wrap else optimizer
    closure, table = Closure(lambda: loss(weights), weights), []
    for t in range(1, STEPS + 1):
        for index, group in enumerate(optimizer.param_groups):
            group["lr"] = lr_at(t, index, lr)
        optimizer.step(closure)
        table.append([w.detach().numpy().copy() for w in weights])
    return table


def assert_tables_equal(ours: Any, expected: Any, rtol: float = 1e-10) -> None:
    for t, (row, truth) in enumerate(zip(ours, expected, strict=True)):
        for w, e in zip(row, truth, strict=True):
            np.testing.assert_allclose(w, e, rtol=rtol, atol=rtol, err_msg=f"step {t}")


def numpy_steps(update: Any, word: str, lr: float, decays: Any, **settings: Any) -> Any:
    weights, table = start(), []
    states: list[dict[str, Any]] = [{} for _ in SHAPES]
    # the last matrix, which Muon leaves to AdamW
    states[3]["head"] = True
    for t in range(1, STEPS + 1):
        grads = gradient(weights)
        for i, g in enumerate(grads):
            decay = {} if decays is None else {"weight_decay": decays[i // 2]}
            kept = {k: v for k, v in keys(word, **settings).items() if k not in ("lr", "weight_decay", "k")}
            kept = {k: v for k, v in kept.items() if not (word == "ranger" and k == "alpha")}
            weights[i] = update(weights[i], g, states[i], lr_at(t, i // 2, lr), t, **kept, **decay)
        table.append([w.copy() for w in weights])
    return table


DECAYS = (0.1, 0.03)
ROWS = [
    ("gd", recursions.sgd, 0.1, DECAYS, {}),
    ("sgd", recursions.sgd, 0.1, DECAYS, {}),
    ("momentum", recursions.sgd, 0.05, DECAYS, {}),
    ("momentum", recursions.sgd, 0.05, DECAYS, {"dampening": 0.3}),
    ("nesterov", recursions.sgd, 0.05, DECAYS, {}),
    ("rprop", recursions.rprop, 0.1, None, {}),
    ("quickprop", recursions.quickprop, 0.05, DECAYS, {}),
    ("adagrad", recursions.adagrad, 0.3, DECAYS, {"lr_decay": 0.01, "initial_accumulator_value": 0.1}),
    ("adadelta", recursions.adadelta, 1.0, DECAYS, {}),
    ("rmsprop", recursions.rmsprop, 0.05, DECAYS, {}),
    ("rmsprop", recursions.rmsprop, 0.05, DECAYS, {"momentum": 0.5, "centered": True}),
    ("adam", recursions.adam, 0.1, DECAYS, {}),
    ("amsgrad", recursions.adam, 0.1, DECAYS, {}),
    ("adamw", recursions.adamw, 0.1, DECAYS, {}),
    ("adamax", recursions.adamax, 0.1, DECAYS, {}),
    ("nadam", recursions.nadam, 0.1, DECAYS, {}),
    ("nadam", recursions.nadam, 0.1, DECAYS, {"decoupled_weight_decay": True}),
    ("radam", recursions.radam, 0.1, DECAYS, {}),
    ("radam", recursions.radam, 0.1, DECAYS, {"decoupled_weight_decay": True}),
    ("lion", recursions.lion, 0.05, DECAYS, {}),
    ("muon", recursions.muon, 0.05, DECAYS, {}),
    ("muon", recursions.muon, 0.05, DECAYS, {"nesterov": False, "ns_steps": 3}),
    ("shampoo", recursions.shampoo, 0.3, DECAYS, {"update_every": 1}),
    ("shampoo", recursions.shampoo, 0.3, DECAYS, {"update_every": 3, "max_size": 3, "beta": 0.8}),
]


@pytest.mark.parametrize(("word", "update", "lr", "decays", "settings"), ROWS)
def test_ten_steps_equal_the_papers_recursion(word, update, lr, decays, settings):
    expected = numpy_steps(update, word, lr, decays, **settings)
    # torch keeps NAdam's product of momenta in float32
    rtol = 1e-6 if word == "nadam" else 1e-10
    assert_tables_equal(torch_steps(word, lr, decays, **settings), expected, rtol)


def test_adafactor_equals_the_papers_recursion_on_matrices_and_vectors():
    # without the convolution: torch factors its last two axes, the paper flattens it
    shapes = SHAPES[:2], SHAPES[3:]
    random = np.random.default_rng(0)
    arrays = [random.normal(size=shape) for group in shapes for shape in group]
    weights = [torch.from_numpy(a.copy()).requires_grad_() for a in arrays]
    groups = [{"params": weights[:2], "weight_decay": 0.1}, {"params": weights[2:], "weight_decay": 0.03}]
    optimizer, states = build("adafactor", groups, lr=0.1), [{}, {}, {}]
    closure = Closure(lambda: sum((w**4 / 4 - w).sum() for w in weights), weights)
    for t in range(1, STEPS + 1):
        for index, group in enumerate(optimizer.param_groups):
            group["lr"] = lr_at(t, index, 0.1)
        optimizer.step(closure)
        for i, decay in enumerate((0.1, 0.1, 0.03)):
            rate = lr_at(t, i // 2, 0.1)
            arrays[i] = recursions.adafactor(
                arrays[i], arrays[i] ** 3 - 1, states[i], rate, t, weight_decay=decay
            )
            np.testing.assert_allclose(weights[i].detach().numpy(), arrays[i], rtol=1e-8)


@pytest.mark.parametrize("form", ["adamw", "sgd"])
def test_schedule_free_equals_the_papers_recursion(form):
    lr, states = 0.1, [{} for _ in SHAPES]
    z, x = start(), start()
    expected = []
    for t in range(1, STEPS + 1):
        y = [0.1 * b + 0.9 * a for b, a in zip(z, x, strict=True)]
        for i, g in enumerate(gradient(y)):
            rate = lr_at(t, i // 2, lr)
            z[i], x[i] = recursions.schedule_free(
                z[i], g, states[i], rate, t, y[i], x[i], weight_decay=DECAYS[i // 2], form=form
            )
        expected.append([a.copy() for a in x])
    assert_tables_equal(torch_steps("schedule_free", lr, DECAYS, form=form), expected)


def lookahead_of(update: Any, word: str, lr: float, k: int, alpha: float) -> Any:
    """Move the slow weights every k steps and restart the fast ones there; keep the inner state."""
    weights, slow, states, table = start(), start(), [{} for _ in SHAPES], []
    for t in range(1, STEPS + 1):
        grads = gradient(weights)
        for i, g in enumerate(grads):
            weights[i] = update(
                weights[i], g, states[i], lr_at(t, i // 2, lr), t, weight_decay=DECAYS[i // 2]
            )
            if t % k == 0:
                slow[i] = slow[i] + alpha * (weights[i] - slow[i])
                weights[i] = slow[i].copy()
        table.append([w.copy() for w in weights])
    return table


def test_ranger_is_radam_in_lookahead():
    expected = lookahead_of(recursions.radam, "ranger", 0.1, k=3, alpha=0.4)
    assert_tables_equal(torch_steps("ranger", 0.1, DECAYS, k=3, alpha=0.4), expected)


def test_lookahead_around_adamw():
    from dltrain.optimizers.lookahead import Lookahead

    expected = lookahead_of(recursions.adamw, "adamw", 0.1, k=4, alpha=0.5)
    ours = torch_steps("adamw", 0.1, DECAYS, wrap=lambda inner: Lookahead(inner, k=4, alpha=0.5))
    assert_tables_equal(ours, expected)


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_steps_with_the_gradient_of_the_worst_point_nearby(adaptive):
    from dltrain.optimizers.sam import SAM

    weights, states, expected = start(), [{} for _ in SHAPES], []
    for t in range(1, STEPS + 1):
        scales = [np.abs(w) if adaptive else np.ones_like(w) for w in weights]
        scaled = [s * g for s, g in zip(scales, gradient(weights), strict=True)]
        norm = np.sqrt(sum((g**2).sum() for g in scaled))
        worst = [w + 0.2 * s * g / norm for w, s, g in zip(weights, scales, scaled, strict=True)]
        for i, g in enumerate(gradient(worst)):
            decay = DECAYS[i // 2]
            weights[i] = recursions.sgd(
                weights[i], g, states[i], lr_at(t, i // 2, 0.05), t, 0.9, weight_decay=decay
            )
        expected.append([w.copy() for w in weights])
    ours = torch_steps("momentum", 0.05, DECAYS, wrap=lambda inner: SAM(inner, rho=0.2, adaptive=adaptive))
    assert_tables_equal(ours, expected)


def hessian(weights: list[np.ndarray]) -> np.ndarray:
    flat = np.concatenate([(a + 3 * w**2).ravel() for a, w in zip(curvatures(), weights, strict=True)])
    return np.diag(flat) + COUPLING


def flatten(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([a.ravel() for a in arrays])


def unflatten(vector: np.ndarray) -> list[np.ndarray]:
    edges = np.cumsum([0, *(int(np.prod(shape)) for shape in SHAPES)])
    return [vector[edges[i] : edges[i + 1]].reshape(shape) for i, shape in enumerate(SHAPES)]


def second_order_steps(direction: Any, lr: float) -> Any:
    weights, table = start(), []
    for t in range(1, STEPS + 1):
        steps = unflatten(direction(flatten(gradient(weights)), hessian(weights)))
        weights = [w + lr_at(t, i // 2, lr) * d for i, (w, d) in enumerate(zip(weights, steps, strict=True))]
        table.append(weights)
    return table


def test_steepest_takes_the_exact_step():
    expected = second_order_steps(lambda g, h: -g * (g @ g) / (g @ h @ g), 0.8)
    assert_tables_equal(torch_steps("steepest", 0.8, None), expected)


def test_newton_cg_solves_the_damped_system():
    expected = second_order_steps(lambda g, h: -np.linalg.solve(h + 0.1 * np.eye(len(g)), g), 0.6)
    settings = {"damping": 0.1, "adaptive": False, "max_iter": 200, "tolerance": 1e-13}
    assert_tables_equal(torch_steps("newton_cg", 0.6, None, **settings), expected, rtol=1e-9)


def test_lbfgs_equals_bfgs_with_a_full_inverse_matrix():
    weights = [torch.from_numpy(w).requires_grad_() for w in start()]
    optimizer = build("lbfgs", weights, lr=0.3, max_iter=1, history_size=20, line_search_fn=None)
    closure = Closure(lambda: loss(weights), weights)
    w, pairs = flatten(start()), []
    for t in range(1, STEPS + 1):
        lr = optimizer.param_groups[0]["lr"] = lr_at(t, 0, 0.3)
        optimizer.step(closure)
        g = flatten(gradient(unflatten(w)))
        if pairs:
            pairs[-1] = (pairs[-1][0], g - pairs[-1][1])
        step = min(1.0, 1 / np.abs(g).sum()) * lr if t == 1 else lr
        moved = -step * _inverse_hessian(pairs, len(g)) @ g
        w, pairs = w + moved, [*pairs, (moved, g)]
        np.testing.assert_allclose(flatten([p.detach().numpy() for p in weights]), w, rtol=1e-8)


def _inverse_hessian(pairs: list[tuple[np.ndarray, np.ndarray]], size: int) -> np.ndarray:
    if not pairs:
        return np.eye(size)
    s, y = pairs[-1]
    inverse = np.eye(size) * (s @ y) / (y @ y)
    for s, y in pairs:
        project = np.eye(size) - np.outer(y, s) / (s @ y)
        inverse = project.T @ inverse @ project + np.outer(s, s) / (s @ y)
    return inverse


@pytest.mark.gpu
@pytest.mark.parametrize("word", FIRST_ORDER + SECOND_ORDER)
def test_on_a_gpu_as_on_the_cpu(word):
    """Five steps of a small net in float64, within rounding; Muon orthogonalizes in bfloat16 there."""

    def weights_after(device: str) -> list[Tensor]:
        weights = [torch.from_numpy(w).to(device).requires_grad_() for w in start()]
        scales = [torch.from_numpy(a).to(device) for a in curvatures()]
        optimizer = build(word, weights)

        def value() -> Tensor:
            return sum((a * w**2 / 2 + w**4 / 4 - w).sum() for a, w in zip(scales, weights, strict=True))

        for _ in range(5):
            optimizer.step(Closure(value, weights))
        return [w.detach().cpu() for w in weights]

    tolerance = 0.02 if word == "muon" else 1e-6
    for ours, theirs in zip(weights_after("cuda"), weights_after("cpu"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
