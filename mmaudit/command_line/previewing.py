"""``mmaudit preview``: a few samples whole and masked, with what the model says to each, so that nobody audits the wrong thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmaudit.command_line.opening import Opened, open_audit_file
from mmaudit.evidence.collecting import described
from mmaudit.evidence.data import Batch
from mmaudit.evidence.masks import gather_masks
from mmaudit.evidence.scoring import value_function
from mmaudit.masking.calling import Caller
from mmaudit.masking.masked_batch import MaskedBatch, batch_dimension, canonical_path
from mmaudit.masking.paths import find_value

__all__ = ["InputPreview", "Prediction", "Preview", "SamplePreview", "preview_audit_file"]

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class InputPreview:
    """One input of one sample.

    Attributes:
        modality: Its modality.
        name: Of the input.
        mask: How it is masked, in words.
        whole: As the model sees it with everything present; ``None`` where the sample has none.
        masked: Its stand-in; ``None`` where the mask drops it.
        dtype: Of the tensor.
        present: Whether the sample has the modality.
    """

    modality: str
    name: str
    mask: str
    whole: Array | None
    masked: Array | None
    dtype: str
    present: bool


@dataclass(frozen=True)
class Prediction:
    """What the model says when some modalities are masked."""

    masked: tuple[str, ...]
    label: str
    confidence: float
    """In [0, 1]."""
    right: bool | None
    """``None`` where there is no label."""


@dataclass(frozen=True)
class SamplePreview:
    """One sample: its inputs, and the predictions whole, with each modality masked, and with all masked."""

    id: str
    label: str | None
    inputs: tuple[InputPreview, ...]
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True)
class Preview:
    """Some samples of an audit.

    Attributes:
        title: Of the subject.
        source: The data in words.
        samples: The first ones of the data.
        seen: Samples behind ``accuracies``.
        accuracies: Masked modalities -> share of right predictions in the batches that were read.
    """

    title: str
    source: str
    samples: tuple[SamplePreview, ...]
    seen: int
    accuracies: dict[tuple[str, ...], float]


def preview_audit_file(audit_file: Path, *, samples: int = 3, device: str | None = None) -> Preview:
    """Show the first samples of an audit file's data to its model, whole and masked as the audit would mask them.

    Args:
        audit_file: The audit file.
        samples: How many, at least 1; fewer where the data has fewer.
        device: Where to run; left out, a GPU if there is one.

    Raises:
        MMAuditError: If model or data cannot be loaded or do not fit together.
    """
    with open_audit_file(audit_file, device=device) as opened:
        viewer = _Viewer(opened)
        shown: list[SamplePreview] = []
        for batch in opened.source.batches():
            with described(batch):
                shown += viewer.view(batch, samples - len(shown))
            if len(shown) >= samples:
                break
        return Preview(
            title=opened.subject.title,
            source=opened.source.description,
            samples=tuple(shown),
            seen=viewer.seen,
            accuracies=viewer.accuracies(),
        )


class _Viewer:
    def __init__(self, opened: Opened) -> None:
        subject = opened.subject
        self.spec = subject.spec
        self.device = opened.device
        self.caller = Caller(subject.model, self.spec)
        self.value = value_function(self.spec)
        self.masks = gather_masks(subject, opened.source, seed=getattr(self.spec, "seed", 0))
        whole = 2 ** len(self.spec.names) - 1
        without: dict[tuple[str, ...], int] = {
            (name,): whole - 2**m for m, name in enumerate(self.spec.names)
        }
        self.coalitions: dict[tuple[str, ...], int] = {(): whole, **without, self.spec.names: 0}
        self.seen = 0
        self.hits = dict.fromkeys(self.coalitions, 0)
        self.labelled = 0

    def view(self, batch: Batch, samples: int) -> list[SamplePreview]:
        """The first samples of a batch; all of it counts for the accuracies."""
        prepared = MaskedBatch(
            batch.data,
            self.spec,
            self.masks.maskers,
            batch.ids,
            present=batch.present,
            device=self.device,
            templates=self.masks.templates,
        )
        scores = {
            masked: torch.softmax(self.value.scores(self.caller(prepared.coalition(index))), -1)
            for masked, index in self.coalitions.items()
        }
        self.seen += batch.n
        if batch.targets is not None:
            self.labelled += batch.n
            for masked, rows in scores.items():
                self.hits[masked] += int((rows.argmax(-1).numpy() == batch.targets).sum())
        return [self._sample(batch, prepared, scores, row) for row in range(min(samples, batch.n))]

    def accuracies(self) -> dict[tuple[str, ...], float]:
        return (
            {masked: hits / self.labelled for masked, hits in self.hits.items()}
            if self.labelled
            else {}
        )

    def _sample(
        self,
        batch: Batch,
        prepared: MaskedBatch,
        scores: Mapping[tuple[str, ...], Tensor],
        row: int,
    ) -> SamplePreview:
        target = None if batch.targets is None else int(batch.targets[row])
        predictions = []
        for masked, rows in scores.items():
            confidence, found = rows[row].max(-1)
            right = None if target is None else int(found) == target
            predictions.append(
                Prediction(masked, self._class(int(found)), float(confidence), right)
            )
        return SamplePreview(
            id=batch.ids[row],
            label=None if target is None else self._class(target),
            inputs=tuple(self._inputs(batch, prepared, row)),
            predictions=tuple(predictions),
        )

    def _inputs(self, batch: Batch, prepared: MaskedBatch, row: int) -> Iterator[InputPreview]:
        for modality, part in self.spec.modalities.items():
            for name, path in part.inputs.items():
                whole, masked = _values(prepared, path)
                dim = batch_dimension(whole, prepared.n) if isinstance(whole, Tensor) else 0
                yield InputPreview(
                    modality=modality,
                    name=name,
                    mask=self.masks.maskers[modality][name].describe(),
                    whole=_row(whole, dim, row),
                    masked=_row(masked, dim, row),
                    dtype=str(getattr(whole, "dtype", "")).removeprefix("torch."),
                    present=bool(batch.present[modality][row]),
                )

    def _class(self, index: int) -> str:
        names = self.spec.classes
        return names[index] if names and index < len(names) else str(index)


def _values(prepared: MaskedBatch, path: str) -> tuple[Any, Any]:
    """An input and its stand-in; the same twice where the mask keeps it."""
    whole = find_value(prepared.whole, path)
    for replaced, value in prepared.values.items():
        if replaced == canonical_path(path) or (value is not None and value is whole):
            return value, prepared.masked(replaced)
    return whole, whole


def _row(value: Any, dim: int | None, row: int) -> Array | None:
    """One sample of an input; the whole of one that has no dimension over samples."""
    if not isinstance(value, Tensor):
        return None
    taken = value if dim is None else value.select(dim, row)
    taken = taken.detach().cpu()
    array: Array = (taken.float() if taken.dtype == torch.bfloat16 else taken).numpy()
    return array
