"""The software bill of materials, as CycloneDX JSON: `python docs/sbom.py [EXTRA …] > sbom.json`.

It lists the packages that dltrain needs, with those of the extras, in the versions of the present environment, their licenses,
and which needs which; and the libraries whose files are copied into the package. Equal environments give equal bytes;
`SOURCE_DATE_EPOCH` (seconds) sets the timestamp.
"""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def document(extras: Sequence[str] = ()) -> dict[str, Any]:
    """Return the bill of materials as plain data. Raises SystemExit for an extra that does not exist or is not installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = list(project["dependencies"])
    for extra in extras:
        known = project["optional-dependencies"]
        if extra not in known:
            raise SystemExit(f"there is no extra {extra}; there are: {', '.join(sorted(known))}")
        texts += known[extra]
    needs = closure(texts)
    if missing := sorted(
        {found.name for found in applicable(texts, ()) if canonicalize_name(found.name) not in needs}
    ):
        wanted = f".[{','.join(extras)}]" if extras else "."
        raise SystemExit(f"not installed: {', '.join(missing)}. Type: pip install -e '{wanted}'")
    root = purl(project["name"], project["version"])
    own = {"type": "application", "bom-ref": root, "name": project["name"], "version": project["version"], "purl": root,
           "licenses": [{"license": {"id": project["license"]}}]}  # fmt: skip
    direct = sorted({canonicalize_name(found.name) for found in applicable(texts, ())} & needs.keys())
    copied = [copied_component(file) for file in sorted((ROOT / "dltrain").glob("**/vendor/*.json"))]
    graph = {reference(name): sorted(map(reference, needed)) for name, needed in needs.items()}
    graph |= {part["bom-ref"]: [] for part in copied}
    graph[root] = sorted([*map(reference, direct), *(part["bom-ref"] for part in copied)])
    meta: dict[str, Any] = {"component": own}
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        meta["timestamp"] = datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": meta,
        "components": [*map(component, sorted(needs)), *copied],
        "dependencies": [{"ref": ref, "dependsOn": needed} for ref, needed in sorted(graph.items())],
    }


def closure(texts: Iterable[str]) -> dict[str, list[str]]:
    """Return the installed packages that requirements lead to, each with those that it needs itself."""
    found: dict[str, list[str]] = {}
    waiting = [(canonicalize_name(r.name), tuple(sorted(r.extras))) for r in applicable(texts, ())]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            texts = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            # of another platform
            continue
        needed = list(applicable(texts, extras))
        waiting += [(canonicalize_name(r.name), tuple(sorted(r.extras))) for r in needed]
        found[name] = sorted({*found.get(name, []), *(canonicalize_name(r.name) for r in needed)})
    return {name: [other for other in needed if other in found] for name, needed in found.items()}


def applicable(texts: Iterable[str], extras: tuple[str, ...]) -> Iterator[Requirement]:
    """Yield the requirements that hold on this machine, those of some extras among them."""
    for text in texts:
        found = Requirement(text)
        if found.marker is None or any(found.marker.evaluate({"extra": extra}) for extra in extras or ("",)):
            yield found


def component(name: str) -> dict[str, Any]:
    """Return a package as a component, its license as an SPDX expression where it states one."""
    known = metadata.metadata(name)
    found = {
        "type": "library",
        "bom-ref": reference(name),
        "name": name,
        "version": known["Version"],
        "purl": reference(name),
    }
    if summary := known.get("Summary"):
        found["description"] = summary
    if expression := known.get("License-Expression"):
        found["licenses"] = [{"expression": expression}]
    elif names := license_names(known):
        found["licenses"] = [{"license": {"name": text}} for text in names]
    return found


def copied_component(file: Path) -> dict[str, Any]:
    """Return a library whose files are in the package as a component, each file with its hash."""
    known = json.loads(file.read_text(encoding="utf-8"))
    ref = f"pkg:npm/{known['name']}@{known['version']}"
    files = [
        {"type": "file", "name": f"{file.parent.relative_to(ROOT).as_posix()}/{name}", "hashes": [{"alg": "SHA-256", "content": digest}]}
        for name, digest in known["sha256"].items()
    ]  # fmt: skip
    return {
        "type": "library",
        "bom-ref": ref,
        "name": known["name"],
        "version": known["version"],
        "purl": ref,
        "description": known["origin"],
        "licenses": [{"license": {"id": known["license"]}}],
        "components": files,
    }


def license_names(known: Any) -> list[str]:
    """Return the names of the licenses: those of the classifiers, or the first line of the license, which may be its text."""
    marks = (text.split(" :: ") for text in known.get_all("Classifier") or [])
    classified = [parts[-1] for parts in marks if parts[0] == "License" and len(parts) > 2]
    return classified or [line[:100] for line in (known.get("License") or "").strip().splitlines()[:1]]


def reference(name: str) -> str:
    return purl(name, metadata.version(name))


def purl(name: str, version: str) -> str:
    """Return the package URL. A local version such as 2.11.0+cpu has an encoded sign."""
    return f"pkg:pypi/{canonicalize_name(name)}@{version.replace('+', '%2B')}"


if __name__ == "__main__":
    print(json.dumps(document(sys.argv[1:]), indent=1, ensure_ascii=False))
