"""Checks of the configuration alone: unknown keys, values that break their rule, combinations that exclude each other.

Nothing here imports torch, so that a mistake is refused in well under a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dltrain.config.catalogue import LIST_GROUPS, OVERLAYS, Catalogue, leaves
from dltrain.config.compose import ALIASES, Composition, check_lr, owners_of, unknown_key
from dltrain.config.conflicts import CONTRADICTIONS, parts_of, refusal
from dltrain.config.conflicts import value as at
from dltrain.config.declarations import check_installed
from dltrain.config.groups import OF_SWEEPS
from dltrain.config.idle import check_idle, idle_remarks
from dltrain.config.keys import has_no_result, keys_of
from dltrain.config.schema import Config, Node, to_config
from dltrain.config.secrets import secrets_of, texts_of
from dltrain.config.user_files import chosen_in, entry
from dltrain.config.values import chosen_words, fits_rule, refuse_value, setters, source_of
from dltrain.config.yaml_files import place
from dltrain.direction import problems
from dltrain.errors import UserError, listing, nearest

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
    check_lr_is_used(plain, choices, catalogue)
    check_lr_is_followed(plain, overrides)
    check_said_twice(plain, choices, catalogue)
    check_together(plain, choices, kept, catalogue.words["metrics"])
    check_idle(plain, overrides)
    check_copies(plain["evaluation"].get("tta_words") or (), catalogue)
    config = to_config(plain, words_of(choices), secrets)
    return replace(config, idle=idle_remarks(plain, choices, catalogue))


def check_said_twice(plain: Node, choices: dict[str, list[str]], catalogue: Catalogue) -> None:
    """Refuse a second value of a quantity that a chosen word sets, such as `model.dropout` beside `regularization.dropout.p`."""
    for word in (catalogue.words[group][name] for group in LIST_GROUPS for name in choices.get(group, ())):
        for path, text in leaves(word.content) if word.is_global else ():
            own = re.fullmatch(r"\$\{([\w.]+)\}", str(text))
            # on the command line or in a file
            if own is None or at(plain, path) == at(plain, own[1]):
                continue
            raise UserError(
                f"`{path}` is {at(plain, path)} and `{own[1]}` is {at(plain, own[1])}: {word.group}=[{word.name}] sets {path}, so "
                f"that one of them would do nothing.\nLeave {path} out, and write {own[1]}={at(plain, path)}"
            )


def check_lr_is_used(plain: Node, choices: dict[str, list[str]], catalogue: Catalogue) -> None:
    """Refuse `lr` where the optimizer has no parameter of that name."""
    word = catalogue.words["optimizer"][choices["optimizer"][0]]
    known = catalogue.params(choices)
    if plain["lr"] is not None and not word.signature.open_ended and "optimizer.lr" not in known:
        raise UserError(
            f"`lr` is {plain['lr']}, and optimizer={word.name} has no parameter `lr`, so that it would do nothing.\n"
            f"Leave it out, or add `lr` to {word.target}"
        )


def check_lr_is_followed(plain: Node, overrides: list[str]) -> None:
    """Refuse `lr` on the command line if a chosen file sets `optimizer.lr`, which then ignores `lr`."""
    given, own = keys_of(overrides), plain["optimizer"].get("lr")
    if "lr" in given and "optimizer.lr" not in given and own not in (None, plain["lr"]):
        raise UserError(
            f"`lr` is {plain['lr']}, and a chosen file sets `optimizer.lr` to {own}, so that `lr` would do nothing.\n"
            f"Write optimizer.lr={plain['lr']}"
        )


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
        raise UserError(_unresolved(composition, error)) from None
    node = drop_outside(plain)
    drop_replaced(node, composition)
    return node


def _unresolved(composition: Composition, error: Exception) -> str:
    """Return the message for an interpolation that leads to no value: its key, where it is set, and the reason."""
    cfg, choices, catalogue = composition.cfg, composition.choices, composition.catalogue
    raw = drop_outside(OmegaConf.to_container(cfg, resolve=False))
    for path, text in leaves(raw):
        if not any("${" in part for part in texts_of(text)):
            continue
        try:
            OmegaConf.to_container(OmegaConf.create([OmegaConf.select(cfg, path)]), resolve=True)
        except OmegaConfBaseException as found:
            where = next((w for w, value in setters(path, choices, catalogue) if value == text), "")
            reason, cure = _reason(str(found), {*catalogue.knobs, *catalogue.params(choices)} - {path})
            return f"{where + ': ' if where else ''}`{path}` is {str(text)[:200]}, {reason}.\n{cure}"
    return str(error).splitlines()[0]


def _reason(said: str, known: set[str]) -> tuple[str, str]:
    """Return why an interpolation leads to no value, from OmegaConf's message, and what to do."""
    if match := re.search(r"Environment variable '(\w+)' not found", said):
        name = match[1]
        return (
            f"and the environment has no {name}",
            f"Set it: {name}=VALUE dltrain …, or give a default: ${{oc.env:{name},VALUE}}",
        )
    if match := re.search(r"Interpolation key '([^']+)' not found", said):
        name = match[1]
        alias = ALIASES.get(name)
        near = f" Did you mean `{alias}`?" if alias in known else nearest(name, known)
        return f"and there is no key `{name}`", f"Write the value, or a key that there is.{near}"
    if match := re.search(r"Unsupported interpolation type (\S+)", said):
        return (
            f"and nothing is named `{match[1]}:`",
            "Write the value; ${KEY} and ${oc.env:NAME} are replaced",
        )
    if "ecursi" in said:
        return "which leads back to itself", "Write the value"
    return "which has no value", "Write the value; ${KEY} and ${oc.env:NAME} are replaced"


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
                source = source_of(f"{group}.{word}", composition.choices, composition.catalogue)
                raise UserError(
                    f"`{group}.{word}` ({source}): there is no such word.{nearest(str(word), known)}"
                )
            check_unused(f"{group}.{word}", composition)
            check_replaced(group, word, composition)
            del plain[group][word]


def check_unused(path: str, composition: Composition) -> None:
    """Refuse a key on the command line of a word that a recipe chose and another override replaced."""
    for key in keys_of(composition.overrides):
        if key.startswith(f"{path}."):
            table = composition.catalogue.params(composition.choices)
            raise UserError(unknown_key(key, "", table, composition.choices, composition.catalogue))


def check_replaced(group: str, word: str, composition: Composition) -> None:
    """Refuse a file's keys of a word that nothing has chosen; they may stay where another choice replaced the file's."""
    space = OmegaConf.select(composition.cfg, "sweep.space") or {}
    if group in keys_of(composition.overrides) or group in space:
        return
    words = list(chosen_words(composition.choices, composition.catalogue))
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
        within = path if path in table else next((p for p in table if path.startswith(p + ".")), None)
        if within is not None:
            found = at(plain, within)
            if not fits_rule(table[within], found):
                refuse_value(table[within], found, asked.get(within), choices, catalogue)
            continue
        if path in choices and value not in (None, {}):
            raise UserError(f"`{path}` is {str(value)[:80]}; it must be keys with their values.")
        if value == {} or path in choices:
            continue
        # keys such as `_target_`
        reserved = path.split(".")[0] in choices and path.rsplit(".", 1)[-1].startswith("_")
        if not reserved:
            source = source_of(path, choices, catalogue)
            owners = owners_of(path, catalogue) if source else ""
            # a file may set it for another word of its group
            cure = f"\nRemove it there, or choose a word that has it: {owners}" if owners else ""
            raise UserError(unknown_key(path, source, table, choices, catalogue) + cure)


def check_axes(names: Iterable[str]) -> None:
    """Raise UserError for an axis that changes how the jobs are compared."""
    for name in names:
        if name in COMPARED_BY:
            raise UserError(
                f"`{name}` cannot be an axis: the jobs of a sweep are compared by one metric in one direction.\n"
                f"Give one value, and start a second sweep for another."
            )


def check_effect(names: Sequence[str]) -> None:
    """Raise UserError for an axis, of several keys where it is zipped, that changes no result."""
    if all(map(has_no_result, names)):
        raise UserError(
            f"`{names[0]}` cannot be an axis: it changes no result, so the jobs would be equal. Give one value.\n"
            "To repeat a configuration: seed=0,1,2"
        )


def check_parts(plain: Node, choices: dict[str, list[str]], catalogue: Catalogue) -> None:
    """Refuse words whose package is missing, and words and knobs that exclude each other, by what they declare."""
    for group, names in choices.items():
        for name in names:
            word = catalogue.words.get(group, {}).get(name)
            if word is not None:
                check_installed(word.declared.requires, f"{group}={name}")
    message = refusal(parts_of(plain, choices, catalogue), catalogue)
    if message is not None:
        raise UserError(message)


def check_copies(words: Iterable[str], catalogue: Catalogue) -> None:
    """Raise UserError for a word of `evaluation.tta_words` that is no augmentation."""
    known = catalogue.words["augmentation"]
    for word in words:
        if word not in known or known[word].target is None:
            raise UserError(
                f"`evaluation.tta_words` names {word}, which is no augmentation.{nearest(word, known)}\n"
                f"{listing('Words of augmentation', known)}"
            )


def check_together(
    plain: Node, choices: dict[str, list[str]], known: Iterable[str] = (), metrics: Iterable[str] = ()
) -> None:
    """Refuse knobs and keys that contradict each other; the directions of the groups in `known` are not checked.

    metrics: all words of that group
    """
    for contradiction in CONTRADICTIONS:
        if contradiction.occurs(plain, choices):
            words = {group: ",".join(names) for group, names in choices.items()}
            raise UserError(contradiction.message.format(**plain, words=words))
    for group, problem in problems(plain, metrics).items():
        if group not in known:
            raise UserError(problem)
