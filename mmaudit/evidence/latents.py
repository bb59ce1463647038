"""What the joint model's latent keeps of each modality: a linear probe from the latent to the modality's concept.

The probe is fitted in one pass over the training data, or over one half of the audited samples where there is none, and asked
about audited samples that it was not fitted on. Nothing of the data is kept but sums, and of the evaluated samples (at most 50,000,
spread over the data) concept and prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmaudit.evidence.concepts import Concept, open_concepts
from mmaudit.evidence.data import Source
from mmaudit.evidence.extra_table import is_written, write_table
from mmaudit.evidence.latent_rows import LatentReader, LatentRows, NoLatentError
from mmaudit.evidence.ridge import RidgeFit, StreamingRidge
from mmaudit.evidence.strength import strength_terms
from mmaudit.evidence.surroundings import Surroundings
from mmaudit.exceptions import MMAuditError, UndefinedMeasureError
from mmaudit.masking.base import stable_hash
from mmaudit.report.schema import Note
from mmaudit.typing import FloatArray, IntArray

__all__ = ["COMPETITION", "COMPETITION_PROBES", "OFFICIAL", "collect_competition"]

COMPETITION = "competition"
"""Name of the table."""

COMPETITION_PROBES = "competition_probes"
"""Name of the table of how each probe came about."""

OFFICIAL = 120.0
"""Penalty of the released code of Li et al. (2023), for about 745 samples that are not standardised."""

_FOLDS = 5
_MOST_SAMPLES = 50_000
_MOST_NUMBERS = 2**25
"""Concepts and predictions that are kept, float64: 256 MB."""
_MOST_SUMS = 2**28
"""Numbers that sums may take, float64: 2 GB."""


def collect_competition(surroundings: Surroundings) -> tuple[Note, ...]:
    """Write how well concepts are predicted from the latent, sample by sample.

    Columns of ``competition``, a row for each evaluated sample (or segment): ``sample_id``, ``group`` (its group, else the sample);
    ``scatter`` (M numbers) and ``error``, ``whitened``, ``weight``, ``bias`` (M times the number of penalties, penalties of a modality side by
    side), as :func:`~mmaudit.evidence.strength.strength_terms` gives them; NaN where a sample lacks the modality or there is no
    concept of it.

    Columns of ``competition_probes``, a row for each modality and penalty: ``modality``, ``penalty`` (``cross-validated``, or a
    number), ``reason`` (why there is no strength), ``value`` (lambda), ``fitted_on``, ``n`` (samples it was fitted on), ``rank``,
    ``width`` (of the latent), ``outputs`` (of the concept).
    """
    folder = surroundings.work / COMPETITION
    if is_written(folder):
        return ()
    concepts = open_concepts(surroundings)
    if not concepts:
        return ()
    probing = _Probing(surroundings, concepts)
    notes: list[Note] = []
    rows = _Rows()
    try:
        reader = LatentReader(surroundings, concepts)
        notes = _fitted(probing, reader)
        rows = _evaluated(probing, reader)
    except NoLatentError as error:
        probing.reasons |= dict.fromkeys(concepts, str(error))
    names, penalties = surroundings.spec.names, probing.penalties
    n, M, P = len(rows.ids), len(names), len(penalties)
    scatter = np.full((n, M), np.nan)
    table = {name: np.full((n, M * P), np.nan) for name in _TERMS}
    probes: dict[str, list[Any]] = {key: [] for key in _PROBE_COLUMNS}
    for m, name in enumerate(names):
        found = rows.values.get(name)
        for p, penalty in enumerate(penalties):
            fit = probing.fits.get(name, {}).get(penalty)
            reason, rank = probing.reasons.get(name), 0
            if name not in concepts:
                reason = "there is no reference model of it: 'mmaudit unimodal' trains one"
            elif reason is None and found is None:
                reason = "no evaluated sample has it"
            elif reason is None and found is not None:
                try:
                    units = np.unique(np.array(rows.owners)[found.rows], return_inverse=True)[1]
                    terms = strength_terms(found.concept, found.predicted[penalty], units)
                except UndefinedMeasureError as error:
                    reason = str(error)
                else:
                    rank = terms.rank
                    scatter[found.rows, m] = terms.scatter
                    for key in table:
                        table[key][found.rows, m * P + p] = getattr(terms, key)
            q = 0 if fit is None else fit.weights.shape[1]
            values = (
                name, penalty, reason, 0.0 if fit is None else fit.penalty, probing.fitted_on,
                0 if fit is None else fit.n, rank, 0 if fit is None else len(fit.weights), q,
            )  # fmt: skip
            for key, value in zip(_PROBE_COLUMNS, values, strict=True):
                probes[key].append(value)
    write_table(surroundings.work / COMPETITION_PROBES, probes)
    write_table(folder, {"sample_id": rows.ids, "group": rows.owners, "scatter": scatter, **table})
    return tuple(notes)


_TERMS = ("error", "whitened", "weight", "bias")
_PROBE_COLUMNS = (
    "modality", "penalty", "reason", "value", "fitted_on", "n", "rank", "width", "outputs",
)  # fmt: skip


class _Found(NamedTuple):
    """Of the evaluated rows that have a modality."""

    rows: IntArray
    concept: FloatArray
    predicted: dict[str, FloatArray]


@dataclass
class _Rows:
    """What was evaluated."""

    ids: list[str] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    values: dict[str, _Found] = field(default_factory=dict)


class _Probing:
    """One audit's probes."""

    def __init__(self, surroundings: Surroundings, concepts: dict[str, Concept]) -> None:
        self.surroundings, self.concepts = surroundings, concepts
        self.seed: int = surroundings.settings["seed"]
        asked = surroundings.spec.probe.penalty
        first = asked if isinstance(asked, str) else f"{asked:g}"
        self.penalties = tuple(dict.fromkeys([first, f"{OFFICIAL:g}"]))
        self.halves = surroundings.train is None or any(c.stored for c in concepts.values())
        self.fits: dict[str, dict[str, RidgeFit]] = {}
        self.reasons: dict[str, str] = {}

    @property
    def fitted_on(self) -> str:
        """Which samples."""
        return "one half of the audited samples" if self.halves else "training data"

    def half(self, owner: str) -> bool:
        """Whether a sample belongs to the half that is learnt from."""
        return stable_hash(self.seed, "half", owner) % 2 == 0


def _fitted(probing: _Probing, reader: LatentReader) -> list[Note]:
    """Fit all probes in one pass."""
    surroundings, notes = probing.surroundings, []
    if not probing.halves:
        assert surroundings.train is not None
        try:
            _fit(probing, reader, surroundings.train, lambda _: True)
        except NoLatentError:
            raise
        except MMAuditError as error:
            probing.halves = True
            probing.reasons.clear()
            text = f"competition probes were fitted on audited samples, because the training data could not be used: {error}"
            notes.append(Note(kind="fallback", topic="evidence", text=text))
    if probing.halves:
        _fit(probing, reader, surroundings.source, probing.half)
        if not notes:
            text = "competition probes were fitted on one half of the audited samples and evaluated on the other."
            notes.append(Note(kind="information", topic="evidence", text=text))
    return notes


def _fit(
    probing: _Probing, reader: LatentReader, source: Source, wanted: Callable[[str], bool]
) -> None:
    ridges = _Ridges()
    for seen in reader.read(source, wanted, _MOST_SAMPLES):
        folds = np.array(
            [stable_hash(probing.seed, "fold", owner) % _FOLDS for owner in seen.owners]
        )
        for name, reason in ridges.add(seen, folds).items():
            probing.reasons.setdefault(name, reason)
    for name in probing.concepts:
        if name in probing.reasons:
            continue
        ridge = ridges.of(name)
        if ridge is None:
            probing.reasons[name] = f"no sample to fit its probe on ({probing.fitted_on}) has it"
            continue
        try:
            probing.fits[name] = {
                penalty: ridge.fit(
                    "cross-validated" if penalty == "cross-validated" else float(penalty)
                )
                for penalty in probing.penalties
            }
        except ValueError as error:
            probing.reasons[name] = f"its probe cannot be fitted: {error}"


class _Ridges:
    """One set of sums for all modalities, as long as all samples have all of them; then one for each."""

    def __init__(self) -> None:
        self._columns: dict[str, slice] = {}
        self._shared: StreamingRidge | None = None
        self._own: dict[str, StreamingRidge] = {}

    def add(self, seen: LatentRows, folds: IntArray) -> dict[str, str]:
        """Take a batch; returns reasons why a modality cannot be taken."""
        if not self._columns:
            start = 0
            for name, concept in seen.concepts.items():
                self._columns[name] = slice(start, start + concept.shape[1])
                start += concept.shape[1]
            d = seen.latent.shape[1]
            if _FOLDS * d * (d + start) > _MOST_SUMS:
                return dict.fromkeys(
                    seen.concepts, f"the latent has {d:,} features, too many to probe"
                )
        changed = {
            name: "its concept does not have the same number of outputs in every batch"
            for name, c in seen.concepts.items()
            if c.shape[1] != self._columns[name].stop - self._columns[name].start
        }
        if changed:
            return changed
        same = len({tuple(has.tolist()) for has in seen.has.values()}) == 1
        if not self._own and same and list(seen.concepts) == list(self._columns):
            self._shared = self._shared or StreamingRidge(folds=_FOLDS)
            has = next(iter(seen.has.values()))
            together = torch.cat(list(seen.concepts.values()), 1)
            self._shared.add(*_rows_of(seen.latent, together, has), folds[has.numpy()])
            return {}
        for name, has in seen.has.items():
            if name not in self._own:
                columns = self._columns[name]
                self._own[name] = (
                    StreamingRidge(folds=_FOLDS)
                    if self._shared is None
                    else self._shared.of_outputs(columns)
                )
            self._own[name].add(
                *_rows_of(seen.latent, seen.concepts[name], has), folds[has.numpy()]
            )
        return {}

    def of(self, name: str) -> StreamingRidge | None:
        """The sums of a modality, ``None`` where it has no sample."""
        ridge = self._own.get(name)
        if ridge is None and self._shared is not None and name in self._columns:
            ridge = self._shared.of_outputs(self._columns[name])
        return ridge if ridge is not None and ridge.n else None


def _rows_of(latent: Tensor, concept: Tensor, has: Tensor) -> tuple[Tensor, Tensor]:
    if bool(has.all()):
        return latent, concept.to(latent.device)
    return latent[has.to(latent.device)], concept[has].to(latent.device)


def _evaluated(probing: _Probing, reader: LatentReader) -> _Rows:
    """Concepts of evaluated samples and their predictions."""
    rows = _Rows()
    fits = {name: fit for name, fit in probing.fits.items() if name not in probing.reasons}
    if not fits:
        return rows
    outputs = sum(next(iter(fit.values())).weights.shape[1] for fit in fits.values())
    most = min(_MOST_SAMPLES, _MOST_NUMBERS // (outputs * (1 + len(probing.penalties))))
    places: dict[str, list[IntArray]] = {name: [] for name in fits}
    concept: dict[str, list[FloatArray]] = {name: [] for name in fits}
    predicted: dict[str, dict[str, list[FloatArray]]] = {
        name: {penalty: [] for penalty in fit} for name, fit in fits.items()
    }
    wanted = (lambda owner: not probing.half(owner)) if probing.halves else (lambda _: True)
    for seen in reader.read(probing.surroundings.source, wanted, most):
        for name, fit in fits.items():
            has = seen.has[name]
            latent, here = _rows_of(seen.latent, seen.concepts[name], has)
            places[name].append(len(rows.ids) + np.flatnonzero(has.numpy()))
            concept[name].append(here.cpu().numpy())
            for penalty, found in fit.items():
                predicted[name][penalty].append(found.predict(latent).cpu().numpy())
        rows.ids += seen.ids
        rows.owners += seen.owners
    for name in fits:
        if sum(map(len, places[name])):
            rows.values[name] = _Found(
                np.concatenate(places[name]),
                np.concatenate(concept[name]),
                {penalty: np.concatenate(found) for penalty, found in predicted[name].items()},
            )
    return rows
