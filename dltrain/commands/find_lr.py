"""`dltrain find-lr [group=word …]`: try learning rates in short runs, and show the loss of each."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

from dltrain.commands.train import check_no_flags, check_no_sweep, read, say_what_is_read
from dltrain.config.compose import CONFIG_NAME, compose, open_catalogue, open_hydra, quote_foreign
from dltrain.config.door import Door, shipped_targets
from dltrain.config.keys import keys_of
from dltrain.config.validation import validate
from dltrain.errors import UserError, nearest, typed
from dltrain.text import show

HELP = """
    Log-spaced rates are tried one after the other: each trains for some steps on at most 4096 samples, from the same weights
    and over the same batches. Nothing is written, and no run continues from a trial. `lr=auto` chooses by the same trials.
    Where the best rate is the lowest or the highest one, the command that searches beyond it is printed.

  --from LR, --to LR      the lowest and the highest rate (1e-4, 1)
  --points N              how many rates (9)
  --steps N               steps of each trial (100)
  --json                  one JSON document on standard output

Examples
  dltrain find-lr
  dltrain find-lr optimizer=momentum model=cnn --from 1e-3 --to 10 --points 13
  dltrain find-lr dataset=csv dataset.path=house.csv dataset.target=price --steps 300 --json
"""
WIDTH = 30  # characters of the longest bar


@dataclass(frozen=True)
class Asked:
    """The options of a command line."""

    low: float = 1e-4
    high: float = 1.0
    points: int = 9
    steps: int = 100
    as_json: bool = False

    @property
    def rates(self) -> list[float]:
        """Return log-spaced rates, both ends included, rounded to two digits."""
        ratio = self.high / self.low
        return [float(f"{self.low * ratio ** (k / (self.points - 1)):.2g}") for k in range(self.points)]


def run(arguments: list[str]) -> int:
    """Print the loss of each rate, and the command with the best one; return 5 if every trial diverges."""
    asked, rest = options_of(arguments)
    args = read([quote_foreign(argument) for argument in rest])
    check_no_flags(args, "find-lr")
    catalogue = open_catalogue(args.config_dir)
    check_no_sweep(args.overrides, may_sweep=False)
    if "lr" in keys_of(args.overrides):
        raise UserError(
            "`lr` is what `dltrain find-lr` looks for. Leave it out; its range: --from 1e-4 --to 1"
        )
    name = args.config_name or CONFIG_NAME
    config = replace(validate(compose(args.overrides, catalogue, open_hydra(catalogue), name)), quiet=True)
    say_what_is_read(config, catalogue)
    door = Door(shipped_targets(catalogue), config.trust)

    from dltrain.run.tuning import finds_its_steps, losses_of, own_lr

    if (own := own_lr(config, door)) is not None:
        raise UserError(f"{finds_its_steps(config, own)}.")
    found: dict[float, float] = {}
    for lr, loss in losses_of(asked.rates, config, door, asked.steps, keys_of(args.overrides)):
        found[lr] = loss
        if not asked.as_json:
            show(line(lr, loss, found))
    best = min(found, key=lambda lr: found[lr])
    best = best if math.isfinite(found[best]) else math.nan
    further = wider(asked, found, best, rest)
    show(as_json(asked, found, best, further) if asked.as_json else advice(asked, best, further, rest))
    return 5 if math.isnan(best) else 0


def options_of(arguments: list[str]) -> tuple[Asked, list[str]]:
    """Return the options, and the other arguments. Raises UserError for an option that cannot be used."""
    rest: list[str] = []
    given: dict[str, str] = {}
    names = {"--from": "low", "--to": "high", "--points": "points", "--steps": "steps"}
    folders = {"--config-dir", "-cd", "--config-name", "-cn"}
    following = iter(arguments)
    for argument in following:
        option, equals, value = argument.partition("=")
        if option in names:
            given[option] = value if equals else next(following, "")
        elif option in folders:
            rest += [argument] if equals else [argument, next(following, "")]
        elif argument.startswith("--") and argument != "--json":
            raise UserError(
                f"`{option}` is no option of find-lr.{nearest(option, [*names, '--json'])}\nIts page: dltrain find-lr --help"
            )
        elif argument != "--json":
            rest.append(argument)
    values = {names[option]: number(option, text) for option, text in given.items()}
    asked = Asked(**values, as_json="--json" in arguments)  # type: ignore[arg-type]
    if asked.low >= asked.high:
        raise UserError(
            f"`--from` is {asked.low:g} and `--to` {asked.high:g}: the first must be the lower one"
        )
    return asked, rest


def number(option: str, text: str) -> float | int:
    """Return the value of an option: a positive number, or a count."""
    counts = {"--points": 2, "--steps": 1}
    try:
        value = int(text) if option in counts else float(text)
    except ValueError:
        value = 0
    if not counts.get(option, 0) <= value < math.inf or value <= 0:
        rule = f"a whole number >= {counts[option]}" if option in counts else "a number > 0"
        raise UserError(f"`{option}` is {text or 'missing'}; it must be: {rule}")
    return value


def line(lr: float, loss: float, found: dict[float, float]) -> str:
    """Return one trial as a line: the rate, its loss, and a bar in relation to the first finite loss."""
    if not math.isfinite(loss):
        return f"lr {lr:<8g} diverged"
    first = next(value for value in found.values() if math.isfinite(value))
    bar = "█" * max(1, min(WIDTH, round(WIDTH * loss / first))) if first > 0 else ""
    return f"lr {lr:<8g} loss {loss:<10.4g} {bar}".rstrip()


def advice(asked: Asked, best: float, further: str, rest: list[str]) -> str:
    """Return what the trials say, and the command that trains with the best rate."""
    if math.isnan(best):
        return f"Every rate from {asked.low:g} to {asked.high:g} diverged. Try lower ones:\n{further}"
    lines = [f"\nlowest loss after {asked.steps} steps: lr={best:g}"]
    if further:
        side, other = (
            ("lowest", "lower") if best < math.sqrt(asked.low * asked.high) else ("highest", "higher")
        )
        lines.append(
            f"It is the {side} rate tried; a {other} one may be better:\n{further}\nTrain with it as it is:"
        )
    return "\n".join([*lines, typed(*rest, f"lr={best:g}")])


def wider(asked: Asked, found: dict[float, float], best: float, rest: list[str]) -> str:
    """Return the command that searches beyond the end of the range at which the best rate is; "" where it is inside."""
    rates = list(found)
    if math.isnan(best):
        low, high = asked.low / 1e3, asked.low
    elif best == rates[0]:
        low, high = best / 100, best * 10
    elif best == rates[-1]:
        low, high = best / 10, best * 100
    else:
        return ""
    counts = {"--points": (asked.points, Asked.points), "--steps": (asked.steps, Asked.steps)}
    kept = [text for name, (value, usual) in counts.items() if value != usual for text in (name, value)]
    return typed("find-lr", *rest, "--from", f"{low:g}", "--to", f"{high:g}", *kept)


def as_json(asked: Asked, found: dict[float, float], best: float, further: str) -> str:
    """Return one JSON document: losses are null where a trial diverged, and `further` unless the best rate is at an end."""
    trials = [{"lr": lr, "loss": loss if math.isfinite(loss) else None} for lr, loss in found.items()]
    found_best = None if math.isnan(best) else best
    return json.dumps(
        {"steps": asked.steps, "trials": trials, "best": found_best, "further": further or None}
    )
