"""Folders of words: the shipped catalogue, `conf/` in the working directory, and `--config-dir`."""

from __future__ import annotations

import os
from pathlib import Path

from dltrain.errors import UserError


def catalogue_dir() -> Path:
    """Return the shipped catalogue: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "conf"
    return shipped if shipped.is_dir() else package.parent / "conf"


def user_dirs(config_dir: str | None = None) -> tuple[Path, ...]:
    """Return the user's own folders of words, in search order (after the catalogue).

    Raises UserError when `--config-dir` names no folder.
    """
    found = []
    here = Path.cwd() / "conf"
    if here.is_dir() and here.resolve() != catalogue_dir():
        found.append(here)
    if config_dir is not None:
        given = Path(config_dir).resolve()
        if not given.is_dir():
            raise UserError(
                f"`--config-dir` is {config_dir}, which is no folder. Give the folder that holds your group folders."
            )
        if given not in (catalogue_dir(), *(p.resolve() for p in found)):
            found.append(given)
    return tuple(found)


def misplaced(group: str, name: str, folders: tuple[Path, ...]) -> str:
    """Return where the file of an unknown word was searched for, or where it lies instead, as the end of a sentence.

    Args:
        group: as a folder below conf/
        name: of the word
        folders: of the user's words, as `user_dirs` returned them
    """
    here = Path.cwd()
    right = f"{group}/{name}.yaml"
    places = [here, *here.parents[:2]]
    found = [
        file
        for place in places
        for pattern in (f"*/{group}/{name}.y*ml", f"conf/*/{name}.y*ml", f"conf/{name}.y*ml", f"{name}.y*ml")
        for file in sorted(place.glob(pattern))
        if catalogue_dir() not in file.parents
    ]
    if not found:
        return f" No {right} is in {' or '.join(map(str, folders)) or here / 'conf'}."
    if found[0].parts[-3:] == ("conf", *right.split("/")):  # of a folder above this one
        return f" Run from {found[0].parents[2]}, which has conf/{right}"
    return f" Move {os.path.relpath(found[0])} to conf/{right}"
