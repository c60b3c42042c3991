"""Metrics against loops."""

from __future__ import annotations

import pytest
import torch

from dltrain.metrics.samples import absolute_error, accuracy, default_metrics, squared_error


def test_accuracy_is_one_for_each_hit() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0], [5.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    assert accuracy(logits, torch.tensor([1, 1, 2])).tolist() == [1.0, 0.0, 1.0]
    mixed = torch.tensor([[0.4, 0.6, 0.0], [0.2, 0.5, 0.3], [0.0, 0.1, 0.9]])
    assert accuracy(logits, mixed).tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("metric, power", [(absolute_error, 1), (squared_error, 2)])
def test_errors_are_means_over_the_columns(metric: object, power: int) -> None:
    assert callable(metric)
    outputs, targets = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    twin = [
        sum(abs(a - b) ** power for a, b in zip(o, t, strict=True)) / 3
        for o, t in zip(outputs, targets, strict=True)
    ]
    torch.testing.assert_close(metric(outputs, targets), torch.stack(twin))
    assert metric(outputs[:, :1], targets[:, 0]).shape == (4,)  # never (4, 4)


def test_defaults_by_task() -> None:
    assert default_metrics("classification") == {"accuracy": accuracy}
    assert default_metrics("regression") == {"mae": absolute_error}
    assert default_metrics("objective") == {}
