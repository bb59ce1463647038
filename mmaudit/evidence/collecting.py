"""Collecting the coalition evidence of a whole data set: batches in, table out, in bounded memory.

Batch i is evaluated by process ``i % number``; nothing is padded and nothing dropped, and every process sees the batches that
one process would have seen, so that the numbers are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from mmaudit.evidence.coalitions import CoalitionEvaluator, MismatchError
from mmaudit.evidence.data import Source
from mmaudit.evidence.masks import Masks
from mmaudit.evidence.processes import Processes
from mmaudit.evidence.scoring import ValueFunction
from mmaudit.evidence.table import ShardInfo, TableWriter
from mmaudit.exceptions import DataError, MMAuditError, ModelError
from mmaudit.masking.base import stable_hash
from mmaudit.masking.batches import Batch
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.report.schema import Note
from mmaudit.report.tables import coalition_schema
from mmaudit.typing import FloatArray

__all__ = ["Collector", "Progress", "plain_accuracy"]


class Progress(Protocol):
    """Told how far an audit is."""

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """``done`` samples of ``total`` in a stage."""


@dataclass
class Collector:
    """Everything that is needed to evaluate batches and write them down.

    Args:
        source: The audited data.
        evaluator: Gives the outputs of all coalitions.
        masks: Of the spec, and the shapes of inputs that a batch may lack.
        value: Of the task.
        responses: Shapley weights ``(M, 2**M)`` that turn coalition scores into mono-modal responses.
        processes: Who takes part.
        logits: Whether to store the class scores of every coalition.
        progress: Told after every batch.
        stage: What it is told.
        every: Only each so many-th batch is evaluated.
    """

    source: Source
    evaluator: CoalitionEvaluator
    masks: Masks
    value: ValueFunction
    responses: FloatArray
    processes: Processes
    logits: bool = False
    progress: Progress | None = None
    stage: str = "Coalitions"
    every: int = 1

    def prepare(self, batch: Batch) -> MaskedBatch:
        """A batch of the source with its masks, on the device."""
        return MaskedBatch(
            batch.data,
            self.evaluator.spec,
            self.masks.maskers,
            batch.ids,
            present=batch.present,
            device=self.processes.device,
            templates=self.masks.templates,
            dims=batch.dims,
        )

    def collect(self, folder: Path) -> bool:
        """Evaluate what the table does not have yet and write it.

        Returns:
            Whether the table can be trusted; ``False`` as soon as a spot check fails: it must then be dropped.

        Raises:
            DataError: If the data cannot be read.
            ModelError: If the model fails on a batch.
        """
        ranks = self.processes
        writer = TableWriter(folder, ranks.rank)
        total = self.source.samples
        if total is not None and self.every > 1:
            total = -(-total // self.every)
        for batch in self.source.batches(
            skip=writer.next_batch,
            stride=ranks.number * self.every,
            offset=ranks.rank * self.every,
        ):
            with described(batch):
                prepared = self.prepare(batch)
                try:
                    outputs = self.evaluator.evaluate(prepared)
                except MismatchError:
                    return False
                columns, info = self._columns(batch, outputs)
            if writer.schema is None:
                writer.schema = coalition_schema(
                    len(self.evaluator.spec.names), info.classes, logits=self.logits
                )
            if writer.add(columns, info):
                self._flush(writer)
            if self.progress is not None:
                self.progress(
                    self.stage, min(writer.samples * ranks.number, total or 10**18), total
                )
        self._flush(writer)
        return True

    def _flush(self, writer: TableWriter) -> None:
        evaluator = self.evaluator
        notes = [
            *self.source.notes,
            *(Note(kind="fallback", topic="evidence", text=text) for text in evaluator.notes),
        ]
        if self.value.warning:
            notes.append(Note(kind="warning", topic="data", text=self.value.warning))
        writer.flush(
            cost=evaluator.take_cost(),
            method=evaluator.method,
            reason=evaluator.reason,
            notes=notes,
        )

    def _columns(
        self, batch: Batch, outputs: list[torch.Tensor]
    ) -> tuple[dict[str, object], ShardInfo]:
        if batch.targets is None:
            raise DataError("the audit needs labels: name their path under 'target'.")
        scores = torch.stack([self.value.scores(output) for output in outputs])
        if scores.shape[1] != batch.n:
            raise ModelError(f"the model gives {scores.shape[1]} rows for {batch.n} targets.")
        finite = torch.isfinite(scores).all(-1).all(0).numpy()
        rows = np.flatnonzero(finite)
        modalities = self.evaluator.spec.names
        info = ShardInfo(
            rank=self.processes.rank,
            first_batch=batch.index,
            next_batch=batch.index + 1,
            samples=batch.n,
            nonfinite=int(batch.n - len(rows)),
            nonfinite_samples=[batch.ids[row] for row in np.flatnonzero(~finite)[:20]],
            id_hash=sum(
                stable_hash(i, int(t)) for i, t in zip(batch.ids, batch.targets, strict=True)
            )
            % 2**128,
            classes=scores.shape[2],
            present={name: int(batch.present[name].sum()) for name in modalities},
        )
        kept = scores[:, torch.from_numpy(rows)]
        columns: dict[str, object] = dict(
            self.value.columns(kept, batch.targets[rows], self.responses)
        )
        columns["sample_id"] = [batch.ids[row] for row in rows]
        columns["position"] = batch.start + rows
        columns["target"] = batch.targets[rows]
        columns["group"] = (
            [batch.groups[row] for row in rows] if batch.groups else [None] * len(rows)
        )
        columns["present"] = sum(
            batch.present[name][rows].astype(np.int64) << m for m, name in enumerate(modalities)
        )
        if self.logits:
            columns["logits"] = kept.permute(1, 0, 2).reshape(len(rows), -1).float().numpy()
        return columns, info


def plain_accuracy(collector: Collector) -> tuple[float, int]:
    """Accuracy of the model with everything present, in one plain pass.

    Returns:
        Accuracy in [0, 1] and the number of samples.
    """
    hits = total = 0
    for batch in collector.source.batches():
        if batch.targets is None:
            raise DataError("the audit needs labels: name their path under 'target'.")
        with described(batch):
            scores = collector.value.scores(collector.evaluator.plain(collector.prepare(batch)))
        hits += int((scores.argmax(-1).numpy() == batch.targets).sum())
        total += batch.n
        if collector.progress is not None:
            collector.progress("Plain score", total, collector.source.samples)
    return hits / total, total


class described:  # noqa: N801 - used like a function
    """Turns whatever a foreign model raises on a batch into one sentence that names the samples."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Wrap foreign exceptions; ours pass."""
        if error is None or isinstance(error, MMAuditError) or not isinstance(error, Exception):
            return
        ids = self._batch.ids
        text = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"the model raised {type(error).__name__} on batch {self._batch.index} (samples {ids[0]} to {ids[-1]}): {text[0][:300]}"
        ) from error
