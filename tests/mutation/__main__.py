"""Plant bugs one at a time and say which the tests catch: `python -m tests.mutation [--only NAME] [--jobs N]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue

sys.path.insert(0, str(Path(__file__).parent))

from mutations import MUTATIONS, Mutation  # noqa: E402
from planting import Verdict, copy_to, plant, run_tests, tests_of, try_out  # noqa: E402


def main() -> int:
    """Return 0 where every bug is caught, 1 where one is missed or stale."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="these bugs only")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    parser.add_argument("--stale", action="store_true", help="only say which can no longer be planted")
    parser.add_argument("--no-baseline", action="store_true", help="do not run the tests without a bug first")
    arguments = parser.parse_args()
    chosen = [m for m in MUTATIONS if not arguments.only or m.name in arguments.only]
    if unknown := set(arguments.only) - {m.name for m in chosen}:
        parser.error(f"no bug is called {', '.join(sorted(unknown))}")
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copies = [Path(folder) / str(number) for number in range(arguments.jobs)]
        for copy in copies:
            copy_to(copy)
        if not arguments.stale and not arguments.no_baseline and (reason := fails_without(chosen, copies[0])):
            print(f"The tests fail without a bug: {reason}")
            return 1
        for mutation, verdict in stale(chosen, copies[0]) if arguments.stale else run_all(chosen, copies):
            counts[verdict.kind] += 1
            print(f"{verdict.kind:<7} {mutation.name}: {verdict.reason}", flush=True)
    print(", ".join(f"{number} {kind}" for kind, number in counts.items()) or "none is stale")
    return int(counts["caught"] < counts.total())


def fails_without(chosen: list[Mutation], folder: Path) -> str | None:
    """Run the union of the tests on the code as it is; returns what fails."""
    paths = sorted({path for mutation in chosen for path in tests_of(mutation, folder)})
    verdict = run_tests(
        [p for p in paths if not any(q != p and p.startswith(f"{q}/") for q in paths)], folder
    )
    return None if verdict.kind == "missed" else verdict.reason


def stale(chosen: list[Mutation], folder: Path) -> Iterator[tuple[Mutation, Verdict]]:
    for mutation in chosen:
        file = folder / "dltrain" / mutation.file
        before = file.read_text(encoding="utf-8") if file.is_file() else ""
        if (reason := plant(mutation, folder)) is not None:
            yield mutation, Verdict("stale", reason)
        else:
            file.write_text(before, encoding="utf-8")


def run_all(chosen: list[Mutation], copies: list[Path]) -> Iterator[tuple[Mutation, Verdict]]:
    free: SimpleQueue[Path] = SimpleQueue()
    for copy in copies:
        free.put(copy)

    def work(mutation: Mutation) -> tuple[Mutation, Verdict]:
        copy = free.get()
        try:
            return mutation, try_out(mutation, copy)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(len(copies)) as pool:
        for future in as_completed([pool.submit(work, mutation) for mutation in chosen]):
            yield future.result()


if __name__ == "__main__":
    sys.exit(main())
