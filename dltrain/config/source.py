"""Hydra's view of the catalogue: words with all keys of their signatures, as if their files held them.

This is the only use of Hydra's plugin interface: a config source for the scheme `dltrain`, one for each folder of words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from dltrain.config.catalogue import Catalogue, Word, read_header
from dltrain.config.groups import LIST_GROUPS, group_of
from dltrain.config.yaml_files import read_yaml

SCHEME = "dltrain"
# the catalogue that the sources read: Hydra constructs them from a path alone
_opened: list[Catalogue] = []


def serve(catalogue: Catalogue) -> None:
    """Let Hydra read this catalogue from now on."""
    _opened[:] = [catalogue]
    Plugins.instance().register(CatalogueSource)


class CatalogueSource(ConfigSource):
    """One folder of words."""

    @staticmethod
    def scheme() -> str:
        return SCHEME

    @property
    def folder(self) -> Path:
        return Path(self.path)

    def word(self, config_path: str) -> Word | None:
        """Return the word of a path such as `optimizer/adam`, if it belongs to this folder."""
        folder, _, name = config_path.removesuffix(".yaml").rpartition("/")
        word = _opened[0].words.get(group_of(folder), {}).get(name)
        return word if word is not None and self.folder in word.file.parents else None

    def file(self, config_path: str) -> Path:
        return self.folder / self._normalize_file_name(config_path)

    def load_config(self, config_path: str) -> ConfigResult:
        word = self.word(config_path)
        catalogue = _opened[0]
        if word is not None:
            content, package = configuration_of(word)
        elif config_path.removesuffix(".yaml") == "config" and self.folder == catalogue.root:
            content, package = main_configuration(catalogue), None
        elif self.file(config_path).is_file():
            text, content = read_yaml(self.file(config_path))
            package = read_header(text)[0]
        else:
            raise ConfigLoadError(f"Config not found: {self.file(config_path)}")
        # Hydra takes entries with `override` at the end only
        content["defaults"] = sorted(content.get("defaults") or [], key=_is_override)
        return ConfigResult(self.provider, self.full_path(), OmegaConf.create(content), {"package": package})

    def available(self) -> bool:
        return self.folder.is_dir()

    def is_group(self, config_path: str) -> bool:
        return (self.folder / config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        return self.word(config_path) is not None or self.file(config_path).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        folder = self.folder / config_path
        names: set[str] = set()
        if results_filter in (None, ObjectType.GROUP):
            names |= {item.name for item in folder.iterdir() if item.is_dir()}
        if results_filter in (None, ObjectType.CONFIG):
            names |= {item.stem for item in folder.glob("*.yaml")}
            words = _opened[0].words.get(group_of(config_path), {})
            names |= {name for name in words if self.word(f"{config_path}/{name}") is not None}
        return sorted(names)


def _is_override(entry: Any) -> bool:
    return isinstance(entry, dict) and any("override" in str(key).split() for key in entry)


def configuration_of(word: Word) -> tuple[dict[str, Any], str | None]:
    """Return what Hydra composes for a word, and its package."""
    whole = word.configuration()
    everywhere = word.is_global or bool(word.knobs)
    content: dict[str, Any] = whole if everywhere else whole[word.group]
    if word.defaults:
        content = {"defaults": list(word.defaults), **content}
    return content, "_global_" if everywhere else word.package


def main_configuration(catalogue: Catalogue) -> dict[str, Any]:
    """Return the primary configuration: defaults list and Hydra's node of config.yaml, and every knob with its default."""
    content: dict[str, Any] = {"defaults": catalogue.settings["defaults"]}
    for path, knob in catalogue.knobs.items():
        *parents, last = path.split(".")
        node = content
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = knob.value
    rest = {k: v for k, v in catalogue.settings.items() if k != "defaults"}
    return content | {group: {} for group in LIST_GROUPS} | rest
