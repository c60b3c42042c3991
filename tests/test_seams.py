"""Parts of a user's own: in every form that docs/extending.md names, and refused with what to write where they do not fit."""

from __future__ import annotations

import sys

import pytest
import torch.nn.functional as F
from conftest import run_folders

from dltrain.errors import UserError

CODE = """
from functools import partial
import torch
import torch.nn.functional as F
from torch import nn

def focal(outputs, targets, gamma=2.0):
    log = F.log_softmax(outputs, 1).gather(1, targets[:, None]).squeeze(1)
    return -((1 - log.exp()) ** gamma) * log

def focal_of(spec, gamma=2.0):
    return partial(focal, gamma=gamma)

class Focal(nn.Module):
    def __init__(self, gamma=2.0):
        super().__init__()
        self.gamma = gamma
    def forward(self, logits, labels):
        return focal(logits, labels, self.gamma)

class RequiredKey(Focal):
    def __init__(self, gamma):
        super().__init__(gamma)

def mean_focal(outputs, targets):
    return focal(outputs, targets).mean()

class Small(nn.Module):
    def __init__(self, num_classes, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, num_classes))
        self.layers(torch.zeros(1, 1, 8, 8))
    def forward(self, x):
        return self.layers(x)

class NoModel:
    def __init__(self, input_shape, num_classes): ...

class NoPenalty:
    def __init__(self, model, strength=0.1): ...

class WrongPenalty:
    def __init__(self, model): ...
    def penalty(self, weights): ...

def no_schedule(total_steps):
    return 0.5

class TwoSteps:
    def __init__(self, total_steps): ...
    def __call__(self, step, epoch): return 1.0

def wrong_fade(inputs, targets): return inputs, targets

class NoLength:
    def __init__(self, targets): self.targets = targets
    def order(self, epoch): return torch.arange(len(self.targets))

class NoMeasure:
    samples = 8

def fills_nothing(module): ...

class NoEvent:
    def on_epoch_end(self, row): ...

class NoStop:
    def __init__(self, metric="val/loss", mode="auto"): self.metric, self.mode = metric, "min"
    def observe(self, row, step): return True
    def state_dict(self): return {}
    def load_state_dict(self, state): ...

class NoAverage:
    def __init__(self, model): self.started = False
    def update(self, step): ...
    def state_dict(self): return {}
    def load_state_dict(self, state): ...

class NoWrap:
    def __init__(self, optimizer): self.param_groups = optimizer.param_groups
    def step(self): ...

class WrongEvent:
    def evaluated(self, row): ...
    def run_ended(self): ...
"""
FORMS = {
    "function": ("my_parts.focal", "loss.gamma=1.5"),
    "factory": ("my_parts.focal_of", "loss.gamma=1.5"),
    "module": ("my_parts.Focal", "loss.gamma=1.5"),
    "required": ("my_parts.RequiredKey\ngamma: 1.5", "loss.gamma=1.5"),
}
MISFITS = {
    "loss of a batch": ("loss", "my_parts.mean_focal", r"loss=mine gives shape \(\); it must be one loss a sample"),
    "model": ("model", "my_parts.NoModel", r"an object of NoModel, which is no torch\.nn\.modules\.module\.Module"),
    "penalty": ("regularization", "my_parts.NoPenalty", r"NoPenalty.*has no method `\w+\(self.*one of: penalty, change_gradients"),
    "arguments": ("regularization", "my_parts.WrongPenalty", r"has penalty\(weights\), and must have `penalty\(self\)`"),
    "schedule": ("schedule", "my_parts.no_schedule", r"an object of float, which has no method `__call__\(self, step\)`"),
    "schedule of two": ("schedule", "my_parts.TwoSteps", r"missing a required argument: 'epoch'"),
    "sampler": ("sampler", "my_parts.NoLength", r"has no method `__len__\(self\)`"),
    "diagnostic": ("diagnostics", "my_parts.NoMeasure", r"has no method `measure\(self, probe\)`"),
    "logger": ("logger", "my_parts.NoEvent", r"has no method `run_started\(self, run\)` \(or one of: run_started, step_logged, eval"),
    "event": ("logger", "my_parts.WrongEvent", r"has run_ended\(\), and must have `run_ended\(self, result\)`: too many"),
    "early stopping": ("early_stopping", "my_parts.NoStop", r"has no method `converged\(self, update_norm\)`"),
    "averaging": ("averaging", "my_parts.NoAverage", r"has no method `swapped\(self\)`"),
    "wrap": ("wrap", "my_parts.NoWrap", r"has no method `zero_grad\(self, set_to_none=True\)`"),
    "augmentation": ("augmentation", "my_parts.wrong_fade", r"A function of augmentation takes \(inputs, targets, generator, …\)"),
    "initializer": ("initializer", "my_parts.fills_nothing", r"A function of initializer takes \(module, generator, batch, …\)"),
}  # fmt: skip


@pytest.fixture
def mine(own_module):
    """Write a word `mine` of a group with a target of the user's."""
    return own_module("my_parts", CODE)


@pytest.mark.parametrize("target, key", FORMS.values(), ids=FORMS)
def test_a_loss_in_every_form(train, mine, target, key):
    mine("loss", target)
    run = train("loss=mine", key, "epochs=1", "model.hidden=[8]")
    assert "val/objective" in run.rows[0]
    # γ = 1.5 makes each sample's loss smaller, and never larger
    assert 0 < run.rows[0]["val/objective"] < run.rows[0]["val/loss"]


def test_all_forms_of_a_loss_give_one_result(train, mine):
    rows = []
    for target, key in FORMS.values():
        mine("loss", target)
        sys.modules.pop("my_parts", None)
        rows.append(train("loss=mine", key, "epochs=1", "model.hidden=[8]").timeless_rows)
    assert all(row == rows[0] for row in rows)


def test_the_objective_of_a_users_loss_is_its_mean_over_the_split(train, mine, workdir):
    """The column against the model's outputs and the formula, in float64."""
    import dltrain.run.scoring as scoring
    from dltrain.config import saved
    from dltrain.config.compose import open_catalogue
    from dltrain.config.door import Door, all_targets
    from dltrain.run.build import build

    mine("loss", "my_parts.focal")
    run = train("loss=mine", "epochs=1", "model.hidden=[8]")
    catalogue = open_catalogue()
    config = saved.read(run.path, catalogue, [])
    parts, plan = build(config, Door(all_targets(catalogue), []))
    scoring.load_best(parts, run.path)
    passes, targets = scoring.predict(parts, plan, parts.val)
    log = F.log_softmax(passes[0].double(), 1).gather(1, targets[:, None]).squeeze(1)
    assert run.rows[0]["val/objective"] == pytest.approx(
        float((-((1 - log.exp()) ** 2) * log).mean()), rel=1e-5
    )


def test_a_model_takes_what_it_names(train, mine):
    mine("model", "my_parts.Small")
    run = train("model=mine", "model.width=5", "epochs=1")
    assert run.summary["parameters"] == 64 * 5 + 5 + 5 * 10 + 10


@pytest.mark.parametrize("group, target, message", MISFITS.values(), ids=MISFITS)
def test_a_part_that_does_not_fit_is_refused(dltrain, workdir, mine, group, target, message):
    mine(group, target)
    with pytest.raises(UserError, match=message) as error:
        dltrain(
            f"{group}=mine", "epochs=1", "quiet=true", "model.hidden=[8]" if group != "model" else "seed=0"
        )
    assert error.value.exit_code == 2
    assert len(str(error.value).splitlines()) <= 3
    assert not run_folders(workdir)
    assert not (workdir / "outputs").exists()


def test_every_group_of_parts_has_an_interface():
    from dltrain.config.groups import ALL
    from dltrain.seams import interface_of, methods_of

    for group in ALL:
        for name in group.interfaces:
            interface = interface_of(name)
            assert methods_of(interface) or not getattr(interface, "_is_protocol", False), name
    assert {group.name for group in ALL if not group.interfaces} == {
        "dataset",
        "sweep",
        "experiment",
        "debug",
    }


VERB = '''"""`dltrain weigh RUN… [FILE]`: print how many bytes the files of runs take."""

from pathlib import Path

HELP = """
Examples
  dltrain weigh outputs/digits_mlp/*
"""


def run(arguments):
    for name in arguments:
        print(name, sum(file.stat().st_size for file in Path(name).rglob("*") if file.is_file()))
    return 0
'''


def test_one_file_is_a_verb(train, dltrain, tmp_path_factory, monkeypatch, capsys):
    """A file in the folder of verbs is dispatched, listed, explained, completed and suggested; nothing else is edited."""
    import dltrain.commands as commands
    from dltrain.commands.complete import candidates, split

    folder = tmp_path_factory.mktemp("commands")
    (folder / "weigh.py").write_text(VERB, encoding="utf-8")
    (folder / "helper.py").write_text('"""Helpers of `dltrain weigh RUN…`: no verb."""\n')
    run = train("epochs=1", "model=linear")
    with pytest.raises(UserError, match="`weigh` is not `key=value`"):
        dltrain("weigh")
    commands.__path__.append(str(folder))
    try:
        capsys.readouterr()
        assert dltrain("weigh", run.path) == 0
        size = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
        assert capsys.readouterr().out == f"{run.path} {size}\n"
        assert dltrain("--help") == 0
        (line,) = [
            line for line in capsys.readouterr().out.splitlines() if line.startswith("  dltrain weigh")
        ]
        assert line.split("RUN… [FILE]")[1].strip() == "print how many bytes the files of runs take"
        assert dltrain("weigh", "--help") == 0
        assert capsys.readouterr().out.startswith("dltrain weigh RUN… [FILE]\n    print how many bytes")
        assert candidates(*split("dltrain wei")) == ["weigh"]
        assert {"outputs/", "conf.txt"} & set(candidates(*split("dltrain weigh "))) == {"outputs/"}
        with pytest.raises(UserError, match="Did you mean `weigh`"):
            dltrain("weihg")
        assert "helper" not in candidates(*split("dltrain "))
    finally:
        commands.__path__.remove(str(folder))
        sys.modules.pop("dltrain.commands.weigh", None)


def test_every_verb_has_a_page_and_a_function():
    from importlib import import_module

    from dltrain.verbs import verbs

    for verb in verbs().values():
        assert callable(import_module(verb.module).run)
        assert len(verb.about) <= 77, "on the page of --help a line has 120 characters"
    assert {"check", "evaluate", "resume"} <= verbs().keys()
    assert not {"train", "help", "handbook"} & verbs().keys()
