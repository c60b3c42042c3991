"""Seeds of the parsers: well-formed inputs that are changed at random."""

# ruff: noqa: E501 - a seed is a line

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import sqlite3
import struct
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pyarrow import feather, parquet
from safetensors.torch import save

from dltrain.data import cache, image_files
from dltrain.metrics.report import per_class_csv
from dltrain.storage import event_log, index
from dltrain.sweep import books


def bytes_of(write: Callable[[Any], Any]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


CONFIG = b"lr: 0.1\nwords: {model: mlp}\n"
SUMMARY = as_json({"status": "completed", "steps": 4, "best": {"step": 2.0, "epoch": 1.0, "val/loss": 0.5}, "best_epoch": 1.0,
                   "objective": 0.5, "metric": "val/loss", "mode": "min", "test": {"accuracy": 0.5, "loss": 0.7}, "seed": 0, "format": 1, "tags": ["a"],
                   "versions": {"torch": "2"}, "git": {"commit": "ab", "dirty": False}, "overrides": ["lr=0.1"], "seconds": 1.5, "threads": 1,
                   "peak_memory_bytes": 10000, "images_per_second": 9.0, "epochs": 2.0, "config": {"lr": 0.1}, "command": "dltrain"})  # fmt: skip
ROWS = b"step,epoch,val/loss\n2,1,0.5\n4,2,0.75\n"
MATRIX = b"true \\ predicted,a,b\na,1,2\nb,3,4\n"
PER_CLASS = per_class_csv(torch.tensor([[1, 2], [3, 4]]), ["a", "b"]).encode()
SWEEP = as_json({"identity": {"axes": [], "settings": {}, "fixed": [], "sweep": "grid", "test": False}, "overrides": ["lr=1,2"],
                 "loss": "plain", "modes": [], "command": "dltrain", "begun": "x", "finished": True})  # fmt: skip
MANIFESTS = [as_json({"format": 1, "step": 4, "best_step": 2, "best": {"step": 2.0}, "config": {"lr": 0.1},
                    "metrics": {"bytes": 9, "sha256": "0"}, "sha256": {"state.pt": "0", "weights.safetensors": "0"}}),
             as_json({"format": 2, "step": 4, "best_step": 4, "best": {}, "sha256": {}}), b'{"format": 1, "format": 1}', b"[" * 3000]  # fmt: skip
RUN_MANIFESTS = [as_json({"format": 1, "sha256": {"config.yaml": "0", "checkpoints/x": "1"}}), as_json({"format": 9, "sha256": {}}),
                 as_json({"format": 1, "sha256": {"../x": "0"}})]  # fmt: skip
TABLES_OF_ROWS = [ROWS, b"epoch,step,lr\n1,2,3\n4,5,nan\n6,7", b"epoch,lr\n1,2\n"]
TABLE = "u,v,w,day,y\n" + "".join(
    f"{i}.5,{'ab'[i % 2]},{i % 3},2024-01-{i + 1:02},{'cd'[i % 2]}\n" for i in range(24)
)
CONTRACTS = [
    as_json({"format": 1, "task": "classification", "input_shape": [features], "class_names": ["c", "d"], "targets": [], "target_mean": [],
             "target_std": [], "sizes": {"train": 2, "val": 0, "test": 0}, "fingerprint": "0", "outputs": 2, "columns": [column]})
    for features, column in zip((2, 3, 2, 1), (
        {"name": "u", "format": {"kind": "number", "decimal": "."}, "fill": 1.0, "indicator": True},
        {"name": "v", "format": {"kind": "category"}, "levels": ["a", "b"], "indicator": True},
        {"name": "day", "format": {"kind": "date", "date": "iso"}, "fill": "2024-01-02", "parts": ["year", "month"], "centers": [2024.0, 0.0]},
        {"name": "w", "format": {"kind": "boolean", "missing_words": ["?"]}, "fill": 1.0},
    ), strict=True)
] + [
    # a later version, an earlier one, a regression, a table without the column
    as_json({"format": 9}),
    as_json({"format": 1, "task": "classification", "input_shape": [3, 8, 8], "class_names": ["c"], "targets": [], "target_mean": [], "target_std": [],
             "sizes": {"train": 2, "val": 0, "test": 0}, "fingerprint": "0", "columns": [], "resized": True}),
    as_json({"format": 1, "task": "regression", "input_shape": [1], "class_names": [], "target_mean": [0.5], "target_std": [2.0], "outputs": 1,
             "targets": [{"name": "w", "format": {"kind": "number", "decimal": "."}}], "sizes": {"train": 2, "val": 0, "test": 0}, "fingerprint": "0",
             "columns": [{"name": "u", "format": {"kind": "number", "decimal": "."}, "fill": 1.0, "centers": [0.0], "parts": [""]}]}),
    as_json({"format": 1, "task": "classification", "input_shape": [1], "class_names": ["c", "d"], "target_mean": [], "target_std": [], "outputs": 2,
             "targets": [{"name": "y", "format": {"kind": "category"}, "levels": ["c", "d"]}], "sizes": {"train": 2, "val": 0, "test": 0},
             "fingerprint": "0", "columns": [{"name": "v", "format": {"kind": "category"}, "levels": ["a"]}]}),
    as_json({"format": 1, "task": "classification", "input_shape": [1], "class_names": ["c", "d"], "target_mean": [], "target_std": [], "targets": [],
             "sizes": {"train": 2, "val": 0, "test": 0}, "fingerprint": "0",
             "columns": [{"name": "gone", "format": {"kind": "number", "decimal": "."}, "fill": 1.0}]}),
    as_json({"format": 1, "task": "classification", "input_shape": [1], "class_names": ["c", "d"], "target_mean": [], "target_std": [], "targets": [],
             "sizes": {"train": 2, "val": 0, "test": 0}, "fingerprint": "0",
             "columns": [{"name": "v", "format": {"kind": "number", "decimal": "."}, "fill": 1.0}]}),
    as_json({"format": 1, "task": "other", "input_shape": [1], "class_names": [], "target_mean": [], "target_std": [], "targets": [], "columns": [],
             "sizes": {}, "fingerprint": "0"}),
]  # fmt: skip
OVERRIDES = [text.encode() for text in (
    "lr=0.1", "optimizer=adam\nlr=1e-3", "model.hidden=[64,32]", "regularization=[l2,dropout]\nregularization.l2.strength=0.1", "epochs=2",
    "+parameters.lr_scale={head:10}", "dataset=csv\ndataset.path=a b.csv\ndataset.target=y", "schedule=cosine\nschedule.warmup_steps=5",
    "tags=['a,b',\"c\"]", "notes=${oc.env:HOME,x}", "lr=choice(1,2)", "lr=interval(0.1,1)", "seed=range(1,9)", "~model", "lr=tag(log,interval(1,2))",
    "optimizer.betas=[0.9,0.99]", "name=a\noutput=b", "early_stopping.metric=val/accuracy", "augmentation=glob(s*)",
    "lr=[1,2", "lr", "lr=\n", "lr=1,", "lr=loginterval(1,2)", "lr=frobnicate(1)", "lr=", "lr=a(b", "lr\n=\n1", "lr: 1", "train", "lr={a:1]", "model=cnnn",
    "modle=cnn", "optimizer.adam=1", "regularization=l2,dropout", "+lr=1", "++lr=1", "~lr", "+new=1", "model.hiden=[1]", "lr=1\nlr=2",
    "optimizer=[adam]", "regularization=l2", "optimizer.lr.x=1", "regularization.l2=1", "model=mlp\nmodel=cnn", "lr='" + "x" * 90 + "'", "lr=(1", "lr=1)",
    "notes=größe", "hydra.x=1", "hydra=x", "hydra.sweeper.x=1", "hydra/launcher=basic", "hydra.searchpath=[x]", "model=[mlp,cnn]", "loss=none", "model=off", "optimizer.momentum=1", "optimizer=sgd\\noptimizer.momentum=0.5", "+model.width=3", "optimizer@x=adam", "seed=" + "9" * 5000,
)]  # fmt: skip
CHANGES = [
    b"lr=0.1",
    b"epochs=2\nlr=1e-3",
    b"tags=['a,b',\"c\"]",
    b"notes='a: b'",
    b"checkpoint.keep=3\nquiet=true",
    b"parameters.lr_scale={head: 10}",
    b"lr",
    b"model=cnn",
    b"lr.x=1",
    b"lr='???'",
    b"log.profile=true",
    b"lr=-1",
    b"lr=yes",
    b"epochs=1.5",
    b"optimizer.lr=1",
    b"model.hidden=[1,x]",
    b"notes=[",
    b"tags=x",
    b"seed=1e3",
    b"lr=${oc.env:HOME}",
    b"early_stopping.patience=0",
    b"device=gpu",
    b"dataset.path='a'",
    b"notes=a: b: c",
    b"batch_size=fll",
]
YAMLS = [b"_target_: my.Model\nwidth: 3\n", b"defaults:\n  - override /optimizer: adam\nlr: 0.1\nmodel: {hidden: [1, 2]}\n", b"a: &x [1]\nb: *x\n",
         b"a: 1e-3\nb: 'x'\nc: |\n  text\n  more\n", b"sweep:\n  space:\n    lr: {low: 1.0e-3, high: 1, log: true}\n",
         b"a: [" * 70, b"a: &x [1]\n" + b"b: *x\n" * 120, b"a: " + b"1" * 300 + b"\n", b"a: 1\na: 2\n", b"a: {b: 1, b: 2}\n", b"- 1\n", b"a: [1\n", b"\xff\xfe",
         b"_target: x\n", b"target: x\n", b"_target_ : x\ndefault:\n  - a\n", b"? [a]\n: 1\n", b"a: " + b"x" * 1_000_001, b"\ta: 1\n", b"a: 'x\n", b"a:1\n", b"x\n", b"a: &a {b: &b {c: &c [1]}}\nd: *a\n", b"# only a comment\n"]  # fmt: skip
TABLES = [TABLE.encode(), TABLE.replace(",", ";").replace(".5", ",5").encode(), TABLE.encode("utf-16"), b'y,"a,b"\n1,"x\ny"\n2,"z"\n' * 5,
          "y\tä\n".encode("latin-1") + b"1\t2\n3\t4\n" * 9, "\n".join(f"{i} {i}" for i in range(9)).encode(),
          b"'u','y'\n'1','a'\n'2','b'\n" * 1 + b"'3','a'\n" * 9, b'u,y\n1, "a,b"\n2, "c"\n' + b"3, x\n" * 9, b"u,y\n1,2,3\n" + b"4,5\n" * 8, b"u,y\n1\n" + b"4,5\n" * 8,
          b'"u","y"\n"1",3,4\n' + b'"2",5,6\n' * 8, b"u,u,y\n1,2,3\n" * 2, b"", b"u,y\n", b"sep=;\nu;y\n1;2\n" + b"3;4\n" * 9, b"u|y\n" + b"1|a\n2|b\n" * 5,
          b"u,y,when,x\n" + "".join(f"1.{i},{'yes no'.split()[i % 2]},{i % 12 + 1}/1/2024 10:0{i % 6},\n" for i in range(12)).encode(),
          b"u;y;d\n" + "".join(f"1.{i:03},{i};{'NA' if i == 3 else 'ab'[i % 2]};0{i % 9 + 1}.02.2024\n" for i in range(12)).encode(),
          "\ufeffid,name,y\n".encode() + "".join(f"{i},n{i},{i % 2}\n" for i in range(12)).encode(), b"\x00\x01\x02" * 50, b'u,y\n"1,2\n', b"u,,y\n" + b"1,2,3\n2,3,4\n" * 4,
          b"u,y,t\n" + b"".join(b"%d,%d,2024-01-0%dT10:00:00Z\n" % (i, i % 2, i % 9 + 1) for i in range(12)), ("u,y\n" + "1,a\n2,b\n" * 6).encode("utf-16-be"),
          b"u,y\n" + b"1 000,a\n2 500,b\n" * 6, b"u,y\n" + b"1.5%,a\n$2,b\n" * 6, b"u,y\n" + "1,ä\n2,ö\n".encode("cp1252") * 6, b"u,y\r" + b"1,a\r2,b\r" * 6,
          b"PK\x03\x04u,y\n", b"," * 30_001, b"a" * 270_000, b"u,y\n" + b"x" * 140_000 + b"\n", b"u,y\n" + b"1,a\n2,b\n" * 40_000,
          b"u,y,t\n" + b"".join(b"%d,%d,2024-02-%02d\n" % (i, i % 2, i + 20) for i in range(12)), b"u,y\n" + b",a\n?,b\n1,a\n2,b\n" * 6, b"u,y\n\"1,a\n2,b\n", b"u,y\n1,2\xff",
          b"u,y,t\n" + b"".join(b"%d,%d,2024-02-%02d 10:00\n" % (i, i % 2, i + 20) for i in range(12)),
          gzip.compress(TABLE.encode())]  # fmt: skip

SAVED = [
    b"words: 3\n",
    b"- 1\n",
    b"words: {model: nothing}\n",
    b"words: {model: mlp}\nmodel: 3\n",
    b"words: {regularization: [l2]}\nregularization: {l2: 3}\n",
    b"a: &x 1\nb: *x\n",
]
# one byte that says how the rest is read, and the rest
LABELS = [first + b"file,label,split\n" + rows for first in (b"\0", b"\1", b"\2", b"\3", b"\7") for rows in (
    b"a/0.png,x,train\na/1.png,y,train\nb/0.png,x,test\nb/2.png,y,val\nc.png,x,train\n",
    b"a/0.png,x,train\na/0.png,y,train\nb/2.png,x,val\n", b"a/0.png,1.5,train\na/1.png,2.5,test\nc.png,0.5,val\n",
)] + [b"\0" + text for text in (
    b"label,name\nx,0.png\ny,2.png\n", b"name,label\n1.png,x\n2.png,y\nc.png,x\n", b"id,label,other\n1,x,3\n2,y,4\nc,x,3\n", b"name\nc.png\n1.png\n",
    b"name,label\n9.png,x\n8.png,y\n", b"name,label\nc.png,x\n9.png,y\n", b"one,two,label\na/0.png,c.png,x\na/1.png,1.png,y\n",
    b"name,path,label\n1.png,a/1.png,x\n2.png,b/2.png,y\n", b"name,u,v\n1.png,a,x\n2.png,b,y\n", b"name,label\n0.png,x\n1.png,y\n",
)] + [b"\2file,label\nx,y\n", b"\1label,other\nc.png,x\n1.png,y\n"]  # fmt: skip
FILTERS = [text.encode() for text in (
    "lr=0.1", "lr<1", "val/loss>=0.1", "status!=completed", "tag=a", "name=n*", "loss<1", "lrr=1", "lr<x", "status=complete", "when>2026", "run=aaaa",
    "sweep=s", "path=x", "no filter", "model=[a, b]", "status>z", "lr=null", "finished=true",
)]  # fmt: skip
LOOKED_AT = [bytes([i]) + content for i, content in enumerate((SUMMARY, CONFIG, ROWS, b'{"added": ["b"]}', CONTRACTS[0], PER_CLASS, MATRIX))] + [
    b"\0" + as_json({"status": "running"}), b"\0" + as_json({"status": 3}), b"\0" + as_json({"status": "failed", "stop_reason": "x"}), b"\0[1]",
    b"\6a,b\n1,x\n", b"\6a,b\na,1,2\n", b"\5class,x\na,1\n", b"\2step,train/loss,val/loss,lr\n" + b"".join(b"%d,%d,0.5,0.1\n" % (i, 9 - i) for i in range(1, 9)),
]  # fmt: skip
VERIFIED_SWEEPS = [
    b"\0" + SWEEP, b"\1job,status,objective\n0,completed,0.5\n", b"\2" + as_json({"format": 1, "sha256": {"sweep.json": "0"}}),
    b"\1job,status,objective\n1,completed,0.5\n0,completed,0.25\n", b"\1job,status,objective\n", b"\3" + as_json({"status": "running"}),
    b"\0" + SWEEP.replace(b"true", b"false"),
]  # fmt: skip


def checkpoint_files() -> dict[str, bytes]:
    """Return the files of a checkpoint, and the best weights, of a run with SUMMARY and ROWS."""
    weights = save({"w": torch.ones(2)})
    state = bytes_of(
        lambda b: torch.save({"step": 2, "best_row": {"step": 2.0, "epoch": 1.0, "val/loss": 0.5}}, b)
    )
    inside = {"state.pt": state, "weights.safetensors": weights}
    record = {"format": 1, "step": 2, "best_step": 2, "best": {"step": 2.0, "epoch": 1.0, "val/loss": 0.5}, "config": {"lr": 0.1},
              "fingerprint": "0", "metrics": {"bytes": 30, "sha256": hashlib.sha256(ROWS[:30]).hexdigest()},
              "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in inside.items()}}  # fmt: skip
    files = {"manifest.json": as_json(record), **inside}
    return {f"checkpoints/step-00000002/{name}": content for name, content in files.items()} | {
        "checkpoints/best.safetensors": weights
    }


VERIFIED = [bytes([i]) + content for i, content in enumerate((
    as_json({"format": 1, "sha256": {"summary.json": "0", "gone": "0"}}), SUMMARY, ROWS, MATRIX, PER_CLASS, CONTRACTS[0], save({"w": torch.ones(2)}),
    checkpoint_files()["checkpoints/step-00000002/manifest.json"], checkpoint_files()["checkpoints/step-00000002/state.pt"],
    save({"mean": torch.tensor([float("nan")])}),
))] + [b"\1" + as_json({"status": "completed"}), b"\1" + as_json({"status": "running"}), b"\2step,epoch,val/loss\n2,1,0.5\n2,2,0.75\n",
       b"\2step,epoch,val/loss\n2,1,0.25\n4,2,0.1\n", b"\7" + as_json({"format": 1, "step": 2, "best_step": 2, "best": {}, "sha256": {}}),
       b"\6" + save({"w": torch.zeros(2)}), b"\6x", b"\4x", b"\5" + CONTRACTS[0].replace(b'"fingerprint": "0"', b'"fingerprint": "1"'),
       b"\10" + bytes_of(lambda b: torch.save({"step": 3, "best_row": {"step": 1.0}}, b)), b"\3true,a\na,1\n", b"\3true,a,b\na,1,1\nb,0,2\n",
       b"\1" + SUMMARY.replace(b'"epoch": 1.0', b'"epoch": 2.0'),
       # with a configuration: 131 names summary.json, 132 metrics.csv
       b"\x83" + SUMMARY, b"\x83" + SUMMARY.replace(b'"objective": 0.5', b'"objective": 0.25'), b"\x83" + SUMMARY.replace(b'"best_epoch": 1.0', b'"best_epoch": 3.0'),
       b"\x84step,epoch,val/loss\n2,1,0.5\n4,2,0.25\n", b"\x83" + SUMMARY.replace(b'"steps": 4', b'"steps": 2'), b"\x83" + SUMMARY.replace(b"completed", b"failed")]  # fmt: skip
KEY = "0" * 64
EVENTS = [
    b"".join(
        event_log.line(event, step, values).encode()
        for event, step, values in (
            ("run_started", 0, {}), ("step", 1, {"loss": 0.5}), ("evaluated", 2, {"values": {"val/loss": 0.5}}), ("checkpoint_saved", 2, {}),
            ("evaluated", 4, {"values": {"val/loss": float("inf")}}), ("run_ended", 4, {"status": "completed"}),
        )
    ),
    b'{"event": "step", "step": 1}\n{"event": "evaluated", "ste',
    b"",
]  # fmt: skip
GRID = ("lr=0.1,0.2,0.3",)
WRITTEN = 1_700_000_000_000_000_000  # ns, when the summaries were


def jobs_of_a_grid(folder: Path) -> None:
    """Write the folders of the three jobs of a grid."""
    for number, lr in enumerate(("0.1", "0.2", "0.3")):
        job = folder / f"{number}-lr={lr}"
        job.mkdir()
        (job / "summary.json").write_bytes(SUMMARY.replace(b"lr=0.1", f"lr={lr}".encode()))
        os.utime(job / "summary.json", ns=(WRITTEN, WRITTEN))


def books_of_a_grid() -> list[bytes]:
    """Return the books of three jobs, books with values of other types, of a newer format, with another table, and none."""
    row = [
        0,
        "0-lr=0.1",
        '{"lr": 0.1}',
        "completed",
        "",
        0.5,
        1.0,
        1.5,
        '{"val/loss": 0.5}',
        '{"test": {"accuracy": 0.5}}',
        "d",
        WRITTEN,
        len(SUMMARY),
    ]
    wrong = {"folder": "x", "axes": "[", "reason": 5, "objective": "0.1", "best_epoch": "\x1b[31m", "seconds": "x", "best": '{"val/loss": "<b>", "/": [1]}',
             "facts": '{"test": {"accuracy": {}}, "reused": 7, "status": "failed"}', "state": "failed", "changed": 7, "size": "x", "digest": None}  # fmt: skip
    every = {column: [row] for column in ("",)} | {
        column: [[value if name == column else old for name, old in zip(books.COLUMNS, row, strict=True)]]
        for column, value in wrong.items()
    }
    every[""] = [[n, f"{n}-lr=0.{n + 1}", *row[2:]] for n in range(3)]
    return [
        *(books_with(found) for found in every.values()),
        books_with([], "PRAGMA user_version = 7"),
        books_with([], "CREATE TABLE other (x)"),
        books_with(every[""], "ALTER TABLE jobs RENAME TO other", "CREATE VIEW jobs AS SELECT * FROM other"),
        b"",
    ]


def books_with(rows: list[list[Any]], *then: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "x")
        with closing(sqlite3.connect(file)) as base:
            base.execute(books.TABLE)
            base.executemany(f"INSERT INTO jobs VALUES ({', '.join('?' * len(books.COLUMNS))})", rows)
            base.execute(f"PRAGMA user_version = {books.FORMAT}")
            for command in then:
                base.execute(command)
            base.commit()
        return file.read_bytes()


def index_files() -> list[bytes]:
    """Return the cache of a listing, nothing, a cache of another version and one that somebody changed."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "n", "2026-01-31_12-00-00-aaaa")
        run.mkdir(parents=True)
        (run / "summary.json").write_bytes(SUMMARY)
        (run / "config.yaml").write_bytes(CONFIG)
        index.Index(Path(folder))
        whole = Path(folder, index.CACHE).read_bytes()
    # the user's version has four bytes of the header
    return [whole, b"", whole[:60] + b"\0\0\0\7" + whole[64:], whole.replace(b"val/loss", b"val/lass")]


def rewrite_hash(file: Path) -> None:
    """Make the manifest of a checkpoint fit a changed file."""
    record = json.loads((file.parent / "manifest.json").read_bytes())
    record["sha256"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    (file.parent / "manifest.json").write_bytes(as_json(record))


def pictures() -> list[bytes]:
    """Return images of each format and mode, each read in one of eight ways."""
    gray = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(8, 6))
    color, exif = gray.convert("RGB"), Image.Exif()
    exif[0x0112] = 6
    turned = color.rotate(90, expand=True)
    palette = color.convert("P")
    deep, floats = (
        Image.fromarray(np.arange(48).reshape(8, 6).astype(kind)) for kind in (np.uint16, np.float32)
    )
    found = [
        (color, "PNG", {}), (gray, "PNG", {}), (palette, "PNG", {"transparency": 0}), (color.convert("RGBA"), "PNG", {}), (deep, "PNG", {}),
        (turned, "JPEG", {"exif": exif}), (color.convert("CMYK"), "JPEG", {}), (color, "BMP", {}), (palette, "GIF", {"save_all": True, "append_images": [palette.transpose(0)]}),
        (color, "WEBP", {}), (floats, "TIFF", {}), (color, "PPM", {}), (gray.convert("1"), "PNG", {}), (color.resize((9, 9)), "PNG", {}),
        (Image.new("RGB", (6, 8)), "PNG", {}), (turned, "PNG", {"exif": exif}), (color.resize((40, 30)), "JPEG", {}), (deep, "TIFF", {}),
    ]  # fmt: skip
    clear = color.convert("RGBA")
    clear.putalpha(128)
    found.append((clear, "PNG", {}))
    return [
        bytes([way]) + bytes_of(lambda b, picture=picture, form=form, options=options: picture.save(b, form, **options))
        for number, (picture, form, options) in enumerate(found)
        for way in (0, number % 8)
    ] + [b"\0P5 20000 20000 255\n" + bytes(10)]  # fmt: skip


def packed_cifar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in (("a.bin", bytes(2 * 3073)), ("b.bin", bytes(3073)), ("names.txt", b"x\ny\n")):
            member = tarfile.TarInfo(f"c/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def caches() -> list[bytes]:
    """Return a cache of tensors, and one of images."""
    tensors = {"images": torch.ones(2, 1)}
    made = {**tensors, "made_from": KEY, "digest": cache._digest(tensors)}
    records = np.zeros(2, image_files.record_type((1, 2, 2)))
    header = {"descr": np.lib.format.dtype_to_descr(records.dtype), "fortran_order": False, "shape": (2,)}
    whole = bytes_of(lambda b: np.lib.format.write_array_header_2_0(b, header)) + records.tobytes()
    digest = hashlib.sha256(KEY.encode() + records.tobytes()).hexdigest()
    return [b"\0" + bytes_of(lambda b: torch.save(made, b)), b"\1" + whole + (KEY + digest).encode(), b"\1" + whole + KEY.encode() + b"0" * 64,
            b"\1" + whole + b"1" * 128, b"", b"\1" + bytes_of(lambda b: np.save(b, np.ones(2))), b"\0" + bytes_of(lambda b: torch.save([1], b))]  # fmt: skip


def made() -> dict[str, list[bytes]]:
    """Return the seeds of the binary formats."""
    ones, codes = np.ones((12, 4), np.float32), np.arange(12) % 2
    images = struct.pack(">IIII", 0x803, 2, 3, 3) + bytes(18)
    frame = pa.table(
        {"u": [1.5, 2.5] * 6, "v": pa.array(["a", "b"] * 6).dictionary_encode(), "y": ["c", "d"] * 6}
    )

    def saved(**arrays: Any) -> bytes:
        return bytes_of(lambda b: np.savez(b, **arrays))

    return {
        "npz": [b"\0" + saved(inputs=ones, targets=codes), b"\0" + bytes_of(lambda b: np.savez_compressed(b, inputs=np.ones((6, 3, 3), np.uint8), targets=np.array(["a", "b"] * 3))),
                b"\1" + saved(inputs=ones, targets=codes, split=np.arange(12) % 3), b"\1" + saved(inputs=ones, targets=codes, split=ones), b"\2" + saved(inputs=ones, targets=codes, groups=codes),
                b"\3" + saved(inputs=ones, targets=ones), b"\3" + saved(inputs=ones, targets=np.array(["a"] * 12)), b"\4" + saved(inputs=np.ones((6, 8, 8, 3), np.uint8), targets=codes[:6]),
                b"\0" + saved(inputs=np.ones((6, 8, 8, 3)), targets=codes[:6]), b"\0" + saved(inputs=ones, targets=codes[:6]), b"\0" + saved(inputs=ones), b"\0" + saved(inputs=np.ones(3), targets=codes[:3]),
                b"\0" + saved(inputs=np.array(["a"]), targets=codes[:1]), b"\0" + saved(inputs=ones, targets=np.array([[1, 2]] * 12)), b"\0" + saved(inputs=np.array([None]), targets=codes[:1])],
        "idx": [images, struct.pack(">II", 0x801, 2) + b"\1\2"],
        "packed idx": [gzip.compress(images)],
        "packed CSV": [TABLES[-1], gzip.compress(b"u,y\n1,2,3\n4,5\n"), gzip.compress(TABLES[0])[:60], gzip.compress(b"u,y\n" + "1,ä\n".encode("cp1252") * 9)],
        "cifar": [b"\0" + packed_cifar(), b"\1" + bytes(2 * 3073), b"\0" + gzip.compress(b"x")],
        "parquet": [bytes_of(lambda b: parquet.write_table(frame, b))],
        "arrow": [bytes_of(lambda b: feather.write_feather(frame, b, compression="uncompressed")), bytes_of(lambda b: feather.write_feather(frame, b, compression="zstd"))],
        "images": pictures(),
        "caches": caches(),
        "safetensors": [save({"mean": torch.zeros(3), "std": torch.ones(3)}), save({"a": torch.zeros(2, 2, dtype=torch.float64)})],
        "states": [bytes_of(lambda b: torch.save({"step": 1, "optimizer": {"a": torch.ones(2)}}, b)), bytes_of(lambda b: torch.save([1], b))],
    }  # fmt: skip
