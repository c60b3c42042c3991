"""Compose words and overrides into one configuration, with Hydra's grammar and this program's own error messages."""

from __future__ import annotations

import gc
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath, SearchPathElement
from hydra.core.default_element import GroupDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Glob, Override, QuotedString, Transformer
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dltrain.config import grammar
from dltrain.config.catalogue import LIST_GROUPS, Catalogue, Param, written
from dltrain.config.grammar import FORMS, Refused
from dltrain.config.groups import BY_NAME, OF_SWEEPS, OVERLAYS, folder_of, group_of
from dltrain.config.hydra_node import check_hydra_node, check_plugins, check_search_path, plain_node
from dltrain.config.hydra_private import ConfigLoaderImpl, Hydra, create_config_search_path
from dltrain.config.keys import keys_of
from dltrain.config.links import check_links
from dltrain.config.search_path import catalogue_dir, misplaced, user_dirs
from dltrain.config.signature import REQUIRED
from dltrain.config.source import SCHEME, serve
from dltrain.config.user_files import check_file, check_keys
from dltrain.config.values import check_value, fits_rule, refuse_value, spread
from dltrain.config.yaml_files import read_yaml
from dltrain.errors import UserError, in_quotes, listing, nearest, typed
from dltrain.text import close, say
from dltrain.verbs import means_training, verbs

CONFIG_NAME = "config"
# of shipped files, in Hydra's search path
PROVIDERS = ("main", "hydra", "schema")
# a comma or bracket without a value beside it
_GAP = re.compile(r"[=,(]\s*(,|\)|$)")


@dataclass
class Composition:
    """A composed configuration with its `hydra` node, and the chosen words."""

    cfg: DictConfig
    choices: dict[str, list[str]]
    overrides: list[str]
    catalogue: Catalogue


class CheckedLoader(ConfigLoaderImpl):
    """A config loader that checks Hydra's node before Hydra builds anything from it."""

    def load_configuration(
        self, config_name: str | None, overrides: list[str], *args: Any, **options: Any
    ) -> DictConfig:
        check_plugins(overrides)
        overrides = [named_by_folder(text) for text in overrides]
        loaded = self.repository.load_config(config_name) if config_name is not None else None
        if loaded is not None:
            check_search_path(loaded.config, str(config_name))
            items = [item for item in loaded.defaults_list or () if isinstance(item, GroupDefault)]
            chosen = [str(item.group).lstrip("/") for item in items]
            check_plugins(chosen, f"{config_name}.yaml")
        try:
            cfg = super().load_configuration(config_name, overrides, *args, **options)
        # a file names an environment variable to copy that is not set
        except KeyError as error:
            raise UserError(f"`hydra.job.env_copy` cannot be set; it names {error}. Leave it out.") from None
        check_hydra_node(cfg, given_trust(cfg, overrides), self.shipped)
        return cfg

    def shipped(self, name: str) -> Any:
        """Return the content of a configuration file, None unless dltrain or Hydra ships it."""
        found = self.repository.load_config(name)
        return plain_node(found.config) if found is not None and found.provider in PROVIDERS else None


def named_by_folder(override: str) -> str:
    """Return an override that chooses a word of a nested group in Hydra's grammar: sweep/backend=local."""
    match = re.match(r"([+~]*)([a-z_.]+)=", override)
    nested = match is not None and "." in match[2] and match[2] in BY_NAME
    return f"{match[1]}{folder_of(match[2])}={override[match.end() :]}" if match and nested else override


def given_trust(cfg: DictConfig, overrides: list[str]) -> list[str]:
    """Return the modules that the command line trusts; `trust` in a file has no effect."""
    if not any(text.lstrip("+").startswith("trust=") for text in overrides):
        return []
    given = cfg.get("trust")
    return [str(name) for name in given] if OmegaConf.is_list(given) else []


def open_catalogue(config_dir: str | None = None) -> Catalogue:
    return Catalogue(catalogue_dir(), user_dirs(config_dir))


def search_path(catalogue: Catalogue) -> ConfigSearchPath:
    """Return Hydra's search path: the shipped catalogue, then the user's folders; Hydra's own schemas must stay last."""
    path = create_config_search_path(f"{SCHEME}://{catalogue.root}")
    entries = path.get_path()
    users = [SearchPathElement("user", f"{SCHEME}://{folder.resolve()}") for folder in catalogue.user_dirs]
    entries[-1:-1] = users
    return path


def open_hydra(catalogue: Catalogue) -> Hydra:
    """Initialize Hydra with our search path, without `hydra.main`, which would create the folder before any check."""
    GlobalHydra.instance().clear()
    serve(catalogue)
    hydra = Hydra("dltrain", CheckedLoader(search_path(catalogue)))
    GlobalHydra.instance().initialize(hydra)
    return hydra


@contextmanager
def hydra_kept() -> Iterator[None]:
    """Put back, at the end, a Hydra that the caller's process has initialized for a program of its own."""
    instance = GlobalHydra.instance()
    former = instance.hydra
    try:
        yield
    finally:
        instance.hydra = former


@contextmanager
def without_collection() -> Iterator[None]:
    """Collect no garbage meanwhile: there is little, and looking for it takes a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@without_collection()
def compose(overrides: list[str], catalogue: Catalogue, hydra: Hydra, name: str = CONFIG_NAME) -> Composition:
    """Compose the configuration of one run. Raises UserError for whatever Hydra cannot compose."""
    check_name(name, catalogue)
    check_working_folder()
    parsed = parse(overrides, hydra.config_loader)
    check_folders(parsed)
    check_words(parsed, catalogue)
    check_files(parsed, catalogue)
    check_one_value(parsed, catalogue)
    check_early(parsed, catalogue, name)
    try:
        cfg = hydra.compose_config(
            name, open_dicts(overrides, catalogue), run_mode=RunMode.RUN, with_log_configuration=False
        )
    except (HydraException, OmegaConfBaseException) as error:
        _explain(error, parsed, catalogue, hydra)
    except OSError as error:  # Hydra looks for a file of that name
        long = max(overrides, key=len, default="")
        raise UserError(f"`{long}` names a file that cannot be read: {error.strerror}") from None
    # before anything is resolved
    check_links(cast(dict[Any, Any], OmegaConf.to_container(cfg, resolve=False)))
    check_own_folders(cfg)
    choices = choices_of(cfg)
    check_partial(cfg)
    # a node may name a target under a word that does not exist
    for group in LIST_GROUPS:
        _check_word(group, choices[group], catalogue)
    for group, names in choices.items():
        for word in names:
            catalogue.check_usable(group, word)
    return Composition(cfg, choices, list(overrides), catalogue)


def check_working_folder() -> None:
    """Refuse a working folder whose name Hydra would read as a link."""
    here = os.getcwd()
    if "${" in here:
        raise UserError(
            f"The working folder is {here}, and in a path Hydra replaces ${{…}} by a value. "
            "Rename the folder without ${, or work in another one: cd FOLDER"
        )


def check_early(parsed: list[Override], catalogue: Catalogue, primary: str) -> None:
    """Refuse one wrong key or value without a composition, which takes half of the time of a refusal.

    Only where no file chooses words, and one mistake: which of several is reported follows the order of the configuration.
    """
    choices = {
        group: catalogue.default_words(group) for group in catalogue.defaults if group in catalogue.words
    }
    for override in (o for o in parsed if o.key_or_group in catalogue.words):
        names = [n for value in values_of(override) for n in (value if isinstance(value, list) else [value])]
        choices[override.key_or_group] = [str(name) for name in names]
    words = [catalogue.words[group][name] for group, names in choices.items() for name in names]
    if primary != CONFIG_NAME or any(
        word.defaults or (word.kind.overlay and word.name != "none") or word.problem for word in words
    ):
        return
    for group in LIST_GROUPS:
        choices[group] = [n for n in choices[group] if "_target_" in catalogue.words[group][n].node]
    table = catalogue.params(choices)
    values = {
        o.key_or_group: plain_value(o.value())
        for o in parsed
        if o.key_or_group not in catalogue.words
        and not o.is_delete()
        and not o.is_add()
        and o.package is None
    }
    wrong = []
    for key, value in values.items():
        within = any(key.startswith(f"{path}.") for path in table)
        if (
            re.split(r"[./@]", key)[0] in ("hydra", "sweep")
            or within
            or key.rpartition(".")[2].startswith("_")
        ):
            continue
        if key not in table or not ("${" in str(value) or fits_rule(table[key], value)):
            wrong.append(key)
    missing = [path for path, param in table.items() if param.value == REQUIRED and path not in values]
    if len(wrong) != 1 or missing or isinstance(values[wrong[0]], dict):
        return
    if wrong[0] not in table:
        raise UserError(unknown_key(wrong[0], "", table, choices, catalogue))
    refuse_value(table[wrong[0]], values[wrong[0]], None, choices, catalogue)


def check_lr(overrides: list[str]) -> None:
    """Raise UserError where the command line gives different values for `lr` and `optimizer.lr`."""
    given = {key: text for text in overrides for key in keys_of([text])}
    lr, own = given.get("lr"), given.get("optimizer.lr")
    if lr and own and lr.partition("=")[2] != own.partition("=")[2]:
        raise UserError(
            f"`{lr}` beside `{own}`: `lr` is what optimizer.lr follows, so that one of them would do nothing.\n"
            f"Leave one out: {own.partition('.')[2]}"
        )


def check_name(name: str, catalogue: Catalogue) -> None:
    """Refuse a primary configuration that does not exist, and one in the user's folder that would not be read."""
    primary = name.removesuffix(".yaml")
    for folder in catalogue.user_dirs:
        if primary == CONFIG_NAME and (folder / f"{CONFIG_NAME}.yaml").is_file():
            raise UserError(
                f"{folder / CONFIG_NAME}.yaml would not be read: the defaults of dltrain have that name.\n"
                f"Move its settings to {folder}/experiment/NAME.yaml, and write experiment=NAME"
            )
    files = [folder / f"{primary}.yaml" for folder in (catalogue.root, *catalogue.user_dirs)]
    for file in files[1:]:
        if file.is_file():
            check_keys(read_yaml(file)[1], file, catalogue)
    if not any(file.is_file() for file in files):
        recipes = catalogue.words.get("experiment", {})
        cure = f" For the recipe: experiment={primary}" if primary in recipes else ""
        places = " or ".join(str(file) for file in files[1:]) or f"conf/{primary}.yaml here"
        raise UserError(f"`--config-name` is {name}, and there is no {places}.{cure}")


def check_files(parsed: list[Override], catalogue: Catalogue) -> None:
    """Check the files of the chosen words; the message names the line."""
    for override in parsed:
        if override.key_or_group in catalogue.words and not override.is_delete():
            for name in (
                n for value in values_of(override) for n in (value if isinstance(value, list) else [value])
            ):
                check_file(catalogue.words[override.key_or_group][str(name)], catalogue)


def check_partial(cfg: DictConfig) -> None:
    """Refuse `_partial_` for a part that is an object; a part that is called may be a function with its keys."""
    called = [group.name for group in BY_NAME.values() if group.called]
    for group in (g for g in BY_NAME.values() if not g.called and not g.overlay):
        node = OmegaConf.select(cfg, group.name)
        nodes = (
            {f"{group.name}.{word}": node[word] for word in node or ()}
            if group.several
            else {group.name: node}
        )
        for key, part in nodes.items():
            if OmegaConf.is_dict(part) and part.get("_partial_"):
                raise UserError(
                    f"`{key}._partial_` is {part['_partial_']}, and what {group.name} names is always called. "
                    f"Leave `_partial_` out\nIt is for functions of {', '.join(called)}."
                )


FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.job.chdir")


def check_folders(parsed: list[Override]) -> None:
    """Refuse Hydra's own folders, which would be ignored: a run's folder has one name."""
    for override in parsed:
        if override.key_or_group in FOLDERS:
            raise UserError(_no_folder(override.key_or_group))


def check_own_folders(cfg: DictConfig) -> None:
    """Refuse the same keys in a file: the shipped configuration has a placeholder there."""
    for key in ("run", "sweep"):
        raw = OmegaConf.to_container(cfg.hydra[key], resolve=False)
        assert isinstance(raw, dict)
        if not str(raw["dir"]).endswith("/NAME/DATE_TIME-SUFFIX"):
            raise UserError(_no_folder(f"hydra.{key}.dir"))


def _no_folder(key: str) -> str:
    return f"`{key}` cannot be set: a run's folder is OUTPUT/NAME/DATE_TIME-SUFFIX.\nWrite output=FOLDER or name=NAME"


def open_dicts(overrides: list[str], catalogue: Catalogue) -> list[str]:
    """Let overrides add names to a knob that is a dictionary, which Hydra allows with `++` only."""
    dicts = tuple(path for path, param in catalogue.knobs.items() if param.value == {} and param.rule)
    return [
        f"++{text}" if dicts and re.match(rf"({'|'.join(dicts)})[.=]", text) else text for text in overrides
    ]


def choices_of(cfg: DictConfig) -> dict[str, list[str]]:
    """Return the chosen words by group; in groups that take several, the nodes with a `_target_`.

    A node without a target is a recipe's setting of a word that the user has replaced: it is not chosen.
    """
    chosen = {group_of(group): word for group, word in cfg.hydra.runtime.choices.items()}
    choices = {g: [w] for g, w in chosen.items() if isinstance(w, str) and not g.startswith("hydra.")}
    for group in LIST_GROUPS:
        nodes = cfg.get(group) or {}
        choices[group] = [str(word) for word in nodes if "_target_" in nodes[word]]
    return choices


def parse(overrides: list[str], loader: ConfigLoader | None) -> list[Override]:
    """Parse overrides; the loader resolves globs of words. Raises UserError for text that is not `key=value`."""
    grammar.check_lengths(overrides)
    parser = grammar.parser(loader)
    parsed = []
    for number, text in enumerate(overrides):
        grammar.check_encoding(text)
        if "\n" in text:
            raise UserError(f"`{' '.join(text.split())}` has a line break. Write an override in one line")
        if "=" not in text and not text.startswith("~"):
            raise UserError(
                f"`{text}` is not `key=value`.{_form_hint(overrides, number)} `dltrain --help` lists words and knobs."
            )
        if whole := split_by_shell(overrides[number : number + MOST_PIECES]):
            raise UserError(f"`{text}` ends at a space, where the shell splits. Write {shlex.quote(whole)}")
        try:
            parsed += parser.parse_overrides([text])
            grammar.check_ends(parsed[-1])
        except OverrideParseException as error:
            raise UserError(f"`{text}` {_unreadable(text, error)}") from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, or lists as deep
            raise UserError(f"`{text}` cannot be read: {str(error).partition('; use')[0]}") from None
    return parsed


BRACKETS = {"[": "]", "(": ")", "{": "}"}
# into which the shell may have split a list: each is joined to those before it
MOST_PIECES = 200
# a key of a dict, as in JSON
_QUOTED_KEY = re.compile(r"""(?<=[{,\s])(["'])([\w.*/?-]+)\1\s*:""")


def _unreadable(text: str, error: Exception) -> str:
    """Return why an override cannot be read, and what to write."""
    key, equals, value = text.partition("=")
    if _GAP.search(text):
        return f"lacks a value. Write one on each side of every comma: {key}=a,b"
    missing = _missing_brackets(value)
    if missing:
        return f"cannot be read: `{missing}` is missing at its end. Write {shlex.quote(text + missing)}"
    called = re.match(r"(\w+)\(", value)
    if called and called[1] == "loginterval":
        return f"cannot be read: Hydra has no loginterval. Write {shlex.quote(f'{key}=tag(log,{value[3:]})')}"
    if called and called[1] not in FORMS:
        return f"cannot be read: there is no {called[1]}.{nearest(called[1], FORMS)}"
    if called and "while evaluating" in str(error):
        return _uncalled(key, called[1], error)
    reason = str(error).splitlines()[-1].split("See http")[0].strip() or "some character needs quotes"
    if value == "" or not equals:
        return f"cannot be read: {reason}"
    if (plain := _QUOTED_KEY.sub(r"\2:", value)) != value:
        return f"cannot be read: keys within braces take no quotes. Write {shlex.quote(f'{key}={plain}')}"
    if cure := _quoted_list(key, value):
        return f"cannot be read: {reason}\nFor texts in a list, write {shlex.quote(cure)}"
    if value[0] in BRACKETS:
        return f"cannot be read: {reason}\nClose every bracket by its own kind, and put a text with other signs in quotes."
    return f"cannot be read: {reason}\nFor a text, write {quoted(key, value)}"


def _uncalled(key: str, name: str, error: Exception) -> str:
    """Return why a function of the grammar does not take its arguments, and what to write."""
    cause = error.__cause__
    cures = cause.cures if isinstance(cause, Refused) else ()
    reason = str(cause) if isinstance(cause, Refused) else f"{name} does not take that"
    written_out = [f"{wanted}, write {shlex.quote(f'{key}={value}')}" for wanted, value in cures]
    return f"cannot be read: {reason}\n" + (
        ". ".join(written_out) or f"For example: {shlex.quote(f'{key}={FORMS[name]}')}"
    )


def split_by_shell(texts: Sequence[str]) -> str:
    """Return the override that the shell has split at spaces within brackets; empty where the first text is whole.

    >>> split_by_shell(["regularization=[l2,", "dropout]", "lr=1"])
    'regularization=[l2, dropout]'
    """
    key, _, value = texts[0].partition("=")
    for text in texts[1:] if _missing_brackets(value) else ():
        if "=" in text:
            return ""
        value = f"{value} {text}"
        if value.endswith(tuple(BRACKETS.values())) and not _missing_brackets(value):
            return f"{key}={value}"
    return ""


def _missing_brackets(value: str) -> str:
    """Return the brackets that a value leaves open, closed; empty where a quote or another bracket is wrong."""
    opened: list[str] = []
    for sign in value:
        if sign in BRACKETS:
            opened.append(BRACKETS[sign])
        elif sign in BRACKETS.values() and (not opened or opened.pop() != sign):
            return ""
    return "" if set(value) & set("'\"") else "".join(reversed(opened))


def quoted(key: str, value: str) -> str:
    """Return the override of a text, as the shell takes it."""
    return shlex.quote(f"{key}={in_quotes(value)}")


_QUOTES = "'\""
_MARKS = frozenset(_QUOTES + "[]{}(),\\")
# an item of a list: a text in quotes, or all up to the next comma
_ITEM = re.compile(r"""\s*(?:("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')\s*|([^,'"][^,]*))(?:,|$)""")
# what the grammar reads without quotes
_PLAIN = re.compile(r"[A-Za-z0-9_./@:+-]+")


def quote_foreign(text: str) -> str:
    """Quote a value with characters beyond ASCII, or such values in a list, which Hydra's grammar does not accept."""
    key, equals, value = text.partition("=")
    if not equals or value.isascii():
        return text
    if not set(value) & _MARKS:
        return f"{key}='{value}'"
    items = _items_of(value)
    if not items or any(
        set(item) & _MARKS for item in items if not item.isascii() and item[0] not in _QUOTES
    ):
        return text
    return f"{key}=[{','.join(item if item.isascii() or item[0] in _QUOTES else in_quotes(item) for item in items)}]"


def _items_of(value: str) -> list[str]:
    """Return the items of a list as they are written; none where it is no list, holds lists or dicts, or a quote is wrong."""
    if not (value.startswith("[") and value.endswith("]")):
        return []
    inner = value[1:-1].strip()
    items, end = [], 0
    while end < len(inner):
        found = _ITEM.match(inner, end)
        item = "" if found is None else found[1] or found[2].rstrip()
        if found is None or not item or item[0] in BRACKETS:
            return []
        items.append(item)
        end = found.end()
    return items


def _quoted_list(key: str, value: str) -> str:
    """Return the override of a list with its texts in quotes; empty where that would not be read either."""
    items = [
        item if item[0] in _QUOTES or _PLAIN.fullmatch(item) else in_quotes(item) for item in _items_of(value)
    ]
    cure = f"{key}=[{','.join(items)}]"
    try:
        grammar.parser().parse_overrides([cure])
    except (OverrideParseException, ValueError):
        return ""
    return cure if items else ""


def _form_hint(overrides: list[str], number: int) -> str:
    """Return what to write in place of an argument that is no override."""
    text, following = overrides[number], overrides[number + 1 :]
    if following[:1] == ["="] and len(following) > 1:
        return f" Write {text}={following[1]}, without spaces."
    if match := re.fullmatch(r"([a-z_.]+):\s*(\S+)", text):
        return f" Write {match[1]}={match[2]}."
    rest = typed(*(other for other in overrides if other != text))
    known = (*verbs(), "--help", "--multirun", "--cfg")
    if means_training(text, known):
        return f" Training has no verb: {rest}."
    return (
        nearest(text, known)
        or f" An override is the key, `=` and the value; the verbs are {', '.join(verbs())}."
    )


def values_of(override: Override) -> list[Any]:
    """Return the values of an override: several for a sweep, else one."""
    if override.is_discrete_sweep():
        return [plain_value(item) for item in override.sweep_iterator(Transformer.identity)]
    return [plain_value(override.value())]


def plain_value(value: Any) -> Any:
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [plain_value(item) for item in value]
    return value


def check_words(parsed: list[Override], catalogue: Catalogue) -> None:
    """Check that every chosen word exists, and that every key begins with a knob or a group."""
    heads = {path.split(".")[0] for path in catalogue.knobs} | set(catalogue.words)
    for override in parsed:
        key = override.key_or_group
        check_form(override, catalogue)
        if key == "hydra":
            raise UserError(NO_SETTING_OF_HYDRA.format(override.input_line))
        if key.split(".")[0].split("/")[0] == "hydra":
            continue
        if key in catalogue.words and override.is_delete():
            none = " or ".join(
                f"{key}={word}"
                for word in ("none", "[]")
                if word in catalogue.words[key] or key in LIST_GROUPS
            )
            raise UserError(
                f"`{override.input_line}`: a group cannot be deleted. Write {none or f'{key}=WORD'}\n"
                f"{listing(f'Words of {key}', catalogue.words[key])}"
            )
        if key in catalogue.words:
            if isinstance(override.value(), Glob) and not values_of(override):
                raise UserError(
                    f"`{override.input_line}` fits no word of {key}.\n{listing(f'Words of {key}', catalogue.words[key])}"
                )
            for value in values_of(override):
                _check_word(key, value, catalogue)
        elif key.split(".")[0] not in heads:
            hint = elsewhere(override, catalogue) or nearest(key, heads)
            raise UserError(f"`{key}` is neither a knob nor a group.{hint} `dltrain --help` lists them all.")


def check_one_value(parsed: list[Override], catalogue: Catalogue) -> None:
    """Refuse several values of a key for one run."""
    for override in parsed:
        if not override.is_sweep_override():
            continue
        key, text = override.key_or_group, str(override.input_line)
        value = text.partition("=")[2]
        param = next((p for p in parameters_of(key, catalogue) if p.rule is not None), None)
        each, one = shlex.quote(text), ""
        if override.is_choice_sweep() and (key in LIST_GROUPS or param is not None):
            each, one = spread(param, key, values_of(override))
        if param is not None and not each and not one:
            for other in values_of(override):
                check_value(param, other)
        others = [str(other.input_line) for other in parsed if other is not override]
        beside = "".join(f" {shlex.quote(text)}" for text in others)
        search = "" if override.is_choice_sweep() or not override.is_interval_sweep() else "sweep=tpe "
        cures = [f"To run each of them, add -m: dltrain -m {search}{each}{beside}"] * bool(each)
        if param is not None and param.rule is not None and "str" in param.rule.text.split(" or "):
            cures.append(f"For a text, write {quoted(key, value)}")
        cures += [f"For one list, write {one}"] * bool(one)
        raise UserError(f"`{text}` gives several values. " + "\n".join(cures))


def check_swept_values(parsed: list[Override], catalogue: Catalogue) -> None:
    """Refuse an axis with values that have to be written in another way, such as in brackets."""
    for override in parsed:
        key = override.key_or_group
        params = [p for p in parameters_of(key, catalogue) if p.rule is not None]
        if not params or key in catalogue.words or not override.is_choice_sweep():
            continue
        values = values_of(override)
        each, one = spread(params[0], key, values)
        if any(all(fits_rule(p, value) for value in values) for p in params[1:]):
            continue
        cures = [f"To try each of them: dltrain -m {each}"] * bool(each)
        cures += [f"For one list in every job: {one}"] * bool(one)
        if each != shlex.quote(f"{key}={','.join(map(written, values))}") and cures:
            rule = params[0].rule.text if params[0].rule else ""
            raise UserError(
                f"`{key}` must be: {rule}; `{override.input_line}` gives other values.\n{'. '.join(cures)}"
            )


def parameters_of(key: str, catalogue: Catalogue) -> Iterator[Param]:
    """Yield the descriptions of a key: a knob, or a key of the words of its group."""
    if key in catalogue.knobs:
        yield catalogue.knobs[key]
    for group, words in catalogue.words.items():
        if key.startswith(f"{group}."):
            yield from (word.params[key] for word in words.values() if key in word.params)


# Hydra's names of settings that are knobs here.
OF_HYDRA = {
    "hydra.sweeper.n_trials": "sweep=tpe sweep.trials", "hydra.sweeper.n_jobs": "sweep.jobs",
}  # fmt: skip


def check_form(override: Override, catalogue: Catalogue) -> None:
    """Refuse the parts of Hydra's grammar that have no use here: `+` and `@` beside a group, `~` before a key."""
    key, text = override.key_or_group, str(override.input_line)
    value = text.partition("=")[2]
    if key in OF_HYDRA:
        raise UserError(
            f"`{text}`: dltrain runs its sweeps itself, so Hydra's {key.split('.')[1]} cannot be set.\n"
            f"Write -m {OF_HYDRA[key]}={value or 'VALUE'}"
        )
    check_plugins([text])
    if key == "hydra.searchpath":
        raise UserError(
            f"`{text}`: the words of those folders would not be found. Give one folder: --config-dir FOLDER"
        )
    check_prefix(override, catalogue)


def check_prefix(override: Override, catalogue: Catalogue) -> None:
    key, text = override.key_or_group, str(override.input_line)
    group, head = group_of(key), re.split(r"[./]", key)[0]
    shipped = group in catalogue.defaults or group in OVERLAYS or group in LIST_GROUPS
    if shipped and not override.is_delete():
        plus = override.is_add() or override.is_force_add()
        if override.package is not None or plus:
            sign = "+" if plus else "@"
            value = text.partition("=")[2]
            raise UserError(f"`{text}`: a word of {group} is chosen without `{sign}`. Write {group}={value}")
    if not override.is_delete() or group in catalogue.words or head == "hydra":
        return
    of_a_dict = any(p.value == {} and key.startswith(f"{path}.") for path, p in catalogue.knobs.items())
    is_word = head in LIST_GROUPS and key.count(".") == 1
    if not of_a_dict and not is_word:
        raise UserError(f"`{text}`: a key cannot be deleted. Leave it out: {key} has its default then")


def say_replaced(overrides: list[str]) -> None:
    """Say which overrides have no effect, since another one follows for the same key."""
    last = {text.partition("=")[0].lstrip("+"): text for text in overrides if "=" in text}
    for text in dict.fromkeys(overrides):
        final = last.get(text.partition("=")[0].lstrip("+"), text)
        if final != text:
            say(f"{text} has no effect: {final} follows")


# Names of the same knobs in other programs.
ALIASES = {
    "learning_rate": "lr", "max_epochs": "epochs", "num_epochs": "epochs", "n_epochs": "epochs", "max_steps": "steps",
    "iterations": "steps", "bs": "batch_size", "random_seed": "seed", "manual_seed": "seed", "gpus": "device",
    "num_workers": "workers", "scheduler": "schedule", "lr_scheduler": "schedule", "criterion": "loss", "arch": "model",
    "net": "model", "network": "model", "data": "dataset", "save_dir": "output", "outdir": "output", "log_dir": "output",
}  # fmt: skip


# Words of other programs, and what stands for them.
NO_WORDS = {"logger=csv": " metrics.csv is always written; write logger=[] for nothing else."}


def elsewhere(override: Override, catalogue: Catalogue) -> str:
    """Return the right place of an unknown key: the knob that other programs name so, a key of some word, or a word."""
    key, value = override.key_or_group, str(override.input_line or "").partition("=")[2]
    if key in ALIASES:
        return f" Write {ALIASES[key]}={value}."
    defaults = {group: word for group, word in catalogue.defaults.items() if isinstance(word, str)}
    cures = []
    # keys of the default words come first
    taken = {g for g, word in defaults.items() if g in catalogue.words and word in catalogue.words[g]
             and f"{g}.{key}" in catalogue.words[g][word].params}  # fmt: skip
    for group, words in sorted(catalogue.words.items(), key=lambda item: item[0] not in taken):
        if group in LIST_GROUPS and key in words:
            cures.append(f"{group}=[{key}]")
        owners = [name for name, word in words.items() if f"{group}.{key}" in word.params]
        if owners and group in defaults:
            word = defaults[group] if defaults[group] in owners else key if key in owners else owners[0]
            cures.append(f"{group}={word} " * (word != defaults[group]) + f"{group}.{key}={value}")
    return f" Write {', or '.join(cures[:2])}." if cures else ""


def _check_word(group: str, value: Any, catalogue: Catalogue) -> None:
    words = catalogue.words[group]
    if isinstance(value, list) and group not in LIST_GROUPS:
        cure = f"To try each of them: {typed('-m', group + '=' + ','.join(map(str, value)))}"
        if group in OF_SWEEPS:
            cure = f"Write {group}={value[0] if value else 'WORD'}"
        raise UserError(f"`{group}` takes one word, not the list {value}. {cure}")
    if isinstance(value, dict):
        keys = ", ".join(f"{group}.{key}=…" for key in value) or f"{group}.KEY=…"
        raise UserError(
            f"`{group}` takes {'words' if group in LIST_GROUPS else 'a word'}, no mapping. Set its keys: {keys}"
        )
    for word in value if isinstance(value, list) else [value]:
        if str(word) not in words or isinstance(word, bool):
            cure = (
                f" Write {group}=none."
                if word in (None, False, "off") and "none" in words
                else NO_WORDS.get(f"{group}={word}") or nearest(str(word), words)
            )
            lies = ""
            if re.fullmatch(r"[\w-]+", str(word)) and "Write" not in cure:
                lies = misplaced(folder_of(group), str(word), catalogue.user_dirs)
            hint = lies if lies and not lies.startswith(" No ") else cure + lies
            raise UserError(
                f"`{group}={word}`: there is no such word.{hint}\n{listing(f'Words of {group}', words)}"
            )
        catalogue.check_usable(group, str(word))


def _explain(error: Exception, parsed: list[Override], catalogue: Catalogue, hydra: Hydra) -> None:
    """Turn Hydra's error into a UserError that names key, rule, cure and the nearest name."""
    words = [str(o.input_line) for o in parsed if o.key_or_group in catalogue.words]
    for text in (str(o.input_line) for o in parsed if re.match(r"hydra\b", o.key_or_group)):
        if not _composes([text], hydra):
            raise UserError(NO_SETTING_OF_HYDRA.format(text)) from None
    try:
        base = hydra.compose_config(CONFIG_NAME, words, run_mode=RunMode.RUN, with_log_configuration=False)
    except (HydraException, OmegaConfBaseException) as inner:
        raise UserError(_first_lines(inner)) from None
    choices = choices_of(base)
    table = catalogue.params(choices)
    for override in parsed:
        key, text = override.key_or_group, str(override.input_line)
        if key in catalogue.words or key.startswith("hydra"):
            continue
        if override.is_delete():
            raise UserError(f"`{text}`: there is no `{key}` to delete. Leave it out") from None
        if override.is_add() and OmegaConf.select(base, key, default=None) is not None:
            raise UserError(f"`{text}`: `{key}` exists already; write it without `+`.") from None
        if key not in table:
            raise UserError(unknown_key(key, "", table, choices, catalogue)) from None
        check_value(table[key], plain_value(override.value()))
        if not _composes([*words, text], hydra):
            raise UserError(f"`{text}` cannot be set to that value.") from None
    raise UserError(_first_lines(error)) from None


NO_SETTING_OF_HYDRA = (
    "`{}`: Hydra has no such setting, or not with that value, and a run needs none of them. Leave it out"
)


def _composes(overrides: list[str], hydra: Hydra) -> bool:
    try:
        hydra.compose_config(CONFIG_NAME, overrides, run_mode=RunMode.RUN, with_log_configuration=False)
    except (HydraException, OmegaConfBaseException):
        return False
    return True


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "provider=" not in line]
    return "\n".join(lines[:3])


# likeness of two keys from which on one is a slip of the other: `beta` of `betas`
_SLIP = 0.8


def unknown_key(
    key: str, source: str, table: dict[str, Param], choices: dict[str, list[str]], catalogue: Catalogue
) -> str:
    """Return the message for an unknown key: where it is set, the nearest name, the words that have it, and the known keys."""
    nested = (group for group in choices if "." in group and key.startswith(f"{group}."))
    head = next(nested, key.split(".")[0])
    siblings = [path for path in table if path.startswith(head + ".")]
    where = f" ({source})" if source else ""
    if head in LIST_GROUPS and "." in key and key.split(".")[1] not in choices.get(head, []):
        word = key.split(".")[1]
        hint = nearest(word, choices.get(head, []))
        return f"`{key}`{where} is set, but {head} has no `{word}` chosen.{hint} Add it: {head}=[{word}]"
    if "." not in key and siblings:
        keys = [path[len(head) + 1 :] for path in siblings]
        return f"`{key}`{where} is a section: set one of its keys, such as {head}.{keys[0]}=…\n{listing(f'Keys of {head}', keys)}"
    if "." not in key:
        return (
            f"`{key}`{where} is neither a knob nor a group.{nearest(key, {p.split('.')[0] for p in table})}"
        )
    chosen = (
        f"{head}={choices[head][0]}"
        if head in choices and head not in LIST_GROUPS and choices[head]
        else head
    )
    if key == "optimizer.momentum":
        cure = (
            "its momentum is the first number of optimizer.betas"
            if "optimizer.betas" in table
            else "use optimizer=momentum or nesterov"
        )
        return f"`{key}`{where} is no key of {chosen}, which has no such momentum: {cure}."
    listed = listing(f"Keys of {chosen}", (path[len(head) + 1 :] for path in siblings))
    own = key.rpartition(".")[2]
    is_slip = close(own, [path.rpartition(".")[2] for path in siblings], 1, _SLIP)
    owners = "" if source or is_slip else owners_of(key, catalogue)
    hint = f" It is one of {owners}." if owners else nearest(key, siblings)
    return f"`{key}`{where} is no key of {chosen}.{hint}\n{listed}"


def owners_of(key: str, catalogue: Catalogue) -> str:
    """Return at most four words that have a key, as they are chosen: `dataset=csv or npz`; "" for a key of no word."""
    group = key.split(".")[0]
    words = {} if group in LIST_GROUPS else catalogue.words.get(group, {})
    found = sorted(name for name, word in words.items() if key in word.params)
    return f"{group}={' or '.join(found[:4])}" if found else ""
