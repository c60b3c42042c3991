"""The Python file beside an exported model: it needs torch (and safetensors) only, and is written, not imported, by dltrain."""

from __future__ import annotations

_HEAD = '''"""{title}

>>> from model import predict
>>> predict({example})
"""

import json
from datetime import datetime, timezone
from pathlib import Path

import torch
{imports}
HERE = Path(__file__).parent
{load}

def as_tensor(values, kind, codes):
    missing = {{*FACTS["missing"], *(() if kind == "text" else [*FACTS["missing_among_numbers"], "nat"])}}
    texts = ["" if v is None else str(v).strip() for v in values]
    texts = ["" if text.lower() in missing else text for text in texts]
    if kind == "text":  # the number of its level; -1 for one that the training did not have
        return torch.tensor([codes.get(text, -1) for text in texts])
    if kind == "date":  # ISO texts or datetimes as seconds since 1970, in UTC
        times = [datetime.fromisoformat(text) if text else None for text in texts]
        values = [t and (t if t.tzinfo else t.replace(tzinfo=timezone.utc)).timestamp() for t in times]
        return torch.tensor([float("nan") if v is None else v for v in values], dtype=torch.float64)
    words = {{"": "nan", "true": 1, "false": 0}}
    found = [float(words.get(text.lower(), v)) for text, v in zip(texts, values)]
    return torch.tensor(found, dtype=torch.float64)


def predict(data):
    """{about}"""
    inputs = [as_tensor(data[name], kind, codes) for name, kind, codes in FACTS["columns"]] or [torch.as_tensor(data)]
    with torch.no_grad():
        found = dict(zip(FACTS["outputs"], {call}))
    if FACTS["classes"]:
        found[FACTS["outputs"][0]] = [FACTS["classes"][i] for i in found[FACTS["outputs"][0]].tolist()]
    return found
'''

_SAFETENSORS = """with safe_open(HERE / "model.safetensors", "pt") as file:
    FACTS = json.loads(file.metadata()["dltrain"])
    WEIGHTS = [file.get_tensor(name) for name in FACTS["weights"]]
"""
_TORCH = """EXTRA = {"facts.json": ""}
MODEL = torch.export.load(HERE / "model.pt2", extra_files=EXTRA).module()
FACTS = json.loads(EXTRA["facts.json"])
"""


def loader(title: str, example: str, about: str, graph: str | None) -> str:
    """Return the file for `model.safetensors`, with the operations of the model as code (`graph`), or for `model.pt2`."""
    if graph is None:
        return _HEAD.format(
            title=title, example=example, about=about, imports="", load=_TORCH, call="MODEL(*inputs)"
        )
    head = _HEAD.format(
        title=title,
        example=example,
        about=about,
        imports="from safetensors import safe_open\nfrom torch import device, inf, nan  # noqa: F401\n",
        load=_SAFETENSORS,
        call="forward(*WEIGHTS, *inputs)",
    )
    return f"{head}\n\n# The operations of the model, written by torch.export\n\n{graph.strip()}\n"
