"""Fuzz every parser: `python -m tests.fuzz --inputs 1000000`; exit code 1 where one raised, hung or wrote outside."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from covered import covered  # noqa: E402
from fuzzing import fuzz  # noqa: E402
from parsers import Parser, parsers  # noqa: E402

ENOUGH = 0.9  # of each parser's lines


def main() -> int:
    """Print a line for each parser and each finding."""
    arguments = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    arguments.add_argument("--inputs", type=int, default=100_000, help="inputs in all")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--only", action="append", default=[], metavar="PARSER")
    arguments.add_argument(
        "--coverage", action="store_true", help="print which lines the inputs reach, in place of fuzzing"
    )
    arguments.add_argument("--minutes", type=float, default=float("inf"), help="stop after this time")
    given = arguments.parse_args()
    chosen = {name: parser for name, parser in parsers().items() if not given.only or name in given.only}
    if unknown := set(given.only) - set(chosen):
        arguments.error(f"there is no parser {', '.join(sorted(unknown))}; there are: {', '.join(parsers())}")
    if given.coverage:
        return coverage(chosen, given.inputs, given.seed)
    whole = sum(parser.weight for parser in chosen.values())
    done = found = 0
    for name, parser in chosen.items():
        share = parser.weight / whole
        result = fuzz(
            name,
            parser,
            max(1, round(given.inputs * share)),
            given.seed,
            60 * given.minutes * max(share, 0.02),
        )
        done, found = done + result.inputs, found + len(result.findings)
        print(f"{name:<24} {result.inputs:>9,} inputs  {result.accepted / max(result.inputs, 1):>5.0%} accepted  "
              f"{result.seconds:>7.1f} s  {len(result.findings)} findings", flush=True)  # fmt: skip
        for finding in result.findings:
            print(f"    {finding.what}\n    {finding.content[:400]!r}")
    print(f"{done:,} inputs, {found} findings")
    return 1 if found else 0


def coverage(chosen: dict[str, Parser], inputs: int, seed: int) -> int:
    """Print the share of each parser's lines that its inputs reach; return 1 where one is below 90 %."""
    whole, least = sum(parser.weight for parser in chosen.values()), 1.0
    for name, parser in chosen.items():
        found = covered(name, parser, max(1, round(inputs * parser.weight / whole)), seed)
        least = min(least, found.share)
        print(f"{name:<24} {found}", flush=True)
    return 1 if least < ENOUGH else 0


if __name__ == "__main__":
    sys.exit(main())
