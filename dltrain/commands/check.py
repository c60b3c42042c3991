"""`dltrain check [group=word …]`: check gradients, first loss, overfitting and splits before a long training."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from dltrain.commands.train import check_no_flags, check_no_sweep, read, say_what_is_read
from dltrain.config.compose import CONFIG_NAME, compose, open_catalogue, open_hydra, quote_foreign
from dltrain.config.door import Door, shipped_targets
from dltrain.config.keys import NO_SAMPLES, keys_of
from dltrain.config.schema import Node
from dltrain.config.validation import validate
from dltrain.errors import UserError
from dltrain.text import show

HELP = """
    The words and keys are those of a training; nothing is written. First come the lines on the data that the header of a run has, with
    all columns that are left out. Then, a line for each check with what was found and what it should be:

  mean of the inputs      normalized inputs of the training have mean 0
  samples in two splits   no sample is in two of train, val and test
  first loss              that of a guess, before anything is learned
  mixing of samples       the output of a sample does not depend on the others of its batch
  gradient of NAME        that of finite differences in float64
  overfit N samples       the model learns a few samples by heart

    The exit code is 10 where one fails; below it stand its possible causes and cures.

Examples
  dltrain check
  dltrain check dataset=csv dataset.path=house.csv dataset.target=price
  dltrain check model=cnn optimizer=momentum loss=bce
"""

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dltrain.data.contract import Contract
    from dltrain.diagnostics.checks import Check
    from dltrain.training.parts import Parts, Plan


def run(arguments: list[str]) -> int:
    """Print a line for each check; return 0 if all of them pass, else 10."""
    args = read([quote_foreign(argument) for argument in arguments])
    check_no_flags(args, "check")
    catalogue = open_catalogue(args.config_dir)
    check_no_sweep(args.overrides, may_sweep=False)
    name = args.config_name or CONFIG_NAME
    config = validate(compose(args.overrides, catalogue, open_hydra(catalogue), name))
    if config.words["dataset"] == NO_SAMPLES:
        raise UserError(
            "`dltrain check` looks at samples, and dataset=none has none. Choose another dataset."
        )

    say_what_is_read(config, catalogue)

    from dltrain.data.tables.notes import LISTED
    from dltrain.run.build import build

    door = Door(shipped_targets(catalogue), config.trust)
    parts, plan = build(config, door, given=keys_of(args.overrides))
    for note in parts.spec.notes:
        show(note)
    if parts.contract is not None and len(parts.contract.left_out) > LISTED:
        listed = (f"{name} ({reason})" for name, reason in parts.contract.left_out.items())
        show(f"left out {', '.join(listed)}")
    failed = 0
    repeats = repeats_cure(config.dataset, parts.contract)
    for check in checks(parts, plan, str(config.dataset["normalize"]), repeats):
        verdict = "ok" if check.passed else "FAILED"
        show(f"{verdict:<7} {check.name:<34} {check.found:<24} {check.wanted}")
        for line in check.cure.splitlines() if not check.passed else ():
            show(f"{'':<7} {line}")
        failed += not check.passed
    return 10 if failed else 0


def repeats_cure(dataset: Node, contract: Contract | None) -> str:
    """Return how samples that belong together are kept in one split, and copies are left out; empty for data without such keys.

    contract: of the data, whose columns and targets tell copies of rows.
    """
    ways = []
    # where the data define the splits, groups divide nothing
    given = dataset.get("split_column") or ("labels" in dataset and dataset["labels"] is None)
    if "group_column" in dataset and dataset["group_column"] is None and not given:
        ways.append("to keep the rows of one person or thing in one split: dataset.group_column=COLUMN")
    if contract is not None and contract.columns and "delimiter" in dataset:
        ways.append(f"to leave out copies of rows: {copies_cure(dataset, contract)}")
    if "labels" in dataset and (root := dataset.get("root")):
        folder = shlex.quote(os.path.expanduser(str(root)))
        ways.append(
            f"to list equal files, of each of which one must stay: find {folder} -type f -exec sha256sum {{}} + | sort | uniq -w64 -D"
        )
    return "\n".join(ways)


def copies_cure(dataset: Node, contract: Contract) -> str:
    """Return how copies of rows are left out of a table, or of the second of two."""
    from dltrain.data.tables.copies import without_copies

    path, other = (os.path.expanduser(str(dataset[key] or "")) for key in ("path", "test_path"))
    if other:
        return f"keep those rows of {other} that are not in {path}"
    used = [rule.name for rule in (*contract.columns, *contract.targets)]
    return without_copies(Path(path), str(dataset["delimiter"]), used)


def checks(parts: Parts, plan: Plan, normalize: str, repeats: str = "") -> Iterator[Check]:
    """Yield all checks, the cheap ones first. repeats: what to do about samples in two splits."""
    import torch

    from dltrain.diagnostics import checks as c
    from dltrain.seeding import sample_positions

    splits = {
        n: s for n, s in (("train", parts.train), ("val", parts.val), ("test", parts.test)) if s is not None
    }
    torch.manual_seed(plan.seed)
    chosen = sample_positions(len(parts.train), 512, plan.seed, "check")
    few = next(iter(parts.train.batches(chosen[: c.SAMPLES], c.SAMPLES)))
    many = next(iter(parts.train.batches(chosen, 512)))
    scored = (parts.model, parts.loss)
    yield c.inputs_are_centered(parts.train, normalize != "none")
    yield c.no_leak(splits, repeats)
    yield c.first_loss(*scored, many.inputs, many.targets)
    yield c.independent(parts.model, few.inputs)
    yield from c.gradients(*scored, few.inputs[:8], few.targets[:8])
    yield c.overfit(*scored, few.inputs, few.targets)
