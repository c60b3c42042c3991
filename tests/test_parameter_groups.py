"""Parts of a network with another lr, without decay, frozen, or thawed later."""

from __future__ import annotations

import pytest
import torch
from conftest import Run, assert_equal

from dltrain.errors import UserError
from dltrain.training.trainer import Trainer

PLAIN = ("optimizer=sgd", "steps=1", "model.hidden=[16]")


def test_a_scaled_part_steps_as_with_that_lr_and_the_rest_as_before(train):
    scaled = train(*PLAIN, "lr=0.05", "parameters.lr_scale={head: 4}").best_weights
    usual, faster = train(*PLAIN, "lr=0.05").best_weights, train(*PLAIN, "lr=0.2").best_weights
    for name in usual:
        assert_equal(scaled[name], (faster if name.startswith("head") else usual)[name])


def test_the_first_pattern_that_matches_counts_and_the_log_shows_the_plain_lr(train):
    patterns = "parameters.lr_scale={layers.0.0.bias: 2,*.bias: 3,layers: 0.5}"
    run = train(*PLAIN, "lr=0.05", patterns, "schedule=linear")
    groups = run.last_state()["optimizer"]["param_groups"]
    assert sorted(group.get("lr_scale", 1.0) for group in groups) == [0.5, 1.0, 2.0, 3.0]
    assert all(g["initial_lr"] == pytest.approx(0.05 * g.get("lr_scale", 1.0)) for g in groups)
    assert run.rows[0]["lr"] == pytest.approx(0.05)


def decayed(run: Run) -> list[tuple[int, float]]:
    groups = run.last_state()["optimizer"]["param_groups"]
    return sorted(((len(group["params"]), group["weight_decay"]) for group in groups), key=lambda g: -g[1])


def test_an_optimizers_own_decay_spares_biases_and_norms_unless_asked(train):
    net = ("optimizer=adamw", "model.norm=batch", "model.hidden=[16]", "steps=1")
    (decays, spared), (asked,) = decayed(train(*net)), decayed(train(*net, "parameters.decay_all=true"))
    assert decays == (2, 0.01)
    assert spared[1] == 0.0 and spared[0] >= 3
    assert asked == (2 + spared[0], 0.01)


FROZEN = ("optimizer=momentum", "parameters.freeze=[layers.0]", "regularization=[l2]", "early_stopping=none")


def test_frozen_parts_stay_and_thawed_ones_move_from_that_epoch_on(train):
    start = train(*FROZEN, "steps=1").last_state()["weights"]
    frozen = train(*FROZEN, "epochs=2")
    thawed = train(*FROZEN, "epochs=2", "parameters.thaw_epoch=1")
    for name in [name for name in start if name.startswith("layers.0.")]:
        assert_equal(frozen.last_state()["weights"][name], start[name])
        assert not torch.equal(thawed.last_state()["weights"][name], start[name])
    assert not torch.equal(frozen.last_state()["weights"]["head.weight"], start["head.weight"])
    assert_equal(thawed.timeless_rows[0], frozen.timeless_rows[0])  # the first epoch is the same one


@pytest.mark.parametrize(
    "word", ["adam", "steepest", "newton_cg", "muon", "schedule_free", "shampoo", "rprop"]
)
def test_thawing_goes_with_optimizers_of_every_kind(train, word):
    frozen = ("parameters.freeze=[layers.0]", "parameters.thaw_epoch=1")
    run = train(f"optimizer={word}", "epochs=2", "batch_size=400", *frozen, "model.hidden=[8]")
    assert run.summary["status"] == "completed"


@pytest.mark.parametrize(
    ("frozen", "hidden"),
    [
        (("parameters.freeze=[head]",), {"layers.0.0", "layers.1.0"}),
        (("parameters.freeze=[head]", "parameters.thaw_epoch=1"), {"layers.0.0", "layers.1.0"}),
        (("parameters.freeze=[layers.1]",), {"layers.0.0"}),
        ((), {"layers.0.0", "layers.1.0"}),
        (("parameters.lr_scale={layers.0: 2}", "parameters.freeze=[head]"), {"layers.0.0", "layers.1.0"}),
        (("optimizer.last=true",), {"layers.0.0", "layers.1.0", "head"}),
    ],
)
def test_muon_spares_the_last_matrix_of_the_model_and_no_other_one(train, frozen, hidden):
    """What Muon orthogonalizes has a momentum; the shapes tell the matrices of this net apart."""
    net = ("dataset=iris", "model.hidden=[6,5]", "optimizer=muon", "batch_size=full", "epochs=2", *frozen)
    state = train(*net).last_state()["optimizer"]["state"].values()
    shapes = {(6, 4): "layers.0.0", (5, 6): "layers.1.0", (3, 5): "head"}
    assert {shapes[tuple(found["momentum"].shape)] for found in state if "momentum" in found} == hidden


class Killed(BaseException):
    """Stands in for SIGKILL."""


@pytest.mark.parametrize("step", [21, 30, 42, 50])
def test_a_run_killed_while_frozen_or_after_the_thaw_resumes_bit_for_bit(
    train, dltrain, workdir, step, monkeypatch
):
    parts = ("parameters.thaw_epoch=2", "parameters.lr_scale={head: 3}")
    arguments = (*FROZEN, *parts, "epochs=3", "averaging=ema", "checkpoint.every_steps=10")
    golden = train(*arguments)
    observe = Trainer.observe

    def dying(self):
        if self.step == step:
            raise Killed
        observe(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "observe", dying)
        with pytest.raises(Killed):
            train(*arguments, "name=killed")
    (file,) = workdir.glob("outputs/killed/*/config.yaml")
    dltrain("resume", file.parent)
    killed = Run(file.parent)
    assert_equal(killed.last_state()["weights"], golden.last_state()["weights"])
    assert_equal(killed.last_state()["optimizer"], golden.last_state()["optimizer"])
    assert_equal(killed.timeless_rows, golden.timeless_rows)


def test_pretrained_weights_are_frozen_thawed_and_their_head_learns_faster(train):
    first = train("epochs=2", "model.hidden=[16]")
    net = ("model.hidden=[16]", "optimizer=sgd", "lr=0.01", "early_stopping=none")
    source = ("initializer=pretrained", f"initializer.path={first.path}", *net)
    frozen = train(*source, "initializer.freeze=[layers]", "epochs=2")
    thawed = train(*source, "initializer.freeze=[layers]", "initializer.thaw_epoch=1", "epochs=2")
    name = "layers.0.0.weight"
    assert_equal(frozen.last_state()["weights"][name], first.best_weights[name])
    assert not torch.equal(thawed.last_state()["weights"][name], first.best_weights[name])
    scaled = train(*source, "initializer.head_lr_scale=10", "steps=1").last_state()["weights"]
    asked = train(*source, "parameters.lr_scale={head: 10}", "steps=1").last_state()["weights"]
    assert_equal(scaled, asked)


MISTAKES = [
    ("parameters.freeze=[layer.0]", r"parameters.freeze has 'layer.0', which matches no parameter; near: layers"),
    ("parameters.freeze=[layers,head]", r"leaves nothing to train; leave the head out, as in parameters.freeze=\[layers\]"),
    ("parameters.thaw_epoch=3", r"`parameters.thaw_epoch` is 3, but nothing is frozen.*parameters.freeze=\["),
    ("parameters.freeze=[layers.0] parameters.thaw_epoch=0", r"`parameters.thaw_epoch` is 0; it must be: int >= 1"),
    ("parameters.freeze=[layers.0] parameters.thaw_epoch=5 epochs=3", r"`parameters.thaw_epoch` is 5, and the run has 3 epochs: it must be fewer\. "
     r"Write parameters.thaw_epoch=2 or parameters.thaw_epoch=null"),
    ("parameters.lr_scale={haed:2}", r"parameters.lr_scale has 'haed', which matches no parameter; near: head"),
    ("parameters.lr_scale={head:0}", r"gives head the factor 0; it must be: float > 0.\n.*parameters.freeze"),
    ("parameters.lr_scale={layers:2,layers.0:4}", r"gives layers.0 the factor 4, which has no effect: patterns before it match all"),
    ("parameters.freeze=[head] parameters.lr_scale={head:3}", r"gives head the factor 3, which has no effect: its parameters are frozen"),
    ("parameters.lr_scale={head:2} lr=null", r"`lr` is null, the optimizer's own default, .* Set it: lr=0.001"),
    ("parameters.lr_scale={head:fast}", r"gives head the factor fast"),
    ("parameters.lr_scale={head:2} optimizer=lbfgs", r"it makes one step of all weights.*\nUse parameters.lr_scale={}, or use a first-order"),
    ("parameters.freeze=[layers.0] parameters.thaw_epoch=1 optimizer=lbfgs", r"keeps pairs of steps.*\nUse .*thaw_epoch=null, or use a first"),
    ("parameters.lr_scal={head:2}", r"Did you mean `parameters.lr_scale`\?"),
]  # fmt: skip


@pytest.mark.parametrize("arguments, says", MISTAKES, ids=[row[0] for row in MISTAKES])
def test_mistakes_are_told_and_leave_nothing(dltrain, workdir, arguments, says):
    with pytest.raises(UserError, match=says) as refused:
        dltrain(*arguments.split())
    assert refused.value.exit_code == 2
    assert not any(workdir.iterdir())


def test_what_both_lists_freeze_is_frozen_as_long_as_one_of_them_says(train, dltrain):
    """Found by a tester: a layer that `parameters.freeze` never trains was thawed by `initializer.thaw_epoch`."""
    first = train("epochs=1", "lr=0.1")
    common = ["initializer=pretrained", f"initializer.path={first.path}", "epochs=3", "lr=0.1"]
    names = list(first.best_weights)

    def moved(*keys):
        weights = train(*common, *keys).last_state()["weights"]
        return {
            name.rpartition(".")[0]
            for name in names
            if not torch.equal(weights[name], first.best_weights[name])
        }

    every = moved()
    lowest = {name for name in every if name.startswith("layers.0.")}
    assert lowest and every - lowest
    thaw = ("initializer.freeze=[layers]", "initializer.thaw_epoch=1")
    assert moved(*thaw) == every
    assert moved(*thaw, "parameters.freeze=[layers.0]") == every - lowest
    assert (
        moved("initializer.freeze=[layers.0]", "parameters.freeze=[layers]", "parameters.thaw_epoch=1")
        == every - lowest
    )
    # the later one of two, in whichever list
    both = ("initializer.freeze=[layers.0]", "parameters.freeze=[layers]", "early_stopping=none")
    early, late = (
        train(*common, *both, "initializer.thaw_epoch=2", f"parameters.thaw_epoch={epoch}")
        for epoch in (1, 2)
    )
    alone = train(*common, "initializer.freeze=[layers]", "initializer.thaw_epoch=2", "early_stopping=none")
    assert_equal(late.last_state()["weights"], alone.last_state()["weights"])
    assert not torch.equal(
        early.last_state()["weights"]["layers.1.0.weight"], alone.last_state()["weights"]["layers.1.0.weight"]
    )
    longer = ("initializer.thaw_epoch=1", "parameters.thaw_epoch=2")
    for keys in (longer, ("initializer.thaw_epoch=1",)):
        with pytest.raises(
            UserError,
            match=r"`initializer.thaw_epoch` is 1, and all that it thaws is frozen for longer by parameters.freeze",
        ):
            dltrain(*common, *both, *keys)
