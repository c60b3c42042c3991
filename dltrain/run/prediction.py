"""Predictions of trained models for other data: class names with probabilities, or quantities in real units."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dltrain.config.door import Door
from dltrain.config.schema import Config
from dltrain.data.contract import Contract
from dltrain.data.normalization import Normalizer
from dltrain.data.spec import DataSpec
from dltrain.errors import DataProblem, UserError, typed
from dltrain.losses import Softmaxed, combine, to_softmax
from dltrain.metrics.thresholds import Threshold
from dltrain.run.build import build, build_augmentation
from dltrain.run.data import data_problems
from dltrain.run.draws import Draws, Passes
from dltrain.run.hosting import without_autocast
from dltrain.run.inputs import Given, array_of, finite, rows_of, table_of
from dltrain.run.layer_use import former_use
from dltrain.run.machine import choose_device, choose_precision
from dltrain.run.plan import choose_batch_size, evaluation_batch_size
from dltrain.run.samples import Broken, Pictures, Samples
from dltrain.run.scale import FLOATS, Scale, check_values
from dltrain.run.table import Array, Table
from dltrain.run.weights import best_weights, load_best, load_weights
from dltrain.storage.run_folder import checked_statistics, read_contract
from dltrain.training.forward import keep_head_in_float32
from dltrain.weight_layers import Use, note_use

# notes on what the training has a rule for; all others are warnings
_USUAL = ("missing", "unused")


@dataclass(frozen=True, repr=False)
class Predictions:
    """Predictions for N samples.

    outputs: (N, K), what the model gives: logits, or quantities as it learned them (standardized). where: (N,) rows counted
    from 1, or files. notes: what was filled, not used, and levels that the training did not have. broken: what was left out.
    truth: of a split of the training data the labels (N,), or the quantities (N, K) in real units; else None. threshold: by
    which one of two classes is predicted; None for the most probable one. loss: what was minimized, whose probabilities
    these are; None for the softmax of the outputs.
    """

    outputs: Array
    contract: Contract
    where: Array
    notes: tuple[str, ...] = ()
    broken: tuple[Broken, ...] = ()
    truth: Array | None = None
    threshold: Threshold | None = None
    loss: object = None

    def __len__(self) -> int:
        return len(self.outputs)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Return the probability (N, C) of each class. Raises UserError for quantities."""
        self._check("probabilities", "classification", "values")
        probabilities: NDArray[np.float64] = self._logits.double().softmax(-1).numpy()
        return probabilities

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """Return the number (N,) of the predicted class: the most probable one, or by the threshold. Raises UserError for quantities."""
        self._check("classes", "classification", "values")
        if self.threshold is not None:
            decided: NDArray[np.int64] = self.threshold.decide(self._logits).numpy()
            return decided
        classes: NDArray[np.int64] = self._logits.argmax(-1).numpy()
        return classes

    @cached_property
    def _logits(self) -> Tensor:
        """The logits (N, C) whose softmax are the probabilities, as `evaluate` has them."""
        return to_softmax(self.loss, torch.from_numpy(self.outputs))

    def decided(self, threshold: Threshold) -> Predictions:
        """Return the predictions with the labels of a threshold."""
        return replace(self, threshold=threshold, notes=(*self.notes, f"threshold {threshold}"))

    @cached_property
    def labels(self) -> Array:
        """Name (N,) of the predicted class, its number where classes have no names. Raises UserError for quantities."""
        self._check("labels", "classification", "values")
        return np.array(self.class_names)[self.classes]

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """Return the quantities (N, K) in real units. Raises UserError for classes."""
        self._check("values", "regression", "labels or .probabilities")
        outputs = torch.from_numpy(self.outputs).double()
        scale = self.contract.target_scale
        values: NDArray[np.float64] = (outputs if scale is None else scale.to_units(outputs)).numpy()
        return values

    @property
    def class_names(self) -> tuple[Any, ...]:
        return self.contract.class_names or tuple(range(self.outputs.shape[1]))

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the quantities."""
        given = tuple(rule.name for rule in self.contract.targets)
        return given or tuple(f"y{i}" for i in range(self.outputs.shape[1]))

    @cached_property
    def table(self) -> Table:
        """Return the label and the probability of each class, or each quantity, as columns; before them the truth, if known."""
        if self.contract.task == "regression":
            values = dict(zip(self.names, self.values.T, strict=True))
            truth = {} if self.truth is None else dict(zip(self.names, self.truth.T, strict=True))
            return Table({f"truth({name})": column for name, column in truth.items()} | values)
        columns: dict[str, Array] = {
            f"p({name})": column for name, column in zip(self.class_names, self.probabilities.T, strict=True)
        }
        known: dict[str, Array] = {} if self.truth is None else {"truth": self.truth}
        return Table({**known, "label": self.labels, **columns})

    def _check(self, name: str, task: str, instead: str) -> None:
        if self.contract.task != task:
            raise UserError(
                f"`{name}` belongs to a {task}, and the run is a {self.contract.task}: use .{instead}"
            )

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


@dataclass(frozen=True)
class Predictor:
    """The best model of a run, on its device in evaluation mode, with what makes its inputs.

    batch_size: that of the run's evaluations. With it, the same rows have the outputs of `evaluate` to the last bit.
    """

    model: nn.Module
    contract: Contract | None  # None for an objective, and for a run of a version that wrote none
    normalize: Normalizer
    device: torch.device
    precision: str
    batch_size: int
    config: Config
    door: Door
    path: Path

    def __call__(self, data: Any, batch_size: int | None = None, tolerant: bool = False) -> Predictions:
        """Predict for new samples: the path of a file or folder, or data in memory.

        tolerant: leave out samples that are broken. Raises DataProblem, with the difference, for data that do not fit the
        contract.
        """
        contract = self.known_contract()
        with data_problems():
            if isinstance(data, str | Path):
                samples = Given(str(data), tolerant=tolerant).samples(contract, self.config.dataset)
            elif contract.columns:
                samples = rows_of(table_of(data, contract), contract, tolerant=tolerant)
            else:
                samples = finite(array_of(data, contract.input_shape), "the data", tolerant)
        found = self.predict(samples, batch_size)
        check_some([found])
        for note in found.notes:
            if not note.startswith(_USUAL):
                warnings.warn(note, stacklevel=3)
        return found

    def known_contract(self) -> Contract:
        """Return the contract. Raises UserError for a run that has none."""
        if self.contract is None:
            raise UserError(
                "This run has no data.json: it was trained on an objective, which has no inputs, or by an earlier version.\n"
                f"For the latter, train it again: {typed('rerun', self.path)}"
            )
        return self.contract

    def predict(self, samples: Samples, batch_size: int | None = None) -> Predictions:
        """Return the predictions for samples, batch by batch; none where all samples are broken."""
        contract, size = self.known_contract(), self.checked_size(batch_size)
        outputs: list[Tensor] = []
        where: list[Array] = []
        first, passes, of_floats = 0, self.passes(), False
        scale = Scale(self.normalize.std, bool(contract.columns))
        with data_problems(), self.own_state(), passes.ready():
            for number, (inputs, names) in enumerate(samples.batches(size)):
                check_values(inputs, contract, self.normalize.mean, isinstance(samples, Pictures))
                normal = self.normalize(inputs.to(self.device))
                scale.add(normal)
                of_floats |= inputs.is_floating_point()
                indices = torch.arange(first, first := first + len(names), device=self.device)
                # copies are made by transforms that leave targets alone
                unknown = torch.zeros(len(names), dtype=torch.long, device=self.device)
                outputs.append(passes.outputs(normal, unknown, indices, number).cpu())
                where.append(names)
        if not outputs:
            kind: Any = object if isinstance(samples, Pictures) else np.int64
            none = np.empty((0, contract.outputs), np.float32)
            return Predictions(none, contract, np.empty(0, kind), samples.notes, tuple(samples.broken))
        names = np.concatenate(where)
        found = self.predictions(torch.cat(outputs, 1), names)
        of_floats &= contract.in_bytes and len(contract.input_shape) == 3
        notes = (*samples.notes, *(FLOATS,) * of_floats, *scale.notes, *found.notes)
        return replace(found, notes=notes, broken=tuple(samples.broken))

    @contextmanager
    def own_state(self) -> Iterator[None]:
        """Compute outside of an autocast of the caller, whose generator stays where it was: dropout draws from the global one."""
        gpus = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(gpus), without_autocast():
            yield

    def predictions(self, passes: Tensor, where: Array) -> Predictions:
        """Return what the outputs (P, N, …) of one or several passes say of samples."""
        loss, notes = self.known_loss
        return Predictions(self.mean_output(passes), self.known_contract(), where, notes, loss=loss)

    @cached_property
    def known_loss(self) -> tuple[object, tuple[str, ...]]:
        """Return the loss if it says what the probabilities are, else None, and a note where it cannot be asked.

        A loss that says nothing is not built: one of the user's may need what data.json does not tell.
        """
        if self.known_contract().task != "classification":
            return None, ()
        try:
            target = self.door.locate(self.config.loss.get("_target_"), "loss")
            if isinstance(target, type) and not issubclass(target, Softmaxed):
                return None, ()
            return loss_of(self), ()
        except UserError as error:
            first = str(error).splitlines()[0]
            return None, (f"the probabilities are the softmax of the outputs: {first}",)

    def passes(self) -> Passes:
        """Return the passes of the model, with the draws of `evaluation.mc_dropout` and `evaluation.tta` as in `evaluate`."""
        draws, spec = Draws.of(self.config), spec_of(self)
        augmentation = build_augmentation(self.config, self.door, spec) if draws.tta else None
        return Passes(self.model, draws, augmentation, spec, self.config.seed, self.device, self.precision)

    def mean_output(self, passes: Tensor) -> Array:
        """Return one output (N, …) for each sample from those of several passes (P, N, …), as `evaluate` has it."""
        outputs: Array = (passes[0] if len(passes) == 1 else combine(loss_of(self), passes)).numpy()
        return outputs

    def threshold(self, decision: tuple[str, float] | None) -> Threshold | None:
        """Return the threshold for a class and a probability. Raises UserError where it does not fit the task."""
        contract = self.known_contract()
        if decision is None:
            return None
        return Threshold.of(*decision, contract.task, contract.outputs, contract.class_names)

    def checked_size(self, batch_size: int | None) -> int:
        """Return the number of samples at once: that of the run's evaluations for None. Raises UserError for less than 1."""
        size = self.batch_size if batch_size is None else batch_size
        if size < 1:
            raise UserError(f"`batch_size` is {size}; it must be at least 1.")
        return size


def check_some(found: Sequence[Predictions]) -> None:
    """Raise DataProblem, with the reason, where all samples of all inputs are broken."""
    broken = [item for one in found for item in one.broken]
    if any(map(len, found)) or not broken:
        return
    place = f"row {broken[0].where}" if isinstance(broken[0].where, int) else str(broken[0].where)
    raise DataProblem(f"nothing can be predicted; the first of {len(broken)}: {place}: {broken[0].reason}")


def predictor(path: Path, config: Config, door: Door, device: str) -> Predictor:
    """Build the model of a run with its best weights; its data are read only where data.json does not tell its sizes.

    Raises CheckpointProblem for a run that has no best weights, UserError for a device that is not there.
    """
    place = choose_device(device)
    contract = read_contract(path)
    statistics = checked_statistics(path, contract)
    if contract is not None and contract.outputs and statistics is not None:
        # before the model is built, which may take long
        weights = best_weights(path)
        model: nn.Module = door.build(config.model, "model", contract.input_shape, contract.outputs)
        load_weights(model, weights, path)
    else:
        there = replace(config, device=cast(Any, device))
        parts, _ = build(there, door, statistics, contract=contract, former=former_use(path))
        load_best(parts, path)
        model, contract, statistics = parts.model, parts.contract, parts.statistics
    model.to(place).eval()
    if contract is not None and len(contract.input_shape) == 3:
        # as in the training: other layouts round differently
        model.to(memory_format=torch.channels_last)
    normalize = Normalizer.of(statistics).to(place)
    precision = choose_precision(config.precision, place)
    if precision == "bf16" and contract is not None and contract.task == "regression":
        note_use(model, former_use(path) or Use())
        keep_head_in_float32(model)
    # as in the scoring of a run
    trained = choose_batch_size(None, contract.sizes["train"]) if contract is not None else 1
    size = evaluation_batch_size(config, trained)
    return Predictor(model, contract, normalize, place, precision, size, config, door, path)


def loss_of(predictor: Predictor) -> Any:
    return predictor.door.build(predictor.config.loss, "loss", spec_of(predictor))


def spec_of(predictor: Predictor) -> DataSpec:
    """Return what a loss may know of the data of a run."""
    contract = predictor.known_contract()
    return DataSpec(
        contract.input_shape, contract.outputs, contract.task, predictor.normalize.mean, predictor.normalize.std,
        contract.class_names, sizes=contract.sizes, target_scale=contract.target_scale,
        value_range=contract.brightness, average=predictor.normalize.average,
    )  # fmt: skip
