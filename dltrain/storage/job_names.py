"""Names of the folders of a sweep's jobs: the number and the values of the axes, `3-optimizer=adam,lr=0.01`.

A job is found by its number: those of earlier versions are called `3`, and an extended sweep has more axes than before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# letters of a name, which leave room for `-failed-1` behind it, and of one value
LONGEST, LONGEST_VALUE = 80, 24
_JOB = re.compile(r"(\d{1,9})(-[^/\\=]+=[^/\\]*)?")
# of a job that failed, and whose folder was kept aside
_ASIDE = re.compile(r"-failed-\d+$")


def job_name(number: int, values: Mapping[str, Any]) -> str:
    """Return the name of a job's folder; only letters that no shell and no file system minds.

    >>> job_name(3, {"optimizer": "adam", "optimizer.betas": "[0.8,0.99]", "lr": 0.0123456})
    '3-optimizer=adam,betas=0.8+0.99,lr=0.01235'
    """
    keys = shortened(values)
    pairs = (f"{keys[key]}={_safe(_text(value))[:LONGEST_VALUE]}" for key, value in values.items())
    name = ",".join(pair.rstrip(".") for pair in pairs)[: LONGEST - 10].rstrip(".,=+")
    # not taken for a folder that was kept aside
    return _ASIDE.sub(
        lambda found: found[0].replace("-", "_"), f"{number}-{name}" if "=" in name else str(number)
    )


def shortened(keys: Iterable[str]) -> dict[str, str]:
    """Return the last part of each key, or the whole key where two end alike."""
    names = list(keys)
    ends = [name.rpartition(".")[2] for name in names]
    return {name: _safe(end if ends.count(end) == 1 else name) for name, end in zip(names, ends, strict=True)}


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _safe(text: str) -> str:
    """Return a text without brackets, lists joined by `+`; other letters than the plain ones become `_`."""
    plain = re.sub(r"(?<!\s)\s*,\s*|,\s*", "+", re.sub(r"[\[\](){}'\"]", "", text))
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", plain)


def job_number(name: str) -> int | None:
    """Return the number of a job from its folder's name; None for any other folder.

    >>> job_number("3"), job_number("12-lr=0.1"), job_number("3-failed-1"), job_number("12-lr=0.1-failed-1"), job_number("tensorboard")
    (3, 12, None, None, None)
    """
    found = _JOB.fullmatch(name)
    return int(found[1]) if found and not _ASIDE.search(name) else None


def job_label(name: str) -> str:
    """Return the number of a job as text; the name of any other folder as it is."""
    number = job_number(name)
    return name if number is None else str(number)


def job_folders(sweep: Path) -> dict[int, Path]:
    """Return the folders of a sweep's jobs by number; none where there is no folder yet."""
    return {number: sweep / name for number, name in sorted(_names(sweep).items())}


def _names(sweep: Path) -> dict[int, str]:
    return {number: name for name in _job_names(sweep) if (number := job_number(name)) is not None}


def _job_names(sweep: Path) -> list[str]:
    if not os.path.isdir(sweep):
        return []
    with os.scandir(sweep) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir() and job_number(entry.name) is not None
        )


def is_job_folder(name: str) -> bool:
    """Return whether a name is that of a job's folder, or of one that was kept aside."""
    return job_number(_ASIDE.sub("", name)) is not None


def job_copies(sweep: Path) -> list[Path]:
    """Return the folders of jobs whose number another folder has, too, which is the one that is read."""
    read = set(job_folders(sweep).values())
    return [path for path in sorted(map(sweep.joinpath, _job_names(sweep))) if path not in read]


def named_by_number(path: Path) -> Path:
    """Return the folder of a job that is named by its number, `SWEEP/3`; any other path as it is."""
    if path.name.isdecimal() and len(path.name) < 10 and not os.path.exists(path):
        return job_folders(path.parent).get(int(path.name), path)
    return path


class JobFolders:
    """The folders of the jobs of one sweep: those that are there keep their names."""

    def __init__(self) -> None:
        self._there: dict[Path, dict[int, str]] = {}

    def of(self, sweep: Path, number: int, values: Mapping[str, Any]) -> Path:
        """Return the folder of a job, which need not be there; the sweep's folder is read once."""
        if sweep not in self._there:
            self._there[sweep] = _names(sweep)
        return sweep / (self._there[sweep].get(number) or job_name(number, values))
