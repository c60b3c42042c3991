"""Row 32: every optimizer × schedule × sampler × averaging resumes to the last bit, wherever it was cut.

A pairwise covering array of the words, of how steps are put together and of where the run is cut; a sample by default,
all of it by `pytest -m slow tests/faults/test_faults_matrix.py` (ten minutes).
"""

from __future__ import annotations

import pytest
from covering import covering_rows
from faults import cut_run, equal, golden_run
from test_together import GIVEN

from dltrain.config.catalogue import Catalogue
from dltrain.config.search_path import catalogue_dir

GROUPS = "optimizer wrap schedule momentum_schedule penalty_schedule sampler averaging early_stopping".split()
# A run of 18 steps in epochs of 6, validated every 4: cut in the first step, in mid-epoch, in the step after which it
# is validated, in the last but one and in the last; each before anything of the step is logged or saved.
PLACES = ("first", "mid-epoch", "validation", "last but one", "last")
LIMIT = (
    "model.hidden=[8] dataset.limit=120 dataset.val_fraction=0.2 batch_size=16 epochs=3 evaluation.every_steps=4 threads=1 "
    "regularization=[l2,dropout] augmentation=[shift,mixup] checkpoint.every_steps=3 quiet=true"
)
GIVEN_HERE = {
    "optimizer=gd": "batch_size=full epochs=18",
    "early_stopping=patience": "early_stopping.patience=2",
    # fewer than those after which the run ends
    **{
        f"{group}=plateau": f"{group}.patience=1"
        for group in ("schedule", "momentum_schedule", "penalty_schedule")
    },
    "averaging=swa": "averaging.start_step=4",
}


def all_words() -> dict[str, list[str]]:
    catalogue = Catalogue(catalogue_dir())
    words = {group: sorted(catalogue.words[group]) for group in GROUPS}
    return words | {"accumulate": ["1", "2"], "cut": list(PLACES)}


ROWS, _ = covering_rows(all_words())


def arguments_of(row: dict[str, str]) -> list[str]:
    chosen = [f"{group}={word}" for group, word in row.items() if group != "cut"]
    given = " ".join(
        text for choice in chosen for text in (GIVEN.get(choice), GIVEN_HERE.get(choice)) if text
    )
    return [*LIMIT.split(), *chosen, *given.split()]


def step_of(place: str, run) -> int:
    """The step at which a run is cut, in a run that may have stopped early."""
    steps = int(run.summary["steps"])
    validated = [int(row["step"]) for row in run.rows]
    places = {
        "first": 1,
        "mid-epoch": min(5, steps),
        "validation": validated[len(validated) // 2],
        "last but one": steps - 1,
    }
    return max(1, places.get(place, steps))


def check_row(row: dict[str, str], dltrain, workdir) -> None:
    arguments = arguments_of(row)
    golden = golden_run(workdir, *arguments)
    run = cut_run(workdir, step_of(row["cut"], golden), *arguments)
    dltrain("resume", run.path)
    equal(run, golden)
    assert run.summary["status"] == golden.summary["status"]


def name_of(row: dict[str, str]) -> str:
    return " ".join(f"{group}={word}" for group, word in row.items())


@pytest.mark.parametrize("row", ROWS[:: len(ROWS) // 6], ids=name_of)
def test_32_a_sample_resumes_to_the_last_bit(row, dltrain, workdir):
    check_row(row, dltrain, workdir)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_32_every_pair_resumes_to_the_last_bit(row, dltrain, workdir):
    check_row(row, dltrain, workdir)
