"""No parser of ours raises, hangs or writes outside, whatever it reads.

A second by default for each; a long run: `python -m tests.fuzz --inputs 1000000`. What it found is kept below.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fuzzing import SECONDS, fuzz, tried  # noqa: E402
from parsers import Parser, parsers  # noqa: E402

PARSERS = parsers()


@pytest.mark.parametrize("name", PARSERS)
def test_parsers_refuse_in_words(name):
    result = fuzz(name, PARSERS[name], max(10, round(60 * PARSERS[name].weight)))
    assert result.findings == []


# how many of the seeds are well formed, so that changed inputs reach what lies behind the first check; of a slow parser, whose weight is
# small, one in five is tried
ACCEPTED = {
    "overrides, grammar": 47,
    "overrides, composed": 5,
    "changes of a run": 6,
    "YAML of a user": 10,
    "saved configuration": 2,
    "checkpoint manifest": 1,
    "run manifest": 1,
    "metrics.csv": 2,
    "summary.json": 2,
    "tags.json": 1,
    "sweep.json": 1,
    "books.sqlite": 4,
    "events.jsonl": 3,
    "study.log": 1,
    "data.json": 6,
    "npz": 7,
    "idx": 2,
    "packed idx": 1,
    "CIFAR": 2,
    "CSV": 19,
    "packed CSV": 1,
    "Parquet": 1,
    "Arrow": 2,
    "images": 33,
    "labels of images": 12,
    "cache of samples": 7,
    "cache of listings": 4,
    "filters": 14,
    "safetensors": 2,
    "state of a checkpoint": 1,
    "runs that are looked at": 13,
    "runs of a report": 10,
    "verified run": 29,
    "verified sweep": 7,
}


@pytest.mark.parametrize("name", PARSERS)
def test_seeds_are_accepted(name, tmp_path):
    """Changed inputs reach what lies behind the first check."""
    answers = []
    # a slow parser has a small weight
    seeds = PARSERS[name].seeds[:: 1 if PARSERS[name].weight > 0.2 else 5]
    for number, seed in enumerate(seeds):
        (tmp_path / str(number)).mkdir()
        answers.append(tried(PARSERS[name], seed, tmp_path / str(number)))
    assert set(answers) <= {"", None}
    assert answers.count("") == ACCEPTED[name], answers


def test_the_fuzzer_sees_an_exception_a_hang_and_a_file_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr("fuzzing.SECONDS", 0.1)
    (tmp_path / "in").mkdir()
    bad = {
        "ZeroDivisionError": lambda content, folder: 1 / 0,
        "took more than": lambda content, folder: time.sleep(10),
        "wrote ": lambda content, folder: os.close(os.open(folder.parent / "out", os.O_WRONLY | os.O_CREAT)),
    }
    for word, call in bad.items():
        assert word in (tried(Parser([b""], call), b"", tmp_path / "in") or "")
    assert SECONDS > 1


def nulled() -> bytes:
    """The cache of a listing with NULL for the facts of all runs."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "x")
        file.write_bytes(PARSERS["cache of listings"].seeds[0])
        with closing(sqlite3.connect(file)) as base:
            base.execute("UPDATE bases SET content = NULL")
            base.commit()
        return file.read_bytes()


NULLED = nulled()
# what a run of `python -m tests.fuzz` found, by parser
KEPT = [
    ("checkpoint manifest", b'{"format": 1, "step": 4, "best_step": Infinity, "best": {}, "sha256": {}}'),
    ("checkpoint manifest", b'{"format": Infinity, "step": 4, "best_step": 2, "best": {}, "sha256": {}}'),
    ("overrides, composed", b"early_stopping." + b"metriopping." * 30 + b"metric=val/accuracy"),
    ("overrides, composed", b"hydra/job_logging=" + b"x" * 300),
    ("changes of a run", b"lr=" + b"9" * 400),
    ("changes of a run", b"lr=-,--"),
    (
        "saved configuration",
        PARSERS["saved configuration"].seeds[0].replace(b"lr_scale:", b"lr_scarange(le:"),
    ),
    ("YAML of a user", b"lr: 1\nmode" + b"x" * 900_000 + b" 1\n- y\n"),
    # pyarrow ended the process
    (
        "Arrow",
        PARSERS["Arrow"].seeds[0][:888] + b"}" + PARSERS["Arrow"].seeds[0][891:],
    ),
    ("cache of listings", NULLED),
    # brackets that stay open
    (
        "cache of samples",
        PARSERS["cache of samples"].seeds[1].replace(b"), (", b"( (", 1),
    ),
    ("YAML of a user", b"? sweep:\n  space:\n    lr: 1\n"),
    ("overrides, grammar", b"seed=range(1" + b"9" * 400 + b")"),
    ("overrides, composed", b"lr=1,glob(*)"),
    ("run manifest", b'{"format": 1, "sha256": NaN}'),
    ("runs of a report", b"\x02step,epoch,val/lo\x1b[31mss\n2,1,0.5\n4,2,0.75\n"),
    # offsets of a dictionary that lead out of the memory
    ("Arrow", PARSERS["Arrow"].seeds[1][:449] + "\u202e".encode() + PARSERS["Arrow"].seeds[1][452:]),
    # damaged statistics of a column, for which pyarrow ended the process
    ("Parquet", PARSERS["Parquet"].seeds[0][:265] + b"=" + PARSERS["Parquet"].seeds[0][266:]),
    ("packed CSV", PARSERS["packed CSV"].seeds[0][:40] + b"\xff\xf9" + PARSERS["packed CSV"].seeds[0][44:]),
]


@pytest.mark.parametrize("number", range(len(KEPT)))
def test_what_was_found_stays_fixed(number, tmp_path):
    name, content = KEPT[number]
    assert tried(PARSERS[name], content, tmp_path) in ("", None)
