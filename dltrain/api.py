"""The Python API: the words, checks and errors of the command line, for notebooks, scripts and tests.

>>> import dltrain
>>> run = dltrain.train("model=linear", lr=0.01, epochs=2, quiet=True)
>>> run.summary["status"]
'completed'
>>> run.metrics["epoch"]
array([1., 2.])

A mistake raises what the command line prints, as `dltrain.errors.UserError` or a subclass of it:

>>> dltrain.train(optimizer="adm")
Traceback (most recent call last):
dltrain.errors.UserError: `optimizer` is adm, which is no such word. Did you mean `adam`?
...

Nothing here imports torch or Hydra before it is needed. The file is long because its docstrings are the reference of the API.
"""

from __future__ import annotations

import csv
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from dltrain.errors import CheckpointProblem, UserError, assigned, typed
from dltrain.storage.folder_names import SWEEP_RECORD as RECORD
from dltrain.storage.folder_names import runs_in
from dltrain.storage.job_names import job_folders, job_number, named_by_number
from dltrain.text import short_path

if TYPE_CHECKING:
    from torch import nn

    from dltrain.config.catalogue import Catalogue
    from dltrain.config.compose import Composition
    from dltrain.config.door import Door
    from dltrain.config.schema import Config
    from dltrain.data.split_names import SplitName
    from dltrain.run.prediction import Predictions, Predictor
    from dltrain.run.table import Table

__all__ = ["Run", "Settings", "Sweep", "compare", "load", "sweep", "train"]

# columns of results.csv that `Sweep.__repr__` leaves out
_LONG = ("reason", "folder")


def train(*words: str, config_dir: str | Path | None = None, **knobs: object) -> Run:
    """Train one configuration, as `dltrain key=value …` does, and return its run.

    Args:
        words: overrides as on the command line, `"optimizer=adam"` or `"lr=1e-3"`
        config_dir: a folder of words of your own, as `--config-dir`; `conf/` in the working folder is always one
        knobs: overrides as Python values: `lr=1e-3`, `optimizer="adam"`, `**{"model.hidden": [32]}`

    The process is as before afterwards: threads, generators, flags, signal handlers, logging. An interrupt (Ctrl-C, or the
    stop button of a notebook) lets the run save and raises KeyboardInterrupt; a second one stops at once.

    Raises:
        UserError: a mistake in the arguments, or one of its subclasses: DataProblem, NumericalFailure, ResourceProblem

    >>> run = train("optimizer=nesterov", "model=mlp", epochs=1, quiet=True, **{"model.hidden": [8]})
    >>> run.config.model.hidden
    [8]
    """
    started = time.perf_counter()
    from dltrain.config.python_values import override_texts
    from dltrain.run.hosting import hosted

    with hosted():
        from dltrain.commands.train import check, command_line, run_checked, say_unused_sweep
        from dltrain.config.compose import open_catalogue, open_hydra, quote_foreign, say_replaced
        from dltrain.run.hosting import logged, torch_kept

        texts = [quote_foreign(text) for text in override_texts(words, knobs)]
        say_replaced(texts)
        catalogue = open_catalogue(_folder(config_dir))
        hydra = open_hydra(catalogue)
        checked = check(texts, catalogue, hydra)
        say_unused_sweep(checked.composition)
        _check_logging(checked.composition)
        with torch_kept():
            folder = run_checked(checked, hydra, command_line(texts), started, logged)
    return Run(folder, catalogue=catalogue, built_from=(checked.config, checked.door))


def load(
    path: str | Path, *changes: str, device: object = "cpu", config_dir: str | Path | None = None
) -> Run:
    """Return the run of a folder that `train` or the command line made.

    Args:
        path: the run folder, `outputs/NAME/DATE_TIME-xxxx`
        changes: `key=value` for what may differ here, as in `dltrain evaluate RUN key=value`, such as `"trust=[timm]"`
        device: where the model is placed: cpu, cuda, cuda:1, mps or auto
        config_dir: the folder of words that the run was trained with

    Raises:
        CheckpointProblem: the folder is not that of a run

    >>> run = train("model=linear", epochs=1, quiet=True)
    >>> again = load(run.path)
    >>> again.summary["objective"] == run.summary["objective"]
    True
    """
    from dltrain.config.python_values import change_texts

    folder = _run_folder(path)
    run = Run(folder, tuple(change_texts(changes, {})), str(device), _folder(config_dir))
    run.check()
    return run


def sweep(*words: str, config_dir: str | Path | None = None, **knobs: object) -> Sweep:
    """Run a sweep, as `dltrain -m key=a,b …` does: its jobs in processes of their own, several at a time.

    Args:
        words: overrides as on the command line: `"optimizer=sgd,adam"`, `"lr=tag(log,interval(1e-4,1e-1))"`
        config_dir: a folder of words of your own, as `--config-dir`
        knobs: overrides as Python values. A list, a range or an array is an axis; a tuple is one value that is a list

    The same call goes on with an unfinished sweep over the same axes. An interrupt stops the jobs, which save, and raises
    KeyboardInterrupt. Jobs that fail do not raise: see `Sweep.failed`.

    >>> found = sweep("model=linear", lr=[0.1, 0.001], epochs=1, quiet=True)  # doctest: +SKIP
    >>> found.best.config.lr  # doctest: +SKIP
    0.1
    """
    from dltrain.config.python_values import axis_texts, lists_as_axes
    from dltrain.run.hosting import hosted

    folders: list[Path] = []
    with hosted():
        from dltrain.config.compose import open_catalogue, open_hydra, quote_foreign, say_replaced
        from dltrain.sweep.sweep import INTERRUPTED, Source, run_sweep

        texts = [quote_foreign(text) for text in axis_texts(words, knobs)]
        say_replaced(texts)
        _check_sweep(texts)
        place = _folder(config_dir)
        catalogue = open_catalogue(place)
        source = Source(catalogue, open_hydra(catalogue), place)
        with lists_as_axes(knobs):
            code = run_sweep(texts, source, shlex.join(["dltrain", "-m", *texts]), folders.append)
        if code == INTERRUPTED:
            raise KeyboardInterrupt(
                f"the sweep was interrupted; what is done is kept. The same call goes on, or: {typed('-m', assigned('sweep.resume', folders[0]))}"
            )
    return Sweep(folders[0])


def compare(runs: Run | Sweep | str | Path | Iterable[Run | Sweep | str | Path]) -> Table:
    """Return a table with one row for each run: the choices in which they differ, and their results.

    A sweep, or the folder of one, stands for all its runs. Of the keys of a word that not all runs have, only those that were
    given are shown. `objective` compares where `metric` is the same, and is
    computed in the same way (docs/runs.md).

    >>> slow, fast = (train("model=linear", lr=lr, epochs=1, quiet=True) for lr in (1e-4, 1e-2))
    >>> compare([slow, fast])["lr"]
    array([0.0001, 0.01  ])
    """
    from dltrain.run.table import Table
    from dltrain.sweep.outcome.members import Member, rows_of

    several = [runs] if isinstance(runs, Run | Sweep | str | Path) else list(runs)
    chosen = [run for item in several for run in _runs_of(item)]
    if not chosen:
        raise UserError('Name the runs to compare: dltrain.compare(["outputs/NAME/DATE_TIME-xxxx", …])')
    names = _names([run.path for run in chosen])
    rows = rows_of([Member(run.path, name) for run, name in zip(chosen, names, strict=True)])
    kept = [
        key
        for key in dict.fromkeys(k for row in rows for k in row)
        if any(row.get(key) is not None for row in rows)
    ]
    return Table({key: [row.get(key) for row in rows] for key in kept})


class Settings(dict[str, Any]):
    """A plain dict whose keys are attributes as well: `config["optimizer"]["lr"]` is `config.optimizer.lr`."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        super().__init__({k: Settings(v) if isinstance(v, Mapping) else v for k, v in content.items()})

    def __getattr__(self, name: str) -> Any:
        from dltrain.errors import nearest

        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"There is no key {name}.{nearest(name, self)} Keys: {', '.join(self)}"
            ) from None

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self]


class Run:
    """A run folder: its configuration, its results, and the trained model. Made by `train` and `load`."""

    path: Path

    def __init__(
        self,
        path: str | Path,
        changes: tuple[str, ...] = (),
        device: str = "cpu",
        config_dir: str | None = None,
        catalogue: Catalogue | None = None,
        built_from: tuple[Config, Door] | None = None,
    ) -> None:
        self.path = Path(path).absolute()
        self._changes, self._device, self._config_dir = changes, device, config_dir
        self._catalogue, self._built_from = catalogue, built_from

    @property
    def summary(self) -> Settings:
        """Return summary.json: status, objective, scores of the best evaluation and of the test split, versions."""
        from dltrain.storage.summary import read_summary

        return Settings(read_summary(self.path))

    @cached_property
    def config(self) -> Settings:
        """Return config.yaml: every key with its value, and the chosen words under `words`."""
        from dltrain.config.saved import load_bounded

        if not (self.path / "config.yaml").is_file():
            raise CheckpointProblem(f"{self.path} has no config.yaml: its run has not begun.")
        return Settings(load_bounded(self.path / "config.yaml"))

    @property
    def metrics(self) -> Table:
        """Return metrics.csv, one row for each evaluation; `step` is int64, all other columns are float64."""
        from dltrain.run.table import Table
        from dltrain.storage.summary import read_rows

        rows = read_rows(self.path / "metrics.csv")
        return Table.of_rows([{k: int(v) if k == "step" else v for k, v in row.items()} for row in rows])

    @property
    def model(self) -> nn.Module:
        """Return the model with the best weights, in evaluation mode. Raises CheckpointProblem if the run has no best weights."""
        return self._predictor.model

    def predict(
        self,
        data: object = None,
        *,
        split: SplitName | None = None,
        threshold: Mapping[str, float] | None = None,
        batch_size: int | None = None,
        skip_broken: bool = False,
    ) -> Predictions:
        """Predict for new data, or for a split of those of the training: labels and probabilities, or quantities in real units.

        Args:
            data: for a table its columns by name: the path of a file, a DataFrame, a dict of columns, a list of dicts, one
                dict; for other data an array or tensor (N, …) of samples as the dataset has them, before normalization, or the
                path of an .npz file, an image or a folder of images
            split: train, val or test, in place of `data`: `Predictions.where` has its rows or files, `Predictions.truth` its targets
            threshold: of two classes, the probability from which on one of them is the label: `{"yes": 0.3}`
            batch_size: samples at once; None takes that of the run's evaluations, with which the same rows have their outputs
            skip_broken: leave out rows and files that cannot be read, and list them in `Predictions.broken`

        Raises:
            DataProblem: the data are not what the model was trained on; the message has the difference

        >>> import numpy as np
        >>> run = train("model=linear", epochs=1, quiet=True)
        >>> run.predict(np.zeros((2, 1, 8, 8), np.float32)).probabilities.shape
        (2, 10)
        >>> test = run.predict(split="test")
        >>> bool((test.labels == test.truth).mean() == run.summary["test"]["accuracy"])
        True
        """
        from dltrain.commands.asked import decision_of

        member = self._predictor
        chosen = member.threshold(decision_of(threshold))
        found = self._found(member, data, split, batch_size, skip_broken)
        return found if chosen is None else found.decided(chosen)

    def _found(
        self,
        member: Predictor,
        data: object,
        split: SplitName | None,
        batch_size: int | None,
        skip_broken: bool,
    ) -> Predictions:
        if split is None and data is not None:
            return member(data, batch_size, skip_broken)
        if data is not None or split is None:
            raise UserError("Give `predict` either data or a split: train, val or test")
        from dltrain.commands.predict import check_split
        from dltrain.run.hosting import hosted, torch_kept

        name = check_split(split)
        with hosted(), torch_kept():
            from dltrain.run.split_prediction import predict_split

            return predict_split(member, self.path, name, batch_size).found

    def evaluate(
        self, *changes: str, threshold: Mapping[str, float] | None = None, **knobs: object
    ) -> dict[str, dict[str, float]]:
        """Score the best weights, as `dltrain evaluate RUN key=value` does; return the scores by split.

        Args:
            changes: `"evaluation.tta=8"`, `"metrics=[f1,auroc]"`; `"dataset.path=other.csv"` scores all its samples as `all`
            threshold: of two classes, the probability from which on one of them is predicted: `{"yes": 0.3}`
            knobs: the same as Python values

        >>> run = train("model=linear", epochs=1, quiet=True)
        >>> sorted(run.evaluate())
        ['test', 'val']
        """
        from dltrain.config.python_values import change_texts
        from dltrain.run.hosting import hosted, torch_kept

        texts = [*self._changes, *change_texts(changes, knobs)]
        with hosted():
            from dltrain.commands.asked import decision_of
            from dltrain.commands.decided import of_own_data
            from dltrain.commands.evaluate import chosen_metrics, names_other_data, read, without_test
            from dltrain.commands.resume import warn_of_direction
            from dltrain.config import saved

            metrics, texts = chosen_metrics(texts, self._words())
            whole = names_other_data(texts)
            config = read(self.path, self._words(), texts, metrics, whole)
            originals = [saved.read(self.path, self._words(), of_own_data(texts), instead=metrics)]
            door = self._door(config, texts)
            warn_of_direction(self.path, config)
            with torch_kept():
                from dltrain.run.scoring import score_runs

                scores = score_runs(
                    [self.path],
                    [config],
                    [door],
                    whole=whole,
                    originals=originals,
                    decision=decision_of(threshold),
                    without_test=without_test(texts, config),
                )
        return {score.split: score.values for score in scores}

    def export(self, format: str = "onnx", output: str | Path | None = None) -> Path:
        """Write the model for other programs, as `dltrain export RUN` does, and return its folder.

        Args:
            format: onnx, torch (torch.export) or safetensors
            output: the folder to write; RUN/export/FORMAT by default

        Raises:
            UserError: the folder is there already, a package is missing, or the model cannot be recorded
            CheckFailed: the exported model does not agree with the run
        """
        from dltrain.commands.export import Arguments, check, check_format
        from dltrain.run.hosting import hosted, torch_kept

        asked = Arguments(self.path, check_format(format), None if output is None else Path(output))
        check(asked)
        with hosted():
            from dltrain.commands.evaluate import named_copies

            config, door = self._built_from or self._saved(list(self._changes))
            config = named_copies(config, self._words())
            with torch_kept():
                from dltrain.run.export import export

                export(self.path, config, door, asked.form, asked.folder)
        return asked.folder

    def report(self, output: str | Path | None = None, samples: bool = False) -> Path:
        """Write the report of the run, as `dltrain report RUN` does, and return its file.

        Args:
            output: the HTML file to write; report.html in the run folder by default
            samples: whether to add sample inputs and the most confident mistakes as pictures

        Raises:
            UserError: `output` is no HTML file, or `samples` of a run whose inputs are no images
        """
        from dltrain.commands.report import Arguments, output_of, write
        from dltrain.run.hosting import hosted, torch_kept

        file = output_of(self.path, None if output is None else str(output))
        with hosted(), torch_kept():
            write(Arguments(self.path, file, samples, overrides=list(self._changes)), self._words())
        return file

    def check(self) -> None:
        """Raise CheckpointProblem, or UserError, where the folder is not that of a run that can be used here."""
        from dltrain.run.hosting import hosted

        with hosted(alone=False):
            from dltrain.config.values import check_value

            check_value(self._words().knobs["device"], self._device)
            self._saved(list(self._changes))

    @cached_property
    def _predictor(self) -> Predictor:
        from dltrain.run.hosting import hosted, torch_kept

        with hosted():
            from dltrain.commands.decided import check_decided, columns_of
            from dltrain.commands.evaluate import named_copies
            from dltrain.config.keys import OF_PICTURES

            config, door = self._built_from or self._saved(list(self._changes))
            decided = (*columns_of(config.dataset), *OF_PICTURES)
            check_decided(self.path, config, list(self._changes), self._words(), decided)
            config = named_copies(config, self._words())
            with torch_kept():
                from dltrain.run.prediction import predictor

                return predictor(self.path, config, door, self._device)

    def _saved(self, texts: list[str]) -> tuple[Config, Door]:
        """Return the configuration in the folder with changes, and the door for what it may name."""
        from dltrain.config import saved

        config = saved.read(self.path, self._words(), texts)
        return config, self._door(config, texts)

    def _door(self, config: Config, texts: list[str]) -> Door:
        """Return the door for what a configuration may name that was read from the folder with these changes."""
        from dltrain.config.door import door_for_saved

        if self._built_from is not None:
            # trained by this process: its names were typed here
            return self._built_from[1]
        return door_for_saved(config, self._words(), texts)

    def _words(self) -> Catalogue:
        from dltrain.config.compose import open_catalogue

        if self._catalogue is None:
            self._catalogue = open_catalogue(self._config_dir)
        return self._catalogue

    def __repr__(self) -> str:
        summary = self.summary
        facts = [str(summary["status"]).replace("_", " ")]
        if isinstance(objective := summary.get("objective"), float):
            facts.append(f"{summary.get('metric')} {objective:.4g} at epoch {summary.get('best_epoch', 0):g}")
        facts += [f"test {name} {value:.4g}" for name, value in (summary.get("test") or {}).items()]
        return f"<Run {short_path(self.path)}: {', '.join(facts)}>"


class Sweep(Sequence[Run]):
    """The folder of a sweep: its runs in the order of the jobs. Made by `sweep`, or `Sweep(path)`.

    A job that is queued, or was interrupted before it wrote its summary.json, has no run yet and is left out.
    """

    path: Path

    def __init__(self, path: str | Path) -> None:
        from dltrain.storage.summary import read_json

        self.path = Path(path).absolute()
        try:
            self._record = read_json(self.path / RECORD)
        except OSError:
            raise CheckpointProblem(f"{path} is not the folder of a sweep: it has no {RECORD}.") from None
        except ValueError as error:
            raise CheckpointProblem(f"{path}/{RECORD} cannot be read: {str(error)[:200]}") from None

    @cached_property
    def runs(self) -> list[Run]:
        """Return the runs whose job folder has a summary.json, which a job stopped while it starts has not written."""
        folders = job_folders(self.path).values()
        return [Run(folder) for folder in folders if (folder / "summary.json").is_file()]

    @property
    def best(self) -> Run | None:
        """Return the best run of the best configuration; None where no configuration is complete."""
        name = self._record.get("best")
        return Run(self.path / name) if isinstance(name, str) and job_number(name) is not None else None

    @property
    def failed(self) -> list[Run]:
        """Return the runs that failed or diverged; `run.summary["stop_reason"]` says why."""
        from dltrain.storage.summary import UNRANKED

        return [run for run in self.runs if run.summary.get("status") in UNRANKED]

    @cached_property
    def table(self) -> Table:
        """Return results.csv: axes, status, objective, best epoch and scores of each job."""
        from dltrain.run.table import Table
        from dltrain.storage.summary import check_names

        with open(self.path / "results.csv", encoding="utf-8", newline="") as stream:
            table = csv.DictReader(stream)
            try:
                check_names(table.fieldnames or ())
            except ValueError as error:
                raise CheckpointProblem(f"{self.path}/results.csv is no table of a sweep: {error}") from None
            rows = list(table)
        return Table({name: _typed([row[name] for row in rows]) for name in rows[0]} if rows else {})

    def __len__(self) -> int:
        return len(self.runs)

    @overload
    def __getitem__(self, index: int) -> Run: ...

    @overload
    def __getitem__(self, index: slice) -> list[Run]: ...

    def __getitem__(self, index: int | slice) -> Run | list[Run]:
        return self.runs[index]

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def _shown(self) -> Table:
        from dltrain.run.table import Table

        return Table({name: column for name, column in self.table.items() if name not in _LONG})

    def _title(self) -> str:
        return f"Sweep {short_path(self.path)}: {len(self)} runs, {len(self.failed)} failed"

    def __repr__(self) -> str:
        return f"<{self._title()}>\n{self._shown()!r}"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(self._title())}</p>{self._shown()._repr_html_()}"


# Arguments --------------------------------------------------------------------------------------------------------


def _folder(config_dir: str | Path | None) -> str | None:
    return None if config_dir is None else str(config_dir)


def _check_logging(composition: Composition) -> None:
    """Refuse a file's own logging: a function leaves the logging of its caller as it is."""
    from omegaconf import OmegaConf

    node = composition.cfg.hydra
    logs = OmegaConf.to_container(node.job_logging, resolve=False)
    shipped = composition.catalogue.root / "hydra" / "job_logging" / "run_log.yaml"
    if logs != OmegaConf.to_container(OmegaConf.load(shipped), resolve=False) or node.verbose is not False:
        raise UserError(
            "`hydra.job_logging` and `hydra.verbose` have no effect from Python: a run writes its run.log and leaves your "
            "logging as it is.\nLeave them out, and set up Python's logging module"
        )


def _check_sweep(texts: list[str]) -> None:
    for text in texts:
        key, _, value = text.partition("=")
        if key in ("hydra/sweeper", "hydra/launcher"):
            raise UserError(
                f"`{text}`: from Python, sweeps are run by dltrain itself. Leave it out; see sweep=tpe"
            )
        if key == "sweep.dry_run" and value != "false":
            raise UserError(
                f"`{text}` runs nothing, so there is no sweep to return. Print the jobs with: {shlex.join(['dltrain', '-m', *texts])}"
            )


# Tables -----------------------------------------------------------------------------------------------------------


def _runs_of(item: Run | Sweep | str | Path) -> list[Run]:
    if isinstance(item, Run):
        return [item]
    if isinstance(item, Sweep):
        return item.runs
    if not isinstance(item, str | Path):
        raise UserError(f"{item!r} is no run: give a Run, a Sweep, or the path of a run folder")
    return Sweep(item).runs if (Path(item) / RECORD).is_file() else [Run(_run_folder(item))]


def _run_folder(path: Any) -> Path:
    """Return the folder of a run. Raises CheckpointProblem where it is none."""
    folder = named_by_number(Path(path))
    if (folder / RECORD).is_file():
        raise CheckpointProblem(
            f"{folder} is the folder of a sweep. Its runs: dltrain.Sweep({str(folder)!r}); one of them: {folder}/0"
        )
    if not folder.is_dir():
        raise CheckpointProblem(f"{folder} is no folder. Run folders lie in outputs/NAME/DATE_TIME-xxxx.")
    runs = runs_in(folder)
    if runs and not (folder / "config.yaml").is_file():
        raise CheckpointProblem(
            f"{folder} holds {len(runs)} run(s). The newest: dltrain.load({str(runs[-1])!r})"
        )
    return folder


def _names(paths: list[Path]) -> list[str]:
    """Return the paths from their common folder."""
    common = next(
        (folder for folder in paths[0].parents if all(path.is_relative_to(folder) for path in paths)), None
    )
    return [str(path.relative_to(common) if common else path) for path in paths]


def _typed(texts: list[str]) -> Sequence[object]:
    """Return a column of a CSV file as numbers, if all its values are."""
    for kind in (int, float):
        try:
            return [None if text == "" else kind(text) for text in texts]
        except ValueError:
            continue
    return [text or None for text in texts]
