"""`dltrain init [FOLDER]`: write a small project to begin with: model, data, metric, recipe and tests."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from dltrain.commands.asked import TEXT, TEXTS, document_schema, print_json, read_options
from dltrain.errors import DENIED, DISK, ResourceProblem, UserError, typed
from dltrain.screen.table import write
from dltrain.text import first_line, short_path

HELP = """
    FOLDER is created with its parents; the default is the working folder. It must be empty except for hidden files such as .git, and
    nothing is replaced. The project trains at once: its README.md has the commands, and says what each file is for.

  --json    one JSON document on standard output

Examples
  dltrain init my_project
  cd my_project && dltrain experiment=spirals
  dltrain init
"""
SCHEMA = document_schema(folder=TEXT, files=TEXTS, commands=TEXTS)
# what to type next, in the folder
COMMANDS = ("dltrain experiment=spirals", "pytest")


def run(arguments: list[str]) -> int:
    """Write the project, and print its files and what to type next."""
    rest, given = read_options("init", arguments)
    if len(rest) > 1:
        raise UserError(f"`{rest[1]}`: init takes one folder: {typed('init', rest[0])}")
    folder = Path(rest[0] if rest else ".")
    files = write_project(folder)
    place = [] if folder.resolve() == Path.cwd() else [shlex.join(["cd", short_path(folder)])]
    if "--json" in given:
        print_json({"folder": str(folder), "files": list(files), "commands": [*place, *COMMANDS]})
        return 0
    longest = max(map(len, files))
    for name, about in files.items():
        write(f"  {name:<{longest}}  {about}")
    write(f"{len(files)} files in {folder.resolve()}. Train it:\n")
    write(" && ".join([*place, COMMANDS[0]]))
    return 0


def write_project(folder: Path) -> dict[str, str]:
    """Write the files of the project into a folder, all or none; return their names, each with its first line.

    Raises UserError where the folder is not empty, is a file, or cannot be made; ResourceProblem where its permissions forbid
    it, and by way of OSError for a full disk.
    """
    check_empty(folder)
    contents = dict(project())
    made: list[Path] = []
    try:
        for name, content in contents.items():
            file = folder / name
            for parent in [p for p in reversed(file.parents) if not p.exists()]:
                parent.mkdir()
                made.append(parent)
            # "x": nothing that appeared meanwhile is replaced
            with open(file, "xb") as stream:
                made.append(file)
                stream.write(content)
    except BaseException as error:
        remove(made)
        if isinstance(error, OSError) and error.errno not in DISK:
            kind = ResourceProblem if error.errno in DENIED else UserError
            raise kind(
                f"`{folder}` cannot be written ({error.strerror}). Name another folder: dltrain init FOLDER"
            ) from None
        raise
    return {name: first_line(content.decode()).strip('#" .') for name, content in contents.items()}


def project() -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each file of the project."""
    root = project_dir()
    for file in sorted(root.rglob("*")):
        inner = file.relative_to(root)
        if file.is_file() and not any(
            part.startswith((".", "__pycache__", "outputs")) for part in inner.parts
        ):
            yield inner.as_posix(), file.read_bytes()


def project_dir() -> Path:
    """Return the project that is copied: inside the package in a wheel, in examples/ in a checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "project"
    return shipped if shipped.is_dir() else package.parent / "examples" / "project"


def check_empty(folder: Path) -> None:
    """Raise UserError where a folder holds more than hidden files, or where a file is in the way."""
    for place in (folder, *folder.parents):
        if os.path.lexists(place) and not place.is_dir():
            raise UserError(f"`{place}` is a file. Name a folder: dltrain init FOLDER")
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(
            f"`{folder}` cannot be read ({error.strerror}). Name another folder: dltrain init FOLDER"
        ) from None
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise UserError(
            f"`{folder}` is not empty: it holds {', '.join(names[:3])}{more}. Name a new folder: {typed('init', folder / 'my_project')}"
        )


def remove(made: Sequence[Path]) -> None:
    """Remove files and folders, the newest first."""
    for path in reversed(made):
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()
