"""Quantities of the Hessian without building it, and the predicted change of the loss in a step."""

from __future__ import annotations

import torch
from torch import Tensor

from dltrain.diagnostics.probe import Probe, moved
from dltrain.optimizers.curvature import dot, hessian_vector
from dltrain.ranges import Count, Index, Positive

# replaces numbers that are not finite: the trainer reports a run that diverges
HUGE = 3e38
# eigenvalues below this part of the largest are rounding errors
ZERO = 1e-5


class Curvature:
    """Eigenvalues of the Hessian: extremes, negative part, condition number; is this a saddle?

        λ of H = ∇²L, all of them or by Lanczos
        κ = |λ|max / |λ|min
        saddle: ‖∇L‖ <= flat and λmin < 0

    Columns: `largest`, `smallest`, `negative` (the part of Σ|λ| that belongs to negative λ) and `saddle` (1 or 0, where λ
    within 1e-5 of the largest count as 0). With at most `exact_up_to` weights the whole Hessian is computed, which adds
    `negative_count` (the fraction of negative eigenvalues) and `condition` (κ, at most 1/ε of the dtype). With more
    weights, stochastic Lanczos quadrature estimates the columns (Ubaru, Chen & Saad 2017); signs cannot be counted then,
    since a network has many eigenvalues close to 0. Costs `iterations` × `draws` Hessian-vector products, each about two
    gradients of `samples`, and `iterations` copies of the weights in memory. The model must be twice differentiable.

    Symbols: L the mean loss of `samples`; flat, iterations and draws are keys
    Use: seeing why a learning rate diverges (it must stay below 2/λmax), or whether training stands at a saddle.
    Defaults: 20 Lanczos iterations, which give the largest eigenvalue to about one percent.
    Paper: Ghorbani et al. 2019, arXiv:1901.10159; Pearlmutter 1994
    Lecture: L0 L4

    Args:
        samples: training samples of the loss
        iterations: Hessian-vector products of each draw
        draws: random start vectors of Lanczos; more of them reduce the variance of `negative`
        exact_up_to: compute the whole Hessian with at most this many weights
        flat: greatest gradient norm that counts as a stationary point
    """

    needs = frozenset({"second derivatives"})

    def __init__(
        self,
        samples: Count = 256,
        iterations: Count = 20,
        draws: Count = 1,
        exact_up_to: Index = 200,
        flat: Positive = 1e-3,
    ) -> None:
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
        """Return Ritz values of all draws together, and their weights, which sum to 1."""
        # the same directions at every evaluation
        generator = torch.Generator(product.device).manual_seed(0)
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
    """Map v ↦ Hv for flat vectors v, computed by differentiating gᵀv."""

    def __init__(self, parameters: list[Tensor], grads: list[Tensor]) -> None:
        self.parameters, self.grads = parameters, grads
        self.sizes = [parameter.numel() for parameter in parameters]
        self.size = sum(self.sizes)
        self.device, self.dtype = parameters[0].device, parameters[0].dtype

    def __call__(self, vector: Tensor) -> Tensor:
        parts = [v.view_as(p) for v, p in zip(vector.split(self.sizes), self.parameters, strict=True)]
        return torch.cat([h.flatten() for h in hessian_vector(self.grads, self.parameters, parts)]).detach()


def _whole(product: Hessian) -> tuple[Tensor, Tensor]:
    """Return all eigenvalues, each with the weight 1/n."""
    eye = torch.eye(product.size, device=product.device, dtype=product.dtype)
    matrix = torch.stack([product(row) for row in eye]).cpu().double().nan_to_num(0.0, HUGE, -HUGE)
    values = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    return values, torch.full_like(values, 1 / product.size)


def lanczos(product: Hessian, start: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Return Ritz values of a symmetric product, and the squared first entries of their vectors (they sum to 1).

    Every new direction is orthogonalized against all earlier ones, twice; otherwise rounding repeats eigenvalues.
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
    # the Krylov space is exhausted: later entries are rounding errors
    done = (off <= 1e-6 * on.abs().max()).nonzero()
    end = int(done[0]) + 1 if len(done) else len(on)
    matrix = torch.diag(on[:end]) + torch.diag(off[: end - 1], 1) + torch.diag(off[: end - 1], -1)
    values, vectors = torch.linalg.eigh(matrix.nan_to_num(0.0, HUGE, -HUGE))
    return values, vectors[0].square()


class Prediction:
    """Predicted and true change of the loss in a gradient step, and the best learning rate.

        −α‖g‖² + ½α² gᵀHg  beside  L(w − αg) − L(w)
        α* = ‖g‖² / gᵀHg

    Columns: `predicted`, `true` and `best_lr` (α*; 0 where gᵀHg <= 0, since no step length is best there). The step is
    tried and undone. Where the two changes differ, the third derivative matters: α is too large for a quadratic model.
    Changes that are not finite are shown as ±3e38. Costs one gradient, one Hessian-vector product and one forward pass.

    Symbols: α the current lr; g, H gradient and Hessian of the mean loss of `samples`
    Use: seeing whether lr is too small or too large for plain gradient descent: compare it with best_lr.
    Defaults: 256 samples.
    Paper: Cauchy 1847; Pearlmutter 1994 for Hg
    Lecture: L0 L4

    Args:
        samples: training samples of the loss
    """

    needs = frozenset({"second derivatives"})

    def __init__(self, samples: Count = 256) -> None:
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
