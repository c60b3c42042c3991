"""`dltrain check`: each check passes on what is right, and fails, by name, on the mistake that it is for."""

from __future__ import annotations

import math
import re
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from dltrain.config.catalogue import Catalogue
from dltrain.config.search_path import catalogue_dir
from dltrain.data.spec import Batch
from dltrain.diagnostics import checks
from dltrain.errors import UserError

LOSS = nn.CrossEntropyLoss(reduction="none")


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3))


def data(samples=16):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, 6, generator=generator), torch.arange(samples) % 3


class WrongSquare(torch.autograd.Function):
    """x², with the slope of x³: the mistake of a layer written by hand."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, grad):
        return 3 * ctx.saved_tensors[0] ** 2 * grad


class Wrong(nn.Module):
    def __init__(self):
        super().__init__()
        self.below, self.above = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, inputs):
        return self.above(WrongSquare.apply(self.below(inputs)))


class Split:
    def __init__(self, inputs):
        self.inputs = inputs

    def __len__(self):
        return len(self.inputs)

    def batches(self, order, size):
        for part in order.split(size):
            yield Batch(self.inputs[part], torch.zeros(len(part)), part)


def test_right_gradients_pass_and_wrong_ones_are_named():
    sound = list(checks.gradients(net(), LOSS, *data()))
    assert all(check.passed for check in sound)
    assert any(check.found == "off by rounding alone" for check in sound)
    # all units at the kink of relu
    zeros = net()
    for parameter in zeros.parameters():
        nn.init.zeros_(parameter)
    assert all(check.passed for check in checks.gradients(zeros, LOSS, *data()))
    found = {check.name: check.passed for check in checks.gradients(Wrong(), LOSS, *data())}
    assert found == {
        "gradient of below.weight": False, "gradient of below.bias": False,
        "gradient of above.weight": True, "gradient of above.bias": True,
    }  # fmt: skip


def test_the_first_loss_is_that_of_a_guess_unless_the_last_layer_is_large():
    model = net()
    check = checks.first_loss(model, LOSS, *data())
    assert check.passed and "(a guess: 1.0986)" in check.wanted
    model[3].weight.data *= 30
    assert not checks.first_loss(model, LOSS, *data()).passed


@pytest.mark.ci
def test_what_can_be_overfitted_and_what_cannot():
    inputs, targets = data()
    model = net()
    before = [p.detach().clone() for p in model.parameters()]
    assert checks.overfit(model, LOSS, inputs, targets).passed
    assert model.training and model[2].p == 0.5  # on a copy
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not checks.overfit(model, LOSS, torch.zeros_like(inputs), targets).passed  # all samples look alike


class Mixing(nn.Module):
    """A linear model whose outputs go through a function of the whole batch."""

    def __init__(self, mix):
        super().__init__()
        self.layer, self.mix = nn.Linear(6, 3), mix

    def forward(self, inputs):
        return self.mix(self.layer(inputs))


@pytest.mark.parametrize(
    "mix",
    [
        lambda o: o - o.mean(0),
        lambda o: o.roll(1, 0),
        lambda o: o.softmax(0),
        lambda o: o.flip(0),
        lambda o: o.view(-1, 2, 3).flip(1).reshape(o.shape),  # within pairs
        lambda o: o.cumsum(0),
        lambda o: o + 1e-3 * torch.arange(len(o))[:, None],  # by the place in the batch
    ],
)  # fmt: skip
def test_a_model_that_mixes_samples_is_told(mix):
    torch.manual_seed(0)
    check = checks.independent(Mixing(mix), data(16)[0])
    assert not check.passed and check.name == "mixing of samples"


def test_batch_norm_and_dropout_mix_nothing_in_evaluation():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    model.train()(data(16)[0])
    check = checks.independent(model, data(16)[0])
    assert check.passed and model.training, check


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.4])
def test_the_lowest_loss_is_the_entropy_of_the_smoothed_targets(epsilon):
    model, (inputs, targets) = net(), data()
    loss = nn.CrossEntropyLoss(reduction="none", label_smoothing=epsilon)
    shares = [1 - epsilon + epsilon / 3, epsilon / 3, epsilon / 3]
    entropy = -sum(p * math.log(p) for p in shares if p > 0)
    assert checks.lowest(model, loss, inputs, targets) == pytest.approx(entropy, abs=1e-6)


@pytest.mark.parametrize("loss", [nn.MSELoss, nn.L1Loss, nn.HuberLoss])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 4e5])
def test_the_lowest_error_is_0_at_any_scale(loss, scale):
    targets = scale * torch.randn(16, 3, generator=torch.Generator().manual_seed(1))

    def each(outputs, wanted):
        return loss(reduction="none")(outputs, wanted.to(outputs)).mean(1)

    first = each(torch.zeros(16, 3, dtype=torch.float64), targets).mean()
    assert checks.lowest(net(), each, data()[0], targets) <= 1e-6 * float(first)


@pytest.mark.ci
def test_a_linear_model_learns_as_many_samples_as_it_can_and_a_blind_one_none():
    torch.manual_seed(0)
    inputs, targets = data(32)
    inputs[:, 2:] = 0  # two numbers a sample: 32 of them cannot be told apart by a line
    assert checks.overfit(nn.Linear(6, 3), LOSS, inputs, targets).passed
    check = checks.overfit(nn.Linear(6, 3), LOSS, torch.ones_like(inputs), targets)
    assert not check.passed and check.name == "overfit 4 samples"


def test_gradients_of_a_large_loss_are_not_blamed_for_its_rounding():
    torch.manual_seed(0)
    inputs, _ = data()
    targets = 4e5 + 1e5 * torch.randn(16, 1)

    def square(outputs, wanted):
        return (outputs - wanted).square().mean(1)

    assert all(check.passed for check in checks.gradients(nn.Linear(6, 1), square, inputs, targets))

    class Half(nn.Linear):
        def forward(self, inputs):
            return WrongSquare.apply(super().forward(inputs))

    assert not all(check.passed for check in checks.gradients(Half(6, 1), square, inputs, targets))


def test_a_sample_in_two_splits_is_counted():
    inputs, _ = data(20)
    assert checks.no_leak({"train": Split(inputs[:15]), "test": Split(inputs[15:])}).passed
    assert checks.no_leak(
        {"train": Split(inputs[:15]), "test": Split(inputs[14:])}
    ).passed  # data hold one twice
    check = checks.no_leak({"train": Split(inputs[:15]), "test": Split(inputs[13:])})
    assert not check.passed and check.found == "2 of train in test"


def test_inputs_with_a_mean_are_told_unless_they_are_meant():
    assert not checks.inputs_are_centered(Split(torch.ones(5, 4)), normalized=True).passed
    assert checks.inputs_are_centered(Split(torch.ones(5, 4)), normalized=False).passed
    assert checks.inputs_are_centered(Split(torch.tensor([[1.0, -1.0]])), normalized=True).passed


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "dataset=diabetes",
        "dataset=breast_cancer loss=bce dataset.class_weights=balanced",
        "model=cnn regularization=[dropout]",
        # FAULTS 10: false alarms
        "regularization=[label_smoothing]",
        "initializer=kaiming_normal",
        "model=cnn initializer=dirac",
        "model=cnn initializer=whitening",
        "initializer=xavier_uniform",
        "dataset=iris",
        "dataset=iris model=linear",
    ],
)
def test_the_shipped_words_pass(dltrain, workdir, capsys, arguments):
    assert dltrain("check", *arguments.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 6 and all(line.startswith("ok ") for line in lines)
    assert not list(workdir.iterdir())


SHIPPED = Catalogue(catalogue_dir()).words
LOCAL = "digits iris wine breast_cancer diabetes two_moons teacher".split()
# What needs files or another package, and what fits to another word only.
AWAY = ("pretrained", "timm", "torchvision", "quadratic", "rosenbrock", "saddle")
BESIDE = {"dirac": "model=cnn", "whitening": "model=cnn", "stochastic_depth": "model=resnet20"}
BESIDE |= dict.fromkeys(("mse", "mae", "huber"), "dataset=diabetes")
# It starts all weights at one number: symmetric units learn nothing, which the check is right to say.
SAID = ("initializer=constant", "initializer=zeros")


@pytest.mark.slow
@pytest.mark.parametrize(
    "word",
    [f"dataset={name}" for name in LOCAL]
    + [f"{g}={n}" for g in ("model", "loss", "initializer") for n in SHIPPED[g] if n not in AWAY]
    + [f"regularization=[{n}]" for n in SHIPPED["regularization"] if n != "none"],
)
def test_no_default_of_the_catalogue_raises_a_false_alarm(dltrain, workdir, capsys, word):
    other = BESIDE.get(word.partition("=")[2].strip("[]"), "")
    wanted = 10 if word in SAID else 0
    assert dltrain("check", word, *other.split()) == wanted, capsys.readouterr().out


def test_every_dataset_without_download_is_scanned():
    downloaded = {"mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "svhn"}
    given = {"csv", "npz", "image_folder", "none"}
    assert set(SHIPPED["dataset"]) == set(LOCAL) | downloaded | given


def test_a_failed_check_is_seen_in_the_exit_code(dltrain, capsys):
    assert dltrain("check", "model=linear", "initializer=normal", "initializer.std=9") == 10
    assert re.search(r"^FAILED +first loss", capsys.readouterr().out, re.MULTILINE)


def test_study_problems_have_nothing_to_check(dltrain):
    with pytest.raises(UserError, match="dataset=none has none"):
        dltrain("check", "dataset=none", "model=quadratic")


def test_rows_that_repeat_are_told_with_the_ways_out(dltrain, workdir, capsys):
    people = [f"{i},{i % 7},{i % 3},{i % 2}" for i in range(60) for _ in range(4)]
    lines = ["person,age,rooms,y", *people]
    Path("panel.csv").write_text("\n".join(lines) + "\n")
    words = ("dataset=csv", "dataset.path=panel.csv", "dataset.target=y", "model=linear")
    assert dltrain("check", *words, "dataset.drop=[person]") == 10
    said = capsys.readouterr().out
    found = said[said.index("FAILED  samples in two splits") :].splitlines()[1:4]
    assert [line.strip() for line in found] == [
        "to keep the rows of one person or thing in one split: dataset.group_column=COLUMN",
        "to leave out copies of rows: awk -F, -v OFS=, '{row = $0; $1 = \"\"} !seen[$0]++ {print row}' panel.csv > once.csv",
        "copies of a sample belong in one split; equal samples of different things, as where few inputs are known, are no fault",
    ]
    subprocess.run(found[1].partition(": ")[2], shell=True, check=True)
    first = {line.partition(",")[2]: line for line in reversed(lines)}
    assert Path("once.csv").read_text().splitlines() == [
        line for line in dict.fromkeys(lines) if line in first.values()
    ]
    lines = [f"{line},{k % 4}" if k else f"{line},visit" for k, line in enumerate(lines)]
    Path("panel.csv").write_text("\n".join(lines) + "\n")
    dltrain("check", *words, "dataset.drop=[visit]", "dataset.group_column=person")
    said = capsys.readouterr().out
    assert "group_column=COLUMN" not in said


ROWS = [
    f"{k},{k % 9}.{k % 7} {k % 5},{k}.5,{('train', 'train', 'val', 'test')[k % 4]},{'ab'[k % 2]}"
    for k in range(120)
]
COPIES = [f"{900 + k},{k % 9}.{k % 7} {k % 5},{k}.5,test,{'ab'[k % 2]}" for k in range(0, 120, 4)]


@pytest.mark.parametrize(("name", "mark"), [("once.csv", ","), ("a=b c.csv", "\t"), ("bars.csv", "|")])
def test_the_command_against_copies_leaves_them_out_and_replaces_no_file(
    dltrain, workdir, capsys, name, mark
):
    lines = ["id,text,x,split,y", *ROWS, *COPIES]
    Path(name).write_text("\n".join(line.replace(",", mark) for line in lines) + "\n")
    Path("once_2.csv").write_text("mine")
    before = {path.name: path.read_bytes() for path in Path().glob("*.csv")}
    keys = (
        "dataset=csv",
        "dataset.target=y",
        "dataset.split_column=split",
        "dataset.drop=[id]",
        "model=linear",
    )
    dltrain("check", *keys, f"dataset.path='{name}'")
    said = capsys.readouterr().out
    assert "30 of train in test" in said
    command = re.search(r"to leave out copies of rows: (awk .*)", said)[1]
    subprocess.run(command, shell=True, check=True, executable="bash")
    assert all(Path(path).read_bytes() == content for path, content in before.items())
    (made,) = {path.name for path in Path().glob("*.csv")} - before.keys()
    assert Path(made).read_text().replace(mark, ",").splitlines() == ["id,text,x,split,y", *ROWS]
    dltrain("check", *keys, f"dataset.path={made}")
    assert re.search(r"^ok +samples in two splits +none", capsys.readouterr().out, re.MULTILINE)


def test_copies_in_a_file_with_quotes_or_in_two_files_are_left_out_by_a_sentence(dltrain, workdir, capsys):
    lines = ["id,text,x,split,y", *ROWS, *COPIES]
    keys = ("dataset=csv", "dataset.target=y", "model=linear")
    Path("quoted.csv").write_text("\n".join([*lines, '1,"a\nb",7,test,a']) + "\n")
    dltrain("check", *keys, "dataset.path=quoted.csv", "dataset.split_column=split", "dataset.drop=[id]")
    told = "copies of rows: of rows that are equal in all columns but 'id', 'text', 'split', keep one, as pandas.DataFrame.drop_duplicates does"
    assert told in capsys.readouterr().out
    Path("first.csv").write_text("\n".join(lines[:121]) + "\n")
    Path("second.csv").write_text("\n".join([lines[0], *COPIES]) + "\n")
    files = ("dataset.path=first.csv", "dataset.test_path=second.csv")
    dltrain("check", *keys, *files, "dataset.drop=[id,split]")
    assert "keep those rows of second.csv that are not in first.csv" in capsys.readouterr().out


def test_every_check_that_fails_says_what_to_do():
    inputs, targets = data()
    large = net()
    large[3].weight.data *= 30
    far = torch.cat([torch.full((1, 6), 1e3), torch.zeros(15, 6)])
    told = {
        checks.first_loss(large, LOSS, inputs, targets): "initializer=default dataset.normalize=unit",
        checks.overfit(net(), LOSS, torch.zeros_like(inputs), targets): "equal inputs and different targets",
        checks.inputs_are_centered(Split(far), True): "dataset.normalize=none",
        checks.no_leak({"train": Split(inputs), "val": Split(inputs)}): "belong in one split",
        checks.independent(Mixing(lambda o: o - o.mean(0)), inputs): "over the samples of a batch",
        next(iter(checks.gradients(Wrong(), LOSS, inputs, targets))): "a custom backward()",
    }
    for found, cure in told.items():
        assert not found.passed and cure in found.cure
