"""torch's optimizers, with the ranges and defaults of their words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from dltrain.ranges import Fraction, Inner, NonNegative, Positive, Runtime

Groups = Iterable[Any]  # parameters, or dictionaries of parameter groups


def adadelta(
    params: Groups,
    lr: Positive = 1.0,
    rho: Fraction = 0.9,
    eps: Positive = 1e-06,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.Adadelta:
    """Adadelta: steps in the units of the weights, from running means of squared gradients and steps.

        s ← ρs + (1−ρ)g²
        d = √(u + ε)/√(s + ε)·g
        u ← ρu + (1−ρ)d²
        w ← w − lr·d

    Symbols: ρ = rho; ε = eps
    Use: where no lr is to be chosen: 1 is the paper's method.
    Defaults: lr 1, rho 0.9 and eps 1e-6 of torch and the paper.
    Paper: Zeiler 2012, arXiv:1212.5701
    Lecture: L0 L2

    Args:
        lr: multiplies the step; 1 in the paper
        rho: decay of both running means
        eps: added under both roots
        weight_decay: λ of λ/2·‖w‖², added to the gradient
    """
    return torch.optim.Adadelta(params, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay)


def adafactor(
    params: Groups,
    lr: Positive = 0.01,
    beta2_decay: float = -0.8,
    eps: tuple[Positive, Positive] = (1e-15, 0.001),
    d: Positive = 1.0,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.Adafactor:
    """Adafactor: Adam whose second moment is kept as row and column sums, for little memory.

        v̂ ≈ r cᵀ/Σr, decay 1 − tᵝ
        u = g/√v̂, clipped to rms d
        w ← w − max(ε₂, rms(w))·min(lr, 1/√t)·u

    Symbols: β = beta2_decay; (ε₁, ε₂) = eps, √v̂ ≥ ε₁
    Use: very large models; the step is relative to the size of the weights.
    Defaults: beta2_decay −0.8, d 1 and eps of the paper; lr from benchmarks/default_lr.md.
    Paper: Shazeer & Stern 2018, arXiv:1804.04235

    Args:
        lr: largest relative step size
        beta2_decay: exponent of the decay of the second moment
        eps: smallest root of v; smallest size of the weights that scales the step
        d: the update's root mean square is clipped to it
        weight_decay: decoupled as adamw
    """
    return torch.optim.Adafactor(
        params, lr=lr, beta2_decay=beta2_decay, eps=eps, d=d, weight_decay=weight_decay
    )


def adagrad(
    params: Groups,
    lr: Positive = 0.01,
    lr_decay: NonNegative = 0.0,
    initial_accumulator_value: NonNegative = 0.0,
    eps: Positive = 1e-10,
    weight_decay: NonNegative = 0.0,
    fused: Runtime = None,
) -> torch.optim.Adagrad:
    """Adagrad: each weight's step is divided by the root of the sum of its squared gradients.

        s ← s + g²
        w ← w − lr/(1 + t·lr_decay)·g/(√s + ε)

    Symbols: ε = eps; t counts steps from 0
    Use: sparse features; its steps only shrink (L0).
    Defaults: eps 1e-10 of torch; lr from benchmarks/default_lr.md.
    Paper: Duchi et al. 2011
    Lecture: L0 L1 L2 L3

    Args:
        lr: step size
        lr_decay: further decay of the step size
        initial_accumulator_value: where the sum of squares starts
        eps: added to the root of the sum
        weight_decay: λ of λ/2·‖w‖², added to the gradient
    """
    return torch.optim.Adagrad(
        params,
        lr=lr,
        lr_decay=lr_decay,
        initial_accumulator_value=initial_accumulator_value,
        eps=eps,
        weight_decay=weight_decay,
        fused=fused,
    )


def adam(
    params: Groups,
    lr: Positive = 0.001,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: Positive = 1e-08,
    weight_decay: NonNegative = 0.0,
    fused: Runtime = None,
) -> torch.optim.Adam:
    """Adam: adaptive moments with bias correction.

        m ← β₁m + (1−β₁)g
        v ← β₂v + (1−β₂)g²
        w ← w − lr·m̂/(√v̂ + ε)

    Symbols: (β₁, β₂) = betas; ε = eps; m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ)
    Use: the first optimizer to try; robust to the scale of the gradients.
    Defaults: lr, betas and eps from the paper.
    Paper: Kingma & Ba 2015, arXiv:1412.6980
    Lecture: L0 L1 L2 L3

    Args:
        lr: step size
        betas: decay of the first and second moment
        eps: added to the root of the second moment
        weight_decay: λ of λ/2·‖w‖², added to the gradient (adamw decouples it)
    """
    return torch.optim.Adam(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)


def amsgrad(
    params: Groups,
    lr: Positive = 0.001,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: Positive = 1e-08,
    amsgrad: bool = True,
    weight_decay: NonNegative = 0.0,
    fused: Runtime = None,
) -> torch.optim.Adam:
    """AMSGrad: Adam that divides by the largest second moment seen, so that steps never grow again.

        m, v as adam
        v̄ ← max(v̄, v)
        w ← w − lr·m̂/(√(v̄/(1−β₂ᵗ)) + ε)

    Symbols: (β₁, β₂) = betas; ε = eps; m̂ = m/(1−β₁ᵗ)
    Use: where Adam does not settle.
    Defaults: as adam.
    Paper: Reddi et al. 2018, arXiv:1904.09237
    Lecture: L0

    Args:
        lr: step size
        betas: decay of the first and second moment
        eps: added to the root of the second moment
        amsgrad: false gives Adam
        weight_decay: λ of λ/2·‖w‖², added to the gradient
    """
    return torch.optim.Adam(
        params, lr=lr, betas=betas, eps=eps, amsgrad=amsgrad, weight_decay=weight_decay, fused=fused
    )


def adamax(
    params: Groups,
    lr: Positive = 0.006,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: Positive = 1e-08,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.Adamax:
    """Adamax: Adam with the largest recent gradient in place of the second moment.

        m ← β₁m + (1−β₁)g
        u ← max(β₂u, |g| + ε)
        w ← w − lr/(1−β₁ᵗ)·m/u

    Symbols: (β₁, β₂) = betas; ε = eps
    Use: gradients with rare large values.
    Defaults: lr from benchmarks/default_lr.md (the paper has 2e-3).
    Paper: Kingma & Ba 2015, arXiv:1412.6980, section 7
    Lecture: L0

    Args:
        lr: step size
        betas: decay of the first moment and of the largest gradient
        eps: added to the gradient's size
        weight_decay: λ of λ/2·‖w‖², added to the gradient
    """
    return torch.optim.Adamax(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


def adamw(
    params: Groups,
    lr: Positive = 0.001,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: Positive = 1e-08,
    weight_decay: NonNegative = 0.01,
    fused: Runtime = None,
) -> torch.optim.AdamW:
    """AdamW: Adam with weight decay beside the gradient, not in it.

        w ← w − lr·λ·w
        then as adam

    Symbols: λ = weight_decay; (β₁, β₂) = betas; ε = eps
    Use: transformers; it decays all parameters, regularization=[weight_decay] spares biases and norms.
    Defaults: lr, betas and eps of adam; weight_decay 0.01 of torch.
    Paper: Loshchilov & Hutter 2019, arXiv:1711.05101

    Args:
        lr: step size
        betas: decay of the first and second moment
        eps: added to the root of the second moment
        weight_decay: share of the weights taken off per step, times lr
    """
    return torch.optim.AdamW(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)


def gd(
    params: Groups,
    lr: Positive = 0.3,
    weight_decay: NonNegative = 0.0,
    fused: Runtime = None,
) -> torch.optim.SGD:
    """Gradient descent on the full training set.

        w ← w − lr·∇L(w), with L the mean over all training samples

    Use: to see the method without noise; each step costs a pass over the data, so give it many epochs.
    Defaults: lr from benchmarks/default_lr.md.
    Paper: Cauchy 1847
    Lecture: L0 L1 L3 L4

    Args:
        lr: step size
        weight_decay: λ of λ/2·‖w‖², added to the gradient
    """
    return torch.optim.SGD(params, lr=lr, weight_decay=weight_decay, fused=fused)


def momentum(
    params: Groups,
    lr: Positive = 0.03,
    momentum: Fraction = 0.9,
    dampening: Fraction = 0.0,
    weight_decay: NonNegative = 0.0,
    fused: Runtime = None,
) -> torch.optim.SGD:
    """Heavy ball: gradient descent with a memory of its steps.

        v ← μv + (1−dampening)·g
        w ← w − lr·v

    Symbols: μ = momentum
    Use: the standard for convolutional nets, with a falling schedule; momentum_schedule=linear raises μ from
        0.5 to 0.9.
    Defaults: momentum 0.9 (L1); lr from benchmarks/default_lr.md.
    Paper: Polyak 1964
    Lecture: L0 L1 L2 L3 L4

    Args:
        lr: step size
        momentum: share of the last step that is kept
        dampening: the new gradient enters with 1 − dampening
        weight_decay: λ of λ/2·‖w‖², added to the gradient
    """
    return torch.optim.SGD(
        params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, fused=fused
    )


def nesterov(
    params: Groups,
    lr: Positive = 0.03,
    momentum: Inner = 0.9,
    nesterov: bool = True,
    weight_decay: NonNegative = 0.0,
    fused: Runtime = None,
) -> torch.optim.SGD:
    """Nesterov's momentum: the gradient counts as if taken one step ahead.

        v ← μv + g
        w ← w − lr·(g + μv)

    Symbols: μ = momentum
    Use: as momentum, a little steadier at a large lr.
    Defaults: momentum 0.9 (L1); lr from benchmarks/default_lr.md.
    Paper: Nesterov 1983; in this form Sutskever et al. 2013
    Lecture: L0 L1 L2 L3 L4

    Args:
        lr: step size
        momentum: share of the last step that is kept
        nesterov: false gives the heavy ball
        weight_decay: λ of λ/2·‖w‖², added to the gradient
    """
    return torch.optim.SGD(
        params, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, fused=fused
    )


def sgd(
    params: Groups,
    lr: Positive = 0.3,
    weight_decay: NonNegative = 0.0,
    fused: Runtime = None,
) -> torch.optim.SGD:
    """Stochastic gradient descent on mini-batches, without momentum.

        w ← w − lr·g, with g the mean gradient of the batch

    Use: the yardstick; batch_size=1 … full selects stochastic, mini-batch or full-batch descent.
    Defaults: lr from benchmarks/default_lr.md.
    Paper: Robbins & Monro 1951
    Lecture: L0 L1 L2 L3 L4

    Args:
        lr: step size
        weight_decay: λ of λ/2·‖w‖², added to the gradient
    """
    return torch.optim.SGD(params, lr=lr, weight_decay=weight_decay, fused=fused)


def nadam(
    params: Groups,
    lr: Positive = 0.002,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: Positive = 1e-08,
    momentum_decay: NonNegative = 0.004,
    decoupled_weight_decay: bool = False,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.NAdam:
    """NAdam: Adam with Nesterov's look ahead in the first moment.

        μₜ = β₁(1 − ½·0.96^(tψ))
        m̂ = μₜ₊₁m/(1−Πμ…μₜ₊₁) + (1−μₜ)g/(1−Πμ…μₜ)
        w ← w − lr·m̂/(√v̂ + ε)

    Symbols: (β₁, β₂) = betas; ψ = momentum_decay; ε = eps
    Use: as adam, often a little faster at the start.
    Defaults: lr 2e-3, betas and momentum_decay 4e-3 of the paper and torch.
    Paper: Dozat 2016
    Lecture: L0

    Args:
        lr: step size
        betas: decay of the first and second moment
        eps: added to the root of the second moment
        momentum_decay: how fast μ rises from β₁/2 to β₁
        decoupled_weight_decay: decay as adamw
        weight_decay: λ, added to the gradient unless decoupled
    """
    return torch.optim.NAdam(
        params,
        lr=lr,
        betas=betas,
        eps=eps,
        momentum_decay=momentum_decay,
        decoupled_weight_decay=decoupled_weight_decay,
        weight_decay=weight_decay,
    )


def radam(
    params: Groups,
    lr: Positive = 0.003,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: Positive = 1e-08,
    decoupled_weight_decay: bool = False,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.RAdam:
    """RAdam: Adam that trusts its second moment only when enough gradients stand behind it.

        ρₜ = ρ∞ − 2tβ₂ᵗ/(1−β₂ᵗ), ρ∞ = 2/(1−β₂) − 1
        ρₜ > 5: w ← w − lr·rₜ·m̂·√(1−β₂ᵗ)/(√v + ε), else w ← w − lr·m̂

    Symbols: (β₁, β₂) = betas; ε = eps; rₜ = √((ρₜ−4)(ρₜ−2)ρ∞/((ρ∞−4)(ρ∞−2)ρₜ))
    Use: Adam without a warm-up.
    Defaults: betas and eps of adam; lr from benchmarks/default_lr.md.
    Paper: Liu et al. 2020, arXiv:1908.03265
    Lecture: L3

    Args:
        lr: step size
        betas: decay of the first and second moment
        eps: added to the root of the second moment
        decoupled_weight_decay: decay as adamw
        weight_decay: λ, added to the gradient unless decoupled
    """
    return torch.optim.RAdam(
        params,
        lr=lr,
        betas=betas,
        eps=eps,
        decoupled_weight_decay=decoupled_weight_decay,
        weight_decay=weight_decay,
    )


def rmsprop(
    params: Groups,
    lr: Positive = 0.001,
    alpha: Fraction = 0.9,
    eps: Positive = 1e-08,
    momentum: Fraction = 0.0,
    centered: bool = False,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.RMSprop:
    """RMSProp: Adagrad with a running mean in place of the sum.

        s ← αs + (1−α)g²
        w ← w − lr·g/(√s + ε)
        with momentum μ: v ← μv + g/(√s + ε), w ← w − lr·v

    Symbols: α = alpha; ε = eps; μ = momentum
    Use: non-stationary problems and recurrent nets.
    Defaults: alpha 0.9 of L3 and Hinton (torch has 0.99); lr from benchmarks/default_lr.md.
    Paper: Hinton 2012, lecture 6e; centered: Graves 2013, arXiv:1308.0850
    Lecture: L0 L1 L2 L3

    Args:
        lr: step size
        alpha: decay of the running mean of squares
        eps: added to the root
        momentum: share of the last step that is kept
        centered: divide by the standard deviation of the gradient, not by its root mean square
        weight_decay: λ of λ/2·‖w‖², added to the gradient
    """
    return torch.optim.RMSprop(
        params, lr=lr, alpha=alpha, eps=eps, momentum=momentum, centered=centered, weight_decay=weight_decay
    )


def rprop(
    params: Groups,
    lr: Positive = 0.001,
    etas: tuple[Positive, Positive] = (0.5, 1.2),
    step_sizes: tuple[Positive, Positive] = (1e-06, 50.0),
) -> torch.optim.Rprop:
    """Rprop: each weight has its own step size and heeds the sign of its gradient only.

        δ ← δ·η₊ where g keeps its sign, δ·η₋ where it changed
        w ← w − δ·sign(g), no step where it changed

    Symbols: (η₋, η₊) = etas; δ starts at lr and stays within step_sizes
    Use: full batches only, since noise flips signs; lr is the first step size, a schedule does not act
        afterwards.
    Defaults: etas and step_sizes of the paper; lr from benchmarks/default_lr.md.
    Paper: Riedmiller & Braun 1993
    Lecture: L2

    Args:
        lr: first step size of every weight
        etas: factors of the step size, below 1 and above 1
        step_sizes: smallest and largest step size
    """
    return torch.optim.Rprop(params, lr=lr, etas=etas, step_sizes=step_sizes)
