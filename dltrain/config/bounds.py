"""Bounds of YAML files from elsewhere: size, depth, aliases and duplicate keys are checked before any object is built."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES, MAX_DEPTH, MAX_ALIASES = 1_000_000, 60, 100
_CLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# Python's time to parse a number grows with the square of its length.
_LONG_NUMBER = re.compile(r"[-+]?\d[\d:._]{199,}")


def check_bounds(file: Path, aliases: bool = True, max_bytes: int = MAX_BYTES) -> None:
    """Raise ValueError for a file that is too long or too deep, or whose aliases or numbers could take forever to read.

    The events are read one by one, so that a YAML bomb is refused at its first layers and never expanded.
    """
    status = file.stat()
    # reading a pipe would block
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if (size := status.st_size) > max_bytes:
        raise ValueError(f"it has {size} bytes; a configuration has at most {max_bytes}")
    depth = anchored = count = 0
    anchors: list[bool] = []
    for event in yaml.parse(file.read_text(encoding="utf-8"), Loader=_CLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            anchors.append(event.anchor is not None)
            depth, anchored = depth + 1, anchored + anchors[-1]
        elif isinstance(event, yaml.CollectionEndEvent):
            depth, anchored = depth - 1, anchored - anchors.pop()
        elif isinstance(event, yaml.AliasEvent):
            count += 1
        elif isinstance(event, yaml.ScalarEvent) and _LONG_NUMBER.match(event.value):
            raise ValueError("it holds a number of more than 200 digits")
        if depth > MAX_DEPTH:
            raise ValueError(f"it is more than {MAX_DEPTH} levels deep")
        if count and (not aliases or anchored or count > MAX_ALIASES):
            raise ValueError("it uses YAML aliases (*name), which could multiply without bound")


# Numbers as OmegaConf reads them: YAML 1.1 reads 1e-3 as a string.
_FLOAT = re.compile(
    r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)


class SafeLoader(_CLoader):  # type: ignore[misc, valid-type]
    """Load plain data only; a duplicate key is an error, since the last one would silently win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key.value, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"`{key.value}` stands twice", key.start_mark
                )
            seen.add(key.value if isinstance(key.value, str) else id(key))
        return super().construct_mapping(node, deep)


SafeLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
SafeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in SafeLoader.yaml_implicit_resolvers.items()
}
