"""Every mistake that a command line can hold: its words, its exit code, and that the cure it names works.

A row is (arguments, what the message must say, exit code, the arguments after the cure). Nothing may be created by the
mistake; the cured command must train.
"""

from __future__ import annotations

import re

import pytest
from conftest import every

from dltrain.errors import UserError

FAST = ("steps=2", "quiet=true")  # the cured command is really run

CONFIG = [
    # words
    ("optimizer=adm", r"`optimizer=adm`: there is no such word\. Did you mean `adam`\?", "optimizer=adam"),
    ("model=resnt20", r"no such word\. Did you mean `resnet20`\?", "model=resnet20"),
    ("dataset=digit", r"Did you mean `digits`\?", "dataset=digits"),
    ("schedule=cosin", r"Did you mean `cosine`\?", "schedule=cosine"),
    ("regularization=off", r"Write regularization=none\.", "regularization=none"),
    ("regularization=[l1,dropuot]", r"`regularization=dropuot`: .*Did you mean `dropout`\?", "regularization=[l1,dropout]"),
    ("optimizer=[sgd,adam]", r"`optimizer` takes one word.*dltrain -m optimizer=sgd,adam", "optimizer=sgd"),
    ("averaging=null", r"`averaging=None`: .* Write averaging=none\.", "averaging=none"),
    ("experiment=tabluar", r"Did you mean `tabular`\?", "experiment=tabular epochs=1"),
    # keys
    ("optimzer=adam", r"`optimzer` is neither a knob nor a group\. Did you mean `optimizer`\?", "optimizer=adam"),
    ("learning_rate=0.1", r"`learning_rate` is neither a knob nor a group", "lr=0.1"),
    ("evaluation=3", r"`evaluation` is a section: set one of its keys, such as evaluation\.\w+=….*\nKeys of evaluation: ",
     "evaluation.every_epochs=3"),
    ("optimizer={lr:0.1}", r"`optimizer` takes a word, no mapping\. Set its keys: optimizer\.lr=…", "optimizer.lr=0.1"),
    ("epoch=3", r"Did you mean `epochs`\?", "epochs=3"),
    ("optimizer.beta=[0.9,0.99]", r"`optimizer.beta` is no key of optimizer=adam\. Did you mean `optimizer.betas`\?\n"
     r"Keys of optimizer=adam: ", "optimizer.betas=[0.9,0.99]"),
    ("model.hiden=[8]", r"Did you mean `model.hidden`\?", "model.hidden=[8]"),
    ("dataset.spilt_seed=1", r"Did you mean `dataset.split_seed`\?", "dataset.split_seed=1"),
    ("evaluation.every_epoch=2", r"Did you mean `evaluation.every_epochs`\?", "evaluation.every_epochs=2"),
    ("regularization.l1.strength=0.1", r"`regularization.l1.strength` is set, but regularization has no `l1` chosen\..*"
     r"Add it: regularization=\[l1\]", "regularization.l1.strength=0.1 regularization=[l1]"),
    ("+optimzer.lr=0.1", r"`optimzer.lr` is neither a knob nor a group\. Did you mean `optimizer", "optimizer.lr=0.1"),
    ("+lr=0.1", r"`lr` exists already; write it without `\+`", "lr=0.1"),
    ("+optimizer.nesterov=true", r"`optimizer.nesterov` is no key of optimizer=adam", ""),
    ("momentum=0.9", r"`momentum` is neither a knob nor a group\. Write optimizer=momentum optimizer\.momentum=0\.9\.",
     "optimizer=momentum optimizer.momentum=0.9"),
    # the form
    ("lr", r"`lr` is not `key=value`", "lr=0.1"),
    ("trian", r"`trian` is not `key=value`", ""),
    ("evalute", r"`evalute` is not `key=value`\. Did you mean `evaluate`\?", ""),
    ("lr=0.1,0.01", r"gives several values.*add -m: dltrain -m lr=0.1,0.01", "lr=0.1"),
    ("notes=[a", r"`notes=\[a` cannot be read", "notes=a"),
    ("hydra.run.dir=here", r"`hydra.run.dir` cannot be set.*\nWrite output=FOLDER or name=NAME", "output=here name=mine"),
    # values
    ("lr=nan", r"`lr` is nan; it must be: float > 0", "lr=0.001"),
    ("lr=inf", r"`lr` is inf; it must be: float > 0", "lr=0.001"),
    ("lr=0", r"`lr` is 0; it must be: float > 0", "lr=0.001"),
    ("lr=-1", r"`lr` is -1; it must be: float > 0", "lr=0.001"),
    ("lr=yes", r"`lr` is True|`lr` is yes", "lr=0.001"),
    ("lr='1e-3'", r"`lr` is 1e-3 \(the text '1e-3'\)", "lr=1e-3"),
    ("lr=atuo", r"`lr` is atuo; it must be: .* Did you mean `auto`\?", "lr=auto"),
    ("epochs=0", r"`epochs` is 0; it must be: int >= 1", "epochs=1"),
    ("epochs=2.5", r"`epochs` is 2\.5; it must be: int >= 1", "epochs=2"),
    ("sampler=balanced dataset.class_weights=balanced", r"`sampler=balanced` cannot go with `dataset.class_weights=balanced`: "
     r".* corrects twice\.\nUse dataset\.class_weights=none, or use sampler=none", "sampler=balanced dataset.class_weights=none"),
    ("dataset=none model=quadratic dataset.class_weights=balanced", r"`dataset=none` cannot go with `dataset.class_weights="
     r"balanced`: .*\nUse dataset\.class_weights=none", "dataset=none model=quadratic dataset.class_weights=none"),
    ("epochs=1 steps=5", r"`epochs` is 1 and `steps` is 5: both say how long", "epochs=null"),
    ("batch_size=0", r"`batch_size` is 0; it must be: int >= 1 or full", "batch_size=1"),
    ("batch_size=ful", r"Did you mean `full`\?", "batch_size=full"),
    ("seed=-1", r"`seed` is -1; it must be: int >= 0", "seed=1"),
    ("accumulate=0", r"`accumulate` is 0", "accumulate=1"),
    ("device=gpu", r"`device` is gpu; it must be: auto or cpu or cuda", "device=cpu"),
    ("precision=fp16", r"`precision` is fp16; it must be: auto or fp32 or bf16", "precision=bf16"),
    ("shuffle=epochs", r"Did you mean `epoch`\?", "shuffle=epoch"),
    ("threads=0", r"`threads` is 0", "threads=1"),
    ("workers=-1", r"`workers` is -1", "workers=0"),
    ("quiet=ja", r"`quiet` is ja; it must be: bool", "quiet=true"),
    ("tags=a", r"`tags` is a; it must be: list of str", "tags=[a]"),
    ("optimizer.betas=[0.9,1.5]", r"`optimizer.betas` is \[0.9, 1.5\]; it must be: pair of float in \[0, 1\)", "optimizer.betas=[0.9,0.95]"),
    ("optimizer.betas=0.9", r"pair of float", "optimizer.betas=[0.9,0.95]"),
    ("optimizer.eps=-1", r"`optimizer.eps` is -1; it must be: float", "optimizer.eps=1e-8"),
    ("model.hidden=[0]", r"`model.hidden` is \[0\]; it must be: list of int >= 1", "model.hidden=[8]"),
    ("model.dropout=1", r"`model.dropout` is 1; it must be: float in \[0, 1\)", "model.dropout=0.5"),
    ("model.activation=rlu", r"`model.activation` is rlu; .* Did you mean `relu`\?", "model.activation=relu"),
    ("model.norm=bacth", r"Did you mean `batch`\?", "model.norm=batch"),
    ("dataset.val_fraction=1", r"`dataset.val_fraction` is 1; it must be: float in \[0, 1\)", "dataset.val_fraction=0.2"),
    ("dataset.normalize=units", r"Did you mean `unit`\?", "dataset.normalize=unit"),
    ("early_stopping.patience=0", r"`early_stopping.patience` is 0", "early_stopping.patience=1"),
    ("early_stopping.mode=mim", r"Did you mean `min`\?", "early_stopping.mode=min"),
    ("early_stopping.metric=val/accuracy early_stopping.mode=min", r"`early_stopping.mode` is min, but of val/accuracy higher is better\.\n"
     r"Write early_stopping.mode=auto", "early_stopping.metric=val/accuracy early_stopping.mode=auto"),
    ("early_stopping=none early_stopping.mode=max", r"is max, but of val/loss lower is better", "early_stopping=none early_stopping.mode=auto"),
    ("early_stopping.metric=gap early_stopping.mode=max", r"is max, but of gap lower is better", "early_stopping.metric=gap"),
    ("schedule=plateau schedule.metric=val/accuracy schedule.mode=min", r"`schedule.mode` is min, but of val/accuracy higher",
     "schedule=plateau schedule.metric=val/accuracy schedule.mode=auto"),
    ("optimizer=momentum momentum_schedule=plateau momentum_schedule.mode=max", r"`momentum_schedule.mode` is max",
     "optimizer=momentum momentum_schedule=plateau momentum_schedule.mode=auto"),
    ("regularization=[l2] penalty_schedule=plateau penalty_schedule.mode=max", r"`penalty_schedule.mode` is max",
     "regularization=[l2] penalty_schedule=plateau penalty_schedule.mode=auto"),
    ("early_stopping.metric=val/distance", r"`early_stopping.metric` is val/distance, and early_stopping.mode=auto does not know .*\.\n"
     r"Say which: early_stopping.mode=min .* or early_stopping.mode=max", ""),
    ("schedule=plateau schedule.metric=val/distance", r"`schedule.metric` is val/distance, and schedule.mode=auto does not know", ""),
    ("early_stopping.metric=val/f2", r"Did you mean `val/f1`\? Write metrics=\[f1\] early_stopping\.metric=val/f1\n",
     "metrics=[f1] early_stopping.metric=val/f1"),
    ("metrics=[auroc] early_stopping.metric=val/roc", r"Did you mean `val/auroc`\?\nOtherwise", "metrics=[auroc] early_stopping.metric=val/auroc"),
    ("schedule=plateau schedule.metric=val/acc", r"Did you mean `val/accuracy`\? Write metrics=\[accuracy\] schedule\.metric=val/accuracy\n",
     "metrics=[accuracy] schedule=plateau schedule.metric=val/accuracy"),
    ("early_stopping.metric=val/acuracy", r"Did you mean `val/accuracy`\?", "early_stopping.metric=val/accuracy"),
    ("augmentation=[mixup] augmentation.mixup.alpha=-0.2", r"`augmentation.mixup.alpha` is -0.2; it must be: float > 0",
     "augmentation=[mixup] augmentation.mixup.alpha=0.2"),
    ("regularization=[l2] regularization.l2.strength=-1", r"`regularization.l2.strength` is -1",
     "regularization=[l2] regularization.l2.strength=0.1"),
    ("checkpoint.keep=0", r"`checkpoint.keep` is 0", "checkpoint.keep=1"),
    ("checkpoint.every_minutes=0", r"`checkpoint.every_minutes` is 0; it must be: float > 0", "checkpoint.every_minutes=0.5"),
    # together
    ("fold=1", r"`fold` is 1 but `folds` is not set.*Add folds=5", "fold=1 folds=5"),
    ("folds=5", r"`folds` is 5 but `fold` is not set.*Add fold=0", "folds=5 fold=0"),
    ("folds=3 fold=3", r"`fold` is 3; with folds=3 it must be below 3", "folds=3 fold=2"),
    ("evaluation.every_epochs=null", r"are both null", "evaluation.every_epochs=null evaluation.every_steps=1"),
    ("optimizer=adamw regularization=[weight_decay]", r"`regularization=weight_decay` cannot go with `optimizer.weight_decay=0.01`: .*"
     r"decay twice\.\nUse optimizer.weight_decay=0, or leave weight_decay out",
     "optimizer=adamw regularization=[weight_decay] optimizer.weight_decay=0"),
    ("optimizer=sgd momentum_schedule=linear", r"there is no momentum to schedule\.\nUse optimizer=momentum",
     "optimizer=momentum momentum_schedule=linear"),
    ("penalty_schedule=linear", r"cannot go with `regularization=none`: .*\nUse regularization=\[l2\]",
     "penalty_schedule=linear regularization=[l2]"),
    ("model=linear regularization=[stochastic_depth]", r"cannot go with `model=linear`: .*has no skips", "model=linear"),
    ("dataset=csv dataset.target=y", r"`dataset.path` must be given: ", ""),
]  # fmt: skip

DATA = [
    ("batch_size=5000", r"`batch_size` is 5000, and the training split has \d+ samples.*Use batch_size=\d+ or batch_size=full",
     2, "batch_size=full"),
    ("device=cuda:7", r"`device` is cuda:7, which this machine does not have\. There is: cpu", 2, "device=auto"),
    ("accumulate=65", r"`accumulate` is 65, more than the 64 samples of a batch", 2, "accumulate=64"),
    ("dataset=diabetes loss=cross_entropy", r"a quantity is no class.*\nUse loss=auto", 2, "dataset=diabetes"),
    ("dataset=digits loss=mse model=cnn dataset.normalize=none loss=huber", r"a class has no distance.*\nUse loss=auto", 2, "loss=cross_entropy"),
    ("dataset=diabetes augmentation=[mixup]", r"augmentation.mixup: .*augmentation.mixup.regression=true", 2,
     "dataset=diabetes augmentation=[mixup] augmentation.mixup.regression=true"),
    ("dataset=iris model=cnn", r"without neighbors.*\nUse model=mlp", 2, "dataset=iris model=mlp"),
    ("dataset=iris augmentation=[flip]", r"`dataset=iris` cannot go with `augmentation=flip`: ", 2, "dataset=iris"),
    ("steps=5 schedule=cosine schedule.warmup_steps=10", r"schedule: .*warm", 2, "schedule=cosine schedule.warmup_steps=1"),
    ("dataset=iris folds=60 fold=0", r"", 3, "dataset=iris folds=5 fold=0"),
    ("early_stopping.metric=val/mae", r"`early_stopping.metric` is val/mae, which this run does not measure", 2, "early_stopping.metric=val/loss"),
    ("early_stopping.metric=f1", r"To measure it: metrics=\[accuracy,f1\] early_stopping\.metric=val/f1$", 2,
     "metrics=[accuracy,f1] early_stopping.metric=val/f1"),
    ("early_stopping.metric=test/accuracy", r"Did you mean `val/accuracy`\?", 2, "early_stopping.metric=val/accuracy"),
    ("early_stopping.metric=val/distance early_stopping.mode=max", r"It measures: .*val/accuracy", 2, "early_stopping.metric=val/accuracy"),
]  # fmt: skip


def is_empty(workdir):
    return not any(workdir.iterdir())


def check_cure(dltrain, cure):
    if cure:
        given = cure.split()
        length = [] if any(word.startswith(("steps=", "epochs=")) for word in given) else ["steps=2"]
        assert dltrain(*given, *length, "output=cured", "quiet=true") == 0


@pytest.mark.parametrize("arguments, says, cure", every(4, CONFIG), ids=[row[0] for row in CONFIG])
def test_config_mistake(dltrain, workdir, arguments, says, cure):
    with pytest.raises(UserError) as refused:
        dltrain(*arguments.split())
    message = str(refused.value)
    assert re.search(says, message), message
    assert len(message.splitlines()) <= 3
    assert refused.value.exit_code == 2
    assert is_empty(workdir), "a refusal leaves nothing behind"
    check_cure(dltrain, cure)


@pytest.mark.parametrize("arguments, says, code, cure", DATA, ids=[row[0] for row in DATA])
def test_mistake_that_only_data_or_machine_can_tell(dltrain, workdir, arguments, says, code, cure):
    with pytest.raises(UserError) as refused:
        dltrain(*arguments.split())
    message = str(refused.value)
    assert re.search(says, message), message
    assert len(message.splitlines()) <= 3
    assert refused.value.exit_code == code
    assert is_empty(workdir), "a refusal leaves nothing behind"
    check_cure(dltrain, cure)
