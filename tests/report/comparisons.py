"""Comparisons as they are stored, made of invented numbers: for the tests of all that reads them."""

from __future__ import annotations

from datetime import UTC, datetime

from mmaudit.report.changes import make_verdict
from mmaudit.report.comparison import Audited, ComparedMeasure, Comparison, Difference
from mmaudit.report.labels import coalition_name
from mmaudit.report.schema import Estimate, Note

UNCHANGED = (0.0, 0.01)


def difference(labels, before, change, half, *, n=600, p=None, warning=None, undefined=None):
    """One number that changes by so much, plus or minus; its test follows from the interval unless given."""
    if undefined is not None:
        gone = Estimate(undefined=undefined, n=n)
        one = Estimate(value=before, n=n)
        return Difference(
            labels={**labels, "class": "all"},
            before=one,
            after=gone,
            difference=Estimate(undefined=f"after: {undefined}"),
        )
    p = p if p is not None else (0.003 if abs(change) > half else 0.4)
    estimates = [
        Estimate(value=v, low=v - 0.03, high=v + 0.03, n=n, method="Wilson over samples")
        for v in (before, before + change)
    ]
    return Difference(
        labels={**labels, "class": "all"},
        before=estimates[0],
        after=estimates[1],
        difference=Estimate(
            value=change,
            low=change - half,
            high=change + half,
            n=n,
            warning=warning,
            method="studentised paired bootstrap over samples",
        ),  # fmt: skip
        p=p,
        p_holm=p,
        family=1,
        test="paired bootstrap",
        smallest_p=0.0005,
    )


def make_comparison(
    accuracy=(0.013, 0.009),
    response=UNCHANGED,
    *,
    modalities=("audio", "image"),
    names=("digits, late fusion", "digits, late fusion, retrained with AGM"),
    samples=600,
    groups=None,
    warning=None,
    p=None,
    undefined=None,
    lineage=None,
    same=False,
    measured=True,
    notes=(),
):
    """A comparison whose accuracy and response of the first modality change so (change, half-width); the rest hardly does."""
    grand = coalition_name(modalities, modalities)
    coalitions = [
        difference(
            {"coalition": grand, "score": "accuracy"},
            0.948,
            *accuracy,
            warning=warning,
            p=p,
            undefined=undefined,
            n=samples,
        )
    ]
    responses, rates, contributions = [], [], []
    for m, name in enumerate(modalities):
        change = response if m == 0 else UNCHANGED
        labels = {"quantity": "Acc", "modality": name, "empty": "exact"}
        responses.append(difference(labels, 0.24, *change, n=samples))
        given = coalition_name([n for n in modalities if n != name], modalities)
        labels = {"quantity": "u", "modality": name, "given": given}
        rates.append(difference(labels, 0.01, *UNCHANGED, n=samples))
        labels = {"modality": name, "score": "accuracy", "quantity": "value"}
        contributions.append(difference(labels, 0.1, *UNCHANGED, n=samples))
    rows = {
        "coalitions": coalitions,
        "responses": responses,
        "contributions": contributions,
        "utilization": rates,
    }
    measures = {
        key: ComparedMeasure(key=key, title=key.capitalize(), unit="fraction", rows=tuple(found))
        for key, found in (rows if measured else {}).items()
    }
    before, after = (
        Audited(
            title=name,
            report_id=str(i),
            created=datetime(2026, 11, 21, tzinfo=UTC),
            model="invented:build",
            samples=samples,
            lineage=(lineage or {}) if i else {},
        )
        for i, name in enumerate(names)
    )
    return Comparison(
        mmaudit_version="0.1.0",
        before=before,
        after=after,
        modalities=tuple(modalities),
        classes=("no", "yes"),
        masks=dict.fromkeys(modalities, "zero"),
        samples=samples,
        groups=groups,
        settings={"seed": 0, "replicates": 2000, "resampled": "samples", "common": False},
        same_answers=same,
        measures=measures,
        verdict=make_verdict(before, after, modalities, measures, samples=samples, same=same),
        notes=tuple(Note(kind=kind, topic="data", text=text) for kind, text in notes),
    )
