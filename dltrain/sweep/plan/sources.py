"""The user's files from which the configurations of a sweep come: a sweep continues only with the same ones."""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from dltrain.config.user_files import lineage
from dltrain.sweep.plan.composer import Composer


def digests(composer: Composer) -> dict[str, str]:
    """Return the SHA-256 of each file by its path from the working folder.

    The files are the words, recipes and the primary configuration in the user's folders, and the modules of the working
    folder that the words name or that those modules import.
    """
    files = {*word_files(composer), *code_files(composer)}
    found = {os.path.relpath(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return dict(sorted(found.items()))


def changes(then: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return a line for each file that differs: changed, deleted or new."""
    words = {(True, True): "changed", (True, False): "was deleted", (False, True): "is new"}
    return [
        f"{file} {words[file in then, file in now]}"
        for file in sorted({**then, **now})
        if then.get(file) != now.get(file)
    ]


def word_files(composer: Composer) -> Iterator[Path]:
    """Yield the files of the chosen words that lie in the user's folders, and of the words that they build upon."""
    catalogue = composer.catalogue
    for base in composer.bases.values():
        for group, names in base.choices.items():
            words = [word for name in names if (word := catalogue.words.get(group, {}).get(name)) is not None]
            files = (older.file for word in words for older in lineage(word, catalogue))
            yield from (file for file in files if catalogue.root not in file.parents)
    primary = (folder / f"{composer.name}.yaml" for folder in catalogue.user_dirs)
    yield from (file for file in primary if file.is_file())


def code_files(composer: Composer) -> set[Path]:
    """Return the modules of the working folder that targets name, with those that they import, at any depth."""
    targets = {target for base in composer.bases.values() for target in base.targets}
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
