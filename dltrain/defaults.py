"""What null stands for in keys that every run has."""

from __future__ import annotations

# where neither `epochs` nor `steps` is set
DEFAULT_EPOCHS = 30
DEFAULT_BATCH_SIZE = 64
