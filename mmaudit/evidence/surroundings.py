"""What collectors of further evidence are given: the opened audit, before its coalitions are evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmaudit.checkpoint.structure import Structure
from mmaudit.checkpoint.subject import Subject
from mmaudit.evidence.collecting import Collector
from mmaudit.evidence.data import Source
from mmaudit.evidence.second_masks import SecondMasks
from mmaudit.masking.spec import MaskingSpec
from mmaudit.report.schema import FileRecord

__all__ = ["Surroundings"]


@dataclass
class Surroundings:
    """An opened audit.

    Attributes:
        subject: Model, spec and data as they were handed over.
        collector: Source, evaluator, masks and value function of the audit; ``collector.prepare(batch)`` places a batch.
        structure: What is known of the model's inside.
        train: Training data, where there is any.
        work: Folder of the tables.
        settings: What was asked for: seed, replicates, ...
        second: The second masks, where there are any.
        references: Models of single modalities that were given in memory: modality -> module or callable that is called as the
            audited model is.
        files: Files that were read; for the record.
    """

    subject: Subject
    collector: Collector
    structure: Structure
    train: Source | None
    work: Path
    settings: dict[str, Any]
    second: SecondMasks | None = None
    references: Mapping[str, Any] = field(default_factory=dict)
    files: list[FileRecord] = field(default_factory=list)

    @property
    def spec(self) -> MaskingSpec:
        """Of the audit."""
        return self.subject.spec

    @property
    def source(self) -> Source:
        """The audited data."""
        return self.collector.source
