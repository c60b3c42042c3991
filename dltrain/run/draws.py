"""Passes over samples with dropout, and over augmented copies: what `evaluation.mc_dropout` and `evaluation.tta` ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dltrain.augmentation.pipeline import Augmentation
from dltrain.config.schema import Config
from dltrain.data.spec import DataSpec
from dltrain.errors import UserError
from dltrain.run.effect import copying, word_for_copies
from dltrain.seeding import GlobalStream, Stream
from dltrain.training.evaluation import drawing_dropout, evaluating
from dltrain.training.forward import autocast


@dataclass(frozen=True)
class Draws:
    """The number of passes with dropout (Gal & Ghahramani 2016, arXiv:1506.02142), and of augmented copies."""

    mc_dropout: int = 0
    tta: int = 0
    named: bool = False  # whether the user named what makes the copies

    @classmethod
    def of(cls, config: Config) -> Draws:
        """Return what a configuration asks for."""
        asked = config.evaluation
        return cls(asked.mc_dropout, asked.tta, bool(asked.tta_words))

    @property
    def passes(self) -> int:
        return max(self.mc_dropout, self.tta, 1)


class Passes:
    """The passes of a model; the draws of a batch depend on the run's seed, the pass and the number of the batch alone.

    Raises UserError for Monte-Carlo dropout without dropout, and for test-time augmentation without augmentation.
    """

    def __init__(
        self,
        model: nn.Module,
        draws: Draws,
        augmentation: Augmentation | None,
        spec: DataSpec,
        seed: int,
        device: torch.device,
        precision: str,
    ) -> None:
        self.model, self.draws, self.device, self.precision = model, draws, device, precision
        self.augment = copies_of(augmentation, spec, draws.named) if draws.tta else None
        self.copies, self.masks = Stream(seed, "tta", device), GlobalStream(seed, "mc_dropout", device)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Set the model to evaluation mode inside, with dropout that draws if it was asked for."""
        with evaluating(self.model), drawing_dropout(self.model, self.draws.mc_dropout > 0):
            yield

    def outputs(self, inputs: Tensor, targets: Tensor, indices: Tensor, batch: int) -> Tensor:
        """Return the outputs (P, B, …) in float32 of the samples (B, …) with these positions, the batch of this number."""
        return torch.stack([self._pass(inputs, targets, indices, batch, p) for p in range(self.draws.passes)])

    def _pass(self, inputs: Tensor, targets: Tensor, indices: Tensor, batch: int, number: int) -> Tensor:
        step = (number << 20) + batch
        if self.augment is not None:
            # a transform may change its inputs in place, and the next pass needs them
            inputs, _ = self.augment(inputs.clone(), targets, self.copies.at(step), indices, number)
        if self.draws.mc_dropout:
            self.masks.at(step)
        with autocast(self.device, self.precision):
            outputs: Tensor = self.model(inputs).float()
        return outputs


def copies_of(augmentation: Augmentation | None, spec: DataSpec, named: bool = False) -> Augmentation:
    """Return the augmentation without words that mix samples, whose samples have no single target; raise where they were asked for."""
    kept = copying(augmentation)
    if named and augmentation is not None and len(kept) < len(augmentation.transforms):
        raise UserError(
            "`evaluation.tta_words` names mixup or cutmix, and a copy that is mixed with another sample has no target of its "
            "own. Leave them out."
        )
    if not kept:
        raise UserError(
            "`evaluation.tta` augments the samples that are scored, and this run has no augmentation that leaves targets alone.\n"
            f"Name some: evaluation.tta=8 evaluation.tta_words=[{word_for_copies(spec)}]"
        )
    return Augmentation(kept)
