"""Checks of Hydra's own node: Hydra builds callbacks, loggers, launcher and sweeper from it before any code of ours runs.

Callbacks may be the user's. Logging, launcher and sweeper are those of a file that dltrain or Hydra ships, unchanged. All
else takes plain values: text that is replaced when it is used (`${oc.create:…}`, a link to another node) is refused, so
that Hydra gets exactly what is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dltrain.config.door import Door, in_working_folder
from dltrain.errors import UserError, nearest

Path = tuple[str, ...]

CALLBACKS = frozenset(
    f"hydra.experimental.callbacks.{name}" for name in ("LogJobReturnCallback", "PickleJobInfoCallback")
)
# These cannot be set: they keep the value of conf/config.yaml, the first, or one of Hydra alone (`--hydra-help`); the cure.
FIXED: dict[Path, tuple[tuple[Any, ...], str]] = {
    ("sweep", "subdir"): (
        ("${hydra:job.num}", "${hydra.job.num}"),
        "A run's folder is OUTPUT/NAME/DATE_TIME-SUFFIX: write output=FOLDER or name=NAME",
    ),
    ("job", "chdir"): ((False, None), "A run stays in the folder where it was started: leave it out."),
    ("job", "env_set"): (({},), "Set the variable for the process: NAME=VALUE dltrain …"),
    ("job", "env_copy"): (([],), "The environment of the process is there already: leave it out."),
    ("job", "name"): (("dltrain", "app", "???", None), "For the name of the run's folder: name=NAME"),
    ("output_subdir",): ((".hydra", None), "Leave it out, or write hydra.output_subdir=null for none."),
}
# nodes of shipped files, and what to write instead of others
SHIPPED = {
    "job_logging": "Leave it out, or choose one of Hydra's: hydra/job_logging=disabled",
    "hydra_logging": "Leave it out, or choose one of Hydra's: hydra/hydra_logging=disabled",
    "launcher": "Leave it out; how jobs run: dltrain -m sweep.backend=local",
    "sweeper": "Leave it out; a sweep has its own search: dltrain -m sweep=tpe",
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


def check_hydra_node(
    cfg: DictConfig, trust: list[str], shipped: Callable[[str], Any] = lambda name: None
) -> None:
    """Raise UserError for a value of `cfg.hydra` that could run code or write outside the run folder, or could hide either.

    `trust`: modules that the user named on the command line; their callbacks may be built. `shipped`: the content of a
    file of dltrain or Hydra, such as hydra/job_logging/default.
    """
    if OmegaConf.is_interpolation(cfg, "hydra"):
        raise UserError("`hydra` is a link to another node. Write its keys and values.")
    plain = OmegaConf.to_container(cfg.hydra, resolve=False)
    assert isinstance(plain, dict)
    node = {str(key): value for key, value in plain.items()}
    for group, cure in SHIPPED.items():
        word = ((node.get("runtime") or {}).get("choices") or {}).get(f"hydra/{group}")
        if node.pop(group, None) not in (None, {}, shipped(f"hydra/{group}/{word}")):
            raise UserError(f"`hydra.{group}` cannot be changed.\n{cure}")
    _check_fixed(node)
    for path, value in _leaves(node):
        _check_text(path, value)
        if path[-1] == "_target_":
            _check_target(path, value, trust)


def plain_node(node: Any) -> Any:
    """Return the plain data of a file's node, without its defaults list."""
    plain = OmegaConf.to_container(node, resolve=False)
    return (
        {key: value for key, value in plain.items() if key != "defaults"}
        if isinstance(plain, dict)
        else plain
    )


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
    if value.startswith(("ext://", "cfg://")):
        raise _refuse(path, value, "it would be replaced by an object. Write a plain value.")


def _check_fixed(node: dict[str, Any]) -> None:
    for (*parents, key), (values, cure) in FIXED.items():
        parent = (node.get(parents[0]) or {}) if parents else node
        value = parent.get(key, values[0])
        if value not in values:
            name = ".".join([*parents, key])
            # the environment may hold secrets
            shown = "" if key.startswith("env") else f"; it is {str(value)[:80]}"
            raise UserError(f"`hydra.{name}` cannot be set{shown}.\n{cure}")


def _check_target(path: Path, name: Any, trust: list[str]) -> None:
    """Refuse a `_target_` that is neither one of Hydra's callbacks, nor trusted, nor a callback of the working folder."""
    text, key = str(name), ".".join(path)
    module = text.rpartition(".")[0]
    allowed = CALLBACKS if path[0] == "callbacks" else frozenset[str]()
    if text in allowed or any(module == known or module.startswith(known + ".") for known in trust):
        return
    if path[0] == "callbacks" and in_working_folder(module):
        # A name imported into the user's module, such as `from os import system`, is not the user's code.
        Door(set(), trust).locate(name, f"hydra.{key.removesuffix('._target_')}")
        return
    raise UserError(
        f"`hydra.{key}` is {text[:80]}, which Hydra would import and run.{nearest(text, allowed)}\n"
        f"If you trust that code, say so: trust=[{text.split('.')[0][:80]}]"
    )
