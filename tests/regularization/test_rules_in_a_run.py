"""Rules as a run applies them: clipping, then noise, then coupled decay, in whatever order they are written."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from dltrain.config.compose import compose, open_catalogue, open_hydra
from dltrain.config.door import Door, shipped_targets
from dltrain.config.validation import validate
from dltrain.run.build import build
from dltrain.seeding import Stream

F = torch.nn.functional
LIMIT, DECAY, ETA, LR = 0.05, 0.5, 1e-3, 0.1
NAMES = ("weight_decay", "gradient_noise", "gradient_clipping")
KEYS = (
    f"regularization.weight_decay.strength={DECAY}",
    "regularization.weight_decay.mode=coupled",
    f"regularization.gradient_noise.eta={ETA}",
    f"regularization.gradient_clipping.limit={LIMIT}",
)
COMMON = (
    "dataset=iris",
    "model=linear",
    "batch_size=full",
    "optimizer=sgd",
    f"lr={LR}",
    "steps=1",
    "early_stopping=none",
)


@pytest.fixture(scope="module")
def expected():
    """One step by hand from the weights that the run starts with."""
    catalogue = open_catalogue()
    config = validate(compose(list(COMMON), catalogue, open_hydra(catalogue)))
    parts, _ = build(config, Door(shipped_targets(catalogue), []))
    (batch,) = parts.train.batches(torch.arange(len(parts.train)), len(parts.train))
    named = dict(parts.model.named_parameters())
    loss = F.cross_entropy(parts.model(batch.inputs), batch.targets)
    gradients = torch.autograd.grad(loss, [*named.values()])
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    assert norm > 3 * LIMIT, "the case needs a gradient above the limit"
    generator = Stream(0, "noise").at(0)
    after = {}
    for (name, weight), gradient in zip(named.items(), gradients, strict=True):
        gradient = gradient * LIMIT / norm + ETA**0.5 * torch.randn(gradient.shape, generator=generator)
        if weight.ndim > 1:
            gradient = gradient + DECAY * weight.detach()
        after[name] = weight.detach() - LR * gradient
    return after


@pytest.mark.parametrize("names", [*permutations(NAMES)], ids=",".join)
def test_order_is_clipping_noise_decay_however_they_are_written(train, expected, names):
    run = train(*COMMON, f"regularization=[{','.join(names)}]", *KEYS)
    for name, tensor in run.last_state()["weights"].items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-7)


def stepped(*overrides):
    """Return the first weights of a run after its step, and the lines of its header about penalties."""
    catalogue = open_catalogue()
    config = validate(compose([*COMMON, *overrides], catalogue, open_hydra(catalogue)))
    parts, _ = build(config, Door(shipped_targets(catalogue), []))
    (batch,) = parts.train.batches(torch.arange(len(parts.train)), len(parts.train))
    weight = next(parts.model.parameters())
    penalties = sum((rule.penalty() for rule in parts.rules.penalties), torch.zeros(()))
    (parts.loss(parts.model(batch.inputs), batch.targets).mean() + penalties).backward()
    parts.optimizer.step(lambda: None)
    return weight.detach(), [note for note in parts.spec.notes if note.startswith("penalty")]


@pytest.mark.parametrize(
    "rules, line, alone",
    [
        (
            "regularization=[l2] regularization.l2.strength=0.1 optimizer.weight_decay=0.1",
            "the weights decay twice: l2 0.1, optimizer.weight_decay 0.1 · once: optimizer.weight_decay=0",
            "regularization=[l2] regularization.l2.strength=0.2",
        ),
        (
            "regularization=[l2,elastic_net] regularization.l2.strength=0.1 regularization.elastic_net.strength=0.2",
            "the weights decay twice: l2 0.1, elastic_net 0.1 · once: regularization=[elastic_net]",
            "regularization=[l2,l1] regularization.l2.strength=0.2 regularization.l1.strength=0.1 regularization.l1.mode=subgradient",
        ),
        (
            "regularization=[elastic_net,l1] regularization.elastic_net.strength=0.2 regularization.l1.strength=0.3 "
            "regularization.l1.mode=subgradient",
            "‖w‖₁ counts twice: elastic_net 0.1, l1 0.3 · once: regularization=[elastic_net]",
            "regularization=[l2,l1] regularization.l2.strength=0.1 regularization.l1.strength=0.4 regularization.l1.mode=subgradient",
        ),
    ],
)
def test_a_term_that_two_rules_add_is_named_with_its_strengths(rules, line, alone):
    weights, notes = stepped(*rules.split())
    assert notes == [f"penalty  {line}"]
    same, none = stepped(*alone.split())
    assert none == []
    torch.testing.assert_close(weights, same)


@pytest.mark.parametrize(
    "rules, lines",
    [
        ("optimizer=adamw regularization=[l2,elastic_net]", ["three times: l2 0.0001, elastic_net 5e-05, optimizer.weight_decay 0.01"]),
        ("regularization=[l2,weight_decay]", ["twice: l2 0.0001, weight_decay 0.01 · once: regularization=[l2]"]),
        ("regularization=[elastic_net,l2] regularization.elastic_net.l1_ratio=1", []),
        ("regularization=[l1,l2] regularization.l1.strength=0", []),
        ("regularization=[max_norm,l2]", []),
    ],
)  # fmt: skip
def test_every_pair_of_rules_with_the_same_term_is_named(rules, lines):
    _, notes = stepped(*rules.split())
    assert len(notes) == len(lines)
    assert all(line in note for line, note in zip(lines, notes, strict=True)), notes
