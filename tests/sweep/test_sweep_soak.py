"""Row 46 of docs/trust.md: a thousand jobs, a tenth of them faulty. `pytest -m slow -s tests/sweep/test_sweep_soak.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from sweeping import add_faulty_model, finished, is_alive, notes, summaries, sweep_folder

JOBS = int(os.environ.get("DLTRAIN_SOAK_JOBS", "1000"))


def resident(process: int) -> float:
    """MiB that a process holds."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.slow
def test_46_a_thousand_jobs_with_a_tenth_of_faults(workdir, capsys):
    add_faulty_model(workdir)
    command = [
        "-m",
        "model=faulty",
        "model.fault=lottery",
        f"model.tag=range({JOBS})",
        "steps=1",
        "sweep.jobs=2",
    ]
    begun = time.monotonic()
    with open("driver.log", "w") as log:
        driver = subprocess.Popen([sys.executable, "-m", "dltrain", *command], stdout=log, stderr=log)
        seen: list[tuple[int, float, int]] = []  # jobs done, MiB, open files of the driver
        while driver.poll() is None:
            done = Path("driver.log").read_text().count("\n[")
            try:
                seen.append((done, resident(driver.pid), len(os.listdir(f"/proc/{driver.pid}/fd"))))
            except (OSError, IndexError, ValueError):  # it ended meanwhile
                break
            time.sleep(0.5)
        assert driver.wait() == 7
    seconds = time.monotonic() - begun
    early = max(held for done, held, _ in seen if 0.1 * JOBS <= done <= 0.2 * JOBS)
    late = max(held for done, held, _ in seen if 0.9 * JOBS <= done <= JOBS)
    with capsys.disabled():
        print(
            f"\n{JOBS} jobs in {seconds:.0f} s; driver {early:.1f} MiB after a fifth, {late:.1f} MiB at the end"
        )
    folder = sweep_folder(workdir)
    jobs = summaries(folder)
    assert sorted(jobs) == list(range(JOBS))
    assert json.loads((folder / "sweep.json").read_text())["finished"]
    with open(folder / "results.csv") as table:
        states = Counter("failed" if ",failed," in line else "done" for line in table.read().splitlines()[1:])
    assert states["failed"] == sum(n % 10 == 0 for n in range(JOBS))
    assert (
        Counter(tag for event, _, tag, _, _ in notes(workdir) if event == "built").most_common(1)[0][1] == 1
    )
    assert len(finished(workdir)) == JOBS
    assert late - early < 0.02 * JOBS  # 20 kB a job: its summary and its trial
    assert max(files for *_, files in seen) <= seen[len(seen) // 5][2] + 4
    assert not [note for note in notes(workdir) if is_alive(note[3])]
    assert not list(folder.glob("**/*.tmp")) and not list(folder.glob("**/.*.tmp"))
