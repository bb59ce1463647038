"""The story of an audit in one order, for the terminal, Markdown and the page: the renderers only lay it out.

What was audited, how it was done and whether that can be trusted, the plain scores, what was found about the whole model, one
row per modality with its verdict, what to do. Records without findings have neither verdicts nor advice; what stands out is
said in their place.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import NamedTuple

from mmaudit.report import AuditReport
from mmaudit.report.labels import EMPTY, clean, primary_score, shorten, task_of
from mmaudit.report.numbers import NO_RESPONSE, count, duration, short_count, with_interval
from mmaudit.report.schema import Estimate, Record
from mmaudit.report.sentences import absent_modalities, find, masks_text, standout
from mmaudit.report.statements import (
    Statement,
    advice,
    further_advice,
    of_the_model,
    statement,
    verdicts,
)

__all__ = ["MostShown", "Overview", "make_overview"]


_PREDICTED = {"multilabel": "labels", "regression": "numbers"}
"""Task -> what it predicts, where that is not classes."""


class MostShown:
    """How much of long lists is shown; the rest is counted."""

    warnings = 6
    modules = 200
    classes = 200
    files = 50
    findings = 8
    text = 400


class Overview(NamedTuple):
    """All that the first screen says; foreign texts are cleaned and bounded, but not escaped."""

    title: str
    steps: tuple[tuple[str, tuple[str, ...]], ...]
    """How it was done: ``Loading``, ``Structure``, ``Data``, ``Masks``, ``Coalitions``, each with its parts."""
    score: str
    """Name of the score, with a capital: ``Accuracy``, ``R2``."""
    scores: tuple[tuple[str, str], ...]
    """Who is present -> score."""
    model: tuple[Statement, ...]
    """What was found about the whole model."""
    headers: tuple[str, ...]
    """Of the rows; the second is ``Verdict`` where there are verdicts."""
    rows: tuple[tuple[str, ...], ...]
    """One per modality."""
    conditions: tuple[str, ...]
    """What is said beside the verdicts: ``depends on the mask: audio``."""
    advice: tuple[Statement, ...]
    """What to do: at most three, each with its number."""
    further: str
    """Which modalities ask for something beside these; empty where none does."""
    sentences: tuple[str, ...]
    """What stands out, at most three, where the record has no findings."""
    warnings: tuple[str, ...]
    """Fallbacks, failures, intervals that should not be trusted."""
    calm: str
    """What is said where there are no warnings; it counts the intervals of the whole record that carry one."""
    notes: tuple[str, ...]
    """For information."""


def make_overview(report: AuditReport) -> Overview:
    """Collect the story of a report."""
    record = report.record
    score, judged = primary_score(task_of(record)), bool(verdicts(record))
    findings, told = of_the_model(record), advice(record)
    return Overview(
        title=shorten(report.title, 160),
        steps=tuple(_steps(report)),
        score=score[:1].upper() + score[1:],
        scores=tuple(_scores(report)),
        model=tuple(_once(statement(record, f), told) for f in findings[: MostShown.findings]),
        headers=_headers(score, judged),
        rows=tuple(_row(report, name, judged) for name in report.modalities),
        conditions=tuple(_conditions(report)),
        advice=told,
        further=further_advice(record),
        sentences=() if record.findings else tuple(standout(record)),
        warnings=tuple(_bounded(_warnings(report))),
        calm=_calm(record),
        notes=tuple(_bounded(_notes(report))),
    )


def _once(found: Statement, told: tuple[Statement, ...]) -> Statement:
    """A finding about the model without what the advice below the table says again."""
    if found.command is not None and found.command in [one.command for one in told]:
        return found._replace(below=(), command=None)
    return found


def _steps(report: AuditReport) -> list[tuple[str, tuple[str, ...]]]:
    record, structure = report.record, report.subject.structure
    # Where a file lies is in the provenance; here its name says which it is.
    files = [
        shorten(PurePath(f.path).name, 60)
        for f in report.subject.files
        if f.role.startswith("checkpoint")
    ]
    what = _PREDICTED.get(task_of(record), "classes")
    predicted = len(report.classes)
    classes = (
        f"{count(predicted)} {what[:-1] if predicted == 1 else what}"
        if predicted
        else f"{what} unknown"
    )
    many = len(report.modalities)
    loaded = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    size = f"{short_count(report.subject.parameters)} parameters"
    modalities = f"{many} modalit{'y' if many == 1 else 'ies'}"
    sizes = {module.name: module.parameters for module in structure.modules}
    parts = []
    for name in report.modalities:
        encoders = structure.encoders.get(name, ())
        shown = ", ".join(
            f"{shorten(e, 40)} ({short_count(sizes[e])})" if e in sizes else shorten(e, 40)
            for e in encoders[:2]
        )
        more = f" and {len(encoders) - 2} more" if len(encoders) > 2 else ""
        parts.append(
            f"{shorten(name)} <- {shown}{more}"
            if encoders
            else f"{shorten(name)} <- no encoder of its own"
        )
    parts.append(
        f"fusion: {shorten(structure.fusion, 40)}" if structure.fusion else "fusion: not found"
    )
    if structure.stochastic:
        parts.append("stochastic")
    if structure.samples_interact:
        parts.append("samples influence each other")
    source = [shorten(record.data.source, 80), f"{count(record.data.samples)} samples"]
    if record.data.groups is not None:
        source.append(
            f"{count(record.data.groups)} groups ({shorten(record.data.group_column or 'group', 30)})"
        )
    return [
        (
            "Loading",
            (loaded or shorten(report.subject.model, 60), modalities, classes, size),
        ),
        ("Structure", tuple(parts)),
        ("Data", tuple(source)),
        ("Masks", tuple(_masks(record))),
        ("Coalitions", tuple(_evidence(report))),
    ]


def _masks(record: Record) -> list[str]:
    parts = [shorten(masks_text(record), 160)]
    if record.second_masks:
        kinds = dict.fromkeys(record.second_masks.get(name, "none") for name in record.modalities)
        second = f"second: {shorten(' or '.join(kinds), 120)}"
        if record.evidence.second_samples:
            second += (
                f" on {count(record.evidence.second_samples)} samples, "
                f"{record.evidence.second_passes:.2f} passes"
            )
        parts.append(second)
    return parts


def _evidence(report: AuditReport) -> list[str]:
    evidence = report.evidence
    parts = [
        f"{count(evidence.coalitions)} x {count(report.data.samples)} samples",
        f"{evidence.passes:.2f} passes",
        duration(evidence.seconds),
    ]
    if evidence.verified_rows and evidence.largest_difference is not None:
        parts.append(
            f"verified against brute force on {count(evidence.verified_rows)} rows "
            f"(largest difference {evidence.largest_difference:.1e})"
        )
    elif evidence.method == "full passes":
        parts.append("full passes, nothing to verify")
    else:
        parts.append("not verified against brute force")
    if evidence.reason:
        parts.append(f"{evidence.method}: {shorten(evidence.reason, 120)}")
    return parts


def _scores(report: AuditReport) -> list[tuple[str, str]]:
    names = report.modalities
    together = {1: shorten(names[0]), 2: "both"}.get(len(names), "all")
    whole = find(report.record, "coalitions", coalition="+".join(names))
    shown = _why_none(report, "coalitions") if whole is None else with_interval(whole, 3)
    scores = [(together, shown)]
    singles = (
        [(name, find(report.record, "coalitions", coalition=name)) for name in names]
        if len(names) > 1
        else []
    )
    known = [(name, e) for name, e in singles if e is not None]
    known.sort(key=lambda pair: -(pair[1].value if pair[1].value is not None else -1.0))
    scores += [(f"{shorten(name)} only", with_interval(e, 3).split(" [")[0]) for name, e in known]
    nothing = find(report.record, "coalitions", coalition=EMPTY)
    if nothing is not None:
        scores.append(
            ("neither" if len(names) == 2 else "none", with_interval(nothing, 3).split(" [")[0])
        )
    return scores


_MEASURE = {
    "contribution": "contributions",
    "utilization": "utilization",
    "response": "responses",
}


def _of_modality(report: AuditReport, name: str) -> dict[str, Estimate | None]:
    record = report.record
    return {
        "contribution": find(record, "contributions", modality=name),
        "utilization": find(record, "utilization", modality=name, given="rest"),
        "response": find(record, "responses", modality=name),
    }


def _headers(score: str, judged: bool) -> tuple[str, ...]:
    verdict = ("Verdict",) if judged else ()
    named = (f"Contribution ({score})", "Utilization given rest", f"Response {score}")
    return ("Modality", *verdict, *named)


def _row(report: AuditReport, name: str, judged: bool) -> tuple[str, ...]:
    cells = []
    if judged:
        finding = verdicts(report.record).get(name)
        cells.append("none" if finding is None else str(finding.verdict))
    for what, estimate in _of_modality(report, name).items():
        if estimate is None:
            cells.append(_why_none(report, _MEASURE[what]))
        else:
            cells.append(with_interval(estimate) + (" !" if estimate.warning else ""))
    return (shorten(name), *cells)


def _conditions(report: AuditReport) -> list[str]:
    """Each condition once, with the modalities that it is said of."""
    found: dict[str, list[str]] = {}
    judged = verdicts(report.record)
    for name, finding in judged.items():
        for text in finding.conditions:
            found.setdefault(clean(text), []).append(shorten(name))
    told = []
    for text, names in found.items():
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        whose = "all" if len(names) == len(judged) > 1 else f"{', '.join(names[:4])}{more}"
        told.append(shorten(f"{text}: {whose}", MostShown.text))
    return told[: MostShown.findings]


def _why_none(report: AuditReport, measure: str) -> str:
    if any(failure.measure == measure for failure in report.failures):
        return "failed"
    return "undefined" if measure in report.measures else "not measured"


def _warnings(report: AuditReport) -> list[str]:
    texts = [f"{clean(f.measure)} failed: {clean(f.error)}" for f in report.failures]
    texts += _undefined(report, shown_above=True)
    texts += [f"{n.topic}: {clean(n.text)}" for n in report.notes if n.kind != "information"]
    evidence = report.evidence
    if evidence.nonfinite:
        some = ", ".join(shorten(i, 30) for i in evidence.nonfinite_samples[:3])
        texts.append(
            f"evidence: {count(evidence.nonfinite)} samples left out, an output was not finite ({some})"
        )
    texts += [f"structure: {clean(text)}" for text in report.subject.structure.unknown]
    reasons: dict[str, list[str]] = {}
    absent = absent_modalities(report.record)
    for name in report.modalities:
        if name in absent:
            continue  # said once, among the sentences
        for what, estimate in _of_modality(report, name).items():
            text = None if estimate is None else estimate.warning or estimate.undefined
            # That there is no response is said in the row, and its reason among the notes.
            if text is not None and NO_RESPONSE not in text:
                reasons.setdefault(text, []).append(f"{what} of {shorten(name)}")
    texts += [
        f"{', '.join(where[:3])}{' and others' if len(where) > 3 else ''}: {clean(text)}"
        for text, where in reasons.items()
    ]
    return [shorten(text, MostShown.text) for text in dict.fromkeys(texts)]


def _calm(record: Record) -> str:
    known = [
        row.estimate
        for measure in record.measures.values()
        for row in measure.rows
        if row.estimate.low is not None or row.estimate.warning
    ]
    doubtful = sum(estimate.warning is not None for estimate in known)
    if not doubtful:
        return "No fallback, no failure, no warning."
    verb = "carries" if doubtful == 1 else "carry"
    return f"No fallback, no failure; {count(doubtful)} of {count(len(known))} intervals in the record {verb} a warning."


def _undefined(report: AuditReport, *, shown_above: bool) -> list[str]:
    """Measures without a value: of those in the rows it is a warning, of others (no pairs in one modality) a note."""
    rows = {"coalitions", *_MEASURE.values()}
    return [
        f"{key} is undefined: {clean(measure.undefined)}"
        for key, measure in report.measures.items()
        if measure.undefined and (key in rows) == shown_above
    ]


def _notes(report: AuditReport) -> list[str]:
    texts = [f"{n.topic}: {n.text}" for n in report.notes if n.kind == "information"]
    texts += _undefined(report, shown_above=False)
    for name in report.modalities:
        response = find(report.record, "responses", modality=name)
        if response is not None and NO_RESPONSE in (response.undefined or ""):
            texts.append(f"{shorten(name)}: {response.undefined}")
    return [shorten(text, MostShown.text) for text in texts]


def _bounded(texts: list[str]) -> list[str]:
    if len(texts) <= MostShown.warnings:
        return texts
    return [
        *texts[: MostShown.warnings],
        f"and {len(texts) - MostShown.warnings} more, all in the record",
    ]
