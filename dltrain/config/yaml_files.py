"""Reading of YAML files: bounds are checked before parsing, and errors name file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dltrain.config.bounds import SafeLoader, check_bounds
from dltrain.errors import UserError


def read_yaml(file: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of a YAML file and its mapping ({} for an empty file).

    Raises UserError for a file that cannot be read, is not YAML, is too large, too deep, or holds something else.
    """
    try:
        check_bounds(file)
        text = file.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}, line {mark.line + 1}" if mark else str(file)
        raise UserError(f"{where}: this is not YAML: {error.problem}. Correct that line.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} cannot be read as YAML: {reason}") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    if content is None:
        return text, {}
    if not isinstance(content, dict):
        raise UserError(f"{file} holds a {type(content).__name__}; it must hold keys with their values.")
    return text, {str(key): value for key, value in content.items()}


def place(file: Path, name: str) -> str:
    """`FILE, line N` of the first scalar of a YAML file that is `name`; the file alone where there is none."""
    try:
        events = yaml.parse(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        line = next(e.start_mark.line for e in events if isinstance(e, yaml.ScalarEvent) and e.value == name)
    except (OSError, yaml.YAMLError, StopIteration):
        return str(file)
    return f"{file}, line {line + 1}"
