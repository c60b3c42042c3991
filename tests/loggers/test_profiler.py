import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_events import cut_short, result, run_info

from dltrain.loggers.events import Progress
from dltrain.loggers.profiler import Profiler


def profile(profiler: Profiler, folder: Path, steps: int, total_steps: int = 30) -> None:
    """A run of matrix products, the width of the product telling the step."""
    profiler.run_started(run_info(folder, total_steps=total_steps))
    progress = Progress(1, 0, 30, 0.1, 1, None, "train")
    for step in range(1, steps + 1):
        torch.ones(2, 3) @ torch.ones(3, 100 + step)
        progress.step = step
        profiler.stepped(progress)


def recorded_steps(folder: Path) -> list[int]:
    events = json.loads((folder / "profile.pt.trace.json").read_text())["traceEvents"]
    shapes = [event["args"]["Input Dims"] for event in events if event.get("name") == "aten::mm"]
    return [shape[1][1] - 100 for shape in shapes]


def test_active_steps_are_recorded_and_the_rest_is_not(tmp_path: Path) -> None:
    profiler = Profiler(tmp_path, wait=2, warmup=1, active=3)
    profile(profiler, tmp_path, steps=8)
    assert profiler.recorder is None  # done: the rest of the run is not slowed down
    profiler.run_ended(result())
    assert recorded_steps(tmp_path) == [4, 5, 6]


@pytest.mark.parametrize("ending", [result(), cut_short("Interrupted")])
def test_an_early_end_exports_what_there_is(ending: Any, tmp_path: Path) -> None:
    profiler = Profiler(tmp_path, wait=1, warmup=1, active=20)
    profile(profiler, tmp_path, steps=5)
    profiler.run_ended(ending)
    assert recorded_steps(tmp_path) == [3, 4, 5]


def test_the_costliest_operators_are_in_the_text_tab(tmp_path: Path) -> None:
    profile(Profiler(tmp_path, wait=0, warmup=1, active=2), tmp_path, steps=4)
    found = EventAccumulator(str(tmp_path)).Reload()
    (event,) = found.Tensors("profile")
    assert "aten::mm" in event.tensor_proto.string_val[0].decode()
    assert event.step == 3


def test_nothing_is_profiled_before_the_start(tmp_path: Path) -> None:
    profiler = Profiler(tmp_path)
    profiler.stepped(Progress(1, 1, 1, 0.1, 1, None, "train"))
    profiler.run_ended(cut_short("ValueError"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("steps", [2, 6, 10])
def test_a_short_run_waits_less(steps: int, tmp_path: Path) -> None:
    profiler = Profiler(tmp_path)
    profile(profiler, tmp_path, steps, total_steps=steps)
    profiler.stop()
    assert list(tmp_path.rglob("*.pt.trace.json"))


def test_the_cure_for_a_short_run_works(tmp_path: Path) -> None:
    profiler = Profiler(tmp_path, wait=1, warmup=1)
    profiler.run_started(run_info(tmp_path, total_steps=10))
    profiler.stop()


@pytest.mark.parametrize("key, value, cure", [("wait", -1, 0), ("warmup", -3, 0), ("active", 0, 1)])
def test_numbers_out_of_range(key: str, value: int, cure: int, tmp_path: Path) -> None:
    message = f"profiler.{key} is {value}; it must be ≥ {cure}, for example {key}={cure}"
    with pytest.raises(ValueError, match=message):
        Profiler(tmp_path, **{key: value})
    Profiler(tmp_path, **{key: cure})
