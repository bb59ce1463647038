"""Pairs of audited models, as records with their tables: two models of invented skill answer the same samples."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import numpy as np

from mmaudit.measures import compute_measures
from mmaudit.report import AuditReport
from mmaudit.report.schema import DataRecord, EvidenceRecord, Record, SubjectRecord
from tests.measures.table import columns_from_logits, write_table

NAMES = (
    "audio",
    "image",
    "text",
    "depth",
    "touch",
    "pose",
    "smell",
    "map",
    "pulse",
    "gyro",
    "radar",
    "time",
)


def make_logits(skills, targets, K, *, seed=0, samples_seed=100, own=0.6, scale=1.0):
    """Class scores (2**M, n, K) of a model that adds up what it gets from each modality.

    ``skills``: how much of the target each modality tells it. Models with one ``samples_seed`` share what is hard about a sample.
    """
    M, n = len(skills), len(targets)
    shared = np.random.default_rng(samples_seed).normal(size=(M, n, K))
    rng = np.random.default_rng(seed)
    parts = np.eye(K)[targets] * np.asarray(skills)[:, None, None] + np.asarray(skills)[
        :, None, None
    ] * (np.sqrt(1 - own) * shared + np.sqrt(own) * rng.normal(size=(M, n, K)))
    bias = rng.normal(size=K) * 0.1
    logits = np.empty((2**M, n, K))
    for c in range(2**M):
        present = [m for m in range(M) if c >> m & 1]
        logits[c] = bias + scale * parts[present].sum(axis=0) + 0.05 * sum(present)
    return logits.astype(np.float32)


def make_record(
    folder,
    columns,
    modalities,
    classes,
    *,
    grouped=False,
    title="a model",
    seed=0,
    only=None,
    shards=1,
    **changes,
):
    """Write a table and the record of its audit; ``changes`` are to fields of the record."""
    write_table(folder / "coalitions", columns, shards=shards)
    results, failures = compute_measures(
        folder / "coalitions",
        modalities=tuple(modalities),
        classes=tuple(classes),
        grouped=grouped,
        seed=seed,
        replicates=200,
        only=only,
    )
    assert failures == ()
    n = len(columns["sample_id"])
    pairs = sorted(zip(columns["sample_id"], np.asarray(columns["target"]).tolist()))
    data = DataRecord(
        source="invented",
        samples=n,
        classes=tuple(classes),
        fingerprint=f"{n}-{hashlib.sha256(repr(pairs).encode()).hexdigest()[:32]}",
        groups=len(set(columns["group"])) if grouped else None,
        group_column="group" if grouped else None,
        present=dict.fromkeys(modalities, n),
        ids="given",
    )
    record = Record(
        report_id=hashlib.sha256(title.encode()).hexdigest()[:26],
        created=datetime(2026, 11, 21, tzinfo=UTC),
        mmaudit_version="0.1.0",
        modalities=tuple(modalities),
        subject=SubjectRecord(title=title, model="invented:build"),
        masks=dict.fromkeys(modalities, "zero"),
        spec={"task": "multiclass", "outputs": {"kind": "logits"}},
        data=data,
        evidence=EvidenceRecord(coalitions=2 ** len(modalities)),
        settings={"seed": seed, "precision": "float32", "replicates": 200},
        measures=results,
        tables={"coalitions": "coalitions"},
    )
    report = AuditReport(record.model_copy(update=changes), folder)
    report.save(folder, overwrite=True)
    return AuditReport.load(folder)


def make_pair(
    folder,
    skills=((1.5, 0.2), (1.4, 0.9)),
    *,
    n=300,
    K=4,
    seed=0,
    groups=None,
    present=None,
    own=0.4,
    **options,
):
    """Two records of models with these skills on the same samples, and the columns of their tables."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, K, n)
    names, classes = NAMES[: len(skills[0])], tuple(f"class {k}" for k in range(K))
    columns = [
        columns_from_logits(
            make_logits(skill, targets, K, seed=seed + 1 + i, own=own),
            targets,
            groups=groups,
            present=present,
            ids=[f"s{i}" for i in range(n)],
        )
        for i, skill in enumerate(skills)
    ]
    reports = [
        make_record(
            folder / which,
            table,
            names,
            classes,
            grouped=groups is not None,
            title=title,
            **options,
        )
        for which, table, title in zip(
            ("before", "after"),
            columns,
            ("digits, late fusion", "digits, late fusion, retrained with AGM"),
        )
    ]
    return reports[0], reports[1], columns
