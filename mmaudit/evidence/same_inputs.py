"""Whether two modalities hold the same values, sample by sample: a data set that was joined with itself, a column read twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmaudit.masking.batches import Batch
from mmaudit.masking.paths import find_value
from mmaudit.masking.spec import MaskingSpec

__all__ = ["count_same", "identical_pairs"]

_GLANCE = 64


def count_same(batch: Batch, spec: MaskingSpec) -> dict[str, list[int]]:
    """Compare the inputs of every two modalities, in the samples that have both.

    Args:
        batch: As it was read, nothing masked.
        spec: Where the inputs are.

    Returns:
        ``"first,second"`` (numbers of the modalities) -> samples that have both, and how many of them are in a batch in which the
        two are equal throughout; pairs that no sample has are left out.
    """
    values = {
        name: [find_value(batch.data, path) for path in modality.inputs.values()]
        for name, modality in spec.modalities.items()
    }
    found = {}
    for (i, first), (j, second) in itertools.combinations(enumerate(spec.names), 2):
        rows = batch.present[first] & batch.present[second]
        both = int(rows.sum())
        if both:
            same = len(values[first]) == len(values[second]) and all(
                _equal(a, b, rows) for a, b in zip(values[first], values[second], strict=True)
            )
            found[f"{i},{j}"] = [both, both if same else 0]
    return found


def identical_pairs(
    names: tuple[str, ...], counted: Iterable[dict[str, list[int]]]
) -> tuple[tuple[str, str], ...]:
    """The pairs that are equal in every sample that has both.

    Args:
        names: Of the modalities, in order.
        counted: From :func:`count_same`, of all batches.

    Example:
        >>> identical_pairs(("a", "b", "c"), [{"0,1": [8, 8], "0,2": [8, 8]}, {"0,1": [4, 4], "0,2": [4, 0]}])
        (('a', 'b'),)
    """
    totals: dict[str, tuple[int, int]] = {}
    for part in counted:
        for pair, (both, same) in part.items():
            before = totals.get(pair, (0, 0))
            totals[pair] = before[0] + both, before[1] + same
    return tuple(
        (names[int(pair.split(",")[0])], names[int(pair.split(",")[1])])
        for pair, (both, same) in sorted(totals.items())
        if both == same
    )


def _equal(first: Any, second: Any, rows: np.ndarray) -> bool:
    """Whether two inputs are equal in these rows; what cannot be compared is not."""
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return type(first) is type(second) and isinstance(first, list) and first == second
    if first.is_nested or second.is_nested or first.is_sparse or second.is_sparse:
        return False
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if not rows.all():
        if first.dim() == 0 or len(first) != len(rows):
            return False
        chosen = torch.from_numpy(rows)
        first, second = first[chosen], second[chosen]
    # Most modalities differ at once.
    glance = first.reshape(-1)[:_GLANCE], second.reshape(-1)[:_GLANCE]
    return _alike(*glance) and _alike(first, second)


def _alike(first: Tensor, second: Tensor) -> bool:
    if torch.equal(first, second):
        return True
    both_nan = torch.isnan(first) & torch.isnan(second)
    return bool(((first == second) | both_nan).all())
