"""What sentences about losses and learning speeds share."""

from __future__ import annotations

from mmaudit.report.labels import shorten
from mmaudit.report.loss_record import LossRecord

__all__ = ["repeat", "said"]


def repeat(record: LossRecord) -> tuple[str, ...]:
    """What is missing where there is one run."""
    if len(record.runs) > 1:
        return ()
    return (
        "Whether another training does the same: repeat it with other seeds and give all logs together, mmaudit ogr LOG LOG ...",
    )


def said(name: str) -> str:
    """A name from a log, for a sentence."""
    return shorten(name, 40)
