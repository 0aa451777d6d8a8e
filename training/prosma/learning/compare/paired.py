"""Means and paired differences over seeds and cases, with bootstrap intervals."""

from __future__ import annotations

import functools

import numpy as np

BOOTSTRAPS = 2000


def estimate(scores: np.ndarray) -> dict:
    """Mean of ``scores`` (seeds, cases), or of differences between them, with its 95 % interval.

    Seeds and cases are crossed: every seed is scored on the same cases. So both are resampled with replacement,
    independently of each other, and the mean is taken over the resampled rows and columns (the two-way "pigeonhole"
    bootstrap of Owen, Annals of Applied Statistics 1 (2007), 386-411). The interval covers the choice of cases and the
    luck of a training run; it is rather too wide than too narrow. With a single seed it covers the cases alone.
    """
    scores = np.asarray(scores, float)
    rows, columns = resampled(*scores.shape)
    means = ((rows @ scores) * columns).sum(axis=1)
    return {
        "mean": round(float(scores.mean()), 5),
        "interval": [round(float(limit), 5) for limit in np.percentile(means, (2.5, 97.5))],
    }


@functools.lru_cache(maxsize=8)
def resampled(seeds: int, cases: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights of seeds (BOOTSTRAPS, seeds) and of cases (BOOTSTRAPS, cases) in each resampled mean; rows sum to 1."""
    generator = np.random.default_rng(0)
    of_seeds, of_cases = (generator.multinomial(n, [1 / n] * n, BOOTSTRAPS) / n for n in (seeds, cases))
    return of_seeds, of_cases


def paired(scores: np.ndarray, others: np.ndarray) -> dict:
    """`estimate` of ``scores`` - ``others``, both (seeds, cases) with the same seeds and cases in the same order.

    ``seeds`` holds the mean difference of each seed, ``better`` the share of cases whose mean over seeds is higher.
    """
    differences = np.asarray(scores, float) - np.asarray(others, float)
    return {
        **estimate(differences),
        "seeds": [round(float(mean), 5) for mean in differences.mean(axis=1)],
        "better": round(float((differences.mean(axis=0) > 0).mean()), 3),
    }
