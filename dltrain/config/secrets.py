"""Values from the environment: they may be secrets, and are saved as the expressions that read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from dltrain.errors import UserError

Path = tuple[Any, ...]

_LINK = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
# links followed in one text
MAX_LINKS = 10


def secrets_of(cfg: DictConfig) -> dict[str, Any]:
    """Return values that depend on the environment: dotted path → the text, or the list, that reads it.

    Dependence is tested, not parsed, since a text may use links, lists and other resolvers: the configuration is resolved a
    second time with another answer to every `oc.env`, and every value that differs is a secret.
    """
    raw = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(raw, dict)
    if not any("oc.env" in text for text in texts_of(raw)):
        return {}
    asking = {
        path: value
        for path, value in leaves_of(raw)
        if path[0] != "hydra" and any("${" in text for text in texts_of(value))
    }
    true = {path: _resolved(cfg, path) for path in asking}
    with _other_environment():
        other = {path: _resolved(cfg, path) for path in asking}
    texts = {".".join(map(str, path)): value for path, value in leaves_of(raw)}
    return {
        ".".join(map(str, path)): _without_links(value, texts)
        for path, value in asking.items()
        if true[path] != other[path]
    }


def put(content: dict[str, Any], secrets: dict[str, Any]) -> None:
    """Put the expression of each secret in its place. A key may contain dots itself, as in `parameters.lr_scale`."""
    for path, parent, key in list(_places(content)):
        if path in secrets:
            parent[key] = secrets[path]


def resolve(content: dict[str, Any]) -> dict[str, Any]:
    """Resolve `${oc.env:NAME}` in saved plain data; return the expressions, by dotted path.

    Raises UserError where the variable is not set and the text names no default, or where a text yields a mapping.
    """
    found = {}
    for path, parent, key in list(_places(content)):
        value = parent[key]
        if not isinstance(value, dict) and any("oc.env" in text for text in texts_of(value)):
            found[path] = value
            parent[key] = _resolved_alone(path, value)
    return found


def _resolved_alone(path: str, value: Any) -> Any:
    if any(len(text) > 500 for text in texts_of(value)):
        raise UserError(f"`{path}` asks for the environment in more than 500 characters.")
    try:
        resolved = OmegaConf.to_container(OmegaConf.create({"value": value}), resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"`{path}` is {value}: {str(error).splitlines()[0]}") from None
    assert isinstance(resolved, dict)
    items = resolved["value"] if isinstance(resolved["value"], list) else [resolved["value"]]
    if any(isinstance(item, dict | list) for item in items):
        raise UserError(
            f"`{path}` is {str(value)[:80]}; what comes from the environment must be plain values."
        )
    return resolved["value"]


def leaves_of(node: dict[Any, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value of nested mappings with its path; a list is one value."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves_of(value, (*above, key))
        else:
            yield (*above, key), value


def texts_of(value: Any) -> Iterator[str]:
    """Yield every text of nested mappings and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_of(item)


def _places(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Yield the dotted path, the mapping and the key of every entry of nested mappings."""
    for key, value in node.items():
        yield f"{prefix}{key}", node, key
        if isinstance(value, dict):
            yield from _places(value, f"{prefix}{key}.")


def _resolved(cfg: DictConfig, path: Path) -> Any:
    """Return the value at a path as plain data; a new object, equal to nothing, where it cannot be resolved."""
    node: Any = cfg
    try:
        for key in path:
            node = node[key]
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException:
        return object()


@contextmanager
def _other_environment() -> Iterator[None]:
    """Let every `oc.env` answer with a text that no environment holds."""

    def answer(key: str, *default: Any) -> str:
        return f"another value of {key}"

    OmegaConf.register_new_resolver("oc.env", answer, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _without_links(value: Any, texts: dict[str, Any], links: int = MAX_LINKS) -> Any:
    """Expand links such as `${notes}`, so that the value can be read back by itself."""
    if isinstance(value, list):
        return [_without_links(item, texts, links) for item in value]
    if not isinstance(value, str) or links == 0:
        return value
    match = _LINK.fullmatch(value)
    if match and match[1] in texts:
        return _without_links(texts[match[1]], texts, links - 1)
    written = _LINK.sub(lambda m: str(texts.get(m[1], m[0])), value)
    return written if written == value else _without_links(written, texts, links - 1)
