"""`dltrain --help`: help pages, generated from the catalogue."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from importlib import import_module

from dltrain.commands.launch import BACKEND, LAUNCH, as_launch
from dltrain.config.catalogue import GROUPS, LIST_GROUPS, OVERLAYS, Catalogue, Param
from dltrain.config.groups import BY_NAME
from dltrain.config.search_path import catalogue_dir, user_dirs
from dltrain.verbs import means_training, verbs

EXAMPLES = (
    ("dltrain", "the default: digits, a small MLP, Adam, early stopping; takes seconds"),
    ("dltrain optimizer=nesterov lr=0.05 schedule=cosine epochs=20", "other choices, other numbers"),
    (
        "dltrain dataset=digits model=cnn augmentation=[shift,mixup] regularization=[dropout]",
        "several words in one group",
    ),
    ("dltrain -m optimizer=momentum,adam lr=0.1,0.01", "a sweep over every combination"),
    ("dltrain -m 'lr=logspace(-4,-1,4)'", "over 0.0001, 0.001, 0.01, 0.1"),
    ("dltrain experiment=tabular", "a recipe, with the result that it should reach"),
)


def print_help(verb: str | None, arguments: list[str]) -> int:
    """Print the main page, or the two lines of a verb; a group named before `--help` is described word by word."""
    catalogue = Catalogue(catalogue_dir(), user_dirs(_option(arguments, "--config-dir", "-cd")))
    asked = [a for a in arguments if a in catalogue.words]
    words = [a.partition("=") for a in arguments if a.partition("=")[0] in catalogue.words and "=" in a]
    if verb is None:
        check_asked(catalogue, arguments)
    if verb is not None:
        known = verbs()[verb]
        more = getattr(import_module(known.module), "HELP", "")
        print(f"dltrain {known.usage}\n    {known.about}\n{more}", end="")
    elif asked or words:
        print(
            "\n".join(line for group in asked for line in group_page(catalogue, group)) if asked else "",
            end="",
        )
        for group, _, names in words:
            for name in names.strip("[]").split(","):
                print("\n".join(word_page(catalogue, group, name)))
    elif places := [a for a in arguments if a.partition("=")[0] == LAUNCH]:
        print("\n".join(line for text in places for line in launch_page(catalogue, text.partition("=")[2])))
    elif keys := [a for a in arguments if a in catalogue.knobs]:
        print("\n".join(line for key in keys for line in knob_lines(catalogue.knobs[key])))
    else:
        print("\n".join(page(catalogue)))
    for word in catalogue.broken():
        print(f"dltrain: {word.problem.splitlines()[0]}", file=sys.stderr)
    return 0


def check_asked(catalogue: Catalogue, arguments: list[str]) -> None:
    """Refuse to show the whole page for a misspelt group."""
    from dltrain.errors import UserError, nearest

    known = [*catalogue.words, *catalogue.knobs, LAUNCH, *verbs()]
    values = {_option(arguments, "--config-dir", "-cd"), _option(arguments, "--config-name", "-cn")}
    for text in arguments:
        if "=" not in text and not text.startswith("-") and text not in known and text not in values:
            hint = " Training has no verb: dltrain." if means_training(text, known) else nearest(text, known)
            raise UserError(f"`{text}` is no group, knob or verb.{hint} `dltrain --help` lists them all.")


def _option(arguments: list[str], *names: str) -> str | None:
    """Return the value of an option, written `--option value` or `--option=value`."""
    for before, after in zip(arguments, [*arguments[1:], None], strict=False):
        name, equals, value = before.partition("=")
        if name in names:
            return value if equals else after
    return None


def page(catalogue: Catalogue) -> Iterator[str]:
    """Yield the lines of the main page."""
    yield "dltrain turns choices into an experiment: one word for each choice, one folder for each run."
    yield ""
    yield f"  {bold('dltrain')} {'[group=word …] [knob=value …]':<32} train; with -m and a,b,c every combination of them"
    for verb in verbs().values():
        yield f"  {bold('dltrain')} {verb.usage:<32} {verb.about}"
    yield f"  {bold('tensorboard')} {'--logdir outputs':<28} look at the curves"
    yield ""
    yield bold("Examples")
    for command, meaning in EXAMPLES:
        yield f"  {command}"
        yield f"      {meaning}"
    yield ""
    yield bold("Groups and their words") + "  (the default first; `dltrain GROUP --help` explains the words)"
    for group in [g for g in GROUPS if catalogue.words.get(g)] + sorted(set(catalogue.words) - set(GROUPS)):
        yield from group_lines(catalogue, group)
    yield ""
    yield bold("Knobs") + "  (knob=value)"
    for param in catalogue.knobs.values():
        if param.rule is not None:
            yield from knob_lines(param)
    yield ""
    yield (
        bold("Keys of a choice")
        + "  group.key=value, such as optimizer.betas=[0.8,0.99] or model.hidden=[256,128];"
    )
    yield "  `dltrain optimizer=adam --help` lists those of a word, with their rules."
    yield (
        bold("Elsewhere")
        + "  launch=slurm (ray, local) trains this one run as a job there: dltrain launch --help"
    )
    yield bold("Your own words") + "  conf/GROUP/WORD.yaml in the working folder, or --config-dir FOLDER."
    yield (
        bold("Hydra's flags")
        + "  --cfg job, --info, --config-dir, --multirun, --shell-completion, --hydra-help, --version"
    )


def group_lines(catalogue: Catalogue, group: str) -> Iterator[str]:
    """Yield a group with all its words, wrapped."""
    default = catalogue.default_word(group)
    words = sorted(catalogue.usable(group), key=lambda word: (word != default, word))
    about = about_of(group)
    yield f"  {bold(group)}{'=[…]' if group in LIST_GROUPS else '='}{'  ' + about if about else ''}"
    yield from textwrap.wrap(
        " ".join(words), width() - 6, initial_indent="      ", subsequent_indent="      "
    )


def about_of(group: str) -> str:
    """Return the subject of a group; empty for a user's own group."""
    return BY_NAME[group].about if group in BY_NAME else ""


def group_page(catalogue: Catalogue, group: str) -> Iterator[str]:
    """Yield every word of a group with its summary."""
    yield bold(group) + f"  {about_of(group)}"
    names = sorted(catalogue.usable(group))
    longest = max(map(len, names), default=0)
    default = (catalogue.default_word(group),)
    for name in names:
        mark = "  (default)" * (name in default)
        yield f"  {name:<{longest}}  {catalogue.words[group][name].notes['summary']}{mark}"
    yield ""


def launch_page(catalogue: Catalogue, name: str) -> Iterator[str]:
    """Yield what `launch` can be, or one of its words: those of a sweep's backend, for one run."""
    if name:
        lines = word_page(catalogue, BACKEND, name)
    else:
        _, *words = group_page(catalogue, BACKEND)
        about = f"{bold(LAUNCH)}  where one run trains, as the only job of a sweep there; the sweep's page: docs/sweeps.md"
        lines = iter([about, *(line.replace("  (default)", "") for line in words)])
    with as_launch():
        yield from (line.replace(BACKEND, LAUNCH) for line in lines)


def word_page(catalogue: Catalogue, group: str, name: str) -> Iterator[str]:
    """Yield a word with its formula, its source and its keys."""
    from dltrain.errors import UserError, listing, nearest

    if name not in catalogue.words[group]:
        raise UserError(
            f"`{group}={name}`: there is no such word.{nearest(name, catalogue.words[group])}\n{listing(f'Words of {group}', catalogue.words[group])}"
        )
    catalogue.check_usable(group, name)
    word = catalogue.words[group][name]
    yield f"{bold(f'{group}={name}')}  {word.notes['summary']}"
    for note in ("rule", "symbols", "paper", "lecture", "use", "default"):
        if note in word.notes:
            yield from textwrap.wrap(
                word.notes[note], width() - 12, initial_indent=f"  {note:<9} ", subsequent_indent=" " * 12
            )
    for package in sorted(word.declared.requires):
        yield f"  {'needs':<9} the package {package}: pip install {package}"
    inherited = catalogue.params({group: [name]}) if group not in OVERLAYS else {}
    keys = {
        path: param for path, param in inherited.items() if path.startswith(f"{group}.")
    } | word.everything
    for param in keys.values():
        # a key that follows another one need not be set
        if not param.default.startswith(("${", '"${')):
            yield from knob_lines(param)
    yield ""


def knob_lines(param: Param) -> Iterator[str]:
    """Yield a key with its default, its meaning and its rule."""
    head = f"  {param.path}={param.default}" if param.default not in ("null", "") else f"  {param.path}="
    text = f"{param.meaning}{_shown(param)}"
    indent = " " * 34
    lines = textwrap.wrap(text, max(width() - 34, 30)) or [""]
    if len(head) < 33:
        yield f"{head:<34}{lines[0]}".rstrip()
    else:
        yield head
        if lines[0]:
            yield indent + lines[0]
    yield from (indent + line for line in lines[1:])


def _shown(param: Param) -> str:
    """Return the rule as a newcomer reads it: null equals leaving a key out, and plain types say little."""
    text = re.sub(r"( or cuda:\d)+", " or cuda:N", param.rule.text if param.rule else "")
    text = text.replace(" or null", "")
    return f" ({text})" if text not in ("", "str", "path", "bool", "list of str") else ""


def width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 120)


def bold(text: str) -> str:
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text
