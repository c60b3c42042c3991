"""Child processes that leave the working folder off their path."""

from __future__ import annotations

import os
import threading

from dltrain.children import SAFE_PATH, outside_working_folder


def test_two_threads_leave_the_environment_as_it_was(monkeypatch, tmp_path):
    """The second thread enters while the first is inside, and leaves after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(SAFE_PATH, raising=False)
    inside, leave = threading.Event(), threading.Event()
    seen = []

    def first() -> None:
        with outside_working_folder():
            inside.set()
            leave.wait(10)

    def second() -> None:
        with outside_working_folder():
            seen.append(os.environ.get(SAFE_PATH))
            one.join()

    one, two = threading.Thread(target=first), threading.Thread(target=second)
    one.start()
    inside.wait(10)
    two.start()
    # without a lock the second is inside by now, and finds the value of the first
    two.join(0.2)
    leave.set()
    two.join(10)
    assert seen == ["1"] and SAFE_PATH not in os.environ
