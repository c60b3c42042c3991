"""Keys that change nothing for the model and the data that were built: refused where typed, told where a file sets them."""

from __future__ import annotations

import pytest
import torch
from conftest import Run
from omegaconf import OmegaConf

from dltrain.errors import UserError
from dltrain.models.objectives import Quadratic

STUDY = "dataset=none model=quadratic lr=0.01 epochs=2"
LINEAR = "dataset=iris model=linear lr=0.01 epochs=2"
FROZEN = "dataset=iris model.hidden=[4] lr=0.01 epochs=2 parameters.freeze=['*.weight']"
CLIPPED = "regularization.gradient_clipping.mode=adaptive regularization.gradient_clipping.limit=1e-5"
DECAY = "it acts on weights with two or more axes, and no weight {} has them"
LAST = "no matrix but the last one is trained, and AdamW steps all weights"
# (what else is typed, the key, the reason, the cure)
UNUSED = [
    (f"{STUDY} optimizer=sgd", "optimizer.weight_decay=5", DECAY.format("of this model"), "parameters.decay_all=true"),
    (f"{STUDY} optimizer=momentum", "optimizer.weight_decay=5", DECAY.format("of this model"), "parameters.decay_all=true"),
    (f"{STUDY} optimizer=ranger", "optimizer.weight_decay=5", DECAY.format("of this model"), "parameters.decay_all=true"),
    (f"{FROZEN} optimizer=adamw", "optimizer.weight_decay=5", DECAY.format("that is trained"), "parameters.decay_all=true"),
    (f"{LINEAR} optimizer=muon", "optimizer.momentum=0.3", LAST, "optimizer.last=true"),
    (f"{LINEAR} optimizer=muon", "optimizer.ns_steps=2", LAST, "optimizer.last=true"),
    (f"{LINEAR} optimizer=muon", "optimizer.nesterov=false", LAST, "optimizer.last=true"),
    (f"{STUDY} optimizer=muon", "optimizer.ns_steps=2", "no matrix is trained, and AdamW steps all weights", ""),
    (f"{STUDY} optimizer=muon", "optimizer.last=true", "the last matrix is not trained, or there is none", ""),
    (
        "dataset=digits dataset.limit=64 model=cnn steps=2 augmentation=[color]", "augmentation.color.saturation=0.9",
        "the images have 1 channel, and it needs three", "",
    ),
]  # fmt: skip


def weights(run: Run) -> torch.Tensor:
    return torch.cat([tensor.flatten() for _, tensor in sorted(run.last_state()["weights"].items())])


@pytest.mark.parametrize("base, key, why, cure", UNUSED, ids=[f"{u[0]} {u[1]}" for u in UNUSED])
def test_a_key_without_effect_is_refused_and_told(train, dltrain, workdir, base, key, why, cure):
    name = key.partition("=")[0]
    with pytest.raises(UserError) as error:
        dltrain(*base.split(), key)
    way_out = f"Add {cure}, or leave" if cure else "Leave"
    assert str(error.value) == f"`{name}` has no effect: {why}.\n{way_out} {name} out."
    without = train(*base.split())
    (workdir / "conf" / "experiment").mkdir(parents=True)
    recipe = OmegaConf.to_yaml(OmegaConf.from_dotlist([key]))
    (workdir / "conf/experiment/mine.yaml").write_text(f"# @package _global_\n{recipe}")
    in_a_file = train("experiment=mine", *base.split())
    assert weights(in_a_file).equal(weights(without))
    (line,) = [line for line in in_a_file.summary["inferred"] if name in line]
    assert line.startswith("unused ") and why in line and cure in line
    if cure:
        # decay_all has no effect itself without a decay
        other = without if name == "optimizer.weight_decay" else train(*base.split(), cure)
        assert not weights(train(*base.split(), key, cure)).equal(weights(other))


def test_a_schedule_of_a_momentum_that_no_weight_has_is_told(train, workdir):
    (workdir / "conf" / "experiment").mkdir(parents=True)
    recipe = "# @package _global_\ndefaults: [{override /momentum_schedule: linear}]\n"
    (workdir / "conf/experiment/mine.yaml").write_text(recipe)
    run = train("experiment=mine", *LINEAR.split(), "optimizer=muon")
    assert any(
        "optimizer.ns_steps, momentum_schedule: no matrix but" in line for line in run.summary["inferred"]
    )


def test_the_cure_is_the_decay_of_torch(train):
    run = train(*STUDY.split(), "optimizer=sgd", "optimizer.weight_decay=5", "parameters.decay_all=true")
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=5)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.zeros(1, 1)).mean().backward()
        optimizer.step()
    torch.testing.assert_close(run.last_state()["weights"]["w"], model.w.detach())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_defaults_of_a_word_train_and_are_told(train, optimizer):
    run = train(*STUDY.split(), f"optimizer={optimizer}")
    assert run.summary["status"] == "completed"
    assert [line.split(":")[0] for line in run.summary["inferred"]] == {
        "adamw": ["unused   optimizer.weight_decay"],
        "muon": ["unused   optimizer.momentum, optimizer.nesterov, optimizer.ns_steps"],
    }[optimizer]


@pytest.mark.parametrize(
    "overrides",
    [
        f"{STUDY} optimizer=adam optimizer.weight_decay=0",
        f"{LINEAR} optimizer=adamw optimizer.weight_decay=0.1",
        "dataset=iris model.hidden=[4] steps=2 optimizer=muon optimizer.ns_steps=2",
        f"{FROZEN} optimizer=adamw optimizer.weight_decay=0.1 parameters.thaw_epoch=1",
        "dataset=digits dataset.limit=64 model=cnn steps=2 augmentation=[color] augmentation.color.saturation=0",
    ],
)
def test_keys_with_an_effect_and_those_that_are_off_pass_without_a_line(train, overrides):
    assert [
        line for line in train(*overrides.split()).summary.get("inferred", []) if line.startswith("unused")
    ] == []


def test_a_decay_that_an_own_optimizer_does_not_take_from_its_groups_acts(train, workdir):
    (workdir / "conf" / "optimizer").mkdir(parents=True)
    (workdir / "conf/optimizer/mine.yaml").write_text("_target_: own_decay.Mine\n")
    (workdir / "own_decay.py").write_text(
        "import torch\n"
        "class Mine(torch.optim.Optimizer):\n"
        "    def __init__(self, params, lr=0.1, weight_decay=0.5):\n"
        "        self.decay = weight_decay\n"
        "        super().__init__(params, {'lr': lr})\n"
        "    @torch.no_grad()\n"
        "    def step(self):\n"
        "        for group in self.param_groups:\n"
        "            for p in group['params']:\n"
        "                p.sub_(p.grad + self.decay * p, alpha=group['lr'])\n"
    )
    one, two = (train(*STUDY.split(), "optimizer=mine", f"optimizer.weight_decay={d}") for d in (1, 2))
    assert not weights(one).equal(weights(two))


@pytest.mark.parametrize("parameters", ["list(model.named_parameters())", "[]"])
def test_an_own_rule_may_call_anything_its_parameters(train, workdir, parameters):
    module = f"own_rule_{len(parameters)}"
    (workdir / "conf" / "regularization").mkdir(parents=True)
    (workdir / "conf/regularization/mine.yaml").write_text(f"_target_: {module}.Mine\n")
    (workdir / f"{module}.py").write_text(
        "class Mine:\n"
        "    def __init__(self, model):\n"
        f"        self.model, self.parameters = model, {parameters}\n"
        "    def penalty(self):\n"
        "        return sum(p.square().sum() for p in self.model.parameters())\n"
    )
    run = train("dataset=iris", "model=linear", "steps=1", "regularization=[mine]")
    assert not any("acts on no weight" in line for line in run.summary.get("inferred", []))


def test_the_penalty_of_a_weight_that_the_optimizer_spares_is_not_named_twice(train):
    run = train(
        *STUDY.split(), "optimizer=adamw", "regularization=[l2]", "regularization.l2.all_parameters=true"
    )
    assert not any(line.startswith("penalty") for line in run.summary["inferred"])


@pytest.mark.parametrize(
    "base, rule",
    [(LINEAR, f"regularization=[gradient_clipping] {CLIPPED}"), (FROZEN, "regularization=[l2]")],
)
def test_a_rule_that_acts_on_no_trained_weight(train, dltrain, workdir, base, rule):
    """Adaptive clipping spares the last layer, which is all of a linear model; a frozen weight has no gradient."""
    word = rule.partition("[")[2].partition("]")[0]
    with pytest.raises(UserError, match=f"`regularization.{word}` has no effect: it acts on no weight"):
        dltrain(*base.split(), *rule.split())
    (workdir / "conf" / "experiment").mkdir(parents=True)
    keys = (
        OmegaConf.to_yaml(OmegaConf.from_dotlist([text for text in rule.split()[1:]]))
        if CLIPPED in rule
        else ""
    )
    recipe = f"# @package _global_\ndefaults: [{{override /regularization: [{word}]}}]\n{keys}"
    (workdir / "conf/experiment/mine.yaml").write_text(recipe)
    told = train("experiment=mine", *base.split())
    assert any(line.startswith(f"unused   regularization.{word}: ") for line in told.summary["inferred"])
    assert weights(told).equal(weights(train(*base.split())))
