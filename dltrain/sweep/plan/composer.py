"""Many configurations of one sweep, each composed and validated in a few milliseconds.

Hydra composes once for each distinct set of words (0.1 s); what only sets a value is set in a copy of the plain data,
where the interpolations follow it, and is checked by the same rules. Whatever is not of that simple kind (a new key,
a dictionary, an interpolation inside a text) goes through Hydra's own composition.
"""

from __future__ import annotations

import pickle
import re
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from dltrain.config.catalogue import Catalogue, Param, leaves
from dltrain.config.compose import CONFIG_NAME, compose, plain_value
from dltrain.config.schema import Config, Node
from dltrain.config.secrets import texts_of
from dltrain.config.signature import REQUIRED
from dltrain.config.validation import (
    check_trust,
    check_values,
    checked,
    drop_outside,
    drop_replaced,
    validate,
)
from dltrain.config.values import check_value
from dltrain.sweep.plan.space import parse_one

if TYPE_CHECKING:
    from dltrain.config.hydra_private import Hydra

_LINK = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")


@dataclass
class Base:
    """One set of words, composed: its plain data before interpolation, and who follows whom.

    Args:
        targets: the names below `_target_`, those of the sweep too
    """

    choices: dict[str, list[str]]
    targets: set[str]
    # the plain data, pickled: the quickest deep copy; None where only Hydra can resolve it
    packed: bytes | None
    links: dict[str, str]  # path → the path whose value it takes
    paths: list[str] = field(default_factory=list)  # all of them, in order
    open: set[str] = field(
        default_factory=set
    )  # paths whose values each job must check: links, and what must be given


class Composer:
    """Composes and validates the configurations of a sweep."""

    def __init__(self, catalogue: Catalogue, hydra: Hydra, name: str = CONFIG_NAME) -> None:
        self.catalogue, self.hydra, self.name = catalogue, hydra, name
        self.bases: dict[tuple[str, ...], Base] = {}
        # descriptions of a key, with the number of bases from which they are
        self.params: dict[str, tuple[int, list[Param]]] = {}
        self.parse = lru_cache(maxsize=4096)(parse_one)

    def config(self, overrides: list[str]) -> Config:
        """Return the validated configuration of one job. Raises UserError, as a single run would."""
        parsed = [self.parse(text) for text in overrides]
        structure = [o for o in parsed if not self.is_value(o)]
        base = self.base([str(o.input_line) for o in structure])
        plain = self.set_values(base, [o for o in parsed if self.is_value(o)])
        if plain is None:
            return validate(compose(overrides, self.catalogue, self.hydra, self.name))
        # in the order of the configuration, so that of two mistakes the first one is reported, as in a single run
        set_here = {o.key_or_group for o in parsed if self.is_value(o)}
        changed = [path for path in base.paths if path in set_here or path in base.open]
        return checked(plain, base.choices, overrides, self.catalogue, changed=changed)

    def check_value(self, text: str) -> None:
        """Check the value of an override by the rules of its key, and of the keys that follow it, among all words composed."""
        override = self.parse(text)
        if self.is_value(override):
            value = plain_value(override.value())
            for param in self.params_of(override.key_or_group):
                check_value(param, value)

    def params_of(self, key: str) -> list[Param]:
        """Return the different descriptions of a key, and of the keys that take its value, among all words composed."""
        known = self.params.get(key)
        if known is None or known[0] != len(self.bases):
            found: dict[int, Param] = {}
            for base in self.bases.values():
                table = self.catalogue.params(base.choices)
                followers = [path for path, target in base.links.items() if target == key]
                found |= {id(table[path]): table[path] for path in (key, *followers) if path in table}
            known = self.params[key] = (len(self.bases), list(found.values()))
        return known[1]

    def is_value(self, override: Override) -> bool:
        """Return whether an override only sets the value of a key."""
        key = override.key_or_group
        structural = (
            key in self.catalogue.words or "/" in key or "@" in key or key.split(".")[0] in ("hydra", "sweep")
        )
        plain = not (override.is_add() or override.is_delete() or override.package)
        return plain and not structural and not key.rsplit(".", 1)[-1].startswith("_")

    def base(self, structure: list[str]) -> Base:
        key = tuple(structure)
        if key not in self.bases:
            self.bases[key] = self._compose(structure)
        return self.bases[key]

    def _compose(self, structure: list[str]) -> Base:
        composition = compose(structure, self.catalogue, self.hydra, self.name)
        check_trust(composition)
        whole = cast(Node, OmegaConf.to_container(composition.cfg, resolve=False))
        targets = {v for path, v in leaves(whole) if path.endswith("_target_") and isinstance(v, str)}
        plain = drop_outside(whole)
        drop_replaced(plain, composition)
        links, simple = {}, True
        for path, value in leaves(plain):
            if isinstance(value, str) and (match := _LINK.fullmatch(value)):
                links[path] = match[1]
            elif any("${" in text for text in texts_of(value)):
                simple = False
        packed = pickle.dumps(plain, protocol=5) if simple else None
        base = Base(composition.choices, targets, packed, links)
        resolved = self.set_values(base, [])
        if resolved is not None:
            self.check_rest(base, resolved)
        return base

    def check_rest(self, base: Base, whole: Node) -> None:
        """Check the values that no job of these words sets; a job checks those that it sets."""
        base.paths = [sys.intern(path) for path, _ in leaves(whole)]
        base.open = {path for path, value in leaves(whole) if value == REQUIRED} | set(base.links)
        given = {path for path, value in leaves(whole) if value != REQUIRED}
        check_values(whole, base.choices, self.catalogue, given)

    def set_values(self, base: Base, overrides: list[Override]) -> Node | None:
        """Return the plain data with values set and links followed; None where that takes Hydra itself."""
        if base.packed is None:
            return None
        plain: Node = pickle.loads(base.packed)
        links = dict(base.links)
        for override in overrides:
            value = plain_value(override.value())
            if isinstance(value, dict) or "${" in str(value) or not _set(plain, override.key_or_group, value):
                return None
            links.pop(override.key_or_group, None)
        try:
            for path in links:
                _set(plain, path, _follow(plain, links, path))
        except (KeyError, TypeError, RecursionError):
            return None
        return plain


def _set(plain: Node, path: str, value: Any) -> bool:
    """Set a leaf that exists; False where there is none."""
    *parents, last = path.split(".")
    node: Any = plain
    for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node or isinstance(node[last], dict):
        return False
    node[last] = value
    return True


def _follow(plain: Node, links: dict[str, str], path: str) -> Any:
    """Return the value at the end of a chain of links."""
    if path in links:
        return _follow(plain, links, links[path])
    node: Any = plain
    for part in path.split("."):
        node = node[part]
    if isinstance(node, dict):
        raise KeyError(path)  # a whole node: Hydra's business
    return node
