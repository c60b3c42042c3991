"""Cost of a step of every optimizer and wrap, relative to torch's fused Adam, on the reference MLP.

    python benchmarks/step_cost.py [--words muon,sam] [--threads 1] [--seconds 3] [--batch 128]

The reference task: 784-256-128-10, batch 128, fp32, inputs of 28×28 in memory. Each word is built as `dltrain
optimizer=WORD` (or `wrap=[WORD]` around Adam) builds it, with its own defaults. In one process, blocks of its
steps and of fused Adam's alternate, and the median of the ratios of neighbouring blocks is printed: once of the
optimizer's step alone (the gradients lie ready), once of the whole training step (forward, backward, update).
`passes` are the operations of a step that go through the network, in those of one forward and backward pass, so that
SAM has two and a Hessian-vector product counts for what it is; `own products` are the operations of the matrix
products of the update itself, in the same unit. Our own optimizers are to cost at most 1.3 times their passes. A block
is 20 steps, so that what is done now and then (Shampoo's roots, Lookahead's slow step) has its share in it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dltrain.config.compose import compose, open_catalogue, open_hydra
from dltrain.config.door import Door, shipped_targets
from dltrain.config.validation import validate
from dltrain.models.mlp import MLP
from dltrain.run.build import build_optimizer
from dltrain.run.machine import keep_freed_memory

AIM = 1.3
BLOCK, WARM_UP = 20, 60
INPUTS, LABELS = 32, 4999  # batches; coprime, so that no labels can be learnt and gradients keep their size


class Task:
    """The reference MLP with an optimizer, and the closure of one training step."""

    def __init__(self, overrides: list[str], batch: int = 128) -> None:
        catalogue = open_catalogue()
        config = validate(compose(overrides, catalogue, open_hydra(catalogue)))
        torch.manual_seed(0)
        self.model = MLP((1, 28, 28), 10, hidden=[256, 128])
        self.parameters = list(self.model.parameters())
        door = Door(shipped_targets(catalogue), [])
        self.optimizer = build_optimizer(config, door, self.model, [])
        inner = getattr(self.optimizer, "optimizer", self.optimizer)  # of a wrap
        self.own = inner is not self.optimizer or type(inner).step.__module__.startswith("dltrain.")
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(INPUTS, batch, 784, generator=generator)
        self.targets = torch.randint(10, (LABELS, batch), generator=generator)
        self.taken = 0

    def loss(self) -> Tensor:
        logits = self.model(self.inputs[self.taken % INPUTS])
        return nn.functional.cross_entropy(logits, self.targets[self.taken % LABELS])

    def __call__(self) -> Tensor:
        self.optimizer.zero_grad()
        with torch.enable_grad():
            loss = self.loss()
            loss.backward()
        return loss.detach()

    def gradients(self, params: list[Tensor], create_graph: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        with torch.enable_grad():
            loss = self.loss()
            return loss, torch.autograd.grad(loss, params, create_graph=create_graph)

    def second_order(self) -> bool:
        """Whether there is no step without the closure: it walks along a line, or differentiates gradients."""
        return isinstance(self.optimizer, torch.optim.LBFGS) or self.parameters[0].grad is None

    def whole_step(self) -> None:
        self.optimizer.step(self)
        self.taken += 1

    def step_alone(self) -> None:
        """Update with the gradients of the last step, which the closure leaves as they are."""
        self.optimizer.step(lambda: torch.zeros(()))


def seconds(step: Callable[[], None]) -> float:
    """Of one step, in the mean of a block."""
    begun = time.perf_counter()
    for _ in range(BLOCK):
        step()
    return (time.perf_counter() - begun) / BLOCK


def compare(step: Callable[[], None], adam: Callable[[], None], budget: float) -> tuple[float, float, float]:
    """Microseconds of both, and the median of the ratios of neighbouring blocks; at least five pairs."""
    pairs: list[tuple[float, float]] = []
    end = time.perf_counter() + budget
    while len(pairs) < 5 or time.perf_counter() < end:
        pairs.append((seconds(step), seconds(adam)))
    ours, theirs = (1e6 * statistics.median(column) for column in zip(*pairs, strict=True))
    return ours, theirs, statistics.median(a / b for a, b in pairs)


def flops(step: Callable[[], None]) -> float:
    """Operations of the matrix products of one step, in the mean of a block."""
    with FlopCounterMode(display=False) as counter:
        for _ in range(BLOCK):
            step()
    return float(counter.get_total_flops() / BLOCK)


def row(name: str, task: Task, adam: Task, budget: float) -> str:
    """One line of the table in Markdown."""
    for _ in range(WARM_UP):
        task.whole_step()
    plain, total = flops(adam.whole_step), flops(task.whole_step)
    alone, own = f"{'–':>7} | {'–':>5}", 0.0
    if not task.second_order():
        own = flops(task.step_alone)
        microseconds, _, ratio = compare(task.step_alone, adam.step_alone, budget / 3)
        alone = f"{microseconds:7.0f} | {ratio:5.2f}"
    passes = (total - own) / plain
    whole, _, ratio = compare(task.whole_step, adam.whole_step, budget)
    verdict = ("yes" if ratio <= AIM * passes else "no") if task.own else "torch's"
    products = f"{passes:6.1f} | {own / plain:6.2f}"
    return f"| {name:20} | {alone} | {whole:8.0f} | {ratio:5.2f} | {products} | {ratio / passes:5.2f} | {verdict:7} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--words", default="", help="such as muon,shampoo,sam; all of them unless given")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each word")
    parser.add_argument("--batch", type=int, default=128, help="samples a step; the reference task has 128")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as every run does
    words = open_catalogue().words
    overrides = {word: [f"optimizer={word}"] for word in sorted(words["optimizer"])}
    overrides |= {f"wrap=[{word}] adam": [f"wrap=[{word}]"] for word in sorted(set(words["wrap"]) - {"none"})}
    wanted = options.words.split(",") if options.words else list(overrides)
    print(f"torch {torch.__version__}, {options.threads} thread(s), 784-256-128-10, batch {options.batch}\n")
    print(
        "| word | step alone µs | × Adam | training step µs | × Adam | passes | own products | × Adam a pass | ≤ 1.3 |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|---|")
    adam = Task(["optimizer=adam"], options.batch)
    for _ in range(WARM_UP):
        adam.whole_step()
    for name in overrides:
        if name in wanted or name.removeprefix("wrap=[").split("]")[0] in wanted:
            print(row(name, Task(overrides[name], options.batch), adam, options.seconds), flush=True)


if __name__ == "__main__":
    main()
