"""tag, archive, trash, restore: nothing is lost, whatever the order, and wherever the process dies."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import re
import subprocess
from pathlib import Path

import pytest
from made import make_run, make_sweep, stamp

import dltrain as package
from dltrain.commands import trash as trash_verb
from dltrain.errors import CheckpointProblem, FolderInUse, ResourceProblem, UserError
from dltrain.storage import lock as locks
from dltrain.storage import shelves
from dltrain.storage.files import replace
from dltrain.storage.folder_names import OUTPUT, check_place
from dltrain.storage.index import CACHE, scan
from dltrain.storage.lock import Lock
from dltrain.storage.summary import read_summary

STEPS = 10


def content(folder: Path) -> dict[str, bytes]:
    """Return every byte of a folder but the tags, which have a model of their own."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in ("tags.json", "run.lock")
    }


def where(name: str) -> list[Path]:
    """Return every place of a run on the disk."""
    return [p for p in Path().rglob(name) if p.is_dir()]


class Model:
    """What should be where: the slow, obvious twin."""

    def __init__(self) -> None:
        self.shelf: dict[Path, str | None] = {}
        self.tags: dict[Path, set[str]] = {}
        self.content: dict[Path, dict[str, bytes]] = {}
        self.training: dict[Path, Lock] = {}
        # what a user put into the trash by hand
        self.notes: set[Path] = set()

    def add(self, path: Path) -> None:
        make_run(path, tags=["own"])
        self.shelf[path], self.tags[path], self.content[path] = None, {"own"}, content(path)

    def place(self, path: Path) -> Path:
        shelf = self.shelf[path]
        return path if shelf is None else Path(".dltrain", shelf, *path.parts)

    def trash(self) -> list[Path]:
        """Return the runs in the trash."""
        return [path for path, shelf in self.shelf.items() if shelf == "trash"]

    def check(self) -> None:
        for path in self.shelf:
            place = self.place(path)
            assert where(path.name) == [place]
            assert content(place) == self.content[path]
            assert set(read_summary(place)["tags"]) == self.tags[path]
        assert all(note.read_text() == "mine" for note in self.notes)


# of many parts, hidden ones, and another output folder, which has the name that a trash has while it is emptied
PLACES = (
    "outputs/n0",
    "outputs/n1",
    "outputs/n1",
    "outputs/a/b/c/d/e",
    "outputs/.hidden/x",
    ".deleting-mine/n",
)


@pytest.mark.parametrize("sequences", [100, pytest.param(1000, marks=pytest.mark.ci)])
def test_random_sequences_lose_nothing(workdir, sequences):
    draws = random.Random(17)
    model, seen, emptied = Model(), set(), set()
    for number, place in enumerate(PLACES):
        model.add(Path(place) / stamp(number))
    for sequence in range(sequences):
        for _ in range(draws.randrange(1, STEPS)):
            path = draws.choice(list(model.shelf))
            act = draws.choice(["tag", "untag", "archive", "trash", "restore", "train", "note", "empty"])
            if act == "empty":
                emptied.add(empty(model))
            else:
                step(model, path, act, draws)
        seen |= set(model.shelf.values())
        if sequence % 10 == 0 or sequence == sequences - 1:
            model.check()
    assert seen == {None, "archive", "trash"}, "each place was tried"
    assert emptied == {"nothing", "something", "in use"}
    for lock in model.training.values():
        lock.release()


def empty(model: Model) -> str:
    """Empty the trash, which asks where it deletes anything, and makes its runs again."""
    gone = model.trash()
    if not gone and not model.notes:
        trash_verb.delete(Path.cwd(), False, False, "again")
        return "nothing"
    with pytest.raises(UserError, match=f"deletes {len(gone) + len(model.notes)} (folder|item)s? for good"):
        trash_verb.delete(Path.cwd(), False, False, "again")
    if any(path in model.training for path in gone):
        with pytest.raises(FolderInUse, match="Nothing was deleted"):
            trash_verb.delete(Path.cwd(), True, False, "again")
        model.check()
        return "in use"
    trash_verb.delete(Path.cwd(), True, False, "again")
    assert not Path(".dltrain/trash").exists()
    model.notes.clear()
    for path in gone:
        assert where(path.name) == []
        model.add(path)
    return "something"


def step(model: Model, path: Path, act: str, draws: random.Random) -> None:
    """Do one act on the disk and in the model, or see it refused where the model forbids it."""
    place, name = model.place(path), path.name.rpartition("-")[2]
    if act in ("tag", "untag"):
        word = draws.choice(["own", "a", "b"])
        package.tag(place, **{"add" if act == "tag" else "remove": [word]})
        model.tags[path] = model.tags[path] | {word} if act == "tag" else model.tags[path] - {word}
    elif act == "train":
        # a process trains in it, or ends
        lock = model.training.pop(path, None)
        if lock is None:
            model.training[path] = Lock(place)
        else:
            lock.release()
    elif act == "note":
        note = Path(".dltrain/trash/outputs") / draws.choice(["note", ".note", "kept/note"])
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text("mine")
        model.notes.add(note)
    elif act == "restore" and model.shelf[path] is None:
        with pytest.raises(CheckpointProblem, match="neither in the archive nor in the trash"):
            package.restore(name)
    elif model.shelf[path] == act:
        with pytest.raises(CheckpointProblem, match="already"):
            getattr(package, act)(place)
    elif path in model.training:
        with pytest.raises(FolderInUse, match="it is training"):
            getattr(package, act)(place)
    elif act == "restore":
        # the end of a name finds runs of `outputs`
        names = [name, path, place] if path.parts[0] == "outputs" else [path, place]
        assert package.restore(draws.choice(names)) == [Path.cwd() / path]
        model.shelf[path] = None
    else:
        getattr(package, act)(place)
        model.shelf[path] = act


class Killed(BaseException):
    """The process died."""


ACTS = [
    lambda: package.archive("0000"),
    lambda: package.trash("0000", "0001"),
    lambda: package.archive(f"outputs/swept/{stamp(2)}"),
    lambda: package.restore("0003"),
    lambda: package.trash(Path(".dltrain/archive/outputs/n1", stamp(3))),
    lambda: package.tag("0000", add=["x"], remove=["own"]),
]
CALLS = [
    (os, "rename"),
    (os, "replace"),
    (os, "mkdir"),
    (os, "rmdir"),
    (os, "unlink"),
    (os, "open"),
    (os, "fsync"),
]


@pytest.mark.parametrize(
    "act", ACTS, ids=["archive", "trash two", "archive a sweep", "restore", "from shelf to shelf", "tag"]
)
def test_a_kill_at_any_call_leaves_each_folder_in_one_place(workdir, monkeypatch, act):
    """Each call that changes the disk is the last one, once before it and once after it."""
    number = 0
    while True:
        base = workdir / str(number)
        base.mkdir()
        monkeypatch.chdir(base)
        names = [make_run(OUTPUT / "n1" / stamp(n), tags=["own"]).name for n in (0, 1, 3)]
        names.append(make_sweep(OUTPUT / "swept" / stamp(2), [{}, {}]).name)
        package.archive("0003")
        known = {name: content(where(name)[0]) for name in names}
        with monkeypatch.context() as patch:
            count = [0]
            for module, name in CALLS:
                patch.setattr(module, name, dying(getattr(module, name), count, number))
            try:
                act()
                died = False
            except Killed:
                died = True
        for name, before in known.items():
            (place,) = where(name)
            after = content(place)
            assert {key: after[key] for key in before} == before
            left = {name for name in after if not re.fullmatch(r"\.tags\.json\.\w+\.tmp", name)}
            assert left - set(before) <= {"run.lock", "sweep.lock", ".tags.lock"}
        if not died:
            break
        number += 1
    assert number >= 4


def dying(call, count, last):
    """Die before (even) or after (odd) call number last // 2; a dead process does nothing more."""

    def dies(*arguments, **options):
        place, count[0] = count[0], count[0] + 1
        if place > last // 2 or (place == last // 2 and last % 2 == 0):
            raise Killed
        try:
            return call(*arguments, **options)
        finally:
            if place == last // 2:
                raise Killed

    return dies


def test_the_printed_command_undoes_a_move(run, dltrain, capsys):
    other = make_run(Path("my results") / "a" / "b" / stamp(1), name="a/b")
    odd = make_run(OUTPUT / "new\nline's \\ \x1b[31m" / stamp(2))
    for verb in ("archive", "trash"):
        for folder in (run, other, odd):
            before = content(folder)
            assert dltrain(verb, folder) == 0
            *_, undo = capsys.readouterr().out.splitlines()
            assert undo.isprintable()
            assert dltrain(*words_of(undo.removeprefix("To undo: dltrain "))) == 0
            assert content(folder) == before
            capsys.readouterr()


def words_of(line: str) -> list[str]:
    """Return the words of a command line as bash has them; shlex does not know $'…'."""
    said = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    return said.stdout.decode().split("\0")[:-1]


# What is refused --------------------------------------------------------------------------------------------------


@pytest.fixture
def run(workdir):
    return make_run(OUTPUT / "n" / stamp(0))


def refused(kind, says, call):
    before = {str(p) for p in Path().rglob("*") if p.name != CACHE}
    with pytest.raises(kind, match=says):
        call()
    assert {str(p) for p in Path().rglob("*") if p.name != CACHE} == before


def test_a_run_that_is_training_stays(run):
    lock = Lock(run)
    refused(FolderInUse, "it is training", lambda: package.trash(run))
    lock.release()
    assert package.trash(run) == [Path.cwd() / ".dltrain/trash" / run]


def test_a_run_whose_lock_cannot_be_read_stays(run, monkeypatch):
    """Another user may train in it."""
    lock = run / "run.lock"
    lock.touch()

    def refuse(file, *rest, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))

    with monkeypatch.context() as patch:
        patch.setattr(locks, "open", refuse, raising=False)
        refused(FolderInUse, "run.lock cannot be read", lambda: package.trash(run))
        lock.unlink()
        lock.mkdir()  # no process can hold this
        assert not locks.is_held(lock)
        assert not locks.is_held(lock / "run.lock")
    lock.rmdir()
    assert package.trash(run) == [Path.cwd() / ".dltrain/trash" / run]


def test_a_sweep_stays_while_a_job_or_its_driver_runs(workdir):
    sweep = make_sweep(OUTPUT / "s" / stamp(0), [{}, {}])
    lock = Lock(sweep / "1")
    refused(FolderInUse, "it is training", lambda: package.archive(sweep))
    lock.release()
    from dltrain.sweep.sweep import locked

    with locked(sweep):
        refused(FolderInUse, "it is training", lambda: package.archive(sweep))
    refused(CheckpointProblem, "is a job of a sweep", lambda: package.trash(sweep / "1"))
    package.trash(sweep)
    assert not sweep.exists()


def test_no_sweep_begins_where_one_is_moved(workdir, monkeypatch):
    """The driver of a sweep gets its lock before it looks at the folder, or never."""
    from dltrain.sweep.sweep import locked

    sweep, rename = make_sweep(OUTPUT / "s" / stamp(0), [{}]), os.rename

    def meanwhile(source, target):
        with pytest.raises(FolderInUse), locked(Path(source)):
            pass
        rename(source, target)

    monkeypatch.setattr(os, "rename", meanwhile)
    (moved,) = package.archive(sweep)
    assert sorted(path.name for path in moved.iterdir()) == ["0", "sweep.json"]


def test_nothing_trains_on_a_shelf(run, dltrain):
    identity = {"sweep": "grid", "fixed": [], "axes": [], "settings": {}, "test": False, "files": {}}
    sweep = make_sweep(OUTPUT / "s" / stamp(5), [{}], identity=identity, overrides=["lr=0.1,0.01"])
    archived, trashed = package.archive(sweep)[0], package.trash(run)[0]
    refused(CheckpointProblem, f"in the trash.*restore {trashed}", lambda: dltrain("resume", trashed))
    refused(CheckpointProblem, f"archived.*restore {archived}", lambda: dltrain("resume", archived / "0"))
    refused(
        CheckpointProblem,
        f"archived.*restore {archived}",
        lambda: dltrain("-m", f"sweep.resume={archived}"),
    )


def test_a_full_disk_does_not_keep_runs_out_of_the_trash(run, monkeypatch):
    """A rename takes no room; what the lock says of its owner does."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    lock = Lock(run)
    refused(FolderInUse, "it is training", lambda: package.trash(run))
    lock.release()
    assert package.trash(run) == [Path.cwd() / ".dltrain/trash" / run]


def test_a_full_disk_is_told_with_the_file_and_leaves_no_folder(run, monkeypatch, dltrain, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("dltrain.storage.files.sync", full)
    with pytest.raises(OSError, match="tags.json"):
        package.tag(run, add=["x"])
    from dltrain.run.record import logging_to
    from dltrain.storage.folder_names import new_folder

    folder = new_folder("outputs", "full")
    with pytest.raises(OSError, match="summary.json"), logging_to(folder):
        replace(folder / "summary.json", b"{}")
    assert not folder.exists()


@pytest.mark.parametrize("verb", ["archive", "trash", "tag"])
def test_a_run_that_another_process_moves_is_told(run, monkeypatch, verb):
    """Found by a hostile tester: archive, trash and tag of one run at the same moment ended in a traceback."""
    wanted = locks.open_lock

    def moved(file):
        if run.exists():
            run.rename(run.with_name("moved"))
        return wanted(file)

    monkeypatch.setattr(locks, "open_lock", moved)
    call = (lambda: package.tag(run, add=["x"])) if verb == "tag" else lambda: getattr(package, verb)(run)
    with pytest.raises(CheckpointProblem, match="is no longer there: it was moved or deleted meanwhile"):
        call()
    assert sorted(path.name for path in run.with_name("moved").iterdir()) == [
        "config.yaml", "data.json", "metrics.csv", "summary.json"
    ]  # fmt: skip


def test_two_that_empty_the_trash_at_once_both_do(run, monkeypatch):
    package.trash(run)
    rmtree = shelves.shutil.rmtree

    def beside(path, **options):
        rmtree(path)
        if not options:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    monkeypatch.setattr(shelves.shutil, "rmtree", beside)
    shelves.empty(Path.cwd())
    assert not Path(".dltrain").exists()


def test_a_lock_is_released_by_its_own_file_only(run):
    mine = Lock(run)
    assert mine.is_held
    (run / "run.lock").unlink()
    assert not mine.is_held
    other = Lock(run)
    mine.release()
    assert other.is_held
    assert locks.is_held(run / "run.lock")
    other.release()
    assert not (run / "run.lock").exists()


def test_none_is_moved_where_one_cannot(run):
    other = make_run(OUTPUT / "n" / stamp(1))
    lock = Lock(other)
    refused(FolderInUse, "training", lambda: package.archive(run, other))
    lock.release()
    refused(CheckpointProblem, "no run", lambda: package.archive(run, "nowhere"))


def test_nothing_is_replaced(run):
    package.trash(run)
    make_run(run, 0.7)
    refused(CheckpointProblem, "is there already", lambda: package.restore(run.name))
    refused(CheckpointProblem, "is there already", lambda: package.trash(run))
    package.archive(run)
    refused(CheckpointProblem, "several names", lambda: package.restore(run.name))
    assert package.restore(Path(".dltrain/archive", run)) == [Path.cwd() / run]
    assert read_summary(run)["objective"] == 0.7


def test_links_are_not_followed(run, tmp_path_factory):
    far = tmp_path_factory.mktemp("far")
    link = OUTPUT / "n" / "link-abcd"
    link.symlink_to(run.absolute())
    refused(CheckpointProblem, "is a link", lambda: package.trash(link))
    Path(".dltrain").symlink_to(far)
    refused(CheckpointProblem, "not moved through links", lambda: package.trash(run))
    assert list(far.iterdir()) == []


def test_what_is_no_run_stays(run):
    Path("mine/data").mkdir(parents=True)
    Path("mine/data/file").write_text("x")
    for path in ("mine", "mine/data", "outputs", "."):
        refused(CheckpointProblem, "no run folder", lambda path=path: package.trash(path))
    refused(UserError, "Name a run", lambda: package.trash())


def test_another_disk_is_said(run, monkeypatch):
    def rename(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(ResourceProblem, match="another disk. It is where it was"):
        package.trash(run)
    assert sorted(p.name for p in run.iterdir()) == [
        "config.yaml",
        "data.json",
        "metrics.csv",
        "summary.json",
    ]


def test_names_of_several_parts_move_whole(workdir, monkeypatch):
    inside = make_run(OUTPUT / "a" / "b" / stamp(0), name="a/b")
    outside = make_run(Path("results/a/b") / stamp(1), name="a/b")
    package.archive(inside, outside)
    assert [str(where(stamp(n))[0]) for n in range(2)] == [
        f".dltrain/archive/outputs/a/b/{stamp(0)}", f".dltrain/archive/results/a/b/{stamp(1)}",
    ]  # fmt: skip
    package.restore("0000", Path(".dltrain/archive/results/a/b") / stamp(1))
    assert inside.is_dir()
    assert outside.is_dir()


@pytest.mark.parametrize("here, run, name, moved", [
    # what a record calls its name leads to a folder of the working folder, or to one called outputs
    ("home/me", "home/me/results/x/r1", "home/me/results/x", "home/me/.dltrain/archive/results/x/r1"),
    ("home/me", "home/me/results/x/r1", "me/results/x", "home/me/.dltrain/archive/results/x/r1"),
    ("home/me", "home/me/results/x/r1", "results/x", "home/me/.dltrain/archive/results/x/r1"),
    ("home/me", "home/me/results/x/r1", "x", "home/me/.dltrain/archive/results/x/r1"),
    ("home/me", "home/me/results/r1", "results", "home/me/.dltrain/archive/results/r1"),
    ("home/me", "home/me/deep/results/a/b/r1", "a/b", "home/me/deep/.dltrain/archive/results/a/b/r1"),
    ("home/me/outputs/a", "home/me/outputs/a/b/r1", "a/b", "home/me/.dltrain/archive/outputs/a/b/r1"),
    ("home/me/a/b", "home/me/a/b/r1", "me/a/b", "home/me/a/.dltrain/archive/b/r1"),
    ("home", "other/results/a/b/r1", "a/b", "other/.dltrain/archive/results/a/b/r1"),
])  # fmt: skip
def test_a_record_does_not_choose_a_place_above_the_working_folder(
    workdir, monkeypatch, here, run, name, moved
):
    folder = make_run(workdir / run, name=name)
    (workdir / here).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(workdir / here)
    assert package.archive(folder) == [workdir / moved]


@pytest.mark.parametrize("link, run, name, output", [
    # `outputs`, or the folder of the run, is a link to another disk
    ("outputs", "home/proj/results/x/r1", "proj/results/x", "home/proj/results"),
    ("outputs", "home/proj/results/x/r1", "home/proj/results/x", "home/proj/results"),
    ("outputs", "store/disk/results/x/r1", "disk/results/x", "store/disk/results"),
    ("outputs", "store/disk/outputs/x/r1", "disk/outputs/x", "store/disk/outputs"),
    ("results", "store/disk/results/x/r1", "disk/results/x", "store/disk/results"),
    ("results", "store/disk/results/x/r1", "store/disk/results/x", "store/disk/results"),
    ("results", "store/disk/results/a/b/r1", "a/b", "store/disk/results"),
])  # fmt: skip
def test_nor_above_what_a_link_leads_to(workdir, monkeypatch, link, run, name, output):
    """Found by a hostile tester: with `outputs` on another disk, a name decided where the runs beside it went."""
    here, disk = workdir / "home/proj", workdir / "store/disk"
    here.mkdir(parents=True)
    (disk / link).mkdir(parents=True)
    (here / link).symlink_to(disk / link)
    folder = make_run(workdir / run, name=name)
    monkeypatch.chdir(here)
    typed = here / link / folder.relative_to(disk / link) if folder.is_relative_to(disk / link) else folder
    below = folder.relative_to(workdir / output)
    shelf = workdir / Path(output).parent / ".dltrain/archive" / Path(output).name
    assert package.archive(typed) == [shelf / below]
    assert package.restore(shelf / below) == [folder]


def test_nothing_comes_back_through_a_link(run, tmp_path_factory):
    far = tmp_path_factory.mktemp("far")
    make_run(far / stamp(7))
    Path(".dltrain/archive/outputs").mkdir(parents=True)
    Path(".dltrain/archive/outputs/n").symlink_to(far)
    refused(CheckpointProblem, "neither in the archive", lambda: package.restore("0007"))


def test_the_default_output_is_that_of_the_knob():
    from dltrain.config.catalogue import Catalogue
    from dltrain.config.search_path import catalogue_dir

    assert str(OUTPUT) == Catalogue(catalogue_dir(), []).knobs["output"].value


# The trash --------------------------------------------------------------------------------------------------------


def test_only_the_trash_is_emptied_and_links_stay_whole(run, dltrain, capsys, tmp_path_factory):
    far = tmp_path_factory.mktemp("far")
    (far / "precious").write_text("x")
    (run / "link").symlink_to(far)
    kept, other = make_run(OUTPUT / "n" / stamp(1)), make_run(Path("results") / "n" / stamp(2))
    package.archive(kept)
    package.trash(run, other)
    capsys.readouterr()
    with pytest.raises(UserError, match="deletes 2 folders for good. To do it: dltrain trash --empty --yes"):
        dltrain("trash", "--empty")
    with pytest.raises(UserError, match="To do it: dltrain trash --empty results --yes"):
        dltrain("trash", "--empty", "results")
    with pytest.raises(UserError, match="`--yes` goes with --empty"):
        dltrain("trash", "--list", "--yes")
    assert dltrain("trash", "--list", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["trash"]) == 2
    assert dltrain("trash", "--empty", "--yes", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["deleted"]) == 2
    assert (far / "precious").read_text() == "x"
    assert where(run.name) == []
    assert where(kept.name) == [Path(".dltrain/archive") / kept]
    assert dltrain("trash", "--empty") == 0


def test_all_that_is_deleted_is_listed(run, dltrain, capsys):
    """What listings leave out, since it is hidden, deep or no run, is not deleted without a question."""
    deep = make_run(OUTPUT / "a/b/c/d/e" / stamp(1))
    odd = make_run(Path(".deleting-mine/.hidden") / stamp(2))
    package.trash(run, deep, odd)
    trash = Path(".dltrain/trash")
    (trash / "outputs/a/b/notes").mkdir()
    (trash / "outputs/a/b/notes/file").write_text("x")
    (trash / "outputs/link").symlink_to(Path.cwd())
    (trash / "outputs/half/RUN").mkdir(parents=True)
    capsys.readouterr()
    assert dltrain("trash", "--list", "--json") == 0
    items = {
        str(Path(item["path"]).relative_to(trash.absolute())): item["status"]
        for item in json.loads(capsys.readouterr().out)["trash"]
    }
    assert items == {
        str(run): "completed", str(deep): "completed", str(odd): "completed", "outputs/a/b/notes": "no run",
        "outputs/link": "no run", "outputs/half": "no run",
    }  # fmt: skip
    with pytest.raises(UserError, match="deletes 6 folders for good"):
        dltrain("trash", "--empty")
    assert package.restore(deep) == [deep.absolute()]
    assert dltrain("trash", "--empty", "--yes") == 0
    assert "5 folders deleted for good" in capsys.readouterr().out
    assert deep.is_dir()
    assert not Path(".dltrain").exists()


def test_a_run_that_was_resumed_in_the_trash_is_not_deleted(run, monkeypatch):
    other = make_run(Path("results") / "n" / stamp(1))
    (trashed, _) = package.trash(run, other)
    lock = Lock(trashed)
    refused(FolderInUse, "Nothing was deleted", lambda: shelves.empty(Path.cwd()))
    lock.release()
    # begun after the first look
    rename, held = os.rename, []

    def begins(source, target):
        held.extend([] if held else [Lock(trashed)])
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", begins)
        with pytest.raises(FolderInUse, match="Nothing was deleted"):
            shelves.empty(Path.cwd())
    assert read_summary(trashed)["status"] == "completed"
    held[0].release()
    shelves.empty(Path.cwd())
    assert not Path(".dltrain").exists()


def test_the_trash_of_a_folder_that_outputs_leads_to_is_emptied_by_its_name_only(
    run, dltrain, monkeypatch, tmp_path_factory
):
    """Found by a hostile tester: `outputs` of a stranger's project was a link to that of the user."""
    package.trash(run)
    theirs, mine = tmp_path_factory.mktemp("theirs"), Path.cwd()
    (theirs / "outputs").symlink_to(mine / "outputs")
    (mine / "outputs").mkdir(exist_ok=True)
    monkeypatch.chdir(theirs)
    with pytest.raises(
        UserError,
        match=f"outputs is a link to {mine}/outputs, .* Name it: dltrain trash --empty {mine}/outputs",
    ):
        dltrain("trash", "--empty", "--yes")
    (theirs / "exp").symlink_to(mine)
    with pytest.raises(UserError, match=f"exp/outputs lies behind a link to {mine}/outputs, "):
        dltrain("trash", "--empty", "exp/outputs", "--yes")
    assert (mine / ".dltrain/trash" / run).is_dir()
    assert dltrain("trash", "--empty", str(mine / "outputs"), "--yes") == 0
    assert not (mine / ".dltrain").exists()


def test_the_trash_of_another_folder_is_not_emptied_through_a_link(run, tmp_path_factory):
    victim = tmp_path_factory.mktemp("victim")
    for left in (".deleting-a", "trash/.deleting-a", "trash/outputs/n"):
        (victim / ".dltrain" / left).mkdir(parents=True)
    Path(".dltrain").symlink_to(victim / ".dltrain")
    before = sorted(victim.rglob("*"))
    shelves.empty(Path.cwd())
    assert sorted(victim.rglob("*")) == before


@pytest.mark.parametrize("name", [".hidden", "a/.b", "a/b/c/d", "a/b/c/d/e"])
def test_a_name_whose_runs_no_listing_shows_is_refused(workdir, name):
    with pytest.raises(UserError, match="no listing would show its runs"):
        check_place("outputs", name)
    check_place("outputs", "a/b/c")
    make_run(OUTPUT / "a/b/c" / stamp(0))
    make_run(OUTPUT / name / stamp(1))
    assert [path for path, *_ in scan(OUTPUT)] == [f"a/b/c/{stamp(0)}"]


@pytest.mark.parametrize("answer, gone", [("delete\n", True), ("yes\n", False), ("", False)])
def test_emptying_asks_for_a_word(run, dltrain, monkeypatch, capsys, answer, gone):
    package.trash(run)
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    if gone:
        assert dltrain("trash", "--empty") == 0
    else:
        with pytest.raises(UserError, match="nothing was deleted"):
            dltrain("trash", "--empty")
    assert "1 folder deleted for good? Type delete:" in capsys.readouterr().err
    assert bool(where(run.name)) is not gone


@pytest.mark.parametrize("answer", ["delete\n", None])
def test_what_comes_to_the_trash_meanwhile_is_not_deleted(run, dltrain, monkeypatch, capsys, answer):
    """Found by a hostile tester: what another process put into the trash while this one asked was deleted, too."""
    again, late = make_run(Path("results/n") / stamp(1)), make_run(Path("results/n") / stamp(2))
    beside = make_run(OUTPUT / "half/kept" / stamp(3))
    package.trash(run, again)
    Path(".dltrain/trash/outputs/half").mkdir()
    capsys.readouterr()

    def others(*rest):
        package.restore(again)
        package.trash(late, beside)
        return answer

    if answer:
        terminal = io.StringIO()
        terminal.isatty, terminal.readline = lambda: True, others
        monkeypatch.setattr("sys.stdin", terminal)
        assert dltrain("trash", "--empty") == 0
        said = capsys.readouterr()
        assert "3 folders deleted for good? Type delete:" in said.err
        assert said.out == "1 folder deleted for good\nLeft in the trash, since it came meanwhile: 2 items\n"
    else:
        emptied = trash_verb.empty
        monkeypatch.setattr(trash_verb, "empty", lambda *listed: (others(), emptied(*listed))[1])
        assert dltrain("trash", "--empty", "--yes", "--json") == 0
        assert json.loads(capsys.readouterr().out)["deleted"] == [str(Path(".dltrain/trash", run).absolute())]
    assert where(run.name) == []
    assert again.is_dir()
    for kept in (late, beside):
        assert where(kept.name) == [Path(".dltrain/trash") / kept]
        assert package.restore(kept) == [kept.absolute()]
    assert not [*Path.cwd().glob(".dltrain/.deleting*")]


def test_a_folder_that_runs_came_into_is_not_moved_to_be_deleted(run, monkeypatch):
    """A process that is killed in between would leave them where the next one deletes without a question."""
    package.trash(run)
    plain = Path(".dltrain/trash/outputs/half").absolute()
    plain.mkdir()
    late = make_run(OUTPUT / "half" / stamp(3))
    package.trash(late)
    moved, rename = [], os.rename
    monkeypatch.setattr(
        os, "rename", lambda source, target: (moved.append(Path(source)), rename(source, target))
    )
    shelves.empty(Path.cwd(), [plain, *Path.cwd().glob(f".dltrain/trash/{run}")])
    assert [path.name for path in moved] == [run.name]
    assert where(late.name) == [Path(".dltrain/trash") / late]


def test_the_trash_is_emptied_on_a_disk_without_room_for_a_folder(run, dltrain, monkeypatch):
    """Found by a hostile tester: nothing was freed, and what had been moved before was in no list."""
    others = [make_run(OUTPUT / "n" / stamp(number)) for number in (1, 2)]
    package.trash(run, *others)
    (Path(".dltrain/trash/outputs") / ("x" * 250)).mkdir()
    Path(".dltrain/.deleting-rest/0/run").mkdir(parents=True)

    def full(path, *rest):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(os, "mkdir", full)
    assert dltrain("trash", "--empty", "--yes") == 0
    monkeypatch.undo()
    assert not Path(".dltrain").exists()


def test_what_a_dying_process_left_in_the_trash_is_deleted_with_the_next(run, monkeypatch):
    package.trash(run)
    with monkeypatch.context() as patch:
        patch.setattr(shelves.shutil, "rmtree", lambda path: None)
        shelves.empty(Path.cwd())
    assert trash_verb.contents(Path.cwd()) == []
    with pytest.raises(CheckpointProblem):
        package.restore(run.name)
    shelves.empty(Path.cwd())
    assert not Path(".dltrain").exists()


# Tags -------------------------------------------------------------------------------------------------------------


def test_tags_reach_every_reader(run, dltrain, capsys):
    make_run(OUTPUT / "n" / stamp(1))
    assert dltrain("tag", "0000", "+paper", "+b", "-nothing") == 0
    said = capsys.readouterr()
    assert said.out == f"{run}: paper b\n"
    assert f"{run} has no tag nothing\n" in said.err
    assert read_summary(run)["tags"] == ["paper", "b"]
    assert list(package.runs(OUTPUT, "tag=paper")["path"]) == [str(run)]
    dltrain("tag", "0000", "-paper")
    assert read_summary(run)["tags"] == ["b"]


def test_tags_of_a_training_run_survive_its_summaries(run):
    package.tag(run, add=["x"])
    summary = json.loads((run / "summary.json").read_text()) | {"status": "completed", "tags": ["own"]}
    (run / "summary.json").write_text(json.dumps(summary))
    assert read_summary(run)["tags"] == ["own", "x"]


def test_a_sweep_has_tags(workdir):
    sweep = make_sweep(OUTPUT / "s" / stamp(0), [{}])
    assert package.tag(sweep, add=["x"]) == {sweep: ["x"]}
    (row,) = package.runs(OUTPUT, "tag=x").rows()
    assert (row["kind"], row["objective"]) == ("sweep", 0.5)


@pytest.mark.parametrize("words, says", [
    (["+a b"], "is no tag"), (["+"], "is no tag"), (["+\x1b[31m"], "is no tag"), (["+a", "-a"], "added and removed"),
    (["+" + "a" * 65], "is no tag"), (["--ad"], "no option of tag"),
])  # fmt: skip
def test_wrong_tags_are_refused(run, dltrain, words, says):
    refused(UserError, says, lambda: dltrain("tag", str(run), *words))


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"a": ' * 5000])
def test_damaged_tags_change_nothing_and_are_not_replaced(run, text):
    (run / "tags.json").write_text(text)
    assert read_summary(run)["tags"] == []
    refused(CheckpointProblem, "tags.json", lambda: package.tag(run, add=["x"]))
    assert (run / "tags.json").read_text() == text
