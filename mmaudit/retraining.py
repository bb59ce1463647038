"""From an audited model to a retrained one and back: audit, train with a remedy, audit again on the same data, compare."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmaudit.auditing import audit
from mmaudit.checkpoint.subject import open_subject
from mmaudit.comparing import compare
from mmaudit.evidence.collecting import Progress
from mmaudit.evidence.heap import kept_heap
from mmaudit.evidence.processes import Processes
from mmaudit.exceptions import RecordError, SpecError
from mmaudit.masking.spec import AuditSpec
from mmaudit.masking.writing import audit_file_text
from mmaudit.remedies import find_remedy
from mmaudit.remedies.base import Remedy
from mmaudit.report import AuditReport
from mmaudit.report.comparison import Comparison
from mmaudit.report.record_file import RECORD_NAME, RUNNING_STATE
from mmaudit.report.store import write_bytes_atomic, write_json_atomic, write_text_atomic
from mmaudit.training import Recipe, TrainingStep, train
from mmaudit.training.faults import setting_faults
from mmaudit.training.opening import Start, home_of, open_training, trainable_spec

__all__ = ["RetrainResult", "Start", "retrain"]

REQUEST, AUDIT_FILE, WEIGHTS, COMPARISON = (
    "retrain.json",
    "audit.yaml",
    "model.safetensors",
    "comparison.json",
)


class Request(BaseModel):
    """What was asked for; a retraining only goes on with the same."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    audit_file: str
    remedy: str
    options: dict[str, Any]
    recipe: Recipe
    start: Start
    control: bool
    replicates: int = Field(ge=100)


@dataclass(frozen=True)
class RetrainResult:
    """A finished retraining.

    Attributes:
        folder: Holds everything below.
        checkpoint: Weights of the retrained model.
        audit_file: Audits it.
        before: Record of the model as it came.
        after: Record of the retrained model, on the same test data.
        comparison: ``before`` to ``after``.
        control: Record of plain joint training with the same budget, where it was asked for.
        control_comparison: ``control`` to ``after``.
        notes: What was done otherwise than asked.
    """

    folder: Path
    checkpoint: Path
    audit_file: Path
    before: AuditReport
    after: AuditReport
    comparison: Comparison
    control: AuditReport | None
    control_comparison: Comparison | None
    notes: tuple[str, ...]


def retrain(
    audit_file: Path | str,
    remedy: str = "agm",
    *,
    out: Path | str,
    options: Mapping[str, Any] | None = None,
    recipe: Recipe | Mapping[str, Any] | None = None,
    start: Start = "checkpoint",
    control: bool = False,
    before: Path | str | None = None,
    resume: bool = False,
    device: str | None = None,
    workers: int = 0,
    replicates: int = 2000,
    trust: bool = False,
    progress: Progress | None = None,
) -> RetrainResult:
    """Retrain a model with a remedy and say what that changed.

    The training sees ``data.train``; the model is selected on ``data.validation`` (a tenth of the training data, stratified, where
    there is none); ``data.test`` is used for the two audits alone.

    Args:
        audit_file: Of the model; it has to name training data.
        remedy: Key of a remedy: ``agm``, ``ogm_ge``, ``ogm``, ``mla``, ``joint``, ``modality_dropout``.
        out: Folder for the weights, the audits and the comparison.
        options: Settings of the remedy; see its card (``help(mmaudit.remedies.REMEDIES["agm"])``).
        recipe: How to train; a :class:`~mmaudit.training.Recipe` or some of its fields.
        start: From the ``checkpoint``'s weights, or from ``scratch``: as the factory builds the model.
        control: Also train plainly with the same recipe, and compare with that: what more training alone does.
        before: A finished audit of this very model on this data, which is then not done again.
        resume: Go on with what was begun in ``out``; finished parts are not done again.
        device: Where to run; left out, a GPU if there is one.
        workers: Processes that load training data.
        replicates: Bootstrap replicates behind the intervals.
        trust: Load a checkpoint that runs code when it is loaded; what is written here needs no trust.
        progress: Told how far it is: stage, done, total.

    Raises:
        MMAuditError: One of its children, with a sentence that says what was expected, what came and what to do.

    Example:
        >>> result = mmaudit.retrain("audit.yaml", "agm", out="runs/agm")            # doctest: +SKIP
        >>> result.comparison.to_frame()                                            # doctest: +SKIP
    """
    out, source = Path(out), Path(audit_file).resolve()
    spec = trainable_spec(source)
    request = _request(source, spec, remedy, options, recipe, start, control, replicates)
    if before is not None:
        _check_same(Path(before), source, spec, trust=trust)
    processes = Processes(device)
    work = _Work(source, spec, request, processes, workers, progress, trust)
    if processes.main:
        _claim(out, request, resume=resume)
        if before is not None and not (out / "before" / RECORD_NAME).exists():
            AuditReport.load(before).save(out / "before")
    processes.wait()
    first = work.audited(source, out / "before", "Audit before")
    work.parent = first.record.report_id
    notes, after = work.trained(remedy, request.options, out, "Training", "Audit after")
    reference = None
    if request.control:
        more, reference = work.trained(
            "joint", {}, out / "control", "Training (control)", "Audit of the control"
        )
        notes += more
    found, beside = work.compared(first, after, out, reference)
    return RetrainResult(
        folder=out,
        checkpoint=out / WEIGHTS,
        audit_file=out / AUDIT_FILE,
        before=first,
        after=after,
        comparison=found,
        control=reference,
        control_comparison=beside,
        notes=tuple(dict.fromkeys(notes)),
    )


@dataclass
class _Work:
    """The parts of a retraining, each of which is done once."""

    source: Path
    spec: AuditSpec
    request: Request
    processes: Processes
    workers: int
    progress: Progress | None
    trust: bool = False
    parent: str = ""
    """Report id of the audit before."""

    def audited(self, audit_file: Path, folder: Path, stage: str) -> AuditReport:
        """The record of a model; audits it unless that was done."""
        if (folder / RECORD_NAME).exists() and not (folder / RUNNING_STATE).exists():
            return AuditReport.load(folder)
        return audit(
            audit_file,
            out=folder,
            resume=(folder / RUNNING_STATE).exists(),
            device=str(self.processes.device),
            replicates=self.request.replicates,
            trust=self.trust,
            progress=self._told(stage),
        )

    def trained(
        self, key: str, options: dict[str, Any], folder: Path, stage: str, audit_stage: str
    ) -> tuple[list[str], AuditReport]:
        """Train, publish weights and audit file, audit; what is there already is not done again."""
        notes = folder / "training" / "notes.json"
        if not (folder / AUDIT_FILE).exists():
            recipe, start = self.request.recipe, self.request.start
            opened = open_training(
                self.source, self.spec, seed=recipe.seed, start=start, trust=self.trust
            )
            kind = find_remedy(key)
            hooks = kind(opened.task, kind.Options(**options), opened.example)
            with kept_heap():
                result = train(
                    opened.model,
                    opened.train.data,
                    opened.validation.data,
                    recipe,
                    loss=hooks.task.loss,
                    forward=hooks.task.forward,
                    scores=hooks.task.measured(),
                    collate={
                        "train": opened.train.collate,
                        "validation": opened.validation.collate,
                    },
                    place=hooks.task.place,
                    hooks=hooks,
                    identity={"remedy": key, "options": options, "start": start},
                    out=folder / "training",
                    resume=True,
                    progress=self._told_steps(stage),
                    device="cpu" if self.processes.device.type == "cpu" else "auto",
                    workers=self.workers,
                )
            if self.processes.main:
                said = [*opened.notes, *hooks.notes]
                write_json_atomic(notes, said)
                write_bytes_atomic(folder / WEIGHTS, result.weights.read_bytes())
                write_text_atomic(folder / AUDIT_FILE, self._audit_file(hooks, options))
            self.processes.wait()
        report = self.audited(folder / AUDIT_FILE, folder / "after", audit_stage)
        return json.loads(notes.read_text()), report

    def compared(
        self, before: AuditReport, after: AuditReport, out: Path, control: AuditReport | None
    ) -> tuple[Comparison, Comparison | None]:
        """Compare, and publish the end of the retraining last."""
        if self.progress is not None:
            self.progress("Comparing", 0, None)
        replicates = self.request.replicates
        beside = None
        if control is not None:
            beside = compare(control, after, replicates=replicates)
        found = compare(before, after, replicates=replicates)
        if self.processes.main:
            if beside is not None:
                beside.save(out / "control" / COMPARISON)
            found.save(out / COMPARISON)
        self.processes.wait()
        return found, beside

    def _audit_file(self, hooks: Remedy, options: dict[str, Any]) -> str:
        """An audit file for the retrained model."""
        changes = hooks.audit_changes(self.spec)
        spec = self.spec.model_copy(
            update={
                "checkpoint": Path(WEIGHTS),
                "weights": "model",
                "title": f"{self.spec.label}, retrained with {hooks.title}",
                "expected": None,
                "strip_prefix": None,
                "directory": home_of(self.source, self.spec),
                "lineage": {
                    "parent": self.parent,
                    "remedy": hooks.key,
                    "options": json.dumps(options, sort_keys=True),
                    "start": self.request.start,
                    "recipe": self.request.recipe.model_dump_json(exclude_defaults=True),
                },
                **changes,
            }
        )
        return audit_file_text(
            spec, f"Written by mmaudit: the model of {self.source.name} after {hooks.title}."
        )

    def _told(self, stage: str) -> Progress | None:
        tell = self.progress
        if tell is None:
            return None
        return lambda part, done, total: tell(stage, done, total) if part == "Coalitions" else None

    def _told_steps(self, stage: str) -> Callable[[TrainingStep], None] | None:
        tell = self.progress
        return None if tell is None else lambda step: tell(stage, step.step, step.steps)


def _request(
    source: Path,
    spec: AuditSpec,
    remedy: str,
    options: Mapping[str, Any] | None,
    recipe: Recipe | Mapping[str, Any] | None,
    start: Start,
    control: bool,
    replicates: int,
) -> Request:
    """Everything asked for, checked before anything runs."""
    kind = find_remedy(remedy)
    kind.check_task(spec.task)
    if start not in ("checkpoint", "scratch"):
        raise SpecError(f"start '{start}' is none; there are checkpoint, scratch.")
    try:
        checked = kind.Options(**dict(options or {}))
    except ValidationError as error:
        faults = setting_faults(error, kind.Options.model_fields)
        raise SpecError(f"settings of {remedy}: {faults}") from None
    try:
        if not isinstance(recipe, Recipe):
            recipe = Recipe(**{"seed": spec.seed, **dict(recipe or {})})
    except ValidationError as error:
        raise SpecError(f"recipe: {setting_faults(error, Recipe.model_fields)}") from None
    return Request(
        audit_file=str(source),
        remedy=remedy,
        options=checked.model_dump(mode="json"),
        recipe=recipe,
        start=start,
        control=control and remedy != "joint",
        replicates=replicates,
    )


def _claim(out: Path, request: Request, *, resume: bool) -> None:
    """Make sure that nothing in the folder is lost or mixed up."""
    path = out / REQUEST
    if path.exists():
        if not resume:
            raise RecordError(
                f"{out} holds a retraining: go on with it (--resume), or name another folder."
            )
        try:
            found = Request.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError:
            raise RecordError(f"{path} is damaged: name another folder.") from None
        if found != request:
            changed = [
                name
                for name in Request.model_fields
                if getattr(found, name) != getattr(request, name)
            ]
            raise RecordError(
                f"{out} was begun with another {', '.join(changed)}: go on with the same, or name another folder."
            )
        return
    if out.exists() and any(out.iterdir()):
        raise RecordError(f"{out} is not empty and holds no retraining: name another folder.")
    out.mkdir(parents=True, exist_ok=True)
    write_json_atomic(path, request.model_dump(mode="json"))


def _check_same(record: Path, source: Path, spec: AuditSpec, *, trust: bool) -> None:
    """Refuse a record that is not of the model as it came."""
    report = AuditReport.load(record)
    known = {file.sha256 for file in report.record.subject.files}
    files = open_subject(source, trust=trust).files
    loaded = {file.sha256 for file in files if file.role != "audit file"}
    if report.record.spec != spec.model_dump(mode="json") or not loaded <= known:
        raise RecordError(
            f"{record} is an audit of another model or of another audit file than {source.name}: leave it out, or audit again."
        )
