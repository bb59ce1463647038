"""The pages, by the first part of their address."""

from __future__ import annotations

from dashboard.pages import audits, compare, diagnosis, jobs, retrain
from dashboard.site import Page

__all__ = ["PAGES"]

PAGES: dict[str, Page] = {
    "": audits.PAGE,
    "diagnosis": diagnosis.PAGE,
    "retrain": retrain.PAGE,
    "jobs": jobs.PAGE,
    "compare": compare.PAGE,
}
