"""`dltrain schema`: print the JSON Schema of recipes, for an editor."""

from __future__ import annotations

import json

from dltrain.config.catalogue import Catalogue
from dltrain.config.json_schema import schema
from dltrain.config.search_path import catalogue_dir, user_dirs
from dltrain.errors import UserError


def run(arguments: list[str]) -> int:
    """Print the schema of the shipped words and of those in the working folder's `conf/`."""
    if arguments:
        raise UserError(
            f"`dltrain schema` takes no argument such as {arguments[0]}. Write: dltrain schema > dltrain.schema.json"
        )
    print(json.dumps(schema(Catalogue(catalogue_dir(), user_dirs())), indent=1, ensure_ascii=False))
    return 0
