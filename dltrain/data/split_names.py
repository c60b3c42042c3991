"""The names of the splits. Imports no torch, so that a name on the command line is checked at once."""

from __future__ import annotations

from typing import Literal, get_args

SplitName = Literal["train", "val", "test"]
# by the numbers TRAIN, VAL and TEST of dltrain/data/raw.py
SPLIT_NAMES: tuple[SplitName, ...] = get_args(SplitName)
