"""The malicious corpus of rows 36 to 39: configurations, checkpoints, archives and whole run folders of strangers.

Each item is a function that spoils something in the working folder, where `run` is the folder of a run that was cut;
and the command line that meets it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import signal
import sqlite3
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from dltrain.storage import checkpoint
from dltrain.storage.index import Index
from dltrain.storage.job_names import named_by_number

Spoil = Callable[[Path], None]
VERBS = ("resume", "rerun", "evaluate", "reproduce")

# 36: names in the config.yaml of a run folder --------------------------------------------------------------------

TARGETS = [
    "os.system", "posix.system", "subprocess.Popen", "subprocess.check_output", "builtins.eval", "builtins.exec",
    "builtins.__import__", "builtins.getattr", "importlib.import_module", "runpy.run_path", "pickle.loads", "marshal.loads",
    "torch._inductor.codecache.PyCodeCache.load", "torch.load", "torch.hub.load", "torch.utils.cpp_extension.load_inline",
    "torch.package.PackageImporter", "torch.jit.load", "joblib.load", "numpy.load", "numpy.f2py.compile", "shutil.rmtree",
    "functools.partial", "functools.reduce", "operator.methodcaller", "operator.attrgetter", "hydra.utils.instantiate",
    "hydra.utils.get_method", "hydra.utils.call", "yaml.unsafe_load", "code.interact", "pdb.run", "ctypes.CDLL",
    "webbrowser.open", "socket.create_connection", "urllib.request.urlopen", "antigravity.fly_hash", "timeit.main",
    "dltrain.cli.main", "dltrain.run.experiment.subprocess.run", "dltrain..x", "", ".", "os", "a b", "../evil", "os.system\n",
    "torch.optim.Adam.__init__", "torch.optim.sgd.torch.load", "dltrain.models.mlp.torch.hub.load", "helper.f",
]  # fmt: skip
ODD = [["os.system"], {"_target_": "os.system"}, 7, None, True, "${oc.env:PATH}", "x" * 5000]


def edited(path: str, value: object, **more: object) -> Spoil:
    """config.yaml with another value at a dotted path."""

    def spoil(folder: Path) -> None:
        content = yaml.safe_load((folder / "run" / "config.yaml").read_text())
        *parents, last = path.split(".")
        node = content
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
        (folder / "run" / "config.yaml").write_text(yaml.safe_dump(content | more))
        (folder / "run" / "hacked.py").write_text("open('hacked', 'w')")
        (folder / "helper.py").write_text("open('hacked', 'w')\ndef f(*a): ...\n")

    return spoil


NODES = (
    "dataset", "initializer", "optimizer", "schedule", "momentum_schedule", "penalty_schedule", "loss", "sampler",
    "early_stopping", "averaging",
    "logger.evil", "metrics.evil", "diagnostics.evil", "regularization.evil", "augmentation.evil", "wrap.evil", "model.deep.er",
)  # fmt: skip
# A stranger who writes into his own file that he is to be trusted.
TRUSTED = {"os.system": ["os", "posix"], "posix.system": ["posix"], "builtins.eval": ["builtins"], "hacked.f": ["hacked"],
           "torch.load": ["torch"], "subprocess.check_output": ["subprocess"], "antigravity.x": ["antigravity"]}  # fmt: skip
NAMES = ["../../outside", "/tmp/outside", "a/../../../b", "x\0y", "a\nb", "..", [1], {"a": 1}, 7]


def deleting(folder: Path) -> None:
    """The keys of a catalogue's word in a call that deletes a folder: it worked, until trust came from the command line only."""
    (folder / "precious").mkdir()
    (folder / "precious" / "file").write_text("x")
    file = folder / "run" / "config.yaml"
    content = yaml.safe_load(file.read_text())
    common = {key: value for key, value in content["dataset"].items() if not key.startswith("_")}
    content["dataset"] = {**common, "_target_": "shutil.rmtree", "path": "precious"}
    content["words"]["dataset"], content["trust"] = "npz", ["shutil"]
    file.write_text(yaml.safe_dump(content))


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
YAMLS: dict[str, Any] = {
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
    "not UTF-8": b"a: \xff\xfe",
    "a list": "- 1\n- 2\n",
    "a number": "7",
    "empty": "",
    "no words": "a: 1\n",
    "words are a list": "words: [1]\n",
    "recursive": "a: &a [*a]\n",
    "control characters": "a: \x00\x07\n",
    "complex key": "? [1, 2]\n: 3\n",
    "a key twice": "seed: 1\nseed: 2\n",
    "long number": "a: " + "9" * 900_000,
    "long number of base 16": "a: 0x" + "f" * 5_000,
    "sexagesimal": "a: " + ":".join(["59"] * 100_000),
    "many keys": "".join(f"k{i}: 1\n" for i in range(60_000)),
    "environment in a loop": "notes: ${oc.env:A,${oc.env:B,${oc.env:C,${notes}}}}\n",
}


def replaced(name: str, content: str | bytes) -> Spoil:
    """A file of the run folder with other content."""

    def spoil(folder: Path) -> None:
        file = folder / "run" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


CONFIGS: dict[str, Spoil] = {
    **{f"target {name[:50]!r}": edited("model._target_", name) for name in TARGETS},
    **{f"target {str(value)[:20]!r}": edited("model._target_", value) for value in ODD},
    **{f"{node} os.system": edited(f"{node}._target_", "os.system") for node in NODES},
    **{f"trusts itself: {name}": edited("model._target_", name, trust=trust) for name, trust in TRUSTED.items()},
    "trusts itself: deletes a folder": deleting,
    **{f"name {str(name)!r}": edited("name", name) for name in NAMES},
    **{f"YAML {name}": replaced("config.yaml", text) for name, text in YAMLS.items()},
}  # fmt: skip

# 36: Hydra's own node, and words from a folder that is given with --config-dir -------------------------------------

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
    # what our own modules, Hydra's and its plugins import is not theirs
    "+hydra.callbacks.evil={_target_:dltrain.storage.checkpoint.os.system,command:touch hacked}",
    "+hydra.callbacks.evil={_target_:dltrain.sweep.jobs.write,file:hacked,text:x}",
    "+hydra.callbacks.evil={_target_:dltrain.sweep.jobs.os.system,command:touch hacked}",
    "+hydra.callbacks.evil={_target_:hydra._internal.core_plugins.basic_launcher.Path.touch,self:hacked}",
    "+hydra.callbacks.evil={_target_:hydra.experimental.callbacks.pickle.loads}",
    "+hydra.callbacks.evil={_target_:hydra_plugins.evil.os.system,command:touch hacked}",
    "hydra.launcher._target_=hydra_plugins.evil.os.system",
    "hydra.sweeper._target_=hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "+hydra.callbacks.evil={_target_:helper.system,command:touch hacked}",
    # nodes that are texts until they are used
    "+hydra.callbacks.evil='${oc.create:{_target_:os.system,command:touch hacked}}'",
    "+hydra.callbacks.evil='${oc.decode:\\'{_target_:os.system,command:touch hacked}\\'}'",
    "+hydra.callbacks.evil='${hydra.env}'",
    "hydra.callbacks='${oc.create:{evil:{_target_:os.system,command:touch hacked}}}'",
    "+hydra.callbacks.evil={_target_:'${notes}',command:touch hacked}",
    "+hydra.callbacks.evil={_target_:'${hydra.job.name}',command:touch hacked}",
    "hydra.job_logging.handlers='${oc.create:{file:{class:logging.FileHandler,filename:hacked}}}'",
    "hydra.job_logging.handlers.file.class='${hydra.job.name}'",
    "hydra.job_logging.handlers.file.filename='${output}/../hacked'",
    "hydra.output_subdir='${notes}'",
    # arguments of loggers that are allowed
    "hydra.job_logging.handlers.file.filename=hacked",
    "hydra.job_logging.handlers.file.filename=/tmp/hacked",
    "hydra.job_logging.handlers.file.filename='${hydra.runtime.output_dir}/../../../hacked'",
    "hydra.job_logging.handlers.file.filename='${hydra.runtime.output_dir}/${hydra.runtime.cwd}/hacked'",
    "hydra.job_logging.handlers.file.filename='cfg://formatters.simple.format'",
    "+hydra.job_logging.handlers.file.mode=x",
    "+hydra.job_logging.handlers.file.'.'={baseFilename:hacked}",
    "+hydra.job_logging.handlers.evil={class:logging.FileHandler,filename:hacked,mode:w}",
    "+hydra.job_logging.handlers.evil={'()':logging.FileHandler,filename:hacked}",
    "+hydra.job_logging.formatters.evil={class:logging.FileHandler,format:hacked}",
    "+hydra.job_logging.formatters.evil={'()':logging.FileHandler,filename:hacked}",
    "+hydra.job_logging.formatters.evil={format:'%(message)999999999s'}",
    "+hydra.job_logging.formatters.evil={format:'{args.__class__}',style:'{'}",
    "+hydra.job_logging.filters={evil:{'()':logging.FileHandler,filename:hacked}}",
    "+hydra.hydra_logging.handlers={evil:{class:logging.FileHandler,filename:hacked}}",
    "hydra.job.name=../../hacked",
    "hydra.output_subdir=../../../hacked",
    "hydra.output_subdir=/tmp/hacked",
    "hydra.output_subdir=.",
    # the environment of what runs
    "+hydra.job.env_set.LD_PRELOAD=evil.so",
    "+hydra.job.env_set={GIT_CONFIG_COUNT:1,GIT_CONFIG_KEY_0:core.fsmonitor,GIT_CONFIG_VALUE_0:touch hacked}",
    "hydra.job.env_copy=[HOME]",
    "hydra.job.env_copy=[NO_SUCH_VARIABLE]",
]
HELPER = "from os import system\n"  # what many a working folder holds


def recipe(hydra: str) -> tuple[str, str, str]:
    """A recipe that sets something of Hydra's node."""
    return "experiment/evil.yaml", f"# @package _global_\nhydra:\n{hydra}", "experiment=evil"


# Each of them meets every door that takes overrides.
RECIPES = {
    "a callback": recipe("  callbacks:\n    evil:\n      _target_: os.system\n      command: touch hacked\n"),
    "a callback made by oc.create": recipe(
        '  callbacks:\n    evil: "${oc.create:{_target_:os.system,command:touch hacked}}"\n'
    ),
    "a callback made by oc.decode": recipe(
        "  callbacks:\n    evil: \"${oc.decode:'{_target_:os.system,command:touch hacked}'}\"\n"
    ),
    "callbacks made by oc.create": recipe(
        '  callbacks: "${oc.create:{evil:{_target_:os.system,command:touch hacked}}}"\n'
    ),
    "Hydra's node made by oc.create": (
        "experiment/evil.yaml",
        '# @package _global_\nhydra: "${oc.create:{callbacks:{evil:{_target_:os.system,command:touch hacked}}}}"\n',
        "experiment=evil",
    ),
    "a callback of ours": recipe(
        "  callbacks:\n    evil:\n      _target_: dltrain.storage.checkpoint.os.system\n      command: touch hacked\n"
    ),
    "a callback of the working folder that is another's": recipe(
        "  callbacks:\n    evil:\n      _target_: helper.system\n      command: touch hacked\n"
    ),
    "a file that is emptied": recipe(
        "  job_logging:\n    handlers:\n      file:\n        filename: precious\n        mode: w\n        delay: false\n"
    ),
    "a file of Hydra's log": recipe(
        "  hydra_logging:\n    handlers:\n      evil:\n        class: logging.FileHandler\n        filename: precious\n"
        "        mode: w\n    root:\n      handlers: [evil]\n"
    ),
    "a formatter that is a file": recipe(
        "  job_logging:\n    formatters:\n      simple:\n        class: logging.FileHandler\n        format: hacked\n"
    ),
    "a folder outside": recipe("  output_subdir: ../../../hacked\n"),
    "a name that leads outside": recipe(
        "  job:\n    name: ../../../hacked\n  job_logging:\n    handlers:\n      file:\n"
        "        filename: ${hydra.runtime.output_dir}/${hydra.job.name}\n        delay: false\n"
    ),
    "a job's folder outside": recipe("  sweep:\n    subdir: ../../../hacked\n"),
    "another working folder": recipe("  job:\n    chdir: true\n"),
    "environment": recipe("  job:\n    env_set:\n      LD_PRELOAD: evil.so\n"),
    "environment copied": recipe("  job:\n    env_copy: [HOME]\n"),
    "a package of words": recipe("  searchpath: ['pkg://hacked']\n"),
}
WORDS = {
    **RECIPES,
    "model made by oc.create": (
        "experiment/evil.yaml",
        '# @package _global_\nmodel: "${oc.create:{_target_:os.system,command:touch hacked}}"\n',
        "experiment=evil",
    ),
    "model os.system": ("model/evil.yaml", "_target_: os.system\n", "model=evil"),
    "model trusts itself": (
        "experiment/evil.yaml",
        "# @package _global_\ntrust: [posix]\nmodel:\n  _target_: posix.system\n",
        "experiment=evil",
    ),
    "a recipe that sets a callback": (
        "experiment/evil.yaml",
        "# @package _global_\nhydra:\n  callbacks:\n    evil:\n      _target_: os.system\n",
        "experiment=evil",
    ),
    "an optimizer": ("optimizer/evil.yaml", "_target_: torch.hub.load\n_partial_: true\n", "optimizer=evil"),
    **{
        name: ("model/evil.yaml", YAMLS[name], "model=evil")
        for name in (
            "alias bomb",
            "10 MB",
            "depth 10 000, flow",
            "recursive",
            "depth, sequences in a line",
            "python object",
            "merge bomb",
            "depth 10 000, mappings",
            "depth 10 000, unclosed",
            "not YAML",
            "not UTF-8",
        )
    },
    # files that are no words: logging of one's own, and a whole configuration in the place of config.yaml
    "depth in Hydra's words": (
        "hydra/job_logging/evil.yaml",
        YAMLS["depth 10 000, flow"],
        "hydra/job_logging=evil",
    ),
    "bomb in Hydra's words": ("hydra/job_logging/evil.yaml", YAMLS["alias bomb"], "hydra/job_logging=evil"),
    "bomb in a whole configuration": ("evil.yaml", YAMLS["alias bomb"], "--config-name=evil"),
    "depth in a whole configuration": ("evil.yaml", YAMLS["depth 10 000, flow"], "--config-name=evil"),
    "a package of words in a whole configuration": (
        "evil.yaml",
        "defaults: [config]\nhydra:\n  searchpath: ['pkg://hacked']\n",
        "--config-name=evil",
    ),
}

# 37: checkpoints --------------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hacked",)


def torch_bytes(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def rewritten(content: bytes, pickled: bytes | None = None, packing: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of torch with another pickle in it, or packed."""
    source, target = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(target, "w", packing) as archive:
        for member in source.infolist():
            other = pickled is not None and member.filename.endswith("data.pkl")
            archive.writestr(member.filename, pickled if other else source.read(member))
    return target.getvalue()


def packed_state(size: int) -> bytes:
    """A few kB that unpack to much."""
    return rewritten(torch_bytes({"x": torch.zeros(size)}), packing=zipfile.ZIP_DEFLATED)


def with_pickle(pickled: bytes) -> bytes:
    return rewritten(torch_bytes({}), pickled)


HUGE = (1 << 62).to_bytes(8, "little")
STATES: dict[str, Callable[[], bytes]] = {
    "reduce": lambda: torch_bytes({"step": Evil()}),
    "plain pickle": lambda: pickle.dumps(Evil()),
    "pickle in the archive": lambda: with_pickle(pickle.dumps(Evil())),
    "pickle of the first protocol": lambda: torch_bytes({"step": Evil()}, _use_new_zipfile_serialization=False),
    "global of another module": lambda: with_pickle(b"cwebbrowser\nopen\n."),
    "global of torch": lambda: with_pickle(b"ctorch.hub\nload\n(S'x'\ntR."),
    "call of getattr": lambda: with_pickle(b"cbuiltins\ngetattr\n(cos\nsystem\ntR."),
    "string that names a class": lambda: torch_bytes({"optimizer": "os.system", "step": "antigravity.x"}),
    "compressed bomb": lambda: packed_state(20_000_000),
    "not an archive": lambda: b"x" * 1000,
    "empty": lambda: b"",
    "a list": lambda: torch_bytes([1, 2]),
    "a module": lambda: torch_bytes(torch.nn.Linear(2, 2)),
    "deep pickle": lambda: with_pickle(b"(" * 100_000 + b"."),
    "deep lists": lambda: with_pickle(b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."),
    "huge size": lambda: with_pickle(b"\x80\x02\x8e" + HUGE + b"x."),
    "huge memo": lambda: with_pickle(b"\x80\x02]r\xff\xff\xff\x7f."),
    "wrong shapes": lambda: torch_bytes({"step": 42, "optimizer": {"state": {}, "param_groups": []}}),
    "numbers as text": lambda: torch_bytes({"step": "1", "optimizer": 7}),
    "members that lead outside": lambda: outside_members(),
}  # fmt: skip


def outside_members() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in ("../../hacked", "/tmp/hacked", "archive/data.pkl"):
            archive.writestr(name, pickle.dumps(Evil()))
    return target.getvalue()


def header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


def polyglot() -> bytes:
    """A file that is read as tensors from its begin, and as an archive with a pickle from its end."""
    return header(b"{}") + with_pickle(pickle.dumps(Evil()))


SAFETENSORS = {
    "empty": b"",
    "cut": b"x" * 9,
    "huge header": (1 << 60).to_bytes(8, "little") + b"{}",
    "no tensors": header(b"{}"),
    "a list": header(b"[]"),
    "deep header": header(b'{"a":' * 50_000),
    "offsets outside": header(b'{"layers.0.0.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,99999999]}}'),
    "huge shape": header(b'{"layers.0.0.weight":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}}'),
    "a pickle": pickle.dumps(Evil()),
    "overlapping tensors": header(
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}'
    ) + bytes(12),
    "a hole": header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}') + bytes(8),
    "bytes behind the tensors": header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}') + bytes(4) + b"PK\x03\x04" * 9,
    "an archive, too": polyglot(),
    "a size that is not the shape's": header(b'{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,4]}}') + bytes(4),
    "an unknown type": header(b'{"a":{"dtype":"PICKLE","shape":[1],"data_offsets":[0,4]}}') + bytes(4),
    "negative offsets": header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}'),
    "offsets in reverse": header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}') + bytes(4),
    "metadata that are no texts": header(b'{"__metadata__":{"a":[1]}}'),
    "not UTF-8": header(b'{"\xff\xfe":{}}'),
}  # fmt: skip


def hashed(name: str, make: Callable[[], bytes]) -> Spoil:
    """Every checkpoint of the run with another file, and a manifest that fits it: the hash is no protection here."""

    def spoil(folder: Path) -> None:
        content = make()
        for step in (folder / "run" / "checkpoints").glob("step-*"):
            (step / name).write_bytes(content)
            manifest = json.loads((step / "manifest.json").read_text())
            manifest["sha256"][name] = hashlib.sha256(content).hexdigest()
            (step / "manifest.json").write_text(json.dumps(manifest))

    return spoil


A_NUMBER: dict[str, Any] = {"name": "a", "format": {"kind": "number"}}


def in_contract(**changes: object) -> Spoil:
    """A data.json with other entries."""

    def spoil(folder: Path) -> None:
        file = folder / "run" / "data.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return spoil


def with_manifest(text: str | None = None, **changes: object) -> Spoil:
    def spoil(folder: Path) -> None:
        for step in (folder / "run" / "checkpoints").glob("step-*"):
            manifest = checkpoint.read_manifest(step) | changes
            (step / "manifest.json").write_text(json.dumps(manifest) if text is None else text)

    return spoil


def linked(name: str, target: str) -> Spoil:
    """A link in the place of a file or folder of the run: whoever writes there writes elsewhere."""

    def spoil(folder: Path) -> None:
        (folder / "precious").mkdir()
        (folder / "precious" / "step-00000001").mkdir()
        (folder / "precious" / "file").write_text("x")
        file = folder / "run" / name
        if file.exists():
            file.rename(folder / "put_aside")
        file.symlink_to(target)

    return spoil


def piped(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "run" / name).unlink(missing_ok=True)
        os.mkfifo(folder / "run" / name)

    return spoil


LINKS = {
    **{f"link {n}": linked(n, "../precious/file") for n in ("metrics.csv", "run.log", "run.lock", "summary.json", "config.yaml")},
    **{f"dangling link {n}": linked(n, "../precious/new") for n in (".metrics.csv.tmp", ".summary.json.tmp", ".config.yaml.tmp")},
    **{f"link {n}": linked(n, "../precious") for n in ("checkpoints", "tensorboard")},
    **{f"pipe {n}": piped(n) for n in ("metrics.csv", "summary.json", "run.log", "config.yaml")},
}  # fmt: skip
CHECKPOINTS: dict[str, tuple[str, Spoil]] = {
    **{f"state: {name}": ("resume", hashed("state.pt", make)) for name, make in STATES.items()},
    **{f"weights: {name}": ("resume", hashed("weights.safetensors", partial(bytes, content))) for name, content in SAFETENSORS.items()},
    **{f"best weights: {name}": ("evaluate", replaced("checkpoints/best.safetensors", content)) for name, content in SAFETENSORS.items()},
    **{f"statistics: {name}": (verb, replaced("checkpoints/normalization.safetensors", content))
       for verb, (name, content) in zip(("resume", "evaluate") * 9, SAFETENSORS.items(), strict=False)},
    "manifest that points outside": ("resume", with_manifest(sha256={"../../../etc/passwd": "0", "weights.safetensors": "0", "state.pt": "0"})),
    "manifest of many files": ("resume", with_manifest(sha256={f"f{i}": "0" for i in range(100_000)})),
    "manifest whose best lies outside": ("resume", with_manifest(best_step="../../x")),
    "manifest of a huge step": ("resume", with_manifest(best_step=10**400)),
    "manifest too deep": ("resume", with_manifest("[" * 100_000)),
    "manifest too long": ("resume", with_manifest("[" + "1," * 6_000_000 + "1]")),
    "manifest with a huge number": ("resume", with_manifest('{"format": ' + "9" * 100_000 + "}")),
    "summary too deep": ("resume", replaced("summary.json", "[" * 100_000)),
    "summary too long": ("resume", replaced("summary.json", '{"status": "running", "x": "' + "x" * 50_000_000 + '"}')),
    "summary without status": ("resume", replaced("summary.json", '{"status": 7}')),
    "metrics that are no numbers": ("resume", replaced("metrics.csv", "step,val/loss\n1,os.system\n")),
    "metrics without steps": ("resume", replaced("metrics.csv", "a,b\n1,2\n")),
    "metrics that are no text": ("resume", replaced("metrics.csv", b"\xff\xfe\x00\n" * 9)),
    "metrics of one line": ("resume", replaced("metrics.csv", "step\n" + "9" * 300_000 + "\n")),
    **{name: ("resume", spoil) for name, spoil in LINKS.items()},
    "summary with a key twice": ("resume", replaced("summary.json", '{"status": "completed", "status": "running"}')),
    "manifest with a key twice": ("resume", with_manifest('{"format": 1, "step": 1, "step": 2, "best": {}, "best_step": 0, "sha256": {}}')),
    "data.json with a key twice": ("resume", replaced("data.json", '{"format": 99, "format": 1}')),
    "data.json of a later format": ("resume", replaced("data.json", '{"format": 99}')),
    "data.json too deep": ("resume", replaced("data.json", "[" * 100_000)),
    "data.json that is a list": ("evaluate", replaced("data.json", "[1]")),
    "data.json of other types": ("evaluate", in_contract(class_names=[1, 2], sizes="x")),
    "data.json with more keys": ("evaluate", in_contract(_target_="os.system")),
    "data.json with a column that is none": ("evaluate", in_contract(columns=[{"name": "a", "format": {"kind": "exec"}}])),
    "data.json with parts of a number": ("evaluate", in_contract(columns=[A_NUMBER | {"parts": ["hour"], "centers": [0.0]}])),
    "data.json with a size of 400 digits": ("evaluate", in_contract(input_shape=[10**400])),
    "data.json with a mean of 400 digits": ("evaluate", in_contract(target_mean=[10**400], target_std=[10**400])),
    "data.json with a column of 400 digits": (
        "evaluate",
        in_contract(columns=[A_NUMBER | {"centers": [10**400], "lows": [10**400], "highs": [10**400], "parts": [""]}]),
    ),
    "data.json with a huge shape": ("evaluate", in_contract(input_shape=[10**18, 8, 8])),
}  # fmt: skip

# 37: the commands that check a run -----------------------------------------------------------------------------------


def manifested(text: str | None = None, **hashes: object) -> Spoil:
    """A manifest of the run that says something else."""
    content = json.dumps({"format": 1, "sha256": hashes}) if text is None else text
    return replaced("manifest.json", content)


def ended(spoil: Spoil) -> Spoil:
    """The run says that it has ended, so that more of it is checked."""

    def both(folder: Path) -> None:
        file = folder / "run" / "summary.json"
        summary = json.loads(file.read_text()) | {
            "status": "completed",
            "steps": 40,
            "test": {"accuracy": 0.5},
        }
        file.write_text(json.dumps(summary))
        spoil(folder)

    return both


def in_summary(**changes: object) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "run" / "summary.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return ended(spoil)


def sparse(name: str) -> Spoil:
    """A file of zeros that takes no room."""

    def spoil(folder: Path) -> None:
        os.truncate(folder / "run" / name, 10**12)

    return spoil


def reads_from(path: str) -> Spoil:
    """A configuration that reads its data from a path of the machine."""

    def spoil(folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        edited("dataset", {"_target_": "dltrain.data.table.csv", "path": path, "target": "y"})(folder)

    return spoil


# each meets `dltrain verify run`, which names it
VERIFIED: dict[str, Spoil] = {
    "run manifest that leads outside": manifested(**{"../../../etc/passwd": "0"}),
    "run manifest of an absolute path": manifested(**{"/etc/passwd": "0"}),
    "run manifest with a zero byte": manifested(**{"a\0b": "0"}),
    "run manifest of other types": manifested('{"format": 1, "sha256": [1]}'),
    "run manifest whose hashes are numbers": manifested(**{"config.yaml": 7}),
    "run manifest of a later format": manifested('{"format": 2, "sha256": {}}'),
    "run manifest whose format is text": manifested('{"format": "1", "sha256": {}}'),
    "run manifest too deep": manifested("[" * 100_000),
    "run manifest too long": manifested('{"x": "' + "x" * 20_000_000 + '"}'),
    "run manifest with a key twice": manifested('{"format": 1, "sha256": {}, "sha256": {"config.yaml": "0"}}'),
    "run manifest of a folder": manifested(checkpoints="0"),
    "run manifest of 100,000 files": manifested(**{f"f{i}": "0" for i in range(100_000)}),
    "run manifest that is a link": linked("manifest.json", "../precious/file"),
    "run manifest that is a pipe": piped("manifest.json"),
    "link config.yaml": linked("config.yaml", "../precious/file"),
    "link .hydra": linked(".hydra", "../precious"),
    "link to itself": linked("loop", "loop"),
    "pipe metrics.csv": piped("metrics.csv"),
    "rows of huge numbers": with_manifest(metrics={"bytes": 10**30, "sha256": "0"}),
    "rows before the begin": with_manifest(metrics={"bytes": -5, "sha256": "0"}),
    "rows of another type": with_manifest(metrics=[1]),
    "best row of other types": with_manifest(best={"step": "x"}),
    "state of a pickle": hashed("state.pt", lambda: torch_bytes({"step": Evil()})),
    "state of no steps": hashed("state.pt", lambda: torch_bytes({"a": 1})),
    "weights of an archive": hashed("weights.safetensors", polyglot),
    "best weights of a pickle": ended(replaced("checkpoints/best.safetensors", pickle.dumps(Evil()))),
    "statistics of a pickle": replaced("checkpoints/normalization.safetensors", pickle.dumps(Evil())),
    "summary whose best row is a list": in_summary(best=[1]),
    "summary whose best row is text": in_summary(best={"step": "x", "epoch": []}),
    "summary whose objective is text": in_summary(best={"step": 1.0, "epoch": 1.0}, objective="x", metric=7, mode="y"),
    "summary of a huge number": replaced("summary.json", '{"status": "completed", "steps": ' + "9" * 5000 + "}"),
    "events that are no JSON": ended(replaced("events.jsonl", "{\n")),
    "events of other types": ended(replaced("events.jsonl", '{"event": 7, "step": "x"}\n[1]\n')),
    "events that are deep": ended(replaced("events.jsonl", "[" * 100_000 + "\n")),
    "events with escapes": ended(replaced("events.jsonl", '{"event": "evaluated", "step": 7, "x": "\x1b[31m"}\n')),
    "events of huge numbers": ended(replaced("events.jsonl", '{"event": "evaluated", "step": ' + "9" * 400 + "}\n")),
    "pipe events.jsonl": piped("events.jsonl"),
    "link events.jsonl": linked("events.jsonl", "../precious/file"),
    "confusion matrix of text": ended(replaced("confusion_matrix.csv", "a,b\nx,y\n")),
    "confusion matrix that is ragged": ended(replaced("confusion_matrix.csv", "t,a,b\na,1\nb,1,2,3\n")),
    "confusion matrix that is empty": ended(replaced("confusion_matrix.csv", "")),
    "confusion matrix of huge numbers": ended(replaced("confusion_matrix.csv", "t,a\na," + "9" * 30 + "\n")),
    "confusion matrix with escapes": ended(replaced("confusion_matrix.csv", "t,\x1b[31m\n\x1b[31m,1\n")),
    "metrics of a terabyte": sparse("metrics.csv"),
    "summary of a terabyte": sparse("summary.json"),
    "best weights of a terabyte": ended(sparse("checkpoints/normalization.safetensors")),
    "metrics with a zero byte": replaced("metrics.csv", "step,\0\n1,2\n"),
    "metrics of one column twice": replaced("metrics.csv", "step,step\n2,1\n1,2\n"),
    "metrics of epochs that are zero": replaced("metrics.csv", "step,epoch\n1,0\n2,nan\n2,inf\n"),
    "metrics whose names are escapes": replaced("metrics.csv", "step,\x1b[31m\n2,1\n1,2\n"),
    "configuration of os.system": edited("model._target_", "os.system"),
    "configuration of code of the working folder": edited("model._target_", "helper.f"),
    "configuration of data that are code of the working folder": edited("dataset._target_", "helper.f"),
    "configuration of an alias bomb": replaced("config.yaml", BOMB),
    "configuration of escapes": edited("notes", "\x1b]0;owned\x07", seed="\x1b[31m"),
    "data from a pipe": reads_from("pipe"),
    "data from a device": reads_from("/dev/zero"),
    "data from the terminal": reads_from("/dev/stdin"),
    "data from the kernel": reads_from("/proc/self/mem"),
}  # fmt: skip


# 37: folders of sweeps ---------------------------------------------------------------------------------------------

PAYLOAD = """open('hacked', 'w').write('x')
import torch
class M(torch.nn.Linear):
    def __init__(self, input_shape, num_classes, **keys):
        super().__init__(64, num_classes)
    def forward(self, x):
        return super().forward(x.flatten(1))
def sampler(**keys): ...
"""


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "sweep" / "sweep.json").read_text())
    return record


def in_job(folder: Path, name: str) -> Path:
    """Return a file of the sweep, or of one of its jobs by number: `0/summary.json`."""
    head, _, rest = name.partition("/")
    job = named_by_number(folder / "sweep" / head)
    return job / rest if rest else job


def overriding(*texts: str) -> Spoil:
    """A record whose overrides, and whose identity with them, hold something more."""

    def spoil(folder: Path) -> None:
        record = record_of(folder)
        record["overrides"] += texts
        record["identity"]["fixed"] = sorted([*record["identity"]["fixed"], *texts])
        record["finished"] = False
        (folder / "sweep" / "sweep.json").write_text(json.dumps(record))
        (in_job(folder, "0") / "summary.json").unlink()
        for module in (folder / "sweep" / "payload.py", folder / "helper.py", folder / "hacked_words.py"):
            module.write_text(PAYLOAD)

    return spoil


def recorded(text: str | None = None, **changes: object) -> Spoil:
    """A record with other entries, or another text."""

    def spoil(folder: Path) -> None:
        content = json.dumps(record_of(folder) | changes) if text is None else text
        (folder / "sweep" / "sweep.json").write_text(content)

    return spoil


def in_sweep(name: str, content: str | bytes, unfinished: bool = True) -> Spoil:
    """A file of the sweep's folder with other content; its first job has still to be run."""

    def spoil(folder: Path) -> None:
        recorded(finished=False)(folder)
        if unfinished:
            (in_job(folder, "0") / "summary.json").unlink()
        file = in_job(folder, name)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def in_study(content: str) -> Spoil:
    """The study of a pruned sweep with other content; a grid without a pruner has none."""

    def spoil(folder: Path) -> None:
        record = record_of(folder)
        settings = record["identity"]["settings"] | {"pruner": "median"}
        record["overrides"] += ["evaluation.every_steps=5", "sweep.pruner=median"]
        record["identity"]["fixed"] = sorted([*record["identity"]["fixed"], "evaluation.every_steps=5"])
        recorded(
            overrides=record["overrides"], identity=record["identity"] | {"settings": settings}, first={}
        )(folder)
        in_sweep("study.log", content)(folder)

    return spoil


def sweep_linked(name: str, target: str) -> Spoil:
    """A link in the place of a file or folder of the sweep, whose first job has still to be run."""

    def spoil(folder: Path) -> None:
        recorded(finished=False)(folder)
        (in_job(folder, "0") / "summary.json").unlink()
        (folder / "precious").mkdir()
        (folder / "precious" / "file").write_text("x")
        file = in_job(folder, name)
        if file.exists():
            file.rename(folder / "put_aside")
        file.symlink_to(target)

    return spoil


def sweep_piped(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        in_job(folder, name).unlink(missing_ok=True)
        os.mkfifo(in_job(folder, name))

    return spoil


def hot_journal(file: Path, named: Path) -> None:
    """A journal beside a database that names a file: SQLite rolls it back, and deletes that file."""
    before, after = (sqlite3.connect(f"{file}{end}", isolation_level=None) for end in ("", ".new"))
    before.execute("CREATE TABLE IF NOT EXISTS t (a)")
    before.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 50)
    pid = os.fork()
    if pid == 0:
        base = sqlite3.connect(file, isolation_level=None)
        for order in (
            "PRAGMA cache_size=1",
            "BEGIN IMMEDIATE",
            "UPDATE t SET a = 'y' || a",
            "SELECT count(*) FROM t",
        ):
            base.execute(order).fetchall()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    after.close()
    before.close()
    Path(f"{file}.new").unlink()
    name = str(named).encode()
    end = struct.pack(">I", 2**30 // 4096 + 1) + name + struct.pack(">II", len(name), sum(name))
    with open(f"{file}-journal", "ab") as journal:
        journal.write(end + bytes.fromhex("d9d505f920a163d7"))


def beside_books(ending: str) -> Spoil:
    """Books beside which a file of SQLite names, or is, another file."""

    def spoil(folder: Path) -> None:
        recorded(finished=False)(folder)
        (folder / "precious").mkdir()
        (folder / "precious" / "file").write_text("x")
        file = folder / "sweep" / "books.sqlite"
        if ending == "-journal":
            return hot_journal(file, folder / "precious" / "file")
        with closing(sqlite3.connect(file)) as base:
            base.execute("PRAGMA journal_mode=WAL")
        os.link(folder / "precious" / "file", f"{file}{ending}")

    return spoil


def in_books(*commands: str, **values: str) -> Spoil:
    """Books of the sweep that a command or a value, an expression of SQL, has changed."""

    def spoil(folder: Path) -> None:
        recorded(finished=False)(folder)
        with closing(sqlite3.connect(folder / "sweep" / "books.sqlite")) as base:
            for command in (
                *commands,
                *(f"UPDATE jobs SET {name} = {value}" for name, value in values.items()),
            ):
                base.execute(command)
            base.commit()

    return spoil


def in_job_summary(**changes: object) -> Spoil:
    def spoil(folder: Path) -> None:
        recorded(finished=False)(folder)
        file = in_job(folder, "0/summary.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return spoil


TRIAL = '{"op_code":4,"study_id":0,"datetime_start":"2026-01-01T00:00:00.000000","worker_id":"x"}\n'
SWEEPS: dict[str, Spoil] = {
    "code beside it": overriding("model._target_=sweep.payload.M"),
    "code of the working folder": overriding("model._target_=helper.M"),
    "code that it trusts": overriding("model._target_=torch.hub.load", "trust=[torch]"),
    "code of the working folder that it trusts": overriding("model._target_=helper.M", "trust=[helper]"),
    "an optimizer": overriding("optimizer._target_=sweep.payload.M"),
    "a dataset": overriding("dataset._target_=sweep.payload.M"),
    "a node more": overriding("+augmentation.evil._target_=sweep.payload.M"),
    "a sampler": overriding("sweep=random", "sweep._target_=sweep.payload.sampler"),
    "a callback": overriding("+hydra.callbacks.evil._target_=sweep.payload.M"),
    "a backend in a package": overriding("+sweep/backend@sweep.backend=ray"),
    "a backend from another group": overriding("+optimizer@sweep.backend=adam"),
    "a backend in a node": overriding("++sweep={backend:{_target_:dltrain.sweep.backends.slurm.Slurm}}"),
    "words of a package": overriding("hydra.searchpath=[pkg://hacked_words]"),
    "Hydra's sweeper": overriding("hydra/sweeper=basic"),
    "a name that leads outside": overriding("name=../../outside"),
    **{f"record {name}": recorded(text) for name, text in {
        "no JSON": "{", "a list": "[]", "empty object": "{}", "deep": "[" * 100_000, "long": '{"x": "' + "x" * 20_000_000 + '"}',
        "overrides are text": '{"overrides": "lr=1", "identity": {}}', "overrides are numbers": '{"overrides": [1], "identity": {}}',
        "a huge number": '{"overrides": [], "identity": ' + "9" * 100_000 + "}", "not text": "\x00",
    }.items()},
    "record whose identity is a list": recorded(identity=[1]),
    "record whose identity is another": recorded(identity={"axes": 7, "settings": [], "fixed": 3, "sweep": None, "test": 1}),
    "study of lists": in_study("[1]\n[2]\n"),
    "study of other entries": in_study('{"op_code": 77}\n{"op_code": "x"}\n'),
    "study of many trials": in_study('{"op_code":0,"worker_id":"x","study_name":"sweep","directions":[1]}\n' + TRIAL * 300_000),
    "study that is deep": in_study("[" * 100_000 + "\n"),
    **{f"link {name}": sweep_linked(name, "../precious/file")
       for name in ("sweep.lock", "study.log", "sweep.json", "results.csv", "stacks.log", "books.sqlite")},
    **{f"dangling link {name}": sweep_linked(name, "../precious/new") for name in (".sweep.json.tmp", ".results.csv.tmp", ".best.yaml.tmp")},
    **{f"link {name}": sweep_linked(name, f"{'../' * name.count('/')}../precious") for name in ("0", "1", "0/checkpoints", "0/.hydra")},
    "link 0/run.log": sweep_linked("0/run.log", "../../precious/file"),
    **{f"pipe {name}": sweep_piped(name) for name in ("sweep.json", "study.log", "books.sqlite", "0/summary.json", "0/config.yaml")},
}  # fmt: skip

# each meets a sweep that goes on as if the record did not say how; `sbatch` is on PATH, and the address is one of this machine
BACKENDS = {
    "a target": ["++sweep.backend._target_=dltrain.sweep.backends.slurm.Slurm"],
    "a word": ["sweep/backend=slurm"],
    "a word more": ["+sweep/backend=slurm"],
    "a word with a target": ["++sweep.backend=slurm"],
    "options of sbatch": ["++sweep.backend.extra=['--output=/any/file']"],
    "an address": ["++sweep.backend.address=127.0.0.1:9"],
    "a removal": ["~sweep.backend._target_"],
    "many jobs": ["++sweep.jobs=1000"],
    "a name without a sign": ["sweep.backend=ray", "sweep.backend.address=127.0.0.1:9"],
}

# each meets a sweep that goes on, and whose books are made again from the folders of its jobs where they are not ours
RECOVERED: dict[str, Spoil] = {
    "books with values of other types": in_books(
        objective="'x'",
        best='\'{"val/loss": "=1+1", "/": [1]}\'',
        facts='\'{"test": [1], "status": 7}\'',
        seconds="'{'",
        best_epoch="x'00'",
    ),
    "books with other columns, as text": in_books("ALTER TABLE jobs ADD COLUMN evil TEXT DEFAULT 'x'"),
    "books of a later format": in_books("PRAGMA user_version = 99"),
    "books with a view that never ends, as a table of another program": in_books(
        "ALTER TABLE jobs RENAME TO other",
        "CREATE VIEW jobs AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS number FROM n",
    ),
    "books with a trigger that writes, as code in SQLite": in_books(
        "CREATE TRIGGER t AFTER INSERT ON jobs BEGIN UPDATE jobs SET objective = -9; END"
    ),
    "books with a journal that names a file": beside_books("-journal"),
    "books with a log of SQLite that is another file": beside_books("-wal"),
    "books with an index of SQLite's log that is another file": beside_books("-shm"),
    "an objective of 400 digits": in_job_summary(objective=10**400),
    "seconds of 400 digits": in_job_summary(seconds=10**400),
    "a best epoch of 400 digits": in_job_summary(best_epoch=10**400),
    "a best epoch of another type": in_job_summary(best_epoch="x"),
    "test scores of 400 digits": in_job_summary(test={"accuracy": 10**400}),
    "a best row of 400 digits": in_job_summary(best={"val/loss": 10**400, "val/accuracy": 10**400}),
    "test scores that are text": in_job_summary(test="abc"),
    "test scores of other types": in_job_summary(test={"accuracy": [1]}),
}

# each meets `dltrain verify sweep`
VERIFIED_SWEEPS: dict[str, Spoil] = {
    "sweep of another program": recorded('{"jobs": []}'),
    "sweep that is no JSON": recorded("{"),
    "sweep that is deep": recorded("[" * 100_000),
    "results that are no table": in_sweep("results.csv", "\0\n", False),
    "results without jobs": in_sweep("results.csv", "a,b\n1,2\n", False),
    "results of jobs that lead outside": in_sweep("results.csv", "job,status,objective\n../../x,completed,1\n", False),
    "results of huge numbers": in_sweep("results.csv", "job,status,objective\n0,completed," + "9" * 5000 + "\n", False),
    "sweep manifest that leads outside": in_sweep("manifest.json", '{"format": 1, "sha256": {"../run": "0"}}', False),
    "sweep manifest of other types": in_sweep("manifest.json", "[]", False),
    "job that is a link": sweep_linked("7", "../precious"),
    "job of an alias bomb": in_sweep("1/config.yaml", BOMB, False),
    "job of a pipe": sweep_piped("1/summary.json"),
    "link results.csv": sweep_linked("results.csv", "../precious/file"),
}  # fmt: skip

# 37: verbs that look at a stranger's runs, move them or write beside them -----------------------------------------------

THERE = "outputs/n/2026-01-31_12-00-00-abcd"  # the run, which has ended; `precious/file` lies beside outputs
ESCAPES = "\x1b]0;owned\x07\x9b31m\u202e"
MARKUP = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def names_a_file(name: str, target: str = "precious/file") -> Spoil:
    """A link in the place of a file of the run, or of one that a verb writes."""

    def spoil(folder: Path) -> None:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            file.rename(folder / "put_aside")
        file.symlink_to(folder / target)

    return spoil


def says(**changes: object) -> Spoil:
    """A summary with other entries."""

    def spoil(folder: Path) -> None:
        file = folder / THERE / "summary.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return spoil


def named(text: str) -> Spoil:
    """Names of classes, notes, tags, versions and scores with a text in them."""

    def spoil(folder: Path) -> None:
        run = folder / THERE
        says(command=text, notes=text, stop_reason=text, device=text, tags=[text], overrides=[text], problems=[text],
             test={"accuracy": 0.5, text: 1.0}, versions={text: text}, git={"commit": text, "dirty": True})(folder)  # fmt: skip
        content = json.loads((run / "data.json").read_text())
        (run / "data.json").write_text(
            json.dumps(content | {"class_names": [f"{text}{name}" for name in content["class_names"]]})
        )
        cell = '"' + text.replace('"', '""') + '0"'
        for name in ("per_class.csv", "confusion_matrix.csv"):
            (run / name).write_text((run / name).read_text().replace("\n0,", f"\n{cell},"))

    return spoil


def in_cache(**facts: object) -> Spoil:
    """A cache of a listing that fits the files, and says something else of the run."""

    def spoil(folder: Path) -> None:
        root, sweep = folder / "outputs", folder / "outputs" / "n" / "sweep"
        for place in (f"{THERE}-2", "outputs/n/sweep/0-lr=1", "outputs/n/sweep/1-lr=2"):
            (folder / place).mkdir(parents=True)
            shutil.copy(folder / THERE / "summary.json", folder / place)
        (sweep / "sweep.json").write_text('{"identity": {"axes": [{"name": "lr"}]}, "finished": true}')
        Index(root)
        with closing(sqlite3.connect(root / ".runs.sqlite")) as base:
            bases = dict(base.execute("SELECT id, content FROM bases").fetchall())
            rows = base.execute("SELECT path, base, content FROM runs").fetchall()
            base.execute("DELETE FROM bases")
            for path, number, content in rows:
                is_sweep, stamp, *_ = json.loads(content)
                text = json.dumps([{**json.loads(bases[number])[0], **facts}, None])
                number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
                base.execute("INSERT OR IGNORE INTO bases VALUES (?, ?)", (number, text))
                row = (number, json.dumps([is_sweep, stamp, {}, {}]), path)
                base.execute("UPDATE runs SET base = ?, content = ? WHERE path = ?", row)
            base.commit()

    return spoil


def escaping_levels(folder: Path) -> None:
    """Levels of a column that end the docstring of an exported model."""
    file = folder / THERE / "data.json"
    content = json.loads(file.read_text())
    evil = '"""\nopen("hacked", "w")\n"""'
    content["columns"] = [
        {"name": evil, "format": {"kind": "category", "decimal": "."}, "levels": [evil], "indicator": False}
    ]
    file.write_text(json.dumps(content))


LISTING = (
    ("runs", "outputs"),
    ("show", THERE),
    ("compare", THERE, THERE),
    ("diff", THERE, THERE),
    ("tag", THERE),
    ("report", THERE),
)
EXPORT = ("export", THERE, "--format", "safetensors")
PAGES = (("report", THERE), ("compare", THERE, THERE, "--html", "c.html"))
FORGED: dict[str, dict[str, object]] = {
    "tags are a number": {"tags": 5},
    "tags are lists": {"tags": [[1], {"a": 1}]},
    "overrides are numbers": {"overrides": [1, None]},
    "overrides are a node": {"overrides": {"a": 1}},
    "axes are a number": {"axes": 7, "finished": 1},
    "status is a list": {"status": [1]},
    "status is a number": {"status": 1.5},
    "score is text": {"val/loss": "x", "objective": "x"},
    "begin is a node": {"begun": {"a": 1}},
    "score is huge": {"val/loss": 10**400, "objective": 10**400},
    "notes are long": {"notes": "x" * 70_000_000},
}
LONG_NUMBERS = {
    **dict.fromkeys(("objective", "seconds", "parameters", "steps"), 10**400),
    "test": {"accuracy": 10**400, "loss": 10**400},
    "best": {"epoch": 10**400, "step": 10**400, "val/loss": 10**400},
}
# each with a command line; it does what it says without harm, or is refused
VISITED: dict[str, tuple[tuple[str, ...], Spoil]] = {
    **{f"{verb}: link {name}": ((verb, THERE, *rest), names_a_file(f"{THERE}/{name}")) for verb, name, rest in (
        ("archive", "run.lock", ()), ("trash", "run.lock", ()), ("tag", ".tags.json.tmp", ("+x",)), ("tag", "tags.json", ("+x",)),
        ("report", ".report.html.tmp", ()), ("report", "report.html", ()), ("archive", "summary.json", ()), ("show", "metrics.csv", ()),
        ("export", ".export.tmp", ("--format", "safetensors")),
    )},
    "export: link export": (("export", THERE, "--format", "safetensors"), names_a_file(f"{THERE}/export", "precious")),
    "export: names that end a docstring": (("export", THERE, "--format", "safetensors"), escaping_levels),
    "runs: link .runs.sqlite": (("runs", "outputs"), names_a_file("outputs/.runs.sqlite")),
    **{f"runs: link .runs.sqlite{end}": (("runs", "outputs"), names_a_file(f"outputs/.runs.sqlite{end}")) for end in ("-journal", "-wal", "-shm")},
    "runs: a journal that names a file": (
        ("runs", "outputs"),
        lambda folder: hot_journal(folder / "outputs" / ".runs.sqlite", folder / "precious" / "file"),
    ),
    **{f"{arguments[0]}: forged cache whose {name}": (arguments, in_cache(**facts)) for name, facts in FORGED.items()
       for arguments in (("runs", "outputs"), ("show", THERE))},
    **{f"{verb}: link .dltrain": ((verb, THERE), names_a_file(".dltrain", "precious")) for verb in ("archive", "trash")},
    "restore: link .dltrain": (("restore", "2026-01-31_12-00-00-abcd"), names_a_file(".dltrain", "precious")),
    **{f"{arguments[0]}: names that are escapes": (arguments, named(ESCAPES)) for arguments in LISTING},
    **{f"{arguments[0]} --json: names that are escapes": ((*arguments, "--json"), named(ESCAPES)) for arguments in LISTING},
    **{f"{arguments[0]}: names that are markup": (arguments, named(MARKUP)) for arguments in PAGES},
    **{f"{arguments[0]}: {key} of another type": (arguments, says(**{key: value})) for arguments in (*LISTING, EXPORT)
       for key, value in (("best", [1]), ("test", 3), ("versions", [1]), ("parameters", "x"), ("config", {"lr": [[]]}))},
    **{f"{arguments[0]}: {key} of 400 digits": (arguments, says(**{key: value})) for arguments in (*LISTING, EXPORT)
       for key, value in LONG_NUMBERS.items()},
}  # fmt: skip

# 39: archives of data, and weights to begin with -------------------------------------------------------------------


def written(name: str, make: Callable[[], bytes]) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(make())

    return spoil


def tar_of(*members: tuple[str, bytes, bytes, str]) -> bytes:
    """A packed archive: name, kind, content and the target of a link of each member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, kind, content, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, target, len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


BATCH = "cifar-10-batches-bin/data_batch_1.bin"


def zeros_in_gzip(head: bytes, size: int) -> bytes:
    """Bytes, and then many zeros, packed as tightly as it goes."""
    packer = zlib.compressobj(9, wbits=31)
    chunk = bytes(2**20)
    body = b"".join(packer.compress(chunk) for _ in range(size >> 20))
    return packer.compress(head) + body + packer.flush()


def tar_head(name: str, kind: bytes, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


TARS: dict[str, Callable[[], bytes]] = {
    "..": lambda: tar_of(("../../hacked", tarfile.REGTYPE, b"x", "")),
    "absolute": lambda: tar_of(("/tmp/hacked", tarfile.REGTYPE, b"x", "")),
    "symbolic link": lambda: tar_of((BATCH, tarfile.SYMTYPE, b"", "/etc/passwd")),
    "hard link": lambda: tar_of((BATCH, tarfile.LNKTYPE, b"", "/etc/passwd")),
    "link to itself": lambda: tar_of((BATCH, tarfile.LNKTYPE, b"", BATCH)),
    "device": lambda: tar_of((BATCH, tarfile.CHRTYPE, b"", "")),
    "pipe": lambda: tar_of((BATCH, tarfile.FIFOTYPE, b"", "")),
    "a pickle": lambda: tar_of((BATCH, tarfile.REGTYPE, pickle.dumps(Evil()), "")),
    "bomb on the way": lambda: zeros_in_gzip(tar_head("first", tarfile.REGTYPE, 2**29), 2**29),
    "bomb in its place": lambda: zeros_in_gzip(tar_head(BATCH, tarfile.REGTYPE, 2**29), 2**29),
    "bomb of a name": lambda: zeros_in_gzip(tar_head("x", tarfile.GNUTYPE_LONGNAME, 2**29), 2**29),
    "bomb of a header": lambda: zeros_in_gzip(tar_head("x", tarfile.XHDTYPE, 2**29), 2**29),
    "not an archive": lambda: b"<html>404</html>",
}


def idx(count: int, zeros: int) -> bytes:
    """A packed file of images that announces `count` of them."""
    return zeros_in_gzip(struct.pack(">IIII", 0x803, count, 28, 28), zeros)


IDXS: dict[str, Callable[[], bytes]] = {
    "bomb": lambda: idx(150_000, 2**29),
    "bomb that says so": lambda: idx(2**20, 2**29),
    "lengths beyond 64 bits": lambda: gzip.compress(struct.pack(">IIII", 0x803, 2**31, 2**31, 4)),
    "a pickle": lambda: gzip.compress(pickle.dumps(Evil())),
}


def npz_of(member: bytes, packing: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", packing) as archive:
        archive.writestr("inputs.npy", member)
        archive.writestr("../../hacked", b"x")
        archive.writestr("/tmp/hacked.npy", b"x")
    return target.getvalue()


def npy(shape: str, body: bytes = b"") -> bytes:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + body


def pickled_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil()], object), allow_pickle=True)
    return buffer.getvalue()


def bomb_of_zeros() -> bytes:
    target = io.BytesIO()
    with (
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("inputs.npy", "w") as member,
    ):
        member.write(npy("(1000000, 40)"))
        for _ in range(320):
            member.write(bytes(1_000_000))
    return target.getvalue()  # fmt: skip


NPZS: dict[str, Callable[[], bytes]] = {
    "pickled array": lambda: npz_of(pickled_array()),
    "plain pickle": lambda: pickle.dumps(Evil()),
    "huge shape": lambda: npz_of(npy("(1099511627776, 64)")),
    "shape beyond 64 bits": lambda: npz_of(npy("(9223372036854775807, 64)")),
    "negative shape": lambda: npz_of(npy("(-5, 64)")),
    "code in the header": lambda: npz_of(npy("__import__('os').system('touch hacked')")),
    "bomb": bomb_of_zeros,
    "cut": lambda: npz_of(npy("(9, 4)", bytes(99)))[:150],
}


def png(width: int, height: int, body: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
        )

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


PICTURES: dict[str, Callable[[], bytes]] = {
    "bomb of a picture": lambda: png(60_000, 60_000, zlib.compress(bytes(10_000_000), 9)),
    "a pickle as a picture": lambda: pickle.dumps(Evil()),
    "half a picture": lambda: png(8, 8, b"x"),
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(hacked) (w) file\n",
}


def pipe_as_picture(folder: Path) -> None:
    (folder / "photos" / "cat").mkdir(parents=True)
    os.mkfifo(folder / "photos" / "cat" / "1.png")


MNIST = ("dataset=mnist", "dataset.root=.", "dataset.download=false")
CIFAR = ("dataset=cifar10", "dataset.root=.", "dataset.download=false")
PHOTOS = ("dataset=image_folder", "dataset.root=photos", "model=cnn")
PRETRAINED = "initializer=pretrained"


def with_the_other_files(make: Callable[[], bytes]) -> Spoil:
    def spoil(folder: Path) -> None:
        written("MNIST/raw/train-images-idx3-ubyte.gz", make)(folder)
        for name in ("train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
            (folder / "MNIST" / "raw" / name).write_bytes(b"")

    return spoil


ARCHIVES: dict[str, tuple[tuple[str, ...], Spoil]] = {
    **{f"tar: {name}": (CIFAR, written("cifar-10-binary.tar.gz", make)) for name, make in TARS.items()},
    **{f"idx: {name}": (MNIST, with_the_other_files(make)) for name, make in IDXS.items()},
    **{f"npz: {name}": (("dataset=npz", "dataset.path=a.npz"), written("a.npz", make)) for name, make in NPZS.items()},
    **{f"picture: {name}": (PHOTOS, written("photos/cat/1.png", make)) for name, make in PICTURES.items()},
    "picture: pipe": (PHOTOS, pipe_as_picture),
    **{f"start: {name}": ((PRETRAINED, "initializer.path=w.pt"), written("w.pt", make)) for name, make in STATES.items()
       if name not in ("string that names a class", "wrong shapes", "numbers as text")},
    **{f"start of safetensors: {name}": ((PRETRAINED, "initializer.path=w.safetensors"), written("w.safetensors", partial(bytes, content)))
       for name, content in SAFETENSORS.items()},
}  # fmt: skip

ITEMS = [
    f"{kind}: {name}"
    for kind, items in {
        "config": CONFIGS, "hydra": HYDRAS, "word": WORDS, "run": CHECKPOINTS, "sweep": SWEEPS, "data": ARCHIVES,
        "backend": BACKENDS, "recovered": RECOVERED,
        "verify": VERIFIED, "verify sweep": VERIFIED_SWEEPS, "visit": VISITED,
    }.items()
    for name in items
]  # fmt: skip
