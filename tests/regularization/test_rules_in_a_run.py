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
