"""Errors in parts of the user: reported before the run begins, or in three lines when they come later."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import Run, run_folders

from dltrain.config.door import Fault
from dltrain.errors import UserError
from dltrain.optimizers.muon import Muon
from dltrain.run.rehearsal import copy_optimizer, owner

CODE = """
import torch
from torch import nn

STEPS = []

def fade(inputs, targets, generator):
    return inputs * torch.rand(7, 7, generator=generator), targets

def lonely(inputs, targets, generator):
    return inputs

def drops(inputs, targets, generator):
    return inputs[1:], targets

def good_fade(inputs, targets, generator):
    # the generators of the process are not the run's: a trial must not change them
    torch.rand(3)
    return inputs * 0.5, targets

def late(inputs, targets, generator):
    STEPS.append(1)
    if len(STEPS) > 12:
        raise RuntimeError("only later")
    return inputs, targets

def curve(total_steps):
    return lambda step: 1 / step

def text_curve(total_steps):
    return lambda step: "0.5"

class Shrink:
    def __init__(self, model, strength=0.1):
        self.model = model
    def penalty(self):
        return self.strength * sum(p.square().sum() for p in self.model.parameters())

class Vector(Shrink):
    def penalty(self):
        return next(self.model.parameters()).sum(0)

class Clip:
    order = 0
    def __init__(self, model): ...
    def change_gradients(self, generator, scale=1.0, step=0):
        torch.zeros(2) + torch.zeros(3)

class Project:
    def __init__(self, model): ...
    def after_update(self, param_groups, scale=1.0):
        param_groups["params"]

class Plain(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.gradient, alpha=-group["lr"])

class Second(Plain):
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if "m" in state:
                    state["v"].mul_(0.9)
                state["m"] = 0

class NoRate(torch.optim.Optimizer):
    def __init__(self, params, factor=0.1):
        super().__init__(params, {"factor": factor})
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad, alpha=-group["factor"])

class Unlisted(NoRate):
    def __init__(self, params, lr=0.1):
        torch.optim.Optimizer.__init__(self, params, {"factor": lr})

class NoGroups:
    def __init__(self, optimizer):
        self.optimizer = optimizer
    def step(self, closure=None):
        return self.optimizer.step(closure)
    def zero_grad(self, set_to_none=True): ...
    def state_dict(self): return {}
    def load_state_dict(self, state_dict): ...

class Still(Plain):
    def step(self, closure=None):
        return None

class Works(Plain):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad, alpha=-group["lr"])

class Holds(Works):
    def __init__(self, params, lr=0.1, factor=1.0):
        super().__init__(params, lr)
        self.factor = factor
    def step(self, closure=None):
        self.factor *= 0.5
        super().step(closure)

class Around:
    def __init__(self, optimizer):
        self.optimizer, self.param_groups = optimizer, optimizer.param_groups
    def step(self, closure=None):
        return self.optimizer.steep(closure)
    def zero_grad(self, set_to_none=True): ...
    def state_dict(self): return {}
    def load_state_dict(self, state_dict): ...

def cut(outputs, targets):
    return (outputs.detach() - 1).square().sum(1)

class Order:
    def __init__(self, targets, batch_size, seed, shuffle):
        self.count = len(targets)
    def order(self, epoch):
        return torch.randperm(self.count + 5)
    def __len__(self):
        return self.count

class Sorted(Order):
    def order(self, epoch):
        return self.targets.argsort()

class Count:
    samples = 8
    def measure(self, probe):
        return {"n": probe.weights.numel()}

class Wrong:
    direction = "max"
    def __init__(self): self.seen = 0
    def update(self, outputs, targets):
        self.seen += 1
        if self.seen > 5:
            [][0]
    def compute(self): return float(self.seen)

class Lazy(nn.Module):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(num_classes))
    def forward(self, x):
        return self.layers(x)

class LazyWrong(Lazy):
    def forward(self, x):
        return self.layers(x.missing)

class LazyUnused(Lazy):
    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes)
        self.other = nn.LazyLinear(3)

def bad_init(module, generator, batch):
    module.nothing.weight.fill_(0)
"""
EARLY = {  # group, target, what the message says
    "augmentation": ("augmentation", "fade", r"^`augmentation.mine` fails in a trial step: parts.py, line \d+: RuntimeError: The size .*\n"
                     r"The interface of augmentation: `f\(inputs, targets, generator, …\)`"),
    "one tensor": ("augmentation", "lonely", r"^`augmentation.mine` gives a tensor of shape .*, and must give two tensors, inputs and targets"),
    "fewer samples": ("augmentation", "drops", r"^`augmentation.mine` gives a tensor of shape \(63, .* for the inputs, which are .*\(64, "),
    "schedule": ("schedule", "curve", r"^`schedule` fails .*: ZeroDivisionError: .*\n.*schedule: `__call__\(self, step\)`"),
    "no number": ("schedule", "text_curve", r"^`schedule` gives str 0.5 for step 0, and must give a number"),
    "penalty schedule": ("penalty_schedule", "curve", r"^`penalty_schedule` fails .*ZeroDivisionError"),
    "penalty": ("regularization", "Shrink", r"^`regularization.mine` fails .*AttributeError: 'Shrink' .*'strength'.\n.*`penalty\(self\)`"),
    "vector": ("regularization", "Vector", r"^`regularization.mine` gives a tensor of shape .* as penalty of Vector, and must give .* without dim"),
    "gradient rule": ("regularization", "Clip", r"^`regularization.mine` fails .*RuntimeError.*\n.*`change_gradients\(self, generator"),
    "weight rule": ("regularization", "Project", r"^`regularization.mine` fails .*TypeError: list indices.*\n.*`after_update\(self, param_groups"),
    "optimizer": ("optimizer", "Plain", r"^`optimizer` fails .*AttributeError: .*'gradient'.\nThe interface of optimizer: `step\(self, \*closure\)`"),
    "second step": ("optimizer", "Second", r"^`optimizer` fails .*KeyError: 'v'"),
    "no lr in the groups": ("optimizer", "Unlisted", r"^`optimizer` has no `lr` in its param_groups, .*\n.*super\(\).__init__\(params, "),
    "no groups": ("wrap", "NoGroups", r"^`wrap.mine` gives an object without `param_groups`.\n.*self.param_groups = optimizer.param_groups"),
    "wrap": ("wrap", "Around", r"^`wrap.mine` fails .*AttributeError: .*'steep'"),
    "loss": ("loss", "cut", r"^`loss` fails in a trial step: RuntimeError: element 0 of tensors does not require grad"),
    "sampler": ("sampler", "Order", r"^`sampler` gives \d+ positions from 0 to \d+; they must be len\(self\)"),
    "sampler's code": ("sampler", "Sorted", r"^`sampler` fails .*AttributeError: .*'targets'.\nThe interface of sampler: `order\(self, epoch\)`"),
    "diagnostic": ("diagnostics", "Count", r"^`diagnostics.mine` fails .*AttributeError: .*'weights'.\n.*`measure\(self, probe\)`"),
    "lazy": ("model", "LazyWrong", r"^model=mine: its lazy layers get their sizes .*parts.py, line \d+: AttributeError: .*'missing'"),
    "lazy and unused": ("model", "LazyUnused", r"^model=mine: `forward` does not use other.weight"),
    "initializer": ("initializer", "bad_init", r"^initializer: parts.py, line \d+: AttributeError: .*'nothing'"),
}  # fmt: skip


@pytest.fixture
def mine(own_module):
    """Choose a target of the user's as the word `mine` of a group; returns what to type."""
    write = own_module("parts", CODE)

    def choose(group: str, target: str) -> list[str]:
        write(group, f"parts.{target}")
        extra = {"penalty_schedule": ["regularization=[l2]"], "optimizer": ["schedule=constant"]}
        small = [] if group in ("model", "initializer") else ["model.hidden=[8]"]
        return [f"{group}=mine", "epochs=2", "quiet=true", *small, *extra.get(group, [])]

    return choose


@pytest.mark.parametrize("group, target, says", EARLY.values(), ids=EARLY)
def test_an_error_is_told_before_the_run_begins(dltrain, workdir, mine, group, target, says):
    with pytest.raises(UserError) as error:
        dltrain(*mine(group, target))
    message = str(error.value)
    assert re.search(says, message), message
    assert len(message.splitlines()) <= 3
    assert error.value.exit_code == 2
    assert not (workdir / "outputs").exists()


@pytest.mark.parametrize("group, target", [("augmentation", "late"), ("metrics", "Wrong")])
def test_an_error_that_comes_later_is_told_in_a_few_lines(dltrain, workdir, mine, group, target):
    with pytest.raises(UserError) as error:
        dltrain(*mine(group, target), "evaluation.batch_size=16")
    assert re.search(
        rf"^`{group}.mine`: parts.py, line \d+: \w+Error: .*\nThe traceback is in", str(error.value)
    )
    assert len(str(error.value).splitlines()) <= 3
    (folder,) = run_folders(workdir)
    summary = Run(folder).summary
    assert summary["status"] == "failed"
    assert "parts.py, line" in summary["error"]
    log = (folder / "run.log").read_text()
    assert "Traceback (most recent call last)" in log and "parts.py" in log
    assert error.value.exit_code == 2


def test_an_error_elsewhere_is_not_that_of_the_only_part():
    """Code of the user's that is no part of the trial, such as a dataset, may fail beside one part."""
    own = {"optimizer": "parts.steps.Mine"}
    for file, key in (("parts/base.py", "optimizer"), ("data.py", "")):
        fault = Fault(((Path(file), "read"),), 3, "ValueError: no", "")
        assert owner(fault, own) == key
    assert owner(None, own) == "optimizer"


def test_an_optimizer_that_does_not_move_is_told(dltrain, mine, capsys):
    assert dltrain(*mine("optimizer", "Still")) == 0
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "changed no weight" in text]
    assert line.startswith("dltrain: optimizer=mine changed no weight in 2 trial steps")


@pytest.mark.parametrize("optimizer", ["muon", "lbfgs", "shampoo", "schedule_free", "newton_cg", "ranger"])
def test_an_own_model_trains_with_every_kind_of_optimizer(dltrain, mine, optimizer):
    """The copy for the trial had only the attributes that torch's optimizers pickle: Muon failed without its own."""
    assert dltrain(*mine("model", "Lazy"), f"optimizer={optimizer}", "steps=2", "epochs=null") == 0


def test_an_own_optimizer_may_hold_attributes(dltrain, mine):
    assert dltrain(*mine("optimizer", "Holds")) == 0


def test_a_copy_of_muon_takes_the_same_steps():
    weights = [
        torch.nn.Parameter(torch.randn(4, 3, generator=torch.Generator().manual_seed(i))) for i in (0, 1)
    ]
    memo: dict[int, object] = {}
    optimizer = Muon(weights, lr=0.1)
    copy_optimizer(optimizer, memo)
    copied = memo[id(optimizer)]
    for one in (optimizer, copied):
        for group in one.param_groups:
            for p in group["params"]:
                p.grad = torch.ones(4, 3).triu()
        one.step()
    twins = [p for group in copied.param_groups for p in group["params"]]
    assert all(a is not b and a.equal(b) for a, b in zip(weights, twins, strict=True))


def test_a_learning_rate_that_no_optimizer_takes_is_refused(dltrain, workdir, mine):
    typed = mine("optimizer", "NoRate")
    assert dltrain(*typed) == 0
    folders = run_folders(workdir)
    with pytest.raises(
        UserError,
        match="`lr` is 0.1, and optimizer=mine has no parameter `lr`, .*\n.*add `lr` to parts.NoRate",
    ):
        dltrain(*typed, "lr=0.1")
    with pytest.raises(UserError, match="no `lr` in its param_groups"):
        dltrain(*typed, "schedule=cosine")
    assert run_folders(workdir) == folders


def test_a_trial_changes_no_result(train, mine):
    """The run with a part of the user's that equals ours has the bits of the run without a trial."""
    run = train(*mine("optimizer", "Works"), "lr=0.125", "model.dropout=0.25", "averaging=ema")
    ours = train(
        "optimizer=sgd",
        "lr=0.125",
        "epochs=2",
        "model.hidden=[8]",
        "schedule=constant",
        "model.dropout=0.25",
        "averaging=ema",
    )
    assert run.timeless_rows == ours.timeless_rows


def test_lazy_layers_get_their_sizes_from_the_data(train, mine):
    run = train(*mine("model", "Lazy"), "seed=3")
    assert run.summary["parameters"] == 64 * 8 + 8 + 2 * 8 + 8 * 10 + 10
    again = train(*mine("model", "Lazy"), "seed=3")
    assert run.timeless_rows == again.timeless_rows
    assert all(torch.isfinite(weight).all() for weight in run.best_weights.values())
