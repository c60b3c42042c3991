"""The mechanisms of the hostile corpus: `python tests/faults/mechanisms.py` prints the table of docs/security.md.

An item belongs to the first mechanism whose pattern it matches.
"""

from __future__ import annotations

import re
from collections import Counter

MECHANISMS = {
    # first, since its items have the names of records of other types
    "a whole number that no float holds": r"of 400 digits",
    "more trials than a sweep has": r"study of many trials",
    "a cache that fits the files and lies": r"forged cache",
    # names that are built
    "a function of the standard library as a part": r"config: target '(os\.system|posix|subprocess|shutil|webbrowser|socket|urllib|timeit|pdb|code)"
    r"|config: \w+ os|word: model os|verify: configuration of os",
    "a function of builtins, or import machinery": r"config: target '(builtins|importlib|runpy|ctypes)",
    "a loader of pickles or marshaled code": r"config: target '(pickle|marshal|joblib|numpy|yaml)",
    "a loader of torch that runs code": r"config: target '(torch\.(_ind|load|hub|utils|package|jit))|word: an optimizer",
    "a partial, a reducer, a caller of methods": r"config: target '(functools|operator)|hydra: .*functools",
    "instantiation by Hydra itself": r"config: target 'hydra",
    "a module whose import acts": r"config: target 'antigravity",
    "a name that a module of ours or of torch imports": r"config: target '(dltrain\.(cli|run)|torch\.optim\.(Adam|sgd)|dltrain\.models)"
    r"|hydra: .*dltrain\.|word: a callback of ours",
    "a name that is none, or has a wrong form": r"config: target",
    "a node of each group, nested ones too": r"config: [\w.]+ os\.system",
    "keys of ours in a call that deletes": r"deletes a folder",
    "a record that trusts itself": r"trusts itself|that it trusts",
    "code beside the record": r"sweep: code beside",
    "code of the working folder": r"code of the working folder|hydra: .*helper|word: a callback of the working",
    # paths
    "a name of a run that leads outside": r"config: name|name that leads outside|hydra: hydra\.job\.name",
    "a folder of Hydra that leads outside": r"output_subdir|word: a folder outside|word: a job's folder",
    "another working folder": r"another working folder",
    # YAML
    "a YAML bomb of aliases or merges": r"(YAML|word:) .*(bomb|alias)|bomb in|alias bomb|recursive",
    "YAML of great depth": r"(YAML|word:) depth|depth in",
    "YAML of great length": r"(YAML|word:) 10 MB|many keys",
    "YAML tags that build objects": r"python (object|name|module)|unknown tag",
    "numbers that take long to read": r"YAML (long number|sexagesimal)|huge number",
    "a YAML key twice, or no text": r"YAML (a key twice|complex key)",
    "YAML of another encoding, or with control characters": r"(YAML|word:) (not UTF-8|control)",
    "YAML that is no configuration": r"YAML|word: not YAML",
    # Hydra's node
    "a callback of Hydra": r"hydra: .*callbacks.*_target_[=:](os|torch|hydra|hydra_plugins)\."
    r"|word: a (callback|recipe that sets a callback)$|sweep: a callback",
    "a resolver that builds nodes": r"\$\{oc\.(create|decode)|made by oc",
    "a text that becomes a node when it is resolved": r"hydra: .*\$\{(notes|hydra\.env|hydra\.job\.name)\}",
    "a launcher or sweeper of Hydra": r"hydra: .*(launcher|sweeper)|Hydra's sweeper",
    "a factory in the configuration of logging": r"hydra: .*'\(\)':(os|subprocess)",
    "a handler that connects, or reads an object": r"SocketHandler|ext://",
    "a file that logging writes or empties": r"filename|handlers\.file|filters|hydra_logging|word: a file|FileHandler",
    "a format that reads attributes or allocates": r"formatters|word: a formatter",
    "the environment of child processes": r"env_(set|copy)|word: environment",
    "a search path that imports a package": r"package of words|words of a package",
    # checkpoints
    "a pickle that calls": r"(state|start): (reduce|plain pickle|pickle|global|call|a module)|a pickle|pickled array",
    "a string that names a class": r"string that names",
    "a compressed state": r"compressed bomb",
    "a pickle of great depth or size": r"(state|start): (deep|huge)",
    "members of an archive that lead outside": r"members that lead|tar: (\.\.|absolute)",
    "a state of other shapes or types": r"state: (a list|wrong|numbers|empty|not an)|start: (a list|empty|not an)|state of no steps",
    "a safetensors header of great length or depth": r"huge header|deep header",
    "safetensors that point outside, backwards or at each other": r"offsets|overlapping|a hole",
    "safetensors whose shape lies": r"huge shape|size that is not",
    "safetensors that are an archive, too": r"archive, too|bytes behind|weights of an archive",
    "safetensors of unknown types or metadata": r"unknown type|metadata|not UTF-8",
    "safetensors that are none": r"(weights|statistics|safetensors): ",
    # records
    "a manifest that points outside": r"manifest .*(outside|absolute path|zero byte|best lies)",
    "a manifest of many files, or of a folder": r"manifest of (many|100,000|a folder)",
    "a record of a later format": r"later format|format is text",
    "JSON of great depth": r"deep",
    "JSON of great length": r"too long|record long",
    "a file of a terabyte of zeros": r"terabyte",
    "a JSON key twice": r"key twice",
    "a record of other types": r"of other types|are numbers|are text|is a list|a list|empty object|another program|without status|"
    r"other entries|of lists|identity|"
    r"of another type|more keys|hashes|best row|objective|rows of another|is none|parts of|no JSON|not text|statistics of"
    r"|test scores|books with values|events of other",
    "a step beyond a file's name": r"huge step",
    "numbers beyond their type": r"huge|rows before",
    "a table that is none": r"metrics|confusion|results",
    # files in the place of others
    "a database with a view, a trigger or other columns": r"books with (a view|a trigger|other columns)",
    "a journal of SQLite that names a file": r"a journal that|books with (a log|an index)",
    "a link in the place of a file or folder": r"\blink|is a link",
    "a pipe in the place of a file": r"pipe",
    "a device, the terminal or the kernel as data": r"data from|tar: device",
    # data
    "an archive that unpacks without bound": r"(tar|idx|npz): bomb",
    "an image of enormous size": r"bomb of a picture",
    "a document that a library would run": r"postscript",
    "an array whose header is code": r"code in the header",
    "an array of an impossible shape": r"npz: (shape|negative)|lengths beyond",
    "data that are cut, or of another kind": r"data: ",
    "escape sequences": r"escapes",
    "markup in names that a page shows": r"markup",
    "code in names that a file of code holds": r"end a docstring",
    # new nodes of a sweep's record
    "a backend, or settings of one, that a sweep's record chooses": r"backend: |sweep: a backend",
    "a part that a sweep's record adds": r"sweep: (an optimizer|a dataset|a node more|a sampler)",
}  # fmt: skip


def counted(items: list[str]) -> Counter[str]:
    """Return the number of items of each mechanism; "" for those without one."""
    return Counter(
        next((name for name, pattern in MECHANISMS.items() if re.search(pattern, item)), "") for item in items
    )


def table(items: list[str]) -> str:
    """Return the table of docs/security.md."""
    found = counted(items)
    rows = [f"| {name} | {found[name]} |" for name in MECHANISMS]
    return "\n".join(["| mechanism | items |", "|---|--:|", *rows])


if __name__ == "__main__":
    from corpus import ITEMS

    print(table(ITEMS))
