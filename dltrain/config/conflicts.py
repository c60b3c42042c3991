"""Combinations that are refused: derived from what parts declare to need and to give, and contradictions between knobs.

`RULES` concern declared items (dltrain/declare.py), never words, so that they hold for the user's own parts; a part that
declares nothing is combined with everything. `CONTRADICTIONS` concern knobs and keys alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations, permutations
from pathlib import Path, PurePath
from typing import Any

from dltrain.config.catalogue import Catalogue, Word, written
from dltrain.config.declarations import Declared, condition, declared, held
from dltrain.config.groups import LIST_GROUPS, OVERLAYS, Group
from dltrain.config.schema import Node
from dltrain.text import utf8

# the chosen words of each group; [] or ["none"] where nothing is chosen
Words = Mapping[str, list[str]]


@dataclass(frozen=True)
class Part:
    """A chosen word, or the value of a knob, with the items that hold for its keys.

    Args:
        off: for a knob, the override without the conflict
    """

    group: str
    word: str
    needs: frozenset[str] = frozenset()
    gives: frozenset[str] = frozenset()
    own: Declared = Declared()
    keys: Mapping[str, Any] = field(default_factory=dict)
    off: str = ""

    @property
    def label(self) -> str:
        """The part as it is written on the command line."""
        return f"{self.group}={self.word}"

    def shown(self, side: str) -> str:
        """Return the label, with the key on which an item depends."""
        found = condition(side.partition(" ")[2], self.own, self.keys)
        return f"`{self.label}`" + (f" with {found}" if found else "")


@dataclass(frozen=True)
class Rule:
    """Two items, `needs ITEM` or `gives ITEM`, of two parts that exclude each other.

    Args:
        cure: may contain {one} and {other}, how to do without that part
    """

    one: str
    other: str
    reason: str
    cure: str = "{other}"


# what an item implies
IMPLIED = dict.fromkeys(("images", "rows", "classes", "quantities"), "samples") | {
    "constrained weights": "moved weights"
}
_FIRST_ORDER = "a first-order optimizer such as optimizer=momentum"

RULES = (
    # Kinds of data
    Rule(
        "gives rows",
        "needs images",
        "its rows are columns of numbers without neighbors, and this one works on adjacent pixels",
    ),
    Rule(
        "gives quantities",
        "needs classes",
        "a quantity is no class: it has neither a label nor a probability",
    ),
    Rule(
        "gives classes",
        "needs quantities",
        "a class has no distance from another, so that there is no error to measure",
    ),
    Rule(
        "needs quantities",
        "needs classes",
        "the one is for quantities, which have no classes, no labels and no probabilities",
    ),
    # Study problems
    Rule(
        "gives no samples",
        "needs samples",
        "a study problem is a function of its parameters alone and has no samples",
        "{other}, or use another dataset",
    ),
    Rule("gives an objective", "gives samples", "the model is itself the objective, and reads no sample"),
    Rule(
        "gives an objective",
        "needs layers",
        "the parameters are one vector, whose start is part of the problem, without layers or units",
    ),
    # Needs of a step
    Rule(
        "gives gradients elsewhere",
        "needs one loss",
        "it uses the curvature at w or a line search, whose gradients must belong to one loss, and this moves w between them",
        f"Use {_FIRST_ORDER}",
    ),
    Rule(
        "gives slow weights",
        "needs own iterates",
        "it keeps iterates of its own (secant pairs, the last accepted point, an average), and this moves w away from them",
        f"Use {_FIRST_ORDER}",
    ),
    Rule(
        "needs momentum",
        "gives no momentum",
        "there is no momentum to schedule",
        "Use optimizer=momentum, or {one}",
    ),
    Rule(
        "needs lr of each step",
        "gives steps by sign",
        "each weight's step size follows the signs of its gradients, and lr is the first one only",
        f"{{one}}, or use {_FIRST_ORDER}",
    ),
    Rule(
        "needs sizes of gradients",
        "gives steps by sign",
        "it uses the signs of the gradient only, which this leaves as they are",
        f"{{one}}, or use {_FIRST_ORDER}",
    ),
    Rule(
        "gives changed gradients",
        "needs one loss",
        "its step follows from curvature or a line search, so that gradient and loss must belong together, and this changes the "
        "gradient alone",
        f"{{one}}, or use {_FIRST_ORDER}",
    ),
    Rule(
        "needs lr as step size",
        "needs one loss",
        "its step follows from curvature or a line search, and lr, by which this shrinks the weights, is not its size",
        f"{{one}}, or use {_FIRST_ORDER}",
    ),
    Rule(
        "gives moved weights",
        "needs own points",
        "it learns the curvature from its own steps, and this moves the weights besides",
        f"{{one}}, or use {_FIRST_ORDER}",
    ),
    Rule(
        "gives constrained weights",
        "needs own average",
        "it leaves an average of its iterates in the model, and this would move the average alone, toward another solution",
        f"{{one}}, or use {_FIRST_ORDER}",
    ),
    Rule(
        "gives new weights",
        "needs own points",
        "it keeps pairs of steps and gradients of one set of weights, which would grow",
        f"{{one}}, or use {_FIRST_ORDER}",
    ),
    Rule(
        "needs a step size for each weight",
        "gives one step size",
        "it makes one step of all weights along one direction, by one line search",
        f"{{one}}, or use {_FIRST_ORDER}",
    ),
    Rule(
        "needs second derivatives",
        "gives no second derivatives",
        "it needs Hessian-vector products, and this has no second derivative",
    ),
    Rule(
        "needs skips",
        "gives no skips",
        "it drops a residual branch and keeps the skip, and this model has no skips: dropping a layer would cut the path",
    ),
    Rule("needs dropout", "gives no dropout", "this model has no key `dropout`", "{one}"),
    Rule(
        "needs label smoothing",
        "gives no label smoothing",
        "this loss has no key `label_smoothing`",
        "{one}",
    ),
    Rule(
        "needs strength",
        "gives no strength",
        "it scales penalties and decay, and there is no strength to schedule",
        "{other}, or {one}",
    ),
    Rule("gives decay", "gives decay", "the weights would decay twice", "{other}, or {one}"),
    Rule(
        "gives slow weights",
        "gives slow weights",
        "slow weights would follow slow weights, which is Lookahead inside Lookahead",
        "{one}, or {other}",
    ),
    Rule(
        "gives mirrors",
        "gives mirrors",
        "the one mirrors at random, so that the other's alternation from epoch to epoch would be lost",
        "{other}, or {one}",
    ),
    # Batches
    Rule(
        "gives free draws",
        "gives composed batches",
        "the one draws each batch freely, and the other fixes what is in it",
        "{one}, or {other}",
    ),
    Rule(
        "gives balanced classes",
        "gives balanced classes",
        "rare classes would come more often and weigh more, which corrects twice",
        "{other}, or {one}",
    ),
)


@dataclass(frozen=True)
class Knob:
    """What the value of a knob or key needs and gives.

    Args:
        on: the value that does; None for every value but 0, null and nothing
        off: a value that does not
    """

    path: str
    on: str | None
    off: str
    needs: frozenset[str] = frozenset()
    gives: frozenset[str] = frozenset()


_LR = frozenset({"lr of each step"})
_CLASSES = frozenset({"classes", "samples"})
KNOBS = (
    Knob("shuffle", "replacement", "epoch", gives=frozenset({"free draws"})),
    Knob("shuffle", "bernoulli", "epoch", gives=frozenset({"free draws"})),
    Knob("dataset.class_weights", "balanced", "none", _CLASSES, frozenset({"balanced classes"})),
    Knob("parameters.lr_scale", None, "{}", needs=frozenset({"a step size for each weight"})),
    Knob("parameters.thaw_epoch", None, "null", gives=frozenset({"new weights"})),
    Knob("initializer.thaw_epoch", None, "null", gives=frozenset({"new weights"})),
    Knob("optimizer.weight_decay", None, "0", gives=frozenset({"decay"})),
    Knob("model.stochastic_depth", None, "0", needs=frozenset({"skips"})),
    Knob("folds", None, "null fold=null", needs=frozenset({"samples"})),
    Knob("evaluation.batch_size", None, "null", needs=frozenset({"samples"})),
    Knob("schedule.warmup_steps", None, "0", needs=_LR),
    Knob("schedule.warmup_epochs", None, "0", needs=_LR),
)
# what a word of a group gives that has no key of these names
LACKING: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "optimizer": {"no momentum": ("momentum", "betas")},
    "model": {"no skips": ("stochastic_depth",), "no dropout": ("dropout",)},
    "loss": {"no label smoothing": ("label_smoothing",)},
}


def part_of(word: Word, keys: Mapping[str, Any] | None = None) -> Part:
    """Return a word with the items that hold for its keys, by default those of its file and signature."""
    keys = word.keys if keys is None else keys
    target = keys.get("_target_", word.target)
    own = word.declared if target == word.target else declared(str(target), (Path.cwd(),))
    return part(word.kind, word.name, own, keys, keys if word.signature.open_ended else word.keys)


def part(
    group: Group, name: str, own: Declared, keys: Mapping[str, Any], known: Mapping[str, Any] | None = None
) -> Part:
    """Return what a part of a group needs and gives; `known` are all keys that it has."""
    needs = group.needs if own.needs is None else own.needs
    known = keys if known is None else known
    lacks = [item for item, names in LACKING.get(group.name, {}).items() if known.keys().isdisjoint(names)]
    gives = _implied(held(own.gives, keys).union(lacks))
    return Part(group.name, name, _implied(held(needs, keys)), gives, own, keys)


@lru_cache(maxsize=1024)
def _implied(items: frozenset[str]) -> frozenset[str]:
    return items | {IMPLIED[item] for item in items if item in IMPLIED}


def without_strength(rules: Mapping[str, Declared], nodes: Mapping[str, Node]) -> Part | None:
    """Return all regularizers as a part that gives no strength, if they are known to have none."""
    if any(not own.complete or "strength" in held(own.gives, nodes[word]) for word, own in rules.items()):
        return None
    shown = f"[{','.join(rules)}]" if len(rules) > 1 else next(iter(rules), "none")
    cure = f"regularization=[{','.join([*rules, 'l2'])}]"
    own = Declared(gives=frozenset({"no strength"}), instead={"no strength": cure})
    return Part("regularization", shown, gives=own.gives, own=own)


def parts_of(plain: Node, words: Words, catalogue: Catalogue) -> Iterator[Part]:
    """Yield the parts of a configuration: its words, then its knobs."""
    for group, names in words.items():
        nodes = plain.get(group) or {}
        known = catalogue.words.get(group, {})
        for name in names if group not in (*OVERLAYS, "sweep") else ():
            node = nodes.get(name) if group in LIST_GROUPS else nodes
            if name in known and node and "_target_" in node:
                yield part_of(known[name], node)
    if words.get("penalty_schedule", ["none"]) != ["none"]:
        rules = {name: catalogue.words["regularization"][name].declared for name in words["regularization"]}
        weak = without_strength(rules, plain["regularization"])
        if weak is not None:
            yield weak
    for knob in KNOBS:
        chosen = value(plain, knob.path)
        if chosen == knob.on if knob.on else chosen:
            shown = written(chosen) if not isinstance(chosen, dict) else "{…}"
            yield Part(knob.path, shown, knob.needs, knob.gives, off=f"{knob.path}={knob.off}")


def first_conflict(parts: Sequence[Part]) -> tuple[Rule, Part, Part] | None:
    """Return the first rule that two of these parts break, and the parts in its order."""
    found = _first_broken(tuple((part.needs, part.gives) for part in parts))
    return None if found is None else (found[0], parts[found[1]], parts[found[2]])


# Cached, since the jobs of a sweep repeat it.
@lru_cache(maxsize=1024)
def _first_broken(parts: tuple[tuple[frozenset[str], frozenset[str]], ...]) -> tuple[Rule, int, int] | None:
    for rule in RULES:
        for (i, one), (j, other) in permutations(enumerate(parts), 2):
            if _has(one, rule.one) and _has(other, rule.other):
                return rule, i, j
    return None


def _has(items: tuple[frozenset[str], frozenset[str]], side: str) -> bool:
    """Return whether a part `needs ITEM` or `gives ITEM`."""
    verb, _, item = side.partition(" ")
    return item in items[verb == "gives"]


def refusal(parts: Iterable[Part], catalogue: Catalogue | None = None) -> str | None:
    """Return the message of the first conflict: the two parts, the reason and the cure."""
    found = first_conflict(list(parts))
    if found is None:
        return None
    rule, one, other = found
    advice = cure(rule, one, other, catalogue)
    return f"{one.shown(rule.one)} cannot go with {other.shown(rule.other)}: {rule.reason}.\n{advice}."


def cure(rule: Rule, one: Part, other: Part, catalogue: Catalogue | None) -> str:
    """Return what to do about two parts that break a rule."""
    first = without(one, rule.one, other, catalogue)
    second = without(other, rule.other, one, catalogue)
    text = rule.cure.format(one=first[0].lower() + first[1:], other=second[0].lower() + second[1:])
    return text[0].upper() + text[1:]


def without(out: Part, side: str, against: Part, catalogue: Catalogue | None) -> str:
    """Return how to do without a part: its own `instead`, or words of its group that can go with the other out."""
    item = side.partition(" ")[2]
    if item in out.own.instead:
        return f"Use {out.own.instead[item]}"
    if out.off:
        return f"Use {out.off}"
    fitting = fits(out.group, against, catalogue) if catalogue else []
    names = " or ".join(", ".join(fitting).rsplit(", ", 1))
    if out.group in LIST_GROUPS:
        return f"Leave {out.word} out" + f", or use {out.group}={names}" * (0 < len(fitting) <= 3)
    return f"Use {out.group}={names}" if fitting else f"Use another {out.group}"


def fits(group: str, against: Part, catalogue: Catalogue) -> list[str]:
    """Return the default word of a group, if it can go with a part, or else some shipped words that can."""
    found = []
    for name, word in catalogue.words[group].items():
        own = part_of(word) if word.target else Part(group, name)
        if catalogue.root in word.file.parents and first_conflict((own, against)) is None:
            found.append(name)
    default = catalogue.default_word(group)
    if group not in LIST_GROUPS:
        return [default] if default in found else found[:3]
    return [name for name in found if name != "none"]


def refused_pairs(catalogue: Catalogue) -> Iterator[tuple[Rule, Part, Part]]:
    """Yield every two words of two groups that exclude each other with their default keys, and the rule."""
    groups = [group for group in catalogue.words if group not in (*OVERLAYS, "sweep")]
    parts = [
        part for group in groups for word in catalogue.words[group].values() for part in parts_alone(word)
    ]
    for one, other in combinations(parts, 2):
        found = first_conflict((one, other)) if one.group != other.group else None
        if found is not None:
            yield found


def parts_alone(word: Word, keys: Mapping[str, Any] | None = None) -> Iterator[Part]:
    """Yield the parts of one word where no other word of its group is chosen."""
    if word.target:
        yield part_of(word, keys)
    if word.group == "regularization":
        nodes = {word.name: dict(word.keys if keys is None else keys)}
        weak = without_strength({word.name: word.declared} if word.target else {}, nodes)
        if weak is not None:
            yield weak


@dataclass(frozen=True)
class Contradiction:
    """Knobs or keys that contradict each other: a predicate, and the message, formatted with the configuration."""

    occurs: Callable[[Node, Words], bool]
    message: str


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
        lambda c, w: any(len(utf8(part)) > LONGEST_NAME for part in PurePath(str(c["name"] or "")).parts),
        "`name` has a part of more than 200 bytes, and file systems take no longer names. Use a shorter one; a "
        "sentence goes into notes='…'",
    ),
    Contradiction(
        lambda c, w: c["epochs"] is not None and c["steps"] is not None,
        "`epochs` is {epochs} and `steps` is {steps}: both say how long to train. Give one (the other as null).",
    ),
    Contradiction(
        lambda c, w: c["shuffle"] == "bernoulli" and c["batch_size"] == "full",
        "`shuffle` is bernoulli and `batch_size` is full: every step takes all samples, so that nothing is drawn. "
        "Use shuffle=epoch, or a smaller batch_size.",
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
        lambda c, w: c["lr"] is not None and bool(c["optimizer"]) and "lr" not in c["optimizer"],
        "`lr` is {lr}, and optimizer={words[optimizer]} has no key `lr`.\n"
        "Add a parameter `lr` to its target; to the file of a target with **kwargs, add the line: lr: 0.01",
    ),
    Contradiction(
        lambda c, w: value(c, "parameters.thaw_epoch") is not None and not value(c, "parameters.freeze"),
        "`parameters.thaw_epoch` is {parameters[thaw_epoch]}, but nothing is frozen. Say what: parameters.freeze=[layers.0]",
    ),
)
