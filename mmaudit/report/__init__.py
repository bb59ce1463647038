"""Records: their schema, their store, and reading them back. Importable without torch."""

from __future__ import annotations

from mmaudit.report.report import RECORD_NAME, AuditReport

__all__ = ["RECORD_NAME", "AuditReport"]
