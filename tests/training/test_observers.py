"""What observers show, against what produced it: weights from the checkpoints, plain autograd, scikit-learn."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import Run, run_folders
from safetensors.torch import load_file
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dltrain.cli import dispatch
from dltrain.config import saved
from dltrain.config.compose import open_catalogue
from dltrain.config.door import Door, shipped_targets
from dltrain.loggers.tensorboard import TensorBoard
from dltrain.run.build import build

F = torch.nn.functional
WHOLE_BATCH = ("dataset.limit=120", "batch_size=full", "optimizer=sgd", "lr=0.2", "model.hidden=[12]", "epochs=5",
               "early_stopping=none", "checkpoint.keep=9", "log.every_steps=1", "quiet=true", "threads=1")  # fmt: skip


def built(run: Run):
    catalogue = open_catalogue()
    return build(saved.read(run.path, catalogue, []), Door(shipped_targets(catalogue), []))


def parts_of(run: Run):
    return built(run)[0]


def whole(split):
    return next(iter(split.batches(torch.arange(len(split)), len(split))))


@pytest.fixture(scope="module", params=[(), ("regularization=[gradient_clipping]", "regularization.gradient_clipping.limit=0.2"),
                                        ("regularization=[l2]", "regularization.l2.strength=0.5"), ("accumulate=3",)],
                ids=["plain", "clipped", "penalized", "accumulated"])  # fmt: skip
def followed(request, tmp_path_factory):
    """A run of one step an epoch with the weights before each step, the loss there and the gradient of plain autograd."""
    folder = tmp_path_factory.mktemp("run")
    assert dispatch([*WHOLE_BATCH, *request.param, f"output={folder}"]) == 0
    (path,) = run_folders(folder)
    run, words = Run(path), " ".join(request.param)
    parts = parts_of(run)
    batch = whole(parts.train)
    files = sorted(path.glob("checkpoints/step-*/weights.safetensors"))
    assert len(files) == 5
    expected = []
    for before in [parts.model.state_dict(), *map(load_file, files[:-1])]:
        model = parts_of(run).model
        model.load_state_dict(before)
        logits = model(batch.inputs)
        loss = F.cross_entropy(logits, batch.targets)
        objective = loss
        if "l2" in words:
            objective = loss + 0.25 * sum(p.square().sum() for p in model.parameters() if p.ndim > 1)
        norm = torch.cat([g.flatten() for g in torch.autograd.grad(objective, [*model.parameters()])]).norm()
        # the limit of 0.2 is below it: what is shown is the norm before clipping
        assert "clipping" not in words or norm > 0.25
        accuracy = (logits.argmax(1) == batch.targets).double().mean()
        expected.append(
            {"train/loss": float(loss.detach()), "train/accuracy": float(accuracy), "grad_norm": float(norm)}
        )
    return run, expected


def test_train_loss_and_gradient_norm_are_those_of_the_step(followed):
    run, expected = followed
    for row, values in zip(run.rows, expected, strict=True):
        assert {key: row[key] for key in values} == pytest.approx(values, rel=1e-4)


def test_log_points_show_the_same(followed):
    run, expected = followed
    accumulator = EventAccumulator(str(run.path), size_guidance={"scalars": 0}).Reload()
    for tag, key in (("loss", "train/loss"), ("accuracy", "train/accuracy"), ("grad_norm", "grad_norm")):
        found = [(event.step, event.value) for event in accumulator.Scalars(f"steps/{tag}")]
        assert [step for step, _ in found] == [1, 2, 3, 4, 5]
        assert [value for _, value in found] == pytest.approx([row[key] for row in expected], rel=1e-4)


RULES = [
    *(
        f"gradient_clipping regularization.gradient_clipping.mode={mode} regularization.gradient_clipping.limit=1e-3"
        for mode in ("norm", "value", "adaptive")
    ),
    "gradient_noise regularization.gradient_noise.eta=1",
    "weight_decay regularization.weight_decay.mode=coupled regularization.weight_decay.strength=5",
]


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_for_gradients_changes_the_norm_of_the_first_step(train, rule):
    usual = (
        "dataset=iris",
        "model.hidden=[8]",
        "optimizer=sgd",
        "steps=1",
        "log.every_steps=1",
        "quiet=true",
    )
    word, *keys = rule.split()
    plain, ruled = train(*usual), train(*usual, f"regularization=[{word}]", *keys, "name=ruled")
    assert ruled.rows[0]["grad_norm"] == plain.rows[0]["grad_norm"] > 0
    assert ruled.best_weights.keys() == plain.best_weights.keys()
    assert any(
        not torch.equal(ruled.best_weights[name], plain.best_weights[name]) for name in plain.best_weights
    )
    logged = [
        event
        for event in map(json.loads, open(ruled.path / "events.jsonl"))
        if event["event"] == "step_logged"
    ]
    assert [event["grad_norm"] for event in logged] == [plain.rows[0]["grad_norm"]]


def losses_of_steps(run: Run) -> list[float]:
    """Return the mean loss of each step's batch by plain torch, from the weights before it, which a checkpoint holds."""
    parts, plan = built(run)[:2]
    files = sorted(run.path.glob("checkpoints/step-*/weights.safetensors"))
    losses = []
    for step, before in enumerate([parts.model.state_dict(), *map(load_file, files[:-1])]):
        parts.model.load_state_dict(before)
        epoch, place = divmod(step, plan.steps_per_epoch)
        index = parts.order.order(epoch)[place * plan.batch_size :][: plan.batch_size]
        with torch.no_grad():
            logits = parts.model(parts.train.inputs[index])
            losses.append(float(F.cross_entropy(logits, parts.train.targets[index])))
    return losses


def test_a_log_point_is_the_mean_since_the_last_one_or_since_an_evaluation_that_came_later(train):
    run = train("dataset=iris", "batch_size=27", "steps=10", "lr=0.5", "optimizer=sgd", "model.hidden=[20]", "log.every_steps=2",
                "evaluation.every_steps=5", "checkpoint.every_steps=1", "checkpoint.keep=20", "early_stopping=none", "threads=1")  # fmt: skip
    losses = losses_of_steps(run)
    assert len(losses) == 10
    # from this step up to the log point: after the evaluation at step 5 only one step is left for that at step 6
    begins = {2: 0, 4: 2, 6: 5, 8: 6, 10: 8}
    logged = [
        event for event in map(json.loads, open(run.path / "events.jsonl")) if event["event"] == "step_logged"
    ]
    expected = {step: sum(losses[first:step]) / (step - first) for step, first in begins.items()}
    assert {event["step"]: event["loss"] for event in logged} == pytest.approx(expected, rel=1e-5)
    means = [sum(losses[:5]) / 5, sum(losses[5:]) / 5]
    assert [row["train/loss"] for row in run.rows] == pytest.approx(means, rel=1e-5)


def test_validation_is_that_of_the_weights_after_the_step(followed):
    run, _ = followed
    parts = parts_of(run)
    batch = whole(parts.val)
    for row in run.rows:
        parts.model.load_state_dict(
            load_file(run.path / f"checkpoints/step-{row['step']:08.0f}/weights.safetensors")
        )
        with torch.no_grad():
            logits = parts.model.eval()(batch.inputs)
        assert row["val/loss"] == pytest.approx(float(F.cross_entropy(logits, batch.targets)), rel=1e-5)
        assert row["val/accuracy"] == float((logits.argmax(1) == batch.targets).double().mean())


def test_train_loss_is_the_mean_over_the_samples_of_an_epoch(train, monkeypatch):
    """At lr 1e-12 the weights stand still: the loss of each sample counts once, in the ragged last batch too."""
    run = train("optimizer=sgd", "lr=1e-12", "dataset.limit=150", "batch_size=64", "epochs=2")
    parts = parts_of(run)
    batch = whole(parts.train)
    with torch.no_grad():
        loss = float(F.cross_entropy(parts.model(batch.inputs), batch.targets))
    assert [row["train/loss"] for row in run.rows] == pytest.approx([loss, loss], rel=1e-5)
    assert [row["epoch"] for row in run.rows] == [1, 2]
    assert [row["step"] for row in run.rows] == [3, 6]


def test_second_pass_of_sam_counts_in_no_mean_and_moves_no_statistics(train):
    """One step: the loss is that of the first weights, and batch norm has seen the batch once."""
    run = train("dataset.limit=120", "batch_size=full", "optimizer=sgd", "wrap=[sam]", "wrap.sam.rho=0.5", "steps=1",
                "model.hidden=[12]", "model.norm=batch", "evaluation.every_steps=1")  # fmt: skip
    parts = parts_of(run)
    batch = whole(parts.train)
    linear = next(m for m in parts.model.modules() if isinstance(m, torch.nn.Linear))
    (name,) = [n for n, m in parts.model.named_modules() if isinstance(m, torch.nn.BatchNorm1d)]
    with torch.no_grad():
        means = linear(batch.inputs.flatten(1)).mean(0)
        logits = parts.model.train()(batch.inputs)
    state = run.last_state()["weights"]
    assert state[f"{name}.num_batches_tracked"] == 1
    torch.testing.assert_close(state[f"{name}.running_mean"], 0.1 * means, rtol=1e-4, atol=1e-6)
    (row,) = run.rows
    assert row["train/loss"] == pytest.approx(float(F.cross_entropy(logits, batch.targets)), rel=1e-5)
    assert row["train/accuracy"] == float((logits.argmax(1) == batch.targets).double().mean())


# The confusion matrix -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["", "evaluation.test=false"], ids=["test", "val"])
def confused(request, train, monkeypatch):
    """A run that confuses classes on one side, its result, and scikit-learn's table of the best weights."""
    seen = []
    original = TensorBoard.run_ended

    def spy(self, result):
        seen.append(result)
        original(self, result)

    monkeypatch.setattr(TensorBoard, "run_ended", spy)
    run = train("dataset.limit=100", "epochs=2", "lr=0.002", *filter(None, [request.param]))
    parts = parts_of(run)
    parts.model.load_state_dict(run.best_weights)
    batch = whole(parts.val if request.param else parts.test)
    with torch.no_grad():
        predicted = parts.model.eval()(batch.inputs).argmax(1)
    table = confusion_matrix(batch.targets, predicted, labels=range(10))
    assert (table != table.T).any(), "a symmetric table could not tell truth from prediction"
    return run, seen[0], torch.from_numpy(table)


def test_rows_of_the_confusion_matrix_are_the_truth(confused):
    _, result, table = confused
    assert torch.equal(result.confusion, table)


def test_picture_in_tensorboard_is_that_table(confused):
    import io

    import numpy as np
    from PIL import Image

    from dltrain.loggers.figures import cells

    run, result, table = confused
    accumulator = EventAccumulator(str(run.path), size_guidance={"images": 0}).Reload()
    (event,) = accumulator.Images("confusion_matrix")
    picture = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
    squares = cells(table.numpy(), 48)
    height, width = picture.shape[:2]
    corners = [
        (y, x)
        for y in range(height - 480)
        for x in range(width - 480)
        if (picture[y, x : x + 480] == squares[0]).all() and (picture[y : y + 480, x] == squares[:, 0]).all()
    ]
    assert corners, "the squares of the table lie nowhere in the picture"
    y, x = corners[0]
    inside = [(48 * i + 3, 48 * j + 3) for i in range(10) for j in range(10)]  # beside the printed counts
    assert all((picture[y + a, x + b] == squares[a, b]).all() for a, b in inside)


# The summary --------------------------------------------------------------------------------------------------------


def test_summary_counts_what_was_done(train):
    run = train("dataset.limit=100", "epochs=3", "batch_size=32")
    summary, rows = run.summary, run.rows
    assert summary["steps"] == rows[-1]["step"] == 12
    assert summary["epochs"] == rows[-1]["epoch"] == 3
    assert summary["parameters"] == sum(t.numel() for t in run.best_weights.values())
    assert summary["best"] == min(rows, key=lambda row: row["val/loss"])
    assert 0 < sum(row["seconds"] for row in rows) <= summary["seconds"]
    for row in rows:
        assert row["images_per_second"] == pytest.approx(100 / row["seconds"], rel=1e-6)


def test_lr_is_the_rate_of_the_last_step(train):
    run = train(
        "epochs=4",
        "dataset.limit=100",
        "optimizer=sgd",
        "lr=0.5",
        "schedule=linear",
        "parameters.lr_scale={head: 3}",
    )
    steps = [row["step"] for row in run.rows]
    total = steps[-1]
    assert [row["lr"] for row in run.rows] == pytest.approx(
        [0.5 * (1 - (step - 1) / total) for step in steps]
    )


# The terminal -------------------------------------------------------------------------------------------------------


def test_plain_output_is_the_table_the_best_and_the_test_score(dltrain, workdir, capsys):
    dltrain(
        "dataset.limit=150", "lr=0.02", "epochs=11", "early_stopping=none", "batch_size=50", "schedule=linear"
    )
    said = capsys.readouterr().out.splitlines()
    (path,) = run_folders(workdir)
    run = Run(path)
    lines = [line for line in said if line.startswith("epoch ")]
    assert len(lines) == len(run.rows) == 11
    lowest = float("inf")
    for line, row in zip(lines, run.rows, strict=True):
        shown = dict(part.split(" ", 1) for part in line.split("  ") if " " in part)
        assert shown["epoch"] == f"{row['epoch']:g}/11" and shown["step"] == f"{row['step']:g}"
        for key in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
            assert float(shown[key]) == pytest.approx(row[key], abs=6e-5)
        assert float(shown["lr"]) == pytest.approx(row["lr"], rel=1e-2, abs=1e-12)
        assert line.rstrip().endswith("best") == (row["val/loss"] < lowest)
        lowest = min(lowest, row["val/loss"])
    best = min(run.rows, key=lambda row: row["val/loss"])
    assert best["epoch"] < 11, "the case needs a best that is not the last"
    (shown,) = [line for line in said if line.strip().startswith("best ")]
    assert f"epoch {best['epoch']:g}" in shown
    assert f"val/loss {best['val/loss']:.4f}" in shown and f"val/accuracy {best['val/accuracy']:.4f}" in shown
    (shown,) = [line for line in said if line.strip().startswith("test ")]
    test = run.summary["test"]
    assert f"loss {test['loss']:.4f}" in shown and f"accuracy {test['accuracy']:.4f}" in shown
    (shown,) = [line for line in said if line.strip().startswith("data ")]
    parts = parts_of(run)
    for name in ("train", "val", "test"):
        assert f"{len(getattr(parts, name)):,} {name}" in shown
    assert any(str(path.relative_to(workdir)) in line for line in said)
