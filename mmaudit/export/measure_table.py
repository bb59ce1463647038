"""One measure as a table on a terminal, or unfolded in a file."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmaudit.report import AuditReport
from mmaudit.report.labels import clean, shorten
from mmaudit.report.numbers import count, with_interval

__all__ = ["print_measure"]


def print_measure(report: AuditReport, key: str, console: Console) -> None:
    """Print all rows of a measure: its labels, the estimate with its interval, and n.

    Args:
        report: The report.
        key: Of the measure.
        console: Where to; decides width and colour.

    Raises:
        UndefinedMeasureError: If the measure has no value here.
        RecordError: If the record has no such measure.
    """
    result = report.measure(key)
    labels = list(result.rows[0].labels) if result.rows else []
    table = Table(box=None, padding=(0, 2, 0, 1), header_style="bold")
    for name in labels:
        table.add_column(name.capitalize(), overflow="fold")
    table.add_column("Estimate", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    remarks: dict[str, int] = {}
    for row in result.rows:
        reason = row.estimate.warning or row.estimate.undefined
        mark = f" [{remarks.setdefault(clean(reason), len(remarks) + 1)}]" if reason else ""
        cells = [Text(shorten(row.labels[name], 60)) for name in labels]
        table.add_row(
            *cells,
            Text(with_interval(row.estimate, 3) + mark),
            count(row.estimate.n) if row.estimate.n else "",
        )
    console.print(Text(f"{clean(result.title)}, {clean(result.unit)}", style="bold"))
    console.print(table)
    for text, number in remarks.items():
        console.print(Text(f" [{number}] {text}"))
