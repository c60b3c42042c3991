"""The plug pulled at any moment of any example of the README costs at most the time since the last checkpoint.

`pytest -m slow tests/faults/test_faults_readme.py`: every example that trains one run (a sweep's are test_faults of
tests/sweep), seven steps long with a checkpoint every two, on a disk that loses what was not synced.
"""

from __future__ import annotations

import shlex

import pytest
import test_readme
from conftest import Run
from faults import Disk, equal
from test_readme import RUNS, STAND_INS

from dltrain.storage import checkpoint

files = test_readme.files
# `dltrain check` trains nothing that is kept
SINGLE = [command for command in RUNS if " -m " not in command and not command.startswith("dltrain check")]
SHORT = (
    "steps=7", "checkpoint.every_epochs=null", "checkpoint.every_steps=2", "checkpoint.background=false", "workers=0", "threads=1",
    "evaluation.every_epochs=null", "evaluation.every_steps=3", "quiet=true",
)  # fmt: skip


def arguments_of(command):
    for theirs, ours in STAND_INS.items():
        command = command.replace(theirs, ours)
    ours = {text.partition("=")[0] for text in SHORT}
    given = [text for text in shlex.split(command)[1:] if text.partition("=")[0] not in {*ours, "epochs"}]
    return [*given, *SHORT]


@pytest.mark.slow
@pytest.mark.parametrize("command", SINGLE)
def test_plug_pulled_in_an_example(dltrain, workdir, files, command):
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, workdir / "plug")
        assert dltrain(*arguments_of(command)) == 0
    golden = Run(disk.run)
    assert len(disk.promised) > 20
    for picture, step in disk.promised.items():
        assert checkpoint.newest(picture / "checkpoints").manifest["step"] >= step
    for share in (0.0, 0.5, 0.99):
        picture = list(disk.promised)[int(share * len(disk.promised))]
        if Run(picture).summary["status"] != "completed":
            assert dltrain("resume", picture) == 0
            equal(Run(picture), golden)
