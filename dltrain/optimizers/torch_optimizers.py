"""The optimizers of torch as words: ranges, defaults and documentation of their keys.

The file is long because the signature and the docstring of each optimizer are its schema and its page in the manual.
"""

from __future__ import annotations

import torch

from dltrain.declare import declares
from dltrain.optimizers.groups import Params
from dltrain.ranges import Fraction, Inner, NonNegative, Positive, Runtime


def adadelta(
    params: Params,
    lr: Positive = 1.0,
    rho: Fraction = 0.9,
    eps: Positive = 1e-06,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.Adadelta:
    """Adadelta: step sizes from running averages of squared gradients and squared steps.

        s ← ρs + (1−ρ)g²
        d = √(u + ε)/√(s + ε)·g
        u ← ρu + (1−ρ)d²
        w ← w − lr·d

    Symbols: ρ = rho; ε = eps
    Use: problems for which lr has not been tuned; with lr 1 it is the method of the paper.
    Defaults: those of torch.
    Paper: Zeiler 2012, arXiv:1212.5701
    Lecture: L0 L2

    Args:
        lr: factor of the step
        rho: decay rate of both running averages
        eps: added under both square roots
        weight_decay: λ of the penalty λ/2·‖w‖², whose gradient is added to g
    """
    return torch.optim.Adadelta(params, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay)


def adafactor(
    params: Params,
    lr: Positive = 0.01,
    beta2_decay: float = -0.8,
    eps: tuple[Positive, Positive] = (1e-15, 0.001),
    d: Positive = 1.0,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.Adafactor:
    """Adafactor: Adam with the second moment stored as row and column sums, which saves memory.

        v̂ ≈ r cᵀ/Σr, with decay rate 1 − tᵝ
        u = g/√v̂, clipped to root mean square d
        w ← w − max(ε₂, rms(w))·min(lr, 1/√t)·u

    Symbols: β = beta2_decay; (ε₁, ε₂) = eps; √v̂ is at least ε₁
    Use: very large models; the step is relative to the size of the weights.
    Defaults: beta2_decay, d and eps of the paper; lr from benchmarks/default_lr.md.
    Paper: Shazeer & Stern 2018, arXiv:1804.04235

    Args:
        lr: largest relative step size
        beta2_decay: exponent of the decay rate of the second moment
        eps: smallest root of the second moment; smallest size of the weights that scales the step
        d: root mean square to which the update is clipped
        weight_decay: decoupled, as in adamw
    """
    return torch.optim.Adafactor(
        params, lr=lr, beta2_decay=beta2_decay, eps=eps, d=d, weight_decay=weight_decay
    )


def adagrad(
    params: Params,
    lr: Positive = 0.01,
    lr_decay: NonNegative = 0.0,
    initial_accumulator_value: NonNegative = 0.0,
    eps: Positive = 1e-10,
    weight_decay: NonNegative = 0.0,
    fused: Runtime = None,
) -> torch.optim.Adagrad:
    """Adagrad: the step of each weight is divided by the root of the sum of its squared gradients.

        s ← s + g²
        w ← w − lr/(1 + t·lr_decay)·g/(√s + ε)

    Symbols: ε = eps; t counts steps from 0
    Use: sparse features; the step sizes can only decrease.
    Defaults: those of torch; lr from benchmarks/default_lr.md.
    Paper: Duchi et al. 2011
    Lecture: L0 L1 L2 L3

    Args:
        lr: step size
        lr_decay: additional decay of the step size
        initial_accumulator_value: initial value of s
        eps: added to the root of s
        weight_decay: λ of the penalty λ/2·‖w‖², whose gradient is added to g
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
    params: Params,
    lr: Positive = 0.001,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: Positive = 1e-08,
    weight_decay: NonNegative = 0.0,
    fused: Runtime = None,
) -> torch.optim.Adam:
    """Adam: adaptive moment estimation with bias correction.

        m ← β₁m + (1−β₁)g
        v ← β₂v + (1−β₂)g²
        w ← w − lr·m̂/(√v̂ + ε)

    Symbols: (β₁, β₂) = betas; ε = eps; m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ)
    Use: the first optimizer to try; robust to the scale of the gradients.
    Defaults: lr, betas and eps of the paper.
    Paper: Kingma & Ba 2015, arXiv:1412.6980
    Lecture: L0 L1 L2 L3

    Args:
        lr: step size
        betas: decay rates of the first and second moment
        eps: added to the root of the second moment
        weight_decay: λ of the penalty λ/2·‖w‖², whose gradient is added to g (adamw decouples it)
    """
    return torch.optim.Adam(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)


def amsgrad(
    params: Params,
    lr: Positive = 0.001,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: Positive = 1e-08,
    amsgrad: bool = True,
    weight_decay: NonNegative = 0.0,
    fused: Runtime = None,
) -> torch.optim.Adam:
    """AMSGrad: Adam divided by the largest second moment so far, so that step sizes never increase.

        m, v as in adam
        v̄ ← max(v̄, v)
        w ← w − lr·m̂/(√(v̄/(1−β₂ᵗ)) + ε)

    Symbols: (β₁, β₂) = betas; ε = eps; m̂ = m/(1−β₁ᵗ)
    Use: problems on which Adam does not converge.
    Defaults: those of adam.
    Paper: Reddi et al. 2018, arXiv:1904.09237
    Lecture: L0

    Args:
        lr: step size
        betas: decay rates of the first and second moment
        eps: added to the root of the second moment
        amsgrad: use v̄; false is Adam
        weight_decay: λ of the penalty λ/2·‖w‖², whose gradient is added to g
    """
    return torch.optim.Adam(
        params, lr=lr, betas=betas, eps=eps, amsgrad=amsgrad, weight_decay=weight_decay, fused=fused
    )


def adamax(
    params: Params,
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
    Defaults: betas and eps of adam; lr from benchmarks/default_lr.md (2e-3 in the paper).
    Paper: Kingma & Ba 2015, arXiv:1412.6980, section 7
    Lecture: L0

    Args:
        lr: step size
        betas: decay rates of the first moment and of the largest gradient
        eps: added to |g|
        weight_decay: λ of the penalty λ/2·‖w‖², whose gradient is added to g
    """
    return torch.optim.Adamax(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


def adamw(
    params: Params,
    lr: Positive = 0.001,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: Positive = 1e-08,
    weight_decay: NonNegative = 0.01,
    fused: Runtime = None,
) -> torch.optim.AdamW:
    """AdamW: Adam with weight decay decoupled from the gradient.

        w ← w − lr·λ·w
        then as adam

    Symbols: λ = weight_decay; (β₁, β₂) = betas; ε = eps
    Use: transformers; biases and normalization weights are not decayed unless parameters.decay_all=true.
    Defaults: lr, betas and eps of adam; weight_decay of torch.
    Paper: Loshchilov & Hutter 2019, arXiv:1711.05101

    Args:
        lr: step size
        betas: decay rates of the first and second moment
        eps: added to the root of the second moment
        weight_decay: fraction of the weights subtracted per step, times lr
    """
    return torch.optim.AdamW(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)


def gd(
    params: Params,
    lr: Positive = 0.3,
    weight_decay: NonNegative = 0.0,
    fused: Runtime = None,
) -> torch.optim.SGD:
    """Gradient descent on the full training set.

        w ← w − lr·∇L(w), with L the mean over all training samples

    Use: descent without gradient noise; each step costs a pass over the data, so increase epochs.
    Defaults: lr from benchmarks/default_lr.md.
    Paper: Cauchy 1847
    Lecture: L0 L1 L3 L4

    Args:
        lr: step size
        weight_decay: λ of the penalty λ/2·‖w‖², whose gradient is added to ∇L
    """
    return torch.optim.SGD(params, lr=lr, weight_decay=weight_decay, fused=fused)


def momentum(
    params: Params,
    lr: Positive = 0.03,
    momentum: Fraction = 0.9,
    dampening: Fraction = 0.0,
    weight_decay: NonNegative = 0.0,
    fused: Runtime = None,
) -> torch.optim.SGD:
    """Gradient descent with heavy-ball momentum.

        v ← μv + (1−dampening)·g
        w ← w − lr·v

    The first step is not dampened: v starts at g.

    Symbols: μ = momentum
    Use: the standard for convolutional nets, with a decreasing schedule; momentum_schedule=linear raises μ
        from 0.5 to 0.9.
    Defaults: momentum of the lecture; lr from benchmarks/default_lr.md.
    Paper: Polyak 1964
    Lecture: L0 L1 L2 L3 L4

    Args:
        lr: step size
        momentum: factor of the previous v
        dampening: reduces the weight of the new gradient, except in the first step, where v = g
        weight_decay: λ of the penalty λ/2·‖w‖², whose gradient is added to g
    """
    return torch.optim.SGD(
        params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, fused=fused
    )


def nesterov(
    params: Params,
    lr: Positive = 0.03,
    momentum: Inner = 0.9,
    nesterov: bool = True,
    weight_decay: NonNegative = 0.0,
    fused: Runtime = None,
) -> torch.optim.SGD:
    """Nesterov momentum: the gradient is applied as if it had been computed one step ahead.

        v ← μv + g
        w ← w − lr·(g + μv)

    Symbols: μ = momentum
    Use: as momentum; slightly more stable at a large lr.
    Defaults: momentum of the lecture; lr from benchmarks/default_lr.md.
    Paper: Nesterov 1983; in this form Sutskever et al. 2013
    Lecture: L0 L1 L2 L3 L4

    Args:
        lr: step size
        momentum: factor of the previous v
        nesterov: look one step ahead; false is heavy-ball momentum
        weight_decay: λ of the penalty λ/2·‖w‖², whose gradient is added to g
    """
    return torch.optim.SGD(
        params, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, fused=fused
    )


def sgd(
    params: Params,
    lr: Positive = 0.3,
    weight_decay: NonNegative = 0.0,
    fused: Runtime = None,
) -> torch.optim.SGD:
    """Stochastic gradient descent on mini-batches, without momentum.

        w ← w − lr·g, with g the mean gradient of the batch

    Use: the baseline; batch_size selects stochastic (1), mini-batch or full-batch (full) descent.
    Defaults: lr from benchmarks/default_lr.md.
    Paper: Robbins & Monro 1951
    Lecture: L0 L1 L2 L3 L4

    Args:
        lr: step size
        weight_decay: λ of the penalty λ/2·‖w‖², whose gradient is added to g
    """
    return torch.optim.SGD(params, lr=lr, weight_decay=weight_decay, fused=fused)


def nadam(
    params: Params,
    lr: Positive = 0.002,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: Positive = 1e-08,
    momentum_decay: NonNegative = 0.004,
    decoupled_weight_decay: bool = False,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.NAdam:
    """NAdam: Adam with Nesterov momentum in the first moment.

        μₜ = β₁(1 − ½·0.96^(tψ))
        m̂ = μₜ₊₁m/(1−Πμ…μₜ₊₁) + (1−μₜ)g/(1−Πμ…μₜ)
        w ← w − lr·m̂/(√v̂ + ε)

    Symbols: (β₁, β₂) = betas; ψ = momentum_decay; ε = eps; m, v̂ as in adam
    Use: as adam; often slightly faster at the start.
    Defaults: those of the paper and torch.
    Paper: Dozat 2016
    Lecture: L0

    Args:
        lr: step size
        betas: decay rates of the first and second moment
        eps: added to the root of the second moment
        momentum_decay: rate at which μ rises from β₁/2 to β₁
        decoupled_weight_decay: apply weight_decay as adamw does
        weight_decay: λ of the penalty λ/2·‖w‖², whose gradient is added to g unless decoupled
    """
    optimizer = torch.optim.NAdam(
        params,
        lr=lr,
        betas=betas,
        eps=eps,
        momentum_decay=momentum_decay,
        decoupled_weight_decay=decoupled_weight_decay,
        weight_decay=weight_decay,
    )
    optimizer.register_load_state_dict_post_hook(_products_to_host)
    return optimizer


def _products_to_host(optimizer: torch.optim.Optimizer) -> None:
    """Move the products of μ to the CPU, where torch creates them: it loads them to a GPU, and reads them in each step."""
    for state in optimizer.state.values():
        state["mu_product"] = state["mu_product"].cpu()


def radam(
    params: Params,
    lr: Positive = 0.003,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: Positive = 1e-08,
    decoupled_weight_decay: bool = False,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.RAdam:
    """RAdam: Adam without the second moment until its estimate is reliable, then with a correction.

        ρₜ = ρ∞ − 2tβ₂ᵗ/(1−β₂ᵗ), ρ∞ = 2/(1−β₂) − 1
        ρₜ > 5: w ← w − lr·rₜ·m̂·√(1−β₂ᵗ)/(√v + ε), else w ← w − lr·m̂

    Symbols: (β₁, β₂) = betas; ε = eps; m̂, v as in adam; rₜ = √((ρₜ−4)(ρₜ−2)ρ∞/((ρ∞−4)(ρ∞−2)ρₜ))
    Use: Adam without a warm-up.
    Defaults: betas and eps of adam; lr from benchmarks/default_lr.md.
    Paper: Liu et al. 2020, arXiv:1908.03265
    Lecture: L3

    Args:
        lr: step size
        betas: decay rates of the first and second moment
        eps: added to the root of the second moment
        decoupled_weight_decay: apply weight_decay as adamw does
        weight_decay: λ of the penalty λ/2·‖w‖², whose gradient is added to g unless decoupled
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
    params: Params,
    lr: Positive = 0.001,
    alpha: Fraction = 0.9,
    eps: Positive = 1e-08,
    momentum: Fraction = 0.0,
    centered: bool = False,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.RMSprop:
    """RMSProp: Adagrad with a running average in place of the sum.

        s ← αs + (1−α)g²
        w ← w − lr·g/(√s + ε)
        with momentum μ: v ← μv + g/(√s + ε), w ← w − lr·v

    Symbols: α = alpha; ε = eps; μ = momentum
    Use: non-stationary problems and recurrent nets.
    Defaults: alpha of Hinton and the lecture (0.99 in torch); lr from benchmarks/default_lr.md.
    Paper: Hinton 2012, lecture 6e; centered: Graves 2013, arXiv:1308.0850
    Lecture: L0 L1 L2 L3

    Args:
        lr: step size
        alpha: decay rate of the running average of squares
        eps: added to the root
        momentum: factor of the previous v
        centered: divide by the standard deviation of the gradient instead of its root mean square
        weight_decay: λ of the penalty λ/2·‖w‖², whose gradient is added to g
    """
    return torch.optim.RMSprop(
        params, lr=lr, alpha=alpha, eps=eps, momentum=momentum, centered=centered, weight_decay=weight_decay
    )


@declares(gives={"steps by sign"})
def rprop(
    params: Params,
    lr: Positive = 0.001,
    etas: tuple[Positive, Positive] = (0.5, 1.2),
    step_sizes: tuple[Positive, Positive] = (1e-06, 50.0),
) -> torch.optim.Rprop:
    """Rprop: one step size per weight, adapted by the sign of the gradient.

        δ ← δ·η₊ where g keeps its sign, δ·η₋ where it changed
        w ← w − δ·sign(g), no step where the sign changed

    Raises ValueError unless η₋ < 1 < η₊.

    Symbols: (η₋, η₊) = etas; δ starts at lr and stays within step_sizes
    Use: full batches only, since noise changes signs; a schedule has no effect after the first step.
    Defaults: etas and step_sizes of the paper; lr from benchmarks/default_lr.md.
    Paper: Riedmiller & Braun 1993
    Lecture: L2

    Args:
        lr: initial step size of every weight
        etas: factors that decrease and increase the step size
        step_sizes: smallest and largest step size
    """
    return torch.optim.Rprop(params, lr=lr, etas=etas, step_sizes=step_sizes)
