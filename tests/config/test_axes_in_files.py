"""Axes of `sweep.space` in YAML that cannot be read: file, line, the nearest name, and the form that works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

from dltrain.errors import UserError
from dltrain.sweep.plan.space import axes_of_yaml, grid

MISTAKES = {
    "optimizer: [sgd, adam]\n  lr: {values: [0.1], when: {optimizer: adm}}": (
        4,
        r"Did you mean `adam`\?\nIts values: sgd, adam",
    ),
    "optimizer: [sgd, adam]\n  lr: {values: [0.1], when: optimizer=adam}": (
        4,
        "must be a mapping of an earlier axis",
    ),
    "optimizer: [sgd, adam]\n  lr: {values: [0.1], when: [adam]}": (
        4,
        "must be a mapping of an earlier axis",
    ),
    "lr: {low: 0.01, high: 0.1}\n  steps: {values: [2], when: {lr: 0.1}}": (4, "names lr, which is a range"),
    "optimizer: [sgd]\n  lr: {values: [0.1], when: {optimzer: sgd}}": (4, "Did you mean `optimizer`"),
    "steps: [1]\n  optimizer.momentum: {low: 0.1, hgih: 0.9}": (4, "Did you mean `high`"),
    "lr: {values: [0.1], if: 3}": (
        3,
        "is no key of an axis.\nKeys of an axis: values, low, high, log, int, when",
    ),
    "lr: {low: 0.1, hihg: 1}": (3, "Did you mean `high`"),
    "lr: {low: 0.1, high: 1, log: yess}": (3, "it must be: true or false"),
    "lr: {values: 0.1}": (3, r"must be a list of values.\nWrite `lr: \[a, b\]`"),
    "lr: 0.1": (3, "must be a list of values, or a mapping"),
    "lr: []": (3, "must be a list of values"),
    "lr: {low: 0.1}": (3, "it needs values, or low and high"),
    # once ignored beside values
    "lr: {values: [0.1, 0.2], low: 0.01}": (3, "it needs values, or low and high"),
    "lr: {values: [0.1, 0.2], log: true}": (3, "it needs values, or low and high"),
    "lr: {low: 0.1, high: 0.01}": (3, "its low end must be below its high end"),
}


@pytest.mark.parametrize("axes", MISTAKES)
def test_an_axis_that_cannot_be_read(dltrain, workdir, axes):
    line, said = MISTAKES[axes]
    (workdir / "conf" / "sweep").mkdir(parents=True)
    (workdir / "conf" / "sweep" / "mine.yaml").write_text(f"defaults: [random, _self_]\nspace:\n  {axes}\n")
    with pytest.raises(
        UserError, match=f"mine.yaml, line {line}: .*{said}" if "\n" not in said else said
    ) as refused:
        dltrain("-m", "sweep=mine", "sweep.trials=2", "steps=1")
    assert f"conf/sweep/mine.yaml, line {line}: `sweep.space." in str(refused.value)
    assert not (workdir / "outputs").exists()


@pytest.mark.parametrize(
    "axis, optimizers",
    [
        ("logspace(-4, -1, 4)", {"sgd", "adam"}),
        ('{values: "logspace(-4, -1, 4)", when: {optimizer: adam}}', {"adam"}),
    ],
)
def test_log_spaced_values_in_a_file(axis, optimizers):
    space = {"optimizer": ["sgd", "adam"], "lr": yaml.safe_load(axis)}
    configurations = list(grid(axes_of_yaml(space)))
    for name in ("sgd", "adam"):
        found = [float(c["lr"]) for c in configurations if c["optimizer"] == name and "lr" in c]
        assert found == (pytest.approx(np.logspace(-4, -1, 4)) if name in optimizers else [])


@pytest.mark.parametrize("where", ["sweep", "experiment"])
def test_a_space_that_is_a_list(dltrain, workdir, where):
    (workdir / "conf" / where).mkdir(parents=True)
    text = "defaults: [grid, _self_]\nspace: [lr]\n" if where == "sweep" else "sweep:\n  space: [lr]\n"
    (workdir / "conf" / where / "mine.yaml").write_text(text)
    with pytest.raises(
        UserError, match=r"mine.yaml, line 2: `sweep.space` is \[lr\]; it must be axes with their values"
    ):
        dltrain("-m", f"{where}=mine", "steps=1")


def test_the_cure_for_several_values_keeps_the_rest_of_the_command(dltrain, workdir, capsys):
    for typed in (
        ["lr=0.1,0.01", "name=my run", "steps=2"],
        ["lr=interval(0.001,0.1)", "steps=2", "model=linear"],
    ):
        with pytest.raises(UserError, match="gives several values") as refused:
            dltrain(*typed)
        (command,) = re.findall(r"add -m: dltrain (.*)", str(refused.value))
        assert {text.partition("=")[0] for text in typed} <= {
            text.partition("=")[0] for text in shlex.split(command)
        }
        assert dltrain(*shlex.split(command), "sweep.dry_run=true") == 0
        capsys.readouterr()


def test_the_folder_of_a_sweep_is_not_a_run(dltrain, workdir):
    assert dltrain("-m", "lr=0.1,0.01", "steps=1", "quiet=true", "model=linear") == 0
    (folder,) = (file.parent for file in workdir.glob("outputs/*/*/sweep.json"))
    with pytest.raises(UserError, match="is a sweep, whose runs are scored one by one") as refused:
        dltrain("evaluate", str(folder))
    (cure,) = re.findall(r"Its best configuration: dltrain (.*)", str(refused.value))
    assert dltrain(*shlex.split(cure)) == 0
    (workdir / "new.npz").write_bytes(b"")
    with pytest.raises(UserError, match="is a sweep, whose runs are used one by one") as refused:
        dltrain("predict", str(folder), "new.npz", "--output", "p q.csv")
    (cure,) = re.findall(r"Its best configuration: dltrain (.*)", str(refused.value))
    verb, run, *rest = shlex.split(cure)
    assert (verb, rest) == ("predict", ["new.npz", "--output", "p q.csv"])
    assert Path(run).parent.resolve() == folder.resolve()
    with pytest.raises(UserError, match="Name runs of it, such as") as refused:
        dltrain("export", str(folder))
    assert dltrain("show", *re.findall(r"such as (\S+);", str(refused.value))) == 0


def test_the_header_tells_the_rate_of_parameters_that_are_not_scaled(dltrain, workdir, capfd):
    dltrain("lr=0.02", "model=cnn", "steps=1", "parameters.lr_scale={features: 0.1}", "dataset.limit=64")
    assert "lr 0.02 ·" in capfd.readouterr().out


@pytest.mark.parametrize("text, line", [("trails: 3\n", 2), ("spaces: {lr: [0.1]}\n", 2)])
def test_a_misspelt_setting_of_a_sweep_in_a_file(dltrain, workdir, text, line):
    (workdir / "conf" / "sweep").mkdir(parents=True)
    (workdir / "conf" / "sweep" / "mine.yaml").write_text(f"defaults: [grid, _self_]\n{text}")
    key = text.partition(":")[0]
    nearest = {"trails": "sweep.trials", "spaces": "sweep.space"}[key]
    with pytest.raises(
        UserError, match=f"conf/sweep/mine.yaml, line {line}.*Did you mean `{nearest}`"
    ) as refused:
        dltrain("-m", "sweep=mine", "lr=0.1,0.01", "steps=1")
    assert f"`sweep.{key}`" in str(refused.value)
