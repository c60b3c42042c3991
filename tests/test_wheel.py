"""The wheel and the source archive: built, installed into a fresh environment without net, and run in an empty folder."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
sys.path.insert(0, str(ROOT / "docs"))

import sbom  # noqa: E402


def build(kind: str, folder: Path, root: Path = ROOT) -> Path:
    """A wheel or sdist of the working tree, made by the build backend without isolation (so without net)."""
    pytest.importorskip("hatchling", reason="the build backend comes with the extra dev")
    call = f"from hatchling.build import build_{kind} as build; print(build({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", call], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


def install(wheel: Path, folder: Path) -> Path:
    """A fresh environment that holds the wheel, and sees this one's packages but not this working tree; its bin folder."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("this environment has no pip")
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    for path in dict.fromkeys(sysconfig.get_path(key) for key in ("purelib", "platlib")):
        with open(site / "packages.pth", "a") as lines:
            lines.write(
                f"{path}\n"
            )  # a .pth line adds the folder; the .pth files in it (an editable install) are not read
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(folder / "bin" / "python"),
        "install",
        "--no-deps",
        "--no-index",
    ]
    done = subprocess.run([*pip, "--disable-pip-version-check", "--ignore-installed", str(wheel)],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def run(program: Path, *arguments: str, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.ci
def test_the_wheel_carries_the_catalogue_and_runs_in_an_empty_folder(tmp_path):
    wheel = build("wheel", tmp_path)
    names = set(zipfile.ZipFile(wheel).namelist())
    words = {f"dltrain/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert words <= names
    parts = {
        file.relative_to(ROOT).as_posix()
        for kind in ("html", "css", "js")
        for file in (ROOT / "dltrain").rglob(f"*.{kind}")
    }
    assert len(parts) >= 8 and parts <= names and "dltrain/report/vendor/uPlot.LICENSE" in names
    assert any(name.endswith("licenses/dltrain/report/vendor/uPlot.LICENSE") for name in names)
    # what `dltrain init` writes
    assert {"dltrain/project/my_models.py", "dltrain/project/conf/experiment/spirals.yaml"} <= names
    assert not [name for name in names if name.startswith(("tests/", "conf/", "benchmarks/"))]
    programs = install(wheel, tmp_path / "env")
    empty = tmp_path / "empty"
    empty.mkdir()
    where = run(programs / "python", "-c", "import dltrain; print(dltrain.__file__)", cwd=empty)
    assert where.startswith(str(tmp_path / "env")), (
        "the installed package must be meant, not the working tree"
    )
    assert "digits" in run(programs / "dltrain", "--help", cwd=empty)
    run(programs / "dltrain", "steps=5", cwd=empty)
    run(programs / "dltrain", "init", "project", cwd=empty)
    run(programs / "dltrain", "experiment=spirals", "steps=5", cwd=empty / "project")
    (summary,) = (json.loads(file.read_text()) for file in empty.glob("outputs/digits_mlp/*/summary.json"))
    assert summary["status"] == "completed"
    assert summary["steps"] == 5


def test_the_source_archive_has_what_a_build_needs(tmp_path):
    archive = tarfile.open(build("sdist", tmp_path))
    names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "conf/config.yaml",
        "dltrain/cli.py",
        "tests/conftest.py",
    } <= names
    assert not [name for name in names if name.startswith(("outputs/", ".git/", "data/"))]


@pytest.mark.ci
def test_wheel_and_source_archive_build_twice_to_equal_bytes(tmp_path, monkeypatch):
    """In another folder, at another time, by a user with another umask."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    copy = tmp_path / "copy"
    files = subprocess.run(
        ["git", "ls-files", "-zco", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, files.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
            os.utime(copy / name, (1e9, 1e9))
            (copy / name).chmod(0o600 | (ROOT / name).stat().st_mode & 0o100)
    for kind in ("wheel", "sdist"):
        first, second = (build(kind, tmp_path / str(root.name), root) for root in (ROOT, copy))
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes(), kind


def test_the_bill_of_materials_names_what_is_needed_and_nothing_that_is_not(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    found = sbom.document()
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert found["metadata"]["timestamp"] == "1970-01-01T00:00:00Z"
    refs = [part["bom-ref"] for part in found["components"]]
    assert len(set(refs)) == len(refs)
    graph = {node["ref"]: node["dependsOn"] for node in found["dependencies"]}
    root = found["metadata"]["component"]["bom-ref"]
    assert graph.keys() == {root, *refs}
    reached, waiting = set(), [root]
    while waiting:
        if (ref := waiting.pop()) not in reached:
            reached.add(ref)
            waiting += graph[ref]
    assert reached == {root, *refs}
    named = {ref.partition("@")[0].removeprefix("pkg:pypi/") for ref in graph[root]}
    wanted = {re.match(r"[\w-]+", text)[0] for text in PROJECT["dependencies"]}
    assert named == wanted | {"pkg:npm/uplot"}
    (copied,) = (part for part in found["components"] if part["name"] == "uplot")
    assert copied["licenses"] == [{"license": {"id": "MIT"}}]
    for part in copied["components"]:
        digest = hashlib.sha256((ROOT / part["name"]).read_bytes()).hexdigest()
        assert part["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert {Path(part["name"]).name for part in copied["components"]} == {
        "uPlot.iife.min.js",
        "uPlot.min.css",
    }
    assert (
        "pytest"
        not in {part["name"] for part in found["components"]}
        < {part["name"] for part in sbom.document(["dev"])["components"]}
    )
    assert sbom.document() == found
    with pytest.raises(SystemExit, match="there is no extra devv"):
        sbom.document(["devv"])


def test_the_bill_of_materials_of_an_extra_that_is_not_installed_is_refused(monkeypatch):
    known = sbom.metadata.requires

    def requires(name):
        if name == "timm":
            raise sbom.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(sbom.metadata, "requires", requires)
    with pytest.raises(SystemExit, match=r"not installed: timm\. Type: pip install -e '\.\[timm\]'"):
        sbom.document(["timm"])
