"""An audit from end to end: open, look inside, evaluate every coalition, measure, write the record."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from mmaudit.checkpoint.model import left_as_it_came
from mmaudit.checkpoint.structure import Structure, find_structure
from mmaudit.checkpoint.subject import Subject, open_subject
from mmaudit.evidence.coalitions import CoalitionEvaluator
from mmaudit.evidence.collecting import Collector, Progress, described, plain_score
from mmaudit.evidence.data import Source, open_source
from mmaudit.evidence.further import collect_further
from mmaudit.evidence.heap import kept_heap
from mmaudit.evidence.masks import Masks, gather_masks
from mmaudit.evidence.processes import Processes
from mmaudit.evidence.scoring import value_function
from mmaudit.evidence.second_masks import SECOND, SecondMasks, gather_second, spread, without_second
from mmaudit.evidence.surroundings import Surroundings
from mmaudit.evidence.table import shard_infos
from mmaudit.evidence.workspace import TABLE, claim, finish, must_be_full, opened_folder, start_over
from mmaudit.exceptions import MMAuditError, ModelError, SpecError
from mmaudit.findings import read_thresholds
from mmaudit.masking.build import describe_masks
from mmaudit.masking.spec import AuditSpec, MaskingSpec
from mmaudit.measures import check_request, tables_read
from mmaudit.measures.shapley import shapley_matrix
from mmaudit.recording import make_record
from mmaudit.report import AuditReport
from mmaudit.report.labels import primary_score
from mmaudit.report.schema import FailureRecord

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
    train: Any = None,
    references: Mapping[str, Any] | None = None,
    timeout: float = 120,
    trust: bool = False,
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
        measures: Keys of measures, and no verdicts unless those that they need are among them; all where left out.
        replicates: Bootstrap replicates behind the intervals.
        seed: Of random masks, resampling and spot checks; left out, the spec's, else 0.
        optimize: ``False`` evaluates every coalition by a pass of its own.
        store_logits: Keep the class scores of every coalition in the table.
        train: Training data, in place of the audit file's: masks and probes take what they need from it.
        references: Modality -> a model of that modality alone (a module or callable), to compare with; an audit file names them
            under ``references``.
        timeout: Seconds a DataLoader worker may take for a batch.
        trust: Load a checkpoint that runs code when it is loaded (a pickled module, TorchScript, ``.pt2``); else it is refused.
        progress: Told how far the audit is.

    Returns:
        The report. Under ``torchrun`` the main process writes the record and all processes return it.

    Raises:
        MMAuditError: One of its children, with a sentence that says what was expected, what came and what to do.

    Example:
        >>> report = mmaudit.audit("audit.yaml", out="runs/audit")            # doctest: +SKIP
        >>> report.to_frame("utilization")                                    # doctest: +SKIP
    """
    check_request(measures, replicates)
    wanted = tables_read(measures)
    if precision not in ("float32", "bfloat16", "float16"):
        raise SpecError(f"precision '{precision}' is none; there are float32, bfloat16, float16.")
    if seed is not None and (not isinstance(seed, int) or seed < 0):
        raise SpecError(f"seed is {seed!r}; expected an integer of at least 0.")
    subject = open_subject(model, data, spec, trust=trust)
    if train is not None:
        subject.train = train
    read_thresholds(subject.spec.thresholds)
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
        claim(
            folder, subject, source, settings, processes, resume=resume, overwrite=overwrite
        ) as work,
        _on_device(subject, processes.device),
        left_as_it_came(subject.model),
        kept_heap(),
        torch.no_grad(),
    ):
        masks = gather_masks(subject, source, seed=seed, timeout=timeout)
        second: SecondMasks | None = None
        if SECOND in wanted:
            first = describe_masks(masks.maskers)
            second, notes = gather_second(subject, source, first=first, seed=seed, timeout=timeout)
            subject.notes += notes
        dtype = None if precision == "float32" else getattr(torch, precision)

        def collector(
            structure: Structure | None,
            full_passes: str | None,
            masks: Masks = masks,
            spec: MaskingSpec = subject.spec,
        ) -> Collector:
            evaluator = CoalitionEvaluator(
                subject.model,
                spec,
                structure,
                optimize=full_passes is None,
                reason=full_passes or "",
                precision=dtype,
                seed=seed,
            )
            return Collector(
                source=source,
                evaluator=evaluator,
                masks=masks,
                value=value_function(spec),
                responses=shapley_matrix(len(spec.names)),
                processes=processes,
                logits=store_logits,
                progress=progress,
            )

        structure = _structure(collector(None, None))
        full = must_be_full(folder) if optimize else "switched off"
        collecting = collector(structure, full)
        _check_expected(collecting, subject, resumed=resume)
        surroundings = Surroundings(
            subject,
            collecting,
            structure,
            _train(subject, timeout),
            work,
            settings,
            second,
            references or {},
        )
        failures: tuple[FailureRecord, ...] = ()
        if processes.main:
            failures = collect_further(surroundings, wanted)
        processes.wait()
        collecting = _collected(
            lambda reason: collector(structure, reason), full, work / TABLE, folder, processes
        )
        if second is not None:
            _once_more(
                lambda reason: collector(structure, reason, second.masks, second.spec),
                full,
                work,
                processes,
                subject,
            )
        processes.wait()
        if processes.main:
            if progress is not None:
                progress("Measures", 0, None)
            record = make_record(surroundings, collecting, masks, failures, measures)
            AuditReport(record, work).save(folder, overwrite=True)
            finish(folder)
        processes.wait()
        report = AuditReport.load(folder)
        if out is None:
            weakref.finalize(report, shutil.rmtree, folder, ignore_errors=True)
    return report


def _collected(
    make: Callable[[str | None], Collector],
    full: str | None,
    table: Path,
    folder: Path | None,
    processes: Processes,
) -> Collector:
    """Fill a table; again, by full passes, where a spot check differs from brute force.

    Args:
        make: Why coalitions have to be full passes, if they have to -> collector.
        full: The same, from the beginning.
        table: Folder of the table.
        folder: Of the audit, which remembers that full passes are needed; left out, the table alone is dropped.
        processes: Who takes part.
    """
    collecting = make(full)
    if processes.any(not collecting.collect(table)):
        reason = "a spot check differed from brute force, so that everything was evaluated again"
        if processes.main:
            if folder is not None:
                start_over(folder, reason)
            else:
                shutil.rmtree(table, ignore_errors=True)
        processes.wait()
        collecting = make(reason)
        collecting.collect(table)
    processes.wait()
    return collecting


def _once_more(
    make: Callable[[str | None], Collector],
    full: str | None,
    work: Path,
    processes: Processes,
    subject: Subject,
) -> None:
    """Fill the table of the second mask; where nobody asked for that mask, the audit goes on without it if it fails."""
    infos, wanted = shard_infos(work / TABLE), subject.spec.second_mask
    samples, batches = sum(i.samples for i in infos), max(i.next_batch for i in infos)
    every = spread(samples, batches, wanted.samples)

    def some(reason: str | None) -> Collector:
        return replace(make(reason), stage="Second mask", every=every)

    try:
        _collected(some, full, work / SECOND, None, processes)
    except MMAuditError as error:
        if wanted.mask != "auto" or processes.number > 1:
            raise
        shutil.rmtree(work / SECOND, ignore_errors=True)
        subject.notes.append(without_second(error))


def _train(subject: Subject, timeout: float) -> Source | None:
    """The training data, opened; nothing is read yet."""
    if subject.train is None:
        return None
    return open_source(subject.train, subject.spec, directory=subject.directory, timeout=timeout)


def _structure(collector: Collector) -> Structure:
    """What is inside the model, found on the first batch."""
    batch = collector.source.first()
    evaluator = collector.evaluator
    with described(batch):
        return find_structure(evaluator.model, evaluator.caller, collector.prepare(batch))


def _check_expected(collector: Collector, subject: Subject, *, resumed: bool) -> None:
    expected = subject.spec.expected if isinstance(subject.spec, AuditSpec) else None
    if expected is None or resumed:
        return
    score, n = plain_score(collector)
    if abs(score - expected.accuracy) > expected.tolerance:
        raise ModelError(
            f"{primary_score(subject.spec.task)} is {score:.3f} on {n} samples where the spec expects {expected.accuracy:g} +- {expected.tolerance:g}: "
            "the audit stopped before measuring anything. Look at the preprocessing: mmaudit preview"
        )


@contextmanager
def _on_device(subject: Subject, device: torch.device) -> Iterator[None]:
    before = subject.device
    moved = isinstance(subject.model, torch.nn.Module) and before != device
    try:
        if moved:
            subject.model.to(device)
        yield
    finally:
        if moved and subject.borrowed:
            subject.model.to(before)
