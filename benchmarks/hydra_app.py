"""A stock Hydra app, with which benchmarks/sweep.py compares: its basic launcher runs one training after another.

python benchmarks/hydra_app.py -m 'seed=range(4)' epochs=60 threads=1
"""

from __future__ import annotations

import sys

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from dltrain.cli import dispatch

ConfigStore.instance().store("app", {"seed": 0, "epochs": 60, "threads": 1})


@hydra.main(version_base="1.3", config_path=None, config_name="app")
def train(cfg: DictConfig) -> None:
    """Train the default network in this process."""
    threads = "null" if cfg.threads is None else cfg.threads
    overrides = [f"seed={cfg.seed}", f"epochs={cfg.epochs}", f"threads={threads}"]
    code = dispatch([*overrides, "early_stopping=none", "evaluation.test=false", "quiet=true"])
    if code:
        sys.exit(code)


if __name__ == "__main__":
    train()
