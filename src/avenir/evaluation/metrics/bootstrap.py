"""Means with their spread: 95 % intervals by resampling recordings, and the curves made of them.

Clips of one recording resemble each other, so whole recordings are drawn again with replacement
(the cluster bootstrap; Davison & Hinkley 1997, section 3.8). With few recordings the intervals
are somewhat too narrow; with one there are none.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from avenir.config import Config

LEVEL = 0.95
NUM_RESAMPLES = 1000


class Interval(Config):
    """A mean and its 95 % interval; none where nothing was measured."""

    mean: float | None
    """Over all clips that could be scored."""
    low: float | None = None
    """Lower bound; none when fewer than two recordings were scored."""
    high: float | None = None
    """Upper bound."""


class Curve(Config):
    """Intervals at every frame of the horizon."""

    mean: tuple[float | None, ...]
    """Over all clips that could be scored at that frame."""
    low: tuple[float | None, ...]
    """Lower bounds."""
    high: tuple[float | None, ...]
    """Upper bounds."""


class Resampled(NamedTuple):
    """Means and bounds of every column; NaN where there are none."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def interval(values: Float[Tensor, " n"], groups: Sequence[str], seed: int = 0) -> Interval:
    """Take the mean of one value per clip; `groups` names the recording of each."""
    return Interval(**{k: _number(v[0]) for k, v in _fields(values[:, None], groups, seed)})


def curve(values: Float[Tensor, "n T"], groups: Sequence[str], seed: int = 0) -> Curve:
    """Take the mean of every frame; `groups` names the recording of each row."""
    return Curve(**{k: tuple(map(_number, v)) for k, v in _fields(values, groups, seed)})


def bootstrap(values: Float[Tensor, "n T"], groups: Sequence[str], seed: int = 0) -> Resampled:
    """Resample recordings, the same draws for every column; NaN values are left out."""
    sums, counts = _by_group(values, groups)
    means = resampled_means(values, groups, seed)
    mean = _ratio(sums.sum(0), counts.sum(0))
    bounds = np.full((2, len(mean)), np.nan)
    enough = (counts > 0).sum(0) >= 2
    if enough.any():
        tail = (1 - LEVEL) / 2
        bounds[:, enough] = np.nanquantile(means[:, enough], (tail, 1 - tail), axis=0)
    return Resampled(mean, *bounds)


def resampled_means(
    values: Float[Tensor, "n T"], groups: Sequence[str], seed: int = 0
) -> Float[np.ndarray, "k T"]:
    """Return the mean of every column of each of the `k` sets of recordings drawn again."""
    sums, counts = _by_group(values, groups)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), NUM_RESAMPLES)
    return _ratio(draws @ sums, draws @ counts)


def _by_group(
    values: Tensor, groups: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum of the known values of every recording, and how many they are."""
    table = values.double().cpu().numpy()
    names, row_group = np.unique(np.asarray(groups), return_inverse=True)
    known = ~np.isnan(table)
    sums = np.zeros((len(names), table.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, row_group, np.where(known, table, 0))
    np.add.at(counts, row_group, known)
    return sums, counts


def _fields(values: Tensor, groups: Sequence[str], seed: int) -> list[tuple[str, NDArray]]:
    return list(bootstrap(values, groups, seed)._asdict().items())


def _ratio(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
