"""Splitting, normalization and placement of raw samples, and the facts from which a model is sized."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltrain.data.batches import ResidentSplit, Split, StreamingSplit, to_device
from dltrain.data.class_counts import check_bootstrapped, check_weighted, class_counts
from dltrain.data.contract import Contract
from dltrain.data.equal_samples import copies_note
from dltrain.data.errors import DataError
from dltrain.data.layout import arranged, known_axes
from dltrain.data.normalization import Normalizer, normalizer
from dltrain.data.raw import TEST, TRAIN, VAL, Encoder, Layout, Places, RawData, Reader, class_numbers
from dltrain.data.spec import DataSpec
from dltrain.data.split_names import SPLIT_NAMES, SplitName
from dltrain.data.splits import bootstrapped, hashed_order, rare_classes, split, stratified_sample
from dltrain.data.streaming import in_threads, read_in_threads
from dltrain.data.units import learned, target_scale
from dltrain.data.unused import cut_note, limit_note, unused_keys

_STATISTICS_SAMPLES = 4096  # of a streamed training split: reading all of it would cost an epoch
_COPIED_AT_ONCE = (
    512  # samples normalised at a time: what the processor's cache holds, 8 times faster than all
)


@dataclass(frozen=True)
class Source:
    """Which samples of the dataset are in which split.

    positions: (M,) of each split that is not empty, in its order; targets: (N, …) of all samples, as the dataset has them, classes
    numbered as in the contract; locate: `RawData.locate`
    """

    positions: Mapping[SplitName, Tensor]
    targets: Tensor
    locate: Callable[[Tensor], Places]


@dataclass(frozen=True)
class Splits:
    """The data of a run; val and test are None where there is no such split."""

    train: Split
    val: Split | None
    test: Split | None
    spec: DataSpec
    data_fingerprint: str
    # None where the dataset is an objective
    contract: Contract | None = None
    source: Source | None = None
    # keys of the dataset that change nothing for these data, with the reason
    unused: Mapping[str, str] = field(default_factory=dict)

    def statistics(self) -> dict[str, Tensor]:
        """Return the statistics that normalized inputs and targets, on the CPU, to be saved with the run.

        `mean` and `std`; for images that are not centered also `average`; for encoded columns also `columns`, a hash of their
        encoding; for standardized targets also `target_mean` and `target_std`.
        """
        found = {"mean": self.spec.mean.cpu(), "std": self.spec.std.cpu()}
        if self.spec.average is not None:
            found["average"] = self.spec.average.cpu()
        if (scale := self.spec.target_scale) is not None:
            found |= {"target_mean": scale.mean.cpu(), "target_std": scale.std.cpu()}
        if self.contract is not None and self.contract.columns:
            found["columns"] = self.contract.code()
        return found

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits of a hash of shape, task, all targets, a sample of the inputs and what was skipped."""
        return self.data_fingerprint


def prepare(
    raw: RawData,
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    normalize: str = "unit",
    class_weights: str = "none",
    folds: int | None = None,
    fold: int | None = None,
    device: torch.device | str = "cpu",
    resident_share: float = 0.5,
    workers: int = 0,
    worker_timeout: float = 60.0,
    limit: int | None = None,
    bootstrap: int | None = None,
    layout: Layout = "auto",
    dtype: torch.dtype = torch.float32,
    statistics: Mapping[str, Tensor] | None = None,
    contract: Contract | None = None,
    without_val: str = "dataset.val_fraction=0",
) -> Splits:
    """Split, normalize and place the data; `split`, `arranged` and `normalizer` state the rules.

    The samples are kept on the device when they take at most `resident_share` of its free memory, else they are streamed
    through `workers` processes. `statistics` are those of an earlier run (`Splits.statistics`), used instead of new ones;
    `contract` is the contract of that run, which the data must match; `limit` is the number of training samples to keep;
    `bootstrap` is a seed by which as many are then drawn with replacement; `without_val` is what a message proposes for a run
    without a val split. Raises DataError where the data cannot be used so.
    """
    device = torch.device(device)
    raw = _checked(raw)
    if raw.task == "objective":
        return _objective(raw, device, dtype)
    raw = arranged(raw, layout, known_axes(contract, statistics))
    if contract is not None:
        raw = contract.hold(raw)
    marks = split(
        raw,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        split_seed=split_seed,
        folds=folds,
        fold=fold,
        every_class=contract is None,
        without_val=without_val,
    )
    positions = [(marks == part).nonzero().flatten() for part in (TRAIN, VAL, TEST)]
    sampled = not isinstance(raw.inputs, Tensor | Encoder) and len(positions[TRAIN]) > _STATISTICS_SAMPLES
    limited = limit is not None and limit < len(positions[TRAIN])
    unused = unused_keys(raw, val_fraction, test_fraction, folds, sampled or limited)
    raw = replace(
        raw, notes=(*raw.notes, *limit_note(limit, positions[TRAIN]), *cut_note(raw, positions[TEST]))
    )
    if limit is not None:
        if limit < 1:
            raise ValueError(f"limit is {limit}; it must be at least 1 (null keeps all training samples)")
        positions[TRAIN] = stratified_sample(raw, positions[TRAIN], limit, split_seed)
    raw = replace(raw, notes=(*raw.notes, *rare_classes(raw, marks)))
    counts = class_counts(raw, positions[TRAIN])
    # the data of an `evaluate` may lack a class
    if contract is None:
        check_weighted(counts, class_weights)
    if bootstrap is not None:
        positions[TRAIN] = bootstrapped(positions[TRAIN], bootstrap, fold)
        if contract is None:
            check_bootstrapped(raw, counts, positions[TRAIN])
        drawn, distinct = len(positions[TRAIN]), len(positions[TRAIN].unique())
        note = f"drawn: {distinct:,} of the {drawn:,} training samples, in {drawn:,} draws with replacement"
        raw = replace(raw, notes=(*raw.notes, note))
    raw, rules = _encoded(raw, positions[TRAIN])
    if contract is None:
        raw = replace(raw, notes=(*raw.notes, *copies_note(raw, positions)))
    fingerprint = fingerprint_of(raw)
    scale = target_scale(raw, positions[TRAIN], statistics)
    found = Contract.of(raw, rules, scale, positions, fingerprint)
    found.check(statistics)
    normalizing = _normalizer(raw, positions[TRAIN], split_seed, normalize, dtype, statistics)
    spec = replace(
        _spec(raw, positions, normalizing, class_weights),
        target_scale=scale.to(device) if scale else None,
        class_counts=counts,
        value_range=found.brightness if contract is None else contract.brightness,
    )
    present = {name: chosen for name, chosen in zip(SPLIT_NAMES, positions, strict=True) if len(chosen)}
    source = Source(present, raw.targets, raw.locate)
    raw = _with_targets(raw, learned(raw, scale))
    placing = _Placing(raw, normalizing, device, resident_share, workers, worker_timeout)
    train = placing.place(positions[TRAIN])
    val, test = (placing.place(chosen) if len(chosen) else None for chosen in positions[VAL:])
    return Splits(train, val, test, spec, fingerprint, found, source, unused)


def _encoded(raw: RawData, train: Tensor) -> tuple[RawData, tuple[Any, ...]]:
    """The data with columns as numbers, and the rules that the training rows gave for that."""
    if not isinstance(raw.inputs, Encoder):
        return raw, ()
    found = raw.inputs.encode(train)
    notes = (*raw.notes, *found.notes, *found.far_notes(raw.describe))
    encoded = replace(raw, feature_names=found.feature_names, notes=notes)
    _refuse_non_finite(encoded, found.inputs, "input")
    return replace(encoded, inputs=found.inputs), found.rules


def _checked(raw: RawData) -> RawData:
    """Return the data with targets (N,) int64 or (N, K) floats; the checks make no pass over images."""
    if len(raw.inputs) != len(raw.targets):
        raise DataError(
            f"there are {len(raw.inputs)} inputs but {len(raw.targets)} targets; there must be one each"
        )
    if len(raw) == 0:
        raise DataError("the dataset holds no sample")
    if isinstance(raw.inputs, Tensor) and raw.inputs.is_floating_point():
        _refuse_non_finite(raw, raw.inputs, "input")
    if raw.task == "classification":
        _check_classes(raw)
        return _with_targets(raw, raw.targets.long())
    _refuse_non_finite(raw, raw.targets, "target")
    targets = raw.targets if raw.targets.is_floating_point() else raw.targets.float()
    return _with_targets(raw, targets.view(len(raw), -1) if raw.task == "regression" else targets)


def _with_targets(raw: RawData, targets: Tensor) -> RawData:
    return replace(raw, targets=targets)


def _check_classes(raw: RawData) -> None:
    low, high = int(raw.targets.min()), int(raw.targets.max())
    if raw.targets.is_floating_point() or raw.targets.ndim != 1 or low < 0:
        raise DataError(
            f"the targets of a classification must be whole class numbers from 0 (lowest here: {low}, kind: "
            f"{raw.targets.dtype}, shape: {tuple(raw.targets.shape)}); number the classes 0, 1, …, or use "
            "dataset.task=regression"
        )
    if raw.class_names and high >= len(raw.class_names):
        raise DataError(f"class number {high} occurs, but there are only {len(raw.class_names)} class names")
    if class_numbers(raw) < 2:
        raise DataError("there is only one class; a classification needs at least two")


def _refuse_non_finite(raw: RawData, values: Tensor, what: str) -> None:
    # the sum is finite when all are, and costs no boolean copy; only when it is not, the culprit is looked
    # for
    if bool(torch.isfinite(values.sum())):
        return
    bad = (~torch.isfinite(values.reshape(len(values), -1))).nonzero()
    if not len(bad):
        return
    row, column = bad[0].tolist()
    name = f" (feature {raw.feature_names[column]!r})" if what == "input" and raw.feature_names else ""
    value = values.reshape(len(values), -1)[row, column].item()
    # the values of a file were finite
    if what == "input" and isinstance(raw.inputs, Encoder):
        raise DataError(
            f"{raw.describe(row)} has a value beyond ±3.4e38{name}, the largest of float32; divide that column, or leave it out"
        )
    raise DataError(
        f"{raw.describe(row)} has the {what} value {value}{name}; all values must be finite numbers: "
        + (
            "leave out such samples"
            if what == "target"
            else "replace them, such as by numpy.nan_to_num, or leave out such samples"
        )
    )


def _normalizer(
    raw: RawData,
    train: Tensor,
    split_seed: int,
    mode: str,
    dtype: torch.dtype,
    statistics: Mapping[str, Tensor] | None,
) -> Normalizer:
    if statistics is not None:
        _check_statistics(statistics, _sample_shape(raw.samples))
        return Normalizer.of(statistics, dtype)
    samples = raw.samples
    if isinstance(samples, Tensor):
        in_parts = samples.dtype == torch.uint8 and samples.ndim == 4
        parts = (samples[chosen] for chosen in train.split(_COPIED_AT_ONCE))
        return normalizer(parts if in_parts else samples[train], mode, dtype, raw.layout == "sequence")
    chosen = train[torch.from_numpy(hashed_order(len(train), split_seed))[:_STATISTICS_SAMPLES]]
    return normalizer(in_threads(samples.read, chosen.sort().values), mode, dtype)


def _check_statistics(statistics: Mapping[str, Tensor], sample: tuple[int, ...]) -> None:
    """Raise DataError where the mean and std of an earlier run have another shape than these samples."""
    shapes = {(sample[0], *(1 for _ in sample[1:]))} | ({sample[1:]} if len(sample) == 2 else set())
    found = [tuple(statistics[name].shape) if name in statistics else None for name in ("mean", "std")]
    if found[0] != found[1] or found[0] not in shapes:
        raise DataError(
            f"samples of shape {sample} are not what normalization.safetensors of the run has mean and std of; "
            "put the data of the run back"
        )


def _spec(raw: RawData, positions: list[Tensor], normalizing: Normalizer, class_weights: str) -> DataSpec:
    return DataSpec(
        input_shape=_sample_shape(raw.samples),
        num_classes=class_numbers(raw) if raw.task == "classification" else raw.targets.shape[1],
        task=raw.task,
        mean=normalizing.mean,
        std=normalizing.std,
        average=normalizing.average,
        class_names=raw.class_names,
        class_weights=_class_weights(raw, positions[TRAIN], class_weights),
        sizes={name: len(chosen) for name, chosen in zip(SPLIT_NAMES, positions, strict=True)},
        notes=raw.notes,
    )


def _class_weights(raw: RawData, train: Tensor, mode: str) -> Tensor | None:
    """Return N / (C · n_c) for `balanced`: every class weighs the same, and a training sample 1 on average."""
    if mode == "none":
        return None
    if mode != "balanced":
        raise ValueError(f"dataset.class_weights is {mode!r}; it must be none or balanced")
    if raw.task != "classification":
        raise DataError(
            "dataset.class_weights=balanced needs classes, but this is a regression; set it to none"
        )
    counts = torch.bincount(raw.targets[train], minlength=class_numbers(raw))
    return len(train) / (len(counts) * counts.float())


class _Placing:
    """Where the samples are kept: floats on the device, raw values on the device, or streamed."""

    def __init__(
        self,
        raw: RawData,
        normalizing: Normalizer,
        device: torch.device,
        resident_share: float,
        workers: int,
        worker_timeout: float,
    ) -> None:
        if not 0 <= resident_share <= 1:
            raise ValueError(
                f"dataset.resident_share is {resident_share}; it must be in [0, 1] (0 always streams)"
            )
        self.raw, self.device, self.workers, self.worker_timeout = raw, device, workers, worker_timeout
        self.normalize = normalizing
        values = len(raw) * torch.Size(_sample_shape(raw.samples)).numel()
        room = resident_share * free_memory(device) if resident_share else -1.0
        self.as_floats = values * normalizing.dtype.itemsize <= room
        self.as_raw = values * _item_bytes(raw.samples) <= room

    def place(self, chosen: Tensor) -> Split:
        """Return the split that holds the samples at the positions `chosen`."""
        targets = to_device(self.raw.targets[chosen], self.device)
        if not (self.as_floats or self.as_raw):
            reader = (
                _TensorReader(self.raw.samples) if isinstance(self.raw.samples, Tensor) else self.raw.samples
            )
            # samples that are in memory already are not worth a process: copying them between two costs more
            workers = 0 if isinstance(self.raw.samples, Tensor) else self.workers
            return StreamingSplit(
                reader, chosen, targets, self.normalize.to(self.device), workers, self.worker_timeout
            )
        samples, normalize = self.raw.samples, self.normalize.to(self.device)
        if not isinstance(samples, Tensor):
            samples, chosen = read_in_threads(samples, chosen, self.workers), torch.arange(len(chosen))
        if not self.as_floats:
            return ResidentSplit(to_device(samples[chosen], self.device), targets, normalize)
        return ResidentSplit(_normalized(samples, chosen, normalize, self.device), targets)


def _normalized(samples: Tensor, chosen: Tensor, normalize: Normalizer, device: torch.device) -> Tensor:
    cache = torch.empty((len(chosen), *samples.shape[1:]), dtype=normalize.dtype, device=device)
    for kept, part in zip(cache.split(_COPIED_AT_ONCE), chosen.split(_COPIED_AT_ONCE), strict=True):
        kept.copy_(normalize(samples[part].to(device)))
    return cache


class _TensorReader:
    """A `Reader` of samples in host memory (or mapped into it from a file)."""

    def __init__(self, inputs: Tensor) -> None:
        self.inputs = inputs
        self.shape = tuple(inputs.shape[1:])

    def __len__(self) -> int:
        return len(self.inputs)

    def read(self, indices: Tensor) -> Tensor:
        return self.inputs[indices]


def _objective(raw: RawData, device: torch.device, dtype: torch.dtype) -> Splits:
    """Return the dummy sample of a model that is itself the objective: train is also val, there is no test."""
    assert isinstance(raw.samples, Tensor)
    only = ResidentSplit(to_device(raw.samples.to(dtype), device), to_device(raw.targets.float(), device))
    features = raw.samples.shape[1]
    spec = DataSpec(
        input_shape=(features,),
        num_classes=1,
        task="objective",
        mean=torch.zeros(features),
        std=torch.ones(features),
        sizes={"train": len(raw), "val": len(raw), "test": 0},
    )
    unused = unused_keys(raw, 0.0, 0.0, None, False)
    return Splits(only, only, None, spec, fingerprint_of(raw), unused=unused)


def free_memory(device: torch.device) -> float:
    """Return the bytes that the device can still allocate: a GPU's free memory, or the host's within its cgroup."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return min(_available_in_host(), _left_in_group(Path("/sys/fs/cgroup")))


def _available_in_host() -> float:
    try:
        with open("/proc/meminfo") as lines:
            return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 4.0 * 2**30  # not a Linux: a modest guess, raised by dataset.resident_share


def _left_in_group(folder: Path) -> float:
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return float("inf")
    return float("inf") if limit == "max" else max(float(limit) - float(used), 0.0)


def fingerprint_of(raw: RawData) -> str:
    """Return 16 hexadecimal digits of a hash of shape, task, all targets, a sample of the inputs and what was skipped."""
    digest = hashlib.sha256()
    shape = (len(raw), *_sample_shape(raw.samples))
    digest.update(f"{raw.task} {shape} {_item_bytes(raw.samples)} {raw.class_names}".encode())
    if raw.skipped:
        digest.update(repr(sorted(raw.skipped)).encode())
    targets = raw.targets.float() if raw.targets.is_floating_point() else raw.targets
    digest.update(targets.cpu().contiguous().numpy().tobytes())
    # samples spread evenly over the data; of files only a few, since each must be decoded
    count = 64 if isinstance(raw.samples, Tensor) else 4
    chosen = torch.linspace(0, len(raw) - 1, min(count, len(raw))).long()
    inputs = raw.samples[chosen] if isinstance(raw.samples, Tensor) else raw.samples.read(chosen)
    digest.update(inputs.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _sample_shape(inputs: Tensor | Reader) -> tuple[int, ...]:
    return tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else inputs.shape


def _item_bytes(inputs: Tensor | Reader) -> int:
    return inputs.element_size() if isinstance(inputs, Tensor) else 1
