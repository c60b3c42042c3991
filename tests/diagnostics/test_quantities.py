"""Each diagnostic against a second truth: closed forms, the whole Hessian, loops over batches; and it leaves no trace."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch
from conftest import assert_equal
from torch import nn

from dltrain.diagnostics.batch_noise import BatchNoise
from dltrain.diagnostics.curvature import Curvature, Prediction
from dltrain.diagnostics.layers import Layers
from dltrain.diagnostics.probe import Probe
from dltrain.diagnostics.surface import LINE, Surface, directions
from dltrain.errors import ResourceProblem, UserError
from dltrain.models.objectives import Quadratic, Saddle

ALL = "diagnostics=[layers,curvature,prediction,batch_noise,surface]"


def objective(model, lr=0.0):
    """A study problem: its output is the loss."""
    return Probe(model, lambda values, _: values, torch.zeros(4, 1), torch.zeros(4), lr)


def network(samples=24, width=6, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, 3)).double().eval()
    loss = nn.CrossEntropyLoss(reduction="none")
    inputs, targets = torch.randn(samples, 5, dtype=torch.float64), torch.randint(3, (samples,))
    return Probe(model, loss, inputs, targets, lr=0.1)


def hessian_of(probe):
    """All of it, by torch's own, over the flattened parameters."""
    names = [name for name, _ in probe.model.named_parameters()]
    shapes = [p.shape for _, p in probe.model.named_parameters()]

    def loss(flat):
        parts = flat.split([math.prod(shape) for shape in shapes])
        weights = {n: part.view(s) for n, part, s in zip(names, parts, shapes, strict=True)}
        return probe.loss(
            torch.func.functional_call(probe.model, weights, probe.inputs), probe.targets
        ).mean()

    flat = torch.cat([p.detach().flatten() for p in probe.model.parameters()])
    return torch.autograd.functional.hessian(loss, flat)


# curvature ------------------------------------------------------------------------------------------------------------


def test_curvature_of_a_quadratic_is_its_condition_number():
    columns = Curvature().measure(objective(Quadratic(dimension=6, condition_number=40.0)))
    assert columns["condition"] == pytest.approx(40, rel=1e-5)
    assert (columns["largest"], columns["smallest"]) == pytest.approx((40, 1), rel=1e-5)
    assert columns["negative"] == columns["negative_count"] == columns["saddle"] == 0


def test_curvature_knows_a_saddle_and_a_slope():
    model = Saddle(offset=0.0)
    columns = Curvature().measure(objective(model))
    assert (columns["smallest"], columns["largest"]) == pytest.approx((-1, 1))
    assert columns["negative"] == columns["negative_count"] == 0.5
    assert columns["saddle"] == 0  # it starts at (1, 0), on a slope
    model.w.data[0] = 0.0
    assert Curvature().measure(objective(model))["saddle"] == 1
    model.w.data[1] = 1.0  # a minimum
    assert Curvature().measure(objective(model))["saddle"] == 0


def test_curvature_of_a_network_exactly():
    probe = network()
    values = torch.linalg.eigvalsh(hessian_of(probe))
    columns = Curvature(exact_up_to=1000).measure(probe)
    assert columns["largest"] == pytest.approx(float(values[-1]), rel=1e-6)
    assert columns["smallest"] == pytest.approx(float(values[0]), rel=1e-6)
    assert columns["negative"] == pytest.approx(
        float(-values.clamp(max=0).sum() / values.abs().sum()), rel=1e-6
    )
    assert columns["negative_count"] == pytest.approx(
        float((values < -1e-5 * values.abs().max()).double().mean())
    )


def test_curvature_by_lanczos_finds_the_ends_and_the_negative_part():
    probe = network(width=20)
    values = torch.linalg.eigvalsh(hessian_of(probe))
    columns = Curvature(exact_up_to=0, iterations=30, draws=20).measure(probe)
    assert columns["largest"] == pytest.approx(float(values[-1]), rel=1e-3)
    assert columns["smallest"] == pytest.approx(float(values[0]), rel=1e-2)
    assert columns["negative"] == pytest.approx(
        float(-values.clamp(max=0).sum() / values.abs().sum()), abs=0.05
    )
    assert "condition" not in columns and "negative_count" not in columns


def test_lanczos_with_as_many_steps_as_weights_ends_where_nothing_is_left():
    columns = Curvature(exact_up_to=0, iterations=50).measure(
        objective(Quadratic(dimension=6, condition_number=40.0))
    )
    assert (columns["largest"], columns["smallest"]) == pytest.approx((40, 1), rel=1e-3)


# prediction -----------------------------------------------------------------------------------------------------------


def test_prediction_is_the_truth_on_a_quadratic_and_best_lr_is_the_exact_step():
    model = Quadratic(dimension=5, condition_number=10.0).double()
    before = model.w.detach().clone()
    columns = Prediction().measure(objective(model, lr=0.03))
    gradient = model.eigenvalues * before
    assert columns["predicted"] == pytest.approx(columns["true"], rel=1e-6)
    assert columns["best_lr"] == pytest.approx(
        float(gradient.square().sum() / (model.eigenvalues * gradient.square()).sum())
    )
    assert torch.equal(model.w, before)


def test_prediction_of_a_network_by_the_whole_hessian():
    probe = network()
    _, grads = probe.gradients()
    g, h = torch.cat([x.flatten() for x in grads]), hessian_of(probe)
    columns = Prediction().measure(probe)
    assert columns["predicted"] == pytest.approx(float(-0.1 * g @ g + 0.005 * g @ h @ g), rel=1e-9)
    assert columns["best_lr"] == pytest.approx(float((g @ g) / (g @ h @ g)), rel=1e-9)
    with torch.no_grad():
        first = probe.mean_loss()
        for parameter, grad in zip(probe.parameters, grads, strict=True):
            parameter -= 0.1 * grad
        assert columns["true"] == pytest.approx(float(probe.mean_loss() - first), rel=1e-9)


def test_there_is_no_best_lr_where_the_loss_curves_downwards():
    model = Saddle(offset=0.1)
    model.w.data[0] = 0.0
    assert Prediction().measure(objective(model))["best_lr"] == 0


# layers ---------------------------------------------------------------------------------------------------------------


def test_layers_equal_a_walk_through_the_net_by_hand():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    model[0].bias.data[:2] = -1e3  # two units never open
    inputs, targets = torch.randn(32, 4), torch.randint(2, (32,))
    loss = nn.CrossEntropyLoss(reduction="none")
    update = [torch.full_like(p, 0.01) for p in model.parameters()]
    columns = Layers().measure(Probe(model, loss, inputs, targets, update=update))
    hidden = model[0](inputs)
    grad = torch.autograd.grad(loss(model(inputs), targets).mean(), model[2].weight)[0]
    assert columns["1/dead"] == pytest.approx(0.4)
    assert columns["0/activation"] == pytest.approx(float(hidden.detach().square().mean().sqrt()))
    assert columns["2/gradient"] == pytest.approx(float(grad.norm()))
    assert columns["2/update"] == pytest.approx(float(0.01 * 10**0.5 / model[2].weight.detach().norm()))
    assert set(columns) == {
        "0/activation",
        "2/activation",
        "1/dead",
        "0/gradient",
        "2/gradient",
        "0/update",
        "2/update",
    }
    assert not model[0]._forward_hooks


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_layer_that_thaws_has_its_columns_from_the_first_evaluation_on(train, optimizer):
    net = (
        "dataset=iris",
        "model.hidden=[4,4]",
        f"optimizer={optimizer}",
        "lr=0.01",
        "early_stopping=none",
        "diagnostics=[layers]",
    )
    thaw = ("parameters.freeze=[layers.0]", "parameters.thaw_epoch=2", "epochs=4")
    run = train(*net, *thaw)
    assert list(run.rows[0]) == list(train(*net, "epochs=1").rows[0])
    for row in run.rows:
        thawed = row["epoch"] > 2
        assert row["layers/layers.0.0/activation"] > 0
        assert math.isfinite(row["layers/layers.0.0/gradient"]) == thawed
        assert (row["layers/layers.0.0/update"] > 0) == thawed
    without = train(*net, thaw[0], "epochs=1")
    assert not [name for name in without.rows[0] if name.startswith("layers/layers.0.0/")]


def test_a_column_that_comes_after_the_first_row_is_a_problem_of_the_run(dltrain, workdir, monkeypatch):
    calls = []

    def measure(self, probe):
        calls.append(probe)
        return {"early": 1.0} | ({"late": 2.0} if len(calls) > 1 else {})

    monkeypatch.setattr(Layers, "measure", measure)
    run = ("dataset=iris", "epochs=3", "early_stopping=none", "diagnostics=[layers]", "quiet=true")
    with pytest.raises(
        ResourceProblem, match=r"metrics\.csv has no column layers/late: its first row names the columns"
    ):
        dltrain(*run)
    (file,) = workdir.rglob("summary.json")
    assert json.loads(file.read_text())["status"] == "degraded"
    assert "layers/early" in file.with_name("metrics.csv").read_text()


def test_layers_show_vanishing_by_xavier_and_none_by_he(train):
    """L1's claim, seen in the columns of a run: 20 ReLU layers."""
    net = ("model.hidden=[64" + ",64" * 19 + "]", "steps=1", "diagnostics=[layers]")
    ratios = {}
    for word in ("xavier_normal", "kaiming_normal"):
        (row,) = train(
            *net, f"initializer={word}", "initializer.gain=auto" if word[0] == "k" else "initializer.gain=1"
        ).rows
        ratios[word] = row["layers/layers.19.0/activation"] / row["layers/layers.0.0/activation"]
    assert ratios["xavier_normal"] < 0.01 < 0.3 < ratios["kaiming_normal"] < 3


def test_the_ratio_of_the_update_is_that_of_the_last_step(train):
    net = (
        "optimizer=adam",
        "model=linear",
        "evaluation.every_steps=1",
        "early_stopping=none",
        "diagnostics=[layers]",
    )
    one, two = train(*net, "steps=1"), train(*net, "steps=2")
    first, second = (run.last_state()["weights"]["head.weight"] for run in (one, two))
    ratio = float((second - first).norm() / second.norm())
    assert two.rows[1]["layers/head/update"] == pytest.approx(ratio, rel=1e-4)


# batch noise ----------------------------------------------------------------------------------------------------------


def test_batch_noise_equals_a_loop_over_batches():
    probe = network(samples=64)
    columns = BatchNoise(samples=64, sizes=[4, 16]).measure(probe)

    def gradient(part):
        return torch.cat([g.flatten() for g in probe.gradients(part)[1]])

    whole = gradient(slice(None))
    for size in (4, 16):
        away = [(gradient(slice(i, i + size)) - whole).square().sum() for i in range(0, 64, size)]
        assert columns[str(size)] == pytest.approx(
            float(torch.stack(away).mean() / whole.square().sum()), rel=1e-9
        )


def test_the_header_names_sizes_that_are_more_than_all_samples(dltrain, workdir, capsys):
    assert dltrain("dataset=iris", "model=linear", "diagnostics=[batch_noise]", "epochs=1") == 0
    line = "unused   diagnostics.batch_noise.sizes: 128 is more than the 108 training samples"
    assert line in capsys.readouterr().out


def test_noise_scale_is_that_of_known_noise():
    """Gradients x of mean m and covariance s² I in d dimensions: tr Σ / ‖m‖² = d s² / ‖m‖²."""
    torch.manual_seed(0)
    model = nn.Linear(50, 1, bias=False).double()
    inputs = 0.5 + 2.0 * torch.randn(4096, 50, dtype=torch.float64)
    probe = Probe(model, lambda outputs, _: outputs[:, 0], inputs, torch.zeros(4096))
    columns = BatchNoise(samples=4096, sizes=[16]).measure(probe)
    assert columns["scale"] == pytest.approx(50 * 4 / (50 * 0.25), rel=0.05)


# surface --------------------------------------------------------------------------------------------------------------


def test_surface_of_a_quadratic_has_its_closed_form(tmp_path):
    model = Quadratic(dimension=3, condition_number=4.0).double()
    surface = Surface(points=5, radius=1.0)
    surface.begin(model)
    best = torch.tensor([0.2, -0.1, 0.3], dtype=torch.float64)
    model.w.data.copy_(best)
    probe = objective(model)
    surface.draw(probe, tmp_path)
    rows = list(csv.reader((tmp_path / "loss_line.csv").open()))
    assert rows[0] == ["t", "loss"] and len(rows) == 9
    for t, loss in ((float(a), float(b)) for a, b in rows[1:]):
        point = 1 + t * (best - 1)
        assert loss == pytest.approx(float((model.eigenvalues * point.square()).sum() / 2), rel=1e-6)
    generator = torch.Generator().manual_seed(0)
    one, two = (directions([best], generator)[0] for _ in range(2))
    for x, y, loss in (
        (float(v) for v in row) for row in list(csv.reader((tmp_path / "loss_surface.csv").open()))[1:]
    ):
        point = best + x * one + y * two
        assert loss == pytest.approx(float((model.eigenvalues * point.square()).sum() / 2), rel=1e-6)
    assert torch.equal(model.w, best)


def test_directions_have_the_norms_of_the_filters():
    weights = [torch.randn(4, 3, 2, 2), torch.randn(4)]
    for direction in (
        directions(weights, torch.Generator().manual_seed(0)),
        directions(weights, torch.Generator().manual_seed(1)),
    ):
        torch.testing.assert_close(direction[0].flatten(1).norm(dim=1), weights[0].flatten(1).norm(dim=1))
        assert not direction[1].any()


def test_the_picture_of_a_run_shows_its_losses(train):
    """The line ends (t = 1) at the best weights, whose loss on the samples is below that of the start."""
    from PIL import Image

    run = train(
        "epochs=3", "lr=0.01", "model=linear", "diagnostics=[surface]", "diagnostics.surface.points=3"
    )
    line = np.loadtxt(run.path / "loss_line.csv", delimiter=",", skiprows=1)
    assert (line[0, 0], line[-1, 0]) == LINE
    at = {round(t, 3): loss for t, loss in line}
    assert at[1.0] < 0.5 * at[0.0]
    plane = np.loadtxt(run.path / "loss_surface.csv", delimiter=",", skiprows=1)
    assert plane[4, 2] == pytest.approx(at[1.0], rel=1e-6) and plane[4, 2] == plane[:, 2].min()
    with Image.open(run.path / "loss_surface.png") as picture:
        assert picture.size[0] > picture.size[1] > 400


# all of them ----------------------------------------------------------------------------------------------------------


def test_a_run_that_is_looked_at_ends_with_the_same_bits(train):
    usual = (
        "model=cnn",
        "epochs=2",
        "regularization=[dropout]",
        "augmentation=[shift,mixup]",
        "averaging=ema",
    )
    small = ("diagnostics.curvature.iterations=3", "diagnostics.surface.points=3")
    plain, watched = train(*usual), train(*usual, ALL, *small)
    assert_equal(plain.last_state()["weights"], watched.last_state()["weights"])
    assert_equal(plain.best_weights, watched.best_weights)
    columns = set(plain.rows[0]) - {"seconds", "images_per_second"}
    assert [{c: row[c] for c in columns} for row in plain.rows] == [
        {c: row[c] for c in columns} for row in watched.rows
    ]
    words = {column.split("/")[0] for column in watched.rows[0]} - {
        column.split("/")[0] for column in plain.rows[0]
    }
    assert words == {"layers", "curvature", "prediction", "batch_noise"}


MISTAKES = [
    ("diagnostics=[layer]", r"`diagnostics=layer`: there is no such word. Did you mean `layers`"),
    ("diagnostics=[batch_noise] diagnostics.batch_noise.samples=100",
     r"diagnostics.batch_noise.samples is 100; it must be an integer >= 256"),
    ("diagnostics=[curvature] diagnostics.curvature.iterations=0", r"it must be: int >= 1"),
    ("dataset=none model=quadratic diagnostics=[layers]", r"has no samples.\nLeave layers out, or use diagnostics=curvature"),
    ("model=vit_tiny model.attention=fused diagnostics=[prediction]", r"needs Hessian-vector products.*\nUse model.attention=math"),
]  # fmt: skip


@pytest.mark.parametrize("arguments, says", MISTAKES)
def test_mistakes_are_told(dltrain, workdir, arguments, says):
    with pytest.raises(UserError, match=says):
        dltrain(*arguments.split())
    assert not (workdir / "outputs").exists()


def test_a_model_without_second_derivative_is_told(dltrain):
    arguments = "model=torchvision model.name=mobilenet_v3_small diagnostics=[curvature] steps=1 batch_size=8 dataset.limit=16"
    with pytest.raises(
        UserError,
        match=r"diagnostics=\[curvature\] needs the second derivative.*hardsigmoid.*\nLeave that out",
    ):
        dltrain(*arguments.split(), "quiet=true")
