"""The doorway: which command is meant. Nothing here imports torch or Hydra."""

from __future__ import annotations

import errno
import gc
import os
import sys
from typing import TYPE_CHECKING

import dltrain.commands  # noqa: F401 - its time stamp
from dltrain.verbs import verbs

if TYPE_CHECKING:
    from dltrain.errors import UserError


def main(argv: list[str] | None = None) -> None:
    """Run a command line and exit with its code (README.md, "When something is wrong"); print a mistake in a few lines."""
    from dltrain.errors import UserError

    arguments = sys.argv[1:] if argv is None else argv
    try:
        code = dispatch(arguments)
    except UserError as error:
        if os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0"):
            raise
        code = error.exit_code
        refuse(error, "--json" in arguments)
    except KeyboardInterrupt:
        print("dltrain: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(
            f"dltrain: {error.filename or 'the output'} cannot be written: {error.strerror}", file=sys.stderr
        )
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 6
    sys.exit(code)


def refuse(error: UserError, as_json: bool) -> None:
    """Print a mistake: on standard error and, for `--json`, as the document on standard output."""
    from dltrain.errors import printable

    print(f"dltrain: {printable(error)}", file=sys.stderr)
    if as_json:
        import json

        print(json.dumps({"error": str(error), "exit_code": error.exit_code}))


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
