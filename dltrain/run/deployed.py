"""A trained model with its preprocessing inside: raw columns, bytes or floats go in, classes or real units come out."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dltrain.data.class_names import TRUTHS, same_truth
from dltrain.data.tables.columns import Column
from dltrain.data.tables.durations import SECONDS
from dltrain.data.tables.rules import Rule
from dltrain.data.tables.text import MISSING, MISSING_AMONG_NUMBERS
from dltrain.losses import Softmaxed, to_softmax
from dltrain.run.prediction import Predictor
from dltrain.text import utf8

_DAY = 86400.0  # seconds
# days from 1 March of the year 0 to 1 January 1970, and the days of 4 centuries
_EPOCH, _ERA = 719468, 146097
# longer words for a missing value are known in some cases of their letters only: each more letter doubles the cases
_LETTERS = 8
# the same for very many words, or columns of texts; the known words have at most four
_FEW_LETTERS, _MANY = 4, 4_000


@dataclass(frozen=True)
class ColumnInput:
    """A column of a table as an input of an exported model.

    kind: `number` (float64, NaN where missing; true and false are 1 and 0), `date` (float64 seconds since 1970-01-01, NaN where
    missing) or `text`. codes: of a text its numbers: one for each level, and one more for the words for a missing value in all
    their cases, as ONNX compares texts letter by letter.
    """

    name: str
    kind: Literal["number", "date", "text"]
    codes: dict[str, int]

    @classmethod
    def of(cls, rule: Rule, words: Iterable[str], letters: int = _LETTERS) -> ColumnInput:
        """Return the input of a column; `words` are those for a missing value, in all cases of up to so many letters."""
        if rule.format.kind == "date":
            return cls(rule.name, "date", {})
        if not is_text(rule):
            return cls(rule.name, "number", {})
        # as the encoding of a table has them
        same = same_truth([form for word in TRUTHS for form in cases(word, letters)], rule.levels)
        truths = {form: rule.levels.index(level) for form, level in same.items()}
        missing = {form: len(rule.levels) for word in words for form in cases(word, letters)}
        levels = {utf8(name).decode(): i for i, name in enumerate(rule.levels)}
        return cls(rule.name, "text", truths | missing | levels)

    def values(self, column: Column) -> list[str] | NDArray[np.float64]:
        """Return the values of a column that was read as this input takes them."""
        if self.kind == "date":
            times = column.values.astype("datetime64[us]")
            seconds: NDArray[np.float64] = times.astype(np.int64) / 1e6
            return np.where(np.isnat(times), np.nan, seconds)
        if self.kind == "text":
            levels = [*column.levels, ""]
            return [levels[code] for code in column.values.tolist()]
        if column.format.kind != "category":
            return column.values.astype(np.float64)
        numbers = np.array([*map(_number, column.levels), np.nan])
        return numbers[column.values]


def cases(word: str, letters: int = _LETTERS) -> set[str]:
    """Return a word in lower and upper case, letter by letter; one of more than `letters` letters in the usual forms.

    >>> sorted(cases("k.A."))
    ['K.A.', 'K.a.', 'k.A.', 'k.a.']
    """
    if is_long(word, letters):
        return {word, word.lower(), word.upper(), word.title(), word.capitalize()}
    return {"".join(forms) for forms in product(*({c.lower(), c.upper()} for c in word))}


def is_long(word: str, letters: int = _LETTERS) -> bool:
    """Return whether not all cases of a word are known; what has two cases counts, such as Ⓐ and Ⅷ, which are no letters."""
    return sum(c.lower() != c.upper() for c in word) > letters


def is_text(rule: Rule) -> bool:
    """Return whether a column holds texts; a category may also consist of numbers."""
    return rule.format.kind == "category" and not (rule.format.decimal and rule.levels)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        # equal to no level
        return float("inf")


class Features(nn.Module):
    """Encode columns as `dltrain.data.tables.encode` does: numbers and dates in float64, the features (N, F) in float32."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        super().__init__()
        self.rules = tuple(rules)

    def forward(self, columns: Sequence[Tensor]) -> Tensor:
        features: list[Tensor] = []
        for rule, values in zip(self.rules, columns, strict=True):
            features += self.features(rule, values)
        return torch.cat(features, 1)

    def features(self, rule: Rule, values: Tensor) -> list[Tensor]:
        """Return the features of one column, each (N, 1) or (N, levels)."""
        values = values[:, None]
        if is_text(rule):
            found = [(values == torch.arange(len(rule.levels))).float()]
            return found + [(values == len(rule.levels)).float()] * rule.indicator
        missing = torch.isnan(values)
        if rule.format.kind in ("number", "category"):
            for number in rule.format.missing_numbers:
                missing = missing | (values == _exact(number))
        if rule.format.kind == "category":
            levels = torch.tensor([float(level) for level in rule.levels], dtype=torch.float64)
            found = [(values == levels).float()]
        else:
            filled = torch.where(missing, _exact(_fill(rule)), values)
            parts = [part_of(filled, part) if part else filled for part in rule.parts]
            found = [
                (part - _exact(center) if center else part).float()
                for part, center in zip(parts, rule.centers, strict=True)
            ]
        return found + [missing.float()] * rule.indicator


def _exact(number: float) -> Tensor:
    """Return a number as a tensor: ONNX has numbers of Python in float32."""
    return torch.tensor(number, dtype=torch.float64)


def _fill(rule: Rule) -> float:
    if rule.format.kind != "date":
        return float(rule.fill or 0.0)
    return float(np.datetime64(str(rule.fill), "us").astype(np.int64)) / 1e6


def part_of(seconds: Tensor, part: str) -> Tensor:
    """Return a part of times as `dltrain.data.tables.encode.part_of` does; the calendar by Hinnant's `civil_from_days`."""
    days = torch.floor(seconds / _DAY)
    if part == "hour":
        return (seconds - days * _DAY) / 3600.0
    whole = days.long()
    if part == "weekday":
        # days are positive for the remainder: years from 0 on
        return ((whole + 3 + 7 * _EPOCH) % 7).double()
    day = whole + _EPOCH
    era = _quotient(day, _ERA)
    of_era = day - era * _ERA
    year = _quotient(
        of_era - _quotient(of_era, 1460) + _quotient(of_era, 36524) - _quotient(of_era, 146096), 365
    )
    of_year = of_era - (365 * year + _quotient(year, 4) - _quotient(year, 100))
    month = _quotient(5 * of_year + 2, 153)
    after_new_year = month >= 10
    if part == "month":
        return torch.where(after_new_year, month - 9, month + 3).double()
    year = year + 400 * era + after_new_year.long()
    start, end = _first_day(year), _first_day(year + 1)
    length = (end - start).double() * _DAY
    return year.double() + (seconds - start.double() * _DAY) / length


def _quotient(numerator: Tensor, denominator: int) -> Tensor:
    """Divide whole numbers that are not negative."""
    return torch.div(numerator, denominator, rounding_mode="trunc")


def _first_day(year: Tensor) -> Tensor:
    """Return the days from 1970-01-01 to the first day of a year."""
    before = year - 1
    leaps = _quotient(before, 4) - _quotient(before, 100) + _quotient(before, 400)
    return 365 * before + leaps - 719162


class Deployed(nn.Module):
    """A model with its preprocessing: columns, or one tensor of samples, to named outputs.

    Of a classification the outputs are class (N,) int64, probabilities (N, C) and logits (N, C) float32, the outputs of the
    model; of a regression each quantity (N,) float64 in real units.
    """

    shift: Tensor
    scale: Tensor
    target_mean: Tensor | None
    target_std: Tensor | None

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        contract = predictor.known_contract()
        self.contract = contract
        # no module: its tensors are those of the training
        loss, _ = predictor.known_loss
        self.of_softmax = not isinstance(loss, Softmaxed)
        self.to_softmax = partial(to_softmax, loss)
        # as the reader has them
        given = {word.strip() for word in contract.missing_words()}
        every = [*sorted(given), *sorted(MISSING - {word.lower() for word in given})]
        self.values = {word.strip().lower() for word in contract.not_missing}
        self.missing = [word for word in every if word.lower() not in self.values]
        forms = len(self.missing) * sum(map(is_text, contract.columns))
        self.letters = _LETTERS if forms <= _MANY else _FEW_LETTERS
        self.columns = [ColumnInput.of(rule, self.missing, self.letters) for rule in contract.columns]
        self.features = Features(contract.columns) if contract.columns else None
        # another layout has no use in the exported graph, where it costs operations
        self.model = copy.deepcopy(predictor.model).cpu().to(memory_format=torch.contiguous_format)
        mean, std = predictor.normalize.mean.cpu(), predictor.normalize.std.cpu()
        # as in Normalizer
        self.register_buffer("shift", -mean / std)
        self.register_buffer("scale", 1.0 / (255.0 * std) if self.takes_bytes else 1.0 / std)
        scale = contract.target_scale
        self.register_buffer("target_mean", None if scale is None else scale.mean)
        self.register_buffer("target_std", None if scale is None else scale.std)
        self.requires_grad_(False)
        self.eval()

    @property
    def takes_bytes(self) -> bool:
        return self.contract.in_bytes and len(self.contract.input_shape) == 3

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        raw = inputs[0].float() if self.features is None else self.features(inputs)
        outputs = self.model(torch.addcmul(self.shift, raw, self.scale)).float()
        if self.contract.task == "classification":
            logits = self.to_softmax(outputs)
            return logits.argmax(-1), logits.softmax(-1), outputs
        values = outputs.double()
        if self.target_mean is not None and self.target_std is not None:
            values = values * self.target_std + self.target_mean
        return values.unbind(1)

    @property
    def input_names(self) -> list[str]:
        if self.columns:
            return [column.name for column in self.columns]
        return ["images" if len(self.contract.input_shape) == 3 else "inputs"]

    @property
    def output_names(self) -> list[str]:
        """Return the names of the outputs, with `_` appended where a column has the same name."""
        if self.contract.task == "classification":
            names = ["label", "probabilities", "logits"]
        else:
            names = [rule.name for rule in self.contract.targets] or [
                f"y{i}" for i in range(self.contract.outputs)
            ]
        taken = set(self.input_names)
        return [name + "_" * (name in taken) for name in names]

    def example(self) -> tuple[Tensor, ...]:
        """Return two samples of zeros, by which the operations are recorded."""
        if self.columns:
            kinds = [torch.int64 if column.kind == "text" else torch.float64 for column in self.columns]
            return tuple(torch.zeros(2, dtype=kind) for kind in kinds)
        kind = torch.uint8 if self.takes_bytes else torch.float32
        return (torch.zeros(2, *self.contract.input_shape, dtype=kind),)

    def odd_texts(self) -> list[str]:
        """Return texts that a column of text may hold: words for a missing value in several cases, and one that is no level."""
        forms: tuple[Callable[[str], str], ...] = (str, str.lower, str.upper, str.title)
        words = (*self.missing, *TRUTHS)
        return [*dict.fromkeys(form(word) for word in words for form in forms), "no level of these"]

    def facts(self) -> dict[str, Any]:
        """Return what a loader needs, as plain data."""
        contract = self.contract
        booleans = [rule.name for rule in contract.columns if rule.format.kind == "boolean"]
        infinite = {str(n) for rule in contract.columns for n in rule.format.missing_numbers if math.isinf(n)}
        return {
            "task": contract.task,
            "columns": [[column.name, column.kind, column.codes] for column in self.columns],
            "missing": [word.lower() for word in self.missing],
            "missing_among_numbers": sorted(MISSING_AMONG_NUMBERS | self.values | infinite),
            "booleans": booleans,
            "truths": {word: int(truth) for word, truth in TRUTHS.items()} if booleans else {},
            # seconds of a unit of theirs
            "durations": {
                rule.name: SECONDS[rule.format.unit]
                for rule in contract.columns
                if rule.format.unit in SECONDS
            },
            "shape": [] if self.columns else list(contract.input_shape),
            "bytes": self.takes_bytes,
            "outputs": self.output_names,
            # a file format may lack letters that names of files have
            "classes": [utf8(name).decode() for name in contract.class_names] or list(range(contract.outputs))
            if contract.task == "classification"
            else [],
        }
