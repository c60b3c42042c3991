"""Compute the size of what `${…}` stands for before anything is resolved.

A text that refers to another one twice, as in `'${tags.3}${tags.3}'`, doubles its length: a chain of forty has 10¹² characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from dltrain.errors import UserError

# letters and items that all `${…}` of a configuration may stand for, and links that one text may follow one after another
MOST, MOST_LINKS = 1_000_000, 50
# links of a configuration, each of which takes OmegaConf up to a millisecond
MOST_OF_ALL = 1_000
# of a text from the environment, or of another resolver
_OUTSIDE = 1_000
# resolvers whose first argument is a key
_BY_KEY = ("oc.select", "oc.dict.keys", "oc.dict.values", "oc.deprecated")
_INNERMOST = re.compile(r"\$\{([^${}]*)\}")
_NESTED = re.compile(r"\$\{[^}]*\$\{")
_PARTS = re.compile(r"[^.\[\]]+")

Path = tuple[str, ...]


def check_links(plain: dict[Any, Any]) -> None:
    """Raise UserError for an unresolved configuration with too many links, or whose links stand for too much.

    At most `MOST_OF_ALL` links, for at most `MOST` letters and items.
    """
    # Hydra's node repeats the overrides
    plain = {key: value for key, value in plain.items() if key != "hydra"} | {"hydra": plain.get("hydra")}
    texts = [(path, text) for path, text in _texts(plain, ()) if "${" in text]
    # most configurations hold a few links to single values
    if not texts:
        return
    if sum(text.count("${") for _, text in texts) > MOST_OF_ALL:
        path, text = max(texts, key=lambda found: found[1].count("${"))
        key = ".".join(path)[:80]
        raise UserError(
            f"The configuration has more than {MOST_OF_ALL:,} links, `${{…}}`; `{key}` is {text[:80]}.\n"
            f"Write the value of `{key}` itself, or fewer links."
        )
    # a chain passes through each text once, and a link whose key is a link itself may lead to any node
    chosen = 0
    for _ in range(sum(bool(_NESTED.search(text)) for _, text in texts)):
        chosen = min(_Sizes(plain, chosen).of_node(plain, (), 0), MOST + 1)
    sizes = _Sizes(plain, chosen)
    total = 0
    for path, text in texts:
        size = sizes.of_text(text, path[:-1], 0)
        total += size
        if total > MOST:
            key = ".".join(path)
            raise UserError(
                f"`{key[:80]}` is {text[:80]}: what these links stand for has more than {MOST:,} letters, or has no end.\n"
                f"Write the value of `{key[:80]}` itself, or fewer links."
            )


class _Sizes:
    """Upper bounds of the resolved sizes of nodes; `chosen` is that of a link whose key is a link itself."""

    def __init__(self, root: dict[Any, Any], chosen: int) -> None:
        self.root, self.chosen = root, chosen
        self.known: dict[Path, int] = {}

    def of_text(self, text: str, here: Path, links: int) -> int:
        """Return letters of a text whose links are followed; more than `MOST` where there are too many, one after another."""
        if "${" not in text:
            return 1 + len(text)
        if links > MOST_LINKS:
            return MOST + 1
        size = len(text)
        while found := _INNERMOST.search(text):
            size += self._of_link(found[1], here, links + 1)
            if size > MOST:
                return size
            text = f"{text[: found.start()]}\0{text[found.end() :]}"
        # braces of a resolver's arguments
        return size + (_OUTSIDE if "${" in text else 0)

    def _of_link(self, body: str, here: Path, links: int) -> int:
        name, colon, arguments = body.partition(":")
        key = arguments.partition(",")[0].strip(" '\"") if colon and name.strip() in _BY_KEY else name.strip()
        if colon and name.strip() not in _BY_KEY:
            return _OUTSIDE
        if "\0" in key:
            return self.chosen
        dots = len(key) - len(key.lstrip("."))
        above = () if dots == 0 else here[: len(here) + 1 - dots]
        return self._of_path((*above, *_PARTS.findall(key)), links)

    def _of_path(self, path: Path, links: int) -> int:
        if path not in self.known:
            node: Any = self.root
            for part in path:
                node = _child(node, part)
            # OmegaConf reports a link that leads to itself
            self.known[path] = 0
            self.known[path] = self.of_node(node, path, links)
        return self.known[path]

    def of_node(self, node: Any, path: Path, links: int) -> int:
        if isinstance(node, str):
            return self.of_text(node, path[:-1], links)
        size = 1
        for part, child in _children(node):
            size += self.of_node(child, (*path, part), links)
            if size > MOST:
                break
        return size


def _child(node: Any, part: str) -> Any:
    if isinstance(node, dict):
        return node[part] if part in node else next((v for k, v in node.items() if str(k) == part), None)
    inside = isinstance(node, list) and part.isdecimal() and len(part) < 9 and int(part) < len(node)
    return node[int(part)] if inside else None


def _children(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        yield from ((str(key), value) for key, value in node.items())
    elif isinstance(node, list):
        yield from ((str(place), value) for place, value in enumerate(node))


def _texts(node: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(node, str):
        yield path, node
    for part, child in _children(node):
        yield from _texts(child, (*path, part))
