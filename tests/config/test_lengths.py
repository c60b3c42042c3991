"""Overrides that take long to read, which a record may hold, are refused before they are parsed."""

from __future__ import annotations

import pytest

from dltrain.config.compose import parse
from dltrain.config.grammar import MOST_LEVELS, MOST_MARKS, MOST_OF_AXIS
from dltrain.errors import UserError

LONG = {
    "lr=range(0,1000000000)": "1,000,000,000 values",
    "seed=range(1,10000000)": "9,999,999 values",
    "lr=range(0,1,1e-9)": "1,000,000,000 values",
    "lr=range(1e300,0,-1)": "values",
    "lr=choice(" + ",".join(["1"] * 200_000) + ")": "more than 20,000 values",
    "lr=" + "[" * 3000: "3000 brackets",
    "tags=" + "{a:" * 2000: "2000 brackets",
}


@pytest.mark.parametrize("text", LONG, ids=lambda text: text[:24])
def test_what_takes_long_is_refused_at_once(text):
    with pytest.raises(UserError, match=LONG[text]) as error:
        parse([text], None)
    assert len(str(error.value)) < 400


def test_many_overrides_together_are_bounded_too():
    with pytest.raises(UserError, match="more than 20,000 values"):
        parse(["lr=" + ",".join(["1"] * 5000)] * 5, None)


def test_what_a_million_jobs_need_is_read():
    parse(
        [
            f"seed=range(1,{MOST_OF_AXIS})",
            "lr=range(0,1,0.001)",
            f"tags={'[' * MOST_LEVELS}{']' * MOST_LEVELS}",
        ],
        None,
    )
    assert MOST_MARKS >= 10_000
