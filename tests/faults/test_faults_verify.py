"""`dltrain verify`: forgeries whose hashes were not rewritten are found, and honest runs are not accused."""

from __future__ import annotations

import atexit
import functools
import json
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import Run, assert_equal, job_at
from faults import Killed, copy_of, cut_run, edit_manifest, everything, only_run, swept
from test_faults_door import OWN

from dltrain.api import Sweep
from dltrain.cli import dispatch, main
from dltrain.commands.verify import verdicts_of, verify_run
from dltrain.config.compose import open_catalogue
from dltrain.config.door import foreign_words
from dltrain.errors import CheckFailed, CheckpointProblem, FolderInUse, UserError
from dltrain.run.verification import SINCE_HASHES
from dltrain.storage import manifest
from dltrain.storage.job_names import job_folders
from dltrain.storage.summary import read_summary
from dltrain.sweep import sweep
from dltrain.sweep.outcome.files import recipe_of

FORGERIES = 200


@functools.cache
def small_run() -> tuple[Path, Path]:
    """A run on a table of 80 rows, trained once; returns its working folder and its run folder below it."""
    folder, before = Path(tempfile.mkdtemp(prefix="dltrain-verify-")), os.getcwd()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.chdir(folder)
    try:
        draw = random.Random(0)
        rows = [[draw.gauss(0, 1) for _ in range(3)] for _ in range(80)]
        lines = [",".join(f"{v:.6f}" for v in row) + f",{'ab'[row[0] > 0]}" for row in rows]
        Path("table.csv").write_text("\n".join(["u,v,w,label", *lines]) + "\n")
        arguments = [
            "dataset=csv",
            "dataset.path=table.csv",
            "dataset.target=label",
            "model=linear",
            "epochs=3",
        ]
        assert dispatch([*arguments, "checkpoint.keep=2", "quiet=true", "name=small"]) == 0
        return folder, only_run(folder, "small").path.relative_to(folder)
    finally:
        os.chdir(before)


@pytest.fixture
def small(workdir) -> Path:
    folder, path = small_run()
    shutil.copytree(folder, workdir, dirs_exist_ok=True)
    return path


def other_digit(text: str, draw: random.Random) -> str:
    """The text with another digit at a random place, the first line (of names) aside."""
    begin = text.find("\n") + 1
    place = draw.choice([i for i, letter in enumerate(text) if letter.isdigit() and i >= begin])
    return text[:place] + str((int(text[place]) + draw.randint(1, 9)) % 10) + text[place + 1 :]


def other_bit(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def leaves(value: object, path: tuple = ()) -> list[tuple]:
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [leaf for key, item in items for leaf in leaves(item, (*path, key))]
    return [path]


def other_leaf(file: Path, draw: random.Random) -> None:
    content = json.loads(file.read_text())
    *parents, last = draw.choice(leaves(content))
    node = content
    for key in parents:
        node = node[key]
    value = node[last]
    node[last] = value + 1 if isinstance(value, int | float) else f"{value}x"
    file.write_text(json.dumps(content))


def forge(run: Path, draw: random.Random, kind: str) -> str:
    """Change one file of a run or its data; return where a finding must point."""
    if kind == "data":
        file = Path("table.csv")
        file.write_text(other_digit(file.read_text(), draw))
        return "the data"
    files = [
        f
        for f in run.rglob("*")
        if f.is_file() and not f.name.startswith("events.out") and f.name != "run.log"
    ]
    texts = ("metrics.csv", "per_class.csv", "confusion_matrix.csv")
    chosen = {
        "row": [f for f in files if f.name in texts],
        "weight": [f for f in files if f.suffix in (".safetensors", ".pt")],
        "key": [f for f in files if f.suffix == ".json" and f != run / manifest.NAME],
        "seed": [run / "config.yaml"],
        "byte": [f for f in files if f != run / manifest.NAME],
        "gone": files,
    }[kind]
    file = draw.choice(chosen)
    if kind in ("row", "seed"):
        file.write_text(other_digit(file.read_text(), draw))
    elif kind == "key":
        other_leaf(file, draw)
    elif kind == "gone":
        file.unlink()
    else:
        other_bit(file, draw)
    return file.relative_to(run).as_posix()


KINDS = ("row", "weight", "key", "seed", "data", "byte", "gone")


def test_200_of_200_planted_forgeries_are_found(small):
    draw, catalogue, original = random.Random(16), open_catalogue(), Path("original")
    shutil.copytree(small, original)
    table, missed = Path("table.csv").read_text(), []
    assert verify_run(small, catalogue, True).findings == []
    for number in range(FORGERIES):
        kind = KINDS[number % len(KINDS)]
        where = forge(small, draw, kind)
        findings = verify_run(small, catalogue, True).findings
        folder = where.rpartition("/")[0] if "/step-" in where else where
        if not any(finding.where.startswith((where, folder)) for finding in findings):
            missed.append((number, kind, where, findings))
        shutil.rmtree(small)
        shutil.copytree(original, small)
        Path("table.csv").write_text(table)
    assert missed == []


def test_findings_are_lines_and_exit_10(small, dltrain, capsys):
    text = (small / "metrics.csv").read_text()
    (small / "metrics.csv").write_text(text.replace("0.", "0.9", 1))
    with pytest.raises(CheckFailed, match="findings? in 1 of 1 folders") as error:
        dltrain("verify", small)
    assert error.value.exit_code == 10
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(f"✗ {small}: ") and "; expected " in line for line in lines)
    with pytest.raises(CheckFailed):
        dltrain("verify", small, "--json")
    (verdict,) = json.loads(capsys.readouterr().out)
    assert not verdict["sound"] and {f["where"] for f in verdict["findings"]} >= {"metrics.csv"}
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(small), "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 10
    assert json.loads(said.out) == [verdict], "one document, without that of an error"
    assert "in 1 of 1 folders, listed above" in said.err


def test_a_sound_run_says_what_was_checked_and_what_was_not(small, dltrain, capsys):
    before = {f: f.read_bytes() for f in Path().rglob("*") if f.is_file()}
    assert dltrain("verify", small) == 0
    page = capsys.readouterr().out
    assert "hashes" in page and "every sample" in page and "not checked" in page
    assert {f: f.read_bytes() for f in Path().rglob("*") if f.is_file()} == before


def test_data_that_are_not_at_hand_are_not_accused(small, dltrain, capsys):
    Path("table.csv").unlink()
    assert dltrain("verify", small) == 0
    assert "not checked  the data: " in capsys.readouterr().out
    assert dltrain("verify", small, "data=false") == 0
    assert "the data" not in capsys.readouterr().out


def test_runs_that_were_cut_resumed_or_made_by_an_earlier_version_are_sound(workdir, dltrain, capsys):
    cut = copy_of(everything()[1], workdir / "cut").path
    (cut / manifest.NAME).unlink()  # which no killed process writes
    said = json.loads((cut / "summary.json").read_text())
    (cut / "summary.json").write_text(json.dumps(said | {"status": "running"}))
    assert dltrain("verify", cut) == 0
    assert "written when the run ends" in capsys.readouterr().out
    assert dltrain("resume", cut, "tags=[again]", "notes=more") == 0
    assert dltrain("verify", cut) == 0
    # formats of commit caa09af: no manifest of the run, no `format` in its summary, no hash of the rows
    earlier = copy_of(everything()[0], workdir / "earlier").path
    (earlier / manifest.NAME).unlink()
    said = json.loads((earlier / "summary.json").read_text())
    (earlier / "summary.json").write_text(
        json.dumps({k: v for k, v in said.items() if k not in SINCE_HASHES})
    )
    for name in ("data.json", "events.jsonl", "per_class.csv", "confusion_matrix.csv"):
        (earlier / name).unlink(missing_ok=True)
    for folder in (earlier / "checkpoints").glob("step-*"):
        facts = json.loads((folder / "manifest.json").read_text())
        del facts["metrics"], facts["processor"]
        (folder / "manifest.json").write_text(json.dumps(facts))
    capsys.readouterr()
    assert dltrain("verify", earlier) == 0
    assert "an earlier dltrain wrote none" in capsys.readouterr().out
    edit_manifest(next((earlier / "checkpoints").glob("step-*")), best={"step": 1.0})
    with pytest.raises(CheckFailed):
        dltrain("verify", earlier)


def test_a_run_that_was_cut_before_its_first_evaluation_is_sound(workdir, dltrain, capfd):
    run = cut_run(
        workdir, 7, "steps=40", "checkpoint.every_steps=5", "evaluation.every_steps=20", "quiet=true"
    )
    assert not (run.path / "metrics.csv").exists()
    assert (
        dltrain("verify", run.path)
        == dltrain("resume", run.path)
        == dltrain("verify", workdir / "outputs" / "cut")
        == 0
    )
    assert run.summary["status"] == "completed"


def test_own_code_that_is_trusted_is_not_accused(workdir, dltrain, capsys, tmp_path_factory, monkeypatch):
    """Named on the command line, with trust=[module], and not in a word of conf/."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "far_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(elsewhere))
    (workdir / "conf" / "model").mkdir(parents=True)
    (workdir / "conf" / "model" / "two.yaml").write_text("_target_: far_models.Two\n")
    assert dltrain("model=two", "steps=3", "quiet=true", "trust=[far_models]", "name=x") == 0
    (workdir / "conf" / "model" / "two.yaml").unlink()
    run = only_run(workdir, "x").path
    assert dltrain("verify", run) == 0
    assert "not checked  config.yaml against the checkpoints" in capsys.readouterr().out
    with pytest.raises(UserError, match="no such word"):
        dltrain("reproduce", run)


def rewrite(file: Path, **changes: object) -> None:
    """Change keys of a JSON file; None removes one."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def findings_of(path: Path) -> dict[str, str]:
    return {
        finding.where: finding.found for finding in verify_run(path, open_catalogue(), data=False).findings
    }


def test_a_run_is_not_taken_for_one_of_an_earlier_version_or_of_one_that_was_killed(small, dltrain, capsys):
    """Found by a hostile tester: forged scores beside a deleted manifest were sound, with exit code 0."""
    original = shutil.copytree(small, "original")
    (small / manifest.NAME).unlink()
    summary = small / "summary.json"
    scores = {"loss": 1e-9, "accuracy": 1.0}
    rewrite(summary, format=None, seconds=1, stop_reason="forged")
    assert findings_of(small) == {manifest.NAME: "it is missing"}
    rewrite(summary, status="running", test=scores)
    for name in ("per_class.csv", "confusion_matrix.csv"):
        (small / name).unlink()
    found = findings_of(small)
    assert {f"summary.json, {name}" for name in ("test", "objective", "best", "best_epoch")} <= found.keys()
    rewrite(summary, status="done")
    assert "done" in findings_of(small)["summary.json, status"]
    # each mark of the present version alone is enough
    for kept in ("data.json", "events.jsonl", "per_class.csv"):
        shutil.rmtree(small)
        shutil.copytree(original, small)
        (small / manifest.NAME).unlink()
        rewrite(summary, **dict.fromkeys(SINCE_HASHES))
        for folder in (small / "checkpoints").glob("step-*"):
            rewrite(folder / "manifest.json", metrics=None, processor=None)
        for name in {"data.json", "events.jsonl", "per_class.csv", "confusion_matrix.csv"} - {kept}:
            (small / name).unlink()
        assert findings_of(small)[manifest.NAME] == "it is missing", kept
    # what is left cannot be told from a killed run, and the mark says that nothing was hashed
    shutil.rmtree(small)
    shutil.copytree(original, small)
    (small / manifest.NAME).unlink()
    rewrite(summary, status="running", test=None, objective=None, best=None, best_epoch=None)
    capsys.readouterr()
    assert dltrain("verify", small, small, small, small) == 0
    assert capsys.readouterr().out.count("no hashes") == 4


def test_a_checkpoint_without_the_configuration_of_its_run_is_found(small):
    (small / manifest.NAME).unlink()
    rewrite(small / "summary.json", status="running", test=None, objective=None, best=None, best_epoch=None)
    for folder in (small / "checkpoints").glob("step-*"):
        rewrite(folder / "manifest.json", config=None)
    (small / "data.json").unlink()
    found = findings_of(small)
    assert found["data.json"] == "it is missing"
    assert any(where.endswith("manifest.json") and what == "no `config`" for where, what in found.items())


def test_a_report_that_could_not_be_written_is_no_forgery(workdir, dltrain, monkeypatch, capsys):
    from dltrain.run import experiment

    whole = experiment.replace

    def full(file: Path, content: bytes) -> None:
        if file.name == "per_class.csv":
            raise OSError(28, "No space left on device", str(file))
        whole(file, content)

    monkeypatch.setattr(experiment, "replace", full)
    with pytest.raises(UserError):
        dltrain("epochs=1", "model.hidden=[4]", "quiet=true", "name=full")
    run = only_run(workdir, "full")
    assert run.summary["status"] == "degraded"
    capsys.readouterr()
    assert dltrain("verify", run.path) == 0
    assert "not checked  per_class.csv: it could not be written" in capsys.readouterr().out
    rewrite(run.path / "summary.json", problems=[])
    assert findings_of(run.path)["per_class.csv"] == "it is missing"


def test_rows_that_could_not_be_written_are_no_forgery(workdir, dltrain, monkeypatch, capsys):
    """Found by a hostile tester: a degraded run had five findings."""
    from dltrain.storage.growing_file import GrowingFile

    write, rows = GrowingFile.write, []

    def full(self: GrowingFile) -> None:
        rows.extend([1] * (self.file.name == "metrics.csv"))
        if self.file.name == "metrics.csv" and len(rows) > 1:
            self._note(f"{self.file} could not be written (No space left on device)")
        else:
            write(self)

    monkeypatch.setattr(GrowingFile, "write", full)
    with pytest.raises(UserError):
        dltrain("epochs=3", "model.hidden=[4]", "quiet=true", "name=full")
    run = only_run(workdir, "full")
    assert run.summary["status"] == "degraded" and run.summary["best_epoch"] > 1
    capsys.readouterr()
    assert dltrain("verify", run.path) == 0
    assert "not checked  metrics.csv: it could not be written to its end" in capsys.readouterr().out
    # the rows that are there, and the events beside them, are compared
    file = run.path / "metrics.csv"
    file.write_text(file.read_text().replace("\n1,", "\n1.5,"))
    assert {"metrics.csv", "events.jsonl, step 21"} <= findings_of(run.path).keys()
    rewrite(run.path / "summary.json", problems=[])
    assert "summary.json, best" in findings_of(run.path)


def test_a_matrix_that_no_run_wrote_is_refused_before_it_is_read(small):
    """190 MB of forged cells took a minute."""
    width = 60_000
    row = "a," + ",".join(["10"] * width) + "\n"
    with open(small / "confusion_matrix.csv", "w") as stream:
        stream.write("t," + ",".join(["b"] * width) + "\n")
        for _ in range(20):
            stream.write(row)
    assert "no room for as many rows" in findings_of(small)["reports by class"]


def test_files_that_no_hash_covers_are_named(small, dltrain, capsys):
    (small / "report.html").write_text("forged")
    (small / "tags.json").write_text('{"format": 1, "added": ["best"], "removed": []}')
    (small / "predictions.csv").write_text("x")
    (small / "export" / "onnx").mkdir(parents=True)
    assert dltrain("verify", small) == 0
    page = capsys.readouterr().out
    assert "not checked  export/, predictions.csv, report.html, tags.json (not among the hashes)" in page


def test_files_below_other_folders_that_no_hash_covers_are_named(small, dltrain, capsys):
    added = (
        ".hydra/evil.yaml",
        "checkpoints/best_old.safetensors",
        "checkpoints/foo/x",
        "checkpoints/x.lock",
        "y.tmp",
    )
    for name in added:
        (small / name).parent.mkdir(exist_ok=True)
        (small / name).write_text("forged")
    assert dltrain("verify", small, "--json") == 0
    told = json.loads(capsys.readouterr().out)[0]["not checked"]
    listed = next(text for text in told if text.endswith(" (not among the hashes)")).removesuffix(
        " (not among the hashes)"
    )
    assert listed.split(", ") == [name.replace("foo/x", "foo/") for name in added]


def test_a_run_of_the_first_format_is_sound(workdir, dltrain, capsys):
    shutil.copytree(Path(__file__).parents[1] / "fixtures" / "format-1", workdir / "run")
    assert dltrain("verify", "run") == 0
    page = capsys.readouterr().out
    assert "checked      checkpoints, metrics.csv" in page and "an earlier dltrain wrote none" in page


def test_a_sweep_and_its_jobs(workdir, dltrain, capsys):
    folder = copy_of(swept(), workdir / "sweep").path
    assert dltrain("verify", folder) == 0
    text = (folder / "results.csv").read_text()
    (folder / manifest.NAME).unlink()
    lines = text.splitlines()
    objective = lines[1].split(",")[lines[0].split(",").index("objective")]
    (folder / "results.csv").write_text(text.replace(objective, "0.125"))
    (sweep,) = [v for v in verdicts_of(folder, open_catalogue(), False) if v.path == folder]
    assert [finding.where for finding in sweep.findings] == [manifest.NAME, "results.csv, job 0"]
    shutil.rmtree(job_at(folder, 1))
    (sweep,) = [v for v in verdicts_of(folder, open_catalogue(), False) if v.path == folder]
    assert "1/" in [finding.where for finding in sweep.findings]


def verdict_of_sweep(folder: Path) -> dict[str, str]:
    (sweep,) = [v for v in verdicts_of(folder, open_catalogue(), False) if v.path == folder]
    return {finding.where: finding.found for finding in sweep.findings}


def test_forged_files_of_a_sweep_are_found_without_its_hashes(workdir, dltrain, capsys):
    folder = copy_of(swept(), workdir / "sweep").path
    (folder / "report.html").write_text("forged")
    assert dltrain("verify", folder) == 0
    assert "report.html (not among the hashes)" in capsys.readouterr().out
    (folder / manifest.NAME).unlink()
    assert verdict_of_sweep(folder) == {manifest.NAME: "it is missing"}
    rewrite(folder / "sweep.json", finished=False)
    assert verdict_of_sweep(folder) == {}
    (folder / "best.yaml").write_text("lr: 99\n")
    assert "lr" in verdict_of_sweep(folder)["best.yaml"]
    head, first, *rest = (folder / "results.csv").read_text().splitlines(keepends=True)
    (folder / "results.csv").write_text("".join([head, first, first, *rest]))
    assert verdict_of_sweep(folder)["results.csv, job 0"] == "a second row"
    columns = head.strip().split(",")
    place = columns.index("val/accuracy")
    cells = first.split(",")
    cells[place] = "0.123"
    (folder / "results.csv").write_text("".join([head, ",".join(cells), *rest]))
    assert "val/accuracy 0.123" in verdict_of_sweep(folder)["results.csv, job 0"]


@pytest.mark.parametrize(
    "text", ["tags=[é", "tags=[é,a b]", 'lr="' + "\\" * 90_000 + 'x"', "lr", "é" * 900_000]
)
def test_an_override_of_a_job_that_cannot_be_read_is_a_finding(workdir, text):
    folder = copy_of(swept(), workdir / "sweep").path
    for job in job_folders(folder).values():
        rewrite(job / "summary.json", overrides=["lr=0.1", text])
    assert text[:8] in verdict_of_sweep(folder)["best.yaml"]


def test_a_manifest_of_a_sweep_that_leaves_records_out_is_found(workdir):
    """Found by a hostile tester: another best job was sound beside a manifest without hashes."""
    folder = copy_of(swept(), workdir / "sweep").path
    known = manifest.read(folder)
    for name in known:
        rewrite(folder / manifest.NAME, sha256={key: sha for key, sha in known.items() if key != name})
        assert verdict_of_sweep(folder) == {name: "it is not among the hashes"}
    (folder / "results.csv").unlink()
    rewrite(folder / manifest.NAME, sha256={})
    assert verdict_of_sweep(folder)["results.csv"] == "it is not among the hashes"


def test_another_best_job_of_a_sweep_is_found_whatever_the_hashes_say(workdir, dltrain):
    folder = copy_of(swept(), workdir / "sweep").path
    best = json.loads((folder / "sweep.json").read_text())["best"]
    other = next(path for path in job_folders(folder).values() if path.name != best)
    for named in (other.name, None):
        rewrite(folder / "sweep.json", best=named)
        recipe = recipe_of(read_summary(other)["overrides"], open_catalogue())
        (folder / "best.yaml").write_text(yaml.safe_dump(recipe))
        manifest.write(folder, manifest.SWEEP_RECORDS)
        assert verdict_of_sweep(folder)["sweep.json, best"] == str(named)


@pytest.mark.parametrize("kind", ["hole", "link"])
def test_files_of_a_sweep_that_no_sweep_wrote_are_not_read(workdir, kind):
    """Found by a hostile tester: a hole of a terabyte was hashed."""
    folder = copy_of(swept(), workdir / "sweep").path
    known = manifest.read(folder)
    file = folder / "more"
    if kind == "hole":
        with open(file, "wb") as stream:
            stream.truncate(2**40)
    else:
        file.symlink_to("/dev/zero")
    rewrite(folder / manifest.NAME, sha256={**known, "more": "0" * 64})
    assert any("more" in place or "more" in found for place, found in verdict_of_sweep(folder).items())


def test_a_word_with_the_keys_of_another_is_found(small, dltrain, capsys):
    """Found by a hostile tester: a run with adam that says it had amsgrad."""
    file = small / "config.yaml"
    text = file.read_text()
    word = yaml.safe_load(text)["words"]["optimizer"]
    other = {"adam": "amsgrad"}.get(word, "nesterov")
    file.write_text(text.replace(f"  optimizer: {word}\n", f"  optimizer: {other}\n"))
    with pytest.raises(CheckFailed):
        dltrain("verify", small)
    assert f"config.yaml, words: optimizer={other}" in capsys.readouterr().out


@pytest.mark.parametrize("name, keys, said", [
    ("Adam", {}, {"adam"}), ("Adam", {"amsgrad": True}, {"amsgrad"}), ("SGD", {}, {"sgd", "gd"}),
    ("SGD", {"momentum": 0.9, "dampening": 0.0}, {"momentum"}), ("SGD", {"momentum": 0.9, "nesterov": True}, {"nesterov"}),
    ("RAdam", {}, {"radam"}), ("NotThere", {}, set()),
])  # fmt: skip
def test_a_former_target_is_that_of_its_words_only(name, keys, said):
    """Found by a hostile tester: any word passed beside a class of torch, as `amsgrad` with the keys of Adam."""
    catalogue = open_catalogue()
    node = {"_target_": f"torch.optim.{name}", "lr": 0.1, **keys}
    passed = {
        word
        for word in catalogue.words["optimizer"]
        if not foreign_words({"optimizer": node, "words": {"optimizer": word}}, catalogue)
    }
    assert passed == said


@pytest.mark.parametrize("words", [{"optimizer": "lion"}, {"model": "cnn"}])
def test_words_that_contradict_the_keys_are_a_finding(small, words):
    """Also where the configuration cannot be read as a whole, and whatever the hashes say."""
    content = yaml.safe_load((small / "config.yaml").read_text())
    content["words"] |= words
    (small / "config.yaml").write_text(yaml.safe_dump(content))
    manifest.write(small, manifest.covered(small))
    ((group, word),) = words.items()
    assert findings_of(small)["config.yaml, words"] == f"{group}={word}"


@pytest.mark.parametrize("key, said", [
    ("overrides", ["dataset.val_fraction=0.3"]), ("overrides", ["optimizer=sgd"]), ("overrides", ["lr=0.5"]),
    ("overrides", ["lr=0.001", "model=linear", "lr=0.5"]), ("command", "dltrain lr=0.5"), ("command", "dltrain -m lr=0.1,0.5"),
    ("command", "dltrain rerun outputs/a/b model=mlp"), ("command", "dltrain -m lr=range(1,3)"),
    ("command", "dltrain -m lr=interval(0.1,0.5)"), ("command", "dltrain -m optimizer=glob(s*)"), ("command", "dltrain lr=0.1,0.001"),
    # found by a hostile tester: lists, functions, and keys that no configuration has were not compared
    ("overrides", ["dataset.null_words=[a]"]), ("overrides", ["lr=[0.001]"]), ("overrides", ["lr=choice(0.001,0.5)"]),
    ("overrides", ["lr=${oc.env:X}"]), ("overrides", ["lr=${batch_size}"]), ("overrides", ["experiment=evil"]), ("overrides", ["nothing=3"]),
    ("overrides", ["trust=[payload]"]), ("overrides", ["--config-dir=payload"]), ("overrides", ["optimizer=glob(*)"]),
    ("overrides", ["lr={a:1}"]), ("overrides", ["dataset={limit:3}"]), ("overrides", ["optimizer={lr:0.5}"]), ("overrides", ["lr='0.5'"]),
    ("overrides", ["batch_size=0.5"]), ("overrides", ["dataset.target=5"]),
])  # fmt: skip
def test_what_was_asked_is_what_the_configuration_holds(small, key, said):
    """Found by a hostile tester: whoever repeated the run, or used the best.yaml of its sweep, trained with other values."""
    rewrite(small / "summary.json", **{key: said})
    manifest.write(small, manifest.covered(small))
    asked = said if isinstance(said, list) else said.split()
    assert findings_of(small) == {f"summary.json, {key}": asked[-1]}


@pytest.mark.parametrize("said", [
    {"overrides": ["epochs=9", "name=x", "quiet=false", "threads=7", "evaluation.test=true"]},
    {"overrides": ["batch_size=auto", "lr=${oc.env:X,1}", "~dataset.limit", "lr=", "lr=[", "lr=0.5,", "lr=1e-3"]},
    {"overrides": ["optimizer=adam", "regularization=none", "regularization=[]"], "command": "dltrain -m optimizer=glob(a*) lr=0.1,0.001"},
    {"overrides": ["dataset={limit:null}", "trust=[]", "sweep.trials=3"], "command": "dltrain -m lr=interval(0.0001,0.1) new=3"},
    {"overrides": ["seed=${seed}"], "command": "dltrain rerun outputs/S/1-lr=0.01"},
    {"overrides": ["optimizer=amsgrad"], "reused": "outputs/a/b"}, {"overrides": None}, {"overrides": 3}, {"overrides": [3, None]},
    {"command": "dltrain -m seed=7 sweep.seeds=2"}, {"command": "python train.py lr=9"}, {"command": "dltrain 'lr=9"}, {"command": 3},
])  # fmt: skip
def test_an_honest_run_is_not_accused_of_what_was_asked(small, said):
    """What a resumed run, a sweep or the program itself changes; what is no plain value; and what is none at all."""
    rewrite(small / "summary.json", **said)
    manifest.write(small, manifest.covered(small))
    assert findings_of(small) == {}


def test_what_is_long_or_in_no_record_is_said_to_be_open(small):
    """Found by a hostile tester: a list of some thousand letters for each key took Hydra's parser minutes."""
    lists = [f"{key}=[{'a,' * 60_000}a]" for key in yaml.safe_load((small / "config.yaml").read_text())]
    rewrite(
        small / "summary.json",
        overrides=[*lists, f"~seed=[{'a,' * 300}]", "hydra.searchpath=[pkg://payload]"],
        command="dltrain --config-dir=payload 'hydra.searchpath=[pkg://payload]'",
    )
    manifest.write(small, manifest.covered(small))
    begun = time.process_time()
    verdict = verify_run(small, open_catalogue(), data=False)
    assert time.process_time() - begun < 5
    assert verdict.findings == []
    left = [line for line in verdict.open if line.startswith(("overrides:", "command:"))]
    assert "overrides: hydra.searchpath=[pkg://payload] (config.yaml does not say)" in left
    assert "command: hydra.searchpath=[pkg://payload] (config.yaml does not say)" in left
    assert "command: --config-dir=payload (config.yaml does not say)" in left
    assert sum(line.endswith("(too long to compare)") for line in left) == 3
    rewrite(small / "summary.json", overrides=[*lists, "lr=0.5"])
    manifest.write(small, manifest.covered(small))
    assert findings_of(small) == {"summary.json, overrides": "lr=0.5"}


def test_what_the_overrides_leave_out_is_said_to_be_open(small):
    """Found by a hostile tester: whoever repeats a run without its words and keys trains something else."""
    assert "leave out" not in str(verify_run(small, open_catalogue(), data=False).open)
    rewrite(small / "summary.json", overrides=[], command="dltrain")
    manifest.write(small, manifest.covered(small))
    verdict = verify_run(small, open_catalogue(), data=False)
    (line,) = [line for line in verdict.open if "leave out" in line]
    # the dataset chooses the model, and a resumed run may have another length
    assert line.startswith("overrides: they leave out dataset, dataset.path, dataset.target (")
    assert verdict.findings == []


def other_cell(column: str, value: str) -> Callable[[Path], None]:
    """Return a forgery of the first row of results.csv."""

    def forge(folder: Path) -> None:
        head, first, *rest = (folder / "results.csv").read_text().splitlines()
        cells = dict(zip(head.split(","), first.split(","), strict=True)) | {column: value}
        lines = [
            ",".join(cells),
            ",".join(cells.values()),
            *(line + "," * (column not in head) for line in rest),
        ]
        (folder / "results.csv").write_text("\n".join([*lines, ""]))

    return forge


def other_record(**changes: object) -> Callable[[Path], None]:
    """Return a forgery of sweep.json; keys of `identity` are changed in it."""

    def forge(folder: Path) -> None:
        content = json.loads((folder / "sweep.json").read_text())
        for key, value in changes.items():
            (content["identity"] if key in content["identity"] else content)[key] = value
        (folder / "sweep.json").write_text(json.dumps(content))

    return forge


def without_a_job(folder: Path) -> None:
    shutil.rmtree(job_at(folder, 1))
    head, *rows = (folder / "results.csv").read_text().splitlines(keepends=True)
    (folder / "results.csv").write_text("".join([head, *(row for row in rows if not row.startswith("1,"))]))


def other_result(folder: Path) -> None:
    text = (folder / "best.yaml").read_text()
    (folder / "best.yaml").write_text(re.sub(r"(# result: \S+) \S+", r"\1 0.00001", text))


@pytest.mark.parametrize("where, forge", [
    ("results.csv, job 0", other_cell("lr", "0.7")), ("results.csv, job 0", other_cell("status", "failed")),
    ("results.csv, job 0", other_cell("objective", "")), ("results.csv, job 0", other_cell("best_epoch", "77")),
    ("results.csv, job 0", other_cell("folder", "/etc")), ("results.csv, job 0", other_cell("reason", "x")),
    ("results.csv", other_cell("test/accuracy", "1.0")),
    ("sweep.json, modes", other_record(modes=["max"])), ("sweep.json, fixed", other_record(fixed=[])),
    ("study.log", other_record(axes=[])), ("sweep.json, test", other_record(test=True)),
    ("sweep.json, command", other_record(command="dltrain -m lr=5,6")), ("sweep.json, loss", other_record(loss="training")),
    ("best.yaml, result", other_result), ("jobs", without_a_job),
])  # fmt: skip
def test_forgeries_of_a_sweep_with_new_hashes_are_found(workdir, where, forge):
    """Found by a hostile tester: `checked … results.csv, best.yaml` was printed, and these were compared with nothing."""
    folder = copy_of(swept(), workdir / "sweep").path
    assert verdict_of_sweep(folder) == {}
    forge(folder)
    manifest.write(folder, list(manifest.read(folder)))
    assert where in verdict_of_sweep(folder)


def test_other_overrides_of_a_job_are_found_beside_a_best_yaml_of_them(workdir):
    """Found by a hostile tester: best.yaml was compared with overrides that were compared with nothing."""
    folder = copy_of(swept(), workdir / "sweep").path
    job = folder / json.loads((folder / "sweep.json").read_text())["best"]
    overrides = ["lr=0.5" if text.startswith("lr=") else text for text in read_summary(job)["overrides"]]
    rewrite(job / "summary.json", overrides=overrides)
    manifest.write(job, manifest.covered(job))
    (folder / "best.yaml").write_text(yaml.safe_dump(recipe_of(overrides, open_catalogue())))
    manifest.write(folder, list(manifest.read(folder)))
    assert findings_of(job) == {"summary.json, overrides": "lr=0.5"}
    assert "was run with lr=0.5" in verdict_of_sweep(folder)["sweep.json"]


def test_an_axis_of_repetitions_does_not_accuse_best_yaml(workdir, dltrain):
    """The recipe is that of all repetitions, also where their key is below another one."""
    arguments = ("-m", "dataset=iris", "dataset.split_seed=0,1", "epochs=1", "name=s", "quiet=true")
    assert dltrain(*arguments, "sweep.backend=local") == 0
    (folder,) = workdir.glob("outputs/s/*")
    assert verdict_of_sweep(folder) == {}


def test_overrides_that_are_none_are_a_finding_and_no_traceback(workdir):
    folder = copy_of(swept(), workdir / "sweep").path
    job = folder / json.loads((folder / "sweep.json").read_text())["best"]
    rewrite(job / "summary.json", overrides=["tags=[é"])
    assert "cannot be read" in verdict_of_sweep(folder)["best.yaml"]


def test_a_column_of_a_sweep_s_results_that_is_there_twice_is_found(workdir, dltrain):
    folder = copy_of(swept(), workdir / "sweep").path
    file = folder / "results.csv"
    head, *rows = file.read_text().splitlines(keepends=True)
    file.write_text("".join([f"objective,{head}", *(f"0.001,{row}" for row in rows)]))
    manifest.write(folder, manifest.SWEEP_RECORDS)
    assert verdict_of_sweep(folder) == {"results.csv": "it has two columns 'objective'"}
    with pytest.raises(CheckpointProblem, match="two columns 'objective'"):
        _ = Sweep(folder).table


def test_a_run_with_the_record_of_a_sweep_is_checked_as_a_run(small, dltrain):
    """Found by a hostile tester: of a folder that is both, the checks of a run were left out."""
    rewrite(small / "summary.json", test={"loss": 0.1, "accuracy": 1.0})
    identity = {"sweep": "", "fixed": [], "axes": [], "settings": {}, "test": False}
    (small / "sweep.json").write_text(json.dumps({"identity": identity, "overrides": [], "finished": False}))
    rewrite(small / manifest.NAME, sha256={})
    (verdict,) = verdicts_of(small, open_catalogue(), False)
    found = {finding.where: finding.found for finding in verdict.findings}
    assert found["sweep.json"] == "the record of a sweep"
    assert {"metrics.csv", "summary.json, test"} <= found.keys()


def test_a_sweep_that_goes_on_has_no_hashes_of_before(workdir, dltrain, monkeypatch):
    """Those of its former end would accuse it, once its driver was killed."""
    arguments = ("-m", "lr=0.01,0.001", "epochs=1", "name=cut", "model.hidden=[4]", "quiet=true", "threads=1")
    assert dltrain(*arguments, "sweep.backend=local") == 0
    (folder,) = workdir.glob("outputs/cut/*")
    rewrite(folder / "sweep.json", finished=False)
    manifest.write(folder, manifest.SWEEP_RECORDS)

    def killed(*_: object) -> int:
        raise Killed

    monkeypatch.setattr(sweep, "drive", killed)
    with pytest.raises(Killed):
        dltrain(*arguments, "sweep.backend=local")
    assert verdict_of_sweep(folder) == {}


def test_a_second_folder_of_a_job_is_found_and_counts_once(workdir, dltrain, capsys):
    folder = copy_of(swept(), workdir / "sweep").path
    assert dltrain("show", folder) == 0
    before = capsys.readouterr().out
    job = job_at(folder, 1)
    shutil.copytree(job, job.with_name(f"{job.name}1"))
    assert verdict_of_sweep(folder) == {f"{job.name}/": "another folder of the same job"}
    assert dltrain("show", folder) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if "(2)" in line or "mean of 2" in line]
    assert table == [line for line in before.splitlines() if "(2)" in line or "mean of 2" in line]


def test_what_is_no_run_is_refused(workdir, dltrain):
    (workdir / "empty").mkdir()
    with pytest.raises(CheckpointProblem, match="is not a run folder"):
        dltrain("verify", "empty")
    with pytest.raises(UserError, match="takes data=true or data=false"):
        dltrain("verify", "empty", "lr=1")
    with pytest.raises(UserError, match="Name at least one"):
        dltrain("verify")


def test_metrics_that_are_gone_are_noticed_by_resume(workdir, dltrain):
    """Found in review: the rows up to the checkpoint were lost in silence."""
    run = cut_run(
        workdir, 30, "steps=40", "checkpoint.every_steps=10", "evaluation.every_steps=10", "quiet=true"
    )
    golden = Run(shutil.copytree(run.path, workdir / "golden"))
    (run.path / "metrics.csv").unlink()
    with pytest.raises(
        CheckpointProblem, match=r"metrics.csv is missing, and with it the rows of .* step 20"
    ):
        dltrain("resume", run.path, "strict=true")
    with pytest.raises(UserError, match="metrics.csv is missing") as error:
        dltrain("resume", run.path)
    assert error.value.exit_code == 6 and run.summary["status"] == "degraded"
    assert dltrain("resume", golden.path) == 0
    assert golden.summary["status"] == "completed"


def test_a_run_killed_before_the_event_of_its_end_gets_it(small, dltrain):
    """Found by a hostile tester: whoever follows events.jsonl waited for it, and of a lengthened run `verify` found a forgery."""
    for words in ((), ("epochs=6",)):
        if words:
            assert dltrain("resume", small, *words) == 0
        file, half = small / "events.jsonl", small / "checkpoints/.step-00000001.1.tmp"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[:-1]))
        (small / manifest.NAME).unlink()
        half.mkdir()
        assert dltrain("resume", small) == 0
        assert not verify_run(small, open_catalogue(), data=False).findings and not half.exists()
        *others, last = file.read_text().splitlines(keepends=True)
        assert others == lines[:-1]
        assert json.loads(last) | {"time": ""} == json.loads(lines[-1]) | {"time": ""}


def test_the_event_of_the_end_follows_no_half_line(small, dltrain):
    file, victim = small / "events.jsonl", small.parent / "precious"
    lines = file.read_text().splitlines(keepends=True)
    for half in ("", lines[-1][:20]):
        victim.unlink(missing_ok=True)
        victim.write_text("".join(lines[:-1]) + half)
        before = victim.read_text()
        file.unlink()
        os.link(victim, file)
        (small / manifest.NAME).unlink()
        assert dltrain("resume", small) == 0
        *others, last = file.read_text().splitlines(keepends=True)
        assert others == lines[:-1] and json.loads(last)["event"] == "run_ended"
        assert victim.read_text() == before


def test_a_run_killed_before_its_last_file_is_completed_by_resume(small, capsys):
    events = (small / "events.jsonl").read_text()
    (small / manifest.NAME).rename(small / f".{manifest.NAME}.tmp")
    verdict = verify_run(small, open_catalogue(), data=False)
    assert [finding.where for finding in verdict.findings] == [manifest.NAME]
    assert dispatch(["resume", str(small)]) == 0
    assert "is finished; its manifest.json, which was missing, is written" in capsys.readouterr().err
    assert not verify_run(small, open_catalogue(), data=False).findings
    assert (small / "events.jsonl").read_text() == events
    assert not list(small.glob(".*.tmp"))
    with pytest.raises(CheckpointProblem, match="there is nothing to resume"):
        dispatch(["resume", str(small)])


@pytest.mark.parametrize(
    "place", ["storage.manifest.remove", "config.saved.write", "storage.run_folder.RunFolder.write_summary"]
)
def test_a_lengthened_run_that_is_killed_in_its_records_is_lengthened(
    small, dltrain, monkeypatch, capsys, place
):
    """Found by a hostile tester: `resume RUN` called the run finished, and `verify` then called it forged."""
    whole = small.with_name("whole")
    shutil.copytree(small, whole)
    assert dltrain("resume", whole, "epochs=6") == 0
    with monkeypatch.context() as patch:

        def die(*_: object) -> None:
            raise Killed

        patch.setattr(f"dltrain.{place}", die)
        with pytest.raises(Killed):
            dltrain("resume", small, "epochs=6")
    is_lost = place != "storage.run_folder.RunFolder.write_summary"
    if place == "storage.manifest.remove":
        assert not verify_run(small, open_catalogue(), data=False).findings
    # what a queue starts again
    assert dltrain("resume", small, *["epochs=6"] * is_lost) == 0
    assert "is finished" not in capsys.readouterr().err
    assert not verify_run(small, open_catalogue(), data=False).findings
    found, wanted = (json.loads((run / "summary.json").read_text()) for run in (small, whole))
    assert found["steps"] == wanted["steps"] and found["longer"] == wanted["longer"] == ["epochs=6"]
    assert_equal(Run(small).best_weights, Run(whole).best_weights)


def test_an_edited_length_is_no_lengthening(small, dltrain):
    """Found by a hostile tester: `resume` of a finished run whose config.yaml was edited sealed the edited record."""
    file, sealed = small / "config.yaml", everything()
    text = file.read_text()
    for epochs in (2, 5):
        file.write_text(text.replace("epochs: 3", f"epochs: {epochs}"))
        assert findings_of(small)
        with pytest.raises(CheckpointProblem, match="there is nothing to resume"):
            dltrain("resume", small)
        file.write_text(text)
        assert everything() == sealed
    # without hashes only more of it, and only what `resume RUN epochs=…` could do
    (small / manifest.NAME).unlink()
    file.write_text(text.replace("epochs: 3", "epochs: 2"))
    assert dltrain("resume", small) == 0
    assert "summary.json, config, epochs" in findings_of(small)


def test_records_without_steps_and_another_kind_of_length(small, dltrain):
    """A summary without `steps` ended in a TypeError, and `steps` in place of `epochs` was not taken for a longer run."""
    (small / manifest.NAME).unlink()
    file, summary = small / "config.yaml", json.loads((small / "summary.json").read_text())
    text = file.read_text()
    file.write_text(text.replace("epochs: 3", "epochs: null").replace("steps: null", "steps: 5000"))
    rewrite(small / "summary.json", steps=None)
    assert dltrain("resume", small) == 0
    (small / manifest.NAME).unlink()
    rewrite(small / "summary.json", steps=summary["steps"])
    file.write_text(
        text.replace("epochs: 3", "epochs: null").replace("steps: null", f"steps: {2 * summary['steps']}")
    )
    # as `resume RUN steps=12` of this run is, whose last evaluation a longer one does not have
    with pytest.raises(UserError, match="cannot change in this run: it was evaluated at its end"):
        dltrain("resume", small)
    assert not (small / manifest.NAME).exists()


def test_a_lengthening_that_the_schedule_forbids_is_refused(workdir, train, dltrain):
    run = train("dataset=iris", "model=linear", "schedule=cosine", "epochs=2")
    with pytest.raises(UserError, match="depends on the total number of steps"):
        dltrain("resume", run.path, "epochs=4")
    (run.path / manifest.NAME).unlink()
    file = run.path / "config.yaml"
    file.write_text(file.read_text().replace("epochs: 2", "epochs: 4"))
    with pytest.raises(UserError, match="depends on the total number of steps"):
        dltrain("resume", run.path)


def test_a_job_that_was_killed_before_its_last_file_is_completed_by_its_sweep(workdir, dltrain):
    """Found by a hostile tester: the honest job was called forged, and nothing healed it."""
    shutil.copytree(swept().path, workdir / "S")
    record = workdir / "S/sweep.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"finished": False}))
    job = job_at(workdir / "S", 1)
    for file in (job / manifest.NAME, workdir / "S" / manifest.NAME, workdir / "S/books.sqlite"):
        file.unlink(missing_ok=True)
    assert dltrain("-m", "sweep.resume=S") == 0
    assert (job / manifest.NAME).is_file() and not (job / "run.lock").exists()
    assert dltrain("verify", "S") == 0


@pytest.mark.parametrize("has_books", [True, False])
def test_a_job_whose_lengthening_was_killed_in_its_records_is_left_to_resume(
    workdir, dltrain, monkeypatch, capfd, has_books
):
    """Found by a hostile tester: the sweep sealed a summary of one epoch beside a configuration of two."""
    shutil.copytree(swept().path, workdir / "S")
    record, job = workdir / "S/sweep.json", job_at(workdir / "S", 1)
    record.write_text(json.dumps(json.loads(record.read_text()) | {"finished": False}))
    with monkeypatch.context() as patch:

        def die(*_: object) -> None:
            raise Killed

        patch.setattr("dltrain.storage.run_folder.RunFolder.write_summary", die)
        with pytest.raises(Killed):
            dltrain("resume", job, "epochs=2")
    (workdir / "S/manifest.json").unlink(missing_ok=True)
    if not has_books:
        (workdir / "S/books.sqlite").unlink()
    assert dltrain("-m", "sweep.resume=S") == 0
    assert not (job / manifest.NAME).exists()
    assert has_books or f"To go on with it: dltrain resume S/{job.name}" in capfd.readouterr().err
    assert dltrain("resume", job) == 0
    assert dltrain("-m", "sweep.resume=S") == 0 and dltrain("verify", "S") == 0
    assert json.loads((job / "summary.json").read_text())["epochs"] == 2


def test_a_job_beyond_the_end_that_its_sweep_plans_is_refused(workdir, dltrain, capfd):
    """Found by a hostile tester: the sweep completed it with more epochs than the other jobs, and `reproduce` called it forged."""
    shutil.copytree(swept().path, workdir / "S")
    record, job = workdir / "S/sweep.json", job_at(workdir / "S", 1)
    honest = json.loads((job / "summary.json").read_text())
    assert dltrain("resume", job, "epochs=2") == 0
    longer = json.loads((job / "summary.json").read_text())
    for cure in ("resume", "retry"):
        record.write_text(json.dumps(json.loads(record.read_text()) | {"finished": False}))
        # as a kill after the checkpoint of the second epoch leaves it
        (job / manifest.NAME).unlink(missing_ok=True)
        rewrite(job / "summary.json", status="running")
        (workdir / "S/manifest.json").unlink(missing_ok=True)
        assert dltrain("-m", "sweep.resume=S") == 7
        said = json.loads((job / "summary.json").read_text())
        assert said["status"] == "failed"
        steps = f"has trained {longer['steps']} steps, and its configuration plans {honest['steps']};"
        assert steps in said["stop_reason"]
        assert said["stop_reason"].endswith(f"dltrain resume {job.resolve()} epochs=2")
        capfd.readouterr()
        if cure == "resume":
            assert dltrain("resume", job, "epochs=2") == 0
        else:
            assert dltrain("-m", "sweep.resume=S", "sweep.retry=failed") == 0
            assert dltrain("verify", "S") == 0
    assert json.loads((job / "summary.json").read_text())["objective"] == honest["objective"]


def test_the_command_to_complete_a_longer_run_holds_numbers_of_its_record_alone(small, dltrain):
    """Found by a hostile tester: pasted, `trust` of somebody's record would have had the rights of the command line."""
    (small / manifest.NAME).unlink()
    file = small / "config.yaml"
    file.write_text(file.read_text().replace("epochs: 3", "epochs: 2"))
    longer = [
        "trust=[payload]",
        "model._target_=payload.M",
        "epochs=${oc.env:HOME}",
        "epochs=3",
        "logger.mlflow.tracking_uri=x",
    ]
    rewrite(small / "summary.json", status="interrupted", longer=longer)
    with pytest.raises(CheckpointProblem, match=r"To complete that: dltrain resume \S+ epochs=3$"):
        dltrain("resume", small)


def test_more_steps_than_the_configuration_plans_are_found(small):
    file = small / "config.yaml"
    text = file.read_text()
    file.write_text(text.replace("epochs: 3", "epochs: 2"))
    found = findings_of(small)
    assert found["summary.json, epochs"] == "3"
    assert found["metrics.csv, epochs"] == "3"
    steps = json.loads((small / "summary.json").read_text())["steps"]
    for planned, is_found in ((steps, False), (steps - 1, True)):
        file.write_text(text.replace("epochs: 3", "epochs: null").replace("steps: null", f"steps: {planned}"))
        assert ("summary.json, steps" in findings_of(small)) == is_found


def test_a_run_is_held_from_the_reading_of_its_records_on(small, dltrain, monkeypatch):
    """Found by a hostile tester: the second of two `resume` rewrote config.yaml of the run that the first had completed."""
    from dltrain.run import experiment

    prepare, tries = experiment.prepare, []

    def prepared(*arguments, **named):
        with pytest.raises(FolderInUse):
            dltrain("resume", small, "epochs=7")
        tries.append(1)
        return prepare(*arguments, **named)

    monkeypatch.setattr(experiment, "prepare", prepared)
    assert dltrain("resume", small, "epochs=6") == 0
    assert tries == [1] and not (small / "run.lock").exists()
    assert json.loads((small / "summary.json").read_text())["longer"] == ["epochs=6"]
    assert dltrain("resume", small, "epochs=8") == 0 and tries == [1, 1]


def test_an_event_that_could_not_be_written_is_no_forgery(small):
    file = small / "events.jsonl"
    kept = [line for line in file.read_text().splitlines(keepends=True) if "checkpoint_saved" not in line]
    saved = [line for line in file.read_text().splitlines(keepends=True) if "checkpoint_saved" in line]
    assert len(saved) > 1
    file.write_text("".join([*kept, saved[0]]))
    assert "no event says that it was saved" in findings_of(small).values()
    rewrite(small / "summary.json", problems=[f"{file} could not be written (No space left on device)"])
    assert "no event says that it was saved" not in findings_of(small).values()
