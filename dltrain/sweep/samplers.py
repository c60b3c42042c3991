"""How a search chooses its next configuration: Optuna's samplers (optuna.readthedocs.io), one function a word.

`begun` is the number of trials that the study has: a search that goes on draws anew, not what it drew at its beginning.
"""

from __future__ import annotations

from optuna import samplers


def later(seed: int, begun: int) -> int:
    """The seed of the draws from trial `begun` on: that of the search at its beginning."""
    return (seed + 0x9E3779B1 * begun) % 2**32


def random(begun: int, seed: int = 0) -> samplers.BaseSampler:
    """Every axis on its own, uniformly (Bergstra & Bengio 2012)."""
    return samplers.RandomSampler(seed=later(seed, begun))


def tpe(
    begun: int, seed: int = 0, startup_trials: int = 10, multivariate: bool = False
) -> samplers.BaseSampler:
    """Tree-structured Parzen estimator (Bergstra et al. 2011)."""
    return samplers.TPESampler(
        seed=later(seed, begun), n_startup_trials=startup_trials, multivariate=multivariate
    )


def gp(begun: int, seed: int = 0, startup_trials: int = 10) -> samplers.BaseSampler:
    """Gaussian process with expected improvement (Snoek et al. 2012); needs scipy."""
    return samplers.GPSampler(seed=later(seed, begun), n_startup_trials=startup_trials)


def cmaes(begun: int, seed: int = 0, startup_trials: int = 1) -> samplers.BaseSampler:
    """Covariance matrix adaptation (Hansen & Ostermeier 2001); needs the package cmaes."""
    return samplers.CmaEsSampler(
        seed=later(seed, begun), n_startup_trials=startup_trials, warn_independent_sampling=False
    )


def qmc(begun: int, seed: int = 0) -> samplers.BaseSampler:
    """Scrambled Sobol points (Sobol 1967); needs scipy."""
    return samplers.QMCSampler(
        seed=seed,  # that of the sequence, whose place the study knows
        scramble=True,
        independent_sampler=samplers.RandomSampler(seed=later(seed, begun)),
        warn_independent_sampling=False,
        warn_asynchronous_seeding=False,
    )


def nsga2(
    begun: int, seed: int = 0, population: int = 20, objectives: tuple[str, ...] = ("val/loss", "parameters")
) -> samplers.BaseSampler:
    """NSGA-II (Deb et al. 2002); `objectives` are read by the study."""
    return samplers.NSGAIISampler(seed=later(seed, begun), population_size=population)
