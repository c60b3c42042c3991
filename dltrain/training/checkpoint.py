"""Checkpoints that are either complete and verified, or not seen.

A checkpoint is a folder `step-00001234/` with `weights.safetensors`, `state.pt` (and `averaged.safetensors` where
averaging is on) and, written last, `manifest.json` with the SHA-256 of each. It is written beside its final name,
synced to the disk and renamed. The newest is found by scanning, never by a pointer that could go stale.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltrain.errors import CheckpointProblem

FORMAT = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What a verified checkpoint holds."""

    folder: Path
    manifest: dict[str, Any]

    def weights(self, averaged: bool = False) -> dict[str, Tensor]:
        """The model's tensors by name: as they were trained, or averaged where the checkpoint has that."""
        from safetensors.torch import load_file

        file = self.folder / "averaged.safetensors"
        return load_file(file if averaged and file.is_file() else self.folder / "weights.safetensors")

    def state(self) -> dict[str, Any]:
        state = torch.load(self.folder / "state.pt", map_location="cpu", weights_only=True)
        assert isinstance(state, dict)
        return state


def save(
    parent: Path,
    step: int,
    state: dict[str, Any],
    weights: dict[str, Tensor],
    averaged: dict[str, Tensor] | None,
    facts: dict[str, Any],
) -> Path:
    """Write a checkpoint; `facts` go into its manifest. An older one of the same step is replaced."""
    final = parent / f"step-{step:08d}"
    beside = parent / f".step-{step:08d}.{os.getpid()}.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    files = {"weights.safetensors": _safetensors(weights), "state.pt": _pickled(state)}
    if averaged is not None:
        files["averaged.safetensors"] = _safetensors(averaged)
    for name, content in files.items():
        write_synced(beside / name, content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = {"format": FORMAT, "step": step, **facts, "sha256": hashes}
    write_synced(beside / "manifest.json", json.dumps(manifest, indent=1).encode())
    if final.exists():
        final.rename(parent / f".step-{step:08d}.{os.getpid()}.old")
    beside.rename(final)
    sync_folder(parent)
    shutil.rmtree(parent / f".step-{step:08d}.{os.getpid()}.old", ignore_errors=True)
    return final


def newest(parent: Path) -> Checkpoint | None:
    """The newest checkpoint that is complete and undamaged; damaged ones are stepped over with a warning.

    Raises CheckpointProblem when there are checkpoints and every one of them is damaged.
    """
    reasons = []
    for folder in sorted(parent.glob("step-*"), reverse=True):
        try:
            return verified(folder)
        except CheckpointProblem as error:
            reasons.append(str(error))
            _log.warning("%s; looking for an older one", error)
    if reasons:
        raise CheckpointProblem(f"No usable checkpoint in {parent}:\n" + "\n".join(reasons[:2]))
    return None


def verified(folder: Path) -> Checkpoint:
    """A checkpoint whose files are what its manifest says. Raises CheckpointProblem otherwise."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        hashes, version = dict(manifest["sha256"]), int(manifest["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointProblem(f"{folder} has no readable manifest ({type(error).__name__})") from error
    if version > FORMAT:
        raise CheckpointProblem(
            f"{folder} has format {version}, and this dltrain knows up to {FORMAT}: use a newer dltrain"
        )
    for name, digest in hashes.items():
        file = folder / Path(name).name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise CheckpointProblem(f"{file} is damaged (its SHA-256 is not the manifest's)")
    return Checkpoint(folder, manifest)


def prune(parent: Path, keep: int, best_step: int) -> None:
    """Delete this run's older checkpoints: the newest `keep` stay, and the best."""
    folders = sorted(parent.glob("step-*"), reverse=True)
    for folder in folders[keep:]:
        if folder.name != f"step-{best_step:08d}":
            (folder / "manifest.json").unlink(
                missing_ok=True
            )  # incomplete first, so that a kill here leaves no half
            shutil.rmtree(folder, ignore_errors=True)


def clear_unfinished(parent: Path) -> None:
    """Remove what a killed process left half-written."""
    for folder in parent.glob(".step-*"):
        shutil.rmtree(folder, ignore_errors=True)


def write_safetensors(file: Path, weights: dict[str, Tensor]) -> None:
    """Weights for others to read, replaced in one move."""
    beside = file.with_name(f".{file.name}.tmp")
    write_synced(beside, _safetensors(weights))
    os.replace(beside, file)


def write_synced(file: Path, content: bytes) -> None:
    with open(file, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _safetensors(weights: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save as serialize

    seen: dict[int, str] = {}
    plain = {}
    for name, tensor in weights.items():
        shared = (
            tensor.data_ptr() in seen and tensor.numel() > 0
        )  # tied weights: safetensors wants each its own memory
        plain[name] = tensor.detach().clone().contiguous() if shared else tensor.detach().contiguous()
        seen[tensor.data_ptr()] = name
    return serialize(plain)


def _pickled(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
