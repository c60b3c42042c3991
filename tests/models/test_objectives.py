"""The study problems: values, gradients and Hessians in closed form; the worst start of the exact step."""

from __future__ import annotations

import pytest
import torch

from dltrain.models.objectives import Quadratic, Rosenbrock, Saddle


def value(model):
    outputs = model(torch.zeros(4, 1))
    assert outputs.shape == (4,)
    assert (outputs == outputs[0]).all()
    return outputs.mean()


def hessian(model):
    (gradient,) = torch.autograd.grad(value(model), model.w, create_graph=True)
    return torch.stack([torch.autograd.grad(entry, model.w, retain_graph=True)[0] for entry in gradient])


def at(model, *point):
    with torch.no_grad():
        model.w.copy_(torch.tensor(point, dtype=model.w.dtype))
    return model


def test_quadratic_has_the_hessian_that_was_asked_for():
    model = Quadratic(dimension=5, condition_number=1e4).double()
    expected = torch.tensor([1, 10, 100, 1e3, 1e4], dtype=torch.float64)
    torch.testing.assert_close(hessian(model), torch.diag(expected), rtol=1e-6, atol=0)
    assert value(model).item() == pytest.approx(0.5 * 11111, rel=1e-6)
    assert value(at(model, *[0] * 5)).item() == model.minimum == 0


@pytest.mark.parametrize("dimension", [2, 7])
def test_quadratic_worst_start_meets_the_bound_of_the_exact_step(dimension):
    kappa = 50.0
    model = Quadratic(dimension=dimension, condition_number=kappa, start="worst").double()
    losses = []
    for _ in range(20):
        loss = value(model)
        (gradient,) = torch.autograd.grad(loss, model.w)
        step = gradient.square().sum() / (model.eigenvalues * gradient.square()).sum()
        with torch.no_grad():
            model.w -= step * gradient
        losses.append(loss.item())
    ratios = [later / earlier for earlier, later in zip(losses, losses[1:], strict=False)]
    assert ratios == pytest.approx([((kappa - 1) / (kappa + 1)) ** 2] * 19, rel=1e-5)


def test_rosenbrock_from_its_usual_start():
    model = Rosenbrock().double()
    assert value(model).item() == pytest.approx(24.2, rel=1e-5)
    torch.testing.assert_close(model.w.data, torch.tensor([-1.2, 1.0]).double())
    value(at(model, 1, 1)).backward()
    assert value(model).item() == model.minimum == 0 and model.w.grad.abs().max() == 0
    torch.testing.assert_close(hessian(model), torch.tensor([[802.0, -400.0], [-400.0, 200.0]]).double())
    assert Rosenbrock(dimension=5).w.tolist() == pytest.approx([-1.2, 1, -1.2, 1, -1.2])


def test_saddle_has_one_negative_eigenvalue_and_two_minima():
    model = Saddle().double()
    torch.testing.assert_close(hessian(at(model, 0, 0)), torch.diag(torch.tensor([1.0, -1.0])).double())
    assert value(model).item() == 0.25
    for side in (-1, 1):
        assert value(at(model, 0, side)).item() == model.minimum == 0
        torch.testing.assert_close(hessian(model), torch.diag(torch.tensor([1.0, 2.0])).double())


@pytest.mark.parametrize("offset, end", [(0.0, 0.25), (1e-3, 0.0)])
def test_gradient_descent_leaves_the_saddle_only_beside_the_ridge(offset, end):
    model = Saddle(offset=offset)
    for _ in range(300):
        model.w.grad = None
        value(model).backward()
        with torch.no_grad():
            model.w -= 0.1 * model.w.grad
    assert value(model).item() == pytest.approx(end, abs=1e-5)


def test_quadratic_in_one_dimension():
    with pytest.raises(
        ValueError, match="is 100.0, but model.dimension=1 .*; use model.condition_number=1 or"
    ):
        Quadratic(dimension=1)
    assert value(Quadratic(dimension=1, condition_number=1.0)).item() == 0.5
