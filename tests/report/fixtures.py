"""Reports as an audit writes them, made from invented answers: for the tests of all that reads records.

Nothing here uses the measures: values come from a plain loop over coalitions, intervals from the normal approximation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmaudit.report import AuditReport
from mmaudit.report.labels import coalition_names, others
from mmaudit.report.schema import (
    DataRecord,
    Estimate,
    EvidenceRecord,
    FailureRecord,
    FileRecord,
    Finding,
    FindingEvidence,
    LabelledEstimate,
    MeasureResult,
    ModuleRecord,
    Note,
    Record,
    StructureRecord,
    SubjectRecord,
)
from mmaudit.report.tables import coalition_schema

HOSTILE = (
    "</script><script>document.title='pwned'</script>\"'><img src=x onerror=alert(1)>{{7*7}}%{y}"
)
STRENGTHS = {"audio": 0.16, "image": 0.93, "text": 0.45, "depth": 0.3, "touch": 0.05, "pose": 0.0}


class Answers:
    """Invented answers of a model: ``correct`` and ``loglik`` of shape ``(n, 2**M)``, ``target`` of shape ``(n,)``."""

    def __init__(
        self, modalities: Sequence[str], classes: int, samples: int, seed: int = 0
    ) -> None:
        rng = np.random.default_rng(seed)
        M = len(modalities)
        strength = np.array([STRENGTHS.get(name, 0.4) for name in modalities])
        self.target = rng.integers(0, classes, samples).astype(np.int32)
        # Each modality knows each sample or not; without any, the model always says class 0.
        knows = rng.random((samples, M)) < strength
        present = (np.arange(2**M)[:, None] >> np.arange(M)) & 1
        known = (knows[:, None, :] & present[None].astype(bool)).any(-1)
        self.correct = (known | (self.target == 0)[:, None]).astype(np.uint8)
        self.loglik = np.where(self.correct, -0.1, -3.0) - 0.05 * rng.random((samples, 1))
        self.response = knows | (self.target == 0)[:, None]


def make_report(
    modalities: Sequence[str] = ("audio", "image"),
    *,
    classes: Sequence[str] = tuple("0123456789"),
    samples: int = 600,
    silent: Sequence[str] = ("pose",),
    absent: Sequence[str] = (),
    folder: Path | None = None,
    title: str = "audio-visual digits, late fusion",
    seed: int = 0,
    per_class: bool = True,
) -> AuditReport:
    """A full report; with a folder, also its table of samples. No sample has the modalities in ``absent``."""
    answers = Answers(modalities, len(classes), samples, seed)
    tables = {}
    if folder is not None:
        write_table(folder / "coalitions", answers, len(modalities), len(classes))
        tables = {"coalitions": "coalitions"}
    groups = {"all": np.ones(samples, bool)}
    if per_class:
        groups |= {name: answers.target == k for k, name in enumerate(classes)}
    measures = {
        "coalitions": _coalitions(answers, modalities, groups),
        "responses": _responses(answers, modalities, groups, silent),
        "contributions": _contributions(answers, modalities, groups),
        "interactions": _interactions(answers, modalities),
        "utilization": _utilization(answers, modalities, groups),
    }
    measures = {key: _without(result, absent) for key, result in measures.items()}
    counts = tuple(int((answers.target == k).sum()) for k in range(len(classes)))
    record = _record(modalities, classes, samples, counts, title)
    present = record.data.present | dict.fromkeys(absent, 0)
    data = record.data.model_copy(update={"present": present})
    return AuditReport(
        record.model_copy(update={"measures": measures, "tables": tables, "data": data}), folder
    )


def empty_report(modalities: Sequence[str] = ("audio", "image")) -> AuditReport:
    """A report none of whose measures has a value: three undefined, two failed."""
    reason = "no sample has a target"
    measures = {
        key: MeasureResult(key=key, title=key, unit="", undefined=reason)
        for key in ("coalitions", "responses", "contributions")
    }
    failures = tuple(
        FailureRecord(measure=key, error="ZeroDivisionError: division by zero")
        for key in ("interactions", "utilization")
    )
    record = _record(modalities, ("0", "1"), 0, (0, 0), "a model without answers")
    return AuditReport(record.model_copy(update={"measures": measures, "failures": failures}))


def undefined_rows_report() -> AuditReport:
    """A report whose measures exist, but every row of which is undefined."""
    full = make_report(samples=40)
    measures = {
        key: result.model_copy(
            update={
                "rows": tuple(
                    row.model_copy(update={"estimate": Estimate(undefined="accuracy is 0")})
                    for row in result.rows
                )
            }
        )
        for key, result in full.measures.items()
    }
    return AuditReport(full.record.model_copy(update={"measures": measures}))


def hostile_report(folder: Path | None = None) -> AuditReport:
    """Names, paths and messages that would run if a page forgot to escape them."""
    names = (f"a{HOSTILE}", "im<b>age</b>")
    classes = (HOSTILE, "</title></style><script>alert(2)</script>", "javascript:alert(3)")
    report = make_report(names, classes=classes, samples=90, title=HOSTILE, folder=folder)
    record = report.record
    structure = record.subject.structure.model_copy(
        update={"fusion": HOSTILE, "unknown": (HOSTILE,)}
    )
    return AuditReport(
        record.model_copy(
            update={
                "subject": record.subject.model_copy(
                    update={
                        "model": HOSTILE,
                        "structure": structure,
                        "files": (FileRecord(path=HOSTILE, sha256=HOSTILE, bytes=1, role=HOSTILE),),
                    }
                ),
                "notes": (Note(kind="warning", topic="loading", text=f"[red]{HOSTILE}[/red] [/]"),),
                "failures": (FailureRecord(measure=HOSTILE, error=HOSTILE),),
                "masks": dict.fromkeys(names, HOSTILE),
                "spec": {HOSTILE: [HOSTILE]},
                "environment": {HOSTILE: HOSTILE},
                "settings": {HOSTILE: HOSTILE},
            }
        ),
        folder,
    )


LEVEL_OF = {
    "harmful": "problem",
    "under-used": "attention",
    "redundant": "information",
    "uninformative": "information",
    "undetermined": "information",
    "well used": "good",
}


def with_findings(report: AuditReport, *verdicts: str, whole: bool = True) -> AuditReport:
    """The report with one invented verdict per modality, in order, and with a problem of the whole model."""
    findings = []
    if whole:
        text = "The model is worse than audio alone: .912 against .948 [.928, .963]."
        findings.append(Finding(rule="worse than its best modality", level="problem", text=text))
    for name, verdict in zip(report.modalities, verdicts, strict=False):
        rows = report.rows("contributions", modality=name, score="accuracy", quantity="value")
        evidence = tuple(
            FindingEvidence(
                measure="contributions", labels=row.labels, estimate=row.estimate, says="read"
            )
            for row in rows
            if row.labels["class"] == "all"
        )
        findings.append(
            Finding(
                rule="verdict",
                modality=name,
                verdict=verdict,
                level=LEVEL_OF[verdict],
                text=f"{name} is {verdict}: the joint model draws .03 [.01, .06] from it.",
                because="read and needed beyond delta = .02 of the score's range",
                evidence=evidence,
                remedies=("agm", "mla") if verdict == "under-used" else (),
                missing=(
                    "No unimodal model was given; train one with 'mmaudit unimodal audit.yaml'.",
                )
                if verdict == "undetermined"
                else (),
                conditions=("depends on the mask",) if verdict == "under-used" else (),
            )
        )
    return AuditReport(
        report.record.model_copy(update={"findings": tuple(findings)}), report.folder
    )


def with_every_measure(report: AuditReport) -> AuditReport:
    """The report with invented rows of all measures that ``make_report`` does not make."""
    rng = np.random.default_rng(1)
    names = report.modalities
    single = [others(name, names) for name in names]

    def rows(key: str, *places: dict[str, str]) -> MeasureResult:
        found = []
        for labels in places:
            value = float(rng.uniform(0.05, 0.9))
            estimate = Estimate(
                value=value, low=value - 0.04, high=value + 0.04, n=600, method="bootstrap"
            )
            found.append(LabelledEstimate(labels=labels, estimate=estimate))
        return _result(key, "fraction", found)

    quantities = {
        "capacity_gap": [
            ("alone", "none"), ("above chance", "none"), ("gap", "first"), ("gap", "second"),
            ("joint advantage", "none"), ("drop without", "none"),
        ],
        "information": [
            (what, where) for what in ("accuracy", "above chance", "gain") for where in ("inputs", "encoder", "best")
        ],
        "competition": [(what, "cross-validated") for what in ("pooled", "whitened", "rank", "latent width")],
        "mask_sensitivity": [
            (what, mask) for what in ("contribution", "drop", "utilization", "distance") for mask in ("first", "second")
        ],
    }  # fmt: skip
    last = {"information": "features", "competition": "penalty"}
    new = {
        key: rows(
            key,
            *(
                {"modality": name, "quantity": quantity, last.get(key, "mask"): value}
                for name in names
                for quantity, value in pairs
            ),
        )
        for key, pairs in quantities.items()
    }
    new["branch_utilization"] = rows(
        "branch_utilization",
        *(
            {"quantity": quantity, "modality": rest, "given": name}
            for rest, name in zip(single, names, strict=True)
            for quantity in ("accuracy", "accuracy cut", "u")
        ),
        {"quantity": "d_util", "modality": f"{single[0]} - {single[-1]}", "given": f"{names[0]} - {names[-1]}"},
    )  # fmt: skip
    steps = [f"{m / len(names):.2f}" for m in range(len(names))]
    new["missing_modality"] = rows(
        "missing_modality",
        *({"rate": rate, "quantity": what} for rate in steps for what in ("expected", "worst")),
        {"rate": "all", "quantity": "area"},
    )
    sets = coalition_names(names)
    new["calibration"] = rows(
        "calibration",
        *(
            {"coalition": name, "quantity": what}
            for name in sets
            for what in ("ece", "overconfidence", "selective risk", "risk at 80 %")
        ),
    )
    new["confidence_monotonicity"] = rows(
        "confidence_monotonicity", *({"coalition": name} for name in ("any", *sets[:-1]))
    )
    new["dominance"] = rows(
        "dominance",
        *(
            {"modality": name, "quantity": what}
            for name in names
            for what in ("share", "alone", "against")
        ),
    )
    second = dict.fromkeys(names, "marginal (256 donors)")
    record = report.record.model_copy(
        update={"measures": report.measures | new, "second_masks": second}
    )
    return AuditReport(record, report.folder)


def as_regression(report: AuditReport) -> AuditReport:
    """The report with the words that one of a regression has; its numbers stay."""
    words = {"accuracy": "R2", "Acc": "R2", "log-likelihood": "negative squared error"}
    measures = {}
    for key, result in report.measures.items():
        rows = tuple(
            row.model_copy(update={"labels": {k: words.get(v, v) for k, v in row.labels.items()}})
            for row in result.rows
        )
        unit = result.unit.replace("accuracy", "R2").replace("nats", "squared unit of the target")
        measures[key] = result.model_copy(update={"rows": rows, "unit": unit})
    findings = tuple(
        finding.model_copy(
            update={
                "evidence": tuple(
                    row.model_copy(
                        update={"labels": {k: words.get(v, v) for k, v in row.labels.items()}}
                    )
                    for row in finding.evidence
                )
            }
        )
        for finding in report.record.findings
    )
    record = report.record.model_copy(
        update={
            "measures": measures,
            "findings": findings,
            "spec": {**report.record.spec, "task": "regression"},
        }
    )
    return AuditReport(record, report.folder)


def twelve_report(seed: int = 0) -> AuditReport:
    """Twelve modalities with long names, all 4,096 coalitions, two masks, one class absent: too many for ``make_report``."""
    rng = np.random.default_rng(seed)
    names = tuple(f"sensor_{m:02d} of the left-hand side, second floor" for m in range(12))
    n = 800
    worth = np.where(np.arange(12) == 3, -0.02, 0.06)
    inside = np.arange(4096)[:, None] >> np.arange(12) & 1
    accuracy = np.clip(0.1 + inside @ worth, 0.0, 1.0)

    def estimate(value: float, half: float = 0.02) -> Estimate:
        return Estimate(value=value, low=value - half, high=value + half, n=n, method="Wilson")

    rows: dict[str, list[LabelledEstimate]] = {
        "coalitions": [
            _row(estimate(float(a)), coalition=name, score="accuracy", class_="all")
            for name, a in zip(coalition_names(names), accuracy, strict=True)
        ],
        "contributions": [],
        "utilization": [],
        "responses": [],
        "mask_sensitivity": [],
    }
    for m, name in enumerate(names):
        value = estimate(float(worth[m]))
        rows["contributions"].append(
            _row(value, modality=name, score="accuracy", quantity="value", class_="all")
        )
        rows["utilization"].append(
            _row(value, quantity="u", modality=name, given=others(name, names), class_="all")
        )
        guess = estimate(float(rng.uniform(0.1, 0.4)))
        rows["responses"].append(
            _row(guess, quantity="Acc", modality=name, empty="exact", class_="all")
        )
        for quantity in ("contribution", "drop", "utilization", "distance"):
            for mask in ("first", "second"):
                moved = estimate(float(worth[m] + (mask == "second") * 0.01), 0.03)
                rows["mask_sensitivity"].append(
                    _row(moved, modality=name, quantity=quantity, mask=mask)
                )
    record = _record(names, ("yes", "no", "never"), n, (500, 300, 0), "twelve sensors of a house")
    measures = {key: _result(key, "accuracy", found) for key, found in rows.items()}
    second = dict.fromkeys(names, "marginal (256 donors)")
    return AuditReport(record.model_copy(update={"measures": measures, "second_masks": second}))


def write_table(folder: Path, answers: Answers, modalities: int, classes: int) -> None:
    """Write the coalition table of invented answers in two shards."""
    n, S = answers.correct.shape
    schema = coalition_schema(modalities, classes)
    response = answers.response.astype(np.float32)
    values: dict[str, Callable[[slice], object]] = {
        "sample_id": lambda part: [f"sample {i}" for i in range(n)[part]],
        "position": lambda part: np.arange(n)[part],
        "target": lambda part: answers.target[part],
        "group": lambda part: [None] * len(range(n)[part]),
        "present": lambda part: np.full(n, 2**modalities - 1, np.int32)[part],
        "prediction": lambda part: np.where(answers.correct, answers.target[:, None], 0)[part],
        "correct": lambda part: answers.correct[part],
        "loglik": lambda part: answers.loglik[part],
        "confidence": lambda part: np.exp(answers.loglik)[part],
        "entropy": lambda part: np.full((n, S), 0.5)[part],
    }
    folder.mkdir(parents=True)
    for number, part in enumerate((slice(0, n // 2), slice(n // 2, n))):
        columns = []
        for field in schema:
            if field.name in values:
                raw = values[field.name](part)
            elif field.name.startswith("response_loglik"):
                raw = (2 * response - 2.3)[part]
            elif field.name.startswith("response_prediction"):
                raw = np.zeros((n, modalities))[part]
            else:
                raw = response[part]
            if pa.types.is_fixed_size_list(field.type):
                flat = pa.array(np.asarray(raw).reshape(-1)).cast(field.type.value_type)
                columns.append(pa.FixedSizeListArray.from_arrays(flat, field.type.list_size))
            else:
                columns.append(pa.array(raw, field.type))
        table = pa.table(columns, schema=schema)
        pq.write_table(table, folder / f"part-{number:05d}.parquet", write_page_checksum=True)


def _record(
    modalities: Sequence[str],
    classes: Sequence[str],
    samples: int,
    counts: tuple[int, ...],
    title: str,
) -> Record:
    modules = [
        ModuleRecord(
            name="",
            type="LateFusion",
            modalities=tuple(modalities),
            calls=1,
            role="container",
            parameters=90_000,
        )
    ]
    for name in modalities:
        modules.append(
            ModuleRecord(
                name=f"{name}_encoder",
                type="Sequential",
                modalities=(name,),
                calls=1,
                role="encoder",
                parameters=38_410,
            )
        )
    modules.append(
        ModuleRecord(
            name="head.0",
            type="Linear",
            modalities=tuple(modalities),
            calls=1,
            role="fusion",
            parameters=4_224,
        )
    )
    return Record(
        report_id="5f1c3a9e0b7d",
        created=datetime(2026, 11, 21, 9, 30, tzinfo=UTC),
        mmaudit_version="0.1.0",
        modalities=tuple(modalities),
        subject=SubjectRecord(
            title=title,
            model="sample_models.digits:build",
            parameters=90_000,
            files=(
                FileRecord(
                    path="late.safetensors", sha256="ab" * 32, bytes=361_512, role="checkpoint"
                ),
                FileRecord(path="audit.yaml", sha256="cd" * 32, bytes=812, role="audit file"),
            ),
            structure=StructureRecord(
                modules=tuple(modules),
                encoders={name: (f"{name}_encoder",) for name in modalities},
                fusion="head.0",
                latent="input of head.2",
                head="head.2",
            ),
        ),
        masks=dict.fromkeys(modalities, "zero"),
        spec={
            "modalities": {
                name: {"inputs": {name: name}, "mask": {name: "zero"}} for name in modalities
            }
        },
        data=DataRecord(
            source="digits.npz, rows 1200:1800",
            samples=samples,
            classes=tuple(classes),
            class_counts=counts,
            fingerprint="ef" * 32,
            present=dict.fromkeys(modalities, samples),
        ),
        evidence=EvidenceRecord(
            coalitions=2 ** len(modalities),
            method="packed",
            passes=1.04,
            verified_rows=96,
            largest_difference=2.4e-7,
            batch_size=64,
            seconds=3.2,
        ),
        environment={"python": "3.11.7", "torch": "2.13.0", "platform": "Linux-6.18-x86_64"},
        settings={"seed": 0, "device": "cpu", "precision": "float32", "replicates": 2000},
        notes=(
            Note(
                kind="information",
                topic="loading",
                text="the prefix 'model.' was stripped from 24 keys",
            ),
        ),
    )


def _mean(values: np.ndarray, method: str = "bootstrap over samples") -> Estimate:
    n = len(values)
    if n == 0:
        return Estimate(undefined="no sample of this class")
    value = float(values.mean())
    half = 1.96 * float(values.std()) / math.sqrt(n)
    warning = f"only {n} samples: the interval may be too narrow" if n < 50 else None
    return Estimate(
        value=value, low=value - half, high=value + half, n=n, method=method, warning=warning
    )


def _row(estimate: Estimate, **labels: str) -> LabelledEstimate:
    return LabelledEstimate(labels={k.rstrip("_"): v for k, v in labels.items()}, estimate=estimate)


def _result(
    key: str, unit: str, rows: list[LabelledEstimate], reference: str = ""
) -> MeasureResult:
    return MeasureResult(
        key=key, title=key.capitalize(), unit=unit, rows=tuple(rows), reference=reference
    )


def _without(result: MeasureResult, absent: Sequence[str]) -> MeasureResult:
    """The result where no sample has some modalities: what is about them is undefined."""
    nothing = Estimate(undefined="no sample here has this modality")
    rows = []
    for row in result.rows:
        about = [row.labels.get(key, "") for key in ("modality", "first", "second")]
        names = {name for label in about for name in label.split(" - ")}
        gone = not names.isdisjoint(absent)
        rows.append(row.model_copy(update={"estimate": nothing}) if gone else row)
    return result.model_copy(update={"rows": tuple(rows)})


def _shapley(values: np.ndarray, M: int) -> np.ndarray:
    """Per sample ``(n, 2**M)`` to ``(n, M)``, by the definition over orders."""
    result = np.zeros((len(values), M))
    for order in itertools.permutations(range(M)):
        done = 0
        for m in order:
            result[:, m] += values[:, done | 1 << m].astype(float) - values[:, done]
            done |= 1 << m
    return result / math.factorial(M)


def _coalitions(
    answers: Answers, modalities: Sequence[str], groups: dict[str, np.ndarray]
) -> MeasureResult:
    rows = []
    for cls, mask in groups.items():
        for index, name in enumerate(coalition_names(modalities)):
            rows.append(
                _row(
                    _mean(answers.correct[mask, index], "Wilson"),
                    coalition=name,
                    score="accuracy",
                    class_=cls,
                )
            )
            if cls == "all":
                rows.append(
                    _row(
                        _mean(answers.loglik[:, index]),
                        coalition=name,
                        score="log-likelihood",
                        class_=cls,
                    )
                )
    return _result("coalitions", "accuracy or nats", rows)


def _responses(
    answers: Answers,
    modalities: Sequence[str],
    groups: dict[str, np.ndarray],
    silent: Sequence[str],
) -> MeasureResult:
    rows = []
    for (cls, mask), (m, name), empty in itertools.product(
        groups.items(), enumerate(modalities), ("exact", "zero")
    ):
        nothing = Estimate(
            undefined="no response: the largest entry is 3e-9 of the scale of the logits"
        )
        score = answers.response[mask, m].astype(float)
        accuracy = nothing if name in silent else _mean(score, "Wilson")
        nll = nothing if name in silent else _mean(2.3 - 2.0 * score)
        rows.append(_row(accuracy, quantity="Acc", modality=name, empty=empty, class_=cls))
        rows.append(_row(nll, quantity="s", modality=name, empty=empty, class_=cls))
    return _result("responses", "accuracy or nats", rows, "Li et al. 2023")


def _contributions(
    answers: Answers, modalities: Sequence[str], groups: dict[str, np.ndarray]
) -> MeasureResult:
    rows = []
    M = len(modalities)
    for score, values in (("accuracy", answers.correct), ("log-likelihood", answers.loglik)):
        per_sample = _shapley(values, M)
        for (cls, mask), (m, name) in itertools.product(groups.items(), enumerate(modalities)):
            value = _mean(per_sample[mask, m])
            rows.append(_row(value, modality=name, score=score, quantity="value", class_=cls))
            total = float(per_sample[mask].sum(1).mean()) if mask.any() else 0.0
            if abs(total) < 1e-9 or value.value is None:
                share = Estimate(undefined="the modalities together change nothing")
            else:
                share = Estimate(value=value.value / total, n=value.n, method="no interval")
            rows.append(_row(share, modality=name, score=score, quantity="share", class_=cls))
    return _result("contributions", "accuracy or nats", rows, "Shapley 1953")


def _interactions(answers: Answers, modalities: Sequence[str]) -> MeasureResult:
    rows = []
    for a, b in itertools.combinations(range(len(modalities)), 2):
        v = answers.correct.astype(float)
        # Alone against nothing: enough of a game for drawing.
        value = v[:, 1 << a | 1 << b] - v[:, 1 << a] - v[:, 1 << b] + v[:, 0]
        rows.append(
            _row(
                _mean(value),
                first=modalities[a],
                second=modalities[b],
                score="accuracy",
                class_="all",
            )
        )
    return _result("interactions", "accuracy", rows)


def _utilization(
    answers: Answers, modalities: Sequence[str], groups: dict[str, np.ndarray]
) -> MeasureResult:
    rows = []
    names = coalition_names(modalities)
    for m, name in enumerate(modalities):
        for cls, mask in groups.items():
            for index, given in enumerate(names):
                if index >> m & 1 or (cls != "all" and given != others(name, modalities)):
                    continue
                rows.append(
                    _row(
                        _rate(answers.correct[mask], index | 1 << m, index),
                        quantity="u",
                        modality=name,
                        given=given,
                        class_=cls,
                    )
                )
    if len(modalities) > 1:
        last = [r.estimate.value or 0.0 for r in rows if r.labels["class"] == "all"][-1]
        rows.append(
            _row(
                Estimate(value=last, n=len(answers.target)),
                quantity="d_util",
                modality=f"{modalities[-1]} - {modalities[0]}",
                given="rest",
                class_="all",
            )
        )
    return _result("utilization", "fraction of accuracy", rows, "Wu et al. 2022")


def _rate(correct: np.ndarray, with_m: int, without: int) -> Estimate:
    if len(correct) == 0 or correct[:, with_m].mean() == 0:
        return Estimate(undefined="accuracy is 0", n=len(correct))
    accuracy = float(correct[:, with_m].mean())
    difference = _mean(correct[:, with_m].astype(float) - correct[:, without])
    assert (
        difference.value is not None and difference.low is not None and difference.high is not None
    )
    return Estimate(
        value=difference.value / accuracy,
        low=difference.low / accuracy,
        high=difference.high / accuracy,
        n=len(correct),
        method="bootstrap over samples",
    )
