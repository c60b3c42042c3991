"""Record fixed-seed results of 60 configurations, or replay them: `python -m tests.golden record|replay`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from configurations import Configuration, configurations  # noqa: E402
from recording import FILE, differences, machine, read, run_all, write  # noqa: E402


def main() -> int:
    """Return 0 where all is recorded or equal, 1 where something differs, 3 where this machine cannot tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("verb", choices=("record", "replay"))
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="these configurations only"
    )
    parser.add_argument("--file", type=Path, default=FILE, help="the recording")
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="compare within this relative difference, on another machine or torch too",
    )
    arguments = parser.parse_args()
    chosen = [c for c in configurations() if not arguments.only or c.name in arguments.only]
    if unknown := set(arguments.only) - {c.name for c in chosen}:
        parser.error(f"no configuration is called {', '.join(sorted(unknown))}")
    if arguments.verb == "record":
        return record(chosen, arguments.file, partly=bool(arguments.only))
    return replay(chosen, arguments.file, arguments.tolerance)


def record(chosen: list[Configuration], file: Path, partly: bool) -> int:
    """Write the results of the chosen configurations; with `partly`, beside what the file holds of the others."""
    former = read(file) if partly and file.exists() else {}
    if partly and former and former["machine"] != machine():
        print(f"{file} was recorded on {told(former['machine'])}; record all of it on {told(machine())}.")
        return 3
    kept = former.get("configurations", {})
    begun, failed = time.monotonic(), 0
    for configuration, results in run_all(chosen):
        if isinstance(results, str):
            failed += 1
            print(f"{configuration.name}: FAILED, {results}", flush=True)
            continue
        kept[configuration.name] = {"command": f"dltrain {configuration.words}", "jobs": results}
        print(f"{configuration.name}: recorded", flush=True)
    if failed:
        print(f"{failed} of {len(chosen)} failed: nothing was written.")
        return 1
    order = [c.name for c in configurations() if c.name in kept]
    write(file, {"machine": machine(), "configurations": {name: kept[name] for name in order}})
    print(f"{len(chosen)} recorded in {time.monotonic() - begun:.0f} s: {file}")
    return 0


def replay(chosen: list[Configuration], file: Path, tolerance: float | None) -> int:
    """Run the configurations again and say of each whether it is equal."""
    recorded = read(file)
    if recorded["machine"] != machine() and tolerance is None:
        print(
            f"Recorded on {told(recorded['machine'])}; this is {told(machine())}: bits may differ without a fault.\n"
            "Compare loosely: python -m tests.golden replay --tolerance 1e-3\n"
            "Or compare bits with a recording of your own: run `python -m tests.golden record --file FILE` at the "
            "earlier commit, then `replay --file FILE` here."
        )
        return 3
    begun, differing = time.monotonic(), 0
    for configuration, results in run_all(chosen):
        before = recorded["configurations"].get(configuration.name)
        if before is None:
            found = ["is not in the recording"]
        elif isinstance(results, str):
            found = [results]
        else:
            found = differences(before["jobs"], results, max(configuration.tolerance, tolerance or 0.0))
        differing += bool(found)
        print(f"{configuration.name}: {'differs' if found else 'equal'}", flush=True)
        for text in found:
            print(f"    {text}")
    print(f"{len(chosen) - differing} of {len(chosen)} equal, in {time.monotonic() - begun:.0f} s")
    return 1 if differing else 0


def told(facts: dict[str, str]) -> str:
    return f"torch {facts['torch']}, {facts['capability']}, {facts['processor']}"


if __name__ == "__main__":
    sys.exit(main())
