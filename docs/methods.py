"""Writes docs/methods.md: `python docs/methods.py`."""

from pathlib import Path

from dltrain.commands.handbook import page

Path(__file__).with_suffix(".md").write_text(page(), encoding="utf-8")
