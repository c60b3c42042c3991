"""The manual: its commands are composed, its wrong commands are refused as shown, its site is built and every link resolves.

README.md and docs/quickstart.md are run by test_readme.py, docs/runs.md by tests/runs; the commands of the pages below are composed,
a part of them by default and the others with `pytest -m ci`. A verb's command reads a folder of the reader's: its options are compared
with its help.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import Run, every, run_folders
from test_readme import commands_of, files  # noqa: F401  (a fixture)

import dltrain as package
from dltrain.commands.launch import BACKEND, launched
from dltrain.commands.train import check
from dltrain.config.compose import open_catalogue, open_hydra
from dltrain.errors import UserError
from dltrain.verbs import verbs

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import build  # noqa: E402

COMPOSED = (
    "index",
    "tutorial",
    "errors",
    "coming_from",
    "sweeps",
    "metrics",
    "loggers",
    "finetuning",
    "images",
)
# recipes that a page writes itself → one that is there
WORDS = {"cifar": "digits_mlp", "best": "digits_mlp", "cluster": "digits_mlp", "search": "digits_mlp"}


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def shown_commands(text: str) -> list[str]:
    """Return the commands of a page's bash blocks, and those in the cells of its tables; not those it shows as wrong."""
    joined = re.sub(r"\\\n\s*", "", text)
    in_cells = [
        code
        for line in joined.splitlines()
        if line.startswith("|")
        for code in re.findall(r"`(dltrain [^`]+)`", line)
    ]
    return [c for c in commands_of(joined) + in_cells if c.split()[0] == "dltrain" and "…" not in c]


COMMANDS = sorted(
    {command for name in COMPOSED for command in shown_commands(page(name)) if "sweep.resume" not in command}
)
# command → message
WRONG = dict(
    re.findall(r"```text\n\$ (dltrain [^\n]*)\n(?:✗[^\n]*\n)?dltrain: (.*?)\n```", page("errors"), re.DOTALL)
)


def arguments_of(command: str) -> list[str]:
    arguments = shlex.split(command)[1:]
    if any(text.startswith("model.widths") for text in arguments):
        # the recipe of the tutorial has this model
        arguments.insert(1, "model=speed_cnn")
    for ours, stand_in in WORDS.items():
        arguments = [re.sub(rf"experiment={ours}$", f"experiment={stand_in}", text) for text in arguments]
    return arguments


@pytest.mark.parametrize("command", every(4, COMMANDS))
def test_a_command_is_composed(dltrain, workdir, capsys, command):
    arguments = arguments_of(command)
    if arguments[:1] and arguments[0] in verbs():
        assert dltrain(arguments[0], "--help") == 0
        text = capsys.readouterr().out + "--json --help"
        assert [a for a in arguments[1:] if a.startswith("--") and a not in text] == []
        return
    arguments = [text for text in arguments if text not in ("--help", "--cfg", "job")]
    try:
        if "-m" in arguments:
            assert dltrain(*arguments, "sweep.dry_run=true") == 0
        else:
            catalogue = open_catalogue()
            elsewhere = launched(arguments, False, sorted(catalogue.usable(BACKEND)))
            # what `launch` says stands in the sweep of one job
            arguments = [text for text in arguments if elsewhere is None or text in elsewhere]
            assert check(arguments, catalogue, open_hydra(catalogue)).config.seed is not None
    except UserError as refused:
        # composed whole; only the data, a run folder or a package of an extra are not there
        if not re.search(r"pip install|no such file|is no folder|does not exist|not found", str(refused)):
            raise


# what a test has not: a run of the reader's, a cluster, a download, a package of an extra, a module or a recipe of the reader's
NOT_HERE = re.compile(
    r"RUN|slurm|weights=DEFAULT|wandb|mlflow|trust=|fashion_mnist|cifar|experiment=(best|cluster|search|fine_tune)|labels=|debug=overfit|sweep\.resume|mnist|old\.npz|dry_run"
)
TRAIN = [
    c
    for c in COMMANDS
    if c.split()[1:2] and c.split()[1] not in verbs() and not NOT_HERE.search(c) and "--" not in c
]


@pytest.mark.slow
@pytest.mark.parametrize("command", TRAIN)
def test_a_command_trains(dltrain, workdir, files, command):  # noqa: F811
    arguments = [
        text for text in arguments_of(command) if not re.match(r"(epochs|steps|sweep\.trials)=", text)
    ]
    (workdir / "houses.csv").write_text(
        "id,area,age,price\n" + "".join(f"{i},{50 + i % 9},{i % 7},{900 + i}\n" for i in range(60))
    )
    # a warm-up must end before the run does
    warmup = max([int(n) for n in re.findall(r"warmup_steps=(\d+)", command)], default=0)
    few = ["sweep.trials=2"] if any(text.startswith("sweep=") for text in arguments) else []
    assert (
        dltrain(*arguments, *few, *([] if "debug=" in command else [f"steps={warmup + 2}"]), "workers=0") == 0
    )
    folders = run_folders(workdir)
    assert folders or "dry_run" in command
    assert {Run(folder).summary["status"] for folder in folders} <= {"completed", "early_stopped"}


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_command_is_refused_as_shown(dltrain, workdir, command):
    (workdir / "houses.csv").write_text("id,area,age,city,price\n1,50,10,Oslo,900\n")
    (workdir / "outputs" / "digits_mlp").mkdir(parents=True)
    # the shell has cut the words apart where a space is not quoted
    with pytest.raises(UserError) as refused:
        dltrain(*shlex.split(command)[1:])
    assert str(refused.value).splitlines() == WRONG[command].splitlines()


def test_the_pages_have_commands():
    assert len(WRONG) == 7
    assert len(COMMANDS) > 80
    assert {"evaluate", "predict", "export", "report", "resume"} <= {
        c.split()[1] for c in COMMANDS if " " in c
    }


# The site -----------------------------------------------------------------------------------------------------------


class Links(HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {values[name] or "" for name in ("id", "name") if name in values}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"] or "")
        self.loaded += [values[n] or "" for n in ("src", "data-src") if n in values]
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload", "preconnect"):
            self.loaded.append(values["href"] or "")


def lost(pages: dict[str, Links], site: Path) -> list[str]:
    """Return the links and files that a site lacks: `page -> target`."""
    found = []
    for name, read in pages.items():
        for target in read.links + read.loaded:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (site / name).parent / unquote(parts.path) if parts.path else site / name
            if file.is_dir():
                file = file / "index.html"
            key = file.resolve().relative_to(site.resolve()).as_posix() if file.exists() else None
            if key is None or (
                parts.fragment and key in pages and unquote(parts.fragment) not in pages[key].anchors
            ):
                found.append(f"{name} -> {target}")
    return found


@pytest.mark.ci
@pytest.mark.skipif(find_spec("zensical") is None, reason="the extra docs is not installed")
def test_the_site_is_built_without_a_warning_and_every_link_resolves():
    done = subprocess.run([sys.executable, "docs/build.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout + done.stderr
    site = ROOT / "site"
    pages = {
        file.relative_to(site).as_posix(): Links(file.read_text(encoding="utf-8"))
        for file in site.rglob("*.html")
        if file.name != "404.html"
    }
    assert len(pages) > 45
    assert lost(pages, site) == []
    assert {url for read in pages.values() for url in read.loaded if urlsplit(url).netloc} == set()
    texts = {name: (site / name).read_text(encoding="utf-8") for name in pages}
    assert "v ← β₂v + (1−β₂)g²" in re.sub(r"<[^>]*>", "", texts["methods/optimizer.html"])
    assert "```" not in re.sub(r"<(pre|code).*?</\1>", "", "".join(texts.values()), flags=re.DOTALL)


def test_an_unknown_argument_builds_nothing(monkeypatch, capsys):
    monkeypatch.setattr(build, "stage", lambda folder: pytest.fail("it builds"))
    with pytest.raises(SystemExit) as refused:
        build.main(["--srve"])
    assert refused.value.code == 2
    assert "unrecognized arguments: --srve" in capsys.readouterr().err


def test_the_reference_has_every_public_name():
    heads = re.findall(r"^##+ (?:dltrain\.)?(\w+)$", "\n".join(build.reference()), re.MULTILINE)
    assert set(package.__all__) - {"UserError", "errors"} <= set(heads)


def test_a_new_public_function_is_in_the_reference(monkeypatch):
    monkeypatch.setattr(package, "__all__", [*package.__all__, "best_jobs"])
    monkeypatch.setitem(package._PLACES, "best_jobs", "dltrain.commands.configurations")
    assert "### dltrain.best_jobs" in list(build.reference())


def test_a_lost_link_is_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h2 id="x"></h2><a href="#x"></a><a href="b.html#z"></a><img src="p.png">'
    )
    (tmp_path / "b.html").write_text('<a href="a.html#x"></a><a href="https://example.org"></a>')
    pages = {name: Links((tmp_path / name).read_text()) for name in ("a.html", "b.html")}
    assert lost(pages, tmp_path) == ["a.html -> b.html#z", "a.html -> p.png"]


def test_the_pictures_are_small():
    stored = [file for file in (ROOT / "docs" / "pictures").iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in stored) <= 600_000
    shown = "".join(
        file.read_text(encoding="utf-8") for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    )
    assert [file.name for file in stored if file.name not in shown and file.name != "favicon.png"] == []
