"""dltrain from Python: the words and the errors of the command line, in a process that stays as it was."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import assert_equal
from safetensors.torch import load_file

import dltrain as package
from dltrain import api, errors
from dltrain.cli import dispatch
from dltrain.storage.job_names import job_folders

BRIEF: dict[str, Any] = {"epochs": 1, "quiet": True}


@pytest.fixture(autouse=True)
def _here(workdir: Path) -> None:
    """Each test works in a folder of its own."""


def weights(run: api.Run) -> dict[str, torch.Tensor]:
    return load_file(run.path / "checkpoints" / "best.safetensors")


def timeless(run: api.Run) -> list[dict[str, float]]:
    times = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in times} for row in run.metrics.rows()]


def in_process(code: str) -> subprocess.CompletedProcess[str]:
    Path("script.py").write_text(code)
    return subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=False)


# Import -----------------------------------------------------------------------------------------------------------


def test_import_is_light_and_a_mistake_needs_no_torch():
    done = in_process(
        "import sys\n"
        "before = set(sys.modules)\n"
        "import dltrain\n"
        "new = set(sys.modules) - before\n"
        "print(len(new), sorted({'torch', 'numpy', 'hydra', 'omegaconf', 'yaml'} & new))\n"
        "print(sorted(set(dltrain.__all__) - set(dir(dltrain))))\n"
        "try: dltrain.train(optimizer='adm')\n"
        "except dltrain.UserError as error: print(type(error).__name__, 'torch' in sys.modules, 'numpy' in sys.modules)\n"
        "try: dltrain.sweep('optimizer=adm,sgd')\n"
        "except dltrain.UserError as error: print(type(error).__name__, 'torch' in sys.modules, 'numpy' in sys.modules)\n"
    )
    assert done.stderr == ""
    light, rest = done.stdout.split("\n", 1)
    assert int(light.split()[0]) < 40
    assert light.split(" ", 1)[1] == "[]"
    assert rest == "[]\nUserError False False\nUserError False False\n"


def test_every_public_name_is_there():
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert package.errors is errors
    # in a process that has imported neither
    assert package.__getattr__("errors") is errors
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = package.trian


def test_the_package_of_sweeps_does_not_hide_the_function():
    import dltrain.sweep.plan  # noqa: F401

    with pytest.raises(errors.UserError, match="optimizer"):
        package.sweep(optimizer=["adm"])


@pytest.mark.parametrize("page", ["docs/quickstart.md", "docs/api.md"])
def test_the_pages_run(page, capsys):
    """Each block of Python, in order; `new.csv` stands for a table, which a run on digits does not take."""
    import re

    text = (Path(package.__file__).parent.parent / page).read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        if "new.csv" in block:
            Path("new.csv").write_text(
                "x,kind\n" + "".join(f"{i % 2}.{i % 7},{'ab'[i % 2]}\n" for i in range(80))
            )
            table = {"dataset": "csv", "dataset.path": "new.csv", "dataset.target": "kind"}
            names["run"] = api.train(**table, **BRIEF)
            block = block.replace("predictions.values", "predictions.notes")
        exec(block, names)
    assert {"run", "swept"} <= names.keys()
    assert "✓ completed" in capsys.readouterr().out


SCRIPT = """
from pathlib import Path
from typing import Any, assert_type
import numpy as np
import dltrain

knobs: dict[str, Any] = {"model.hidden": [32], "loss.smoothing": 0.1}
run = dltrain.train("optimizer=adam", "model=mlp", lr=1e-3, epochs=2, **knobs)
assert_type(run, dltrain.Run)
assert_type(dltrain.load(Path("outputs")), dltrain.Run)
assert_type(dltrain.load("outputs", "trust=[timm]", device="cuda"), dltrain.Run)
swept = dltrain.sweep("optimizer=sgd,adam", lr=[0.1, 0.01], config_dir=Path("words"))
assert_type(swept, dltrain.Sweep)
assert_type(swept.best, dltrain.Run | None)
assert_type(swept[0], dltrain.Run)
assert_type([r.path for r in swept], list[Path])
assert_type(dltrain.compare([run, swept, "outputs/x"]), dltrain.Table)
assert_type(run.predict(np.zeros((1, 64))), dltrain.Predictions)
assert_type(run.evaluate("evaluation.tta=8", "evaluation.mc_dropout=3"), dict[str, dict[str, float]])
print(run.model.state_dict(), run.metrics["val/loss"].min(), run.config.optimizer.lr, run.predict("a.csv").labels)
dltrain.train(1)  # error
dltrain.trian()  # error
run.predict(split="all")  # error
"""


@pytest.mark.slow
def test_a_script_is_type_checked():
    """`py.typed`: mypy sees the types of the installed package; 15 seconds without its cache."""
    Path("script.py").write_text(SCRIPT)
    root = Path(package.__file__).parent.parent
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--python-version",
        "3.11",
        "--ignore-missing-imports",
        "script.py",
    ]
    done = subprocess.run(
        command, env=os.environ | {"MYPYPATH": str(root)}, capture_output=True, text=True, check=False
    )
    wrong = {
        line.split(":")[1] for line in done.stdout.splitlines() if ": error:" in line and "script.py" in line
    }
    marked = {str(number) for number, line in enumerate(SCRIPT.splitlines(), 1) if "# error" in line}
    assert wrong == marked, done.stdout


# The one way in ---------------------------------------------------------------------------------------------------


def test_equals_the_command_line():
    """Words as text and as Python values: the same configuration, rows and weights as `dltrain key=value`."""
    run = api.train(
        "optimizer=nesterov", "schedule=cosine", lr=0.05, regularization=["l2", "dropout"], **BRIEF,
        **{"model.hidden": (16, 8), "regularization.l2.strength": np.float64(1e-3), "name": "a b"},
    )  # fmt: skip
    words = [
        "optimizer=nesterov", "schedule=cosine", "lr=0.05", "regularization=[l2,dropout]", "epochs=1", "quiet=true",
        "model.hidden=[16,8]", "regularization.l2.strength=0.001", "name='a b'",
    ]  # fmt: skip
    assert dispatch(words) == 0
    (other,) = {file.parent.absolute() for file in Path("outputs").glob("*/*/config.yaml")} - {run.path}
    typed = api.load(other)
    assert typed.config == run.config
    assert timeless(typed) == timeless(run)
    assert_equal(weights(typed), weights(run))
    assert typed.summary.command == run.summary.command
    files = [{str(f.relative_to(r.path)) for f in r.path.rglob("*")} for r in (run, typed)]
    assert {f for f in files[0] if "tfevents" not in f} == {f for f in files[1] if "tfevents" not in f}
    logs = [(r.path / "run.log").read_text() for r in (run, typed)]
    assert [len(log.splitlines()) for log in logs] == [len(logs[0].splitlines())] * 2


VALUES = [
    (None, "null"), (True, "true"), (3, "3"), (1e-5, "1e-05"), (float("nan"), "nan"), ("adam", "adam"), ("null", "'null'"),
    ("1e-3", "'1e-3'"), ("it's", r"'it\'s'"), ("a\\", r"'a\\'"), ("ünder", "'ünder'"), ("a, b", "'a, b'"), ("", "''"),
    (Path("x/y"), "x/y"), ([1, "a b"], "[1,'a b']"), ((0.9, 0.99), "[0.9,0.99]"), ({"head": 10}, "{head: 10}"),
    (np.float32(0.5), "0.5"), (np.arange(2), "[0,1]"), (torch.tensor(3), "3"), ([[32], [8, 8]], "[[32],[8,8]]"),
]  # fmt: skip


@pytest.mark.parametrize("value, text", VALUES)
def test_values_become_text_that_hydra_reads_back(value, text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from dltrain.config.compose import plain_value
    from dltrain.config.python_values import override_texts

    (written,) = override_texts((), {"notes": value})
    assert written == f"notes={text}"
    read = plain_value(OverridesParser.create().parse_override(written).value())
    wanted = value.tolist() if hasattr(value, "tolist") else str(value) if isinstance(value, Path) else value
    wanted = list(wanted) if isinstance(wanted, tuple) else wanted
    assert read == wanted or (read != read and wanted != wanted)


@pytest.mark.parametrize(
    "value", ["it's", "a\\", "ünder", "null", "1e-3", "a: b", "", "yes", 1e-5, None, True, ["a b", 1]]
)
def test_values_become_text_that_yaml_reads_back(value):
    from dltrain.config.python_values import change_texts
    from dltrain.config.saved import read_value

    (written,) = change_texts((), {"notes": value})
    read = read_value(written.partition("=")[2])
    assert read == (1e-3 if value == "1e-3" else value)


class Mine:
    pass


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    from dltrain.cli import main

    with pytest.raises(SystemExit):
        main(list(arguments))
    return capsys.readouterr().err.removeprefix("dltrain: ").rstrip("\n")


@pytest.mark.parametrize(
    "words, knobs, arguments",
    [
        ((), {"optimizer": "adm"}, ["optimizer=adm"]),
        (("optimizer=adm",), {}, ["optimizer=adm"]),
        ((), {"learning_rate": 0.1}, ["learning_rate=0.1"]),
        ((), {"lr": -1}, ["lr=-1"]),
        ((), {"lr": float("nan")}, ["lr=nan"]),
        ((), {"lr": "fast"}, ["lr=fast"]),
        ((), {"epochs": 2.5}, ["epochs=2.5"]),
        ((), {"model": "mlp", "model.hiden": [3]}, ["model=mlp", "model.hiden=[3]"]),
        (("resume",), {}, ["resum"]),
        (("lr=0.1,0.2",), {}, ["lr=0.1,0.2"]),
        ((), {"device": "cuda:99"}, ["device=cuda:99"]),
        ((), {"dataset": "csv", "dataset.path": "none.csv", "dataset.target": "y"},
         ["dataset=csv", "dataset.path=none.csv", "dataset.target=y"]),
    ],
)  # fmt: skip
def test_mistakes_are_those_of_the_command_line(capsys, words, knobs, arguments):
    told = printed(capsys, *arguments)
    with pytest.raises(errors.UserError) as caught:
        api.train(*words, **knobs)
    said = str(caught.value)
    assert said == told or (words == ("resume",) and said.startswith("`resume` is not `key=value`"))
    assert caught.value.__cause__ is None
    assert caught.traceback[-1].name == "__exit__"
    assert len(caught.traceback) == 3
    assert not Path("outputs").exists()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: api.train(torch.optim.Adam), "torch.optim.adam.Adam is no `key=value`"),
        (lambda: api.train({"lr": 0.1}), r"unpack it: \*\*"),
        (lambda: api.train("-m", "lr=1"), r"call dltrain.sweep\(…\)"),
        (lambda: api.train("--config-dir=x"), "write config_dir=FOLDER"),
        (lambda: api.train(optimizer=torch.optim.Adam), "conf/optimizer/NAME.yaml with the line _target_: torch.optim"),
        (lambda: api.train(model=Mine()), "_target_: test_api.Mine"),
        (lambda: api.train(lr={1, 2}), r"`lr` is \{1, 2\} \(set\); a number, text, bool, None, list or dict is expected"),
        (lambda: api.train(config_dir="nowhere"), "`--config-dir` is nowhere"),
        (lambda: api.train(**{"hydra.verbose": True}), "`hydra.verbose` have no effect from Python"),
        (lambda: api.sweep(lr=[]), r"Write lr=\[a, b\]"),
        (lambda: api.sweep(lr=[0.1, -1]), "`lr` is -1"),
        (lambda: api.sweep(lr=[0.1, 1], **{"sweep.dry_run": True}), "dltrain -m lr=0.1,1 sweep.dry_run=true"),
        (lambda: api.sweep("hydra/sweeper=basic", lr=[1, 2]), "sweeps are run by dltrain itself"),
        (lambda: api.load("nowhere"), "nowhere is no folder"),
        (lambda: api.load("."), "not a run folder"),
        (lambda: api.Sweep("."), "is not the folder of a sweep"),
        (lambda: api.compare([]), "Name the runs"),
        (lambda: api.compare([3]), "3 is no run"),
        (lambda: api.compare("nowhere"), "nowhere is no folder"),
    ],
)  # fmt: skip
def test_mistakes_of_python_are_told_in_three_lines(capsys, call, told):
    with pytest.raises(errors.UserError, match=told) as caught:
        call()
    assert len(str(caught.value).splitlines()) <= 3
    assert not Path("outputs").exists()
    assert capsys.readouterr() == ("", "")


# A process that stays as it was -----------------------------------------------------------------------------------

PARTS = """
import os, random, signal, sys
import numpy as np
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self, input_shape, num_classes, fail: str = "no"):
        super().__init__()
        torch.rand(3), np.random.rand(3), random.random()
        torch.set_default_dtype(torch.float64)
        torch.set_default_dtype(torch.float32)
        os.environ["FROM_PART"] = "1"
        sys.path.append("/from/part")
        self.fail, self.calls = fail, 0
        if fail == "early":
            raise KeyboardInterrupt
        self.head = nn.Linear(64, num_classes)

    def forward(self, x):
        self.calls += 1
        torch.rand(3), np.random.rand(3), random.random()
        if self.calls > 30 and self.fail == "error":
            raise RuntimeError("a bug of the user")
        if self.calls > 30 and self.fail == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        return self.head(x.flatten(1))
"""


class Listening(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def state_of_process() -> dict[str, Any]:
    loggers = [logging.getLogger(), logging.getLogger("dltrain")]
    return {
        "threads": torch.get_num_threads(),
        "generator": torch.get_rng_state().tolist(),
        "draw": torch.rand(2, generator=torch.Generator().set_state(torch.get_rng_state())).tolist(),
        "numpy": [np.asarray(part).tolist() for part in np.random.get_state()],  # noqa: NPY002
        "python": random.getstate(),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "dtype": torch.get_default_dtype(),
        "precision": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "gradient": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "logging": [(x.level, x.propagate, x.disabled, list(x.handlers), list(x.filters)) for x in loggers],
        "filters": [handler.filters[:] for handler in logging.getLogger().handlers],
        "cwd": os.getcwd(),
        "path": list(sys.path),
        "environment": dict(os.environ),
        "parts": [name for name in sys.modules if name == "own_parts"],
        "main": {name: vars(sys.modules["__main__"]).get(name) for name in ("__file__", "__spec__")},
        "collector": gc.isenabled(),
        "streams": (sys.stdout, sys.stderr),
    }


@pytest.fixture
def unusual() -> Any:
    """A process with settings of its own, which no run would choose."""
    import warnings

    from hydra import compose, initialize
    from hydra.core.global_hydra import GlobalHydra

    root, listening = logging.getLogger(), Listening()
    former, handler = root.level, signal.signal(signal.SIGUSR1, lambda *_: None)
    root.addHandler(listening)
    root.setLevel(logging.ERROR)
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    torch.manual_seed(5)
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/own.yaml").write_text("_target_: own_parts.Model\n")
    Path("own_parts.py").write_text(PARTS)
    GlobalHydra.instance().clear()
    with warnings.catch_warnings(), initialize(version_base=None, config_path=None):
        warnings.simplefilter("ignore")
        yield listening
        # a Hydra of the caller's own
        assert compose(overrides=["+a=1"]).a == 1
    root.removeHandler(listening)
    root.setLevel(former)
    signal.signal(signal.SIGUSR1, handler)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("highest")


def run_of(**knobs: Any) -> Callable[[], Any]:
    return lambda: api.train(**{"model": "own", "threads": 1, "precision": "bf16"} | BRIEF | knobs)


CALLS = {
    "done": (run_of(), None),
    "deterministic": (run_of(deterministic=True), None),
    "interrupted before the first step": (run_of(**{"model.fail": "early"}), KeyboardInterrupt),
    "refused": (run_of(lr=-1), errors.UserError),
    "error": (run_of(epochs=9, **{"model.fail": "error"}), errors.UserError),
    "interrupt": (run_of(epochs=9, **{"model.fail": "interrupt"}), KeyboardInterrupt),
    "not finite": (run_of(lr=1e38, optimizer="sgd"), errors.NumericalFailure),
    "sweep": (lambda: api.sweep(model="own", lr=[0.1, 0.2], threads=1, **BRIEF), None),
    "load": (lambda: api.load(dispatched()).model, None),
    "evaluate": (lambda: api.load(dispatched()).evaluate(), None),
}


def dispatched() -> Path:
    """Return the run that the fixture `before` has trained."""
    return next(Path("outputs").glob("*/*/config.yaml")).parent


@pytest.mark.parametrize("name", CALLS)
def test_the_process_is_as_it_was(unusual, name):
    call, expected = CALLS[name]
    if name in ("load", "evaluate"):
        run_of()()
    before = state_of_process()
    with torch.no_grad() if name == "done" else torch.enable_grad():
        inside = state_of_process()
        if expected is None:
            call()
        else:
            with pytest.raises(expected):
                call()
        after = state_of_process()
    for key, value in inside.items():
        assert after[key] == value, key
    assert state_of_process() == before
    # of what a run logs, a caller's handler gets what the caller's level asks for
    assert all(record.levelno >= logging.ERROR for record in unusual.records)
    assert len(unusual.records) == (name in ("error", "not finite"))


@pytest.mark.ci
def test_twice_is_equal_and_as_in_a_new_process(unusual):
    """The state of the caller does not reach the run: bits are those of the command line."""
    first, second = run_of(precision="fp32")(), run_of(precision="fp32")()
    assert timeless(first) == timeless(second)
    assert_equal(weights(first), weights(second))
    command = [
        sys.executable,
        "-m",
        "dltrain",
        "model=own",
        "threads=1",
        "epochs=1",
        "quiet=true",
        "precision=fp32",
    ]
    subprocess.run([*command, "output=other"], check=True)
    (folder,) = (file.parent for file in Path("other").glob("*/*/config.yaml"))
    assert timeless(api.load(folder)) == timeless(first)
    assert_equal(weights(api.load(folder)), weights(first))


def test_an_edited_part_is_imported_again(unusual):
    run_of()()
    Path("own_parts.py").write_text(
        PARTS.replace("nn.Linear(64, num_classes)", "nn.Linear(64, num_classes, bias=False)")
    )
    assert list(run_of()().model.state_dict()) == ["head.weight"]


def test_an_interrupted_run_says_how_to_go_on(unusual):
    with pytest.raises(
        KeyboardInterrupt, match="everything is saved. Go on with: dltrain resume outputs/digits_own/"
    ) as caught:
        CALLS["interrupt"][0]()
    folder = str(caught.value).rsplit(" ", 1)[1]
    assert api.load(folder).summary.status == "interrupted"
    with pytest.raises(errors.CheckpointProblem, match="has not finished"):
        _ = api.load(folder).model


def test_a_second_interrupt_stops_at_once_and_leaves_the_process_alive():
    from dltrain.training.signals import Signals, in_process_of_others

    with in_process_of_others(), Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received is signal.SIGINT
        with pytest.raises(KeyboardInterrupt, match="a second SIGINT"):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


@pytest.mark.parametrize("call", [lambda: api.train(**BRIEF), lambda: api.sweep(lr=[0.1, 0.2], **BRIEF)])
def test_works_in_a_thread_and_in_a_running_loop(call):
    found: list[Any] = []

    async def in_loop() -> Any:
        # as in a cell of a notebook: the loop runs, and the call blocks it
        return call()

    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    found.append(asyncio.run(in_loop()))
    assert len(found) == 2


def test_two_calls_at_once_are_refused():
    started, told = threading.Event(), []

    class Waiting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not told:
                started.set()
                try:
                    api.train(**BRIEF)
                except errors.UserError as error:
                    told.append(str(error))

    handler = Waiting()
    logging.getLogger("dltrain").addHandler(handler)
    try:
        api.train(**BRIEF)
    finally:
        logging.getLogger("dltrain").removeHandler(handler)
    assert started.is_set()
    assert "Another run is going on in this process" in told[0]


def test_a_run_can_be_read_while_another_goes_on():
    run, found = api.train(**BRIEF), []

    class Reading(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not found:
                found.append(api.load(run.path).summary.status)

    handler = Reading()
    logging.getLogger("dltrain").addHandler(handler)
    try:
        api.train(**BRIEF)
    finally:
        logging.getLogger("dltrain").removeHandler(handler)
    assert found == ["completed"]


def test_runs_leave_no_thread_and_no_file_open():
    def held() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd")) if Path(
            "/proc/self/fd"
        ).is_dir() else 0

    api.train(**BRIEF)
    before = held()
    for _ in range(3):
        api.train(**BRIEF).evaluate()
    assert held() == before


def test_what_has_no_effect_is_a_warning_as_on_the_command_line(workdir):
    (workdir / "conf/experiment").mkdir(parents=True)
    (workdir / "conf/experiment/plan.yaml").write_text("sweep: {seeds: 3}\n")
    with pytest.warns(UserWarning, match=r"lr=0\.1 has no effect: lr=0\.2 follows"):
        api.train("lr=0.1", lr=0.2, **BRIEF)
    with pytest.warns(UserWarning, match=r"lr=0\.3 has no effect: lr=0\.4 follows"):
        api.sweep("lr=0.3", "lr=0.4", seed=[0, 1], **BRIEF)
    with pytest.warns(UserWarning, match="`sweep.seeds`"):
        api.train("experiment=plan", **BRIEF)


def test_modes_of_the_caller_do_not_reach_a_run():
    wanted = weights(api.train(**BRIEF))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert_equal(weights(api.train(**BRIEF)), wanted)
    torch.set_default_device("meta")
    try:
        run = api.train(**BRIEF)
        assert torch.get_default_device().type == "meta"
    finally:
        # older versions of safetensors read files to the default device
        torch.set_default_device(None)
    assert_equal(weights(run), wanted)


def test_predictions_for_data_neither_follow_nor_change_the_state_of_the_caller():
    """They were computed in a bfloat16 autocast, and dropout seeded the generator: numbers drawn later were those of no seed."""
    run = api.train(**BRIEF | {"model.dropout": 0.5})
    samples = np.random.default_rng(0).random((5, 1, 8, 8), np.float32)
    wanted = run.predict(samples).probabilities
    with torch.autocast("cpu", torch.bfloat16):
        assert (run.predict(samples).probabilities == wanted).all()
    drawing = api.load(run.path, "evaluation.mc_dropout=3")
    drawn = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        assert (drawing.predict(samples).probabilities != wanted).any()
        drawn.append(torch.rand(3))
        torch.manual_seed(seed)
        assert torch.equal(drawn[-1], torch.rand(3))
    assert not torch.equal(*drawn)


@pytest.mark.ci
def test_a_sweep_sees_the_environment_of_its_call(monkeypatch):
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/wide.yaml").write_text("_target_: own_width.Model\n")
    Path("own_width.py").write_text(
        "import os\nfrom torch import nn\n\n\ndef Model(input_shape, num_classes):\n"
        "    width = int(os.environ['WIDTH'])\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, num_classes))\n"
    )
    for width in (3, 5):
        monkeypatch.setenv("WIDTH", str(width))
        (run,) = api.sweep("model=wide", lr=[0.1], **BRIEF | {"sweep.fresh": True})
        assert run.summary.parameters == 64 * width + width + 10 * width + 10


def test_an_interrupted_sweep_raises():
    call = {"lr": [0.1, 0.2], "model": "linear", "quiet": True, "early_stopping": "none", "output": "sweeps"}

    def interrupt() -> None:
        while not list(Path("sweeps").glob("*/*/*/metrics.csv")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt, match="The same call goes on, or: dltrain -m sweep.resume=sweeps/"):
        api.sweep(**call, steps=100_000)
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
    (folder,) = (file.parent for file in Path("sweeps").glob("*/*/sweep.json"))
    assert {run.summary.status for run in api.Sweep(folder)} <= {"interrupted", "running"}


def test_nothing_is_printed_but_progress(capfd):
    api.train(**BRIEF)
    assert capfd.readouterr() == ("", "")
    api.train(epochs=1)
    out, err = capfd.readouterr()
    assert "✓ completed" in out
    assert err == ""


@pytest.mark.ci
def test_a_script_without_a_guard_is_not_run_again_by_its_jobs():
    done = in_process(
        "import dltrain\nprint('once')\ns = dltrain.sweep(lr=[0.1, 0.2], epochs=1, quiet=True)\nprint(len(s))\n"
    )
    assert (done.stdout, done.stderr) == ("once\n2\n", "")


# Runs -------------------------------------------------------------------------------------------------------------


def test_a_run_has_what_its_folder_has():
    run = api.train(optimizer="momentum", epochs=3, quiet=True)
    again = api.load(run.path.relative_to(Path.cwd()))
    assert again.path == run.path
    assert again.summary == run.summary
    assert again.summary.status == "completed"
    assert again.config.optimizer.momentum == again.config["optimizer"]["momentum"] == 0.9
    assert again.config.words.optimizer == "momentum"
    assert "completed, val/loss" in repr(again)
    with pytest.raises(AttributeError, match="Did you mean `optimizer`"):
        _ = run.config.optimiser
    metrics = again.metrics
    assert metrics["step"].dtype == np.int64
    assert metrics["val/loss"].dtype == np.float64
    assert metrics["epoch"].tolist() == [1, 2, 3]
    assert metrics.num_rows == 3
    with pytest.raises(KeyError, match="Did you mean `val/loss`"):
        _ = metrics["val/los"]
    for model in (run.model, again.model):
        assert not model.training
        assert {p.device.type for p in model.parameters()} == {"cpu"}
        assert_equal(dict(model.state_dict()), weights(run))
    assert again.evaluate()["test"] == pytest.approx(dict(run.summary.test), abs=1e-6)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> api.Sweep:
    folder = tmp_path_factory.mktemp("sweep")
    return api.sweep("optimizer=sgd,adam", lr=[0.1, 1e9], output=str(folder), **BRIEF)


def test_a_folder_of_runs_and_of_a_sweep_are_told_apart(swept):
    run = api.train(**BRIEF)
    with pytest.raises(errors.CheckpointProblem, match=rf"holds 1 run.*{run.path.name}"):
        api.load(run.path.parent)
    with pytest.raises(errors.CheckpointProblem, match=r"Its runs: dltrain.Sweep\("):
        api.load(swept.path)
    assert [str(r.path) for r in api.Sweep(swept.path)] == [str(r.path) for r in swept]


def test_a_sweep_gives_its_runs_and_its_best(swept):
    assert [(r.config.words.optimizer, r.config.optimizer.lr) for r in swept] == [
        ("sgd", 0.1), ("sgd", 1e9), ("adam", 0.1), ("adam", 1e9),
    ]  # fmt: skip
    assert swept.table["optimizer"].tolist() == ["sgd", "sgd", "adam", "adam"]
    assert swept.table["lr"].tolist() == [0.1, 1e9, 0.1, 1e9]
    values = [r.summary.get("objective") for r in swept if r.summary.status == "completed"]
    assert swept.best is not None
    assert swept.best.summary.objective == min(values)
    assert {r.path for r in swept.failed} == {
        r.path for r in swept if r.summary.status in ("failed", "diverged")
    }
    assert "4 runs" in repr(swept)
    assert "<table>" in swept._repr_html_()


def test_a_job_without_a_summary_is_left_out(swept, tmp_path):
    """As an interrupt leaves it: queued, just created, and with the configuration written."""
    shutil.copytree(swept.path, tmp_path / "sweep")
    first, second, third, _ = job_folders(tmp_path / "sweep").values()
    (first / "summary.json").unlink()
    shutil.rmtree(second)
    second.mkdir()
    shutil.rmtree(third)
    cut = api.Sweep(tmp_path / "sweep")
    assert [run.path.name for run in cut] == ["3-optimizer=adam,lr=1000000000.0"]
    assert [run.summary for run in cut] == [swept[3].summary]
    assert len(cut) == 1
    assert f"1 runs, {len(cut.failed)} failed" in repr(cut)
    assert api.compare(cut).num_rows == 1


def test_a_tuple_is_one_value_and_a_nested_list_an_axis_of_lists():
    swept = api.sweep(
        optimizer="adam", **BRIEF, **{"model.hidden": [[8], [4, 4]], "optimizer.betas": (0.8, 0.9)}
    )
    assert [r.config.model.hidden for r in swept] == [[8], [4, 4]]
    assert [r.config.optimizer.betas for r in swept] == [[0.8, 0.9]] * 2


def test_a_list_where_a_sweep_needs_a_tuple_is_refused_with_a_cure_that_works():
    """The message was that of the command line, and named what was typed."""
    for given, wanted in (([16], "(16,)"), ([16, 8], "(16, 8)")):
        with pytest.raises(errors.UserError, match="a list gives the values of an axis") as error:
            api.sweep(lr=[0.1, 0.01], **BRIEF, **{"model.hidden": given})
        assert f"Write model.hidden={wanted} " in str(error.value)
    swept = api.sweep(lr=[0.1, 0.01], **BRIEF, **{"model.hidden": (16,)})
    assert [r.config.model.hidden for r in swept] == [[16]] * 2


def test_compare_shows_in_what_runs_differ():
    runs = [
        api.train(optimizer="sgd", lr=0.1, name="a", **BRIEF),
        api.train(
            optimizer="adam", name="b", regularization=["l2"], **BRIEF, **{"optimizer.betas": [0.8, 0.9]}
        ),
        api.train(optimizer="adam", name="b", seed=1, **BRIEF),
    ]
    table = api.compare([runs[0], str(runs[1].path), runs[2].path])
    choices = ["optimizer", "regularization", "seed", "lr", "optimizer.betas"]
    assert sorted(
        set(table)
        - {"run", "status", "metric", "objective", "best_epoch", "seconds", "test/loss", "test/accuracy"}
    ) == sorted(choices)
    assert table["optimizer"].tolist() == ["sgd", "adam", "adam"]
    assert table["lr"].tolist() == [0.1, 0.001, 0.001]
    assert table["optimizer.betas"].tolist() == [None, "[0.8,0.9]", "[0.9,0.999]"]
    assert table["objective"].tolist() == [run.summary.objective for run in runs]
    assert table["run"][0] == f"a/{runs[0].path.name}"


@pytest.mark.parametrize("device, told", [("tpu", "`device` is tpu"), ("cuda:7", "does not have")])
def test_a_device_that_is_not_there_is_refused(device, told):
    run = api.train(**BRIEF)
    with pytest.raises(errors.UserError, match=told):
        _ = api.load(run.path, device=device).model


def test_notices_are_warnings():
    """What the command line prints to stderr while it goes on."""
    dispatch(["early_stopping.metric=val/accuracy", "early_stopping.mode=max", "epochs=1", "quiet=true"])
    file = dispatched() / "config.yaml"
    file.write_text(file.read_text().replace("mode: max", "mode: min"))
    with pytest.warns(UserWarning, match="was begun with early_stopping.mode=min"):
        api.load(dispatched()).evaluate()


# Tables -----------------------------------------------------------------------------------------------------------


def test_a_table_is_shown_and_exported():
    table = package.Table({"a<b": list(range(50)), "x": [0.1234567891] * 49 + [None], "s": ["w"] * 50})
    assert table["x"].dtype == np.float64
    assert np.isnan(table["x"][-1])
    assert repr(table).count("\n") == 22
    assert "(50 rows)" in repr(table)
    assert "a&lt;b" in table._repr_html_()
    assert table.rows()[0] == {"a<b": 0, "x": 0.1234567891, "s": "w"}


def test_a_table_without_pandas_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(errors.UserError, match="pip install pandas"):
        package.Table({"a": [1]}).to_pandas()
