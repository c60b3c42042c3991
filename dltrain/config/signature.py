"""The schema of a word: the signature and the docstring of its target.

Types, ranges and defaults of a word's keys are the annotations and defaults of its target's parameters; their meanings
are listed under `Args:` in its docstring, beside formula, paper and lecture. Sources are parsed and never imported, so that
the user's own files are described without torch and without running them.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from dltrain.config.rules import EMPTY, parse_rule
from dltrain.errors import UserError

# the default of a required parameter, as OmegaConf writes it
REQUIRED = "???"
NOTES = {"Symbols": "symbols", "Paper": "paper", "Lecture": "lecture", "Use": "use", "Defaults": "default"}
# imports and base classes to follow
MAX_HOPS = 8
# of a file of code; the longest of torch has a tenth
_MOST_BYTES = 5_000_000
# packages that define nothing which is read here
_FOREIGN = ("typing", "collections", "torch", "numpy", "pathlib")


@dataclass(frozen=True)
class Parameter:
    """One key of a word: its rule as text (None where the annotation states none), its default and its meaning."""

    name: str
    rule: str | None
    default: Any
    meaning: str


@dataclass(frozen=True)
class Signature:
    """The parameters of a target, without its runtime arguments, and the facts of its docstring.

    Args:
        notes: summary, rule, symbols, paper, lecture, use, default
        details: the remaining paragraphs of the docstring
        open_ended: whether other keys are possible: it takes **kwargs, or its source could not be read
    """

    parameters: tuple[Parameter, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    details: str = ""
    open_ended: bool = True

    def defaults(self) -> dict[str, Any]:
        """Return the keys with their defaults, in the order of the signature."""
        return {parameter.name: parameter.default for parameter in self.parameters}


# Finding the source -----------------------------------------------------------------------------------------------


def find_source(module: str, folders: tuple[Path, ...] = ()) -> Path | None:
    """Return the source file of a module, searched for in `folders` first; nothing is imported."""
    parts = module.split(".")
    for folder in folders:
        found = _in_folder(folder, parts)
        if found is not None:
            return found
    spec = PathFinder.find_spec(parts[0])
    if spec is None:
        return None
    if len(parts) == 1:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    places = (Path(place) for place in spec.submodule_search_locations or ())
    return next((file for place in places if (file := _in_folder(place, parts[1:]))), None)


def _in_folder(folder: Path, parts: list[str]) -> Path | None:
    base = folder.joinpath(*parts)
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def is_readable(file: Path) -> bool:
    """Return whether a file may be code that somebody wrote: a stranger's may be a pipe, which blocks, or fill the memory."""
    return file.is_file() and file.stat().st_size <= _MOST_BYTES


@lru_cache(maxsize=256)
def _tree(file: Path, _changed: int) -> ast.Module | None:
    try:
        return ast.parse(file.read_text(encoding="utf-8")) if is_readable(file) else None
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        # importing the file when the run is built reports the error
        return None


def _module(name: str, folders: tuple[Path, ...]) -> tuple[ast.Module | None, str]:
    """Return the syntax tree of a module, and the package on which its relative imports are based."""
    file = find_source(name, folders)
    if file is None:
        return None, ""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    return _tree(file, file.stat().st_mtime_ns), package


Definition = ast.FunctionDef | ast.ClassDef


def find_definition(
    target: str, folders: tuple[Path, ...] = (), hops: int = MAX_HOPS
) -> tuple[Definition, str] | None:
    """Return the function or class of a dotted name and the module that defines it; follows imports."""
    found, module = find_definitions(target, folders, hops)
    # overloads precede the implementation
    return (found[-1], module) if found else None


def find_definitions(
    target: str, folders: tuple[Path, ...] = (), hops: int = MAX_HOPS
) -> tuple[list[Definition], str]:
    """Return the same with the overloads of a function before it; an empty list where there is none."""
    module, _, name = target.rpartition(".")
    tree, package = _module(module, folders) if module and hops else (None, "")
    if tree is None:
        return [], module
    found = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name]
    imported = _imports(tree, package).get(name)
    return (found, module) if found or not imported else find_definitions(imported, folders, hops - 1)


def find_own(name: str, module: str, folders: tuple[Path, ...] = ()) -> tuple[Definition, str] | None:
    """Return the definition of a name in a module, unless it is imported from a package such as torch."""
    tree, package = _module(module, folders)
    imported = _imports(tree, package).get(name, module) if tree is not None else _FOREIGN[0]
    return None if imported.split(".")[0] in _FOREIGN else find_definition(f"{module}.{name}", folders)


def _imports(tree: ast.Module, package: str) -> dict[str, str]:
    """Return the dotted names that a module of `package` imports, by the name that they have in it."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parents = package.split(".") if package else []
                kept = parents[: len(parents) - node.level + 1]
                source = ".".join([*kept, *source.split(".")]).strip(".")
            found |= {alias.asname or alias.name: f"{source}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
    return found


# Reading it -------------------------------------------------------------------------------------------------------


def read_signature(
    target: str, skipped: Skipped = lambda parameters, function: set(), folders: tuple[Path, ...] = ()
) -> Signature | None:
    """Return the schema of a dotted name; None where its source cannot be found or read.

    skipped: returns the parameters that the program passes itself, such as the model of a regularizer.
    """
    found = find_definition(target, folders)
    if found is None:
        return None
    node, module = found
    notes, meanings, details = read_docstring(ast.get_docstring(node) or "")
    aliases = _Aliases(module, folders)
    if isinstance(node, ast.ClassDef):
        arguments, open_ended = _class_arguments(node, module, folders)
    else:
        arguments, open_ended = list(_function_arguments(node, False)), node.args.kwarg is not None
    required = [(name, default is None) for name, _, default in arguments]
    passed = skipped(required, isinstance(node, ast.FunctionDef))
    own = find_source(module, folders) if any(_in_folder(f, module.split(".")) for f in folders) else None
    parameters = tuple(
        Parameter(
            name,
            _with_default(
                _checked_rule(rule_of(annotation, aliases), name, annotation, own), name, value, own
            ),
            value,
            meanings.get(name, ""),
        )
        for name, annotation, default in arguments
        if name not in passed and not aliases.is_runtime(annotation)
        for value in [_default(default, aliases)]
    )
    return Signature(parameters, notes, details, open_ended)


def _checked_rule(rule: str | None, name: str, annotation: ast.expr | None, file: Path | None) -> str | None:
    """Return a rule that can be read; None for one of somebody else's grammar. Raises UserError for one in a user's file."""
    if rule is None or annotation is None:
        return None
    try:
        parse_rule(rule)
    except ValueError:
        if file is None:
            return None
        raise UserError(
            f"{file}, line {annotation.lineno}: the annotation of `{name}`, {ast.unparse(annotation)}, is no rule.\n"
            'Write a bound, such as ">= 1", "> 0", "< 8" or "in [0, 1)", or a choice of words, Literal["a", "b"].'
        ) from None
    return rule


def _with_default(rule: str | None, name: str, default: Any, file: Path | None) -> str | None:
    """Return a rule that accepts the default, too. Raises UserError for one in a user's file that contradicts it."""
    if rule is None or default == REQUIRED or parse_rule(rule).accepts(default):
        return rule
    if default is None or default == "":
        return f"{rule} or {'null' if default is None else EMPTY}"
    if file is None:
        return rule
    raise UserError(
        f"{file}: the default of `{name}` is {default}, which its annotation refuses: {rule}. Change one of them"
    )


# (names and whether they are required, whether the target is a function) → names of parameters
Skipped = Callable[[Sequence[tuple[str, bool]], bool], Container[str]]
# name, annotation, default
Argument = tuple[str, ast.expr | None, ast.expr | None]


def _function_arguments(node: ast.FunctionDef, bound: bool) -> Iterator[Argument]:
    """Yield the arguments that can be given by name, without `self` where `bound`."""
    spec = node.args
    positional = [*spec.posonlyargs, *spec.args]
    padding: list[ast.expr | None] = [None] * (len(positional) - len(spec.defaults))
    pairs = list(zip(positional, [*padding, *spec.defaults], strict=True))
    for argument, default in pairs[bound:]:
        yield argument.arg, argument.annotation, default
    for argument, keyword_default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
        yield argument.arg, argument.annotation, keyword_default


def _class_arguments(
    node: ast.ClassDef, module: str, folders: tuple[Path, ...], hops: int = MAX_HOPS
) -> tuple[list[Argument], bool]:
    """Return the arguments of `__init__`, of a dataclass's fields, or of the first base class that has either."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return list(_function_arguments(item, True)), item.args.kwarg is not None
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
        return [(ast.unparse(item.target), item.annotation, item.value) for item in fields], False
    for target in _bases(node, module, folders):
        found = find_definition(target, folders) if hops else None
        if found is not None and isinstance(found[0], ast.ClassDef):
            return _class_arguments(found[0], found[1], folders, hops - 1)
    return [], not node.bases == []


def declared_direction(target: str, folders: tuple[Path, ...] = (), hops: int = MAX_HOPS) -> str | None:
    """Return `min` or `max` as a class states it: by `direction`, or by torchmetrics' `higher_is_better`; None if it does not.

    The first base class that states it counts. Nothing is imported.
    """
    found = find_definition(target, folders) if hops else None
    if found is None or not isinstance(found[0], ast.ClassDef):
        return None
    node, module = found[0], found[1]
    own = {name: ast.unparse(value) for name, value in _assignments(node).items()}
    for name, stated in (
        ("direction", {"'min'": "min", "'max'": "max"}),
        ("higher_is_better", {"True": "max", "False": "min"}),
    ):
        if own.get(name) in stated:
            return stated[own[name]]
    bases = (declared_direction(base, folders, hops - 1) for base in _bases(node, module, folders))
    return next((direction for direction in bases if direction), None)


def _bases(node: ast.ClassDef, module: str, folders: tuple[Path, ...]) -> Iterator[str]:
    """Yield the dotted names of the base classes of a class that `module` defines."""
    tree, package = _module(module, folders)
    imports = _imports(tree, package) if tree is not None else {}
    for base in node.bases:
        name = ast.unparse(base)
        head, _, rest = name.partition(".")
        yield f"{imports.get(head, head)}.{rest}" if rest else imports.get(name, f"{module}.{name}")


class _Aliases:
    """Names of annotations or constants in a module: those that it assigns, and those that it imports."""

    def __init__(self, module: str, folders: tuple[Path, ...]) -> None:
        self.module, self.folders = module, folders
        tree, package = _module(module, folders)
        self.imports = _imports(tree, package) if tree is not None else {}
        self.values = _assignments(tree) if tree is not None else {}

    def resolve(self, name: str, hops: int = MAX_HOPS) -> ast.expr | None:
        """Return the expression assigned to a name; None where there is none."""
        if name in self.values:
            return self.values[name]
        target = self.imports.get(name)
        if target is None or not hops:
            return None
        module, _, attribute = target.rpartition(".")
        if module.split(".")[0] in _FOREIGN:
            return None
        return _Aliases(module, self.folders).resolve(attribute, hops - 1)

    def is_runtime(self, annotation: ast.expr | None) -> bool:
        """Return whether an annotation marks an argument that the program passes itself."""
        return annotation is not None and "runtime" in _metadata(annotation, self)


def _assignments(tree: ast.Module | ast.ClassDef) -> dict[str, ast.expr]:
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = node.value
    return found


def _default(node: ast.expr | None, aliases: _Aliases) -> Any:
    """Return a default as plain data; REQUIRED where there is none, None where it is not a literal."""
    if node is None:
        return REQUIRED
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "field":
        return _field_default(node)
    if isinstance(node, ast.Name) and (found := aliases.resolve(node.id)) is not None:
        return _default(found, aliases)
    return _plain(node)


def _plain(node: ast.expr) -> Any:
    """Return a literal as plain data; None for anything else."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return list(value) if isinstance(value, tuple | set) else value


def _field_default(call: ast.Call) -> Any:
    """Return the default of a dataclass's `field(default_factory=list)` or `field(default=…)`."""
    for keyword in call.keywords:
        if keyword.arg == "default_factory":
            return {"list": [], "dict": {}}.get(ast.unparse(keyword.value))
        if keyword.arg == "default":
            return _plain(keyword.value)
    return REQUIRED


# Annotations as rules ---------------------------------------------------------------------------------------------

_PLAIN = {"int", "float", "bool", "str"}
_LISTS = {"list", "Sequence", "List", "Iterable", "tuple"}


def rule_of(annotation: ast.expr | None, aliases: _Aliases) -> str | None:
    """Return the rule of an annotation in the grammar of `config.rules`; None where it states none.

    `float | None` → "float or null"; `Annotated[list[int], ">= 1"]` → "list of int >= 1"; `Literal["a", 1]` → "a or 1".
    """
    alternatives = _alternatives(annotation, "", aliases, MAX_HOPS)
    return " or ".join(dict.fromkeys(alternatives)) if alternatives else None


def _alternatives(node: ast.expr | None, bound: str, aliases: _Aliases, hops: int) -> list[str] | None:
    if node is None or not hops:
        return None
    if isinstance(node, ast.Constant):
        return _constant(node, bound, aliases, hops)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _joined([node.left, node.right], bound, aliases, hops)
    if isinstance(node, ast.Name | ast.Attribute):
        return _named(node, bound, aliases, hops)
    if isinstance(node, ast.Subscript):
        return _subscripted(node, bound, aliases, hops)
    return None


def _constant(node: ast.Constant, bound: str, aliases: _Aliases, hops: int) -> list[str] | None:
    if node.value is None:
        return ["null"]
    # a forward reference
    if isinstance(node.value, str):
        try:
            return _alternatives(ast.parse(node.value, mode="eval").body, bound, aliases, hops - 1)
        except SyntaxError:
            return None
    return None


def _joined(nodes: list[ast.expr], bound: str, aliases: _Aliases, hops: int) -> list[str] | None:
    found: list[str] = []
    for node in nodes:
        part = _alternatives(node, bound, aliases, hops)
        if part is None:
            return None
        found += part
    return found


def _named(node: ast.Name | ast.Attribute, bound: str, aliases: _Aliases, hops: int) -> list[str] | None:
    name = ast.unparse(node).rpartition(".")[2]
    if name in _PLAIN:
        return [f"{name} {bound}".strip()]
    if name in ("Path", "PathLike") and not isinstance(aliases.resolve(name), ast.Subscript):
        return ["path"]
    if name in ("dict", "Mapping"):
        return ["dict"]
    if name in ("list", "tuple", "Sequence"):
        return [f"list of {bound}".strip()] if bound else None
    found = aliases.resolve(name) if isinstance(node, ast.Name) else None
    return _alternatives(found, bound, aliases, hops - 1)


def _subscripted(node: ast.Subscript, bound: str, aliases: _Aliases, hops: int) -> list[str] | None:
    head = ast.unparse(node.value).rpartition(".")[2]
    items = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if head == "Annotated":
        texts = [m.value for m in items[1:] if isinstance(m, ast.Constant) and isinstance(m.value, str)]
        if texts == ["path"]:
            return texts
        return _alternatives(items[0], texts[0] if texts else bound, aliases, hops)
    if head == "Literal":
        return _literals(items)
    if head in ("Optional", "Union"):
        extra = ["null"] if head == "Optional" else []
        found = _joined(items, bound, aliases, hops)
        return None if found is None else found + extra
    if head in ("dict", "Mapping"):
        return ["dict"]
    if head in _LISTS:
        return _several(head, items, bound, aliases, hops)
    if head == "Final":
        return _alternatives(items[0], bound, aliases, hops)
    return None


def _several(head: str, items: list[ast.expr], bound: str, aliases: _Aliases, hops: int) -> list[str] | None:
    """Return the rule of `list[int]`, "list of int", or of `tuple[float, float]`, "pair of float"."""
    inner = _alternatives(items[0], bound, aliases, hops)
    if inner is None or len(inner) != 1:
        return None
    fixed = head == "tuple" and not (len(items) == 2 and ast.unparse(items[1]) == "...")
    if fixed and len(items) != 2:
        return None
    return [f"{'pair' if fixed else 'list'} of {inner[0]}"]


def _literals(nodes: list[ast.expr]) -> list[str] | None:
    """Return the words of `Literal["a", 1]`; None where one is no literal, such as a member of an enumeration."""
    try:
        values = [ast.literal_eval(node) for node in nodes]
    except (ValueError, TypeError):
        return None
    return [
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        for value in values
    ]


def _metadata(node: ast.expr, aliases: _Aliases) -> list[str]:
    """Return the texts in the metadata of an `Annotated` annotation, through one alias."""
    if isinstance(node, ast.Name) and (found := aliases.resolve(node.id)) is not None:
        return _metadata(found, aliases)
    if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Annotated"):
        items = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else []
        return [m.value for m in items[1:] if isinstance(m, ast.Constant) and isinstance(m.value, str)]
    return []


# Docstrings -------------------------------------------------------------------------------------------------------

_SECTION = re.compile(r"(?P<name>[A-Z][a-z]+):(?: (?P<text>.*))?")
_ARGUMENT = re.compile(r"    (?P<name>\w+)(?: \([^)]*\))?: (?P<text>.*)")


def read_docstring(text: str) -> tuple[dict[str, str], dict[str, str], str]:
    """Return the notes of a docstring, the meanings of its arguments, and its remaining paragraphs.

    The first paragraph is the summary; the first indented block is the formula. `Symbols:`, `Paper:`, `Lecture:`, `Use:` and
    `Defaults:` begin a note each, `Args:` the meanings.

    >>> notes, meanings, _ = read_docstring(\"\"\"Halve it.
    ...
    ...     w ← w/2
    ...
    ... Paper: Nobody 2020
    ...
    ... Args:
    ...     rate: how often
    ... \"\"\")
    >>> notes, meanings
    ({'summary': 'Halve it.', 'rule': 'w ← w/2', 'paper': 'Nobody 2020'}, {'rate': 'how often'})
    """
    lines = inspect.cleandoc(text).splitlines()
    notes, meanings, paragraphs = {"summary": ""}, {}, []
    for block in _blocks(lines):
        head = _SECTION.fullmatch(block[0])
        if head and head["name"] == "Args":
            meanings = dict(_meanings(block[1:]))
        elif head and head["name"] in NOTES:
            notes |= _notes(block)
        elif all(line.startswith("    ") for line in block) and "rule" not in notes:
            notes["rule"] = ";  ".join(line.strip().rstrip(";") for line in block)
        elif not notes["summary"]:
            notes["summary"] = " ".join(line.strip() for line in block)
        else:
            paragraphs.append(" ".join(line.strip() for line in block))
    return notes, meanings, " ".join(paragraphs)


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Yield the paragraphs: lines between empty ones."""
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line)
        elif block:
            yield block
            block = []


def _notes(block: list[str]) -> dict[str, str]:
    """Read `Paper: …` and similar lines; a line without a name continues the previous one."""
    found: dict[str, str] = {}
    name = ""
    for line in block:
        head = _SECTION.fullmatch(line)
        if head and head["name"] in NOTES:
            name = NOTES[head["name"]]
            found[name] = head["text"] or ""
        else:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def _meanings(lines: list[str]) -> Iterator[tuple[str, str]]:
    name, text = "", ""
    for line in lines:
        head = _ARGUMENT.fullmatch(line)
        if head:
            if name:
                yield name, text
            name, text = head["name"], head["text"]
        else:
            text = f"{text} {line.strip()}"
    if name:
        yield name, text
