"""Signals of a run: noted by the loop, also where they come before it listens."""

from __future__ import annotations

import os
import signal

import pytest

from dltrain.training import signals


@pytest.mark.parametrize("former", [signal.SIG_IGN, signal.default_int_handler], ids=["ignored", "default"])
def test_an_interrupt_before_the_loop_listens_is_kept(monkeypatch, former):
    """As a KeyboardInterrupt it could be lost in a callback; where interrupts are ignored it would be lost."""
    before = signal.signal(signal.SIGINT, former)
    monkeypatch.setattr(signals, "_early", [])
    try:
        signals.hold_interrupt()
        os.kill(os.getpid(), signal.SIGINT)
        with signals.Signals() as heard:
            assert heard.received is signal.SIGINT
        with signals.Signals() as heard:
            assert heard.received is None, "it is told once"
    finally:
        signal.signal(signal.SIGINT, before)
