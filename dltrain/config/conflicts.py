"""Combinations that are refused, each with its reason: one table for refusals, documentation and tests.

`PAIRS` are pairs of words that exclude each other whatever their keys are; `CONTRADICTIONS` concern knobs and keys.
Nothing is known here about the user's own words: the parts refuse them when they are built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

from dltrain.config.declarations import Declared, declared
from dltrain.config.schema import Node

# the chosen words of each group; [] or ["none"] where nothing is chosen
Words = Mapping[str, list[str]]


@dataclass(frozen=True)
class Choice:
    """Some words of one group, written `group = word word` or `group != word`."""

    text: str

    @cached_property
    def group(self) -> str:
        return self.text.split()[0]

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset(self.text.split()[2:])

    def matches(self, word: str) -> bool:
        return (word in self.words) == (self.text.split()[1] == "=")

    def chosen(self, words: Words) -> str | None:
        """Return the first chosen word that matches; None where there is none, or the group is not chosen yet."""
        if self.group not in words:
            return None
        return next((word for word in words[self.group] or ["none"] if self.matches(word)), None)


@dataclass(frozen=True)
class Pair:
    """Two choices that exclude each other, why, and what to do instead."""

    one: Choice
    other: Choice
    reason: str
    cure: str

    def found(self, words: Words) -> tuple[str, str] | None:
        """Return the two chosen words of the pair, as `group=word`."""
        one, other = self.one.chosen(words), self.other.chosen(words)
        if one is None or other is None:
            return None
        return f"{self.one.group}={one}", f"{self.other.group}={other}"

    def message(self, found: tuple[str, str]) -> str:
        return f"`{found[0]}` cannot go with `{found[1]}`: {self.reason}.\n{self.cure}."


def _pair(one: str, other: str, reason: str, cure: str) -> Pair:
    return Pair(Choice(one), Choice(other), reason, cure)


_TABLES = "dataset = breast_cancer wine iris diabetes two_moons teacher csv"
_REGRESSIONS = "dataset = diabetes"
_CLASSIFICATIONS = "dataset = digits breast_cancer wine iris two_moons mnist fashion_mnist kmnist cifar10 cifar100 svhn image_folder"
_OF_CLASSES = "accuracy top_k balanced_accuracy precision recall f1 auroc average_precision cohen_kappa mcc calibration_error"
_OF_QUANTITIES = "mae rmse mape r2 spearman"
_FOR_CLASSES, _FOR_QUANTITIES = (
    "metrics=[accuracy,balanced_accuracy,f1,auroc]",
    "metrics=[mae,rmse,mape,r2,spearman]",
)
_OBJECTIVES = "model = quadratic rosenbrock saddle"
_RESNETS = "resnet20 resnet32 resnet56 wide_resnet"
_NETWORKS = f"model = linear mlp deep_linear lenet cnn {_RESNETS} vit_tiny speed_cnn torchvision timm"
_SPATIAL = f"model = lenet cnn {_RESNETS} vit_tiny speed_cnn torchvision timm"
_PICTURES = (
    "augmentation = shift rotate flip crop shear distort scale color cutout cutmix randaugment trivialaugment "
    "alternating_flip"
)
_NO_SPACE = "its rows are columns of numbers without neighbors, and this one works on adjacent pixels"
_NO_SAMPLES = "a study problem is a function of its parameters alone and has no samples"

PAIRS: tuple[Pair, ...] = (
    # Kinds of data
    _pair(_TABLES, _SPATIAL, _NO_SPACE, "Use model=mlp or model=linear"),
    _pair(_TABLES, _PICTURES, _NO_SPACE, "Use augmentation=noise, mixup or none"),
    _pair(
        _REGRESSIONS,
        "loss = cross_entropy bce",
        "a quantity is no class, so that it has no probability",
        "Use loss=auto",
    ),
    _pair(
        _CLASSIFICATIONS,
        "loss = mse mae huber",
        "a class has no distance from another, so that there is no error to measure",
        "Use loss=auto",
    ),
    _pair(
        _REGRESSIONS,
        "regularization = label_smoothing",
        "a quantity has no label whose probability could be smoothed",
        "Leave label_smoothing out",
    ),
    _pair(
        _REGRESSIONS,
        f"metrics = {_OF_CLASSES}",
        "it measures predicted classes, and a quantity has none",
        f"Use {_FOR_QUANTITIES}, or leave it out",
    ),
    _pair(
        _CLASSIFICATIONS,
        f"metrics = {_OF_QUANTITIES}",
        "it measures errors of quantities, and a class has no distance from another",
        f"Use {_FOR_CLASSES}, or leave it out",
    ),
    _pair(
        "loss = mse mae huber",
        f"metrics = {_OF_CLASSES}",
        "this loss is for quantities, and the metric for classes",
        f"Use {_FOR_QUANTITIES}, or leave it out",
    ),
    _pair(
        "loss = cross_entropy bce",
        f"metrics = {_OF_QUANTITIES}",
        "this loss is for classes, and the metric for quantities",
        f"Use {_FOR_CLASSES}, or leave it out",
    ),
    _pair(
        "sampler = balanced",
        f"metrics = {_OF_QUANTITIES}",
        "it balances classes, which quantities do not have",
        "Use sampler=none or sampler=hard",
    ),
    _pair(
        "regularization = label_smoothing",
        f"metrics = {_OF_QUANTITIES}",
        "a quantity has no label whose probability could be smoothed",
        "Leave label_smoothing out",
    ),
    _pair(
        "dataset = none",
        "metrics != none",
        "a study problem has no targets, only the value of its objective",
        "Leave metrics out",
    ),
    _pair(
        "loss = mse mae huber",
        "regularization = label_smoothing",
        "this loss has no label whose probability could be smoothed",
        "Leave label_smoothing out, or use loss=cross_entropy",
    ),
    _pair(
        _REGRESSIONS,
        "sampler = balanced",
        "a quantity has no classes to balance",
        "Use sampler=none or sampler=hard",
    ),
    _pair(
        "loss = mse mae huber",
        "sampler = balanced",
        "this loss is for quantities, which have no classes to balance",
        "Use sampler=none or sampler=hard",
    ),
    # Study problems
    _pair(
        "dataset = none",
        _NETWORKS,
        "a network needs samples, and there are none",
        "Use model=quadratic, rosenbrock or saddle, or another dataset",
    ),
    _pair(
        "dataset != none",
        _OBJECTIVES,
        "the model is itself the objective, and reads no sample",
        "Use dataset=none",
    ),
    _pair("dataset = none", "augmentation != none", _NO_SAMPLES, "Use augmentation=none"),
    _pair("dataset = none", "sampler = balanced hard", _NO_SAMPLES, "Use sampler=none"),
    _pair(
        "dataset = none",
        "diagnostics = layers batch_noise",
        "a study problem has neither layers nor samples",
        "Use diagnostics=[curvature,prediction,surface]",
    ),
    _pair(
        "dataset = none",
        "loss != auto",
        "the model's output is the loss, and there is no target",
        "Use loss=auto",
    ),
    _pair(
        "dataset = none",
        "regularization = label_smoothing",
        "there is no label whose probability could be smoothed",
        "Leave label_smoothing out",
    ),
    _pair(
        _OBJECTIVES,
        "regularization = dropout stochastic_depth max_norm",
        "the parameters are one vector, without units or branches that could be dropped or bounded",
        "Use regularization=[l2] with all_parameters=true",
    ),
    _pair(
        _OBJECTIVES,
        "initializer != default",
        "the start is part of the problem, and one vector has neither fan-in nor layers",
        "Use initializer=default, and the model's own key for the start",
    ),
    # Needs of a step
    _pair(
        "wrap = sam",
        "optimizer = lbfgs newton_cg steepest",
        "it uses the curvature at w or a line search, whose gradients must belong to one loss, and sam moves w between them",
        "Use a first-order optimizer such as optimizer=momentum",
    ),
    _pair(
        "wrap = lookahead",
        "optimizer = lbfgs newton_cg schedule_free",
        "it keeps iterates of its own (secant pairs, the last accepted point, an average), which lookahead would move w away from",
        "Use a first-order optimizer such as optimizer=adam",
    ),
    _pair(
        "momentum_schedule != none",
        "optimizer = gd sgd adagrad adadelta rprop quickprop adafactor steepest newton_cg lbfgs",
        "there is no momentum to schedule",
        "Use optimizer=momentum, or momentum_schedule=none",
    ),
    _pair(
        "schedule != constant none",
        "optimizer = rprop",
        "each weight's step size follows the signs of its gradients, and lr is the first one only",
        "Use schedule=constant, or a first-order optimizer such as optimizer=gd",
    ),
    _pair(
        "regularization = gradient_clipping",
        "optimizer = rprop",
        "it heeds the signs of the gradient only, which clipping leaves as they are",
        "Leave gradient_clipping out, or use a first-order optimizer such as optimizer=gd",
    ),
    _pair(
        "penalty_schedule != none",
        "regularization = none",
        "there is no strength to schedule",
        "Add regularization=[l2], or use penalty_schedule=none",
    ),
    _pair(
        "regularization = stochastic_depth",
        "model = linear deep_linear lenet cnn speed_cnn torchvision",
        "it drops a residual branch and keeps the skip, and this model has no skips: dropping a layer would cut the path",
        "Use model=resnet20, vit_tiny or mlp with model.residual=true",
    ),
)


@dataclass(frozen=True)
class Contradiction:
    """Knobs or keys that contradict each other: a predicate, and the message, formatted with the configuration."""

    occurs: Callable[[Node, Words], bool]
    message: str


def has(plain: Node, group: str, *keys: str) -> bool:
    """Return whether a node of the configuration has one of these keys."""
    return any(key in (plain.get(group) or {}) for key in keys)


def value(plain: Node, path: str) -> Any:
    """Return the value at a dotted path, None where there is none."""
    node: Any = plain
    for key in path.split("."):
        node = node.get(key) if isinstance(node, dict) else None
    return node


LONGEST_NAME = 200  # bytes; file systems allow 255, and temporary files add to it


def leads_outside(name: object) -> bool:
    """Return whether a run's name is the path of a folder that is not below `output`."""
    path = PurePath(str(name or ""))
    return path.is_absolute() or ".." in path.parts or not str(path).isprintable()


CONTRADICTIONS: tuple[Contradiction, ...] = (
    Contradiction(
        lambda c, w: leads_outside(c["name"]),
        "`name` is {name!r}; it must be the name of a folder below `output`. For another place: output=FOLDER",
    ),
    Contradiction(
        lambda c, w: any(len(part.encode()) > LONGEST_NAME for part in PurePath(str(c["name"] or "")).parts),
        "`name` has a part of more than 200 bytes, and file systems take no longer names. Use a shorter one; a "
        "sentence goes into notes='…'",
    ),
    Contradiction(
        lambda c, w: c["epochs"] is not None and c["steps"] is not None,
        "`epochs` is {epochs} and `steps` is {steps}: both say how long to train. Give one (the other as null).",
    ),
    Contradiction(
        lambda c, w: (c["fold"] is not None) and (c["folds"] is None),
        "`fold` is {fold} but `folds` is not set: say of how many. Add folds=5.",
    ),
    Contradiction(
        lambda c, w: c["folds"] is not None and c["fold"] is None,
        "`folds` is {folds} but `fold` is not set: say which one validates. Add fold=0 (or -m with fold=0,1,…).",
    ),
    Contradiction(
        lambda c, w: None not in (c["folds"], c["fold"]) and c["fold"] >= c["folds"],
        "`fold` is {fold}; with folds={folds} it must be below {folds}. Folds count from 0.",
    ),
    Contradiction(
        lambda c, w: c["evaluation"]["every_epochs"] is None and c["evaluation"]["every_steps"] is None,
        "`evaluation.every_epochs` and `evaluation.every_steps` are both null: early stopping and the best weights need a "
        "validation. Set one of them.",
    ),
    Contradiction(
        lambda c, w: bool(value(c, "evaluation.tta_words")) and not value(c, "evaluation.tta"),
        "`evaluation.tta_words` is {evaluation[tta_words]}, but `evaluation.tta` is 0: say how many copies of each sample, such as "
        "evaluation.tta=8.",
    ),
    Contradiction(
        lambda c, w: (
            has(c, "regularization", "weight_decay") and (value(c, "optimizer.weight_decay") or 0) > 0
        ),
        "`optimizer.weight_decay` is {optimizer[weight_decay]} beside regularization=[weight_decay]: the weights would decay "
        "twice.\nSet optimizer.weight_decay=0, or leave weight_decay out of `regularization`.",
    ),
    Contradiction(
        lambda c, w: c["lr"] is not None and bool(c["optimizer"]) and "lr" not in c["optimizer"],
        "`lr` is {lr}, and optimizer={words[optimizer]} has no key `lr`.\n"
        "Add a parameter `lr` to its target; to the file of a target with **kwargs, add the line: lr: 0.01",
    ),
    Contradiction(
        lambda c, w: w["momentum_schedule"] != ["none"] and not has(c, "optimizer", "momentum", "betas"),
        "`momentum_schedule` schedules momentum, and optimizer={words[optimizer]} has none. Use optimizer=momentum, or "
        "momentum_schedule=none.",
    ),
    Contradiction(
        lambda c, w: (
            w["optimizer"] == ["rprop"]
            and bool(value(c, "schedule.warmup_steps") or value(c, "schedule.warmup_epochs"))
        ),
        "`schedule` warms lr up, and with optimizer=rprop lr is the first step size only.\n"
        "Leave the warm-up out, and give the first step size: lr={lr}",
    ),
    Contradiction(
        lambda c, w: w["optimizer"] == ["lbfgs"] and bool(value(c, "parameters.lr_scale")),
        "`parameters.lr_scale` is {parameters[lr_scale]}, and optimizer=lbfgs makes one step of all weights along one direction, "
        "by one line search.\nUse a first-order optimizer, or leave lr_scale out.",
    ),
    Contradiction(
        lambda c, w: (
            w["optimizer"] == ["lbfgs"]
            and (value(c, "parameters.thaw_epoch") or value(c, "initializer.thaw_epoch")) is not None
        ),
        "`thaw_epoch` is set, and optimizer=lbfgs keeps pairs of steps and gradients of one set of weights, which would grow.\n"
        "Use a first-order optimizer, or leave thaw_epoch out.",
    ),
    Contradiction(
        lambda c, w: value(c, "parameters.thaw_epoch") is not None and not value(c, "parameters.freeze"),
        "`parameters.thaw_epoch` is {parameters[thaw_epoch]}, but nothing is frozen. Say what: parameters.freeze=[layers.0]",
    ),
    Contradiction(
        lambda c, w: c["shuffle"] == "replacement" and w["sampler"] == ["balanced"],
        "`shuffle=replacement` draws each batch freely, and sampler=balanced fixes what is in it. Use one of them.",
    ),
    Contradiction(
        lambda c, w: w["sampler"] == ["balanced"] and value(c, "dataset.class_weights") == "balanced",
        "`dataset.class_weights` is balanced beside sampler=balanced: rare classes would come more often and weigh more, which "
        "corrects twice.\nUse one of them: dataset.class_weights=none, or sampler=none.",
    ),
    Contradiction(
        lambda c, w: w["dataset"] == ["none"] and value(c, "dataset.class_weights") == "balanced",
        "`dataset.class_weights` is balanced, and dataset=none has no classes. Use dataset.class_weights=none.",
    ),
    Contradiction(
        lambda c, w: (
            w["optimizer"][0] in ("newton_cg", "steepest") and value(c, "model.attention") == "fused"
        ),
        "`model.attention` is fused, and optimizer={words[optimizer]} needs Hessian-vector products: the fused kernel has no "
        "second derivative.\nSet model.attention=math.",
    ),
    Contradiction(
        lambda c, w: (
            bool({"curvature", "prediction"} & set(w.get("diagnostics", [])))
            and value(c, "model.attention") == "fused"
        ),
        "`model.attention` is fused, and diagnostics={words[diagnostics]} needs Hessian-vector products: the fused kernel has "
        "no second derivative.\nSet model.attention=math.",
    ),
    Contradiction(
        lambda c, w: (
            w["model"] == ["mlp"]
            and (value(c, "model.stochastic_depth") or 0) > 0
            and not value(c, "model.residual")
        ),
        "`model.stochastic_depth` is {model[stochastic_depth]}, but an MLP has no residual branch to drop unless "
        "model.residual=true.\nAdd model.residual=true model.hidden=[128,128].",
    ),
    Contradiction(
        lambda c, w: (
            w["dataset"] == ["teacher"]
            and value(c, "dataset.task") == "regression"
            and w["sampler"] == ["balanced"]
        ),
        "`dataset.task` is regression, and sampler=balanced balances classes, which a regression does not have. Use sampler=none.",
    ),
)


@dataclass(frozen=True)
class Clash:
    """A need of an optimizer that a regularizer breaks."""

    need: str
    breaks: Callable[[Declared], bool]
    reason: str


CLASHES = (
    Clash(
        "one loss",
        lambda rule: "change_gradients" in rule.actions,
        "its step follows from curvature or a line search, so that gradient and loss must belong together, and this changes the "
        "gradient alone",
    ),
    Clash(
        "one loss",
        lambda rule: "lr as step size" in rule.needs,
        "its step follows from curvature or a line search, and lr, by which this shrinks the weights, is not its size",
    ),
    Clash(
        "own points",
        lambda rule: bool({"before_update", "after_update"} & rule.actions),
        "it learns the curvature from its own steps, and this moves the weights besides",
    ),
)
FIRST_ORDER = "a first-order optimizer such as optimizer=momentum"


def clash(optimizer: Any, rule: Any, keys: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return why the targets of an optimizer and a regularizer with these keys exclude each other, and the cure."""
    needs = frozenset().union(*(part.needs for part in declared(optimizer, {})))
    return clash_of(needs, declared(rule, keys))


def clash_of(needs: frozenset[str], rules: Sequence[Declared]) -> tuple[str, str] | None:
    """Return the same from what they declare: a clash must hold for every class that the regularizer may be."""
    found = [next((c for c in CLASHES if c.need in needs and c.breaks(rule)), None) for rule in rules]
    if not found or None in found:
        return None
    instead = rules[0].instead
    cure = (
        f"Use {instead}, which acts in the loss, or {FIRST_ORDER}"
        if instead
        else f"Leave it out, or use {FIRST_ORDER}"
    )
    first = found[0]
    assert first is not None
    return first.reason, cure


def scales_nothing(rules: Mapping[str, Node]) -> bool:
    """Return whether none of these regularizers has a strength that a penalty schedule scales, as far as their source shows."""
    known = [declared(node.get("_target_"), node) for node in rules.values() if node.get("_target_")]
    return all(candidates and not any(c.scaled for c in candidates) for candidates in known)


def check_rules(plain: Node, words: Words) -> str | None:
    """Return the refusal of regularizers that the optimizer excludes, or that a penalty schedule does not affect."""
    for word, node in plain["regularization"].items():
        found = clash(plain["optimizer"].get("_target_"), node.get("_target_"), node)
        if found is not None:
            return f"`regularization={word}` cannot go with `optimizer={words['optimizer'][0]}`: {found[0]}.\n{found[1]}."
    rules = plain["regularization"]
    if rules and words["penalty_schedule"] != ["none"] and scales_nothing(rules):
        return (
            f"`penalty_schedule={words['penalty_schedule'][0]}` scales penalties and decay, and regularization=[{','.join(rules)}] "
            f"has neither.\nAdd one: regularization=[{','.join([*rules, 'l2'])}], or use penalty_schedule=none."
        )
    return None
