"""Conditional learning speeds from the norms that were recorded during a training."""

from __future__ import annotations

from pathlib import Path

from mmaudit.evidence.readers import read_runs
from mmaudit.evidence.readers.base import listed, said
from mmaudit.evidence.recorded_norms import recorded_norms
from mmaudit.exceptions import LogError
from mmaudit.measures.learning_speed import LearningSpeeds, speeds_of

__all__ = ["LearningSpeeds", "learning_speeds"]


def learning_speeds(log: Path | str) -> LearningSpeeds:
    """Conditional learning speeds (Wu et al. 2022) from the log of a recorder.

    Sums run over the recorded steps. Where only every n-th step was recorded they stand for all steps. The record of losses that
    :func:`mmaudit.ogr` makes of the same log has them too, of several runs with intervals.

    Args:
        log: Written by :class:`mmaudit.training.LossRecorder` with ``norms``.

    Returns:
        The speeds. Without cross-modal parameters there is no conditional speed, and ``own`` is all there is.

    Raises:
        LogError: If the log cannot be read or holds no norms, none that count, or those of several runs.

    Example:
        >>> mmaudit.learning_speeds("losses.jsonl").to_frame().groupby("branch").last()     # doctest: +SKIP
    """
    path = Path(log)
    name = said(path.name)
    runs = read_runs(path)
    found = {run.title: norms for run in runs if (norms := recorded_norms(run)) is not None}
    if not found:
        raise LogError(
            f"{name} holds no norms of gradients: call recorder.norms(model, step=...) after backward, or give the callback 'norms'."
        )
    if len(found) > 1:
        raise LogError(
            f"{name} holds norms of {len(found)} runs ({listed(list(found))}), whose sums cannot be mixed: give the log of one, or take "
            "all of them together with mmaudit.ogr."
        )
    (norms,) = found.values()
    if not len(norms.step):
        raise LogError(
            f"{name} holds no norms that count: at all {len(norms.left_out)} recorded steps some are not finite or missing, or all "
            "weights of a group are 0."
        )
    return speeds_of(norms)
