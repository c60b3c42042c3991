"""Write conf/catalogue.json from the YAML files and the signatures that they name: `python -m dltrain.config.build`.

Run it after changing a word's file, signature or docstring; a test fails while the stored catalogue is out of date.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dltrain.config.catalogue import FORMAT, STORED, Word, read_word
from dltrain.config.groups import GROUPS, folder_of
from dltrain.config.search_path import catalogue_dir
from dltrain.config.signature import read_signature
from dltrain.config.yaml_files import read_yaml

SCHEMA = "dltrain.config.schema"
KNOBS = {"": "Knobs", "log": "Log", "evaluation": "Evaluation", "checkpoint": "Checkpoint", "parameters": "Parameters",
         "dataset": "DatasetKnobs", "sweep": "SweepKnobs"}  # fmt: skip


def build(root: Path) -> dict[str, Any]:
    """Return the whole catalogue as JSON data."""
    _, settings = read_yaml(root / "config.yaml")
    return {
        "format": FORMAT,
        "settings": settings,
        "knobs": knobs(),
        "words": {
            group: words(group, root / folder_of(group))
            for group in GROUPS
            if (root / folder_of(group)).is_dir()
        },
    }


def words(group: str, folder: Path) -> dict[str, Any]:
    """Return the words of a group, without those that a family takes from another group."""
    read = (read_word(group, file) for file in sorted(folder.glob("*.yaml")))
    return {word.name: stored(word) for word in read}


def stored(word: Word) -> dict[str, Any]:
    """Return one word as JSON data, without empty entries."""
    keys = [[p.name, p.rule, p.default, p.meaning] for p in word.signature.parameters]
    item = {
        "content": word.content,
        "defaults": list(word.defaults),
        "package": word.package,
        "header": word.header,
        "keys": keys,
        "notes": dict(word.signature.notes),
        "details": word.signature.details,
        "closed": not word.signature.open_ended,
        "gives": sorted(word.declared.gives),
        "instead": dict(word.declared.instead),
        "requires": sorted(word.declared.requires),
    }
    needs = {} if word.declared.needs is None else {"needs": sorted(word.declared.needs)}
    return {name: value for name, value in item.items() if value} | needs


def knobs() -> list[list[Any]]:
    """Return the top-level knobs and the keys common to a group, as [path, rule, default, meaning]."""
    rows = []
    for prefix, name in KNOBS.items():
        signature = read_signature(f"{SCHEMA}.{name}")
        assert signature is not None
        for p in signature.parameters:
            rows.append([f"{prefix}.{p.name}".lstrip("."), p.rule, p.default, p.meaning])
    return rows


def text() -> str:
    """Return the text of the file."""
    return json.dumps(build(catalogue_dir()), indent=1, ensure_ascii=False, sort_keys=False) + "\n"


def main() -> None:
    """Write the file."""
    (catalogue_dir() / STORED).write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
