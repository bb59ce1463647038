"""What each modality could say alone, and what could be said without it: the scores of models that are compared with.

A modality may be ignored because it says nothing, or because the joint model never learnt to read it. Only a model that saw
nothing else tells which; so the audited samples are given to such models too, where the user has some.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmaudit.checkpoint.model import preserved_rng
from mmaudit.checkpoint.subject import Subject, open_subject
from mmaudit.evidence.collecting import Collector
from mmaudit.evidence.extra_table import is_written
from mmaudit.evidence.masks import Masks, gather_masks
from mmaudit.evidence.reference_models import (
    ModelReference,
    Reference,
    StoredOutputs,
    Way,
    file_record,
    ways_of_calling,
)
from mmaudit.evidence.rows import Rows
from mmaudit.evidence.scoring import ValueFunction, value_function
from mmaudit.evidence.streamed_table import written_table
from mmaudit.evidence.surroundings import Surroundings
from mmaudit.exceptions import SpecError
from mmaudit.masking.batches import Batch
from mmaudit.masking.calling import Caller
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.masking.spec import MaskingSpec
from mmaudit.report.schema import Note

__all__ = ["REFERENCES", "WITHOUT", "collect_references", "open_references", "open_without"]

REFERENCES = "references"
"""Name of the table."""

WITHOUT = "without-"
"""Before the name of a modality: the folder of the model that does without it."""

_AUDIT_FILE = "audit.yaml"


def open_references(surroundings: Surroundings) -> dict[str, Reference]:
    """Open the models of single modalities that the spec names or that were given in memory.

    Args:
        surroundings: Of the audit. ``surroundings.references`` wins over what the spec names.

    Returns:
        Modality -> reference, in the order of the spec; empty where there are none. The files behind them are entered into
        ``surroundings.files``.

    Raises:
        SpecError: If a modality is none of the spec's, or a file is not there or no reference.
        CheckpointError: If weights cannot be loaded.
        DataError: If stored outputs cannot be read.
    """
    return _open(surroundings, without=False)


def open_without(surroundings: Surroundings) -> dict[str, Reference]:
    """Open the models that do without one modality; see :func:`open_references`."""
    return _open(surroundings, without=True)


def collect_references(surroundings: Surroundings) -> tuple[Note, ...]:
    """Write the scores of all references, row by row as in the coalition table.

    Columns: ``sample_id``, ``position``, ``group``, ``present``, ``target``; ``alone_loglik`` and ``alone_correct`` (M numbers
    each: of the reference of each modality; ``correct`` only where classes are predicted), and the same with ``without``.
    NaN where there is no such reference, where the sample lacks the modality, and where an output is not finite.
    """
    folder = surroundings.work / REFERENCES
    if is_written(folder):
        return ()
    alone, without = open_references(surroundings), open_without(surroundings)
    kinds = {kind: found for kind, found in (("alone", alone), ("without", without)) if found}
    if not kinds:
        return ()
    collector, names = surroundings.collector, surroundings.spec.names
    lost: dict[str, int] = {}
    done, total = 0, surroundings.source.samples
    with written_table(folder) as write:
        for batch in surroundings.source.batches():
            rows = collector.value.rows(batch)
            columns = _identity(batch, rows, names)
            for kind, found in kinds.items():
                judged = _judged(collector.value, found, batch, rows, names, lost)
                columns |= {f"{kind}_{name}": values for name, values in judged.items()}
            write(columns)
            done += batch.n
            if collector.progress is not None:
                collector.progress("Reference models", done, total)
    return tuple(
        Note(
            kind="warning",
            topic="evidence",
            text=f"{count} outputs of {title} are not finite; they are left out of comparisons with it.",
        )
        for title, count in lost.items()
    )


# Opening.


def _open(surroundings: Surroundings, *, without: bool) -> dict[str, Reference]:
    named = _named(surroundings, without=without)
    unknown = [name for name in named if name not in surroundings.spec.names]
    if unknown:
        raise SpecError(
            f"references: '{unknown[0]}' is no modality; there are {', '.join(surroundings.spec.names)}."
        )
    if without and named and len(surroundings.spec.names) == 1:
        raise SpecError(
            "references: a model without the only modality sees nothing; leave 'without' out."
        )
    if named and surroundings.collector.value.classes is None:
        _learn_classes(surroundings.collector)
    opened: dict[str, Reference] = {}
    for name in surroundings.spec.names:
        if name not in named:
            continue
        source = named[name]
        title = f"the {'model without' if without else 'reference model of'} {name}"
        if isinstance(source, (str, Path)):
            opened[name] = _from_path(surroundings, Path(source), name, title, without=without)
        else:
            opened[name] = _from_memory(surroundings, source, name, title, without=without)
        known = set(surroundings.files)
        surroundings.files += [file for file in opened[name].files if file not in known]
    return opened


def _named(surroundings: Surroundings, *, without: bool) -> dict[str, Any]:
    """Modality -> path or model, as the spec and the caller name them."""
    spec, given = surroundings.spec.references, dict(surroundings.references)
    inner: dict[str, Any] = {}
    for kind in ("alone", "without"):
        if isinstance(given.get(kind), Mapping):
            part = given.pop(kind)
            if (kind == "without") == without:
                inner = dict(part)
    named: dict[str, Any] = {}
    if spec.folder is not None:
        named |= _in_folder(surroundings, spec.folder, without=without)
    named |= spec.without if without else spec.alone
    handed = {**({} if without else given), **inner}
    # A path that was handed over begins where Python runs, one of the audit file where its data do.
    resolved = {
        name: Path(source).resolve() if isinstance(source, (str, Path)) else source
        for name, source in handed.items()
    }
    return {**named, **resolved}


def _in_folder(surroundings: Surroundings, folder: Path, *, without: bool) -> dict[str, Path]:
    """What ``mmaudit unimodal`` wrote; a folder with nothing of it is a mistake."""
    home = _located(surroundings, folder)
    names = surroundings.spec.names
    there = {
        prefix: {
            name: folder / f"{prefix}{name}" / _AUDIT_FILE
            for name in names
            if (home / f"{prefix}{name}" / _AUDIT_FILE).is_file()
        }
        for prefix in ("", WITHOUT)
    }
    if not any(there.values()):
        raise SpecError(
            f"references: {folder} holds no reference models; expected {folder / names[0] / _AUDIT_FILE} or the like, as "
            f"'mmaudit unimodal AUDIT.yaml --out {folder}' writes them."
        )
    return there[WITHOUT if without else ""]


def _located(surroundings: Surroundings, path: Path) -> Path:
    directory = surroundings.subject.directory
    return path if directory is None else directory / path


def _from_path(
    surroundings: Surroundings, path: Path, modality: str, title: str, *, without: bool
) -> Reference:
    located = _located(surroundings, path)
    if located.is_dir():
        path, located = path / _AUDIT_FILE, located / _AUDIT_FILE
    if not located.is_file():
        raise SpecError(
            f"references: {path} is not there; expected the audit file or the stored outputs of {title}."
        )
    if located.suffix not in (".yaml", ".yml", ".npz", ".parquet"):
        raise SpecError(
            f"references: {path} is neither an audit file (.yaml) nor stored outputs (.npz, .parquet) of {title}."
        )
    record = file_record(located, str(path), title.removeprefix("the "))
    if located.suffix in (".npz", ".parquet"):
        return StoredOutputs(
            title,
            modality,
            located,
            value=_value(surroundings, surroundings.spec),
            files=(record,),
            numbered=surroundings.spec.ids is None,
        )
    with preserved_rng():  # a factory draws weights, which then are loaded over
        subject = open_subject(located)
    _check_task(subject.spec, surroundings.spec, path)
    masks = _masks_of(surroundings, subject)
    coalition = _coalition(subject.spec, modality, path, without=without)

    def prepare(batch: Batch) -> MaskedBatch:
        return _masked(batch, subject.spec, masks, surroundings.collector.processes.device)

    files = tuple(
        file.model_copy(update={"role": f"{file.role} of {title}".replace("checkpoint", "weights")})
        for file in subject.files
        if file.sha256 not in {known.sha256 for known in surroundings.subject.files}
    )
    return ModelReference(
        title,
        modality,
        subject.model,
        [Way(prepare, coalition, Caller(subject.model, subject.spec))],
        path=subject.spec.outputs.path,
        value=_value(surroundings, subject.spec),
        device=surroundings.collector.processes.device,
        precision=surroundings.collector.evaluator.precision,
        seed=surroundings.settings["seed"],
        files=(record, *files),
        own=True,
    )


def _from_memory(
    surroundings: Surroundings, model: Any, modality: str, title: str, *, without: bool
) -> Reference:
    if isinstance(model, type) or not callable(model):
        kind = "class" if isinstance(model, type) else type(model).__name__
        raise SpecError(
            f"references: {title} is a {kind}; expected a module or callable, or the path of an audit file or of stored outputs."
        )
    collector, spec = surroundings.collector, surroundings.spec
    bit = 1 << spec.names.index(modality)
    coalition = (1 << len(spec.names)) - 1 - bit if without else bit
    example = collector.prepare(surroundings.source.first())
    ways = ways_of_calling(
        model, collector.evaluator.caller, spec, collector.prepare, example, coalition
    )
    if not ways:
        seen = "those of the other modalities" if without else f"those of {modality}"
        raise SpecError(
            f"references: {title} takes neither the inputs of the audited model nor {seen} alone."
        )
    return ModelReference(
        title,
        modality,
        model,
        ways,
        path=spec.outputs.path,
        value=_value(surroundings, spec),
        device=collector.processes.device,
        precision=collector.evaluator.precision,
        seed=surroundings.settings["seed"],
    )


def _coalition(spec: MaskingSpec, modality: str, path: Path, *, without: bool) -> int:
    """Which modalities of its own spec a reference is to see."""
    names = spec.names
    everything = (1 << len(names)) - 1
    if modality in names:
        bit = 1 << names.index(modality)
        return everything - bit if without and len(names) > 1 else bit
    if without or len(names) == 1:
        return everything
    raise SpecError(
        f"references: {path} has no modality '{modality}', only {', '.join(names)}: expected the audit file of a model of {modality}."
    )


def _check_task(reference: MaskingSpec, audited: MaskingSpec, path: Path) -> None:
    if reference.task != audited.task:
        raise SpecError(
            f"references: {path} is about task '{reference.task}', the audit about '{audited.task}': expected the same."
        )
    if reference.classes and audited.classes and reference.classes != audited.classes:
        raise SpecError(
            f"references: {path} has classes {', '.join(reference.classes[:6])}, the audit {', '.join(audited.classes[:6])}: "
            "expected the same in the same order."
        )


def _learn_classes(collector: Collector) -> None:
    """Let the value function know how many classes the audited model has, so that a reference with others is noticed."""
    prepared = collector.prepare(collector.source.first())
    collector.value.scores(collector.evaluator.plain(prepared))


def _value(surroundings: Surroundings, spec: MaskingSpec) -> ValueFunction:
    """Of what a reference gives: the audit's task, the reference's kind of outputs."""
    value = value_function(surroundings.spec.model_copy(update={"outputs": spec.outputs}))
    value.classes = surroundings.collector.value.classes
    return value


def _masks_of(surroundings: Surroundings, subject: Subject) -> Masks:
    """The masks of a reference's own audit file, on the audited data."""
    source = surroundings.source
    before = source.may_lack
    try:
        return gather_masks(subject, source, seed=surroundings.settings["seed"])
    finally:
        source.may_lack = before


def _masked(batch: Batch, spec: MaskingSpec, masks: Masks, device: torch.device) -> MaskedBatch:
    everyone = np.ones(batch.n, dtype=bool)
    return MaskedBatch(
        batch.data,
        spec,
        masks.maskers,
        batch.ids,
        present={name: batch.present.get(name, everyone) for name in spec.names},
        device=device,
        templates=masks.templates,
        dims=batch.dims,
    )


# The table.


def _identity(batch: Batch, rows: Rows, names: tuple[str, ...]) -> dict[str, Any]:
    present = sum(
        batch.present[name][rows.sample].astype(np.int32) << m for m, name in enumerate(names)
    )
    return {
        "sample_id": rows.ids,
        "position": batch.start + rows.sample.astype(np.int64),
        "group": list(rows.groups),
        "present": np.asarray(present, dtype=np.int32),
        "target": rows.target,
    }


def _judged(
    value: ValueFunction,
    references: Mapping[str, Reference],
    batch: Batch,
    rows: Rows,
    names: tuple[str, ...],
    lost: dict[str, int],
) -> dict[str, np.ndarray]:
    """Column -> ``(r, M)``, NaN where a reference says nothing."""
    columns: dict[str, np.ndarray] = {}
    for m, name in enumerate(names):
        if name not in references:
            continue
        scores = references[name].scores(batch)
        judged = value.judged(scores[None], rows)
        has = batch.present[name][rows.sample]
        # Class scores that are not finite still have a largest one: what is right by chance is not right.
        finite = torch.isfinite(scores).reshape(batch.n, -1).all(1).numpy()[rows.sample]
        if count := int((has & ~finite).sum()):
            lost[references[name].title] = lost.get(references[name].title, 0) + count
        for key in ("correct", "loglik"):
            if key in judged:
                whole = columns.setdefault(key, np.full((len(rows), len(names)), np.nan))
                whole[:, m] = np.where(has & finite, judged[key][:, 0], np.nan)
    return columns
