"""What measures read: the tables of an audit, each read when a measure first asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mmaudit.measures.resampling import UnitSums, collect_sums
from mmaudit.report.tables import shard_paths
from mmaudit.typing import TaskName

__all__ = ["Evidence"]


@dataclass(frozen=True)
class Evidence:
    """Tables of one audit, and what is needed to resample them.

    Args:
        coalitions: Folder of the coalition table; other tables lie beside it.
        modalities: Names in the order of the table's bits.
        classes: Names of all classes (of the labels of a multi-label task, of the numbers of a regression).
        grouped: Whether samples with equal ``group`` are resampled together.
        seed: Of the resampling.
        replicates: Bootstrap replicates.
        task: What the model predicts.
    """

    coalitions: Path
    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    grouped: bool
    seed: int
    replicates: int = 2000
    task: TaskName = "multiclass"
    _kept: dict[str, UnitSums] = field(default_factory=dict, repr=False)

    @cached_property
    def sums(self) -> UnitSums:
        """Sums of the coalition table."""
        return self.sums_of(None)

    def table(self, name: str) -> Path | None:
        """Folder of a table beside the coalition table; ``None`` where the audit has none of this name."""
        folder = self.coalitions.parent / name
        return folder if shard_paths(folder) else None

    def sums_of(self, name: str | None) -> UnitSums:
        """Sums of a table with the columns of the coalition table (``None``: of that table itself).

        Raises:
            RecordError: If the table cannot be used.
        """
        key = name or ""
        if key not in self._kept:
            self._kept[key] = collect_sums(
                self.coalitions if name is None else self.coalitions.parent / name,
                modalities=self.modalities,
                classes=self.classes,
                grouped=self.grouped,
                seed=self.seed,
                replicates=self.replicates,
                task=self.task,
            )
        return self._kept[key]

    def settings(self, tables: Sequence[str] = ()) -> dict[str, object]:
        """What a reader needs to repeat the intervals of a measure that reads other tables."""
        return {
            "seed": self.seed,
            "replicates": self.replicates,
            "resampled": "groups" if self.grouped else "samples",
            **({"tables": list(tables)} if tables else {}),
        }
