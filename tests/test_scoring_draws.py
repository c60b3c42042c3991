"""Monte-Carlo dropout and test-time augmentation in `dltrain evaluate`, against loops over single samples."""

from __future__ import annotations

import math
import re
import shutil

import pytest
import torch
from conftest import Run
from torch import Tensor, nn

from dltrain.commands import evaluate
from dltrain.errors import UserError
from dltrain.run import scoring
from dltrain.seeding import Stream
from dltrain.training.evaluation import drawing_dropout, dropout_layers, evaluating

NET = ("epochs=2", "model.hidden=[16]")


@pytest.fixture
def scored(monkeypatch):
    """What `dltrain evaluate` computes: its scores, and the parts and logits behind them."""
    kept: dict[str, object] = {"logits": []}
    predict, score_runs = scoring.predict, scoring.score_runs

    def spy(parts, plan, split, draws=None):
        passes, targets = predict(parts, plan, split, draws)
        kept.update(parts=parts, plan=plan, passes=passes, split=split)
        kept["logits"].append((scoring.mean_output(parts, passes), targets))
        return passes, targets

    def keep(*arguments):
        kept["scores"] = score_runs(*arguments)
        return kept["scores"]

    monkeypatch.setattr(scoring, "predict", spy)
    monkeypatch.setattr(scoring, "score_runs", keep)

    def run(path: Run, *overrides: str):
        kept["logits"] = []
        assert evaluate.run([str(path.path), *overrides]) == 0
        return kept

    return run


def test_mc_dropout_is_the_mean_of_sample_by_sample_passes(train, scored):
    run = train(*NET, "regularization=[dropout]")
    kept = scored(run, "evaluation.mc_dropout=400")
    parts, (logits, _) = kept["parts"], kept["logits"][0]
    inputs = next(iter(parts.splits["val"].batches(torch.arange(5), 5))).inputs
    torch.manual_seed(0)
    parts.model.train()  # nothing but dropout differs in this net
    with torch.no_grad():
        for sample, mean in zip(inputs, logits, strict=False):
            alone = torch.stack([parts.model(sample[None])[0].softmax(-1) for _ in range(400)])
            error = 4 * alone.std(0) / 20 * 2**0.5 + 1e-3
            assert ((alone.mean(0) - mean.exp()).abs() <= error).all()


def test_tta_is_the_mean_over_copies_that_are_augmented_one_by_one(train, scored):
    run = train(*NET, "augmentation=[flip,mixup]")
    kept = scored(run, "evaluation.tta=300")
    parts, (logits, _) = kept["parts"], kept["logits"][0]
    inputs = next(iter(parts.splits["val"].batches(torch.arange(5), 5))).inputs
    parts.model.eval()
    with torch.no_grad():
        for sample, mean in zip(inputs, logits, strict=False):
            both = [parts.model(copy[None])[0].softmax(-1) for copy in (sample, sample.flip(-1))]
            error = 4 * (both[0] - both[1]).abs() / 2 / 300**0.5 + 1e-4  # of 300 coins
            assert ((sum(both) / 2 - mean.exp()).abs() <= error).all()


@pytest.mark.parametrize(
    "knobs", ["evaluation.mc_dropout=3", "evaluation.tta=3", "evaluation.mc_dropout=2 evaluation.tta=4"]
)
def test_the_draws_depend_on_the_seed_alone(train, scored, knobs):
    run = train(*NET, "regularization=[dropout]", "augmentation=[shift]")
    plain = scored(run)["logits"][0][0]
    once, twice = (scored(run, *knobs.split())["logits"][0][0] for _ in range(2))
    assert torch.equal(once, twice)
    assert not torch.equal(plain.log_softmax(-1), once)


def entropy(probabilities):
    return -sum(p * math.log(p) for p in probabilities if p > 0)


def standard_deviation(values):
    mean = sum(values) / len(values)
    return (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5


def test_named_copies_and_their_uncertainty_equal_a_loop_over_copies_and_samples(train, scored):
    """Words that the run was not trained with; every copy of every sample alone through the net, and sums in plain Python."""
    run = train(*NET)
    kept = scored(run, "evaluation.tta=4", "evaluation.tta_words=[shift,rotate]")
    parts, plan, split = kept["parts"], kept["plan"], kept["split"]
    batch = next(iter(split.batches(torch.arange(len(split)), len(split))))
    parts.model.eval()
    single = []  # [copy][sample] → probabilities
    for number in range(4):
        draw = Stream(plan.seed, "tta").at(number << 20)
        copies, _ = parts.augmentation(batch.inputs, batch.targets, draw, batch.indices, number)
        assert not torch.equal(copies, batch.inputs)
        with torch.no_grad():
            single.append([parts.model(copy[None])[0].softmax(-1).tolist() for copy in copies])
    targets = batch.targets.tolist()
    mean = [[sum(p) / 4 for p in zip(*of_sample, strict=True)] for of_sample in zip(*single, strict=True)]
    losses = [
        sum(-math.log(p[t]) for p, t in zip(copy, targets, strict=True)) / len(targets) for copy in single
    ]
    wanted = {
        "loss": sum(-math.log(p[t]) for p, t in zip(mean, targets, strict=True)) / len(targets),
        "accuracy": sum(max(range(10), key=p.__getitem__) == t for p, t in zip(mean, targets, strict=True)) / len(targets),
        "loss_sd": standard_deviation(losses),
        "entropy": sum(map(entropy, mean)) / len(targets),
        "disagreement": sum(
            entropy(m) - sum(entropy(copy[i]) for copy in single) / 4 for i, m in enumerate(mean)
        ) / len(targets),
    }  # fmt: skip
    assert kept["scores"][-1].split == "test"
    assert kept["scores"][-1].values == pytest.approx(wanted, rel=1e-4)


def test_a_word_of_the_run_keeps_its_keys_and_another_has_its_defaults(train, scored):
    run = train(*NET, "augmentation=[shift]", "augmentation.shift.pixels=1")
    kept = scored(run, "evaluation.tta=2", "evaluation.tta_words=[shift]")
    assert [t.pixels for t in kept["parts"].augmentation.transforms] == [1]
    plain = train(*NET)
    kept = scored(plain, "evaluation.tta=2", "evaluation.tta_words=[shift]")
    assert [t.pixels for t in kept["parts"].augmentation.transforms] == [2]


def test_the_deviation_of_a_regression_and_the_disagreement_of_an_ensemble(train, scored):
    run = train("dataset=diabetes", "epochs=2", "model.hidden=[16]", "regularization=[dropout]")
    kept = scored(run, "evaluation.mc_dropout=6")
    columns = [standard_deviation(of_sample) for of_sample in kept["passes"][..., 0].T.tolist()]
    assert kept["scores"][-1].values["deviation"] == pytest.approx(sum(columns) / len(columns), rel=1e-5)
    runs = [train(*NET, f"seed={seed}").path for seed in (0, 1)]
    copy = shutil.copytree(runs[0], runs[0].with_name("copy"))
    assert evaluate.run([str(runs[0]), str(copy)]) == 0
    # a run agrees with its copy; named twice it counts once
    assert kept["scores"][-1].values["disagreement"] == pytest.approx(0, abs=1e-6)
    assert evaluate.run([str(runs[0]), str(runs[0])]) == 0
    assert "disagreement" not in kept["scores"][-1].values
    assert evaluate.run([str(run) for run in runs]) == 0
    assert kept["scores"][-1].values["disagreement"] > 1e-3
    assert "entropy" not in kept["scores"][0].values


MISTAKES = [
    ("evaluation.mc_dropout=5", r"this model has none \(F.dropout in forward is no layer\). Train with regularization=\[dropout\]"),
    ("evaluation.tta=5", r"no augmentation that leaves targets alone.\n.*evaluation.tta=8 evaluation.tta_words=\[shift\]"),
    ("evaluation.tta_words=[shift]", r"`evaluation.tta` is 0: say how many copies of each sample, such as evaluation.tta=8"),
    ("evaluation.tta=2 evaluation.tta_words=[shfit]", r"names shfit, which is no augmentation. Did you mean `shift`"),
    ("evaluation.tta=2 evaluation.tta_words=[shift,cutmix]", r"has no target of its own. Leave them out"),
    ("augmentation=[shift] evaluation.tta=2", r"`augmentation` is no key of this run \(its words stay as they are\)"),
    ("evaluation.tta=-1", r"`evaluation.tta` is -1; it must be: int >= 0"),
]  # fmt: skip


@pytest.mark.parametrize("knob, says", MISTAKES)
def test_draws_without_their_source_are_refused(train, knob, says):
    run = train(*NET, "augmentation=[mixup]", "steps=2", "epochs=null")
    with pytest.raises(UserError) as refused:
        evaluate.run([str(run.path), *knob.split()])
    assert re.search(says, str(refused.value)), str(refused.value)


class Attending(nn.Module):
    """Nets whose dropout is in other layers of torch.nn; nothing but dropout differs in training."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({
            "attention": nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True),
            "lstm": nn.LSTM(8, 8, num_layers=2, dropout=0.5, batch_first=True),
            "gru": nn.GRU(8, 8, num_layers=2, dropout=0.5, batch_first=True),
            "encoder": nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True),
        })  # fmt: skip
        self.kind = kind

    def forward(self, inputs: Tensor) -> Tensor:
        layer = self.layers[self.kind]
        outputs = layer(inputs, inputs, inputs) if self.kind == "attention" else layer(inputs)
        return outputs[0] if isinstance(outputs, tuple) else outputs


@pytest.mark.parametrize("kind", ["attention", "lstm", "gru", "encoder"])
def test_dropout_inside_other_layers_is_drawn_as_in_training(kind):
    model, inputs = Attending(kind), torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    expected = model(inputs).detach()
    with evaluating(model):
        plain = model(inputs)
        with drawing_dropout(model, True):
            torch.manual_seed(1)
            torch.testing.assert_close(model(inputs), expected)
        with drawing_dropout(model, False):
            torch.testing.assert_close(model(inputs), plain)
    assert not torch.allclose(plain, expected) and all(layer.training for layer in model.modules())


def test_a_recurrent_layer_alone_has_no_dropout_between_layers():
    with pytest.warns(UserWarning, match="num_layers"):
        assert dropout_layers(nn.LSTM(8, 8, dropout=0.5)) == []
