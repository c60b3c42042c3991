"""The modules that the fork server imports once, so that a job starts in milliseconds. No thread may start and nothing may run here."""

from __future__ import annotations

import importlib
from contextlib import suppress

MODULES = (
    "dltrain.run.experiment dltrain.sweep.backends.worker dltrain.sweep.backends.stack "
    "dltrain.training.stack dltrain.models.mlp dltrain.models.cnn dltrain.data.bundled "
    "dltrain.initializers.closed_form dltrain.losses dltrain.sampling dltrain.schedules dltrain.early_stopping "
    "dltrain.regularization.penalties PIL.PngImagePlugin safetensors.torch "
    "tensorboard.compat.proto.event_pb2 tensorboard.compat.proto.summary_pb2 tensorboard.compat.proto.tensor_pb2 "
    "tensorboard.plugins.text.plugin_data_pb2 "
    "tensorboard.plugins.custom_scalar.layout_pb2 tensorboard.plugins.hparams.plugin_data_pb2 "
    "tensorboard.plugins.hparams.api_pb2"
).split()

for _name in MODULES:
    with suppress(ImportError):
        importlib.import_module(_name)
