"""`dltrain schema [VERB]`: print the JSON Schema of recipes, for an editor, or of a verb's `--json`."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

from dltrain.config.catalogue import Catalogue
from dltrain.config.json_schema import schema
from dltrain.config.search_path import catalogue_dir, user_dirs
from dltrain.errors import UserError, nearest
from dltrain.verbs import verbs

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
    print(json.dumps(found, indent=1, ensure_ascii=False))
    return 0


def of_verb(verb: str) -> Any:
    """Return the schema of a verb's document. Raises UserError for a verb that has none."""
    known = verbs()
    found = getattr(import_module(known[verb].module), "SCHEMA", None) if verb in known else None
    if found is None:
        raise UserError(
            f"`{verb}` is no verb with a schema.{nearest(verb, known)} That of recipes: dltrain schema"
        )
    return found
