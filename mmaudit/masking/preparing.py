"""From a batch in the user's hands to one that coalitions can be formed of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmaudit.exceptions import DataError
from mmaudit.masking.build import build_maskers
from mmaudit.masking.masked_batch import MaskedBatch, Maskers
from mmaudit.masking.paths import find_value, get_value
from mmaudit.masking.reference import Reference, needs_reference
from mmaudit.masking.spec import MaskingSpec

__all__ = ["in_memory_batch", "present_samples", "sample_ids"]


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
        batch: The user's batch.
        spec: Modalities and masks.
        device: Where the model lies.
        maskers: Ready maskers; left out, they are made here, and masks that need data take it from the batch itself.
        functions: Import string -> function, for custom masks.
        seed: Of random masks.

    Raises:
        DataError: If the batch does not have what the spec names.
    """
    ids = sample_ids(batch, spec)
    present = present_samples(batch, spec, len(ids))
    if maskers is None:
        reference = None
        if needs_reference(spec):
            reference = Reference.collect([_Rows(batch, ids, present)], spec, seed=seed, source="audited data")
        maskers = build_maskers(spec, reference, seed=seed, functions=functions)
    return MaskedBatch(batch, spec, maskers, ids, present=present, device=device)


def sample_ids(batch: Any, spec: MaskingSpec, start: int = 0) -> list[str]:
    """Ids of the samples of a batch: those that the spec names, else running numbers from ``start``."""
    if spec.ids is not None:
        value = get_value(batch, spec.ids)
        return [str(item) for item in (value.tolist() if isinstance(value, (Tensor, np.ndarray)) else value)]
    return [str(start + row) for row in range(_count(batch, spec))]


def present_samples(batch: Any, spec: MaskingSpec, n: int) -> dict[str, np.ndarray]:
    """Which samples have which modality, bool ``(n,)`` each.

    A modality is absent where its ``present`` path says so, where none of its inputs is in the batch, and where all its
    floating-point inputs are NaN from end to end.
    """
    found = {}
    for name, part in spec.modalities.items():
        values = [find_value(batch, path) for path in part.inputs.values()]
        here = np.full(n, any(value is not None for value in values))
        if part.present is not None:
            flags = np.asarray(get_value(batch, part.present)).astype(bool).reshape(-1)
            if len(flags) != n:
                raise DataError(f"modalities.{name}.present gives {len(flags)} flags for {n} samples.")
            here &= flags
        floats = [v for v in values if isinstance(v, Tensor) and v.layout is torch.strided and v.is_floating_point() and len(v) == n]
        if floats:
            here &= ~np.logical_and.reduce([torch.isnan(v.reshape(n, -1)).all(1).cpu().numpy() for v in floats])
        found[name] = here
    return found


def _count(batch: Any, spec: MaskingSpec) -> int:
    if spec.target is not None:
        target = find_value(batch, spec.target)
        if target is not None:
            return len(target)
    found = [find_value(batch, path) for part in spec.modalities.values() for path in part.inputs.values()]
    shapes = [value.shape for value in found if isinstance(value, (Tensor, np.ndarray)) and value.ndim]
    if shapes:
        # Samples run along the first axis as a rule; where the inputs disagree on it, along one whose size they share.
        shared = [size for size in shapes[0] if all(size in shape for shape in shapes)]
        first = shapes[0][0]
        return int(first if first in shared or not shared else shared[0])
    raise DataError(f"the batch has none of the inputs that the spec names: {_inputs(spec)}.")


def _inputs(spec: MaskingSpec) -> str:
    return ", ".join(f"{name} at '{path}'" for name, part in spec.modalities.items() for path in part.inputs.values())


@dataclass(frozen=True)
class _Rows:
    data: Any
    ids: Sequence[str]
    present: Mapping[str, np.ndarray]
