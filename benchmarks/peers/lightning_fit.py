"""Lightning: its Trainer as its documentation shows it, and in its `barebones` mode."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from peers.problem import LR, Laps, Outcome, Task, accuracy, load, model_for, tensor_batches


class Classifier(L.LightningModule):
    """Loss and accuracy of both splits, a mean for each epoch; `logging` is off in barebones mode."""

    def __init__(self, model: nn.Module, logging: bool) -> None:
        super().__init__()
        self.model, self.logging = model, logging

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        return self._loss(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        return self._loss(batch, "val")

    def _loss(self, batch: tuple[Tensor, Tensor], split: str) -> Tensor:
        inputs, targets = batch
        logits = self.model(inputs)
        loss = F.cross_entropy(logits, targets)
        if self.logging:
            hits = (logits.argmax(1) == targets).float().mean()
            self.log_dict({f"{split}/loss": loss, f"{split}/accuracy": hits}, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=LR, fused=True)


class Timing(L.Callback):
    """Tells `laps` what begins."""

    def __init__(self, laps: Laps) -> None:
        self.laps = laps

    def on_train_epoch_start(self, trainer: L.Trainer, module: Any) -> None:
        self.laps.epoch_begins()

    def on_validation_start(self, trainer: L.Trainer, module: Any) -> None:
        if not trainer.sanity_checking:
            self.laps.validation_begins()

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        self.laps.end()


def fit(task: Task, tuned: bool) -> Outcome:
    """Default: DataLoader, bar, logger, checkpoints. Tuned: barebones, tensor batches, channels_last."""
    data, laps = load(task), Laps(task.device)
    model = model_for(task, channels_last=tuned)
    options: dict[str, Any] = {"barebones": True} if tuned else {}
    trainer = L.Trainer(
        max_epochs=task.epochs,
        accelerator="cpu" if task.device == "cpu" else "gpu",
        devices=1,
        callbacks=[Timing(laps)],
        **options,
    )
    if tuned:
        train, val = tensor_batches(task, data)
    else:
        sets = TensorDataset(*data[:2]), TensorDataset(*data[2:])
        train, val = (DataLoader(part, task.batch_size, shuffle=part is sets[0]) for part in sets)
    trainer.fit(Classifier(model, logging=not tuned), train, val)
    return Outcome(laps.after_the_first(), accuracy(model.to(task.device), data), L.__version__)
