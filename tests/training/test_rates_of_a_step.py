"""Learning rate, momentum, strength of a penalty and of decay in a step: a plain loop from the run's own first weights."""

from __future__ import annotations

import pytest
import torch
from conftest import Run, run_folders
from safetensors.torch import load_file

from dltrain.cli import dispatch
from dltrain.config import saved
from dltrain.config.compose import open_catalogue
from dltrain.config.door import Door, shipped_targets
from dltrain.run.build import build

STEPS, LR, STRENGTH, DECAY = 6, 0.2, 0.3, 0.4
WORDS = ("dataset=iris", "model.hidden=[8]", "batch_size=full", f"steps={STEPS}", "optimizer=momentum", f"lr={LR}",
         "early_stopping=none", "schedule=polynomial", "momentum_schedule=linear", "momentum_schedule.start=0.9",
         "momentum_schedule.end=0.3", "regularization=[l2,weight_decay]", f"regularization.l2.strength={STRENGTH}",
         f"regularization.weight_decay.strength={DECAY}",
         "penalty_schedule=linear", "penalty_schedule.start=0.5", "penalty_schedule.end=2", "checkpoint.keep=9",
         "checkpoint.every_steps=1", "quiet=true", "threads=1")  # fmt: skip


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The run, and the weights after each step of the plain loop."""
    folder = tmp_path_factory.mktemp("run")
    assert dispatch([*WORDS, f"output={folder}"]) == 0
    (path,) = run_folders(folder)
    catalogue = open_catalogue()
    parts, _ = build(saved.read(path, catalogue, []), Door(shipped_targets(catalogue), []))
    (batch,) = parts.train.batches(torch.arange(len(parts.train)), len(parts.train))
    named = dict(parts.model.named_parameters())
    buffers = {name: torch.zeros_like(p) for name, p in named.items()}
    expected = []
    for step in range(STEPS):
        share = step / STEPS
        lr = LR * (1 - share) ** 2
        momentum = 0.9 + (0.3 - 0.9) * share
        scale = 0.5 + (2 - 0.5) * share
        penalty = scale * STRENGTH / 2 * sum(p.square().sum() for p in named.values() if p.ndim > 1)
        loss = torch.nn.functional.cross_entropy(parts.model(batch.inputs), batch.targets) + penalty
        gradients = torch.autograd.grad(loss, [*named.values()])
        with torch.no_grad():
            for (name, p), gradient in zip(named.items(), gradients, strict=True):
                buffers[name] = momentum * buffers[name] + gradient
                if p.ndim > 1:
                    p.mul_(1 - lr * DECAY * scale)
                p.sub_(lr * buffers[name])
        expected.append({name: p.detach().clone() for name, p in named.items()})
    return Run(path), expected


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_weights_after_each_step_are_those_of_the_plain_loop(followed, step):
    run, expected = followed
    weights = load_file(run.path / f"checkpoints/step-{step:08d}/weights.safetensors")
    for name, tensor in expected[step - 1].items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-6)
