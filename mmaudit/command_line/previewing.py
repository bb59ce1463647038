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
from mmaudit.evidence.plain_score import PlainScore
from mmaudit.evidence.rows import Rows
from mmaudit.evidence.scoring import value_function
from mmaudit.masking.calling import Caller
from mmaudit.masking.masked_batch import MaskedBatch, batch_dimension, canonical_path
from mmaudit.masking.paths import find_value
from mmaudit.report.labels import primary_score

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
    confidence: float | None
    """In [0, 1]; ``None`` where it says several things."""
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
        seen: Samples behind ``scores``.
        score: Name of the score: ``accuracy``, of a regression ``R2``.
        scores: Masked modalities -> score in the batches that were read.
    """

    title: str
    source: str
    samples: tuple[SamplePreview, ...]
    seen: int
    score: str
    scores: dict[tuple[str, ...], float]


def preview_audit_file(
    audit_file: Path, *, samples: int = 3, device: str | None = None, trust: bool = False
) -> Preview:
    """Show the first samples of an audit file's data to its model, whole and masked as the audit would mask them.

    Args:
        audit_file: The audit file.
        samples: How many, at least 1; fewer where the data has fewer.
        device: Where to run; left out, a GPU if there is one.
        trust: Load a checkpoint that runs code when it is loaded.

    Raises:
        MMAuditError: If model or data cannot be loaded or do not fit together.
    """
    with open_audit_file(audit_file, device=device, trust=trust) as opened:
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
            score=primary_score(viewer.spec.task),
            scores=viewer.found(),
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
        self.sums = {masked: PlainScore(self.value) for masked in self.coalitions}

    def view(self, batch: Batch, samples: int) -> list[SamplePreview]:
        """The first samples of a batch; all of it counts for the scores."""
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
            masked: self.value.scores(self.caller(prepared.coalition(index)))
            for masked, index in self.coalitions.items()
        }
        self.seen += batch.n
        right: dict[tuple[str, ...], list[bool | None]] = {}
        for masked, found in scores.items():
            right[masked] = [None] * batch.n
            if batch.targets is not None:
                rows = self.value.rows(batch)
                judged = self.value.judged(found.unsqueeze(0), rows)
                self.sums[masked].add(judged, rows)
                right[masked] = _all_right(judged, rows, batch.n)
        return [
            self._sample(batch, prepared, scores, right, row)
            for row in range(min(samples, batch.n))
        ]

    def found(self) -> dict[tuple[str, ...], float]:
        known = {masked: sums.value() for masked, sums in self.sums.items()}
        return {masked: value for masked, value in known.items() if value is not None}

    def _sample(
        self,
        batch: Batch,
        prepared: MaskedBatch,
        scores: Mapping[tuple[str, ...], Tensor],
        right: Mapping[tuple[str, ...], list[bool | None]],
        row: int,
    ) -> SamplePreview:
        names = self.spec.classes
        target = None if batch.targets is None else self.value.told(batch.targets[row], names)
        predictions = []
        for masked, found in scores.items():
            label, confidence = self.value.said(found[row], names)
            predictions.append(Prediction(masked, label, confidence, right[masked][row]))
        return SamplePreview(
            id=batch.ids[row],
            label=target,
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


def _all_right(judged: dict[str, np.ndarray], rows: Rows, n: int) -> list[bool | None]:
    """Whether all of each sample is right; ``None`` where nothing is right or wrong."""
    if "correct" not in judged:
        return [None] * n
    seen = np.bincount(rows.sample, minlength=n)
    right = np.bincount(rows.sample, judged["correct"][:, 0], n)
    return [bool(a == b) if b else None for a, b in zip(right, seen, strict=True)]


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
