"""Rows 36 to 39: the malicious corpus. Nothing runs, nothing is written outside, each is refused at once in few words.

Each item meets the command line in a process forked for it, which tells what it imported, ran and wrote. By default
one item in four; all of them, and the configurations also in interpreters of their own:
`pytest -m slow tests/faults/test_faults_corpus.py`.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import corpus
import pytest
import yaml
from faults import copy_of, everything, swept
from mechanisms import MECHANISMS, counted, table
from zygote import HEAVY, LIGHT, Seen, Zygote

from dltrain.sweep.record import resumed_texts

ROOT = Path(__file__).parents[2]
SECONDS, MEGABYTES = 1.0, 200.0
WAITED = 60.0  # seconds on the wall, which has the noise of the machine on it: a refusal waits for nothing
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


def content_of(path: Path) -> bytes:
    """The content of a file; of one that is a hole its size."""
    size = path.stat().st_size
    return path.read_bytes() if size < 10**9 else str(size).encode()


def files(folder: Path) -> dict[str, bytes]:
    """Every file with its content, and every link and folder by its name; the log and `err` may change."""
    return {
        str(path.relative_to(folder)): content_of(path) if path.is_file() and not path.is_symlink() else b""
        for path in sorted(folder.rglob("*"))
        if path.name not in ("run.log", "err")
    }


def check_refused(
    seen: Seen,
    folder: Path,
    before: dict[str, bytes],
    codes=(2, 3, 4),
    left_out: str = "err",
    opens: bool = False,
    seconds: float = SECONDS,
) -> None:
    """`opens`: a module of the working folder is imported, since the command line, or a callback, may name it."""
    assert seen.code in codes, seen.error or seen.code
    assert seen.error.startswith("dltrain: ")
    assert len(seen.error.splitlines()) <= 6 and "Traceback" not in seen.error, seen.error
    assert len(seen.error) < 1500
    assert seen.ran == [] and (opens or not seen.open)
    now = files(folder)
    assert {path: now[path] for path in now if not path.startswith(left_out)} == before
    print(f"{seen.seconds:.3f} s, {seen.cpu:.3f} s of CPU, {seen.megabytes:.0f} MB")
    assert seen.cpu < seconds
    assert seen.seconds < WAITED
    assert seen.megabytes < MEGABYTES


def written(seen: Seen) -> list[str]:
    """What was written, without the folder of the socket that jobs of a sweep are started by."""
    temporary = tempfile.gettempdir()
    return [path for path in seen.wrote if "/pymp-" not in path and os.path.dirname(path) != temporary]


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


@pytest.mark.parametrize("override", some_of(corpus.HYDRAS))
def test_36_hydra_s_own_node(workdir, light, override):
    (workdir / "helper.py").write_text(corpus.HELPER)
    before = files(workdir)
    seen = light.run([override, "steps=1", "quiet=true"], workdir)
    check_refused(seen, workdir, before, codes=(2,), opens="helper" in override)
    assert seen.wrote == []


def words_of_a_stranger(workdir, tmp_path_factory, item) -> tuple[str, str]:
    """Write an item of the corpus into a folder elsewhere; the working folder holds what it could reach."""
    file, text, override = item
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / file).parent.mkdir(parents=True, exist_ok=True)
    (elsewhere / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    (workdir / "helper.py").write_text(corpus.HELPER)
    (workdir / "precious").write_text("x")
    (workdir / "hacked").mkdir()  # a package of the working folder, for whoever imports it
    (workdir / "hacked" / "__init__.py").write_text("open('imported', 'w')")
    return str(elsewhere), override


@pytest.mark.parametrize("name", [*list(corpus.WORDS)[:4], *some_of(list(corpus.WORDS)[4:])])
def test_36_38_words_from_a_folder_of_a_stranger(workdir, tmp_path_factory, light, name):
    elsewhere, override = words_of_a_stranger(workdir, tmp_path_factory, corpus.WORDS[name])
    before = files(workdir)
    seen = light.run(["--config-dir", elsewhere, override], workdir)
    check_refused(seen, workdir, before, codes=(2,), opens="of the working folder" in name)
    assert seen.wrote == []
    assert not [module for module in seen.imports if module.split(".")[0] in ("torch", "antigravity")]


DOORS = {
    "sweep": ("-m", "seed=0,1", "experiment=evil"),
    "axis of a sweep": ("-m", "experiment=none,evil"),
    "--cfg": ("--cfg", "job", "experiment=evil"),
    "--cfg all --resolve": ("--cfg", "all", "--resolve", "experiment=evil"),
    "--info": ("--info", "config", "experiment=evil"),
}


@pytest.mark.parametrize("case", some_of(f"{door}: {name}" for name in corpus.RECIPES for door in DOORS))
def test_36_recipe_of_a_stranger_at_every_door(workdir, tmp_path_factory, light, case):
    door, _, name = case.partition(": ")
    elsewhere, _ = words_of_a_stranger(workdir, tmp_path_factory, corpus.RECIPES[name])
    before = files(workdir)
    seen = light.run(["--config-dir", elsewhere, *DOORS[door]], workdir)
    check_refused(seen, workdir, before, codes=(2,), opens="of the working folder" in name)
    assert written(seen) == []


# 37: folders of sweeps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *list(corpus.SWEEPS)[:3],
        *(pytest.param(name, marks=pytest.mark.ci) for name in list(corpus.SWEEPS)[3:8]),
        *some_of(list(corpus.SWEEPS)[8:]),
    ],
)
def test_37_sweep_of_a_stranger(workdir, light, name):
    """`sweep.resume` of a folder from elsewhere: what it records are data, and nothing is written outside of it."""
    copy_of(swept(), workdir / "sweep")
    corpus.SWEEPS[name](workdir)
    before = files(workdir)
    seen = light.run(["-m", "sweep.resume=sweep"], workdir)
    if name.startswith("study"):  # it is read under the lock of its sweep
        before = {path: content for path, content in before.items() if not path.startswith("sweep/")}
        # the sweep is composed first, which says how many trials it has: 0.92 s with AVX2 alone, 1.1 s beside another process
        check_refused(seen, workdir, before, codes=(4,), left_out="sweep/", seconds=2 * SECONDS)
        inside = str(workdir / "sweep") + "/"
        assert [path for path in written(seen) if not path.startswith((inside, str(workdir / "err")))] == []
        return
    check_refused(seen, workdir, before, codes=(2, 4))
    assert seen.wrote == []
    assert not {module.split(".")[0] for module in seen.imports} & {"torch", "helper", "hacked_words"}


@pytest.mark.parametrize(
    "name",
    [
        name if "journal" in name else param
        for name, param in zip(corpus.RECOVERED, some_of(corpus.RECOVERED), strict=True)
    ],
)
def test_37_books_of_a_stranger(workdir, light, name):
    """They are a cache: the sweep ends with the results of its folders, or refuses; nothing is written outside of it."""
    copy_of(swept(), workdir / "sweep")
    table = (workdir / "sweep" / "results.csv").read_text()
    corpus.RECOVERED[name](workdir)
    (workdir / "sweep" / "results.csv").unlink()
    seen = light.run(["-m", "sweep.resume=sweep"], workdir)
    # 7: the job whose objective is no number has failed
    assert seen.code in (0, 4, 7) and "Traceback" not in seen.error and len(seen.error) < 1500, seen.error
    # a socket of this machine starts the process that writes results.parquet
    assert [call for call in seen.ran if not ("socket.connect" in call and "family=1," in call)] == []
    assert seen.cpu < 2 * SECONDS
    inside = str(workdir / "sweep") + "/"
    assert [path for path in written(seen) if not path.startswith((inside, str(workdir / "err")))] == []
    assert not (workdir / "precious").exists() or (workdir / "precious" / "file").read_text() == "x"
    if seen.code == 0 and "400 digits" not in name and "best epoch" not in name:
        assert rows_of((workdir / "sweep" / "results.csv").read_text()) == rows_of(table)


def rows_of(text: str) -> list[dict[str, str]]:
    """The rows of results.csv without where its jobs are and how long they took."""
    rows = csv.DictReader(io.StringIO(text))
    return [{key: value for key, value in row.items() if key not in ("folder", "seconds")} for row in rows]


# 37: what a record decides ----------------------------------------------------------------------------------------


def a_record(folder: Path, texts: list[str]) -> None:
    """Write a sweep.json with some overrides and the axis `lr`."""
    axis = {"name": "lr", "options": [], "low": 0, "high": 0}
    identity = {"sweep": "grid", "fixed": [], "axes": [axis], "settings": {}, "test": False}
    folder.mkdir(exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps({"identity": identity, "overrides": texts}))


@pytest.mark.parametrize("name", corpus.BACKENDS)
def test_37_a_record_does_not_choose_the_backend_or_its_settings(workdir, name):
    """Found in review: with `++` in front they escaped the filter, and Slurm or Ray got what a stranger wrote."""
    a_record(workdir / "s", ["lr=0.1,0.2", *corpus.BACKENDS[name]])
    _, texts, mine = resumed_texts(["sweep.resume=s", "sweep.backend=ray"])
    assert texts == ["lr=0.1,0.2", "sweep.backend=ray"] and mine == ["sweep.backend=ray"]


@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_37_what_the_command_line_says_replaces_the_record_with_any_sign(workdir, sign):
    a_record(workdir / "s", [f"{sign}lr=0.1", f"{sign}seed=1,2", f"{sign}trust=[os]", "model=linear"])
    _, texts, _ = resumed_texts(["sweep.resume=s", "lr=0.1,0.2", "seed=1,2,3", "trust=[timm]"])
    assert texts == ["model=linear", "lr=0.1,0.2", "seed=1,2,3", "trust=[timm]"]


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


# 37: the commands that check a run ------------------------------------------------------------------------------


def check_named(seen: Seen, folder: Path, before: dict[str, bytes]) -> None:
    """Each is a finding (10) or a refusal (4) of a few lines, and nothing runs or is written."""
    assert seen.code in (4, 10), seen.error or seen.code
    assert "Traceback" not in seen.error and len(seen.error) < 1500 and "\x1b" not in seen.error
    assert (
        seen.ran == [] and not seen.open and {p: c for p, c in files(folder).items() if p != "err"} == before
    )
    assert [path for path in seen.wrote if path != str(folder / "err")] == []
    assert seen.cpu < 2 * SECONDS and seen.seconds < WAITED and seen.megabytes < MEGABYTES


@pytest.mark.parametrize("name", some_of(corpus.VERIFIED))
def test_37_verify_of_a_stranger_s_run(workdir, heavy, name):
    a_run(workdir)
    corpus.VERIFIED[name](workdir)
    before = files(workdir)
    check_named(heavy.run(["verify", "run"], workdir), workdir, before)


@pytest.mark.parametrize("name", some_of(corpus.VERIFIED_SWEEPS))
def test_37_verify_of_a_stranger_s_sweep(workdir, heavy, name):
    copy_of(swept(), workdir / "sweep")
    corpus.VERIFIED_SWEEPS[name](workdir)
    before = files(workdir)
    check_named(heavy.run(["verify", "sweep"], workdir), workdir, before)


# 37: verbs that look at runs, move them or write beside them ------------------------------------------------------


@pytest.mark.parametrize("name", some_of(corpus.VISITED))
def test_37_verbs_that_visit_a_stranger_s_run(workdir, heavy, name):
    """Nothing runs, no file elsewhere changes or goes, and no name commands a terminal or a browser."""
    arguments, spoil = corpus.VISITED[name]
    run = copy_of(everything()[0], workdir / corpus.THERE)
    (workdir / "precious").mkdir()
    (workdir / "precious" / "file").write_text("x")
    spoil(workdir)
    seen = heavy.run(list(arguments), workdir)
    said = seen.error + seen.output
    assert seen.code in (0, 2, 3, 4, 10), said
    assert "Traceback" not in said and len(seen.error) < 1500 and not set(said) & set("\x1b\x07\x9b\u202e"), (
        said
    )
    assert seen.ran == [] and (seen.megabytes < MEGABYTES or arguments[0] == "export")
    assert [path.name for path in (workdir / "precious").rglob("*")] == ["file"]
    assert (workdir / "precious" / "file").read_text() == "x"
    assert not (workdir / "hacked").exists()
    for page in (run.path / "report.html", workdir / "c.html"):
        if page.is_file() and not page.is_symlink():
            assert corpus.MARKUP[:30] not in page.read_text() and "<img src=x" not in page.read_text()


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
    assert len(corpus.HYDRAS) + len(corpus.WORDS) + len(corpus.SWEEPS) > 100
    assert len(corpus.ITEMS) >= 450


def test_every_item_has_a_mechanism_and_the_page_lists_them():
    found = counted(corpus.ITEMS)
    assert found[""] == 0 and all(found[name] for name in MECHANISMS)
    assert len(MECHANISMS) >= 60
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    assert table(corpus.ITEMS) in page, "python tests/faults/mechanisms.py prints the table"
    assert f"{len(corpus.ITEMS)} items" in page


def test_every_arrow_of_the_page_names_a_test_that_is_there():
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    arrows = [line for line in page.splitlines() if re.match(r"\| \d\d? ", line)]
    assert len(arrows) == len(re.findall(r"\|\d+\|", page)) == 13
    for line in arrows:
        assert "::test_" in line, line
    for file, name in re.findall(r"`(test_\w+\.py)::(test_\w+)`", page):
        assert f"def {name}(" in (ROOT / "tests" / "faults" / file).read_text(encoding="utf-8"), name
