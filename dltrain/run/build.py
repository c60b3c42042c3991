"""Config → Parts, in the one legal order.

streams → data and their shape → model sized from the data → initializer → device → regularization → parameter groups
→ optimizer and its wraps → schedules over the total number of steps → loss, transforms, averaging, early stopping.
Everything is built first; state is loaded into it later. The file is long because the order is one: each step needs what the
steps before it made.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.augmentation.pipeline import Augmentation
from dltrain.batch_norm import size_without_rest
from dltrain.config.conflicts import part, refusal
from dltrain.config.declarations import of_object
from dltrain.config.door import Door, in_own_code
from dltrain.config.groups import BY_NAME
from dltrain.config.schema import Config, Node
from dltrain.data.contract import Contract, target_names
from dltrain.data.layout import layout_line
from dltrain.data.prepare import Splits
from dltrain.data.spec import Batch, DataSpec
from dltrain.direction import resolved_modes
from dltrain.errors import ResourceProblem, UserError, is_out_of_memory, largest_request
from dltrain.initializers.pretrained import check_frozen_are_loaded
from dltrain.initializers.protocols import Report
from dltrain.metrics.measures import (
    Measures,
    check_samples,
    check_values,
)
from dltrain.optimizers.groups import SteppingOptimizer
from dltrain.optimizers.startup import skip_dynamo_import
from dltrain.optimizers.stepping import needs_of
from dltrain.regularization.protocols import DecayRule, GradientRule, Penalty, Shrinking, WeightRule
from dltrain.run.data import build_data, check_unused
from dltrain.run.effect import check_effect, refuse_unused, unused_keys, unused_lines
from dltrain.run.layer_use import find_use
from dltrain.run.lineage import seen_before
from dltrain.run.loss_notes import loss_notes
from dltrain.run.machine import choose_device, choose_precision, choose_threads, set_machine, slow_choices
from dltrain.run.measured import check_metrics, choose_metrics, measures, mixed_units, zero_notes
from dltrain.run.model_notes import model_notes
from dltrain.run.parameter_groups import check_thawing, freeze, parameter_groups
from dltrain.run.plan import (
    INITIALIZER_SAMPLES,
    check_batch_norm,
    choose_batch_size,
    make_plan,
    samples_for_batch_norm,
    steps_of_an_epoch,
)
from dltrain.run.plateaus import idle_plateaus
from dltrain.run.rehearsal import rehearse
from dltrain.run.shrinkage import repeated_terms
from dltrain.run.source import differences_from
from dltrain.seeding import Stream, derive, sample_positions
from dltrain.text import counted, first_line
from dltrain.training.cost import step_flops
from dltrain.training.forward import keep_head_in_float32
from dltrain.training.parts import Frozen, Metric, Parts, Plan, Rules, Schedule
from dltrain.training.planned import planned_of
from dltrain.weight_layers import Use


def build(
    config: Config,
    door: Door,
    statistics: Mapping[str, Tensor] | None = None,
    splits: Splits | None = None,
    contract: Contract | None = None,
    trial: bool = False,
    given: Collection[str] = (),
    former: Use | None = None,
) -> tuple[Parts, Plan]:
    """Build all parts of one run and its plan; `statistics` of an earlier run normalize in place of new ones.

    `contract` is that of the earlier run: the data are encoded by it, or refused where they differ.
    `splits` are the data, if they are loaded already. With `trial`, the user's own parts are tried for two steps. `given` are
    the keys of the command line, which are refused where they change nothing for these data and this model. `former` is which layers
    an earlier run had for its first and last.

    Raises UserError, DataProblem where the choices do not fit the data.
    """
    set_machine(config)
    device = choose_device(config.device)
    splits = splits or build_data(config, door, device, statistics, contract)
    unused = check_unused(splits, config, door, given)
    batch_size = choose_batch_size(config.batch_size, len(splits.train))
    order = build_order(config, door, splits, batch_size)
    model, frozen, loaded = build_model(config, door, splits, device, batch_size, former)
    plan = make_plan(
        config,
        device,
        batch_size,
        steps_of_an_epoch(len(order), batch_size, model),
        samples_for_batch_norm(model, splits),
    )
    choose_threads(config, device, step_flops(model, splits.spec.input_shape, batch_size))
    check_batch_norm(config, plan, len(order))
    check_thawing(frozen, plan)
    regularization = build_rules(config, door, model)
    rules = sort_rules(regularization)
    optimizer = build_optimizer(config, door, model, frozen)
    check_rules(config, optimizer, rules)
    schedules = [
        build_schedule(config, door, group, plan)
        for group in ("schedule", "momentum_schedule", "penalty_schedule")
    ]
    loss = build_loss(config, door, splits.spec, device)
    chosen, objects, note = choose_metrics(config, door, splits, loss)
    metrics, objective = measures(loss, splits.spec, chosen)
    scored = {"val": splits.val, "test": splits.test}
    targets = {name: split.targets for name, split in scored.items() if split is not None} or {
        "train": splits.train.targets
    }
    check_outputs(model, loss, metrics, splits, config, objects)
    check_class_weights(config, door, loss, splits.spec, device)
    plateaus = [schedule for schedule in schedules if hasattr(schedule, "observe")]
    augmentation = build_augmentation(config, door, splits.spec)
    check_effect(config, model, augmentation, splits.spec, given)
    idle = unused_keys(config, model, optimizer, regularization, augmentation)
    refuse_unused(idle, config, given)
    averaging = (
        door.build(config.averaging, "averaging", model, plan.total_steps, plan.steps_per_epoch)
        if config.averaging.get("_target_")
        else None
    )
    names = target_names(splits.contract)
    diagnostics = {word: door.build(node, f"diagnostics.{word}") for word, node in config.diagnostics.items()}
    parts = Parts(
        model=model,
        spec=replace(
            splits.spec,
            notes=(
                *splits.spec.notes,
                *unused,
                *(f"unused   {text}" for text in config.idle),
                *unused_lines(idle),
                *getattr(loss, "notes", ()),
                *loss_notes(config, door, splits),
                *model_notes(config, door, model, loaded),
                *seen_before(config, splits.contract),
                *unobserved(config, order, plan),
                *one_left(config, order, plan),
                *beyond(config, door, plan),
                *larger(diagnostics, len(splits.train)),
                *repeated_terms(config, rules.terms, "optimizer.weight_decay" not in idle),
                *note,
                *zero_notes(chosen, splits.spec, targets),
                *mixed_units(splits.spec, names, str(config.early_stopping.get("metric"))),
                *slow_choices(device, plan.precision),
            ),
        ),
        train=splits.train,
        val=splits.val,
        test=splits.test,
        order=order,
        order_observes=hasattr(order, "observe"),
        order_draws=hasattr(order, "draws"),
        loss=loss,
        metrics=metrics,
        objective=objective,
        optimizer=optimizer,
        schedule=schedules[0] or (lambda step: 1.0),
        momentum_schedule=schedules[1],
        penalty_schedule=schedules[2],
        plateaus=plateaus,
        rules=rules,
        augmentation=augmentation,
        averaging=averaging,
        early_stopping=door.build(with_mode(config, "early_stopping"), "early_stopping"),
        fingerprint=splits.fingerprint(),
        prepared=splits,
        statistics=splits.statistics(),
        contract=splits.contract,
        frozen=frozen,
        planned=planned_of(
            str(config.words.get("averaging")),
            averaging,
            [(part.key, part.thaw_epoch) for part in frozen],
            plan.steps_per_epoch,
        ),
        loaded=loaded,
        diagnostics=diagnostics,
        measures=objects,
    )
    check_metrics(parts)
    notes = idle_plateaus(parts, plan, config, given)
    parts.spec = replace(parts.spec, notes=(*parts.spec.notes, *notes))
    if trial:
        rehearse(parts, plan, config)
    return parts, plan


def with_mode(config: Config, group: str) -> Node:
    """Return the node of a group that compares evaluations, with `mode: auto` replaced by the direction of its metric."""
    node: Node = getattr(config, group)
    mode = resolved_modes(config.plain).get(f"{group}.mode")
    return node if mode is None else node | {"mode": mode}


def build_order(config: Config, door: Door, splits: Splits, batch_size: int) -> Any:
    """Build the order of the samples: by `shuffle`, or by the sampler's rule."""
    runtime = (splits.train.targets.cpu(), batch_size, derive(config.seed, "shuffle"), config.shuffle)
    order = door.build(config.sampler, "sampler", *runtime)
    if config.shuffle == "bernoulli" and not hasattr(order, "draws"):
        raise UserError(
            f"`shuffle` is bernoulli, and sampler={config.words['sampler']} gives batches of one size. Use shuffle=epoch"
        )
    return order


def build_loss(config: Config, door: Door, spec: DataSpec, device: torch.device) -> Metric:
    """Build the loss with its tensors, such as class weights, on the device: a copy at each step would wait for it."""
    loss: Metric = door.build(config.loss, "loss", spec)
    return loss.to(device) if isinstance(loss, nn.Module) else loss


def build_augmentation(config: Config, door: Door, spec: DataSpec) -> Augmentation | None:
    transforms = [
        door.build(node, f"augmentation.{word}", spec) for word, node in config.augmentation.items()
    ]
    return Augmentation(transforms) if transforms else None


# Model ------------------------------------------------------------------------------------------------------------


def build_model(
    config: Config,
    door: Door,
    splits: Splits,
    device: torch.device,
    batch_size: int,
    former: Use | None = None,
) -> tuple[nn.Module, list[Frozen], str]:
    """Build the model, sized from the data, and initialize its weights on its device.

    Returns the model, the parameters that thaw later, and which weights were loaded, if the initializer reports it.
    """
    spec = splits.spec
    # torch's initial weights draw from the global generator
    torch.manual_seed(derive(config.seed, "init"))
    with fitting_memory(f"model={config.words.get('model')}"):
        model: nn.Module = door.build(config.model, "model", spec.input_shape, spec.num_classes)
    materialize(model, splits, config)
    find_use(model, former, partial(two_samples, splits))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    report: Report | None = None
    if config.initializer.get("_target_"):
        initialize = door.build(config.initializer, "initializer")
        batch = sample_batch(splits, batch_size, config.seed)
        try:
            runtime = runtime_of(initialize, config, splits)
            report = initialize(model, Stream(config.seed, "init").at(1), batch, **runtime)
            if report is not None:
                check_frozen_are_loaded(model, config.parameters.freeze, report.new, "parameters.freeze")
        except UserError:
            raise
        except Exception as error:
            told = in_own_code(error)
            if not told and not isinstance(error, ValueError):
                raise
            raise UserError(f"initializer: {told or error}") from error
    model.to(device)
    if len(spec.input_shape) == 3:
        model.to(memory_format=torch.channels_last)
    if spec.task == "regression" and choose_precision(config.precision, device) == "bf16":
        keep_head_in_float32(model)
    named = dict(model.named_parameters())
    frozen = freeze(model, config, [name for name in trained if not named[name].requires_grad])
    return model, frozen, "" if report is None else str(report)


def materialize(model: nn.Module, splits: Splits, config: Config) -> None:
    """Give lazy layers, such as `nn.LazyLinear`, their sizes: a forward pass of two samples. Raises UserError if it fails."""
    if not _lazy(model):
        return
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(two_samples(splits))
    except Exception as error:
        told = in_own_code(error) or f"{type(error).__name__}: {first_line(error)}"
        raise UserError(
            f"model={config.words['model']}: its lazy layers get their sizes from samples of shape {splits.spec.input_shape}, "
            f"and that fails: {told}"
        ) from error
    finally:
        model.train(was_training)
    if names := _lazy(model):
        raise UserError(
            f"model={config.words['model']}: `forward` does not use {', '.join(names[:3])}, whose size stays unknown. Remove it"
        )


def two_samples(splits: Splits) -> Tensor:
    """Return the inputs of two training samples on the CPU, where models are built."""
    batch = next(iter(splits.train.batches(torch.arange(min(2, len(splits.train))), 2)))
    return batch.inputs.cpu()


def _lazy(model: nn.Module) -> list[str]:
    """Return the names of the parameters and buffers that have no size yet."""
    named = (*model.named_parameters(), *model.named_buffers())
    return [name for name, tensor in named if nn.parameter.is_lazy(tensor)]


def runtime_of(initialize: Callable[..., Any], config: Config, splits: Splits) -> dict[str, Any]:
    """Return how the data differ from those of the run that weights come from, for an initializer that takes it."""
    if "differences" not in inspect.signature(initialize).parameters:
        return {}
    return {"differences": differences_from(config.initializer.get("path"), splits)}


@contextmanager
def fitting_memory(what: str) -> Iterator[None]:
    """Say what is too large for the memory. Raises ResourceProblem."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceProblem(
            f"{what} is too large for the memory of this machine. {largest_request(error)}".rstrip()
            + "\nMake it smaller: dltrain model --help shows its sizes"
        ) from error


def sample_batch(splits: Splits, batch_size: int, seed: int) -> Batch:
    """Return a random batch of training samples on the CPU, for initializers that use data."""
    chosen = sample_positions(len(splits.train), max(batch_size, INITIALIZER_SAMPLES), seed, "initializer")
    batch = next(iter(splits.train.batches(chosen, len(chosen))))
    return Batch(*(tensor.cpu() for tensor in batch))


def check_outputs(
    model: nn.Module,
    loss: Metric,
    metrics: Mapping[str, Metric],
    splits: Splits,
    config: Config,
    objects: Measures,
) -> None:
    """Pass two samples through model, loss and metrics, to refuse shapes that do not fit before anything is created."""
    was_training = model.training
    model.eval()
    batch = next(iter(splits.train.batches(torch.arange(min(2, len(splits.train))), 2)))
    try:
        with torch.no_grad():
            outputs = model(batch.inputs)
            check_classes(outputs, len(batch.inputs), splits.spec, config)
            losses = loss(outputs, batch.targets)
    except UserError:
        raise
    except Exception as error:
        told = in_own_code(error)
        if not told and not isinstance(error, RuntimeError | ValueError | TypeError | IndexError):
            raise
        first = told or first_line(error)
        raise UserError(
            f"model={config.words['model']} and loss={config.words['loss']} do not fit dataset={config.words['dataset']} "
            f"(samples of shape {splits.spec.input_shape}, {splits.spec.num_classes} outputs, {splits.spec.task}):\n{first}"
            f"{layout_line(splits.spec.notes)}"
        ) from error
    finally:
        model.train(was_training)
    if losses.shape != (len(batch.inputs),):
        raise UserError(
            f"loss={config.words['loss']} gives shape {tuple(losses.shape)}; it must be one loss a sample, shape (B,)."
        )
    try:
        check_samples(metrics, outputs, batch.targets)
        check_values(objects, outputs, batch.targets)
    except ValueError as error:
        raise UserError(str(error)) from error


def check_classes(outputs: object, samples: int, spec: DataSpec, config: Config) -> None:
    """Refuse outputs of a classifier other than one for each class."""
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else None
    if spec.task != "classification" or shape is None or shape == (samples, spec.num_classes):
        return
    given = f"{shape[1]} outputs" if len(shape) == 2 and shape[0] == samples else f"outputs of shape {shape}"
    raise UserError(
        f"model={config.words['model']} gives {given} for {samples} samples, and dataset={config.words['dataset']} has "
        f"{spec.num_classes} classes.\n"
        f"Its outputs must have the shape (samples, classes): its __init__ gets the number as `num_classes`."
    )


def check_class_weights(
    config: Config, door: Door, loss: Metric, spec: DataSpec, device: torch.device
) -> None:
    """Refuse class weights that a loss of the user's does not look at: it gives the same without them."""
    weights = spec.class_weights
    if weights is None or bool((weights == weights[0]).all()):
        return
    without = build_loss(config, door, replace(spec, class_weights=None), device)
    labels = torch.arange(len(weights), device=device)
    logits = torch.randn(len(weights), len(weights), generator=torch.Generator().manual_seed(0)).to(device)
    if torch.equal(loss(logits, labels), without(logits, labels)):
        raise UserError(
            f"`dataset.class_weights` is {config.dataset['class_weights']}, and loss={config.words['loss']} does not use "
            "`spec.class_weights`: it gives the same without.\nUse dataset.class_weights=none, or loss=cross_entropy."
        )


# Optimizer and regularization -------------------------------------------------------------------------------------


def build_rules(config: Config, door: Door, model: nn.Module) -> dict[str, Any]:
    """Build the regularization, by its words; dropout and the like have no object, but set a key of the model or of the loss."""
    return {
        word: door.build(node, f"regularization.{word}", model)
        for word, node in config.regularization.items()
        if node["_target_"] is not None
    }


def sort_rules(built: Mapping[str, Any]) -> Rules:
    """Sort the regularization by where it acts."""
    rules = Rules()
    for word, rule in built.items():
        if isinstance(rule, Shrinking):
            rules.terms[word] = rule.terms()
        if isinstance(rule, Penalty):
            rules.penalties.append(rule)
        if isinstance(rule, GradientRule):
            rules.gradients.append(rule)
        if isinstance(rule, DecayRule):
            rules.decays.append(rule)
        if isinstance(rule, WeightRule):
            rules.weights.append(rule)
    rules.gradients.sort(key=lambda rule: rule.order)  # clipping, then noise, then decay
    return rules


def check_rules(config: Config, optimizer: SteppingOptimizer, rules: Rules) -> None:
    """Refuse what the source did not tell beforehand: rules that an optimizer from elsewhere cannot have, or theirs."""
    own = replace(of_object(optimizer), needs=needs_of(optimizer))
    chosen = part(BY_NAME["optimizer"], config.words["optimizer"], own, config.optimizer)
    for rule in (*rules.penalties, *rules.gradients, *rules.decays, *rules.weights):
        other = part(BY_NAME["regularization"], type(rule).__name__, of_object(rule), {})
        message = refusal((chosen, other))
        if message is not None:
            raise UserError(message)


def build_optimizer(config: Config, door: Door, model: nn.Module, frozen: list[Frozen]) -> SteppingOptimizer:
    """Build the optimizer over its parameter groups, inside its wraps; each group keeps its `initial_lr`."""
    if not config.compile:
        skip_dynamo_import()
    target = door.locate(config.optimizer["_target_"], "optimizer")
    groups = parameter_groups(model, config, frozen)
    if not groups:
        raise UserError(f"model={config.words['model']} has no parameter to train.")
    optimizer = _fastest(
        partial(door.build, config.optimizer, "optimizer"), target, groups, door, config.optimizer
    )
    check_groups(optimizer, "optimizer", config)
    for word, node in config.wrap.items():
        optimizer = door.build(node, f"wrap.{word}", optimizer)
        check_groups(optimizer, f"wrap.{word}", config)
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    return optimizer


def check_groups(optimizer: Any, key: str, config: Config) -> None:
    """Refuse an optimizer without groups, or whose groups lack the `lr` that the schedule sets; 1 where it has none."""
    if not getattr(optimizer, "param_groups", None):
        raise UserError(
            f"`{key}` gives an object without `param_groups`.\nWrite into its __init__: "
            + (
                "self.param_groups = optimizer.param_groups"
                if key.startswith("wrap")
                else "super().__init__(params, {…})"
            )
        )
    for group in optimizer.param_groups:
        if "lr" not in group and (config.lr is not None or config.words["schedule"] != "constant"):
            raise UserError(
                f"`{key}` has no `lr` in its param_groups, where learning rate and schedule are set.\n"
                'Write into its __init__: super().__init__(params, {"lr": lr}), and use group["lr"] in step'
            )
        group.setdefault("lr", 1.0)


def _fastest(
    construct: Callable[..., Any], target: Callable[..., Any], groups: list[Any], door: Door, node: Node
) -> Any:
    """Construct the optimizer with torch's fused kernels where this device has them: 1.3 times the speed of its loop."""
    if "fused" in inspect.signature(target).parameters:
        fused = node | {"fused": True}
        with suppress(RuntimeError):
            # some tell only in a step that they have no kernel for this device: Adagrad on a GPU
            door.build(fused, "optimizer", [_probe_like(groups[0]["params"][0])]).step()
            return door.build(fused, "optimizer", groups)
    return construct(groups)


def _probe_like(parameter: Tensor) -> Tensor:
    """Return one number with a gradient, on the device of a parameter."""
    probe = parameter.new_zeros(1).detach().requires_grad_()
    probe.grad = torch.zeros_like(probe)
    return probe


def unobserved(config: Config, order: Any, plan: Plan) -> tuple[str, ...]:
    """Return a line where an order that follows the losses of earlier epochs never comes to a second one."""
    if not hasattr(order, "observe") or plan.total_steps > plan.steps_per_epoch:
        return ()
    return (
        f"sampler  {config.words['sampler']} changes nothing within one epoch: it follows the losses of those before",
    )


def one_left(config: Config, order: Any, plan: Plan) -> tuple[str, ...]:
    """Return a line where each epoch leaves a sample out, which would be a batch that batch norm cannot normalize."""
    # bernoulli draws batches of other sizes
    if config.shuffle == "bernoulli" or plan.steps_per_epoch * plan.batch_size >= len(order):
        return ()
    always = f"; always the same one with shuffle={config.shuffle}" * (config.shuffle in ("once", "never"))
    return (
        "batches  1 sample of each epoch is left out: batch norm needs two in a batch, and the last one would have one"
        f"{always} · none is with batch_size={size_without_rest(len(order), plan.batch_size)}",
    )


def beyond(config: Config, door: Door, plan: Plan) -> tuple[str, ...]:
    """Return lines on intervals that are longer than the run, so that nothing happens; an optimizer or a wrap names its key as `interval`."""
    keys = {"log.every_steps": config.log.every_steps}
    for place, node in {
        "optimizer": config.optimizer,
        **{f"wrap.{w}": n for w, n in config.wrap.items()},
    }.items():
        key = getattr(door.locate(node["_target_"], place), "interval", "")
        keys |= {f"{place}.{key}": node[key]} if key in node else {}
    total = plan.total_steps
    return tuple(
        f"unused   {key}={value}: the run has {counted(total, 'step')}"
        for key, value in keys.items()
        if value and value > total
    )


def larger(diagnostics: Mapping[str, Any], count: int) -> Iterator[str]:
    """Yield a line for each diagnostic with batch `sizes` that are more than all training samples, and are not measured."""
    for word, diagnostic in diagnostics.items():
        sizes = [f"{size:,}" for size in getattr(diagnostic, "sizes", ()) if size > count]
        if sizes:
            are = "is" if len(sizes) == 1 else "are"
            yield f"unused   diagnostics.{word}.sizes: {', '.join(sizes)} {are} more than the {count:,} training samples"


def build_schedule(config: Config, door: Door, group: str, plan: Plan) -> Schedule | None:
    node: Node = getattr(config, group)
    if not node.get("_target_"):
        return None
    schedule: Schedule = door.build(with_mode(config, group), group, plan.total_steps, plan.steps_per_epoch)
    return schedule
