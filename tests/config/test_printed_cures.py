"""Every cure in the source: folders in it are quoted for the shell, and the overrides that it names exist and are valid."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

import dltrain
from dltrain.config.compose import (
    open_catalogue,
    open_hydra,
    parameters_of,
    parse,
    quote_foreign,
    values_of,
)
from dltrain.errors import UserError, assigned, typed

PACKAGE = Path(dltrain.__file__).parent
# where a folder or a text of the user's may follow
BEFORE_A_FOLDER = re.compile(
    r"(dltrain (resume|rerun|evaluate|predict|export) |sweep\.resume=|--output |--logdir |--config-dir )$"
)
QUOTING = ("typed", "shlex.quote", "shlex.join", "assigned")
HOLE = "\0"
# what stands for something else, an ellipsis, and the keys of verbs
PLACEHOLDER = re.compile(rf"[A-Z]{{2,}}|{HOLE}|…|^strict=")
# of usage lines, of functions, of Hydra, and of verbs (filters of `runs`, what `verify` reads)
OTHERS = (
    "key",
    "group",
    "group.key",
    "found",
    "create_graph",
    "hydra.output_subdir",
    "status",
    "tag",
    "when",
    "data",
)
# `launch` takes the words of a group
GROUP_OF = {"launch": "sweep.backend"}
OVERRIDE = re.compile(
    r"(?<![\w./'\"{$])([a-z_]+(?:\.[a-z_0-9]+)*)=(\[[^\]\s]*\]|\"[^\"]*\"|[^\s\"'`),;:\]}]+)"
)


def texts():
    """Yield file, line and every text of the package that is no docstring; holes are \\0."""
    for file in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        inner, docs = set(), set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                docs.add(node.value)
            if isinstance(node, ast.JoinedStr):
                inner |= {part for part in node.values if isinstance(part, ast.Constant)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inner | docs:
                yield file.relative_to(PACKAGE), node, node.value
            elif isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else HOLE for p in node.values]
                yield file.relative_to(PACKAGE), node, "".join(parts)


def test_a_folder_in_a_cure_is_quoted():
    found = []
    for file, node, _ in texts():
        values = node.values if isinstance(node, ast.JoinedStr) else []
        for before, value in zip(values, values[1:], strict=False):
            after = isinstance(before, ast.Constant) and BEFORE_A_FOLDER.search(str(before.value))
            if (
                after
                and isinstance(value, ast.FormattedValue)
                and not ast.unparse(value.value).startswith(QUOTING)
            ):
                found.append(f"{file}:{value.lineno} {before.value[-30:]}{{{ast.unparse(value.value)}}}")
    assert found == []


def test_the_overrides_of_every_cure_are_valid():
    """Each `key=value` in a message names a knob, a group or a key of some word, with a value that its rule accepts."""
    catalogue = open_catalogue()
    loader = open_hydra(catalogue).config_loader
    wrong, count = [], 0
    for file, node, text in texts():
        # messages are sentences; patterns, column names and the like are not
        if " " not in text or not re.search(
            r"Write|write|Use |use |[Aa]dd |Leave|Give|: \w+=|Try|or \w+=|-m ", text
        ):
            continue
        for key, value in OVERRIDE.findall(text):
            override = f"{key}={value.rstrip('.')}"
            if PLACEHOLDER.search(override) or key in OTHERS or "{" in value:
                continue
            count += 1
            key = GROUP_OF.get(key, key)
            params = list(parameters_of(key, catalogue))
            try:
                parsed = parse([override], loader)[0]
                values = values_of(parsed)
            except UserError as error:
                wrong.append(f"{file}:{node.lineno} {override}: {error}")
                continue
            if key in catalogue.words:
                names = [n for v in values for n in (v if isinstance(v, list) else [v])]
                fits = all(str(name) in catalogue.words[key] for name in names)
            else:
                rules = [p.rule for p in params if p.rule is not None]
                fits = any(all(rule.accepts(v) for v in values) for rule in rules)
                # the value of a search is no value of the key
                fits = fits or (bool(rules) and parsed.is_sweep_override() and not parsed.is_choice_sweep())
            if not fits:
                wrong.append(f"{file}:{node.lineno} {override}")
    assert count > 70
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "folder", ["runs/a", "my runs/a", "it's", 'a"b', "a(b)", "a[1]", "a,b", "größe", "a=b", "$HOME", "a\\b"]
)
def test_a_typed_folder_arrives(workdir, folder):
    """What is printed, split as bash does and read by Hydra's grammar, is the folder."""
    assert shlex.split(typed("resume", folder))[2] == folder
    (_, _, override) = shlex.split(typed("-m", assigned("sweep.resume", folder)))
    (parsed,) = parse([override], open_hydra(open_catalogue()).config_loader)
    assert values_of(parsed) == [folder]


def read_list(text: str) -> list[object]:
    (override,) = parse([quote_foreign(text)], None)
    (found,) = values_of(override)
    assert isinstance(found, list)
    return [str(item) if isinstance(item, str) else item for item in found]


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("[Verbräuche]", ["Verbräuche"]),
        ("[x,Größe in m,3]", ["x", "Größe in m", 3]),
        ("[ä, 'b,ü', \"it's ö\"]", ["ä", "b,ü", "it's ö"]),
    ],
)
def test_letters_beyond_ascii_in_a_list_need_no_quotes(typed, wanted):
    assert read_list(f"dataset.drop={typed}") == wanted


@pytest.mark.parametrize(
    ("key", "typed", "wanted"),
    [
        ("dataset.drop", "[Verbräuche (kWh)]", ["Verbräuche (kWh)"]),
        ("dataset.drop", "[x,Umsatz [EUR],'a b']", ["x", "Umsatz [EUR]", "a b"]),
        ("dataset.keep", "[50% off!,id]", ["50% off!", "id"]),
        ("dataset.missing_words", "[-999,#k.A.]", ["-999", "#k.A."]),
        ("tags", "[first try;]", ["first try;"]),
    ],
)
def test_the_printed_list_can_be_typed(key, typed, wanted):
    with pytest.raises(UserError, match="For texts in a list, write ") as error:
        read_list(f"{key}={typed}")
    (cure,) = shlex.split(str(error.value).partition("write ")[2])
    assert list(map(str, read_list(cure))) == wanted
