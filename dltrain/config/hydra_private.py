"""The names of Hydra that are not public API, in one place: what a new version of Hydra may break.

`tests/config/test_hydra_private.py` says for each of them what it is used for and what breaks without it.
"""

from __future__ import annotations

from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser

__all__ = ["Callbacks", "ConfigLoaderImpl", "Hydra", "create_config_search_path", "get_args_parser"]
