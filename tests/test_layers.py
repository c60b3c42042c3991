"""The house's rules that a machine can check."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import dltrain

ROOT = Path(dltrain.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Imports point down only: a module may import from its own layer and from those below it.
LAYERS = (
    ("cli", "commands", "api", "__main__"),
    ("config", "build", "experiment", "scoring", "sweep", "run", "tuning", "parameter_groups", "seams"),
    ("training", "diagnostics"),
    ("data", "models", "initializers", "optimizers", "schedules", "averaging", "batch_norm", "regularization", "augmentation",
     "losses", "metrics", "sampling", "early_stopping", "direction", "seeding", "errors", "ranges"),
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


def test_parts_do_not_import_each_other():
    shared = {"batch_norm", "direction", "errors", "ranges", "seeding"}
    wrong = []
    for file in FILES:
        here = room_of(file)
        if layer_of(here) != 3:
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
        if layer_of(room_of(file)) >= 2
        and any(m.split(".")[0] in ("hydra", "omegaconf") for m in imports_of(file))
    ]
    assert wrong == []


def test_backward_occurs_once():
    places = [
        str(f.relative_to(ROOT)) for f in FILES if re.search(r"\.backward\(", f.read_text(encoding="utf-8"))
    ]
    assert places == ["training/closure.py", "training/stack.py"]  # of one run, and of many at once


def test_no_branch_on_names_and_no_junk_drawer():
    for file in FILES:
        assert file.name != "utils.py"
        assert not re.search(r"\bif name ==", file.read_text(encoding="utf-8")), file
