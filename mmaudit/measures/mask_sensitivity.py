"""Whether what an audit says hangs on how modalities are hidden: the main estimates under both masks, side by side."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmaudit.measures.base import NOT_HERE, EvidenceMeasure
from mmaudit.measures.contribution import Contribution, rare_errors, score_intervals
from mmaudit.measures.evidence import Evidence
from mmaudit.measures.intervals import mean_intervals
from mmaudit.measures.resampling import UnitSums
from mmaudit.measures.utilization import ConditionalUtilizationRate
from mmaudit.report.labels import others
from mmaudit.report.schema import Estimate, LabelledEstimate
from mmaudit.report.tables import read_chunks

__all__ = ["MaskSensitivity"]

SECOND, DISTANCE = "second", "mask_distance"


class MaskSensitivity(EvidenceMeasure):
    """Contribution, drop and utilization of each modality under both masks, and how far masked inputs are from the data.

    The second mask is evaluated on some of the samples (all where there are few), so that its intervals are wider. The distance
    is that of masked inputs from the nearest sample, as a multiple of the same distance of real ones: about 1 where
    masking stays within the data.
    """

    key = "mask_sensitivity"
    title = "The main estimates under both masks"
    unit = "fraction of samples (contribution, drop), fraction of the score (utilization), 1 (distance)"
    direction = "balanced"
    reads = (SECOND, DISTANCE)
    reference = (
        "Janzing et al. 2020 on how a feature is removed; Sturmfels et al. 2020 on baselines"
    )

    def rows_of(self, evidence: Evidence) -> Iterator[LabelledEstimate]:
        """Labels: ``modality``, ``quantity`` (``contribution``, ``drop``, ``utilization``, ``distance``), ``mask``."""
        tables = {"first": None, **({"second": SECOND} if evidence.table(SECOND) else {})}
        for mask, table in tables.items():
            sums = evidence.sums_of(table)
            for (modality, quantity), estimate in _main(sums).items():
                labels = {"modality": modality, "quantity": quantity, "mask": mask}
                yield LabelledEstimate(labels=labels, estimate=estimate)
        yield from _distances(evidence, list(tables))


def _main(sums: UnitSums) -> dict[tuple[str, str], Estimate]:
    """Estimates of all samples in the primary score: (modality, quantity) -> estimate."""
    names = sums.modalities
    found = {}
    contributions = [row for row in Contribution().rows(sums) if row.labels["class"] == "all"]
    primary = contributions[0].labels["score"]
    for row in contributions:
        if row.labels["score"] == primary and row.labels["quantity"] == "value":
            found[row.labels["modality"], "contribution"] = row.estimate
    drops = _drops(sums)
    for name in names:
        found[name, "drop"] = drops[name]
    if len(names) > 1:
        for row in ConditionalUtilizationRate().rows(sums):
            modality = row.labels["modality"]
            if (
                row.labels["quantity"] == "u"
                and row.labels["class"] == "all"
                and row.labels["given"] == others(modality, names)
            ):
                found[modality, "utilization"] = row.estimate
    return found


def _drops(sums: UnitSums) -> dict[str, Estimate]:
    """Score with everything present less the score without a modality."""
    M, score = len(sums.modalities), sums.scores[0]
    counts, worths = sums.counts(None), sums.worths(score, None)
    n, groups = int(counts.sum()), sums.group_count(None, counts)
    nothing = sums.nothing(score, None)
    if nothing is not None:
        return dict.fromkeys(sums.modalities, Estimate(undefined=nothing))
    without = [2**M - 1 - (1 << m) for m in range(M)]
    reach = np.where(sums.silent(None), 0.0, 1.0)
    lost = worths[:, [2**M - 1]] - worths[:, without]
    intervals = score_intervals(
        score, lost, sums.weight(score, None), sums.weights, reach=reach, units=counts
    )
    rare = rare_errors(sums, None, n) if score == "accuracy" else None
    absent = sums.absent(None)
    return {
        name: Estimate(undefined=NOT_HERE)
        if absent[m]
        else intervals.estimate(m, n=n, groups=groups, warning=rare)
        for m, name in enumerate(sums.modalities)
    }


def _distances(evidence: Evidence, masks: list[str]) -> Iterator[LabelledEstimate]:
    folder = evidence.table(DISTANCE)
    if folder is None:
        return
    chunks = list(read_chunks(folder))
    tables = {key: np.concatenate([chunk[key] for chunk in chunks]) for key in ("real", *masks)}
    keys = np.concatenate([chunk["group" if evidence.grouped else "sample_id"] for chunk in chunks])
    units, unit = np.unique(keys.astype(str), return_inverse=True)
    for m, modality in enumerate(evidence.modalities):
        for mask in masks:
            real, masked = tables["real"][:, m], tables[mask][:, m]
            usable = np.isfinite(real) & np.isfinite(masked)
            n = int(usable.sum())
            if not n or real[usable].sum() == 0:
                estimate = Estimate(
                    undefined="real samples are not apart from each other where distances are taken"
                    if n
                    else "no sample of one shape to take distances between"
                )
            else:
                sums = np.zeros((len(units), 3))
                values = np.stack([masked, real, np.ones(len(real))], 1)
                np.add.at(sums, unit[usable], values[usable])
                found = mean_intervals(sums[:, :1], sums[:, 1:2], units=sums[:, 2:])
                count = len(np.unique(unit[usable])) if evidence.grouped else None
                estimate = found.estimate(0, n=n, groups=count)
            labels = {"modality": modality, "quantity": "distance", "mask": mask}
            yield LabelledEstimate(labels=labels, estimate=estimate)
