"""benchmarks/throughput.py without its peers: arguments, reference problem, timing and table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def throughput(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import throughput

    return throughput


@pytest.fixture
def problem(throughput: Any) -> Any:
    from peers import problem

    return problem


def make_task(problem: Any, folder: Path, model: str = "mlp", images: int = 60) -> Any:
    problem.write_data(folder / "data.npz", *problem.synthetic(images))
    return problem.Task(model, str(folder / "data.npz"), epochs=2, batch_size=10, threads=1, device="cpu")


def test_defaults_are_the_reference_task(throughput: Any) -> None:
    args = throughput.parse([])
    assert (args.model, args.images, args.batch_size, args.device) == ("mlp", 60_000, 128, "cpu")
    assert args.contenders == list(throughput.CONTENDERS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "1"], "--epochs must be at least 2"),
        (["--images", "100"], "--images must be at least"),
        (["--contenders", "numpy"], "invalid choice: 'numpy'"),
        (["--model", "vit"], "invalid choice: 'vit'"),
    ],
)
def test_refuses(
    throughput: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit):
        throughput.parse(arguments)
    assert message in capsys.readouterr().err


def test_missing_peer_is_left_out_in_one_line(
    throughput: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "find", lambda module: module == "skorch")
    assert throughput.present(["keras", "keras-tuned", "skorch"]) == ["plain", "skorch"]
    line = "keras is not installed and is left out: pip install -e '.[peers]'\n"
    assert capsys.readouterr().err == line


def test_synthetic_images_have_the_form_of_mnist_and_can_be_learned(problem: Any) -> None:
    images, labels = problem.synthetic(600)
    assert images.shape == (600, 1, 28, 28) and images.dtype == np.uint8
    flat = images.reshape(600, -1).astype(float)
    means = np.stack([flat[labels == label].mean(0) for label in range(10)])
    distances = ((flat[:, None] - means) ** 2).sum(-1)
    assert (distances.argmin(1) == labels).all()


def test_mnist_is_read_from_its_files(problem: Any, tmp_path: Path) -> None:
    images, labels = problem.synthetic(5)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(bytes(16) + images.tobytes())
    (raw / "train-labels-idx1-ubyte").write_bytes(bytes(8) + labels.tobytes())
    read_images, read_labels = problem.read_mnist(tmp_path, 3)
    assert (read_images == images[:3]).all() and (read_labels == labels[:3]).all()


def test_last_sixth_validates_and_inputs_are_normalised(problem: Any, tmp_path: Path) -> None:
    data = problem.load(make_task(problem, tmp_path))
    assert [len(part) for part in data] == [50, 50, 10, 10]
    assert abs(float(data.train_inputs.mean())) < 1e-5 and abs(float(data.train_inputs.std()) - 1) < 1e-5


def test_every_image_once_an_epoch(problem: Any, tmp_path: Path) -> None:
    from peers.plain_loop import indexed

    task = make_task(problem, tmp_path)
    data = problem.load(task)
    train, _ = problem.tensor_batches(task, data)
    expected = data.train_inputs[:, 0, 0, 0].sort().values
    for batches in (train, indexed(task, data)):
        seen = [inputs[:, 0, 0, 0] for inputs, _ in batches]
        assert len(seen) == 5 and torch.equal(torch.cat(seen).sort().values, expected)


@pytest.mark.parametrize(("name", "parameters"), [("mlp", 235_146), ("cnn", 20_538)])
def test_models_are_those_of_dltrain(problem: Any, name: str, parameters: int) -> None:
    from dltrain.models.cnn import CNN
    from dltrain.models.mlp import MLP

    def shapes(model: nn.Module) -> list[torch.Size]:
        return [tensor.shape for tensor in model.state_dict().values()]

    model = problem.make_model(name)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert shapes(model) == shapes({"mlp": MLP, "cnn": CNN}[name]((1, 28, 28), 10))


def test_laps_leave_the_first_epoch_out(problem: Any) -> None:
    laps = problem.Laps(
        "cpu",
        epochs_begun=[0.0, 10.0, 14.0],
        validations_begun=[9.0, 13.0, 16.0],
        turns_ended=[0.0, 10.0, 14.0, 18.5],
    )
    assert laps.after_the_first() == [(3.0, 4.0), (2.0, 4.5)]


def test_plain_loop_learns(problem: Any, tmp_path: Path) -> None:
    from peers import plain_loop

    outcome = plain_loop.fit(make_task(problem, tmp_path, images=1200), tuned=False)
    assert outcome.accuracy > 0.9 and len(outcome.epochs) == 1


def test_table_has_ratios_to_the_plain_loop_of_the_round(throughput: Any) -> None:
    rounds = [
        {"plain": outcome((1, 2)), "dltrain": outcome((2, 2))},
        {"plain": outcome((2, 4)), "dltrain": outcome((2, 4))},
        {"plain": outcome((2, 4))},
    ]
    lines = throughput.table(rounds, images=600).splitlines()
    assert len(lines) == 4
    assert lines[3].endswith("| 1 | 250 | 0.750 | 0.62–0.88 | 167 | 1.000 | 0.5000 |")


def test_ratios_are_those_of_neighbouring_epochs(throughput: Any) -> None:
    """A machine that is half as fast from the second epoch on changes no ratio."""
    rounds = [{"plain": outcome((1, 2), (2, 4)), "dltrain": outcome((2, 2), (4, 4))}]
    assert "| 0.500 | 0.50–0.50 |" in throughput.table(rounds, images=600).splitlines()[3]


def outcome(*epochs: tuple[float, float]) -> dict[str, Any]:
    return {"epochs": [list(epoch) for epoch in epochs], "accuracy": 0.5, "version": "1"}


def test_output_goes_to_a_terminal(throughput: Any, tmp_path: Path) -> None:
    script = "import json, os, sys; print(json.dumps([sys.stdout.isatty(), os.get_terminal_size().columns]))"
    code, output = throughput.Process([sys.executable, "-c", script], tmp_path, {}).end()
    assert code == 0 and json.loads(output) == [True, 100]


def test_one_contender_trains_at_a_time(
    throughput: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Epoch by epoch, beginning with another one each time; one that dies does not hold the others up."""
    script = """
import json, os, sys
name, result = sys.argv[-2:]
over, mine = map(int, os.environ["THROUGHPUT_TURN"].split())
for epoch in range(4):
    os.write(over, b".")
    os.read(mine, 1)
    if name == "dltrain" and epoch == 2:
        sys.exit("no more")
    with open("../order", "a") as stream:
        stream.write(f"{name}{epoch} ")
json.dump({"name": name}, open(result, "w"))
"""
    (tmp_path / "script.py").write_text(script)
    monkeypatch.setattr(throughput, "MODULE", [str(tmp_path / "script.py")])
    args = throughput.parse(["--epochs", "3"])
    assert throughput.relay(["plain", "dltrain"], tmp_path / "task", tmp_path, args) == {
        "plain": {"name": "plain"}
    }
    assert (tmp_path / "order").read_text().split() == (
        "plain0 dltrain0 dltrain1 plain1 plain2 plain3".split()
    )
    assert "dltrain ended with code 1:\nno more" in capsys.readouterr().err


def test_step_cost_counts_the_passes_of_sam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passes through the network, no matrix products of its own, and gradients that stay of the same size."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import step_cost

    monkeypatch.setattr(step_cost, "BLOCK", 1)
    adam, sam = step_cost.Task(["optimizer=adam"]), step_cost.Task(["wrap=[sam]"])
    assert sam.own and not adam.own
    adam.whole_step()
    sam.whole_step()
    assert not sam.second_order()
    assert step_cost.flops(sam.whole_step) == 2 * step_cost.flops(adam.whole_step) > 1e8
    assert step_cost.flops(sam.step_alone) == 0
    assert len(step_cost.compare(sam.step_alone, adam.step_alone, 0.0)) == 3
