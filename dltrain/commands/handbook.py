"""Generate the manual's pages of methods from the catalogue and from the docstrings of its targets.

docs/build.py adds them to the site when it is built; they are not stored, so that they cannot become outdated.
The file is long because the parts of a page follow each other.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace

from dltrain.commands.help import about_of
from dltrain.config.catalogue import LIST_GROUPS, Catalogue, Param, Word
from dltrain.config.conflicts import Rule, cure, refused_pairs
from dltrain.config.search_path import catalogue_dir

TITLES = {
    "optimizer": "Optimizers",
    "wrap": "Wraps",
    "averaging": "Averaging of iterates",
    "schedule": "Schedules of the learning rate",
    "momentum_schedule": "Schedules of the momentum",
    "penalty_schedule": "Schedules of the strength of penalties",
    "initializer": "Initializers",
    "regularization": "Regularization",
    "early_stopping": "Early stopping",
    "augmentation": "Augmentation",
    "loss": "Losses",
    "metrics": "Metrics",
    "sampler": "Samplers",
    "dataset": "Datasets",
    "model": "Models",
    "diagnostics": "Diagnostics",
    "logger": "Loggers",
}
INTRODUCTIONS = {
    "optimizer": "`lr` left unset is the optimizer's own default, chosen on validation data by `benchmarks/default_lr.py`. Decay "
    "is `regularization=[weight_decay]`, or the optimizer's own `weight_decay`; giving both is refused. Biases and "
    "normalization parameters are decayed only with `all_parameters=true`.",
    "wrap": "A wrap goes around any first-order optimizer; several are applied from left to right: `wrap=[sam,lookahead]`.",
    "averaging": "What is validated, stopped on, kept and tested are the averaged weights; batch-norm statistics are recomputed "
    "for them from unaugmented training samples: all of them, or a random sample of 10,000. The patience of early stopping does not "
    "count evaluations before the average is of two iterates; a run that ends before, or whose best evaluation is from before, says so.",
    "schedule": "Every value multiplies `lr`. A warm-up of w steps (`warmup_steps` or `warmup_epochs`) multiplies the first value "
    "by 1/(w + 1), 2/(w + 1), …, w/(w + 1); then the schedule runs over the remaining T steps, t = 0 to T − 1. `end` belongs to "
    "t = T, so that the last step of the run still moves. Values are functions of the step alone, so that a resumed run has the "
    "same ones; only `plateau` has a state, which checkpoints store.",
    "momentum_schedule": "The same schedules give the momentum itself, by default from 0.5 to 0.9 (L3); formulas and keys as "
    "in [schedules of the learning rate](schedule.md). They need an optimizer that has momentum.",
    "penalty_schedule": "The same schedules multiply the strengths λ of penalties, decays and weight rules, by default from 0 "
    "to 1, since L0 starts overparametrized and gradually increases λ. Under `plateau` they are 0 until the metric stops improving. "
    "The header of a run names the first and the last value.",
    "initializer": "They act on weights with two or more axes; biases become zero, and normalization layers keep their values. "
    "Scaled initializers take `gain` from the model's activation, and `last` names another initializer for the last layer.",
    "regularization": "`l2.strength=λ` adds λ/2·‖w‖² and `l1.strength=λ` adds λ‖w‖₁; dropout's `p` is the probability to drop.",
    "early_stopping": "Monitors one column of `metrics.csv` and keeps the weights of its best evaluation, which are tested: "
    "bit-equal to those of a second run stopped at that epoch.",
    "augmentation": "Each sample has its own draw, independent of the batch size, as a function of seed and step. Consecutive "
    "geometric augmentations are fused into one warp on the device.",
    "loss": "The mean over the batch is minimized, with the penalties. All runs are compared by the same quantity: "
    "`loss` in `metrics.csv` and wherever scores are shown is −log of the probability of the true class (classification), the squared "
    "error (regression) or the model's output (`dataset=none`), without label smoothing, class weights or penalties. Where the loss that is "
    "minimized differs, the column `objective` beside it holds its mean over the samples, before penalties: "
    "`train/objective`, `val/objective`. Both can be named in `early_stopping.metric`; a sweep over what changes the objective is "
    "compared by `val/loss`. Several runs or passes together (`dltrain evaluate`) average softmax probabilities, sigmoids for "
    "`bce`, and outputs otherwise; your own loss defines it in `combine(outputs)`, (P, B, K) → (B, K). Probabilities are the softmax of "
    "the outputs, of `bce` the sigmoids divided by their sum; your own loss that has others defines `to_softmax(outputs)`, the logits "
    "whose softmax they are.",
    "metrics": "`metrics=[f1,auroc]` takes the place of the task's own: accuracy, or mae, rmse and r2. Each word is a column of `metrics.csv` "
    "(`val/f1`) and an entry of `test` in `summary.json`, exact over all samples of a split, in the units of the targets. Means "
    "over samples (accuracy, top_k, mae, mape) are measured in training, too. Where a class has less than half of an equal share "
    "of the training samples, balanced_accuracy and f1 stand beside accuracy by default, and the header says so. More in "
    "[metrics.md](../metrics.md).",
    "sampler": "The order of samples is a function of the seed and the epoch alone.",
    "dataset": "Splits and folds depend on `dataset.split_seed` only. `dataset.normalize` and the other keys that all datasets "
    "share are among the [knobs](knobs.md).",
    "model": "Sizes of inputs and outputs come from the data. Activations are `relu`, `leaky_relu`, `tanh`, `sigmoid`, `gelu`, "
    "`silu` and `identity`; `norm` is `batch`, `layer`, `group` or `none`.",
    "diagnostics": "Measured at every evaluation on the same training samples, in evaluation mode, without augmentation or "
    "penalties: columns `WORD/…` of `metrics.csv` and TensorBoard. They leave the weights of the run equal to the last bit. "
    "For checks before training, use `dltrain check`.",
    "logger": "They observe a run and change nothing of it; one that fails is left out, and the run ends as `degraded`. "
    "`metrics.csv` is no word, since it is always written: `logger=[]` leaves it alone. More in [loggers.md](../loggers.md).",
}
SLIPS = (
    (
        "L0",
        "its momentum has no memory; Adagrad, RMSProp and Adam divide by the old accumulator and have no lr; Xavier's bound "
        "lacks the sum and the root; mini-batch gradients are summed (ours are means); the ℓ1 solution is soft-thresholding; "
        "λ and the returned model are chosen by test error (ours: by validation, as L3 says)",
    ),
    ("L1", "ε under the root; bias correction inside Adam's recursion; p is the probability to keep"),
    ("L2", "decay not scaled by lr"),
    ("L3", "λ/2·Σ|w| beside the gradient λ·sign(w)"),
    ("L4", "plus signs that ascend"),
)
PRACTICE = (
    (
        "a separate validation set; the test set is never used for a choice",
        "`dataset.val_fraction`, `evaluation.test`",
        "L3",
    ),
    ("K-fold cross-validation", "`-m folds=5 fold=0,1,2,3,4`, stratified", "L0"),
    (
        "shuffle every epoch, once, never; draw with replacement, or each sample for itself",
        "`shuffle=epoch\\|once\\|never`; `shuffle=replacement`, `shuffle=bernoulli`",
        "L0 L2 L3 L4",
    ),
    (
        "batches that hold every class; class weights in the loss",
        "`sampler=balanced`, `dataset.class_weights=balanced`",
        "L3",
    ),
    ("hard examples by their last losses, beware of outliers", "`sampler=hard`", "L3"),
    (
        "inputs of mean 0 and variance 1, by the training split",
        "`dataset.normalize=unit\\|center\\|none`",
        "L3 L4",
    ),
    (
        "mini-batches of 32 to 256, one sample, or all of them",
        "`batch_size=64`, `1`, `full`; `accumulate=4`",
        "L2 L3",
    ),
    ("normalization layers", "`model.norm=batch\\|layer\\|group\\|none`", "L0 L2 L3"),
    ("a bottleneck", "`model.bottleneck=16`", "L1"),
    ("another lr for a part of the net", "`parameters.lr_scale={head: 10}`", "L1 L2"),
    ("frozen parts, thawed later", "`parameters.freeze=[layers]`, `parameters.thaw_epoch=5`", "L1 L2"),
    ("data on the GPU, batches prefetched", "`device=auto`, `dataset.resident_share`, `workers`", "L1"),
    (
        "several learning rates at log-spaced values",
        "`lr=auto`, `dltrain find-lr`, `-m 'lr=logspace(-4,-1,4)'`",
        "L3",
    ),
    ("overfit a few samples first", "`debug=overfit`", "L3"),
    ("the mean of several models' outputs", "`dltrain evaluate RUN RUN …`", "L3"),
    (
        "bagging: networks trained on bootstrap samples",
        "`-m dataset.bootstrap=true seed=0,1,2`, then `dltrain evaluate` on the job folders",
        "L3",
    ),
    ("Monte-Carlo dropout; test-time augmentation", "`evaluation.mc_dropout=20`, `evaluation.tta=8`", "–"),
)

LOOKING = (
    ("gradient check by finite differences, per layer, in float64", "`dltrain check`", "L3"),
    ("the first loss equals that of a random guess (ln C)", "`dltrain check`", "L3"),
    ("overfit a few samples without regularization, to a loss of 0", "`dltrain check`; as a run: `debug=overfit`", "L3"),
    ("training and validation curves: a gap, but not too large", "`metrics.csv`, TensorBoard; `early_stopping.metric=gap`", "L1 L3"),
    ("data have zero mean; splits do not leak", "`dltrain check`; `dataset.normalize=unit\\|center`, splits by `dataset.split_seed`", "L3"),
    ("learning rates at log-spaced values on a smaller set", "`lr=auto`, `dltrain find-lr`", "L3"),
    ("norms of activations and gradients by layer; share of dead units", "`diagnostics=[layers]`; over all layers `grad_norm`", "L1 L4"),
    ("Hessian: extreme eigenvalues, share of negative ones, κ; a saddle?", "`diagnostics=[curvature]`", "L0 L4"),
    ("predicted change of the loss beside the true one; the optimal step α*", "`diagnostics=[prediction]`; `optimizer=steepest` takes α*", "L0 L4"),
    ("update-to-weight ratio", "`diagnostics=[layers]`", "L0 L2"),
    ("gradient noise by batch size", "`diagnostics=[batch_noise]`", "L0 L2"),
    ("a picture of the loss around the solution, and from start to end", "`diagnostics=[surface]`: loss_surface.png of the run folder", "L0"),
)  # fmt: skip


def pages() -> dict[str, str]:
    """Return the Markdown of each page by its path in the manual: one for each group, and what concerns all groups."""
    catalogue = Catalogue(catalogue_dir())
    blocks = {"index": _opening(catalogue)}
    blocks |= {group: _group(catalogue, group) for group in TITLES}
    blocks |= {"practice": _practice(), "together": _pairs(catalogue), "knobs": _knobs(catalogue)}
    return {f"methods/{name}.md": "\n\n".join(parts) + "\n" for name, parts in blocks.items()}


def _opening(catalogue: Catalogue) -> Iterator[str]:
    count = sum(len(catalogue.words[group]) for group in TITLES)
    yield "# Methods"
    yield _fill(
        f"Every choice is one word on the command line, `group=word`, and every number of it a key, `group.key=value`. These pages "
        f"have the {count} words of {len(TITLES)} groups: for each the rule as formula with its symbols tied to the keys, the paper, "
        "the lecture that names it (L0 to L4: University of Agder, deep learning, Lectures 0 to 4), when to use it, and where its "
        "defaults come from. The same is shown by `dltrain GROUP=WORD --help`."
    )
    yield _table(
        ("group", "words, the default first"),
        [(f"[{title}]({group}.md)", _words_line(catalogue, group)) for group, title in TITLES.items()],
    )
    yield (
        "Beside the words: [practices that are knobs](practice.md), [which words cannot go together](together.md), and "
        "[the knobs](knobs.md)."
    )
    yield "## Where a lecture slips"
    yield "The published method is built."
    yield _table(("lecture", "slip"), SLIPS)


def _words_line(catalogue: Catalogue, group: str) -> str:
    """Return the words of a group as links to their sections, where they have some."""
    return " ".join(
        f"[`{name}`]({group}.md#{group}{name})" if _has_section(catalogue.words[group][name]) else f"`{name}`"
        for name in _names(catalogue, group)
    )


def _has_section(word: Word) -> bool:
    """Return whether a word has more than a row of its group's table; schedules are listed under `schedule` alone."""
    return bool(word.notes.keys() - {"summary"}) and not word.group.endswith("_schedule")


def _names(catalogue: Catalogue, group: str) -> list[str]:
    """Return the words of a group: the default first, then alphabetically; `none` last where it is not the default."""
    default = catalogue.default_word(group)
    return sorted(catalogue.words[group], key=lambda name: (name != default, name == "none", name))


def _group(catalogue: Catalogue, group: str) -> Iterator[str]:
    takes = f"{group}=[…]" if group in LIST_GROUPS else f"{group}=…"
    yield f"# {TITLES[group]}"
    yield _fill(
        f"`{takes}` – {about_of(group).split(';')[0]}; default `{catalogue.default_word(group)}`. {INTRODUCTIONS[group]}"
    )
    words = [catalogue.words[group][name] for name in _names(catalogue, group)]
    rows = [
        (
            f"[`{w.name}`](#{group}{w.name})" if _has_section(w) else f"`{w.name}`",
            w.notes["summary"],
            _lecture(w),
        )
        for w in words
    ]
    yield _table(("word", "what it is", "lecture"), rows)
    for word in words:
        if _has_section(word):
            yield from _word(catalogue, word)


def _word(catalogue: Catalogue, word: Word) -> Iterator[str]:
    notes = word.notes
    yield f"## {word.group}={word.name}"
    yield notes["summary"]
    if "rule" in notes:
        yield f"``` {{ .text .formula }}\n{_rule(notes['rule'])}\n```"
    lines = [
        f"**{label}** {_linked(_cell(notes[name]))}"
        for name, label in (
            ("symbols", "Symbols:"),
            ("use", "Use:"),
            ("default", "Default:"),
            ("paper", "Paper:"),
        )
        if notes.get(name, "–") != "–"
    ]
    if _lecture(word) != "–":
        lines.append(f"**Lecture:** {_lecture(word)}")
    yield "  \n".join(lines)
    details = _details(word)
    if details:
        yield textwrap.indent(_fill(_escaped(details)), "> ", lambda line: True)
    rows = [_key_row(param) for param in _params(catalogue, word)]
    if rows:
        yield _table(("key", "default", "must be", "meaning"), rows)


def _params(catalogue: Catalogue, word: Word) -> list[Param]:
    """Return the keys of a word, preceded by the top-level knobs that it sets."""
    table = catalogue.params({word.group: [word.name]}) | word.everything
    knobs = [p for path, p in table.items() if path in word.knobs]
    knobs = [
        p if p.rule else replace(catalogue.knobs[p.path], value=p.value)
        for p in knobs
        if p.path in catalogue.knobs
    ]
    keys = [
        p for path, p in table.items() if path.startswith(_prefix(word)) and not p.default.startswith("${")
    ]
    return knobs + [p for p in keys if p.path not in catalogue.knobs or p.path in word.params]


def _prefix(word: Word) -> str:
    return f"{word.group}.{word.name}." if word.group in LIST_GROUPS else f"{word.group}."


def _rule(text: str) -> str:
    """Return the formula, a line for each of its statements."""
    return re.sub(r";\s{2,}", "\n", text)


def _key_row(param: Param) -> tuple[str, ...]:
    rule = param.rule.text if param.rule else "as the top-level knob"
    default = "–" if param.default == "???" else f"`{param.default}`" if param.default else "–"
    return f"`{param.path}`", default, rule, param.meaning or f"the value of {param.default}"


def _lecture(word: Word) -> str:
    return word.notes.get("lecture", "–")


def _linked(text: str) -> str:
    """Turn arXiv numbers into links."""
    return re.sub(r"arXiv:(math/\d{7}|\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def _details(word: Word) -> str:
    """Return the docstring's text beyond summary, formula and notes."""
    return word.signature.details


def _practice() -> Iterator[str]:
    yield "# Data and practice"
    yield "Practices from the lectures that are not words, and their knobs."
    yield _table(("what", "how", "lecture"), PRACTICE)
    yield "## Looking at training"
    yield "Quantities that the lectures recommend to look at, and where to find them."
    yield _table(("what", "where", "lecture"), LOOKING)


def _pairs(catalogue: Catalogue) -> Iterator[str]:
    yield "# What cannot go together"
    yield (
        "Everything else composes with everything: a test trains a covering array in which every other pair of words occurs.\n"
        "These pairs are refused, with their reason, before anything is built."
    )
    yield _table(("words", "with", "why not", "instead"), _refused(catalogue))


def _refused(catalogue: Catalogue) -> list[tuple[str, str, str, str]]:
    """Return the refused pairs, one row for each rule, two groups and words that exclude the same."""
    excluded: dict[tuple[Rule, str, str, str], tuple[list[str], str]] = {}
    for rule, one, other in refused_pairs(catalogue):
        advice = cure(rule, replace(one, word="it"), replace(other, word="it"), catalogue)
        excluded.setdefault((rule, one.group, one.word, other.group), ([], advice))[0].append(other.word)
    rows: dict[tuple[Rule, str, str, str], tuple[list[str], str]] = {}
    for (rule, group, word, against), (words, advice) in excluded.items():
        rows.setdefault((rule, group, f"{against} = {' '.join(words)}", advice), ([], ""))[0].append(word)
    return [
        (f"`{group} = {' '.join(words)}`", f"`{others}`", rule.reason, advice)
        for (rule, group, others, advice), (words, _) in rows.items()
    ]


def _knobs(catalogue: Catalogue) -> Iterator[str]:
    yield "# Knobs"
    yield "The keys that belong to no single word."
    yield _table(
        ("key", "default", "must be", "meaning"),
        [_key_row(param) for param in catalogue.knobs.values() if param.rule is not None],
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows])


def _cell(text: str) -> str:
    """Escape text for a Markdown table."""
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def _escaped(text: str) -> str:
    return text.replace("*", "\\*").replace("_", "\\_") if "`" not in text else text


def _fill(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)
