"""Mono-modal concepts: what each modality alone would say, as the numbers that a linear probe is to find in the joint model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mmaudit.evidence.files import open_file
from mmaudit.evidence.loaders import Selection
from mmaudit.evidence.reference_models import Reference, StoredOutputs, file_record
from mmaudit.evidence.references import open_references
from mmaudit.evidence.surroundings import Surroundings
from mmaudit.exceptions import DataError, SpecError
from mmaudit.masking.batches import Batch

__all__ = ["Concept", "StoredConcept", "open_concepts"]

_ROWS = 4096
_CLASSES = ("multiclass", "binary", "segments")


class Concept(Protocol):
    """Gives the concept of the samples of a batch."""

    stored: bool
    """Known for audited samples alone."""

    def of(self, batch: Batch) -> Tensor:
        """Float64, ``(n, q)`` or ``(n, T, q)`` on the CPU; what stands where the modality is lacking means nothing."""


class _FromReference:
    """Outputs of a reference model; of classes in logit space, less their mean in each sample.

    A number added to all logits of a sample changes no prediction, but would count as something that the joint model lost.
    """

    def __init__(self, reference: Reference, *, centred: bool) -> None:
        self._reference, self._centred = reference, centred
        self.stored = isinstance(reference, StoredOutputs)

    def of(self, batch: Batch) -> Tensor:
        scores = self._reference.scores(batch).double()
        return scores - scores.mean(-1, keepdim=True) if self._centred else scores


class StoredConcept:
    """Concepts that were computed elsewhere, joined by sample id; kept in memory.

    Args:
        modality: Whose.
        path: ``.npz`` or ``.parquet`` with ``id`` and ``concept`` ``(n, q)`` (or ``(n,)``), row by row.

    Raises:
        DataError: If the file cannot be read, lacks an array, or an id occurs twice.
    """

    stored = True

    def __init__(self, modality: str, path: Path) -> None:
        self._modality, self._name = modality, path.name
        columns = {"id": "id", "concept": "concept"}
        reader = open_file(path, columns=columns, rows=None, batch_size=_ROWS, note=lambda _: None)
        self._rows: dict[str, int] = {}
        parts: list[Tensor] = []
        for raw in reader.read(Selection()):
            values = raw.data["concept"]
            if not isinstance(values, Tensor) or values.dim() > 2:
                raise DataError(
                    f"{path.name}: 'concept' is no table of numbers; expected one row (n, q) for each sample."
                )
            for text in _texts(raw.data["id"], path.name):
                if text in self._rows:
                    raise DataError(f"{path.name}: id '{text}' occurs twice; expected it once.")
                self._rows[text] = len(self._rows)
            parts.append(values.reshape(len(values), -1).double())
        if not parts or len({part.shape[1] for part in parts}) > 1:
            raise DataError(f"{path.name}: expected rows of 'concept' of one length.")
        self._values = torch.cat(parts)

    def of(self, batch: Batch) -> Tensor:
        """See :meth:`Concept.of`.

        Raises:
            DataError: If a sample that has the modality is not in the file.
        """
        places = [self._rows.get(sample, -1) for sample in batch.ids]
        has = batch.present[self._modality]
        for sample, place, here in zip(batch.ids, places, has, strict=True):
            if here and place < 0:
                raise DataError(
                    f"{self._name} has no concept of sample '{sample}'; expected one of every audited sample that has {self._modality}."
                )
        return self._values[torch.as_tensor(places).clamp(min=0)]


def open_concepts(surroundings: Surroundings) -> dict[str, Concept]:
    """Open what the spec names under ``probe.concepts``, and the reference models of all other modalities.

    Returns:
        Modality -> concept, in the order of the spec; empty where there are none.

    Raises:
        SpecError: If a modality is none of the spec's, or a file is not there.
        DataError: If a file cannot be read.
    """
    spec, probe = surroundings.spec, surroundings.spec.probe
    found: dict[str, Concept] = {}
    for name, path in probe.concepts.items():
        if name not in spec.names:
            raise SpecError(
                f"probe.concepts: '{name}' is no modality; there are {', '.join(spec.names)}."
            )
        directory = surroundings.subject.directory
        located = path if directory is None else directory / path
        if not located.is_file() or located.suffix not in (".npz", ".parquet"):
            raise SpecError(
                f"probe.concepts: {path} is no .npz or .parquet file that is there; expected the concept of {name}."
            )
        found[name] = StoredConcept(name, located)
        record = file_record(located, str(path), f"concept of {name}")
        if record not in surroundings.files:
            surroundings.files.append(record)
    if set(found) < set(spec.names):
        centred = probe.concept == "centred_logits" and spec.task in _CLASSES
        for name, reference in open_references(surroundings).items():
            found.setdefault(name, _FromReference(reference, centred=centred))
    return {name: found[name] for name in spec.names if name in found}


def _texts(values: Any, name: str) -> list[str]:
    items = values.tolist() if isinstance(values, Tensor | np.ndarray) else list(values or ())
    if not items or any(item is None or isinstance(item, list) for item in items):
        raise DataError(f"{name}: a row has no id; expected the id of its sample in each.")
    return [str(item) for item in items]
