"""`dltrain schema [VERB]`: print the JSON Schema of recipes, for an editor, or of a verb's `--json`."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

from dltrain.config.catalogue import Catalogue
from dltrain.config.json_schema import schema
from dltrain.config.search_path import catalogue_dir, user_dirs
from dltrain.errors import UserError, nearest
from dltrain.verbs import Verb, verbs

HELP = """
Examples
  dltrain schema > dltrain.schema.json
  dltrain schema runs                    of the document of: dltrain runs --json
"""


def run(arguments: list[str]) -> int:
    """Print the schema of the shipped words and of those in the working folder's `conf/`, or that of a verb."""
    if len(arguments) > 1:
        raise UserError("`dltrain schema` takes one verb, or nothing: dltrain schema > dltrain.schema.json")
    found = of_verb(arguments[0]) if arguments else schema(Catalogue(catalogue_dir(), user_dirs()))
    print(json.dumps(found, indent=1))
    return 0


def of_verb(verb: str) -> Any:
    """Return the schema of a verb's document. Raises UserError for a verb that has none."""
    known = verbs()
    if verb in known and (found := _schema_of(known[verb])) is not None:
        return found
    others = [name for name, other in known.items() if _schema_of(other) is not None]
    raise UserError(
        f"`{verb}` is no verb with a schema.{nearest(verb, others)} Verbs with one: {', '.join(others)}. "
        "The schema of recipes: dltrain schema"
    )


def _schema_of(verb: Verb) -> Any:
    return getattr(import_module(verb.module), "SCHEMA", None)
