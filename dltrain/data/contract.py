"""What a model takes and gives, kept with the run as `data.json`, so that another file is held to it.

Columns are matched by name. What differs is refused with the difference; a level that the training split did not have
has no feature and counts as none of the known ones.

The file is long because what is written, what a stranger's file may hold and what other data are held to are one list of fields.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dltrain.data.class_names import as_known, respelled
from dltrain.data.errors import DataError, renamed, some
from dltrain.data.pixels import RESIZES, WHITE
from dltrain.data.raw import TRAIN, Encoder, RawData, Reader, class_numbers
from dltrain.data.spec import TargetScale, Task
from dltrain.data.split_names import SPLIT_NAMES
from dltrain.data.tables.rules import Rule, is_number, rule_from_json
from dltrain.strict_json import loads

if TYPE_CHECKING:
    from dltrain.data.tables.columns import Columns
    from dltrain.data.tables.read import Table

FORMAT = 1  # of the file; a reader refuses a higher one
# letters of the name of a class or column; readers of CSV take 131,072
LONGEST_NAME = 10_000
MAX_HASHED = 64_000_000  # bytes, for which SHA-256 takes about 0.1 s
MOST_SAMPLES = 2**40  # of a split
_TASKS = ("classification", "regression")  # an objective has no contract


@dataclass(frozen=True)
class Rows:
    """Rows of another file as a contract encodes them.

    inputs: (N, F) float32, not normalized; targets: (N,) int64 classes or (N, K) float32 standardized, None where they were not
    asked for; positions: (N,) rows of the table, without those that have no target or are broken; notes: what was filled or
    not known; broken: rows with a value that does not fit its column, by number from 1, and why.
    """

    inputs: Tensor
    targets: Tensor | None
    positions: Tensor
    notes: tuple[str, ...]
    broken: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Contract:
    """Task, columns, targets, sizes and fingerprint of the data that a run was trained on."""

    task: Task
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    columns: tuple[Rule, ...]  # of a table; empty for other data
    targets: tuple[Rule, ...]
    target_mean: tuple[float, ...]  # empty where the targets were not standardized
    target_std: tuple[float, ...]
    sizes: dict[str, int]
    fingerprint: str
    # of the model: classes or target columns; 0 in a file of a version that did not write it
    outputs: int = 0
    # how images of another size are brought to that of the model, a word of `dltrain.data.pixels`; empty: they are refused
    resize: str = ""
    # value that is white in image files of 16 bits
    full_scale: int = WHITE
    # images are uint8, from 0 to 255
    in_bytes: bool = False
    # lowest and highest value of training images of floats; empty for other data, and in a file of a version that did not write it
    value_range: tuple[float, ...] = ()
    # SHA-256 of all samples and targets; empty where they are too many, or are read from files one by one
    content: str = ""
    # columns of a table that are not learned from, and why
    left_out: dict[str, str] = field(default_factory=dict)
    # samples that were left out since they cannot be used, and why
    skipped: dict[str, str] = field(default_factory=dict)
    # digest of names and sizes of image files; empty for other data, and in a file of a version that did not write it
    files: str = ""

    @classmethod
    def of(
        cls,
        raw: RawData,
        rules: tuple[Rule, ...],
        scale: TargetScale | None,
        positions: Sequence[Tensor],
        fingerprint: str,
    ) -> Contract:
        """Return the contract of data that are encoded and split. Raises DataError for names that no table of the run could hold."""
        _check_names(raw.class_names, "class")
        _check_names([rule.name for rule in (*rules, *raw.target_rules)], "column")
        samples = raw.samples
        shape = samples.shape[1:] if isinstance(samples, Tensor) else samples.shape
        return cls(
            task=raw.task,
            input_shape=tuple(shape),
            class_names=tuple(raw.class_names),
            columns=rules,
            targets=raw.target_rules,
            target_mean=tuple(scale.mean.tolist()) if scale else (),
            target_std=tuple(scale.std.tolist()) if scale else (),
            sizes={name: len(chosen) for name, chosen in zip(SPLIT_NAMES, positions, strict=True)},
            fingerprint=fingerprint,
            outputs=class_numbers(raw) if raw.task == "classification" else raw.targets.shape[1],
            resize=raw.resize,
            full_scale=raw.full_scale,
            in_bytes=not isinstance(samples, Tensor) or samples.dtype == torch.uint8,
            value_range=_value_range(samples, positions[TRAIN]),
            content=content_of(raw),
            left_out=dict(raw.left_out),
            skipped=dict(raw.skipped),
            files=raw.files,
        )

    @property
    def target_scale(self) -> TargetScale | None:
        if not self.target_mean:
            return None
        return TargetScale(
            *(torch.tensor(v, dtype=torch.float64) for v in (self.target_mean, self.target_std))
        )

    @property
    def brightness(self) -> tuple[float, float]:
        """Return the raw values of black and white: 0 and 1 for bytes, lowest and highest for images of floats."""
        low, high = self.value_range or (0.0, 1.0)
        return low, high

    # as a file ---------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Raise DataError for text that is no contract, or one of a later version."""
        try:
            content = loads(text)
            if type(version := content.pop("format")) is not int:
                raise ValueError(f"format is {version!r}"[:80])
            if version > FORMAT:
                raise DataError(
                    f"data.json has format {version}, and this dltrain reads up to {FORMAT}; use a newer dltrain"
                )
            plain: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
            }
            if plain.pop("resized", False):
                # before there were other ways
                plain["resize"] = "crop"
            for key in ("columns", "targets"):
                plain[key] = tuple(map(rule_from_json, plain[key]))
            contract = cls(**plain)
            _check(contract)
            return contract
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"data.json is damaged ({error}); train again") from error

    def missing_words(self, more: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the words for a missing value that the user gave, those of the run and `more`."""
        rules = (*self.columns, *self.targets)
        return tuple(sorted({*more, *(word for rule in rules for word in rule.format.missing_words)}))

    @property
    def not_missing(self) -> tuple[str, ...]:
        """Return the words that are values by the user, though they stand for a missing value by default."""
        rules = (*self.columns, *self.targets)
        return tuple(sorted({word for rule in rules for word in rule.format.not_missing}))

    def hold(self, raw: RawData) -> RawData:
        """Return other data with classes numbered as in the run, by name; DataError for what differs."""
        if raw.task != self.task:
            raise DataError(f"the data are a {raw.task}, and the run was trained on a {self.task}")
        self._hold_images(raw)
        if raw.task != "classification" or raw.class_names == self.class_names:
            return raw
        renamed = as_known(raw.class_names, self.class_names)
        called = [renamed.get(name, name) for name in raw.class_names]
        unknown = [name for name in called if name not in self.class_names]
        if unknown or not raw.class_names:
            raise DataError(
                f"the data have the class {some(map(repr, unknown))}, which is none of those of the run: "
                f"{some(map(repr, self.class_names), 8)}; correct the labels, or leave these samples out"
            )
        to = torch.tensor([self.class_names.index(name) for name in called])
        told = (f"classes  {respelled(renamed)}, as in the training",) if renamed else ()
        notes = (*raw.notes, *told)
        return replace(raw, targets=to[raw.targets.long()], class_names=self.class_names, notes=notes)

    def _hold_images(self, raw: RawData) -> None:
        """Raise DataError for images of another shape than those of the run."""
        shape = None if isinstance(raw.inputs, Encoder) else tuple(raw.inputs.shape[-3:])
        if shape is None or len(self.input_shape) != 3 or len(shape) != 3 or shape == tuple(self.input_shape):
            return
        (colors, height, width), (wanted, *size) = shape, self.input_shape
        if colors != wanted:
            raise DataError(f"the images have {colors} channels, and the model takes {wanted}")
        raise DataError(
            f"the images are {width} wide and {height} high, and the model takes {size[1]} and {size[0]}; "
            f"crop or scale them, or for files: dataset.image_size=[{size[0]},{size[1]}]"
        )

    # another file ------------------------------------------------------------------------------------------------

    def encode(
        self, path: str | Path, targets: bool = True, delimiter: str = "auto", decimal: str = "auto"
    ) -> Rows:
        """Encode the rows of another table by these rules: for a table's contract only.

        Raises DataError for columns that are missing, values that do not fit their column, and unknown classes.
        """
        from dltrain.data.tables.read import read

        return self.encode_table(read(Path(os.path.expanduser(path)), delimiter), targets, decimal)

    def encode_table(
        self,
        table: Table,
        targets: bool = True,
        decimal: str = "auto",
        tolerant: bool = False,
        missing_words: Sequence[str] = (),
        date_format: str = "auto",
    ) -> Rows:
        """Encode the rows of a table that is in memory, as `encode` does.

        tolerant: leave out rows with a value that does not fit its column, unless that would be all. decimal, missing_words and
        date_format: as the keys of `dataset=csv`, for this table.
        """
        from dltrain.data.tables.columns import Columns, known_marks
        from dltrain.data.tables.encode import encode, fill_notes
        from dltrain.data.tables.reading import Reading
        from dltrain.data.tables.scale import far_notes

        wanted = [*self.columns, *(self.targets if targets else ())]
        table = table.named_as([rule.name for rule in wanted])
        check_columns(table.columns, [rule.name for rule in wanted], str(table.path))
        words, known = self.missing_words(missing_words), self._known_words(missing_words)
        classes = (*self.not_missing, *known)
        reading = Reading(words, decimal, date_format, marks=known_marks(wanted), not_missing=classes)
        names = [rule.name for rule in wanted]
        columns = Columns(table, reading, names, tolerant=tolerant)
        read_columns = tuple(columns.parse(rule.name, rule.format) for rule in self.columns)
        if columns.broken and len(columns.broken) == len(table):
            return self.encode_table(table, targets, decimal, False, missing_words, date_format)
        values, kept = self._targets(columns) if targets else (None, torch.arange(len(table)))
        sound = ~torch.isin(kept, torch.tensor(list(columns.broken), dtype=torch.int64))
        values, kept = values if values is None else values[sound], kept[sound]
        if len(kept) < len(table):
            read_columns = tuple(column.take(kept.numpy()) for column in read_columns)
        inputs, unseen = encode(read_columns, self.columns)
        numbers = table.numbers[kept.numpy()]
        far = far_notes(read_columns, self.columns, lambda row: f"row {numbers[row]} of {table.path.name}")
        kept_words = [
            f"words    {some(map(repr, known))}: a value of the training in columns of text"
        ] * bool(known)
        notes = (*columns.notes, *kept_words, *fill_notes(read_columns, self.columns), *unseen, *far)
        broken = ((int(table.numbers[row]), reason) for row, reason in sorted(columns.broken.items()))
        return Rows(torch.from_numpy(inputs), values, kept, notes, (*table.broken, *broken))

    def _known_words(self, words: Sequence[str]) -> list[str]:
        """Return the words that are levels or classes of the training: what a file calls missing does not recode them."""
        rules = [rule for rule in self.columns if rule.format.kind == "category"]
        known = {name.strip().lower() for rule in rules for name in rule.levels}
        known |= {name.strip().lower() for name in self.class_names}
        return [word for word in words if word.strip().lower() in known]

    def decimal_marks(
        self, table: Table, names: Sequence[str], decimal: str = "auto", missing_words: Sequence[str] = ()
    ) -> dict[str, str]:
        """Return the decimal marks of columns of another table, whether they are in the contract or not; empty where nothing tells."""
        from dltrain.data.tables.columns import Columns, known_marks
        from dltrain.data.tables.reading import Reading

        rules = [rule for rule in self.columns if rule.format.decimal and rule.name in table.columns]
        reading = Reading(self.missing_words(missing_words), decimal, marks=known_marks(rules))
        columns = Columns(table, reading, [rule.name for rule in rules])
        known = {rule.name for rule in rules}
        return {
            name: columns.decimal(name) if name in known else columns.decimal_of_other(name) for name in names
        }

    def _targets(self, columns: Columns) -> tuple[Tensor, Tensor]:
        """Return the targets of the rows that have them, and these rows."""
        import numpy as np

        from dltrain.data.tables.encode import coded_targets

        parsed = [columns.parse(rule.name, rule.format) for rule in self.targets]
        kept = torch.from_numpy(np.flatnonzero(~np.any([column.missing for column in parsed], axis=0)))
        if self.task == "classification":
            words = columns.reading.missing_words
            codes = coded_targets(parsed[0], self.class_names, columns.table.row, words)
            return torch.from_numpy(codes)[kept], kept
        values = torch.from_numpy(np.stack([column.values for column in parsed], 1))[kept]
        scale = self.target_scale
        return (values.float() if scale is None else scale.standardize(values)), kept

    # the statistics of a run -------------------------------------------------------------------------------------

    def code(self) -> Tensor:
        """Return a hash of names, kinds, levels and classes as one int64: it differs where columns are encoded differently."""
        facts = [
            [rule.name, rule.format.kind, rule.levels, rule.parts, rule.indicator] for rule in self.columns
        ]
        digest = hashlib.sha256(json.dumps([facts, self.class_names]).encode()).digest()
        return torch.tensor([int.from_bytes(digest[:8], "big", signed=True)])

    def check(
        self,
        statistics: Mapping[str, Tensor] | None,
        what: str = "the table",
        cure: str = "put its data back",
    ) -> None:
        """Raise DataError where an earlier run, whose statistics these are, encoded its columns or targets differently.

        what: that has the contract; cure: what the message proposes
        """
        if statistics is None:
            return
        if not _is_same(statistics.get("target_mean"), self.target_mean):
            raise DataError(f"{what} has another mean of the targets than the run was trained on; {cure}")
        if not _is_same(statistics.get("target_std"), self.target_std):
            raise DataError(
                f"{what} has another deviation of the targets than the run was trained on; {cure}"
            )
        if (code := statistics.get("columns")) is not None:
            if code.shape != (1,) or int(code) != int(self.code()):
                raise DataError(
                    f"{what} has other columns, levels or classes than the run was trained on; {cure}"
                )
            return
        # a run of a version that knew numbers and categories only
        new = [
            rule.name
            for rule in self.columns
            if rule.format.kind in ("date", "boolean") or rule.indicator or any(rule.centers)
        ]
        if new:
            raise DataError(
                f"the run was made by an earlier dltrain, which encoded {some(map(repr, new))} differently; train it again"
            )


def target_names(contract: Contract | None) -> list[str]:
    """Return the names of the target columns; none for data without columns."""
    return [rule.name for rule in contract.targets] if contract is not None else []


def _is_same(known: Tensor | None, given: tuple[float, ...]) -> bool:
    """Return whether the scale of targets is the saved one; a run of a version that saved none has any."""
    if known is None:
        return True
    values = known.double().cpu()
    return values.shape == (len(given),) and torch.allclose(values, torch.tensor(given).double(), rtol=1e-6)


def _check_names(names: Sequence[str], kind: str) -> None:
    for name in names:
        if len(name) > LONGEST_NAME:
            raise DataError(
                f"the name of a {kind} has {len(name):,} letters, {name[:20]!r}…; at most {LONGEST_NAME:,} can be recorded: shorten it"
            )


def _value_range(samples: Tensor | Reader, train: Tensor) -> tuple[float, ...]:
    if not isinstance(samples, Tensor) or samples.dtype == torch.uint8 or samples.ndim != 4 or not len(train):
        return ()
    ends = [samples[chosen].aminmax() for chosen in train.split(4096)]
    return float(min(end.min for end in ends)), float(max(end.max for end in ends))


def content_of(raw: RawData) -> str:
    """Return the SHA-256 of samples and targets, or an empty text for more than `MAX_HASHED` bytes and for files."""
    samples = raw.samples
    if not isinstance(samples, Tensor) or samples.nbytes + raw.targets.nbytes > MAX_HASHED:
        return ""
    digest = hashlib.sha256()
    for tensor in (samples, raw.targets):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check(contract: Contract) -> None:
    """Raise ValueError for a contract that no run wrote: the file may come from elsewhere."""
    if not _has_types(contract):
        raise ValueError("a value has another type than a run writes")
    _check_columns(contract)
    _check_outputs(contract)


def _has_types(contract: Contract) -> bool:
    sizes, reasons = contract.sizes, (contract.skipped, contract.left_out)
    numbers = (contract.target_mean, contract.target_std, contract.value_range)
    return (
        contract.task in _TASKS
        and all(isinstance(found, tuple) for found in (contract.input_shape, contract.class_names, *numbers))
        and all(type(size) is int and size > 0 for size in contract.input_shape)
        and type(contract.outputs) is int
        and contract.outputs >= 0
        and all(isinstance(name, str) for name in contract.class_names)
        and contract.resize in ("", *RESIZES)
        and type(contract.full_scale) is int
        and 1 <= contract.full_scale <= WHITE
        and isinstance(contract.in_bytes, bool)
        and all(is_number(number) for found in numbers for number in found)
        and len(contract.target_mean) == len(contract.target_std)
        and len(contract.value_range) in (0, 2)
        and all(isinstance(value, dict) for value in (*reasons, sizes))
        and all(isinstance(value, str) for found in reasons for value in found.values())
        and all(type(sizes.get(name)) is int and 0 <= sizes[name] <= MOST_SAMPLES for name in SPLIT_NAMES)
        and all(isinstance(text, str) for text in (contract.content, contract.fingerprint, contract.files))
    )


def _check_columns(contract: Contract) -> None:
    """Raise ValueError where the columns do not give the inputs of the model."""
    if not contract.columns:
        return
    features = sum(len(rule.features) for rule in contract.columns)
    if contract.input_shape != (features,):
        shape = "x".join(map(str, contract.input_shape))
        raise ValueError(f"its columns give {features} features, and the model takes {shape}")
    for rule in contract.columns:
        if rule.fill is None and rule.format.kind != "category":
            raise ValueError(f"column {rule.name!r} has no fill")


def _check_outputs(contract: Contract) -> None:
    """Raise ValueError where classes or targets are not those of the outputs; a file of an earlier version has no number of outputs."""
    of_classes = contract.task == "classification"
    kinds = ("category",) if of_classes else ("number", "boolean")
    if of_classes and contract.targets and not contract.class_names:
        raise ValueError("it has no class names")
    for rule in contract.targets:
        if rule.format.kind not in kinds:
            raise ValueError(f"the target {rule.name!r} of a {contract.task} is a {rule.format.kind}")
    given: dict[str, Sequence[object]] = (
        {"class names": contract.class_names} if of_classes else {"targets": contract.targets}
    )
    given["values of target_mean"] = contract.target_mean
    for what, values in given.items():
        if values and contract.outputs and len(values) != contract.outputs:
            raise ValueError(f"it has {len(values)} {what} for {contract.outputs} outputs")


def check_columns(found: Mapping[str, Any], wanted: Sequence[str], path: str) -> None:
    """Raise DataError for columns that the file lacks, with those that it has instead."""
    missing = [name for name in wanted if name not in found]
    if missing:
        from dltrain.data.tables.header import delimiter_cure

        if cure := delimiter_cure(found, missing[0], Path(path)):
            raise DataError(f"{path} was read as a single column, {next(iter(found))!r}; {cure}")
        others = [name for name in found if name not in wanted]
        instead = f"; it has {some(map(repr, others))} besides" if others else ""
        raise DataError(
            f"{path} lacks {some(map(repr, missing))} of the columns that the model was trained on"
            f"{renamed(missing, others)}{instead}; columns are matched by name, so rename or add them"
        )
