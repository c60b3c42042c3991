"""Jobs that are written differently and train the same are named; jobs that differ are not."""

from __future__ import annotations

import pytest

EQUAL = {
    "batch_size=64,null": "two jobs are equal: batch_size=64 trains as batch_size=null does",
    "epochs=30,null": "two jobs are equal: epochs=30 trains as epochs=null does",
    "schedule=none,constant": "two jobs are equal: schedule=none trains as schedule=constant does",
    "regularization=[l2,l1],[l1,l2]": "two jobs are equal: regularization=[l2,l1] trains as regularization=[l1,l2] does",
    "schedule=none,constant batch_size=64,null": "3 of 4 jobs repeat another one: batch_size=64 trains as batch_size=null does",
}
DIFFERENT = (
    "batch_size=64,32",
    "schedule=constant,cosine",
    "wrap=[sam,lookahead],[lookahead,sam]",
    "lr=0.1,0.01 seed=0,1",
)


@pytest.mark.parametrize("typed, says", EQUAL.items(), ids=EQUAL)
def test_equal_jobs_are_named(dltrain, workdir, capsys, typed, says):
    assert dltrain("-m", *typed.split(), "sweep.dry_run=true") == 0
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("typed", DIFFERENT)
def test_other_jobs_are_not(dltrain, workdir, capsys, typed):
    assert dltrain("-m", *typed.split(), "sweep.dry_run=true") == 0
    assert "trains as" not in capsys.readouterr().err
