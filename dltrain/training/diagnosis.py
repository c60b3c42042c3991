"""Quantities measured beside training: the change of a step, and the diagnostics. They leave the run unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dltrain.diagnostics.probe import Diagnostic, Probe, still
from dltrain.seeding import sample_positions
from dltrain.storage.run_folder import RunFolder
from dltrain.training.guard import norm_of
from dltrain.training.parts import Parts, Plan


class Change:
    """W_{t+1} − W_t of a step, at the cost of a copy of the weights.

    Args:
        norm: 2-norm of the last step's change, if early stopping has a tolerance
        tensors: the change itself, for the diagnostics of an evaluation
    """

    def __init__(self, parts: Parts, parameters: Sequence[Tensor]) -> None:
        self.parameters = parameters
        self.needs_norm = parts.early_stopping.tolerance is not None
        self.needs_tensors = bool(parts.diagnostics)
        self.norm: float | None = None
        self.tensors: list[Tensor] = []

    @contextmanager
    def measured(self, evaluated: bool) -> Iterator[None]:
        """Measure the change inside, if somebody asks for it: `evaluated` tells whether an evaluation follows.

        A step that is skipped changes nothing, and has no norm: a run that skips does not converge.
        """
        self.norm = None
        kept = self.needs_tensors and evaluated
        self.tensors = [torch.zeros_like(p) for p in self.parameters] if kept else []
        if not (self.needs_norm or kept):
            yield
            return
        before = [p.detach().clone() for p in self.parameters]
        yield
        moved = torch._foreach_sub([p.detach() for p in self.parameters], before)
        if kept:
            self.tensors = list(moved)
        self.norm = float(norm_of(moved)) if self.needs_norm else None


class Diagnosis:
    """Run the diagnostics, on training samples that are the same for the whole run."""

    def __init__(self, parts: Parts, plan: Plan, folder: RunFolder, change: Change) -> None:
        self.parts, self.plan, self.folder, self.change = parts, plan, folder, change
        for diagnostic in parts.diagnostics.values():
            if hasattr(diagnostic, "begin"):
                diagnostic.begin(parts.model)

    def columns(self, lr: float) -> dict[str, float]:
        """Return what the diagnostics measure at the weights of this step."""
        return {
            f"{word}/{name}": value
            for word, diagnostic in self.parts.diagnostics.items()
            for name, value in self.probed(diagnostic, diagnostic.measure, lr).items()
        }

    def draw(self, lr: float) -> None:
        """Let diagnostics draw the best weights; a file that cannot be written is a problem of the run, not its end."""
        for diagnostic in self.parts.diagnostics.values():
            if hasattr(diagnostic, "draw"):
                try:
                    self.probed(diagnostic, partial(diagnostic.draw, folder=self.folder.path), lr)
                except OSError as error:
                    self.folder.note_problem(f"{error.filename} could not be written ({error.strerror})")

    def probed(self, diagnostic: Diagnostic, look: Callable[[Probe], Any], lr: float) -> Any:
        """Return the result of a function of the probe."""
        parts, train = self.parts, self.parts.train
        drawn = sample_positions(len(train), diagnostic.samples, self.plan.seed, "diagnostics")
        batch = next(iter(train.batches(drawn, diagnostic.samples)))
        with still(parts.model):
            return look(Probe(parts.model, parts.loss, batch.inputs, batch.targets, lr, self.change.tensors))
