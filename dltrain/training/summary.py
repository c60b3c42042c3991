"""Reading a run's summary; needs no torch, so that a refusal comes at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dltrain.errors import CheckpointProblem

MAX_BYTES = 10_000_000


def read_summary(path: Path) -> dict[str, Any]:
    """The summary of a run folder. Raises CheckpointProblem when the folder is not that of a run."""
    file = path / "summary.json"
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        summary = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        if (path / "config.yaml").is_file():  # killed before its first summary
            return {"status": "running"}
        raise CheckpointProblem(
            f"{path} is not a run folder: it has no summary.json. "
            "Name one that dltrain made, such as outputs/NAME/DATE_TIME-xxxx."
        ) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointProblem(f"{path}/summary.json cannot be read: {error}") from None
    if not isinstance(summary, dict) or not isinstance(summary.get("status"), str):
        raise CheckpointProblem(f"{path}/summary.json is no summary of a run.")
    return summary
