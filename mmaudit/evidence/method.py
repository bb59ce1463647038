"""How the coalitions of a model may be evaluated, as far as its structure and its masks say."""

from __future__ import annotations

from typing import Literal

from mmaudit.checkpoint.structure import Structure
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.masking.spec import MaskingSpec

__all__ = ["STEP_DOWN", "Method", "constant_when_empty", "first_method"]

Method = Literal["packed", "unpacked", "full passes"]
"""Many coalitions in one batch behind encoders that ran once; one coalition at a time behind them; every coalition a pass."""

STEP_DOWN: dict[str, Method] = {"packed": "unpacked", "unpacked": "full passes"}
"""What is tried where a method does not work."""


def first_method(spec: MaskingSpec, structure: Structure) -> tuple[Method, str | None]:
    """The fastest method that may be right, and why none that is faster is; ``None`` for the fastest."""
    dropped = [
        n
        for n, part in spec.modalities.items()
        if any(m.kind == "drop" for m in part.mask.values())
    ]
    if dropped:
        return (
            "full passes",
            f"mask 'drop' of {', '.join(dropped)} changes how the model is called",
        )
    if structure.fallback is not None:
        return "full passes", structure.fallback
    if not structure.encoder_calls:
        return "full passes", "no module sees one modality alone"
    if structure.rows_matter is not None:
        return "unpacked", structure.rows_matter
    unpackable = [call.key[0] for call in structure.encoder_calls if not call.packable]
    if unpackable:
        return (
            "unpacked",
            f"what module '{unpackable[0]}' returns has no dimension that runs over samples",
        )
    return "packed", None


def constant_when_empty(structure: Structure, batch: MaskedBatch) -> bool:
    """Whether all samples give the same output once everything is masked."""
    known = structure
    if known.rows_matter is not None or known.context or known.context_read or known.fallback:
        return False
    return not known.record.stochastic and all(
        masker.constant and not masker.changes_call
        for part in batch.maskers.values()
        for masker in part.values()
    )
