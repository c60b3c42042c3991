"""Print what Ray takes for a job: 300 that end at once, as their folder is not there.

`cpu` and `wall` are milliseconds for each, `workers` the processes of Ray that were started after the first four jobs.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from dltrain.sweep.backends.ray_cluster import Cluster
from dltrain.sweep.backends.ray_connection import connect

JOBS = 300
TEXT = json.dumps({"folder": "/nowhere", "cwd": "/", "config": "x" * 9000})  # as long as that of a job


def spent() -> dict[str, float]:
    """The CPU seconds of this process and of each of Ray's, which work in the same folder."""
    found = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and os.readlink(entry / "cwd") == os.getcwd():
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                found[entry.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def main() -> None:
    cluster = Cluster({"CPU": 1.0, "GPU": 0.0}, connect(None, 2, 0))
    # the workers start
    for ref in [cluster.start(TEXT) for _ in range(4)]:
        while not cluster.wait([ref], 1.0):
            pass
    before, begun = spent(), time.monotonic()
    for _ in range(JOBS):
        ref = cluster.start(TEXT)
        while not cluster.wait([ref], 1.0):
            pass
        assert "blind" in cluster.result(ref)
    wall, after = time.monotonic() - begun, spent()
    cluster.close()
    cpu = sum(seconds - before.get(process, 0.0) for process, seconds in after.items())
    found = {"cpu": round(1e3 * cpu / JOBS, 2), "wall": round(1e3 * wall / JOBS, 2)}
    print(json.dumps(found | {"workers": len(after.keys() - before)}))


if __name__ == "__main__":
    main()
