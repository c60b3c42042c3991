"""Keras 3 on torch: compile and fit as its documentation shows them, and with its settings for speed."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "torch"  # read once, when keras is imported

import keras  # noqa: E402
from keras import layers  # noqa: E402

from peers.problem import LR, VALIDATION_BATCH, Laps, Outcome, Task, accuracy, load, model_for  # noqa: E402


class Timing(keras.callbacks.Callback):
    """Tells `laps` what begins."""

    def __init__(self, laps: Laps) -> None:
        super().__init__()
        self.laps = laps

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.laps.epoch_begins()

    def on_test_begin(self, logs: object = None) -> None:
        self.laps.validation_begins()


def fit(task: Task, tuned: bool) -> Outcome:
    """Default: Keras' layers, bar, metrics. Tuned: torch's layers in channels_last, no bar, no metrics."""
    data, laps = load(task), Laps(task.device)
    model = keras_model(task) if not tuned else wrapped_model(task)
    model.compile(
        optimizer=keras.optimizers.Adam(LR),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[] if tuned else ["accuracy"],
        jit_compile=False if tuned else "auto",
    )
    train_inputs, val_inputs = data.train_inputs, data.val_inputs
    if not tuned and task.model == "cnn":  # Keras' default layout
        train_inputs, val_inputs = train_inputs.permute(0, 2, 3, 1), val_inputs.permute(0, 2, 3, 1)
    model.fit(
        train_inputs,
        data.train_targets,
        batch_size=task.batch_size,
        epochs=task.epochs,
        validation_data=(val_inputs, data.val_targets),
        callbacks=[Timing(laps)],
        **({"verbose": 0, "validation_batch_size": VALIDATION_BATCH} if tuned else {}),
    )
    laps.end()
    return Outcome(
        laps.after_the_first(), accuracy(model, data._replace(val_inputs=val_inputs)), keras.__version__
    )


def keras_model(task: Task) -> keras.Model:
    """Return the task's model in Keras' own layers and its default layout."""
    if task.model == "mlp":
        hidden = [layers.Dense(256, activation="relu"), layers.Dense(128, activation="relu")]
        return keras.Sequential([keras.Input((1, 28, 28)), layers.Flatten(), *hidden, layers.Dense(10)])
    blocks = [layer for channels in (16, 32) for layer in _block(channels)]
    return keras.Sequential([keras.Input((28, 28, 1)), *blocks, layers.Flatten(), layers.Dense(10)])


def _block(channels: int) -> list[keras.Layer]:
    convolution = layers.Conv2D(channels, 3, padding="same", use_bias=False)
    return [
        convolution,
        layers.BatchNormalization(momentum=0.9, epsilon=1e-5),
        layers.ReLU(),
        layers.MaxPooling2D(),
    ]


def wrapped_model(task: Task) -> keras.Model:
    """Return the task's torch model inside Keras."""
    module = keras.layers.TorchModuleWrapper(model_for(task, channels_last=True), output_shape=(None, 10))
    return keras.Sequential([keras.Input((1, 28, 28)), module])
