"""The small print of a page: class by class, how each measure was made, and where everything came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from mmaudit.export.overview import MostShown
from mmaudit.figures.base import Table, cell, cell_word, score_word
from mmaudit.report import AuditReport
from mmaudit.report.labels import coalition_name, shorten
from mmaudit.report.numbers import count
from mmaudit.report.schema import Estimate

__all__ = ["make_provenance"]

_LONGEST_SPEC = 100_000


def make_provenance(report: AuditReport) -> dict[str, Any]:
    """Collect the small print.

    Returns:
        Name in the template -> texts or rows of texts; all bounded in number and length, none escaped.
    """
    record = report.record
    modules, files = record.subject.structure.modules, record.subject.files
    classes, classes_caption = _class_table(report)
    score = score_word(report)
    return {
        "record": _bounded_record(report),
        "created": f"{record.created:%d %B %Y, %H:%M} {record.created.tzname() or ''}".strip(),
        "classes": classes,
        "classes_caption": classes_caption,
        "classes_title": f"All {_plural(report)}",
        "classes_summary": (
            f"{score[:1].upper()}{score[1:]}, contributions and utilization of {count(len(classes.rows))} {_plural(report)}"
        ),
        "measures": _measures(report),
        "files": [
            (shorten(f.path, 200), shorten(f.role, 60), count(f.bytes), shorten(f.sha256, 64))
            for f in files[: MostShown.files]
        ],
        "files_caption": _of("files", MostShown.files, len(files)),
        "modules": [
            (
                shorten(m.name or "(the model)", 80),
                shorten(m.type, 60),
                shorten(", ".join(m.modalities) or "nothing", 100),
                m.role,
                str(m.calls),
                count(m.parameters),
            )
            for m in modules[: MostShown.modules]
        ],
        "modules_caption": _of("modules", MostShown.modules, len(modules)),
        "spec": _spec(record.spec),
        "settings": _pairs(record.settings),
        "environment": _pairs(record.environment),
        "notes": [
            (shorten(n.topic, 40), n.kind, shorten(n.text, MostShown.text))
            for n in record.notes[: MostShown.files]
        ],
        "failures": [
            (shorten(f.measure, 60), shorten(f.error, MostShown.text))
            for f in record.failures[: MostShown.files]
        ],
    }


def _class_table(report: AuditReport) -> tuple[Table, str]:
    """Accuracy, contributions and utilization given the rest, class by class, in one pass over the rows."""
    names, score = report.modalities, score_word(report)
    found: dict[tuple[str, str], dict[str, Estimate]] = {}
    everyone = coalition_name(names, names)
    wanted: list[tuple[str, str, dict[str, str]]] = [
        (f"{score[:1].upper()}{score[1:]}", "coalitions", {"coalition": everyone, "score": score})
    ]
    for name in names:
        labels = {"modality": name, "score": score, "quantity": "value"}
        wanted.append((f"Contribution of {shorten(name)}", "contributions", labels))
    for name in names:
        rest = coalition_name((other for other in names if other != name), names)
        wanted.append(
            (
                f"Utilization of {shorten(name)} given rest",
                "utilization",
                {"quantity": "u", "modality": name, "given": rest},
            )
        )
    for header, measure, labels in wanted:
        for row in report.rows(measure, **labels):
            found.setdefault((header, measure), {})[row.labels.get("class", "all")] = row.estimate
    columns = [
        (header, found[(header, measure)])
        for header, measure, _ in wanted
        if (header, measure) in found
    ]
    sizes = dict(zip(report.classes, report.data.class_counts, strict=False))
    classes = [name for name in report.classes if any(name in column for _, column in columns)]
    rows = tuple(
        (
            shorten(name, 60),
            count(sizes[name]) if name in sizes else "unknown",
            *(cell(column.get(name)) for _, column in columns),
        )
        for name in classes[: MostShown.classes]
    )
    headers = (cell_word(report).capitalize(), "Samples", *(header for header, _ in columns))
    caption = (
        _of(_plural(report), MostShown.classes, len(classes))
        + "; ! marks an interval with a warning"
    )
    return Table(headers, rows), caption


def _plural(report: AuditReport) -> str:
    word = cell_word(report)
    return f"{word}es" if word == "class" else f"{word}s"


def _measures(report: AuditReport) -> list[tuple[str, ...]]:
    return [
        (
            shorten(m.title, 60),
            shorten(m.unit, 60) if m.unit else "none",
            shorten(m.reference, 160) if m.reference else "none",
            shorten(
                ", ".join(f"{name} {value}" for name, value in m.settings.items()) or "none", 200
            ),
            shorten(m.undefined, 200) if m.undefined else "no",
        )
        for m in report.measures.values()
    ]


def _bounded_record(report: AuditReport) -> dict[str, Any]:
    record = report.record
    return {
        "subject": {"model": shorten(record.subject.model, 160)},
        "mmaudit_version": shorten(record.mmaudit_version, 40),
        "report_id": shorten(record.report_id, 60),
        "schema_version": record.schema_version,
        "data": {
            "source": shorten(record.data.source, 160),
            "fingerprint": shorten(record.data.fingerprint, 64) if record.data.fingerprint else "",
            "ids": record.data.ids,
        },
    }


def _spec(spec: Mapping[str, Any]) -> str:
    text = (
        yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True, width=100)
        if spec
        else "not recorded"
    )
    return (
        text
        if len(text) <= _LONGEST_SPEC
        else f"{text[:_LONGEST_SPEC]}\n... cut; the record has it whole"
    )


def _pairs(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (shorten(str(name), 80), shorten(str(value), 300))
        for name, value in list(mapping.items())[:200]
    ]


def _of(what: str, most: int, total: int) -> str:
    return f"{count(min(most, total))} of {count(total)} {what}"
