"""The default learning rate of every optimizer, chosen on validation data, and then tested once.

    python benchmarks/default_lr.py sweep [--words adam,sgd]    # validation only: the test split stays closed
    python benchmarks/default_lr.py test [--words adam,sgd]     # the files' own defaults, on the test split
    python benchmarks/default_lr.py table > benchmarks/default_lr.md

`sweep` trains the default run (digits, MLP, batch 64, early stopping) with `optimizer=WORD lr=X` for the seeds 0, 1, 2
and keeps the objective, the lowest val/loss. The default is the lr of the lowest mean. Results are appended to
`benchmarks/default_lr.jsonl`, and what is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dltrain.cli import dispatch
from dltrain.config.search_path import catalogue_dir
from dltrain.errors import UserError

RECORD = Path(__file__).with_suffix(".jsonl")
SEEDS = (0, 1, 2)
FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)  # of the file's own default
ABSOLUTE = {"steepest": (0.3, 1.0), "newton_cg": (0.3, 1.0), "lbfgs": (0.3, 1.0)}  # 1 is the method itself


def words() -> list[str]:
    return sorted(file.stem for file in (catalogue_dir() / "optimizer").glob("*.yaml"))


def settings(word: str) -> tuple[float, str]:
    """Return the default lr of a word's file, and its budget: `30 epochs of 64` or what the file sets."""
    text = (catalogue_dir() / "optimizer" / f"{word}.yaml").read_text()
    found = {
        key: m[1] for key in ("lr", "batch_size", "epochs") if (m := re.search(rf"^{key}: (\S+)", text, re.M))
    }
    return float(found["lr"]), f"{found.get('epochs', '30')} × {found.get('batch_size', '64')}"


def candidates(word: str) -> tuple[float, ...]:
    lr, _ = settings(word)
    return ABSOLUTE.get(word) or tuple(
        lr if factor == 1 else float(f"{lr * factor:.1g}") for factor in FACTORS
    )


def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORD.read_text().splitlines()] if RECORD.exists() else []


def train(overrides: list[str]) -> dict[str, Any]:
    """One run in a folder of its own; a run that diverges has an infinite loss."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            dispatch([*overrides, "quiet=true", "threads=1"])
            (summary,) = Path(name).glob("outputs/*/*/summary.json")
            content: dict[str, Any] = json.loads(summary.read_text())
            return content
        except UserError:
            return {"best": {"val/loss": math.inf, "val/accuracy": 0.0}, "test": {}, "steps": 0}
        finally:
            os.chdir(before)


def sweep(chosen: list[str]) -> None:
    """Every candidate of every word for every seed, on validation."""
    done = {(r["word"], r["lr"], r["seed"], r["budget"]) for r in records() if r["what"] == "sweep"}
    for word in chosen:
        budget = settings(word)[1]
        for lr in candidates(word):
            for seed in SEEDS:
                if (word, lr, seed, budget) not in done:
                    overrides = [f"optimizer={word}", f"lr={lr}", f"seed={seed}", "evaluation.test=false"]
                    append("sweep", word, lr, seed, budget, train(overrides))


def test(chosen: list[str]) -> None:
    """`dltrain optimizer=WORD` with nothing else but the seed, scored on the test split."""
    done = {(r["word"], r["lr"], r["seed"], r["budget"]) for r in records() if r["what"] == "test"}
    for word in chosen:
        lr, budget = settings(word)
        for seed in SEEDS:
            if (word, lr, seed, budget) not in done:
                append("test", word, lr, seed, budget, train([f"optimizer={word}", f"seed={seed}"]))


def append(what: str, word: str, lr: float, seed: int, budget: str, summary: dict[str, Any]) -> None:
    row = {"what": what, "word": word, "lr": lr, "seed": seed, "budget": budget, "steps": summary["steps"]}
    row |= {"val_loss": summary["best"]["val/loss"], "val_accuracy": summary["best"]["val/accuracy"]}
    row |= {"test_accuracy": summary["test"].get("accuracy")}
    with open(RECORD, "a") as stream:
        stream.write(json.dumps(row) + "\n")
    print(row, flush=True)


def table() -> Iterator[str]:
    """Return the Markdown page."""
    means = defaultdict(list)
    for row in records():
        means[row["what"], row["word"], row["budget"], row["lr"]].append(row)
    yield HEAD
    yield "| word | epochs × batch | mean val/loss by lr (bold: the default) | lowest | test accuracy, 3 seeds | least |"
    yield "|---|---|---|---|---|---|"
    for word in words():
        lr, budget = settings(word)
        losses = {
            key[3]: statistics.mean(r["val_loss"] for r in rows)
            for key, rows in sorted(means.items())
            if key[:3] == ("sweep", word, budget)
        }
        tested = [r["test_accuracy"] for r in means["test", word, budget, lr]]
        cells = " · ".join(f"**{x:g}: {y:.3f}**" if x == lr else f"{x:g}: {y:.3f}" for x, y in losses.items())
        best = f"{min(losses, key=losses.__getitem__):g}" if losses else "–"
        scores = f"{statistics.mean(tested):.4f} | {min(tested):.4f}" if tested else "– | –"
        yield f"| `{word}` | {budget} | {cells} | {best} | {scores} |"


HEAD = """# Default learning rates

Each default is chosen by the lowest validation loss of the default run (digits 8×8: 1293 training, 144 validation and 360
test samples; MLP 64-256-128-10; constant lr; early stopping with patience 10), mean of the seeds 0, 1 and 2, and only then
scored on the test split, by `dltrain optimizer=WORD` with nothing else but the seed. The validation
split cannot tell more than 0.015 apart (what one sample that is wrong by two nats weighs), so the paper's or the usual value
stays unless another is better by more than that; then it is the nearest to it that is within 0.015 of the lowest.
torch 2.15, one CPU thread.

    python benchmarks/default_lr.py sweep && python benchmarks/default_lr.py test
    python benchmarks/default_lr.py table > benchmarks/default_lr.md
"""

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("what", choices=("sweep", "test", "table"))
parser.add_argument("--words", default="")
options = parser.parse_args()
chosen_words = options.words.split(",") if options.words else words()
if options.what == "table":
    print("\n".join(table()))
else:
    {"sweep": sweep, "test": test}[options.what](chosen_words)
