"""The manifest of equality: `python tests/faults/equality.py > docs/equality.md` writes its page.

For each word: what stays equal when a run is saved, resumed, given other threads, or trained in a stack with others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dltrain.config.compose import compose, open_catalogue, open_hydra
from dltrain.config.groups import LIST_GROUPS
from dltrain.config.schema import Config
from dltrain.config.validation import validate
from dltrain.sweep.backends.stacked import why_alone

GROUPS = (
    "dataset model initializer optimizer wrap averaging schedule momentum_schedule penalty_schedule regularization augmentation "
    "loss metrics sampler early_stopping diagnostics"
).split()
INTRODUCTION = """# Manifest of equality

What stays equal, for each word that takes part in training, on the same CPU, with the same data, seed, versions and threads:
weights, the state of the optimizer and of all else, best weights, `metrics.csv` without its time columns, the steps, evaluations and
checkpoints of `events.jsonl` without their times, and test scores.

- **bits**: equal to the last bit. Saving: `test_faults_equality.py` compares a run that saves every step with one that saves at its
  end, over all pairs of words (`pytest -m slow`); resume: `test_faults_matrix.py`, cut at five places; running it again:
  `python -m tests.golden replay` and `dltrain reproduce RUN`.
- **within 1e-4**: trained in a stack with other jobs of a sweep; what a stack cannot hold runs alone (`tests/sweep/test_stacked.py`).
- **within noise**: another number of threads, another instruction set or another torch round differently. `dltrain resume` warns, and
  `dltrain reproduce RUN` names it as the likely cause; small runs deviate by less than its tolerance, long ones may not.
- Not promised for any word: equal bits on a GPU, with `compile=true`, or between `precision=fp32` and `bf16`. `precision=bf16` on
  one CPU repeats its own bits. There are no ranks.
"""
HEAD = (
    "| group | word | saving | resume | threads, processor, torch | stacked |",
    "|---|---|---|---|---|---|",
)


def default(catalogue: Any) -> Config:
    return validate(compose([], catalogue, open_hydra(catalogue)))


def with_word(config: Config, group: str, word: Any) -> Config:
    """The default configuration with another word of a group."""
    node = word.configuration().get(group) or {}
    words = config.words | {group: [word.name] if group in LIST_GROUPS else word.name}
    return replace(
        config, **{group: {**getattr(config, group), **node} if group == "dataset" else node, "words": words}
    )


def rows() -> list[str]:
    """Return a row for each word that takes part in training."""
    catalogue = open_catalogue()
    config, found = default(catalogue), []
    for group in GROUPS:
        for name, word in sorted(catalogue.words[group].items()):
            alone = why_alone(with_word(config, group, word))
            stacked = "runs alone: bits" if alone else "within 1e-4"
            found.append(f"| {group} | {name} | bits | bits | within noise | {stacked} |")
    return found


def page() -> str:
    return "\n".join([INTRODUCTION, *HEAD, *rows()]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
