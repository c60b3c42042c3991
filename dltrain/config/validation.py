"""Checks of the configuration alone: unknown keys, values that break their rule, combinations that exclude each other.

Nothing here imports torch, so that a mistake is refused in well under a second.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dltrain.config.catalogue import LIST_GROUPS, OVERLAYS, Catalogue, Param, Word, leaves
from dltrain.config.compose import Composition, check_lr, keys_of, unknown_key
from dltrain.config.conflicts import CONTRADICTIONS, parts_of, refusal
from dltrain.config.conflicts import value as at
from dltrain.config.groups import BY_NAME, OF_SWEEPS
from dltrain.config.schema import Config, Node, to_config
from dltrain.config.secrets import secrets_of
from dltrain.config.user_files import chosen_in, entry, lineage
from dltrain.config.yaml_files import place
from dltrain.direction import problems
from dltrain.errors import UserError, nearest

# The keys of early stopping by which evaluations, and with them the jobs of a sweep, are compared.
COMPARED_BY = ("early_stopping.metric", "early_stopping.mode")


def validate(composition: Composition) -> Config:
    """Check a composition and return the typed configuration. Raises UserError with the rule and the cure."""
    check_trust(composition)
    plain = plain_config(composition)
    secrets = secrets_of(composition.cfg)
    return checked(plain, composition.choices, composition.overrides, composition.catalogue, secrets)


def checked(
    plain: Node,
    choices: dict[str, list[str]],
    overrides: list[str],
    catalogue: Catalogue,
    secrets: dict[str, Any] | None = None,
    changed: Iterable[str] | None = None,
    kept: Iterable[str] = (),
) -> Config:
    """Check plain data against every rule and return the typed configuration.

    Every entry calls it: a single run, a job of a sweep, a repeated run. `changed`: the paths whose values may differ from data
    checked before; None for all. `kept`: groups whose direction an earlier version chose. Raises UserError.
    """
    check_lr(overrides)
    replace_length(plain, overrides)
    drop_own_budget(plain, choices, overrides, catalogue)
    check_parts(plain, choices, catalogue)
    check_values(plain, choices, catalogue, changed, secrets)
    check_together(plain, choices, kept)
    return to_config(plain, words_of(choices), secrets)


def check_trust(composition: Composition) -> None:
    """Refuse `trust` in a file: only the command line can give it, since a stranger's file would trust itself."""
    given = any(text.lstrip("+").startswith("trust=") for text in composition.overrides)
    if composition.cfg.get("trust") and not given:
        raise UserError(
            f"`trust` is {composition.cfg.trust} in a file; it holds on the command line only.\n"
            f"If you trust that code, say so: trust=[{','.join(map(str, composition.cfg.trust))}]"
        )


def plain_config(composition: Composition) -> Node:
    """Return the configuration without its `hydra` node, resolved, as plain data."""
    cfg = composition.cfg
    names = [name for name in cfg if name != "hydra"]
    try:
        found = {name: "???" if OmegaConf.is_missing(cfg, name) else cfg[name] for name in names}
        plain = {
            name: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for name, value in found.items()
        }
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from None
    node = drop_outside(plain)
    drop_replaced(node, composition)
    return node


def drop_own_budget(
    plain: Node, choices: dict[str, list[str]], overrides: list[str], catalogue: Catalogue
) -> None:
    """Let a recipe's `steps` replace the epochs that a word's own file sets (for the user's: `replace_length`)."""
    if plain["steps"] is None or any(text.lstrip("+").startswith("epochs=") for text in overrides):
        return
    known = catalogue.words
    chosen = [
        known[group][name] for group, names in choices.items() for name in names if name in known[group]
    ]
    by_recipe = any("epochs" in word.content for word in chosen if word.kind.overlay)
    if not by_recipe and any("epochs" in word.knobs for word in chosen if not word.kind.overlay):
        plain["epochs"] = None


def drop_outside(plain: Any) -> Node:
    """Return the configuration of a run alone: without Hydra's node, overlays, and the settings of a sweep."""
    return {str(key): value for key, value in plain.items() if key not in (*OVERLAYS, "sweep", "hydra")}


def drop_replaced(plain: Node, composition: Composition) -> None:
    """Remove a recipe's settings of words that are no longer chosen. Raises UserError for an unknown word."""
    for group in LIST_GROUPS:
        for word in [w for w in plain[group] if w not in composition.choices[group]]:
            known = composition.catalogue.words[group]
            if word not in known:
                source = _source(f"{group}.{word}", composition.choices, composition.catalogue)
                raise UserError(
                    f"`{group}.{word}` ({source}): there is no such word.{nearest(str(word), known)}"
                )
            check_replaced(group, word, composition)
            del plain[group][word]


def check_replaced(group: str, word: str, composition: Composition) -> None:
    """Refuse a file's keys of a word that nothing has chosen; they may stay where another choice replaced the file's."""
    space = OmegaConf.select(composition.cfg, "sweep.space") or {}
    if group in keys_of(composition.overrides) or group in space:
        return
    words = list(_chosen(composition.choices, composition.catalogue))
    setter = next((w for w in words if any(key.startswith(f"{group}.{word}.") for key in w.given)), None)
    if setter is None or any(
        word in names for w in words for other, names in chosen_in(w, composition.catalogue) if other == group
    ):
        return
    cure = entry(group, [*composition.choices[group], word])
    raise UserError(
        f"{place(setter.file, group, word)}: `{group}.{word}` is set, but {group} has no `{word}` chosen.\n"
        f"Write below `defaults:` `- {cure}`"
    )


def replace_length(plain: Node, overrides: list[str]) -> None:
    """Let `steps` on the command line replace a recipe's `epochs`, and the other way round."""
    given = {text.partition("=")[0].lstrip("+") for text in overrides}
    for mine, other in (("steps", "epochs"), ("epochs", "steps")):
        if mine in given and other not in given and plain.get(mine) is not None:
            plain[other] = None


def words_of(choices: dict[str, list[str]]) -> dict[str, Any]:
    """Return the words of a run, without that of the sweep, which is not part of a run."""
    return {
        group: words if group in LIST_GROUPS else words[0]
        for group, words in sorted(choices.items())
        if group not in OF_SWEEPS
    }


def check_values(
    plain: Node,
    choices: dict[str, list[str]],
    catalogue: Catalogue,
    changed: Iterable[str] | None = None,
    secrets: Mapping[str, Any] | None = None,
) -> None:
    """Check that every key (of `changed`, where given) belongs to a chosen word and that its value satisfies its rule.

    Messages show what asks for a secret, never its value.
    """
    asked = secrets or {}
    table = catalogue.params(choices)
    for path, value in leaves(plain) if changed is None else [(path, at(plain, path)) for path in changed]:
        if path in table:
            check_value(table[path], value, asked.get(path))
            continue
        if path in choices and value not in (None, {}):
            raise UserError(f"`{path}` is {str(value)[:80]}; it must be keys with their values.")
        if value == {} or path in choices:
            continue
        within = next((p for p in table if path.startswith(p + ".")), None)
        # keys such as `_target_`
        reserved = path.split(".")[0] in choices and path.rsplit(".", 1)[-1].startswith("_")
        if within is not None:
            check_value(table[within], at(plain, within), asked.get(within))
        elif not reserved:
            raise UserError(unknown_key(path, _source(path, choices, catalogue), table, choices))


def as_function(path: str) -> str:
    """Return what a function must take to be a part itself: one that takes less has its arguments as keys."""
    called = BY_NAME[path.split(".")[0]].called if path.split(".")[0] in BY_NAME else ()
    return f"\nA function of {path.split('.')[0]} takes ({', '.join(called)}, …)" if called else ""


def check_value(param: Param, value: Any, asked: Any = None) -> None:
    """Check one value against its rule; the message names key, value, rule, meaning and the nearest word."""
    if isinstance(value, str) and value == "???":
        meaning = f": {param.meaning}" if param.meaning else ""
        raise UserError(
            f"`{param.path}` must be given{meaning}. Write {param.path}=VALUE{as_function(param.path)}"
        )
    if param.rule is None or param.rule.accepts(value):
        return
    if asked is not None:
        raise UserError(_from_environment(param, asked))
    shown = "nan" if isinstance(value, float) and math.isnan(value) else value
    kind = (
        f" (the text {value!r})"
        if isinstance(value, str) and re.fullmatch(r"[-+.\deE]+|true|false|null", value)
        else ""
    )
    hint = nearest(str(value), param.rule.words) if isinstance(value, str) else ""
    hint = hint or _written_otherwise(param, value)
    default = f" Leave it out for {param.default}." if param.default not in ("", "null") else ""
    rule = re.sub(r"( or cuda:\d)+", " or cuda:N", param.rule.text)
    raise UserError(
        f"`{param.path}` is {shown}{kind}; it must be: {rule}.{hint}\n{param.path}: {param.meaning}.{default}"
    )


def _from_environment(param: Param, asked: Any) -> str:
    """The refusal of a value that comes from the environment, which may be a secret: it arrives as a text."""
    assert param.rule is not None
    name = re.search(r"\$\{oc\.env:\s*(\w+)", str(asked))
    cure = f' To let the shell put it in: {param.path}="${name[1]}"' if name else ""
    return f"`{param.path}` is the text of {asked}; it must be: {param.rule.text}.{cure}\n{param.path}: {param.meaning}."


def _written_otherwise(param: Param, value: Any) -> str:
    """Return how to write a value of the right content and the wrong type; empty where the content is wrong, too."""
    assert param.rule is not None
    if param.rule.accepts([value]):
        return f" Write {param.path}=[{value}]"
    if isinstance(value, int | float) and param.rule.accepts(str(value)):
        return f" Write '{param.path}=\"{str(value).lower() if isinstance(value, bool) else value}\"'"
    return ""


def check_axes(names: Iterable[str]) -> None:
    """Raise UserError for an axis that changes how the jobs are compared."""
    for name in names:
        if name in COMPARED_BY:
            raise UserError(
                f"`{name}` cannot be an axis: the jobs of a sweep are compared by one metric in one direction.\n"
                f"Give one value, and start a second sweep for another."
            )


_ANY = object()


def _chosen(choices: dict[str, list[str]], catalogue: Catalogue) -> Iterator[Word]:
    """Yield the chosen words and those that they build upon; recipes first, since they are merged last."""
    for group in (*reversed(OVERLAYS), *(name for name in choices if name not in OVERLAYS)):
        for name in choices.get(group, ()):
            if name in catalogue.words.get(group, {}):
                yield from lineage(catalogue.words[group][name], catalogue)


def _source(path: str, choices: dict[str, list[str]], catalogue: Catalogue, value: Any = _ANY) -> str:
    """Return the place where the file of a chosen word sets a key (to `value`); empty where none does."""
    for word in _chosen(choices, catalogue):
        keys = path.split(".")[0 if word.is_global else len(word.prefix.split(".")) :]
        content = dict(word.content if word.is_global else word.node)
        sets = any(path == key or key.startswith(path + ".") for key in word.given)
        if sets and (value is _ANY or at(content, ".".join(keys)) == value):
            return place(word.file, *keys)
    return ""


def check_parts(plain: Node, choices: dict[str, list[str]], catalogue: Catalogue) -> None:
    """Refuse words and knobs that exclude each other, by what they declare."""
    message = refusal(parts_of(plain, choices, catalogue), catalogue)
    if message is not None:
        raise UserError(message)


def check_together(plain: Node, choices: dict[str, list[str]], known: Iterable[str] = ()) -> None:
    """Refuse knobs and keys that contradict each other; the directions of the groups in `known` are not checked."""
    for contradiction in CONTRADICTIONS:
        if contradiction.occurs(plain, choices):
            words = {group: ",".join(names) for group, names in choices.items()}
            raise UserError(contradiction.message.format(**plain, words=words))
    for group, problem in problems(plain).items():
        if group not in known:
            raise UserError(problem)
