"""What the branches of a model answer while they exchange information, and what each answers when it is cut off from the others.

Wu et al. 2022 (arXiv:2202.05306): over the training data the squeeze of every argument of every cross-modal module is averaged;
over the audited data each branch answers once as it is, and once with everything that it is told by the others held at those
means, in all modules at once. The averages are taken with fusion on. With more than two modalities each of them is held alone, too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmaudit.evidence.branched_model import BranchedModel, Run, as_it_is
from mmaudit.evidence.collecting import Collector
from mmaudit.evidence.cut_checks import check_cuts
from mmaudit.evidence.cutting import Squeezes
from mmaudit.evidence.data import Source
from mmaudit.evidence.extra_table import is_written
from mmaudit.evidence.streamed_table import written_table
from mmaudit.evidence.surroundings import Surroundings
from mmaudit.exceptions import ModelError, SpecError
from mmaudit.masking.batches import Batch
from mmaudit.masking.spec import BranchesSpec, MaskingSpec
from mmaudit.report.schema import Note

__all__ = ["BRANCHES", "collect_branches"]

BRANCHES = "branches"
"""Name of the table."""

_MOST_LOOKED_AT = 16


def collect_branches(surroundings: Surroundings) -> tuple[Note, ...]:
    """Write, for every row of the audited data, how each branch answers uncut and cut; nothing without ``branches`` in the spec.

    Columns: ``sample_id``, ``position``, ``group``, ``target``, ``present`` as in the coalition table; ``branches`` and ``telling``
    (int32, bit m set where modality m has a branch; where cross-modal modules get its features), the same in every row; for
    ``correct`` (0 or 1) and ``loglik`` (nats) ``*_uncut`` and ``*_cut`` (M numbers, by branch; cut off from all others) and, beyond
    two modalities, ``*_pair`` (M * M numbers: branch ``i``, cut off from ``j`` alone, at ``i * M + j``). What there is not is 0.

    Returns:
        Notes: squeezes averaged over audited data, modules that use more than a squeeze, branches that are told something past
        the named modules.

    Raises:
        SpecError: If the spec names modalities, modules or arguments that are not there.
        ModelError: If the model does not return the branches' scores, or calls modules in another way for other batches.
    """
    spec, folder = surroundings.spec, surroundings.work / BRANCHES
    if spec.branches is None:
        return ()
    if is_written(folder):
        return ()
    if spec.task == "regression":
        text = "Branches were not cut: utilization by cutting branches is a share of accuracy, which a regression has not."
        return (Note(kind="warning", topic="evidence", text=text),)
    _check(spec, spec.branches)
    model = BranchedModel(surroundings.collector, spec.branches)
    shown = _example(surroundings.source, model.telling)
    notes = check_cuts(model, surroundings.collector.prepare(shown))
    squeezes = _averaged(model, surroundings, notes)
    with written_table(folder) as table:
        left_out = total = 0
        for batch in surroundings.source.batches():
            rows, unusable = _rows(model, surroundings.collector, batch, squeezes)
            left_out, total = left_out + unusable, total + batch.n
            table(rows)
            _tell(surroundings, "Branches", total, surroundings.source)
        if left_out:
            text = f"{left_out} of {total} samples were left out of the branches' utilization: a branch's scores are not finite."
            notes.append(Note(kind="warning", topic="evidence", text=text))
    return tuple(notes)


def _check(spec: MaskingSpec, branches: BranchesSpec) -> None:
    """Refuse what cannot be meant.

    Raises:
        SpecError: With what is there.
    """
    named = [("outputs", name) for name in branches.outputs]
    named += [(f"modules.{m}", name) for m, places in branches.modules.items() for name in places]
    for where, name in named:
        if name not in spec.names:
            near = difflib.get_close_matches(name, spec.names, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise SpecError(
                f"branches.{where}: '{name}' is no modality; there are {', '.join(spec.names)}{hint}"
            )
    if not branches.outputs or not branches.modules:
        raise SpecError(
            "branches: expected at least one branch under 'outputs' and one cross-modal module under 'modules'."
        )
    for module, places in branches.modules.items():
        if len(places) < 2:
            raise SpecError(
                f"branches.modules.{module}: a cross-modal module has arguments of at least two modalities, found {len(places)}."
            )
        if len(set(places.values())) < len(places):
            raise SpecError(
                f"branches.modules.{module}: two modalities have the same argument; expected a position or keyword for each."
            )


def _example(source: Source, modalities: Iterable[str]) -> Batch:
    """The first of some batches in which samples have all modalities, or the very first."""
    for batch in islice(source.batches(), _MOST_LOOKED_AT):
        if all(batch.present[name].sum() > 1 for name in modalities):
            return batch
    return source.first()


def _averaged(model: BranchedModel, surroundings: Surroundings, notes: list[Note]) -> Squeezes:
    """Means of the squeezes over the training data, or over the audited data where there is no other."""
    source = surroundings.train
    if source is None:
        source = surroundings.source
        text = "There is no training data: branches are cut by holding squeezes at their means over the audited data."
        notes.append(Note(kind="fallback", topic="evidence", text=text))
    squeezes, read = Squeezes(), 0
    for batch in source.batches():
        prepared = surroundings.collector.prepare(batch)
        model.outputs(prepared, model.recording(squeezes, batch.n, batch.present))
        read += batch.n
        _tell(surroundings, "Squeezes", read, source)
    if squeezes.left_out:
        text = f"{squeezes.left_out} squeezes were left out of the training means: they are not finite."
        notes.append(Note(kind="warning", topic="evidence", text=text))
    return squeezes


def _rows(
    model: BranchedModel, collector: Collector, batch: Batch, squeezes: Squeezes
) -> tuple[dict[str, Any], int]:
    """Rows of the table for one batch, and how many samples are left out of them."""
    names = collector.evaluator.spec.names
    prepared = collector.prepare(batch)
    runs = model.runs()
    answers: dict[tuple[str, ...], dict[str, Tensor]] = {}
    for run in runs:
        if run.held not in answers:
            visit = model.holding(run.held, squeezes, batch.n) if run.held else as_it_is
            answers[run.held] = model.outputs(prepared, visit)
    value = collector.value
    scores = torch.stack([value.scores(answers[run.held][run.branch]) for run in runs])
    if scores.shape[1] != batch.n:
        raise ModelError(f"a branch gives {scores.shape[1]} rows for {batch.n} samples.")
    finite = torch.isfinite(scores).flatten(2).all(-1).all(0).numpy()
    rows = value.rows(batch)
    rows = rows.where(finite[rows.sample])
    found = value.judged(scores, rows)
    present = np.zeros(len(rows), np.int32)
    for m, name in enumerate(names):
        present |= batch.present[name][rows.sample].astype(np.int32) << m
    columns = {
        "sample_id": rows.ids,
        "position": batch.start + rows.sample,
        "group": list(rows.groups),
        "target": rows.target,
        "present": present,
        "branches": np.full(len(rows), _bits(names, model.spec.outputs), np.int32),
        "telling": np.full(len(rows), _bits(names, model.telling), np.int32),
    }
    for score in ("correct", "loglik"):
        columns |= _by_branch(score, found[score], runs, names)
    return columns, int((~finite).sum())


def _by_branch(
    score: str, found: np.ndarray, runs: list[Run], names: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Columns of one score, from its values ``(r, runs)``."""
    M = len(names)
    columns = {
        f"{score}_{cut}": np.zeros((len(found), width), np.float32)
        for cut, width in {"uncut": M, "cut": M, **({"pair": M * M} if M > 2 else {})}.items()
    }
    for at, run in enumerate(runs):
        i = names.index(run.branch)
        if not run.held:
            columns[f"{score}_uncut"][:, i] = found[:, at]
        elif run.from_all:
            columns[f"{score}_cut"][:, i] = found[:, at]
        else:
            columns[f"{score}_pair"][:, i * M + names.index(run.held[0])] = found[:, at]
    return columns


def _bits(names: tuple[str, ...], chosen: Iterable[str]) -> int:
    return sum(1 << names.index(name) for name in chosen)


def _tell(surroundings: Surroundings, stage: str, done: int, source: Source) -> None:
    if surroundings.collector.progress is not None:
        surroundings.collector.progress(stage, done, source.samples)
