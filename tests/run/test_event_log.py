"""events.jsonl: each event once, whatever ends the run; thin, as rows of metrics.csv."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from dltrain.errors import CheckFailed, NumericalFailure
from dltrain.storage import event_log, growing_file, manifest
from dltrain.storage.event_log import EventLog, read_events


def names(events):
    return [event["event"] for event in events]


def test_the_events_of_a_run_are_its_rows_and_its_result(train):
    run = train("epochs=2", "log.every_steps=10", "model=linear")
    events = list(read_events(run.path))
    assert names(events)[0] == "run_started"
    assert names(events)[-1] == "run_ended"
    assert [e["step"] for e in events if e["event"] == "step_logged"] == [10, 20, 30, 40]
    assert [e["step"] for e in events if e["event"] == "checkpoint_saved"] == [21, 42]
    told = [e for e in events if e["event"] == "evaluated"]
    assert [{key: e[key] for key in row} for e, row in zip(told, run.rows, strict=True)] == run.rows
    end = events[-1]
    assert (end["status"], end["step"], end["objective"]) == ("completed", 42, run.summary["objective"])
    assert end["test/accuracy"] == run.summary["test"]["accuracy"]
    assert {e["format"] for e in events} == {1}
    times = [datetime.fromisoformat(e["time"]) for e in events]
    assert times == sorted(times) and times[0].tzinfo is not None


def test_a_run_that_fails_says_so_in_its_last_event(dltrain, workdir):
    with pytest.raises(NumericalFailure):
        dltrain("optimizer=sgd", "lr=1e30", "dataset=diabetes", "model=linear", "epochs=2", "quiet=true")
    (file,) = workdir.rglob("events.jsonl")
    end = list(read_events(file.parent))[-1]
    assert (end["event"], end["status"], end["error"]) == ("run_ended", "failed", "NumericalFailure")
    # its hash is that of the whole file
    assert manifest.read(file.parent)["events.jsonl"] == manifest.digest(file)


def test_a_resumed_run_says_so_and_longer_training_follows(train, dltrain):
    run = train("epochs=1", "model=linear")
    assert dltrain("resume", run.path, "epochs=2") == 0
    events = list(read_events(run.path))
    assert [name for name in names(events) if name in event_log.SESSION] == [
        "run_started",
        "run_ended",
        "run_resumed",
        "run_ended",
    ]
    assert [e["step"] for e in events if e["event"] == "run_resumed"] == [21]
    assert [e["step"] for e in events if e["event"] == "evaluated"] == [21, 42]


@pytest.fixture
def log(tmp_path):
    problems = []
    return EventLog(tmp_path, problems.append), tmp_path / "events.jsonl", problems


def filled(log, *events):
    for event in events:
        log.add(*event)
    log.write()


def test_rewinding_keeps_sessions_and_completes_what_a_kill_cut(log):
    log, file, _ = log
    filled(log, ("run_started", 0), ("evaluated", 5), ("evaluated", 10), ("run_ended", 12))
    file.write_text(file.read_text() + 'no JSON\n[1]\n{"event": "evaluated", "st')
    log.rewind(5)
    # the checkpoint is there: killed before its event
    assert [(e["event"], e["step"]) for e in list(read_events(file.parent))] == [
        ("run_started", 0),
        ("evaluated", 5),
        ("run_ended", 12),
        ("checkpoint_saved", 5),
    ]
    once = file.read_text()
    log.rewind(5)
    assert file.read_text() == once


def test_rewinding_writes_the_events_that_a_full_disk_lost(log):
    """Found by a hostile tester: after `resume`, `verify` called the honest run forged."""
    log, file, _ = log
    rows = [{"step": float(k), "val/loss": 1 / k if k < 8 else float("nan")} for k in (2, 4, 6, 8, 10)]
    for begun, lost in ((("run_started", 0), (6, 8)), (("run_resumed", 6), (8,))):
        file.unlink(missing_ok=True)
        filled(log, begun, *[("evaluated", 2), ("evaluated", 4), ("checkpoint_saved", 4)] * (not begun[1]))
        kept = list(read_events(file.parent))
        log.rewind(8, rows, [10, 8, 6, 4])
        found = list(read_events(file.parent))
        assert found[: len(kept)] == kept
        assert [(e["event"], e["step"], e.get("val/loss")) for e in found[len(kept) :]] == [
            told
            for k in lost
            for told in (("evaluated", k, 1 / k if k < 8 else None), ("checkpoint_saved", k, None))
        ]


def test_rewinding_a_file_that_is_no_text_leaves_it_and_says_so(log):
    log, file, problems = log
    file.write_bytes(b'{"event": "evaluated", "step": 9}\n\xff\xfe\n')
    other = file.with_name("other")
    other.hardlink_to(file)
    log.rewind(5)
    assert file.read_bytes().endswith(b"\xff\xfe\n")
    assert sorted(file.parent.iterdir()) == [file, other], "no temporary file is left"
    filled(log, ("run_resumed", 5))
    assert other.read_bytes().endswith(b"\xff\xfe\n"), "the same file under another name stays as it is"
    assert len(problems) == 1 and "its later events stay" in problems[0]


def test_values_that_json_does_not_have_are_null(log):
    log, file, _ = log
    filled(log, ("evaluated", 1, {"val/loss": float("nan"), "lr": float("inf"), "x": 1.5}))
    (line,) = file.read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail)["val/loss"] is None
    assert '"lr": null, "x": 1.5' in line


def test_a_full_disk_keeps_events_waiting_and_no_half_line(log, monkeypatch):
    log, file, problems = log
    filled(log, ("run_started", 0))
    before = file.read_bytes()

    def full(name, mode, **how):
        stream = open(name, mode, **how)
        stream.write('{"half')
        stream.flush()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(growing_file, "open", full, raising=False)
    filled(log, ("evaluated", 1))
    assert file.read_bytes() == before
    assert problems == [f"{file} could not be written (No space left on device)"]
    monkeypatch.undo()
    filled(log, ("evaluated", 2))
    assert [e["step"] for e in list(read_events(file.parent))] == [0, 1, 2]


@pytest.mark.parametrize("after", [1, 2])
def test_no_line_goes_to_a_file_of_a_process_that_took_over(tmp_path, after):
    """Found by a hostile tester: a process that was stopped between its check and the writing damaged a finished run."""
    file, looked = tmp_path / "metrics.csv", []
    file.write_text("ours\n")

    def may_write() -> bool:
        looked.append(file.read_text() == "ours\n")
        if len(looked) == after:
            (tmp_path / "new").write_text("theirs\n")
            (tmp_path / "new").replace(file)
        return looked[-1]

    growing = growing_file.GrowingFile(file, pytest.fail, may_write)
    growing.add("late\n")
    growing.write()
    assert file.read_text() == "theirs\n"
    assert looked == [True, after == 2]


def test_steps_wait_for_a_second_at_most(log, monkeypatch):
    log, file, _ = log
    log.add("step_logged", 1)
    assert not file.exists()
    monkeypatch.setattr(event_log, "SECONDS", 0.0)
    log.add("step_logged", 2)
    assert [e["step"] for e in list(read_events(file.parent))] == [1, 2]


def test_verify_compares_the_events_with_the_rows(train, dltrain, capsys):
    run = train("epochs=2", "model=linear")
    file = run.path / "events.jsonl"
    assert dltrain("verify", run.path) == 0
    assert "events.jsonl" in capsys.readouterr().out
    lines = [line for line in file.read_text().splitlines() if '"step": 42, "epoch"' not in line]
    file.write_text("\n".join(lines) + "\n")
    # with a hash that fits
    manifest.renew(run.path, "events.jsonl")
    with pytest.raises(CheckFailed):
        dltrain("verify", run.path)
    assert (
        "events.jsonl: evaluations of the steps [21]; expected those of metrics.csv, [21, 42]"
        in capsys.readouterr().out
    )
    whole = file.read_text().splitlines()
    file.write_text("\n".join([whole[0], "not JSON", *whole[1:]]) + "\n")
    manifest.renew(run.path, "events.jsonl")
    with pytest.raises(CheckFailed):
        dltrain("verify", run.path)
    assert "events.jsonl: line 2 is no event: 'not JSON'" in capsys.readouterr().out
