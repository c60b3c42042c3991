"""Files that belong to the data of a run beside `dataset.root` or `dataset.path`, such as its table of labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dltrain.config.catalogue import Catalogue
from dltrain.config.keys import SPLITTING
from dltrain.config.schema import Config
from dltrain.errors import UserError, assigned, typed

# keys that say where the data are
PLACES = ("path", "root")


def check_beside(
    verb: str, run: Path, config: Config, original: Config, overrides: Sequence[str], catalogue: Catalogue
) -> None:
    """Raise UserError where changes name other data of a run, and a file beside them is still that of its training.

    Names of files repeat, so that new images would silently have the labels of the former ones.
    """
    given = {text.partition("=")[0] for text in overrides}
    moved = [key for key in PLACES if config.dataset.get(key) != original.dataset.get(key)]
    left = [key for key in beside(config, catalogue) if f"dataset.{key}" not in given]
    if moved and left:
        place, key = moved[0], left[0]
        former = shown(config, key)
        lines = [
            f"`dataset.{key}` is still {former}, the file of the training, and `dataset.{place}` names other data.",
            f"Name the file of these: {typed(verb, run, *overrides)} dataset.{key}=FILE",
        ]
        if os.path.exists(os.path.expanduser(str(config.dataset[key]))):
            again = typed(verb, run, *overrides, assigned(f"dataset.{key}", former))
            lines.append(f"Where the former one is right for them, too: {again}")
        raise UserError("\n".join(lines))


def beside(config: Config, catalogue: Catalogue) -> list[str]:
    """Return the keys of a dataset that name a file beside the data, other than those that split them."""
    word = config.words["dataset"]
    table = catalogue.params({"dataset": [word] if isinstance(word, str) else list(word)})
    return [
        key
        for key, value in config.dataset.items()
        if value is not None
        and key not in (*PLACES, *SPLITTING)
        and (param := table.get(f"dataset.{key}")) is not None
        and param.rule is not None
        and "path" in param.rule.text.split(" or ")
    ]


def shown(config: Config, key: str) -> str:
    """Return where a file of the data is; a value from the environment may be a secret, and its expression is shown."""
    return str(config.secrets.get(f"dataset.{key}", config.dataset[key]))
