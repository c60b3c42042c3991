"""Reading samples in threads: order, memory, broken ones together, lines while it lasts, and an interrupt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dltrain.data import progress, streaming
from dltrain.data.errors import BrokenSamples
from dltrain.data.progress import Progress, progress_shown, say_reading
from dltrain.data.streaming import in_threads, read_in_threads
from dltrain.processors import cores
from dltrain.sweep.reuse import newest_change


class Squares:
    """The squares of the positions as images of one pixel; the first ones take longest."""

    shape = (1, 1, 1)

    def __init__(self, broken: tuple[int, ...] = ()) -> None:
        self.broken, self.most_ahead, self.threads = broken, 0, set[int]()

    def __len__(self) -> int:
        return 100

    def read(self, indices: Tensor) -> Tensor:
        self.threads.add(threading.get_ident())
        time.sleep(0.003 * int(100 - indices[0]) / 100)
        bad = [i for i in indices.tolist() if i in self.broken]
        if bad:
            raise BrokenSamples([(f"{i}.jpg", "torn") for i in bad], "replace them")
        return (indices**2 % 256).to(torch.uint8).view(-1, 1, 1, 1)


def test_samples_keep_their_order() -> None:
    reader = Squares()
    chosen = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    found = read_in_threads(reader, chosen, threads=3)
    assert found.flatten().tolist() == [i**2 % 256 for i in chosen.tolist()]
    assert len(reader.threads) > 1


def test_broken_samples_are_named_together() -> None:
    with pytest.raises(BrokenSamples) as error:
        read_in_threads(Squares(broken=(3, 50, 99)), torch.arange(100), threads=2)
    assert str(error.value) == "cannot use 3 of 100 images; replace them:\n3.jpg, 50.jpg, 99.jpg (torn)"


def test_what_is_read_ahead_is_bounded() -> None:
    read = list[int]()

    def part(positions: Tensor) -> int:
        read.append(int(positions[0]))
        return int(positions[0])

    taken = in_threads(part, torch.arange(10_000), threads=2)
    assert next(taken) == 0
    time.sleep(0.1)
    assert len(read) <= 10
    taken.close()


def test_all_samples_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by a data scientist: a line said 608 of 603."""
    made: list[Progress] = []
    monkeypatch.setattr(streaming, "Progress", lambda *given: made.append(Progress(*given)) or made[-1])
    assert sum(in_threads(len, torch.arange(603), threads=2)) == made[0].done == 603


def test_lines_while_it_lasts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = Progress("reading ", 4000)
    for _ in range(40):
        now[0] += 0.4
        shown.advance(100)
    assert capsys.readouterr().err.splitlines() == [
        "reading  200 of 4,000 · 15 s left",
        "reading  2,700 of 4,000 · 5 s left",
    ]
    with progress_shown(False):
        hidden = Progress("reading ", 10)
        now[0] += 99
        hidden.advance(5)
    assert capsys.readouterr().err == ""


def test_large_sources_are_named_before_they_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_MANY", 3)
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(b"x")
    say_reading([str(tmp_path), str(tmp_path / "nowhere")])
    assert capsys.readouterr().err == ""
    (tmp_path / "3.jpg").write_bytes(b"x")
    say_reading([str(tmp_path)])
    assert capsys.readouterr().err == f"dltrain: reading {tmp_path}\n"
    table = tmp_path / "t.csv"
    for size, said in ((2**24, ""), (25_000_000, f"dltrain: reading {table} (25 MB)\n")):
        with open(table, "wb") as stream:
            stream.truncate(size)
        say_reading([str(table)])
        assert capsys.readouterr().err == said


def test_folders_nested_beyond_the_stack_of_python_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by a hostile tester: `os.walk` of Python 3.11 raised RecursionError."""
    monkeypatch.chdir(tmp_path)
    # a longer path has no name
    for _ in range(15):
        os.makedirs("/".join("d" * 100))
        os.chdir("/".join("d" * 100))
    os.chdir(tmp_path)
    say_reading(["d"])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "_MANY", 1400)
    say_reading(["d"])
    assert capsys.readouterr().err == "dltrain: reading d\n"
    assert newest_change("d") > 0
    subprocess.run(["rm", "-r", "d"], check=True)


@pytest.mark.ci
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_reading_at_once(tmp_path: Path, number: signal.Signals) -> None:
    script = (
        "import os, signal, time, torch\n"
        # a shell starts what runs in the background with SIGINT ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from dltrain.cli import main\n"
        "from dltrain.data import image_files\n"
        "read = image_files.read_pixels\n"
        "def slow(*given):\n"
        "    os.write(1, b'begun\\n')\n"
        "    time.sleep(0.1)\n"
        "    return read(*given)\n"
        "image_files.read_pixels = slow\n"
        "main(['dataset=image_folder', 'dataset.root=photos', 'model=linear'])\n"
    )
    from PIL import Image

    for i in range(200):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.send_signal(number)
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == (130 if number is signal.SIGINT else -signal.SIGTERM)
    # each thread ends the eight images that it reads, and may have begun eight more
    assert rest.count("begun") < min(16 * cores(), 200)
    assert os.listdir(tmp_path) == ["photos"]
