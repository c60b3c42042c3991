"""The house's rules that a machine can check."""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path

import pytest

import dltrain

ROOT = Path(dltrain.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Imports point down only: a module may import from its own layer and from those below it.
LAYERS = (
    ("cli", "commands", "api", "__main__"),
    ("sweep",),
    ("config", "run", "seams"),
    ("training", "diagnostics"),
    ("report",),
    ("loggers",),
    ("storage", "screen"),
    ("data", "models", "initializers", "optimizers", "schedules", "averaging", "batch_norm", "regularization", "augmentation",
     "losses", "metrics", "sampling", "early_stopping", "defaults", "direction", "seeding", "errors", "ranges", "devices",
     "declare", "processors", "children", "strict_json", "text", "verbs", "weight_layers"),
)  # fmt: skip

# What `import dltrain` shows: names of the API, imported when they are used.
FRONT = (ROOT / "__init__.py", ROOT / "sweep" / "__init__.py")


def room_of(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def layer_of(room: str) -> int:
    return next((i for i, rooms in enumerate(LAYERS) if room in rooms), len(LAYERS))


def imports_of(file: Path) -> list[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


def test_every_room_has_a_layer():
    rooms = {room_of(file) for file in FILES} - {"__init__"}
    assert {room for room in rooms if layer_of(room) == len(LAYERS)} == set()


def test_imports_point_down():
    wrong = []
    for file in FILES:
        if file in FRONT:
            continue
        here = room_of(file)
        for module in imports_of(file):
            if module.startswith("dltrain."):
                there = module.split(".")[1]
                if layer_of(there) < layer_of(here):
                    wrong.append(f"{file.relative_to(ROOT)} imports {module}")
    assert wrong == [], "\n".join(wrong)


# Of the packages of a sweep: the driver and the display stand above.
SWEEP = {"plan": ("backends", "outcome"), "backends": ("plan", "outcome"), "outcome": ("backends",)}


def test_the_parts_of_a_sweep_are_apart():
    """Backends know nothing of plans, plans nothing of backends, and what a sweep leaves knows not how it ran."""
    above = ("driver", "sweep", "live", "study", "reuse", "record")
    wrong = [
        f"{file.relative_to(ROOT)} imports {module}"
        for folder, others in SWEEP.items()
        for file in (ROOT / "sweep" / folder).glob("*.py")
        for module in imports_of(file)
        if module.startswith("dltrain.sweep.") and module.split(".")[2] in (*others, *above)
    ]
    assert wrong == []


def graph() -> dict[str, set[str]]:
    """The modules of the package and the modules that they import, anywhere in their files."""
    names = {".".join(("dltrain", *f.relative_to(ROOT).with_suffix("").parts)): f for f in FILES}
    names = {name.removesuffix(".__init__"): file for name, file in names.items()}
    found: dict[str, set[str]] = {}
    for name, file in names.items():
        tree, imported = ast.parse(file.read_text(encoding="utf-8")), set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                imported |= (whole & names.keys()) or {node.module}
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
        found[name] = (imported & names.keys()) - {name, "dltrain"}
    return found


def test_no_module_imports_itself_through_others():
    """Also in functions and under TYPE_CHECKING."""
    try:
        graphlib.TopologicalSorter(graph()).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_parts_do_not_import_each_other():
    shared = {
        "batch_norm",
        "children",
        "defaults",
        "direction",
        "declare",
        "devices",
        "errors",
        "processors",
        "ranges",
        "seeding",
        "strict_json",
        "text",
        "weight_layers",
    }
    wrong = []
    for file in FILES:
        here = room_of(file)
        if layer_of(here) != len(LAYERS) - 1:
            continue
        for module in imports_of(file):
            there = module.split(".")[1] if module.startswith("dltrain.") else here
            if there != here and there not in shared and module != "dltrain.data.spec":
                wrong.append(f"{file.relative_to(ROOT)} imports {module}")
    assert wrong == []


def test_hydra_stops_at_the_door():
    wrong = [
        str(file.relative_to(ROOT))
        for file in FILES
        if layer_of(room_of(file)) >= layer_of("training")
        and any(m.split(".")[0] in ("hydra", "omegaconf") for m in imports_of(file))
    ]
    assert wrong == []


# modules of the standard library that Windows lacks
POSIX = {"fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog", "posix", "curses", "readline", "crypt"}  # fmt: skip


def imported_at_top(tree: ast.AST) -> set[str]:
    """Return the modules that are imported when a file is imported: those outside functions."""
    found = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found |= imported_at_top(node)
    return found


def test_nothing_of_posix_is_imported_at_the_top_of_a_module():
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in FILES
        for name in imported_at_top(ast.parse(file.read_text(encoding="utf-8")))
        if POSIX & set(name.split(".")[:1]) or name == "multiprocessing.forkserver"
    ]
    assert wrong == []
    seen = imported_at_top(
        ast.parse(
            "try:\n  import fcntl\nexcept ImportError: ...\ndef f():\n  import pwd\nclass C:\n  import grp"
        )
    )
    assert seen == {"fcntl", "grp"}


LONGEST = 350
# to be split, or to state why not
PENDING = {
    "config/catalogue.py", "config/compose.py", "config/conflicts.py", "config/signature.py",
    "data/prepare.py", "data/table.py",
}  # fmt: skip


def test_a_long_file_states_why():
    """In the first docstring: `The file is long because …`."""
    long = {
        str(file.relative_to(ROOT)): ast.get_docstring(ast.parse(text)) or ""
        for file in FILES
        if (text := file.read_text(encoding="utf-8")).count("\n") > LONGEST
    }
    unexplained = {
        name for name, doc in long.items() if "The file is long because" not in " ".join(doc.split())
    }
    assert unexplained - PENDING == set(), "split it, or state the reason"
    assert PENDING - unexplained == set(), "shorter by now, or explained: remove it from PENDING"


def test_backward_occurs_once():
    places = [
        str(f.relative_to(ROOT))
        for f in FILES
        if re.search(r"(?m)^ +(\w+\.)?backward\(", f.read_text(encoding="utf-8"))
    ]
    assert places == ["optimizers/startup.py", "training/objective.py", "training/stack.py"]


def test_no_branch_on_names_and_no_junk_drawer():
    for file in FILES:
        assert file.name != "utils.py"
        assert not re.search(r"\bif name ==", file.read_text(encoding="utf-8")), file
