"""An audit from end to end: open, look inside, evaluate every coalition, measure, write the record."""

from __future__ import annotations

import shutil
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from mmaudit.checkpoint.model import left_as_it_came
from mmaudit.checkpoint.structure import Structure, find_structure
from mmaudit.checkpoint.subject import Subject, open_subject
from mmaudit.evidence.coalitions import CoalitionEvaluator
from mmaudit.evidence.collecting import Collector, Progress, described, plain_accuracy
from mmaudit.evidence.data import open_source
from mmaudit.evidence.masks import gather_masks
from mmaudit.evidence.processes import Processes
from mmaudit.evidence.scoring import value_function
from mmaudit.evidence.workspace import TABLE, claim, opened_folder
from mmaudit.exceptions import DataError, ModelError, SpecError
from mmaudit.masking.spec import AuditSpec
from mmaudit.measures import check_request
from mmaudit.measures.shapley import shapley_matrix
from mmaudit.recording import make_record, write_cost
from mmaudit.report import AuditReport
from mmaudit.report.schema import Note

__all__ = ["Precision", "audit"]

Precision = Literal["float32", "bfloat16", "float16"]


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
    check_request(measures, replicates)
    if precision not in ("float32", "bfloat16", "float16"):
        raise SpecError(f"precision '{precision}' is none; there are float32, bfloat16, float16.")
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
        opened_folder(out, processes) as folder,
        _on_device(subject, processes.device),
        left_as_it_came(subject.model),
        torch.no_grad(),
    ):
        work = claim(folder, subject, settings, processes, resume=resume, overwrite=overwrite)
        masks = gather_masks(subject, source, seed=seed, timeout=timeout)
        dtype = None if precision == "float32" else getattr(torch, precision)

        def collector(structure: Structure | None) -> Collector:
            evaluator = CoalitionEvaluator(
                subject.model, subject.spec, structure, precision=dtype, seed=seed
            )
            return Collector(
                source=source,
                evaluator=evaluator,
                masks=masks,
                value=value_function(subject.spec),
                responses=shapley_matrix(len(subject.spec.names)),
                processes=processes,
                logits=store_logits,
                progress=progress,
            )

        structure = _structure(collector(None)) if optimize else None
        collecting = collector(structure)
        _check_expected(collecting, subject, resumed=resume)
        if processes.any(not collecting.collect(work / TABLE)):
            text = "A spot check differed from brute force: everything was evaluated again by full passes."
            subject.notes.append(Note(kind="fallback", topic="evidence", text=text))
            if processes.main:
                shutil.rmtree(work / TABLE)
            processes.wait()
            collecting = collector(None)
            collecting.collect(work / TABLE)
        write_cost(work, collecting.evaluator, processes.rank, time.monotonic() - started)
        processes.wait()
        if processes.main:
            if progress is not None:
                progress("Measures", 0, None)
            record = make_record(subject, collecting, structure, masks, work, settings, measures)
            AuditReport(record, work).save(folder, overwrite=True)
            shutil.rmtree(work)
        processes.wait()
        report = AuditReport.load(folder)
        if out is None:
            weakref.finalize(report, shutil.rmtree, folder, ignore_errors=True)
    return report


def _structure(collector: Collector) -> Structure:
    """What is inside the model, found on the first batch."""
    batch = next(collector.source.batches(), None)
    if batch is None:
        raise DataError("the data has no batches.")
    evaluator = collector.evaluator
    with described(batch):
        return find_structure(evaluator.model, evaluator.caller, collector.prepare(batch))


def _check_expected(collector: Collector, subject: Subject, *, resumed: bool) -> None:
    expected = subject.spec.expected if isinstance(subject.spec, AuditSpec) else None
    if expected is None or resumed:
        return
    accuracy, n = plain_accuracy(collector)
    if abs(accuracy - expected.accuracy) > expected.tolerance:
        raise ModelError(
            f"accuracy is {accuracy:.3f} on {n} samples where the spec expects {expected.accuracy:g} +- {expected.tolerance:g}: "
            "the audit stopped before measuring anything. Look at the preprocessing: mmaudit preview"
        )


@contextmanager
def _on_device(subject: Subject, device: torch.device) -> Iterator[None]:
    before = subject.device
    moved = isinstance(subject.model, torch.nn.Module) and before != device
    if moved:
        subject.model.to(device)
    try:
        yield
    finally:
        if moved and subject.borrowed:
            subject.model.to(before)
