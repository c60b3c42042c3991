"""Words of conf/optimizer built as the program builds them, and the closures that step them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

CONF = Path(__file__).parents[2] / "conf"
FIRST_ORDER = [
    "gd", "sgd", "momentum", "nesterov", "rprop", "quickprop", "adagrad", "adadelta", "rmsprop",
    "shampoo", "adam", "amsgrad", "adamw", "adamax", "nadam", "radam", "ranger", "muon", "lion",
    "schedule_free", "adafactor",
]  # fmt: skip
SECOND_ORDER = ["steepest", "newton_cg", "lbfgs"]


def target(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def read(group: str, word: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / group / f"{word}.yaml").read_text()) or {}


def keys(word: str, **overrides: Any) -> dict[str, Any]:
    node = read("optimizer", word)
    chosen = {key: value for key, value in node["optimizer"].items() if key != "_target_"}
    return {**chosen, "lr": node["lr"], **overrides}


def build(word: str, params: Any, **overrides: Any) -> Any:
    return target(read("optimizer", word)["optimizer"]["_target_"])(params, **keys(word, **overrides))


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
