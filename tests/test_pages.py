"""The pages of the documentation refer to what exists, and the picture of the packages is that of the imports."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import pytest
from test_layers import FILES, FRONT, imports_of, room_of

from dltrain.commands.handbook import pages

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "dltrain", "tests", "conf", "benchmarks", "examples", "hydra_plugins", ".github", ".ci")
TEXTS = sorted(
    file
    for folder in FOLDERS
    for file in (ROOT / folder).rglob("*")
    if file.suffix in (".md", ".py", ".yaml", ".yml", ".txt") and "__pycache__" not in file.parts
) + sorted(ROOT.glob("*.md"))
PAGE = re.compile(r"(?<![\w./*:-])([\w./-]*\w\.md)\b")
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(#[\w-]+)?\)")
# written by a run, or made by a test
MADE = {"MODEL_CARD.md", "README.md", "model_card.md"}
# pages of the site that docs/build.py generates; tests/test_manual.py follows every link of the site
GENERATED = {*pages(), "commands.md", "reference.md", "changelog.md", "contributing.md", "security_policy.md"}


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and GitLab make them."""
    headings = re.findall(r"(?m)^#+ (.*)$", page.read_text(encoding="utf-8"))
    return {"#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def generated(name: str) -> bool:
    """Return whether a page of the site has this name, or one beside those of methods, as docs/build.py writes it."""
    beside = posixpath.normpath(f"methods/{name}")
    return (
        name in GENERATED
        or beside in GENERATED
        or (name.startswith("../") and (ROOT / "docs" / beside).exists())
    )


def missing(text: str, folder: Path, links: bool = True) -> list[str]:
    """Return the pages that a text in a folder names, and that do not exist; `links`: whether it is Markdown."""
    places = (ROOT, folder, ROOT / "docs")
    lost = [
        name
        for name in PAGE.findall(text)
        if Path(name).name not in MADE
        and not generated(name)
        and not any((place / name).exists() for place in places)
    ]
    for name, anchor in LINK.findall(text) if links else ():
        target = folder / name if name else None
        if generated(name):
            continue
        if target is not None and not target.exists():
            lost.append(name)
        elif target is not None and anchor and target.suffix == ".md" and anchor not in anchors(target):
            lost.append(name + anchor)
    return lost


@pytest.mark.parametrize("folder", sorted({file.relative_to(ROOT).parts[0] for file in TEXTS}))
def test_every_page_that_is_named_exists(folder: str) -> None:
    found = {
        str(file.relative_to(ROOT)): lost
        for file in TEXTS
        if file.relative_to(ROOT).parts[0] == folder and file != Path(__file__)
        and (lost := missing(file.read_text(encoding="utf-8"), file.parent, file.suffix == ".md"))
    }  # fmt: skip
    assert found == {}


def test_a_page_that_does_not_exist_is_found():
    text = "see docs/nowhere.md, NOTES.md and [this](nowhere.md#x), not docs/extending.md#verb or a.mdx"
    assert missing(text, ROOT / "docs") == ["docs/nowhere.md", "NOTES.md", "nowhere.md", "nowhere.md"]
    assert missing("[a](extending.md#verb) [b](extending.md#nothing)", ROOT / "docs") == [
        "extending.md#nothing"
    ]


@pytest.mark.parametrize("page", ["architecture", "glossary"])
def test_the_pages_for_developers_are_found(page):
    for start in ("README.md", "CONTRIBUTING.md"):
        assert f"(docs/{page}.md)" in (ROOT / start).read_text(encoding="utf-8")


# The picture ------------------------------------------------------------------------------------------------------


def picture() -> tuple[dict[str, str], set[tuple[str, str]]]:
    """Return the node of each package, and the arrows between nodes."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    diagram = text.partition("```mermaid\n")[2].partition("```")[0]
    nodes = re.findall(r'^\s*(\w+)\["([^"]*)"\]$', diagram, re.MULTILINE)
    arrows = {(a, b) for a, _, b in re.findall(r"^\s*(\w+) (-->) (\w+)$", diagram, re.MULTILINE)}
    return {room: node for node, label in nodes for room in re.findall(r"\w+", label)}, arrows


def reached(start: str, arrows: set[tuple[str, str]]) -> set[str]:
    """Return the nodes to which arrows lead, over any number of them."""
    found, waiting = set(), [start]
    while waiting:
        here = waiting.pop()
        new = {b for a, b in arrows if a == here} - found
        found |= new
        waiting += new
    return found


def real_arrows(nodes: dict[str, str]) -> dict[tuple[str, str], str]:
    return {
        (nodes[room_of(file)], nodes[module.split(".")[1]]): f"{file.name} imports {module}"
        for file in FILES
        if file not in FRONT and room_of(file) != "__main__"
        for module in imports_of(file)
        if module.startswith("dltrain.")
    }


def test_the_picture_shows_every_package():
    nodes, _ = picture()
    assert set(nodes) == {room_of(file) for file in FILES} - {"__init__", "__main__"}


def test_the_arrows_are_the_imports():
    """An arrow is an import, and an import is an arrow or a way along arrows; no arrow repeats a way, none leads back."""
    nodes, arrows = picture()
    real = {pair: why for pair, why in real_arrows(nodes).items() if pair[0] != pair[1]}
    assert arrows - set(real) == set(), "arrows without an import"
    assert {why for (a, b), why in real.items() if b not in reached(a, arrows)} == set(), (
        "imports without an arrow"
    )
    for a, b in arrows:
        assert b not in reached(a, arrows - {(a, b)}), f"{a} --> {b} follows from others: leave it out"
        assert a not in reached(b, arrows), f"{a} and {b} import each other"


def test_the_files_of_the_walks_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)`", text)
    places = [ROOT, ROOT / "dltrain", ROOT / "dltrain" / "sweep"]
    assert len(named) > 15
    assert [name for name in named if not any((place / name).is_file() for place in places)] == []
