"""How a search chooses its next configuration: Optuna's samplers (optuna.readthedocs.io), one function a word."""

from __future__ import annotations

from optuna import samplers


def random(seed: int = 0) -> samplers.BaseSampler:
    """Every axis on its own, uniformly (Bergstra & Bengio 2012)."""
    return samplers.RandomSampler(seed=seed)


def tpe(seed: int = 0, startup_trials: int = 10, multivariate: bool = False) -> samplers.BaseSampler:
    """Tree-structured Parzen estimator (Bergstra et al. 2011)."""
    return samplers.TPESampler(seed=seed, n_startup_trials=startup_trials, multivariate=multivariate)


def gp(seed: int = 0, startup_trials: int = 10) -> samplers.BaseSampler:
    """Gaussian process with expected improvement (Snoek et al. 2012); needs scipy."""
    return samplers.GPSampler(seed=seed, n_startup_trials=startup_trials)


def cmaes(seed: int = 0, startup_trials: int = 1) -> samplers.BaseSampler:
    """Covariance matrix adaptation (Hansen & Ostermeier 2001); needs the package cmaes."""
    return samplers.CmaEsSampler(seed=seed, n_startup_trials=startup_trials, warn_independent_sampling=False)


def qmc(seed: int = 0) -> samplers.BaseSampler:
    """Scrambled Sobol points (Sobol 1967); needs scipy."""
    return samplers.QMCSampler(
        seed=seed, scramble=True, warn_independent_sampling=False, warn_asynchronous_seeding=False
    )


def nsga2(
    seed: int = 0, population: int = 20, objectives: tuple[str, ...] = ("val/loss", "parameters")
) -> samplers.BaseSampler:
    """NSGA-II (Deb et al. 2002); `objectives` are read by the study."""
    return samplers.NSGAIISampler(seed=seed, population_size=population)
