"""The rows of the coalition table that a batch makes: one for each sample, or one for each segment or number of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmaudit.exceptions import ModelError
from mmaudit.masking.batches import Batch
from mmaudit.typing import FloatArray, IntArray

__all__ = ["Rows", "part_rows", "sample_rows"]


@dataclass(frozen=True)
class Rows:
    """What the rows of one batch are about.

    Args:
        ids: ``<sample>`` or ``<sample>#<part>``, unique in the data.
        groups: What each row is resampled with; ``None`` where rows are independent.
        sample: Place of the row's sample in the batch, shape ``(r,)``, ascending.
        part: Place of the row within its sample, shape ``(r,)``; ``None`` where a sample is one row.
        target: Class cell that the row counts for, shape ``(r,)``, int32: its class, or the place of its label or number.
        truth: What the outputs are judged by, shape ``(r,)``: a class (int64) or a number (float64).
        parts: Number of parts that every sample has in the target; 1 where a sample is one row.
    """

    ids: list[str]
    groups: Sequence[str | None]
    sample: IntArray
    part: IntArray | None
    target: IntArray
    truth: IntArray | FloatArray
    parts: int = 1

    def __len__(self) -> int:
        return len(self.sample)

    def where(self, keep: np.ndarray) -> Rows:
        """Those of the rows that a mask ``(r,)`` or an array of places picks."""
        places = np.flatnonzero(keep) if keep.dtype == bool else keep
        listed = places.tolist()
        return Rows(
            [self.ids[place] for place in listed],
            [self.groups[place] for place in listed],
            self.sample[places],
            None if self.part is None else self.part[places],
            self.target[places],
            self.truth[places],
            self.parts,
        )

    def pick(self, scores: Tensor) -> Tensor:
        """The rows' own scores.

        Args:
            scores: Scores of samples, shape ``(S, n, ...)``, or ``(S, n, T, ...)`` where samples have parts.

        Returns:
            Shape ``(S, r, ...)``.

        Raises:
            ModelError: If the model gives another number of parts than the target has.
        """
        sample = torch.from_numpy(self.sample)
        if self.part is None:
            return scores[:, sample]
        if scores.shape[2] != self.parts:
            raise ModelError(
                f"the model gives {scores.shape[2]} outputs for each sample where the target has {self.parts}: expected as many."
            )
        return scores[:, sample, torch.from_numpy(self.part)]


def sample_rows(batch: Batch, targets: IntArray) -> Rows:
    """One row for each sample.

    Args:
        batch: Of n samples.
        targets: Classes, shape ``(n,)``.
    """
    return Rows(
        list(batch.ids),
        batch.groups if batch.groups is not None else [None] * batch.n,
        np.arange(batch.n),
        None,
        targets.astype(np.int32),
        targets.astype(np.int64),
    )


def part_rows(batch: Batch, known: np.ndarray, truth: np.ndarray) -> Rows:
    """One row for each part of a sample that has a label; rows of one sample are resampled together.

    Args:
        batch: Of n samples.
        known: Which parts have a label, shape ``(n, T)``, bool.
        truth: Labels, shape ``(n, T)``.

    Returns:
        Rows whose ``target`` is the place of the part.
    """
    sample, part = np.nonzero(known)
    owners = batch.groups if batch.groups is not None else batch.ids
    return Rows(
        [f"{batch.ids[i]}#{t}" for i, t in zip(sample.tolist(), part.tolist(), strict=True)],
        [owners[i] for i in sample.tolist()],
        sample,
        part,
        part.astype(np.int32),
        truth[sample, part],
        known.shape[1],
    )
