"""The private names of Hydra that are used, in one place: a new version of Hydra may change them.

`tests/config/test_hydra_private.py` states what each of them is used for.
"""

from __future__ import annotations

from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser

__all__ = ["Callbacks", "ConfigLoaderImpl", "Hydra", "create_config_search_path", "get_args_parser"]
