"""Read safetensors whose path is no UTF-8, which the library takes as text only."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file. Raises SafetensorError for a damaged one, OSError."""
    from safetensors.torch import load, load_file

    try:
        str(file).encode()
    except UnicodeEncodeError:
        return load(file.read_bytes())
    return load_file(file)
