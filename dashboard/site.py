"""What every page is given: the records, the jobs, and whether jobs may be started here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from dash import Dash

from dashboard.data import Library
from dashboard.work import Desk

__all__ = ["Page", "Site"]


@dataclass(frozen=True)
class Site:
    """One workspace as the app shows it.

    Args:
        library: Its records.
        desk: Its jobs.
        read_only: Nothing may be started, cancelled or resumed.
    """

    library: Library
    desk: Desk
    read_only: bool = False


class Page(NamedTuple):
    """One page of the app."""

    label: str
    """Its name in the navigation; empty where it is reached from another page only."""
    title: str
    """Of the browser's tab. Constant: names of models and data never come into it."""
    layout: Callable[[Site, str], Any]
    """Draws the page for the key behind its address, which is empty where there is none."""
    register: Callable[[Dash, Site], None]
    """Connects its callbacks."""
