"""`dltrain -m key=a,b …`: a sweep by our own driver, or by the sweeper and launcher of Hydra that the user names."""

from __future__ import annotations

import traceback
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from dltrain.commands import STARTED
from dltrain.commands.train import command_line, job_config
from dltrain.config.compose import CONFIG_NAME, Composition, check_words, choices_of, compose, parse
from dltrain.config.door import Door, shipped_targets
from dltrain.config.schema import run_name
from dltrain.config.validation import check_axes, check_sweep, validate
from dltrain.errors import UserError
from dltrain.storage.folder_names import check_writable, new_folder

if TYPE_CHECKING:
    from dltrain.config.catalogue import Catalogue
    from dltrain.config.hydra_private import Hydra

SOME_FAILED = 7


def run_all(args: Namespace, arguments: list[str], catalogue: Catalogue, hydra: Hydra) -> int:
    """Run a sweep with our own driver, or with Hydra's sweeper and launcher where the user names one."""
    parsed = parse(args.overrides, hydra.config_loader)
    check_words(parsed, catalogue)
    if any(o.key_or_group.startswith(("hydra/sweeper", "hydra/launcher")) for o in parsed):
        return run_by_hydra(args, parsed, arguments, catalogue, hydra)
    from dltrain.sweep.sweep import run_sweep

    return run_sweep(
        args.overrides, args.config_name or CONFIG_NAME, command_line(arguments), catalogue, hydra
    )


def run_by_hydra(
    args: Namespace, parsed: list[Override], arguments: list[str], catalogue: Catalogue, hydra: Hydra
) -> int:
    """Check the sweep's axes, run every job by Hydra, and print how each ended; return 7 when some failed."""
    check_axes(o.key_or_group for o in parsed if o.is_sweep_override())
    first = compose([first_of(o) for o in parsed], catalogue, hydra, args.config_name or CONFIG_NAME)
    config = validate(first)
    Door(shipped_targets(catalogue), config.trust).check_names(config.plain)
    check_sweep(first, parsed)
    check_each_word(parsed, catalogue, hydra, args.config_name or CONFIG_NAME)
    check_writable(config.output)
    folder = new_folder(config.output, run_name(config))
    overrides = [*args.overrides, f"hydra.sweep.dir={_quoted(folder)}", "hydra.mode=MULTIRUN"]
    try:
        hydra.multirun(args.config_name or CONFIG_NAME, Job(catalogue, command_line(arguments)), overrides)
    except Stopped as stopped:
        raise stopped.interrupted from None
    return report(folder)


def check_each_word(parsed: list[Override], catalogue: Catalogue, hydra: Hydra, config_name: str) -> None:
    """Compose every word of an axis with the first values of the other axes: a recipe may be refused."""
    for i, override in enumerate(parsed):
        if override.is_discrete_sweep() and override.key_or_group in catalogue.words:
            others = [first_of(o) for o in parsed[:i] + parsed[i + 1 :]]
            for value in override.sweep_string_iterator():
                compose([*others, f"{override.get_key_element()}={value}"], catalogue, hydra, config_name)


class Stopped(BaseException):
    """A signal stopped a job and with it the sweep: Hydra continues with the next job after an Exception."""

    def __init__(self, interrupted: Exception) -> None:
        super().__init__(str(interrupted))
        self.interrupted = interrupted


def first_of(override: Override) -> str:
    """Return the override with the first value of its sweep."""
    if not override.is_sweep_override():
        return str(override.input_line)
    if not override.is_discrete_sweep():
        raise UserError(
            f"`{override.input_line}` is an interval, and Hydra's basic sweeper needs values: {override.key_or_group}=0.1,0.01"
        )
    values = list(override.sweep_string_iterator())
    if not values:
        raise UserError(
            f"`{override.input_line}` gives no value. Write the values with commas: {override.key_or_group}=a,b"
        )
    return f"{override.get_key_element()}={values[0]}"


def _quoted(folder: Path) -> str:
    return "'" + str(folder).replace("'", "\\'") + "'"


class Job:
    """The task of one job of the sweep. A failed job records it in its summary; the other jobs still run."""

    def __init__(self, catalogue: Catalogue, command: str) -> None:
        self.catalogue, self.command = catalogue, command

    def __call__(self, cfg: DictConfig) -> float | None:
        from hydra.core.hydra_config import HydraConfig

        from dltrain.run import experiment
        from dltrain.training.signals import Interrupted

        hydra_cfg = HydraConfig.get()
        folder = Path(hydra_cfg.runtime.output_dir)
        # Unresolved: iterating over the node would put values of the environment into the summary.
        typed = OmegaConf.to_container(hydra_cfg.overrides.task, resolve=False)
        assert isinstance(typed, list)
        overrides = [str(text) for text in typed]
        print(f"\n#{hydra_cfg.job.num}  {' '.join(overrides)}", flush=True)
        try:
            whole = job_config(cfg)
            config = validate(Composition(whole, choices_of(whole), overrides, self.catalogue))
            # a choice among jobs must not see the test split
            if not any(o.startswith("evaluation.test=") for o in overrides):
                whole.evaluation.test = False
                config = validate(Composition(whole, choices_of(whole), overrides, self.catalogue))
            door = Door(shipped_targets(self.catalogue), config.trust)
            built = experiment.prepare(config, door, self.command, overrides, {"since_start": STARTED})
            return experiment.run(built, folder)
        except Interrupted as error:
            raise Stopped(error) from None
        except Exception as error:
            record_failure(folder, error, overrides)
            return None


def record_failure(folder: Path, error: Exception, overrides: list[str]) -> None:
    """Write a summary for a job that failed before its run could write one, and print the reason."""
    import json

    known = isinstance(error, UserError)
    text = str(error) if known else traceback.format_exc()
    print(f"failed: {text}", flush=True)
    summary = folder / "summary.json"
    if not summary.is_file() or json.loads(summary.read_text())["status"] == "running":
        content = {"status": "failed", "stop_reason": str(error), "error": text, "overrides": overrides}
        summary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def report(folder: Path) -> int:
    """Print how each job ended, the best first; return the exit code."""
    import json

    jobs: list[dict[str, Any]] = []
    for file in folder.glob("*/summary.json"):
        jobs.append({"number": int(file.parent.name), **json.loads(file.read_text(encoding="utf-8"))})
    sign = -1 if any(job.get("mode") == "max" for job in jobs) else 1
    jobs.sort(
        key=lambda job: (job.get("objective") is None, sign * (job.get("objective") or 0.0), job["number"])
    )
    width = max((len(" ".join(job["overrides"])) for job in jobs), default=10)
    print(f"\n{'job':>5}  {'overrides':<{width}}  {'objective':>10}  {'best epoch':>10}  status")
    for job in jobs:
        objective = f"{job['objective']:10.4f}" if job.get("objective") is not None else " " * 10
        best_epoch = f"{job.get('best_epoch', 0):10g}" if job.get("objective") is not None else " " * 10
        print(
            f"{job['number']:>5}  {' '.join(job['overrides']):<{width}}  {objective}  {best_epoch}  {job['status']}"
        )
    failed = [job for job in jobs if job["status"] == "failed"]
    print(f"\n{len(jobs) - len(failed)} of {len(jobs)} jobs done in {folder}\ntensorboard --logdir {folder}")
    return SOME_FAILED if failed else 0
