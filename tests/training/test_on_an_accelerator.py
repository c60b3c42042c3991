"""Every word on the pretended accelerator: no tensor on the wrong device, and no wait for it between log points.

The waits that a choice needs are those of the table in docs/speed.md, which is read here.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pretend_device
import pytest
import torch
from conftest import Run, run_folders
from covering import TOLD, Row, Words
from test_together import GIVEN, catalogue_words, stand_in, write_files

from dltrain.cli import dispatch
from dltrain.config.catalogue import Catalogue
from dltrain.config.search_path import catalogue_dir
from dltrain.data.batches import prefetched
from dltrain.errors import NumericalFailure
from dltrain.storage.job_names import job_folders
from dltrain.training.guard import DeviceGuard
from dltrain.training.signals import Interrupted
from dltrain.training.state import Checkpoints
from dltrain.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
STEPS, EPOCHS, CUT = 6, 2, 3
LIMIT = f"steps={STEPS} batch_size=16 dataset.limit=64 evaluation.every_steps={STEPS} log.every_steps=3 threads=1 quiet=true"
DEFAULTS = {
    "dataset": "digits",
    "model": "mlp",
    "optimizer": "adam",
    "loss": "auto",
    "initializer": "default",
    "early_stopping": "patience",
}
COMPANIONS = {f"metrics={word}": {"dataset": "diabetes"} for word in "mae mape r2 rmse spearman".split()}
WORDS = Words(catalogue_words())
# Groups whose words are not combined by `covering`: what each needs to be short
ALONE = {
    "logger=tensorboard": "",
    "debug=fast": "",
    "debug=overfit": "steps=6 epochs=null",
    "experiment=digits_mlp": "steps=6 epochs=null",
    "experiment=mnist_cnn": "steps=6 epochs=null",
    "experiment=cifar10_resnet20": "steps=6 epochs=null model.width=4",
    "experiment=tabular": "steps=6 epochs=null",
}
# packages that tests do not have; a profiler that holds the weights, which the tool replaces; initializer=pretrained
NOT_TRIED = {"logger=mlflow", "logger=wandb", "debug=profile", "experiment=fine_tune"}
CASES = [f"{group}={word}" for group, words in WORDS.words.items() for word in words if word != "none"]


def row_of(group: str, word: str) -> Row:
    """Return a word with the default words beside it, or the first that may stand there."""
    row = {group: word, **COMPANIONS.get(f"{group}={word}", {})}
    for other in WORDS.words:
        if other not in row:
            allowed = WORDS.allowed(row, other)
            default = DEFAULTS.get(other, "none")
            row[other] = default if default in allowed else allowed[0]
    return row


def arguments_of(case: str) -> list[str]:
    row = row_of(*case.split("="))
    chosen = [f"{group}={word}" for group, word in row.items()]
    told = [text for pair, text in TOLD.items() if set(pair) <= set(chosen)]
    given = [GIVEN[choice] for choice in chosen if choice in GIVEN]
    named = [
        text for group, text in zip(row, chosen, strict=True) if row[group] != DEFAULTS.get(group, "none")
    ]
    return " ".join([LIMIT, *named, *given, *told]).split()


def allowed_waits(text: str) -> float:
    """Return the most waits of a run, from a cell such as `1 a step`, `several a step`, `1 an epoch`."""
    number, each = re.fullmatch(r"(\d+|several) an? (step|epoch)", text).groups()
    return float("inf") if number == "several" else int(number) * (STEPS if each == "step" else EPOCHS)


def table_of_waits() -> dict[str, str]:
    section = (
        (ROOT / "docs/speed.md").read_text().partition("\n## Waits for the device\n")[2].partition("\n## ")[0]
    )
    return dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", section, re.M))


WAITS = table_of_waits()


@contextmanager
def between_log_points() -> Iterator[list[str]]:
    """Yield the list of waits in the loop, without those at log points, evaluations and checkpoints."""
    reads, found = pretend_device.reads, list[str]()

    def following(original: Callable[..., Any], kept: Callable[[Any], bool | None]) -> Callable[..., Any]:
        def call(self: Any, *arguments: Any) -> Any:
            start, keeps = len(reads), kept(self)
            try:
                return original(self, *arguments)
            finally:
                if keeps is not None:
                    found.extend(reads[start:] if keeps else ())
                    del reads[start:]

        return call

    def at_log_point(trainer: Trainer) -> bool | None:
        every = trainer.plan.log_every
        return False if every and trainer.step % every == 0 else None

    places: list[tuple[type, str, Callable[[Any], bool | None]]] = [
        (Trainer, "train_epoch", lambda _: True),
        (Trainer, "evaluate_and_judge", lambda _: False),
        (Checkpoints, "save", lambda _: False),
        (Trainer, "log", at_log_point),
    ]
    with ExitStack() as stack:
        for owner, name, kept in places:
            stack.enter_context(patch.object(owner, name, following(getattr(owner, name), kept)))
        yield found


def waits_of(*arguments: str) -> list[str]:
    with pretend_device.accelerator(), between_log_points() as found:
        assert dispatch([*arguments]) == 0
    return found


def interrupted(arguments: list[str]) -> list[str]:
    """Train until a signal after step `CUT`; return the waits."""
    original = Trainer.observe

    def observe(self: Trainer) -> None:
        # not in a trial of lr=auto, as study problems have, which a signal ends without a run
        if self.step == CUT and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self)

    with (
        pretend_device.accelerator(),
        between_log_points() as found,
        patch.object(Trainer, "observe", observe),
        pytest.raises(Interrupted),
    ):
        dispatch(arguments)
    return found


@pytest.fixture
def folder(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    stand_in(monkeypatch)
    write_files(workdir)
    return workdir


def check(case: str, found: list[str]) -> None:
    if case in WAITS:
        assert 0 < len(found) <= allowed_waits(WAITS[case]), f"docs/speed.md: {WAITS[case]}"
    else:
        assert found == [], "a wait; remove it, or list the choice in docs/speed.md"


@pytest.mark.parametrize(
    "case",
    [case if case == "optimizer=nadam" else pytest.param(case, marks=pytest.mark.slow) for case in CASES],
)
def test_every_word_trains_resumes_evaluates_and_predicts(case, folder):
    arguments = arguments_of(case)
    if case == "initializer=pretrained":
        assert dispatch([*arguments_of("initializer=zeros"), "name=first"]) == 0
        arguments.append(f"initializer.path={next(folder.glob('outputs/first/*'))}")
    found = interrupted([*arguments, "name=here"])
    (run,) = folder.glob("outputs/here/*")
    found += waits_of("resume", str(run))
    check(case, found)
    if "dataset=none" not in arguments:
        waits_of("evaluate", str(run))
    if "dataset=" not in " ".join(arguments):
        np.save(folder / "inputs.npy", np.zeros((3, 8, 8), dtype=np.float32))
        waits_of("predict", str(run), "inputs.npy")
    elif "dataset=csv" in arguments:
        waits_of("predict", str(run), "table.csv")


@pytest.mark.slow
@pytest.mark.parametrize("case", ALONE)
def test_other_words_train(case, folder):
    own = "" if case.startswith(("debug", "experiment")) else "steps=6"
    assert waits_of(*f"{case} {own} {ALONE[case]} dataset.limit=64 batch_size=16 quiet=true".split()) == []


def test_every_word_is_tried():
    """Those of sweeps choose values; they do not train. Other loggers need packages that tests do not have."""
    catalogue = Catalogue(catalogue_dir())
    left = {group for group in catalogue.words if group not in WORDS.words} - {"sweep", "sweep.backend"}
    words = {f"{group}={word}" for group in left for word in catalogue.words[group]}
    assert {word for word in words if not word.endswith("=none")} - NOT_TRIED == set(ALONE)
    assert {choice for choice in WAITS if choice.partition("=")[0] in WORDS.words} <= set(CASES)


# A selection, which is fast, with the same numbers as on the CPU ---------------------------------------------------

EVERYTHING = (
    "model=cnn model.channels=[4,4] "
    "model.norm=batch averaging=ema averaging.start_step=1 wrap=[lookahead] augmentation=[shift,flip,cutout] "
    "dataset.class_weights=balanced regularization=[l2,dropout,gradient_clipping,max_norm] metrics=[f1,auroc] "
    "diagnostics=[layers] diagnostics.layers.samples=16"
)
FAST = {
    "everything": EVERYTHING,
    "streamed": "dataset.resident_share=0 workers=0 optimizer=momentum",
    "weights": "dataset.class_weights=balanced loss=bce model=linear",
    "hard": "sampler=hard accumulate=2 optimizer=lion",
    "bernoulli": "shuffle=bernoulli model.norm=batch optimizer=momentum",
    "curvature": "optimizer=newton_cg dataset=diabetes model.hidden=[8] loss=mse",
}


def trained(folder: Path, *arguments: str) -> Run:
    before = run_folders(folder)
    assert dispatch([*arguments]) == 0
    (new,) = run_folders(folder) - before
    return Run(new)


@pytest.mark.parametrize("case", FAST)
def test_a_run_gives_what_it_gives_on_the_cpu(case, workdir):
    arguments = [*LIMIT.split(), *FAST[case].split()]
    here = trained(workdir, *arguments)
    with pretend_device.accelerator(), between_log_points() as found:
        there = trained(workdir, *arguments)
    assert there.timeless_rows == here.timeless_rows
    assert there.summary["test"] == here.summary["test"]
    check("sampler=hard" if case == "hard" else case, found)


HERE = """
from dltrain.sweep.backends import worker
from dltrain.sweep.backends.protocol import Ended, Started


class Here:
    places = 1

    def __init__(self, sweep):
        self.waiting = []

    def submit(self, job):
        self.waiting.append(job)

    def events(self):
        for job in self.waiting:
            yield Started(job)
            yield Ended(job, worker.main(job.command[job.command.index("--config-name") :]))
        self.waiting.clear()

    def cancel(self, job): ...

    def close(self): ...
"""


def test_a_sweep_gives_what_it_gives_on_the_cpu(workdir):
    """The jobs in this process, which has the accelerator; a job's process has a whole run's way."""
    (workdir / "inside.py").write_text(HERE)
    words = workdir / "conf/sweep/backend"
    words.mkdir(parents=True)
    (words / "inside.yaml").write_text("_target_: inside.Here\n")
    sweep = [
        "-m",
        "optimizer=momentum,adam",
        "lr=0.1,0.001",
        "sweep.seeds=2",
        "sweep.backend=inside",
        *LIMIT.split(),
    ]

    def swept(name: str) -> list[Run]:
        assert dispatch([*sweep, f"name={name}"]) == 0
        (folder,) = (workdir / "outputs" / name).iterdir()
        return [Run(job) for _, job in sorted(job_folders(folder).items())]

    with pretend_device.accelerator(), between_log_points() as found:
        there = swept("there")
    here = swept("here")
    assert [run.summary["device"] for run in (there[0], here[0])] == ["pretend:0", "cpu"]
    assert len(there) == 8 and found == []
    assert [run.timeless_rows for run in there] == [run.timeless_rows for run in here]


@pytest.mark.parametrize("choice", ["non_finite=skip", "early_stopping.tolerance"])
def test_a_knob_that_waits_is_listed(choice, workdir):
    given = choice if "=" in choice else f"{choice}=1e-9"
    check(choice, waits_of(*LIMIT.split(), given))


def test_bf16_computes_in_bf16_and_without_waits(workdir):
    """The products in bf16, the rest in float32: a fourth digit differs from the run in float32."""
    seen: set[torch.dtype] = set()

    def note(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if isinstance(module, torch.nn.Linear):
            seen.add(output.dtype)

    hook = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        exact = trained(workdir, *LIMIT.split(), "precision=fp32")
        assert seen == {torch.float32}
        seen.clear()
        with pretend_device.accelerator(), between_log_points() as found:
            rough = trained(workdir, *LIMIT.split(), "precision=bf16")
    finally:
        hook.remove()
    assert torch.bfloat16 in seen
    assert found == []
    loss = exact.rows[-1]["val/loss"]
    assert 0 < abs(rough.rows[-1]["val/loss"] - loss) < 0.02 * loss


# The parts that act on an accelerator only ------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "lion"])
def test_the_guard_on_the_device_names_the_step_that_the_one_on_the_host_names(optimizer, workdir):
    """Read at the next log point; in between the weights stay as they were, with fused kernels and without."""
    arguments = [*LIMIT.split(), f"optimizer={optimizer}", "lr=1e20", "name=bad"]
    with pytest.raises(NumericalFailure) as here:
        dispatch(arguments)
    weights, original = [], DeviceGuard.after_update

    def after_update(self: DeviceGuard) -> None:
        original(self)
        weights.append([parameter.detach().cpu() for parameter in self.parameters])

    with (
        pretend_device.accelerator(),
        patch.object(DeviceGuard, "after_update", after_update),
        pytest.raises(NumericalFailure) as there,
    ):
        dispatch(arguments)
    told = r"not finite at step (\d+)"
    bad = int(re.search(told, str(here.value))[1])
    assert int(re.search(told, str(there.value))[1]) == bad
    assert bad < len(weights), "steps after the bad one were taken"
    for later in weights[bad - 1 :]:
        assert all(map(torch.equal, later, weights[bad - 2]))


def test_prefetched_batches_are_waited_for_by_the_stream_that_uses_them():
    batches = [torch.full((4, 2), float(k)) for k in range(3)]
    device = torch.device("pretend:0")
    with pretend_device.accelerator() as reads:
        read = [batch + 1 for batch in prefetched(batches, lambda batch: batch * 2, device)]
        assert reads == []
        side = torch.pretend.Stream(device)
        with torch.pretend.stream(side):
            copied = batches[1].to(device, non_blocking=True)
        with pytest.raises(RuntimeError, match="another stream"):
            copied + 1
    assert [tensor.inner.tolist() for tensor in read] == [(2 * batch + 1).tolist() for batch in batches]


def test_the_tool_raises_where_a_gpu_would():
    generator = torch.Generator()
    with pretend_device.accelerator() as reads:
        there = torch.arange(4.0, device="pretend")
        for wrong in (
            lambda: there + torch.ones(4),
            lambda: torch.rand(4, generator=generator, device="pretend"),
            lambda: there.normal_(generator=generator),
            lambda: torch.randperm(4, generator=torch.Generator("pretend")),
        ):
            with pytest.raises(RuntimeError, match="device"):
                wrong()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert reads == []
        for waits in (
            there.sum().item,
            there.tolist,
            there.cpu,
            there.nonzero,
            lambda: bool(there.any()),
            lambda: there[there > 1],
            lambda: torch.ones(3).to("pretend"),
            lambda: there[torch.tensor([1, 2])],
            lambda: torch.equal(there, there),
        ):
            reads.clear()
            waits()
            assert reads, waits
        reads.clear()
        there[there > 1] = 0
        there.masked_fill_(there > 1, 2.0)
        torch.ones(3).pin_memory().to("pretend", non_blocking=True)
        torch.where(there > 1, there, 0)
        assert reads == []
