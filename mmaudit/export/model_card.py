"""A section for a model card: what was audited, on what, the scores, the verdicts, and the limits.

Written to be pasted into the README of a model's repository. It holds nothing of the machine that the audit ran on: of paths
only the last part is kept, and neither device nor environment nor times are told.
"""

from __future__ import annotations

import re

from mmaudit.export.markdown import escaped, table_lines
from mmaudit.export.opened import open_findings
from mmaudit.export.overview import Overview, make_overview
from mmaudit.figures.base import join_names
from mmaudit.report import AuditReport
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import count, short_count
from mmaudit.report.sentences import absent_modalities, masks_text

__all__ = ["to_model_card", "without_paths"]

_PATH = re.compile(
    r"(?<![\w:])(?<!:/)(?:~|\.{1,2}|[A-Za-z]:|file:/|\\)?(?:[\\/](?:[^\s\\/'\"`,;:()]+)){2,}[\\/]?"
)
_MOST = 12


def to_model_card(report: AuditReport) -> str:
    """Write the section.

    Args:
        report: The report.

    Returns:
        Markdown as Hugging Face shows it, from a second-level heading on, a newline at the end. Names come from models and
        data: they are escaped.
    """
    overview = make_overview(report)
    parts = ["## Modality audit", "", *_audited(report), "", "### Data", "", *_data(report)]
    parts += ["", f"### Scores: {overview.score}", ""]
    parts += table_lines(("Present", overview.score), overview.scores)
    parts += ["", f"95 % intervals in brackets. {_how_masked(report)}"]
    parts += ["", "### Findings" if overview.model or overview.advice else "### Modalities", ""]
    parts += [f"- {_said(found.text)}" for found in overview.model]
    parts += [""] if overview.model else []
    parts += table_lines(overview.headers, overview.rows)
    told = _told(report, overview)
    parts += ["", *(f"- {text}" for text in told)] if told else []
    parts += ["", "### Limits", "", *(f"- {text}" for text in _limits(report, overview))]
    made = f"Made with mmaudit {escaped(shorten(report.record.mmaudit_version, 40))}"
    seed = report.record.settings.get("seed")
    drawn = f", seed {seed}" if isinstance(seed, int) else ""
    parts += ["", f"{made} on {report.record.created:%Y-%m-%d}{drawn}."]
    return "\n".join(parts) + "\n"


def without_paths(text: str) -> str:
    r"""Keep only the last part of every path in a text.

    Example:
        >>> without_paths("/home/me/data/digits.npz, rows 1:9"), without_paths("C:\\runs\\a\\b.pt and a/b")
        ('digits.npz, rows 1:9', 'b.pt and a/b')
    """
    return _PATH.sub(lambda found: re.split(r"[\\/]", found.group().rstrip("\\/"))[-1], text)


def _audited(report: AuditReport) -> list[str]:
    subject = report.subject
    lines = [
        f"- **Audited**: {_said(shorten(report.title, 160))}",
        f"- **Model**: {_said(shorten(subject.model, 160))}, {short_count(subject.parameters)} parameters",
        f"- **Modalities**: {escaped(join_names([shorten(name) for name in report.modalities]))}",
    ]
    weights = [file for file in subject.files if file.role.startswith("checkpoint")]
    for file in weights[:_MOST]:
        name = escaped(shorten(re.split(r"[\\/]", file.path)[-1], 80))
        lines.append(f"- **Weights**: {name}, SHA-256 {escaped(shorten(file.sha256, 64))}")
    if len(weights) > _MOST:
        lines.append(f"- **Weights**: {len(weights) - _MOST} more files")
    return lines


def _data(report: AuditReport) -> list[str]:
    data = report.data
    lines = [f"- **Samples**: {count(data.samples)}, from {_said(shorten(data.source, 160))}"]
    if data.groups is not None:
        by = escaped(shorten(data.group_column or "group", 40))
        lines.append(f"- **Groups**: {count(data.groups)} ({by}), resampled whole")
    if data.classes:
        names = [shorten(name, 30) for name in data.classes[:_MOST]]
        more = (
            f" and {count(len(data.classes) - _MOST)} more"
            if len(data.classes) > _MOST
            else ""
        )  # fmt: skip
        lines.append(
            f"- **Classes**: {count(len(data.classes))} ({escaped(', '.join(names))}{more})"
        )
    lacking = [
        f"{shorten(name)} {count(data.present[name])}"
        for name in report.modalities
        if data.present.get(name, data.samples) < data.samples
    ]
    if lacking:
        lines.append(f"- **Samples that have it**: {escaped(', '.join(lacking))}")
    return lines


def _how_masked(report: AuditReport) -> str:
    mask = _said(shorten(masks_text(report.record), 160))
    second = dict.fromkeys(report.record.second_masks.values())
    also = (
        f"; a second mask as a check: {_said(shorten(' or '.join(second), 120))}" if second else ""
    )
    return f"A modality that is not present was replaced (mask: {mask}{also})."


def _told(report: AuditReport, overview: Overview) -> list[str]:
    """A sentence for each verdict, or what stands out where there are none."""
    opened = [found for found in open_findings(report.record) if found.verdict]
    if not opened:
        return [_said(text) for text in overview.sentences]
    lines = []
    for found in opened:
        remedies = f" Worth trying: {escaped(', '.join(found.remedies))}." if found.remedies else ""
        beside = f" ({escaped('; '.join(found.conditions))})" if found.conditions else ""
        lines.append(
            f"**{escaped(found.name)}: {found.verdict}**{beside}. {_said(found.text)}{remedies}"
        )
    return lines


def _limits(report: AuditReport, overview: Overview) -> list[str]:
    lines = [
        "The numbers hold for these samples and ones like them, and for modalities made absent in the way that is named.",
        "An interval covers the uncertainty from the choice of samples, not that of training another model.",
    ]
    if not report.record.second_masks:
        lines.append("One kind of mask was used; another may tell otherwise.")
    absent = absent_modalities(report.record)
    if absent:
        names = join_names([shorten(name) for name in absent])
        lines.append(f"No audited sample has {escaped(names)}.")
    missing = dict.fromkeys(
        text for found in open_findings(report.record) for text in found.missing
    )
    lines += [f"Not known: {_said(text)}" for text in list(missing)[:_MOST]]
    return [*lines, *(_said(text) for text in overview.warnings)]


def _said(text: str) -> str:
    return escaped(without_paths(text))
