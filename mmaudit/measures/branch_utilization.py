"""How much of its accuracy a branch owes to what others tell it: conditional utilization rates by cutting branches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.base import NOT_HERE, EvidenceMeasure
from mmaudit.measures.evidence import Evidence
from mmaudit.measures.intervals import difference_intervals, loss_intervals, proportion_intervals
from mmaudit.measures.row_sums import Chunk, row_sums
from mmaudit.report.labels import coalition_name
from mmaudit.report.schema import Estimate, LabelledEstimate
from mmaudit.report.tables import read_chunks
from mmaudit.typing import FloatArray

__all__ = ["BranchUtilization", "branch_rates"]

BRANCHES = "branches"
_STABLE = 0.95


def branch_rates(accuracies: FloatArray, cut: FloatArray) -> FloatArray:
    """Share of its accuracy that a branch loses when the path from other branches into it is cut.

        u(rest | m) = (A(f_m) - A(f'_m)) / A(f_m)        (Wu et al. 2022)

    For two modalities ``u(m1 | m0)`` is that of branch 0. Masking a modality is another way of taking it away, and its rates
    (``mmaudit.measures.utilization``) are not comparable in size with these.

    Args:
        accuracies: Of each branch as it is, shape ``(M,)``, in [0, 1].
        cut: Of each branch cut off from the others, shape ``(M,)``, in [0, 1].

    Returns:
        Rates, shape ``(M,)``, unitless, at most 1, negative where cutting helps, never clipped.

    Raises:
        UndefinedMeasureError: If a branch's accuracy is 0.

    Example:
        >>> branch_rates(np.array([0.8, 0.7]), np.array([0.6, 0.63])).round(3).tolist()
        [0.25, 0.1]
    """
    accuracies = np.asarray(accuracies, dtype=np.float64)
    if not (accuracies > 0).all():
        raise UndefinedMeasureError(
            f"utilization divides by the accuracy of the branch, got {accuracies.tolist()}"
        )
    return (accuracies - cut) / accuracies


class _Cut(NamedTuple):
    """One way of cutting one branch."""

    branch: int
    gained_from: tuple[int, ...]
    column: int
    """Of the sums of correct samples."""


class BranchUtilization(EvidenceMeasure):
    """u(m1|m0) and u(m0|m1) from the accuracies of branches, cut off from each other or not, and d_util.

    ``modality`` is what the branch ``given`` gains from: all other modalities that take part, and, where these are several, each
    of them alone. Rates of a modality that no sample has, and of a branch whose accuracy is 0, are undefined. d_util is the
    difference of the first and the second branch's rate (two branches) or of the largest and the smallest; which two these are is
    then found in the same data, so where resampling changes them the estimate warns.
    """

    key = "branch_utilization"
    title = "Conditional utilization rates by cutting branches"
    unit = "fraction of the branch's accuracy (u, d_util), fraction of samples (accuracies)"
    bounds = (None, 1.0)
    direction = "balanced"
    reference = "Wu et al. 2022, arXiv:2202.05306 (by cutting branches: what cross-modal modules see of others is held at its training mean)"
    tables = (BRANCHES,)

    def rows_of(self, evidence: Evidence) -> Iterator[LabelledEstimate]:
        """Labels: ``quantity`` (``u``, ``accuracy``, ``accuracy cut``, ``d_util``), ``modality``, ``given``."""
        folder = evidence.table(BRANCHES)
        chunk = next(read_chunks(folder), None) if folder is not None else None
        if chunk is None:
            raise UndefinedMeasureError("no audited sample has a label and finite branch scores")
        names, M = evidence.modalities, len(evidence.modalities)
        cuts = _cuts(chunk, M)
        columns = ["present", "correct_uncut", "correct_cut", *(["correct_pair"] if M > 2 else [])]

        def numbers(chunk: Chunk) -> FloatArray:
            has = chunk["present"][:, None] >> np.arange(M) & 1
            return np.hstack([has, *(chunk[name] for name in columns[1:])]).astype(np.float64)

        sums, counts = row_sums(evidence, columns, numbers, table=BRANCHES)
        here = sums[:, :M].sum(axis=0) > 0
        uncut, correct = sums[:, M : 2 * M], sums[:, M:]
        n, groups = int(counts.sum()), evidence.sums.group_count(None, counts)
        whole: dict[int, _Cut] = {}
        for cut in cuts:
            first = whole.setdefault(cut.branch, cut) is cut
            with_, without = uncut[:, [cut.branch]], correct[:, [cut.column]]
            labels = {
                "modality": coalition_name([names[j] for j in cut.gained_from], names),
                "given": names[cut.branch],
            }
            accuracies = {"accuracy": with_} if first else {}
            for quantity, hits in {**accuracies, "accuracy cut": without}.items():
                found = proportion_intervals(hits, counts, grouped=evidence.grouped)
                yield LabelledEstimate(
                    labels={"quantity": quantity, **labels},
                    estimate=found.estimate(0, n=n, groups=groups),
                )
            if not here[list(cut.gained_from)].any():
                estimate = Estimate(undefined=NOT_HERE, n=n)
            elif with_.sum() == 0:
                reason = f"the accuracy of the branch of {names[cut.branch]} is 0"
                estimate = Estimate(undefined=reason, n=n)
            else:
                found = loss_intervals(without, with_, counts)
                estimate = found.estimate(0, n=n, groups=groups)
            yield LabelledEstimate(labels={"quantity": "u", **labels}, estimate=estimate)
        yield _spread(evidence, list(whole.values()), uncut, correct, counts, groups, here)


def _cuts(chunk: Chunk, M: int) -> list[_Cut]:
    """The ways in which branches were cut: each from all others first."""
    branches, telling = (
        [m for m in range(M) if int(chunk[name][0]) >> m & 1] for name in ("branches", "telling")
    )
    cuts = []
    for i in branches:
        others = tuple(j for j in telling if j != i)
        cuts.append(_Cut(i, others, M + i))
        if len(others) > 1:
            cuts += [_Cut(i, (j,), 2 * M + i * M + j) for j in others]
    return cuts


def _spread(
    evidence: Evidence,
    cuts: list[_Cut],
    uncut: FloatArray,
    correct: FloatArray,
    counts: FloatArray,
    groups: int | None,
    here: np.ndarray,
) -> LabelledEstimate:
    names, n = evidence.modalities, int(counts.sum())
    compared = [cut for cut in cuts if here[list(cut.gained_from)].any()]
    with_ = uncut[:, [cut.branch for cut in compared]]
    without = correct[:, [cut.column for cut in compared]]
    silent = [
        names[cut.branch] for cut, total in zip(compared, with_.sum(0), strict=True) if not total
    ]
    pair, warning = (0, 1), None
    if len(compared) < 2:
        reason = "d_util compares at least two branches that gain from modalities that are there"
        estimate = Estimate(undefined=reason, n=n)
    elif silent:
        reason = f"the accuracy of the branch of {silent[0]} is 0"
        estimate = Estimate(undefined=reason, n=n)
    else:
        if len(compared) > 2:
            pair, warning = _widest(evidence, without, with_)
        found = difference_intervals(without, with_, counts, pair)
        estimate = found.estimate(0, n=n, groups=groups, warning=warning)
    shown = compared if len(compared) > 1 else cuts
    high, low = (shown[at] if at < len(shown) else None for at in pair)
    labels = {"quantity": "d_util", "modality": "max - min", "given": "max - min"}
    if high is not None and low is not None:
        gained = [coalition_name([names[j] for j in c.gained_from], names) for c in (high, low)]
        labels |= {
            "modality": " - ".join(gained),
            "given": f"{names[high.branch]} - {names[low.branch]}",
        }
    return LabelledEstimate(labels=labels, estimate=estimate)


def _widest(
    evidence: Evidence, without: FloatArray, with_: FloatArray
) -> tuple[tuple[int, int], str | None]:
    """The branches with the largest and the smallest rate, and a warning where resampling changes them."""
    kept = without.sum(axis=0) / with_.sum(axis=0)
    high, low = int(kept.argmin()), int(kept.argmax())
    if high == low:
        high, low = 0, 1
    drawn = evidence.sums.bootstrap(np.hstack([without, with_]))
    width = without.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = drawn[:, :width] / drawn[:, width:]
    same = (shares.argmin(axis=1) == high) & (shares.argmax(axis=1) == low)
    if same.mean() >= _STABLE:
        return (high, low), None
    return (high, low), (
        f"the branches that gain most and least are the same in only {100 * same.mean():.0f} % of the resamples, "
        "so the spread is overstated"
    )
