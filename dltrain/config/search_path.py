"""Folders of words: the shipped catalogue, `conf/` in the working directory, and `--config-dir`."""

from __future__ import annotations

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
