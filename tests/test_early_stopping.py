"""Early stopping on recorded curves: which evaluation is the best, and when it stops."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, run_folders

from dltrain.early_stopping import KeepBest, Patience
from dltrain.errors import CheckpointProblem, NumericalFailure
from dltrain.report.findings import findings
from dltrain.report.record import read
from dltrain.run.failures import never_finite
from dltrain.sweep.outcome.notes import remark_notes
from dltrain.training.trainer import Trainer

CONF = Path(__file__).parents[1] / "conf" / "early_stopping"
NAN, INF = math.nan, math.inf

# keys, scores, index of the best evaluation, index at which it stops
CURVES = [
    ({"patience": 2}, [5, 4, 3, 2], 3, None),
    ({"patience": 2}, [5, 4, 4, 4, 1], 1, 3),
    ({"patience": 3}, [5, 4, 6, 4, 3, 7, 7, 7], 4, 7),
    ({"patience": 1}, [1, 1], 0, 1),
    ({"patience": 2, "mode": "max"}, [0.1, 0.5, 0.4, 0.3], 1, 3),
    ({"patience": 2}, [-1.0, -0.95, -0.9], 0, 2),
    ({"patience": 2, "min_delta": 0.1}, [-1.0, -0.95, -1.05], 2, 2),
    ({"patience": 2, "min_delta": 0.1, "mode": "max"}, [-1.0, -0.95, -0.85, -0.8, -0.8], 3, 4),
    ({"patience": 2, "min_delta": 0.5}, [5, 4.8, 4.4, 4.3, 4.2], 4, 4),  # the best is the best outright
    ({"patience": 2}, [NAN, NAN, 1], None, 1),
    ({"patience": 2}, [5, NAN, 4, NAN, NAN], 2, 4),
    ({"patience": 3, "mode": "max"}, [NAN, 5, NAN], 1, None),
    ({"patience": 2}, [INF, 5, INF, INF], 1, 3),
    ({"patience": 2, "smoothing": 0.5}, [4, 2, 6, 0, 8, 8], 3, 5),  # 4, 2.67, 4.57, 2.13, 5.16, 6.60
    (
        {"patience": 1, "smoothing": 0.9},
        [5, 4, 4.4, 4.3],
        1,
        None,
    ),  # two bad evaluations do not stop it: 5, 4.47, 4.45, 4.40
    ({"patience": 3, "smoothing": 0.5}, [4, NAN, 2], 2, None),  # NaN does not enter the average
    ({"patience": 2, "smoothing": 0.9, "mode": "max"}, [1, 3, 2, 2, 1, 0], 1, 3),  # 1, 2.053, 2.033, 2.024
]


@pytest.mark.parametrize(("keys", "scores", "best", "stop"), CURVES)
def test_best_and_stop_on_a_recorded_curve(keys, scores, best, stop):
    stopping, bests, stops = Patience(**keys), [], []
    for index, score in enumerate(scores):
        if stopping.observe({"val/loss": score}, step=10 * index):
            bests.append(index)
        if stopping.stop_reason:
            stops.append(index)
            break
    assert (bests[-1] if bests else None) == best
    assert stopping.best_step == (None if best is None else 10 * best)
    assert (stops[0] if stops else None) == stop


def test_the_reason_names_metric_count_and_best():
    stopping = Patience(patience=2)
    for step, score in enumerate([0.5, 0.6, 0.7]):
        stopping.observe({"val/loss": score}, step)
    assert stopping.stop_reason == "val/loss has not improved for 2 evaluations (best 0.5 at step 0)"


def test_the_reason_counts_evaluations_that_are_not_finite():
    stopping = Patience(patience=3)
    for score in (5, NAN, INF, 6):
        stopping.observe({"val/loss": score}, step=1)
    assert stopping.stop_reason == (
        "val/loss has not improved for 3 evaluations, 2 of them not a finite number (best 5 at step 1)"
    )
    resumed = Patience(patience=3)
    resumed.load_state_dict({k: v for k, v in stopping.state_dict().items() if k != "not_finite"})
    assert (resumed.stale, resumed.not_finite) == (3, 0)  # the state of an earlier version


NOTES = [
    (Patience(), ""),
    (KeepBest(), ""),
    (Patience(smoothing=0.9), "smoothing 0.9"),
    (Patience(smoothing=0.5, min_delta=0.01), "smoothing 0.5 and min_delta 0.01"),
]


@pytest.mark.parametrize(("stopping", "given"), NOTES)
def test_the_header_says_which_weights_are_kept(stopping, given):
    kept = f"{given} for stopping only; the weights of the best single evaluation are kept"
    assert stopping.note == (kept if given else "")


def test_the_header_of_a_run_says_which_weights_are_kept(dltrain, workdir, capsys):
    typed = ["model=linear", "steps=1", "early_stopping.min_delta=0.01"]
    assert dltrain(*typed) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "early stopping patience · min_delta 0.01 for stopping only; the weights of the best single" in shown
    )


@pytest.mark.parametrize("smoothing", [0.3, 0.9, 0.99])
def test_the_smoothed_score_is_the_weighted_mean_of_what_came_before(smoothing):
    scores = np.random.default_rng(0).normal(2.0, 1.0, 40)
    stopping = Patience(smoothing=smoothing)
    for t, score in enumerate(scores, start=1):
        weights = smoothing ** np.arange(t - 1, -1, -1, dtype=np.float64)
        assert stopping.smooth(float(score)) == pytest.approx(weights @ scores[:t] / weights.sum(), rel=1e-12)


def test_smoothing_decides_when_to_stop_and_not_what_is_best():
    stopping = Patience(patience=3, smoothing=0.9)
    for step, score in enumerate([1.0, 0.2, 0.9, 0.9, 0.9, 0.9]):
        stopping.observe({"val/loss": score}, step)
        if stopping.stop_reason:
            break
    # averages: 1, 0.579, 0.698, 0.757, 0.792
    assert (stopping.best, stopping.best_step, step) == (0.2, 1, 4)
    assert stopping.stop_reason == "smoothed val/loss has not improved for 3 evaluations (best 0.2 at step 1)"


def test_the_first_format_of_the_state_is_loaded_where_it_means_the_same():
    former = {
        "best": 0.5,
        "best_step": 10,
        "stop_reason": None,
        "reference": 0.5,
        "stale": 1,
        "smoothed": 0.7,
    }
    stopping = Patience(patience=3)
    stopping.load_state_dict(former)
    assert not stopping.observe({"val/loss": 0.6}, 20) and stopping.stop_reason is None
    assert stopping.observe({"val/loss": 0.4}, 30) and stopping.stale == 0
    with pytest.raises(CheckpointProblem, match="moving average .early_stopping.smoothing=0.9"):
        Patience(smoothing=0.9).load_state_dict(former)
    Patience(smoothing=0.9).load_state_dict(former | {"smoothed": None, "best": None, "reference": None})


def test_gap_is_the_distance_of_validation_and_training_loss():
    stopping = Patience(metric="gap", patience=1)
    stopping.observe({"val/loss": 1.0, "train/loss": 0.75}, 0)
    assert stopping.best == 0.25
    stopping.observe({"val/loss": 0.9, "train/loss": 0.25}, 1)
    assert stopping.stop_reason == "gap has not improved for 1 evaluations (best 0.25 at step 0)"


def test_gap_does_not_prefer_a_loss_that_falls_fast():
    # train/loss is the mean over an epoch, so that val/loss is far below it in the first ones
    rows = [(1.85, 1.12), (0.62, 0.41), (0.26, 0.2), (0.15, 0.16), (0.05, 0.2)]
    stopping = Patience(metric="gap")
    found = [stopping.observe({"train/loss": t, "val/loss": v}, i) for i, (t, v) in enumerate(rows)]
    assert found == [True, True, True, True, False] and stopping.best_step == 3


def test_tolerance_on_the_update():
    stopping = Patience(tolerance=1e-3)
    assert not stopping.converged(1e-2) and not stopping.converged(1e-3) and not stopping.converged(NAN)
    assert stopping.stop_reason is None
    assert stopping.converged(5e-4)
    assert stopping.stop_reason == "one step moved the weights by 0.0005, below tolerance 0.001"
    assert not Patience().converged(0.0) and not KeepBest().converged(0.0)


def test_none_keeps_the_best_and_never_stops():
    stopping = KeepBest(metric="val/accuracy", mode="max")
    scores = [0.1, NAN, 0.9, *[0.1] * 100]
    bests = [stopping.observe({"val/accuracy": score}, step) for step, score in enumerate(scores)]
    assert [index for index, best in enumerate(bests) if best] == [0, 2]
    assert (stopping.best, stopping.best_step, stopping.stop_reason) == (0.9, 2, None)


@pytest.mark.parametrize(("keys", "scores", "best", "stop"), CURVES)
def test_resumes_from_every_evaluation(keys, scores, best, stop):
    for cut in range(len(scores)):
        straight, resumed = Patience(**keys), Patience(**keys)
        for step, score in enumerate(scores):
            if step == cut:
                resumed.load_state_dict(json.loads(json.dumps(straight.state_dict())))
            expected = straight.observe({"val/loss": score}, step)
            if step >= cut:
                assert resumed.observe({"val/loss": score}, step) == expected
        assert str(resumed.state_dict()) == str(straight.state_dict())


def test_a_metric_that_is_not_measured_is_refused_with_the_nearest():
    row = {"epoch": 1, "val/loss": 0.5, "val/accuracy": 0.9}
    for stopping in (KeepBest(metric="val/acuracy", mode="max"), Patience(metric="val/acuracy", mode="max")):
        with pytest.raises(
            ValueError, match=r"'val/acuracy', .* one of epoch, .*gap; did you mean val/accuracy\?"
        ):
            stopping.observe(row, 0)
    with pytest.raises(
        ValueError, match=r"is 'zzz', which this run does not measure; it must be one of .*, gap$"
    ):
        KeepBest(metric="zzz", mode="min").observe(row, 0)
    with pytest.raises(ValueError, match="'train/loss', which this run does not measure"):
        Patience(metric="gap").observe(row, 0)


def test_a_metric_that_is_never_a_number_fails_the_run_and_names_the_way_out(workdir, dltrain, capsys):
    """The area under the curve of a validation split with one class. Before, the last weights were scored as the best."""
    rows = "".join(f"{i % 7},{i % 5},{'yes' if i % 3 else 'no'},train\n" for i in range(60))
    rows += "".join(f"{i % 7},{i % 5},yes,val\n" for i in range(12))
    (workdir / "one.csv").write_text("a,b,t,sp\n" + rows)
    words = [
        "dataset=csv",
        "dataset.path=one.csv",
        "dataset.target=t",
        "dataset.split_column=sp",
        "model=linear",
        "epochs=2",
    ]
    with pytest.raises(
        NumericalFailure,
        match="val/auroc is not a finite number in any evaluation.*\n.*early_stopping.metric=val/loss",
    ):
        dltrain(*words, "metrics=[auroc]", "early_stopping.metric=val/auroc")
    (folder,) = run_folders(workdir)
    assert json.loads((folder / "summary.json").read_text())["status"] == "failed"
    # the cure of a loss that is never finite must not name the loss again
    assert "early_stopping.metric" not in str(never_finite("val/loss"))
    assert dltrain(*words, "metrics=[auroc]", "early_stopping.metric=val/loss") == 0


# what was planned and begins after some steps -------------------------------------------------------------------------

SMALL = (
    "dataset.limit=200",
    "model.hidden=[4]",
    "lr=0.05",
    "epochs=40",
    "early_stopping.patience=2",
    "log.every_steps=null",
)
THAW = ("parameters.freeze=[layers]", "parameters.thaw_epoch=34")


@pytest.mark.parametrize(
    ("planned", "begins", "key"),
    [
        (("averaging=swa",), 4 * 31, "averaging=swa"),
        (("averaging=ema", "averaging.start_step=99"), 100, "averaging=ema"),
        (THAW, 4 * 34 + 1, "parameters.thaw_epoch=34"),
    ],
    ids=["swa", "ema", "thaw"],
)
def test_patience_waits_for_what_was_planned(train, planned, begins, key):
    """Four steps an epoch. Without the plan the run ends before; with it, two evaluations after the step at the earliest."""
    start = tuple(text for text in planned if "thaw" not in text and "averaging" not in text)
    assert train(*SMALL, *start).summary["steps"] < begins
    run = train(*SMALL, *planned)
    ended, best = run.summary["steps"], run.summary["best"]["step"]
    assert run.summary["status"] == "early_stopped" and ended >= begins + 4
    counted = [row for row in run.rows if row["step"] >= max(begins, best + 1)]
    assert len(counted) == 2
    remark = f"{key} is not in the best weights: it acts from step {begins} on, and they are of step {best:g}"
    assert run.summary.get("remarks", []) == [remark] * (best < begins)
    log = (run.path / "run.log").read_text()
    assert f"patience counts from step {begins} on ({key})" in log
    assert (f"[WARNING] {remark}" in log) == (best < begins)


def test_a_run_that_ends_before_its_average_says_that_it_had_none(train, dltrain, capsys):
    """A tolerance ends it at the first step; the weights are those of a run without averaging."""
    end = ("early_stopping.tolerance=1e6",)
    run, without = train(*SMALL, *end, "averaging=swa"), train(*SMALL, *end)
    (remark,) = run.summary["remarks"]
    assert remark == "averaging=swa had no effect: it acts from step 124 on, and the run ended after 1 step"
    assert without.summary["best"]["val/loss"] == run.summary["best"]["val/loss"]
    assert "remarks" not in without.summary
    capsys.readouterr()
    assert dltrain("show", run.path) == 0
    # long lines are wrapped
    assert remark in " ".join(capsys.readouterr().out.split())
    assert [finding.text for finding in findings(read(run.path)) if remark in finding.text] == [f"{remark}."]


def test_a_plan_from_the_first_step_on_changes_nothing_for_patience(train):
    run = train(*SMALL, "averaging=ema")
    best = run.summary["best"]["step"]
    assert run.summary["steps"] == best + 2 * 4
    assert "remarks" not in run.summary


def test_a_resumed_run_waits_as_well(train, dltrain, monkeypatch, workdir):
    whole = train(*SMALL, "averaging=swa")
    step = Trainer.observe

    def dying(self):
        step(self)
        if self.step == 60:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "observe", dying)
        with pytest.raises(KeyboardInterrupt):
            train(*SMALL, "averaging=swa", "name=cut", "checkpoint.every_steps=10")
    (file,) = workdir.glob("outputs/cut/*/config.yaml")
    dltrain("resume", file.parent)
    assert Run(file.parent).timeless_rows == whole.timeless_rows


def test_sweeps_and_comparisons_name_runs_whose_weights_lack_what_was_planned():
    said = {"remarks": ["averaging=swa had no effect", 3]}
    many = [(f"job {i}", {"remarks": [f"remark {i}"]}) for i in range(7)]
    assert remark_notes([("job 0", said), ("job 1", {}), ("job 2", said)]) == [
        "job 0, job 2: averaging=swa had no effect"
    ]
    assert remark_notes(many)[-1] == "2 more remarks of this kind (`remarks` in summary.json)"
