"""The folder of caches of the user, which needs no torch to be named."""

from __future__ import annotations

import os
from pathlib import Path


def folder() -> Path:
    """Return the folder of caches: DLTRAIN_CACHE, or `dltrain` in the system's place for caches of the user."""
    if given := os.environ.get("DLTRAIN_CACHE"):
        return Path(os.path.expanduser(given))
    local = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(local) if local else Path.home() / ".cache") / "dltrain"
