"""Collecting the coalition evidence of a whole data set: batches in, table out, in bounded memory.

Batch i is evaluated by process ``i % number``; nothing is padded and nothing dropped, and every process sees the batches that
one process would have seen, so that the numbers are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from mmaudit.evidence.coalitions import CoalitionEvaluator, MismatchError
from mmaudit.evidence.data import Source
from mmaudit.evidence.masks import Masks
from mmaudit.evidence.plain_score import PlainScore
from mmaudit.evidence.processes import Processes
from mmaudit.evidence.rows import Rows
from mmaudit.evidence.same_inputs import count_same
from mmaudit.evidence.scoring import ValueFunction
from mmaudit.evidence.table import ShardInfo, TableWriter
from mmaudit.exceptions import DataError, MMAuditError, ModelError, first_line
from mmaudit.masking.base import stable_hash
from mmaudit.masking.batches import Batch
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.report.schema import Note
from mmaudit.report.tables import coalition_schema
from mmaudit.typing import FloatArray

__all__ = ["Collector", "Progress", "described", "plain_score"]

_SCORES_BYTES = 32 * 2**20


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
                    len(self.evaluator.spec.names),
                    _width(columns, outputs),
                    logits=self.logits,
                    task=self.value.task,
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
        """The rows of a batch, some samples at a time: outputs of thousands of coalitions take room in double precision."""
        rows = self.value.rows(batch)
        given = len(outputs[0]) if outputs[0].dim() else 0
        if given != batch.n:
            raise ModelError(f"the model gives {given} rows for {batch.n} targets.")
        widest = 8 * len(outputs) * max(1, outputs[0].numel() // batch.n)
        step = max(1, _SCORES_BYTES // widest)
        parts: list[dict[str, np.ndarray]] = []
        kept: list[np.ndarray] = []
        for first in range(0, batch.n, step):
            inside = (rows.sample >= first) & (rows.sample < first + step)
            part = replace(rows.where(inside), sample=rows.sample[inside] - first)
            columns, finite = self._judged([out[first : first + step] for out in outputs], part)
            parts.append(columns)
            kept.append(np.flatnonzero(inside)[finite])
        labelled = np.unique(rows.sample)
        whole = rows.where(np.concatenate(kept))
        missing = np.setdiff1d(labelled, whole.sample)
        modalities = self.evaluator.spec.names
        info = ShardInfo(
            rank=self.processes.rank,
            first_batch=batch.index,
            next_batch=batch.index + 1,
            samples=batch.n,
            rows=len(whole),
            unlabelled=batch.n - len(labelled),
            grouped=any(group is not None for group in whole.groups),
            nonfinite=len(missing),
            nonfinite_samples=[batch.ids[row] for row in missing[:20]],
            id_hash=_fingerprint(batch, rows),
            classes=self.value.classes or 0,
            present={name: int(batch.present[name].sum()) for name in modalities},
            same=count_same(batch, self.evaluator.spec),
        )
        found: dict[str, object] = {
            name: np.concatenate([part[name] for part in parts]) for name in parts[0]
        }
        found["sample_id"] = whole.ids
        found["position"] = batch.start + whole.sample
        found["target"] = whole.target
        found["group"] = list(whole.groups)
        found["present"] = sum(
            batch.present[name][whole.sample].astype(np.int64) << m
            for m, name in enumerate(modalities)
        )
        return found, info

    def _judged(
        self, outputs: list[torch.Tensor], rows: Rows
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Columns of the rows of some samples, and which of them are kept: a sample with an output that is not finite is not."""
        n = len(outputs[0])
        scores = self.value.scores(torch.cat(outputs))
        scores = scores.reshape(len(outputs), n, *scores.shape[1:])
        own = rows.pick(scores)
        wide = own.reshape(len(outputs), len(rows), own.shape[2:].numel())
        finite = torch.isfinite(wide).all(-1).all(0).numpy()
        lost = np.zeros(n, bool)
        lost[rows.sample[~finite]] = True
        usable = ~lost[rows.sample]
        taken = rows.where(usable)
        columns = self.value.columns(scores, taken, self.responses)
        if self.logits:
            stored = wide[:, torch.from_numpy(usable)].permute(1, 0, 2)
            columns["logits"] = stored.flatten(1).float().numpy()
        return columns, usable


def plain_score(collector: Collector) -> tuple[float, int]:
    """Score of the model with everything present, in one plain pass: accuracy, or R2 of a regression.

    Returns:
        The score (of several numbers the mean of their R2, as scikit-learn's ``r2_score`` takes it), and the number of samples
        that have a target.

    Raises:
        DataError: If no sample has a target, or the numbers of a regression do not vary.
    """
    value, samples = collector.value, 0
    found = PlainScore(value)
    for batch in collector.source.batches():
        with described(batch):
            scores = value.scores(collector.evaluator.plain(collector.prepare(batch)))
            rows = value.rows(batch)
            found.add(value.judged(scores.unsqueeze(0), rows), rows)
        samples += len(np.unique(rows.sample))
        if collector.progress is not None:
            collector.progress("Plain score", batch.start + batch.n, collector.source.samples)
    score = found.value()
    if not found.rows:
        raise DataError("no sample has a target: there is nothing to audit.")
    if score is None:
        raise DataError(
            "the target is the same in all samples: R2 compares errors with its spread."
        )
    return score, samples


def _width(columns: dict[str, object], outputs: list[torch.Tensor]) -> int:
    """Stored scores of a row in one coalition."""
    stored = columns.get("logits")
    return stored.shape[1] // len(outputs) if isinstance(stored, np.ndarray) else 0


def _fingerprint(batch: Batch, rows: Rows) -> int:
    """Sum of hashes of ids and what they are judged by; what has no label counts for nothing, however far it was padded."""
    if rows.part is None:
        pairs = zip(rows.ids, rows.truth.tolist(), strict=True)
        return sum(stable_hash(name, truth) for name, truth in pairs) % 2**128
    total = 0
    edges = np.searchsorted(rows.sample, np.arange(batch.n + 1))
    for row, name in enumerate(batch.ids):
        part = slice(edges[row], edges[row + 1])
        said = (rows.part[part].tobytes() + rows.truth[part].tobytes()).hex()
        total += stable_hash(name, said)
    return total % 2**128


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
        raise ModelError(
            f"the model raised {type(error).__name__} on batch {self._batch.index} (samples {ids[0]} to {ids[-1]}): {first_line(error)}"
        ) from error
