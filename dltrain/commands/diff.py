"""`dltrain diff RUN RUN`: print how two runs differ: configuration, code, versions, data, results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dltrain.commands.asked import (
    TEXT,
    document_schema,
    is_sweep,
    object_schema,
    print_json,
    read_options,
    run_folder,
)
from dltrain.commands.show import document_of
from dltrain.config.groups import GROUPS
from dltrain.errors import UserError
from dltrain.errors import typed as command
from dltrain.screen.table import Column, is_colored, lines, number, styled, typed, write
from dltrain.storage.index import number_of

HELP = """
    Only what differs is shown. Keys that say where a run lies (name, output) are left out.

  --json    one JSON document on standard output

Examples
  dltrain diff outputs/digits_mlp/2026-01-31_12-00-00-abcd outputs/digits_mlp/2026-01-31_12-05-00-12ef
  dltrain diff abcd 12ef
  dltrain diff d61b/3 d61b/4           two jobs of a sweep
"""
SECTIONS = ("configuration", "code", "versions", "data", "machine", "results")
_PAIR = object_schema(key=TEXT, a=True, b=True)
SCHEMA = document_schema(
    a=TEXT, b=TEXT, same={"type": "boolean"}, **{name: {"type": "array", "items": _PAIR} for name in SECTIONS}
)
# sections whose values are measured
_NUMBERS = ("results",)
_COUNTS = ("epochs", "steps", "best epoch")
_PLACE = ("name", "output", "quiet")


def run(arguments: list[str]) -> int:
    """Print the differences."""
    rest, given = read_options("diff", arguments)
    if len(rest) != 2:
        raise UserError(
            f"`diff` takes two runs, not {len(rest)}: dltrain diff RUN RUN\n"
            "The runs: dltrain runs. More than two: dltrain compare"
        )
    found = diff(*rest)
    if "--json" in given:
        print_json(found)
    else:
        write("\n".join(page(found)))
    return 0


def diff(a: Any, b: Any) -> dict[str, Any]:
    """Return the differences of two runs: for each of SECTIONS a list of keys with the values of both.

    Args:
        a: a run, or its folder
        b: the other one

    Raises CheckpointProblem for what is no run, UserError for a sweep.
    """
    folders = [run_folder(run) for run in (a, b)]
    for folder in folders:
        if is_sweep(folder):
            raise UserError(
                f"{folder} is a sweep: `diff` takes two runs, such as its jobs. Its configurations: {command('compare', folder)}"
            )
    sections = dict(_sections(*map(facts_of, folders)))
    return {"a": str(folders[0]), "b": str(folders[1]), "same": not any(sections.values()), **sections}


def facts_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the facts about a run by section."""
    from dltrain.sweep.outcome.members import Member

    document = document_of(folder)
    member = Member(folder)
    config = {key: value for key, value in member.config.items() if key not in _PLACE}
    sizes = document["data"].get("sizes")
    results: dict[str, Any] = {
        "status": document["status"],
        document["metric"] or "objective": document["objective"],
    }
    results |= document["best"] | {f"test/{name}": value for name, value in document["test"].items()}
    results |= {
        key: document["cost"][key] for key in ("epochs", "steps", "seconds") if key in document["cost"]
    }
    machine = {key: document["cost"][key] for key in ("device", "threads") if key in document["cost"]}
    data = {key: value for key, value in document["data"].items() if key != "sizes"}
    if member.first_weights:
        data["first weights"] = member.first_weights[:12]
    return {
        "configuration": config,
        "code": document["git"] | {file: str(known)[:12] for file, known in document["code"].items()},
        "versions": document["versions"],
        "data": data
        | ({f"{name} samples": count for name, count in sizes.items()} if isinstance(sizes, dict) else {}),
        "machine": machine,
        "results": results | {"best epoch": document["best_epoch"]},
    }


def _sections(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for name in SECTIONS:
        left, right = a[name], b[name]
        keys = [key for key in dict.fromkeys((*left, *right)) if left.get(key) != right.get(key)]
        if left is a["configuration"]:
            keys = sorted(_independent(keys, left, right), key=lambda key: key not in GROUPS)
        yield name, [{"key": key, "a": left.get(key), "b": right.get(key)} for key in keys]


def _independent(keys: list[str], left: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    """Return the keys without those that follow from another one: the target of another word, and optimizer.lr of lr."""
    words = [key for key in keys if key in GROUPS]
    follows = {"optimizer.lr"} if all(c.get("optimizer.lr") == c.get("lr") for c in (left, right)) else {"lr"}
    return [
        key
        for key in keys
        if key not in follows and not (key.endswith("_target_") and key.split(".")[0] in words)
    ]


def page(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the differences as a table for each section."""
    colored = is_colored()
    if found["same"]:
        yield f"{found['a']} and {found['b']} do not differ."
        return
    yield f"a  {found['a']}"
    yield f"b  {found['b']}"
    columns = _columns([(name, pair) for name in SECTIONS for pair in found[name]])
    table = list(lines(columns))[1:]
    for name in SECTIONS:
        if found[name]:
            yield ""
            yield styled(name, "bold", colored)
            for _ in found[name]:
                yield f"  {table.pop(0)}"


def _columns(pairs: list[tuple[str, dict[str, Any]]]) -> list[Column]:
    keys = [pair["key"] for _, pair in pairs]
    texts = {side: [_shown(name, pair["key"], pair[side]) for name, pair in pairs] for side in "ab"}
    gaps = [_gap(pair["a"], pair["b"]) if name in _NUMBERS else "" for name, pair in pairs]
    return [
        Column("", keys, least=14),
        Column("a", texts["a"], least=10),
        Column("b", texts["b"], least=10),
        Column("b − a", gaps, right=True, rank=1),
    ]


def _shown(name: str, key: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float) and value.is_integer() and key in _COUNTS:
        return number(int(value))
    return number(value) if name in _NUMBERS else typed(value)


def _gap(a: Any, b: Any) -> str:
    left, right = number_of(a), number_of(b)
    if left is None or right is None:
        return ""
    return f"{right - left:+.3g}"
