"""Monte-Carlo dropout and test-time augmentation in `dltrain evaluate`, against loops over single samples."""

from __future__ import annotations

import re

import pytest
import torch
from conftest import Run

from dltrain import scoring
from dltrain.commands import evaluate
from dltrain.errors import UserError

NET = ("epochs=2", "model.hidden=[16]")


@pytest.fixture
def scored(monkeypatch):
    """What `dltrain evaluate` computes: its scores, and the parts and logits behind them."""
    kept: dict[str, object] = {"logits": []}
    predict, score_runs = scoring.predict, scoring.score_runs

    def spy(parts, plan, split, draws=None):
        result = predict(parts, plan, split, draws)
        kept.update(parts=parts, plan=plan)
        kept["logits"].append(result)
        return result

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
    inputs = next(iter(parts.val.batches(torch.arange(5), 5))).inputs
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
    inputs = next(iter(parts.val.batches(torch.arange(5), 5))).inputs
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


MISTAKES = [
    ("evaluation.mc_dropout=5", r"this model has none. Train with regularization=\[dropout\]"),
    ("evaluation.tta=5", r"no augmentation that leaves targets alone.\n.*augmentation=\[shift\] evaluation.tta=8"),
    ("evaluation.tta=-1", r"`evaluation.tta` is -1; it must be: int >= 0"),
]  # fmt: skip


@pytest.mark.parametrize("knob, says", MISTAKES)
def test_draws_without_their_source_are_refused(train, knob, says):
    run = train(*NET, "augmentation=[mixup]", "steps=2", "epochs=null")
    with pytest.raises(UserError) as refused:
        evaluate.run([str(run.path), knob])
    assert re.search(says, str(refused.value)), str(refused.value)
