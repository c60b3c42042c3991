"""`launch=WORD`: one run as the only job of a sweep on a backend."""

from __future__ import annotations

import json

import pytest
from conftest import Run, job_at

from dltrain.commands.complete import candidates
from dltrain.errors import UserError

BRIEF = ("model=linear", "steps=6", "threads=1", "lr=0.05")


def test_a_launched_run_is_the_run(dltrain, workdir, train):
    alone = train(*BRIEF)
    assert dltrain(*BRIEF, "launch=local", "name=there", "quiet=true") == 0
    (sweep,) = (workdir / "outputs" / "there").iterdir()
    there = Run(job_at(sweep, 0))
    assert there.timeless_rows == alone.timeless_rows and there.summary["test"] == alone.summary["test"]
    # as if the driver had been killed before its end: the same command goes on in that folder, and trains nothing again
    record = json.loads((sweep / "sweep.json").read_text())
    (sweep / "sweep.json").write_text(json.dumps(record | {"finished": False}))
    written = (job_at(sweep, 0) / "metrics.csv").stat().st_mtime_ns
    assert dltrain(*BRIEF, "launch=local", "name=there", "quiet=true") == 0
    assert list((workdir / "outputs" / "there").iterdir()) == [sweep]
    assert (job_at(sweep, 0) / "metrics.csv").stat().st_mtime_ns == written
    assert json.loads((sweep / "sweep.json").read_text())["finished"]


@pytest.mark.parametrize(
    "arguments, says",
    [
        ("launch=slrm", r"`launch=slrm` is no place to train. Did you mean `slurm`\?\nThere are: auto, local, ray, slurm, stacked"),
        ("launch.time=3", r"`launch.time=3` is a key of a place to train, and none is chosen. Add launch=slurm"),
        ("-m lr=0.1,0.2 launch=local", r"`launch=local` is for one run. With -m, write sweep.backend=local"),
        ("-m lr=0.1,0.2 launch.time=3", r"`launch.time=3` is for one run. With -m, write sweep.backend.time=3"),
        ("lr=0.1,0.2 launch=local", r"`lr=0.1,0.2` gives several values. To run each of them, add -m"),
        ("launch=local sweep.trials=3", r"`sweep.trials=3` is a setting of a sweep, and this is one run"),
        ("launch=local launch.tme=3", r"`launch.tme` is no key of launch=local"),
        ("launch=local lr=0.1 --cfg job", r"--cfg shows its configuration. Leave it out:\ndltrain lr=0.1"),
    ],
)  # fmt: skip
def test_what_launch_cannot_do_is_refused(dltrain, workdir, arguments, says):
    with pytest.raises(UserError, match=says):
        dltrain(*arguments.split())
    assert not (workdir / "outputs").exists()


def test_its_help_is_that_of_the_backends_under_its_own_name(dltrain, capsys):
    def page(*arguments: str) -> str:
        assert dltrain(*arguments, "--help") == 0
        return capsys.readouterr().out

    assert "slurm" in page("launch") and "sweep.backend" not in page("launch")
    assert "launch.time=" in page("launch=slurm")
    assert page("launch=slurm") == page("sweep.backend=slurm").replace("sweep.backend", "launch")
    with pytest.raises(UserError, match=r"`launch=slum`: there is no such word. Did you mean `slurm`\?"):
        dltrain("launch=slum", "--help")


def test_completion_offers_the_places():
    assert "launch=slurm" in candidates([], "launch=sl") and "launch=" in candidates([], "lau")
