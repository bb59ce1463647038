"""Records made up for the findings: numbers of each modality, everything else filled in."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

from mmaudit.report.schema import (
    DataRecord,
    Estimate,
    EvidenceRecord,
    LabelledEstimate,
    MeasureResult,
    Record,
    StructureRecord,
    SubjectRecord,
)

HALF = 0.01


def estimate(value, half=HALF, n=2000, groups=None):
    """A value, or (value, half-width), as an estimate; a string is why it is undefined."""
    if isinstance(value, str):
        return Estimate(undefined=value)
    if isinstance(value, tuple):
        value, half = value
    return Estimate(
        value=value, low=value - half, high=value + half, n=n, groups=groups, method="made up"
    )


def record(
    modalities,
    whole=0.9,
    *,
    n=2000,
    groups=None,
    task="multiclass",
    counts=(1000, 1000),
    thresholds=None,
    interactions=None,
    shares=None,
    masks="zero",
    second="marginal (256 donors)",
    encoders=True,
    spec=None,
):
    """A record.

    ``modalities``: name -> mapping with any of ``contribution``, ``drop`` (value, or one for each mask), ``inside``, ``alone``,
    ``above``, ``gap`` (one for each mask), ``advantage``, ``without``, ``probe``, ``probe_above``, ``gain``, ``silent``,
    ``absent``.
    """
    names = tuple(modalities)
    score = "R2" if task == "regression" else "accuracy"
    rows: dict[str, list[LabelledEstimate]] = {}

    def add(measure, value, **labels):
        labels = {("class" if k == "class_" else k): v for k, v in labels.items()}
        made = estimate(value, n=n, groups=groups)
        rows.setdefault(measure, []).append(LabelledEstimate(labels=labels, estimate=made))

    full = "+".join(names)
    add("coalitions", whole, coalition=full, score=score, class_="all")
    for name, given in modalities.items():
        if name != full and "inside" in given:
            add("coalitions", given["inside"], coalition=name, score=score, class_="all")
        for quantity in ("contribution", "drop"):
            values = given.get(quantity)
            if values is None:
                continue
            values = values if isinstance(values, list) else [values] * (2 if second else 1)
            for mask, value in zip(("first", "second"), values, strict=False):
                add("mask_sensitivity", value, modality=name, quantity=quantity, mask=mask)
        if "silent" in given:
            nothing = "no response: numerically nothing"
            add("responses", nothing, quantity="Acc", modality=name, empty="exact", class_="all")
        keys = {"alone": "alone", "above": "above chance", "advantage": "joint advantage"}
        for key, quantity in (keys | {"without": "drop without"}).items():
            if key in given:
                add("capacity_gap", given[key], modality=name, quantity=quantity, mask="none")
        for mask, value in zip(("first", "second"), given.get("gap", ()), strict=False):
            add("capacity_gap", value, modality=name, quantity="gap", mask=mask)
        for key, quantity in {
            "probe": score,
            "probe_above": "above chance",
            "gain": "gain",
        }.items():
            if key in given:
                add("information", given[key], modality=name, quantity=quantity, features="best")
    for name, value in (shares or {}).items():
        add("contributions", value, modality=name, score=score, quantity="share", class_="all")
    for first, other in itertools.combinations(names, 2):
        value = (interactions or {}).get((first, other))
        if value is not None:
            add("interactions", value, first=first, second=other, score=score, class_="all")
    structure = StructureRecord(encoders={name: (f"{name}_net",) for name in names if encoders})
    return Record(
        report_id="0",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        mmaudit_version="0",
        modalities=names,
        subject=SubjectRecord(title="made up", model="net", structure=structure),
        masks=dict.fromkeys(names, masks),
        second_masks=dict.fromkeys(names, second) if second else {},
        spec={"task": task, "thresholds": thresholds or {}, "data": {"test": "x"}, **(spec or {})},
        data=DataRecord(
            source="x",
            samples=n,
            classes=tuple(str(k) for k in range(len(counts))),
            class_counts=tuple(counts),
            groups=groups,
            present={name: 0 if given.get("absent") else n for name, given in modalities.items()},
        ),
        evidence=EvidenceRecord(coalitions=2 ** len(names)),
        measures={
            key: MeasureResult(key=key, title=key, unit="1", rows=tuple(found))
            for key, found in rows.items()
        },
    )


USED = {
    "contribution": 0.2,
    "drop": 0.2,
    "inside": 0.7,
    "alone": 0.7,
    "above": 0.2,
    "gap": [0.0, 0.05],
    "advantage": 0.2,
    "without": 0.2,
}
UNREAD = {"contribution": (0.0, 0.002), "drop": (0.0, 0.002), "inside": 0.5}
INFORMED = {
    "alone": 0.8,
    "above": 0.3,
    "gap": [0.3, 0.3],
    "advantage": 0.1,
    "without": (0.0, 0.005),
}
CHANCE = {"alone": 0.5, "above": (0.0, 0.015), "gap": [0.0, 0.0], "advantage": 0.4, "without": 0.0}


def verdicts(found):
    """Modality -> verdict."""
    return {f.modality: f.verdict for f in found if f.verdict is not None}


def rules(found):
    """Names of the rules that fired about the whole model."""
    return [f.rule for f in found if f.verdict is None]


def verdict(found, name):
    """The finding with a modality's verdict."""
    return next(f for f in found if f.modality == name and f.verdict is not None)
