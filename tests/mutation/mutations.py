"""The bugs of bugs.txt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RECORDS = "sweep/test_sweep_parts.py sweep/test_sweep_records.py"
SETS = {
    "AVERAGING": "test_averaging.py",
    "BEST": "training/test_best_not_last.py",
    "CHECKPOINTS": "faults/test_faults_disk.py faults/test_faults_checkpoints.py",
    "DOOR": "test_user_words.py faults/test_faults_door.py faults/test_faults_corpus.py",
    "LOOP": "training/test_rates_of_a_step.py training/test_observers.py training/test_best_not_last.py regularization/test_rules_in_a_run.py "
    "training/test_trainer.py test_seeding.py",
    "LOSSES": "test_losses.py",
    "OBSERVERS": "training/test_observers.py",
    "OPTIMIZERS": "optimizers/test_golden_steps.py optimizers/test_optimizers.py",
    "PARTS": "sweep/test_sweep_parts.py",
    "RECORDS": RECORDS,
    "RULES": "regularization",
    "SCHEDULES": "test_schedules.py",
    "SEEDS": "test_seeding.py test_sampling.py",
    "SWEEPS": f"{RECORDS} sweep/test_sweep_runs.py",
    "TENSORBOARD": "loggers/test_tensorboard.py training/test_best_not_last.py training/test_observers.py",
    "TERMINAL": "loggers/test_terminal.py",
}


@dataclass(frozen=True)
class Mutation:
    """`old` must stand exactly once in `file` (below dltrain/); `tests` are paths below tests/."""

    name: str
    file: str
    old: str
    new: str
    tests: str


def parse(text: str) -> list[Mutation]:
    """Read the form of bugs.txt, which its head describes."""
    found = []
    for block in text.split("\n@ ")[1:]:
        head, tests, *lines = block.splitlines()
        name, file = head.split()
        old, new = ("\n".join(line[1:] for line in lines if line[:1] == sign) for sign in "-+")
        paths = (SETS.get(word, word) for word in tests.split()[1:])
        found.append(Mutation(name, file, old, new, " ".join(paths)))
    return found


MUTATIONS = parse(Path(__file__).with_name("bugs.txt").read_text(encoding="utf-8"))
