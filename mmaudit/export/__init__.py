"""Reports for people: on a terminal, as Markdown, as one HTML file. Importable without torch."""

from __future__ import annotations

__all__: list[str] = []
