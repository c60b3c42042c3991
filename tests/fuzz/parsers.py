"""Every parser of ours, with its seeds and the exceptions that it may raise: those with a message for the user."""

from __future__ import annotations

import functools
import gzip
import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from dltrain.config import saved
from dltrain.config.compose import compose, open_catalogue, open_hydra, parse
from dltrain.config.validation import validate
from dltrain.config.yaml_files import read_yaml
from dltrain.data.contract import Contract
from dltrain.data.errors import DataError
from dltrain.data.mnist import read_idx
from dltrain.data.npz import npz
from dltrain.data.prepare import prepare
from dltrain.data.table import csv
from dltrain.errors import UserError
from dltrain.run.verification import verify
from dltrain.storage import checkpoint, manifest
from dltrain.storage.run_folder import read_statistics
from dltrain.storage.summary import read_rows, read_summary
from dltrain.sweep.record import is_unfinished, read_record
from dltrain.sweep.study import cut_half_line
from dltrain.sweep.verification import verify_sweep

MISTAKES = (UserError, DataError)


@dataclass(frozen=True)
class Parser:
    """A parser: its seeds, and a call with an input and an empty folder; `weight` is its share of a long run."""

    seeds: list[bytes]
    call: Callable[[bytes, Path], Any]
    weight: float = 1.0
    mistakes: tuple[type[Exception], ...] = MISTAKES


@functools.cache
def catalogue() -> Any:
    return open_catalogue()


@functools.cache
def hydra() -> Any:
    return open_hydra(catalogue())


def written(name: str, read: Callable[[Path], Any]) -> Callable[[bytes, Path], Any]:
    """A call that reads the input from a file."""

    def call(content: bytes, folder: Path) -> Any:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return read(file)

    return call


def texts(content: bytes) -> list[str]:
    return [text for text in content.decode("utf-8", "surrogateescape").split("\n") if "\0" not in text][:4]


def grammar(content: bytes, folder: Path) -> None:
    parse(texts(content), hydra().config_loader)


def overrides(content: bytes, folder: Path) -> None:
    validate(compose(texts(content), catalogue(), hydra()))


def change(content: bytes, folder: Path) -> None:
    for text in texts(content):
        saved.set_value({"lr": 0.1, "model": {"hidden": [1]}}, text, catalogue().knobs)


def configuration(file: Path) -> None:
    saved.read(file.parent, catalogue(), [])


def contract(content: bytes, folder: Path) -> None:
    found = Contract.from_json(content.decode("utf-8", "replace"))
    found.code()
    found.check(None)
    if found.columns:
        (folder / "t.csv").write_text(TABLE)
        found.encode(folder / "t.csv", targets=False)


def table(file: Path) -> None:
    prepare(csv(file, "y"))


def arrays(file: Path) -> None:
    prepare(npz(str(file)))


def record(file: Path) -> None:
    read_record(file.parent)
    is_unfinished(file, {}, None)  # type: ignore[arg-type]


def state(file: Path) -> None:
    checkpoint.Checkpoint(file.parent, {}).state()


def whole_run(content: bytes, folder: Path) -> None:
    """One file of a run that is verified: the first byte says which."""
    names = (
        "manifest.json",
        "summary.json",
        "metrics.csv",
        "confusion_matrix.csv",
        "per_class.csv",
        "data.json",
    )
    (folder / "config.yaml").write_bytes(CONFIG)
    (folder / "summary.json").write_bytes(SUMMARY)
    (folder / "metrics.csv").write_bytes(ROWS)
    (folder / "confusion_matrix.csv").write_bytes(MATRIX)
    (folder / "per_class.csv").write_text("")
    place = content[0] % len(names) if content else 0
    (folder / names[place]).write_bytes(content[1:])
    verify(folder, UserError("not read"), UserError("not read"), data=False)


def whole_sweep(content: bytes, folder: Path) -> None:
    names = ("sweep.json", "results.csv", "manifest.json")
    (folder / "0").mkdir(exist_ok=True)
    (folder / "0" / "config.yaml").write_bytes(CONFIG)
    (folder / "0" / "summary.json").write_bytes(SUMMARY)
    (folder / "sweep.json").write_bytes(SWEEP)
    place = content[0] % len(names) if content else 0
    (folder / names[place]).write_bytes(content[1:])
    verify_sweep(folder)


def yaml_of(*overrides: str) -> bytes:
    return saved.dump(saved.as_saved(validate(compose(list(overrides), catalogue(), hydra())))).encode()


def bytes_of(write: Callable[[Any], Any]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


CONFIG = b"lr: 0.1\nwords: {model: mlp}\n"
SUMMARY = as_json({"status": "completed", "steps": 4, "best": {"step": 2.0, "epoch": 1.0, "val/loss": 0.5}, "best_epoch": 1.0,
                   "objective": 0.5, "metric": "val/loss", "mode": "min", "test": {"accuracy": 0.5}, "seed": 0})  # fmt: skip
ROWS = b"step,epoch,val/loss\n2,1,0.5\n4,2,0.75\n"
MATRIX = b"true \\ predicted,a,b\na,1,2\nb,3,4\n"
SWEEP = as_json({"identity": {"axes": [], "settings": {}, "fixed": [], "sweep": "grid", "test": False}, "overrides": ["lr=1,2"],
                 "loss": "plain", "modes": [], "command": "dltrain", "begun": "x", "finished": True})  # fmt: skip
MANIFEST = as_json({"format": 1, "step": 4, "best_step": 2, "best": {"step": 2.0}, "config": {"lr": 0.1},
                    "metrics": {"bytes": 9, "sha256": "0"}, "sha256": {"state.pt": "0", "weights.safetensors": "0"}})  # fmt: skip
TABLE = "u,v,w,day,y\n" + "".join(
    f"{i}.5,{'ab'[i % 2]},{i % 3},2024-01-{i + 1:02},{'cd'[i % 2]}\n" for i in range(24)
)
CONTRACTS = [
    as_json({"format": 1, "task": "classification", "input_shape": [2], "class_names": ["c", "d"], "targets": [], "target_mean": [],
             "target_std": [], "sizes": {"train": 2, "val": 0, "test": 0}, "fingerprint": "0", "columns": [column]})
    for column in (
        {"name": "u", "format": {"kind": "number", "decimal": "."}, "fill": 1.0, "indicator": True},
        {"name": "v", "format": {"kind": "category"}, "levels": ["a", "b"], "indicator": True},
        {"name": "day", "format": {"kind": "date", "date": "iso"}, "fill": "2024-01-02", "parts": ["year", "month"], "centers": [2024.0, 0.0]},
        {"name": "w", "format": {"kind": "boolean", "missing_words": ["?"]}, "fill": 1.0},
    )
]  # fmt: skip
OVERRIDES = [text.encode() for text in (
    "lr=0.1", "optimizer=adam\nlr=1e-3", "model.hidden=[64,32]", "regularization=[l2,dropout]\nregularization.l2.strength=0.1", "epochs=2",
    "+parameters.lr_scale={head:10}", "dataset=csv\ndataset.path=a b.csv\ndataset.target=y", "schedule=cosine\nschedule.warmup_steps=5",
    "tags=['a,b',\"c\"]", "notes=${oc.env:HOME,x}", "lr=choice(1,2)", "lr=interval(0.1,1)", "seed=range(1,9)", "~model", "lr=tag(log,interval(1,2))",
    "optimizer.betas=[0.9,0.99]", "name=a\noutput=b", "early_stopping.metric=val/accuracy", "augmentation=glob(s*)",
)]  # fmt: skip
CHANGES = [
    b"lr=0.1",
    b"epochs=2\nlr=1e-3",
    b"tags=['a,b',\"c\"]",
    b"notes='a: b'",
    b"checkpoint.keep=3\nquiet=true",
    b"parameters.lr_scale={head: 10}",
]
YAMLS = [b"_target_: my.Model\nwidth: 3\n", b"defaults:\n  - override /optimizer: adam\nlr: 0.1\nmodel: {hidden: [1, 2]}\n", b"a: &x [1]\nb: *x\n",
         b"a: 1e-3\nb: 'x'\nc: |\n  text\n  more\n", b"sweep:\n  space:\n    lr: {low: 1.0e-3, high: 1, log: true}\n"]  # fmt: skip
TABLES = [TABLE.encode(), TABLE.replace(",", ";").replace(".5", ",5").encode(), TABLE.encode("utf-16"), b'y,"a,b"\n1,"x\ny"\n2,"z"\n' * 5,
          "y\tä\n".encode("latin-1") + b"1\t2\n3\t4\n" * 9, gzip.compress(TABLE.encode())]  # fmt: skip


def parsers() -> dict[str, Parser]:
    """Return all parsers by name."""
    states = [bytes_of(lambda b: torch.save({"step": 1, "optimizer": {"a": torch.ones(2)}}, b))]
    archives = [
        bytes_of(lambda b: np.savez(b, inputs=np.ones((12, 4), np.float32), targets=np.arange(12) % 2)),
        bytes_of(
            lambda b: np.savez_compressed(
                b, inputs=np.ones((6, 3, 3), np.uint8), targets=np.array(["a", "b"] * 3)
            )
        ),
    ]
    tensors = [
        save({"mean": torch.zeros(3), "std": torch.ones(3)}),
        save({"a": torch.zeros(2, 2, dtype=torch.float64)}),
    ]
    images = struct.pack(">IIII", 0x803, 2, 3, 3) + bytes(18)
    return {
        "overrides, grammar": Parser(OVERRIDES, grammar, 3),
        "overrides, composed": Parser(OVERRIDES, overrides, 0.2),
        "changes of a run": Parser(CHANGES, change, 3),
        "YAML of a user": Parser(YAMLS, written("word.yaml", read_yaml), 2),
        "saved configuration": Parser(
            [yaml_of(), yaml_of("model=cnn", "regularization=[l2]", "schedule=cosine")],
            written("config.yaml", configuration),
            0.3,
        ),
        "checkpoint manifest": Parser(
            [MANIFEST],
            written("step-00000004/manifest.json", lambda f: checkpoint.read_manifest(f.parent)),
            3,
        ),
        "run manifest": Parser(
            [as_json({"format": 1, "sha256": {"config.yaml": "0", "checkpoints/x": "1"}})],
            written("manifest.json", lambda f: manifest.read(f.parent)),
            3,
        ),
        "metrics.csv": Parser(
            [ROWS, b"epoch,step,lr\n1,2,3\n4,5,nan\n6,7"], written("metrics.csv", read_rows), 3
        ),
        "summary.json": Parser([SUMMARY], written("summary.json", lambda f: read_summary(f.parent)), 3),
        "sweep.json": Parser([SWEEP], written("sweep.json", record), 3),
        "study.log": Parser(
            [b'{"op_code": 0}\n{"op_code": 1, "x": [1]}\n'], written("study.log", cut_half_line), 3
        ),
        "data.json": Parser(CONTRACTS, contract),
        "npz": Parser(archives, written("a.npz", arrays), 0.5),
        "idx": Parser(
            [images, struct.pack(">II", 0x801, 2) + b"\1\2"], written("images-idx3-ubyte", read_idx), 3
        ),
        "packed idx": Parser([gzip.compress(images)], written("images.gz", read_idx), 2),
        "CSV": Parser(TABLES[:-1], written("t.csv", table), 0.3),
        "packed CSV": Parser(TABLES[-1:], written("t.csv.gz", table), 0.3),
        "safetensors": Parser(
            tensors,
            written("checkpoints/normalization.safetensors", lambda f: read_statistics(f.parents[1])),
            3,
        ),
        "state of a checkpoint": Parser(states, written("state.pt", state)),
        "verified run": Parser(
            [
                bytes([i]) + s
                for i, s in enumerate(
                    (as_json({"format": 1, "sha256": {"summary.json": "0"}}), SUMMARY, ROWS, MATRIX)
                )
            ],
            whole_run,
        ),
        "verified sweep": Parser(
            [
                b"\0" + SWEEP,
                b"\1job,status,objective\n0,completed,0.5\n",
                b"\2" + as_json({"format": 1, "sha256": {"sweep.json": "0"}}),
            ],
            whole_sweep,
        ),
    }
