"""From a batch in the user's hands to one that coalitions can be formed of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from mmaudit.masking.batches import BatchParser
from mmaudit.masking.build import build_maskers
from mmaudit.masking.masked_batch import MaskedBatch, Maskers
from mmaudit.masking.paths import find_value
from mmaudit.masking.reference import Reference, needs_reference
from mmaudit.masking.spec import MaskingSpec

__all__ = ["in_memory_batch"]


def in_memory_batch(
    batch: Any,
    spec: MaskingSpec,
    device: torch.device,
    *,
    maskers: Maskers | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    seed: int = 0,
) -> MaskedBatch:
    """Prepare one batch without any data behind it.

    Args:
        batch: The user's batch; labels, groups and ids need not be in it.
        spec: Modalities and masks.
        device: Where the model lies.
        maskers: Ready maskers; left out, they are made here, and masks that need data take it from the batch itself.
        functions: Import string -> function, for custom masks.
        seed: Of random masks.

    Raises:
        DataError: If the batch does not have what the spec names.
    """
    missing = {
        key: None
        for key in ("target", "group", "ids")
        if (path := getattr(spec, key)) and find_value(batch, path) is None
    }
    rows = BatchParser(spec.model_copy(update=missing), lambda note: None, to_cpu=False).parse(
        batch, 0, 0
    )
    if maskers is None:
        reference = None
        if needs_reference(spec):
            reference = Reference.collect([rows], spec, seed=seed, source="audited data")
        maskers = build_maskers(spec, reference, seed=seed, functions=functions)
    return MaskedBatch(
        rows.data, spec, maskers, rows.ids, present=rows.present, device=device, dims=rows.dims
    )
