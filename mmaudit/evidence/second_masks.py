"""The second mask: everything is evaluated once more, on some of the samples, with modalities hidden in another way.

A model that was never trained without a modality may do anything when it is given zeros, and another thing when it is given the
values of another sample. What only holds under one mask is no finding about the modality.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from mmaudit.checkpoint.subject import Subject
from mmaudit.evidence.data import Source
from mmaudit.evidence.masks import Masks, gather_masks
from mmaudit.exceptions import MMAuditError
from mmaudit.masking.build import describe_masks
from mmaudit.masking.spec import MaskingSpec, MaskSpec, NamedMask
from mmaudit.report.schema import Note

__all__ = ["SECOND", "SecondMasks", "gather_second", "second_spec", "spread", "without_second"]

SECOND = "second"
"""Name of the table with the coalitions under the second masks."""


class SecondMasks(NamedTuple):
    """What is needed to evaluate everything once more."""

    spec: MaskingSpec
    masks: Masks
    words: dict[str, str]
    """Modality -> its second mask in words."""


def second_spec(spec: MaskingSpec) -> MaskingSpec | None:
    """The spec with the second masks; ``None`` where there is to be none.

    ``auto`` hides by the values of other samples what was hidden in another way, and by zeros what was hidden so. Inputs that are
    kept (lengths, attention masks) stay kept.

    Example:
        >>> spec = MaskingSpec(modalities={"audio": 0, "image": {"inputs": "1", "mask": "marginal"}})
        >>> [str(mask) for part in second_spec(spec).modalities.values() for mask in part.mask.values()]
        ['marginal', 'zero']
    """
    wanted = spec.second_mask.mask
    if wanted == "off":
        return None
    named = None if wanted == "auto" else wanted

    def other(mask: MaskSpec) -> MaskSpec:
        if mask.kind == "keep":
            return mask
        return named or NamedMask(kind="zero" if mask.kind == "marginal" else "marginal")

    modalities = {
        name: part.model_copy(
            update={"mask": {input_name: other(mask) for input_name, mask in part.mask.items()}}
        )
        for name, part in spec.modalities.items()
    }
    same = all(modalities[name].mask == part.mask for name, part in spec.modalities.items())
    return None if same else spec.model_copy(update={"modalities": modalities})


def gather_second(
    subject: Subject,
    source: Source,
    *,
    first: Mapping[str, str],
    seed: int,
    timeout: float = 120,
) -> tuple[SecondMasks | None, tuple[Note, ...]]:
    """Prepare the second masks.

    Args:
        subject: Spec and training split.
        source: The audited data.
        first: The first masks in words, for the note.
        seed: Of donor pools and random masks.
        timeout: Seconds a DataLoader worker may take for a batch.

    Returns:
        The masks, ``None`` where there are none, and notes for the record.

    Raises:
        MMAuditError: If a mask that the spec names cannot be made; ``auto`` goes without, and the notes say so.
    """
    spec = second_spec(subject.spec)
    if spec is None:
        return None, ()
    try:
        masks = gather_masks(subject, source, seed=seed, timeout=timeout, spec=spec)
    except MMAuditError as error:
        if subject.spec.second_mask.mask != "auto":
            raise
        return None, (without_second(error),)
    words = describe_masks(masks.maskers)
    if words == dict(first):
        return None, ()
    notes = [n.model_copy(update={"text": f"second mask: {n.text}"}) for n in masks.notes]
    return SecondMasks(spec, masks, words), tuple(notes)


def without_second(error: MMAuditError) -> Note:
    """That there is no second mask, and why."""
    text = f"nothing was evaluated under a second mask, so that findings rest on the first alone: {error}"
    return Note(kind="fallback", topic="masking", text=text)


def spread(samples: int, batches: int, wanted: int) -> int:
    """Every how many batches one is read, so that about as many samples as wanted are, spread over the data.

    Example:
        >>> spread(10_000, 100, 2_000), spread(600, 10, 2_000), spread(9_000, 3, 2_000)
        (5, 1, 3)
    """
    return max(1, min(batches, math.ceil(samples / wanted)))
