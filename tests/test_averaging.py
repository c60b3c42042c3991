"""Averages of weights against their closed forms, and batch-norm statistics against those of all samples."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

from dltrain.averaging import EMA, SWA, Polyak, recompute_batch_norm
from dltrain.config.catalogue import Catalogue
from dltrain.config.search_path import catalogue_dir


class Point(nn.Module):
    """A model whose weights are set by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def put(self, value: float) -> None:
        self.w.data.copy_(torch.tensor([value, -value, 2 * value], dtype=torch.float64))


def averaged(model: Point, averaging) -> float:
    with averaging.swapped():
        assert model.w[1] == -model.w[0]
        return model.w[0].item()


def iterates() -> list[float]:
    return torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()


@pytest.mark.parametrize("warmup", [False, True])
def test_ema_equals_its_closed_form(warmup):
    model, values = Point(), iterates()
    averaging, truth = EMA(model, decay=0.8, warmup=warmup), None
    for step, value in enumerate(values):
        model.put(value)
        averaging.update(step)
        decay = min(0.8, (1 + step) / (10 + step)) if warmup else 0.8
        truth = value if truth is None else decay * truth + (1 - decay) * value
        assert averaged(model, averaging) == pytest.approx(truth, rel=1e-12)
        assert model.w[0].item() == value
    if not warmup:
        closed = 0.8**39 * values[0] + sum(0.2 * 0.8 ** (39 - t) * v for t, v in enumerate(values) if t)
        assert averaged(model, averaging) == pytest.approx(closed)


def test_polyak_is_the_mean():
    model, values = Point(), iterates()
    averaging = Polyak(model)
    for step, value in enumerate(values):
        model.put(value)
        averaging.update(step)
        assert averaged(model, averaging) == pytest.approx(sum(values[: step + 1]) / (step + 1), rel=1e-10)


def test_polyak_meets_its_closed_form_for_gradient_descent_on_a_quadratic():
    """w_t = q^t w_0 with q = 1 - lr λ, so that the mean of w_1 … w_T is q (1 - q^T) / (T (1 - q)) w_0."""
    model = Point()
    model.put(4.0)
    optimizer, averaging, q = torch.optim.SGD(model.parameters(), lr=0.3), Polyak(model), 1 - 0.3 * 0.5
    for step in range(50):
        optimizer.zero_grad()
        (0.25 * model.w**2).sum().backward()
        optimizer.step()
        averaging.update(step)
        closed = 4 * q * (1 - q ** (step + 1)) / ((step + 1) * (1 - q))
        assert averaged(model, averaging) == pytest.approx(closed)


def test_polyak_beats_the_last_iterate_of_noisy_descent():
    """At a constant lr the noise of the iterates remains, but averages out in their mean (Polyak & Juditsky)."""
    generator, last, mean = torch.Generator().manual_seed(0), 0.0, 0.0
    for _ in range(20):
        model = Point()
        averaging = Polyak(model)
        for step in range(300):
            model.w.data -= 0.5 * (model.w.data + torch.randn(3, generator=generator, dtype=torch.float64))
            averaging.update(step)
        last += model.w.square().sum().item()
        with averaging.swapped():
            mean += model.w.square().sum().item()
    assert mean < last / 20


def test_polyak_that_forgets_weighs_the_newest_more():
    model, values = Point(), iterates()
    averaging, truth = Polyak(model, forget=8.0), 0.0
    for step, value in enumerate(values):
        model.put(value)
        averaging.update(step)
        truth += 9 / (step + 9) * (value - truth)
    assert averaged(model, averaging) == pytest.approx(truth)


def test_swa_averages_now_and_then():
    model, values = Point(), iterates()
    averaging = SWA(model, start_step=10, every_steps=7)
    for step, value in enumerate(values):
        model.put(value)
        averaging.update(step)
        assert averaging.started == (step >= 10)
    assert averaged(model, averaging) == pytest.approx(sum(values[t] for t in (10, 17, 24, 31, 38)) / 5)


@pytest.mark.parametrize("word", [EMA, Polyak, SWA])
@pytest.mark.parametrize(
    "total, epoch, keys, refused",
    [
        (30, 6, {"start_step": 30}, "start_step is 30, .* 30 steps: a single iterate, of step 30,"),
        (30, 6, {"every_steps": 30}, "every_steps is 30, .* 30 steps: a single iterate, of step 30,"),
        (30, 6, {"every_steps": 16}, "use averaging.every_steps=15 or less"),
        (30, 6, {"start_step": 20, "every_steps": 11}, "use averaging.every_steps=10 or less"),
        (30, 6, {"start_step": 30, "every_steps": 30}, "averaging.start_step=1 averaging.every_steps=1"),
        (
            30,
            6,
            {"start_step": 31, "every_steps": 4},
            "nothing would be averaged; use averaging.start_step=26 ",
        ),
        (1, 6, {"every_steps": 1}, "1 step: a single iterate, of step 1, .*; train for more steps"),
        (30, 6, {"start_step": 20, "every_steps": 10}, None),
        (30, 6, {"every_steps": 15}, None),
    ],
)
def test_an_average_of_fewer_than_two_iterates_is_refused_by_every_word(word, total, epoch, keys, refused):
    keys = {"start_step": 0} | keys
    if refused is not None:
        with pytest.raises(ValueError, match=refused):
            word(Point(), total, epoch, **keys)
        return
    averaging = word(Point(), total, epoch, **keys)
    for step in range(1, total + 1):
        averaging.update(step)
        assert (averaging.count >= 2) == (step >= averaging.begins)


@pytest.mark.parametrize(
    "total, begins", [(7, 7), (12, 12), (18, 18), (24, 24), (60, 48), (61, 48), (6, None), (5, None)]
)
def test_swa_says_from_which_step_on_it_is_an_average(total, begins):
    """Six steps an epoch: 42 is the last end of an epoch in three quarters of 60, and 48 the next."""
    if begins is None:
        with pytest.raises(
            ValueError, match=r"a single iterate, of step \d, .* use averaging.every_steps=[23] or less"
        ):
            SWA(Point(), total, 6)
        return
    averaging = SWA(Point(), total, 6)
    counts = []
    for step in range(1, total + 1):
        averaging.update(step)
        counts.append(averaging.count)
    assert 1 + next(i for i, count in enumerate(counts) if count == 2) == averaging.begins == begins


def test_before_the_start_the_models_own_weights_are_swapped_in():
    model = Point()
    averaging = EMA(model, start_step=5)
    model.put(3.0)
    averaging.update(4)
    assert not averaging.started
    assert averaged(model, averaging) == 3.0


@pytest.mark.parametrize("make", [EMA, Polyak, lambda model: SWA(model, start_step=3, every_steps=2)])
def test_resumes_bit_equal_from_every_step(make):
    values = iterates()[:12]
    for cut in range(12):
        straight_model, resumed_model = Point(), Point()
        straight, resumed = make(straight_model), make(resumed_model)
        for step, value in enumerate(values):
            if step == cut:
                resumed.load_state_dict(straight.state_dict())
            for model, averaging in ((straight_model, straight), (resumed_model, resumed)):
                model.put(value)
                if model is straight_model or step >= cut:
                    averaging.update(step)
        assert resumed.started == straight.started
        assert all(torch.equal(a, b) for a, b in zip(resumed.average, straight.average, strict=True))


def test_a_saved_state_does_not_move_with_the_average():
    model = Point()
    averaging = EMA(model)
    averaging.update(0)
    state = averaging.state_dict()
    before = state["average"][0].clone()
    model.put(9.0)
    averaging.update(1)
    assert torch.equal(state["average"][0], before)


def test_weights_come_back_after_an_error_inside():
    model = Point()
    averaging = EMA(model)
    averaging.update(0)
    model.put(7.0)
    with pytest.raises(KeyError), averaging.swapped():
        raise KeyError
    assert model.w[0].item() == 7.0


def test_keeps_dtype_and_memory_format():
    model = nn.Conv2d(3, 4, 3).to(torch.bfloat16).to(memory_format=torch.channels_last)
    averaging = EMA(model)
    for step in range(3):
        averaging.update(step)
    with averaging.swapped():
        assert model.weight.dtype == torch.bfloat16
        assert model.weight.is_contiguous(memory_format=torch.channels_last)


def normed() -> tuple[nn.Sequential, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 2)
    )
    return model.double(), torch.randn(60, 2, 3, 3, dtype=torch.float64) * 3 + 1


@pytest.mark.parametrize("size", [1, 7, 20, 60])
def test_batch_norm_statistics_are_those_of_all_values(size):
    """The batch size does not matter, nor do sorted batches, whose means differ."""
    model, inputs = normed()
    inputs = inputs[inputs.sum((1, 2, 3)).argsort()]
    # these statistics must not remain
    model(inputs * 5 + 2)
    draws = torch.get_rng_state()
    recompute_batch_norm(model, lambda: inputs.split(size))
    hidden = model[0](inputs).detach().transpose(0, 1).flatten(1)
    norm = model[1]
    torch.testing.assert_close(norm.running_mean, hidden.mean(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm.running_var, hidden.var(1), rtol=1e-12, atol=1e-12)
    assert norm.momentum == 0.1 and model.training and norm.training and model[2].training
    assert torch.equal(draws, torch.get_rng_state())
    assert not norm._forward_pre_hooks


def deep(norms: int) -> tuple[nn.Sequential, torch.Tensor]:
    """A net with batch norms, registered in the reverse of the order of execution."""
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Tanh()) for _ in range(norms)]

    class Reversed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(reversed(layers))

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            for layer in reversed(self.layers):
                hidden = layer(hidden)
            return hidden

    return Reversed().double(), torch.randn(96, 5, dtype=torch.float64)


@pytest.mark.parametrize("size", [8, 32, 96])
def test_each_of_a_few_batch_norms_has_the_statistics_of_what_it_sees_in_evaluation(size):
    model, inputs = deep(3)
    recompute_batch_norm(model, lambda: inputs.split(size))
    hidden = inputs
    for linear, norm, _ in reversed(model.layers):
        hidden = (hidden @ linear.weight.T + linear.bias).detach()
        torch.testing.assert_close(norm.running_mean, hidden.mean(0), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(norm.running_var, hidden.var(0), rtol=1e-10, atol=1e-12)
        hidden = ((hidden - hidden.mean(0)) / (hidden.var(0) + 1e-5).sqrt()).tanh()
    torch.testing.assert_close(model.eval()(inputs), hidden, rtol=1e-10, atol=1e-12)


def test_many_batch_norms_have_the_statistics_of_one_pass_with_those_of_each_batch():
    model, inputs = deep(6)
    passes = 0

    def batches():
        nonlocal passes
        passes += 1
        return inputs.split(24)

    recompute_batch_norm(model, batches)
    assert passes == 1
    seen = [list(inputs.split(24))]
    for linear, norm, _ in reversed(model.layers):
        hidden = [(batch @ linear.weight.T + linear.bias).detach() for batch in seen[-1]]
        torch.testing.assert_close(norm.running_mean, torch.cat(hidden).mean(0), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(norm.running_var, torch.cat(hidden).var(0), rtol=1e-10, atol=1e-12)
        seen.append([((b - b.mean(0)) / (b.var(0, correction=0) + 1e-5).sqrt()).tanh() for b in hidden])


def test_batch_norm_inside_a_swap_leaves_no_trace():
    model, inputs = normed()
    averaging = Polyak(model)
    averaging.update(0)
    model.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with averaging.swapped():
        recompute_batch_norm(model, lambda: inputs.split(30))
        assert not torch.equal(model[1].running_mean, before["1.running_mean"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module.training for module in model.modules())


def test_a_model_without_batch_norm_reads_no_input():
    def inputs():
        raise AssertionError("read")

    recompute_batch_norm(nn.Linear(2, 2), inputs)


@pytest.mark.parametrize("name", ["ema", "polyak", "swa"])
def test_every_word_builds_with_its_defaults(name):
    word = Catalogue(catalogue_dir()).words["averaging"][name]
    module, _, factory = str(word.target).rpartition(".")
    averaging = getattr(importlib.import_module(module), factory)(
        Point(), 100, 10, **word.signature.defaults()
    )
    assert not averaging.started
