"""Whether the model answers alike from two modalities: read from the table of samples, since no measure keeps answers.

Agreement where both are right says nothing, and so does agreement in the answer that the model gives when it is shown
nothing. What is left are errors: two modalities that err for reasons of their own do not err alike.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmaudit.exceptions import RecordError
from mmaudit.report.schema import Record
from mmaudit.report.tables import read_chunks, shard_paths

__all__ = ["Alike", "find_alike"]

_SECOND = "second"
_MOST_ROWS = 20_000
_MOST_VALUES = 2**24
_FEWEST = 15
_VALUES = 2**20
_MOST_BY_CHANCE = 0.9
"""Answers that agree so often because they hardly vary say nothing."""


@dataclass(frozen=True)
class Alike:
    """How often the model errs alike from either of two modalities alone.

    Args:
        first: One modality.
        second: The other.
        share: Share of equal answers among the samples.
        samples: Samples that have both, on which it errs with either alone, and with either says something else than with nothing.
    """

    first: str
    second: str
    share: float
    samples: int


def find_alike(record: Record, table: Path | None) -> tuple[Alike, ...]:
    """Compare the answers of the model given single modalities, on up to 20,000 samples, of more than nine modalities on fewer.

    Where everything was evaluated under a second mask, its table beside the first is compared too and the larger share
    counts: under the values of other samples, the rest of a sample may hide that two modalities are one.

    Args:
        record: Names and task.
        table: Folder of the coalition table; ``None`` where there is none.

    Returns:
        Every pair with at least 15 samples to compare, on which the answers given either vary; none for a regression, which has no
        wrong answers.
    """
    if table is None or len(record.modalities) < 2 or record.spec.get("task") == "regression":
        return ()
    found: dict[tuple[str, str], Alike] = {}
    for folder in (table, table.parent / _SECOND):
        for alike in _of_table(record.modalities, folder) if shard_paths(folder) else ():
            pair = (alike.first, alike.second)
            if pair not in found or alike.share > found[pair].share:
                found[pair] = alike
    return tuple(found.values())


def _of_table(modalities: tuple[str, ...], table: Path) -> tuple[Alike, ...]:
    M = len(modalities)
    equal, compared = np.zeros((M, M)), np.zeros((M, M), dtype=np.int64)
    given: dict[tuple[int, int], tuple[Counter[int], Counter[int]]] = {
        pair: (Counter(), Counter()) for pair in itertools.combinations(range(M), 2)
    }
    single, rows = 1 << np.arange(M), 0
    columns = ["prediction", "correct", "present"]
    try:
        for chunk in read_chunks(table, columns, rows=max(16, _VALUES // 2**M)):
            answer, right = chunk["prediction"][:, single], chunk["correct"][:, single] > 0
            has = (chunk["present"][:, None] >> np.arange(M) & 1).astype(bool)
            says = answer != chunk["prediction"][:, [0]]
            for i, j in itertools.combinations(range(M), 2):
                both = has[:, i] & has[:, j] & ~(right[:, i] & right[:, j])
                use = both & (says[:, i] | says[:, j])
                compared[i, j] += int(use.sum())
                equal[i, j] += int((answer[use, i] == answer[use, j]).sum())
                for counter, m in zip(given[i, j], (i, j), strict=True):
                    counter.update(answer[use, m].tolist())
            rows += len(answer)
            if rows >= min(_MOST_ROWS, _MOST_VALUES // 2**M):
                break
    except (RecordError, IndexError):  # a table of another shape: nothing to compare
        return ()
    return tuple(
        Alike(
            modalities[i], modalities[j], float(equal[i, j] / compared[i, j]), int(compared[i, j])
        )
        for i, j in itertools.combinations(range(M), 2)
        if compared[i, j] >= _FEWEST
        and _by_chance(*given[i, j], int(compared[i, j])) < _MOST_BY_CHANCE
    )


def _by_chance(first: Counter[int], second: Counter[int], n: int) -> float:
    """Share of equal answers of two that have nothing to do with each other, as in Cohen's kappa."""
    return sum(count * second[answer] for answer, count in first.items()) / n**2
