"""fastai: its Learner on its own DataLoaders, and without bar and recorder on a faster loader."""

from __future__ import annotations

from functools import partial

import fastai
import torch
from fastai.callback.core import Callback, TrainEvalCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy as fastai_accuracy
from fastai.optimizer import OptimWrapper
from torch.utils.data import TensorDataset

from peers.problem import LR, Laps, Outcome, Task, accuracy, load, model_for, tensor_batches


class Timing(Callback):
    """Tells `laps` what begins."""

    def __init__(self, laps: Laps) -> None:
        self.laps = laps

    def before_epoch(self) -> None:
        self.laps.epoch_begins()

    def before_validate(self) -> None:
        self.laps.validation_begins()


def fit(task: Task, tuned: bool) -> Outcome:
    """Default: its loader and Adam, bar, recorder. Tuned: tensor batches, torch's fused Adam, no bar."""
    data, laps = load(task), Laps(task.device)
    model = model_for(task, channels_last=tuned)
    if tuned:
        dls = DataLoaders(*tensor_batches(task, data), device=torch.device(task.device))
        adam = partial(OptimWrapper, opt=torch.optim.Adam, fused=True)
        cbs = [TrainEvalCallback(), Timing(laps)]
        loss = torch.nn.CrossEntropyLoss()
        learner = Learner(dls, model, loss_func=loss, opt_func=adam, lr=LR, default_cbs=False, cbs=cbs)
    else:
        sets = TensorDataset(*data[:2]), TensorDataset(*data[2:])
        dls = DataLoaders.from_dsets(
            *sets, bs=task.batch_size, num_workers=0, device=torch.device(task.device)
        )
        loss = CrossEntropyLossFlat()
        learner = Learner(dls, model, loss_func=loss, lr=LR, metrics=fastai_accuracy, cbs=[Timing(laps)])
    learner.fit(task.epochs, wd=0.0)
    laps.end()
    return Outcome(laps.after_the_first(), accuracy(model, data), fastai.__version__)
