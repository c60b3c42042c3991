"""torchvision's and timm's networks: head and channels fitted, with an error and its cure where something is missing."""

from __future__ import annotations

import subprocess
import sys
import types
import urllib.error

import pytest
import torch
from torch import nn

from dltrain.cli import dispatch
from dltrain.errors import UserError
from dltrain.models.timm_models import timm_model
from dltrain.models.torchvision_models import torchvision_model

FAMILIES = (
    "alexnet convnext_tiny densenet121 efficientnet_b0 googlenet inception_v3 maxvit_t mnasnet0_5 "
    "mobilenet_v2 mobilenet_v3_small regnet_y_400mf resnet18 resnext50_32x4d shufflenet_v2_x0_5 "
    "squeezenet1_1 swin_t vgg11 vit_b_32"
).split()


def test_torchvision_fits_the_channels_and_the_classes():
    model = torchvision_model((1, 32, 32), 7, name="resnet18")
    assert model.training
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 7)
    assert model.fc.out_features == 7 and model.conv1.weight.shape == (64, 1, 7, 7)


def test_torchvision_dropout_replaces_the_nets_own():
    model = torchvision_model((3, 64, 64), 7, name="squeezenet1_1", dropout=0.1)
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.1]
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_torchvision_families(name):
    shape = (2, 224, 224)
    model = torchvision_model(shape, 5, name=name)
    assert model.eval()(torch.randn(1, *shape)).shape == (1, 5)


def stored_weights(monkeypatch, tmp_path, name):
    """Put a file of torchvision's own random weights where the download would lie."""
    from torchvision import models

    entry = models.get_model_weights(name).DEFAULT
    (tmp_path / "checkpoints").mkdir()
    donor = models.get_model(name)
    torch.save(donor.state_dict(), tmp_path / "checkpoints" / entry.url.rsplit("/", 1)[1])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unchecked(tmp_path))
    return donor


def unchecked(folder):
    """torch.hub's loader without the check of the hash, which random weights cannot have."""

    def load(url, *args, **kwargs):
        return torch.load(folder / "checkpoints" / url.rsplit("/", 1)[1], weights_only=True)

    return load


def test_torchvision_weights_are_kept_but_for_the_head(monkeypatch, tmp_path):
    donor = stored_weights(monkeypatch, tmp_path, "resnet18")
    model = torchvision_model((1, 32, 32), 7, weights="DEFAULT")
    assert torch.equal(model.layer4[1].conv2.weight, donor.layer4[1].conv2.weight)
    gray = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(
        model.conv1(gray), donor.conv1(gray.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5
    )
    same = torchvision_model((3, 32, 32), 1000, weights="IMAGENET1K_V1")
    assert torch.equal(same.fc.weight, donor.fc.weight) and torch.equal(same.conv1.weight, donor.conv1.weight)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04cut off", b"<html>not found</html>"])
def test_a_damaged_file_in_the_cache_of_torchvision_is_named(content, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} is damaged .*; delete it and try again"):
        torchvision_model((3, 32, 32), 10, weights="DEFAULT")


def test_torchvision_weights_without_a_network(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    cure = r"not be downloaded .*no route.*; download https://.*resnet18-.* put it into .*or use model.weights=null"
    with pytest.raises(ValueError, match=cure):
        torchvision_model((3, 32, 32), 7, weights="DEFAULT")


@pytest.mark.parametrize(
    "shape, keys, message",
    [
        ((3, 32, 32), {"name": "resnet19"}, "is 'resnet19', which is none of the .* did you mean resnet1"),
        ((3, 32, 32), {"name": "zzz"}, "model.name=resnet18 is one"),
        (
            (3, 32, 32),
            {"weights": "V9"},
            "model.weights is 'V9'; resnet18 has IMAGENET1K_V1, DEFAULT; or use null",
        ),
        ((3, 32, 32), {"dropout": 0.2}, "no dropout layer; use model.dropout=null, or .*mobilenet_v3_small"),
        ((1, 8, 8), {"name": "alexnet"}, r"cannot take images of the shape \(1, 8, 8\) .*or model=resnet20"),
    ],
)
def test_torchvision_refusals(shape, keys, message):
    with pytest.raises(ValueError, match=message):
        torchvision_model(shape, 7, **keys)


@pytest.mark.ci
def test_torchvision_is_not_imported_by_the_other_models():
    code = (
        "import sys, dltrain.models.torchvision_models, dltrain.models.timm_models, dltrain.models.vit\n"
        "import dltrain.models.mlp, dltrain.models.resnet, dltrain.initializers.pretrained\n"
        "import dltrain.initializers.data_driven\n"
        "dltrain.models.mlp.MLP((3,), 2)\n"
        "print([name for name in ('torchvision', 'torch._dynamo', 'sklearn', 'timm') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_timm_missing(monkeypatch):
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.setattr("dltrain.config.declarations.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"`model=timm` needs the package timm,.*\nInstall it: pip install timm"
    ):
        dispatch(["model=timm", "model.name=resnet18", "dataset=cifar10"])


def fake_timm(monkeypatch, create):
    timm = types.ModuleType("timm")
    timm.__version__ = "1.0"
    timm.is_model = lambda name: name in ("resnet18", "vit_tiny")
    timm.list_models = lambda: ["resnet18", "vit_tiny"]
    timm.create_model = create
    monkeypatch.setitem(sys.modules, "timm", timm)


def test_timm_is_asked_for_the_datas_channels_and_classes(monkeypatch):
    asked = []

    def create(name, **keys):
        if "img_size" in keys and name == "resnet18":
            raise TypeError("unexpected keyword argument 'img_size'")
        asked.append((name, keys))
        return nn.Identity()

    fake_timm(monkeypatch, create)
    timm_model((1, 28, 24), 7)
    timm_model((1, 28, 24), 7, name="vit_tiny", stochastic_depth=0.1)
    common = {"pretrained": False, "in_chans": 1, "num_classes": 7, "drop_rate": 0.0}
    assert asked[0] == ("resnet18", common)
    assert asked[1] == ("vit_tiny", common | {"drop_path_rate": 0.1, "img_size": (28, 24)})


def test_timm_refusals(monkeypatch):
    def create(name, **keys):
        if keys["pretrained"]:
            raise OSError("no route")
        raise TypeError("unexpected keyword argument 'drop_path_rate'")

    fake_timm(monkeypatch, create)
    with pytest.raises(
        ValueError, match=r"is 'resnet19', which timm 1.0 does not have; did you mean resnet18\?"
    ):
        timm_model((3, 32, 32), 7, name="resnet19")
    with pytest.raises(ValueError, match="refuses one of its keys .* leave model.stochastic_depth at 0"):
        timm_model((3, 32, 32), 7, stochastic_depth=0.2)
    with pytest.raises(
        ValueError, match="could not be downloaded .no route.; .* or use model.pretrained=false"
    ):
        timm_model((3, 32, 32), 7, pretrained=True)
