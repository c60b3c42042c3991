"""Keys of a dataset that the data decide are refused where the command line gives them, before a folder is made."""

from __future__ import annotations

import re

import numpy as np
import pytest
from pyarrow import csv, parquet

from dltrain.errors import UserError
from dltrain.training.trainer import Trainer

N = 60


@pytest.fixture
def data(workdir):
    """Tables and arrays with splits of their own: `whole` has all three, `val` lacks test, `test` lacks val."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(N, 3)).astype(np.float32), np.arange(N) % 2
    marks = {
        "whole": [0] * 40 + [1] * 10 + [2] * 10,
        "val": [0] * 50 + [1] * 10,
        "test": [0] * 50 + [2] * 10,
    }
    for name, split in marks.items():
        np.savez(f"{name}.npz", inputs=x, targets=y, split=np.array(split), groups=np.arange(N) // 2)
        rows = [
            f"{a:.4f},{b:.4f},{'no yes'.split()[k]},{('train', 'val', 'test')[m]},{i // 2}\n"
            for i, ((a, b, _), k, m) in enumerate(zip(x, y, split, strict=True))
        ]
        (workdir / f"{name}.csv").write_text("a,b,y,part,person\n" + "".join(rows))
    parquet.write_table(csv.read_csv("val.csv"), "val.parquet")
    (workdir / "more.csv").write_text("a,b,y,part,person\n" + "0.1,0.2,yes,train,90\n0.3,0.1,no,train,91\n")
    return workdir


NPZ = "dataset=npz model=linear dataset.split=split dataset.path="
CSV = "dataset=csv dataset.target=y dataset.path="
SPLIT = " dataset.split_column=part"
UNUSED = {
    NPZ
    + "whole.npz dataset.val_fraction=0.2": "val_fraction. has no effect here: .* val split already, of 10",
    NPZ + "val.npz dataset.val_fraction=0": "val_fraction. has no effect here: .* val split already, of 10",
    NPZ
    + "whole.npz dataset.test_fraction=0.2": "test_fraction. has no effect here: .* test split already, of 10",
    NPZ + "whole.npz dataset.split_seed=3": "split_seed. has no effect here: no split is drawn",
    NPZ
    + "test.npz dataset.val_fraction=0 early_stopping.metric=train/loss dataset.split_seed=3": "split_seed. has no effect",
    NPZ + "whole.npz dataset.groups=groups": "groups. has no effect here: no split is drawn",
    CSV + "whole.csv dataset.val_fraction=0.2" + SPLIT: "val_fraction. has no effect",
    CSV + "whole.csv dataset.group_column=person" + SPLIT: "group_column. has no effect",
    CSV
    + "val.csv dataset.test_path=more.csv dataset.test_fraction=0.3 dataset.drop=[part]": "test split already, of 2",
    CSV
    + "val.csv dataset.target_scale=none dataset.drop=[part]": "target_scale. has no effect here: the targets are classes",
    CSV
    + "val.csv dataset.drop=[part] dataset.features=[a]": "drop. has no effect here: dataset.features names all columns",
    CSV + "val.csv dataset.dates=number": "dates. has no effect here: no column holds dates",
    CSV + "val.csv dataset.date_format=%d/%m/%Y": "date_format. has no effect here: no column holds dates",
    CSV + "val.parquet dataset.delimiter=tab": "delimiter. has no effect here: .parquet files have columns",
    NPZ
    + "test.npz dataset.channels=last": "channels. has no effect here: inputs of 2 axes have no color axis",
    "dataset=none model=quadratic dataset.limit=5": "limit. has no effect here: a study problem has no samples",
    "dataset=none model=quadratic dataset.normalize=none": "normalize. has no effect",
}


@pytest.mark.parametrize("typed, says", UNUSED.items(), ids=UNUSED)
def test_a_key_that_the_data_decide(dltrain, data, typed, says):
    words = [*typed.split(), "steps=2", "quiet=true"]
    with pytest.raises(UserError, match=says) as error:
        dltrain(*words)
    assert not (data / "outputs").exists()
    (cure,) = re.findall(r"Leave (\S+) out", str(error.value))
    assert dltrain(*(word for word in words if not word.startswith(f"{cure}="))) == 0


USED = [
    NPZ + "val.npz dataset.test_fraction=0.2 dataset.split_seed=3",
    NPZ + "test.npz dataset.val_fraction=0.3 dataset.groups=groups",
    NPZ + "whole.npz dataset.limit=20 dataset.split_seed=3",
    NPZ + "whole.npz folds=3 fold=0 dataset.split_seed=3",
]


@pytest.mark.parametrize("typed", USED)
def test_the_same_keys_where_they_are_used(dltrain, data, typed):
    assert dltrain(*typed.split(), "steps=2", "quiet=true") == 0


def test_a_limit_above_the_samples_is_named(dltrain, data, capsys):
    typed = (NPZ + "whole.npz steps=2").split()
    assert dltrain(*typed, "dataset.limit=40") == 0
    assert "dataset.limit=40 leaves none of the 40 training samples out" in capsys.readouterr().out
    assert dltrain(*typed, "dataset.limit=39") == 0
    assert "leaves none" not in capsys.readouterr().out


def test_a_value_that_asks_for_nothing(dltrain, data):
    for key in ("limit=null", "class_weights=none", "bootstrap=false"):
        assert dltrain("dataset=none", "model=quadratic", f"dataset.{key}", "steps=1", "quiet=true") == 0


def test_a_default_and_a_trained_run_are_not_refused(dltrain, data, capsys):
    """Nobody asked for val_fraction=0.1; a rerun states only what it changes."""
    assert dltrain(*NPZ.split()[:-1], "dataset.path=whole.npz", "steps=2") == 0
    (folder,) = (data / "outputs/npz_linear").iterdir()
    assert dltrain("rerun", folder, "lr=0.1") == 0
    with pytest.raises(UserError, match="val_fraction. has no effect here"):
        dltrain("rerun", folder, "dataset.val_fraction=0.3")
    with pytest.raises(UserError, match="val_fraction. has no effect here"):
        dltrain("check", *(NPZ + "whole.npz dataset.val_fraction=0.3").split())


def test_what_a_recipe_sets_for_other_data_is_named(dltrain, data, capsys):
    """The fraction of the recipe is for tables without a test file, so that the command line may bring one."""
    typed = (
        CSV + "val.csv dataset.test_path=more.csv dataset.drop=[part] experiment=tabular epochs=1"
    ).split()
    assert dltrain(*typed) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "unused dataset.test_fraction=0.2: the data have a test split already, of 2 samples" in shown


DRAWS = {
    "dataset=iris model=mlp evaluation.mc_dropout=5": "regularization=[dropout]",
    "dataset=iris model=mlp evaluation.tta=5": "evaluation.tta_words=[noise]",
    "model=linear evaluation.tta=5": "evaluation.tta_words=[shift]",
    "model=linear augmentation=[mixup] evaluation.tta=5": "evaluation.tta_words=[shift]",
}


@pytest.mark.parametrize("typed, cure", DRAWS.items(), ids=DRAWS)
def test_draws_that_no_evaluation_of_the_run_can_make(dltrain, workdir, typed, cure):
    with pytest.raises(UserError, match="has no effect: it (draws|augments)") as error:
        dltrain(*typed.split(), "steps=1", "quiet=true")
    assert all(word in str(error.value) for word in cure.split())
    assert not (workdir / "outputs").exists()
    assert dltrain(*typed.split(), *cure.split(), "steps=1", "quiet=true") == 0
    (folder,) = (workdir / "outputs").glob("*/*")
    assert dltrain("evaluate", folder, "evaluation.bootstrap=0") == 0


def test_a_word_for_copies_is_looked_at_before_the_training(dltrain, workdir):
    with pytest.raises(UserError, match="names shfit, which is no augmentation. Did you mean `shift`"):
        dltrain("evaluation.tta=2", "evaluation.tta_words=[shfit]", "--cfg", "job")


LAYERS = {
    "dataset=iris model=mlp model.hidden=[] model.dropout=0.5": "model.hidden=[128]",
    "dataset=iris model=mlp model.hidden=[] regularization=[dropout]": "model.hidden=[128]",
    "dataset=iris model=mlp model.hidden=[] model.activation=tanh": "model.hidden=[128]",
    "dataset=iris model=mlp model.hidden=[] model.norm=layer": "model.hidden=[128]",
    "dataset=iris model=deep_linear model.depth=1 model.width=9": "model.depth=2",
    "dataset=iris model=mlp model.residual=true": "model.hidden=[128,128]",
    "dataset=iris model=mlp model.hidden=[8,4] model.residual=true": "model.hidden=[128,128]",
}


@pytest.mark.parametrize("typed, cure", LAYERS.items(), ids=LAYERS)
def test_layers_that_the_model_lacks(dltrain, workdir, typed, cure):
    with pytest.raises(UserError, match="has no effect") as error:
        dltrain(*typed.split(), "steps=1", "quiet=true")
    assert cure in str(error.value)
    assert not (workdir / "outputs").exists()
    words = [word for word in typed.split() if not word.startswith(("model.hidden", "model.depth"))]
    assert dltrain(*words, cure, "steps=1", "quiet=true") == 0


def test_a_skip_over_the_first_layer_alone(dltrain, workdir):
    assert dltrain("model=mlp", "model.hidden=[64]", "model.residual=true", "steps=1", "quiet=true") == 0


def test_what_would_average_or_change_nothing(dltrain, workdir, capsys):
    typed = ["dataset=iris", "model=linear", "steps=8"]
    with pytest.raises(
        UserError, match="every_steps is 100, and the run has 8 steps: a single iterate, of step 6,"
    ):
        dltrain(*typed, "averaging=swa", "averaging.every_steps=100")
    with pytest.raises(UserError, match="milestones is .., so that the value would never change"):
        dltrain(*typed, "schedule=multistep", "schedule.milestones=[]")
    assert not (workdir / "outputs").exists()
    assert dltrain(*typed, "averaging=swa", "averaging.every_steps=2") == 0
    assert "changes nothing" not in capsys.readouterr().out
    assert dltrain(*typed, "schedule=plateau", "schedule.patience=3") == 0
    assert "plateau patience 3 changes nothing within 4 evaluations" in " ".join(
        capsys.readouterr().out.split()
    )
    assert dltrain(*typed, "schedule=plateau", "schedule.patience=2") == 0
    assert "changes nothing" not in capsys.readouterr().out


# seven evaluations of 9 steps each; an own count of those that may act: after the first, after the warm-up, before the last
SHORT = (
    "dataset=iris",
    "batch_size=12",
    "optimizer=momentum",
    "early_stopping=none",
    "quiet=false",
    "logger=none",
    "log.every_steps=1",
)


@pytest.mark.parametrize("group", ["schedule", "momentum_schedule"])
@pytest.mark.parametrize(("warmup", "counting"), [(0, 5), (17, 5), (18, 4), (53, 1), (54, 0)])
def test_a_plateau_acts_exactly_where_no_line_says_that_it_cannot(
    dltrain, workdir, capsys, monkeypatch, group, warmup, counting
):
    """With a metric that never improves after the first evaluation."""
    monkeypatch.setattr(Trainer, "validate", lambda self: {"loss": 1.0, "accuracy": 0.5})
    for patience in {counting, counting + 1} - {0}:
        keys = (f"{group}=plateau", f"{group}.patience={patience}", f"{group}.warmup_steps={warmup}")
        rates = []
        set_rates = Trainer.set_rates

        def kept(self, set_rates=set_rates, rates=rates, group=group):
            set_rates(self)
            rates.append(
                (self.parts.schedule if group == "schedule" else self.parts.momentum_schedule)(self.step)
            )

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "set_rates", kept)
            assert dltrain(*SHORT, *keys, "epochs=7", f"name=p{patience}") == 0
        acted = len(set(rates[warmup:])) > 1
        said = " ".join(capsys.readouterr().out.split())
        assert acted == (patience <= counting)
        assert (f"plateau patience {patience} changes nothing within 7 evaluations" in said) == (not acted)
        cure = f"{group}.patience={counting}" if counting else "epochs="
        assert acted or f"it may with {cure}" in said


def test_the_length_that_a_line_names_lets_a_plateau_act_and_one_epoch_less_does_not(
    dltrain, workdir, capsys
):
    keys = ("schedule=plateau", "schedule.patience=3", "schedule.warmup_epochs=2")
    for epochs, silent in ((3, False), (5, False), (6, True)):
        assert dltrain(*SHORT, *keys, f"epochs={epochs}", f"name=e{epochs}") == 0
        said = " ".join(capsys.readouterr().out.split())
        assert ("changes nothing" not in said) == silent
        assert (
            epochs != 3
            or "3 evaluations, 2 of them in the warm-up, which do not count · it may with epochs=6" in said
        )


@pytest.mark.parametrize(
    ("typed", "cure"),
    [
        ("schedule.patience=10", "schedule.patience=4 or early_stopping.patience=30"),
        ("schedule.patience=12", "schedule.patience=4 or early_stopping.patience=36"),
        ("early_stopping.patience=2", "schedule.patience=1 or early_stopping.patience=9"),
        ("early_stopping.patience=1 schedule.patience=1", "early_stopping.patience=3"),
        (
            "early_stopping.patience=3 early_stopping.min_delta=0.1",
            "schedule.patience=1 or early_stopping.patience=9",
        ),
    ],
)
def test_a_plateau_that_early_stopping_never_lets_act_is_refused(dltrain, workdir, typed, cure):
    usual = ["dataset=iris", "schedule=plateau", "epochs=90", *typed.split()]
    with pytest.raises(UserError, match="changes nothing: early stopping ends the run after") as error:
        dltrain(*usual)
    assert str(error.value).splitlines()[1] == f"Use {cure}"
    for key in cure.split(" or "):
        others = [word for word in usual if word.partition("=")[0] != key.partition("=")[0]]
        assert dltrain(*others, key, "steps=1", "epochs=null", "quiet=true") == 0


@pytest.mark.parametrize(
    "typed",
    [
        "schedule.patience=9",
        "schedule.patience=10 schedule.metric=train/loss",
        "schedule.patience=10 early_stopping.smoothing=0.5",
        "schedule.patience=10 schedule.min_delta=0.1",
        "schedule.patience=10 schedule.min_delta=0.1 early_stopping.min_delta=0.2",
        "schedule.patience=10 averaging=swa",
        "schedule.patience=10 early_stopping=none",
    ],
)
def test_a_plateau_that_early_stopping_may_let_act_trains(dltrain, workdir, capsys, typed):
    assert (
        dltrain(
            "dataset=iris", "schedule=plateau", "model=linear", "batch_size=full", "epochs=12", *typed.split()
        )
        == 0
    )
    assert "changes nothing" not in capsys.readouterr().out


@pytest.mark.parametrize("typed", [NPZ + "whole.npz", CSV + "val.csv"])
def test_a_default_that_nobody_typed_is_not_called_unused(dltrain, data, capsys, typed):
    assert dltrain(*typed.split(), "steps=1", "logger=none") == 0
    assert "unused" not in capsys.readouterr().out
