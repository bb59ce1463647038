"""Names that layouts and callbacks share: of components that several pages know, and of addresses."""

from __future__ import annotations

import re
from urllib.parse import quote

__all__ = [
    "AUDITS_FILTER",
    "AUDITS_GRID",
    "COLOUR_SCHEME",
    "CONTENT",
    "LOCATION",
    "NOTICE",
    "PAGE_TITLE",
    "PLOT_TEMPLATES",
    "address",
    "split_address",
]

LOCATION = "location"
CONTENT = "content"
PAGE_TITLE = "page-title"
NOTICE = "notice"
COLOUR_SCHEME = "colour-scheme"
PLOT_TEMPLATES = "plot-templates"

AUDITS_GRID = "audits-grid"
AUDITS_FILTER = "audits-filter"

_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PAGE = re.compile(r"[a-z]{0,20}")


def address(page: str, key: str = "") -> str:
    """Where a page lies.

    Example:
        >>> address(""), address("diagnosis", "0f3a"), address("jobs")
        ('/', '/diagnosis/0f3a', '/jobs')
    """
    return f"/{quote(page)}" + (f"/{quote(key, safe='')}" if key else "")


def split_address(pathname: str) -> tuple[str, str] | None:
    """Take an address apart.

    Args:
        pathname: As the browser has it.

    Returns:
        The page and the key behind it, which may be empty; ``None`` where it cannot be one of ours.

    Example:
        >>> split_address("/diagnosis/0f3a"), split_address("/jobs/"), split_address("/a/../b")
        (('diagnosis', '0f3a'), ('jobs', ''), None)
    """
    parts = pathname.strip("/").split("/")
    page, key = parts[0], parts[1] if len(parts) > 1 else ""
    if len(parts) > 2 or not _PAGE.fullmatch(page) or not (key == "" or _KEY.fullmatch(key)):
        return None
    return page, key
