"""No parser of ours raises, hangs or writes outside, whatever it reads.

A second by default for each; a long run: `python -m tests.fuzz --inputs 1000000`. What it found is kept below.
"""

from __future__ import annotations

import os
import sys
import time
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


@pytest.mark.parametrize("name", PARSERS)
def test_seeds_are_accepted(name, tmp_path):
    """Changed inputs reach what lies behind the first check."""
    answers = []
    for number, seed in enumerate(PARSERS[name].seeds):
        (tmp_path / str(number)).mkdir()
        answers.append(tried(PARSERS[name], seed, tmp_path / str(number)))
    assert answers.count("") >= len(answers) / 2, answers


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
    ("YAML of a user", b"? sweep:\n  space:\n    lr: 1\n"),
    ("packed CSV", PARSERS["packed CSV"].seeds[0][:40] + b"\xff\xf9" + PARSERS["packed CSV"].seeds[0][44:]),
]


@pytest.mark.parametrize("number", range(len(KEPT)))
def test_what_was_found_stays_fixed(number, tmp_path):
    name, content = KEPT[number]
    assert tried(PARSERS[name], content, tmp_path) in ("", None)
