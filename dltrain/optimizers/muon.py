"""The Muon optimizer and its Newton-Schulz iteration."""

from __future__ import annotations

import torch
from torch import Tensor

from dltrain.declare import Unused
from dltrain.optimizers.groups import (
    HAS_LAST_MATRIX,
    LAST_MATRIX,
    Closure,
    ParamGroup,
    Params,
    buffers,
    by_start,
    evaluate,
    gradients,
    with_gradient,
)
from dltrain.ranges import Count, Fraction, NonNegative, Positive

# of the quintic polynomial, chosen by Jordan for the largest slope at 0
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Muon: orthogonalized momentum for hidden matrices, AdamW for all other weights.

        m ← μm + (1−μ)g
        w ← w − lr·(0.2·√max(rows, columns)·NS((1−μ)g + μm) + λw)
        NS(USVᵀ) ≈ UVᵀ, by Newton-Schulz iteration

    The factor 0.2·√max gives the update the size of AdamW's, so that one lr serves both. Weights with more than
    two axes are flattened to (first axis, rest); torch.optim.Muon accepts matrices only. NS runs in bfloat16 on
    a GPU and in the parameters' dtype on a CPU. For r × c with r ≤ c it costs ns_steps·(4r²c + 2r³) operations,
    or about 4r²c + 8·ns_steps·r³ on a CPU if c ≥ 1.5r, at any batch size; a gradient costs 4rc to 6rc per
    sample.

    Symbols: μ = momentum; λ = weight_decay
    Use: matrices and convolutions, with large batches; biases, norms and the last matrix take AdamW, which
        is all of a model with one matrix, unless last=true.
    Defaults: momentum and ns_steps of the paper; lr from benchmarks/default_lr.md.
    Paper: Jordan et al. 2024; the factor: Liu et al. 2025, arXiv:2502.16982

    Args:
        lr: step size of Muon and AdamW
        momentum: decay rate of m
        nesterov: orthogonalize (1−μ)g + μm; false orthogonalizes m
        ns_steps: Newton-Schulz iterations
        last: orthogonalize the last matrix, too
        betas: decay rates of AdamW's moments
        eps: added to the root of AdamW's second moment
        weight_decay: fraction of the weights subtracted per step, times lr
    """

    def __init__(
        self,
        params: Params,
        lr: Positive = 1e-3,
        momentum: Fraction = 0.95,
        nesterov: bool = True,
        ns_steps: Count = 5,
        last: bool = False,
        betas: tuple[Fraction, Fraction] = (0.9, 0.999),
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        settings = {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps}
        adamw = {"betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {"lr": lr, **settings, **adamw, "steps": 0})
        matrices = [p for group in self.param_groups for p in group["params"] if p.ndim >= 2]
        # of the model; one that is frozen to the end is not among the parameters
        has_last = all(group.get(HAS_LAST_MATRIX, True) for group in self.param_groups)
        told = [group["params"][group[LAST_MATRIX]] for group in self.param_groups if LAST_MATRIX in group]
        spared = (told or matrices[-1:]) if has_last and not last else []
        # tensors, not ids, which a copy of the optimizer does not share
        self.hidden = [p for p in matrices if not spared or p is not spared[0]]
        self._spares_last = bool(matrices) and has_last and not last
        self._is_last_idle = last and not (matrices and has_last)

    def unused_keys(self) -> dict[str, Unused]:
        """Return the keys of Muon where AdamW steps all weights, those of AdamW where it steps none."""
        count = sum(len(group["params"]) for group in self.param_groups)
        found: dict[str, Unused] = {}
        if self._is_last_idle:
            found["last"] = Unused("the last matrix is not trained, or there is none")
        if not self.hidden:
            which = "no matrix but the last one" if self._spares_last else "no matrix"
            why = Unused(
                f"{which} is trained, and AdamW steps all weights", "optimizer.last=true" * self._spares_last
            )
            found |= dict.fromkeys(("momentum", "nesterov", "ns_steps"), why)
        elif len(self.hidden) == count:
            found |= dict.fromkeys(
                ("betas", "eps"), Unused("all weights are matrices, which AdamW does not step")
            )
        return found

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor | None:  # type: ignore[override]
        loss = evaluate(closure)
        hidden = {id(parameter) for parameter in self.hidden}
        for group in self.param_groups:
            parameters, starts = with_gradient(group), by_start(self, group, "mean")
            group["steps"] += 1
            if parameters and group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            self._step_hidden([p for p in parameters if id(p) in hidden], group)
            for start, places in starts.items():
                members = [group["params"][i] for i in places]
                others = [p for p in members if p.grad is not None and id(p) not in hidden]
                self._step_adam(others, group, group["steps"] - start)
        return loss

    def _step_hidden(self, parameters: list[Tensor], group: ParamGroup) -> None:
        if not parameters:
            return
        grads, momenta = gradients(parameters), buffers(self, parameters, "momentum")
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        ahead = torch._foreach_lerp(grads, momenta, group["momentum"]) if group["nesterov"] else momenta
        for parameter, direction in zip(parameters, ahead, strict=True):
            matrix = direction.flatten(1)
            update = orthogonalize(matrix, group["ns_steps"]).view_as(parameter)
            parameter.add_(update, alpha=-group["lr"] * 0.2 * max(matrix.shape) ** 0.5)

    def _step_adam(self, parameters: list[Tensor], group: ParamGroup, steps: int) -> None:
        """Take a step of Adam, the first `steps` of these parameters included."""
        if not parameters:
            return
        (beta1, beta2), grads = group["betas"], gradients(parameters)
        means, squares = buffers(self, parameters, "mean"), buffers(self, parameters, "square")
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, (1 - beta2**steps) ** 0.5)
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_addcdiv_(parameters, means, roots, value=-group["lr"] / (1 - beta1**steps))


def orthogonalize(matrix: Tensor, steps: int) -> Tensor:
    """Return U S' Vᵀ of a (rows, columns) matrix U S Vᵀ, with singular values S' near 1.

    After five steps they are between 0.7 and 1.2.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(torch.bfloat16 if matrix.is_cuda else matrix.dtype)
    # the Frobenius norm: no singular value is above 1
    x = x / (torch.linalg.matrix_norm(x) + 1e-7)
    # bfloat16 has too few digits for the squares of singular values
    by_gram = x.shape[1] >= 1.5 * x.shape[0] and x.dtype is not torch.bfloat16
    x = _iterate_gram(x, steps) if by_gram else _iterate(x, steps)
    return (x.T if tall else x).to(matrix.dtype)


def _iterate(x: Tensor, steps: int) -> Tensor:
    """Iterate X ← (a + b XXᵀ + c (XXᵀ)²) X: 2 products with X and one of its smaller side per step."""
    a, b, c = _COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _iterate_gram(x: Tensor, steps: int) -> Tensor:
    """Iterate on G = XXᵀ instead of X: P = a + b G + c G²; Q ← Q P; G ← G P²; return Q X.

    This takes 2 products with X in total and 4 of its smaller side per step: less if X is wide.
    """
    a, b, c = _COEFFICIENTS
    gram = x @ x.T
    total = torch.eye(len(x), dtype=x.dtype, device=x.device)
    for step in range(steps):
        # P - a
        rest = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        total = torch.addmm(total, total, rest, beta=a) if step else rest + a * total
        if step < steps - 1:
            gram = torch.addmm(gram, gram, rest, beta=a)
            gram = torch.addmm(gram, gram, rest, beta=a)
    return total @ x
