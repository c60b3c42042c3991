"""Terms that shrink the weights, and that several rules of a run add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dltrain.config.schema import Config
from dltrain.regularization.protocols import ABSOLUTE, SQUARED

_SAID = {SQUARED: "the weights decay", ABSOLUTE: "‖w‖₁ counts"}
_DECAY = "optimizer.weight_decay"


def repeated_terms(
    config: Config, terms: Mapping[str, Mapping[str, float]], decays: bool = True
) -> tuple[str, ...]:
    """Return a line for each term that more than one rule adds, with their strengths and what to type for one.

    terms: the strength of each term by word of `regularization`
    decays: whether the optimizer's own weight decay acts on a weight
    """
    known = {**terms, _DECAY: {SQUARED: float(decays and config.optimizer.get("weight_decay") or 0.0)}}
    lines = []
    for term, said in _SAID.items():
        owners = {name: found[term] for name, found in known.items() if found.get(term)}
        if len(owners) > 1:
            each = ", ".join(f"{name} {strength:g}" for name, strength in owners.items())
            lines.append(
                f"penalty  {said} {_times(len(owners))}: {each} · once: {_once(config, list(owners), known)}"
            )
    return tuple(lines)


def _times(count: int) -> str:
    return {2: "twice", 3: "three times"}.get(count, f"{count} times")


def _once(config: Config, owners: Sequence[str], known: Mapping[str, Mapping[str, float]]) -> str:
    """Return the overrides that leave one owner, the rule with most terms."""
    kept = max(
        (name for name in owners if name != _DECAY), key=lambda name: sum(map(bool, known[name].values()))
    )
    words = [word for word in config.regularization if word == kept or word not in owners]
    chosen = [f"regularization=[{','.join(words)}]"] if len(words) < len(config.regularization) else []
    return " ".join([*chosen, *[f"{_DECAY}=0"] * (_DECAY in owners)])
