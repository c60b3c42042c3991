"""A sweep from the command line to its results: plan, folder, driver, report."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import lock_descriptor
from hydra.core.override_parser.types import Override

from dltrain.config.compose import check_words, compose, parse
from dltrain.config.door import Rights, rights_of_record, rights_of_user
from dltrain.config.schema import Config, objective_of, run_name
from dltrain.config.validation import check_axes, validate
from dltrain.errors import CheckpointProblem, FolderInUse, ResourceProblem, UserError
from dltrain.loggers.events import count
from dltrain.storage.folder_names import SWEEP_RECORD, check_files, check_writable, new_folder
from dltrain.storage.lock import owner_of
from dltrain.storage.summary import read_json
from dltrain.sweep import pool, space
from dltrain.sweep.composer import Composer
from dltrain.sweep.jobs import Job, write
from dltrain.sweep.live import display, print_ranking, print_table
from dltrain.sweep.memory import check_memory
from dltrain.sweep.plan import HOW, Plan, check_all, make_plan
from dltrain.sweep.report import write_report
from dltrain.sweep.results import edges, rank, winner, write_best, write_csv, write_parquet
from dltrain.sweep.slots import Slot, gpus_for, slots_of
from dltrain.training.signals import EXIT_CODES

if TYPE_CHECKING:
    from dltrain.config.catalogue import Catalogue
    from dltrain.config.hydra_private import Hydra

SOME_FAILED, INTERRUPTED = 7, 130


def run_sweep(texts: list[str], config_name: str, command: str, catalogue: Catalogue, hydra: Hydra) -> int:
    """Check everything, then run what is missing; the exit code of TRUST.md's table."""
    asked, texts, recorded = resumed_texts(texts)
    rights = rights_of_record(catalogue, recorded) if recorded is not None else rights_of_user(catalogue)
    plan = read_plan(texts, config_name, catalogue, hydra, rights)
    if asked is None:
        check_writable(plan.first.output)
    else:
        check_equal(asked, plan)
    if not plan.settings["dry_run"]:
        pool.warm_up()  # torch is imported there while the configurations are checked here
    if plan.settings["dry_run"]:
        return dry_run(plan, len(check_all(plan)))
    slots = places(plan)
    if asked is not None:
        check_scale_of(asked, plan)
    folder = asked or folder_for(plan)
    with told_of_faults(folder), locked(folder):
        return drive(plan, folder, slots, texts, command, catalogue)


@contextmanager
def told_of_faults(folder: Path) -> Iterator[None]:
    """A disk that gives out ends the sweep in words. Raises ResourceProblem."""
    try:
        yield
    except BrokenPipeError:  # of the terminal: the doorway's business
        raise
    except (OSError, ResourceProblem) as error:
        raise ResourceProblem(
            f"the sweep had to stop: {str(error).splitlines()[0]}\n"
            f"What is done is kept. Mend that, then go on: dltrain -m sweep.resume={folder}"
        ) from None


def places(plan: Plan) -> list[Slot]:
    """Check every configuration, and that those which share a GPU can; the places where jobs will run."""
    configs = check_all(plan)
    gpus = gpus_for(plan.first.device)
    slots = slots_of(plan.settings, [*gpus], plan.trials * len(plan.replicates))
    check_memory(slots, min(gpus.values(), default=0), configs, plan.rights)
    return slots


# Planning ---------------------------------------------------------------------------------------------------------


def read_plan(texts: list[str], config_name: str, catalogue: Catalogue, hydra: Hydra, rights: Rights) -> Plan:
    """The plan of a command line, with its first configuration composed and validated."""
    parsed = parse(texts, hydra.config_loader)
    check_words(parsed, catalogue)
    check_axes(o.key_or_group for o in parsed if o.is_sweep_override())
    first = compose([first_of(o) for o in parsed], catalogue, hydra, config_name)
    config = validate(first)
    rights.door(config.trust).check_names(config.plain)
    return make_plan(parsed, first, config, Composer(catalogue, hydra, config_name), rights)


def first_of(override: Override) -> str:
    """The override with the first value of its axis."""
    if not override.is_sweep_override():
        return str(override.input_line)
    if override.key_or_group.split(".")[0] == "sweep":
        raise UserError(
            f"`{override.input_line}`: how the sweep runs cannot be an axis of it. Give one value."
        )
    axis = space.axis_of(override)
    if axis.options:
        return axis.options[0][1][0]
    return f"{axis.name}={int(axis.low) if axis.whole else axis.low!r}"


def dry_run(plan: Plan, checked: int) -> int:
    """Print the jobs of a grid, or the axes of a search, and stop."""
    if plan.configurations is None:
        for axis in plan.axes:
            values = ", ".join(axis.labels) or f"{axis.low:g} … {axis.high:g}{' (log)' if axis.log else ''}"
            print(f"{axis.name}: {values}")
        runs = plan.trials * len(plan.replicates)
        print(
            f"sweep={plan.word}: {runs} jobs at most; {checked} configurations with every value checked; nothing was run"
        )
        return 0
    jobs = [
        job for i, chosen in enumerate(plan.configurations) for job in plan.jobs(i, chosen, Path("SWEEP"))
    ]
    print_table(plan, sorted(jobs, key=lambda job: job.number))
    print(f"\n{len(jobs)} jobs, all composed and valid; nothing was run")
    return 0


# The folder, and resuming -----------------------------------------------------------------------------------------


def resumed_texts(texts: list[str]) -> tuple[Path | None, list[str], list[str] | None]:
    """The folder of `sweep.resume`, if given; the overrides to plan; and the user's own, where others come from the folder.

    The folder may come from elsewhere: its overrides have the rights of a record, not those of the command line.
    """
    given = [t for t in texts if t.startswith("sweep.resume=") and t != "sweep.resume=null"]
    if not given:
        return None, texts, None
    folder = Path(given[-1].partition("=")[2].strip("'\""))
    check_files(folder)
    record = read_record(folder)
    how = tuple(f"sweep.{key}=" for key in HOW)
    rest = [t for t in texts if not t.startswith("sweep.resume=")]
    if any(not t.startswith((*how, "trust=")) for t in rest):
        return folder, rest, None
    then = [t for t in record["overrides"] if not t.startswith(how)]
    check_recorded(folder, then)
    if any(t.startswith("trust=") for t in rest):
        then = [t for t in then if not t.startswith("trust=")]
    return folder, then + rest, rest


def check_recorded(folder: Path, texts: list[str]) -> None:
    """Refuse recorded overrides of Hydra's node: `hydra.searchpath` could import a package while composing."""
    for text in texts:
        if re.match(r"[+~]*hydra\b", text):
            raise CheckpointProblem(
                f"{folder / SWEEP_RECORD} holds `{text[:80]}`: what is set for Hydra is not taken from a record.\n"
                f"Repeat the whole command of that sweep, with sweep.resume={folder}"
            )


def read_record(folder: Path) -> dict[str, Any]:
    """sweep.json of a sweep. Raises CheckpointProblem when the folder is not that of a sweep."""
    try:
        record = read_json(folder / SWEEP_RECORD)
    except OSError:
        raise CheckpointProblem(
            f"`sweep.resume` is {folder}, which is not the folder of a sweep: it has no {SWEEP_RECORD}."
        ) from None
    except ValueError as error:
        raise CheckpointProblem(f"{folder / SWEEP_RECORD} cannot be read: {str(error)[:200]}") from None
    identity, overrides = record.get("identity"), record.get("overrides")
    if not (
        is_identity(identity)
        and isinstance(overrides, list)
        and all(isinstance(text, str) for text in overrides)
    ):
        raise CheckpointProblem(f"{folder / SWEEP_RECORD} is no record of a sweep.")
    return record


def is_identity(value: Any) -> bool:
    """Whether a value has the form of Plan.identity."""
    if not isinstance(value, dict):
        return False
    forms = {"sweep": str, "fixed": list, "axes": list, "settings": dict, "test": bool}
    return all(isinstance(value.get(key), form) for key, form in forms.items()) and all(
        isinstance(axis, dict) and {"name", "options", "low", "high"} <= axis.keys() for axis in value["axes"]
    )


def same(then: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two identities are of one sweep; whom the user trusts changes no result."""
    return untrusted(then) == untrusted(now)


def untrusted(identity: dict[str, Any]) -> dict[str, Any]:
    fixed = [text for text in identity["fixed"] if not str(text).startswith("trust=")]
    return {**identity, "fixed": fixed}


def check_equal(folder: Path, plan: Plan) -> None:
    """Refuse to go on with a sweep over other axes. Raises UserError with the differences."""
    record = read_record(folder)
    then, now = record["identity"], json.loads(json.dumps(plan.identity()))
    if same(then, now):
        check_modes(folder, record, plan)
        return
    differences = "; ".join(
        difference(key, then.get(key), now.get(key)) for key in now if then.get(key) != now.get(key)
    )
    raise UserError(
        f"{folder} is a sweep over something else, so its results would not belong to this one:\n{differences}.\n"
        f"Go on with it as it is: dltrain -m sweep.resume={folder}. Or leave sweep.resume out for a new sweep."
    )


def check_scale_of(folder: Path, plan: Plan) -> None:
    """Refuse to go on with a sweep of an earlier version whose results are on another scale. Raises CheckpointProblem."""
    if is_on_another_scale(read_record(folder), plan):
        raise CheckpointProblem(
            f"{folder} was begun by an earlier version, whose val/loss depends on the kind of loss, label smoothing and class "
            "weights; it no longer does, so that its jobs and new ones would not compare.\n"
            "Begin a new sweep: leave sweep.resume out"
        )


def is_on_another_scale(record: dict[str, Any], plan: Plan) -> bool:
    """Whether the results of an unfinished sweep do not compare with those that its missing jobs would have now.

    Before sweep.json said `"loss": "plain"`, val/loss was that of the loss that is minimized, which means the same today
    for the default loss only.
    """
    if record.get("loss") == "plain" or record.get("finished"):
        return False
    default = objective_of(plan.composer.config([]))
    return any(loss != default for loss in plan.losses)


def modes_of(record: dict[str, Any], plan: Plan) -> list[str]:
    """The directions of a sweep that was begun; before they were written down, all were lower unless `mode` said otherwise."""
    former = plan.first.early_stopping.get("mode")
    single = former if former in ("min", "max") else "min"
    return list(record.get("modes") or ["min"] * len(plan.objectives) or [single])


def check_modes(folder: Path, record: dict[str, Any], plan: Plan) -> None:
    """Refuse to go on with a sweep of an earlier version that took lower values of an accuracy for better."""
    if modes_of(record, plan) != plan.modes:
        names = ", ".join(plan.objectives or [plan.metric])
        raise UserError(
            f"{folder} was begun by an earlier version, which took lower values of {names} for better: its results cannot be "
            f"continued in the right direction.\nStart a new sweep: leave sweep.resume out, and add sweep.fresh=true"
        )


def difference(key: str, then: Any, now: Any) -> str:
    """One difference in words; axes by name and values."""
    if key == "axes":
        old, new = ({a["name"]: _values(a) for a in axes} for axes in (then or [], now))
        changed = [n for n in {**old, **new} if old.get(n) != new.get(n)]
        return (
            "; ".join(f"axis {n} was {old.get(n, 'absent')}, is {new.get(n, 'absent')}" for n in changed)
            or "axes in another order"
        )
    if key == "settings":
        changed = [k for k in {**then, **now} if then.get(k) != now.get(k)]
        return "; ".join(f"sweep.{k} was {then.get(k)}, is {now.get(k)}" for k in changed)
    if key == "fixed":
        return f"only then: {' '.join(set(then) - set(now)) or 'nothing'}, only now: {' '.join(set(now) - set(then)) or 'nothing'}"
    return f"{key} was {then}, is {now}"


def _values(axis: dict[str, Any]) -> str:
    return ",".join(label for label, _ in axis["options"]) or f"{axis['low']:g} … {axis['high']:g}"


def folder_for(plan: Plan) -> Path:
    """The newest unfinished sweep of this name with the same axes, else a new folder; says which."""

    identity = json.loads(json.dumps(plan.identity()))
    parent = Path(plan.first.output) / run_name(plan.first)
    if not plan.settings["fresh"]:
        for file in sorted(parent.glob(f"*/{SWEEP_RECORD}"), reverse=True):
            if is_unfinished(file, identity, plan) and not is_on_another_scale(
                read_record(file.parent), plan
            ):
                check_files(file.parent)
                _say(
                    plan,
                    f"going on with the unfinished sweep {file.parent} (for a new one: sweep.fresh=true)",
                )
                return file.parent
    folder = new_folder(plan.first.output, run_name(plan.first))
    _say(plan, f"new sweep {folder}")
    return folder


def is_unfinished(file: Path, identity: dict[str, Any], plan: Plan) -> bool:
    """Whether a sweep.json is that of an equal sweep with jobs to go."""
    try:
        record = read_json(file)
        equal = is_identity(record["identity"]) and same(record["identity"], identity)
        return bool(equal and modes_of(record, plan) == plan.modes and not record["finished"])
    except (OSError, ValueError, KeyError, TypeError):  # somebody else's, or damaged: not to be gone on with
        return False


def _say(plan: Plan, text: str) -> None:
    if not plan.first.quiet:
        print(text, flush=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system frees when the driver dies. Raises FolderInUse."""
    with open(folder / "sweep.lock", "a+", encoding="utf-8") as file:
        if not lock_descriptor(file.fileno(), blocking=False):
            raise FolderInUse(
                f"{folder} is being run by {owner_of(file)}. Wait for it to end, or stop it; for a second sweep over the same: "
                "sweep.fresh=true"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
        file.flush()
        yield


# Running ----------------------------------------------------------------------------------------------------------


def drive(
    plan: Plan, folder: Path, slots: list[Slot], texts: list[str], command: str, catalogue: Catalogue
) -> int:
    """Run what is missing and report; everything is in the folder before the first job starts."""
    from dltrain.sweep.driver import Driver
    from dltrain.sweep.study import Direction, Listed, Study

    record = {
        "identity": plan.identity(),
        "loss": "plain",
        "modes": plan.modes,
        "overrides": texts,
        "command": command,
        "begun": datetime.now().astimezone().isoformat(timespec="seconds"),
        "finished": False,
    }
    if (folder / SWEEP_RECORD).is_file():
        record["begun"] = read_record(folder).get("begun", record["begun"])
    write(folder / SWEEP_RECORD, json.dumps(record, indent=2) + "\n")
    grid = plan.configurations
    sampler = Listed(grid) if grid is not None else make_sampler(plan)
    directions: list[Direction] = ["minimize" if mode == "min" else "maximize" for mode in plan.modes]
    study = Study(folder, plan.search_axes, sampler, directions)
    if grid is None:
        check_remembered(plan, folder, len(study.trials()))
        study.use_sampler(make_sampler(plan, len(study.trials())))
    total = plan.trials * len(plan.replicates)
    show = display(total, plan.first.quiet, plan.mode)
    begun = time.monotonic()
    driver = Driver(plan, study, folder, slots, plan.rights, command, show)
    if driver.jobs:
        done = sum(job.is_done for job in driver.jobs)
        _say(plan, f"{done} of {total} jobs are done already")
        if hasattr(show, "ended"):
            show.ended = done
    try:
        completed = driver.run()
    finally:
        show.close()
    missing = total - sum(job.is_done for job in driver.jobs)
    record |= {"finished": missing == 0, "seconds": round(time.monotonic() - begun, 3)}
    write(folder / SWEEP_RECORD, json.dumps(record, indent=2) + "\n")
    code = conclude(plan, folder, driver.jobs, catalogue, missing, completed)
    return code if driver.received is None else EXIT_CODES[driver.received]


def check_remembered(plan: Plan, folder: Path, trials: int) -> None:
    """Raise CheckpointProblem where a search has jobs that its study does not know: new trials would get their results."""
    numbers = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    unknown = [n for n in numbers if n >= trials * len(plan.replicates)]
    if unknown:
        raise CheckpointProblem(
            f"{folder / 'study.log'} does not know job {min(unknown)}, which is there: it was deleted, or is an older copy, "
            "and with it went what the search has tried.\nPut it back, or begin a new sweep: sweep.fresh=true"
        )


def make_sampler(plan: Plan, begun: int = 0) -> Any:
    """The sampler of the word, through the trusted door. Raises UserError where its package is missing."""
    from dltrain.sweep.plan import COMMON

    node = {k: v for k, v in plan.settings.items() if k not in (*COMMON, "trials")}
    from dltrain.sweep.study import quiet

    try:
        with quiet():
            return plan.rights.door(plan.first.trust).build(node, "sweep", begun)
    except ImportError as error:
        raise UserError(f"sweep={plan.word} needs a package that is not installed: {error}") from None


def conclude(
    plan: Plan,
    folder: Path,
    jobs: list[Job],
    catalogue: Catalogue,
    missing: int,
    completed: bool,
) -> int:
    """Write and print what was learned; the exit code."""
    jobs = sorted((job for job in jobs), key=lambda job: job.number)
    rows = rank(plan, jobs)
    notes = edges(plan, rows)
    best = winner(plan, rows)
    write_csv(plan, jobs, folder / "results.csv")
    write_parquet(folder / "results.csv")
    if best is not None:
        write_best(plan, best, catalogue, folder / "best.yaml")
    if best is not None and plan.test and missing == 0:
        scores = test_scores(plan, best)
        notes.append("test split of the winner: " + ", ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    failed = [job for job in jobs if job.failed]
    if failed and len(failed) == len(jobs):
        notes.append(f"every job failed; the first, job {failed[0].number}: {failed[0].reason}")
    reused = sum("reused" in job.summary for job in jobs)
    if reused:
        notes.append(
            f"{count(reused, 'job')} not run again: taken over from finished runs (`reused` in summary.json)."
        )
    if missing and not completed:
        notes.append(
            f"interrupted with {missing} jobs to go. The same command goes on, or: dltrain -m sweep.resume={folder}"
        )
    elif missing:
        notes.append(
            f"out of time with {missing} jobs to go. The same command goes on, or: dltrain -m sweep.resume={folder}"
        )
    write_report(plan, rows, jobs, notes, folder)
    if failed or not plan.first.quiet:
        print_ranking(plan, rows, jobs, folder, notes)
    if not completed:
        return INTERRUPTED
    return SOME_FAILED if failed else 0


def test_scores(plan: Plan, best: Job) -> dict[str, float]:
    """Score the winner's test split, once, and write it into its summary."""
    from dltrain.sweep.job import score_winner

    if best.summary.get("test"):
        return dict(best.summary["test"])
    config: Config = plan.composer.config(best.overrides)
    worker = pool.start(score_winner, str(best.folder.resolve()), config, plan.rights, str(Path.cwd()))
    try:
        scores = worker.channel.recv() or {}
    except EOFError:
        scores = {}
    worker.end()
    best.summary["test"] = scores
    write(best.folder / "summary.json", json.dumps(best.summary, indent=2, default=str) + "\n")
    return scores
