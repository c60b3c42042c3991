"""Lines of the header on what a loss sees of the targets of a regression."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from dltrain.config.door import Door
from dltrain.config.keys import OWN
from dltrain.config.schema import Config
from dltrain.data.prepare import Splits
from dltrain.data.spec import DataSpec
from dltrain.run.data import takes

_LOSS, _OBJECTIVE = "val/loss", "val/objective"


def loss_notes(config: Config, door: Door, splits: Splits) -> Iterator[str]:
    """Yield a line on what a loss from elsewhere sees and what keeps the best weights, and one on several labels a sample."""
    spec = splits.spec
    if spec.task != "regression":
        return
    elsewhere = not str(config.loss["_target_"]).startswith(OWN)
    standardized = spec.target_scale is not None
    facts = []
    if elsewhere and standardized:
        facts.append(f"gets targets of mean 0 and variance 1; as they are: {as_they_are(config, door)}")
    if elsewhere and config.early_stopping.get("metric") == _LOSS:
        facts.append(
            f"best weights by {_LOSS}, the squared error; by yours: early_stopping.metric={_OBJECTIVE}"
        )
    if facts:
        yield f"loss     {config.words['loss']} {' · '.join(facts)}"
    if are_labels(splits.train.targets, spec) and (standardized or not elsewhere):
        yield (
            f"labels   all values of the {spec.num_classes} targets are 0 or 1, and are learned as quantities; for several labels a "
            f"sample: a loss of your own (docs/extending.md, Loss) and {as_they_are(config, door)}"
        )


def as_they_are(config: Config, door: Door) -> str:
    """Return how the targets of this dataset are left as they are."""
    if takes("target_scale", door, config):
        return "dataset.target_scale=none"
    return 'a dataset that returns dltrain.data.raw.RawData(inputs, targets, "regression")'


def are_labels(targets: Tensor, spec: DataSpec) -> bool:
    """Return whether targets (N, K) of several columns are 0 and 1 in their units."""
    if targets.ndim != 2 or targets.shape[1] < 2:
        return False
    values = spec.in_units(targets)
    return bool(((values.abs() < 1e-4) | ((values - 1).abs() < 1e-4)).all())
