"""The estimates of a report as CSV: one row per estimate, numbers as they are, texts that no spreadsheet runs.

A spreadsheet reads a cell that begins with ``=``, ``+``, ``-`` or ``@`` as a formula. Names come from models and data, so such
a text gets an apostrophe in front; what is a number, also one in a text, stays as it is.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmaudit.report import AuditReport
from mmaudit.report.schema import Estimate, LabelledEstimate, MeasureResult
from mmaudit.report.store import write_text_atomic

__all__ = ["csv_files", "is_one_file", "safe_cell", "to_csv", "write_csv"]

_FORMULA = "=+-@＝＋－＠"
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_ESTIMATE = ("value", "low", "high", "n", "groups", "method", "undefined", "warning", "unit")
_FINDING = ("rule", "modality", "verdict", "level", "text", "because", "conditions", "missing", "remedies")  # fmt: skip
_FINDINGS = "findings"


def to_csv(report: AuditReport) -> str:
    """Write all estimates of a report into one table.

    Args:
        report: The report; its per-sample tables are not read.

    Returns:
        A header, then one row per estimate: ``measure``, every label that some measure has (empty where this one has it not),
        ``value``, ``low``, ``high``, ``n``, ``groups``, ``method``, ``undefined``, ``warning``, ``unit``. A measure without any
        value has one row that says why in ``undefined``; one that failed has its error there.
    """
    labels = list(
        dict.fromkeys(key for m in report.measures.values() for row in m.rows for key in row.labels)
    )
    rows: list[Sequence[object]] = []
    for key, result in report.measures.items():
        rows += [
            (key, *(row.labels.get(name, "") for name in labels), *_cells(row.estimate, result))
            for row in _rows(result)
        ]
    nothing = [""] * len(labels)
    for failure in report.failures:
        failed = Estimate(undefined=f"failed: {failure.error}")
        rows.append((failure.measure, *nothing, *_cells(failed, None)))
    return _text(("measure", *labels, *_ESTIMATE), rows)


def csv_files(report: AuditReport) -> dict[str, str]:
    """Write each measure of a report as a table of its own, and its findings.

    Returns:
        Name of a file -> its text: ``contributions.csv``, ..., and ``findings.csv`` where there are findings. Names are those of
        measures; any other character than a letter, digit or underscore in them becomes an underscore.
    """
    files = {}
    for key, result in report.measures.items():
        labels = list(dict.fromkeys(name for row in result.rows for name in row.labels))
        rows = [
            (*(row.labels.get(name, "") for name in labels), *_cells(row.estimate, result))
            for row in _rows(result)
        ]
        files[f"{re.sub(r'[^A-Za-z0-9_]', '_', key)}.csv"] = _text((*labels, *_ESTIMATE), rows)
    findings = report.record.findings
    if findings:
        told = [
            (
                f.rule, f.modality or "", f.verdict or "", f.level, f.text, f.because,
                "; ".join(f.conditions), " ".join(f.missing), ", ".join(f.remedies),
            )
            for f in findings
        ]  # fmt: skip
        files[f"{_FINDINGS}.csv"] = _text(_FINDING, told)
    return files


def write_csv(report: AuditReport, path: Path) -> tuple[Path, ...]:
    """Write a report's estimates as CSV.

    Args:
        report: The report.
        path: A name that ends in ``.csv`` is one file with all measures; any other is a folder with a file for each.

    Returns:
        The files, which replace those of the same names.

    Raises:
        RecordError: If a file cannot be written.
    """
    if is_one_file(path):
        write_text_atomic(path, to_csv(report))
        return (path,)
    files = csv_files(report)
    for name, text in files.items():
        write_text_atomic(path / name, text)
    return tuple(path / name for name in files)


def is_one_file(path: Path) -> bool:
    """Whether a place is meant as one file rather than as a folder of files."""
    return path.suffix.lower() == ".csv" and not path.is_dir()


def safe_cell(text: str) -> str:
    r"""Keep a text from being read as a formula.

    Example:
        >>> safe_cell("=1+1"), safe_cell("-0.5"), safe_cell("audio"), safe_cell("\t@x")
        ("'=1+1", '-0.5', 'audio', "' @x")
    """
    shown = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)
    begins = shown.lstrip()[:1]
    if begins and begins in _FORMULA and not _NUMBER.fullmatch(shown):
        return f"'{shown}"
    return shown


def _rows(result: MeasureResult) -> Iterable[LabelledEstimate]:
    if result.rows:
        return result.rows
    reason = result.undefined or "it has no rows"
    return [LabelledEstimate(labels={}, estimate=Estimate(undefined=reason))]


def _cells(estimate: Estimate, result: MeasureResult | None) -> tuple[object, ...]:
    e = estimate
    return (
        e.value, e.low, e.high, e.n, e.groups, e.method, e.undefined, e.warning,
        result.unit if result is not None else "",
    )  # fmt: skip


def _text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([safe_cell(name) for name in header])
    for row in rows:
        # csv writes a float by repr, so that reading it back gives the same number.
        writer.writerow(
            [safe_cell(cell) if isinstance(cell, str) else ("" if cell is None else cell) for cell in row]
        )  # fmt: skip
    return out.getvalue()
