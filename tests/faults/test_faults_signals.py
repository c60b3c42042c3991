"""Rows 4 to 7: signals. They are noted, the step is finished, all is saved, and the exit code is the signal's."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import InTerminal, Run
from faults import EVERYTHING, at_step, checkpoints, equal, everything, golden_run, only_run

from dltrain.cli import main
from dltrain.run import experiment
from dltrain.storage import checkpoint as checkpoints_module
from dltrain.storage.run_folder import RunFolder
from dltrain.sweep import sweep
from dltrain.training import signals
from dltrain.training.diagnosis import Diagnosis
from dltrain.training.signals import Interrupted, InterruptedWhenDone, Signals
from dltrain.training.validation import Validation


@pytest.fixture(autouse=True, scope="module")
def _trained_before_a_test_patches_anything() -> None:
    everything()


def send(*numbers):
    return lambda trainer: [os.kill(os.getpid(), number) for number in numbers]


@pytest.mark.parametrize(
    "number, code",
    [
        (signal.SIGTERM, 143),
        (signal.SIGINT, 130),
        (signal.SIGHUP, 129),
        (signal.SIGUSR1, 75),
        (signal.SIGUSR2, 75),
    ],
)
# in mid-epoch, before the first checkpoint, at a validation
@pytest.mark.parametrize(
    "step", [25, pytest.param(1, marks=pytest.mark.ci), pytest.param(42, marks=pytest.mark.ci)]
)
def test_04_05_07_signal_saves_at_the_step_and_resume_equals_golden(
    dltrain, workdir, capsys, number, code, step
):
    former = signal.getsignal(number)  # a shell lets its background jobs ignore SIGINT
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, step, send(number))
        with pytest.raises(SystemExit) as ended:
            main([*EVERYTHING, "name=cut"])
    run = only_run(workdir, "cut")
    assert ended.value.code == code
    assert capsys.readouterr().err == (
        f"dltrain: {number.name} after step {step}: everything is saved. Go on with: dltrain resume {run.path.relative_to(workdir)}\n"
    )
    assert run.summary["status"] == "interrupted"
    assert checkpoints(run)[0].name == f"step-{step:08d}"
    assert signal.getsignal(number) == former, "the handler is put back"
    dltrain("resume", run.path)
    equal(run, everything()[0])


@pytest.fixture(autouse=True)
def hangups_arrive():
    """Also where the tests themselves run under nohup."""
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, former)


def test_hangup_under_nohup_is_ignored(dltrain, workdir, monkeypatch):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    at_step(monkeypatch, 25, send(signal.SIGHUP))
    assert dltrain(*EVERYTHING, "name=cut") == 0
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    run = only_run(workdir, "cut")
    assert run.summary["status"] == "completed"
    equal(run, everything()[0])


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_request_to_end_ends_at_once(monkeypatch, first, second):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with Signals() as signals:
        os.kill(os.getpid(), first)
        assert not codes
        os.kill(os.getpid(), second)
    assert codes == [128 + second]
    assert signals.interruption(1, "x").exit_code == 128 + first


def test_a_signal_while_the_folder_is_being_opened_leaves_no_run_that_runs_for_ever(
    dltrain, workdir, monkeypatch
):
    """The summary says `running` before the first step; a signal between the two ended the process."""
    write = RunFolder.write_summary

    def write_and_hang_up(self, summary):
        write(self, summary)
        if summary["status"] == "running":
            os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(RunFolder, "write_summary", write_and_hang_up)
    with pytest.raises(Interrupted):
        dltrain(*EVERYTHING, "name=cut")
    assert only_run(workdir, "cut").summary["status"] == "interrupted"


def test_a_closed_terminal_saves_the_run(workdir):
    """It writes to a terminal that is gone: an error of that must not take the place of the save."""
    code = (
        "import dltrain.training.trainer as t, time\n"
        "original = t.Trainer.observe\n"
        "def observe(self):\n"
        "    if self.step == 30: print('step 30', flush=True)\n"
        "    if self.step > 30: time.sleep(0.01)\n"
        "    original(self)\n"
        "t.Trainer.observe = observe\n"
        "from dltrain.cli import main\nmain()\n"
    )
    loud = [text for text in EVERYTHING if text not in ("quiet=true", "steps=60")]
    program = InTerminal("-c", code, *loud, "steps=5000", "name=cut")
    program.wait_for(lambda: b"step 30" in program.printed)
    assert program.close() == 129
    run = only_run(workdir, "cut")
    assert run.summary["status"] == "interrupted"
    assert run.summary["stop_reason"].startswith("SIGHUP after step")
    assert checkpoints(run)[0].name == f"step-{run.summary['steps']:08d}"


def test_05_second_interrupt_ends_the_process_at_once_and_leaves_the_checkpoints(workdir):
    code = (
        "import os, signal, time, dltrain.storage.checkpoint as c, dltrain.training.trainer as t\n"
        "original = t.Trainer.observe\n"
        "def observe(self):\n"
        "    if self.step == 30:\n"
        "        c.save = lambda *a: time.sleep(600)\n"  # a save that hangs
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        print('saving', flush=True)\n"
        "    original(self)\n"
        "t.Trainer.observe = observe\n"
        "from dltrain.cli import main\nmain()\n"
    )
    command = [sys.executable, "-c", code, *EVERYTHING, "name=cut"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "saving\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130, "it waited for the save"
    newest = checkpoints_module.newest(only_run(workdir, "cut").path / "checkpoints")
    assert newest is not None
    assert newest.manifest["step"] >= 10


@pytest.mark.parametrize("background", ["true", "false"])
def test_06_signal_during_a_save_lets_it_complete(dltrain, workdir, monkeypatch, background):
    saves = []
    original = RunFolder._save

    def save(self, step, *rest):
        assert not saves or saves[-1] == "done", "a save inside of a save"
        saves.append(step)
        if step == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, step, *rest)
        saves.append("done")

    monkeypatch.setattr(RunFolder, "_save", save)
    with pytest.raises(Interrupted):
        dltrain(*EVERYTHING, f"checkpoint.background={background}", "name=cut")
    run = only_run(workdir, "cut")
    assert 20 in saves and saves[-1] == "done"
    dltrain("resume", run.path)
    equal(run, everything()[0])


def test_signal_after_the_last_step_lets_the_run_complete(dltrain, workdir, monkeypatch):
    """The exit code is that of the signal, so that a loop of runs ends."""
    at_step(monkeypatch, 60, send(signal.SIGTERM))
    with pytest.raises(InterruptedWhenDone, match="SIGTERM at the end of the run: it is complete") as ended:
        dltrain(*EVERYTHING, "name=cut")
    assert ended.value.exit_code == 143
    assert only_run(workdir, "cut").summary["status"] == "completed"


def test_notices_do_not_count_as_the_second_interrupt():
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
    assert signals.received is signal.SIGUSR1
    assert signals.interruption(3, "x").exit_code == 75


def test_resume_of_a_folder_of_runs_takes_the_newest(dltrain, workdir):
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 25, send(signal.SIGUSR1))
        with pytest.raises(Interrupted):
            dltrain(*EVERYTHING, "name=cut")
    assert dltrain("resume", "outputs/cut") == 0
    assert Run(only_run(workdir, "cut").path).summary["status"] == "completed"


THOROUGH = (
    "dataset.limit=120 batch_size=16 steps=21 evaluation.every_steps=7 model=cnn model.channels=[4] model.norm=batch averaging=ema "
    "early_stopping.tolerance=1e-9 diagnostics=[layers,surface] diagnostics.surface.points=3 "
    "evaluation.test=true checkpoint.every_steps=4 quiet=true"
).split()
PHASES = {
    "the statistics of batch norm": (Validation, "set_statistics", 1),
    "validation": (Validation, "score", 1),
    "diagnostics": (Diagnosis, "columns", 1),
    "the last validation": (Validation, "score", 3),
    "scoring the test split": (Validation, "score", 4),
    "drawing the surface of the loss": (Diagnosis, "draw", 1),
}


@pytest.fixture(scope="module")
def thorough(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("thorough"))
        return golden_run(Path.cwd(), *THOROUGH)


@pytest.mark.parametrize(
    "phase",
    [
        phase if phase == "validation" or "test" in phase else pytest.param(phase, marks=pytest.mark.ci)
        for phase in PHASES
    ],
)
def test_a_signal_ends_what_takes_long_between_steps(phase, dltrain, workdir, monkeypatch, thorough):
    """At the next forward pass, once it has waited; resume evaluates the step that was not, from the same state."""
    owner, name, which = PHASES[phase]
    original, calls, passes = getattr(owner, name), [], []

    def interrupted(self, *arguments, **keys):
        calls.append(name)
        if len(calls) == which:
            os.kill(os.getpid(), signal.SIGTERM)
            self.parts.model.register_forward_hook(lambda *_: passes.append(phase))
        return original(self, *arguments, **keys)

    monkeypatch.setattr(signals, "GRACE", 0.0)
    with monkeypatch.context() as patch, pytest.raises(Interrupted) as ended:
        patch.setattr(owner, name, interrupted)
        dltrain(*THOROUGH, "name=cut")
    run = only_run(workdir, "cut")
    assert ended.value.exit_code == 143
    assert not passes
    assert run.summary["status"] == "interrupted"
    assert dltrain("reproduce", run.path) == 0
    dltrain("resume", run.path)
    equal(run, thorough)


def test_an_evaluation_that_ends_within_the_grace_is_completed():
    model = torch.nn.Identity()
    with Signals() as heard, heard.ending(model):
        os.kill(os.getpid(), signal.SIGTERM)
        model(torch.zeros(1))
        heard.deadline -= signals.GRACE
        with pytest.raises(signals.Overdue):
            model(torch.zeros(1))
    model(torch.zeros(1))


# The end of a run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 0)])
def test_a_signal_at_the_end_is_named(dltrain, workdir, monkeypatch, capsys, number, code):
    """The run was complete and its exit code 0, as if nobody had asked for the end: a loop of runs went on."""
    original = experiment.write_report

    def report(*arguments):
        os.kill(os.getpid(), number)
        original(*arguments)

    monkeypatch.setattr(experiment, "write_report", report)
    with pytest.raises(SystemExit) as ended:
        main(["model=linear", "steps=3", "quiet=true", "name=cut"])
    run = only_run(workdir, "cut")
    assert ended.value.code == code
    assert run.summary["status"] == "completed"
    (line,) = capsys.readouterr().err.splitlines()
    where = run.path.relative_to(workdir)
    assert (
        line
        == f"dltrain: {number.name} at the end of the run: it is complete in {where}, and nothing is left to do"
    )


def test_a_signal_ends_what_takes_long_at_the_end(dltrain, workdir, monkeypatch):
    """Not only forward passes: writing reports took as long as it did. A resume does it again."""
    asleep = []

    def long(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            asleep.append(time.sleep(0.01))

    monkeypatch.setattr(signals, "GRACE", 0.03)
    with (
        monkeypatch.context() as patch,
        pytest.raises(Interrupted, match="SIGTERM after step 3: .*saved") as ended,
    ):
        patch.setattr(experiment, "write_report", long)
        dltrain("model=linear", "steps=3", "quiet=true", "name=cut")
    assert ended.value.exit_code == 143
    assert len(asleep) < 500
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    run = only_run(workdir, "cut")
    assert run.summary["status"] == "interrupted"
    assert dltrain("resume", run.path) == 0
    assert run.summary["status"] == "completed"
    assert (run.path / "per_class.csv").is_file()


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_a_sweep_writes_its_results(dltrain, workdir, monkeypatch, capsys, number, code):
    """SIGTERM killed the driver without a word, after sweep.json said that the sweep is finished."""
    typed = ["-m", "seed=0,1", "model=linear", "steps=2", "quiet=true", "sweep.jobs=1", "name=cut"]
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sweep, "write_report", lambda *_: os.kill(os.getpid(), number))
        main(typed)
    assert ended.value.code == code
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    (folder,) = (workdir / "outputs" / "cut").iterdir()
    assert line.startswith(
        f"dltrain: {number.name} while the results of the sweep were written. The same command writes them, or: "
    )
    assert not (folder / "report.html").exists()
    assert dltrain(*typed) == 0
    assert [found.name for found in (workdir / "outputs" / "cut").iterdir()] == [folder.name]
    assert (folder / "report.html").is_file()


def test_the_end_of_the_process_does_not_collect_garbage(monkeypatch, capsys):
    """It took 0.8 s of CPU after the last line was printed, 0.2 s now: a third of the time that a signal has."""
    registered = []
    monkeypatch.setattr("dltrain.cli.atexit.register", registered.append)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert gc.freeze in registered


@pytest.mark.parametrize(
    "words", [("optimizer=lbfgs",), ("optimizer=adam", "wrap=[sam]", "sampler=hard")], ids=" ".join
)
def test_07_a_signal_gives_up_a_long_step_and_resume_takes_it_again(dltrain, workdir, monkeypatch, words):
    """A step of L-BFGS on a large batch took 40 s, for which the signal waited."""
    from dltrain.training import long_steps
    from dltrain.training.objective import Objective

    arguments = (
        *words,
        "dataset.limit=300",
        "steps=9",
        "evaluation.every_steps=3",
        "early_stopping=none",
        "quiet=true",
    )
    golden = golden_run(workdir, *arguments)
    evaluate = Objective.loss_gradient

    def slow(self):
        value = evaluate(self)
        if self.step == 2 and self.calls == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Objective, "loss_gradient", slow)
        patch.setattr(signals, "GRACE", -1.0)
        patch.setattr(long_steps, "GRACE", -1.0)
        with pytest.raises(Interrupted):
            dltrain(*arguments, "name=cut")
    run = only_run(workdir, "cut")
    assert run.summary["status"] == "interrupted"
    assert checkpoints_module.newest(run.path / "checkpoints").manifest["step"] == 2
    dltrain("resume", str(run.path))
    equal(only_run(workdir, "cut"), golden)
