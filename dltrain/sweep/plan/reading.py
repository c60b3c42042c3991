"""Reading of a sweep's plan from the command line and YAML."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from dltrain.config.catalogue import Catalogue, Param
from dltrain.config.compose import Composition, check_swept_values, check_words, compose, parse, unknown_key
from dltrain.config.door import Rights
from dltrain.config.hydra_private import Hydra
from dltrain.config.keys import REPLICATES
from dltrain.config.schema import Config, SweepKnobs
from dltrain.config.secrets import put, secrets_of
from dltrain.config.validation import check_axes, check_effect, validate
from dltrain.config.values import check_value, source_of
from dltrain.errors import UserError
from dltrain.sweep.plan import space
from dltrain.sweep.plan.checks import check_pruner, check_search
from dltrain.sweep.plan.composer import Composer
from dltrain.sweep.plan.grid import grid_of, repetitions_of
from dltrain.sweep.plan.plan import Plan
from dltrain.sweep.plan.space import Axis
from dltrain.text import say

# the keys of `sweep` that are not those of its word
COMMON = frozenset([*(knob.name for knob in fields(SweepKnobs)), "backend"])
# the word of sweep.backend for a value of sweep.vectorize
FORMER = {"auto": "auto", "never": "local", "always": "stacked"}


def read_plan(texts: list[str], config_name: str, catalogue: Catalogue, hydra: Hydra, rights: Rights) -> Plan:
    """Return the plan of a command line, with its first configuration composed and validated."""
    parsed = parse(texts, hydra.config_loader)
    check_words(parsed, catalogue)
    check_swept_values(parsed, catalogue)
    check_axes(o.key_or_group for o in parsed if o.is_sweep_override())
    first = compose([first_of(o) for o in parsed], catalogue, hydra, config_name)
    config = validate(first)
    rights.door(config.trust).check_names(config.plain)
    return make_plan(parsed, first, config, Composer(catalogue, hydra, config_name), rights)


def first_of(override: Override) -> str:
    """Return the override with the first value of its axis."""
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


def make_plan(
    parsed: list[Override], composition: Composition, first: Config, composer: Composer, rights: Rights
) -> Plan:
    """Read axes and settings, and check all that is known beforehand. Raises UserError."""
    settings = sweep_settings(composition)
    backend = choose_backend(composition, settings)
    axes = axes_of(parsed, composition, settings, first)
    fixed, test = fixed_overrides(parsed)
    if any(axis.name == "seed" for axis in axes):  # that of sweep.seeds begins at a given seed
        fixed = [text for text in fixed if not text.startswith("seed=")]
    plan = Plan(
        axes,
        repetitions_of(axes),
        fixed,
        settings,
        composition.choices["sweep"][0],
        composer,
        first,
        test,
        backend,
        rights=rights,
    )
    if settings.get("_target_") is not None:
        rights.door(first.trust).check_name(settings["_target_"], "sweep")
        check_search(plan)
    else:
        plan.configurations = grid_of(plan.axes, plan.settings["trials"], plan.settings["pruner"] != "none")
    rights.door(first.trust).check_name(settings["backend"].get("_target_"), "sweep.backend")
    check_pruner(plan)
    return plan


def choose_backend(composition: Composition, settings: dict[str, Any]) -> str:
    """Return the word of `sweep.backend`, or that of `sweep.vectorize`, its former name; `settings` get its node."""
    word = composition.choices["sweep.backend"][0]
    former = settings["vectorize"]
    if former is None:
        return word
    if word not in ("auto", FORMER[former]):
        raise UserError(
            f"`sweep.vectorize` is {former}, the former name of sweep.backend={FORMER[former]}, and sweep.backend is {word}. "
            "Leave sweep.vectorize out"
        )
    say(f"sweep.vectorize={former} is now sweep.backend={FORMER[former]}")
    found = composition.catalogue.words["sweep.backend"][FORMER[former]]
    settings["backend"] = found.configuration()["sweep.backend"]
    return found.name


def sweep_settings(composition: Composition) -> dict[str, Any]:
    """Return the `sweep` node as plain data, each value checked against its rule."""
    from omegaconf import OmegaConf

    node = OmegaConf.to_container(composition.cfg.sweep, resolve=True)
    assert isinstance(node, dict)
    asking = {path.removeprefix("sweep."): text for path, text in secrets_of(composition.cfg).items()}
    settings = {str(key): value for key, value in node.items()}
    put(settings, asking)  # an axis over `${oc.env:…}` is written down as it was asked for
    table = composition.catalogue.params(composition.choices)
    for key, value in settings.items():
        if key in ("_target_", "space"):
            continue
        if key == "backend":
            check_backend_keys(value, composition.choices, table, composition.catalogue)
            continue
        if f"sweep.{key}" not in table:
            where = source_of(f"sweep.{key}", composition.choices, composition.catalogue)
            raise UserError(
                unknown_key(f"sweep.{key}", where, table, composition.choices, composition.catalogue)
            )
        check_value(table[f"sweep.{key}"], value)
    return settings


def check_backend_keys(
    node: Any, choices: dict[str, list[str]], table: dict[str, Param], catalogue: Catalogue
) -> None:
    """Check the keys of `sweep.backend`, and refuse a word that a file gives as a value."""
    if not isinstance(node, dict):
        raise UserError(
            f"`sweep.backend` is {str(node)[:80]} in a file, where a word is chosen in the list of defaults.\n"
            f"Write there: defaults: [override /sweep/backend: {str(node)[:80]}]"
        )
    for key, value in node.items():
        path = f"sweep.backend.{key}"
        if path in table:
            check_value(table[path], value)
        elif not key.startswith("_"):
            raise UserError(unknown_key(path, "", table, choices, catalogue))


def axes_of(
    parsed: list[Override], composition: Composition, settings: dict[str, Any], first: Config
) -> list[Axis]:
    """Return all axes, in order: of YAML, of the command line, and the repetitions of sweep.seeds."""
    given = [space.axis_of(o) for o in parsed if o.is_sweep_override()]
    names = [axis.name for axis in given]
    fixed = {o.get_key_element() for o in parsed if not o.is_sweep_override()}
    for name in names:
        if names.count(name) > 1 or name in fixed:
            raise UserError(f"`{name}` is given twice. Write all its values in one list: {name}=a,b,c")
    check_axes(settings["space"])
    written = space.axes_of_yaml(
        settings["space"],
        lambda key: line_of(key, source_of("sweep.space", composition.choices, composition.catalogue)),
    )
    yaml = [axis for axis in written if axis.name not in names and axis.name not in fixed]
    axes = space.without_repeats(space.zipped([*yaml, *given], settings["zip"]))
    for axis in axes:
        check_effect(axis.name.split(","))
    if settings["seeds"] > 1:
        if "seed" in names:
            raise UserError(
                "`sweep.seeds` and the axis `seed` both say which seeds to run. Give one of them."
            )
        texts = [str(first.seed + i) for i in range(settings["seeds"])]
        axes.append(Axis("seed", tuple((text, (f"seed={text}",)) for text in texts)))
    for axis in axes:
        if axis.when and {axis.name, *axis.when} & set(REPLICATES):
            raise UserError(
                f"`sweep.space.{axis.name}.when`: every configuration is repeated for each seed, fold and split seed, so they have no conditions. "
                "Leave `when` out"
            )
        if axis.name in REPLICATES and not axis.options:
            raise UserError(f"`{axis.name}` repeats a configuration and needs values: {axis.name}=0,1,2")
    return axes


def line_of(key: str, space: str) -> str:
    """Return the file and line of an axis, whose key may have dots, from those of its `space`; empty where there is none."""
    file, _, first = space.rpartition(", line ")
    if not file or not first.isdecimal():
        return space
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    named = re.compile(rf"""\s*["']?{re.escape(key)}["']?\s*:""")
    found = (n for n in range(int(first), len(lines) + 1) if named.match(lines[n - 1]))
    return f"{file}, line {next(found, first)}"


def fixed_overrides(parsed: list[Override]) -> tuple[list[str], bool]:
    """Return the overrides of every job, the test split closed; and whether its score was asked for."""
    fixed = [
        str(o.input_line)
        for o in parsed
        if not o.is_sweep_override() and o.key_or_group.split(".")[0] != "sweep"
    ]
    asked = [o for o in parsed if o.key_or_group == "evaluation.test" and not o.is_sweep_override()]
    test = bool(asked) and asked[-1].value() is True
    kept = [text for text in fixed if not text.startswith("evaluation.test=")]
    return [*kept, "evaluation.test=false"], test
