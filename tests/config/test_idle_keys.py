"""What a user types changes something, or is refused: keys that nothing reads beside the others, and near misses of names."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest
from omegaconf import OmegaConf

from dltrain.config import saved
from dltrain.config.compose import compose, open_catalogue, open_hydra
from dltrain.config.groups import GROUPS
from dltrain.config.validation import validate
from dltrain.data.splits import bootstrapped, hashed_order
from dltrain.errors import UserError

# what is typed → what is refused; what follows `Add` in the message is typed besides, and composes
IDLE = {
    "folds=3 fold=0 dataset.val_fraction=0.3": "has no effect beside folds=3",
    "parameters.decay_all=true": "has no effect without optimizer.weight_decay",
    "optimizer=radam optimizer.decoupled_weight_decay=true": "has no effect without optimizer.weight_decay",
    "optimizer=momentum optimizer.momentum=0 optimizer.dampening=0.5": "has no effect with optimizer.momentum=0",
    "regularization=[l2] parameters.decay_all=true": "has no effect without optimizer.weight_decay",
    "optimizer=momentum momentum_schedule=linear optimizer.momentum=0.3": "has no effect beside a momentum_schedule",
    "optimizer=adam momentum_schedule=linear optimizer.betas=[0.3,0.99]": "has no effect on β₁ beside a momentum_schedule",
    "optimizer=schedule_free optimizer.form=sgd optimizer.eps=0.1": "has no effect with optimizer.form=sgd",
    "optimizer=schedule_free optimizer.form=sgd optimizer.betas=[0.8,0.99]": "has no effect on β₂ with optimizer.form=sgd",
    "regularization=[gradient_clipping] regularization.gradient_clipping.eps=0.1": "has no effect with .*mode=norm",
    "regularization=[gradient_clipping] regularization.gradient_clipping.mode=value regularization.gradient_clipping.eps=0.1": "mode=value",
    "wrap=[lookahead] wrap.lookahead.alpha=1 wrap.lookahead.k=3": "has no effect with wrap.lookahead.alpha=1",
    "optimizer=ranger optimizer.alpha=1 optimizer.k=3": "has no effect with optimizer.alpha=1",
    "schedule=cosine_restarts schedule.cycles=1 schedule.growth=3": "has no effect with schedule.cycles=1",
    "schedule=triangular schedule.cycles=1 schedule.shrink=0.5": "has no effect with schedule.cycles=1",
    "evaluation.every_steps=5 evaluation.every_epochs=2": "has no effect beside evaluation.every_steps=5",
    "checkpoint.every_steps=5 checkpoint.every_epochs=2": "has no effect beside checkpoint.every_steps=5",
    "batch_size=full shuffle=never": "has no effect with batch_size=full",
    "schedule=step schedule.every_steps=5 schedule.every_epochs=2": "has no effect beside schedule.every_steps=5",
    "regularization=[l2] penalty_schedule=step penalty_schedule.every_steps=5 penalty_schedule.every_epochs=2": "has no effect beside",
    "dataset=image_folder dataset.root=pictures dataset.resize=stretch": "has no effect without dataset.image_size",
}


@pytest.mark.parametrize("typed, says", IDLE.items(), ids=IDLE)
def test_a_key_that_nothing_reads(dltrain, workdir, capsys, typed, says):
    with pytest.raises(UserError, match=says) as error:
        dltrain(*typed.split())
    key = re.match(r"`([^`]+)`", str(error.value))[1]
    (cure,) = re.findall(r"Add (.*), or leave", str(error.value))
    changed = {text.partition("=")[0] for text in cure.split()}
    kept = (text for text in typed.split() if text.partition("=")[0] not in changed)
    assert dltrain(*kept, *cure.split(), "--cfg", "job") == 0
    assert dltrain(*(text for text in typed.split() if not text.startswith(f"{key}=")), "--cfg", "job") == 0
    capsys.readouterr()
    assert list(workdir.iterdir()) == []


def test_an_axis_that_nothing_reads(dltrain, workdir, capsys):
    with pytest.raises(UserError, match=r"`optimizer.momentum` has no effect beside a momentum_schedule"):
        dltrain(
            "-m",
            "optimizer=momentum",
            "momentum_schedule=linear",
            "optimizer.momentum=0.3,0.8",
            "sweep.dry_run=true",
        )
    assert list(workdir.iterdir()) == []


def test_the_second_beta_acts_beside_a_momentum_schedule(dltrain, workdir, capsys):
    """The first has to be typed with it, and its default asks for nothing."""
    typed = ("momentum_schedule=linear", "optimizer.betas=[0.9,0.99]", "--cfg", "job")
    for word in ("adam", "lion", "muon"):
        assert dltrain(f"optimizer={word}", *typed) == 0
    words = open_catalogue().words["optimizer"]
    assert {word.keys["betas"][0] for word in words.values() if "betas" in word.keys} == {0.9}


def test_the_first_beta_acts_without_second_moments(dltrain, workdir, capsys):
    typed = ("optimizer=schedule_free", "optimizer.form=sgd", "optimizer.betas=[0.8,0.999]", "--cfg", "job")
    assert dltrain(*typed) == 0
    assert dltrain("optimizer=schedule_free", "optimizer.eps=0.1", "--cfg", "job") == 0


TOGETHER = {
    "dataset=none model=quadratic folds=3 fold=0": "folds=null fold=null",
    "dataset=none model=quadratic evaluation.batch_size=4": "evaluation.batch_size=null",
    "augmentation=[flip,alternating_flip]": "augmentation=[flip]",
}


@pytest.mark.parametrize("typed, cure", TOGETHER.items(), ids=TOGETHER)
def test_what_has_no_effect_beside_another_choice(dltrain, workdir, capsys, typed, cure):
    with pytest.raises(UserError, match="cannot go with"):
        dltrain(*typed.split(), "--cfg", "job")
    keys = {text.partition("=")[0] for text in cure.split()}
    rest = (text for text in typed.split() if text.partition("=")[0] not in keys)
    assert dltrain(*rest, *cure.split(), "--cfg", "job") == 0
    assert dltrain("augmentation=[flip,alternating_flip]", "augmentation.flip.p=0", "--cfg", "job") == 0


@pytest.mark.parametrize("typed", IDLE, ids=IDLE)
def test_a_key_of_a_recipe_that_nothing_reads_is_told(workdir, typed):
    """What the command line refuses, a file may state, since the key that makes it idle may be typed beside it."""
    words = [text for text in typed.split() if text.partition("=")[0] in GROUPS]
    keys = [text for text in typed.split() if text not in words]
    (workdir / "conf" / "experiment").mkdir(parents=True)
    (workdir / "conf/experiment/mine.yaml").write_text(OmegaConf.to_yaml(OmegaConf.from_dotlist(keys)))
    catalogue = open_catalogue()
    config = validate(compose(["experiment=mine", *words], catalogue, open_hydra(catalogue)))
    (remark,) = config.idle
    key, _, text = keys[-1].partition("=")
    assert re.match(rf"{re.escape(key)}={re.escape(text)} .*{IDLE[typed]}", remark.replace(", ", ","))


def test_the_header_names_a_key_of_a_recipe_that_nothing_reads(dltrain, workdir, capsys):
    (workdir / "conf" / "experiment").mkdir(parents=True)
    (workdir / "conf/experiment/mine.yaml").write_text(
        "evaluation: {every_epochs: 2}\nmodel: {hidden: [4]}\n"
    )
    assert dltrain("experiment=mine", "evaluation.every_steps=4", "epochs=1") == 0
    line = "unused   evaluation.every_epochs=2 has no effect beside evaluation.every_steps=4"
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("betas", ["0.9", "[0.9]", "null"])
def test_betas_of_an_own_optimizer_may_be_anything(workdir, betas):
    """Both numbers of the shipped optimizers were read for every configuration: TypeError and IndexError."""
    (workdir / "conf" / "optimizer").mkdir(parents=True)
    (workdir / "conf/optimizer/mine.yaml").write_text(
        f"_target_: mine_with_betas.Mine\nbetas: {betas}\nform: sgd\n"
    )
    (workdir / "mine_with_betas.py").write_text(
        "class Mine:\n    def __init__(self, params, lr=0.1, betas=None, form=''): ...\n"
    )
    catalogue = open_catalogue()
    words = ["optimizer=mine", "momentum_schedule=linear"]
    assert validate(compose(words, catalogue, open_hydra(catalogue))).idle == ()


def test_dampening_acts_beside_a_momentum_schedule(workdir):
    catalogue = open_catalogue()
    words = (
        "optimizer=momentum",
        "optimizer.momentum=0",
        "optimizer.dampening=0.5",
        "momentum_schedule=linear",
    )
    with pytest.raises(UserError, match="`optimizer.momentum` has no effect beside a momentum_schedule"):
        validate(compose([*words], catalogue, open_hydra(catalogue)))
    validate(compose([words[0], *words[2:]], catalogue, open_hydra(catalogue)))


def test_a_file_may_state_the_defaults(workdir):
    (workdir / "conf" / "experiment").mkdir(parents=True)
    (workdir / "conf/experiment/mine.yaml").write_text("evaluation: {every_epochs: 1, every_steps: 4}\n")
    catalogue = open_catalogue()
    assert validate(compose(["experiment=mine"], catalogue, open_hydra(catalogue))).idle == ()


TWICE = {
    "regularization=[dropout] model.dropout=0.3": "regularization.dropout.p=0.3",
    "regularization=[label_smoothing] loss.label_smoothing=0.3": "regularization.label_smoothing.smoothing=0.3",
    "-m regularization=[dropout] model.dropout=0.2,0.3": "regularization.dropout.p=0.3",
}


@pytest.mark.parametrize("typed, cure", TWICE.items(), ids=TWICE)
def test_two_values_for_one_number(dltrain, workdir, capsys, typed, cure):
    """The key of the regularization was without effect, though the run is called by it; equal values are one."""
    word, key = (text for text in typed.split() if text != "-m")
    shown = ["sweep.dry_run=true", "-m"] if "-m" in typed else ["--cfg", "job"]
    with pytest.raises(UserError, match="so that one of them would do nothing") as error:
        dltrain(*typed.split(), *shown[:1] * ("-m" in typed))
    assert str(error.value).splitlines()[1].endswith(f"and write {cure}")
    assert dltrain(word, cure, *shown) == 0
    if "-m" not in typed:
        assert dltrain(word, cure, key, *shown) == 0


def test_cfg_shows_what_the_run_would_have(dltrain, workdir, capsys):
    """`--cfg` composed by a way of its own: a traceback for a dictionary, and both lengths of a recipe, which exclude each other."""
    import yaml

    assert dltrain("experiment=digits_mlp", "steps=10", "parameters.lr_scale.head=3", "--cfg", "job") == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["steps"], shown["epochs"]) == (10, None)
    assert shown["parameters"]["lr_scale"] == {"head": 3}
    assert dltrain("parameters.lr_scale={head: 3}", "--info", "config") == 0


RECIPE = (
    "defaults:\n  - override /optimizer: momentum\n  - override /regularization: [l2]\n"
    "optimizer: {momentum: 0.5}\nregularization: {l2: {strength: 0.1}}\n"
)


@pytest.fixture
def mine(workdir):
    (workdir / "conf" / "experiment").mkdir(parents=True)
    (workdir / "conf/experiment/mine.yaml").write_text(RECIPE)
    return workdir


def test_a_key_of_a_word_of_a_recipe_that_is_replaced(dltrain, mine, capsys):
    """It was dropped without a word: the recipe's l2 is replaced, and its strength on the command line with it."""
    assert dltrain("experiment=mine", "regularization=[l1]", "--cfg", "job") == 0
    with pytest.raises(UserError, match=r"regularization has no `l2` chosen.* Add it: regularization=\[l2\]"):
        dltrain("experiment=mine", "regularization=[l1]", "regularization.l2.strength=3", "--cfg", "job")


def test_a_recipe_beside_another_word_of_its_group(dltrain, mine, capsys):
    with pytest.raises(UserError, match="mine.yaml, line 4.* is no key of optimizer=adam") as error:
        dltrain("experiment=mine", "optimizer=adam", "--cfg", "job")
    (words,) = re.findall(r"Remove it there, or choose a word that has it: (.*)", str(error.value))
    assert dltrain("experiment=mine", words.split(" or ")[0], "--cfg", "job") == 0


SPLIT = {  # what bash makes of a list with a space
    "regularization=[l2, dropout]": "'regularization=[l2, dropout]'",
    "parameters.lr_scale={head: 3}": "'parameters.lr_scale={head: 3}'",
    "-m regularization=[l2, dropout],[l2]": "'regularization=[l2, dropout],[l2]'",
    "steps=1e2": "steps=100",
    "batch_size=6.4e1": "batch_size=64",
}


@pytest.mark.parametrize("typed, cure", SPLIT.items(), ids=SPLIT)
def test_the_cure_is_what_works_when_typed(dltrain, workdir, capsys, typed, cure):
    with pytest.raises(UserError) as error:
        dltrain(*typed.split())
    assert f"Write {cure}" in str(error.value).splitlines()[0]
    sweep = ["-m", "sweep.dry_run=true"] if typed.startswith("-m") else ["--cfg", "job"]
    assert dltrain(*shlex.split(cure), *sweep) == 0


def test_a_file_beside_a_misspelt_one_is_named(dltrain, workdir):
    (workdir / "data.csv").write_text("a,b\n1,2\n")
    np.savez(workdir / "data.npz", x=np.zeros(3))
    (workdir / "pictures").mkdir()
    for word, key, typed, right in (
        ("csv dataset.target=b", "path", "dta.csv", "data.csv"),
        ("npz", "path", "data.nz", "data.npz"),
        ("image_folder", "root", "picturs/train", "pictures/train"),
    ):
        with pytest.raises(UserError, match=rf"Did you mean `{right}`\?"):
            dltrain(f"dataset={word.split()[0]}", *word.split()[1:], f"dataset.{key}={typed}", "steps=1")
    with pytest.raises(UserError, match=r"Did you mean `pictures`\?"):
        dltrain("initializer=pretrained", "initializer.path=picture", "steps=1")
    assert not (workdir / "outputs").exists()


@pytest.mark.parametrize("header", ["a,b,y", "a,b,y\n"])
def test_a_table_that_is_a_header_alone(dltrain, workdir, header):
    (workdir / "one.csv").write_text(header)
    with pytest.raises(UserError, match="one.csv holds no row below its header"):
        dltrain("dataset=csv", "dataset.path=one.csv", "dataset.target=y", "steps=1")


def test_a_misspelt_method_of_a_logger(dltrain, workdir, monkeypatch):
    """One right method was enough: the other was never called, without a word."""
    (workdir / "conf" / "logger").mkdir(parents=True)
    (workdir / "conf/logger/mine.yaml").write_text("_target_: own_events.Mine\n")
    code = "class Mine:\n    def run_startd(self, run): pass\n    def evaluated(self, row): pass\n"
    (workdir / "own_events.py").write_text(code)
    monkeypatch.syspath_prepend(workdir)
    with pytest.raises(UserError, match="method `run_startd` nobody calls. Did you mean `run_started`"):
        dltrain("logger=[mine]", "steps=1", "model=linear")
    assert not (workdir / "outputs").exists()


# What a trained run is asked ---------------------------------------------------------------------------------------


def test_a_trained_run_is_not_asked_by_other_training(dltrain, train, capsys):
    """A change of the training changed nothing; one of the splits scored samples of training as `val`."""
    run = train("model=linear", "steps=2", "dataset.limit=64")
    np.save("x.npy", np.zeros((2, 8, 8), np.float32))
    for verb in (["evaluate"], ["export", "--format", "safetensors"], ["predict", "x.npy"]):
        for change in ("lr=3", "optimizer.lr=3", "epochs=3", "model.dropout=0.3", "shuffle=never"):
            with pytest.raises(UserError, match="belongs to the training, which is done") as error:
                dltrain(verb[0], run.path, *verb[1:], change)
        assert f"dltrain rerun {run.path} {change}" in str(error.value)
        for change in ("val_fraction=0.5", "test_fraction=0.4", "split_seed=3", "limit=30", "normalize=none"):
            with pytest.raises(UserError, match="which samples are those of the training"):
                dltrain(verb[0], run.path, *verb[1:], f"dataset.{change}")
    assert (
        dltrain("evaluate", run.path, "evaluation.bootstrap=3", "threads=1", "evaluation.batch_size=9") == 0
    )


WRONG = [
    "split=test", "splits=[val]", "epochs=abc", "optimizer=momentum", "+foo=3", "sweep.jobs=2", "experiment=digits_mlp", "name=../x",
    "model.hidden=[0]", "folds=3", "fold=1", "schedule.end=0.5", "optimizer.weight_decay=0.1", "shuffle=replacement",
]  # fmt: skip


def test_a_new_run_that_is_proposed_can_be_made(dltrain, train, capsys):
    """The message named `dltrain rerun RUN split=test`, which was refused itself."""
    run = train("model=linear", "steps=2", "dataset.limit=64")
    np.save("x.npy", np.zeros((2, 8, 8), np.float32))
    proposed = set()
    for verb in (["evaluate"], ["resume"], ["export", "--format", "safetensors"], ["predict", "x.npy"]):
        for change in WRONG if len(verb) == 1 else WRONG[:1]:
            with pytest.raises(UserError) as error:
                dltrain(verb[0], run.path, *verb[1:], change)
            for line in re.findall(r"dltrain (rerun .*)", str(error.value)):
                proposed.add(change)
                # what the cure says is read as a new run would be; training it would take a second each
                saved.read(run.path, open_catalogue(), shlex.split(line)[2:], again=True)
    assert proposed == {"optimizer.weight_decay=0.1", "shuffle=replacement"}


def test_seeds_beyond_64_bits_are_seeds_of_their_own():
    """Seed 2^64 drew the splits and bags of seed 0."""
    positions = np.arange(50)
    for seed in (0, 7):
        same, other = (hashed_order(50, number, 1).tolist() for number in (seed, seed + 2**64))
        assert same != other and sorted(other) == positions.tolist()
    import torch

    samples = torch.arange(50)
    assert not bootstrapped(samples, 3).equal(bootstrapped(samples, 3 + 2**64))
