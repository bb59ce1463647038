"""CSV exports of Weights & Biases: of a panel (a column for each run) and of a run's history."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd

from mmaudit.evidence.readers.base import Columns, Run, Series, known_column
from mmaudit.evidence.readers.csv_file import read_table
from mmaudit.exceptions import LogError

__all__ = ["WandbReader"]

_SPREAD = re.compile(r"__(MIN|MAX)$")
_SEPARATOR = " - "


class WandbReader:
    """A panel's export: ``Step``, and for each run ``run - metric`` with its ``__MIN`` and ``__MAX``."""

    key = "wandb"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether columns are called as the export calls them."""
        if path.is_dir():
            return False
        first = head.decode("utf-8-sig", "replace").splitlines()[:1]
        names = next(csv.reader(first), [])
        return any(_SEPARATOR in n and _SPREAD.search(n) for n in names) or (
            bool(names)
            and known_column(names[0]) is not None
            and any(_SEPARATOR in n for n in names[1:])
        )

    def read(self, path: Path, columns: Columns) -> list[Run]:
        """The runs of the panel.

        Raises:
            LogError: If no column has points.
        """
        frame, _ = read_table(path)
        kinds = {str(name): known_column(str(name)) for name in frame.columns}
        step = next((frame[n] for n, kind in kinds.items() if kind == "step"), None)
        epoch = next((frame[n] for n, kind in kinds.items() if kind == "epoch"), None)
        at = (
            np.full(len(frame), -1)
            if step is None
            else pd.to_numeric(step, errors="coerce").fillna(-1).to_numpy(np.int64)
        )
        when = (
            np.full(len(frame), np.nan)
            if epoch is None
            else pd.to_numeric(epoch, errors="coerce").to_numpy(np.float64)
        )
        found: dict[str, dict[str, Series]] = {}
        for name in map(str, frame.columns):
            if kinds[name] is not None or _SPREAD.search(name) or _SEPARATOR not in name:
                continue
            title, _, metric = name.rpartition(_SEPARATOR)
            if known_column(metric) is not None:
                continue
            value = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64)
            keep = ~np.isnan(value)
            if keep.any():
                found.setdefault(title, {})[metric] = Series(
                    at[keep], when[keep], value[keep], np.flatnonzero(keep)
                )
        if not found:
            raise LogError(
                f"{path.name} looks like an export of Weights & Biases, but no run has numbers."
            )
        return [Run(title, "W&B CSV export", (path,), series) for title, series in found.items()]
