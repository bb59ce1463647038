"""Losses of repeated runs side by side, and estimates over the runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from mmaudit.evidence.losses import Losses
from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.ogr import smoothed
from mmaudit.report.schema import Estimate
from mmaudit.typing import FloatArray, IntArray

__all__ = [
    "ONE_RUN",
    "RunSet",
    "check_lengths",
    "mean_estimate",
    "place_name",
    "ratio_estimate",
    "stack_runs",
]

ONE_RUN = "no interval: one run"
_LEVEL = 0.975
_TINY = 1e-12


class RunSet(NamedTuple):
    """R runs with H heads; P places, which are the checkpoints of any run."""

    titles: tuple[str, ...]
    heads: tuple[str, ...]
    joint: str | None
    at: FloatArray
    """Shape ``(P,)``, ascending."""
    train: FloatArray
    """Shape ``(R, H, P)``; NaN where a head of a run has no such checkpoint."""
    validation: FloatArray
    """The same shape, NaN at the same places."""

    def common(self, heads: Sequence[int]) -> IntArray:
        """Indices of the places that these heads have in all runs."""
        return np.flatnonzero(np.isfinite(self.train[:, list(heads)]).all(axis=(0, 1)))

    def of_head(self, r: int, h: int) -> tuple[IntArray, FloatArray, FloatArray]:
        """Indices of the places that a head has in a run, T of them, and its losses there, each ``(T,)``."""
        own = np.flatnonzero(np.isfinite(self.train[r, h]))
        return own, self.train[r, h, own], self.validation[r, h, own]

    def lengths(self, h: int) -> IntArray:
        """Number of places that a head has in each run, shape ``(R,)``."""
        return np.asarray(np.isfinite(self.train[:, h]).sum(axis=-1))

    def mean_curve(self, h: int) -> tuple[IntArray, FloatArray, FloatArray] | None:
        """Indices of the places that a head has in all runs, and its mean losses there; ``None`` where it has far more in the longest."""
        common = self.common([h])
        if len(common) < 0.8 * int(self.lengths(h).max()):
            return None
        return (
            common,
            self.train[:, h, common].mean(axis=0),
            self.validation[:, h, common].mean(axis=0),
        )


def stack_runs(losses: Sequence[Losses], *, smoothing: float = 0.0) -> RunSet:
    """Put runs with the same heads side by side.

    Args:
        losses: At least one.
        smoothing: Weight of an exponential moving average along the checkpoints of each run; 0 for none.
    """
    first = losses[0]
    at = np.unique(np.concatenate([run.at for run in losses]))
    shape = (len(losses), len(first.heads), len(at))
    train, validation = np.full(shape, np.nan), np.full(shape, np.nan)
    for r, run in enumerate(losses):
        for h in range(len(first.heads)):
            there = np.isfinite(run.train[h])
            own = np.searchsorted(at, run.at[there])
            train[r, h, own] = smoothed(run.train[h, there], smoothing)
            validation[r, h, own] = smoothed(run.validation[h, there], smoothing)
    return RunSet(tuple(run.run for run in losses), first.heads, first.joint, at, train, validation)


def place_name(place: float) -> str:
    """A checkpoint's place as a label.

    Example:
        >>> place_name(1200000.0), place_name(0.5)
        ('1200000', '0.5')
    """
    return str(int(place)) if float(place).is_integer() else repr(float(place))


def mean_estimate(
    values: FloatArray, runs: int, undefined: str, warning: str | None = None
) -> Estimate:
    """Mean of one number over the runs that have it, with Student's t.

    Args:
        values: One for each run, NaN where it has none.
        runs: Number of all runs.
        undefined: Why there is none where no run has one.
        warning: Why not to trust it.

    Example:
        >>> found = mean_estimate(np.array([1.0, 2.0, 3.0]), 3, "")
        >>> found.value, round(found.low, 3), found.method
        (2.0, -0.484, 'Student t over 3 runs')
    """
    known = values[np.isfinite(values)]
    n = len(known)
    if n == 0:
        return Estimate(undefined=undefined)
    value = float(known.mean())
    if n == 1:
        method = ONE_RUN if runs == 1 else f"no interval: 1 of {runs} runs has it"
        return Estimate(value=value, n=1, method=method, warning=warning)
    half = float(stats.t.ppf(_LEVEL, n - 1) * known.std(ddof=1) / np.sqrt(n))
    of = f"{n} runs" if n == runs else f"{n} of {runs} runs"
    return Estimate(
        value=value,
        low=value - half,
        high=value + half,
        n=n,
        method=f"Student t over {of}",
        warning=warning,
    )


def ratio_estimate(
    above: FloatArray, below: FloatArray, undefined: str, warning: str | None = None
) -> Estimate:
    """Absolute ratio of two means over the runs, with Fieller's interval (1954).

    A mean of ratios would be ruled by the run whose denominator happens to be small.

    Args:
        above: One for each run.
        below: One for each run.
        undefined: Why there is none where a run has none.
        warning: Why not to trust it.
    """
    known = np.isfinite(above) & np.isfinite(below)
    a, b = above[known], below[known]
    n, runs = len(a), len(above)
    if n == 0 or abs(b.mean()) < _TINY:
        return Estimate(undefined=undefined)
    ratio = float(a.mean() / b.mean())
    if n == 1:
        method = ONE_RUN if runs == 1 else f"no interval: 1 of {runs} runs has it"
        return Estimate(value=abs(ratio), n=1, method=method, warning=warning)
    t = float(stats.t.ppf(_LEVEL, n - 1))
    (s_aa, s_ab), (_, s_bb) = np.cov(a, b) / n
    g = t**2 * s_bb / b.mean() ** 2
    if g >= 1:
        doubt = "no interval: over the runs the validation loss does not certainly change"
        return Estimate(
            value=abs(ratio),
            n=n,
            method=f"ratio of means over {n} runs",
            warning="; ".join(text for text in (warning, doubt) if text),
        )
    rest = s_aa - s_ab**2 / s_bb if s_bb > 0 else s_aa
    spread = max(s_aa - 2 * ratio * s_ab + ratio**2 * s_bb - g * rest, 0.0)
    middle = (ratio - (g * s_ab / s_bb if s_bb > 0 else 0.0)) / (1 - g)
    half = t * np.sqrt(spread) / (abs(b.mean()) * (1 - g))
    low, high = float(middle - half), float(middle + half)
    ends = (0.0, max(-low, high)) if low < 0 < high else tuple(sorted((abs(low), abs(high))))
    return Estimate(
        value=abs(ratio),
        low=ends[0],
        high=ends[1],
        n=n,
        method=f"Fieller over {n} runs",
        warning=warning,
    )


def check_lengths(lag: int, super_epoch: int | None, losses: Sequence[Losses]) -> None:
    """Refuse a lag or a super-epoch that no run is long enough for.

    Raises:
        UndefinedMeasureError: If one is below 1, or no run has so many checkpoints.
    """
    longest = max(int(np.isfinite(run.train).sum(axis=1).max()) for run in losses)
    for name, length in (("lag", lag), ("super-epoch", super_epoch)):
        if length is None:
            continue
        if length < 1:
            raise UndefinedMeasureError(f"the {name} is {length}; expected at least 1 checkpoint")
        if length >= longest > 1:
            raise UndefinedMeasureError(
                f"the {name} is {length} checkpoints, but there are {longest}; expected at most {longest - 1}"
            )
