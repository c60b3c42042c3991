"""Instructions for calling an exported model, for its loader and its card."""

from __future__ import annotations

from dltrain.data.tables.rules import Rule
from dltrain.run.deployed import ColumnInput, Deployed


def usage(deployed: Deployed) -> tuple[str, str]:
    """Return what a model takes and gives as a sentence, and an example of its argument as code.

    Names from the data stand in a docstring of `model.py`, so that they must not end it.
    """
    outputs = ", ".join(map(plain, deployed.output_names))
    if deployed.columns:
        pairs = list(zip(deployed.columns, deployed.contract.columns, strict=True))
        shown = ", ".join(f'"{plain(column.name)}": [{sample(column, rule)}, None]' for column, rule in pairs)
        return f"A dict of columns by name, to a dict of {outputs}; None is a missing value.", f"{{{shown}}}"
    shape = ", ".join(map(str, deployed.contract.input_shape))
    kind = "uint8, 0 to 255" if deployed.takes_bytes else "float32, as in the training"
    dtype = "uint8" if deployed.takes_bytes else "float32"
    return (
        f"Samples (N, {shape}) of {kind}, to a dict of {outputs}.",
        f"torch.zeros(2, {shape}, dtype=torch.{dtype})",
    )


def sample(column: ColumnInput, rule: Rule) -> str:
    """Return a value of a column as code."""
    if column.kind == "text":
        return f'"{plain((*rule.levels, "")[0])}"'
    if column.kind == "date":
        return f'"{str(rule.fill)[:10]}"'
    return f"{rule.fill:.6g}" if isinstance(rule.fill, int | float) else plain((*rule.levels, "0")[0])


def plain(text: str) -> str:
    """Return a text without quotes, backslashes and what cannot be printed."""
    return "".join(c if c.isprintable() and c not in "\"'`\\" else "?" for c in text)
