"""What `${…}` stands for is bounded before anything is resolved."""

from __future__ import annotations

import pytest

from dltrain.config.links import MOST, MOST_OF_ALL, check_links
from dltrain.errors import UserError


def doubling(link: str) -> list[str]:
    return ["x" * 10, *(link.replace("I", str(i)) for i in range(40))]


BOMBS = {
    "texts": {"tags": doubling("${tags.I}${tags.I}")},
    "brackets": {"tags": doubling("${tags[I]}${tags[I]}")},
    "relative": {"tags": doubling("${.I}${.I}")},
    "a resolver of keys": {"tags": doubling("${oc.select:tags.I}${oc.select:tags.I}")},
    "lists": {f"a{i}": [f"${{a{i - 1}}}"] * 2 if i else ["x"] * 10 for i in range(40)},
    "mappings": {f"a{i}": {"l": f"${{a{i - 1}}}", "r": f"${{a{i - 1}}}"} if i else {"x": 1} for i in range(40)},
    "keys that are links": {"k": "tags", "tags": doubling("${${k}.I}${${k}.I}")},
    "arguments": {"tags": doubling("${oc.select:nothing,${tags.I}${tags.I}}")},
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_texts_that_double_are_refused_at_once(name):
    with pytest.raises(UserError, match=f"more than {MOST:,} letters"):
        check_links(BOMBS[name])


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"a": 1, "b": "${a}", "c": ["${b}-${a}", "${oc.env:HOME}"], "d": {"e": "${..a} ${.f}", "f": "x"}},
        {"word": "small", "sizes": {"small": 1, "big": 2}, "size": "${sizes.${word}}", "same": "${size}"},
        {
            "a": "${nothing.at.all}",
            "b": "${b}",
            "c": "${oc.create:{x: 1}}",
            "d": r"\${a}",
            "e": "${",
            "f": "}",
        },
        {"long": "x" * 2_000_000},
    ],
)
def test_honest_links_pass(plain):
    check_links(plain)


@pytest.mark.parametrize(
    "plain", [{"a": 1, "b": "${a}" * 60_000}, {"a": 1, "b": ["${a}"] * 60_000}], ids=["text", "list"]
)
def test_more_links_than_a_configuration_has_are_refused_at_once(plain):
    """OmegaConf takes up to a millisecond for each."""
    with pytest.raises(UserError, match=f"more than {MOST_OF_ALL:,} links"):
        check_links(plain)
