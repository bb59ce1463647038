"""The clean losses of all heads at the checkpoints of one training, and what measures need of each of them.

Every file is loaded as an audit loads one, strictly and safely. Data, masks and drawn samples are the same for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from mmaudit.checkpoint.loader import load_checkpoint
from mmaudit.checkpoint.model import left_as_it_came, unwrapped
from mmaudit.checkpoint.structure import Structure, find_structure
from mmaudit.checkpoint.subject import Subject
from mmaudit.evidence.checkpoint_order import Place
from mmaudit.evidence.collecting import Progress, described
from mmaudit.evidence.cost import Cost
from mmaudit.evidence.data import Source, open_source
from mmaudit.evidence.head_losses import HeadCollector, HeadEvaluator, HeadSums, with_full_passes
from mmaudit.evidence.heap import kept_heap
from mmaudit.evidence.masks import Masks, gather_masks
from mmaudit.evidence.parts import fixed_part
from mmaudit.evidence.processes import Processes
from mmaudit.evidence.scoring import value_function
from mmaudit.evidence.surroundings import Surroundings
from mmaudit.evidence.table import shard_infos
from mmaudit.evidence.workspace import TABLE
from mmaudit.exceptions import SpecError
from mmaudit.masking.spec import AuditSpec
from mmaudit.report.store import write_json_atomic
from mmaudit.typing import EmptyRule, FloatArray

__all__ = ["CheckpointSeries", "Evaluated", "SeriesSettings"]


@dataclass(frozen=True)
class SeriesSettings:
    """What holds for all checkpoints of a series.

    Attributes:
        own: Modality -> path of its own head in what the model returns.
        empty: What the empty coalition counts in a response.
        seed: Of drawn samples, random masks and spot checks.
        precision: Autocast dtype, ``None`` for the model's own.
        batch_size: Instead of the data's own.
        train_samples: At most so many training samples.
        validation_samples: At most so many held-out samples.
        timeout: Seconds a DataLoader worker may take for a batch.
        trust: Load checkpoints that run code when they are loaded.
    """

    own: Mapping[str, str] = field(default_factory=dict)
    empty: EmptyRule = "exact"
    seed: int = 0
    precision: torch.dtype | None = None
    batch_size: int | None = None
    train_samples: int | None = None
    validation_samples: int | None = None
    timeout: float = 120
    trust: bool = False


class Evaluated(NamedTuple):
    """What was found at one checkpoint."""

    losses: dict[str, HeadSums]
    """Split -> losses of all heads, over all processes."""
    passes: dict[str, float]
    """Split -> plain passes that it took."""
    method: str
    """How coalitions were evaluated."""
    surroundings: Surroundings
    """For further evidence; the coalition table of the held-out split is in its work folder."""
    files: tuple[dict[str, Any], ...]
    """That were loaded: path, SHA-256, bytes, role."""
    notes: tuple[str, ...]


class CheckpointSeries:
    """Evaluates one checkpoint after the other on the same samples.

    Args:
        spec: Of the audit file; its own checkpoint does not matter.
        directory: Where imports and data paths begin.
        responses: Shapley weights ``(M, 2**M)``.
        processes: Who takes part.
        settings: What holds for all checkpoints.
        progress: Told how far it is.

    Attributes:
        held_out: Name of the held-out split: ``validation``, or ``test`` where the audit file names no validation data.
        notes: What a reader must know of the data.

    Raises:
        SpecError: If the audit file names no training data.
        DataError: If a split cannot be read.
    """

    def __init__(
        self,
        spec: AuditSpec,
        directory: Path,
        *,
        responses: FloatArray,
        processes: Processes,
        settings: SeriesSettings,
        progress: Progress | None = None,
    ) -> None:
        if spec.data.train is None:
            raise SpecError(
                "the audit file names no training data, without which there is no train loss: add data.train."
            )
        self.spec, self.directory = spec, directory
        self._responses, self._processes = responses, processes
        self._settings, self._progress = settings, progress
        self.held_out = "validation" if spec.data.validation is not None else "test"
        held_out = spec.data.validation or spec.data.test
        self.sources = {
            "train": self._opened(spec.data.train, settings.train_samples),
            self.held_out: self._opened(held_out, settings.validation_samples),
        }
        self._subject = Subject(
            None, spec, held_out, spec.data.train, directory=directory, title=spec.label
        )
        self.masks: Masks = gather_masks(
            self._subject, self.sources[self.held_out], seed=settings.seed, timeout=settings.timeout
        )
        notes = [note.text for note in self.masks.notes]
        if self.held_out == "test":
            notes.append(
                "The audit file names no validation data: the test split stands in for it, so that what is chosen by these losses is"
                " chosen on test data."
            )
        self.notes = tuple(notes)

    def _opened(self, data: Any, most: int | None) -> Source:
        settings = self._settings
        whole = open_source(
            data,
            self.spec,
            directory=self.directory,
            batch_size=settings.batch_size,
            timeout=settings.timeout,
        )
        return whole if most is None else fixed_part(whole, self.spec, most, seed=settings.seed)

    @contextmanager
    def evaluated(self, place: Place, work: Path, *, nth: str) -> Iterator[Evaluated]:
        """Load a checkpoint and evaluate all heads on both splits; the model is there within the block.

        Args:
            place: The checkpoint.
            work: An empty folder; all processes see it.
            nth: Which of the checkpoints it is, for progress.

        Raises:
            CheckpointError: If it is refused or does not fit the model.
            ModelError: If the model cannot be called as the spec says.
            DataError: If a split cannot be read.
        """
        spec, settings = self.spec, self._settings
        loaded = load_checkpoint(
            place.path.absolute(),
            None if spec.model is None else spec.model.factory,
            args=None if spec.model is None else spec.model.args,
            directory=self.directory,
            strip_prefix=spec.strip_prefix,
            trust=settings.trust,
            weights=spec.weights,
        )
        model = unwrapped(loaded.model)
        if isinstance(model, nn.Module):
            model.to(self._processes.device)
        subject = Subject(
            model, spec, self._subject.data, self._subject.train, directory=self.directory,
            title=spec.label, name=place.label, files=loaded.files,
        )  # fmt: skip
        with left_as_it_came(model), kept_heap(), torch.no_grad():
            stages = {split: f"{place.label} ({split}, {nth})" for split in self.sources}
            first = self._collector(model, None, None, self.held_out, stages[self.held_out])
            batch = first.source.first()
            with described(batch):
                prepared = first.prepare(batch)
                structure = find_structure(model, first.evaluator.caller, prepared)
            losses, passes, collected = {}, {}, first
            for split in self.sources:
                collected, passes[split] = self._collected(
                    model, structure, split, stages[split], work
                )
                losses[split] = self._merged(collected.sums, split, work)
            surroundings = Surroundings(
                subject,
                collected,
                structure,
                self.sources["train"],
                work,
                {"seed": settings.seed, "replicates": 0},
            )
            yield Evaluated(
                losses,
                passes,
                collected.evaluator.method,
                surroundings,
                tuple(file.model_dump(mode="json") for file in loaded.files),
                (*loaded.notes, *collected.evaluator.notes),
            )

    def _collected(
        self, model: Any, structure: Structure, split: str, stage: str, work: Path
    ) -> tuple[HeadCollector, float]:
        """Losses of one split, of the held-out one the coalition table, too; and the plain passes that it took."""
        table = work / TABLE if split == self.held_out else None

        def collect(collector: HeadCollector) -> bool:
            return collector.measure() if table is None else collector.collect(table)

        def make(reason: str | None) -> HeadCollector:
            if reason is not None and table is not None:
                self._drop(table)
            return self._collector(model, structure, reason, split, stage)

        collector = with_full_passes(make, collect)
        cost = collector.evaluator.take_cost()
        if table is not None:
            self._processes.wait()
            infos = [i for i in shard_infos(table) if i.rank == self._processes.rank]
            cost = Cost.total([cost, *(Cost(**info.cost) for info in infos)])
        elif not collector.coalitions:
            cost.full_rows = collector.sums.samples
        return collector, cost.passes(collector.sums.samples)

    def _drop(self, table: Path) -> None:
        self._processes.wait()
        if self._processes.main:
            for shard in table.glob("*.parquet"):
                shard.unlink()
        self._processes.wait()

    def _merged(self, mine: HeadSums, split: str, work: Path) -> HeadSums:
        """Sums of all processes."""
        ranks = self._processes
        if ranks.number == 1:
            return mine
        value = {"totals": mine.totals, "samples": mine.samples, "nonfinite": mine.nonfinite}
        write_json_atomic(work / f"sums-{split}-{ranks.rank}.json", value)
        ranks.wait()
        whole = HeadSums(mine.heads)
        for rank in range(ranks.number):
            held = json.loads((work / f"sums-{split}-{rank}.json").read_text())
            totals = {head: (total, rows) for head, (total, rows) in held["totals"].items()}
            whole.merge(HeadSums(mine.heads, totals, held["samples"], held["nonfinite"]))
        return whole

    def _collector(
        self, model: Any, structure: Structure | None, reason: str | None, split: str, stage: str
    ) -> HeadCollector:
        settings = self._settings
        evaluator = HeadEvaluator(
            model,
            self.spec,
            structure,
            own=settings.own,
            optimize=reason is None,
            reason=reason or "",
            precision=settings.precision,
            seed=settings.seed,
        )
        return HeadCollector(
            source=self.sources[split],
            evaluator=evaluator,
            masks=self.masks,
            value=value_function(self.spec),
            responses=self._responses,
            processes=self._processes,
            progress=self._progress,
            stage=stage,
            empty=settings.empty,
            coalitions=split == self.held_out or set(settings.own) != set(self.spec.names),
        )
