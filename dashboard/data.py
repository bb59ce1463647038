"""What the pages show, read from the workspace: its audits and comparisons. Imports no Dash.

The browser names a record by its id only, and the id is looked up in what a scan of the workspace has found: no text from the
browser ever becomes part of a path.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from dashboard.shelf import Shelf, signature
from mmaudit.exceptions import RecordError
from mmaudit.report import AuditReport
from mmaudit.report.comparison import COMPARISON_NAME, COMPARISON_VERSION, Comparison
from mmaudit.report.labels import complete, primary_score, shorten
from mmaudit.report.record_file import RECORD_NAME
from mmaudit.report.schema import SCHEMA_VERSION, Estimate

__all__ = ["AuditRow", "ComparisonRow", "Library", "Listing", "folder_name"]

_MOST_ROWS = 5_000
_REPORTS_KEPT = 8
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class AuditRow(NamedTuple):
    """One audit in the list."""

    key: str
    """Its id in addresses: the report's own, or a hash of its place where that would not do."""
    report_id: str
    title: str
    created: datetime
    samples: int
    score: Estimate | None
    """Of the whole model."""
    score_name: str
    """``accuracy``, of a regression ``R2``."""
    contributions: tuple[tuple[str, Estimate], ...]
    """Modality and its contribution to the score, in the order of the record."""
    verdicts: tuple[tuple[str, str], ...]
    """Modality and its verdict, in the order of the record; empty where the record has none."""
    place: str
    """Folder, relative to the workspace."""


class ComparisonRow(NamedTuple):
    """One comparison in the list."""

    key: str
    """Its id in addresses, made from its place."""
    before_id: str
    """Of the record before."""
    after_id: str
    before: str
    """Title of the record before."""
    after: str
    headline: str
    """Its verdict in a few words."""
    created: datetime
    """When the record after was made."""
    place: str


class Listing(NamedTuple):
    """All audits of a workspace, the newest first."""

    rows: tuple[AuditRow, ...]
    unreadable: tuple[str, ...]
    """Folders (relative) whose record cannot be read."""
    more: int
    """Audits that are not among the rows, because there are too many."""
    cut: bool
    """The workspace has more folders than are looked through."""


class Library:
    """The records below a folder. Safe to be used from several threads.

    Args:
        folder: The workspace.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._audits = Shelf(self.folder, RECORD_NAME, _audit_row)
        self._comparisons = Shelf(self.folder, COMPARISON_NAME, _comparison_row)
        self._lock = threading.Lock()
        self._paths: dict[str, Path] = {}
        self._reports: OrderedDict[Path, tuple[tuple[int, int, int], AuditReport]] = OrderedDict()

    def audits(self) -> Listing:
        """List the audits; only records that are new or changed since the last time are read."""
        found = self._audits.look()
        rows: dict[str, AuditRow] = {}
        paths: dict[str, Path] = {}
        for path, row in found.rows.items():
            # A folder that was copied holds the same audit: it is shown once.
            if rows.setdefault(row.key, row) is row:
                paths[row.key] = path
        self._paths = paths
        ordered = sorted(rows.values(), key=lambda row: row.created.timestamp(), reverse=True)
        more = max(0, len(ordered) - _MOST_ROWS)
        return Listing(tuple(ordered[:_MOST_ROWS]), found.unreadable, more, found.cut)

    def report(self, key: str) -> AuditReport:
        """Read one audit whole.

        Args:
            key: Its id.

        Raises:
            RecordError: If the workspace has no such audit, or its record is damaged.
        """
        path = self._find(key)
        stamp = signature(path)
        if stamp is None:
            raise _no_audit(key)
        with self._lock:
            known = self._reports.get(path)
            if known is not None and known[0] == stamp:
                self._reports.move_to_end(path)
                return known[1]
        report = AuditReport.load(path)
        with self._lock:
            self._reports[path] = (stamp, report)
            while len(self._reports) > _REPORTS_KEPT:
                self._reports.popitem(last=False)
        return report

    def row(self, key: str) -> AuditRow | None:
        """The list's row of an audit; ``None`` where there is none."""
        try:
            return self._audits.row(self._find(key))
        except RecordError:
            return None

    def key_at(self, folder: Path) -> str | None:
        """Id of the audit whose record lies in a folder of the workspace."""
        path = folder.resolve() / RECORD_NAME
        row = self._audits.row(path)
        if row is None and path.is_file():
            self.audits()
            row = self._audits.row(path)
        return None if row is None else row.key

    def comparisons(self) -> tuple[ComparisonRow, ...]:
        """List the comparisons, the newest first."""
        rows = self._comparisons.look().rows.values()
        ordered = sorted(rows, key=lambda row: row.created.timestamp(), reverse=True)
        return tuple(ordered[:_MOST_ROWS])

    def comparison(self, key: str) -> tuple[ComparisonRow, Comparison]:
        """Read one comparison whole.

        Args:
            key: Its id.

        Raises:
            RecordError: If the workspace has no such comparison, or it is damaged.
        """
        for row in self.comparisons():
            if row.key == key:
                return row, Comparison.load(self.folder / row.place / COMPARISON_NAME)
        raise RecordError(f"the workspace has no comparison '{shorten(key, 40)}'")

    def comparison_at(self, folder: Path) -> str | None:
        """Id of the comparison that lies in a folder of the workspace."""
        if not (folder / COMPARISON_NAME).is_file():
            return None
        return _of_place(folder.resolve().relative_to(self.folder).as_posix())

    def _find(self, key: str) -> Path:
        for attempt in range(2):
            path = self._paths.get(key)
            # A folder may hold another audit by now than the one that was listed.
            if path is not None and self._audits.row(path) is not None:
                return path
            if attempt == 0:
                self.audits()
        raise _no_audit(key)


def folder_name(place: str) -> str:
    """What to call a folder of the workspace; that of a job by the job's short id, as on its page.

    Example:
        >>> folder_name("runs/first"), folder_name("retrainings/abcdefghijklmnopqrstuvwxyz/after"), folder_name(".")
        ('runs/first', 'job abcdefgh, after', 'here')
    """
    parts = place.split("/")
    if parts[0] == "retrainings" and len(parts) > 1 and len(parts[1]) == 26:
        return ", ".join([f"job {parts[1][:8]}", *([shorten("/".join(parts[2:]), 30)] if parts[2:] else [])])  # fmt: skip
    return "here" if place == "." else shorten(place, 30)


def _no_audit(key: str) -> RecordError:
    return RecordError(f"the workspace has no audit '{shorten(key, 40)}'")


def _audit_row(record: Mapping[str, Any], place: str) -> AuditRow:
    """Pick a row out of a record without validating all of it, which takes ten times as long."""
    if record["schema_version"] != SCHEMA_VERSION:
        raise RecordError("unknown version")
    names = tuple(str(name) for name in record["modalities"])
    measures = record.get("measures", {})
    task = str((record.get("spec") or {}).get("task", "multiclass"))
    contributions = [
        (name, estimate)
        for name in names
        if (estimate := _estimate(measures, "contributions", names, task, modality=name))
        is not None
    ]
    found = {
        finding["modality"]: str(finding["verdict"])
        for finding in record.get("findings", ())
        if finding.get("verdict") is not None
    }
    identity = str(record["report_id"])
    return AuditRow(
        key=identity if _ID.fullmatch(identity) else _of_place(place),
        report_id=identity,
        title=shorten(str(record["subject"]["title"]), 160),
        created=_time(record["created"]),
        samples=int(record["data"]["samples"]),
        score=_estimate(measures, "coalitions", names, task, coalition="+".join(names)),
        score_name=primary_score(task),
        contributions=tuple(contributions),
        verdicts=tuple((name, found[name]) for name in names if name in found),
        place=place,
    )


def _comparison_row(found: Mapping[str, Any], place: str) -> ComparisonRow:
    if found["schema_version"] != COMPARISON_VERSION:
        raise RecordError("unknown version")
    before, after = found["before"], found["after"]
    return ComparisonRow(
        key=_of_place(place),
        before_id=str(before["report_id"]),
        after_id=str(after["report_id"]),
        before=shorten(str(before["title"]), 120),
        after=shorten(str(after["title"]), 120),
        headline=shorten(str(found["verdict"]["headline"]), 160),
        created=_time(after["created"]),
        place=place,
    )


def _of_place(place: str) -> str:
    return hashlib.sha256(place.encode()).hexdigest()[:26]


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo is not None else at.astimezone()


def _estimate(
    measures: Mapping[str, Any], key: str, names: tuple[str, ...], task: str, **labels: str
) -> Estimate | None:
    wanted = complete(key, labels, names, task).items()
    for row in (measures.get(key) or {}).get("rows", ()):
        if wanted <= row["labels"].items():
            return Estimate.model_validate(row["estimate"])
    return None
