"""The Python file beside an exported model: it needs torch (and safetensors) only, and is written, not imported, by dltrain."""

from __future__ import annotations

_HEAD = '''"""{title}

>>> from model import predict
>>> predict({example})
"""

import json
import math
from datetime import datetime, timezone
from pathlib import Path

import torch
{imports}
HERE = Path(__file__).parent
{load}

def as_tensor(name, values, kind, codes):
    missing = {{*FACTS["missing"], *(() if kind == "text" else [*FACTS["missing_among_numbers"], "nat"])}}
    texts = ["" if v is None else str(v).strip() for v in values]
    texts = ["" if text.lower() in missing else text for text in texts]
    if kind == "text":  # the number of its level; -1 for one that the training did not have
        return torch.tensor([codes.get(text, -1) for text in texts])
    if kind == "date":  # ISO texts or datetimes as seconds since 1970, in UTC
        times = [as_time(name, text) if text else None for text in texts]
        values = [t and (t if t.tzinfo else t.replace(tzinfo=timezone.utc)).timestamp() for t in times]
        return torch.tensor([float("nan") if v is None else v for v in values], dtype=torch.float64)
    found = [as_number(name, text, v) for text, v in zip(texts, values)]
    return torch.tensor(found, dtype=torch.float64)


def as_time(name, text):
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"column {{name!r}} has {{text!r}}; give dates such as 2024-01-31, or datetimes") from None


def as_number(name, text, value):
    words = {{"": "nan", "true": 1, "false": 0, **(FACTS["truths"] if name in FACTS["booleans"] else {{}})}}
    if hasattr(value, "total_seconds") and text and name in FACTS["durations"]:
        return value.total_seconds() / FACTS["durations"][name]
    try:
        number = float(words.get(text.lower(), value))
    except (TypeError, ValueError):
        what = "true or false" if name in FACTS["booleans"] else "numbers"
        raise ValueError(f"column {{name!r}} has {{value!r}}; give {{what}}, None where it is missing") from None
    if math.isinf(number):
        raise ValueError(f"column {{name!r}} has {{number}}; all values must be finite numbers")
    if name in FACTS["booleans"] and number not in (0, 1) and not math.isnan(number):
        raise ValueError(f"column {{name!r}} has {{value!r}}; it must be true or false")
    return number


def columns_of(data):
    names = [name for name, _, _ in FACTS["columns"]]
    lacking = [name for name in names if name not in data]
    if lacking:
        raise ValueError(f"the data lack the columns {{lacking}}; the model takes {{names}}")
    lengths = {{name: len(data[name]) for name in names}}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns have different lengths: {{lengths}}")
    return [as_tensor(name, data[name], kind, codes) for name, kind, codes in FACTS["columns"]]


def samples_of(data):
    samples, shape = torch.as_tensor(data), tuple(FACTS["shape"])
    if tuple(samples.shape[1:]) != shape:
        raise ValueError(f"the samples have shape {{tuple(samples.shape)}}; the model takes (N, {{', '.join(map(str, shape))}})")
    if FACTS["bytes"] and samples.dtype != torch.uint8:
        cure = "(255 * images).round().to(torch.uint8)"
        raise ValueError(f"the images are {{samples.dtype}}; the model takes uint8, 0 to 255: of floats in [0, 1], {{cure}}")
    if len(shape) == 3 and not FACTS["bytes"] and not samples.is_floating_point():
        raise ValueError(f"the images are {{samples.dtype}}; the model takes floats, as in the training")
    if not samples.float().isfinite().all():
        raise ValueError("a sample has a value that is not finite")
    return samples


def predict(data):
    """{about}"""
    inputs = columns_of(data) if FACTS["columns"] else [samples_of(data)]
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
