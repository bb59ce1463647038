"""What a record says: the versioned schema of ``report.json``.

The record is the product. Everything needed to understand and to repeat the audit is in it; the tables beside it hold what
grows with the number of samples. Numbers that do not exist are ``undefined`` with a reason, never NaN or 0. This module
imports no torch: reading a record must be cheap and safe.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "SCHEMA_VERSION",
    "DataRecord",
    "Estimate",
    "EvidenceRecord",
    "FailureRecord",
    "FileRecord",
    "Finding",
    "FindingEvidence",
    "LabelledEstimate",
    "MeasureResult",
    "ModuleRecord",
    "Note",
    "Record",
    "StructureRecord",
    "SubjectRecord",
    "VerdictName",
]

SCHEMA_VERSION = 1


class _Frozen(BaseModel):
    # NaN inside settings is kept as NaN when written, so that writing refuses it instead of making it null.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants"
    )


class Estimate(_Frozen):
    """A number with its interval, the number of samples behind it and how it was obtained."""

    value: float | None = None
    """Point estimate in the measure's unit; ``None`` exactly when ``undefined`` says why."""
    low: float | None = None
    """Lower end of the 95 % interval; ``None`` where there is none."""
    high: float | None = None
    n: int = 0
    """Samples behind the value."""
    groups: int | None = None
    """Independent groups behind the interval, where samples were grouped."""
    method: str = ""
    """How the interval was made, in a few words: ``Wilson``, ``bootstrap over samples``, ..."""
    undefined: str | None = None
    """Why there is no value."""
    warning: str | None = None
    """Why the interval should not be trusted."""

    @model_validator(mode="after")
    def _value_or_reason(self) -> Estimate:
        if (self.value is None) == (self.undefined is None):
            raise ValueError("an estimate has either a value or a reason why it is undefined")
        return self


class LabelledEstimate(_Frozen):
    """One cell of a measure: what it is about, and the estimate."""

    labels: dict[str, str]
    """For example ``{"modality": "audio", "given": "image"}``; the keys are the same in all rows of one table."""
    estimate: Estimate


class MeasureResult(_Frozen):
    """All estimates of one measure, with what a reader needs to use them."""

    key: str
    title: str
    unit: str
    bounds: tuple[float | None, float | None] = (None, None)
    direction: Literal["higher", "lower", "balanced"] = "balanced"
    reference: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    rows: tuple[LabelledEstimate, ...] = ()
    undefined: str | None = None
    """Why the whole measure has no value here."""


VerdictName = Literal[
    "harmful", "well used", "redundant", "under-used", "uninformative", "undetermined"
]


class FindingEvidence(_Frozen):
    """An estimate that a finding rests on."""

    measure: str
    labels: dict[str, str]
    estimate: Estimate
    says: str = ""
    """What it says for the finding, in a few words: ``read``, ``not needed``, ..."""


class Finding(_Frozen):
    """A statement about a modality or the model, with the rule that fired and the estimates behind it."""

    rule: str
    """Name of the rule in ``mmaudit.findings``: ``verdict``, ``dominance``, ``worse than its best modality``, ..."""
    modality: str | None = None
    """The modality that it is about; ``None`` for the whole model."""
    verdict: VerdictName | None = None
    """Exactly where the rule is ``verdict``."""
    level: Literal["good", "information", "attention", "problem"] = "information"
    text: str
    """One sentence for a person, with its numbers."""
    because: str = ""
    """The rule in words, with the thresholds that it used."""
    evidence: tuple[FindingEvidence, ...] = ()
    remedies: tuple[str, ...] = ()
    """Keys of remedies worth trying; empty where nothing should be done."""
    missing: tuple[str, ...] = ()
    """What evidence is missing, and how to get it: one sentence each, with the command."""
    conditions: tuple[str, ...] = ()
    """Said beside the verdict: ``depends on the mask``, ``corrected for 3 modalities``, ..."""


class Note(_Frozen):
    """Something that was done otherwise than asked, or that a reader must know before trusting a number."""

    kind: Literal["fallback", "warning", "information"]
    topic: str
    """One word for the part of the audit: ``loading``, ``structure``, ``evidence``, ``data``, ``masking``, ``measures``."""
    text: str


class FailureRecord(_Frozen):
    """A measure that raised. It does not lose the audit."""

    measure: str
    error: str


class FileRecord(_Frozen):
    """A file that went into the audit."""

    path: str
    sha256: str
    bytes: int
    role: str
    """``checkpoint``, ``checkpoint of <submodule>``, ``audit file``, ``data``, ``code``."""


class ModuleRecord(_Frozen):
    """One module of the model and what it depends on."""

    name: str
    """Dotted name; the empty string is the model itself."""
    type: str
    modalities: tuple[str, ...]
    """Modalities that its outputs depend on, in the order of the spec; for a module called several times, of all calls."""
    calls: int
    """Calls per forward; 0 means never called."""
    role: Literal[
        "encoder", "fusion", "head", "shared", "constant", "unused", "inside", "container"
    ]
    parameters: int
    """Own parameters and those of all its children."""


class StructureRecord(_Frozen):
    """Which parts of the model belong to which modality."""

    modules: tuple[ModuleRecord, ...] = ()
    encoders: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Modality -> its encoders: the largest modules that see this modality alone."""
    fusion: str | None = None
    """Name of the first module that sees more than one modality."""
    latent: str | None = None
    """Where the latent is read, e.g. ``input of head.2``."""
    head: str | None = None
    parameter_groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Modality (or ``shared``, ``constant``, ``unused``) -> parameter names."""
    stochastic: bool = False
    """Two evaluations of the same batch differ."""
    samples_interact: bool = False
    """The output of one sample depends on the others in its batch."""
    unknown: tuple[str, ...] = ()
    """Sentences: what could not be determined."""


class SubjectRecord(_Frozen):
    """What was audited."""

    title: str
    model: str
    """Import path or class of the model."""
    parameters: int = 0
    files: tuple[FileRecord, ...] = ()
    structure: StructureRecord = StructureRecord()


class DataRecord(_Frozen):
    """The samples the audit saw."""

    source: str
    samples: int
    classes: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()
    fingerprint: str = ""
    """Sum of the 64-bit hashes of (sample id, target), and their number: equal fingerprints mean the same samples, in whatever
    order and by however many processes they were evaluated."""
    groups: int | None = None
    group_column: str | None = None
    present: dict[str, int] = Field(default_factory=dict)
    """Modality -> number of samples that have it."""
    ids: Literal["given", "running number"] = "running number"
    identical: tuple[tuple[str, str], ...] = ()
    """Pairs of modalities whose inputs are equal in every sample that has both."""


class EvidenceRecord(_Frozen):
    """How the coalition evidence was collected."""

    coalitions: int
    method: Literal["packed", "unpacked", "full passes"] = "full passes"
    """``packed``: encoders once, many coalitions per fusion pass; ``unpacked``: encoders once, one coalition at a time."""
    reason: str | None = None
    """Why not ``packed``."""
    passes: float = 0.0
    """Cost in plain evaluation passes, by rows that went through the encoders and the part after them."""
    fusion_share: float | None = None
    """Measured share f of a plain pass that is spent after the encoders."""
    encoder_calls: dict[str, int] = Field(default_factory=dict)
    """Modality -> rows evaluated by its encoders."""
    verified_rows: int = 0
    """Rows compared with brute force."""
    largest_difference: float | None = None
    """Largest difference of an output from brute force, absolute."""
    batch_size: int | None = None
    seconds: float = 0.0
    nonfinite: int = 0
    """Samples left out because an output was not finite."""
    nonfinite_samples: tuple[str, ...] = ()
    """Ids of the first of them."""
    second_samples: int = 0
    """Samples that were evaluated once more under the second masks."""
    second_passes: float = 0.0
    """What that cost, in plain passes over these samples."""
    second_seconds: float = 0.0


class Record(_Frozen):
    """``report.json``, whole."""

    schema_version: int = SCHEMA_VERSION
    report_id: str
    created: datetime
    mmaudit_version: str
    modalities: tuple[str, ...]
    subject: SubjectRecord
    masks: dict[str, str] = Field(default_factory=dict)
    """Modality -> its mask in words, e.g. ``zero``, ``marginal (256 donors)``."""
    second_masks: dict[str, str] = Field(default_factory=dict)
    """Modality -> its second mask in words; empty where there is none."""
    spec: dict[str, Any] = Field(default_factory=dict)
    """The spec as it was used, defaults filled in."""
    data: DataRecord
    evidence: EvidenceRecord
    environment: dict[str, str] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    """Seed, device, precision, batch size, workers, resampling."""
    measures: dict[str, MeasureResult] = Field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    """One verdict for each modality, in their order, after the findings about the whole model."""
    failures: tuple[FailureRecord, ...] = ()
    notes: tuple[Note, ...] = ()
    tables: dict[str, str] = Field(default_factory=dict)
    """Table -> folder of its Parquet shards, relative to the record."""
    lineage: dict[str, str] = Field(default_factory=dict)
