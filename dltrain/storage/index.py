"""The runs below a folder, by what their summaries say. The folders are the truth, `.runs.sqlite` beside them is a cache.

A listing looks at the modification time and the size of every summary.json, and reads the files that changed. The cache may
be deleted at any time; a damaged one, or one of another version, is made again. Needs neither torch nor Hydra.

The file is long because scan, cache and freshness are one rule about which file is believed.
"""

from __future__ import annotations

import gc
import json
import math
import os
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from dltrain.direction import PROGRESS
from dltrain.storage import progress
from dltrain.storage.folder_names import MAX_DEPTH, MAX_NESTED, SWEEP_RECORD
from dltrain.storage.job_names import job_number
from dltrain.storage.lock import is_held
from dltrain.storage.summary import MAX_BYTES, MAX_TABLE_BYTES, TAGS, merged_tags, read_json, texts

CACHE = ".runs.sqlite"
# changes with the content of the cache
FORMAT = 2
SUMMARY, CONFIG = "summary.json", "config.yaml"
# fields of summary.json that a listing knows, beside the scores
FIELDS = ("status", "stop_reason", "metric", "mode", "objective", "best_epoch", "epochs", "steps", "seconds", "seed",
          "images_per_second", "peak_memory_bytes", "parameters", "device", "threads", "notes", "written",
          "begun", "finished", "best", "command")  # fmt: skip
_NUMBERS = (
    "objective",
    "best_epoch",
    "epochs",
    "steps",
    "seconds",
    "parameters",
    "images_per_second",
    "peak_memory_bytes",
)
# facts that are lists of texts, and those that are one text or number; all others are numbers
_LISTS = frozenset(("overrides", "tags", "axes"))
_SCALARS = frozenset((*FIELDS, "commit", "dirty", "torch", "dltrain", "finished")) - frozenset(_NUMBERS)
_WORDS = _LISTS | {"status"}
# `status` of a run that says `running` while no process holds it, and of one whose summary cannot be read
KILLED, DAMAGED = "killed", "damaged"

# characters of a text that are kept
LONGEST = 500

Stamp = tuple[int, ...]
ReadConfig = Callable[[Path], Mapping[str, Any]]


@dataclass
class Entry:
    """A run, a job of a sweep, or a sweep.

    Args:
        path: path from the listed folder, with `/`
        sweep: path of the sweep that a job belongs to
        is_sweep: whether it is a sweep
        facts: what the summary says, by name; scores as `val/loss` and `test/loss`
        base: configuration of another run with the same keys; None where it was not read
        changes: values in which the configuration differs from `base`
        sweep_tags: tags of the sweep that a job belongs to
    """

    path: str
    sweep: str = ""
    is_sweep: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    stamp: Stamp = ()
    sweep_tags: Sequence[str] = ()

    @property
    def tags(self) -> list[str]:
        """Return its tags, and those of its sweep."""
        return list(dict.fromkeys([*map(str, self.facts.get("tags") or []), *self.sweep_tags]))

    @property
    def config(self) -> dict[str, Any]:
        """Return the configuration by dotted key."""
        return {**(self.base or {}), **self.changes}

    def value(self, key: str) -> Any:
        """Return a fact or a value of the configuration; None where there is none."""
        for values in (self.facts, self.changes, self.base or {}):
            if key in values:
                return values[key]
        return None

    def value_of_config(self, key: str) -> Any:
        """Return a value of the configuration; None where there is none."""
        return self.changes[key] if key in self.changes else (self.base or {}).get(key)

    def keys(self) -> Iterator[str]:
        yield from self.facts
        yield from self.base or ()

    @property
    def folder_name(self) -> str:
        return self.path.rpartition("/")[2]


def scan(root: Path, whole: bool = False) -> Iterator[tuple[str, str, bool, Stamp]]:
    """Yield path, sweep, whether it is a sweep, and stamp of each run and sweep below a folder.

    whole: all of a shelf, which holds what it was given: also hidden folders and deep ones, and no links, which lead elsewhere
    """
    seen: set[tuple[int, int]] = set()
    deepest = MAX_NESTED if whole else MAX_DEPTH

    def walk(folder: str, path: str, sweep: str, depth: int) -> Iterator[tuple[str, str, bool, Stamp]]:
        for entry in _folders(folder, seen, whole):
            # what is hidden in a sweep is no job
            if sweep and entry.name.startswith("."):
                continue
            inner = f"{path}/{entry.name}" if path else entry.name
            stamp = _stamp(entry.path, SUMMARY)
            if stamp is None and (record := _stamp(entry.path, SWEEP_RECORD)) is not None and not sweep:
                yield inner, "", True, record
                yield from walk(entry.path, inner, inner, 1)
            elif stamp is not None or os.path.isfile(f"{entry.path}/{CONFIG}"):
                yield inner, sweep, False, stamp or (0, 0)
            elif depth < deepest and not sweep:
                yield from walk(entry.path, inner, sweep, depth + 1)

    here = str(root)
    if (record := _stamp(here, SWEEP_RECORD)) is not None:
        yield "", "", True, record
        yield from walk(here, "", ".", 1)
    else:
        yield from walk(here, "", "", 1)


def _folders(folder: str, seen: set[tuple[int, int]], whole: bool) -> list[os.DirEntry[str]]:
    """Return the visible folders in a folder, where a link is followed once; or the whole of those that are no links."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=not whole) or (entry.name.startswith(".") and not whole):
                continue
            if entry.is_symlink():
                status = entry.stat()
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
            found.append(entry)
    return found


def _stamp(folder: str, name: str) -> Stamp | None:
    """Return the times and sizes of a record and of the tags beside it; None if there is no record."""
    try:
        record = os.stat(f"{folder}/{name}")
    except OSError:
        return None
    # most runs have no such file, and an error for each would cost more than all else here
    if not os.access(tags_file := f"{folder}/{TAGS}", os.F_OK):
        return record.st_mtime_ns, record.st_size
    try:
        tags = os.stat(tags_file)
    except OSError:
        return record.st_mtime_ns, record.st_size
    return record.st_mtime_ns, record.st_size, tags.st_mtime_ns, tags.st_size


@contextmanager
def no_garbage() -> Iterator[None]:
    """Disable garbage collection, which takes half of the time among thousands of objects that stay."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class Index:
    """The entries below a folder, with the cache that keeps them.

    `problem` says in one line why the cache could not be used; the entries are complete all the same. `whole`: as in `scan`.
    """

    def __init__(self, root: Path, cached: bool = True, whole: bool = False) -> None:
        self.root, self.problem, self.whole = root, "", whole
        with no_garbage():
            self._read(cached)

    def _read(self, cached: bool) -> None:
        root = self.root
        self._cache = Cache(root / CACHE) if cached else None
        known = self._cache.read() if self._cache else {}
        self.entries: list[Entry] = []
        changed = []
        for path, sweep, is_sweep, stamp in scan(root, self.whole):
            entry = known.pop(path, None)
            if entry is None or _is_old(entry, root, stamp) or entry.is_sweep != is_sweep:
                entry = read_entry(root, path, is_sweep, stamp)
                if _is_unscored(entry):
                    add_progress(entry, root / path, bool(sweep))
                changed.append(entry)
            entry.sweep = sweep
            self.entries.append(entry)
        self._store(changed, known)
        tagged = {entry.path or ".": entry.tags for entry in self.entries if entry.is_sweep}
        for entry in self.entries:
            if entry.facts.get("status") == "running" and not is_held(root / entry.path / "run.lock"):
                entry.facts["status"] = KILLED
            if entry.sweep:
                entry.sweep_tags = tagged.get(entry.sweep, ())

    def fill(self, entries: Iterable[Entry], read: ReadConfig) -> None:
        """Read the configurations of runs whose summaries have none, and keep them."""
        missing = [entry for entry in entries if entry.base is None and not entry.is_sweep]
        for entry in missing:
            entry.base, entry.changes = read(self.root / entry.path), {}
        self._store(missing, {})

    def _store(self, changed: list[Entry], gone: Mapping[str, Entry]) -> None:
        if self._cache and (changed or gone):
            self._cache.write(changed, gone)
        if self._cache:
            self.problem = self._cache.problem


def _is_old(entry: Entry, root: Path, stamp: Stamp) -> bool:
    """Return whether a run has changed since its entry was read."""
    if _is_unscored(entry):
        stamp = (*stamp, *progress.stamp_of(root / entry.path))
    return entry.stamp != stamp


def _is_unscored(entry: Entry) -> bool:
    return entry.facts.get("status") in progress.UNSCORED and not entry.is_sweep


def add_progress(entry: Entry, folder: Path, is_job: bool) -> None:
    """Add the best evaluation so far of a run whose summary has no scores, and the stamp of its metrics.csv.

    A job gets its progress only, without scores: jobs are ranked by final scores.
    """
    entry.stamp = (*entry.stamp, *progress.stamp_of(folder))
    found = progress.record_of(folder, entry.facts.get("metric"), entry.facts.get("mode"))
    if is_job:
        found = {key: value for key, value in found.items() if key in progress.EXTENT}
    if found:
        entry.facts = facts_of(found) | entry.facts


def read_entry(root: Path, path: str, is_sweep: bool, stamp: Stamp) -> Entry:
    """Read a summary; one that cannot be read gives the status `damaged`."""
    folder = root / path
    entry = Entry(path, is_sweep=is_sweep, stamp=stamp)
    try:
        record = read_json(folder / (SWEEP_RECORD if is_sweep else SUMMARY))
    except FileNotFoundError:
        record = {"status": "running"}
    except (OSError, ValueError) as error:
        record = {"status": DAMAGED, "stop_reason": f"its record cannot be read: {str(error)[:100]}"}
    if not is_sweep and not isinstance(record.get("status"), str):
        record = {"status": DAMAGED, "stop_reason": "its summary.json is no summary of a run"}
    entry.facts = facts_of(record)
    if is_sweep:
        entry.facts |= sweep_facts(record)
    elif isinstance(config := record.get("config"), dict):
        entry.base = config
    # a stamp of two numbers: the folder has no tags.json
    tags = record.get("tags") if len(stamp) == 2 else merged_tags(folder, record.get("tags"))
    entry.facts["tags"] = texts(tags)
    return entry


def facts_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known fields of a summary and its scores: those of the best evaluation, and `test/…`."""
    facts: dict[str, Any] = {
        key: value[:LONGEST] if isinstance(value, str) else value
        for key in FIELDS
        if isinstance(value := record.get(key), str | int | float)
    }
    for key in _NUMBERS:
        if key in facts and number_of(facts[key]) is None:
            del facts[key]
    for prefix, scores in (("", record.get("best")), ("test/", record.get("test"))):
        for name, value in scores.items() if isinstance(scores, dict) else ():
            if name not in PROGRESS and number_of(value) is not None:
                facts[f"{prefix}{name}"] = value
    for name, part in (("git", "commit"), ("git", "dirty"), ("versions", "torch"), ("versions", "dltrain")):
        node = record.get(name)
        if isinstance(node, dict) and isinstance(node.get(part), str | bool):
            facts[part] = node[part]
    overrides = record.get("overrides")
    facts["overrides"] = [o for o in overrides if isinstance(o, str)] if isinstance(overrides, list) else []
    return facts


def sweep_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names of a sweep's axes, and whether all of its jobs are done."""
    identity = record.get("identity")
    axes = identity.get("axes") if isinstance(identity, dict) else None
    names = [axis.get("name") for axis in axes if isinstance(axis, dict)] if isinstance(axes, list) else []
    return {
        "axes": [name for name in names if isinstance(name, str)],
        "finished": record.get("finished") is True,
    }


def number_of(value: Any) -> float | None:
    """Return a number of JSON as a float; None for anything else, also for one that is too large."""
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def finite(value: Any) -> float | None:
    """Return a finite number of JSON; None for anything else."""
    number = number_of(value)
    return number if number is not None and math.isfinite(number) else None


# The cache --------------------------------------------------------------------------------------------------------

_TABLES = (
    "CREATE TABLE runs (path BLOB PRIMARY KEY, base INT, content TEXT)",
    "CREATE TABLE bases (id INTEGER PRIMARY KEY, content TEXT)",
)
# facts and configuration of the first run with these keys, of which the others hold what differs; None: not read
Base = tuple[dict[str, Any], dict[str, Any] | None]


class Cache:
    """The file `.runs.sqlite`. Only its JSON texts are used, and a file with other tables is replaced."""

    def __init__(self, file: Path) -> None:
        self.file, self.problem = file, ""
        self._bases: dict[int, Base] = {}
        self._by_keys: dict[tuple[str, ...], int] = {}

    def read(self) -> dict[str, Entry]:
        """Return the known entries by path; none where the file is missing, damaged or of another version."""
        if not self._is_file():
            return {}
        try:
            with closing(self._open()) as base:
                if not self._is_ours(base):
                    raise ValueError("of another version")
                return self._entries(base)
        except (sqlite3.Error, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            with suppress(OSError):
                self.file.unlink()
            self._bases, self._by_keys = {}, {}
            return {}

    def _is_file(self) -> bool:
        """Return whether it is a regular file of at most `MAX_TABLE_BYTES`; it may be a stranger's."""
        try:
            status = self.file.lstat()
            return stat.S_ISREG(status.st_mode) and status.st_size <= MAX_TABLE_BYTES
        except OSError:
            return False

    def _open(self) -> sqlite3.Connection:
        # SQLite would take back what a journal says, and delete the file that it names; in memory we leave none
        for ending in ("-journal", "-wal", "-shm"):
            with suppress(OSError):
                os.unlink(f"{self.file}{ending}")
        connection = sqlite3.connect(self.file, timeout=2.0, isolation_level=None)
        # a row holds no more than the summary that it was made from
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BYTES)
        # a damaged cache is made again: nothing in it is worth waiting for the disk
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA journal_mode=MEMORY")
        connection.execute("PRAGMA trusted_schema=OFF")
        return connection

    def _is_ours(self, base: sqlite3.Connection) -> bool:
        """Return whether the file holds our tables and nothing else, such as a view that never ends."""
        tables = base.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        (version,) = base.execute("PRAGMA user_version").fetchone()
        return version == FORMAT and {text for (text,) in tables} == set(_TABLES)

    def _entries(self, base: sqlite3.Connection) -> dict[str, Entry]:
        for number, content in base.execute("SELECT id, content FROM bases"):
            if number != _digest(content):
                raise ValueError("changed by somebody")
            facts, config = json.loads(content)
            _check_facts(_object(facts))
            self._know(number, (_object(facts), config if config is None else _object(config)))
        rows = base.execute("SELECT path, base, content FROM runs").fetchall()
        # one text is read three times as fast as many
        contents = json.loads(f"[{','.join(row[2] for row in rows)}]")
        found = {}
        # as os.fsdecode, which looks at the type of each
        encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
        for (path, number, _), (is_sweep, stamp, changed, changes) in zip(rows, contents, strict=True):
            facts, config = self._bases[number]
            _check_facts(changed)
            name = path.decode(encoding, errors)
            found[name] = Entry(name, "", is_sweep, facts | changed, config, _object(changes), tuple(stamp))
        return found

    def _know(self, number: int, base: Base) -> None:
        self._bases[number] = base
        self._by_keys[_keys(*base)] = number

    def write(self, changed: Iterable[Entry], gone: Iterable[str]) -> None:
        """Store entries; where that fails, `problem` says why."""
        if os.path.lexists(self.file) and not self._is_file():
            self.problem = f"{self.file} is not a regular file of at most {MAX_TABLE_BYTES // 10**6} MB: listings read every summary"
            return
        try:
            with closing(self._open()) as base:
                base.execute("BEGIN IMMEDIATE")
                if not self._is_ours(base):
                    for table in _TABLES:
                        base.execute(table)
                    base.execute(f"PRAGMA user_version={FORMAT}")
                rows = [self._row(base, entry) for entry in changed]
                base.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", rows)
                base.executemany("DELETE FROM runs WHERE path = ?", [(os.fsencode(path),) for path in gone])
                base.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self.problem = f"{self.file} cannot be written ({error}): listings read every summary"

    def _row(self, base: sqlite3.Connection, entry: Entry) -> tuple[Any, ...]:
        config = None if entry.base is None else entry.config
        number = self._by_keys.get(_keys(entry.facts, config))
        if number is None:
            text = json.dumps([entry.facts, config])
            number = _digest(text)
            base.execute("INSERT OR IGNORE INTO bases VALUES (?, ?)", (number, text))
            self._know(number, (dict(entry.facts), config))
        facts, entry.base = self._bases[number]
        entry.changes = _changes(config or {}, entry.base or {})
        content = [entry.is_sweep, entry.stamp, _changes(entry.facts, facts), entry.changes]
        return os.fsencode(entry.path), number, json.dumps(content)


def _digest(text: str) -> int:
    """Return the id of a base, which is the same for every process that writes it."""
    return int.from_bytes(sha256(text.encode()).digest()[:7])


def _keys(facts: Mapping[str, Any], config: Mapping[str, Any] | None) -> tuple[str, ...]:
    return (*facts, "" if config is None else "config", *(config or ()))


def _changes(values: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if base[key] != value}


def _check_facts(facts: Mapping[str, Any]) -> None:
    """Raise ValueError for facts of other types than `read_entry` makes: the cache may be a stranger's."""
    for key, value in facts.items():
        # nearly all of them
        if type(value) is float and key not in _WORDS:
            continue
        if key in _LISTS:
            good = isinstance(value, list) and all(isinstance(item, str) for item in value)
        elif key == "status":
            good = isinstance(value, str)
        elif key in _SCALARS:
            good = isinstance(value, str | int | float)
        else:
            good = number_of(value) is not None
        if not good:
            raise ValueError(f"`{key[:80]}` is of another type")


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


# Finding ----------------------------------------------------------------------------------------------------------


def matches_of(entries: Iterable[Entry], text: str) -> list[Entry]:
    """Return the runs that a text names: the end of their path from a `/` or a `-` on, such as `97d0` or `97d0/3`."""
    wanted = text.strip("/")
    return [entry for entry in entries if wanted and is_named(entry.path, wanted)]


def is_named(path: str, text: str) -> bool:
    """Return whether a text is a path, or its end from a `/` or a `-` on; of a job, its number stands for its name."""
    if path == text or path.endswith(f"/{text}"):
        return True
    whole, slash, name = path.rpartition("/")
    number = job_number(name)
    short = path if number is None else f"{whole}{slash}{number}"
    return short == text or short.endswith((f"/{text}", f"-{text}"))
