"""Whether two rankings agree: Spearman's rank correlation and how sure it is."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from avenir.config import Config
from avenir.errors import AvenirError
from avenir.evaluation.metrics.bootstrap import LEVEL, NUM_RESAMPLES

Numbers = Sequence[float] | Float[np.ndarray, " n"]
Array = Float[np.ndarray, " n"]


class Correlation(Config):
    """Spearman's rank correlation and its 95 % interval."""

    rho: float | None
    """In [-1, 1]; none when one of the two is constant."""
    low: float | None = None
    """Lower bound; none below three points."""
    high: float | None = None
    """Upper bound."""


def spearman(x: Numbers, y: Numbers, seed: int = 0) -> Correlation:
    """Correlate two rankings; the interval resamples points (percentile bootstrap).

    Points must be independent: average the seeds of one latent before. The interval of a perfect
    ranking has no width, however few its points.
    """
    x, y = finite_numbers(x), finite_numbers(y)
    if len(x) != len(y):
        raise AvenirError(f"{len(x)} and {len(y)} numbers were given; a ranking needs pairs")
    rho = _rank_correlation(x[None], y[None])[0] if len(x) else np.nan
    if np.isnan(rho):
        return Correlation(rho=None)
    if len(x) < 3:
        return Correlation(rho=float(rho))
    draws = np.random.default_rng(seed).integers(len(x), size=(NUM_RESAMPLES, len(x)))
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(_rank_correlation(x[draws], y[draws]), (tail, 1 - tail))
    return Correlation(rho=float(rho), low=float(low), high=float(high))


def _rank_correlation(
    x: Float[np.ndarray, "k n"], y: Float[np.ndarray, "k n"]
) -> Float[np.ndarray, " k"]:
    """Return Spearman's rho of every row; NaN where one is constant."""
    x, y = (stats.rankdata(values, axis=1) - (values.shape[1] + 1) / 2 for values in (x, y))
    scale = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.divide((x * y).sum(1), scale, out=np.full(len(x), np.nan), where=scale > 0)


def finite_numbers(values: Numbers) -> Array:
    """Return numbers as an array; AvenirError when one is not finite."""
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise AvenirError(
            f"numbers {values.tolist()} were given; all must be finite: repeat an evaluation that "
            "failed, and report an arm that diverged instead of leaving out its pair"
        )
    return values
