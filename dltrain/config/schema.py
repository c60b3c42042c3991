"""The typed configuration, and the schema of the knobs: their types, ranges, defaults and meanings."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from dltrain.config.keys import SPLITTING
from dltrain.errors import UserError, nearest
from dltrain.ranges import Count, FilePath, Fraction, Index, Positive, Share, Threads

# a `_target_` and the keys of what it names; empty where nothing was chosen
Node = dict[str, Any]
Device = Literal[
    "auto", "cpu", "cuda", "mps",
    "cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:4", "cuda:5", "cuda:6", "cuda:7",
]  # fmt: skip

# values of keys that are missing from configurations saved before they existed
CHECKPOINT_SINCE = {"background": False, "unsaved": "stop"}


@dataclass(frozen=True)
class Knobs:
    """The knobs that belong to no group.

    Args:
        lr: learning rate; unset, the optimizer's own default; auto searches it on a subset
        epochs: passes over the training split; unset, 30 (or as many as `steps` needs)
        steps: optimizer steps, in place of epochs
        batch_size: samples per step; unset, 64, or the training split where that is smaller; with batch norm, a last batch
            of a single sample is left out
        seed: seed of initial weights, order of samples, augmentation and dropout
        device: auto takes the GPU where there is one
        precision: auto is bf16 on a GPU that supports it, else fp32; the last layer of a regression always computes in fp32
        accumulate: parts into which a batch is cut, whose gradients add up to one step; fewer for a small last batch where
            batch norm needs two samples in each
        shuffle: when the order of the samples changes; replacement draws each sample at random, bernoulli lets each enter each
            batch with probability batch_size/N
        folds: number of folds K of a cross-validation
        fold: the fold that validates, from 0
        name: folder of the run below `output`, of at most three parts such as a/b/c; unset, DATASET_MODEL
        tags: words by which to find the run
        notes: a sentence kept with the run
        output: folder of all runs
        deterministic: torch's deterministic algorithms, which are slower on a GPU
        compile: torch.compile; takes half a minute at the start
        threads: CPU threads; unset, one for small steps, else one for each core, or OMP_NUM_THREADS
        workers: processes that read files when the data do not fit on the device
        worker_timeout: seconds without a batch from the workers after which the run ends
        quiet: print nothing but errors
        non_finite: after a step with NaN or Inf, end the run, skip the step, or return to the last checkpoint
        trust: modules from outside the catalogue and the working folder that a config may name
    """

    lr: Positive | Literal["auto"] | None = None
    epochs: Count | None = None
    steps: Count | None = None
    batch_size: Count | Literal["full", "auto"] | None = None
    seed: Index = 0
    device: Device = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    accumulate: Count = 1
    shuffle: Literal["epoch", "once", "never", "replacement", "bernoulli"] = "epoch"
    folds: Annotated[int, ">= 2"] | None = None
    fold: Index | None = None
    name: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    output: FilePath = "outputs"
    deterministic: bool = False
    compile: bool = False
    threads: Threads | None = None
    workers: Index = 2
    worker_timeout: Positive = 60.0
    quiet: bool = False
    non_finite: Literal["stop", "skip", "rollback"] = "stop"
    trust: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Log:
    """What is logged between evaluations.

    Args:
        every_steps: also log every so many steps: the mean loss and metrics of the steps since the last log, or since the last
            evaluation if that came later, and the gradient norm of the step
        profile: write the trace of torch's profiler over the first steps into the run folder
    """

    every_steps: Count | None = None
    profile: bool = False


@dataclass(frozen=True)
class Evaluation:
    """When the model is validated, and how `dltrain evaluate` scores it.

    Args:
        every_epochs: validate every so many epochs
        every_steps: validate every so many steps, in place of epochs
        batch_size: samples evaluated at once; unset, at least 1024
        mc_dropout: number of passes with dropout (of layers of torch.nn, not F.dropout in forward) that `dltrain evaluate` averages,
            whose draws depend on evaluation.batch_size; 0 is one pass without dropout
        tta: number of augmented copies of each sample that `dltrain evaluate` averages over, whose draws depend on
            evaluation.batch_size; 0 is none
        tta_words: words of augmentation that make these copies; empty, those that the run was trained with
        test: score the test split once, at the end, with the best weights
        bootstrap: number of resamples for the intervals that `dltrain evaluate` prints; 0 is none
    """

    every_epochs: Count | None = 1
    every_steps: Count | None = None
    batch_size: Count | None = None
    mc_dropout: Index = 0
    tta: Index = 0
    tta_words: list[str] = field(default_factory=list)
    test: bool = True
    bootstrap: Index = 1000


@dataclass(frozen=True)
class Checkpoint:
    """When the run is saved.

    Args:
        every_epochs: save every so many epochs
        every_steps: save every so many steps
        every_minutes: save every so many minutes
        keep: number of newest checkpoints to keep; the best weights are kept besides
        background: write checkpoints while training continues, which waits for a copy only
        unsaved: what to do when a checkpoint cannot be written; a run that continues ends as degraded
    """

    every_epochs: Count | None = 1
    every_steps: Count | None = None
    every_minutes: Positive | None = None
    keep: Count = 2
    background: bool = True
    unsaved: Literal["stop", "continue"] = "stop"


@dataclass(frozen=True)
class Parameters:
    """Which parameters are trained, and at which rate.

    Args:
        freeze: names of layers, or shell patterns of parameters, that are not trained, as in [layers.0,"*.bias"]
        thaw_epoch: epochs after which the frozen parameters are trained, too; null never
        lr_scale: factor of lr by name or pattern, as in {head: 10}; head is the layer that forward uses last; the first match counts
        decay_all: apply an optimizer's own weight_decay to biases and all else with fewer than two axes, too
    """

    freeze: list[str] = field(default_factory=list)
    thaw_epoch: Count | None = None
    lr_scale: dict[str, Any] = field(default_factory=dict)
    decay_all: bool = False


@dataclass(frozen=True)
class DatasetKnobs:
    """The keys that all datasets share.

    Args:
        val_fraction: share in val of the samples that are not in test
        test_fraction: share of the samples in test, for data without a test split
        split_seed: seed of splits and folds, which depend on no other
        normalize: scale each feature or channel by the training split: unit to mean 0 and variance 1, center to mean 0; see layout
        class_weights: weight each sample in the loss by 1 / frequency of its class; val/loss stays unweighted
        resident_share: share of the device's free memory that the data may take; larger data are streamed
        limit: number of training samples to use, of each class its share; unset, all
        bootstrap: draw the training split with replacement, by seed and fold; about 63 % of the samples are drawn (bagging)
        layout: axes of a sample with two: sequence (steps, features), channels (channels, steps) or image (H, W); auto takes image unless declared
    """

    val_fraction: Fraction = 0.1
    test_fraction: Fraction = 0.1
    split_seed: Index = 0
    normalize: Literal["unit", "center", "none"] = "unit"
    class_weights: Literal["none", "balanced"] = "none"
    resident_share: Share = 0.5
    limit: Count | None = None
    bootstrap: bool = False
    layout: Literal["auto", "image", "sequence", "channels"] = "auto"


@dataclass(frozen=True)
class SweepKnobs:
    """How a sweep runs its jobs.

    Args:
        trials: configurations to try; of a grid the first ones, and unset all
        jobs: jobs at a time, each with cores ÷ jobs threads; auto, one for each core or place on a GPU
        jobs_per_gpu: jobs that share a GPU, under jobs=auto
        vectorize: former name of sweep.backend: never is local, always is stacked
        seeds: runs of each configuration, with seeds seed, seed+1, …; the objective is their mean
        zip: axes that change together, their first values with one another and so on
        space: axes written in YAML, with ranges and conditions (docs/sweeps.md)
        pruner: stop jobs that fall behind, by their validation metric
        min_evaluations: evaluations before a job can be pruned; auto, a ninth of the planned ones
        timeout: seconds after which no further job starts
        fail_fast: stop the sweep at the first job that fails
        retry: failed runs the jobs again that failed before, from their beginning; those that diverged would diverge again
        dry_run: print the table of jobs and stop
        resume: folder of a sweep to continue; unset, the newest unfinished one with the same axes
        reuse: reuse finished runs of equal configuration from earlier sweeps in `output`
        fresh: start a new sweep even where an unfinished one could continue
    """

    trials: Count | None = None
    jobs: Count | Literal["auto"] = "auto"
    jobs_per_gpu: Count = 1
    vectorize: Literal["auto", "never", "always"] | None = None
    seeds: Count = 1
    zip: list[str] = field(default_factory=list)
    space: dict[str, Any] = field(default_factory=dict)
    pruner: Literal["none", "median", "asha", "hyperband"] = "none"
    min_evaluations: Count | Literal["auto"] = "auto"
    timeout: Positive | None = None
    fail_fast: bool = False
    retry: Literal["none", "failed"] = "none"
    dry_run: bool = False
    resume: FilePath | None = None
    reuse: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class Config(Knobs):
    """One run: the knobs, and the node of each group.

    `words` are the chosen words by group, a list for the groups that take several. `plain` is the same configuration as
    nested plain data, as it is saved. `secrets` maps the dotted path of each value from the environment to the expression that
    reads it, `${oc.env:…}` or a list with such texts. `idle` are remarks on keys that files set and nothing reads.
    """

    log: Log = Log()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    parameters: Parameters = Parameters()
    dataset: Node = field(default_factory=dict)
    model: Node = field(default_factory=dict)
    initializer: Node = field(default_factory=dict)
    optimizer: Node = field(default_factory=dict)
    wrap: dict[str, Node] = field(default_factory=dict)
    averaging: Node = field(default_factory=dict)
    schedule: Node = field(default_factory=dict)
    momentum_schedule: Node = field(default_factory=dict)
    penalty_schedule: Node = field(default_factory=dict)
    regularization: dict[str, Node] = field(default_factory=dict)
    augmentation: dict[str, Node] = field(default_factory=dict)
    loss: Node = field(default_factory=dict)
    metrics: dict[str, Node] = field(default_factory=dict)
    sampler: Node = field(default_factory=dict)
    early_stopping: Node = field(default_factory=dict)
    diagnostics: dict[str, Node] = field(default_factory=dict)
    logger: dict[str, Node] = field(default_factory=dict)
    words: dict[str, Any] = field(default_factory=dict)
    plain: Node = field(default_factory=dict)
    secrets: dict[str, Any] = field(default_factory=dict)
    idle: tuple[str, ...] = ()


NAMES = frozenset(f.name for f in fields(Config))


def to_config(plain: Node, words: dict[str, Any], secrets: dict[str, Any] | None = None) -> Config:
    """Build the typed configuration from validated plain data."""
    values = {key: value for key, value in plain.items() if key in NAMES and value is not None}
    values |= {
        "log": _built(Log, "log", plain["log"]),
        "evaluation": _built(Evaluation, "evaluation", plain["evaluation"]),
        "checkpoint": _built(Checkpoint, "checkpoint", CHECKPOINT_SINCE | plain["checkpoint"]),
        "parameters": _built(Parameters, "parameters", plain.get("parameters") or {}),
    }
    return Config(**values | {"words": words, "plain": plain, "secrets": secrets or {}})


def _built(kind: Any, name: str, node: Node) -> Any:
    """Return the knobs of a node. Raises UserError for a key that is none of them, which only a saved file can hold."""
    known = [field.name for field in fields(kind)]
    for key in node:
        if key not in known:
            raise UserError(f"`{name}.{key}` is no key of {name}.{nearest(str(key), known)} Leave it out.")
    return kind(**node)


def objective_of(config: Config) -> Node:
    """Return what decides the minimized loss, beside the data: equal for runs whose column `objective` is comparable."""
    facts = {"class_weights": config.dataset.get("class_weights")}
    facts["target_scale"] = config.dataset.get("target_scale", "unit")
    return {"loss": config.loss, "dataset": facts}


def undivided(config: Config) -> Config:
    """Return the configuration with a dataset whose samples are one split, as far as its keys say."""
    changes = {key: None for key in SPLITTING if key in config.dataset}
    alike = {
        "val_fraction": 0.0,
        "test_fraction": 0.0,
        "limit": None,
        "class_weights": "none",
        "bootstrap": False,
    }
    return replace(config, dataset=config.dataset | changes | alike, folds=None, fold=None)


def run_name(config: Config) -> str:
    """Return the folder of a run below `output`: its name, or its dataset and model."""
    return config.name or f"{config.words['dataset']}_{config.words['model']}"
