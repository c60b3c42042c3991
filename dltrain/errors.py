"""The errors of users: a message of one to three lines and an exit code, without a traceback."""

from __future__ import annotations

import errno
import os
import re
import shlex
import textwrap
from collections.abc import Iterable
from pathlib import Path

from dltrain.text import close, shown

# errors of a disk without space, of one on which nothing can be written, and of any write that fails because of
# the disk, its network or the number of open files
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
UNWRITABLE = FULL | {errno.EROFS}
DISK = UNWRITABLE | {errno.EFBIG, errno.EIO, errno.ESTALE, errno.EBUSY, errno.EMFILE, errno.ENFILE}
# of files and folders of another user
DENIED = frozenset({errno.EACCES, errno.EPERM})
# what was not even opened may be whole
UNASKED = DENIED | {errno.EMFILE, errno.ENFILE}
# letters of a command line in the record of a run
_LONGEST_COMMAND = 50_000


class UserError(Exception):
    """A mistake that the user can correct; the message names key, value, rule and cure.

    As text it is fit for a terminal, whatever the value is.
    """

    exit_code = 2
    # whether the command printed the failure already, with --json as its document
    is_printed = False

    def __str__(self) -> str:
        return shown(super().__str__())


class Unfit(ValueError):
    """A value of a part that does not fit the run; `cure` is a KEY=VALUE of the same part that does."""

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(message)
        self.cure = cure


class DataProblem(UserError):
    """The data are missing, damaged or do not fit what was asked."""

    exit_code = 3


class CheckpointProblem(UserError):
    """A run folder or checkpoint cannot be used as asked."""

    exit_code = 4


class NumericalFailure(UserError):
    """The loss or a gradient stopped being finite."""

    exit_code = 5


class ResourceProblem(UserError):
    """Disk or memory gave out."""

    exit_code = 6


def denied(error: OSError) -> ResourceProblem:
    """Return the refusal for a file that the user may not read or write."""
    place = Path(error.filename2 or error.filename or ".")
    # a file that cannot be made: the folder refuses it
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    return ResourceProblem(
        f"{place} cannot be read or written ({error.strerror}). To see who may: ls -ld {shlex.quote(str(place))}"
    )


class FolderInUse(UserError):
    """Another process works in this run folder."""

    exit_code = 9


class CheckFailed(UserError):
    """A check of a result failed."""

    exit_code = 10


class FindingsFailure(CheckFailed):
    """A check failed, and the command printed its findings."""

    is_printed = True


def typed(*words: object) -> str:
    """Return a command line of dltrain as the shell takes it: a folder with a space is quoted.

    >>> typed("resume", "my runs/a")
    "dltrain resume 'my runs/a'"
    """
    return shlex.join(["dltrain", *map(str, words)])


def typed_on_one_line(*words: object) -> str:
    r"""Return a command line as `typed` does, with what is not printable written in the escapes of bash, zsh and ksh.

    >>> print(typed_on_one_line("restore", "my runs/a", "new\nline/it's"))
    dltrain restore 'my runs/a' $'new\x0aline/it\'s'
    """
    return " ".join(
        shlex.quote(text) if text.isprintable() else _with_escapes(text)
        for text in ("dltrain", *map(str, words))
    )


def _with_escapes(text: str) -> str:
    letters = (
        f"\\{letter}" if letter in "\\'"
        else letter if letter.isprintable()
        else "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))
        for letter in text
    )  # fmt: skip
    return f"$'{''.join(letters)}'"


def split_command(command: object) -> list[str]:
    """Return the words of a recorded command line. Raises ValueError for one that is damaged, or longer than a shell's.

    The time of shlex grows with the square of the length.
    """
    text = str(command)
    if len(text) > _LONGEST_COMMAND:
        raise ValueError(f"a command of {len(text):,} letters")
    return shlex.split(text)


def assigned(key: str, value: object) -> str:
    """Return the override that sets a text, in quotes where Hydra's grammar needs them; `typed` quotes it for the shell.

    >>> assigned("sweep.resume", "runs/a"), assigned("notes", "a (b)")
    ('sweep.resume=runs/a', 'notes="a (b)"')
    """
    text = str(value)
    return f"{key}={text if re.fullmatch(r'[A-Za-z0-9_./@:-]+', text) else in_quotes(text)}"


def assigned_list(key: str, values: Iterable[str]) -> str:
    """Return the override that sets a list of texts, in quotes where Hydra's grammar would read another text or none.

    >>> assigned_list("metrics.cohen_kappa.order", ["low", "very high", "true", "1"])
    'metrics.cohen_kappa.order=[low,"very high","true","1"]'
    """
    plain = re.compile(r"(?!(?:true|false|null|nan|inf)$)[A-Za-z_][A-Za-z0-9_-]*", re.IGNORECASE)
    return f"{key}=[{','.join(text if plain.fullmatch(text) else in_quotes(text) for text in values)}]"


def in_quotes(text: str) -> str:
    """Return a text in quotes as Hydra's grammar reads it, where a backslash is escaped before a quote only."""
    # the backslashes are looked at once, from the first one
    inner = re.sub(r'(?<!\\)(\\*)("|\Z)', lambda found: found[1] * 2 + found[2].replace('"', '\\"'), text)
    return f'"{inner}"'


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: of the GPU, of Python, or of torch's allocator on the CPU (a plain RuntimeError)."""
    words = (
        "not enough memory",
        "can't allocate memory",
        "Cannot allocate memory",
        "Storage size calculation overflowed",
    )
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and any(text in str(error) for text in words))
    )


def largest_request(error: BaseException) -> str:
    """Return the number of bytes that could not be allocated, as a sentence; empty if the error has no number."""
    found = re.search(r"allocate (\d+) bytes", str(error))
    return f"{int(found[1]) / 2**30:,.1f} GiB were requested at once." if found else ""


# names in other programs of what is a word here
SYNONYMS = {"gpu": "cuda"}


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word closest to a misspelt one, as the end of a sentence: ' Did you mean `adam`?' or ''."""
    known = list(known)
    wanted = _letters(SYNONYMS.get(word.lower(), word))
    same = [name for name in known if _letters(name) == wanted]
    found = same or _close(word, known)
    return f" Did you mean `{found[0]}`?" if found else ""


def nearest_path(path: Path) -> str:
    """Return the path closest to one that does not exist, by the names beside it, as the end of a sentence; or ''."""
    if os.path.lexists(path):
        return ""
    missing = path
    while not missing.parent.exists() and missing.parent != missing:
        missing = missing.parent
    try:
        found = close(missing.name, os.listdir(missing.parent))
    except OSError:
        return ""
    return f" Did you mean `{missing.parent / found[0] / path.relative_to(missing)}`?" if found else ""


def _letters(name: str) -> str:
    """Return a name without case and hyphens: AdamW is adamw, weight-decay is weight_decay."""
    return name.lower().replace("-", "_")


def _close(word: str, known: list[str]) -> list[str]:
    """Return the names most similar to a word, the closest first."""
    head, _, tail = word.rpartition(".")
    beside = [name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == head]
    if head and beside:  # beside keys of the same group only the last part tells
        return [f"{head}.{match}" for match in _close(tail, beside)]
    matches = close(word, known, 3, 0.55)
    matches.sort(key=lambda match: sorted(match) != sorted(word))  # letters in the wrong order come first
    if not matches:  # lr for learning_rate: the last part of a dotted key may still be near
        tails = {name.rsplit(".", 1)[-1]: name for name in known}
        matches = [tails[m] for m in close(tail, tails, 1, 0.7)]
    return matches


def listing(label: str, names: Iterable[str]) -> str:
    """Return all names, as at most two lines of a message."""
    text = f"{label}: {', '.join(sorted(names)) or 'none'}"
    return "\n".join(textwrap.wrap(text, 150, max_lines=2, placeholder=" … (all of them: dltrain --help)"))
