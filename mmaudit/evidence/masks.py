"""The maskers of an audit, with everything that they take from data."""

from __future__ import annotations

from typing import NamedTuple

import torch

from mmaudit.checkpoint.structure import mask_functions
from mmaudit.checkpoint.subject import Subject
from mmaudit.evidence.data import Source, open_source
from mmaudit.masking.build import build_maskers
from mmaudit.masking.masked_batch import Maskers, Template, canonical_path, known_dimension
from mmaudit.masking.paths import find_value
from mmaudit.masking.reference import Reference, needs_reference
from mmaudit.masking.spec import MaskingSpec
from mmaudit.report.schema import Note

__all__ = ["Masks", "gather_masks"]


class Masks(NamedTuple):
    """What is needed to mask any batch of the audited data."""

    maskers: Maskers
    templates: dict[str, Template]
    """Shapes of inputs, for batches in which a modality is absent."""
    notes: tuple[Note, ...]


def gather_masks(
    subject: Subject,
    source: Source,
    *,
    seed: int,
    timeout: float = 120,
    spec: MaskingSpec | None = None,
) -> Masks:
    """Read the training data, or the audited data where there is no other, as far as the masks need it.

    Args:
        subject: Spec and training split.
        source: The audited data; afterwards it knows which modalities it may lack altogether.
        seed: Of donor pools and random masks.
        timeout: Seconds a DataLoader worker may take for a batch.
        spec: With other masks than the subject's.

    Raises:
        SpecError: If a mask lacks what it needs.
        DataError: If the data cannot be read.
    """
    spec, train = spec or subject.spec, None
    if subject.train is not None:
        train = open_source(subject.train, spec, directory=subject.directory, timeout=timeout)
    reference = None
    if needs_reference(spec):
        named = "training data" if train is not None else "audited data"
        reference = Reference.collect((train or source).batches(), spec, seed=seed, source=named)
    functions = mask_functions(spec, subject.directory)
    maskers = build_maskers(spec, reference, seed=seed, functions=functions)
    templates: dict[str, Template] = {}
    for split in (source, train):
        if split is not None:
            templates = {**_shapes(split, subject), **templates}
    if train is not None:
        source.may_lack = frozenset(
            name
            for name, part in spec.modalities.items()
            if set(part.inputs.values()) <= set(templates)
        )
    return Masks(maskers, templates, reference.notes if reference is not None else ())


def _shapes(source: Source, subject: Subject) -> dict[str, Template]:
    """Path -> shape of one sample and dtype, as the first batch shows them."""
    batch = source.first()
    found: dict[str, Template] = {}
    for part in subject.spec.modalities.values():
        for path in part.inputs.values():
            value = find_value(batch.data, path)
            if isinstance(value, torch.Tensor):
                dim = known_dimension(canonical_path(path), value, batch.n, batch.dims)
                if dim is not None:
                    found[path] = (
                        tuple(size for d, size in enumerate(value.shape) if d != dim),
                        value.dtype,
                    )
    return found
