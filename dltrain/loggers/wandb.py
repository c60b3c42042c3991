"""Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from dltrain.loggers.events import Result, RunInfo


class WandB:
    """Log into Weights & Biases; offline by default, so that nothing leaves the machine.

    Rows of `metrics.csv` and log points (under `steps/`) are its history, by step; configuration, tags and notes are those of
    the run, and its summary holds status, best and test scores. The jobs of a sweep are one group. Offline runs lie in
    `wandb/` of the run folder; `wandb sync RUN/wandb/offline-run-*` uploads them.

    Use: a team that looks at runs in the browser.

    Args:
        project: project of the run
        entity: user or team; unset, that of the login
        mode: offline writes files only; online needs `wandb login`
        group: group of the run; unset, the sweep of a job
    """

    requires = {"wandb"}

    @staticmethod
    def destination(keys: Mapping[str, Any]) -> tuple[str, Any] | None:
        """Return the key that says that the run is sent; a record of somebody else does not choose that."""
        return None if keys.get("mode") in (None, "offline") else ("mode", keys["mode"])

    def __init__(
        self,
        project: str = "dltrain",
        entity: str | None = None,
        mode: Literal["offline", "online"] = "offline",
        group: str | None = None,
    ) -> None:
        self.project, self.entity, self.mode, self.group = project, entity, mode, group
        # otherwise its package asks for the key on the terminal, in the middle of a run
        if mode == "online" and not has_key():
            raise ValueError("mode=online needs a key: run `wandb login` once, or leave it at mode=offline")

    def run_started(self, run: RunInfo) -> None:
        if self.mode == "offline":
            # reports of errors inside the package go over the network
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        settings = wandb.Settings(
            # it would write between the lines of the terminal, and replace sys.stdout
            silent=True, console="off",
            symlink=False, save_code=False, disable_git=True, disable_job_creation=True, x_save_requirements=False,
        )  # fmt: skip
        self.run: Any = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            group=self.group or run.sweep or None,
            id=run.id,
            resume="allow" if self.mode == "online" else None,
            # the runs of a stack share a process
            reinit="create_new",
            name=run.title,
            notes=run.config.get("notes"),
            tags=texts(run.config.get("tags")),
            config={**run.config, "hparams": run.hparams, "command": run.command},
            dir=str(run.folder),
            settings=settings,
        )
        remove_links(Path(run.folder) / "wandb")

    def step_logged(self, row: Mapping[str, float]) -> None:
        values = {f"steps/{key}": value for key, value in row.items() if key != "step"}
        self.run.log(values, step=int(row["step"]))

    def evaluated(self, row: Mapping[str, float]) -> None:
        self.run.log(dict(row), step=int(row["step"]))

    def run_ended(self, result: Result) -> None:
        self.run.summary.update(
            {key: value for key, value in result.flat().items() if value not in (None, "")}
        )
        self.run.finish(exit_code=1 if result.error else 0)


def has_key() -> bool:
    """Return whether somebody is logged in."""
    import wandb

    return bool(os.environ.get("WANDB_API_KEY") or wandb.api.api_key)


def texts(value: object) -> list[str]:
    """Return a list of texts; what is read from the environment is one text."""
    return [str(item) for item in value] if isinstance(value, list) else [str(value)] if value else []


def remove_links(folder: Path) -> None:
    """Remove links, such as that to a log outside: a run folder with links is refused by resume."""
    for file in folder.rglob("*"):
        if file.is_symlink():
            file.unlink()
