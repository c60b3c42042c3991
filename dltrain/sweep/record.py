"""sweep.json: what was asked of a sweep, and whether a command may continue it."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from dltrain.config.schema import objective_of
from dltrain.errors import CheckpointProblem, UserError, assigned, typed
from dltrain.storage.folder_names import SWEEP_RECORD as RECORD
from dltrain.storage.summary import read_json
from dltrain.sweep.begun import check_folder
from dltrain.sweep.jobs import write
from dltrain.sweep.plan import sources, space
from dltrain.sweep.plan.extension import extends, keep_numbers
from dltrain.sweep.plan.plan import HOW, Plan
from dltrain.sweep.reuse import weighty

# what may be given alone beside `sweep.resume`, to extend the sweep, as may the axes that it has
GROWING = ("sweep.trials", "sweep.seeds", "seed")
_KEY = re.compile(r"[\w$%./@:-]+")


def resumed_texts(texts: list[str]) -> tuple[Path | None, list[str], list[str] | None]:
    """Return the folder of `sweep.resume`, if given; the overrides to plan; the user's own, where others are of the folder.

    The folder may come from elsewhere: its overrides have the rights of a record, not those of the command line.
    """
    given = [t for t in texts if t.startswith("sweep.resume=") and t != "sweep.resume=null"]
    if not given:
        return None, texts, None
    folder = Path(given[-1].partition("=")[2].strip("'\""))
    check_folder(folder)
    record = read_record(folder)
    rest = [t for t in texts if not t.startswith("sweep.resume=")]
    growing = {*GROWING, *(str(axis["name"]) for axis in record["identity"]["axes"])}
    if any(not sets_how(t) and key_of(t) not in {*growing, "trust"} for t in rest):
        return folder, rest, None
    replaced = {key_of(t) for t in rest} & growing
    if {"seed", "sweep.seeds"} & replaced:
        # two ways to say which seeds
        replaced |= {"seed", "sweep.seeds"}
    then = [t for t in record["overrides"] if not sets_how(t) and key_of(t) not in replaced]
    check_recorded(folder, then)
    if any(key_of(t) == "trust" for t in rest):
        then = [t for t in then if key_of(t) != "trust"]
    return folder, then + rest, rest


def key_of(text: str) -> str:
    """Return the key that an override adds, changes or removes, as it is written: `a.b` or `group/sub@package`."""
    return text.strip().lstrip("+~").partition("=")[0].strip()


def sets_how(text: str) -> bool:
    """Return whether an override says how a sweep runs, of which a record decides nothing."""
    path = key_of(text).replace("/", ".")
    return any(path == f"sweep.{key}" or path.startswith(f"sweep.{key}.") for key in HOW)


def check_recorded(folder: Path, texts: list[str]) -> None:
    """Refuse recorded overrides of Hydra's node, whose `hydra.searchpath` could import a package while composing.

    Refuse also those that would put something among the settings of the sweep by another way than their name.
    """
    for text in texts:
        key = key_of(text)
        roots = [re.split(r"[./]", part)[0] for part in re.split("[@:]", key)]
        is_node = roots == ["sweep"] and "{" in text.partition("=")[2]
        if roots[0] == "hydra" or {"hydra", "sweep"} & set(roots[1:]) or is_node or not _KEY.fullmatch(key):
            what = "how the sweep runs" if "sweep" in roots else "what is set for Hydra"
            raise CheckpointProblem(
                f"{folder / RECORD} holds `{text[:80]}`: {what} is not taken from a record.\n"
                f"Repeat the whole command of that sweep, with {shlex.quote(assigned('sweep.resume', folder))}"
            )


def read_record(folder: Path) -> dict[str, Any]:
    """Return sweep.json of a sweep. Raises CheckpointProblem when the folder is not that of a sweep."""
    try:
        record = read_json(folder / RECORD)
    except OSError:
        raise CheckpointProblem(
            f"`sweep.resume` is {folder}, which is not the folder of a sweep: it has no {RECORD}."
        ) from None
    except ValueError as error:
        raise CheckpointProblem(f"{folder / RECORD} cannot be read: {str(error)[:200]}") from None
    identity, overrides = record.get("identity"), record.get("overrides")
    if not (
        is_identity(identity)
        and isinstance(overrides, list)
        and all(isinstance(text, str) for text in overrides)
    ):
        raise CheckpointProblem(f"{folder / RECORD} is no record of a sweep.")
    return record


def is_identity(value: object) -> bool:
    """Return whether a value has the form of Plan.identity."""
    if not isinstance(value, dict):
        return False
    forms = {"sweep": str, "fixed": list, "axes": list, "settings": dict, "test": bool}
    return all(isinstance(value.get(key), form) for key, form in forms.items()) and all(
        map(is_axis, value["axes"])
    )


def is_axis(value: object) -> bool:
    """Return whether a value has the form of an axis of `space.to_plain`."""
    if not isinstance(value, dict) or not {"name", "options", "low", "high"} <= value.keys():
        return False
    axis = {"log": False, "whole": False, "when": {}} | value
    numbers, texts = (axis["low"], axis["high"]), [axis["name"]]
    if not isinstance(axis["options"], list) or not isinstance(axis["when"], dict):
        return False
    for option in (*axis["options"], *axis["when"].items()):
        if not (isinstance(option, list | tuple) and len(option) == 2 and isinstance(option[1], list)):
            return False
        texts += [option[0], *option[1]]
    return (
        value.keys() <= {field.name for field in fields(space.Axis)}
        and all(isinstance(text, str) for text in texts)
        and all(type(number) in (int, float) for number in numbers)
        and type(axis["log"]) is type(axis["whole"]) is bool
    )


def same(then: dict[str, Any], now: dict[str, Any]) -> bool:
    """Return whether two identities are of one sweep, files aside; `trust` changes no result."""
    return asked_in(then) == asked_in(now)


def asked_in(identity: dict[str, Any]) -> dict[str, Any]:
    """Return what the command line asked for."""
    fixed = [text for text in identity["fixed"] if not str(text).startswith("trust=")]
    return {key: value for key, value in identity.items() if key != "files"} | {"fixed": fixed}


def edits_since(record: dict[str, Any], plan: Plan) -> tuple[str, list[str]]:
    """Return what differs, files or defaults, from those that a sweep was begun with, and how; earlier versions recorded neither."""
    then = record["identity"].get("files")
    if isinstance(then, dict) and (edits := sources.changes(then, plan.files)):
        return "files", edits
    first, now = record.get("first"), first_of(plan, stages_of(record)[0])
    if not isinstance(first, dict) or not first or not now:
        return "", []
    keys = [key for key in {**first, **now} if first.get(key) != now.get(key)]
    shown = [f"{key} was {first.get(key)}, is {now.get(key)}" for key in keys]
    return "defaults", shown[:5] + [f"{len(shown) - 5} more"] * (len(shown) > 5)


def first_of(plan: Plan, identity: dict[str, Any]) -> dict[str, Any]:
    """Return the composed configuration of the first job of a sweep of some identity; empty for one with secrets.

    With the axes it stands for those of all jobs: what changes it, such as another default of a newer dltrain, changes them.
    """
    known = {axis.name: axis for axis in plan.axes}
    values = next(space.corners(space.from_plain(identity["axes"])), {})
    values = {name: value for name, value in values.items() if name in known and known[name].holds(value)}
    config = plan.composer.config(plan.overrides(values))
    found: dict[str, Any] = json.loads(json.dumps(weighty(config.plain), default=str))
    return {} if config.secrets else found


def check_files_of(folder: Path, plan: Plan) -> None:
    """Refuse to continue a sweep after an edit of its files. Raises UserError with the files."""
    what, edits = edits_since(read_record(folder), plan)
    cure = {"files": "Put them back", "defaults": "Use the dltrain that began it"}
    if edits:
        raise UserError(
            f"{folder} was begun with other {what}, so its results would not belong to this one: {'; '.join(edits)}.\n"
            f"{cure[what]}, or begin a new sweep: leave sweep.resume out"
        )


def check_equal(folder: Path, plan: Plan) -> None:
    """Refuse to continue a sweep over other axes. Raises UserError with the differences."""
    record = read_record(folder)
    then, now = record["identity"], json.loads(json.dumps(plan.identity()))
    if same(then, now) or extends(plan, then):
        check_modes(folder, record, plan)
        return
    differences = "; ".join(
        difference(key, then.get(key), now.get(key))
        for key in now
        if key != "files" and then.get(key) != now.get(key)
    )
    raise UserError(
        f"{folder} is a sweep over something else, so its results would not belong to this one:\n{differences}.\n"
        f"Go on with it as it is: {typed('-m', assigned('sweep.resume', folder))}. Or leave sweep.resume out for a new sweep."
    )


def check_scale_of(folder: Path, plan: Plan) -> None:
    """Refuse to continue a sweep of an earlier version whose results are on another scale. Raises CheckpointProblem."""
    if is_on_another_scale(read_record(folder), plan):
        raise CheckpointProblem(
            f"{folder} was begun by an earlier version, whose val/loss depends on the kind of loss, label smoothing and class "
            "weights; it no longer does, so that its jobs and new ones would not compare.\n"
            "Begin a new sweep: leave sweep.resume out"
        )


def is_on_another_scale(record: dict[str, Any], plan: Plan) -> bool:
    """Return whether the results of an unfinished sweep do not compare with those that its missing jobs would have now.

    Before sweep.json said `"loss": "plain"`, val/loss was that of the loss that is minimized, which means the same today
    for the default loss only.
    """
    if record.get("loss") == "plain" or record.get("finished"):
        return False
    default = objective_of(plan.composer.config([]))
    return any(loss != default for loss in plan.losses)


def modes_of(record: dict[str, Any], plan: Plan) -> list[str]:
    """Return the directions of a sweep that was begun; before they were written down, all were lower unless `mode` said otherwise."""
    former = plan.first.early_stopping.get("mode")
    single = former if former in ("min", "max") else "min"
    return list(record.get("modes") or ["min"] * len(plan.objectives) or [single])


def check_modes(folder: Path, record: dict[str, Any], plan: Plan) -> None:
    """Refuse to continue a sweep of an earlier version that took lower values of an accuracy for better."""
    if modes_of(record, plan) != plan.modes:
        names = ", ".join(plan.objectives or [plan.metric])
        raise UserError(
            f"{folder} was begun by an earlier version, which took lower values of {names} for better: its results cannot be "
            f"continued in the right direction.\nStart a new sweep: leave sweep.resume out, and add sweep.fresh=true"
        )


def difference(key: str, then: Any, now: Any) -> str:
    """Return one difference as text; axes by name and values."""
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


def is_unfinished(file: Path, identity: dict[str, Any], plan: Plan) -> bool:
    """Return whether a sweep.json is that of an equal sweep with missing jobs."""
    try:
        record = read_json(file)
        equal = is_identity(record["identity"]) and same(record["identity"], identity)
        return bool(equal and modes_of(record, plan) == plan.modes and not record["finished"])
    except (OSError, ValueError, KeyError, TypeError):  # of another program, or damaged
        return False


def number_jobs(plan: Plan, folder: Path) -> list[dict[str, Any]]:
    """Give the jobs of a grid the numbers that they have in a folder; return the identities of the sweep before this one.

    A sweep that was extended has one identity for each time, the first one first.
    """
    if plan.configurations is None or not (folder / RECORD).is_file():
        return []
    stages = stages_of(read_record(folder))
    if same(stages[-1], json.loads(json.dumps(plan.identity()))):
        stages.pop()
    keep_numbers(plan, stages)
    return stages


def stages_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the identities that a sweep had, one for each time that it was extended, and the present one."""
    return [*(stage for stage in record.get("stages") or [] if is_identity(stage)), record["identity"]]


def record_of(
    plan: Plan, folder: Path, texts: list[str], command: str, stages: list[dict[str, Any]]
) -> dict[str, Any]:
    """Write sweep.json, before the first job starts, and return its content."""
    record = {
        "identity": plan.identity(),
        "stages": stages,
        "first": first_of(plan, (stages or [plan.identity()])[0]),
        "loss": "plain",
        "modes": plan.modes,
        "overrides": texts,
        "command": command,
        "begun": datetime.now().astimezone().isoformat(timespec="seconds"),
        "finished": False,
    }
    if (folder / RECORD).is_file():
        former = read_record(folder)
        record |= {key: former[key] for key in ("begun", "command", "first") if key in former}
    write(folder / RECORD, json.dumps(record, indent=2) + "\n")
    return record
