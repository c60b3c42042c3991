"""Downloaded files, verified by SHA-256 before they are read."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dltrain.data.errors import DataError

# seconds without an answer
_TIMEOUT = 30.0
_CHUNK = 2**20


@dataclass(frozen=True)
class RemoteFile:
    """A published file: its name below each mirror, its SHA-256 and its size in bytes."""

    name: str
    sha256: str
    size: int
    mirrors: tuple[str, ...]


def fetch(file: RemoteFile, folder: Path, hint: str) -> Path:
    """Download the file into `folder` from the first mirror that serves the right bytes, and return its path.

    Incomplete files and files with another hash are removed. Raises DataError with `hint` when no mirror works.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot make the folder {folder} ({error.strerror}); set dataset.root to another"
        ) from error
    reasons: list[str] = []
    for mirror in file.mirrors:
        reason = _fetch_from(mirror + file.name, file, folder)
        if reason is None:
            return folder / file.name
        reasons.append(reason)
    raise DataError(
        f"could not download {file.name} from any of {len(file.mirrors)} addresses (the last: {reasons[-1]}).\n"
        f"Put {file.name} (from {file.mirrors[0]}{file.name}, SHA-256 {file.sha256[:16]}…) into {folder} by hand; "
        f"{hint}"
    )


def _fetch_from(url: str, file: RemoteFile, folder: Path) -> str | None:
    """Download the file from one address; return None, or the reason why it failed."""
    from http.client import HTTPException

    # imported here, since it takes 40 ms and only downloads need it
    from urllib.request import urlopen

    # another process may fetch the same file, and a folder of somebody else may hold a link
    unfinished = folder / f"{file.name}.{secrets.token_hex(4)}.part"
    try:
        with urlopen(url, timeout=_TIMEOUT) as answer, open(unfinished, "xb") as target:
            reason = _copy(answer, target, file)
        if reason is None:
            os.replace(unfinished, folder / file.name)
        return reason
    # URLError and timeouts are OSErrors
    except (OSError, HTTPException) as error:
        return f"{url}: {getattr(error, 'reason', None) or error}"
    finally:
        unfinished.unlink(missing_ok=True)


def _copy(answer: IO[bytes], target: IO[bytes], file: RemoteFile) -> str | None:
    """Copy at most the expected number of bytes; return None, or how size or hash differ."""
    digest, size = hashlib.sha256(), 0
    while (part := answer.read(_CHUNK)) and size <= file.size:
        target.write(part)
        digest.update(part)
        size += len(part)
    if size != file.size:
        got = f"more than {file.size}" if size > file.size else str(size)
        return f"got {got} bytes in place of {file.size}"
    if digest.hexdigest() != file.sha256:
        return f"SHA-256 is {digest.hexdigest()[:16]}… in place of {file.sha256[:16]}…"
    return None


def find(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first of `names` that is a file in `folder`."""
    return next((folder / name for name in names if (folder / name).is_file()), None)
