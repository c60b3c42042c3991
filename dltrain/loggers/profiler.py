"""torch's profiler over a few steps of the run (debug=profile)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dltrain.loggers.events import Progress, Result, RunInfo, events_folder
from dltrain.loggers.tensorboard import EventFile, text

if TYPE_CHECKING:
    from torch.profiler import profile


class Profiler:
    """Record `active` steps after `wait` unwatched and `warmup` discarded ones, into the run folder.

    Two things come out: `profile.pt.trace.json`, the time line of every operator and kernel, to be opened at
    https://ui.perfetto.dev or chrome://tracing (both read it in the browser and send nothing), and the
    table of the costliest operators, in TensorBoard's text tab under `profile`.
    A run that is too short for that waits less. Raises ValueError when a number is out of range.
    """

    def __init__(self, folder: Path, wait: int = 5, warmup: int = 5, active: int = 10) -> None:
        for key, value, least in (("wait", wait, 0), ("warmup", warmup, 0), ("active", active, 1)):
            if value < least:
                raise ValueError(
                    f"profiler.{key} is {value}; it must be ≥ {least}, for example {key}={least}"
                )
        self.folder = events_folder(folder)
        self.wait, self.warmup, self.active = wait, warmup, active
        self.recorder: profile | None = None

    def run_started(self, run: RunInfo) -> None:
        steps = run.total_steps - run.resumed_step
        wait = min(self.wait, max(steps - 1, 0) // 2)
        warmup = min(self.warmup, max(steps - 1 - wait, 0))
        from torch.profiler import profile, schedule

        self.step = run.resumed_step
        plan = schedule(wait=wait, warmup=warmup, active=self.active, repeat=1)
        self.recorder = profile(
            schedule=plan, on_trace_ready=self.export, record_shapes=True, acc_events=True
        )
        self.recorder.start()

    def stepped(self, progress: Progress) -> None:
        if self.recorder is None:
            return
        self.step = progress.step
        self.recorder.step()

    def run_ended(self, result: Result) -> None:
        self.stop()

    def stop(self) -> None:
        """End the recording; what was recorded so far is exported."""
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            recorder.stop()

    def export(self, recorder: profile) -> None:
        self.recorder = None  # the rest of the run is not slowed down
        recorder.export_chrome_trace(str(self.folder / "profile.pt.trace.json"))
        averages = recorder.key_averages()
        device = any(average.self_device_time_total > 0 for average in averages)
        order = "self_device_time_total" if device else "self_cpu_time_total"
        table = averages.table(sort_by=order, row_limit=30, max_name_column_width=60)
        file = EventFile(self.folder)
        file.write(self.step, [text("profile", f"```\n{table}\n```")])
        file.close()
