"""Rows 36 to 41: a malicious corpus of configs and checkpoints. Nothing runs, nothing is written, each is refused at once."""

from __future__ import annotations

import io
import os
import pickle
import resource
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from faults import checkpoints, copy_of, cut_run, edit_manifest, everything, only_run, tree

from dltrain.errors import CheckpointProblem, UserError
from dltrain.training import checkpoint

HERE = Path(__file__)

# 36: names that a config may hold ---------------------------------------------------------------------------------

TARGETS = [
    "os.system", "posix.system", "subprocess.Popen", "subprocess.check_output", "builtins.eval", "builtins.exec",
    "builtins.__import__", "builtins.getattr", "importlib.import_module", "runpy.run_path", "pickle.loads", "marshal.loads",
    "torch._inductor.codecache.PyCodeCache.load", "torch.load", "torch.hub.load", "torch.utils.cpp_extension.load_inline",
    "torch.package.PackageImporter", "torch.jit.load", "joblib.load", "numpy.load", "numpy.f2py.compile", "shutil.rmtree",
    "functools.partial", "functools.reduce", "operator.methodcaller", "operator.attrgetter", "hydra.utils.instantiate",
    "hydra.utils.get_method", "hydra.utils.call", "yaml.unsafe_load", "code.interact", "pdb.run", "ctypes.CDLL",
    "webbrowser.open", "socket.create_connection", "urllib.request.urlopen", "antigravity.fly_hash", "timeit.main",
    "dltrain.cli.main", "dltrain.experiment.subprocess.run", "dltrain..x", "", ".", "os", "a b", "../evil", "os.system\n",
]  # fmt: skip
ODD = [["os.system"], {"_target_": "os.system"}, 7, None, True, "${oc.env:PATH}", "x" * 5000]

HYDRAS = [
    "+hydra.callbacks.evil._target_=os.system",
    "+hydra.callbacks.evil._target_=torch._inductor.codecache.PyCodeCache.load",
    "+hydra.callbacks.evil._target_=functools.partial",
    "+hydra.job_logging.handlers.evil={'()':os.system,command:touch hacked}",
    "+hydra.job_logging.handlers.evil={class:logging.handlers.SocketHandler,host:localhost,port:1}",
    "+hydra.job_logging.handlers.evil={class:logging.StreamHandler,stream:'ext://os.system'}",
    "+hydra.job_logging.formatters.evil={'()':subprocess.Popen}",
    "+hydra.hydra_logging.handlers.evil={'()':os.system}",
    "+hydra.launcher._target_=os.system",
    "hydra.sweeper._target_=os.system",
    "+hydra.launcher.nested.deep._target_=os.system",
]


@pytest.fixture
def imports(monkeypatch):
    """The names of everything that Python imports, or runs through the system, from here on."""
    seen: list[str] = []
    active = [True]

    def hook(event, arguments):
        if active and (
            event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "ctypes.dlopen")
        ):
            seen.append(event)
        if active and event == "import":
            seen.append(str(arguments[0]))

    sys.addaudithook(hook)
    yield seen
    active.clear()


def nothing_ran(workdir, names, before):
    assert not [
        n
        for n in names
        if n.split(".")[0] in ("antigravity", "webbrowser", "joblib", "runpy", "timeit", "os.system")
    ]
    assert not set(names) & {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn"}
    assert {p.name for p in workdir.iterdir()} == before


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t[:40] or "empty")
def test_36_stranger_s_config_names_code(dltrain, workdir, imports, target):
    """In the config.yaml of a run folder from elsewhere, for resume, rerun and evaluate."""
    run = copy_of(everything()[1], workdir / "run")
    check_refused(dltrain, workdir, imports, run, target)


@pytest.mark.parametrize("target", ODD, ids=lambda t: str(t)[:20])
def test_36_stranger_s_config_names_no_name(dltrain, workdir, imports, target):
    run = copy_of(everything()[1], workdir / "run")
    check_refused(dltrain, workdir, imports, run, target)


def check_refused(dltrain, workdir, imports, run, target):
    file = run.path / "config.yaml"
    content = yaml.safe_load(file.read_text())
    content["model"]["_target_"] = target
    file.write_text(yaml.safe_dump(content))
    (run.path / "hacked.py").write_text("open('hacked', 'w')")
    before = {p.name for p in workdir.iterdir()}
    del imports[:]
    begun = time.monotonic()
    for verb in ("resume", "rerun", "evaluate"):
        with pytest.raises(UserError, match=r"model(\._target_|` names nothing)"):
            dltrain(verb, run.path)
    assert time.monotonic() - begun < 3
    nothing_ran(workdir, imports, before)


@pytest.mark.parametrize("override", HYDRAS)
def test_36_hydra_s_own_node(dltrain, workdir, imports, override):
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"hydra\..*Hydra would import and run|hydra"):
        dltrain(override, "steps=1", "quiet=true")
    assert time.monotonic() - begun < 2
    nothing_ran(workdir, imports, set())


def test_36_alias_in_the_working_folder_is_refused_after_the_import(dltrain, workdir):
    (workdir / "mine.py").write_text("from os import system as Model\n")
    (workdir / "conf" / "model").mkdir(parents=True)
    (workdir / "conf" / "model" / "evil.yaml").write_text("_target_: mine.Model\n")
    with pytest.raises(
        UserError, match=r"mine\.Model, which stands for something in posix.*\n.*trust=\[posix\]"
    ):
        dltrain("model=evil")
    del sys.modules["mine"]


def test_36_a_run_of_a_stranger_cannot_name_code_of_the_working_folder(dltrain, workdir):
    run = copy_of(everything()[1], workdir / "run")
    (workdir / "helper.py").write_text("open('hacked', 'w')\ndef f(*a): ...\n")
    content = yaml.safe_load((run.path / "config.yaml").read_text())
    content["model"]["_target_"] = "helper.f"
    (run.path / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="neither in the catalogue"):
        dltrain("resume", run.path)
    assert not (workdir / "hacked").exists()


OWN = """
import torch
class Two(torch.nn.Module):
    def __init__(self, input_shape, num_classes, width=8):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.Linear(width, num_classes))
    def forward(self, x):
        return self.layers(x)
"""


def test_honest_user_is_not_in_the_way(dltrain, workdir):
    """One YAML file and no ceremony; such a run resumes and is repeated like any other."""
    (workdir / "own_models.py").write_text(OWN)
    (workdir / "conf" / "model").mkdir(parents=True)
    (workdir / "conf" / "model" / "two.yaml").write_text("_target_: own_models.Two\nwidth: 8\n")
    run = cut_run(workdir, 30, "model=two", "model.width=16", "epochs=2", "quiet=true")
    assert dltrain("resume", run.path) == 0
    assert dltrain("rerun", run.path, "output=again") == 0
    assert dltrain("evaluate", run.path) == 0


# 37: checkpoints --------------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return os.system, ("touch hacked",)


def torch_bytes(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def packed(size):
    """A state whose archive is compressed: a few kB that unpack to much."""
    source, target = zipfile.ZipFile(io.BytesIO(torch_bytes({"x": torch.zeros(size)}))), io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in source.infolist():
            archive.writestr(member.filename, source.read(member))
    return target.getvalue()


def replaced_pickle(content):
    source, target = zipfile.ZipFile(io.BytesIO(torch_bytes({}))), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for member in source.infolist():
            archive.writestr(
                member.filename, content if member.filename.endswith("data.pkl") else source.read(member)
            )
    return target.getvalue()


STATES = {
    "reduce": lambda: torch_bytes({"step": Evil()}),
    "plain pickle": lambda: pickle.dumps(Evil()),
    "pickle in the archive": lambda: replaced_pickle(pickle.dumps(Evil())),
    "global of another module": lambda: replaced_pickle(b"cwebbrowser\nopen\n."),
    "string that names a class": lambda: torch_bytes({"optimizer": "os.system", "step": "antigravity.x"}),
    "compressed bomb": lambda: packed(20_000_000),
    "not an archive": lambda: b"x" * 1000,
    "empty": lambda: b"",
    "a list": lambda: torch_bytes([1, 2]),
    "a module": lambda: torch_bytes(torch.nn.Linear(2, 2)),
    "deep pickle": lambda: replaced_pickle(b"(" * 100_000 + b"."),
    "huge size": lambda: replaced_pickle(b"\x80\x02\x8e" + (1 << 62).to_bytes(8, "little") + b"x."),
    "wrong shapes": lambda: torch_bytes({"step": 42, "optimizer": {"state": {}, "param_groups": []}}),
    "numbers as text": lambda: torch_bytes({"step": "1", "optimizer": 7}),
}


def with_file(run, name, content):
    """Every checkpoint of the run with another file, and a manifest that fits it: the hash is no protection here."""
    import hashlib

    for folder in checkpoints(run):
        (folder / name).write_bytes(content)
        hashes = checkpoint.read_manifest(folder)["sha256"] | {name: hashlib.sha256(content).hexdigest()}
        edit_manifest(folder, sha256=hashes)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("make", STATES.values(), ids=STATES)
def test_37_state_of_a_stranger(dltrain, workdir, imports, make):
    run = copy_of(everything()[1], workdir / "run")
    with_file(run, "state.pt", make())
    before = tree(run.path)
    del imports[:]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.monotonic()
    with pytest.raises(CheckpointProblem, match=r"is no state of a run|does not fit this configuration"):
        dltrain("resume", run.path)
    assert time.monotonic() - begun < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000
    nothing_ran(workdir, imports, {"run"})
    assert tree(run.path) == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 9,
        (1 << 60).to_bytes(8, "little") + b"{}",
        b"\x02\0\0\0\0\0\0\0{}",
        b"\x02\0\0\0\0\0\0\0[]",
    ],
)
def test_37_weights_of_a_stranger(dltrain, workdir, imports, content):
    run = copy_of(everything()[1], workdir / "run")
    with_file(run, "weights.safetensors", content)
    with pytest.raises(CheckpointProblem, match="does not fit this configuration"):
        dltrain("resume", run.path)
    nothing_ran(workdir, imports, {"run"})


def test_37_manifest_that_points_outside(dltrain, workdir):
    run = copy_of(everything()[1], workdir / "run")
    for folder in checkpoints(run):
        edit_manifest(
            folder, sha256={"../../../etc/passwd": "0", "weights.safetensors": "0", "state.pt": "0"}
        )
    with pytest.raises(CheckpointProblem, match="No usable checkpoint"):
        dltrain("resume", run.path)


# 38: YAML ---------------------------------------------------------------------------------------------------------

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
YAMLS = {
    "alias bomb": BOMB,
    "alias": "a: &a [1]\nb: *a\n",
    "merge bomb": "a: &a {k: 1}\nb: &b {<<: [*a, *a, *a]}\nc: {<<: [*b, *b]}\n",
    "10 MB": "a: " + "x" * 10_000_000,
    "depth 10 000, flow": "a: " + "[" * 10_000 + "]" * 10_000,
    "depth 10 000, unclosed": "[" * 10_000,
    "depth 10 000, mappings": "{a: " * 10_000 + "}" * 10_000,
    "depth, sequences in a line": "- " * 10_000 + "x",
    "depth, indented": "".join(" " * i + f"k{i}:\n" for i in range(1000)),
    "python object": "a: !!python/object/apply:os.system ['touch hacked']\n",
    "python name": "a: !!python/name:os.system\n",
    "python module": "a: !!python/module:antigravity\n",
    "unknown tag": "a: !evil x\n",
    "not YAML": "a: [1\nb: }",
    "not UTF-8": None,
    "a list": "- 1\n- 2\n",
    "a number": "7",
    "empty": "",
    "no words": "a: 1\n",
    "words are a list": "words: [1]\n",
    "recursive": "a: &a [*a]\n",
    "control characters": "a: \x00\x07\n",
    "complex key": "? [1, 2]\n: 3\n",
}


@pytest.mark.parametrize("text", YAMLS.values(), ids=YAMLS)
def test_38_saved_config_that_is_a_bomb(dltrain, workdir, imports, text):
    run = copy_of(everything()[1], workdir / "run")
    (run.path / "config.yaml").write_bytes(b"a: \xff\xfe" if text is None else text.encode())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.monotonic()
    with pytest.raises(UserError):
        dltrain("resume", run.path)
    assert time.monotonic() - begun < 1.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000
    nothing_ran(workdir, imports, {"run"})


def test_38_duplicate_key(dltrain, workdir):
    run = copy_of(everything()[1], workdir / "run")
    with open(run.path / "config.yaml", "a") as stream:
        stream.write("seed: 1\n")
    with pytest.raises(CheckpointProblem, match="`seed` stands twice"):
        dltrain("resume", run.path)


@pytest.mark.parametrize(
    "name", ["alias bomb", "10 MB", "depth 10 000, flow", "recursive", "depth, sequences in a line"]
)
def test_38_word_from_elsewhere_that_is_a_bomb(dltrain, workdir, name):
    (workdir / "conf" / "model").mkdir(parents=True)
    (workdir / "conf" / "model" / "bomb.yaml").write_text(YAMLS[name])
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"bomb\.yaml"):
        dltrain("model=bomb")
    assert time.monotonic() - begun < 1.5


# 40: tests/test_refusals.py; 41: ----------------------------------------------------------------------------------


def test_41_saved_config_repeats_the_run_and_holds_no_secret(dltrain, workdir, monkeypatch):
    from conftest import assert_equal

    monkeypatch.setenv("TOKEN", "s3cr3t-value")
    arguments = ("notes=${oc.env:TOKEN}", "tags=[a]", "epochs=2", "quiet=true")
    assert dltrain(*arguments, "name=first") == 0
    first = only_run(workdir, "first")
    assert "${oc.env:TOKEN}" in (first.path / "config.yaml").read_text()
    for file in (f for f in first.path.rglob("*") if f.is_file()):
        assert b"s3cr3t" not in file.read_bytes(), file
    assert dltrain("rerun", first.path, "name=second") == 0
    second = only_run(workdir, "second")
    assert_equal(first.best_weights, second.best_weights)
    assert_equal(first.timeless_rows, second.timeless_rows)
    monkeypatch.delenv("TOKEN")
    with pytest.raises(UserError, match=r"`notes` is \$\{oc\.env:TOKEN\}"):
        dltrain("rerun", first.path)


ENVIRONMENTS = [
    {"PYTHONHASHSEED": "1"},
    {"PYTHONHASHSEED": "99"},
    {"LC_ALL": "tr_TR.UTF-8"},
    {"LC_ALL": "de_DE.UTF-8"},
    {"TZ": "Asia/Tokyo"},
]


@pytest.mark.slow
def test_34_hash_seed_locale_time_zone_and_folder_change_nothing(workdir):
    runs = []
    for i, environment in enumerate(ENVIRONMENTS):
        folder = workdir / f"ein Ordner {i} ü"
        folder.mkdir()
        command = [
            sys.executable,
            "-m",
            "dltrain",
            "epochs=3",
            "augmentation=[shift]",
            "regularization=[dropout]",
            "name=x",
            "quiet=true",
        ]
        subprocess.run(command, env={**os.environ, **environment}, cwd=folder, check=True)
        runs.append(only_run(folder, "x"))
    assert all(run.timeless_rows == runs[0].timeless_rows for run in runs)


def test_archives_are_read_and_not_extracted():
    """Row 39's archives and downloads are tests/data/test_data_downloaded.py; no code of ours extracts."""
    sources = (HERE.parents[2] / "dltrain").rglob("*.py")
    assert not [
        file for file in sources if "extractall" in file.read_text() or "unpack_archive" in file.read_text()
    ]


def test_fixture_is_small():
    files = (HERE.parents[1] / "fixtures").rglob("*")
    assert sum(file.stat().st_size for file in files if file.is_file()) < 50_000
