"""Check at build time that a part fits the interface of its group, and say which method or argument is wrong.

The interface of a group is a `Protocol` beside its family; docs/extending.md shows each of them with an example.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from dltrain.errors import UserError


def check_fits(part: object, names: Sequence[str], key: str) -> None:
    """Raise UserError, naming the method and its arguments, for an object that fits none of the interfaces.

    Args:
        part: what the word of a group gave
        names: the dotted names of the group's interfaces
        key: of the word, for the message
    """
    interfaces = [interface_of(name) for name in names]
    misfits = [misfit(part, interface) for interface in interfaces]
    # a part that fits one interface may lack the methods of another, but not have them with other arguments
    wrong = [found for found in misfits if found is not None and not found.startswith(("has no", "is no"))]
    if None in misfits and not wrong:
        check_spelling(part, names_of(interfaces), key)
        return
    # of several interfaces the one whose method exists with other arguments
    nearest = next(iter(wrong), misfits[0])
    others = f" (or one of: {', '.join(names_of(interfaces))})" if len(interfaces) > 1 and not wrong else ""
    module = names[0].rpartition(".")[0]
    raise UserError(
        f"`{key}` gives {described(part)}, which {nearest}{others}.\n"
        f"docs/extending.md shows the interface, {module}, with an example."
    )


def check_spelling(part: object, known: Sequence[str], key: str) -> None:
    """Refuse a method that nobody calls and that is called nearly like one of an interface, which the part lacks."""
    own = [
        name for name in vars(type(part)) if not name.startswith("_") and callable(getattr(part, name, None))
    ]
    for name in own if not inspect.isroutine(part) else ():
        lacking = [other for other in known if not hasattr(part, other)]
        if name not in known and (found := difflib.get_close_matches(name, lacking, n=1, cutoff=0.85)):
            raise UserError(
                f"`{key}` gives an object of {type(part).__qualname__}, whose method `{name}` nobody calls. Did you mean "
                f"`{found[0]}`? Rename it, or begin its name with an underscore."
            )


def interface_of(name: str) -> type:
    module, _, attribute = name.rpartition(".")
    found: type = getattr(importlib.import_module(module), attribute)
    return found


def described(part: object) -> str:
    kind = part if inspect.isroutine(part) or inspect.isclass(part) else type(part)
    noun = (
        "the function"
        if inspect.isroutine(part)
        else "the class"
        if inspect.isclass(part)
        else "an object of"
    )
    return f"{noun} {getattr(kind, '__qualname__', kind)}" if part is not None else "None"


def misfit(part: object, interface: type) -> str | None:
    """Return what an object lacks for an interface; None where it fits."""
    if not getattr(interface, "_is_protocol", False):
        return (
            None if isinstance(part, interface) else f"is no {interface.__module__}.{interface.__qualname__}"
        )
    for name, method in methods_of(interface).items():
        # the signature of a function is its own, not that of its __call__
        found = {"__call__": part}.get(name) or getattr(part, name, None)
        if not callable(found) or inspect.isclass(part):
            return f"has no method `{written(name, method)}`"
        if (refused := mismatch(found, method)) is not None:
            return f"has {name}{inspect.signature(found)}, and must have `{written(name, method)}`: {refused}"
    return None


def methods_of(interface: type) -> dict[str, Callable[..., Any]]:
    return {
        name: value
        for name, value in vars(interface).items()
        if inspect.isfunction(value) and (name in ("__call__", "__len__") or not name.startswith("_"))
    }


def names_of(interfaces: Sequence[type]) -> list[str]:
    return [name for interface in interfaces for name in methods_of(interface)]


def mismatch(found: Callable[..., Any], method: Callable[..., Any]) -> str | None:
    """Return why a method cannot be called with the arguments of an interface's method."""
    try:
        signature = inspect.signature(found)
    except (ValueError, TypeError):
        return None
    wanted = list(inspect.signature(method).parameters.values())[1:]
    if any(p.kind is p.VAR_POSITIONAL for p in wanted):
        return None
    required = [p for p in wanted if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    try:
        signature.bind(*required)
    except TypeError as error:
        return str(error)
    return None


def written(name: str, method: Callable[..., Any]) -> str:
    """Return `name(self, …)` without annotations, as a user writes it."""
    parameters = inspect.signature(method).parameters.values()
    plain = [p.replace(annotation=p.empty) for p in parameters if p.kind is not p.VAR_KEYWORD]
    return f"{name}{inspect.Signature(plain)}"
