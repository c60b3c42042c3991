"""The best weights of a run that has none yet."""

from __future__ import annotations

import pytest

from dltrain.errors import CheckpointProblem
from dltrain.run.weights import best_weights
from dltrain.storage.lock import Lock


def test_a_run_that_still_trains_is_not_to_be_resumed(tmp_path):
    lock = Lock(tmp_path)
    with pytest.raises(CheckpointProblem, match="is still training, .*Its state: dltrain show") as refused:
        best_weights(tmp_path)
    assert "resume" not in str(refused.value)
    lock.release()
    with pytest.raises(CheckpointProblem, match="it has not finished. Go on with: dltrain resume"):
        best_weights(tmp_path)
