"""A run starts without `torch._dynamo`, and still starts if torch's private functions have changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dltrain.optimizers import startup

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys, time, torch
import torch.optim.swa_utils, torch.optim.lr_scheduler
from dltrain.optimizers.startup import skip_dynamo_import
{skip}
before = time.process_time()
for name, optimizer in list(vars(torch.optim).items()):
    if not isinstance(optimizer, type) or name in ("Optimizer", "SparseAdam"):
        continue
    weight = torch.nn.Parameter(torch.ones(3, 3))
    stepper = optimizer([weight])
    def closure():
        stepper.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss.detach()
    for _ in range(2):
        stepper.step(closure)
    stepper.load_state_dict(stepper.state_dict())
    assert weight.detach().max() < 1, name
print(time.process_time() - before, "torch._dynamo" in sys.modules)
"""


def run(skip: str) -> tuple[float, bool]:
    script = SCRIPT.format(skip=skip)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    seconds, imported = done.stdout.split()
    return float(seconds), imported == "True"


@pytest.mark.ci
def test_all_of_torch_optim_constructs_and_steps_without_dynamo():
    seconds, imported = run("skip_dynamo_import(); skip_dynamo_import()")
    assert not imported
    assert seconds < 0.2


@pytest.mark.slow
def test_without_the_trick_torch_imports_dynamo():
    _, imported = run("")
    # if this fails, torch no longer needs the workaround
    assert imported


@pytest.mark.ci
def test_no_module_of_the_package_imports_dynamo():
    names = [
        f"dltrain.optimizers.{path.stem}" for path in (ROOT / "dltrain" / "optimizers").glob("[a-z]*.py")
    ]
    names += ["dltrain.schedules", "dltrain.averaging", "dltrain.early_stopping"]
    script = f"import sys, {', '.join(names)}; print('torch._dynamo' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_unknown_forms_of_torch_are_left_alone():
    class Optimizer:
        def step(self) -> str:
            return "unchanged"

        add_param_group = 3

    startup._cache_undecorated(Optimizer.add_param_group)
    startup._cache_undecorated(Optimizer.step)
    startup._step_without_graph_breaks(Optimizer)  # type: ignore[arg-type]
    startup._step_without_graph_breaks(object)  # type: ignore[arg-type]
    assert Optimizer().step() == "unchanged"


def test_differentiable_steps_still_carry_a_graph():
    def step(self: torch.optim.Optimizer) -> bool:
        return torch.is_grad_enabled()

    wrapped = startup._graph_only_if_differentiable(step)
    for differentiable in (False, True):
        optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], differentiable=differentiable)
        assert wrapped(optimizer) == differentiable
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("engine", [True, False])
def test_backward_gives_the_gradient_of_the_public_function(monkeypatch, engine):
    if not engine:
        monkeypatch.delattr(torch.autograd.graph, "_engine_run_backward")
    weight, inputs = torch.randn(5, 3, requires_grad=True), torch.randn(7, 5)
    share = torch.rand(7)
    startup.backward((inputs @ weight).square().sum(1), share)
    (expected,) = torch.autograd.grad(((inputs @ weight).square().sum(1) * share).sum(), weight)
    torch.testing.assert_close(weight.grad, expected)
    startup.backward((inputs @ weight).square().sum(1), share)
    torch.testing.assert_close(weight.grad, 2 * expected)
