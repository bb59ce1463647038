"""CSV exports of Weights & Biases: of a panel (a column for each run) and of a run's history."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from mmaudit.evidence.readers.base import Columns, Run, Series, check_points, known_column, said
from mmaudit.evidence.readers.cells import numbers
from mmaudit.evidence.readers.csv_file import first_names, read_table
from mmaudit.evidence.readers.table import runs_of_frame
from mmaudit.exceptions import LogError

__all__ = ["WandbReader"]

_SPREAD = re.compile(r"__(MIN|MAX)$")
_SEPARATOR = " - "
_OF_HISTORY = {"_step", "_runtime", "_timestamp"}


class WandbReader:
    """A panel's export (``Step``, and for each run ``run - metric`` with its ``__MIN`` and ``__MAX``), or a run's history."""

    key = "wandb"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether columns are called as the exports call them."""
        if path.is_dir():
            return False
        names = first_names(head)
        return (
            any(_SEPARATOR in n and _SPREAD.search(n) for n in names)
            or (
                bool(names)
                and known_column(names[0]) is not None
                and any(_SEPARATOR in n for n in names[1:])
            )
            or len(_OF_HISTORY & set(names)) > 1
        )

    def read(self, path: Path, columns: Columns) -> list[Run]:
        """The runs of the panel, or the one of a history.

        Raises:
            LogError: If no column has points.
        """
        table = read_table(path)
        frame = table.frame
        if len(_OF_HISTORY & set(map(str, frame.columns))) > 1:
            return runs_of_frame(
                path, "W&B history", frame, columns, written=table.written, notes=table.notes
            )
        kinds = {str(name): known_column(str(name)) for name in frame.columns}
        at, when = np.full(len(frame), -1, np.int64), np.full(len(frame), np.nan)
        for name, kind in reversed(kinds.items()):
            values = numbers(frame[name]) if kind is not None else at
            if kind == "step":
                good = np.isfinite(values) & (np.abs(values) < 2**53)
                at = np.where(good, values, -1).astype(np.int64)
            elif kind == "epoch":
                when = np.where(np.isfinite(values), values, np.nan)
        found: dict[str, dict[str, Series]] = {}
        for name in map(str, frame.columns):
            if kinds[name] is not None or _SPREAD.search(name) or _SEPARATOR not in name:
                continue
            title, _, metric = name.rpartition(_SEPARATOR)
            if known_column(metric) is not None:
                continue
            value = numbers(frame[name])
            there = ~np.isnan(value)
            if table.written is not None:
                there |= table.written[name].to_numpy(bool)
            if np.isfinite(value).any():
                found.setdefault(title, {})[metric] = Series(
                    at[there], when[there], value[there], np.flatnonzero(there)
                ).counted()
        if not found:
            raise LogError(
                f"{said(path.name)} looks like an export of Weights & Biases, but no run has numbers."
            )
        runs = [
            Run(title, "W&B CSV export", (path,), series, table.notes)
            for title, series in found.items()
        ]
        check_points(path.name, runs)
        return runs
