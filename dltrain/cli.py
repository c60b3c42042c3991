"""The doorway: which command is meant. Nothing here imports torch or Hydra."""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from contextlib import suppress

import dltrain.commands  # noqa: F401 - its time stamp
from dltrain.errors import DENIED, DISK, ResourceProblem, UserError, denied, is_out_of_memory, largest_request
from dltrain.text import say
from dltrain.verbs import verbs


def main(argv: list[str] | None = None) -> None:
    """Run a command line and exit with its code (README.md, "When something is wrong"); print a mistake in a few lines."""
    arguments = sys.argv[1:] if argv is None else argv
    open_closed_streams()
    # the collection at the end of the process would look at every object of torch: 0.6 s of CPU
    atexit.register(gc.freeze)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # letters that its encoding does not have become `?`
            stream.reconfigure(errors="replace")
    try:
        check_working_folder()
        code = dispatch(arguments)
    except UserError as error:
        if full_error():
            raise
        code = error.exit_code
        refuse(error, "--json" in arguments)
    except KeyboardInterrupt:
        tell("interrupted")
        code = 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno not in DISK | DENIED or full_error():
            raise
        if error.errno in DENIED and error.filename:
            refuse(denied(error), "--json" in arguments)
            sys.exit(ResourceProblem.exit_code)
        tell(f"{error.filename or 'the output'} cannot be written: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 6
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        tell(f"The memory is not enough. {largest_request(error)}".rstrip())
        code = 6
    sys.exit(code)


def full_error() -> bool:
    """Return whether tracebacks are asked for, by the variable of Hydra."""
    return os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")


def open_closed_streams() -> None:
    """Open what the shell closed, as `>&-` does: the next file that is opened would get its number, and what is printed."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # the lowest number that is free
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)


def tell(text: str) -> None:
    """Print a line on standard error; where that is a full disk, the exit code is what remains to say it."""
    with suppress(OSError):
        say(text)


def refuse(error: UserError, as_json: bool) -> None:
    """Print a mistake: on standard error and, for `--json`, as the document on standard output."""
    tell(str(error))
    if as_json and not error.is_printed:
        import json

        print(json.dumps({"error": str(error), "exit_code": error.exit_code}))


def check_working_folder() -> None:
    """Raise UserError where the working folder was deleted: no path below it can be read."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("The working folder was deleted. Go to one that is there: cd FOLDER") from None


def dispatch(arguments: list[str]) -> int:
    """Run the command that the arguments name; the default is to train."""
    known = verbs()
    verb = arguments[0] if arguments and arguments[0] in known else None
    if {"-h", "--help"} & set(arguments):
        from dltrain.commands.help import print_help

        return print_help(verb, arguments)
    if "--version" in arguments:
        import dltrain

        print(f"dltrain {dltrain.__version__}")
        return 0
    # imports create objects that stay: collecting garbage among them takes a fifth of the time
    gc.disable()
    try:
        from importlib import import_module

        run = import_module(known[verb].module if verb else "dltrain.commands.train").run
    finally:
        gc.enable()
    return int(run(arguments[1:] if verb else arguments))
