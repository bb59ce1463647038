"""The Dash app: reads the records that audits leave behind and never loads torch."""

from __future__ import annotations

__all__: list[str] = []
