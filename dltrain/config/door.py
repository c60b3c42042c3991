"""Trusted construction of objects from nodes of the configuration.

A node names what it builds by `_target_`. Three kinds of names are allowed: those of the shipped catalogue, code in the
user's own working folder, and modules that the user trusts by name on the command line (`trust=[timm]`). All other names
are refused before anything is imported, torch included, and the imported object is checked once more. The file is long because
the whole way from a name to an object, and what went wrong on it, is read as one.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import json
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from dltrain.config.catalogue import Catalogue, Word
from dltrain.config.declarations import check_installed
from dltrain.config.groups import BY_NAME, LIST_GROUPS, Group
from dltrain.config.schema import Config, Node
from dltrain.config.signature import is_readable
from dltrain.errors import Unfit, UserError, listing, nearest

# Targets of shipped words of earlier versions, which saved configurations may still name: the words of each, by the keys that
# tell them apart.
_FORMER_WORDS: dict[str, dict[str, frozenset[str]]] = {
    **{
        f"torch.optim.{name}": {name.lower(): frozenset()}
        for name in ("Adadelta", "Adafactor", "Adagrad", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop")
    },
    "torch.optim.Adam": {"adam": frozenset(), "amsgrad": frozenset({"amsgrad"})},
    "torch.optim.SGD": {
        "sgd": frozenset(), "gd": frozenset(), "momentum": frozenset({"momentum", "dampening"}),
        "nesterov": frozenset({"momentum", "nesterov"}),
    },
}  # fmt: skip
FORMER = frozenset(_FORMER_WORDS)
_TELLING = frozenset().union(*(keys for words in _FORMER_WORDS.values() for keys in words.values()))


def all_targets(catalogue: Catalogue) -> set[str]:
    """Return the targets of all present words, the user's own included: the names that a saved configuration may contain."""
    words = (word for group in catalogue.words.values() for word in group.values())
    return {word.target for word in words if word.target} | FORMER


def shipped_targets(catalogue: Catalogue) -> set[str]:
    """Return the targets of the shipped catalogue alone."""
    words = (word for group in catalogue.words.values() for word in group.values())
    return {word.target for word in words if word.target and catalogue.root in word.file.parents} | FORMER


# packages of the shipped catalogue's targets
OURS = ("dltrain.", "torch.optim.")
# classes of a library that a node of this group may name: metrics of classes and of regressions
_LIBRARY = {"metrics": re.compile(r"torchmetrics\.(?:(?:classification|regression)\.)?[A-Z]\w*")}


def of_library(name: str, key: str) -> bool:
    """Return whether a name is one that the group of a key takes from a library."""
    pattern = _LIBRARY.get(key.partition(".")[0])
    return pattern is not None and pattern.fullmatch(name) is not None


def of_shipped_package(name: str) -> bool:
    # also true for the package itself: `torch.optim` is the `__module__` of torch's Adafactor
    return f"{name}.".startswith(OURS)


def is_shipped(name: str) -> bool:
    """Return whether a name is one of this program, of torch's optimizers, or of a library that a group may name."""
    return of_shipped_package(name) or any(pattern.fullmatch(name) for pattern in _LIBRARY.values())


def in_working_folder(module: str) -> bool:
    """Return whether a module is a file of the working folder that an import from there would find; imports nothing.

    `sys.path` stays as it is: the name may be a stranger's, and the files beside it then are no code of the user.
    """
    here = Path.cwd()
    base = here.joinpath(*module.split("."))
    if not module or not (base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()):
        return False
    spec = _spec_of(module.split(".")[0], here)
    if spec is None:
        return False
    # a namespace package has no file
    places = [spec.origin] if spec.has_location else spec.submodule_search_locations or []
    return any(Path(place).resolve().is_relative_to(here.resolve()) for place in places if place)


def _spec_of(root: str, here: Path) -> ModuleSpec | None:
    """Return where a top-level module was, or would be, imported from if the working folder came first."""
    if root in sys.modules:
        return getattr(sys.modules[root], "__spec__", None)
    if BuiltinImporter.find_spec(root) or FrozenImporter.find_spec(root):
        return None
    return PathFinder.find_spec(root, sys.path if str(here) in sys.path else [str(here), *sys.path])


def _add_working_folder() -> None:
    """Let modules of the working folder be imported; called for an allowed name only, since every import looks there first."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


# files of the working folder in which a name is looked for
_MOST_FILES = 200


def _missing(name: str, is_own: bool) -> str:
    """Return the end of a message for a target that is in no module that could be imported; empty if there may be one.

    is_own: the user named the target; for that of a record no file is read.
    """
    here, (root, *parts) = Path.cwd(), name.split(".")
    if not parts:
        defined = re.compile(rf"^(class|def) {re.escape(root)}\b", re.MULTILINE)
        modules = (file for file in sorted(here.glob("*.py"))[:_MOST_FILES] if is_own and is_readable(file))
        files = (file for file in modules if defined.search(file.read_text("utf-8", "replace")))
        module = next((file.stem for file in files), "MODULE")
        return f", which names no module. Write `_target_: {module}.{root}`"
    module = ".".join([root, *parts[:-1]])
    if in_working_folder(root):
        return f", and there is no module {module} in {here}." if not in_working_folder(module) else ""
    if root in sys.builtin_module_names or PathFinder.find_spec(root) is not None:
        return ""
    return f", and there is no module {root} in {here}, nor installed.{nearest(root, (f.stem for f in here.glob('*.py')))}"


@dataclass(frozen=True)
class Fault:
    """An error in the working folder's code.

    Args:
        calls: file, below the working folder, and function of each call of that code, the innermost last
        text: type and first line of the error
        hint: what to write, as the end of a sentence
    """

    calls: tuple[tuple[Path, str], ...]
    line: int
    text: str
    hint: str

    @property
    def function(self) -> str:
        return self.calls[-1][1]

    def told(self) -> str:
        """Return file, line and error."""
        return f"{self.calls[-1][0]}, line {self.line}: {self.text}{self.hint}"


TRACEBACK = "The traceback: HYDRA_FULL_ERROR=1 dltrain …"


def fault_of(error: BaseException) -> Fault | None:
    """Return what went wrong in which line of the working folder's code; None if it was elsewhere."""
    here, package = Path.cwd().resolve(), Path(__file__).resolve().parents[1]
    frames = [
        (Path(frame.f_code.co_filename), frame.f_code.co_qualname, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((Path(error.filename), "", error.lineno or 0))
    own = [
        (file.resolve().relative_to(here), function, line)
        for file, function, line in frames
        if file.is_file()
        and file.resolve().is_relative_to(here)
        and not file.resolve().is_relative_to(package)
        and "site-packages" not in file.parts
    ]
    if not own:
        return None
    text = (error.msg if isinstance(error, SyntaxError) else str(error)).partition("\n")[0]
    hint = " Begin __init__ with super().__init__()" if "before Module.__init__() call" in text else ""
    calls = tuple((file, function) for file, function, _ in own)
    return Fault(calls, own[-1][2], f"{type(error).__name__}: {text}.", hint)


def in_own_code(error: BaseException) -> str:
    """Return the fault in the working folder's code as text, and how to see the traceback; empty if it was elsewhere."""
    fault = fault_of(error)
    if fault is None:
        return ""
    plain = fault.hint or isinstance(error, SyntaxError | ImportError)
    return fault.told() + ("" if plain else f"\n{TRACEBACK}")


@dataclass(frozen=True)
class Rights:
    """The names that the configurations of one command may contain, whatever each of them trusts; see Door."""

    targets: frozenset[str]
    local: bool = True
    recalled: bool = False
    # of a record: the loggers whose keys the user's command line sets, and the hashes of those of the user's own words
    asked: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()

    def door(self, trust: list[str]) -> Door:
        return Door(set(self.targets), trust, self.local, self.recalled, self.asked, self.own)


def rights_of_user(catalogue: Catalogue) -> Rights:
    """Return the rights of what the user typed: code of the working folder may be named freely."""
    return Rights(frozenset(shipped_targets(catalogue)))


def rights_of_record(catalogue: Catalogue, overrides: list[str]) -> Rights:
    """Return the rights of a record read from disk: a run's config.yaml, or the overrides in a sweep.json.

    It may name the targets of present words. Its own `trust` holds for these names only, since a stranger can write
    anything there; `trust=[…]` among the user's own `overrides` holds for every name.
    """
    mine = any(text.startswith("trust=") for text in overrides)
    keys = [text.partition("=")[0].lstrip("+").split(".") for text in overrides]
    asked = frozenset(key[1] for key in keys if key[0] == "logger" and len(key) > 1)
    own = frozenset(
        hash_of_node(word.configuration()["logger"].get(name) or {})
        for name, word in catalogue.words.get("logger", {}).items()
        if catalogue.root not in word.file.parents
    )
    return Rights(frozenset(all_targets(catalogue)), local=False, recalled=not mine, asked=asked, own=own)


def hash_of_node(node: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the target and the keys of a node."""
    return hashlib.sha256(json.dumps(node, sort_keys=True, default=str).encode()).hexdigest()


def door_for_saved(config: Config, catalogue: Catalogue, overrides: list[str]) -> Door:
    """Return the door for the configuration of a run folder; every name in it is checked at once."""
    door = rights_of_record(catalogue, overrides).door(config.trust)
    door.check_names(config.plain)
    return door


def foreign_words(content: Mapping[str, Any], catalogue: Catalogue) -> list[str]:
    """Return the shipped words of a config.yaml whose keys are those of another word, as `optimizer=amsgrad`.

    Words of the user are left out, since their files may have changed.
    """
    found = []
    words = content.get("words")
    for group, chosen in words.items() if isinstance(words, Mapping) else ():
        nodes = content.get(group)
        for name in chosen if isinstance(chosen, list) else [chosen]:
            word = catalogue.words.get(str(group), {}).get(str(name))
            node = nodes.get(name) if group in LIST_GROUPS and isinstance(nodes, Mapping) else nodes
            if word is None or not word.target or catalogue.root not in word.file.parents:
                continue
            if not isinstance(node, Mapping) or not _is_of(node, word):
                found.append(f"{group}={name}")
    return found


def _is_of(node: Mapping[str, Any], word: Word) -> bool:
    """Return whether a saved node is that of a shipped word, in this version or in one whose words named torch's classes."""
    target = node.get("_target_")
    former = _FORMER_WORDS.get(str(target), {}).get(word.name)
    return target == word.target or (former is not None and former == _TELLING & node.keys())


class Call:
    """A call of a target with the arguments that the program passes and the keys of a node.

    Args:
        target: a class or function
        group: of the word, whose runtime arguments the target receives
        node: of the configuration
    """

    def __init__(self, target: Callable[..., Any], group: Group, node: Node) -> None:
        self.target = target
        try:
            kinds, unknown = list(inspect.signature(target).parameters.values()), False
        except ValueError:
            kinds, unknown = [], True
        # without names to go by, or with keys of any name, arguments are passed by position and keys unchecked
        positional = unknown or any(p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL) for p in kinds)
        self.by_position = positional and not group.by_name
        self.open_ended = unknown or any(p.kind is p.VAR_KEYWORD for p in kinds)
        names = [(p.name, p.default is p.empty) for p in kinds if p.kind is not p.VAR_KEYWORD]
        function = inspect.isfunction(target)
        self.passed = group.passed(names, node, function)
        skipped = group.skipped(names, node, function)
        self.keys = [name for name, _ in names if name not in skipped]
        # of these, null is no value but stands for the default, which is no literal: `width: int = 2 * BASE`
        self.unset = {
            p.name
            for p in kinds
            if p.default is not p.empty
            and p.default is not None
            and not re.search("None|Optional|Any", str(p.annotation))
        }

    def check(self, keys: Iterable[str], key: str, common: Iterable[str]) -> None:
        """Refuse keys that the target does not take; for a user's own code this is the only check."""
        if self.open_ended or self.by_position:
            return
        for unknown in (k for k in keys if k not in self.keys):
            raise UserError(
                f"`{key}.{unknown}` is no argument of {getattr(self.target, '__name__', self.target)}."
                f"{nearest(unknown, [*self.keys, *common])}\n" + listing("Its arguments", self.keys)
            )

    def __call__(self, runtime: Sequence[Any], keys: Node) -> Any:
        if self.passed is None:
            return functools.partial(self.target, **keys)
        if self.by_position:
            return self.target(*runtime, **keys)
        return self.target(**{name: runtime[i] for name, i in self.passed.items()}, **keys)


def _targets_below(node: Node, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every `_target_` of nested nodes, with the dotted path of its node."""
    for key, value in node.items():
        if isinstance(value, dict):
            here = f"{path}.{key}" if path else str(key)
            if "_target_" in value:
                yield here, value["_target_"]
            yield from _targets_below(value, here)


class Door:
    """Build objects from nodes.

    Args:
        targets: names that may be built
        trust: modules that the user trusts
        local: whether code of the working folder may be named freely
        recalled: whether `trust` was read from a run folder; it then holds for names among the `targets` only
        asked: loggers of a record that the user's command line names
        own: hashes of the loggers of the user's own words
    """

    def __init__(
        self,
        targets: set[str],
        trust: list[str],
        local: bool = True,
        recalled: bool = False,
        asked: frozenset[str] = frozenset(),
        own: frozenset[str] = frozenset(),
    ) -> None:
        self.targets = targets
        self.trust = tuple(trust)
        self.local, self.recalled = local, recalled
        self.asked, self.own = asked, own

    def check_names(self, plain: Node) -> None:
        """Check every name below a node, before anything is imported. Raises UserError for one that may not be built."""
        for key, name in _targets_below(plain):
            # dropout and similar words have no target: they only set keys of the model
            if name or not key.startswith("regularization."):
                self.check_name(name, key)

    def build(self, node: Node, key: str, *runtime: Any, common: Iterable[str] = ()) -> Any:
        """Return the object of a node: `target(*runtime, **keys)`, or a partial of a function that is itself the part.

        `runtime` are the arguments of the node's group, of which the target receives those that it has parameters for.
        `common`: keys of the whole group that are used elsewhere, with which an unknown key is compared for a misspelling. Raises
        UserError, naming the node's key, for a name that is not trusted, for unknown keys, and for values that the target
        refuses.
        """
        target = self.locate(node.get("_target_"), key)
        # a saved configuration may be used on another machine
        check_installed(getattr(target, "requires", ()), key)
        group = BY_NAME.get(key) or BY_NAME[key.split(".")[0]]
        call = Call(target, group, node)
        keys = {
            k: v for k, v in node.items() if not k.startswith("_") and (v is not None or k not in call.unset)
        }
        call.check(keys, key, common)
        try:
            part = call(runtime, keys)
        except UserError:
            raise
        except Exception as error:
            if not isinstance(error, ValueError) and (told := in_own_code(error)):
                raise UserError(f"{key}: {told}") from error
            if not isinstance(error, ValueError | TypeError):
                raise
            takes = re.search(r"takes .*positional argument", str(error)) and group.runtime
            cure = (
                f"\nIt gets the arguments {', '.join(group.runtime)}: take them in this order."
                if takes
                else ""
            )
            if isinstance(error, Unfit):
                cure = f"\nUse {key}.{error.cure}, or train for more epochs."
            # torch adds the stack of its C++ code
            said = str(error).partition("\nException raised from")[0]
            raise UserError(f"{key}: {said}{cure}") from error
        if group.interfaces:
            # imports torch, for all groups but that of sweep backends
            from dltrain.seams import check_fits

            check_fits(part, group.interfaces, key)
        return part

    def check_name(self, name: Any, key: str) -> None:
        """Raise UserError, naming the node's key, for an invalid name or one that may not be built."""
        if not name:
            raise UserError(
                f"`{key}` names nothing to build: write `_target_: module.ClassOrFunction` into the file of that word."
            )
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise UserError(
                f"`{key}._target_` is {str(name)[:80]!r}; it must be a dotted name, package.module.Name."
            )
        package = name.split(".")[0]
        if of_library(name, key) and importlib.util.find_spec(package) is None:
            raise UserError(
                f"`{key}._target_` is {name}, and {package} is not installed.\nInstall it: pip install {package}"
            )
        if not (of_shipped_package(name) and name in self.targets) and (
            missing := _missing(name, self.local)
        ):
            raise UserError(f"`{key}._target_` is {name[:80]}{missing}")
        if not self._passes(name, key):
            raise UserError(
                f"`{key}._target_` is {name[:80]}, which is neither in the catalogue nor in the working folder."
                f"{nearest(name, self._alike(name))}\n"
                f"If you trust that code, say so: trust=[{name.split('.')[0][:80]}]"
            )

    def locate(self, name: Any, key: str) -> Callable[..., Any]:
        """Import the object of a dotted name, if it is trusted."""
        self.check_name(name, key)
        module_name, _, attribute = name.rpartition(".")
        if not (of_library(name, key) or of_shipped_package(name)) and in_working_folder(module_name):
            _add_working_folder()
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            told = in_own_code(error)
            if not told and not isinstance(error, ImportError):
                raise
            raise UserError(
                f"`{key}._target_` is {name}, which cannot be imported: {told or error}"
            ) from error
        try:
            found = getattr(module, attribute)
        except AttributeError as error:
            names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
            raise UserError(
                f"`{key}._target_` is {name}, which cannot be imported: {error}.{nearest(attribute, names)}"
            ) from error
        if not callable(found):
            raise UserError(
                f"`{key}._target_` is {name}, which is {type(found).__name__}; it must be a class or function."
            )
        origin = str(getattr(found, "__module__", None))
        library = of_library(name, key) and origin.split(".")[0] == name.split(".")[0]
        # the `__module__` of torch's Adafactor and Muon is `torch.optim` itself
        if not (
            library or of_shipped_package(origin + ".") or self._trusted(origin) or in_working_folder(origin)
        ):
            raise UserError(
                f"`{key}._target_` is {name}, which stands for something in {origin}, from outside the working folder.\n"
                f"If you trust that code, say so: trust=[{origin.split('.')[0]}]"
            )
        return found

    def _passes(self, name: str, key: str) -> bool:
        """Return whether a name may be built, before anything is imported."""
        known, module = name in self.targets, name.rpartition(".")[0]
        if (self._trusted(module) and (known or not self.recalled)) or (of_shipped_package(name) and known):
            return True
        return (self.local or known) and (of_library(name, key) or in_working_folder(module))

    def _alike(self, name: str) -> list[str]:
        """Return the targets of the same package: a name of another package is not a misspelling of ours."""
        return [target for target in self.targets if target.split(".")[0] == name.split(".")[0]]

    def _trusted(self, module: str) -> bool:
        return any(module == name or module.startswith(name + ".") for name in self.trust)
