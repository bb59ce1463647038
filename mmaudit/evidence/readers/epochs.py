"""Rows of validations whose step is the epoch that was just trained, as MMEngine writes them, brought to epochs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmaudit.typing import FloatArray, IntArray

__all__ = ["Counted", "with_epochs"]


class Counted(NamedTuple):
    """Places of n rows."""

    step: IntArray
    """Int64; -1 where there is none."""
    epoch: FloatArray
    """NaN where there is none."""
    rows: int
    """Number of rows that were given an epoch."""


def with_epochs(step: IntArray, epoch: FloatArray) -> Counted:
    """Give rows that have a step alone the epoch that their step counts, where nothing else can be meant.

    Such is the case where all of them have the number of the epoch of the row before as their step, or the next one where epochs
    count from 0, each after the last row of its epoch, and no step of the training: those do not lie before the row before. They are then
    given both places of that row.

    Args:
        step: Of each row in the order in which they were written, int64 ``(n,)``, -1 where there is none.
        epoch: Of each row, ``(n,)``, NaN where there is none.

    Example:
        >>> with_epochs(np.array([50, 1, 100, 2]), np.array([1.0, np.nan, 2.0, np.nan])).epoch
        array([1., 1., 2., 2.])
    """
    placed = (step >= 0) & np.isfinite(epoch)
    lacking = np.flatnonzero((step >= 0) & ~np.isfinite(epoch))
    whole = np.flatnonzero(placed)
    unchanged = Counted(step, epoch, 0)
    if len(lacking) < 2 or not len(whole):
        return unchanged
    following = np.searchsorted(whole, lacking)
    if following[0] == 0:
        return unchanged
    before = whole[following - 1]
    after = whole[np.minimum(following, len(whole) - 1)]
    shift = np.unique(step[lacking] - epoch[before])
    ends = (following == len(whole)) | (epoch[after] > epoch[before])
    if shift.tolist() not in ([0.0], [1.0]) or not ends.all():
        return unchanged
    ahead = step[lacking] - step[before]
    if (ahead > 0).any() or not (ahead < 0).any() or len(np.unique(epoch[before])) < 2:
        return unchanged
    if shift[0] == 1 and epoch[whole].min() != 0:
        return unchanged
    step, epoch = step.copy(), epoch.copy()
    step[lacking], epoch[lacking] = step[before], epoch[before]
    return Counted(step, epoch, len(lacking))
