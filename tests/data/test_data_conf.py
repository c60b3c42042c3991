"""conf/dataset and conf/sampler: every word names a function that takes its keys, and says what they mean."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

CONF = Path(__file__).parents[2] / "conf"
WORDS = sorted((CONF / "dataset").glob("*.yaml")) + sorted((CONF / "sampler").glob("*.yaml"))
COMMON = {"val_fraction", "test_fraction", "split_seed", "normalize", "class_weights", "resident_share"}
RUNTIME = {"targets", "batch_size", "seed", "shuffle"}  # what a sampler is given at run time


def names(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", WORDS, ids=names)
def test_keys_and_defaults_are_those_of_the_signature(path: Path) -> None:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    content = content.get(path.parent.name, content)  # one that brings defaults for other groups is global
    module, _, name = content.pop("_target_").rpartition(".")
    parameters = dict(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    if path.parent.name == "sampler":
        assert list(parameters)[:4] == ["targets", "batch_size", "seed", "shuffle"]
        parameters = {key: value for key, value in parameters.items() if key not in RUNTIME}
    own = {key: value for key, value in content.items() if key not in COMMON}
    assert list(own) == list(parameters)
    for key, value in own.items():
        default = parameters[key].default
        assert value == ("???" if default is inspect.Parameter.empty else default)


@pytest.mark.parametrize("path", WORDS, ids=names)
def test_every_key_has_a_rule_and_a_meaning(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").removeprefix("# @package _global_\n").splitlines()
    assert re.fullmatch(r"# .{10,88}\.", lines[0])
    for word in ("paper", "lecture", "use", "default"):
        assert sum(line.startswith(f"# {word}: ") for line in lines) == 1, word
    for line in lines:
        if not line.strip().startswith(("#", "_target_", "defaults:", "- override", "dataset:")):
            assert re.fullmatch(r"\w+: \S+ ? # [^:]+: .+", line), line
