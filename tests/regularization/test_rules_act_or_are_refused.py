"""No knob without effect: each regularizer and schedule beside each optimizer changes the weights, or is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dltrain.config.catalogue import Catalogue
from dltrain.config.search_path import catalogue_dir
from dltrain.errors import UserError

OPTIMIZERS = sorted(Catalogue(catalogue_dir()).words["optimizer"])
BASE = (
    "dataset=iris", "dataset.limit=48", "model.hidden=[4]", "batch_size=24", "evaluation.every_steps=12",
    "early_stopping=none", "checkpoint.background=false",
)  # fmt: skip
RULES = {
    "decoupled": "regularization=[weight_decay] regularization.weight_decay.strength=0.5",
    "coupled": "regularization=[weight_decay] regularization.weight_decay.strength=0.5 regularization.weight_decay.mode=coupled",
    "proximal": "regularization=[l1] regularization.l1.strength=0.5",
    "subgradient": "regularization=[l1] regularization.l1.strength=0.5 regularization.l1.mode=subgradient",
    "l2": "regularization=[l2] regularization.l2.strength=0.5",
    "elastic_net": "regularization=[elastic_net] regularization.elastic_net.strength=0.5",
    "max_norm": "regularization=[max_norm] regularization.max_norm.limit=0.01",
    "clip norm": "regularization=[gradient_clipping] regularization.gradient_clipping.limit=1e-5",
    "clip value": "regularization=[gradient_clipping] regularization.gradient_clipping.mode=value "
    "regularization.gradient_clipping.limit=1e-5",
    "clip adaptive": "regularization=[gradient_clipping] regularization.gradient_clipping.mode=adaptive "
    "regularization.gradient_clipping.limit=1e-5",
    "noise": "regularization=[gradient_noise]",
    "dropout": "regularization=[dropout]",
    "label_smoothing": "regularization=[label_smoothing]",
}  # fmt: skip
SCHEDULES = {
    "lr": "schedule=cosine",
    "warm-up": "schedule.warmup_steps=3",
    "momentum": "momentum_schedule=linear",
    "momentum from 0": "momentum_schedule=linear momentum_schedule.start=0",
}
REFUSED = {  # what must not act: (optimizers, knobs)
    **dict.fromkeys(
        ("steepest", "newton_cg"), {"decoupled", "coupled", "proximal", "clip norm", "clip value", "clip adaptive", "noise"}
    ),
    "lbfgs": {"decoupled", "coupled", "proximal", "max_norm", "clip norm", "clip value", "clip adaptive", "noise"},
    "schedule_free": {"proximal", "max_norm"},
    "rprop": {"lr", "warm-up", "clip norm", "clip value", "clip adaptive"},
}  # fmt: skip


def weights(run) -> Tensor:
    return torch.cat([tensor.flatten() for _, tensor in sorted(run.last_state()["weights"].items())])


BY_DEFAULT = {"lbfgs"}  # the others pass in a scan of a minute


@pytest.mark.parametrize(
    "optimizer",
    [word if word in BY_DEFAULT else pytest.param(word, marks=pytest.mark.slow) for word in OPTIMIZERS],
)
def test_every_rule_and_schedule_changes_the_weights_or_is_refused(train, workdir, optimizer):
    steps = 4 if optimizer in ("lbfgs", "newton_cg", "steepest") else 12
    base = [f"optimizer={optimizer}", *BASE, f"steps={steps}"]
    base += ["optimizer.weight_decay=0"] if optimizer == "adamw" else []
    plain = weights(train(*base))
    silent, refused, refusals = set(), set(), []
    for name, words in {**RULES, **SCHEDULES}.items():
        try:
            changed = weights(train(*base, *words.split()))
        except UserError as error:
            refusals.append(error)
            refused.add(name)
            continue
        assert bool(changed.isfinite().all()), name
        if changed.equal(plain):
            silent.add(name)
    assert silent == set()
    assert all(error.exit_code == 2 and len(str(error).splitlines()) == 2 for error in refusals)
    without_momentum = {name for name in refused if name.startswith("momentum")}
    assert len(without_momentum) in (0, 2)
    assert refused - without_momentum == REFUSED.get(optimizer, set())


@pytest.mark.parametrize("optimizer", ["steepest", "newton_cg"])
def test_max_norm_holds_after_a_step_along_the_curvature(train, optimizer):
    run = train(f"optimizer={optimizer}", *BASE, "steps=3", *RULES["max_norm"].split())
    for name, tensor in run.last_state()["weights"].items():
        if tensor.ndim == 2:
            assert tensor.norm(dim=1).max() <= 0.01 * (1 + 1e-5), name


CURES = [
    ("optimizer=lbfgs regularization=[weight_decay]", "regularization=[l2]"),
    ("optimizer=newton_cg regularization=[l1]", "regularization.l1.mode=subgradient"),
    ("optimizer=steepest regularization=[gradient_clipping]", "optimizer=momentum"),
    ("optimizer=lbfgs regularization=[max_norm]", "optimizer=momentum"),
    ("penalty_schedule=linear regularization=[dropout,max_norm]", "regularization=[dropout,max_norm,l2]"),
    ("penalty_schedule=linear regularization=[gradient_clipping]", "regularization=[gradient_clipping,l2]"),
    ("penalty_schedule=cosine regularization=[gradient_noise]", "penalty_schedule=none"),
    ("optimizer=rprop schedule=cosine", "schedule=constant"),
    ("optimizer=rprop schedule.warmup_steps=2 lr=0.002", "schedule.warmup_steps=0"),
]


@pytest.mark.parametrize("words, cure", CURES, ids=[row[0] for row in CURES])
def test_the_refusal_names_a_cure_that_trains(train, dltrain, workdir, words, cure):
    for door in ((), ("-m", "seed=0,1")):
        with pytest.raises(UserError) as refused:
            dltrain(*door, *words.split(), *BASE, "steps=2", "quiet=true")
        message = str(refused.value)
        assert len(message.splitlines()) == 2
        assert cure in message or cure.endswith("=0"), message
        assert not any(workdir.iterdir())
    keys = {cure.partition("=")[0]}
    kept = [word for word in words.split() if word.partition("=")[0] not in keys]
    train(*kept, cure, *BASE, "steps=2")


def test_it_is_refused_before_torch_is_imported(workdir):
    import subprocess
    import sys

    code = (
        "import sys; from dltrain.cli import dispatch\n"
        "try: dispatch(['optimizer=newton_cg', 'regularization=[gradient_noise]'])\n"
        "except Exception as error: print(type(error).__name__, 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=workdir)
    assert said.stdout.split() == ["UserError", "False"], said.stderr


OWN = """
import torch

class Mine(torch.optim.Optimizer):
    needs = frozenset({"one loss"})

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    def step(self, closure=None):
        return closure()

class Penalty:
    def __init__(self, model, weight=0.1):
        self.parameters = list(model.parameters())
        self.weight = weight

    def penalty(self):
        return self.weight * sum(p.square().sum() for p in self.parameters)
"""


def test_a_part_of_ones_own_is_held_to_what_it_declares(train, workdir, monkeypatch):
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("my_rules", None)
    (workdir / "my_rules.py").write_text(OWN)
    for file, text in {
        "optimizer/mine": "_target_: my_rules.Mine\nlr: 0.1\n",
        "optimizer/torchs": "_target_: torch.optim.LBFGS\nlr: 0.1\n",
        "regularization/pen": "pen:\n  _target_: my_rules.Penalty\n  weight: 0.1\n",
    }.items():
        path = workdir / "conf" / f"{file}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for word in ("mine", "torchs"):
        with pytest.raises(UserError, match=f"cannot go with `optimizer={word}`: its step follows from"):
            train(f"optimizer={word}", "regularization=[gradient_noise]", "trust=[torch]", *BASE, "steps=2")
    assert not (workdir / "outputs").exists()
    train("optimizer=mine", "regularization=[pen]", "penalty_schedule=linear", *BASE, "steps=2")
