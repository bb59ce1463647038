"""All differences of one measure between two records: estimates before and after, interval, test, correction."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmaudit.exceptions import RecordError
from mmaudit.measures.paired import PairedDifferences, holm, mcnemar, paired_differences
from mmaudit.measures.pairing import PairedSums
from mmaudit.measures.ratios import RATIOS, SPREAD, Ratios
from mmaudit.measures.target_spread import rescaled
from mmaudit.report.comparison import ComparedMeasure, Difference
from mmaudit.report.labels import EMPTY, LABELS
from mmaudit.report.schema import Estimate, MeasureResult

__all__ = ["compare_measure", "family_of"]

_AGREES = 1e-6
_DELICATE = ("share", "d_util")
"""Quantities whose own warning says that their value cannot be trusted: then neither can its difference."""

_Labels = frozenset[tuple[str, str]]


def compare_measure(
    key: str,
    pairs: PairedSums,
    before: MeasureResult,
    after: MeasureResult,
    *,
    classes: bool = True,
) -> ComparedMeasure:
    """Compare one measure of two records.

    Args:
        key: Of the measure.
        pairs: Sums of both tables.
        before: Estimates of the first, of the samples that the sums are about.
        after: Estimates of the second, its modalities in the order of the first.
        classes: Whether each class is compared too.

    Returns:
        One row for each estimate; beyond five modalities only for the coalitions that are kept for classes (none, one, all but
        one, all) and for u(m|S) with such an S.

    Raises:
        RecordError: If an estimate is not what its table gives.
    """
    reason = _why_undefined(before.undefined, after.undefined)
    rows = [] if reason else _corrected(list(_rows(key, pairs, before, after, classes)))
    return ComparedMeasure(
        key=key,
        title=before.title,
        unit=before.unit,
        direction=before.direction,
        rows=tuple(rows),
        undefined=reason,
    )


def family_of(labels: dict[str, str]) -> _Labels:
    """What the hypotheses have in common that are corrected together: all but modality, pair and class.

    Coalitions are told apart by their size, and all classes together from single ones.

    Example:
        >>> one = {"modality": "audio", "given": "image", "quantity": "u", "class": "all"}
        >>> family_of(one) == family_of(one | {"modality": "image", "given": "audio"})
        True
    """
    family = {
        name: value for name, value in labels.items() if name not in ("modality", "first", "second")
    }
    for name in ("coalition", "given"):
        if name in family:
            family[name] = str(0 if family[name] == EMPTY else family[name].count("+") + 1)
    family["class"] = "all" if labels.get("class", "all") == "all" else "single"
    return frozenset(family.items())


def _rows(
    key: str, pairs: PairedSums, before: MeasureResult, after: MeasureResult, classes: bool
) -> Iterator[Difference]:
    firsts, seconds = _by_labels(before), _by_labels(after)
    # The same answers summed in another order differ by rounding, which is no difference.
    sums, reach = (pairs.before, 0.0) if pairs.same else (pairs.after, 1.0)
    for name, index in pairs.before.cells():
        if index is not None and not classes:
            return
        sides = (RATIOS[key](pairs.before, index), RATIOS[key](sums, index))
        for first, second in zip(*sides, strict=True):
            found = None
            if len(first.counts):
                found = paired_differences(
                    (first.numerators / first.scale, first.denominators),
                    (second.numerators / first.scale, second.denominators),
                    first.counts,
                    pairs.before.weights(len(first.counts)),
                    reach=reach * np.maximum(first.reach, second.reach),
                    bound=None if first.tally is None else 1.0,
                )
                found = found._replace(intervals=rescaled(found.intervals, first.scale))
            for place, own in enumerate(first.labels):
                labels = {label: (own | {"class": name})[label] for label in LABELS[key]}
                one, other = firsts.get(_found_by(labels)), seconds.get(_found_by(labels))
                if one is None or other is None:
                    which = "before" if one is None else "after"
                    raise RecordError(
                        f"the record {which} has no row of {key} for {labels}; it was written by another version"
                    )
                _check_value(key, labels, first, place, one)
                _check_value(key, labels, second, place, other)
                yield _difference(labels, one, other, found, pairs, first, place, index)


def _difference(
    labels: dict[str, str],
    before: Estimate,
    after: Estimate,
    found: PairedDifferences | None,
    pairs: PairedSums,
    ratios: Ratios,
    place: int,
    index: int | None,
) -> Difference:
    reason = _why_undefined(before.undefined, after.undefined)
    counts = ratios.counts[:, place if ratios.counts.shape[1] > 1 else 0]
    if reason or found is None:
        undefined = Estimate(undefined=reason or "no sample of this class", n=int(counts.sum()))
        return Difference(labels=labels, before=before, after=after, difference=undefined)
    delicate = labels.get("quantity") in _DELICATE and (before.warning or after.warning)
    estimate = found.intervals.estimate(
        place,
        n=int(counts.sum()),
        groups=pairs.before.group_count(index, counts),
        warning="before or after has a warning of its own" if delicate else None,
    )
    p, smallest, test = found.p[place], found.smallest[place], "paired bootstrap"
    gained = lost = None
    if ratios.tally is not None:
        column = int(ratios.tally[place])
        cells = slice(None) if index is None else slice(index, index + 1)
        if not pairs.uneven[cells, column].any():
            gained, lost = (int(side[cells, column].sum()) for side in pairs.discordant)
            if not pairs.before.grouped:
                (p, smallest), test = mcnemar(gained, lost), "exact McNemar"
    known = bool(np.isfinite(p))
    return Difference(
        labels=labels,
        before=before,
        after=after,
        difference=estimate,
        p=float(p) if known else None,
        p_holm=float(p) if known else None,
        test=test if known else "",
        smallest_p=min(float(smallest), 1.0) if known else None,
        gained=gained,
        lost=lost,
    )


def _corrected(rows: list[Difference]) -> list[Difference]:
    """The rows with Holm's correction within each family."""
    families: dict[_Labels, list[int]] = {}
    for place, row in enumerate(rows):
        if row.p is not None:
            families.setdefault(family_of(row.labels), []).append(place)
    for places in families.values():
        corrected = holm(np.array([rows[place].p for place in places], dtype=np.float64))
        for place, p in zip(places, corrected.tolist(), strict=True):
            rows[place] = rows[place].model_copy(update={"p_holm": p, "family": len(places)})
    return rows


def _by_labels(result: MeasureResult) -> dict[_Labels, Estimate]:
    return {_found_by(row.labels): row.estimate for row in result.rows}


def _found_by(labels: dict[str, str]) -> _Labels:
    """Labels by which a row is found in either record: there is one d_util, whichever two modalities it compares."""
    if labels.get("quantity") == "d_util":
        labels = labels | {"modality": SPREAD}
    return frozenset(labels.items())


def _check_value(
    key: str, labels: dict[str, str], ratios: Ratios, place: int, estimate: Estimate
) -> None:
    if estimate.value is None:
        return
    total = ratios.denominators[:, place if ratios.denominators.shape[1] > 1 else 0].sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        value = ratios.numerators[:, place].sum() / total
    if not abs(value - estimate.value) <= _AGREES * max(1.0, abs(value)):
        raise RecordError(
            f"{key} {labels} is {estimate.value:.6g} in a record, but its table gives {value:.6g}: the table belongs to another "
            f"audit; audit again"
        )


def _why_undefined(before: str | None, after: str | None) -> str | None:
    if before == after:
        return before if before is None else f"before and after: {before}"
    reasons = [
        f"{when}: {reason}" for when, reason in (("before", before), ("after", after)) if reason
    ]
    return "; ".join(reasons)
