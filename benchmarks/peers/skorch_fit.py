"""skorch: NeuralNetClassifier as its documentation shows it, and without callbacks on a faster iterator."""

from __future__ import annotations

from typing import Any

import skorch
import torch
from skorch.dataset import Dataset
from skorch.helper import predefined_split

from peers.problem import LR, VALIDATION_BATCH, Laps, Outcome, Task, TensorBatches, accuracy, load, model_for


def fit(task: Task, tuned: bool, logged: bool = False) -> Outcome:
    """Default: DataLoader, table, scoring. Tuned: callbacks off unless `logged`, tensor batches, channels_last."""
    data, laps = load(task), Laps(task.device)

    class Classifier(skorch.NeuralNetClassifier):
        def run_single_epoch(self, iterator: Any, training: bool, *args: Any, **keywords: Any) -> None:
            laps.epoch_begins() if training else laps.validation_begins()
            super().run_single_epoch(iterator, training, *args, **keywords)

    net = Classifier(
        model_for(task, channels_last=tuned),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        optimizer__fused=True,
        lr=LR,
        batch_size=task.batch_size,
        max_epochs=task.epochs,
        iterator_train__shuffle=True,
        train_split=predefined_split(Dataset(data.val_inputs, data.val_targets)),
        device=task.device,
        **(tuned_options(logged) if tuned else {}),
    )
    net.fit(data.train_inputs, data.train_targets)
    laps.end()
    return Outcome(laps.after_the_first(), accuracy(net.module_, data), skorch.__version__)


def tuned_options(logged: bool) -> dict[str, Any]:
    return {
        **({} if logged else {"callbacks": "disable"}),
        "iterator_train": tensor_iterator,
        "iterator_valid": tensor_iterator,
        "iterator_valid__batch_size": VALIDATION_BATCH,
    }


def tensor_iterator(dataset: Dataset, batch_size: int, shuffle: bool = False) -> TensorBatches:
    """In the place of DataLoader."""
    return TensorBatches(dataset.X, dataset.y, batch_size, shuffle)
