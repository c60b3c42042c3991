"""Build the manual's site: `python docs/build.py` (`pip install -e '.[docs]'`), with `--serve` at localhost:8000.

The pages of docs/ are copied into build/manual, together with pages that are generated from the code and stored nowhere: those of
methods (from conf/ and the docstrings of its words), of the commands (from their help), of the Python API (from its docstrings),
and copies of CHANGELOG.md, CONTRIBUTING.md and SECURITY.md. Then zensical, with mkdocs.yml, writes site/. No network is used.
"""

from __future__ import annotations

import argparse
import html
import inspect
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import dltrain
from dltrain import errors
from dltrain.commands import handbook
from dltrain.verbs import verbs

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
STAGE = ROOT / "build" / "manual"
OF_THE_REPOSITORY = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security_policy.md",
}
SECTIONS = {"Args:": "Arguments", "Raises:": "Errors", "Returns:": "Value"}


def stage(folder: Path) -> None:
    """Write the Markdown of all pages, and what they show, into an empty folder."""
    pages = {file.name: file.read_text(encoding="utf-8") for file in DOCS.glob("*.md")}
    pages |= {copy: (ROOT / name).read_text(encoding="utf-8") for name, copy in OF_THE_REPOSITORY.items()}
    pages = {name: for_the_site(text, name) for name, text in pages.items()}
    pages |= handbook.pages()
    pages |= {"commands.md": "\n\n".join(commands()), "reference.md": "\n\n".join(reference())}
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS / "pictures", folder / "pictures")
    shutil.copy(DOCS / "manual.css", folder)
    for name, text in pages.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("\n".join(_as_on_github(text.splitlines())) + "\n", encoding="utf-8")


def for_the_site(markdown: str, page: str) -> str:
    """Return a page of the repository with links to where the site has the other pages, and with its charts as HTML."""
    for name, copy in OF_THE_REPOSITORY.items():
        markdown = re.sub(rf"\]\((\.\./)?{name}", f"]({copy}", markdown)
    if page in OF_THE_REPOSITORY.values():
        markdown = re.sub(r"\]\(docs/(\w+\.md)", r"](\1", markdown)
    return re.sub(r"```mermaid\n(.*?)```", lambda found: diagram(found[1]), markdown, flags=re.DOTALL)


def _as_on_github(lines: list[str]) -> Iterator[str]:
    """Yield lines that Python-Markdown reads as GitHub does: an empty one before a list, no backslash before | in code."""
    before, in_code = "", False
    for line in lines:
        in_code ^= line.lstrip().startswith("```")
        if not in_code:
            item = re.match(r"(- |\d+\. )", line)
            if item and before.strip() and not re.match(r"(- |\d+\. |  )", before):
                yield ""
            if line.startswith("|"):
                line = re.sub(r"`[^`]*`", lambda code: code[0].replace("\\|", "|"), line)
        yield line
        before = line


# Diagrams ---------------------------------------------------------------------------------------------------------


def diagram(source: str) -> str:
    """Return a flow chart in Mermaid's notation as HTML: one row for each rank, each box with the boxes that its arrows reach.

    Mermaid itself is a script of 3 MB from another host; the two charts of the manual are layers.
    """
    labels = dict(re.findall(r'(\w+)\["?([^\]"]+)"?\]', source))
    arrows = re.findall(r"^\s*(\w+)(?:\[[^\]]*\])?\s+-->(?:\|(\w+)\|)?\s+(\w+)", source, re.MULTILINE)
    names = list(dict.fromkeys([*labels, *(n for a, _, b in arrows for n in (a, b))]))
    rank = dict.fromkeys(names, 0)
    for _ in names:
        for a, _, b in arrows:
            rank[b] = max(rank[b], rank[a] + 1)
    rows = []
    for level in range(max(rank.values()) + 1):
        boxes = []
        for name in (n for n in names if rank[n] == level):
            ways = [f"{number} → {b}".strip() if number else f"→ {b}" for a, number, b in arrows if a == name]
            below = f"<span>{html.escape(' · '.join(ways))}</span>" if ways else ""
            boxes.append(f"<div><b>{html.escape(labels.get(name, name))}</b>{below}</div>")
        rows.append(f'<div class="rank">{"".join(boxes)}</div>')
    return f'<div class="diagram">{"".join(rows)}</div>'


# Commands ---------------------------------------------------------------------------------------------------------


def commands() -> Iterator[str]:
    """Yield the page of the verbs."""
    yield "# Commands"
    yield (
        "`dltrain [group=word …] [knob=value …]` trains, with `-m` a sweep; the words are those of [methods](methods/index.md). "
        "This page has all other verbs, as `dltrain VERB --help` prints them."
    )
    for verb in verbs().values():
        yield f"## {verb.name}"
        yield f"{verb.about[0].upper()}{verb.about[1:]}.".replace("`; ", "`; ")
        text = textwrap.dedent(str(getattr(import_module(verb.module), "HELP", ""))).strip("\n")
        yield f"```text\ndltrain {verb.usage}\n{chr(10) + text + chr(10) if text else ''}```"


# The Python API ---------------------------------------------------------------------------------------------------


def reference() -> Iterator[str]:
    """Yield the page of the Python API."""
    yield "# Python reference"
    yield "Generated from the docstrings; [From Python](api.md) explains how they are used."
    yield "## Functions"
    found = public()
    for name, value in found.items():
        if inspect.isfunction(value):
            yield from _documented(f"dltrain.{name}", value, 3)
    for name, kind in found.items():
        if not inspect.isclass(kind) or issubclass(kind, errors.UserError):
            continue
        yield f"## {name}"
        yield _docstring(kind)
        for member, value in vars(kind).items():
            value = getattr(value, "func", value)
            if not member.startswith("_") and (inspect.getdoc(value) if _has_code(value) else None):
                yield from _documented(f"{name}.{member}", value, 3)
    yield "## Errors"
    yield "All are subclasses of `dltrain.UserError`, in `dltrain.errors`; the command line ends with their exit code."
    found = [e for e in vars(errors).values() if inspect.isclass(e) and issubclass(e, errors.UserError)]
    rows = [
        f"| `{e.__name__}` | {e.exit_code} | {(inspect.getdoc(e) or '').splitlines()[0]} |" for e in found
    ]
    yield "\n".join(["| error | exit code | meaning |", "|---|---|---|", *rows])


def public() -> dict[str, object]:
    """Return what `dltrain.__all__` names, but for the module `errors`; `dltrain.sweep` is that of the API."""
    places = {name: import_module(dltrain._PLACES.get(name, "dltrain.api")) for name in dltrain.__all__}
    return {name: getattr(place, name) for name, place in places.items() if hasattr(place, name)}


def _has_code(value: object) -> bool:
    return inspect.isfunction(value) or isinstance(value, property | classmethod)


def _documented(name: str, value: object, level: int) -> Iterator[str]:
    yield f"{'#' * level} {name}"
    function = getattr(value, "__func__", getattr(value, "fget", None) or value)
    if inspect.isfunction(function) and not isinstance(value, property):
        signature = inspect.signature(function)
        kept = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
        yield f"```python\n{_folded(name, signature.replace(parameters=kept))}\n```"
    elif isinstance(value, property) or inspect.isfunction(value):
        kind = inspect.signature(function).return_annotation
        yield f"```python\n{name}: {kind}\n```"
    yield _docstring(value)


def _folded(name: str, signature: inspect.Signature) -> str:
    """Return a signature with one parameter a line where it is long."""
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", f"{name}{signature}")
    if len(text) <= 88:
        return text
    parameters, _, result = text.partition("(")[2].rpartition(")")
    depth, parts = 0, [""]
    for letter in parameters:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return f"{name}(\n" + "".join(f"    {part.strip()},\n" for part in parts) + f"){result}"


def _docstring(value: object) -> str:
    """Return a docstring as Markdown: `Args:` and `Raises:` as lists, examples as sessions."""
    lines, out = (inspect.getdoc(value) or "").splitlines(), []
    section = session = False
    for line in lines:
        if session and not line.strip():
            out += ["```", ""]
            session = False
        elif line.startswith(">>> ") and not session:
            out += ["", "```pycon"]
            session = True
        if session:
            out.append(re.sub(r"\s+# doctest:.*", "", line))
        elif line in SECTIONS:
            out += [f"**{SECTIONS[line]}**", ""]
            section = True
        elif section and re.match(r"    \S+:", line):
            name, _, text = line.strip().partition(":")
            out.append(f"- `{name}`:{text}")
        else:
            section = section and (not line or line.startswith("    "))
            out.append(f"  {line.strip()}" if section and line else line)
    return "\n".join([*out, *(["```"] if session else [])])


def main(arguments: list[str]) -> int:
    """Write the site, or serve it; return the exit code of zensical."""
    parser = argparse.ArgumentParser(description="Build the manual's site in site/.")
    parser.add_argument("--serve", action="store_true", help="show it at localhost:8000 instead")
    asked = parser.parse_args(arguments)
    stage(STAGE)
    command = ["serve"] if asked.serve else ["build", "--clean", "--strict"]
    return subprocess.run(
        [sys.executable, "-m", "zensical", *command, "-f", str(ROOT / "mkdocs.yml")]
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
