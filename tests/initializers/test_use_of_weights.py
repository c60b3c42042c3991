"""The first and the last layer are those that a forward pass uses first and last, whatever the order of registration."""

from __future__ import annotations

import json
import math
import sys
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Run, assert_equal, run_folders
from torch import Tensor, nn

from dltrain.initializers import closed_form
from dltrain.initializers.data_driven import whitening
from dltrain.initializers.layers import known_gain, resolve_gain
from dltrain.models.cnn import CNN, LeNet
from dltrain.models.mlp import MLP, DeepLinear, Linear
from dltrain.models.resnet import ResNet, WideResNet
from dltrain.models.speed_cnn import SpeedCNN
from dltrain.models.vit import VisionTransformer
from dltrain.regularization.gradients import ClipAdaptive
from dltrain.run import layer_use
from dltrain.run.parameter_groups import last_matrix_of
from dltrain.training.forward import keep_head_in_float32
from dltrain.training.trainer import Trainer
from dltrain.weight_layers import Use, first_layer, last_layer, use_of, watch, weight_layers

OWN = (Linear, MLP, DeepLinear, CNN, LeNet, ResNet, WideResNet, SpeedCNN, VisionTransformer)


class Reversed(nn.Module):
    """A net that registers its last layer first."""

    def __init__(self, inputs: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.out = nn.Linear(16, classes)
        self.body = nn.Sequential(nn.Linear(inputs, 16), nn.ReLU())

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(self.body(inputs))


class Functional(nn.Module):
    """A net without modules: weights in functions of torch, the head first, its activation a function."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.body = nn.Linear(16, 3), nn.Linear(4, 16)
        self.act = F.relu

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.act(inputs @ self.body.weight.T)
        return F.linear(hidden, self.out.weight, self.out.bias)


class Tied(nn.Module):
    """A net of squares whose last layer has the weight of the first one, and whose middle layer is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = (nn.Linear(4, 4) for _ in range(3))
        self.last.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.middle(self.middle(self.first(inputs))))


class Reconstructing(Reversed):
    """A net that computes a reconstruction beside its outputs, after them."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(16, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.body(inputs)
        outputs = self.out(hidden)
        self.seen = self.decoder(hidden)
        return outputs


class Asking(Reversed):
    """A net that reads the shape of its last layer, and makes a tensor like it, before it computes."""

    def forward(self, inputs: Tensor) -> Tensor:
        rows, _ = self.out.weight.shape[0], self.out.weight.size()
        start = self.out.weight.new_zeros(len(inputs), 4) + torch.zeros_like(self.out.weight).sum()
        return super().forward(inputs + start).view(-1, rows)


class Flat(nn.Module):
    """A net of one output (B,) and, as there are samples, two hidden units."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.body = nn.Linear(2, 1), nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(F.relu(self.body(inputs))).squeeze(1)


def watched(model: nn.Module, *shape: int) -> nn.Module:
    watch(model, torch.randn(2, *(shape or (4,))))
    return model


def ends(model: nn.Module) -> tuple[str, str]:
    return first_layer(model).name, last_layer(model).name


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Reversed, ("body.0.weight", "out.weight")),
        (Functional, ("body.weight", "out.weight")),
        (Tied, ("first.weight", "last.weight")),
        (Reconstructing, ("body.0.weight", "out.weight")),
        (Asking, ("body.0.weight", "out.weight")),
        (Flat, ("body.weight", "out.weight")),
    ],
)
def test_ends_are_those_of_the_forward_pass(model, expected):
    assert ends(watched(model())) == expected


@pytest.mark.parametrize("model", OWN)
def test_models_of_dltrain_register_their_layers_in_the_order_of_use(model):
    """So that fixed seeds give what they gave: nothing depends on the pass."""
    net = model((3, 32, 32), 10)
    layers, matrix, gain = weight_layers(net), last_matrix_of(net), known_gain(net)
    clipped = ClipAdaptive(net).parameters
    watched(net, 3, 32, 32)
    assert use_of(net) is not None
    assert ends(net) == (layers[0].name, layers[-1].name)
    assert last_layer(net).module is layers[-1].module
    assert last_matrix_of(net) is matrix and known_gain(net) == gain
    assert list(map(id, ClipAdaptive(net).parameters)) == list(map(id, clipped))


class Busy(Reversed):
    """A net whose forward pass changes it, in each of the ways that a copy of its buffers would not restore."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("written", torch.zeros(2))
        self.register_buffer("assigned", torch.zeros(()))
        self.register_buffer("resized", torch.empty(0))
        self.register_buffer("expanded", torch.ones(1, 5).expand(5, 5))
        self.norm = nn.BatchNorm1d(4)
        self.table: Tensor | None = None
        self.passes = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.passes += 1
        self.written.add_(1)
        self.assigned = self.assigned + 1
        if self.resized.numel() == 0:
            self.resized.resize_(3).fill_(1)
        if self.table is None:
            self.table = torch.arange(4.0, device=inputs.device)
        with torch.no_grad():
            self.out.bias.add_(1)
        inputs.add_(torch.rand(4, device=inputs.device))
        return super().forward(self.norm(inputs) * self.table)


def test_a_pass_changes_neither_model_nor_inputs_nor_generator():
    net, inputs = Busy(), torch.ones(2, 4)
    net.norm.eval()
    state, draws = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    watch(net, inputs)
    assert ends(net) == ("body.0.weight", "out.weight") and use_of(net) is not None
    assert_equal(net.state_dict(), state)
    assert (net.passes, net.table, net.training, net.norm.training) == (0, None, True, False)
    assert torch.equal(inputs, torch.ones(2, 4)) and torch.equal(torch.get_rng_state(), draws)
    # meta stands for a GPU
    assert net.to("meta")(torch.ones(2, 4, device="meta")).shape == (2, 3)


def test_a_model_that_cannot_be_copied_keeps_the_order_of_registration():
    net = Reversed()
    net.lock = threading.Lock()
    assert use_of(watched(net)) is None and ends(net) == ("out.weight", "body.0.weight")


def test_a_model_that_cannot_run_keeps_the_order_of_registration():
    net = watched(Reversed(inputs=7))
    assert use_of(net) is None and ends(net) == ("out.weight", "body.0.weight")
    assert net.training


def test_weights_inside_a_fused_encoder_are_seen():
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = nn.Sequential(nn.Linear(4, 8), nn.TransformerEncoder(block, 2))
    assert ends(watched(net, 5, 4)) == ("0.weight", "1.layers.1.linear2.weight")


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_0"])
def test_models_of_torchvision_register_their_layers_in_the_order_of_use(name):
    models = pytest.importorskip("torchvision.models")
    net = models.get_model(name, weights=None)
    layers, matrix = weight_layers(net), last_matrix_of(net)
    watched(net, 3, 64, 64)
    assert use_of(net) is not None
    assert ends(net) == (layers[0].name, layers[-1].name) and last_matrix_of(net) is matrix


# Matrices that are no weights of layers ---------------------------------------------------------------------------


class Kernel(nn.Module):
    """A linear layer whose parameter has another name and the transposed shape."""

    def __init__(self, rows: int = 6, columns: int = 3) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(rows, columns))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.kernel


class Recurrent(nn.Module):
    """A recurrent layer whose last state are the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.lstm(inputs)[0]


class Scaled(nn.Module):
    """A net that scales its outputs by a parameter of two axes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.out, self.body = nn.Parameter(torch.ones(1, 3)), nn.Linear(6, 3), nn.Linear(4, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(self.body(inputs)) * self.scale


class KernelFirst(nn.Module):
    """A net that registers the kernel of its last layer first, in the module that holds the others."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.body = nn.Parameter(torch.randn(6, 3)), nn.Linear(4, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(inputs) @ self.kernel


def _parametrized(name: str) -> nn.Module:
    return getattr(nn.utils.parametrizations, name)(nn.Linear(6, 3))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (lambda: _parametrized("weight_norm"), "2.parametrizations.weight.original1"),
        (lambda: _parametrized("spectral_norm"), "2.parametrizations.weight.original"),
        (lambda: _parametrized("orthogonal"), "2.parametrizations.weight.original"),
        (lambda: nn.utils.weight_norm(nn.Linear(6, 3)), "2.weight_v"),
        (lambda: nn.utils.spectral_norm(nn.Linear(6, 3)), "2.weight_orig"),
        (Kernel, "2.kernel"),
        (Recurrent, "2.lstm.weight_hh_l0"),
    ],
)
def test_a_last_matrix_that_is_no_weight_of_a_layer_is_spared_as_without_the_pass(head, expected):
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), head())
    names = {id(p): name for name, p in net.named_parameters()}
    clipped = [names[id(p)] for p in ClipAdaptive(net).parameters]
    assert "0.weight" in clipped and expected not in clipped
    watched(net)
    assert names[id(last_matrix_of(net))] == expected
    assert [names[id(p)] for p in ClipAdaptive(net).parameters] == clipped


@pytest.mark.parametrize(
    ("model", "matrix", "clipped"),
    [
        (Scaled, "out.weight", {"scale", "body.weight", "body.bias"}),
        (KernelFirst, "kernel", {"body.weight", "body.bias"}),
    ],
)
def test_the_last_matrix_is_the_one_used_last(model, matrix, clipped):
    net = watched(model())
    names = {id(p): name for name, p in net.named_parameters()}
    assert names[id(last_matrix_of(net))] == matrix
    assert {names[id(p)] for p in ClipAdaptive(net).parameters} == clipped


def test_the_last_layer_of_an_initializer_is_the_one_used_last():
    net = watched(Reversed())
    closed_form.constant(net, torch.Generator(), None, value=1.0, last="zeros")
    assert not net.out.weight.any() and (net.body[0].weight == 1).all()


def test_the_first_layer_of_whitening_is_the_one_used_first():
    from dltrain.data.spec import Batch

    inputs = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) @ torch.randn(4, 4)
    net = watched(Reversed())
    whitening(net, torch.Generator(), Batch(inputs, torch.zeros(500), torch.arange(500)))
    whitened = F.linear(inputs, net.body[0].weight[:4])
    torch.testing.assert_close(torch.cov(whitened.T), torch.eye(4), atol=0.05, rtol=0)


def test_the_layer_used_last_computes_in_float32():
    net = watched(Reversed())
    keep_head_in_float32(net)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.randn(2, 4)).dtype is torch.float32
        assert net.body[0](torch.randn(2, 4)).dtype is torch.bfloat16


def test_adaptive_clipping_spares_the_layer_used_last():
    net = watched(Reversed())
    assert {id(p) for p in ClipAdaptive(net).parameters} == {id(p) for p in net.body.parameters()}


# Gains ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (F.relu, nn.init.calculate_gain("relu")),
        (torch.relu, nn.init.calculate_gain("relu")),
        (Tensor.relu_, nn.init.calculate_gain("relu")),
        (torch.tanh, nn.init.calculate_gain("tanh")),
        (F.selu, nn.init.calculate_gain("selu")),
        (F.leaky_relu, nn.init.calculate_gain("leaky_relu")),
        (lambda x: F.leaky_relu(x, 0.2), nn.init.calculate_gain("leaky_relu", 0.2)),
        (lambda x: F.leaky_relu(x, negative_slope=0.3), nn.init.calculate_gain("leaky_relu", 0.3)),
        (lambda x: F.prelu(x, torch.tensor([0.25])), nn.init.calculate_gain("leaky_relu", 0.25)),
        (lambda x: x.clamp(min=0), None),
    ],
)
def test_the_gain_of_a_function_is_that_of_torch(function, expected):
    net = Functional()
    net.act = function
    assert known_gain(watched(net)) == (expected and pytest.approx(expected))


class MyReLU(nn.ReLU):
    """A subclass."""


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (MyReLU(), nn.init.calculate_gain("relu")),
        (nn.LeakyReLU(0.2), nn.init.calculate_gain("leaky_relu", 0.2)),
        (nn.PReLU(), nn.init.calculate_gain("leaky_relu", 0.25)),
        (nn.RReLU(0.1, 0.3), nn.init.calculate_gain("leaky_relu", 0.2)),
        (nn.SELU(), nn.init.calculate_gain("selu")),
        (nn.ELU(), math.sqrt(2)),
        (nn.Mish(), math.sqrt(2)),
    ],
)
def test_the_gain_of_a_layer_is_that_of_torch(layer, expected):
    net = nn.Sequential(nn.Linear(4, 4), layer, nn.Linear(4, 3))
    assert resolve_gain(net, "auto") == pytest.approx(expected)


def test_an_activation_of_an_unknown_name_is_looked_for_in_the_layers():
    net = nn.Sequential(nn.Linear(4, 4), nn.SELU(), nn.Linear(4, 3))
    net.activation = "selu_of_mine"
    assert resolve_gain(net, "auto") == 3 / 4
    net[1] = nn.Identity()
    assert known_gain(net) is None and resolve_gain(net, "auto") == 1


# Runs -------------------------------------------------------------------------------------------------------------

MODELS = """
import torch
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self, input_shape, num_classes, width: int = 400):
        super().__init__()
        self.out = nn.Linear(width, num_classes)
        self.body = nn.Linear(input_shape[0], width)
        self.middle = nn.Linear(width, width)
    def act(self, x): return F.relu(x)
    def forward(self, x): return self.out(self.act(self.middle(self.act(self.body(x)))))

class Clamped(Net):
    def act(self, x): return x.clamp(min=0)

class Recurrent(nn.Module):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.lstm, self.out = nn.LSTM(1, 8), nn.Linear(8, num_classes)
    def forward(self, x): return self.out(self.lstm(x.T[..., None])[0][-1])

class Scratch(nn.Module):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.W = nn.Parameter(0.1 * torch.ones(input_shape[0], num_classes))
        self.b = nn.Parameter(torch.zeros(num_classes))
    def forward(self, x): return x @ self.W + self.b
"""
NET = ("dataset=iris", "steps=1", "optimizer=sgd", "batch_size=full")


@pytest.fixture
def own(train, workdir, monkeypatch):
    """Train a net that registers its last layer first."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("nets_of_mine", None)
    (workdir / "nets_of_mine.py").write_text(MODELS)
    folder = workdir / "conf" / "model"
    folder.mkdir(parents=True)
    for word, name in {
        "net": "Net",
        "clamped": "Clamped",
        "recurrent": "Recurrent",
        "scratch": "Scratch",
    }.items():
        (folder / f"{word}.yaml").write_text(f"_target_: nets_of_mine.{name}\n")
    return train


def test_head_has_the_lr_of_the_layer_used_last(own):
    scaled = own(*NET, "model=net", "lr=0.05", "parameters.lr_scale={head: 4}").best_weights
    usual, faster = (own(*NET, "model=net", f"lr={lr}").best_weights for lr in (0.05, 0.2))
    for name in usual:
        assert_equal(scaled[name], (faster if name.startswith("out") else usual)[name])


@pytest.mark.parametrize("more", [(), ("parameters.lr_scale={head: 2}",), ("parameters.freeze=[body]",)])
def test_muon_spares_the_matrix_used_last(own, more):
    run = own("dataset=iris", "steps=2", "model=net", "model.width=5", "optimizer=muon", *more)
    state = run.last_state()["optimizer"]["state"].values()
    shapes = {tuple(found["momentum"].shape) for found in state if "momentum" in found}
    assert shapes == {(5, 5)} | ({(5, 4)} if "parameters.freeze=[body]" not in more else set())


def test_muon_with_the_last_matrix_frozen_spares_none(own):
    run = own(
        "dataset=iris", "steps=2", "model=net", "model.width=5", "optimizer=muon", "parameters.freeze=[out]"
    )
    state = run.last_state()["optimizer"]["state"].values()
    assert {tuple(found["momentum"].shape) for found in state if "momentum" in found} == {(5, 5), (5, 4)}


class Killed(BaseException):
    """Stands in for SIGKILL."""


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize(
    "more",
    [
        ("optimizer=muon",),
        ("optimizer=adam", "parameters.lr_scale={head: 2}"),
        ("regularization=[gradient_clipping]", "regularization.gradient_clipping.mode=adaptive"),
    ],
)
def test_a_resumed_run_keeps_its_last_layer(own, dltrain, workdir, monkeypatch, recorded, more):
    """Also one of a version that took the order of registration, which has no record of it."""
    words = ("dataset=iris", "model=net", "model.width=5", "epochs=4", "checkpoint.every_steps=1", *more)
    if not recorded:
        monkeypatch.setattr(layer_use, "watch", lambda *_: None)
    golden = own(*words, "name=golden")
    observe = Trainer.observe

    def dying(self):
        observe(self)
        if self.step == 7:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "observe", dying)
        with pytest.raises(Killed):
            own(*words, "name=killed")
    monkeypatch.setattr(layer_use, "watch", watch)
    (file,) = workdir.glob("outputs/killed/*/config.yaml")
    assert ("layers" in Run(file.parent).summary) == recorded
    assert dltrain("resume", file.parent) == 0
    killed = Run(file.parent)
    assert_equal(killed.last_state()["weights"], golden.last_state()["weights"])
    assert_equal(killed.last_state()["optimizer"], golden.last_state()["optimizer"])
    assert killed.summary.get("layers") == golden.summary.get("layers")


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ({"first": "a", "last": "b", "matrix": "c", "gain": 2.0}, Use("a", "b", "c", 2.0)),
        ({"last": ["b"], "gain": math.inf}, Use()),
        ("b", Use()),
        (None, Use()),
    ],
)
def test_a_record_of_layers_may_be_forged(tmp_path, layers, expected):
    summary = {"status": "interrupted", "parameters": 3, "layers": layers}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert layer_use.former_use(tmp_path) == expected


def test_a_run_that_was_killed_before_its_first_summary_is_watched_anew(tmp_path):
    (tmp_path / "config.yaml").touch()
    assert layer_use.former_use(tmp_path) is None


def test_the_pass_is_for_new_runs_of_models_from_elsewhere(own, dltrain, monkeypatch):
    passes = []
    monkeypatch.setattr(
        layer_use, "watch", lambda model, inputs: (passes.append(model), watch(model, inputs))
    )
    own(*NET, "model=mlp")
    assert passes == []
    run = own(*NET, "model=net")
    assert len(passes) == 1
    assert run.summary["layers"] == {
        "first": "body.weight",
        "last": "out.weight",
        "matrix": "out.weight",
        "gain": pytest.approx(math.sqrt(2)),
    }
    assert dltrain("evaluate", run.path) == 0
    assert len(passes) == 1


def test_weights_of_other_classes_get_a_new_last_layer(own, workdir, capsys):
    there = own(*NET, "model=net")
    inputs = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    for classes in (3, 5):
        np.savez(workdir / "other.npz", inputs=inputs, targets=np.arange(60) % classes)
        data = (
            "dataset=npz",
            f"dataset.path={workdir / 'other.npz'}",
            "steps=1",
            "optimizer=sgd",
            "lr=1e-12",
        )
        run = own(*data, "model=net", "initializer=pretrained", f"initializer.path={there.path}")
        weights = run.best_weights
        for name in ("body.weight", "middle.weight"):
            torch.testing.assert_close(weights[name], there.best_weights[name])
        assert weights["out.weight"].shape == (classes, 400)


def test_the_header_names_the_last_layer_and_a_gain_that_was_not_found(own, workdir, dltrain, capsys):
    words = (*NET, "lr=1e-12", "initializer=kaiming_normal", "logger=none")
    deviations = []
    for model, more in (("net", ()), ("clamped", ()), ("clamped", ("initializer.gain=1.414",))):
        capsys.readouterr()
        assert dltrain(*words, f"model={model}", *more, f"name=run{len(deviations)}") == 0
        shown = capsys.readouterr().out
        assert (
            "out.weight is the last layer, which forward uses last; middle.weight is registered last" in shown
        )
        assert ("initializer.gain=1.414" in shown) == (model == "clamped" and not more)
        run = Run(
            next(folder for folder in run_folders(workdir) if folder.parent.name == f"run{len(deviations)}")
        )
        deviations.append(float(run.best_weights["middle.weight"].std()) * 20)
    assert deviations == pytest.approx([math.sqrt(2), 1, math.sqrt(2)], rel=0.01)


def test_head_of_a_study_problem_is_refused(train):
    from dltrain.errors import UserError

    with pytest.raises(UserError, match="has no layer with weights; name its parameters: "):
        train("dataset=none", "model=rosenbrock", "steps=2", "parameters.lr_scale={head: 2}")


@pytest.mark.parametrize(
    ("model", "left"),
    [
        ("recurrent", "leaves lstm.weight_ih_l0, lstm.weight_hh_l0 as the model built them"),
        ("scratch", "leaves W as the model built them"),
        ("net", ""),
    ],
)
def test_the_header_names_weights_that_an_initializer_leaves(own, dltrain, capsys, model, left):
    for word, line in (("zeros", left), ("lsuv", left), ("default", "")):
        capsys.readouterr()
        assert dltrain(*NET, f"model={model}", f"initializer={word}", "logger=none") == 0
        shown = capsys.readouterr().out
        assert (line in shown) if line else ("as the model built them" not in shown)


def test_a_model_without_layers_has_no_head_and_loads_weights(own):
    from dltrain.errors import UserError

    there = own(*NET, "model=scratch")
    again = own(*NET, "model=scratch", "lr=1e-12", "initializer=pretrained", f"initializer.path={there.path}")
    torch.testing.assert_close(again.best_weights["W"], there.best_weights["W"])
    with pytest.raises(UserError, match="has no layer with weights; name its parameters: W, b"):
        own(*NET, "model=scratch", "parameters.lr_scale={head: 2}")


def test_group_norm_of_one_group_is_named(dltrain, capsys):
    line = "model.norm=group is that of layer in 1 of 2 norms: 7 cannot be divided into groups of 2 or more"
    for words, shown in (("[7,8]", True), ("[8,8]", False)):
        capsys.readouterr()
        assert (
            dltrain(
                "dataset=iris",
                "model=mlp",
                f"model.hidden={words}",
                "model.norm=group",
                "steps=1",
                "logger=none",
            )
            == 0
        )
        assert (line in capsys.readouterr().out) == shown
