"""What is said of data that a run is scored on and that are not those of its training, or are divided otherwise.

The data of the run are read again for that, if they are still where its configuration says and have the fingerprint of the run. Two
samples are equal where inputs (as the run encodes and normalizes them) and target are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from dltrain.config.door import Door
from dltrain.config.schema import Config
from dltrain.data.batches import ResidentSplit
from dltrain.data.changes import data_changes
from dltrain.data.contract import Contract
from dltrain.data.errors import FOREIGN
from dltrain.data.prepare import Splits
from dltrain.data.raw import SPLIT_WORDS, TEST
from dltrain.data.spec import Batch
from dltrain.data.tables.cures import value
from dltrain.errors import DataProblem, UserError
from dltrain.run.data import build_data
from dltrain.run.lineage import runs_before
from dltrain.run.scale import FLOATS, Scale
from dltrain.storage.run_folder import checked_statistics, read_contract, read_statistics
from dltrain.text import counted, first_line, say

# Training samples that are compared where they are decoded from files, spread evenly: all of them would take an epoch.
MOST_DECODED = 10_000
_BATCH = 1024
# prints a line
Tell = Callable[[str], None]
SAME_DATA = (
    "the data are those of the training (their fingerprint is equal): the val and test splits are scored"
)


class Samples(Protocol):
    """A split, or several one after the other."""

    def __len__(self) -> int: ...

    def batches(self, order: Tensor | None, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """See `dltrain.data.batches.Split`."""
        ...


@dataclass(frozen=True)
class Trained:
    """What a run was trained on: digests of its samples, and its targets.

    compared: the number of training samples that the digests are of, of `total`. usual: the fraction of the run's own val and
    test samples that are equal to one of them; None where it has neither, or they are decoded from files.
    """

    digests: frozenset[bytes]
    targets: Tensor
    compared: int
    total: int
    usual: float | None

    @classmethod
    def of(cls, splits: Splits) -> Trained:
        train, chosen = splits.train, torch.arange(len(splits.train))
        if not isinstance(train, ResidentSplit) and len(train) > MOST_DECODED:
            chosen = torch.linspace(0, len(train) - 1, MOST_DECODED).long()
        digests = frozenset(digests_of(train, chosen))
        others = [split for split in (splits.val, splits.test) if isinstance(split, ResidentSplit)]
        known = [digest in digests for split in others for digest in digests_of(split)]
        return cls(
            digests, train.targets, len(chosen), len(train), sum(known) / len(known) if known else None
        )

    def count(self, samples: Samples) -> int:
        """Return how many samples are equal to one of the training."""
        return sum(digest in self.digests for digest in digests_of(samples))

    def told(self, found: int, samples: int, run: str, split: str) -> str:
        """Return a line on `found` of the samples of a split that are equal to one of the training."""
        among = f"{self.compared:,} of its {self.total:,} training samples" * (self.compared < self.total)
        if not found:
            compared = f" (compared: {among})" if among else ""
            return (
                f"{run} is scored on other data than it was trained on: no sample of its {samples:,} ({split}) is equal to one "
                f"of its training{compared}"
            )
        usual = (
            ""
            if self.usual is None
            else f"; of the val and test samples of the run {100 * self.usual:.3g} % are"
        )
        are = "is" if found == 1 else "are"
        return (
            f"{found:,} of the {counted(samples, 'sample')} ({split}) {are} equal to {among or 'samples'} that {run} was trained "
            f"on{usual}"
        )


def digests_of(samples: Samples, chosen: Tensor | None = None) -> Iterator[bytes]:
    """Yield a digest of 8 bytes for each sample: of its input and its target."""
    order = torch.arange(len(samples)) if chosen is None else chosen
    for batch in samples.batches(order, _BATCH):
        for row, target in zip(*map(_bytes_of_each, (batch.inputs, batch.targets)), strict=True):
            yield hashlib.blake2b(row + target, digest_size=8).digest()


def _bytes_of_each(values: Tensor) -> list[bytes]:
    """Return the bytes of each sample; −0 is 0."""
    rows = values.detach().cpu().reshape(len(values), -1) + 0
    return [row.tobytes() for row in rows.contiguous().numpy()]


def is_copy(path: Path, config: Config, door: Door) -> bool:
    """Return whether the data of a configuration are those of the training of a run, and can be divided so."""
    contract = read_contract(path)
    if contract is None:
        return False
    try:
        splits = build_data(
            quiet(config), door, torch.device("cpu"), checked_statistics(path, contract), contract, True
        )
    except DataProblem:
        # such as no column that divides them
        return False
    return not data_changes(contract, splits.contract) and (splits.val or splits.test) is not None


def trained_on(
    path: Path, config: Config, original: Config, door: Door, device: torch.device, whole: bool
) -> Trained | str | None:
    """Read the data of a run again, where a configuration names others, or divides them otherwise.

    Returns the reason where they are gone or have changed, None where there is nothing to look for.
    """
    contract = read_contract(path)
    if contract is None or not (whole or divides(config) != divides(original)):
        return None
    try:
        splits = build_data(quiet(original), door, device, checked_statistics(path, contract), contract)
    except UserError as error:
        return f"the data of the training cannot be read ({first_line(error)})"
    if changed := data_changes(contract, splits.contract):
        return f"the data of the training have changed since: {changed}"
    return Trained.of(splits)


def divides(config: Config) -> tuple[object, ...]:
    """Return what the samples of a run and their splits depend on."""
    return config.dataset, config.folds, config.fold, config.seed if config.dataset["bootstrap"] else None


def quiet(config: Config) -> Config:
    return replace(config, quiet=True)


def say_joined(config: Config, sizes: Mapping[str, int], tell: Tell = say) -> None:
    """Say which splits the data themselves define, where these are scored together."""
    present = [f"{name} ({size:,})" for name, size in sizes.items() if size]
    if len(present) < 2:
        return
    root = config.dataset.get("root")
    folder = Path(os.path.expanduser(str(root)))
    folders = [f for f in folder.iterdir() if f.is_dir()] if root and folder.is_dir() else []
    test = next((f for f in folders if SPLIT_WORDS.get(f.name.lower()) == TEST), None)
    alone = (
        f"; the last alone: {value('root', str(test))}" if test and not config.dataset.get("labels") else ""
    )
    tell(f"the data are divided into {', '.join(present)}, and all of them are scored together{alone}")


def say_left_out(notes: Sequence[str], whole: bool, tell: Tell = say) -> tuple[str, ...]:
    """Name the rows that do not fit the columns of the run, of other data (`whole`) also skipped images; return these lines.

    Of other data, rows without a target are counted: they cannot be scored, which is no fault of the data.
    """
    lines = _lines_of(notes, (FOREIGN, "broken", "skipped") if whole else ("broken",))
    for line in (*lines, *_lines_of(notes, ("dropped",) if whole else ())):
        tell(line)
    return lines


def _lines_of(notes: Sequence[str], kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Return the notes of some kinds, without their first word."""
    return tuple(note.partition(" ")[2].lstrip() for note in notes if note.startswith(kinds))


def scale_notes(samples: Samples, scale: Scale) -> tuple[str, ...]:
    """Return the line on the scale of samples."""
    for batch in samples.batches(torch.arange(len(samples)), _BATCH):
        scale.add(batch.inputs)
    return scale.notes


def say_of_data(
    path: Path,
    scored: Mapping[str, Samples],
    present: Contract | None,
    notes: tuple[str, ...],
    trained: Trained | str | None = None,
    tell: Tell = say,
) -> dict[str, int]:
    """Say on which data a run is scored, if they are not those of its training; return how many samples were trained on.

    Of each split in `scored`; empty where that is unknown.
    """
    is_other = bool(data_changes(read_contract(path), present))
    found: dict[str, int] = {}
    if isinstance(trained, Trained):
        for name, split in scored.items():
            found[name] = trained.count(split)
            tell(trained.told(found[name], len(split), str(path), name))
        for run in runs_before(path):
            tell(
                f"the initial weights of {path} come from {run}; to count samples of its training, too, evaluate it on these data"
            )
    elif is_other:
        reason = f"; whether they hold samples of it is not known: {trained}" if trained else ""
        tell(f"{path} is scored on other data than it was trained on{reason}")
    if is_other:
        for note in notes:
            if note.startswith(("classes", "decimal", "truth", "unit", "words", "unseen", "scale", "zone")):
                tell(note)
        known = read_contract(path)
        if known is not None and present is not None and known.in_bytes and not present.in_bytes:
            tell(FLOATS)
        std = (read_statistics(path) or {"std": torch.ones(1)})["std"]
        scales = [scale_notes(split, Scale(std, bool(known and known.columns))) for split in scored.values()]
        for note in dict.fromkeys(note for notes in scales for note in notes):
            tell(note)
    return found
