"""Whether each modality could say anything about the target: probes of its inputs and of what the model's encoders make of them.

A modality that the model does not use may say nothing, or something that the model never learnt to read. Where there is no model
of the modality alone, a probe tells the two apart: small learners that are fitted to samples and asked about others. Samples that lack
the modality are left out.

Probes of the inputs are fitted on training data where there is any, else on audited samples that do not belong to those they are asked
about. Probes of encoders are always fitted on audited samples: an encoder may know its training samples by heart, and a probe fitted
on those would believe it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmaudit.evidence.extra_table import is_written, write_table
from mmaudit.evidence.features import ShapesDifferError
from mmaudit.evidence.gathering import KINDS, Gathered, Gatherer
from mmaudit.evidence.probing import FEWEST, Split, deal, probe, probe_elsewhere
from mmaudit.evidence.questions import Judged, ask
from mmaudit.evidence.surroundings import Surroundings
from mmaudit.exceptions import MMAuditError
from mmaudit.report.schema import Note
from mmaudit.typing import IntArray

__all__ = ["BEST", "INFORMATION", "PROBES", "collect_information"]

INFORMATION = "information"
"""Name of the table."""

PROBES = "information_probes"
"""Name of the table of how each probe came about."""

BEST = "best"
"""The better of the probes, as it shows on other samples than those it is taken for."""

_MOST_SAMPLES = 4000
_MOST_PARTS = 20
_WIDTH, _LEAST_WIDTH, _ALL_WIDTHS = 384, 64, 2048
_ENOUGH_TRAINING = 0.8
"""Training data is used where there is at least so much of it, in audited samples."""


@dataclass
class _Answer:
    """What one probe found out."""

    judged: Judged | None = None
    reason: str | None = None
    learnt_from: str = ""
    said: str = ""
    n: int = 0


def collect_information(surroundings: Surroundings) -> tuple[Note, ...]:
    """Write what probes answered, and how they came about.

    Columns of ``information``, a row for each sample (segment, label, number) that has the modality, modality and kind of
    features: ``sample_id``, ``group`` (its group, else the sample), ``modality``, ``features`` (``inputs``, ``encoder``, ``best``),
    ``score`` (1 where right; for numbers the negative squared error), ``constant`` (the same of the best constant answer), ``luck``
    (by how much that is too high on average, 0 where the probe answers the same), ``gain`` (log-likelihood above that of the class
    frequencies, nats; for numbers the squared error that is saved), ``missed`` (gain that may be there although the probe found none)
    and ``entropy`` (negative log-likelihood of the class frequencies; squared error of the mean). Numbers are in units of their
    spread.

    Columns of ``information_probes``, one row for each modality and kind: ``modality``, ``features``, ``reason`` (why there is
    no answer), ``learnt_from``, ``said`` (how features were made), ``n`` (samples to learn from).
    """
    folder = surroundings.work / INFORMATION
    if is_written(folder):
        return ()
    spec = surroundings.spec
    width = min(_WIDTH, max(_LEAST_WIDTH, _ALL_WIDTHS // len(spec.names)))
    gatherer = Gatherer(surroundings, most=_MOST_SAMPLES, width=width)
    audited, train, notes = _gathered(surroundings, gatherer)
    audited, train, cut = _fewer_parts(audited, train)
    notes += cut
    rows: dict[str, list[np.ndarray]] = {}
    probes: dict[str, list[object]] = {
        name: [] for name in ("modality", "features", "reason", "learnt_from", "said", "n")
    }
    for modality in spec.names:
        answers = _answers(surroundings, gatherer, audited, train, modality)
        for kind, answer in answers.items():
            said = (modality, kind, answer.reason, answer.learnt_from, answer.said, answer.n)
            for name, value in zip(probes, said, strict=True):
                probes[name].append(value)
            if answer.judged is not None:
                _append(rows, audited, modality, kind, answer.judged)
    write_table(surroundings.work / PROBES, probes)
    joined = {
        name: np.concatenate([*rows.get(name, []), np.empty(0)]) for name in (*_TEXTS, *_NUMBERS)
    }
    write_table(folder, {n: v.tolist() if n in _TEXTS else v for n, v in joined.items()})
    return tuple(notes)


_TEXTS = ("sample_id", "group", "modality", "features")
_NUMBERS = ("score", "constant", "luck", "gain", "missed", "entropy")


def _gathered(
    surroundings: Surroundings, gatherer: Gatherer
) -> tuple[Gathered, Gathered | None, list[Note]]:
    """Audited and training samples, with features that were made alike."""
    notes: list[Note] = []
    while True:
        notes.clear()
        try:
            audited = gatherer.gather(surroundings.source, encoders=True)
            train = None
            if surroundings.train is not None:
                try:
                    train = gatherer.gather(surroundings.train, encoders=False)
                except MMAuditError as error:
                    text = f"probes were fitted on audited samples, because the training data could not be read: {error}"
                    notes.append(Note(kind="fallback", topic="evidence", text=text))
        except ShapesDifferError:
            continue  # which dimensions differ is known now
        break
    if not audited.whole:
        what = "segments" if surroundings.spec.task == "segments" else "samples"
        total = surroundings.source.samples
        over = f", spread over {total:,} samples" if total else ", spread over the data"
        text = f"what modalities could say was probed on {len(audited.ids):,} {what}{over}."
        notes.append(Note(kind="information", topic="evidence", text=text))
    return audited, train, notes


def _fewer_parts(
    audited: Gathered, train: Gathered | None
) -> tuple[Gathered, Gathered | None, list[Note]]:
    """At most twenty labels or numbers: the labels that vary most."""
    if audited.truth.ndim < 2 or audited.truth.shape[1] <= _MOST_PARTS:
        return audited, train, []
    parts = audited.truth.shape[1]
    if audited.truth.dtype.kind == "f":
        kept = np.arange(_MOST_PARTS)
    else:
        rarer = np.minimum((audited.truth == 1).sum(0), (audited.truth == 0).sum(0))
        kept = np.sort(np.argsort(-rarer, kind="stable")[:_MOST_PARTS])
    for split in (audited, train):
        if split is not None and split.truth.ndim == 2:
            split.truth = split.truth[:, kept]
    text = f"probes were asked about {_MOST_PARTS} of the {parts} parts of the target (from 0): {', '.join(map(str, kept))}."
    return audited, train, [Note(kind="information", topic="evidence", text=text)]


def _answers(
    surroundings: Surroundings,
    gatherer: Gatherer,
    audited: Gathered,
    train: Gathered | None,
    modality: str,
) -> dict[str, _Answer]:
    """What each kind of features of a modality says."""
    task, seed = surroundings.spec.task, surroundings.settings["seed"]
    has = audited.has.get(modality, np.zeros(0, dtype=bool))
    n = int(has.sum())
    reason = None
    if n < FEWEST:
        reason = f"{n} of the samples looked at have it: a probe needs {FEWEST}"
    elif not _varies(audited.truth[has]):
        reason = "the target does not vary: there is nothing to say about it"
    folds, units = deal([o for o, here in zip(audited.owners, has, strict=True) if here], seed)
    if reason is None and len(np.unique(folds)) < 2:
        reason = "all samples belong to one group: none is left to ask a probe about"
    if reason is not None:
        return {kind: _Answer(reason=reason) for kind in (*KINDS, BEST)}
    classes = _classes(surroundings, audited, train)
    question = ask(task, audited.truth[has], classes)
    answers: dict[str, _Answer] = {}
    for kind in KINDS:
        key = (kind, modality)
        if key in gatherer.reasons or key not in audited.features:
            answers[kind] = _Answer(reason=gatherer.reasons.get(key, "there are no values of it"))
            continue
        features = audited.features[key][has]
        elsewhere = _training(train, key, n) if kind == "inputs" else None
        said = gatherer.words(kind, modality)
        if elsewhere is None:
            judged = probe(Split(features, question, folds, units), seed=seed)
            source = "other audited samples"
            answers[kind] = _Answer(judged, None, source, said, n - n // (int(folds.max()) + 1))
            continue
        assert train is not None
        own = [owner for owner, here in zip(train.owners, elsewhere, strict=True) if here]
        split = Split(
            train.features[key][elsewhere],
            ask(task, train.truth[elsewhere], classes),
            *deal(own, seed),
        )
        asked = ask(task, audited.truth[has], classes, like=split.question)
        judged = probe_elsewhere(split, features, asked, units, seed=seed)
        answers[kind] = _Answer(judged, None, "training data", said, int(elsewhere.sum()))
    answers[BEST] = _better(answers, folds)
    return answers


def _training(train: Gathered | None, key: tuple[str, str], audited: int) -> np.ndarray | None:
    """Training samples to learn from, bool ``(n,)``; ``None`` where there are too few."""
    if train is None or key not in train.features:
        return None
    has = train.has[key[1]]
    if has.sum() < max(FEWEST, _ENOUGH_TRAINING * audited) or not _varies(train.truth[has]):
        return None
    owners = {owner for owner, here in zip(train.owners, has, strict=True) if here}
    return has if len(owners) > 1 else None


def _better(answers: dict[str, _Answer], folds: IntArray) -> _Answer:
    """For the samples of each fold the answers of the probe that gains more in the others."""
    defined = {kind: a for kind, a in answers.items() if a.judged is not None}
    if not defined:
        return next(iter(answers.values()))
    chosen: Judged = {}
    taken: dict[str, int] = {}
    for fold in np.unique(folds):
        here = folds == fold
        gains = {
            kind: float(np.nansum(a.judged["gain"][~here]) / np.nansum(a.judged["entropy"][~here]))
            for kind, a in defined.items()
            if a.judged is not None
        }
        best = max(gains, key=lambda kind: gains[kind])
        taken[best] = taken.get(best, 0) + 1
        judged = defined[best].judged
        assert judged is not None
        for name, values in judged.items():
            chosen.setdefault(name, np.full(values.shape, np.nan))[here] = values[here]
    most = max(taken, key=lambda kind: taken[kind])
    said = " and ".join(sorted(taken, key=KINDS.index))
    return _Answer(chosen, None, defined[most].learnt_from, said, defined[most].n)


def _append(
    rows: dict[str, list[np.ndarray]], audited: Gathered, modality: str, kind: str, judged: Judged
) -> None:
    has = np.flatnonzero(audited.has[modality])
    known = np.isfinite(judged["entropy"])
    sample, part = np.nonzero(known)
    several = known.shape[1] > 1
    ids = [
        f"{audited.ids[has[i]]}#{p}" if several else audited.ids[has[i]]
        for i, p in zip(sample.tolist(), part.tolist(), strict=True)
    ]
    texts = {
        "sample_id": ids,
        "group": [audited.owners[has[i]] for i in sample.tolist()],
        "modality": [modality] * len(ids),
        "features": [kind] * len(ids),
    }
    for name, values in texts.items():
        rows.setdefault(name, []).append(np.array(values, dtype=object))
    for name in _NUMBERS:
        rows.setdefault(name, []).append(judged[name][sample, part])


def _varies(truth: np.ndarray) -> bool:
    """Whether any part of a target takes two values."""
    table = truth[:, None] if truth.ndim == 1 else truth
    known = np.isfinite(table) if table.dtype.kind == "f" else table >= 0
    return any(len(np.unique(part[here])) > 1 for part, here in zip(table.T, known.T, strict=True))


def _classes(surroundings: Surroundings, audited: Gathered, train: Gathered | None) -> int:
    if surroundings.spec.task in ("multilabel", "regression"):
        return 0
    splits = [split for split in (audited, train) if split is not None and len(split.truth)]
    return max(
        len(surroundings.spec.classes or ()), *(int(split.truth.max()) + 1 for split in splits), 2
    )
