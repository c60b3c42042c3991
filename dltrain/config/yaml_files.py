"""Reading of YAML files: bounds are checked before any object is built, and errors name file and line."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import yaml

from dltrain.errors import UserError

MAX_BYTES, MAX_DEPTH, MAX_ALIASES = 1_000_000, 60, 100
_CLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# Python's time to parse a number grows with the square of its length.
_LONG_NUMBER = re.compile(r"[-+]?(?:\d[\d:._]{199,}|0[xXoObB][\da-fA-F_]{199,})")


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
    # files of the kernel say so, too, and reading them may block
    text = file.read_text(encoding="utf-8") if size else ""
    for event in yaml.parse(text, Loader=_CLoader):
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
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a text", key.start_mark)
            if key.value in seen and isinstance(key.value, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"`{key.value}` stands twice", key.start_mark
                )
            seen.add(key.value if isinstance(key.value, str) else id(key))
        return super().construct_mapping(node, deep)


SafeLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
# types that no key has, and JSON does not know
for _name in ("set", "binary", "omap", "pairs", "timestamp"):
    SafeLoader.add_constructor(f"tag:yaml.org,2002:{_name}", yaml.SafeLoader.construct_undefined)
SafeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(file: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of a YAML file and its mapping ({} for an empty file).

    Raises UserError for a file that cannot be read, is not YAML, is too large, too deep, or holds something else.
    """
    try:
        check_bounds(file)
        text = file.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=SafeLoader)
    except yaml.MarkedYAMLError as error:
        if found := _misspelled(file.read_text(encoding="utf-8")):
            raise UserError(f"{file}, {found}") from None
        mark = error.problem_mark or error.context_mark
        where = f"{file}, line {mark.line + 1}" if mark else str(file)
        raise UserError(
            f"{where}: this is not YAML: {error.problem}. Correct that line or the one before it."
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} cannot be read as YAML: {reason}") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    if content is None:
        return text, {}
    if not isinstance(content, dict):
        if found := _misspelled(text):
            raise UserError(f"{file}, {found}")
        raise UserError(f"{file} holds a {type(content).__name__}; it must hold keys with their values.")
    return text, {str(key): value for key, value in content.items()}


def _misspelled(text: str) -> str:
    """Return the line of a text that is not YAML, and how to write it, for what the parser reports elsewhere or not at all."""
    for number, line in enumerate((line[:1000] for line in text.splitlines()), 1):
        if "\t" in line[: len(line) - len(line.lstrip())]:
            return (
                f"line {number}: a tab indents it, and YAML takes spaces only. Write `{line.expandtabs(2)}`"
            )
        match = re.match(r"(\s*(?:- )?(?:[\w./]*[./])?(\w+)):([^\s/:].*)$", line)
        if match and re.search("[A-Za-z_]", match[2]):
            return f"line {number}: a colon is followed by a space. Write `{match[1].strip()}: {match[3]}`"
        if match := re.match(r"""\s*(?:- +)?(?:[\w./][\w./ ]*:\s+)?(["'])(.*)$""", line):
            if match[1] not in match[2] and not line.rstrip().endswith("\\"):
                return f"line {number}: the quote is not closed. Write `{line.strip()}{match[1]}`"
    return ""


def place(file: Path, *path: str | int) -> str:
    """`FILE, line N` of a key, or of an item of a list, by its path; of the last part of it that there is."""
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=_CLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return str(file)
    line = None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            # of equal keys, which a mapping with an alias may have, the first
            found = next(((k, v) for k, v in node.value if str(k.value) == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = (node.value[part], node.value[part])
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line, found[1]
    return str(file) if line is None else f"{file}, line {line + 1}"
