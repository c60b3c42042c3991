"""Dotted keys of saved configurations: which may change in a resumed run, and in which runs differ. Needs no Hydra."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dltrain.config.groups import GROUPS, LIST_GROUPS
from dltrain.defaults import DEFAULT_BATCH_SIZE, DEFAULT_EPOCHS
from dltrain.errors import UserError
from dltrain.errors import typed as command
from dltrain.screen.table import cell, typed

# Keys, or groups of them, that change nothing of what a run computes, and that may change in a resumed run.
WITHOUT_RESULT = (
    "log.every_steps", "log.profile", "checkpoint.every_epochs", "checkpoint.every_steps", "checkpoint.every_minutes", "checkpoint.keep",
    "checkpoint.background", "checkpoint.unsaved", "quiet", "tags", "notes", "trust",
)  # fmt: skip
# Keys, or groups of them, that do not affect earlier steps of a run: changing any other would make it another run.
SAFE = (*WITHOUT_RESULT, "workers", "worker_timeout", "logger")
# safe where no schedule depends on the length of the run
LENGTH = ("epochs", "steps")
# Keys in which runs may differ without being different experiments: where they ran, and `lr`, which optimizer.lr follows.
# In a sweep `threads` and `evaluation.test` are set for the jobs.
ELSEWHERE = ("name", "output", "device", "threads", "evaluation.test", "lr")
# keys of which each value is a repetition of a configuration rather than a choice
REPLICATES = ("seed", "fold", "dataset.split_seed")
# what may change where a trained run is scored, used for predictions or exported: where its data are, how it is scored, the machine
USED = ("dataset", "evaluation", "augmentation", "metrics", "device", "precision", "threads", "workers", "worker_timeout", "deterministic",
        "seed", "quiet", "trust")  # fmt: skip
# of these, when a training is validated
OF_TRAINING = ("evaluation.every_epochs", "evaluation.every_steps")
# keys of datasets that divide the samples, which other data that are scored as a whole do not need
SPLITTING = ("split_column", "group_column", "test_path", "split", "groups")
# keys that divide the data of a run, or say which of them are samples of training
DIVIDING = ("dataset.val_fraction", "dataset.test_fraction", "dataset.split_seed", "dataset.limit", "dataset.bootstrap",
            "dataset.normalize", "dataset.layout", "dataset.class_weights", "dataset.not_missing",
            *(f"dataset.{key}" for key in SPLITTING if key != "test_path"))  # fmt: skip
# keys that decide, beside the repetition, how the data are split
SPLIT_BY = ("dataset.val_fraction", "dataset.test_fraction", "folds",
            *(f"dataset.{key}" for key in SPLITTING if key != "test_path"))  # fmt: skip
# keys that decide, beside the repetition, on which samples a run is scored: runs that differ in one do not compare
SCORED_ON = ("dataset", "dataset.path", "dataset.root", "dataset.test_path", *SPLIT_BY)
# keys of a dataset with columns that data.json decides once a run is trained, and of pictures where they are brought to its form
OF_COLUMNS = (
    "target",
    "task",
    "features",
    "drop",
    "keep",
    "categorical",
    "dates",
    "merge_case",
    "target_scale",
)
OF_PICTURES = ("image_size", "resize", "color", "full_scale")
# keys that say how other files of the same kind are read
READING = ("delimiter", "decimal", "missing_words", "date_format", "inputs", "channels")
# keys of datasets that leave the samples and the targets which are scored as they are
SAME_SAMPLES = frozenset(f"dataset.{key}" for key in (
    "limit", "bootstrap", "class_weights", "normalize", "layout", "target_scale", "features", "drop", "keep", "categorical", "dates", "image_size",
    "resize", "color", "full_scale", "channels", "cache", "download", "resident_share"))  # fmt: skip
# keys of datasets that leave the data and their encoding as they are
SAME_DATA = ("dataset.class_weights", "dataset.resident_share", "dataset.cache", "dataset.download")
# the dataset of a run without samples, whose model is the function to minimize
NO_SAMPLES = "none"
# groups that change nothing of what is trained by themselves: what a recipe sets are keys, and the others observe
OBSERVING = ("experiment", "metrics", "diagnostics")
# leading parts of a key that may name the dictionary of which it is an entry
DEEPEST = 5
# how the names of the program's own functions begin
OWN = "dltrain."
# words that stand for no choice
_SILENT = ("none", "[]", "default", "auto")


def splits_data(name: str) -> bool:
    """Return whether an axis, of one key or of several with commas, decides on which samples runs are scored."""
    return not {*name.split(",")}.isdisjoint(SCORED_ON)


def same_samples(name: str) -> bool:
    """Return whether an axis is of keys of a dataset that leave what is scored as it is, though the data of the training differ."""
    return {*name.split(",")} <= SAME_SAMPLES


def may_change_data(name: str, values: Iterable[object] = ()) -> bool:
    """Return whether an axis may change the samples or the targets of a dataset, as its own keys do, which only the data tell.

    values: those of the axis, if it has one key: a number of features, unlike a list of columns, makes other data

    >>> may_change_data("dataset.noise"), may_change_data("lr"), may_change_data("dataset.drop")
    (True, False, False)
    """
    numbered = name == "dataset.features" and not any("[" in str(value) for value in values)
    others = {*name.split(",")} - SAME_SAMPLES - {*REPLICATES}
    return numbered or any(key.startswith("dataset.") for key in others)


def is_of_problem(name: str, dataset: object) -> bool:
    """Return whether a key, or an axis of several with commas, decides which function a run without samples minimizes.

    >>> is_of_problem("model.condition_number", "none"), is_of_problem("model.hidden", "iris"), is_of_problem("lr", "none")
    (True, False, False)
    """
    return dataset == NO_SAMPLES and any(key.partition(".")[0] == "model" for key in name.split(","))


def text_of(value: object) -> str:
    """Return a value as text that is the same for equal values, however they were typed.

    >>> text_of(100), text_of(100.0), text_of(None)
    ('100', '100', 'None')
    """
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration by dotted key with the numbers for which null stands in `batch_size` and `epochs`."""
    found = dict(config)
    if "batch_size" in found:
        found["batch_size"] = found["batch_size"] or DEFAULT_BATCH_SIZE
    if "epochs" in found and found.get("steps") is None:
        found["epochs"] = found["epochs"] or DEFAULT_EPOCHS
    return found


def is_observing(key: str, config: Mapping[str, Any]) -> bool:
    """Return whether a key chooses or describes a recipe, a metric or a diagnostic, which train nothing by themselves.

    A metric that a part of the run follows, as early stopping does, decides which weights are kept.

    >>> stopping = {"early_stopping.metric": "val/f1"}
    >>> is_observing("metrics.f1.average", {}), is_observing("metrics.f1.average", stopping)
    (True, False)
    """
    if not _is_below(key, OBSERVING):
        return False
    followed = {str(value).rpartition("/")[2] for name, value in config.items() if name.endswith(".metric")}
    return not _is_below(key, [f"metrics.{name}" for name in followed])


def is_safe(key: str) -> bool:
    """Return whether a dotted key is among SAFE, or below one of them."""
    return _is_below(key, SAFE)


def has_no_result(key: str) -> bool:
    """Return whether a dotted key changes nothing of what a run computes; `name` and `output` say where it is kept."""
    return _is_below(key, (*WITHOUT_RESULT, "name", "output"))


def _is_below(key: str, groups: Iterable[str]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def check_used(overrides: Iterable[str], run: object, repeat: Callable[[str], object]) -> None:
    """Refuse changes of a trained run that would change nothing, or the model that its weights belong to.

    repeat: raises UserError for a change that a new run cannot have either, which the message would propose otherwise
    """
    for text in overrides:
        key = text.partition("=")[0].lstrip("+")
        if key.split(".")[0] not in USED or key in OF_TRAINING:
            repeat(text)
            raise UserError(
                f"`{key}` cannot change here: it belongs to the training, which is done. Leave {text} out.\n"
                f"For a run with that change: {command('rerun', run, text)}"
            )


def check_division(overrides: Iterable[str], run: object, repeat: Callable[[str], object]) -> None:
    """Refuse changes that would put samples of training into another split, or weigh or scale them in another way.

    repeat: as in `check_used`
    """
    for text in overrides:
        key = text.partition("=")[0].lstrip("+")
        if key in (*DIVIDING, "folds", "fold"):
            repeat(text)
            raise UserError(
                f"`{key}` cannot change here: it decides which samples are those of the training, their weights or their scale. "
                f"Leave {text} out.\nFor a run with that change: {command('rerun', run, text)}"
            )


def lengths(overrides: Iterable[str]) -> list[str]:
    """Return the last override of each key of the length of a run.

    >>> lengths(["epochs=3", "device=cpu", "epochs=4"])
    ['epochs=4']
    """
    last = {key: text for text in overrides if (key := text.partition("=")[0]) in LENGTH}
    return list(last.values())


def keys_of(overrides: Iterable[str]) -> set[str]:
    """Return the keys that overrides name, without the prefixes `+` and `++`."""
    return {text.partition("=")[0].lstrip("+") for text in overrides}


def keys_given(overrides: Iterable[object]) -> set[str]:
    """Return the keys that overrides name, as choices are called: `optimizer.lr` is `lr` as well."""
    keys = keys_of(map(str, overrides))
    return keys | ({"lr"} if "optimizer.lr" in keys else set())


def differences(
    configs: Sequence[Mapping[str, Any]], given: Iterable[str], always: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return, for each configuration by dotted key, the words and the keys in which the configurations differ.

    A key that was not `given` is returned where it differs among configurations with the same word, not where two words have
    different defaults. `optimizer.lr` is called `lr`.

    Args:
        always: keys that are returned also where all configurations have the same value
    """
    shown = {
        "optimizer.lr" if key == "lr" and any("optimizer.lr" in c for c in configs) else key for key in always
    }
    chosen = {*given, *shown, "optimizer.lr"}
    keys = dict.fromkeys(key for config in configs for key in config)
    differing = [key for key in keys if key in shown or _differ(configs, key)]
    words = [key for key in differing if key in GROUPS]
    holders = _holders(configs) if any(map(_above, differing)) else {}
    told = [
        key
        for key in differing
        if key not in (*words, *ELSEWHERE)
        and not is_safe(key)
        and _is_choice(key, configs)
        and (key in chosen or _differ_alike(configs, key, holders))
    ]
    names = {key: "lr" if key == "optimizer.lr" else key for key in (*words, *told) if not is_safe(key)}
    return [{name: cell(config.get(key)) for key, name in names.items()} for config in configs]


def label(choices: Mapping[str, Any], first: Iterable[str] | None = None) -> str:
    """Return choices in one line: words alone, keys with their values, what says nothing left out.

    Args:
        first: keys that come first, such as those of the overrides; other words come last. None for all
    """
    texts = {
        key: str(value) if key in GROUPS else f"{key}={typed(value)}"
        for key, value in choices.items()
        if value is not None and not (key in GROUPS and value in _SILENT)
    }
    ahead = set(texts if first is None else first)
    order = {
        key: 0
        if key in ahead and key not in REPLICATES
        else 3
        if key in GROUPS
        else 2
        if key in REPLICATES
        else 1
        for key in texts
    }
    return " ".join(texts[key] for key in sorted(texts, key=order.__getitem__))


def _differ(configs: Sequence[Mapping[str, Any]], key: str) -> bool:
    first = configs[0].get(key)
    return any(config.get(key) != first for config in configs)


def _is_choice(key: str, configs: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a key may be a choice: `_target_` and `_args_` are, but for the program's own, which versions may rename."""
    last = key.rpartition(".")[2]
    if last == "_target_":
        return any(not str(config.get(key, OWN)).startswith(OWN) for config in configs)
    return last == "_args_" or not last.startswith("_")


def _holders(configs: Sequence[Mapping[str, Any]]) -> dict[str, set[int]]:
    """Return, by key, the configurations that have a value there: one itself, or a dictionary whose entries are keys below it.

    A configuration that has `parameters.lr_scale.head` has `parameters.lr_scale`, without the entries that it lacks.
    """
    found: dict[str, set[int]] = {}
    for number, config in enumerate(configs):
        for key in config:
            for place in (*_above(key), key):
                found.setdefault(place, set()).add(number)
    return found


def _above(key: str) -> list[str]:
    """Return the keys above one, but for its group; of a deep one, as of a layer's name, the first few.

    >>> _above("parameters.lr_scale.layers.0"), _above("model.hidden")
    (['parameters.lr_scale', 'parameters.lr_scale.layers'], [])
    """
    parts = key.split(".", DEEPEST)[:-1]
    return [".".join(parts[:count]) for count in range(2, len(parts) + 1)]


def _differ_alike(configs: Sequence[Mapping[str, Any]], key: str, holders: Mapping[str, set[int]]) -> bool:
    """Return whether a key differs among the configurations that have it, or the dictionary that it is of, and the same word of its group."""
    group, above = key.partition(".")[0], [holders[place] for place in _above(key)]
    values: dict[str, Any] = {}
    for number, config in enumerate(configs):
        if key in config or any(number in having for having in above):
            word = "" if group in LIST_GROUPS else str(config.get(group))
            value = config.get(key)
            if values.setdefault(word, value) != value:
                return True
    return False
