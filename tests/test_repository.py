"""The files for those who develop dltrain: hooks, workflow, doctests."""

from __future__ import annotations

import ast
import configparser
import doctest
import importlib
import re
from pathlib import Path

import pytest
import yaml
from test_layers import FILES
from test_layers import ROOT as PACKAGE

import dltrain

ROOT = PACKAGE.parent
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def has_doctest(file: Path) -> bool:
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return any(">>> " in (ast.get_docstring(node) or "") for node in nodes if isinstance(node, DOCUMENTED))


WITH_DOCTESTS = [file for file in FILES if has_doctest(file)]


@pytest.mark.parametrize("file", WITH_DOCTESTS, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_doctests(file: Path, workdir: Path) -> None:
    name = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
    module = importlib.import_module(name)
    found = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    assert found.attempted > 0
    assert found.failed == 0


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_hooks_are_what_ci_runs():
    (repo,) = read(".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local"
    script = (ROOT / ".ci" / "run").read_text()
    checks = [line for line in script.splitlines() if line.startswith(("ruff", "mypy"))]
    assert [hook["entry"].replace(" --fix", "") for hook in repo["hooks"]] == [
        "ruff check", "ruff format", "mypy",
    ]  # fmt: skip
    assert checks == ["ruff check .", "ruff format --check .", "mypy"]


def test_the_workflow_has_a_row_for_each_system():
    jobs = read(".github/workflows/ci.yml")["jobs"]
    systems = {job["runs-on"] for job in jobs.values()} | set(jobs["others"]["strategy"]["matrix"]["system"])
    assert {"ubuntu-latest", "macos-latest", "windows-latest"} <= systems
    steps = [step.get("run", "") for step in jobs["nightly"]["steps"]]
    assert any("--pre torch" in step for step in steps)
    named = " ".join(step.get("run", "") for step in jobs["others"]["steps"])
    paths = re.findall(r"tests/\S+", named)
    assert len(paths) > 5
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_citation_names_the_version():
    cited = read("CITATION.cff")
    assert cited["version"] == dltrain.__version__
    assert cited["cff-version"] == "1.2.0"


def test_issue_forms_can_be_read():
    for name in ("bug", "feature"):
        form = read(f".github/ISSUE_TEMPLATE/{name}.yml")
        assert {"name", "description", "body"} <= form.keys()
        ids = [item["id"] for item in form["body"]]
        assert len(set(ids)) == len(ids)


def test_files_follow_the_editorconfig():
    config = configparser.ConfigParser()
    config.read_string("[top]\n" + (ROOT / ".editorconfig").read_text())
    assert config["*"]["end_of_line"] == "lf"
    folders = ("dltrain", "conf", "docs", "examples", "benchmarks", ".github")
    files = [
        f
        for folder in folders
        for f in (ROOT / folder).rglob("*")
        if f.suffix in (".py", ".md", ".yaml", ".yml")
    ]
    wrong = [
        str(file.relative_to(ROOT))
        for file in files
        if b"\r" in (text := file.read_bytes()) or b"\t" in text or (file.suffix != ".md" and re.search(rb"[ \t]\n", text))
        or (text and not text.endswith(b"\n"))
    ]  # fmt: skip
    assert wrong == []
