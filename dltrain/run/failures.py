"""Messages for what can go wrong in a run."""

from __future__ import annotations

from dltrain.config.door import Fault, fault_of
from dltrain.data.errors import DataError
from dltrain.errors import DISK, DataProblem, NumericalFailure, ResourceProblem, UserError, is_out_of_memory
from dltrain.loggers.events import Result
from dltrain.run.built import Experiment
from dltrain.run.rehearsal import own_parts, owner
from dltrain.storage.run_folder import RunFolder
from dltrain.training.guard import NonFinite
from dltrain.training.policy import POLICIES

_SMALLER_LR = "Most often lr is too large. Try a tenth of it, or regularization=[gradient_clipping]; `dltrain find-lr` compares several."


def explain(error: BaseException, experiment: Experiment) -> BaseException:
    """Return the error with a message for the user; errors that nothing is known about are returned unchanged."""
    plan = experiment.plan
    if isinstance(error, NonFinite):
        return non_finite(error, experiment)
    if isinstance(error, DataError):
        return DataProblem(str(error))
    if isinstance(error, RuntimeError) and str(error).startswith("derivative for"):
        return no_second_derivative(error, experiment)
    if is_out_of_memory(error):
        half = max(plan.batch_size // 2, 1)
        return ResourceProblem(
            f"The memory of {plan.device} is not enough for batch_size={plan.batch_size}. "
            f"Try batch_size={half}, or accumulate={plan.accumulate * 2} for the same steps in smaller parts, "
            "or batch_size=auto."
        )
    full = isinstance(error, OSError) and error.errno in DISK
    if (
        isinstance(error, Exception)
        and not isinstance(error, UserError)
        and not full
        and (fault := fault_of(error))
    ):
        return in_own_part(fault, experiment)
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        return ResourceProblem(
            f"{error.filename or 'A file of the run'} could not be written ({error.strerror or error}). "
            "Remove the cause, then run: dltrain resume RUN"
        )
    return error


def in_own_part(fault: Fault, experiment: Experiment) -> UserError:
    """Say in which part and line of the user's code an error occurred."""
    key = owner(fault, own_parts(experiment.config.plain))
    where = f"`{key}`: " if key else ""
    return UserError(f"{where}{fault.told()}\nThe traceback is in the run's run.log")


def non_finite(error: NonFinite, experiment: Experiment) -> NumericalFailure:
    """Say where it happened, for which samples, in which tensor first; and what to try."""
    first = f" First of all: {error.first}." if error.first else ""
    samples = f", samples {error.samples}" if error.samples else ""
    return NumericalFailure(
        f"The loss or a gradient is not finite at step {error.step + 1} (loss {error.loss:g}{samples}); "
        f"the checkpoints before it are kept.{first}\n"
        f"Most often lr is too large: lr is {experiment.parts.optimizer.param_groups[0]['lr']:g}. Try a tenth of it, or "
        f"regularization=[gradient_clipping].\n{POLICIES[experiment.plan.non_finite].advice}"
    )


def never_finite(metric: str) -> NumericalFailure:
    """Say that no evaluation is the best, and what to try."""
    split, _, name = metric.rpartition("/")
    cure = (
        _SMALLER_LR
        if name in ("loss", "gap")
        else "The split may lack a class, or have constant targets. Choose a metric that is defined there, such as "
        f"early_stopping.metric={split}/loss"
    )
    return NumericalFailure(
        f"{metric} is not a finite number in any evaluation, so none is the best.\n{cure}"
    )


def no_second_derivative(error: RuntimeError, experiment: Experiment) -> UserError:
    """Say which choice needs the second derivative of a model for which torch has none."""
    words = experiment.config.words
    looks = [w for w in experiment.config.diagnostics if w in ("curvature", "prediction")]
    asks, cure = f"optimizer={words['optimizer']}", "Use a first-order optimizer, such as optimizer=adam"
    if looks:
        asks, cure = f"diagnostics=[{','.join(looks)}]", "Leave that out"
    return UserError(
        f"{asks} needs the second derivative of model={words['model']}, and torch has none of "
        f"{str(error).split()[2]}.\n{cure}, or use another model."
    )


def problem_of(folder: RunFolder, result: Result) -> UserError | None:
    """Return what to raise if a run is done, but diverged, or something besides its weights could not be written."""
    if result.status == "diverged":
        return NumericalFailure(f"The run diverged: {result.stop_reason}.\n{_SMALLER_LR}")
    if not folder.problems:
        return None
    return ResourceProblem("The run is done, but not all of its records:\n" + "\n".join(folder.problems[:2]))
