"""From finished evidence to the record: measures, what was audited, what it cost, what a reader must know."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

import mmaudit
from mmaudit.evidence.collecting import Collector
from mmaudit.evidence.cost import Cost
from mmaudit.evidence.masks import Masks
from mmaudit.evidence.same_inputs import identical_pairs
from mmaudit.evidence.second_masks import SECOND
from mmaudit.evidence.surroundings import Surroundings
from mmaudit.evidence.table import ShardInfo, shard_infos
from mmaudit.evidence.workspace import TABLE
from mmaudit.exceptions import DataError, ModelError
from mmaudit.findings import NEEDED_MEASURES, find
from mmaudit.masking.build import describe_masks
from mmaudit.masking.spec import AuditSpec, MaskingSpec
from mmaudit.measures import compute_measures
from mmaudit.report.schema import (
    DataRecord,
    EvidenceRecord,
    FailureRecord,
    Note,
    Record,
    SubjectRecord,
)
from mmaudit.report.spread import Spread
from mmaudit.report.tables import read_chunks, shard_paths

__all__ = ["make_record"]

_METHODS = ("packed", "unpacked", "full passes")
_PACKAGES = ("torch", "numpy", "pandas", "pyarrow", "scikit-learn", "safetensors", "accelerate")


def make_record(
    surroundings: Surroundings,
    collector: Collector,
    masks: Masks,
    failures: tuple[FailureRecord, ...],
    measures: Sequence[str] | None,
) -> Record:
    """Compute the measures and write down everything else.

    Args:
        surroundings: What was audited and how.
        collector: What collected the evidence.
        masks: Of the audit.
        failures: Further evidence that could not be collected.
        measures: Keys of measures; all where ``None``.

    Raises:
        ModelError: If no sample has finite outputs.
    """
    subject, structure = surroundings.subject, surroundings.structure
    work, settings, second = surroundings.work, surroundings.settings, surroundings.second
    spec, source, table = subject.spec, collector.source, work / TABLE
    infos = shard_infos(table)
    samples, nonfinite = sum(i.samples for i in infos), sum(i.nonfinite for i in infos)
    left_out = tuple([name for info in infos for name in info.nonfinite_samples][:20])
    if not any(info.rows for info in infos):
        if not nonfinite:
            raise DataError(
                f"none of the {samples} samples has a label: there is nothing to measure."
            )
        raise ModelError(
            f"no sample has finite outputs in every coalition ({samples} samples, first '{left_out[0]}')."
        )
    classes = spec.classes or tuple(str(k) for k in range(infos[0].classes))
    unlabelled = sum(info.unlabelled for info in infos)
    counts, groups = _counts(table, len(classes), groups=spec.group is not None)
    # Rows of one sample belong together even where the spec names no group.
    grouped = any(info.grouped for info in infos)
    if grouped and spec.group is None:
        groups = samples - nonfinite - unlabelled
    results, failed = compute_measures(
        table,
        modalities=spec.names,
        classes=classes,
        grouped=grouped,
        seed=settings["seed"],
        replicates=settings["replicates"],
        only=measures,
        task=spec.task,
    )
    notes = [*subject.notes, *source.notes, *masks.notes]
    notes += [Note.model_validate(note) for info in infos for note in info.notes]
    if spec.always_given:
        text = (
            f"The model is also given {', '.join(map(repr, spec.always_given))}, which belongs to no modality: it is there in every "
            "coalition, the empty one included."
        )
        notes.append(Note(kind="information", topic="data", text=text))
    if nonfinite:
        text = f"{nonfinite} of {samples} samples were left out: their outputs are not finite in every coalition (first: {', '.join(left_out[:5])})."
        notes.append(Note(kind="warning", topic="evidence", text=text))
    if unlabelled:
        text = f"{unlabelled} of {samples} samples have no label at all and count for nothing."
        notes.append(Note(kind="information", topic="data", text=text))
    if spec.task == "regression":
        notes += _constant(table, classes)
    record = Record(
        report_id=secrets.token_hex(13),
        created=datetime.now(UTC),
        mmaudit_version=mmaudit.__version__,
        modalities=spec.names,
        subject=SubjectRecord(
            title=subject.title,
            model=subject.name,
            parameters=subject.parameters,
            files=(*subject.files, *source.files, *surroundings.files),
            structure=structure.record,
        ),
        masks=describe_masks(masks.maskers),
        second_masks=second.words if second is not None else {},
        spec=spec.model_dump(mode="json"),
        data=DataRecord(
            source=source.description,
            samples=samples,
            classes=classes,
            class_counts=tuple(counts),
            fingerprint=f"{samples}-{sum(i.id_hash for i in infos) % 2**128:032x}",
            groups=groups if grouped else None,
            group_column=spec.group or ("sample" if grouped else None),
            present={name: sum(i.present.get(name, 0) for i in infos) for name in spec.names},
            ids="given" if spec.ids is not None else "running number",
            identical=identical_pairs(spec.names, (info.same for info in infos)),
        ),
        evidence=_evidence(
            spec, infos, left_out, settings["batch_size"], shard_infos(work / SECOND)
        ),
        environment=_environment(),
        settings=settings,
        measures=results,
        failures=(*failures, *failed),
        notes=tuple(dict.fromkeys(notes)),
        tables={
            folder.name: folder.name for folder in sorted(work.iterdir()) if shard_paths(folder)
        },
        lineage=spec.lineage if isinstance(spec, AuditSpec) else {},
    )
    left = [key for key in NEEDED_MEASURES if measures is not None and key not in measures]
    if left:
        text = f"no verdicts: they need the measures {', '.join(left)}, which were left out."
        said = Note(kind="information", topic="measures", text=text)
        return record.model_copy(update={"notes": (*record.notes, said)})
    try:
        return record.model_copy(update={"findings": find(record, table)})
    except Exception as error:  # the numbers are worth keeping without the sentences
        failure = FailureRecord(measure="findings", error=f"{type(error).__name__}: {error}")
        return record.model_copy(update={"failures": (*record.failures, failure)})


def _evidence(
    spec: MaskingSpec,
    infos: list[ShardInfo],
    left_out: tuple[str, ...],
    batch_size: int | None,
    second: list[ShardInfo],
) -> EvidenceRecord:
    cost = Cost.total(Cost(**info.cost) for info in infos)
    again = Cost.total(Cost(**info.cost) for info in second)
    seen = sum(info.samples for info in second)
    lowest = max(infos, key=lambda info: _METHODS.index(info.method))
    return EvidenceRecord.model_validate(
        {
            "coalitions": 2 ** len(spec.names),
            "method": lowest.method,
            "reason": lowest.reason,
            "passes": cost.passes(sum(info.samples for info in infos)),
            "fusion_share": cost.fusion_share,
            "encoder_calls": {name: cost.encoder_rows.get(name, 0) for name in spec.names},
            "verified_rows": cost.verified_rows,
            "largest_difference": cost.largest_difference,
            "batch_size": batch_size,
            "seconds": _longest(infos),
            "second_samples": seen,
            "second_passes": again.passes(seen),
            "second_seconds": _longest(second),
            "nonfinite": sum(info.nonfinite for info in infos),
            "nonfinite_samples": left_out,
        }
    )


def _longest(infos: list[ShardInfo]) -> float:
    """Seconds of the process that took longest."""
    by_rank = {0: 0.0}
    for info in infos:
        by_rank[info.rank] = by_rank.get(info.rank, 0.0) + info.cost["seconds"]
    return max(by_rank.values())


def _counts(table: Path, classes: int, *, groups: bool) -> tuple[list[int], int]:
    """Rows of each class, label or number, and the number of distinct groups where they are asked for."""
    counts = np.zeros(classes, dtype=np.int64)
    found: set[str] = set()
    for chunk in read_chunks(table, ["target", "group"] if groups else ["target"]):
        counts += np.bincount(chunk["target"], minlength=classes)
        if groups:
            found.update(group for group in chunk["group"] if group is not None)
    return counts.tolist(), len(found)


def _constant(table: Path, numbers: tuple[str, ...]) -> list[Note]:
    """Which predicted numbers do not vary in the data, so that R2 is made without them."""
    spread = Spread(len(numbers))
    for chunk in read_chunks(table, ["target", "truth"]):
        spread.add(chunk["truth"], chunk["target"])
    flat = [name for name, varies in zip(numbers, spread.varies, strict=True) if not varies]
    if not flat or len(numbers) == 1:
        return []
    text = (
        f"the target of {', '.join(flat[:6])}{', ...' if len(flat) > 6 else ''} does not vary in these samples: R2 of all numbers"
        " is made without it"
    )
    return [Note(kind="warning", topic="data", text=text)]


def _environment() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
        **{name: version(name) for name in _PACKAGES},
    }
