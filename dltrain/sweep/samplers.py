"""Search strategies of a sweep: Optuna's samplers (optuna.readthedocs.io), one function for each word.

`begun` is the number of trials in the study: a search that continues makes new draws instead of repeating its first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from optuna import samplers

from dltrain.declare import declares
from dltrain.ranges import Count, Index
from dltrain.sweep.cma import PlainCma


def later(seed: int, begun: int) -> int:
    """Return the seed of the draws from trial `begun` on, given the seed of the search."""
    return (seed + 0x9E3779B1 * begun) % 2**32


def random(begun: int, seed: Index = 0) -> samplers.BaseSampler:
    """Configurations drawn at random from the axes.

        each axis independently and uniformly (in the logarithm for tag(log, …))

    Use: the baseline; better than a grid when few of many axes matter.
    Defaults: 30 trials.
    Paper: Bergstra & Bengio 2012, JMLR 13

    Args:
        seed: seed of the search itself; one that was stopped makes other draws when it goes on
    """
    return samplers.RandomSampler(seed=later(seed, begun))


def tpe(
    begun: int, seed: Index = 0, startup_trials: Count = 10, multivariate: bool = False
) -> samplers.BaseSampler:
    """Tree-structured Parzen estimator: draw where good configurations were dense.

        next = argmax l(x)/g(x), l and g the densities of the better and the other trials

    Use: the first search to try; takes words, numbers and conditional axes.
    Defaults: Optuna's: 10 random trials first.
    Paper: Bergstra et al. 2011, NeurIPS; Watanabe 2023, arXiv:2304.11127

    Args:
        seed: seed of the search itself; one that was stopped makes other draws when it goes on
        startup_trials: random trials before the search begins
        multivariate: model the axes together
    """
    return samplers.TPESampler(
        seed=later(seed, begun), n_startup_trials=startup_trials, multivariate=multivariate
    )


def gp(begun: int, seed: Index = 0, startup_trials: Count = 10) -> samplers.BaseSampler:
    """Bayesian optimization with a Gaussian process; needs scipy.

        next = argmax of the expected improvement under the posterior of a Matérn-5/2 process

    Use: few, expensive trials over a handful of numbers.
    Defaults: Optuna's: 10 random trials first.
    Paper: Snoek et al. 2012, arXiv:1206.2944

    Args:
        seed: seed of the search itself; one that was stopped makes other draws when it goes on
        startup_trials: random trials before the search begins
    """
    return samplers.GPSampler(seed=later(seed, begun), n_startup_trials=startup_trials)


@declares(requires={"cmaes"})
def cmaes(begun: int, seed: Index = 0, startup_trials: Count = 1) -> samplers.BaseSampler:
    """CMA-ES: a normal distribution that adapts its covariance.

        x ~ N(m, σ²C); m, σ and C follow the better half of the samples

    Use: many trials over numbers; axes of words are drawn at random.
    Defaults: Optuna's.
    Paper: Hansen & Ostermeier 2001; Hansen 2016, arXiv:1604.00772

    Args:
        seed: seed of the search itself; one that was stopped makes other draws when it goes on
        startup_trials: random trials before the search begins
    """
    return PlainCma(seed=later(seed, begun), n_startup_trials=startup_trials, warn_independent_sampling=False)


def qmc(begun: int, seed: Index = 0) -> samplers.BaseSampler:
    """Quasi-random points that fill the space evenly (Sobol); needs scipy.

        x_i = scrambled Sobol sequence in the unit cube, mapped onto the axes

    Use: like random, with fewer gaps, over numbers; axes of words are drawn at random.
    Defaults: scrambled.
    Paper: Sobol 1967; Bergstra & Bengio 2012

    Args:
        seed: seed of the search itself
    """
    return samplers.QMCSampler(
        # the seed of the sequence; the study knows the position in it
        seed=seed,
        scramble=True,
        independent_sampler=samplers.RandomSampler(seed=later(seed, begun)),
        warn_independent_sampling=False,
        warn_asynchronous_seeding=False,
    )


def nsga2(
    begun: int,
    seed: Index = 0,
    population: Annotated[int, ">= 2"] = 20,
    objectives: Sequence[str] = ("val/loss", "parameters"),
) -> samplers.BaseSampler:
    """NSGA-II: the best trade-offs between several objectives.

        sort by domination, then by crowding distance; cross and mutate the front

    Use: two or three conflicting objectives, such as val/loss and parameters.
    Defaults: population 20.
    Paper: Deb et al. 2002, IEEE TEC 6

    Args:
        seed: seed of the search itself; one that was stopped makes other draws when it goes on
        population: configurations in a generation
        objectives: columns of metrics.csv (at the best epoch), each optimized in its direction, and parameters, seconds
            and peak_memory_bytes of the whole run, of which lower is better
    """
    return samplers.NSGAIISampler(seed=later(seed, begun), population_size=population)
