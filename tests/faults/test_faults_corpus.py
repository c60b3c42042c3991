"""Rows 36 to 39: the malicious corpus. Nothing runs, nothing is written outside, each is refused at once in few words.

Each item meets the command line in a process forked for it, which tells what it imported, ran and wrote. By default
one item in four; all of them, and the configurations also in interpreters of their own:
`pytest -m slow tests/faults/test_faults_corpus.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import corpus
import pytest
import yaml
from faults import copy_of, everything
from zygote import HEAVY, LIGHT, Seen, Zygote

SECONDS, MEGABYTES = 1.0, 200.0
# What a refusal may import: the program, and what reads YAML.
HARMLESS = {"dltrain", "yaml", "_yaml", "omegaconf", "hydra", "antlr4", "difflib", "socket", "_socket", "selectors", "fcntl",
            "datetime", "_datetime", "_strptime", "array", "stringprep", "encodings", "unicodedata"}  # fmt: skip


@pytest.fixture(scope="module")
def light():
    yield from zygote(LIGHT)


@pytest.fixture(scope="module")
def heavy():
    yield from zygote(HEAVY)


def zygote(modules):
    process = Zygote(modules)
    yield process
    process.close()


def some_of(items):
    """One in four by default, the others behind `slow`."""
    names = list(items)
    return [pytest.param(name, marks=[] if i % 4 == 0 else pytest.mark.slow) for i, name in enumerate(names)]


def files(folder: Path) -> dict[str, bytes]:
    """Every file with its content, and every link and folder by its name; the log and `err` may change."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        for path in sorted(folder.rglob("*"))
        if path.name not in ("run.log", "err")
    }


def check_refused(seen: Seen, folder: Path, before: dict[str, bytes], codes=(2, 3, 4)) -> None:
    assert seen.code in codes, seen.error or seen.code
    assert seen.error.startswith("dltrain: ")
    assert len(seen.error.splitlines()) <= 6 and "Traceback" not in seen.error, seen.error
    assert len(seen.error) < 1500
    assert seen.ran == []
    assert files(folder) == before
    print(f"{seen.seconds:.3f} s, {seen.cpu:.3f} s of CPU, {seen.megabytes:.0f} MB")
    assert seen.cpu < SECONDS
    assert seen.seconds < 10 * SECONDS  # it waits for nothing; the wall has the noise of the machine on it
    assert seen.megabytes < MEGABYTES


def a_run(folder: Path) -> Path:
    copy_of(everything()[1], folder / "run")
    return folder


# 36, 38: configurations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", some_of(corpus.CONFIGS))
def test_36_38_config_of_a_stranger(workdir, light, name):
    """In the config.yaml of a run folder, met by each of the three commands: before torch, before anything is written."""
    a_run(workdir)
    corpus.CONFIGS[name](workdir)
    before = files(workdir)
    for verb in corpus.VERBS:
        if verb == "evaluate" and name.startswith("name "):
            continue  # where a run lies is nothing to evaluate
        seen = light.run([verb, "run"], workdir)
        check_refused(seen, workdir, before)
        assert seen.wrote == []
        assert {module.split(".")[0] for module in seen.imports} <= HARMLESS


def paths_of(node, above=()):
    """The path of every key of nested dictionaries."""
    for key, value in node.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths_of(value, (*above, key))


JUNK = (7, -1, "text", [1], {"a": 1}, None, True, float("nan"), {"_target_": "os.system"})


@pytest.mark.slow
def test_38_junk_at_any_key_gets_words(workdir, light):
    """1,200 configurations, each with one key that is something else, or gone; the run itself is done."""
    run = copy_of(everything()[0], workdir / "run")
    file = run.path / "config.yaml"
    text = file.read_text()
    for *parents, last in list(paths_of(yaml.safe_load(text))):
        for junk in (*JUNK, "gone"):
            content = yaml.safe_load(text)
            node = content
            for parent in parents:
                node = node[parent]
            if junk == "gone":
                del node[last]
            else:
                node[last] = junk
            file.write_text(yaml.safe_dump(content))
            seen = light.run(["resume", "run"], workdir)
            assert seen.code in (2, 4), (parents, last, junk, seen)
            assert seen.cpu < SECONDS


# ru_maxrss would be that of the process which forked this one
COLD = """
import atexit
atexit.register(lambda: print([line for line in open("/proc/self/status") if "VmHWM" in line][0]))
from dltrain.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", corpus.CONFIGS)
def test_36_38_config_of_a_stranger_in_a_cold_interpreter(workdir, name):
    """A second and 200 MB for the whole process, from its first instruction to its end."""
    a_run(workdir)
    corpus.CONFIGS[name](workdir)
    with open("err", "wb") as errors, open("memory", "wb") as memory:
        process = subprocess.Popen([sys.executable, "-c", COLD, "rerun", "run"], stdout=memory, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in (2, 4), Path("err").read_text()
    cpu, megabytes = usage.ru_utime + usage.ru_stime, int(Path("memory").read_text().split()[1]) / 1024
    print(f"{cpu:.2f} s of CPU, {megabytes:.0f} MB")
    assert cpu < SECONDS
    assert megabytes < MEGABYTES


@pytest.mark.parametrize("override", corpus.HYDRAS)
def test_36_hydra_s_own_node(workdir, light, override):
    seen = light.run([override, "steps=1", "quiet=true"], workdir)
    check_refused(seen, workdir, {}, codes=(2,))
    assert seen.wrote == []


@pytest.mark.parametrize("name", corpus.WORDS)
def test_36_38_words_from_a_folder_of_a_stranger(workdir, tmp_path_factory, light, name):
    file, text, override = corpus.WORDS[name]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / file).parent.mkdir()
    (elsewhere / file).write_text(text)
    seen = light.run(["--config-dir", str(elsewhere), override], workdir)
    check_refused(seen, workdir, {}, codes=(2,))
    assert seen.wrote == []
    assert not [module for module in seen.imports if module.split(".")[0] in ("torch", "antigravity")]


# 37: checkpoints --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", some_of(corpus.CHECKPOINTS))
def test_37_run_folder_of_a_stranger(workdir, heavy, name):
    verb, spoil = corpus.CHECKPOINTS[name]
    a_run(workdir)
    spoil(workdir)
    before = files(workdir)
    seen = heavy.run([verb, "run"], workdir)
    check_refused(seen, workdir, before, codes=(3, 4))
    inside = str(workdir / "run") + "/"
    assert [path for path in seen.wrote if not path.startswith(inside) and path != str(workdir / "err")] == []


# 39: archives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", some_of(corpus.ARCHIVES))
def test_39_archive_of_a_stranger(workdir, heavy, name):
    arguments, spoil = corpus.ARCHIVES[name]
    spoil(workdir)
    before = files(workdir)
    seen = heavy.run([*arguments, "epochs=1", "quiet=true"], workdir)
    check_refused(seen, workdir, before, codes=(2, 3))
    assert seen.wrote == []


def test_the_corpus_is_as_large_as_promised():
    assert len(corpus.CONFIGS) + len(corpus.CHECKPOINTS) + len(corpus.ARCHIVES) > 200
