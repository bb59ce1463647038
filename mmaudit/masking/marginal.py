"""Values of another sample: the marginal distribution of a modality, through a fixed pool of donors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmaudit.exceptions import DataError, SpecError
from mmaudit.masking.base import Masker, stable_hash
from mmaudit.masking.reference import Donors

__all__ = ["MarginalMasker", "donor_positions"]


def donor_positions(ids: Sequence[str], donor_ids: Sequence[str], *, seed: int) -> list[int]:
    """Which donor each sample takes: by hash of seed and sample id, never the sample itself.

    The modality is not part of the hash: with equal pools, modalities that are masked together come from one donor, so the
    masked part is itself a sample of the data (the interventional value function of SHAP).

    Args:
        ids: Sample ids.
        donor_ids: Ids of the pool, at least two different ones.
        seed: Of the whole audit.

    Returns:
        One position in the pool per sample.

    Example:
        >>> donor_positions(["a", "b"], ["a", "b"], seed=0)
        [1, 0]
    """
    size = len(donor_ids)
    chosen = []
    for sample in ids:
        at = stable_hash(seed, "donor", sample) % size
        chosen.append((at + 1) % size if donor_ids[at] == sample else at)
    return chosen


class MarginalMasker(Masker):
    """Every sample takes the values of a donor; all inputs of a modality take the same one.

    Where the first axis after the batch has another length than the donor's (sequences), the donor is cropped, or padded at its
    end with zeros, to the length of the batch. All other axes must agree. In batches that are padded to their longest sample
    that length, and with it how much of a longer donor is seen, depends on the batch.

    Args:
        modality: See :class:`Masker`.
        input_name: See :class:`Masker`.
        donors: Pool of this modality, at least two samples.
        seed: Of the whole audit.
    """

    key = "marginal"

    def __init__(self, modality: str, input_name: str, *, donors: Donors, seed: int) -> None:
        super().__init__(modality, input_name)
        if len(donors.ids) < 2:
            raise SpecError(
                f"{self.where}: mask 'marginal' needs at least 2 samples that have this modality, found {len(donors.ids)};"
                " give more training data or another mask"
            )
        self.donors = donors
        self.seed = seed
        self._rows = donors.values[input_name]
        self._stacked: Tensor | None = None

    def __call__(self, values: Tensor, ids: Sequence[str]) -> Tensor:
        """Donors' values in the input's shape, dtype and device."""
        self._check_rows(values, ids)
        chosen = donor_positions(ids, self.donors.ids, seed=self.seed)
        shape = values.shape[1:]
        if all(row.shape == shape for row in self._rows):
            if self._stacked is None:
                self._stacked = torch.stack(self._rows)
                # One copy is enough: from here on the rows are views of the stack.
                self._rows = list(self._stacked)
            taken = self._stacked[torch.tensor(chosen, dtype=torch.long)]
        else:
            taken = torch.stack([self._fitted(self._rows[at], shape) for at in chosen])
        return taken.to(device=values.device, dtype=values.dtype)

    def _fitted(self, row: Tensor, shape: torch.Size) -> Tensor:
        if row.shape == shape:
            return row
        if row.ndim != len(shape) or row.ndim == 0 or row.shape[1:] != shape[1:]:
            raise DataError(
                f"{self.where}: a donor has shape {tuple(row.shape)}, this batch {tuple(shape)} per sample; mask 'marginal'"
                " fits only the first of these lengths, so use another mask or data of one shape"
            )
        fitted = row.new_zeros(shape)
        length = min(row.shape[0], shape[0])
        fitted[:length] = row[:length]
        return fitted

    def describe(self) -> str:
        """For example ``marginal (256 donors)``."""
        return f"marginal ({len(self.donors.ids)} donors)"
