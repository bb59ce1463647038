"""Measures: from the coalition table to estimates with intervals.

``compute_measures`` reads the table once; all measures share the sums. A measure that fails is recorded and does not lose
the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmaudit.exceptions import SpecError
from mmaudit.measures.base import Measure
from mmaudit.measures.branch_utilization import BranchUtilization
from mmaudit.measures.calibration import Calibration
from mmaudit.measures.capacity_gap import CapacityGap
from mmaudit.measures.coalition_scores import CoalitionScores
from mmaudit.measures.competition import CompetitionStrength
from mmaudit.measures.confidence_monotonicity import ConfidenceMonotonicity
from mmaudit.measures.contribution import Contribution
from mmaudit.measures.dominance import Dominance
from mmaudit.measures.evidence import Evidence
from mmaudit.measures.information import Information
from mmaudit.measures.interaction import Interaction
from mmaudit.measures.mask_sensitivity import MaskSensitivity
from mmaudit.measures.missing_modality import MissingModality
from mmaudit.measures.mono_modal_response import MonoModalResponse
from mmaudit.measures.utilization import ConditionalUtilizationRate
from mmaudit.report.schema import FailureRecord, MeasureResult
from mmaudit.typing import TaskName

__all__ = ["MEASURES", "Evidence", "Measure", "check_request", "compute_measures", "tables_read"]

MEASURES: dict[str, type[Measure]] = {
    "coalitions": CoalitionScores,
    "responses": MonoModalResponse,
    "contributions": Contribution,
    "interactions": Interaction,
    "utilization": ConditionalUtilizationRate,
    "branch_utilization": BranchUtilization,
    "capacity_gap": CapacityGap,
    "information": Information,
    "competition": CompetitionStrength,
    "mask_sensitivity": MaskSensitivity,
    "missing_modality": MissingModality,
    "calibration": Calibration,
    "confidence_monotonicity": ConfidenceMonotonicity,
    "dominance": Dominance,
}


def check_request(only: Sequence[str] | None, replicates: int) -> None:
    """Refuse what cannot be computed, before anything is.

    Raises:
        SpecError: If ``only`` names an unknown measure, or there are fewer than 100 replicates.
    """
    if isinstance(only, str) or (only is not None and not only):
        raise SpecError(f"measures is {only!r}; expected a list of keys: {', '.join(MEASURES)}")
    unknown = [key for key in only or () if key not in MEASURES]
    if unknown:
        raise SpecError(
            f"unknown measure {', '.join(map(repr, unknown))}; there are {', '.join(MEASURES)}"
        )
    if replicates < 100:
        raise SpecError(f"{replicates} bootstrap replicates are too few: expected at least 100.")


def tables_read(only: Sequence[str] | None) -> frozenset[str]:
    """Tables beside the coalition table that measures read: what an audit has to collect for them."""
    kinds = [MEASURES[key] for key in (MEASURES if only is None else only)]
    needed = [getattr(kind, "tables", ()) for kind in kinds]
    return frozenset(name for names in (*needed, *(kind.reads for kind in kinds)) for name in names)


def compute_measures(
    table_folder: Path,
    *,
    modalities: tuple[str, ...],
    classes: tuple[str, ...],
    grouped: bool,
    seed: int,
    replicates: int = 2000,
    only: Sequence[str] | None = None,
    task: TaskName = "multiclass",
) -> tuple[dict[str, MeasureResult], tuple[FailureRecord, ...]]:
    """Compute measures from a coalition table on disk.

    Args:
        table_folder: Folder of the shards; other tables lie beside it.
        modalities: Names in the order of the table's bits.
        classes: Names of all classes, in the order of the targets.
        grouped: Whether samples with equal ``group`` are resampled together.
        seed: Of the resampling; equal seeds give equal intervals, whatever the order of the rows.
        replicates: Bootstrap replicates, at least 100.
        only: Keys of the measures wanted; all where ``None``.
        task: What the model predicts.

    Returns:
        Results by key, in the order of ``MEASURES``, and the measures that raised.

    Raises:
        SpecError: If ``only`` names an unknown measure.
        RecordError: If the table cannot be used.
    """
    check_request(only, replicates)
    wanted = list(MEASURES) if only is None else list(only)
    evidence = Evidence(table_folder, modalities, classes, grouped, seed, replicates, task)
    _ = evidence.sums  # a table that cannot be used is no failure of one measure
    results: dict[str, MeasureResult] = {}
    failures: list[FailureRecord] = []
    for key, kind in MEASURES.items():
        if key not in wanted or not kind().available(evidence):
            continue
        try:
            results[key] = kind().of(evidence)
        except Exception as error:  # whatever a measure raises, the others are worth keeping
            failures.append(FailureRecord(measure=key, error=f"{type(error).__name__}: {error}"))
    return results, tuple(failures)
