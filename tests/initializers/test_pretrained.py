"""pretrained: files and run folders are read, differences listed, parts frozen and thawed."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dltrain.errors import UserError
from dltrain.initializers.pretrained import (
    compare,
    freeze_parameters,
    head_parameters,
    pretrained,
    read_tensors,
    thaw,
)


def net(classes=3, seed=0):
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
    return nn.Sequential(body, nn.Linear(8, classes))


def load(model, path, **keys):
    return pretrained(model, torch.Generator(), None, path=str(path), **keys)


def save_safetensors(folder, tensors):
    save_file(tensors, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def save_pickle(folder, tensors):
    torch.save(tensors, folder / "weights.pt")
    return folder / "weights.pt"


def save_training_script(folder, tensors):
    torch.save({"epoch": 3, "state_dict": tensors}, folder / "weights.pth")
    return folder / "weights.pth"


def save_run(folder, tensors):
    (folder / "checkpoints").mkdir()
    save_file(tensors, folder / "checkpoints" / "best.safetensors")
    return folder


@pytest.mark.parametrize("save", [save_safetensors, save_pickle, save_training_script, save_run])
def test_all_tensors_come_back(save, tmp_path):
    donor, model = net(seed=1), net(seed=2)
    path = save(tmp_path, donor.state_dict())
    load(model, path)
    for name, tensor in donor.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_another_head_is_listed_and_refused_unless_told(tmp_path):
    donor, model, start = net(3, 1), net(5, 2), net(5, 2)
    tensors = donor.state_dict()
    tensors["extra"] = tensors.pop("0.1.bias")
    path = save_safetensors(tmp_path, tensors)
    message = (
        r"does not fit the model: 6 matched \(0.0.weight, .* and 1 more\); "
        r"1 missing from the file \(0.1.bias\); 1 unexpected in the file \(extra\); "
        r"2 of another shape \(1.weight \(file \(3, 8\), model \(5, 8\)\), .*\); "
        r"set initializer.strict=false to copy what matches"
    )
    with pytest.raises(ValueError, match=message):
        load(model, path)
    for name, tensor in start.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)  # nothing was changed by the refusal
    load(model, path, strict=False)
    assert torch.equal(model[0][0].weight, donor[0][0].weight)
    assert torch.equal(model[1].weight, start[1].weight)


def test_a_file_of_another_net_is_refused_even_when_told(tmp_path):
    path = save_safetensors(tmp_path, nn.Conv2d(1, 2, 3).state_dict())
    with pytest.raises(ValueError, match="0 matched; .*; use another file or model"):
        load(net(), path, strict=False)


def test_counters_of_batch_norms_are_no_weights(tmp_path):
    """They have the shape () in every net: two of them matched, and the run began with random weights."""
    path = save_safetensors(
        tmp_path, {"0.1.num_batches_tracked": torch.tensor(7), "conv.weight": torch.ones(3)}
    )
    model, start = net(), net()
    with pytest.raises(ValueError, match="1 matched .*none of which is a weight; use another file or model"):
        load(model, path, strict=False)
    assert model[0][1].num_batches_tracked == start[0][1].num_batches_tracked == 0


def test_what_was_loaded_is_told(tmp_path):
    path = save_safetensors(tmp_path, net(3).state_dict())
    assert str(load(net(5), path, strict=False)) == "4 of 6 tensors loaded; new: 1.*"
    assert str(load(net(3), path)) == "6 of 6 tensors loaded"
    tensors = net(3).state_dict()
    del tensors["0.1.bias"], tensors["0.0.weight"], tensors["0.0.bias"]
    loaded = load(net(3), save_safetensors(tmp_path, tensors), strict=False)
    assert str(loaded) == "3 of 6 tensors loaded; new: 0.0.*, 0.1.bias"
    assert loaded.new == ["0.0.weight", "0.0.bias", "0.1.bias"]


@pytest.mark.parametrize("freeze", [["0"], ["0.1"], ["*.bias"], ["1", "0.1.bias"]])
def test_what_was_not_loaded_cannot_be_frozen(freeze, tmp_path):
    """A frozen layer of random weights is what nobody means by a pretrained one."""
    tensors = net(seed=1).state_dict()
    del tensors["0.1.bias"]
    model, start = net(seed=2), net(seed=2)
    with pytest.raises(ValueError, match=r"initializer.freeze=.* freezes 1 tensors? .*\(0.1.bias\)"):
        load(model, save_safetensors(tmp_path, tensors), strict=False, freeze=freeze)
    assert torch.equal(model[0][0].weight, start[0][0].weight)
    assert all(parameter.requires_grad for parameter in model.parameters())
    load(model, tmp_path / "weights.safetensors", strict=False, freeze=["0.0"])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_a_prefix_of_all_names_is_removed_and_told(prefix, tmp_path):
    donor, model = net(seed=1), net(seed=2)
    path = save_pickle(tmp_path, {prefix + name: tensor for name, tensor in donor.state_dict().items()})
    assert str(load(model, path)) == f"6 of 6 tensors loaded; prefix {prefix} removed"
    assert all(torch.equal(tensor, donor.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_a_wrapper_is_opened_and_told(wrapper, tmp_path):
    donor, model = net(seed=1), net(seed=2)
    path = save_pickle(
        tmp_path, {"epoch": 3, wrapper: donor.state_dict(), "optimizer_state_dict": {"state": {}}}
    )
    assert str(load(model, path)) == f"6 of 6 tensors loaded; from {wrapper} in the file"
    assert torch.equal(model[1].weight, donor[1].weight)


def test_a_file_with_one_layer_keeps_its_name(tmp_path):
    """All names of the file begin with `0.`, and so do names of the model: that is no prefix."""
    tensors = {name: tensor for name, tensor in net(seed=1).state_dict().items() if name.startswith("0.")}
    loaded = load(net(seed=2), save_pickle(tmp_path, tensors), strict=False)
    assert str(loaded) == "4 of 6 tensors loaded; new: 1.*"


def test_the_run_tells_on_all_its_pages(train, workdir):
    donor = train("model=mlp", "model.hidden=[16,8]", "model.norm=batch", "steps=2")
    weights = load_file(donor.path / "checkpoints" / "best.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("head.")}
    save_file(kept, workdir / "body.safetensors")
    given = ("model=mlp", "model.hidden=[16,8]", "model.norm=batch", "steps=2", "initializer=pretrained")
    run = train(
        *given, "initializer.path=body.safetensors", "initializer.strict=false", "initializer.freeze=[layers]"
    )
    told = "8 of 10 tensors loaded; new: head.*"
    assert run.summary["loaded"] == told
    assert told in (run.path / "run.log").read_text()
    assert "loaded" not in donor.summary


@pytest.mark.parametrize("key", ["initializer.freeze", "parameters.freeze"])
def test_a_run_that_would_freeze_noise_is_refused(dltrain, workdir, key):
    """Two counters of the file match by name and shape, and no weight does."""
    save_file(
        {f"layers.{i}.1.num_batches_tracked": torch.tensor(3) for i in range(2)},
        workdir / "other.safetensors",
    )
    given = (
        "model=mlp",
        "model.hidden=[16,8]",
        "model.norm=batch",
        "steps=2",
        "quiet=true",
        "initializer=pretrained",
    )
    with pytest.raises(UserError, match="use another file or model"):
        dltrain(*given, "initializer.path=other.safetensors", "initializer.strict=false", f"{key}=[layers]")
    save_file({"head.bias": torch.ones(10)}, workdir / "head.safetensors")
    with pytest.raises(UserError, match=f"{key}=.*layers.* freezes 8 tensors") as refused:
        dltrain(*given, "initializer.path=head.safetensors", "initializer.strict=false", f"{key}=[layers]")
    assert len(str(refused.value).splitlines()) <= 3
    assert not list(workdir.glob("outputs/**/config.yaml"))


def test_compare_lists_all_kinds():
    state = {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(1)}
    comparison = compare(state, {"a": torch.ones(2), "b": torch.ones(4), "d": torch.ones(1)})
    assert comparison == (["a"], ["c"], ["d"], ["b (file (4,), model (3,))"])


def test_precision_follows_the_model(tmp_path):
    model = net(seed=2).double()
    load(model, save_pickle(tmp_path, net(seed=1).state_dict()))
    assert model[1].weight.dtype == torch.float64
    torch.testing.assert_close(model[1].weight.float(), net(seed=1)[1].weight)


class Code:
    """Something that a pickle would run code for."""


def damaged(folder):
    (folder / "weights.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00damaged")
    return folder / "weights.safetensors"


def code(folder):
    torch.save({"model": Code()}, folder / "weights.pt")
    return folder / "weights.pt"


def empty(folder):
    (folder / "weights.pt").write_bytes(b"")
    return folder / "weights.pt"


def numbers(folder):
    torch.save({"epoch": 3}, folder / "weights.pt")
    return folder / "weights.pt"


@pytest.mark.parametrize(
    "make, message",
    [
        (damaged, "cannot be read .*the file is damaged: copy it again"),
        (code, r"is not a file of tensors .*save it with torch.save\(model.state_dict\(\), path\)"),
        (empty, "is not a file of tensors"),
        (numbers, r"holds other data than named tensors; save it with torch.save"),
        (
            lambda folder: folder / "missing.pt",
            "there is no file .*missing.pt; give a .safetensors or .pt file",
        ),
        (
            lambda folder: folder,
            "there is no file .*best.safetensors; .*folder of a run that kept its best weights",
        ),
    ],
)
def test_files_that_cannot_be_used(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_tensors(str(make(tmp_path)))


def test_a_path_is_needed():
    with pytest.raises(ValueError, match="initializer=pretrained needs initializer.path"):
        pretrained(net(), torch.Generator(), None)


@pytest.mark.parametrize(
    "patterns, frozen",
    [
        (["0"], ["0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias"]),
        (["0.0"], ["0.0.weight", "0.0.bias"]),
        (["*.bias"], ["0.0.bias", "0.1.bias", "1.bias"]),
        (["1.bias", "0.0.weight"], ["0.0.weight", "1.bias"]),
        ([], []),
    ],
)
def test_freeze_and_thaw(patterns, frozen):
    model = net()
    names = freeze_parameters(model, patterns)
    assert names == frozen
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == frozen
    thaw(model, names)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_frozen_parts_do_not_move(tmp_path):
    model = net(seed=2)
    load(model, save_pickle(tmp_path, net(seed=1).state_dict()), freeze=["0"], thaw_epoch=2)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    model(torch.randn(6, 4)).square().sum().backward()
    optimizer.step()
    assert torch.equal(model[0][0].weight, net(seed=1)[0][0].weight)
    assert not torch.equal(model[1].weight, net(seed=1)[1].weight)


def test_the_head_is_the_last_weight_layer():
    model = net()
    assert [id(parameter) for parameter in head_parameters(model)] == [id(model[1].weight), id(model[1].bias)]


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"freeze": ["bodi"]}, "initializer.freeze has 'bodi', which matches no parameter; near: "),
        ({"freeze": ["0", "1"]}, r"leaves nothing to train; leave the head out"),
        ({"thaw_epoch": 3}, "initializer.thaw_epoch is 3, but nothing is frozen; name the frozen layers"),
    ],
)
def test_refusals(keys, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load(net(), save_pickle(tmp_path, net().state_dict()), **keys)
