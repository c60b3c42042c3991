"""Mistakes that only the length of the run, the data or a file can tell: refused with the numbers, and the cure trains."""

from __future__ import annotations

import re

import pytest

from dltrain.errors import UserError

ROWS = [
    ("optimizer=sgd optimizer.momentum=0.9", r"`optimizer.momentum` is no key of optimizer=sgd.*use optimizer=momentum",
     2, "optimizer=momentum optimizer.momentum=0.9"),
    ("optimizer=adam optimizer.momentum=0.9", r"its momentum is the first number of optimizer.betas", 2, "optimizer.betas=[0.9,0.99]"),
    ("optimizer=rprop momentum_schedule=linear", r"`momentum_schedule=linear` cannot go with `optimizer=rprop`: there is no momentum",
     2, "optimizer=momentum momentum_schedule=linear"),
    ("schedule=step schedule.every_epochs=50", r"every_epochs is 50, a period of 1050 steps; the schedule has 630", 2,
     "schedule=step schedule.every_epochs=1 epochs=2"),
    ("epochs=1 schedule=inverse_sqrt", r"unit is epochs.*\nUse schedule.unit=steps, or train for more epochs", 2,
     "epochs=1 schedule=inverse_sqrt schedule.unit=steps"),
    ("epochs=1 momentum_schedule=inverse optimizer=momentum", r"unit is epochs.*\nUse momentum_schedule.unit=steps", 2,
     "epochs=1 momentum_schedule=inverse optimizer=momentum momentum_schedule.unit=steps"),
    ("epochs=5 schedule=multistep schedule.unit=epochs schedule.milestones=[3,9]", r"milestones holds 9 \(unit=epochs\), step 189 of 105",
     2, "epochs=2 schedule=multistep schedule.unit=epochs schedule.milestones=[1]"),
    ("steps=5 schedule=cosine_restarts schedule.cycles=9", r"cycles is 9; the schedule has 5 steps", 2,
     "schedule=cosine_restarts schedule.cycles=1"),
    ("steps=5 schedule=triangular schedule.cycles=9", r"cycles is 9; the schedule has 5 steps", 2, "schedule=triangular schedule.cycles=1"),
    ("epochs=3 schedule=cosine schedule.warmup_epochs=4", r"warmup_epochs is 4, which takes 84 steps; the run has 63", 2,
     "epochs=2 schedule=cosine schedule.warmup_epochs=1"),
    ("steps=10 optimizer=momentum momentum_schedule=linear momentum_schedule.warmup_steps=10", r"warmup_steps is 10.*the run has 10",
     2, "steps=3 optimizer=momentum momentum_schedule=linear momentum_schedule.warmup_steps=1"),
    ("steps=10 regularization=[l2] penalty_schedule=linear penalty_schedule.warmup_steps=12", r"penalty_schedule: warmup_steps is 12",
     2, "steps=3 regularization=[l2] penalty_schedule=linear penalty_schedule.warmup_steps=1"),
    ("steps=20 averaging=swa averaging.every_steps=50", r"every_steps is 50, and the run has 20 steps: nothing would be averaged", 2,
     "steps=20 averaging=swa averaging.every_steps=5"),
    ("steps=20 averaging=ema averaging.start_step=50", r"start_step is 50, and the run has 20 steps: nothing would be averaged", 2,
     "averaging=ema averaging.start_step=1"),
    ("averaging=swa averaging.start_step=2000", r"start_step is 2000, and the run has 630 steps", 2,
     "averaging=swa averaging.every_steps=1"),
    ("dataset=iris folds=49 fold=0", r"folds is 49, but class 'setosa' has only 40 samples.*set folds to 40 or fewer", 3,
     "dataset=iris folds=5 fold=0"),
    ("dataset=wine folds=60 fold=0", r"folds is 60, but class 'class_2' has only 38 samples.*set folds to 38 or fewer", 3,
     "dataset=wine folds=5 fold=0"),
    ("initializer=pretrained", r"initializer=pretrained needs initializer.path", 2, ""),
    ("optimizer=gd epochs=2 steps=3", r"`epochs` is 2 and `steps` is 3: both say how long", 2, "optimizer=gd steps=3"),
    ("optimizer=steepest model=vit_tiny model.attention=fused", r"`model=vit_tiny` with attention=fused: .* no second "
     r"derivative.\nUse model.attention=math", 2, ""),
    ("regularization=[stochastic_depth]", r"`model=mlp` with residual=false: .*no skips.*\nUse model.residual=true", 2,
     "regularization=[stochastic_depth] model.residual=true model.hidden=[128,128]"),
    ("wrap=[lookahead] optimizer=ranger", r"`optimizer=ranger`.*Lookahead inside Lookahead.*\n.*optimizer=radam", 2,
     "wrap=[lookahead] optimizer=radam"),
    ("wrap=[sam,lookahead] optimizer=ranger", r"Lookahead inside Lookahead.*\n.*leave lookahead out", 2, "wrap=[sam] optimizer=ranger"),
    ("wrap=[sam] optimizer=lbfgs", r"`wrap=sam` cannot go with `optimizer=lbfgs`: it uses the curvature.*\nUse a first-order", 2,
     "wrap=[sam] optimizer=momentum"),
]  # fmt: skip


@pytest.mark.parametrize("arguments, says, code, cure", ROWS, ids=[row[0] for row in ROWS])
def test_refused_with_the_numbers_and_cured(dltrain, workdir, arguments, says, code, cure):
    with pytest.raises(UserError) as refused:
        dltrain(*arguments.split())
    assert re.search(says, str(refused.value)), str(refused.value)
    assert refused.value.exit_code == code
    assert not any(workdir.iterdir()), "a refusal leaves nothing behind"
    if cure:
        length = [] if re.search(r"\b(steps|epochs)=", cure) else ["steps=2"]
        assert dltrain(*cure.split(), *length, "quiet=true") == 0


def test_weights_of_another_shape_are_listed_and_refused_unless_told(train):
    narrow = train("model.hidden=[8]", "steps=1")
    source = ("initializer=pretrained", f"initializer.path={narrow.path}", "steps=1")
    with pytest.raises(UserError) as refused:
        train(*source)
    for part in (
        r"1 matched \(head.bias\)",
        r"2 missing from the file \(layers.1.0.weight, layers.1.0.bias\)",
        r"0 unexpected",
        r"head.weight \(file \(10, 8\), model \(10, 128\)\)",
        r"set initializer.strict=false",
    ):
        assert re.search(part, str(refused.value)), str(refused.value)
    assert train(*source, "initializer.strict=false").summary["status"] == "completed"
