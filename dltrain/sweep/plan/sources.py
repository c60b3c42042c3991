"""The user's files from which the configurations of a sweep come: a sweep continues only with the same ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dltrain.config.own_code import code_files
from dltrain.config.user_files import lineage
from dltrain.storage.manifest import digest
from dltrain.sweep.plan.composer import Composer


def digests(composer: Composer) -> dict[str, str]:
    """Return the SHA-256 of each file by its path from the working folder.

    The files are the words, recipes and the primary configuration in the user's folders, and the modules of the working
    folder that the words name or that those modules import.
    """
    targets = {target for base in composer.bases.values() for target in base.targets}
    files = {*word_files(composer), *code_files(targets)}
    found = {os.path.relpath(file): digest(file) for file in files}
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
