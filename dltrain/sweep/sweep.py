"""A sweep from the command line to its results: plan, folder, driver, report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltrain.config.compose import CONFIG_NAME
from dltrain.config.door import rights_of_record, rights_of_user
from dltrain.config.schema import Config, run_name
from dltrain.errors import DENIED, CheckpointProblem, ResourceProblem, UserError, assigned
from dltrain.run.destinations import say_left_out
from dltrain.storage import manifest
from dltrain.storage.folder_names import SWEEP_STUDY, check_place, new_folder
from dltrain.storage.job_names import job_folders
from dltrain.storage.shelves import check_not_shelved
from dltrain.sweep.backends import pool, protocol
from dltrain.sweep.backends.protocol import CompleteBackend
from dltrain.sweep.backends.slots import gpus_for, num_slots
from dltrain.sweep.backends.worker import command_of
from dltrain.sweep.begun import check_folder, locked
from dltrain.sweep.driver import Driver
from dltrain.sweep.jobs import write
from dltrain.sweep.journal import check_journal
from dltrain.sweep.live import display, dry_run, print_ranking
from dltrain.sweep.outcome.files import has_parquet, write_best, write_csv, write_parquet
from dltrain.sweep.outcome.inputs import mixed_notes
from dltrain.sweep.outcome.notes import different_rates, notes_of
from dltrain.sweep.outcome.ranking import edges, rank, winner
from dltrain.sweep.outcome.report import write_report
from dltrain.sweep.plan.checks import check_all
from dltrain.sweep.plan.cut import left_out
from dltrain.sweep.plan.plan import Plan
from dltrain.sweep.plan.reading import COMMON, read_plan
from dltrain.sweep.record import (
    RECORD,
    check_equal,
    check_files_of,
    check_scale_of,
    edits_since,
    is_on_another_scale,
    is_unfinished,
    number_jobs,
    read_record,
    record_of,
    resumed_texts,
)
from dltrain.sweep.winner import test_line
from dltrain.text import first_line, show
from dltrain.training.signals import EXIT_CODES, ended_by_signal

if TYPE_CHECKING:
    from dltrain.config.catalogue import Catalogue
    from dltrain.config.hydra_private import Hydra
    from dltrain.sweep.study import Study

SOME_FAILED, INTERRUPTED = 7, 130


@dataclass(frozen=True)
class Source:
    """The catalogue and configuration that a sweep is composed from.

    Args:
        config_dir: the folder of `--config-dir`
        config_name: the primary configuration
    """

    catalogue: Catalogue
    hydra: Hydra
    config_dir: str | None = None
    config_name: str = CONFIG_NAME

    @property
    def options(self) -> list[str]:
        """Return the options that name them, for a command that continues or repeats."""
        folder = [] if self.config_dir is None else ["--config-dir", self.config_dir]
        return folder + ([] if self.config_name == CONFIG_NAME else ["--config-name", self.config_name])


def run_sweep(
    texts: list[str], source: Source, command: str, begun: Callable[[Path], None] = lambda folder: None
) -> int:
    """Check everything, then run what is missing; return the exit code. `begun` gets the sweep's folder."""
    catalogue = source.catalogue
    asked, texts, recorded = resumed_texts(texts)
    rights = rights_of_record(catalogue, recorded) if recorded is not None else rights_of_user(catalogue)
    plan = read_plan(texts, source.config_name, catalogue, source.hydra, rights)
    plan.options = source.options
    again = f"repeat the whole command of the sweep, with {assigned('sweep.resume', asked)}"
    say_left_out(plan.first, rights.door(plan.first.trust), again)
    if asked is None:
        check_place(plan.first.output, run_name(plan.first))
    else:
        check_not_shelved(asked)
        check_equal(asked, plan)
    if not plan.settings["dry_run"]:
        pool.warm_up()  # it imports torch while the configurations are checked here
    configs = check_all(plan)
    if asked is not None and not plan.settings["dry_run"]:
        check_scale_of(asked, plan)
        check_files_of(asked, plan)
    backend, on_gpu = open_backend(plan, configs, catalogue, command)
    command_for = partial(
        command_of, rights=rights, config_dir=source.config_dir, config_name=source.config_name
    )
    if plan.settings["dry_run"]:
        backend.close()
        return dry_run(plan, len(configs), backend, command_for)
    folder = asked or folder_for(plan)
    if told := left_out(plan):
        _say(plan, told)
    begun(folder)
    with explained(plan.resume_command(folder)), ExitStack() as unused, locked(folder):
        unused.callback(backend.close)
        # of the sweep before it was continued
        manifest.remove(folder)
        record = record_of(plan, folder, texts, command, number_jobs(plan, folder))
        study = open_study(plan, folder)
        total = plan.total
        driver = Driver(
            plan,
            study,
            folder,
            backend,
            display(total, plan.first.quiet, plan.mode),
            command_for,
            on_gpu,
        )
        # which closes the backend itself
        unused.pop_all()
        return drive(driver, record, catalogue)


@contextmanager
def explained(resume: str) -> Iterator[None]:
    """Turn a disk that refuses into a ResourceProblem that ends with the command `resume`."""
    try:
        yield
    except BrokenPipeError:  # of the terminal, which `cli` handles
        raise
    except (OSError, ResourceProblem) as error:
        is_denied = isinstance(error, OSError) and error.errno in DENIED
        cure = "Make it yours to read and write" if is_denied else "Free some space"
        raise ResourceProblem(
            f"the sweep had to stop: {first_line(error)}\nFinished jobs are kept. {cure}, then continue: {resume}"
        ) from None


def open_backend(
    plan: Plan, configs: list[Config], catalogue: Catalogue, command: str
) -> tuple[CompleteBackend, bool]:
    """Build `sweep.backend`, and return whether jobs run on a GPU. Raises UserError for what is no backend."""
    key = f"sweep.backend={plan.backend}"
    gpus = gpus_for(plan.first.device)
    jobs = num_slots(plan.settings, len(gpus), plan.total)
    sweep = protocol.Sweep(
        jobs, plan.settings, plan.first.device, gpus, configs, plan.rights, command, catalogue
    )
    backend = plan.rights.door(plan.first.trust).build(plan.settings["backend"], "sweep.backend", sweep)
    return protocol.complete(backend, sweep, key), bool(gpus)


def folder_for(plan: Plan) -> Path:
    """Return the newest unfinished sweep of this name with the same axes, else a new folder; print which."""
    identity = json.loads(json.dumps(plan.identity()))
    parent = Path(plan.first.output) / run_name(plan.first)
    if not plan.settings["fresh"]:
        for file in sorted(parent.glob(f"*/{RECORD}"), reverse=True):
            if not is_unfinished(file, identity, plan):
                continue
            record = read_record(file.parent)
            what, edits = edits_since(record, plan)
            if edits:
                _say(
                    plan,
                    f"not going on with {file.parent}, which was begun with other {what}: {'; '.join(edits)}",
                )
            elif not is_on_another_scale(record, plan):
                check_folder(file.parent)
                _say(
                    plan,
                    f"going on with the unfinished sweep {file.parent} (for a new one: sweep.fresh=true)",
                )
                return file.parent
    folder = new_folder(plan.first.output, run_name(plan.first))
    _say(plan, f"new sweep {folder}")
    return folder


def _say(plan: Plan, text: str) -> None:
    if not plan.first.quiet:
        show(text)


# Running ----------------------------------------------------------------------------------------------------------


def open_study(plan: Plan, folder: Path) -> Study | None:
    """Open the study in a sweep's folder; None for a grid without a pruner, which needs no results to go on.

    Raises CheckpointProblem where it does not belong to the jobs there.
    """
    grid = plan.configurations
    if grid is not None and plan.settings["pruner"] == "none":
        return None
    # before Optuna is imported, which takes longer than to refuse
    check_journal(folder / SWEEP_STUDY, plan.trials)
    from dltrain.sweep.study import Direction, Listed, Study

    sampler = Listed(grid) if grid is not None else make_sampler(plan)
    directions: list[Direction] = ["minimize" if mode == "min" else "maximize" for mode in plan.modes]
    study = Study(folder, plan.search_axes, sampler, directions)
    if grid is None:
        check_remembered(plan, folder, len(study.trials()))
        study.use_sampler(make_sampler(plan, len(study.trials())))
    return study


def drive(driver: Driver, record: dict[str, Any], catalogue: Catalogue) -> int:
    """Run what is missing and report; return the exit code."""
    plan, folder, show = driver.plan, driver.folder, driver.display
    total = plan.total
    begun = time.monotonic()
    if driver.jobs:
        _say(plan, f"{driver.num_done} of {total} jobs are done already")
        show.resumed(driver.num_done)
    try:
        completed = driver.run()
    finally:
        show.close()
    missing = total - driver.num_done
    record |= {"finished": False, "seconds": round(time.monotonic() - begun, 3)}
    write(folder / RECORD, json.dumps(record, indent=2) + "\n")
    left = f"while the results of the sweep were written. The same command writes them, or: {plan.resume_command(folder)}"
    with ended_by_signal(left):
        code = conclude(driver, catalogue, missing, completed)
    return code if driver.received is None else EXIT_CODES[driver.received]


def check_remembered(plan: Plan, folder: Path, trials: int) -> None:
    """Raise CheckpointProblem where a search has jobs that its study does not know: new trials would get their results."""
    unknown = [n for n in job_folders(folder) if n >= trials * len(plan.replicates)]
    if unknown:
        raise CheckpointProblem(
            f"{folder / SWEEP_STUDY} does not know job {min(unknown)}, which is there: it was deleted, or is an older copy, "
            "and with it went what the search has tried.\nPut it back, or begin a new sweep: sweep.fresh=true"
        )


def make_sampler(plan: Plan, begun: int = 0) -> Any:
    """Build the sampler of the sweep's word. Raises UserError where its package is missing."""
    from dltrain.sweep.study import quiet

    node = {k: v for k, v in plan.settings.items() if k not in COMMON}

    try:
        with quiet():
            return plan.rights.door(plan.first.trust).build(node, "sweep", begun)
    except ImportError as error:
        raise UserError(f"sweep={plan.word} needs a package that is not installed: {error}") from None


def parquet_problem(table: Path) -> str:
    """Write results.parquet beside results.csv; return why it could not be written, or ""."""
    worker = pool.start(write_parquet, table)
    try:
        reason = str(worker.channel.recv())
    except EOFError:
        reason = "its process was killed"
    except BaseException:
        worker.kill()
        raise
    finally:
        worker.end()
    return reason


def conclude(driver: Driver, catalogue: Catalogue, missing: int, completed: bool) -> int:
    """Write and print the results; return the exit code."""
    plan, folder = driver.plan, driver.folder
    jobs = sorted(driver.jobs, key=lambda job: job.number)
    rows = rank(plan, jobs)
    notes = edges(plan, rows)
    best = winner(plan, rows)
    write_csv(plan, jobs, folder / "results.csv")
    if has_parquet() and (reason := parquet_problem(folder.resolve() / "results.csv")):
        notes.append(f"results.parquet could not be written ({reason}); results.csv holds the same")
    if best is not None:
        write_best(plan, rows[0], catalogue, folder / "best.yaml")
        add_to_record(folder, best=best.folder.name)
    notes += different_rates(rows)
    notes += mixed_notes([job for job in jobs if job.objective is not None])
    if best is not None and plan.test and missing == 0:
        notes.append(f"test split of the winner: {test_line(plan, rows[0].jobs)}")
    unfinished = why_unfinished(driver, completed) if missing else ""
    notes += notes_of(plan, jobs, folder, missing, unfinished)
    if missing and driver.leaving:
        notes.append(driver.backend.stays)
    failed = any(job.failed for job in jobs)
    write_report(plan, rows, jobs, notes, folder)
    # not before its results are there: the same command goes on with a sweep that is not finished
    add_to_record(folder, finished=missing == 0)
    manifest.write(folder, manifest.SWEEP_RECORDS)
    if failed or not plan.first.quiet:
        print_ranking(plan, rows, jobs, folder, notes)
    if not completed:
        return INTERRUPTED
    return SOME_FAILED if failed else 0


def add_to_record(folder: Path, **facts: object) -> None:
    """Write facts into sweep.json."""
    write(folder / RECORD, json.dumps(read_record(folder) | facts, indent=2) + "\n")


def why_unfinished(driver: Driver, completed: bool) -> str:
    """Return why jobs are missing."""
    if not completed:
        return "interrupted"
    if driver.failure is not None:
        return f"stopped at job {driver.failure.number}, which failed (sweep.fail_fast),"
    return "out of time" if driver.plan.settings["timeout"] is not None else "stopped"
