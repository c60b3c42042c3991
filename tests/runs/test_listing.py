"""`dltrain runs`: filters against a slow twin, the cache that may be damaged or gone, damaged records, and narrow terminals."""

from __future__ import annotations

import io
import json
import os
import random
import sqlite3
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from made import make_run, make_sweep, stamp

from dltrain.commands import runs as verb
from dltrain.commands import show as show_verb
from dltrain.config.keys import differences
from dltrain.errors import CheckpointProblem, UserError
from dltrain.screen.table import Column, cells_of, duration, lines, shorten, typed
from dltrain.storage import index as storage
from dltrain.storage import query
from dltrain.storage.index import CACHE, Index
from dltrain.storage.lock import Lock

OUTPUT = "outputs"


@pytest.fixture
def many(workdir):
    """Thirty runs with different choices and results, and a sweep of four jobs."""
    draws = random.Random(1)
    for number in range(30):
        config = {
            "optimizer": draws.choice(["adam", "sgd"]),
            "seed": number % 5,
            "lr": draws.choice([0.1, 0.01, 1e-4]),
        }
        if number % 7 == 0:
            config["wrap"] = ["sam"]
        make_run(
            workdir / OUTPUT / f"name{number % 3}" / stamp(number),
            round(draws.random(), 3),
            config,
            status=draws.choice(["completed", "failed"]),
            tags=draws.sample(["a", "b", "paper"], number % 3),
        )
    make_sweep(
        workdir / OUTPUT / "swept" / stamp(60),
        [{"objective": 0.1 * n, "config": {"lr": 0.1 / (n + 1), "seed": n}} for n in range(1, 5)],
    )
    return workdir


def paths(*arguments, **options):
    return [row["path"] for row in verb.listed(OUTPUT, arguments, **options).document()["runs"]]


def summaries(workdir):
    """Return what is on the disk, by path of the run folder."""
    found = {}
    for file in workdir.glob(f"{OUTPUT}/*/*/summary.json"):
        found[str(file.parent.relative_to(workdir))] = json.loads(file.read_text())
    return found


TWINS = {
    ("optimizer=adam",): lambda s: s["config"]["optimizer"] == "adam",
    ("lr<0.01",): lambda s: s["config"]["lr"] < 0.01,
    ("lr<=1e-2", "seed!=3"): lambda s: s["config"]["lr"] <= 0.01 and s["config"]["seed"] != 3,
    ("objective>0.5",): lambda s: s["objective"] > 0.5,
    ("val/loss>=0.5", "status=failed"): lambda s: s["best"]["val/loss"] >= 0.5 and s["status"] == "failed",
    ("tag=paper",): lambda s: "paper" in s["tags"],
    ("tag!=a",): lambda s: "a" not in s["tags"],
    ("wrap=sam",): lambda s: "sam" in s["config"].get("wrap", []),
    ("wrap=[sam]",): lambda s: s["config"].get("wrap") == ["sam"],
    ("model.hidden=[256, 128]",): lambda s: True,
    ("test/accuracy>0.9",): lambda s: False,
    ("status=comp*",): lambda s: s["status"] == "completed",
    ("name=null", "fold=null"): lambda s: False,
}


@pytest.mark.parametrize("conditions", TWINS, ids=" ".join)
def test_filters_find_what_the_files_say(many, conditions):
    holds = TWINS[conditions]
    found = [path for path in paths(*conditions) if "swept" not in path]
    assert found == sorted(
        (p for p, s in summaries(many).items() if holds(s)), key=lambda p: p.rpartition("/")[2]
    )
    assert found == [path for path in paths(*conditions) if "swept" not in path], "from the cache"


def test_a_default_batch_size_is_a_number_and_a_word_is_none(workdir):
    """`batch_size=64` did not find runs with null, which train with 64, and `batch_size>1000` found `full`."""
    sizes = {"a": None, "b": 64, "c": "full", "d": 128}
    for n, (name, size) in enumerate(sizes.items()):
        make_run(workdir / OUTPUT / name / stamp(n), n, {"batch_size": size})

    def names(text):
        return [path.split("/")[1] for path in paths(text)]

    assert sorted(names("batch_size=64")) == ["a", "b"]
    assert sorted(names("batch_size<100")) == ["a", "b"]
    assert names("batch_size>100") == ["d"] and names("batch_size=full") == ["c"]


def test_place_and_time_are_filters(many):
    assert {path.split("/")[1] for path in paths("name=name[01]")} == {"name0", "name1"}
    assert paths("run=0007") == [f"{OUTPUT}/name1/{stamp(7)}"]
    assert paths("when<2026-01-01 03:00", "name=name*") == [f"{OUTPUT}/name{n}/{stamp(n)}" for n in range(3)]
    assert paths(f"path=name2/{stamp(5)}") == [f"{OUTPUT}/name2/{stamp(5)}"]
    assert len(paths("sweep=003c", jobs=True)) == 4


@pytest.mark.parametrize(("text", "number"), [
    ("when=2026-01-01", 24), ("when=2026-01-02", 6), ("when!=2026-01-01", 6), ("when>2026-01-01", 6), ("when>=2026-01-02", 6),
    ("when<2026-01-02", 24), ("when<=2026-01-01", 24), ("when>2026-01-01T15:00", 14), ("when>=2026-01-01_15-00-00", 15),
    ("when=2026-01-01 15:00", 1), ("when=01 Jan 15:00", 1), ("when<1 Jan 03:00", 3), ("when<2 Jan", 24), ("when=2026-01", 30),
    ("when>2025", 30), ("when=2025", 0), ("when=2026-01-02*", 6), ("when=today", 1), ("when=yesterday", 0), ("when>00:00", 1),
])  # fmt: skip
def test_when_is_compared_with_dates_and_times(workdir, monkeypatch, text, number):
    class Now(query.date):
        @classmethod
        def today(cls):
            return cls(2026, 2, 1)

    monkeypatch.setattr(query, "date", Now)
    stamps = [stamp(n) for n in range(30)] + ["2026-02-01_15-00-00-abcd"] * ("today" in text or ">0" in text)
    for name in stamps:
        make_run(workdir / OUTPUT / "n" / name)
    assert verb.listed(OUTPUT, [text]).matching == number


@pytest.mark.parametrize("text", ["noon", "", "2026-13-01", "25:00", "30 Feb", "-1"])
def test_a_time_that_is_none_is_refused_with_an_example(text):
    told = f"^`when` is compared with a date or a time, and {text or 'nothing'} is neither. Write 'when>=2026-01-31', "
    with pytest.raises(UserError, match=told):
        query.read_filter(f"when>{text}")


def test_sorting_puts_the_best_first_and_what_has_no_value_last(many):
    make_run(many / OUTPUT / "more" / stamp(70), objective=None)
    known = {p: s["objective"] for p, s in summaries(many).items()}
    found = [p for p in paths(sort="objective") if "swept" not in p]
    assert [known[p] for p in found[:-1]] == sorted(v for v in known.values() if v is not None)
    assert known[found[-1]] is None
    assert paths(sort="-objective")[-1] == found[-1]
    by_lr = [
        json.loads((many / p / "summary.json").read_text())["config"]["lr"]
        for p in paths("optimizer=sgd", sort="-lr")
    ]
    assert by_lr == sorted(by_lr, reverse=True)


def test_best_first_follows_the_direction(workdir):
    for number, value in enumerate((0.2, 0.9, 0.5)):
        make_run(workdir / OUTPUT / "n" / stamp(number), value, metric="val/accuracy", mode="max")
    assert [p[-1] for p in paths(sort="objective")] == ["1", "2", "0"]
    assert [p[-1] for p in paths(sort="-objective")] == ["0", "2", "1"]
    assert [p[-1] for p in paths(sort="objective", limit=1)] == ["1"]
    assert [p[-1] for p in paths(limit=2)] == ["1", "2"], "without --sort the newest"


def test_a_sweep_is_one_row_with_its_best_job_and_the_jobs_that_match(many):
    (row,) = [r for r in verb.listed(OUTPUT).document()["runs"] if r["kind"] == "sweep"]
    assert (row["jobs"], row["objective"], row["status"], row["run"]) == (4, 0.1, "finished", "003c")
    (row,) = [r for r in verb.listed(OUTPUT, ["seed>2"]).document()["runs"] if r["kind"] == "sweep"]
    assert (row["jobs"], row["objective"]) == (2, pytest.approx(0.3))
    assert paths("status!=completed", "name=swept") == []
    assert paths("seed>9", "name=swept") == []
    jobs = verb.listed(OUTPUT, ["name=swept"], jobs=True).document()["runs"]
    assert [(r["run"], r["kind"]) for r in jobs] == [(f"003c/{n}", "job") for n in range(4)]
    inside = verb.listed(f"{OUTPUT}/swept/{stamp(60)}").document()["runs"]
    assert [r["run"] for r in inside] == [f"003c/{n}" for n in range(4)]


@pytest.mark.parametrize("condition, says", [
    ("optimzer=adam", "`optimzer` is no key, score or field of these runs. Did you mean `optimizer`?"),
    ("accuracy>0.9", "Did you mean `val/accuracy` or `test/accuracy`?"),
    ("statsu=failed", "Did you mean `status`?"),
    ("lr<abc", "`lr<abc`: `lr` is compared with a number"),
    ("optimizer<0.02", "`optimizer<0.02`: `optimizer` is a word such as "),
    ("lr", "`lr` is no folder and no filter. Write 'key=value'"),
])  # fmt: skip
def test_a_wrong_condition_is_refused(many, condition, says):
    with pytest.raises(UserError) as refused:
        verb.listed(OUTPUT, [condition])
    assert says in str(refused.value)
    assert refused.value.exit_code == 2


def test_wrong_columns_sorts_limits_and_folders_are_refused(many, dltrain):
    for arguments, says in [
        (["--columns", "lr,optimiser"], "Did you mean `optimizer`"),
        (["--sort", "-objectiv"], "Did you mean `objective`"),
        (["--limit", "ten"], "must be a whole number"),
        (["--sort"], "`--sort` needs a value: --sort KEY"),
        (["--sort", "objective", "--sort", "lr"], "`--sort` is given twice, as objective and lr. Write one"),
        (["--columns", ","], "`--columns` is ,, which names none"),
        (["--sorted"], "Did you mean `--sort`"),
        (["outputs", "outputs/name1"], "one folder is listed at a time"),
    ]:
        with pytest.raises(UserError, match=says):
            dltrain("runs", *arguments)
    with pytest.raises(CheckpointProblem, match="nowhere is no folder"):
        dltrain("runs", "nowhere")


def test_a_word_that_a_score_is_named_after_is_no_number(workdir):
    make_run(workdir / OUTPUT / "n" / stamp(0), config={"loss": "cross_entropy"})
    with pytest.raises(
        UserError, match=r"is a word such as cross_entropy, no number\. Did you mean .*'val/loss<0.02'"
    ):
        verb.listed(OUTPUT, ["loss<0.02"])


def test_none_is_an_empty_list(workdir):
    for number, chosen in enumerate(([], ["l2"], ["l2", "l1"])):
        make_run(workdir / OUTPUT / "n" / stamp(number), config={"regularization": chosen})
    assert verb.listed(OUTPUT, ["regularization=none"]).matching == 1
    assert verb.listed(OUTPUT, ["regularization!=none"]).matching == 2


def test_jobs_are_in_the_order_of_their_numbers_and_counted_by_their_state(
    workdir, dltrain, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "160")
    states = ["completed"] * 9 + ["failed", "diverged", "diverged"]
    jobs = [{"config": {"lr": n}, "status": state, "written": "2026-01-01"} for n, state in enumerate(states)]
    make_sweep(workdir / OUTPUT / "n" / stamp(0), jobs)
    found = verb.listed(OUTPUT, jobs=True).document()["runs"]
    assert [row["run"] for row in found] == [f"0000/{n}" for n in range(12)]
    assert dltrain("runs") == 0
    assert "12 jobs: lr × seed, 1 failed, 2 diverged" in " ".join(capsys.readouterr().out.split())


def test_a_misspelt_value_gives_the_nearest(many, dltrain, capsys):
    assert dltrain("runs", "status=complete", "lr<1") == 0
    said = capsys.readouterr().out
    assert (
        said
        == "outputs: no run satisfies all conditions. No `status` is complete. Did you mean `completed`?\n"
    )
    assert dltrain("runs", "status=completed", "lr>1") == 0
    assert capsys.readouterr().out == "outputs: no run satisfies all conditions\n"


def test_a_listing_without_rows_says_why(workdir, dltrain, capsys):
    Path("empty").mkdir()
    for arguments, says in [
        ([], "outputs: no run yet. The first: dltrain"),
        (["empty"], "empty: no run"),
        (["--archived"], f"{workdir.resolve()}/.dltrain/archive/outputs: nothing is archived"),
        (["empty", "lr=1"], "empty: no run satisfies all conditions"),
    ]:
        assert dltrain("runs", *arguments) == 0
        assert capsys.readouterr().out == f"{says}\n"


def test_a_terminal_without_arrows_is_no_obstacle(many, monkeypatch, dltrain):
    for encoding in ("cp1252", "ascii"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        for call in (
            ["runs"],
            ["show", "003c"],
            ["show", "0001"],
            ["diff", "0001", "0002"],
            ["compare", "003c"],
            ["tag", "0001"],
        ):
            assert dltrain(*call) == 0
        stream.flush()
        assert b"val/loss ?" in stream.buffer.getvalue()


def test_columns_are_those_asked_for(many, dltrain, capsys):
    assert dltrain("runs", "status=failed", "--columns", "optimizer,lr,stop_reason", "--limit", "2") == 0
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "optimizer", "lr", "stop_reason"]
    assert first.endswith("all 42 steps done")


# Runs of all kinds ------------------------------------------------------------------------------------------------


def test_runs_without_a_configuration_in_their_summary_are_found_by_it(workdir, monkeypatch):
    make_run(workdir / OUTPUT / "old" / stamp(0), config=...)
    folder = make_run(workdir / OUTPUT / "old" / stamp(1))
    summary = json.loads((folder / "summary.json").read_text())
    del summary["config"]
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.yaml").write_text("lr: 0.3\noptimizer:\n  lr: 0.3\nwords:\n  optimizer: sgd\n")
    assert paths("optimizer=sgd", "optimizer.lr>0.2") == [f"{OUTPUT}/old/{stamp(1)}"]
    monkeypatch.setattr(verb, "read_config", lambda folder: pytest.fail("read twice"))
    assert paths("optimizer=sgd") == [f"{OUTPUT}/old/{stamp(1)}"], "it is kept"


def test_a_run_that_is_going_on_is_told_from_one_that_was_killed(workdir):
    for number in range(2):
        make_run(workdir / OUTPUT / "n" / stamp(number), status="running")
    (workdir / OUTPUT / "n" / stamp(0) / "run.lock").write_text(
        "process 1\n"
    )  # left by a process that is gone
    lock = Lock(workdir / OUTPUT / "n" / stamp(1))
    assert [r["status"] for r in verb.listed(OUTPUT).document()["runs"]] == ["killed", "running"]
    lock.release()
    assert paths("status=killed") == [f"{OUTPUT}/n/{stamp(n)}" for n in range(2)]


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_a_run_without_scores_of_its_own_shows_the_best_of_its_table(workdir, status):
    folder = make_run(workdir / OUTPUT / "n" / stamp(0), status=status, metric="val/accuracy", mode="max")
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("best", "objective", "best_epoch", "epochs", "steps", "seconds", "test"):
        del summary[key]
    (folder / "summary.json").write_text(json.dumps(summary))
    table = folder / "metrics.csv"
    head = "epoch,step,train/loss,val/loss,val/accuracy,seconds\n"
    table.write_text(f"{head}1,21,0.9,0.5,0.7,0.5\n2,42,0.8,0.4,0.9,1.5\n3,63,0.7,0.3,0.8,2.5\n")
    make_run(workdir / OUTPUT / "n" / stamp(1), objective=0.85, metric="val/accuracy", mode="max")

    def shown() -> list[object]:
        rows = verb.listed(OUTPUT, ["val/accuracy>0.7"], sort="objective").document()["runs"]
        return [(row["objective"], row["scores"]["val/loss"], row["seconds"]) for row in rows]

    assert shown() == [(0.9, 0.4, 4.5), (0.85, 0.85, 12.5)], "of the row with the best accuracy"
    assert shown() == [(0.9, 0.4, 4.5), (0.85, 0.85, 12.5)], "from the cache"
    with table.open("a") as stream:
        stream.write("4,84,0.6,0.2,0.95,3.5\n5,105,0.6,0.2,0.9")
    assert shown()[0] == (0.95, 0.2, 8.0), "the cache is old, and a line without an end does not count"
    document = show_verb.document_of(folder)
    assert (document["objective"], document["best"]["val/loss"], document["cost"]["seconds"]) == (
        0.95,
        0.2,
        8.0,
    )
    table.write_text("no table\n1,2\n")
    assert shown() == [(0.85, 0.85, 12.5)]


def test_a_job_without_scores_shows_how_far_it_came_and_is_not_ranked(workdir):
    jobs = [{"objective": 0.7}, {"objective": 0.5, "status": "running"}]
    sweep = make_sweep(workdir / OUTPUT / "s" / stamp(0), jobs, axes=("lr",))
    folder = next(sweep.glob("1*"))
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("best", "objective", "epochs", "steps", "seconds", "test"):
        del summary[key]
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = verb.listed(sweep, sort="objective").document()["runs"]
    assert [(row["objective"], row["seconds"]) for row in rows] == [(0.7, 12.5), (None, 1.0)]


def test_a_run_that_never_began_has_no_time(workdir):
    """0 would make it the fastest of all."""
    make_run(workdir / OUTPUT / "n" / stamp(0), status="failed", seconds=...)
    (workdir / OUTPUT / "n" / stamp(0) / "metrics.csv").unlink()
    make_run(workdir / OUTPUT / "n" / stamp(1))
    rows = verb.listed(OUTPUT, sort="seconds").document()["runs"]
    assert [row["seconds"] for row in rows] == [12.5, None]


def test_a_sweep_is_listed_by_the_end_of_its_name(workdir, capsys):
    make_sweep(workdir / OUTPUT / "s" / stamp(3), [{"objective": 0.7}, {"objective": 0.5}], axes=("lr",))
    verb.run([stamp(3)[-4:], "--json"])
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 2
    with pytest.raises(CheckpointProblem, match="nowhere is no folder"):
        verb.run(["nowhere"])


def test_a_run_before_its_first_summary_is_listed(workdir):
    folder = make_run(workdir / OUTPUT / "n" / stamp(0))
    (folder / "summary.json").unlink()
    assert [r["status"] for r in verb.listed(OUTPUT).document()["runs"]] == ["killed"]


STRANGE = [
    "", "{", "[]", "null", "3", '{"status": 3}', '{"status": "completed"}', '{"a": ' * 5000, "\x00\x01", '{"status": "\\ud800"}',
    '{"status": "completed", "objective": 1e999, "seconds": -1e999, "best": {"val/loss": NaN}, "test": [1], "tags": {"a": 1}}',
    '{"status": "completed", "objective": ' + "9" * 400 + ', "mode": 3, "metric": {"a": 1}, "best": 3, "seed": [[]]}',
    '{"status": "completed", "config": {"lr": {"x": [1, null]}, "": 3, "optimizer": ["\\u001b[2J"]}, "overrides": [3, null]}',
    '{"status": "\\u001b]0;pwned\\u0007", "tags": ["\\u001b[31mred", 3], "notes": "\\u202e", "git": 3, "versions": []}',
    '{"status": "completed", "written": 3, "best": {"\\u001b[5m": 1.0, "/": 2}, "name": ["x"], "stop_reason": {}}',
]  # fmt: skip


@pytest.mark.parametrize("call", [
    ["runs"], ["runs", "--json"], ["runs", "lr<1"], ["runs", "--sort", "objective"], ["runs", "--columns", "status,tag"],
    ["runs", "--jobs", "objective>0"],
])  # fmt: skip
def test_damaged_records_are_listed_and_command_no_terminal(workdir, dltrain, capsys, call):
    make_run(workdir / OUTPUT / "good" / stamp(99))
    for number, text in enumerate(STRANGE):
        folder = workdir / OUTPUT / "n\x1b[1m" / stamp(number)
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(text, encoding="utf-8")
    make_sweep(workdir / OUTPUT / "s" / stamp(50), [], identity=[1], begun=3)
    (workdir / OUTPUT / "s" / stamp(51)).mkdir()
    (workdir / OUTPUT / "s" / stamp(51) / "sweep.json").write_text("[")
    for _ in range(2):
        assert dltrain(*call) == 0
        said = capsys.readouterr()
        assert not any(unicodedata.category(letter) in ("Cc", "Cf") for letter in said.out.replace("\n", ""))
        assert len(said.out) > 100


# The cache --------------------------------------------------------------------------------------------------------


def listing():
    return verb.listed(OUTPUT, ["lr>0"], jobs=True).document()


def spoil(file, kind):
    content = file.read_bytes()
    if kind.startswith("cut"):
        file.write_bytes(content[: len(content) * int(kind[3:]) // 100])
    elif kind.startswith("noise"):
        draws = random.Random(kind)
        spoiled = bytearray(content)
        for _ in range(200):
            spoiled[draws.randrange(len(spoiled))] = draws.randrange(256)
        file.write_bytes(spoiled)
    elif kind == "gone":
        file.unlink()
    elif kind == "text":
        file.write_text("not a database")
    else:
        with sqlite3.connect(file) as base:
            base.execute(kind)
        base.close()


DAMAGE = [
    "gone", "text", "cut0", "cut1", "cut50", "cut99", *(f"noise{n}" for n in range(8)), "PRAGMA user_version=99",
    "DROP TABLE bases", "DELETE FROM bases", "UPDATE runs SET content = '[1, 2]'", "UPDATE runs SET content = 'x'",
    "UPDATE runs SET base = 3", "UPDATE runs SET content = '[false, [1], {}, {}]'", "UPDATE bases SET content = '[{}, {}]'",
    "CREATE TRIGGER t AFTER DELETE ON runs BEGIN DELETE FROM bases; END", "ALTER TABLE runs ADD COLUMN more TEXT",
    "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT * FROM n",
]  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_cache_is_made_again(many, kind, capsys):
    truth = listing()
    spoil(many / OUTPUT / CACHE, kind)
    assert listing() == truth
    make_run(many / OUTPUT / "one" / stamp(90))
    assert len(listing()["runs"]) == len(truth["runs"]) + 1
    assert Index(many / OUTPUT).problem == ""
    assert capsys.readouterr().err == ""


def test_a_listing_reads_only_what_changed(many, monkeypatch):
    listing()
    read = []
    original = storage.read_json
    monkeypatch.setattr(storage, "read_json", lambda file: (read.append(str(file)), original(file))[1])
    listing()
    assert read == []
    folder = many / OUTPUT / "name0" / stamp(0)
    summary = json.loads((folder / "summary.json").read_text()) | {"status": "pruned"}
    (folder / "summary.json").write_text(json.dumps(summary))
    (many / OUTPUT / "name1" / stamp(1) / "tags.json").write_text(
        '{"format": 1, "added": ["new"], "removed": []}'
    )
    (many / OUTPUT / "name2" / stamp(2)).rename(many / OUTPUT / "name2" / "moved")
    assert paths("status=pruned") == [f"{OUTPUT}/name0/{stamp(0)}"]
    assert len(read) == 3
    assert paths("tag=new") == [f"{OUTPUT}/name1/{stamp(1)}"]
    assert f"{OUTPUT}/name2/moved" in paths()
    assert f"{OUTPUT}/name2/{stamp(2)}" not in paths()


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "read-only"])
def test_a_cache_that_cannot_be_written_is_said_in_one_line(many, kind, dltrain, capsys):
    file = many / OUTPUT / CACHE
    elsewhere = many / "elsewhere"
    if kind == "folder":
        file.mkdir()
    elif kind == "link":
        elsewhere.write_text("mine")
        file.symlink_to(elsewhere)
    elif kind == "pipe":
        os.mkfifo(file)
    elif os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    else:
        (many / OUTPUT).chmod(0o500)
    assert dltrain("runs", "--json") == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)["runs"]) == 31
    assert len(said.err.splitlines()) == 1
    assert CACHE in said.err
    if kind == "link":
        assert elsewhere.read_text() == "mine"
    (many / OUTPUT).chmod(0o700)


def test_two_listings_at_once_agree(many):
    """The second one wrote its bases between the read and the write of the first one."""
    first = storage.Cache(many / OUTPUT / CACHE)
    assert first.read() == {}
    truth = listing()
    make_run(many / OUTPUT / "one" / stamp(91), config={"lr": 9.0})
    stamps = {path: mark for path, _, _, mark in storage.scan(many / OUTPUT)}
    entry = storage.read_entry(many / OUTPUT, f"one/{stamp(91)}", False, stamps[f"one/{stamp(91)}"])
    first.write([entry], [])
    found = listing()
    assert [row for row in found["runs"] if "one/" not in row["path"]] == truth["runs"]
    assert paths("lr=9") == [f"{OUTPUT}/one/{stamp(91)}"]


def test_links_are_followed_once(many):
    (many / "far").mkdir()
    make_run(many / "far" / stamp(80))
    (many / OUTPUT / "linked").symlink_to(many / "far")
    (many / OUTPUT / "again").symlink_to(many / "far")
    (many / OUTPUT / "circle").symlink_to(many / OUTPUT)
    found = [path for path in paths() if stamp(80) in path]
    assert len(found) == 1


def test_a_listing_imports_nothing_heavy(many):
    code = (
        "import sys\nfrom dltrain.cli import dispatch\n"
        "dispatch(['runs', 'lr<1', '--sort', 'objective'])\n"
        "heavy = ('torch', 'numpy', 'hydra', 'omegaconf', 'yaml', 'rich', 'scipy')\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=many, capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


# From Python, and what is drawn -----------------------------------------------------------------------------------


def test_the_python_twin_returns_the_same_rows(many, dltrain, capsys):
    import dltrain as package

    table = package.runs(OUTPUT, "optimizer=adam", sort="objective", limit=5)
    dltrain("runs", "optimizer=adam", "--sort", "objective", "--limit", "5", "--json")
    rows = json.loads(capsys.readouterr().out)["runs"]
    assert list(table["path"]) == [row["path"] for row in rows]
    assert list(table["objective"]) == [row["objective"] for row in rows]
    assert list(package.runs(OUTPUT, columns=["lr"])) == ["path", "lr"]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal(many, dltrain, capsys, monkeypatch, width):
    make_run(many / OUTPUT / "ein sehr langer Name 深層学習の実験" / stamp(88), tags=["long" * 10, "b"])
    monkeypatch.setenv("COLUMNS", str(width))
    for arguments in ([], ["--jobs"], ["--columns", "stop_reason,lr,command"]):
        assert dltrain("runs", *arguments) == 0
        printed = capsys.readouterr().out.splitlines()
        assert max(map(cells_of, printed)) <= width
        assert "val/loss ↓" in printed[0] or arguments[:1] == ["--columns"]


def test_a_table_keeps_what_matters_and_is_aligned():
    columns = [
        Column("name", ["a", "a much longer one"], least=6),
        Column("value", ["1.5", "22"], right=True),
        Column("more", ["x" * 30, "y"], rank=1),
        Column("none", ["", ""]),
    ]
    assert list(lines(columns, 60, colored=False)) == [
        "name               value  more",
        "a                    1.5  " + "x" * 30,
        "a much longer one     22  y",
    ]
    assert list(lines(columns, 16, colored=False)) == [
        "name       value",
        "a            1.5",
        "a much l…     22",
    ]
    assert "\033[1mname\033[0m" in next(lines(columns, 60, colored=True))


def test_cells():
    assert [duration(s) for s in (0.04, 9.96, 59.4, 185, 7500, 90000, -1, None, float("nan"))] == [
        "0.0 s", "10 s", "59 s", "3m05s", "2h05m", "1d01h", "", "", "",
    ]  # fmt: skip
    assert shorten("深層学習", 5) == "深層…"
    assert [typed(v) for v in (None, True, [1, 0.5, "a"], 1e-4, 0.1 + 0.2)] == [
        "null",
        "true",
        "[1,0.5,a]",
        "0.0001",
        "0.3",
    ]


def test_differences_are_those_of_the_pairs():
    configs = [
        {"optimizer": "adam", "optimizer.lr": 1, "seed": 0},
        {"optimizer": "sgd", "optimizer.lr": 2, "seed": 0},
    ]
    assert differences(configs, []) == [{"optimizer": "adam", "lr": 1}, {"optimizer": "sgd", "lr": 2}]
    assert differences(configs[:1], []) == [{}]


def test_conditions_on_lr_are_on_the_rate_that_was_trained_with(workdir, train, dltrain, capsys):
    """Found by a tester: `optimizer.lr=0.5` leaves `lr` at its default, by which runs were filtered."""
    common = ("dataset=iris", "model=linear", "steps=1")
    for name, override in (("a", "optimizer.lr=0.5"), ("b", "lr=0.1"), ("c", "seed=1")):
        train(*common, f"name={name}", override)

    def found(*words):
        capsys.readouterr()
        assert dltrain("runs", *words, "--json") == 0
        return {run["name"]: run for run in json.loads(capsys.readouterr().out)["runs"]}

    assert (
        found("lr>0.3").keys() == {"a"}
        and found("lr<0.01").keys() == {"c"}
        and found("lr=0.1").keys() == {"b"}
    )
    assert list(found("--sort", "-lr")) == ["a", "b", "c"]
