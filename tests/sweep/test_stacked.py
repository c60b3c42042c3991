"""Runs that train together as one stacked model are those that they would be alone.

The tolerance that is promised is 1e-4, relative, on every number of metrics.csv; what is left of the difference comes
from the batched product, whose order of summation may be another one. On the machine of the first measurement it is 0.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import Run, every

from dltrain.config.compose import open_catalogue, open_hydra
from dltrain.config.door import Door, Rights, shipped_targets
from dltrain.errors import NumericalFailure
from dltrain.loggers.events import shown_name
from dltrain.run import experiment
from dltrain.storage.job_names import job_number
from dltrain.sweep.backends.stack import StackTask, Workers
from dltrain.sweep.backends.stacked import stack_key
from dltrain.sweep.backends.worker import Task
from dltrain.sweep.plan.composer import Composer
from dltrain.training.stack import Member, is_faster

TOLERANCE = 1e-4
COMMON = (
    "evaluation.test=false",
    "epochs=2",
    "dataset.limit=300",
    "model.hidden=[24,16]",
    "quiet=true",
    "threads=1",
)
OPTIMIZERS = (
    "sgd momentum nesterov adam adamw amsgrad adagrad adadelta adamax nadam radam rmsprop lion"
).split()
STACKS = {
    "optimizers": [[f"optimizer={word}", f"seed={i}"] for i, word in enumerate(OPTIMIZERS)],
    "whole_batches": [["optimizer=rprop", f"seed={i}"] for i in range(2)] + [["optimizer=gd"]],
    "rates": [["optimizer=momentum", f"lr={lr}", f"optimizer.momentum={m}", f"seed={seed}", "model.dropout=0.1"]
              for lr, m, seed in ((0.1, 0.5, 0), (0.01, 0.9, 0), (0.02, 0.9, 1))],
    "dropout": [["regularization=[dropout]", f"regularization.dropout.p={p}", f"seed={i}"]
                for i, p in enumerate((0.1, 0.5, 0.5))],
    "rules": [[f"regularization={words}", "optimizer=nesterov"] for words in (
        "[]", "[l1]", "[l1,max_norm]", "[l2,gradient_clipping]", "[elastic_net,gradient_noise]", "[weight_decay]")]
             + [["regularization=[weight_decay]", "regularization.weight_decay.mode=coupled", "optimizer=rmsprop"],
                ["regularization=[l1]", "regularization.l1.mode=subgradient"],
                ["optimizer.weight_decay=0.01"], ["optimizer.weight_decay=0.01", "parameters.decay_all=true"],
                ["parameters.lr_scale={head: 3}"]],
    "schedules": [["schedule=cosine"], ["schedule=linear"], ["schedule=plateau"], ["penalty_schedule=linear", "regularization=[l2]"],
                  ["momentum_schedule=linear", "optimizer=momentum"], ["initializer=kaiming_normal"], ["shuffle=replacement"],
                  ["sampler=none", "epochs=1"], ["early_stopping=none", "early_stopping.tolerance=1e-9"]],
    "stopping": [["epochs=6", f"lr={lr}", "early_stopping.patience=1", "early_stopping.min_delta=0.3", f"seed={i}"]
                 for i, lr in enumerate((0.01, 1e-4, 0.03))] + [["epochs=4"], ["steps=13"]],
    "smoothed": [["epochs=9", f"lr={lr}", "early_stopping.metric=val/accuracy", "early_stopping.patience=1",
                  f"early_stopping.smoothing={s}", "schedule=plateau", "schedule.metric=val/accuracy", "schedule.patience=1"]
                 for lr, s in ((0.01, 0.5), (0.1, 0.9), (0.3, 0.3))],
    "layer_norm": [["model.norm=layer", f"seed={i}", "model.dropout=0.2"] for i in range(3)],
    "linear": [["model=linear", "model.hidden=null", f"model.dropout={p}"] for p in (0.1, 0.3)],
    "deep_linear": [["model=deep_linear", "model.hidden=null", f"seed={i}"] for i in range(2)],
    "flips": [["augmentation=[flip]", f"seed={i}"] for i in range(2)],
    "mixed": [["augmentation=[mixup]", "regularization=[label_smoothing]", f"seed={i}"] for i in range(2)],
    "another_loss": [["loss=bce", "dataset.class_weights=balanced", "early_stopping.metric=val/objective", f"seed={i}"]
                     for i in range(2)],
    "balanced": [["sampler=balanced", f"lr={lr}"] for lr in (0.01, 0.001)],
    "bottleneck": [["model.hidden=[24,8,16]", "model.bottleneck=4", "model.activation=gelu", f"seed={i}"] for i in range(2)],
    "clips": [["regularization=[gradient_clipping]", f"regularization.gradient_clipping.mode={m}"] for m in ("value", "adaptive")],
    "gap": [["early_stopping.metric=gap", f"seed={i}"] for i in range(2)],
    "standardized": [["dataset=csv", "dataset.path=table.csv", "dataset.target=y", f"seed={i}"] for i in range(2)],
    "regression": [["dataset=diabetes", f"seed={i}"] for i in range(2)],
    "by_steps": [["evaluation.every_steps=2", "evaluation.every_epochs=null", "steps=5", f"seed={i}"] for i in range(2)],
}  # fmt: skip


@pytest.fixture(scope="module")
def composer():
    catalogue = open_catalogue()
    return Composer(catalogue, open_hydra(catalogue))


def tasks_of(composer: Composer, folder: Path, runs: list[list[str]]) -> tuple[Task, ...]:
    targets = frozenset(shipped_targets(composer.catalogue))
    tasks = []
    for number, own in enumerate(runs):
        keys = {text.partition("=")[0] for text in own}
        kept = [text for text in COMMON if text.partition("=")[0] not in keys]
        overrides = [*kept, *(text for text in own if not text.endswith("=null") or "every" in text)]
        if "steps" in keys:
            overrides.remove("epochs=2")
        path = folder / str(number)
        path.mkdir(parents=True)
        config = composer.config(overrides)
        tasks.append(
            Task(number, path, config, Rights(frozenset(targets)), "", tuple(overrides), str(folder), False)
        )
    return tuple(tasks)


def train_together(tasks: tuple[Task, ...], folder: Path, always: bool = True) -> dict[int, tuple[int, str]]:
    """The outcome of each run: its exit code and the reason."""
    ours, theirs = multiprocessing.Pipe()
    said = []

    def listen() -> None:
        try:
            while True:
                said.append(ours.recv())
        except EOFError:
            pass

    listener = threading.Thread(target=listen)
    listener.start()
    workers = Workers(StackTask(tasks, folder / "log", always), theirs)
    workers.prepare(time.perf_counter())
    if workers.worth_it():
        workers.train()
    theirs.close()
    listener.join()
    return {number: tuple(news) for number, event, *news in said if event == "ended"}


def train_alone(task: Task, folder: Path) -> Run:
    folder.mkdir(parents=True)
    door = task.rights.door([])
    experiment.run(experiment.prepare(task.config, door, "", list(task.overrides), {}), folder)
    return Run(folder)


def assert_close(left, right, tolerance=TOLERANCE):
    if isinstance(left, torch.Tensor):
        assert left.shape == right.shape and left.dtype == right.dtype
        torch.testing.assert_close(left, right, rtol=tolerance, atol=1e-6, equal_nan=True)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_close(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_close(a, b)
    elif isinstance(left, float):
        assert left == pytest.approx(right, rel=tolerance, abs=1e-6, nan_ok=True)
    else:
        assert left == right


def timeless(state):
    row = {k: v for k, v in state["best_row"].items() if k not in ("seconds", "images_per_second")}
    return state | {"seconds": 0.0, "best_row": row, "stop": None}


@pytest.mark.parametrize("name", every(5, STACKS))
def test_a_run_in_a_stack_equals_the_run_alone(name, composer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("table.csv").write_text("x,y\n" + "".join(f"{i % 7}.5,{1.7e9 + i * i}\n" for i in range(400)))
    tasks = tasks_of(composer, tmp_path / "together", STACKS[name])
    assert len({stack_key(task.config) for task in tasks}) == 1, "they could not share a stack"
    outcomes = train_together(tasks, tmp_path)
    for task in tasks:
        assert outcomes[task.number] == (0, "")
        together, alone = Run(task.folder), train_alone(task, tmp_path / "alone" / str(task.number))
        assert_close(together.timeless_rows, alone.timeless_rows)
        assert_close(together.best_weights, alone.best_weights)
        assert_close(timeless(together.last_state()), timeless(alone.last_state()))
        for key in ("status", "best_epoch", "steps", "epochs", "parameters", "seed", "test"):
            assert together.summary[key] == alone.summary[key]
        for file in ("data.json", "checkpoints/normalization.safetensors"):
            assert [(p / file).read_bytes() for p in (task.folder, alone.path) if (p / file).is_file()] in (
                [],
                2 * [(alone.path / file).read_bytes()],
            )
        left = {shown_name(f.name) for f in task.folder.iterdir()}
        assert left - {"run.log"} == {shown_name(f.name) for f in alone.path.iterdir()} - {"run.log"}
        log = (task.folder / "run.log").read_text()
        assert log.count("train/loss=") == len(together.rows)


def test_a_run_that_diverges_leaves_the_others_alone(composer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [["optimizer=sgd", f"lr={lr}"] for lr in ("0.1", "1e30", "0.05")]
    tasks = tasks_of(composer, tmp_path / "together", runs)
    outcomes = train_together(tasks, tmp_path)
    assert [outcomes[i][0] for i in range(3)] == [0, 5, 0]
    assert "not finite at step" in outcomes[1][1]
    with pytest.raises(NumericalFailure) as alone:
        train_alone(tasks[1], tmp_path / "alone" / "1")
    assert str(alone.value) == outcomes[1][1]
    failed = Run(tasks[1].folder)
    assert failed.summary["status"] == "failed"
    assert "Traceback" in (tasks[1].folder / "run.log").read_text()
    for i in (0, 2):
        reference = train_alone(tasks[i], tmp_path / "alone" / str(i))
        assert_close(Run(tasks[i].folder).timeless_rows, reference.timeless_rows)


def resume(task: Task) -> Run:
    """What `dltrain resume` does with the folder of a job."""
    built = experiment.prepare(task.config, task.rights.door([]), "", list(task.overrides), {}, task.folder)
    experiment.run(built, task.folder, resume=True)
    return Run(task.folder)


@pytest.mark.parametrize("own", [["optimizer=adam"], ["optimizer=rmsprop", "regularization=[dropout,l1]"]])
def test_a_run_of_a_stack_is_taken_up_alone(own, composer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tasks = tasks_of(composer, tmp_path / "together", [[*own, "epochs=3", f"seed={i}"] for i in range(2)])
    observe = Member.observe

    def signalled(member):
        if member.step == 7:  # a signal comes for the whole process
            member.signals.received = signal.SIGINT
        observe(member)

    monkeypatch.setattr(Member, "observe", signalled)
    outcomes = train_together(tasks, tmp_path)
    assert [outcomes[i][0] for i in range(2)] == [130, 130]
    for task in tasks:
        assert Run(task.folder).summary["status"] == "interrupted"
        resumed, alone = resume(task), train_alone(task, tmp_path / "alone" / str(task.number))
        assert_close(resumed.timeless_rows, alone.timeless_rows)
        assert_close(resumed.best_weights, alone.best_weights)


def test_a_job_that_another_process_has_trained_meanwhile_is_left_as_it_is(composer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tasks = tasks_of(composer, tmp_path / "together", [["epochs=2", f"seed={i}"] for i in range(3)])
    built = experiment.prepare(tasks[0].config, tasks[0].rights.door([]), "", list(tasks[0].overrides), {})
    experiment.run(built, tasks[0].folder)
    before = (tasks[0].folder / "metrics.csv").read_text()
    assert sorted(train_together(tasks, tmp_path)) == [1, 2]
    assert (tasks[0].folder / "metrics.csv").read_text() == before


def test_a_run_that_fails_in_a_stack_keeps_its_best_weights(composer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tasks = tasks_of(composer, tmp_path / "together", [[f"seed={i}"] for i in range(2)])
    monkeypatch.setattr(Member, "judge", spoiled(Member.judge, at=2))
    outcomes = train_together(tasks, tmp_path)
    assert [outcomes[i] for i in range(2)] == [(1, "RuntimeError: spoiled"), (0, "")]
    assert list((tasks[0].folder / "checkpoints").glob("step-*5/manifest.json"))


def spoiled(judge, at: int):
    """An error in the second evaluation of the first run."""

    def act(member, row):
        judge(member, row)
        if row["epoch"] == at and member.plan.seed == 0:
            raise RuntimeError("spoiled")

    return act


ALONE = {
    "a convolution": ["model=cnn", "model.hidden=null"],
    "an optimizer that looks at the loss again": ["optimizer=lbfgs"],
    "an optimizer of matrices": ["optimizer=muon"],
    "a wrap": ["wrap=[sam]"],
    "averaging": ["averaging=ema"],
    "bf16": ["precision=bf16"],
    "lr=auto": ["lr=auto"],
    "skipping": ["non_finite=skip"],
    "frozen layers": ["parameters.freeze=[layers.0]"],
    "hard samples": ["sampler=hard"],
    "batch norm, whose idle biases follow rounding errors": ["model.norm=batch"],
    "residual": ["model.residual=true"],
    "diagnostics": ["diagnostics=[layers]"],
}  # fmt: skip


@pytest.mark.parametrize("own", ALONE.values(), ids=ALONE)
def test_what_is_not_offered_has_a_process_of_its_own(own, composer):
    assert stack_key(composer.config([text for text in own if not text.endswith("null")])) is None


def test_what_must_be_equal_in_a_stack(composer):
    key = stack_key(composer.config([]))
    for own in (["model.hidden=[8]"], ["batch_size=32"], ["dataset=iris"], ["dataset.split_seed=1"], ["folds=5", "fold=1"],
                ["loss.label_smoothing=0.1"], ["model.dropout=0.1"]):  # fmt: skip
        assert stack_key(composer.config(own)) not in (None, key), own


def test_a_large_step_does_not_pay(composer):
    door = Door(shipped_targets(composer.catalogue), [])
    for overrides, expected in (([], True), (["model.hidden=[1024,1024]", "batch_size=256"], False)):
        built = experiment.prepare(composer.config(overrides), door, "", overrides, {})
        assert is_faster(built.parts.model, built.plan) is expected


# In a sweep -------------------------------------------------------------------------------------------------------


def jobs_of(workdir: Path) -> dict[int, Run]:
    return {job_number(f.parent.name): Run(f.parent) for f in workdir.glob("outputs/*/*/*/summary.json")}


@pytest.mark.ci
def test_a_sweep_in_stacks_equals_the_sweep_in_processes(workdir, dltrain):
    # one slot: with as many as jobs, each job would be a stack of one
    axes = (
        "-m",
        "lr=0.01,0.003",
        "seed=0,1",
        "epochs=2",
        "quiet=true",
        "threads=1",
        "model.hidden=[16]",
        "sweep.jobs=1",
    )
    assert dltrain(*axes, "sweep.backend=local", "output=alone") == 0
    assert dltrain(*axes, "sweep.backend=stacked") == 0
    together = jobs_of(workdir)
    alone = {job_number(f.parent.name): Run(f.parent) for f in workdir.glob("alone/*/*/*/summary.json")}
    assert len(list(workdir.glob("outputs/*/*/stacks.log"))) == 1
    assert not list(workdir.glob("alone/*/*/stacks.log"))
    assert sorted(together) == sorted(alone) == [0, 1, 2, 3]
    for number, run in together.items():
        assert_close(run.timeless_rows, alone[number].timeless_rows)


@pytest.mark.slow
def test_when_a_stack_is_killed_its_jobs_run_alone(workdir, dltrain):
    found: list[int] = []

    def kill_stack() -> None:
        log = "stacks.log"
        while not found:
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    if os.readlink(process / "fd" / "1").endswith(log) and str(workdir) in os.readlink(
                        process / "fd/1"
                    ):
                        found.append(int(process.name))
                except OSError:
                    continue
            time.sleep(0.01)
        os.kill(found[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_stack, daemon=True)
    killer.start()
    axes = (
        "-m",
        "seed=0,1,2",
        "epochs=8",
        "early_stopping=none",
        "quiet=true",
        "model.hidden=[16]",
        "sweep.jobs=1",
    )
    assert dltrain(*axes, "sweep.backend=stacked") == 0
    assert found
    assert {run.summary["status"] for run in jobs_of(workdir).values()} == {"completed"}


@pytest.mark.slow
def test_pruning_reaches_the_runs_of_a_stack(workdir, dltrain):
    dltrain("-m", "lr=0.003,1e-7,1e-8,1e-9", "epochs=9", "sweep.pruner=asha", "quiet=true", "sweep.jobs=1",
            "sweep.backend=stacked", "model.hidden=[16]")  # fmt: skip
    status = [run.summary["status"] for _, run in sorted(jobs_of(workdir).items())]
    assert status[0] == "completed" and "pruned" in status
    assert json.loads(next(workdir.glob("outputs/*/*/sweep.json")).read_text())["finished"]
