"""Types with ranges, for the parameters that a configuration may set.

A parameter's annotation is its rule: `lr: Positive = 1e-3` refuses `lr=-1` on the command line. The text in
`Annotated[float, "> 0"]` is the range, as messages, help and the JSON Schema show it. This module imports nothing heavy.
"""

from __future__ import annotations

from typing import Annotated, Literal

Positive = Annotated[float, "> 0"]
NonNegative = Annotated[float, ">= 0"]
AtLeastOne = Annotated[float, ">= 1"]
Fraction = Annotated[float, "in [0, 1)"]
Share = Annotated[float, "in [0, 1]"]
Part = Annotated[float, "in (0, 1]"]
Inner = Annotated[float, "in (0, 1)"]
Count = Annotated[int, ">= 1"]
Index = Annotated[int, ">= 0"]
Threads = Annotated[int, "in [1, 1024]"]
FilePath = Annotated[str, "path"]
Runtime = Annotated[bool | None, "runtime"]  # an argument that the program passes by itself: no key
Activation = Literal["relu", "leaky_relu", "tanh", "sigmoid", "gelu", "silu", "identity"]
Norm = Literal["batch", "layer", "group", "none"]
Unit = Literal["epochs", "steps"]
InitializerWord = Literal[
    "default", "zeros", "constant", "uniform", "normal", "truncated_normal", "fan_in_uniform", "xavier_uniform",
    "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal", "sparse", "dirac",
]  # fmt: skip
