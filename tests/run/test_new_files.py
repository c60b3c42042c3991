"""A new file whose values are written otherwise than in the training: what is told, and what the printed cure does."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dltrain import api, errors
from dltrain.cli import dispatch
from dltrain.config import saved
from dltrain.config.compose import open_catalogue

Rows = list[tuple[str, str, str, str]]
HEADER = "sold;share;size;kind"


def rows_of(count: int) -> Rows:
    return [
        (f"{1 + i % 12:02}.{1 + i % 11:02}.2023", f"{20 + i % 7}%", str(3 + i % 5), "ab"[i // 2 % 2])
        for i in range(count)
    ]


def write(rows: Rows, name: str = "new.csv") -> str:
    Path(name).write_text("\n".join([HEADER, *(";".join(row) for row in rows)]) + "\n")
    return name


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on dates as 31.12.2023 and percents."""
    folder = tmp_path_factory.mktemp("run")
    rows = [("25.03.2023", "20%", "3", "a"), *rows_of(79)]
    (folder / "t.csv").write_text("\n".join([HEADER, *(";".join(row) for row in rows)]) + "\n")
    keys = {"dataset.path": folder / "t.csv", "dataset.target": "kind", "output": folder}
    return api.train("model=linear", dataset="csv", steps=5, quiet=True, **keys).path


@pytest.fixture
def predict(run: Path, workdir: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def act(*arguments: Any) -> tuple[int, str]:
        capsys.readouterr()
        code = dispatch(["predict", str(run), *map(str, arguments), "--output", "-"])
        return code, capsys.readouterr().out

    return act


def turned(rows: Rows, form: str) -> Rows:
    """Return rows with their dates written as `form`, a format of strftime."""
    found = []
    for sold, *rest in rows:
        day, month, year = sold.split(".")
        found.append((form.replace("%d", day).replace("%m", month).replace("%Y", year), *rest))
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d/%m/%Y"])
def test_the_cure_for_dates_of_another_form_works_when_typed(form, predict):
    # a day above 12 shows which number is the day
    rows = [("25.03.2023", "21%", "4", "a"), *rows_of(9)]
    wanted = predict(write(rows, "same.csv"))
    with pytest.raises(errors.DataProblem, match="holds dates .%d.%m.%Y., but '.*' in row 1") as caught:
        predict(write(turned(rows, form)))
    assert "missing" not in str(caught.value)
    (cure,) = shlex.split(str(caught.value).rpartition(" set ")[2])
    assert predict("new.csv", cure) == wanted and wanted[0] == 0


def test_a_form_that_reads_most_dates_is_proposed_where_the_former_reads_none(predict):
    rows = rows_of(3)
    mixed = [*turned(rows[:2], "%Y-%m-%d"), *turned(rows[2:], "%m/%d/%Y")]
    with pytest.raises(errors.DataProblem, match="set dataset.date_format=iso$"):
        predict(write(mixed))
    code, out = predict("new.csv", "dataset.date_format=iso")
    assert code == 3 and len(out.splitlines()) == 3


def test_dates_that_fit_by_chance_are_not_used(workdir, capsys):
    """03/04/2023 is another day where the month comes first; the other rows show that it does."""
    run = trained_by_day()
    Path("new.csv").write_text("sold,kind\n03/04/2023,a\n03/25/2023,a\n04/26/2023,b\n")
    told = "holds dates .%d/%m/%Y., but '03/25/2023' in row 2 .*set 'dataset.date_format=\"%m/%d/%Y\"'$"
    with pytest.raises(errors.DataProblem, match=told):
        dispatch(["predict", str(run), "new.csv"])
    assert dispatch(["predict", str(run), "new.csv", 'dataset.date_format="%m/%d/%Y"']) == 0
    # one of many that is no date at all changes nothing
    days = [f"04/{day}/2023,a" for day in range(10, 31)]
    Path("new.csv").write_text("\n".join(["sold,kind", "soon,a", *days]) + "\n")
    with pytest.raises(
        errors.DataProblem, match="holds dates .%d/%m/%Y., but 'soon' in row 1 .*written otherwise"
    ):
        dispatch(["predict", str(run), "new.csv"])
    assert dispatch(["predict", str(run), "new.csv", 'dataset.date_format="%m/%d/%Y"']) == 3
    # a single one among others is broken
    Path("new.csv").write_text("sold,kind\n03/04/2023,a\n25/03/2023,a\n04/26/2023,b\n")
    assert dispatch(["predict", str(run), "new.csv"]) == 3


def trained_by_day() -> Path:
    rows = [f"{1 + i % 28:02}/{1 + i % 12:02}/2023,{'ab'[i // 2 % 2]}" for i in range(60)]
    Path("t.csv").write_text("\n".join(["sold,kind", *rows]) + "\n")
    keys = {"dataset.path": "t.csv", "dataset.target": "kind"}
    return api.train("model=linear", dataset="csv", steps=2, quiet=True, **keys).path


def test_a_large_file_is_named_before_it_is_read(run, workdir, monkeypatch, capsys):
    monkeypatch.setattr("dltrain.data.progress._LARGE", 100)
    assert dispatch(["predict", str(run), write(rows_of(9)), "--output", "-"]) == 0
    assert "dltrain: reading new.csv (0 MB)\n" in capsys.readouterr().err
    assert dispatch(["evaluate", str(run), "dataset.path=new.csv", "quiet=false"]) == 0
    assert "dltrain: reading new.csv (0 MB)\n" in capsys.readouterr().err


def test_a_number_among_percents_is_no_missing_value(predict):
    rows = rows_of(4)
    with pytest.raises(
        errors.DataProblem, match="write the numbers of this column as percents, such as 27%$"
    ):
        predict(write([(sold, "0.27", *rest) for sold, _, *rest in rows]))
    with pytest.raises(errors.DataProblem, match="write the numbers of this column without a percent sign"):
        predict(write([(*row[:2], "27%", row[3]) for row in rows]))


def test_words_for_missing_values_hold_for_a_new_file(predict):
    rows = rows_of(6)
    odd = [(*row[:2], "k.A.", row[3]) if i == 2 else row for i, row in enumerate(rows)]
    empty = [(*row[:2], "", row[3]) if i == 2 else row for i, row in enumerate(rows)]
    wanted = predict(write(empty))
    assert predict(write(odd))[0] == 3
    with pytest.raises(errors.DataProblem) as caught:
        predict(write(odd[2:3]))
    (cure,) = re.findall(r"call it missing: (\S+), or repair it", str(caught.value))
    assert predict(write(odd), *shlex.split(cure)) == wanted and wanted[0] == 0


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d/%m/%Y"])
def test_evaluate_reads_dates_by_the_form_that_the_cure_names(form, run, workdir, capsys):
    rows = [("25.03.2023", "21%", "4", "a"), *rows_of(9)]
    write(turned(rows, form))
    with pytest.raises(errors.DataProblem, match="dates are written otherwise here: set ") as caught:
        dispatch(["evaluate", str(run), "dataset.path=new.csv"])
    (cure,) = shlex.split(str(caught.value).rpartition(" set ")[2])
    assert dispatch(["evaluate", str(run), "dataset.path=new.csv", cure]) == 0


@pytest.mark.parametrize("value, read", [("%d/%m/%Y", "%d/%m/%Y"), ("'%Y'", "%Y"), ("1e-3", 0.001)])
def test_a_form_of_dates_needs_no_quotes(value, read):
    """YAML takes % for a directive; a training takes the same word."""
    content = {"dataset": {}}
    catalogue = open_catalogue()
    knobs = (
        {"dataset.x": catalogue.words["dataset"]["csv"].params["dataset.date_format"]}
        if isinstance(read, str)
        else {"dataset.x": catalogue.knobs["lr"]}
    )
    saved.set_value(content, f"dataset.x={value}", knobs)
    assert content["dataset"]["x"] == read
