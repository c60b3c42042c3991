"""The Hessian without building it: extreme eigenvalues, negative ones, condition number; and what a step will gain."""

from __future__ import annotations

import torch
from torch import Tensor

from dltrain.diagnostics.probe import Probe, moved, require_at_least
from dltrain.optimizers.curvature import dot, hessian_vector
from dltrain.ranges import Count, Index, Positive

HUGE = 3e38  # what stands for a number that is not finite: a run that diverges is the trainer's to report
ZERO = 1e-5  # eigenvalues below this part of the largest are rounding


class Curvature:
    """The Hessian: extreme eigenvalues, how much is negative, condition number; is this a saddle?

        λ of H = ∇²L, all of them or by Lanczos
        κ = |λ|max / |λ|min
        saddle: ‖∇L‖ <= flat and λmin < 0

    Largest and smallest eigenvalue of the Hessian, what part is negative, condition number, and whether this
    is a saddle.

    `negative` is the part of Σ|λ| that belongs to negative λ. Up to `exact_up_to` weights all is from the
    whole Hessian, with `negative_count`, the share of eigenvalues below 0, and `condition`, |λ|max / |λ|min,
    at most 1/ε of the dtype. Above, it is by `iterations` steps of Lanczos from each of `draws` random
    vectors (stochastic Lanczos quadrature: Ubaru, Chen & Saad 2017; Ghorbani et al. 2019, arXiv:1901.10159):
    a network has so many eigenvalues next to 0 that their signs cannot be counted, and no smallest |λ| but 0.
    `saddle` is 1 where ‖∇L‖ <= `flat` and some eigenvalue is negative (L0, L4); those within 1e-5 of the
    largest count as 0. Costs `iterations` × `draws` Hessian-vector products, each about two gradients of
    `samples`, and as many copies of the weights in memory as there are iterations. Needs a model that can be
    differentiated twice.

    Symbols: flat, iterations and draws of Lanczos are keys
    Use: to see why a learning rate diverges (it must stay below 2/λmax), or whether training stands at a
        saddle.
    Defaults: 20 steps of Lanczos, which give the largest eigenvalue to about a per cent.
    Paper: Ghorbani et al. 2019, arXiv:1901.10159; Pearlmutter 1994
    Lecture: L0 L4

    Args:
        samples: training samples of the loss
        iterations: Hessian-vector products of each draw
        draws: random vectors that Lanczos starts from; more of them steady `negative`
        exact_up_to: with at most so many weights the whole Hessian is computed
        flat: greatest norm of the gradient that counts as a point without slope
    """

    def __init__(
        self,
        samples: Count = 256,
        iterations: Count = 20,
        draws: Count = 1,
        exact_up_to: Index = 200,
        flat: Positive = 1e-3,
    ) -> None:
        for key, value in (("samples", samples), ("iterations", iterations), ("draws", draws)):
            require_at_least(1, f"diagnostics.curvature.{key}", value)
        self.samples, self.iterations, self.draws = samples, iterations, draws
        self.exact_up_to, self.flat = exact_up_to, flat

    def measure(self, probe: Probe) -> dict[str, float]:
        _, grads = probe.gradients(create_graph=True)
        product = Hessian(probe.parameters, grads)
        exact = product.size <= self.exact_up_to
        values, weights = _whole(product) if exact else self._sampled(product)
        largest, smallest = float(values.max()), float(values.min())
        zero = ZERO * float(values.abs().max())
        flat = float(torch.stack(torch._foreach_norm([g.detach() for g in grads])).norm()) <= self.flat
        columns = {
            "largest": largest,
            "smallest": smallest,
            "negative": float(
                (weights * -values.clamp(max=0)).sum() / (weights * values.abs()).sum().clamp(min=1e-300)
            ),
            "saddle": float(flat and smallest < -zero),
        }
        if exact:
            least = float(values.abs().min())
            columns["negative_count"] = float((values < -zero).double().mean())
            rounding = torch.finfo(product.dtype).eps * float(values.abs().max())
            columns["condition"] = float(values.abs().max()) / max(least, rounding, 1e-300)
        return columns

    def _sampled(self, product: Hessian) -> tuple[Tensor, Tensor]:
        """Ritz values and their weights, which sum to 1, of all draws together."""
        generator = torch.Generator(product.device).manual_seed(0)  # the same directions at every evaluation
        pairs = [
            lanczos(
                product,
                torch.randn(product.size, generator=generator, device=product.device, dtype=product.dtype),
                self.iterations,
            )
            for _ in range(self.draws)
        ]
        return torch.cat([v for v, _ in pairs]), torch.cat([w for _, w in pairs]) / self.draws


class Hessian:
    """v ↦ Hv for flat vectors v, by differentiating gᵀv."""

    def __init__(self, parameters: list[Tensor], grads: list[Tensor]) -> None:
        self.parameters, self.grads = parameters, grads
        self.sizes = [parameter.numel() for parameter in parameters]
        self.size = sum(self.sizes)
        self.device, self.dtype = parameters[0].device, parameters[0].dtype

    def __call__(self, vector: Tensor) -> Tensor:
        parts = [v.view_as(p) for v, p in zip(vector.split(self.sizes), self.parameters, strict=True)]
        return torch.cat([h.flatten() for h in hessian_vector(self.grads, self.parameters, parts)]).detach()


def _whole(product: Hessian) -> tuple[Tensor, Tensor]:
    """All eigenvalues, each with the weight 1/n."""
    eye = torch.eye(product.size, device=product.device, dtype=product.dtype)
    matrix = torch.stack([product(row) for row in eye]).cpu().double().nan_to_num(0.0, HUGE, -HUGE)
    values = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    return values, torch.full_like(values, 1 / product.size)


def lanczos(product: Hessian, start: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Ritz values of a symmetric product, and the squared first entries of their vectors (they sum to 1).

    Every new direction is made orthogonal to all before it, twice, without which rounding repeats eigenvalues.
    """
    basis = [start / start.norm()]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    for _ in range(min(iterations, product.size)):
        direction = product(basis[-1])
        diagonal.append(direction @ basis[-1])
        known = torch.stack(basis)
        for _ in range(2):
            direction = direction - known.T @ (known @ direction)
        beside.append(direction.norm())
        basis.append(direction / beside[-1].clamp(min=torch.finfo(direction.dtype).tiny))
    on, off = torch.stack(diagonal).cpu().double(), torch.stack(beside).cpu().double()
    done = (off <= 1e-6 * on.abs().max()).nonzero()  # nothing new to find: what follows is rounding
    end = int(done[0]) + 1 if len(done) else len(on)
    matrix = torch.diag(on[:end]) + torch.diag(off[: end - 1], 1) + torch.diag(off[: end - 1], -1)
    values, vectors = torch.linalg.eigh(matrix.nan_to_num(0.0, HUGE, -HUGE))
    return values, vectors[0].square()


class Prediction:
    """What a gradient step should change in the loss, beside what it does change; the best lr.

        −α‖g‖² + ½α² gᵀHg  beside  L(w − αg) − L(w)
        α* = ‖g‖² / gᵀHg

    The change of the loss that a gradient step should bring, −α‖g‖² + ½α² gᵀHg, the change that it brings,
    and α* = ‖g‖² / gᵀHg.

    α is the learning rate of this moment, and the loss that of `samples`; the step is tried and taken back.
    Where the two changes part, the third derivative counts, and α is too large for a local picture (L0, L4).
    `best_lr` is α*, and 0 where the loss curves downwards, since no step is then the best. A change that is
    not finite is shown as 3e38. Costs one gradient, one Hessian-vector product and one more pass.

    Symbols: α = lr of this moment; g, H gradient and Hessian of the loss
    Use: to see whether lr is too small or too large for plain gradient descent: compare it with best_lr.
    Defaults: 256 samples.
    Paper: Cauchy 1847; Pearlmutter 1994 for Hg
    Lecture: L0 L4

    Args:
        samples: training samples of the loss
    """

    def __init__(self, samples: Count = 256) -> None:
        require_at_least(1, "diagnostics.prediction.samples", samples)
        self.samples = samples

    def measure(self, probe: Probe) -> dict[str, float]:
        parameters = probe.parameters
        loss, grads = probe.gradients(create_graph=True)
        plain = [grad.detach() for grad in grads]
        square = dot(plain, plain)
        curved = dot(plain, hessian_vector(grads, parameters, plain)).detach()
        with moved(parameters) as weights, torch.no_grad():
            torch._foreach_copy_(parameters, torch._foreach_sub(weights, plain, alpha=probe.lr))
            true = probe.mean_loss() - loss.detach()
        predicted = -probe.lr * square + 0.5 * probe.lr**2 * curved
        best = torch.where(curved > 0, square / curved, 0.0)
        changes = [change.nan_to_num(HUGE, HUGE, -HUGE) for change in (predicted, true)]
        best = best.nan_to_num(0.0, HUGE)
        return {"predicted": float(changes[0]), "true": float(changes[1]), "best_lr": float(best)}
