"""Declarations of optimizers and regularizers, read from their source: importing them would import torch.

An optimizer declares what it `needs` (dltrain/optimizers/stepping.py). A regularizer's methods show where it acts
(dltrain/regularization/protocols.py); `needs` states what it relies on, and `instead` the equivalent penalty in the loss.
The return annotation of a factory states which class it builds; its overloads, for which keys.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import dltrain

ACTIONS = ("penalty", "change_gradients", "before_update", "after_update")


@dataclass(frozen=True)
class Declared:
    """What a class declares.

    Args:
        needs: names of what it relies on
        actions: for a regularizer, the `ACTIONS` that it implements
        scaled: whether a penalty schedule scales any of them
        instead: the word with the same effect in the loss
    """

    needs: frozenset[str] = frozenset()
    actions: frozenset[str] = frozenset()
    scaled: bool = False
    instead: str = ""


def declared(target: Any, keys: Mapping[str, Any]) -> list[Declared]:
    """Return what a target may build with these keys: several where a missing key decides, none where it is unknown."""
    module, _, name = str(target or "").rpartition(".")
    tree = _parsed(module)
    if tree is None:
        return []
    if _builds_nothing(tree, name):
        return [Declared()]
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    names = [name] if name in classes else list(_built_by(tree, name, keys))
    return [_of_class(classes[found], classes) for found in names if found in classes]


@cache
def _parsed(module: str) -> ast.Module | None:
    """Parse the source of a module of this package, or of one in the working folder."""
    first, *rest = module.split(".")
    home = Path(dltrain.__file__).parent if first == "dltrain" else Path.cwd() / first
    base = home.joinpath(*rest)
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if module and file.is_file():
            try:
                return ast.parse(file.read_text(encoding="utf-8"))
            # importing the module reports the error
            except (SyntaxError, ValueError, OSError):
                return None
    return None


def _built_by(tree: ast.Module, name: str, keys: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the classes that a function returns, by its overloads where it has some."""
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    overloads = [f for f in found if any(ast.unparse(d).endswith("overload") for d in f.decorator_list)]
    for function in overloads or found:
        if function.returns is not None and _fits(function, keys):
            yield from (node.id for node in ast.walk(function.returns) if isinstance(node, ast.Name))


def _fits(function: ast.FunctionDef, keys: Mapping[str, Any]) -> bool:
    """Return whether the keys are among the literals of an overload."""
    for argument in (*function.args.args, *function.args.kwonlyargs):
        hint = argument.annotation
        if argument.arg in keys and isinstance(hint, ast.Subscript) and ast.unparse(hint.value) == "Literal":
            allowed = ast.literal_eval(hint.slice)
            if keys[argument.arg] not in (allowed if isinstance(allowed, tuple) else (allowed,)):
                return False
    return True


def _builds_nothing(tree: ast.Module, name: str) -> bool:
    """Return whether a function is annotated to return None, as those of regularization/model_keys.py."""
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return any(isinstance(f.returns, ast.Constant) and f.returns.value is None for f in found)


def _of_class(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> Declared:
    bases = [
        classes[b.id] for b in node.bases if isinstance(b, ast.Name) and b.id in classes and b.id != node.name
    ]
    inherited = [_of_class(base, classes) for base in bases]
    methods = {m.name: m for m in node.body if isinstance(m, ast.FunctionDef) and m.name in ACTIONS}
    names = {name: {n.id for n in ast.walk(m) if isinstance(n, ast.Name)} for name, m in methods.items()}
    own = {
        target.id: statement.value
        for statement in node.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    return Declared(
        needs=_set(own["needs"]) if "needs" in own else frozenset().union(*(b.needs for b in inherited)),
        actions=frozenset(methods).union(*(b.actions for b in inherited)),
        scaled="penalty" in methods
        or any("scale" in used for used in names.values())
        or any(b.scaled for b in inherited),
        instead=str(ast.literal_eval(own["instead"]))
        if "instead" in own
        else "".join(b.instead for b in inherited),
    )


def _set(value: ast.expr) -> frozenset[str]:
    """Return the members of a literal set, also inside `frozenset(…)`."""
    inner = value.args[0] if isinstance(value, ast.Call) and value.args else value
    try:
        return frozenset(ast.literal_eval(inner))
    except (ValueError, TypeError):
        return frozenset()
