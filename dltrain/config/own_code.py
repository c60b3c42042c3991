"""The user's own code that a configuration names: its files, and what they import."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from dltrain.config.door import of_shipped_package
from dltrain.config.signature import is_readable
from dltrain.storage.manifest import digest

LARGEST = 2**24  # bytes of a file that is hashed
LONGEST = 200  # letters of a name that is looked up
MOST = 1000  # names of a record that are looked up


def own_digests(targets: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of each file of the working folder that targets name or import, by its path from there."""
    files = code_files(target for target in targets if not of_shipped_package(target))
    return {os.path.relpath(file): digest(file) for file in sorted(files)}


def digests_of(values: Mapping[str, object]) -> dict[str, str]:
    """Return `own_digests` of the targets in a configuration by dotted key."""
    return own_digests(str(value) for key, value in values.items() if key.endswith("_target_"))


def changed_since(then: object) -> list[str]:
    """Return a line for each file of `own_digests` that differs today; none for what is no such record.

    The record may be a stranger's: only Python files below the working folder are read.
    """
    return [
        f"{name} {'changed' if os.path.isfile(file) else 'was deleted'}"
        for name, known, file in _files_in(then)
        if not os.path.isfile(file) or digest(file) != known
    ]


def _files_in(then: object) -> Iterator[tuple[str, object, Path]]:
    here = Path.cwd().resolve()
    for name, known in islice(then.items(), MOST) if isinstance(then, Mapping) else ():
        text = str(name)
        if not text.endswith(".py") or not text.isprintable() or len(text) > LONGEST:
            continue
        file = Path(os.path.realpath(here / text))
        if here in file.parents and (not os.path.isfile(file) or file.stat().st_size <= LARGEST):
            yield text, known, file


def code_files(targets: Iterable[str]) -> set[Path]:
    """Return the modules of the working folder that targets name, with those that they import, at any depth."""
    found: set[Path] = set()
    waiting = [file for target in targets for file in modules_in(target)]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += [module for name in imported_by(file) for module in modules_in(name)]
    return found


def modules_in(dotted: str) -> Iterator[Path]:
    """Yield the files of the working folder's packages and module in a dotted name."""
    base = Path.cwd()
    for part in dotted.split("."):
        base = base / part
        if base.with_suffix(".py").is_file():
            yield base.with_suffix(".py")
            return
        if not (base / "__init__.py").is_file():
            return
        yield base / "__init__.py"


def imported_by(file: Path) -> Iterator[str]:
    """Yield the dotted names that a module imports; none where it cannot be parsed."""
    if not is_readable(file):
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    inside = file.parent.relative_to(Path.cwd()).parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            # one dot is the package of the module, each further dot the package around it
            package = inside[: len(inside) + 1 - node.level] if node.level else ()
            module = ".".join((*package, *filter(None, [node.module])))
            yield from (f"{module}.{name.name}" if module else name.name for name in node.names)
