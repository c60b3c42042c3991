"""`dltrain key=value …`: train one configuration, or with `-m` several."""

from __future__ import annotations

import re
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from omegaconf import open_dict, read_write

from dltrain.commands import STARTED
from dltrain.commands.launch import BACKEND, as_launch, launched, refuse_beside
from dltrain.config.compose import (
    ALIASES,
    CONFIG_NAME,
    Composition,
    compose,
    open_catalogue,
    open_dicts,
    open_hydra,
    quote_foreign,
    say_replaced,
)
from dltrain.config.door import Door, shipped_targets
from dltrain.config.groups import OF_SWEEPS
from dltrain.config.hydra_private import get_args_parser
from dltrain.config.keys import keys_of
from dltrain.config.schema import Config, run_name
from dltrain.config.validation import validate
from dltrain.data.progress import say_reading
from dltrain.errors import UserError, nearest, typed
from dltrain.storage.folder_names import check_place, new_folder
from dltrain.text import say

if TYPE_CHECKING:
    from dltrain.config.catalogue import Catalogue
    from dltrain.config.hydra_private import Hydra


def run(arguments: list[str]) -> int:
    """Pass Hydra's own flags to Hydra; otherwise check the whole configuration before anything is created, then train."""
    args = read([quote_foreign(argument) for argument in arguments])
    check_flags(args)
    catalogue = open_catalogue(args.config_dir)
    hydra = open_hydra(catalogue)
    name = args.config_name or CONFIG_NAME
    shows = [option for option in ("cfg", "info") if getattr(args, option)]
    if shows:
        refuse_beside(f"--{shows[0]}", args.overrides)
    elsewhere = launched(args.overrides, args.multirun, sorted(catalogue.usable(BACKEND)))
    if elsewhere is not None:
        # one run: no setting of a sweep, and no key with several values
        own = [text for text in args.overrides if text in elsewhere]
        # as a run does, and a sweep only when it is asked to
        scored = check(own, catalogue, hydra, name).config.evaluation.test
        elsewhere += ["evaluation.test=true"] * (scored and "evaluation.test" not in keys_of(own))
    if args.multirun or elsewhere is not None:
        from dltrain.sweep.sweep import Source, run_sweep

        source = Source(catalogue, hydra, args.config_dir, name)
        with nullcontext() if elsewhere is None else as_launch():
            return run_sweep(elsewhere or args.overrides, source, command_line(arguments))
    if args.cfg or args.info or args.shell_completion or args.hydra_help:
        return _hydra_says(args, hydra, catalogue)
    return train(args.overrides, catalogue, hydra, name, command_line(arguments))


def read(arguments: list[str]) -> Namespace:
    """Parse Hydra's options and our overrides. Raises UserError for an unknown option."""
    parser = get_args_parser()
    options = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]

    def refuse(message: str) -> NoReturn:
        text = message.replace("unrecognized arguments:", "There is no option")
        unknown = [word for word in arguments if word in message.split() and word.startswith("-")]
        name = (unknown or text.split())[-1].partition("=")[0]
        hint = overrides_for(unknown, arguments) or nearest(name, options)
        raise UserError(f"{text}.{hint} `dltrain --help` shows the page.")

    parser.error = refuse  # type: ignore[method-assign]
    # options may stand between the overrides
    args = parser.parse_intermixed_args(arguments)
    say_replaced(args.overrides)
    return args


def overrides_for(options: list[str], arguments: list[str]) -> str:
    """Return the overrides that are meant by options such as `--lr 0.1`, as the end of a sentence; empty for none."""
    catalogue = open_catalogue()
    found = []
    for option in options:
        name, _, value = option.lstrip("-").partition("=")
        name = ALIASES.get(name.replace("-", "_"), name.replace("-", "_"))
        if name not in catalogue.knobs and name not in catalogue.words:
            return ""
        following = arguments[arguments.index(option) + 1 :][:1]
        value = value or next((text for text in following if not set("=-") & set(text[:1])), "VALUE")
        found.append(shlex.quote(f"{name}={value}"))
    return f" Write {' '.join(found)}." if found else ""


def check_flags(args: Namespace) -> None:
    """Refuse the options of Hydra that would be ignored. Raises UserError with what to write instead."""
    shows = "--cfg" if args.cfg else "--info" if args.info else None
    if args.config_path is not None:
        raise UserError(
            f"`--config-path` is {args.config_path}, and the shipped words cannot be replaced as a whole.\n"
            f"For a folder of words beside them: --config-dir {shlex.quote(args.config_path)}"
        )
    if args.experimental_rerun is not None:
        raise UserError(
            "`--experimental-rerun` is Hydra's; a run is repeated from its folder: dltrain rerun RUN"
        )
    if (args.resolve or args.package) and not args.cfg:
        option = "--resolve" if args.resolve else "--package"
        raise UserError(
            f"`{option}` goes with --cfg. Write: dltrain --cfg job {option}{' NAME' * (not args.resolve)}"
        )
    if shows and args.multirun:
        raise UserError(
            f"`{shows}` shows one configuration, and -m makes several. Leave -m out, or list the jobs: sweep.dry_run=true"
        )


def check_no_flags(args: Namespace, verb: str) -> None:
    """Refuse the options of Hydra that a verb for one configuration would ignore."""
    check_flags(args)
    flags = {"-m": args.multirun, "--cfg": args.cfg, "--info": args.info, "--hydra-help": args.hydra_help,
             "--shell-completion": args.shell_completion}  # fmt: skip
    for option, given in flags.items():
        if given:
            raise UserError(f"`{option}` is no option of {verb}.\nIts page: dltrain {verb} --help")


def command_line(arguments: list[str]) -> str:
    return typed(*arguments)


def train(overrides: list[str], catalogue: Catalogue, hydra: Hydra, config_name: str, command: str) -> int:
    """Check everything, then build, and only then create the folder and train."""
    checked = check(overrides, catalogue, hydra, config_name)
    say_unused_sweep(checked.composition)
    say_what_is_read(checked.config, catalogue)
    run_checked(checked, hydra, command, STARTED)
    return 0


def say_unused_sweep(composition: Composition) -> None:
    """Say which settings of a sweep a file makes, which have no effect on one run."""
    catalogue, sweep = composition.catalogue, composition.cfg.sweep
    words = {group: composition.choices[group][0] for group in OF_SWEEPS}
    found = [f"`{group}={word}`" for group, word in words.items() if word != catalogue.default_word(group)]
    for path, knob in catalogue.knobs.items():
        key = path.removeprefix("sweep.")
        if path != key and key in sweep and sweep[key] != knob.value:
            found.append(f"`{path}`{' (' + ', '.join(map(str, sweep.space)) + ')' if key == 'space' else ''}")
    if found:
        command = typed("-m", *composition.overrides)
        say(
            f"{', '.join(found)} {'is' if len(found) == 1 else 'are'} for -m only; this is one run. "
            f"For the sweep: {command}"
        )


def say_what_is_read(config: Config, catalogue: Catalogue) -> None:
    """Say which files of the user are read, where that takes longer than a moment."""
    parameters = catalogue.words["dataset"][config.words["dataset"]].params
    keys = [
        key.rpartition(".")[2]
        for key, p in parameters.items()
        if p.rule and "path" in p.rule.text.split(" or ")
    ]
    if not config.quiet:
        say_reading(str(config.dataset[key]) for key in keys if config.dataset.get(key) is not None)


def check_no_sweep(overrides: list[str], may_sweep: bool = True) -> None:
    """Refuse the settings of a sweep for one run, which would have no effect; `may_sweep`: whether -m is a cure."""
    for text in overrides:
        if re.match(r"\+*sweep[.=]", text):
            cure = f", or add -m:\n{typed('-m', *overrides)}" if may_sweep else "."
            raise UserError(f"`{text}` is a setting of a sweep, and this is one run. Leave it out{cure}")


@dataclass(frozen=True)
class Checked:
    """A configuration with nothing wrong that can be told without its data."""

    composition: Composition
    config: Config
    door: Door


def check(
    overrides: list[str], catalogue: Catalogue, hydra: Hydra, config_name: str = CONFIG_NAME
) -> Checked:
    """Compose and check the configuration of one run; imports no torch. Raises UserError."""
    check_no_sweep(overrides)
    composition = compose(overrides, catalogue, hydra, config_name)
    config = validate(composition)
    check_place(config.output, run_name(config))
    door = Door(shipped_targets(catalogue), config.trust)
    door.check_names(config.plain)
    return Checked(composition, config, door)


def run_checked(
    checked: Checked,
    hydra: Hydra,
    command: str,
    started: float,
    around: Callable[[Path], AbstractContextManager[Any]] | None = None,
) -> Path:
    """Build a checked run, create its folder and train there; return the folder.

    `around` is entered with the folder around the training, in place of Hydra's configuration of the logging module.
    """
    startup = {"compose": round(time.perf_counter() - started, 4)}

    # this imports torch
    from dltrain.run import experiment

    startup["import"] = round(time.perf_counter() - started, 4)
    config, overrides = checked.config, checked.composition.overrides
    built = experiment.prepare(config, checked.door, command, overrides, startup)
    folder = new_folder(config.output, run_name(config))
    with around(folder) if around is not None else nullcontext():
        _run_in(folder, checked.composition, hydra, lambda cfg: experiment.run(built, folder), around is None)
    return folder


def _run_in(
    folder: Path, composition: Composition, hydra: Hydra, task: object, configure_logging: bool
) -> None:
    """Let Hydra run the job in its folder, with its logging, its callbacks and its `.hydra`."""
    from hydra.core.utils import JobStatus, run_job
    from hydra.types import HydraContext, RunMode

    from dltrain.config.hydra_private import Callbacks

    cfg = composition.cfg
    with read_write(cfg.hydra), open_dict(cfg.hydra):
        cfg.hydra.run.dir = str(folder)
        cfg.hydra.mode = RunMode.RUN
    callbacks = Callbacks(cfg)
    callbacks.on_run_start(config=cfg, config_name=CONFIG_NAME)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    done = run_job(task, cfg, "hydra.run.dir", None, context, configure_logging)  # type: ignore[arg-type]
    callbacks.on_run_end(config=cfg, config_name=CONFIG_NAME, job_return=done)
    if done.status is JobStatus.FAILED:
        raise done._return_value


def _hydra_says(args: Namespace, hydra: Hydra, catalogue: Catalogue) -> int:
    """Print what Hydra's own flags ask for: the composed config, its origin, completion, Hydra's help."""
    name = args.config_name or CONFIG_NAME
    if args.hydra_help:
        hydra.hydra_help(config_name=name, args_parser=get_args_parser(), args=args)
    elif args.shell_completion:
        hydra.shell_completion(config_name=name, overrides=args.overrides)
    else:
        # refused with our messages, as a run would be
        composition = compose(args.overrides, catalogue, hydra, name)
        overrides = open_dicts(args.overrides, catalogue)
        if args.cfg == "job":
            config = validate(composition)
            # the length that the run would have: `steps` replaces a recipe's epochs
            replaced = [key for key in ("epochs", "steps") if getattr(config, key) != composition.cfg[key]]
            overrides += [f"{key}=null" for key in replaced]
        if args.cfg:
            hydra.show_cfg(name, overrides, args.cfg, args.package, args.resolve)
        else:
            hydra.show_info(args.info, config_name=name, overrides=overrides)
    sys.stdout.flush()
    return 0
