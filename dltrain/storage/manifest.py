"""manifest.json of a run or of a sweep: the SHA-256 of its records, written last, when it ends.

The checkpoints of a run have manifests of their own, whose hashes are among these: whoever changes a file, but not the
hashes that lead to it, is found by `dltrain verify`. It holds no secret: whoever can rewrite all of them is not found.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dltrain.errors import CheckpointProblem
from dltrain.storage.files import replace
from dltrain.storage.summary import read_json

NAME = "manifest.json"
FORMAT = 1
# names in a manifest: a run has less than twenty records
MOST = 1000
# of a run; those that a run does not have are left out
RECORDS = (
    "config.yaml", "data.json", "metrics.csv", "events.jsonl", "summary.json", "per_class.csv", "confusion_matrix.csv",
    "per_target.csv",
    "checkpoints/best.safetensors", "checkpoints/normalization.safetensors",
    ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml",
)  # fmt: skip
# of every run that finished
NEEDED = ("config.yaml", "metrics.csv", "summary.json")
SWEEP_RECORDS = ("sweep.json", "study.log", "results.csv", "results.parquet", "best.yaml")
# of every sweep that ended
SWEEP_NEEDED = ("sweep.json", "results.csv")


def write(folder: Path, names: Iterable[str], known: Mapping[str, str] | None = None) -> None:
    """Write the manifest of the files that are there; `known` are hashes that were computed when they were written."""
    known = known or {}
    found = {name: known.get(name) or digest(folder / name) for name in names if (folder / name).is_file()}
    replace(folder / NAME, json.dumps({"format": FORMAT, "sha256": found}, indent=1).encode() + b"\n")


def remove(folder: Path) -> None:
    """Remove the manifest of a run or sweep that goes on: its records change."""
    (folder / NAME).unlink(missing_ok=True)


def renew(folder: Path, name: str, sha256: str = "") -> None:
    """Record a file that was rewritten after the end of its run, where there is a manifest; or the hash that it will have."""
    if (folder / NAME).is_file():
        content = read(folder)
        known = {other: sha for other, sha in content.items() if other != name}
        write(folder, {**content, name: ""}, known | ({name: sha256} if sha256 else {}))


def read(folder: Path) -> dict[str, str]:
    """Return the hashes of a manifest by the names of the files. Raises CheckpointProblem for one that cannot be used."""
    try:
        content = read_json(folder / NAME)
        version, found = content["format"], content["sha256"]
        if not isinstance(version, int) or version > FORMAT:
            raise ValueError(f"it has format {str(version)[:20]}, and this dltrain knows up to {FORMAT}")
        if isinstance(found, dict) and len(found) > MOST:
            raise ValueError(f"it names {len(found):,} files, and no run has more than {MOST:,} records")
        if not all(_is_inside(name) and isinstance(sha, str) for name, sha in found.items()):
            raise ValueError("it names files outside of its folder")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)[:100]
        raise CheckpointProblem(f"{folder / NAME} cannot be read: {reason}") from None
    return dict(found)


def is_whole(folder: Path) -> bool:
    """Return whether the manifest of a finished run names each of its records, and every file of it has its hash.

    Nothing is known of a run without a manifest: whoever deletes it could change every record.
    """
    try:
        known = read(folder)
        there = {name for name in covered(folder) if (folder / name).is_file()}
        return {*NEEDED, *there} <= known.keys() and all(
            digest(folder / name) == sha256 for name, sha256 in known.items()
        )
    except (CheckpointProblem, OSError):
        return False


def _is_inside(name: Any) -> bool:
    return not os.path.isabs(name) and ".." not in Path(name).parts and "\0" not in name


def covered(folder: Path) -> Iterator[str]:
    """Yield the names of what the manifest of a run covers: its records, and the manifests of its checkpoints."""
    yield from RECORDS
    for file in sorted((folder / "checkpoints").glob("step-*/manifest.json")):
        yield file.relative_to(folder).as_posix()


def digest(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Lines:
    """The SHA-256 of a text file that grows: of its first bytes at any time."""

    def __init__(self) -> None:
        self.bytes, self._sha256 = 0, hashlib.sha256()

    def add(self, text: str) -> bytes:
        """Add text; return its bytes."""
        content = text.encode()
        self.bytes += len(content)
        self._sha256.update(content)
        return content

    def as_json(self) -> dict[str, Any]:
        """Return the number of bytes and their hash."""
        return {"bytes": self.bytes, "sha256": self._sha256.copy().hexdigest()}


def begins_with(file: Path, lines: Mapping[str, Any]) -> bool:
    """Return whether a file begins with the bytes that `Lines.as_json` described; no bytes need no file."""
    try:
        if int(lines["bytes"]) == 0:
            return True
        with open(file, "rb") as stream:
            content = stream.read(int(lines["bytes"]))
        return hashlib.sha256(content).hexdigest() == lines["sha256"]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError):
        return False
