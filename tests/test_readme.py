"""Every command of README.md, docs/quickstart.md and `dltrain --help`, read out of the pages and run.

What needs a file of the user's, a download or a GPU gets a small stand-in (FILES, STAND_INS). In the default tests,
all but the first are cut short to a few steps (SHORTER); `pytest -m slow` runs them as they stand.
"""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, every, run_folders
from PIL import Image

from dltrain.commands.help import EXAMPLES
from dltrain.errors import UserError

ROOT = Path(__file__).parent.parent
README = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/quickstart.md"))
NOT_OURS = (
    "pip",
    "pytest",
    "tensorboard",
    "python",
    "uv",
)  # the wheel's and the repository's own tests run these
STAND_INS = {
    "device=cuda": "device=cpu",
    "dataset=cifar10": "dataset=image_folder dataset.root=photos dataset.image_size=32",
}
EXTRAS = ("wandb", "mlflow")
SHORTER = {  # what an example has → how it is cut short; any other runs 3 steps
    "model=resnet20": ["steps=2"],
    "debug=profile": ["steps=5"],
    "debug=fast": [],
    "sweep=tpe": ["steps=2", "sweep.trials=3"],
    "-m": ["steps=2"],
    "experiment=": ["epochs=1"],
    "debug=overfit": ["epochs=40"],
}


def commands_of(page: str) -> list[str]:
    """The commands of a page's ```bash blocks, each without its remark; `a && b` are two."""
    lines = [
        line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()
    ]
    parts = [part.strip() for line in lines for part in re.split(r"\s#\s", line)[0].split("&&")]
    return [part for part in parts if part]


def arguments_of_table(page: str) -> list[str]:
    """The arguments in the second column of "you want | you type"; several in one cell are several commands."""
    cells = re.findall(r"^\|[^|]+\|([^|]+)\|$", page.split("you type |")[1].split("\n\n")[0], re.MULTILINE)
    return [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]


def inline_commands(page: str) -> list[str]:
    return [code for code in re.findall(r"`(dltrain [^`]+)`", page) if "=" in code or "--help" in code]


EVERY = dict.fromkeys(
    [c for c in commands_of(README) if c.split()[0] not in NOT_OURS]
    + [f"dltrain {arguments}" for arguments in arguments_of_table(README)]
    + inline_commands(README)
    + [command for command, _ in EXAMPLES]
)
RUNS = [c for c in EVERY if not re.search(r"--help|outputs/NAME/RUN|--cfg|^dltrain runs ", c)]
PAGES = [c for c in EVERY if re.search(r"--help|--cfg", c)]


def test_the_pages_have_examples():
    assert len(RUNS) >= 20
    assert len(PAGES) >= 3
    assert len(EXAMPLES) >= 5
    verbs = {c.split()[1] for c in EVERY if "outputs/NAME/RUN" in c}
    assert verbs == {
        "resume",
        "rerun",
        "report",
        "evaluate",
        "predict",
        "export",
        "show",
        "diff",
        "compare",
        "tag",
        "archive",
        "reproduce",
        "verify",
    }  # these are run in test_commands.py, tests/report, tests/run, tests/runs and tests/faults


@pytest.fixture
def files(workdir):
    """The user's own things that the README speaks of."""
    generator = np.random.default_rng(0)
    rows = "\n".join(f"{a:.3f},{b:.3f},{3 * a - b:.3f}" for a, b in generator.normal(size=(60, 2)))
    (workdir / "table.csv").write_text(f"area,age,price\n{rows}\n")
    np.savez(workdir / "arrays.npz", inputs=generator.normal(size=(60, 4)), targets=np.arange(60) % 3)
    for name in ("cats", "dogs"):
        (workdir / "photos" / name).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
                workdir / "photos" / name / f"{i}.png"
            )
    (workdir / "conf" / "model").mkdir(parents=True)
    (word,) = re.findall(r"```yaml\n# conf/model/two_layers.yaml\n(.*?)```", README, re.DOTALL)
    (workdir / "conf" / "model" / "two_layers.yaml").write_text(word)
    (workdir / "my_models.py").write_text(
        "from math import prod\nfrom torch import nn\n\n\nclass TwoLayers(nn.Sequential):\n"
        "    def __init__(self, input_shape, num_classes, width=64):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(prod(input_shape), width), nn.ReLU(), nn.Linear(width, num_classes))\n"
    )  # fmt: skip


def shortened(arguments):
    cut = next(
        (cut for what, cut in SHORTER.items() if any(a.startswith(what) for a in arguments)), ["steps=20"]
    )
    replaced = {"epochs", "steps", "evaluation.every_epochs"} if cut else set()
    return [a for a in arguments if a.partition("=")[0] not in replaced] + cut


def check(dltrain, workdir, command, shorten):
    for theirs, ours in STAND_INS.items():
        command = command.replace(theirs, ours)
    program, *arguments = shlex.split(command)
    assert program == "dltrain"
    if shorten:
        arguments = shortened(arguments)
    assert dltrain(*arguments, "workers=0") == 0
    for folder in run_folders(workdir):
        assert Run(folder).summary["status"] in ("completed", "early_stopped")


def lacking(command: str) -> str | None:
    """Return the package of an optional extra that a command needs and that is not installed."""
    return next((name for name in EXTRAS if name in command and find_spec(name) is None), None)


@pytest.mark.parametrize("command", every(8, RUNS))
def test_example(dltrain, workdir, files, capsys, command):
    if (package := lacking(command)) is not None:
        with pytest.raises(UserError, match=f"pip install.*{package}"):
            check(dltrain, workdir, command, shorten=True)
        return
    check(dltrain, workdir, command, shorten=True)
    assert bool(capsys.readouterr().out) is not ("quiet=true" in command)


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS)
def test_whole_example(dltrain, workdir, files, command):
    check(dltrain, workdir, command, shorten=False)


@pytest.mark.parametrize("command", PAGES)
def test_page(dltrain, workdir, capsys, command):
    assert dltrain(*shlex.split(command)[1:]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 8
    assert not any(workdir.iterdir())


def test_the_refusal_that_the_readme_shows(dltrain, workdir):
    (shown,) = re.findall(r"```text\ndltrain: (.*?)\n```", README, re.DOTALL)
    with pytest.raises(UserError) as refused:
        dltrain("optimizer.beta=[0.8,0.9]")
    assert str(refused.value) == shown


def test_the_first_command_does_what_the_readme_says(dltrain, workdir, capsys):
    assert dltrain() == 0
    said = capsys.readouterr().out
    (run,) = (Run(folder) for folder in run_folders(workdir))
    assert run.summary["test"]["accuracy"] >= 0.96
    assert "✓ completed: all 630 steps done" in said
    assert "tensorboard --logdir outputs/digits_mlp" in said
