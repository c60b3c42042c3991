"""What parts declare (dltrain/declare.py), read from their source: importing them would import torch.

The methods of a regularizer show where it acts: it changes gradients, moves weights, or has a strength that a schedule
scales. The return annotation of a factory states which class it builds; its overloads, for which keys.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dltrain.config.signature import MAX_HOPS, Definition, find_definitions, find_own
from dltrain.errors import UserError

# methods of a regularizer, and what they give
ACTIONS = {
    "penalty": "strength",
    "change_gradients": "changed gradients",
    "before_update": "moved weights",
    "after_update": "constrained weights",
}
_ITEM = re.compile(r"(?P<name>.+?)(?: (?P<word>if|unless) (?P<key>\w+)(?:=(?P<value>\S+))?)?")


@dataclass(frozen=True)
class Declared:
    """What a part declares; items may depend on its keys.

    Args:
        needs: None for the needs of its group
        instead: by item, the setting that works where this part does not
        complete: whether the classes that a factory builds are known, too
        requires: packages that dltrain does not install, as pip and `import` name them
    """

    needs: frozenset[str] | None = None
    gives: frozenset[str] = frozenset()
    instead: Mapping[str, str] = field(default_factory=dict)
    complete: bool = True
    requires: frozenset[str] = frozenset()

    def names(self) -> set[str]:
        """Return the names of all items."""
        return {
            match["name"] for item in (self.needs or set()) | self.gives if (match := _ITEM.fullmatch(item))
        }


def held(items: frozenset[str], keys: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the items that hold with these keys.

    >>> items = frozenset({"rows", "classes if task=classification", "no skips unless residual"})
    >>> sorted(held(items, {"task": "regression"}))
    ['no skips', 'rows']
    """
    always, conditional = _parsed(items)
    return (
        always.union(match["name"] for match in conditional if _holds(match, keys)) if conditional else always
    )


@lru_cache(maxsize=1024)
def _parsed(items: frozenset[str]) -> tuple[frozenset[str], list[re.Match[str]]]:
    matches = [match for item in items if (match := _ITEM.fullmatch(item))]
    always = frozenset(match["name"] for match in matches if match["word"] is None)
    return always, [match for match in matches if match["word"]]


def condition(name: str, own: Declared, keys: Mapping[str, Any]) -> str:
    """Return the key, as `KEY=VALUE`, on which an item depends that holds; empty where it always does."""
    for match in _parsed((own.needs or frozenset()) | own.gives)[1]:
        if match["name"] == name and _holds(match, keys):
            return f"{match['key']}={str(keys.get(match['key'])).lower()}"
    return ""


def _holds(match: re.Match[str], keys: Mapping[str, Any]) -> bool:
    value = keys.get(match["key"])
    holds = bool(value) if match["value"] is None else str(value) == match["value"]
    return holds == (match["word"] == "if")


def check_installed(packages: Iterable[str], word: str) -> None:
    """Raise UserError, with the command that installs it, for a package that is missing; nothing is imported."""
    for package in sorted(packages):
        if package.partition(".")[0] not in sys.modules and not find_spec(package.partition(".")[0]):
            raise UserError(
                f"`{word}` needs the package {package}, which is not installed.\nInstall it: pip install {package}"
            )


def of_object(part: object) -> Declared:
    """Return what an object declares."""
    gives = {given for method, given in ACTIONS.items() if hasattr(part, method)}
    return Declared(
        frozenset(getattr(part, "needs", ())),
        frozenset(getattr(part, "gives", ())) | gives,
        getattr(part, "instead", {}),
    )


def declared(target: str, folders: tuple[Path, ...] = ()) -> Declared:
    """Return what the source of a dotted name declares."""
    definitions, module = find_definitions(target, folders)
    if not definitions:
        return Declared(complete=False)
    if isinstance(definitions[-1], ast.ClassDef):
        return _own(definitions[-1], module, folders)
    overloads = [d for d in definitions[:-1] if isinstance(d, ast.FunctionDef)] or definitions[-1:]
    built = [(_built(function, module, folders), _conditions(function)) for function in overloads]
    always = frozenset[str].intersection(*(part.gives for part, _ in built))
    parts = [
        replace(
            part,
            needs=None if part.needs is None else _conditional(part.needs, conditions),
            gives=always | _conditional(part.gives - always, conditions),
        )
        for part, conditions in built
    ]
    return _joined([_stated(definitions[-1]), *parts])


def _conditional(items: frozenset[str], conditions: list[str]) -> frozenset[str]:
    return frozenset(f"{item} if {c}" for item in items for c in conditions) if conditions else items


def _built(function: Definition, module: str, folders: tuple[Path, ...]) -> Declared:
    """Return what the classes declare that a function may return."""
    assert isinstance(function, ast.FunctionDef)
    hint = function.returns
    names = [node.id for node in ast.walk(hint) if isinstance(node, ast.Name)] if hint else []
    found = [f for name in names if (f := find_own(name, module, folders)) is not None]
    kinds = [_own(node, place, folders) for node, place in found if isinstance(node, ast.ClassDef)]
    return _joined([Declared(complete=bool(kinds)), *kinds])


def _conditions(function: Definition) -> list[str]:
    """Return `mode=norm` for each value of an overload's first literal key."""
    assert isinstance(function, ast.FunctionDef)
    if not any(ast.unparse(decorator).endswith("overload") for decorator in function.decorator_list):
        return []
    for argument in (*function.args.args, *function.args.kwonlyargs):
        hint = argument.annotation
        if isinstance(hint, ast.Subscript) and ast.unparse(hint.value) == "Literal":
            values = _literal(hint.slice)
            return [f"{argument.arg}={v}" for v in (values if isinstance(values, tuple) else (values,))]
    return []


def _own(node: ast.ClassDef, module: str, folders: tuple[Path, ...], hops: int = MAX_HOPS) -> Declared:
    """Return what a class and its base classes declare; its own needs, gives and instead replace those of its bases."""
    found = [find_own(ast.unparse(base), module, folders) for base in node.bases if hops]
    bases = [(kind, place) for kind, place in filter(None, found) if isinstance(kind, ast.ClassDef)]
    inherited = _joined([_own(kind, place, folders, hops - 1) for kind, place in bases if kind is not node])
    stated = _stated(node)
    methods = [m for m in node.body if isinstance(m, ast.FunctionDef) and m.name in ACTIONS]
    acts = {ACTIONS[method.name] for method in methods}
    if any(n.id == "scale" for m in methods for n in ast.walk(m) if isinstance(n, ast.Name)):
        acts.add("strength")
    return Declared(
        inherited.needs if stated.needs is None else stated.needs,
        (stated.gives or inherited.gives) | acts | (inherited.gives & set(ACTIONS.values())),
        stated.instead or inherited.instead,
        requires=stated.requires or inherited.requires,
    )


def _stated(node: Definition) -> Declared:
    """Return what the decorator of a function, or the attributes of a class, state."""
    stated: dict[str, Any] = {}
    for call in node.decorator_list:
        if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] == "declares":
            stated |= {word.arg: word.value for word in call.keywords if word.arg}
    for item in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(item, ast.Assign | ast.AnnAssign) and item.value is not None:
            targets = item.targets if isinstance(item, ast.Assign) else [item.target]
            stated |= {target.id: item.value for target in targets if isinstance(target, ast.Name)}
    names = ("needs", "gives", "instead", "requires")
    needs, gives, instead, requires = (_literal(stated.get(name)) for name in names)
    return Declared(
        _texts(needs),
        _texts(gives) or frozenset(),
        instead if isinstance(instead, dict) else {},
        requires=_texts(requires) or frozenset(),
    )


def _texts(value: Any) -> frozenset[str] | None:
    """Return a set of texts; None for anything else, such as an attribute that means something else."""
    texts = isinstance(value, set | frozenset) and all(isinstance(item, str) for item in value)
    return frozenset(value) if texts else None


def _literal(value: ast.expr | None) -> Any:
    """Return a literal, also inside `frozenset(…)`; None for anything else."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) in ("frozenset", "set"):
        return _literal(value.args[0]) if value.args else frozenset()
    try:
        return ast.literal_eval(value) if value is not None else None
    except ValueError:
        return None


def _joined(parts: list[Declared]) -> Declared:
    """Return the union of several declarations."""
    needs = [part.needs for part in parts if part.needs is not None]
    instead = {item: cure for part in parts for item, cure in part.instead.items()}
    gives = frozenset[str]().union(*(part.gives for part in parts))
    union = frozenset[str]().union(*needs) if needs else None
    requires = frozenset[str]().union(*(part.requires for part in parts))
    return Declared(union, gives, instead, all(part.complete for part in parts), requires)
