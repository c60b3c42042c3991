"""Checkpoints that are either complete and verified, or not seen.

A checkpoint is a folder `step-00001234/` with `weights.safetensors`, `state.pt` (and `averaged.safetensors` where
averaging is on) and, written last, `manifest.json` with the SHA-256 of each. It is written beside its final name,
synced to the disk and renamed. The newest is found by scanning, never by a pointer that could go stale.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from dltrain.errors import UNASKED, CheckpointProblem
from dltrain.storage import files
from dltrain.storage.manifest import digest
from dltrain.storage.tensors import is_dense, load_tensors, num_bytes, tensors_in
from dltrain.strict_json import loads

FORMAT = 1
MAX_MANIFEST_BYTES = 10_000_000
WEIGHTS, AVERAGED, STATE, MANIFEST = (
    "weights.safetensors",
    "averaged.safetensors",
    "state.pt",
    "manifest.json",
)
_FOLDER = re.compile(r"step-(\d{8,})")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def has_averages(self) -> bool:
        """Return whether it has averaged weights; a file that the manifest does not name is none of the checkpoint."""
        return AVERAGED in self.manifest["sha256"]

    def weights(self, averaged: bool = False) -> dict[str, Tensor]:
        """Return the model's tensors by name: as trained, or averaged if the checkpoint has averages."""
        return load_tensors(self.folder / (AVERAGED if averaged and self.has_averages else WEIGHTS))

    def state(self) -> dict[str, Any]:
        """Return plain data and tensors. Raises CheckpointProblem for a file that holds anything else."""
        file = self.folder / STATE
        try:
            check_archive(file)
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch's unpickler raises all kinds for what is no file of its own
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointProblem(f"{file} is no state of a run: {reason}") from None
        if not isinstance(state, dict):
            raise CheckpointProblem(f"{file} is no state of a run: it holds a {type(state).__name__}.")
        if not all(map(is_dense, tensors_in(state))):
            raise CheckpointProblem(
                f"{file} is no state of a run: several numbers of a tensor share their memory."
            )
        return state


class NewerFormat(CheckpointProblem):
    """A checkpoint of a newer version of dltrain: to skip it would lose work silently."""


def check_archive(file: Path) -> None:
    """Raise ValueError for a state file that would unpack to more than its size: those of a run are never compressed."""
    with zipfile.ZipFile(file) as archive:
        sizes = [(member.compress_type, member.file_size) for member in archive.infolist()]
    if any(kind != zipfile.ZIP_STORED for kind, _ in sizes) or sum(s for _, s in sizes) > file.stat().st_size:
        raise ValueError("its archive is packed, and that of a run never is")


def save(
    parent: Path,
    step: int,
    state: dict[str, Any],
    weights: dict[str, Tensor],
    averaged: dict[str, Tensor] | None,
    facts: dict[str, Any],
    records: Sequence[Path] = (),
) -> Path:
    """Write a checkpoint; `facts` go into its manifest. An older one of the same step is replaced.

    `records` are files and folders that it refers to: they are synced before it is complete.

    Raises OSError, with the bytes that it needed, when the disk refuses; what was there stays as it was.
    """
    final = parent / f"step-{step:08d}"
    beside = parent / f".step-{step:08d}.{os.getpid()}.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    parent.mkdir(exist_ok=True)
    check_space(parent, num_bytes((state, weights, averaged)))
    beside.mkdir()
    try:
        _write_files(beside, {"format": FORMAT, "step": step, **facts}, state, weights, averaged, records)
        _replace(beside, final)
    except CheckpointProblem as error:  # what was read back is not what was written
        shutil.rmtree(beside, ignore_errors=True)
        raise OSError(errno.EIO, str(error), str(final)) from None
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return final


def _write_files(
    folder: Path,
    manifest: dict[str, Any],
    state: dict[str, Any],
    weights: dict[str, Tensor],
    averaged: dict[str, Tensor] | None,
    records: Sequence[Path],
) -> None:
    """Fill a folder, and read it back while it is synced: a disk takes several syncs in the time of one."""
    fillers = {
        STATE: partial(torch.save, state),
        WEIGHTS: partial(_write_safetensors, weights),
    }
    if averaged is not None:
        fillers[AVERAGED] = partial(_write_safetensors, averaged)
    manifest["sha256"] = {name: write_hashed(folder / name, fill) for name, fill in fillers.items()}
    (folder / MANIFEST).write_bytes(json.dumps(manifest, indent=1).encode())
    paths = [*folder.iterdir(), folder]
    with ThreadPoolExecutor(len(paths) + len(records)) as pool:
        synced = chain(pool.map(files.sync, paths), pool.map(sync_if_there, records))
        verified(folder)
        list(synced)  # raises what the disk said


def check_space(folder: Path, needed: int) -> None:
    """Raise OSError (ENOSPC) where a folder's disk has less than `needed` bytes, before anything is written."""
    # some platforms have no way to ask
    if not hasattr(shutil, "disk_usage"):
        return
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"No space left on device: {needed} bytes needed, {free} free", str(folder)
        )


def _replace(beside: Path, final: Path) -> None:
    aside = final.with_name(f".{final.name}.{os.getpid()}.old")
    if final.exists():
        final.rename(aside)
    beside.rename(final)
    files.sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def folders(parent: Path) -> list[Path]:
    """Return the folders of checkpoints, the newest first; other files and folders are ignored."""
    found = [(int(m[1]), f) for f in parent.glob("step-*") if (m := _FOLDER.fullmatch(f.name))]
    return [folder for _, folder in sorted(found, reverse=True)]


def put_aside(parent: Path) -> list[Path]:
    """Return the folders of checkpoints that a killed process had begun to replace, whose new ones are not there."""
    aside = [folder for folder in parent.glob(".step-*.old") if folder.is_dir() and not folder.is_symlink()]
    return sorted(folder for folder in aside if not _final_of(folder).exists())


def _final_of(aside: Path) -> Path:
    return aside.parent / aside.name[1:].partition(".")[0]


def newest(parent: Path, strict: bool = False) -> Checkpoint | None:
    """Return the newest checkpoint that is complete and undamaged; damaged ones are skipped with a warning.

    Raises CheckpointProblem when there are checkpoints and every one of them is damaged, or (`strict`) the newest is,
    and NewerFormat for one that a newer dltrain wrote.
    """
    reasons = []
    for folder in folders(parent):
        try:
            found = verified(folder)
            best = int(found.manifest["best_step"])
            if best not in (0, int(found.manifest["step"])):
                verified(parent / f"step-{best:08d}")  # going on without the best weights would lose them
            return found
        except NewerFormat:
            raise
        except CheckpointProblem as error:
            if strict:
                raise CheckpointProblem(
                    f"{error}\nLeave out strict=true to go on from an older one."
                ) from None
            reasons.append(str(error))
            _log.warning("%s; looking for an older one", error)
    if reasons:
        raise CheckpointProblem(f"No usable checkpoint in {parent}:\n" + "\n".join(reasons[:2]))
    return None


def verified(folder: Path) -> Checkpoint:
    """Return a checkpoint whose files have the hashes of its manifest. Raises CheckpointProblem otherwise."""
    manifest = read_manifest(folder)
    for name, sha256 in manifest["sha256"].items():
        file = folder / Path(name).name
        if not file.is_file() or digest(file) != sha256:
            raise CheckpointProblem(f"{file} is damaged (its SHA-256 is not the manifest's)")
    return Checkpoint(folder, manifest)


def unknown_files(folder: Path) -> list[str]:
    """Return the names of what lies in a checkpoint beside the files of its manifest. Raises CheckpointProblem."""
    known = {MANIFEST, *read_manifest(folder)["sha256"]}
    return sorted(file.name for file in folder.iterdir() if file.name not in known)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a manifest as plain data. Raises CheckpointProblem for one that cannot be used, NewerFormat for a newer one."""
    file = folder / MANIFEST
    try:
        if file.stat().st_size > MAX_MANIFEST_BYTES:
            raise ValueError("too long")
        manifest = loads(file.read_text(encoding="utf-8"))
        version = int(manifest["format"])
        int(manifest["step"]), dict(manifest["best"]), int(manifest["best_step"])
        known = {WEIGHTS, STATE} <= dict(manifest["sha256"]).keys()
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and error.errno in UNASKED:
            raise
        raise CheckpointProblem(f"{folder} has no readable manifest ({type(error).__name__})") from None
    if version > FORMAT:
        raise NewerFormat(
            f"{folder} has format {version}, and this dltrain knows up to {FORMAT}: use a newer dltrain"
        )
    if not known or f"step-{int(manifest['step']):08d}" != folder.name.removeprefix(".").partition(".")[0]:
        raise CheckpointProblem(f"{folder} has a manifest that is not its own")
    return dict(manifest)


def prune(parent: Path, keep: int) -> None:
    """Delete older checkpoints: the newest `keep` stay, and the best one of each of them."""
    newest_first = folders(parent)
    kept = {folder.name for folder in newest_first[:keep]}
    for folder in newest_first[:keep]:
        try:
            kept.add(f"step-{int(read_manifest(folder)['best_step']):08d}")
        except CheckpointProblem:
            return  # a damaged one: what it needs is not known
    for folder in newest_first[keep:]:
        if folder.name not in kept:
            # renamed first, so that a kill leaves no half of a checkpoint: the name is one that `clear_unfinished` removes
            gone = parent / f".{folder.name}.{os.getpid()}.tmp"
            with suppress(OSError):
                folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def clear_unfinished(parent: Path) -> None:
    """Remove half-written checkpoints of a killed process; a finished one that it had put aside is restored."""
    for folder in put_aside(parent):
        folder.rename(_final_of(folder))
    for folder in (*parent.glob(".step-*.tmp"), *parent.glob(".step-*.old")):
        shutil.rmtree(folder, ignore_errors=True)


def write_safetensors(file: Path, weights: dict[str, Tensor]) -> str:
    """Write weights in one move, for other programs to read; return the SHA-256 of the file."""
    beside = file.with_name(f".{file.name}.tmp")
    sha256 = write_hashed(beside, partial(_write_safetensors, weights))
    files.sync(beside)
    os.replace(beside, file)
    return sha256


class Hashing:
    """A file and the SHA-256 of the bytes that were passed to it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.sha256 = stream, hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, content: bytes | memoryview) -> int:
        self.sha256.update(content)
        try:
            self.stream.write(content)
        except OSError as error:  # raised here, torch.save would hide it behind an error of its own
            self.failure = self.failure or error
        return len(content)

    def flush(self) -> None:
        self.stream.flush()


def write_hashed(file: Path, fill: Callable[[Any], None]) -> str:
    """Write a file by a function that fills a stream; return its SHA-256. Raises OSError when the disk refuses."""
    with open(file, "wb") as stream:
        hashing = Hashing(stream)
        fill(hashing)
        if hashing.failure is not None:
            raise hashing.failure
    return hashing.sha256.hexdigest()


def sync_if_there(path: Path) -> None:
    """Sync a file that another thread may replace, or that this process may not read."""
    with suppress(FileNotFoundError, PermissionError):
        files.sync(path)


def _write_safetensors(weights: dict[str, Tensor], stream: Any) -> None:
    from safetensors.torch import save as serialize

    seen: dict[int, str] = {}
    plain = {}
    for name, tensor in weights.items():
        shared = (
            tensor.data_ptr() in seen and tensor.numel() > 0
        )  # tied weights: safetensors wants each its own memory
        plain[name] = tensor.detach().clone().contiguous() if shared else tensor.detach().contiguous()
        seen[tensor.data_ptr()] = name
    stream.write(serialize(plain))
