"""Every override set gives the same configuration, or the same refusal, at every entry: a run, a job of a sweep, a saved run,
a call from Python.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from dltrain.config import saved
from dltrain.config.catalogue import LIST_GROUPS, Catalogue
from dltrain.config.compose import compose, open_catalogue, open_hydra, plain_value
from dltrain.config.python_values import override_texts
from dltrain.config.search_path import catalogue_dir
from dltrain.config.validation import validate
from dltrain.errors import UserError
from dltrain.sweep.plan.composer import Composer

WITH = {  # what a word cannot do without
    "dataset=csv": "dataset.path=t.csv dataset.target=y",
    "dataset=npz": "dataset.path=t.npz",
    "dataset=image_folder": "dataset.root=photos",
    "dataset=none": "model=saddle",
    "regularization=[stochastic_depth]": "model=resnet20",
    "loss=huber": "dataset=diabetes",
    "loss=mae": "dataset=diabetes",
    "loss=mse": "dataset=diabetes",
    "model=quadratic": "dataset=none",
    "model=rosenbrock": "dataset=none",
    "model=saddle": "dataset=none",
    **{f"metrics=[{word}]": "dataset=diabetes" for word in ("mae", "rmse", "mape", "r2", "spearman")},
}


def words() -> list[str]:
    """A set for each word of the catalogue."""
    found = []
    for group, names in Catalogue(catalogue_dir()).words.items():
        for name, word in names.items():
            # refused where its package is missing
            if not all(map(find_spec, word.declared.requires)):
                continue
            text = f"{group}=[{name}]" if group in LIST_GROUPS and name != "none" else f"{group}={name}"
            needs = {"momentum_schedule": "optimizer=momentum", "penalty_schedule": "regularization=[l2]"}
            found.append(" ".join(filter(None, [text, WITH.get(text) or needs.get(group) * (name != "none")
                                                if group in needs else WITH.get(text)])))  # fmt: skip
    return found


VALID = [
    "", "lr=0.1", "lr=1", "lr=auto", "lr=1e-3 optimizer=sgd", "optimizer.lr=0.2", "seed=3 epochs=2", "steps=10",
    "optimizer=gd steps=10", "optimizer=gd epochs=3", "experiment=digits_mlp steps=10", "experiment=tabular epochs=2",
    "experiment=mnist_cnn optimizer=sgd", "experiment=digits_mlp regularization=[l2]", "experiment=digits_mlp regularization=none",
    "model.hidden=[8]", "model.hidden=[]", "model.activation=tanh model.norm=batch", "batch_size=full", "batch_size=auto",
    "regularization=[l2,dropout] regularization.l2.strength=1 regularization.dropout.p=0.5", "wrap=[sam,lookahead]",
    "regularization=[weight_decay] regularization.weight_decay.mode=coupled", "early_stopping.metric=val/accuracy",
    "schedule=plateau schedule.metric=val/accuracy", "folds=5 fold=2", "name=a/b tags=[x,y] notes='two words'",
    "parameters.freeze=[layers.0] parameters.thaw_epoch=1", "parameters.lr_scale={head: 10}", "+parameters.lr_scale.head=10",
    "++lr=0.5", "lr=0.1 ++lr=0.5", "evaluation.every_epochs=null evaluation.every_steps=5", "dataset.normalize=none",
    "dataset=iris dataset.test_fraction=0.5", "averaging=ema averaging.decay=0.5", "augmentation=[shift,mixup]",
    "loss=bce loss.label_smoothing=0.1", "initializer=kaiming_normal initializer.last=zeros", "threads=1 device=cpu",
    "momentum_schedule=one_cycle optimizer=nesterov", "penalty_schedule=linear regularization=[l1]", "debug=overfit lr=0.01",
    "sampler=hard shuffle=once", "diagnostics=[layers,curvature]", "model=cnn augmentation=[crop,flip]", "log.every_steps=5",
]  # fmt: skip
INVALID = [
    "lr=-1", "lr=nan", "lr=fast", "lr='1e-3'", "epochs=0", "epochs=1.5", "epochs=3 steps=3", "seed=-1", "batch_size=0", "optimzer=adam",
    "optimizer=adma", "optimizer=[adam]", "optimizer.beta=1", "optimizer.betas=[0.9]", "optimizer.betas=[0.9,1.0]", "model.hiden=[3]",
    "model.hidden=[0]", "model.hidden=3", "model.activation=rleu", "regularization=[l3]", "regularization.l2.strength=1",
    "regularization=[l2] regularization.l2.strength=-1", "fold=1", "folds=5", "folds=5 fold=5", "shuffle=always", "precision=fp16",
    "device=tpu", "tags=x", "quiet=1", "dataset=iris model=cnn", "dataset=iris loss=mse", "dataset=iris augmentation=[shift]",
    "optimizer=lbfgs wrap=[sam]", "optimizer=lbfgs wrap=[lookahead]", "optimizer=sgd momentum_schedule=linear", "penalty_schedule=linear",
    "optimizer=newton_cg regularization=[weight_decay]", "optimizer=lbfgs regularization=[weight_decay]", "dataset=none",
    "optimizer=adam optimizer.weight_decay=0.1 regularization=[weight_decay]", "early_stopping.metric=val/accuracy early_stopping.mode=min",
    "shuffle=replacement sampler=balanced", "parameters.thaw_epoch=2", "dataset=csv", "model=mlp model.stochastic_depth=0.5",
    "evaluation.every_epochs=null", "evaluation.tta_words=[shift]", "name=../x", "lr=0.1 optimizer.lr=0.2", "+lr=0.1", "+model.depth=3",
    "hydra.run.dir=x", "loss=hinge", "sampler=balanced dataset.class_weights=balanced",
]  # fmt: skip
SETS = [*words(), *VALID, *INVALID]
# Hydra composes each set twice, 0.1 s each: one in nine by default, the others with the marker `slow`.
PICKED = [
    pytest.param(s, id=s or "nothing", marks=[] if i % 9 == 0 else pytest.mark.slow)
    for i, s in enumerate(SETS)
]


@pytest.fixture(scope="module")
def entries():
    catalogue = open_catalogue()
    hydra = open_hydra(catalogue)
    return catalogue, hydra, Composer(catalogue, hydra)


def outcome(read, *arguments):
    """The configuration as plain data with its words, or the refusal."""
    try:
        config = read(*arguments)
    except UserError as error:
        return str(error), error.exit_code
    return config.plain, config.words


def split(text: str) -> list[str]:
    """The overrides of a set; only the last one may hold blanks."""
    parts, found = text.split(" "), []
    for part in parts:
        if "=" in part or not found:
            found.append(part)
        else:
            found[-1] += " " + part
    return [part for part in found if part]


def from_python(overrides: list[str]) -> list[str]:
    """The overrides of a call with the same values as Python's own; a prefix such as `++` can only be given as text."""
    if any(text[0] in "+~" for text in overrides):
        return override_texts(tuple(overrides), {})
    parsed = OverridesParser.create().parse_overrides(overrides)
    return override_texts((), {item.get_key_element(): plain_value(item.value()) for item in parsed})


def test_there_are_enough_of_them():
    assert len(SETS) >= 200
    assert len(set(SETS)) == len(SETS)


@pytest.mark.parametrize("text", PICKED)
def test_every_entry_says_the_same(entries, tmp_path, text):
    catalogue, hydra, composer = entries
    overrides = split(text)
    single = outcome(lambda: validate(compose(overrides, catalogue, hydra)))
    assert outcome(composer.config, overrides) == single
    assert outcome(lambda: validate(compose(from_python(overrides), catalogue, hydra))) == single
    assert isinstance(single[1], int) == (text in INVALID)
    if text not in INVALID:
        saved.write(validate(compose(overrides, catalogue, hydra)), tmp_path / "config.yaml")
        assert outcome(saved.read, tmp_path, catalogue, [], True) == single
        assert outcome(saved.read, tmp_path, catalogue, []) == single


@pytest.mark.parametrize("text", VALID[::12])
def test_cfg_job_prints_what_would_run(dltrain, capsys, text):
    catalogue = open_catalogue()
    wanted = validate(compose(split(text), catalogue, open_hydra(catalogue))).plain
    capsys.readouterr()
    assert dltrain("--cfg", "job", "--resolve", *split(text)) == 0
    printed = yaml.load(capsys.readouterr().out, Loader=saved.SafeLoader)
    assert {key: printed[key] for key in wanted} == wanted


@pytest.mark.parametrize("text", INVALID[::12])
def test_the_command_refuses_alone_and_in_a_sweep(dltrain, workdir: Path, text):
    catalogue = open_catalogue()
    message, code = outcome(lambda: validate(compose(split(text), catalogue, open_hydra(catalogue))))
    for before in ([], ["-m"], ["check"]):
        with pytest.raises(UserError) as error:
            dltrain(*before, *split(text))
        assert str(error.value).splitlines()[0] == message.splitlines()[0]
        assert error.value.exit_code == code
    assert list(workdir.iterdir()) == []


def test_jobs_that_only_set_values_share_one_composition(workdir, monkeypatch):
    """Hydra takes a tenth of a second, a job of a sweep a tenth of a millisecond."""
    from dltrain.sweep.plan import composer

    composed_with = []

    def counted(overrides, *rest):
        composed_with.append(overrides)
        return compose(overrides, *rest)

    monkeypatch.setattr(composer, "compose", counted)
    catalogue = open_catalogue()
    jobs = composer.Composer(catalogue, open_hydra(catalogue))
    for i in range(20):
        assert jobs.config([f"seed={i}", f"lr={0.01 * (i + 1)}", "model=mlp"]).seed == i
    assert composed_with == [["model=mlp"]]
