"""CPU threads by rule: chosen from the size of a step, saved with the run, and used again."""

from __future__ import annotations

from itertools import chain, repeat

import pytest
import torch
import yaml
from torch import nn

from dltrain import processors
from dltrain.run import build, experiment, machine
from dltrain.sweep.backends.slots import slots_of
from dltrain.training.cost import step_flops

BRIEF = ("steps=2", "early_stopping=none", "quiet=true", "model.hidden=[16]")


@pytest.fixture
def cores():
    """Two threads, as torch would choose on two cores; put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def config_of(run):
    return yaml.safe_load((run.path / "config.yaml").read_text())


@pytest.mark.usefixtures("cores")
def test_a_small_step_has_one_thread_and_a_large_one_all(train, monkeypatch):
    small = train(*BRIEF)
    assert (small.summary["threads"], config_of(small)["threads"]) == (1, 1)
    torch.set_num_threads(2)
    monkeypatch.setattr(machine, "SMALL_STEP", 0)
    large = train(*BRIEF)
    assert (large.summary["threads"], config_of(large)["threads"]) == (2, 2)


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize("knob", ["lr=auto", "batch_size=auto"])
def test_trials_of_auto_leave_the_threads_to_the_run(train, monkeypatch, knob):
    """The trials have small steps here, the run a large one."""
    flops = chain(repeat(0, {"lr=auto": 9, "batch_size=auto": 1}[knob]), repeat(1))
    monkeypatch.setattr(build, "step_flops", lambda *_: next(flops))
    monkeypatch.setattr(machine, "SMALL_STEP", 1)
    assert train(*BRIEF, knob).summary["threads"] == 2


@pytest.mark.usefixtures("cores")
def test_threads_that_are_asked_for_are_used(train):
    assert train(*BRIEF, "threads=2").summary["threads"] == 2


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize("saved", ["in config.yaml", "in summary.json, by an earlier version"])
def test_a_resumed_run_has_its_former_threads(train, dltrain, monkeypatch, saved):
    monkeypatch.setattr(machine, "SMALL_STEP", 0)
    with monkeypatch.context() as earlier_version:
        if saved != "in config.yaml":
            earlier_version.setattr(experiment, "with_threads", lambda config, threads: config)
        run = train(*BRIEF, "evaluation.every_steps=2")
    assert (run.summary["threads"], config_of(run)["threads"]) == (
        2,
        2 if saved == "in config.yaml" else None,
    )
    torch.set_num_threads(1)
    monkeypatch.setattr(machine, "SMALL_STEP", float("inf"))
    assert dltrain("resume", str(run.path), "steps=4") == 0
    assert run.summary["threads"] == 2


@pytest.mark.usefixtures("cores")
def test_a_repeated_run_has_its_former_threads(train, dltrain, workdir, monkeypatch):
    monkeypatch.setattr(machine, "SMALL_STEP", 0)
    run = train(*BRIEF)
    torch.set_num_threads(1)
    monkeypatch.setattr(machine, "SMALL_STEP", float("inf"))
    assert dltrain("rerun", str(run.path)) == 0
    (again,) = (path for path in run.path.parent.iterdir() if path != run.path)
    assert yaml.safe_load((again / "config.yaml").read_text())["threads"] == 2


def test_operations_of_a_step():
    """Two for each product and sum, of the layer and of its two gradients."""
    mlp = nn.Sequential(nn.Linear(64, 32, bias=False), nn.ReLU(), nn.Linear(32, 10, bias=False))
    assert step_flops(mlp, (64,), 5) == 3 * 2 * 5 * (64 * 32 + 32 * 10)
    convolution = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(8 * 28 * 20, 10, bias=False)
    )
    assert step_flops(convolution, (3, 28, 20), 5) == 3 * 2 * 5 * (28 * 20 * 8 * 27 + 8 * 28 * 20 * 10)


@pytest.mark.parametrize("asked, threads", [("", 4), ("1", 1), ("3", 3), ("16", 4), ("many", 4)])
def test_jobs_of_a_sweep_have_no_more_threads_than_omp_num_threads(monkeypatch, asked, threads):
    monkeypatch.setattr("dltrain.processors.cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert [slot.threads for slot in slots_of(2, [])] == [threads, threads]


def test_bf16_on_a_processor_without_it_is_announced(monkeypatch):
    """Flags of a Zen 3 and of a Sapphire Rapids; a system that lists none is not judged."""
    cpu = torch.device("cpu")
    for flags, slow in (("sse4_2 avx2 fma", True), ("avx512f avx512_bf16 amx_bf16", False), ("", False)):
        monkeypatch.setattr(processors, "processor_flags", lambda flags=flags: frozenset(flags.split()))
        assert bool(machine.slow_choices(cpu, "bf16")) is slow
        assert machine.slow_choices(cpu, "fp32") == ()
    monkeypatch.setattr(processors, "processor_flags", lambda: frozenset({"avx2"}))
    assert machine.slow_choices(torch.device("cuda"), "bf16") == ()
