"""Words of conf/optimizer built as the program builds them, and the closures that step them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dltrain.config.catalogue import Catalogue, Word
from dltrain.config.search_path import catalogue_dir

FIRST_ORDER = [
    "gd", "sgd", "momentum", "nesterov", "rprop", "quickprop", "adagrad", "adadelta", "rmsprop",
    "shampoo", "adam", "amsgrad", "adamw", "adamax", "nadam", "radam", "ranger", "muon", "lion",
    "schedule_free", "adafactor",
]  # fmt: skip
SECOND_ORDER = ["steepest", "newton_cg", "lbfgs"]
CATALOGUE = Catalogue(catalogue_dir())


def find(group: str, word: str) -> Word:
    return CATALOGUE.words[group][word]


def target(word: Word) -> Any:
    module, _, attribute = str(word.target).rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def keys(word: str, **overrides: Any) -> dict[str, Any]:
    """Return the keys of an optimizer with their defaults, as the catalogue holds them, and the overrides."""
    found = find("optimizer", word)
    own = {key: value for key, value in found.node.items() if not key.startswith("_")}
    return {**found.signature.defaults(), **own, **overrides}


def build(word: str, params: Any, **overrides: Any) -> Any:
    return target(find("optimizer", word))(params, **keys(word, **overrides))


class Closure:
    """The step contract's closure for a loss that is a function of parameters held elsewhere."""

    def __init__(self, loss: Callable[[], Tensor], parameters: list[Tensor]) -> None:
        self.loss, self.parameters, self.calls = loss, parameters, 0

    def __call__(self) -> Tensor:
        self.calls += 1
        for parameter in self.parameters:
            parameter.grad = None
        with torch.enable_grad():
            loss = self.loss()
            loss.backward()
        return loss.detach()

    def gradients(self, params: list[Tensor], create_graph: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        self.calls += 1
        with torch.enable_grad():
            loss = self.loss()
            return loss, torch.autograd.grad(loss, params, create_graph=create_graph)
