"""Checks of Hydra's own node: Hydra builds callbacks and loggers from it before any code of ours runs.

Only plain values are allowed. Text that is replaced when it is used (`${oc.create:…}`, a link to another node) is
refused, so that Hydra gets exactly what is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dltrain.config.door import Door, in_working_folder
from dltrain.errors import UserError, nearest

Path = tuple[str, ...]

CALLBACKS = frozenset(
    f"hydra.experimental.callbacks.{name}" for name in ("LogJobReturnCallback", "PickleJobInfoCallback")
)
HANDLERS = frozenset(["logging.FileHandler", "logging.StreamHandler", "logging.NullHandler"])
FORMATTERS = frozenset(["logging.Formatter", "colorlog.ColoredFormatter"])
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
HANDLER_KEYS = frozenset("class level formatter filters filename mode encoding delay errors stream".split())
FORMATTER_KEYS = frozenset(
    "class () format fmt datefmt style validate log_colors reset secondary_log_colors".split()
)
# These cannot be set: they keep the value of conf/config.yaml, the first, or that of Hydra alone (`--hydra-help`).
FIXED: dict[Path, tuple[Any, ...]] = {
    ("sweep", "subdir"): ("${hydra:job.num}", "${hydra.job.num}"),
    ("job", "chdir"): (False, None),
    ("job", "env_set"): ({},),
    ("job", "env_copy"): ([],),
}

# Hydra's defaults; neither runs, since `dltrain -m` is a sweep of dltrain's.
PLUGINS: dict[Path, str] = {
    ("launcher", "_target_"): "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    ("sweeper", "_target_"): "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
}
_PLUGIN = re.compile(r"[+~]*hydra[/.](sweeper|launcher)\b")

# Allowed links: each refers to a text, by Hydra's schema.
_LINK = re.compile(
    r"\$\{(?:hydra[.:](?:job\.(?:name|num|id|config_name)|run\.dir|sweep\.(?:dir|subdir)"
    r"|runtime\.(?:output_dir|cwd|version)|help\.(?:app_name|header|footer))|now:[-%\w:.]*)\}"
)
# the overrides as text, which Hydra only records
_RECORDS = (("job", "override_dirname"),)
# of `hydra.run.dir` and `hydra.sweep.dir`
_BASE_FOLDER = re.compile(r"\$\{output\}/")
_IN_RUN_FOLDER = re.compile(r"\$\{hydra[.:]runtime\.output_dir\}/(.+)")
_FIELD = re.compile(r"%\((\w+)\)[-#0+ ]*\d{0,3}(?:\.\d{1,3})?[a-zA-Z]|%%")


def check_hydra_node(cfg: DictConfig, trust: list[str]) -> None:
    """Raise UserError for a value of `cfg.hydra` that could run code or write outside the run folder, or could hide either.

    `trust`: modules that the user named on the command line; their classes may be built.
    """
    if OmegaConf.is_interpolation(cfg, "hydra"):
        raise UserError("`hydra` is a link to another node. Write its keys and values.")
    plain = OmegaConf.to_container(cfg.hydra, resolve=False)
    assert isinstance(plain, dict)
    node = {str(key): value for key, value in plain.items()}
    leaves = list(_leaves(node))
    for path, value in leaves:
        _check_text(path, value)
    _check_fixed(node)
    _check_below("output_subdir", node.get("output_subdir"))
    _check_below("job.name", (node.get("job") or {}).get("name"))
    for log in ("job_logging", "hydra_logging"):
        _check_logging(node.get(log) or {}, (log,), trust)
    for path, value in leaves:
        if path[-1] == "_target_":
            _check_target(path, value, trust)


def check_plugins(overrides: Iterable[str], file: str = "") -> None:
    """Raise UserError for an override, or an entry of a file's defaults list, that sets Hydra's sweeper or launcher."""
    for text in overrides:
        if match := _PLUGIN.match(text):
            where = f"{file}: " if file else ""
            raise UserError(
                f"{where}`{text[:80]}`: dltrain runs its sweeps itself, so Hydra's {match[1]} cannot be set.\n"
                "Choose how jobs run by sweep.backend=local, and how configurations are searched by sweep=tpe"
            )


def check_search_path(primary: Any, name: str) -> None:
    """Raise UserError where a configuration file sets `hydra.searchpath`: `pkg://` in it would import a package."""
    if OmegaConf.is_config(primary) and OmegaConf.select(primary, "hydra.searchpath") is not None:
        raise UserError(
            f"`hydra.searchpath` is set in {name}.yaml; it holds on the command line only.\n"
            "If you trust those folders, say so: 'hydra.searchpath=[file://FOLDER]'"
        )


def _leaves(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value below a node that is neither a mapping nor a list, with its path."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, (*path, str(key)))
    else:
        yield path, node


def _refuse(path: Path, value: Any, rule: str) -> UserError:
    return UserError(f"`hydra.{'.'.join(path)}` is {str(value)[:80]!r}; {rule}")


def _check_text(path: Path, value: Any) -> None:
    """Refuse text that Hydra or logging would replace by something else."""
    if not isinstance(value, str) or path[0] == "overrides" or path in _RECORDS:
        return
    base = path in (("run", "dir"), ("sweep", "dir"))
    rest = _LINK.sub("", _BASE_FOLDER.sub("", value) if base else value)
    if "${" in rest:
        raise _refuse(path, value, "Hydra's node takes plain values. Write the value itself.")
    if value.startswith(("ext://", "cfg://")) and value not in STREAMS:
        raise _refuse(path, value, f"it must be one of {', '.join(STREAMS)}.")


def _check_fixed(node: dict[str, Any]) -> None:
    for (parent, key), values in FIXED.items():
        value = (node.get(parent) or {}).get(key, values[0])
        if value not in values:
            cure = {
                "env_set": "Set the variable for the process: NAME=VALUE dltrain …",
                "env_copy": "The environment of the process is there already: leave it out.",
                "chdir": "A run stays in the folder where it was started: leave it out.",
                "subdir": "A run's folder is OUTPUT/NAME/DATE_TIME-SUFFIX: write output=FOLDER or name=NAME",
            }[key]
            shown = (
                "" if parent == "job" else f"; it is {str(value)[:80]}"
            )  # the environment may hold secrets
            raise UserError(f"`hydra.{parent}.{key}` cannot be set{shown}.\n{cure}")


def _check_below(key: str, value: Any) -> None:
    """Refuse a name that could lead out of the run folder."""
    if value is None or value == "???":
        return
    if not isinstance(value, str) or not _is_below(value):
        raise _refuse(tuple(key.split(".")), value, "it must be the name of a folder below the run folder.")


def _is_below(text: str) -> bool:
    """Return whether a relative path of plain names stays below its folder."""
    parts = PurePosixPath(text).parts
    return bool(parts) and not text.startswith("/") and ".." not in parts and not set(text) & set("$\\\0\n:")


def _check_target(path: Path, name: Any, trust: list[str]) -> None:
    """Refuse a `_target_` that is neither Hydra's, nor trusted, nor defined in the working folder."""
    text, key = str(name), ".".join(path)
    module = text.rpartition(".")[0]
    if PLUGINS.get(path) == text:
        return
    allowed = CALLBACKS if path[0] == "callbacks" else ()
    if text in allowed or _trusted(module, trust):
        return
    if path[0] == "callbacks" and in_working_folder(module):
        # A name imported into the user's module, such as `from os import system`, is not the user's code.
        Door(set(), trust).locate(name, f"hydra.{key.removesuffix('._target_')}")
        return
    raise UserError(
        f"`hydra.{key}` is {text[:80]}, which Hydra would import and run.{nearest(text, allowed)}\n"
        f"If you trust that code, say so: trust=[{text.split('.')[0][:80]}]"
    )


def _trusted(module: str, trust: list[str]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in trust)


# Logging ----------------------------------------------------------------------------------------------------------


def _check_logging(config: Any, path: Path, trust: list[str]) -> None:
    """Restrict handlers and formatters to known classes and arguments; filters and other factories to trusted ones."""
    if not isinstance(config, dict):
        raise _refuse(path, config, "it must be keys with their values.")
    for section, entries in config.items():
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            here = (*path, str(section), str(name))
            if section == "handlers":
                _check_handler(entry, here, trust)
            elif section == "formatters":
                _check_formatter(entry, here, trust)
            else:
                _check_no_factory(entry, here, trust)


def _check_handler(entry: Any, path: Path, trust: list[str]) -> None:
    if not isinstance(entry, dict):
        raise _refuse(path, entry, "it must be keys with their values.")
    if "filename" in entry:
        _check_log_file(entry["filename"], (*path, "filename"))
    if not _check_class(entry, ("class",), HANDLERS, path, trust):
        return
    _check_keys(entry, HANDLER_KEYS, path)
    if entry.get("mode", "a") not in ("a", "w"):
        raise _refuse((*path, "mode"), entry["mode"], "it must be: a or w.")
    if entry.get("stream", STREAMS[0]) not in STREAMS:
        raise _refuse((*path, "stream"), entry["stream"], f"it must be one of {', '.join(STREAMS)}.")


def _check_formatter(entry: Any, path: Path, trust: list[str]) -> None:
    if not isinstance(entry, dict):
        raise _refuse(path, entry, "it must be keys with their values.")
    if not _check_class(entry, ("class", "()"), FORMATTERS, path, trust):
        return
    _check_keys(entry, FORMATTER_KEYS, path)
    if entry.get("style", "%") != "%":
        raise _refuse((*path, "style"), entry["style"], "it must be: %.")
    for key in ("format", "fmt"):
        if "%" in _FIELD.sub("", str(entry.get(key, ""))):
            raise _refuse(
                (*path, key), entry[key], "it must be text with %(name)s fields of at most 999 characters."
            )


def _check_class(
    entry: dict[str, Any], keys: tuple[str, ...], allowed: frozenset[str], path: Path, trust: list[str]
) -> bool:
    """Refuse a class that is not allowed; return whether its arguments must be checked (not of a trusted class)."""
    for key in ("class", "()"):
        if key in entry:
            text = str(entry[key])
            if _trusted(text.rpartition(".")[0], trust):
                return False
            if key not in keys or text not in allowed:
                raise UserError(
                    f"`hydra.{'.'.join((*path, key))}` is {text[:80]}, which logging would import and run."
                    f"{nearest(text, allowed)}\nIf you trust that code, say so: trust=[{text.split('.')[0][:80]}]"
                )
    return True


def _check_keys(entry: dict[str, Any], known: frozenset[str], path: Path) -> None:
    for key in entry:
        if key not in known:
            raise UserError(
                f"`hydra.{'.'.join((*path, str(key)))}` is no key of logging that can be set here."
                f"{nearest(str(key), known)}"
            )


def _check_log_file(value: Any, path: Path) -> None:
    match = _IN_RUN_FOLDER.fullmatch(str(value))
    rest = re.sub(r"\$\{hydra[.:]job\.name\}", "name", match[1]) if match else ""
    if not _is_below(rest):
        raise _refuse(
            path, value, "it must be a file of the run folder: ${hydra.runtime.output_dir}/NAME.log"
        )


def _check_no_factory(entry: Any, path: Path, trust: list[str]) -> None:
    """Refuse other objects that logging would build, besides handlers and formatters."""
    for below, value in _leaves(entry):
        if below and below[-1] in ("()", "class") and not _trusted(str(value).rpartition(".")[0], trust):
            text = str(value)
            raise UserError(
                f"`hydra.{'.'.join((*path, *below))}` is {text[:80]}, which logging would import and run.\n"
                f"If you trust that code, say so: trust=[{text.split('.')[0][:80]}]"
            )
