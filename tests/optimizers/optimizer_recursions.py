"""Each optimizer in numpy, from its paper.

The functions map (weights, gradient, state, lr, t from 1, keys) to the new weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray
State = dict[str, Any]


def sgd(
    w: Array,
    g: Array,
    s: State,
    lr: float,
    t: int,
    momentum=0.0,
    dampening=0.0,
    nesterov=False,
    weight_decay=0.0,
):
    g = g + weight_decay * w
    # torch does not dampen the first step
    s["v"] = g if t == 1 else momentum * s["v"] + (1 - dampening) * g
    return w - lr * (g + momentum * s["v"] if nesterov else s["v"])


def rprop(w: Array, g: Array, s: State, lr: float, t: int, etas=(0.5, 1.2), step_sizes=(1e-6, 50)):
    if t == 1:
        s["delta"], s["g"] = np.full_like(w, lr), np.zeros_like(w)
    agreement = np.sign(g * s["g"])
    factor = np.where(agreement > 0, etas[1], np.where(agreement < 0, etas[0], 1.0))
    s["delta"] = np.clip(s["delta"] * factor, *step_sizes)
    s["g"] = np.where(agreement < 0, 0.0, g)
    return w - s["delta"] * np.sign(s["g"])


def quickprop(w: Array, g: Array, s: State, lr: float, t: int, growth=1.75, weight_decay=0.0):
    """Fahlman's rules weight by weight."""
    slope, new = g + weight_decay * w, w.copy()
    last, before = s.get("d", np.zeros_like(w)), s.get("g", np.zeros_like(w))
    step = np.zeros_like(w)
    for i in np.ndindex(w.shape):
        d, now, then, shrink = last[i], slope[i], before[i], growth / (1 + growth)
        if d > 0:
            step[i] -= lr * now if now < 0 else 0.0
            step[i] += (
                growth * d if now <= shrink * then else max(-growth, min(growth, now / (then - now))) * d
            )
        elif d < 0:
            step[i] -= lr * now if now > 0 else 0.0
            step[i] += (
                growth * d if now >= shrink * then else max(-growth, min(growth, now / (then - now))) * d
            )
        else:
            step[i] -= lr * now
        new[i] += step[i]
    s["d"], s["g"] = step, slope
    return new


def adagrad(w, g, s, lr, t, lr_decay=0.0, initial_accumulator_value=0.0, eps=1e-10, weight_decay=0.0):
    g = g + weight_decay * w
    s["sum"] = s.get("sum", initial_accumulator_value) + g**2
    return w - lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(s["sum"]) + eps)


def adadelta(w, g, s, lr, t, rho=0.9, eps=1e-6, weight_decay=0.0):
    g = g + weight_decay * w
    s["g2"] = rho * s.get("g2", 0.0) + (1 - rho) * g**2
    delta = np.sqrt(s.get("d2", 0.0) + eps) / np.sqrt(s["g2"] + eps) * g
    s["d2"] = rho * s.get("d2", 0.0) + (1 - rho) * delta**2
    return w - lr * delta


def rmsprop(w, g, s, lr, t, alpha=0.9, eps=1e-8, momentum=0.0, centered=False, weight_decay=0.0):
    g = g + weight_decay * w
    s["g2"] = alpha * s.get("g2", 0.0) + (1 - alpha) * g**2
    s["g1"] = alpha * s.get("g1", 0.0) + (1 - alpha) * g
    root = np.sqrt(s["g2"] - s["g1"] ** 2 if centered else s["g2"]) + eps
    s["v"] = momentum * s.get("v", 0.0) + g / root
    return w - lr * s["v"]


def adam(w, g, s, lr, t, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, decoupled=False):
    w = w * (1 - lr * weight_decay) if decoupled else w
    g = g if decoupled else g + weight_decay * w
    s["m"] = betas[0] * s.get("m", 0.0) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", 0.0) + (1 - betas[1]) * g**2
    s["max"] = np.maximum(s.get("max", 0.0), s["v"])
    v = s["max"] if amsgrad else s["v"]
    return w - lr * (s["m"] / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)


def adamw(w, g, s, lr, t, **settings):
    return adam(w, g, s, lr, t, decoupled=True, **settings)


def adamax(w, g, s, lr, t, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    g = g + weight_decay * w
    s["m"] = betas[0] * s.get("m", 0.0) + (1 - betas[0]) * g
    s["u"] = np.maximum(betas[1] * s.get("u", 0.0), np.abs(g) + eps)
    return w - lr / (1 - betas[0] ** t) * s["m"] / s["u"]


def nadam(
    w,
    g,
    s,
    lr,
    t,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    momentum_decay=4e-3,
    decoupled_weight_decay=False,
):
    w = w * (1 - lr * weight_decay) if decoupled_weight_decay else w
    g = g if decoupled_weight_decay else g + weight_decay * w
    mu, mu_next = (betas[0] * (1 - 0.5 * 0.96 ** (k * momentum_decay)) for k in (t, t + 1))
    s["product"] = s.get("product", 1.0) * mu
    s["m"] = betas[0] * s.get("m", 0.0) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", 0.0) + (1 - betas[1]) * g**2
    m = mu_next * s["m"] / (1 - s["product"] * mu_next) + (1 - mu) * g / (1 - s["product"])
    return w - lr * m / (np.sqrt(s["v"] / (1 - betas[1] ** t)) + eps)


def radam(w, g, s, lr, t, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled_weight_decay=False):
    w = w * (1 - lr * weight_decay) if decoupled_weight_decay else w
    g = g if decoupled_weight_decay else g + weight_decay * w
    s["m"] = betas[0] * s.get("m", 0.0) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", 0.0) + (1 - betas[1]) * g**2
    limit = 2 / (1 - betas[1]) - 1
    rho = limit - 2 * t * betas[1] ** t / (1 - betas[1] ** t)
    m = s["m"] / (1 - betas[0] ** t)
    if rho <= 5:
        return w - lr * m
    r = np.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
    return w - lr * r * m * np.sqrt(1 - betas[1] ** t) / (np.sqrt(s["v"]) + eps)


def adafactor(w, g, s, lr, t, beta2_decay=-0.8, eps=(1e-15, 1e-3), d=1.0, weight_decay=0.0):
    rms = lambda x: np.sqrt(np.mean(x**2))  # noqa: E731
    keep = 1 - t**beta2_decay
    alpha = max(eps[1], rms(w)) * min(lr, t**-0.5)
    w = w * (1 - lr * weight_decay)
    if g.ndim == 1:
        s["v"] = keep * s.get("v", 0.0) + (1 - keep) * g**2
        v = s["v"]
    else:
        s["row"] = keep * s.get("row", 0.0) + (1 - keep) * (g**2).mean(1)
        s["column"] = keep * s.get("column", 0.0) + (1 - keep) * (g**2).mean(0)
        v = np.outer(s["row"], s["column"]) / s["row"].mean()
    u = g / np.sqrt(v)
    return w - alpha * u / max(1.0, rms(u) / d)


def lion(w, g, s, lr, t, betas=(0.9, 0.99), weight_decay=0.0):
    m = s.get("m", np.zeros_like(w))
    direction = np.sign(betas[0] * m + (1 - betas[0]) * g)
    s["m"] = betas[1] * m + (1 - betas[1]) * g
    return w - lr * (direction + weight_decay * w)


def newton_schulz(m: Array, steps: int) -> Array:
    """The quintic a x + b x³ + c x⁵ applied to the singular values themselves."""
    u, values, vt = np.linalg.svd(m, full_matrices=False)
    values = values / (np.sqrt((m**2).sum()) + 1e-7)
    for _ in range(steps):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (u * values) @ vt


def muon(
    w,
    g,
    s,
    lr,
    t,
    momentum=0.95,
    nesterov=True,
    ns_steps=5,
    last=False,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
):
    if g.ndim == 1 or s.get("head"):
        return adamw(w, g, s, lr, t, betas=betas, eps=eps, weight_decay=weight_decay)
    s["m"] = momentum * s.get("m", 0.0) + (1 - momentum) * g
    ahead = momentum * s["m"] + (1 - momentum) * g if nesterov else s["m"]
    flat = ahead.reshape(len(ahead), -1)
    update = newton_schulz(flat, ns_steps).reshape(w.shape)
    return w * (1 - lr * weight_decay) - lr * 0.2 * np.sqrt(max(flat.shape)) * update


def shampoo(w, g, s, lr, t, momentum=0.9, beta=1.0, eps=1e-4, update_every=1, max_size=256, weight_decay=0.0):
    """The full preconditioner as the Kronecker product of its factors, applied to the flattened gradient."""
    g = g + weight_decay * w
    whole, order = np.ones((1, 1)), 2 * g.ndim
    for axis, length in enumerate(g.shape):
        unfolded = np.moveaxis(g, axis, 0).reshape(length, -1)
        new = (1 if beta == 1 else 1 - beta) * unfolded @ unfolded.T
        new = new if length <= max_size else np.diag(np.diag(new))
        s[axis] = beta * s.get(axis, eps * np.eye(length)) + new
        fresh = t <= update_every or (t - 1) % update_every == 0
        if fresh:
            values, vectors = np.linalg.eigh(s[axis])
            s["root", axis] = vectors @ np.diag(np.maximum(values, eps) ** (-1 / order)) @ vectors.T
        whole = np.kron(whole, s["root", axis])
    update = (whole @ g.ravel()).reshape(g.shape)
    if not fresh:
        update = update * min(1.0, np.sqrt(g.size / max(g.shape)) / np.linalg.norm(update))
    s["m"] = momentum * s.get("m", 0.0) + (1 - momentum) * update
    return w - lr * s["m"]


def schedule_free(z, g, s, lr, t, y, x, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, form="adamw"):
    """The new z and x."""
    s["v"] = betas[1] * s.get("v", 0.0) + (1 - betas[1]) * g**2
    gamma = lr * np.sqrt(1 - betas[1] ** t) if form == "adamw" else lr
    z = z - gamma * (g / (np.sqrt(s["v"]) + eps) if form == "adamw" else g) - gamma * weight_decay * y
    s["sum"] = s.get("sum", 0.0) + gamma**2
    c = gamma**2 / s["sum"]
    return z, (1 - c) * x + c * z
