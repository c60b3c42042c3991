"""A user's optimizer, however it treats its closure, trains as an equal one that calls it."""

from __future__ import annotations

import hashlib
import json
import sys

import pytest
import torch
import yaml
from conftest import Run, assert_equal, run_folders

from dltrain.errors import CheckpointProblem, UserError

CODE = """
import torch
from torch.optim import Optimizer

class Calling(Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    def descend(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(group["lr"] * p.grad)

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        self.descend()
        return loss

class Ignoring(Calling):
    @torch.no_grad()
    def step(self, closure=None):
        self.descend()

class Bare(Calling):
    @torch.no_grad()
    def step(self):
        self.descend()

class ByName(Calling):
    @torch.no_grad()
    def step(self, *, scale=1.0, closure):
        assert scale == 1.0
        closure()
        self.descend()

class OtherArgument(Calling):
    @torch.no_grad()
    def step(self, scale=1.0):
        assert scale == 1.0
        self.descend()

class Clearing(Calling):
    @torch.no_grad()
    def step(self, closure):
        self.zero_grad()
        closure()
        self.descend()

class ClearingInPlace(Calling):
    @torch.no_grad()
    def step(self, closure):
        self.zero_grad(set_to_none=False)
        closure()
        self.descend()

class CallingTwice(Calling):
    '''Extragradient: step from the start with the gradient at the point that a plain step reaches.'''
    first = "closure()"

    @torch.no_grad()
    def step(self, closure):
        kept = [p.clone() for group in self.param_groups for p in group["params"]]
        self.before(closure)
        self.descend()
        closure()
        for p, k in zip((p for group in self.param_groups for p in group["params"]), kept):
            p.copy_(k)
        self.descend()

    def before(self, closure):
        closure()

class WithoutLr(Calling):
    def __init__(self, params, rate=0.1):
        super().__init__(params, rate)

class TakingAll(Calling):
    def __init__(self, params, **settings):
        super().__init__(params, settings.get("lr", 0.1))

class Pair:
    '''Adam for matrices and SGD for the rest, as papers combine them.'''
    def __init__(self, params, lr=0.1):
        params = [p for group in params for p in (group["params"] if isinstance(group, dict) else [group])]
        self.parts = [torch.optim.Adam([p for p in params if p.ndim > 1], lr=lr, fused=True),
                      torch.optim.SGD([p for p in params if p.ndim < 2], lr=lr, momentum=0.9)]

    @property
    def param_groups(self):
        return [group for part in self.parts for group in part.param_groups]

    def step(self):
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none=True):
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self):
        return {str(k): part.state_dict() for k, part in enumerate(self.parts)}

    def load_state_dict(self, state):
        for k, part in enumerate(self.parts):
            part.load_state_dict(state[str(k)])

class CallingOnceElsewhere(CallingTwice):
    '''The same, with the gradient computed beforehand in place of the first call.'''
    def before(self, closure):
        pass
"""
RULES = (
    "regularization=[l2,weight_decay,gradient_clipping,gradient_noise,max_norm]",
    "regularization.weight_decay.strength=0.1", "regularization.gradient_clipping.limit=0.3",
)  # fmt: skip


@pytest.fixture
def own(workdir, monkeypatch):
    """Make words of the classes above: name → optimizer=NAME."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("my_optimizers", None)
    (workdir / "my_optimizers.py").write_text(CODE)
    folder = workdir / "conf" / "optimizer"
    folder.mkdir(parents=True)

    def word(name: str, text: str = "lr: 0.1\n") -> str:
        (folder / f"{name.lower()}.yaml").write_text(f"_target_: my_optimizers.{name}\n{text}")
        return f"optimizer={name.lower()}"

    return word


def assert_twins(one: Run, other: Run) -> None:
    assert_equal(one.last_state()["weights"], other.last_state()["weights"])
    assert_equal(one.timeless_rows, other.timeless_rows)


COMMON = (
    "steps=12", "evaluation.every_steps=4", "schedule=linear", "model.hidden=[16]", "model.norm=batch", "dataset.limit=300",
)  # fmt: skip


@pytest.mark.ci
@pytest.mark.parametrize("more", [(*RULES, "accumulate=2"), ("wrap=[sam]", *RULES), ("wrap=[lookahead]",)])
def test_it_equals_its_twin_that_calls_the_closure(train, own, more):
    twin = train(own("Calling"), *COMMON, *more)
    for name in "Ignoring Bare ByName OtherArgument Clearing".split():
        assert_twins(train(own(name), *COMMON, *more), twin)


def test_one_of_several_optimizers_is_resumed(train, own, dltrain, workdir):
    """Each of the two optimizers has separate state and groups, and the pair exposes both; foreign moments are found in either."""
    arguments = (own("Pair"), "model.hidden=[16]", "dataset.limit=300", "early_stopping.patience=9")
    whole = train(*arguments, "epochs=4")
    part = train(*arguments, "epochs=2")
    assert dltrain("resume", part.path, "epochs=4", "quiet=true") == 0
    assert_twins(Run(part.path), whole)
    longer = train(*arguments, "epochs=2")
    for folder in (longer.path / "checkpoints").glob("step-*"):
        state = torch.load(folder / "state.pt", weights_only=True)
        for values in state["optimizer"]["0"]["state"].values():
            values["exp_avg"] = torch.zeros(1)
        torch.save(state, folder / "state.pt")
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["sha256"]["state.pt"] = hashlib.sha256((folder / "state.pt").read_bytes()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointProblem, match=r"`exp_avg` of an optimizer has shape \[1\]"):
        dltrain("resume", longer.path, "epochs=4")


def test_gradients_that_were_overwritten_are_evaluated_again(train, own):
    assert_twins(train(own("ClearingInPlace"), *COMMON), train(own("Calling"), *COMMON))


def test_one_that_ignores_the_closure_learns(train, own):
    """As a plain loop of ours does: torch's kernel rounds a little otherwise."""
    run = train(own("Ignoring"), *COMMON, *RULES)
    plain = train("optimizer=sgd", "lr=0.1", *COMMON, *RULES)
    for name, tensor in plain.last_state()["weights"].items():
        torch.testing.assert_close(run.last_state()["weights"][name], tensor, rtol=1e-4, atol=1e-6)


def test_a_second_call_evaluates_again(train, own):
    twice = train(own("CallingTwice"), *COMMON)
    assert_twins(train(own("CallingOnceElsewhere"), *COMMON), twice)
    plain = train(own("Calling"), *COMMON)
    assert plain.rows[-1]["train/loss"] != twice.rows[-1]["train/loss"]


@pytest.mark.parametrize(
    "words, calls",
    [
        ("optimizer=adam", 1), ("optimizer=sgd wrap=[lookahead]", 1), ("optimizer=schedule_free", 1),
        ("optimizer=sgd wrap=[sam]", 2), ("optimizer=steepest", 0), ("optimizer=newton_cg", 0), ("calling", 1),
        ("ignoring", 1), ("callingtwice", 2),
    ],
)  # fmt: skip
def test_no_backward_pass_is_made_in_vain(train, own, monkeypatch, words, calls):
    """One pass for each gradient that the update uses; those that build on the graph take none besides it."""
    from dltrain.training.objective import Objective

    counted = []
    evaluate = Objective.loss_gradient
    monkeypatch.setattr(Objective, "loss_gradient", lambda self: counted.append(1) or evaluate(self))
    # of the run, without the trial steps before it
    monkeypatch.setattr("dltrain.run.build.rehearse", lambda *parts: None)
    names = {name.lower(): name for name in ("Calling", "Ignoring", "CallingTwice")}
    train(*([own(names[words])] if words in names else words.split()), "steps=3", "dataset.limit=100")
    assert len(counted) == 3 * calls


def test_lr_of_the_command_line_reaches_a_file_with_its_own(train, own, dltrain, workdir):
    word = own("Calling", "lr: 0.1\n")
    given = train(word, "lr=0.05", "steps=5")
    for other in (
        train(own("Ignoring", "lr: 0.05\n"), "steps=5"),
        train(word, "optimizer.lr=0.05", "steps=5"),
    ):
        assert_equal(given.last_state()["weights"], other.last_state()["weights"])
        assert other.rows[-1]["lr"] == 0.05
    default = train(word, "steps=5")
    assert default.rows[-1]["lr"] == 0.1
    saved = yaml.safe_load((default.path / "config.yaml").read_text())
    assert (saved["lr"], saved["optimizer"]["lr"]) == (0.1, 0.1)
    before = run_folders(workdir)
    assert dltrain("rerun", default.path, "lr=0.05", "quiet=true") == 0
    (again,) = run_folders(workdir) - before
    assert_equal(given.last_state()["weights"], Run(again).last_state()["weights"])


@pytest.mark.ci
def test_lr_reaches_it_in_a_sweep_and_from_a_recipe(train, own, dltrain, workdir):
    word = own("Calling", "lr: 0.1\n")
    assert dltrain("-m", word, "lr=0.05,0.02", "steps=3", "quiet=true", "sweep.jobs=1") == 0
    rates = {Run(folder).rows[-1]["lr"] for folder in run_folders(workdir)}
    assert rates == {0.05, 0.02}
    recipe = workdir / "conf" / "experiment" / "mine.yaml"
    recipe.parent.mkdir()
    text = "# @package _global_\ndefaults:\n  - override /optimizer: calling\nsteps: 3\n"
    recipe.write_text(text + "lr: 0.03\n")
    assert train("experiment=mine").rows[-1]["lr"] == 0.03
    recipe.write_text(text + "optimizer:\n  lr: 0.04\n")
    assert train("experiment=mine").rows[-1]["lr"] == 0.04


def test_a_learning_rate_given_twice_is_refused(train, own, workdir):
    word = own("Calling", "lr: 0.1\n")
    with pytest.raises(UserError, match="`lr=0.05` beside `optimizer.lr=0.2`") as refused:
        train(word, "lr=0.05", "optimizer.lr=0.2", "steps=2")
    assert refused.value.exit_code == 2
    assert not (workdir / "outputs").exists()
    assert train(word, "steps=2", "optimizer.lr=0.2").rows[-1]["lr"] == 0.2


@pytest.mark.parametrize("name", ["WithoutLr", "TakingAll"])
def test_a_learning_rate_without_a_key_is_refused(train, own, workdir, name):
    word = own(name, "")
    with pytest.raises(UserError, match=f"`lr` is 0.05, and {word} has no (key|parameter) `lr`") as refused:
        train(word, "lr=0.05", "steps=2")
    assert refused.value.exit_code == 2
    assert not (workdir / "outputs").exists()


def test_a_learning_rate_reaches_the_signature_and_the_file(train, own):
    """The two cures of that refusal: a parameter `lr`, or for **kwargs a line of the file."""
    assert train(own("Calling", ""), "lr=0.05", "steps=2").rows[-1]["lr"] == 0.05
    assert train(own("TakingAll", "lr: 0.01\n"), "lr=0.05", "steps=2").rows[-1]["lr"] == 0.05
