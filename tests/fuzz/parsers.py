"""Every parser of ours, with its seeds and the exceptions that it may raise: those with a message for the user."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import seeds

from dltrain import strict_json
from dltrain.commands import columns
from dltrain.commands import compare as compare_verb
from dltrain.commands import diff as diff_verb
from dltrain.commands import runs as runs_verb
from dltrain.commands import show as show_verb
from dltrain.config import compose as composing
from dltrain.config import saved, yaml_files
from dltrain.config.compose import compose, open_catalogue, open_hydra, parse
from dltrain.config.door import rights_of_user
from dltrain.config.validation import validate
from dltrain.config.values import check_value
from dltrain.data import cache, cifar, image_files, image_labels, mnist, pixels
from dltrain.data import npz as arrays_module
from dltrain.data.contract import Contract, check_columns
from dltrain.data.contract import _check as check_contract
from dltrain.data.errors import DataError
from dltrain.data.prepare import prepare
from dltrain.data.table import csv
from dltrain.data.tables import read as reading
from dltrain.data.tables import rules
from dltrain.data.tables import text as cells
from dltrain.errors import UserError
from dltrain.report import findings, page
from dltrain.report import record as report_record
from dltrain.run import verification
from dltrain.run.output import typed_labels
from dltrain.run.prediction import Predictions
from dltrain.screen.table import lines
from dltrain.storage import checkpoint, event_log, index, manifest, query, run_folder, summary
from dltrain.sweep import books, journal
from dltrain.sweep import record as sweep_record
from dltrain.sweep import verification as sweep_verification
from dltrain.sweep.begun import begun_jobs
from dltrain.sweep.outcome import comparison
from dltrain.sweep.outcome import report as sweep_report
from dltrain.sweep.outcome.files import write_csv
from dltrain.sweep.outcome.members import members_of
from dltrain.sweep.outcome.ranking import rank
from dltrain.sweep.plan.reading import read_plan
from dltrain.sweep.sweep import Source

MISTAKES = (UserError, DataError)


@dataclass(frozen=True)
class Parser:
    """A parser.

    Args:
        seeds: inputs that are changed
        call: reads an input, given an empty folder
        code: functions, classes and modules of which `--coverage` counts the lines
        weight: share of a long run
        mistakes: what it may raise
    """

    seeds: list[bytes]
    call: Callable[[bytes, Path], Any]
    code: tuple[Any, ...] = ()
    weight: float = 1.0
    mistakes: tuple[type[Exception], ...] = MISTAKES


@functools.cache
def catalogue() -> Any:
    return open_catalogue()


@functools.cache
def hydra() -> Any:
    return open_hydra(catalogue())


def written(name: str, read: Callable[[Path], Any]) -> Callable[[bytes, Path], Any]:
    """A call that reads the input from a file."""

    def call(content: bytes, folder: Path) -> Any:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return read(file)

    return call


def texts(content: bytes) -> list[str]:
    return [text for text in content.decode("utf-8", "surrogateescape").split("\n") if "\0" not in text][:4]


def grammar(content: bytes, folder: Path) -> None:
    parse(texts(content), hydra().config_loader)


def overrides(content: bytes, folder: Path) -> None:
    validate(compose(texts(content), catalogue(), hydra()))


def change(content: bytes, folder: Path) -> None:
    for text in texts(content):
        saved.set_value({"lr": 0.1, "model": {"hidden": [1]}, "log": 3}, text, catalogue().knobs)


def configuration(file: Path) -> None:
    saved.read(file.parent, catalogue(), [])


def contract(content: bytes, folder: Path) -> None:
    found = Contract.from_json(content.decode("utf-8", "replace"))
    found.check({"columns": found.code()})
    found.check(None)
    if found.columns:
        (folder / "t.csv").write_text(seeds.TABLE)
        found.encode(folder / "t.csv", targets=bool(found.targets))
    # what it says of the outputs of a model
    count = min(found.outputs, 100)
    if count == found.outputs > 0:
        said = Predictions(np.zeros((1, count), np.float32), found, np.array([1]))
        typed_labels(dict(said.table), said)


def table(file: Path) -> None:
    """Read a table; its last byte says by which separator, which is detected mostly."""
    ways = {ord(";"): "semicolon", ord("x"): "none of them", ord(" "): "space"}
    prepare(csv(str(file), "y", delimiter=ways.get((file.read_bytes() or b"0")[-1], "auto")))


def arrays(content: bytes, folder: Path) -> None:
    """The first byte says how the arrays are read."""
    (folder / "a.npz").write_bytes(content[1:])
    ways: tuple[dict[str, Any], ...] = (
        {},
        {"split": "split"},
        {"groups": "groups"},
        {"task": "regression"},
        {"channels": "last"},
    )
    way = ways[content[0] % len(ways)] if content else {}
    prepare(arrays_module.npz(str(folder / "a.npz"), **way))


def record(file: Path) -> None:
    sweep_record.read_record(file.parent)
    plan: Any = type(
        "Plan", (), {"first": whole_config(), "objectives": [], "metric": "val/loss", "modes": ["min"]}
    )
    sweep_record.is_unfinished(file, sweep_record.read_record(file.parent)["identity"], plan)


def run_summary(content: bytes, folder: Path) -> None:
    """The summary of a run; without content, of a folder that has none."""
    if content:
        (folder / "summary.json").write_bytes(content)
        (folder / "tags.json").write_bytes(b"{}")
    if len(content) < 2:
        (folder / "config.yaml").write_bytes(content)
    if content[:1] == b" ":
        (folder / "summary.json").unlink()
    summary.read_summary(folder)


def tags(content: bytes, folder: Path) -> None:
    (folder / "summary.json").write_bytes(seeds.SUMMARY)
    (folder / "tags.json").write_bytes(content)
    summary.read_summary(folder)


def state(file: Path) -> None:
    checkpoint.Checkpoint(file.parent, {}).state()


def image(content: bytes, folder: Path) -> None:
    """The first byte says what is wanted."""
    path, first = str(folder / "a"), content[0] if content else 0
    Path(path).write_bytes(content[1:])
    form = pixels.Form(8, 6, ("rgb", "grey")[first % 2], ("", *pixels.RESIZES)[first // 2 % 4])
    pixels.upright_size(path)
    pixels.inspect_pixels(path, form)
    pixels.read_pixels(path, form)


FILES = ["a/0.png", "a/1.png", "b/0.png", "b/2.png", "c.png"]


def labels(content: bytes, folder: Path) -> None:
    """The first byte says what the user named."""
    (folder / "labels.csv").write_bytes(content[1:])
    ways: tuple[dict[str, str], ...] = (
        {},
        {"target": "label"},
        {"file_column": "file"},
        {"split_column": "split"},
    )
    columns = {"file_column": None, "target": None, "split_column": None, "group_column": None} | (
        ways[content[0] % 4] if content else {}
    )
    task = "regression" if content[:1] == b"\x07" else "auto"
    found = image_labels.read_labels(folder / "labels.csv", folder, FILES, columns, task)
    assert found.rules is not None


def cifar_files(content: bytes, folder: Path) -> None:
    """A packed archive, or where the first byte is 1 the batch of an unpacked one."""
    small = replace(
        cifar._CIFAR10, train=(("a.bin", 2),), test=(("b.bin", 1),), names=(("names.txt", 2),), folder="c"
    )
    source = folder / "c.tar.gz"
    if content[:1] == b"\1":
        source = folder / "c"
        source.mkdir()
        for name, whole in (("a.bin", content[1:]), ("b.bin", bytes(3073)), ("names.txt", b"x y")):
            (source / name).write_bytes(whole)
    else:
        source.write_bytes(content[1:])
    found = cifar._decode(small, source)
    cifar._class_names(found["names"], small, 0)


def sample_cache(content: bytes, folder: Path) -> None:
    """A cache of tensors, or where the first byte is 1 one of images: both are made again where they are damaged."""
    path = folder / "c"
    if content:
        path.write_bytes(content[1:])
    if content[:1] == b"\1":
        image_files._mapped(path, image_reader(), seeds.KEY)
        image_files._looked_at(path)
    else:
        cache._read(path, seeds.KEY)


@functools.cache
def image_reader() -> image_files.ImageFiles:
    return image_files.ImageFiles("x", ["a", "b"], pixels.Form(2, 2, "grey"))


def index_cache(content: bytes, folder: Path) -> None:
    """The cache of listings: made again where it is damaged."""
    if content:
        (folder / index.CACHE).write_bytes(content)
    run_of(folder / "n" / "2026-01-31_12-00-00-aaaa")
    assert index.Index(folder).entries[0].facts["status"] == "completed"


def condition(content: bytes, folder: Path) -> None:
    filters = [query.read_filter(text) for text in texts(content)]
    query.check(filters, [], known_entries())
    for one in filters:
        for entry in known_entries():
            one.holds(entry)
    query.hint(filters, known_entries())


@functools.cache
def known_entries() -> tuple[index.Entry, ...]:
    return tuple(
        index.Entry(
            path,
            "s" if nested else "",
            False,
            {"status": "completed", "val/loss": loss, "tags": ["a"]},
            {"lr": 0.1, "model": "mlp"},
        )
        for path, nested, loss in (("n/2026-01-31_12-00-00-aaaa", False, 0.5), ("s/0", True, float("nan")))
    )


RUN_FILES = (
    "summary.json",
    "config.yaml",
    "metrics.csv",
    "tags.json",
    "data.json",
    "per_class.csv",
    "confusion_matrix.csv",
)


def run_of(folder: Path, name: str = "", content: bytes = b"") -> Path:
    """Write a run folder, one of its files with another content."""
    folder.mkdir(parents=True)
    usual = (
        seeds.SUMMARY,
        seeds.CONFIG,
        seeds.ROWS,
        b"{}",
        seeds.CONTRACTS[0],
        seeds.PER_CLASS,
        seeds.MATRIX,
    )
    for file, whole in zip(RUN_FILES, usual, strict=True):
        (folder / file).write_bytes(content if file == name else whole)
    return folder


def looked_at(content: bytes, folder: Path) -> None:
    """One file of a run that `runs`, `show`, `diff` and `compare` look at: the first byte says which."""
    name = RUN_FILES[content[0] % len(RUN_FILES)] if content else ""
    strange = run_of(folder / "n" / "2026-01-31_12-00-00-aaaa", name, content[1:])
    other = run_of(folder / "n" / "2026-01-31_12-00-01-bbbb")
    found = runs_verb.listed(folder)
    list(lines(columns.columns_of(found.rows)))
    found.document()
    list(show_verb.page(show_verb.show(strange)))
    diff_verb.diff(strange, other)
    members = [member for path in (strange, other) for member in members_of(path)]
    list(compare_verb.page(comparison.compare(members, None)))


def reported(content: bytes, folder: Path) -> None:
    """One file of a run of which a report is written: the first byte says which."""
    name = RUN_FILES[content[0] % len(RUN_FILES)] if content else ""
    found = report_record.read(run_of(folder / "r", name, content[1:]))
    findings.findings(found)
    text = page.render(found, None, "x", None)
    assert "\x1b" not in text


def whole_run(content: bytes, folder: Path) -> None:
    """One file of a run that is verified: the first byte says which."""
    names = ("manifest.json", "summary.json", "metrics.csv", "confusion_matrix.csv", "per_class.csv", "data.json", "checkpoints/best.safetensors",
             "checkpoints/step-00000002/manifest.json", "checkpoints/step-00000002/state.pt", "checkpoints/normalization.safetensors")  # fmt: skip
    usual = {"summary.json": seeds.SUMMARY, "metrics.csv": seeds.ROWS, "confusion_matrix.csv": seeds.MATRIX, "per_class.csv": seeds.PER_CLASS,
             "config.yaml": seeds.CONFIG, "data.json": seeds.CONTRACTS[0], **seeds.checkpoint_files()}  # fmt: skip
    (folder / "checkpoints" / "step-00000002").mkdir(parents=True)
    for name, whole in usual.items():
        (folder / name).write_bytes(whole)
    changed = names[content[0] % len(names) if content else 0]
    (folder / changed).write_bytes(content[1:])
    if changed.endswith("state.pt"):
        seeds.rewrite_hash(folder / changed)
    verification.verify(
        folder,
        whole_config() if content[:1] > b"\x80" else UserError("not read"),
        UserError("not read"),
        data=False,
    )


@functools.cache
def whole_config() -> Any:
    return validate(compose([], catalogue(), hydra()))


def whole_sweep(content: bytes, folder: Path) -> None:
    names = ("sweep.json", "results.csv", "manifest.json", "0/summary.json")
    (folder / "0").mkdir(exist_ok=True)
    (folder / "0" / "config.yaml").write_bytes(seeds.CONFIG)
    (folder / "0" / "summary.json").write_bytes(seeds.SUMMARY)
    (folder / "sweep.json").write_bytes(seeds.SWEEP)
    place = content[0] % len(names) if content else 0
    (folder / names[place]).write_bytes(content[1:])
    sweep_verification.verify_sweep(folder, Source(catalogue(), hydra()))


@functools.cache
def grid() -> Any:
    return read_plan(
        [*seeds.GRID, "model=linear"], "config", catalogue(), hydra(), rights_of_user(catalogue())
    )


def sweep_books(content: bytes, folder: Path) -> None:
    """The books of a sweep of three jobs: read beside the folders, of which a report is written, then opened by a driver."""
    seeds.jobs_of_a_grid(folder)
    (folder / books.NAME).write_bytes(content)
    jobs = [job for job, _ in begun_jobs(grid(), folder)]
    assert [job.number for job in jobs] == [0, 1, 2]
    rows = rank(grid(), jobs)
    write_csv(grid(), jobs, folder / "results.csv")
    assert all(job.test_scores or job.summary for job in jobs)
    sweep_report.write_report(grid(), rows, jobs, [], folder)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        driver = books.Books(folder)
    for job in jobs:
        driver.note(job, "d")
    driver.close()


def events(content: bytes, folder: Path) -> None:
    """The events of a run: those that stay when it continues after step 2 are read again, and no others."""
    (folder / event_log.EVENTS).write_bytes(content)
    noted: list[str] = []
    log = event_log.EventLog(folder, noted.append)
    log.rewind(2)
    log.add("evaluated", 4, {"values": {"val/loss": float("nan")}})
    log.write()
    try:
        found = list(event_log.read_events(folder))
    except ValueError:
        assert noted
        return
    assert found[-1]["event"] == "evaluated" and found[-1]["step"] == 4
    assert all(event["event"] in event_log.SESSION or event["step"] <= 2 for event in found[:-1])


def yaml_of(*overrides: str) -> bytes:
    return saved.dump(saved.as_saved(validate(compose(list(overrides), catalogue(), hydra())))).encode()


def old_yaml() -> bytes:
    """A configuration of an earlier version: fewer groups, and a key under its former name."""
    lines = (
        yaml_of("dataset=image_folder", "dataset.root=x", "dataset.image_size=32")
        .decode()
        .replace("image_size:", "size:")
        .split("\n")
    )
    return "\n".join(line for line in lines if not line.startswith(("sampler:", "  sampler:"))).encode()


def parsers() -> dict[str, Parser]:
    """Return all parsers by name."""
    made = seeds.made()
    return {
        "overrides, grammar": Parser(
            seeds.OVERRIDES,
            grammar,
            (
                parse,
                composing._unreadable,
                composing._missing_brackets,
                composing.quoted,
                composing._form_hint,
            ),
            3,
        ),
        "overrides, composed": Parser(
            seeds.OVERRIDES,
            overrides,
            (
                composing.check_form,
                composing.check_prefix,
                composing.check_words,
                composing._check_word,
                composing.values_of,
                composing.plain_value,
                composing.unknown_key,
            ),
            0.2,
        ),
        "changes of a run": Parser(
            seeds.CHANGES, change, (saved.set_value, saved._quoted, saved.read_value, check_value), 3
        ),
        "YAML of a user": Parser(
            seeds.YAMLS,
            written("word.yaml", yaml_files.read_yaml),
            (yaml_files.check_bounds, yaml_files.SafeLoader, yaml_files.read_yaml, yaml_files._misspelled),
            2,
        ),
        "saved configuration": Parser(
            [
                yaml_of(),
                yaml_of("model=cnn", "regularization=[l2]", "schedule=cosine"),
                old_yaml(),
                *seeds.SAVED,
            ],
            written("config.yaml", configuration),
            (
                saved.read_words,
                saved.check_nodes,
                saved.rename_former_keys,
                saved.fill_newer_keys,
                saved.load_bounded,
            ),
            0.3,
        ),
        "checkpoint manifest": Parser(
            seeds.MANIFESTS,
            written("step-00000004/manifest.json", lambda f: checkpoint.read_manifest(f.parent)),
            (checkpoint.read_manifest, strict_json),
            3,
        ),
        "run manifest": Parser(
            seeds.RUN_MANIFESTS,
            written("manifest.json", lambda f: manifest.read(f.parent)),
            (manifest.read, manifest._is_inside),
            3,
        ),
        "metrics.csv": Parser(
            seeds.TABLES_OF_ROWS, written("metrics.csv", summary.read_rows), (summary.read_rows,), 3
        ),
        "summary.json": Parser(
            [seeds.SUMMARY, b"", b"  "], run_summary, (summary.read_summary, summary.read_json), 3
        ),
        "tags.json": Parser([b'{"added": ["a"], "removed": ["b"]}'], tags, (summary.merged_tags,), 2),
        "sweep.json": Parser(
            [seeds.SWEEP],
            written("sweep.json", record),
            (
                sweep_record.read_record,
                sweep_record.is_identity,
                sweep_record.is_unfinished,
                sweep_record.same,
                sweep_record.asked_in,
            ),
            3,
        ),
        "books.sqlite": Parser(
            seeds.books_of_a_grid(),
            sweep_books,
            (
                books.opened,
                books.connected,
                books.check_content,
                books.rows,
                books.beside,
                books.fill,
                begun_jobs,
            ),
            0.2,
        ),
        "events.jsonl": Parser(
            seeds.EVENTS, events, (event_log.EventLog.rewind, event_log.read_event, event_log.read_events), 2
        ),
        "study.log": Parser(
            [b'{"op_code": 0}\n{"op_code": 1, "x": [1]}\n'],
            written("study.log", lambda file: journal.check_journal(file, 1000)),
            (journal.check_journal, journal.entry_of, journal.damaged),
            3,
        ),
        "data.json": Parser(
            seeds.CONTRACTS,
            contract,
            (
                Contract.from_json,
                Contract.missing_words,
                Contract.encode_table,
                Contract.check,
                Contract.code,
                check_contract,
                check_columns,
                rules.rule_from_json,
                rules._check_types,
                rules._tuples,
            ),
        ),
        "npz": Parser(made["npz"], arrays, (arrays_module,), 0.5),
        "idx": Parser(made["idx"], written("images-idx3-ubyte", mnist.read_idx), (mnist._announced,), 3),
        "packed idx": Parser(
            made["packed idx"], written("images.gz", mnist.read_idx), (mnist.read_idx, mnist._announced), 2
        ),
        "CIFAR": Parser(
            made["cifar"],
            cifar_files,
            (
                cifar._decode,
                cifar._members,
                cifar._Bounded,
                cifar._read_member,
                cifar._whole,
                cifar._class_names,
            ),
            1,
        ),
        "CSV": Parser(
            seeds.TABLES[:-1],
            written("t.csv", table),
            (
                reading._read_csv,
                reading._layout,
                reading._first_rows,
                reading._encoding,
                reading._separator,
                reading._named,
                reading._check_names,
                reading._columns_by_arrow,
                reading._columns_by_python,
                cells,
            ),
            0.3,
        ),
        "packed CSV": Parser(
            made["packed CSV"], written("t.csv.gz", table), (reading._read_csv, reading._is_utf8), 0.3
        ),
        "Parquet": Parser(made["parquet"], written("t.parquet", table), (reading._read_arrow,), 0.5),
        "Arrow": Parser(made["arrow"], written("t.arrow", table), (reading._read_arrow,), 0.5),
        "images": Parser(made["images"], image, (pixels,), 2),
        "labels of images": Parser(seeds.LABELS, labels, (image_labels,), 0.5),
        "cache of samples": Parser(
            made["caches"],
            sample_cache,
            (cache._read, image_files._mapped, image_files._looked_at),
            1,
        ),
        "cache of listings": Parser(
            seeds.index_files(),
            index_cache,
            (index.Cache.read, index.Cache._entries, index.Cache._know, index.Cache._is_ours, index._object),
            0.3,
        ),
        "filters": Parser(seeds.FILTERS, condition, (query,), 2),
        "safetensors": Parser(
            made["safetensors"],
            written(
                "checkpoints/normalization.safetensors", lambda f: run_folder.read_statistics(f.parents[1])
            ),
            (run_folder.read_statistics,),
            3,
        ),
        "state of a checkpoint": Parser(
            made["states"],
            written("state.pt", state),
            (checkpoint.check_archive, checkpoint.Checkpoint.state),
        ),
        "runs that are looked at": Parser(
            seeds.LOOKED_AT,
            looked_at,
            (index.read_entry, index.facts_of, index.number_of, show_verb.document_of, show_verb.page),
            0.3,
        ),
        "runs of a report": Parser(seeds.LOOKED_AT, reported, (report_record,), 0.3),
        "verified run": Parser(
            seeds.VERIFIED,
            whole_run,
            (
                verification.hashes,
                verification.changed_files,
                verification.checkpoints,
                verification._contents,
                verification.table,
                verification.summary,
                verification._objective,
                verification.weights,
                verification.contract,
                verification.reports,
            ),
            0.3,
        ),
        "verified sweep": Parser(seeds.VERIFIED_SWEEPS, whole_sweep, (sweep_verification,)),
    }
