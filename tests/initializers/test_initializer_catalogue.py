"""Every word of conf/initializer: its first arguments, and a network that learns from it."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from dltrain.data.spec import Batch

CONF = Path(__file__).parents[2] / "conf" / "initializer"
WORDS = sorted(path.stem for path in CONF.glob("*.yaml"))


def read(word):
    keys = yaml.safe_load((CONF / f"{word}.yaml").read_text())
    module, _, name = keys.pop("_target_").rpartition(".")
    return getattr(importlib.import_module(module), name), keys


def test_all_rows_of_the_table_are_there():
    table = (
        "default zeros constant uniform normal truncated_normal fan_in_uniform xavier_uniform xavier_normal "
    )
    table += "kaiming_uniform kaiming_normal orthogonal sparse lsuv dirac whitening pretrained"
    assert sorted(table.split()) == WORDS


@pytest.mark.parametrize("word", WORDS)
def test_the_first_arguments_are_module_generator_and_batch(word):
    function, _ = read(word)
    assert list(inspect.signature(function).parameters)[:3] == ["module", "generator", "batch"]


def train(word, steps=40, **changes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3))
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(90, 12, generator=generator)
    targets = (inputs[:, 0] + inputs[:, 1] > 0).long() + (inputs[:, 2] > 0).long()
    function, keys = read(word)
    function(model, generator, Batch(inputs, targets, torch.arange(90)), **(keys | changes))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("word", [word for word in WORDS if word not in ("zeros", "constant", "pretrained")])
def test_a_net_that_starts_from_it_learns(word):
    assert train(word) < 0.3


def test_zeros_and_pretrained_do_as_they_must():
    assert train("zeros") > 0.9  # no better than the shares of the classes
    with pytest.raises(ValueError, match="needs initializer.path"):
        train("pretrained")
