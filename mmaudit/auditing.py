"""An audit from end to end: open, look inside, evaluate every coalition, measure, write the record."""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import mmaudit
from mmaudit.checkpoint.model import left_as_it_came
from mmaudit.checkpoint.structure import Structure, find_structure, mask_functions
from mmaudit.checkpoint.subject import Subject, open_subject
from mmaudit.evidence.coalitions import CoalitionEvaluator, MismatchError
from mmaudit.evidence.collecting import Collector, Progress, described, plain_accuracy
from mmaudit.evidence.data import Source, open_source
from mmaudit.evidence.processes import Processes
from mmaudit.evidence.scoring import value_function
from mmaudit.evidence.table import shard_infos
from mmaudit.exceptions import DataError, ModelError, RecordError
from mmaudit.masking.build import build_maskers, describe_masks
from mmaudit.masking.calling import Caller
from mmaudit.masking.masked_batch import Maskers, Template, batch_dimension
from mmaudit.masking.paths import find_value
from mmaudit.masking.reference import Reference, needs_reference
from mmaudit.masking.spec import AuditSpec
from mmaudit.measures import compute_measures
from mmaudit.measures.shapley import shapley_matrix
from mmaudit.report import AuditReport
from mmaudit.report.schema import (
    DataRecord,
    EvidenceRecord,
    Note,
    Record,
    StructureRecord,
    SubjectRecord,
)
from mmaudit.report.store import write_json_atomic
from mmaudit.report.tables import read_chunks

__all__ = ["Precision", "audit"]

Precision = Literal["float32", "bfloat16", "float16"]
_TABLE = "coalitions"
_STATE = "audit-state.json"
_WORK = ".running"
"""Where an audit works until its record is whole; what the folder held before stays until then."""


def audit(
    model: Any,
    data: Any = None,
    spec: Any = None,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str | torch.device | None = None,
    precision: Precision = "float32",
    batch_size: int | None = None,
    measures: Sequence[str] | None = None,
    replicates: int = 2000,
    seed: int | None = None,
    optimize: bool = True,
    store_logits: bool = False,
    timeout: float = 120,
    progress: Progress | None = None,
) -> AuditReport:
    """Audit a multimodal model: which modality it uses, and how sure one can be.

    Args:
        model: An audit file (``.yaml``) alone; or a checkpoint, module or callable with ``data`` and ``spec``.
        data: Audited data: a DataLoader, any iterable of batches, a path of an ``.npz`` or Parquet file.
        spec: A :class:`~mmaudit.MaskingSpec`, a mapping, or a YAML file.
        out: Folder of the record; left out, a temporary one that goes with the report (``report.save`` keeps it).
        resume: Go on with the audit that was interrupted in ``out``.
        overwrite: Replace what is in ``out``.
        device: Where to run; left out, where a module in memory lies, else a GPU if there is one.
        precision: ``bfloat16`` and ``float16`` run under autocast.
        batch_size: Instead of the data's own.
        measures: Keys of measures; all where left out.
        replicates: Bootstrap replicates behind the intervals.
        seed: Of random masks, resampling and spot checks; left out, the spec's, else 0.
        optimize: ``False`` evaluates every coalition by a pass of its own.
        store_logits: Keep the class scores of every coalition in the table.
        timeout: Seconds a DataLoader worker may take for a batch.
        progress: Told how far the audit is.

    Returns:
        The report. Under ``torchrun`` the main process writes the record and all processes return it.

    Raises:
        MMAuditError: One of its children, with a sentence that says what was expected, what came and what to do.

    Example:
        >>> report = mmaudit.audit("audit.yaml", out="runs/audit")            # doctest: +SKIP
        >>> report.to_frame("utilization")                                    # doctest: +SKIP
    """
    started = time.monotonic()
    subject = open_subject(model, data, spec)
    seed = seed if seed is not None else getattr(subject.spec, "seed", 0)
    processes = Processes(device if device is not None or not subject.borrowed else subject.device)
    source = open_source(
        subject.data,
        subject.spec,
        directory=subject.directory,
        batch_size=batch_size,
        timeout=timeout,
    )
    settings = {
        "seed": seed, "device": str(processes.device), "precision": precision, "batch_size": batch_size,
        "processes": processes.number, "replicates": replicates, "optimize": optimize, "store_logits": store_logits,
    }  # fmt: skip
    with (
        _folder(out) as folder,
        _on_device(subject, processes.device),
        left_as_it_came(subject.model),
        torch.no_grad(),
    ):
        _claim(folder, subject, settings, processes, resume=resume, overwrite=overwrite)
        maskers, reference_notes, templates = _maskers(subject, source, seed, timeout)
        structure = _structure(subject, source, maskers, templates, processes) if optimize else None
        dtype = None if precision == "float32" else getattr(torch, precision)

        def collector(optimized: bool) -> Collector:
            evaluator = CoalitionEvaluator(
                subject.model,
                subject.spec,
                structure,
                optimize=optimized,
                precision=dtype,
                seed=seed,
            )
            weights = shapley_matrix(len(subject.spec.names))
            value = value_function(subject.spec)
            return Collector(
                source,
                evaluator,
                maskers,
                value,
                weights,
                processes,
                templates,
                store_logits,
                progress,
            )

        collecting = collector(optimize)
        work = folder / _WORK
        _check_expected(collecting, subject, work)
        try:
            collecting.collect(work / _TABLE)
        except MismatchError as error:
            subject.notes.append(Note(kind="fallback", topic="evidence", text=str(error)))
            shutil.rmtree(work / _TABLE)
            collecting = collector(False)
            collecting.collect(work / _TABLE)
        _write_cost(work, collecting, processes, time.monotonic() - started)
        processes.wait()
        if processes.main:
            record = _record(
                subject,
                source,
                collecting,
                structure,
                maskers,
                work,
                settings,
                reference_notes,
                measures,
                progress,
            )
            AuditReport(record, work).save(folder, overwrite=True)
            shutil.rmtree(work)
        processes.wait()
        report = AuditReport.load(folder)
        if out is None:
            weakref.finalize(report, shutil.rmtree, folder, ignore_errors=True)
    return report


def _maskers(
    subject: Subject, source: Source, seed: int, timeout: float
) -> tuple[Maskers, tuple[Note, ...], dict[str, Template]]:
    """Maskers with what they need of the data, and the shapes of inputs."""
    train = None
    if subject.train is not None:
        train = open_source(
            subject.train, subject.spec, directory=subject.directory, timeout=timeout
        )
    reference = None
    if needs_reference(subject.spec):
        batches = (train or source).batches()
        named = "training data" if train is not None else "audited data"
        reference = Reference.collect(batches, subject.spec, seed=seed, source=named)
    maskers = build_maskers(
        subject.spec,
        reference,
        seed=seed,
        functions=mask_functions(subject.spec, subject.directory),
    )
    templates: dict[str, Template] = {}
    for split in (source, train):
        wanted = {
            path for part in subject.spec.modalities.values() for path in part.inputs.values()
        } - set(templates)
        if split is None or not wanted:
            continue
        batch = next(split.batches(), None)
        for path in wanted:
            value = None if batch is None else find_value(batch.data, path)
            dim = (
                batch_dimension(value, batch.n)
                if batch is not None and isinstance(value, torch.Tensor)
                else None
            )
            if dim is not None and isinstance(value, torch.Tensor):
                shape = tuple(size for d, size in enumerate(value.shape) if d != dim)
                templates[path] = (shape, value.dtype)
    source.may_lack = frozenset(
        name
        for name, part in subject.spec.modalities.items()
        if train is not None and set(part.inputs.values()) <= set(templates)
    )
    return maskers, reference.notes if reference is not None else (), templates


def _structure(
    subject: Subject,
    source: Source,
    maskers: Maskers,
    templates: dict[str, Template],
    processes: Processes,
) -> Structure:
    """What is inside the model, found on the first batch."""
    batch = next(source.batches(), None)
    if batch is None:
        raise DataError("the data has no batches.")
    first = Collector(source, CoalitionEvaluator(subject.model, subject.spec, None), maskers, value_function(subject.spec),
                      shapley_matrix(len(subject.spec.names)), processes, templates)  # fmt: skip
    with described(batch):
        return find_structure(
            subject.model, Caller(subject.model, subject.spec), first.prepare(batch)
        )


def _check_expected(collector: Collector, subject: Subject, work: Path) -> None:
    expected = subject.spec.expected if isinstance(subject.spec, AuditSpec) else None
    if expected is None or shard_infos(work / _TABLE):
        return
    accuracy, n = plain_accuracy(collector)
    if abs(accuracy - expected.accuracy) > expected.tolerance:
        raise ModelError(
            f"accuracy is {accuracy:.3f} on {n} samples where the spec expects {expected.accuracy:g} +- {expected.tolerance:g}: "
            "the audit stopped before measuring anything. Look at the preprocessing: mmaudit preview"
        )


# The folder of an audit, and who may write into it.


@contextmanager
def _folder(out: Path | str | None) -> Any:
    if out is not None:
        yield Path(out)
        return
    folder = Path(tempfile.mkdtemp(prefix="mmaudit-"))
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _on_device(subject: Subject, device: torch.device) -> Any:
    before = subject.device
    moved = isinstance(subject.model, torch.nn.Module) and before.type != device.type
    if moved:
        subject.model.to(device)
    try:
        yield
    finally:
        if moved and subject.borrowed:
            subject.model.to(before)


def _claim(
    folder: Path,
    subject: Subject,
    settings: dict[str, Any],
    processes: Processes,
    *,
    resume: bool,
    overwrite: bool,
) -> None:
    """Make sure that nothing in the folder is lost or mixed up with another audit."""
    fingerprint = _fingerprint(subject, settings)
    if processes.main:
        work = folder / _WORK
        if resume:
            _check_resumable(folder, fingerprint)
        else:
            if not overwrite and (folder / "report.json").exists():
                raise RecordError(
                    f"{folder} holds a finished audit: choose another folder or say overwrite."
                )
            if not overwrite and (work / _STATE).exists():
                raise RecordError(f"{folder} holds an interrupted audit: say resume or overwrite.")
            try:
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir(parents=True)
                write_json_atomic(work / _STATE, {"fingerprint": fingerprint, "settings": settings})
            except OSError as error:
                raise RecordError(
                    f"{folder} cannot be written to: {error.strerror or error}."
                ) from None
    processes.wait()


def _check_resumable(folder: Path, fingerprint: str) -> None:
    state = folder / _WORK / _STATE
    if (folder / "report.json").exists() and not state.exists():
        raise RecordError(f"the audit in {folder} is finished: there is nothing to resume.")
    try:
        found = json.loads(state.read_text())["fingerprint"]
    except FileNotFoundError:
        raise RecordError(
            f"{folder} holds no interrupted audit: start one without resume."
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise RecordError(f"{state} is damaged: start the audit again with overwrite.") from None
    if found != fingerprint:
        raise RecordError(
            f"the audit in {folder} was started with another model, spec or settings: say overwrite to start again."
        )


def _fingerprint(subject: Subject, settings: dict[str, Any]) -> str:
    """What decides the numbers of the table; a module in memory by its weights."""
    digest = hashlib.sha256()
    decisive = {k: v for k, v in settings.items() if k not in ("replicates", "device")}
    text = [
        subject.spec.model_dump(mode="json"),
        decisive,
        [f.sha256 for f in subject.files],
        mmaudit.__version__,
    ]
    digest.update(json.dumps(text, sort_keys=True, default=str).encode())
    if not subject.files and isinstance(subject.model, torch.nn.Module):
        for name, tensor in subject.model.state_dict().items():
            if isinstance(tensor, torch.Tensor):
                digest.update(name.encode())
                digest.update(
                    tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
                )
    return digest.hexdigest()


# The record.


@dataclass
class _Cost:
    """What one process spent."""

    method: str
    reason: str | None
    full_rows: int
    replayed_rows: int
    samples: int
    full_seconds: float
    replayed_seconds: float
    encoder_rows: dict[str, int]
    verified_rows: int
    largest_difference: float | None
    notes: list[str]
    seconds: float


def _write_cost(folder: Path, collector: Collector, processes: Processes, seconds: float) -> None:
    e = collector.evaluator
    cost = _Cost(e.method, e.reason, e.full_rows, e.replayed_rows, e.samples, e.full_seconds, e.replayed_seconds,
                 e.encoder_rows, e.verified_rows, e.largest_difference, e.notes, seconds)  # fmt: skip
    write_json_atomic(folder / f"cost-{processes.rank:03d}.json", asdict(cost))


def _record(
    subject: Subject,
    source: Source,
    collector: Collector,
    structure: Structure | None,
    maskers: Maskers,
    folder: Path,
    settings: dict[str, Any],
    reference_notes: tuple[Note, ...],
    measures: Sequence[str] | None,
    progress: Progress | None,
) -> Record:
    spec, table = subject.spec, folder / _TABLE
    infos = shard_infos(table)
    samples, nonfinite = sum(i.samples for i in infos), sum(i.nonfinite for i in infos)
    left_out = [name for info in infos for name in info.nonfinite_samples][:20]
    notes = [*subject.notes, *source.notes, *reference_notes]
    if nonfinite == samples:
        raise ModelError(
            f"no sample has finite outputs in every coalition ({samples} samples, first '{left_out[0]}')."
        )
    if nonfinite:
        text = f"{nonfinite} of {samples} samples were left out: their outputs are not finite in every coalition (first: {', '.join(left_out[:5])})."
        notes.append(Note(kind="warning", topic="evidence", text=text))
    classes = spec.classes or tuple(str(k) for k in range(infos[0].classes))
    counts, groups = _counts(table, len(classes))
    if progress is not None:
        progress("Measures", 0, None)
    results, failures = compute_measures(
        table,
        modalities=spec.names,
        classes=classes,
        grouped=spec.group is not None,
        seed=settings["seed"],
        replicates=settings["replicates"],
        only=measures,
    )
    evidence, cost_notes = _evidence(folder, spec, settings, nonfinite, left_out)
    warning = getattr(collector.value, "warning", None)
    if warning:
        notes.append(Note(kind="warning", topic="data", text=warning))
    code = sum(i.id_hash for i in infos) % 2**128
    return Record(
        report_id=secrets.token_hex(13),
        created=datetime.now(UTC),
        mmaudit_version=mmaudit.__version__,
        modalities=spec.names,
        subject=SubjectRecord(
            title=subject.title,
            model=subject.name,
            parameters=subject.parameters,
            files=(*subject.files, *source.files),
            structure=structure.record if structure is not None else StructureRecord(),
        ),
        masks=describe_masks(maskers),
        spec=spec.model_dump(mode="json"),
        data=DataRecord(
            source=source.description,
            samples=samples,
            classes=classes,
            class_counts=tuple(counts),
            fingerprint=f"{samples}-{code:032x}",
            groups=groups if spec.group is not None else None,
            group_column=spec.group,
            present={name: sum(i.present.get(name, 0) for i in infos) for name in spec.names},
            ids="given" if spec.ids is not None else "running number",
        ),
        evidence=evidence,
        environment=_environment(),
        settings=settings,
        measures=results,
        failures=failures,
        notes=(*dict.fromkeys([*notes, *cost_notes]),),
        tables={_TABLE: _TABLE},
    )


def _evidence(
    folder: Path, spec: Any, settings: dict[str, Any], nonfinite: int, left_out: list[str]
) -> tuple[EvidenceRecord, list[Note]]:
    costs = [_Cost(**json.loads(path.read_text())) for path in sorted(folder.glob("cost-*.json"))]
    worked = [c for c in costs if c.samples] or costs
    full, replayed = sum(c.full_rows for c in worked), sum(c.replayed_rows for c in worked)
    seconds = sum(c.full_seconds for c in worked), sum(c.replayed_seconds for c in worked)
    share = (
        (seconds[1] / replayed) / (seconds[0] / full) if replayed and full and seconds[0] else None
    )
    samples = sum(c.samples for c in worked)
    differences = [c.largest_difference for c in worked if c.largest_difference is not None]
    lowest: Callable[[_Cost], int] = lambda c: ["packed", "unpacked", "full passes"].index(c.method)  # noqa: E731
    slowest = max(worked, key=lowest)
    record = EvidenceRecord(
        coalitions=2 ** len(spec.names),
        method=slowest.method,
        reason=slowest.reason,
        passes=(full + (share or 0.0) * replayed) / max(samples, 1),
        fusion_share=share,
        encoder_calls={name: sum(c.encoder_rows[name] for c in worked) for name in spec.names},
        verified_rows=sum(c.verified_rows for c in worked),
        largest_difference=max(differences, default=None),
        batch_size=settings["batch_size"],
        seconds=max(c.seconds for c in costs),
        nonfinite=nonfinite,
        nonfinite_samples=tuple(left_out),
    )
    notes = [Note(kind="fallback", topic="evidence", text=text) for c in worked for text in c.notes]
    for path in folder.glob("cost-*.json"):
        path.unlink()
    return record, notes


def _counts(table: Path, classes: int) -> tuple[list[int], int]:
    """Samples per class, and the number of distinct groups."""
    counts = np.zeros(classes, dtype=np.int64)
    groups: set[str] = set()
    for chunk in read_chunks(table, ["target", "group"]):
        counts += np.bincount(chunk["target"], minlength=classes)
        groups.update(group for group in chunk["group"] if group is not None)
    return counts.tolist(), len(groups)


def _environment() -> dict[str, str]:
    packages = ("torch", "numpy", "pandas", "pyarrow", "scikit-learn", "safetensors", "accelerate")
    found = {name: version(name) for name in packages}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
        **found,
    }
