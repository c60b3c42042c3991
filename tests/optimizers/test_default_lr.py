"""`dltrain optimizer=X` and nothing else learns digits: its own default lr, within its own budget."""

from __future__ import annotations

import pytest
from optimizer_words import FIRST_ORDER, SECOND_ORDER


@pytest.mark.slow
@pytest.mark.parametrize("word", FIRST_ORDER + SECOND_ORDER)
def test_the_default_lr_reaches_95_percent_on_digits(train, word):
    """Mean test accuracy of the seeds 0, 1, 2."""
    runs = [train(f"optimizer={word}", f"seed={seed}") for seed in range(3)]
    accuracies = [run.summary["test"]["accuracy"] for run in runs]
    print(f"{word}: {sum(accuracies) / 3:.4f}")
    assert sum(accuracies) / 3 >= 0.95, accuracies
