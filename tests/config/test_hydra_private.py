"""What breaks when a new version of Hydra changes a private name: each is used in one module, for one purpose."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import dltrain
from dltrain.config import hydra_private

USES = {  # name → the parameters or methods that are relied on, and what for
    "Hydra": (["compose_config", "show_cfg", "show_info", "shell_completion", "hydra_help"],
              "composing without hydra.main, and Hydra's own flags"),
    "ConfigLoaderImpl": (["load_configuration"], "checking Hydra's node of every configuration that is composed"),
    "Callbacks": (["on_run_start", "on_run_end"], "callbacks of a single run"),
    "create_config_search_path": (["search_path_dir"], "the folders of words, with Hydra's own schemas last"),
    "get_args_parser": ([], "the options --cfg, --config-dir, --multirun and so on"),
}  # fmt: skip


@pytest.mark.parametrize("name", hydra_private.__all__)
def test_a_private_name_is_what_it_was(name):
    needed, purpose = USES[name]
    found = getattr(hydra_private, name)
    have = dir(found) if inspect.isclass(found) else list(inspect.signature(found).parameters)
    assert set(needed) <= set(have), f"{name}: {purpose}"


def test_the_parser_has_the_options_that_are_read():
    options = {action.dest for action in hydra_private.get_args_parser()._actions}
    assert {"overrides", "cfg", "resolve", "package", "multirun", "config_path", "config_name", "config_dir", "info",
            "shell_completion", "hydra_help", "experimental_rerun"} <= options  # fmt: skip


def test_private_names_stay_in_one_module():
    root = Path(dltrain.__file__).parent
    users = {
        str(f.relative_to(root))
        for f in root.rglob("*.py")
        if "from hydra._internal" in f.read_text(encoding="utf-8")
    }
    assert users <= {"config/hydra_private.py", "config/hydra_node.py"}
