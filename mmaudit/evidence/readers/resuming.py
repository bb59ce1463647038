"""Runs of which one goes on where another ended: a training that was resumed into a log of its own, and no repeat of it.

A repeat begins where the others begin; what was resumed begins where the run before ended, or before it where it went back to an
older checkpoint. Taken for repeats, the first part of a training would be averaged with its last.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from mmaudit.evidence.readers.base import Run, Series, listed, said
from mmaudit.evidence.readers.names import read_name, words_in
from mmaudit.typing import FloatArray

__all__ = ["join_resumed"]

_LATER = 1.5
_GAP = 2.0
_NEARLY = 1e-6
_MOST_RUNS = 1000
_REPEATS = {"seed", "fold", "repeat", "rep", "trial"}
"""Words of runs that are repeats by their names, also where one counter of steps goes on through all of them."""

_STORES = {"MLflow", "W&B CSV export"}
"""Formats that have several runs in one file, among them resumed ones; a column of a table says itself what a run is."""

_Axis = Literal["epoch", "step"]


class _Span(NamedTuple):
    """Where the points of a series lie."""

    start: float
    end: float
    spacing: float
    """Median distance of neighbours; NaN where there is but one place."""


class _Chain(NamedTuple):
    """One training."""

    parts: tuple[int, ...]
    """Numbers of its runs, in their order."""
    run: Run
    spans: Mapping[str, _Span]
    """Of its losses."""


def join_resumed(runs: Sequence[Run]) -> list[Run]:
    """Put runs of one folder together of which one begins where another ended, or within it and not where it began.

    Args:
        runs: With titles that tell them apart.

    Returns:
        As many runs or fewer, each at the place of its first part, with a note of what was put together.
    """
    found = dict(enumerate(runs))
    for group in _groups(runs):
        if not 1 < len(group) <= _MOST_RUNS:
            continue
        axis = _axis([runs[i] for i in group])
        if axis is None:
            continue
        for chain in _chains(runs, group, axis):
            for part in chain.parts[1:]:
                del found[part]
            found[chain.parts[0]] = chain.run
    return [found[i] for i in sorted(found)]


def _groups(runs: Sequence[Run]) -> list[list[int]]:
    """Numbers of runs of one format and one folder that have the same losses."""
    homes = [_home(run) for run in runs]
    beside = Counter((run.format, home) for run, home in zip(runs, homes, strict=True))
    of_file = Counter(run.files for run in runs)
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, (run, home) in enumerate(zip(runs, homes, strict=True)):
        if home is None or (of_file[run.files] > 1 and run.format not in _STORES):
            continue
        place = home if beside[run.format, home] > 1 else home.parent
        key = (run.format, place, frozenset(_losses(run)), _repeat(run.title))
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def _home(run: Run) -> Path | None:
    """The folder in which the log of a run lies."""
    if not run.files:
        return None
    home = Path(os.path.commonpath([file.resolve().parent for file in run.files]))
    if run.format == "MLflow" and "metrics" in home.parts:
        # A folder for each run, with a file for each metric below.
        at = len(home.parts) - 1 - home.parts[::-1].index("metrics")
        home = Path(*home.parts[:at])
    return home


def _losses(run: Run) -> list[str]:
    """Series of losses; all where none says that it is one."""
    return [name for name in run.series if read_name(name) is not None] or list(run.series)


def _repeat(title: str) -> tuple[str, ...]:
    """What a title says of seeds and folds: ``("seed", "3")`` of ``seed3/version_0``."""
    words = words_in(title.lower())
    found: list[str] = []
    for word, after in zip(words, [*words[1:], ""], strict=False):
        stem = word.rstrip("0123456789")
        if stem in _REPEATS:
            found += [stem, word[len(stem) :] or (after if after.isdecimal() else "")]
    return tuple(found)


def _axis(runs: Sequence[Run]) -> _Axis | None:
    """What all losses are counted in: epochs, else steps."""
    series = [run.series[name] for run in runs for name in _losses(run)]
    if all(np.isfinite(s.epoch).all() for s in series):
        return "epoch"
    return "step" if all((s.step >= 0).all() for s in series) else None


def _spans(run: Run, axis: _Axis) -> dict[str, _Span]:
    return {name: _span(run.series[name], axis) for name in _losses(run)}


def _span(series: Series, axis: _Axis) -> _Span:
    at: FloatArray = np.unique(series.epoch if axis == "epoch" else series.step.astype(np.float64))
    spacing = float(np.median(np.diff(at))) if len(at) > 1 else float("nan")
    return _Span(float(at[0]), float(at[-1]), spacing) if len(at) else _Span(0, 0, spacing)


def _chains(runs: Sequence[Run], group: Sequence[int], axis: _Axis) -> list[_Chain]:
    """The trainings of a group, by where its runs begin."""
    spans = {i: _spans(runs[i], axis) for i in group}
    beginners: dict[tuple[float, ...], list[int]] = {}
    for i in group:
        start = tuple(spans[i][name].start for name in sorted(spans[i]))
        beginners.setdefault(start, []).append(i)
    chains: list[_Chain] = []
    for _, same in sorted(beginners.items(), key=lambda item: (min(item[0]), item[0])):
        # Runs that begin alike fit the same trainings.
        fit = [c for c, chain in enumerate(chains) if _goes_on(chain.spans, spans[same[0]])]
        before = _paired(same, fit, chains, spans)
        for i in same:
            if i in before:
                chain = chains[before[i]]
                overlap = _overlap(chain.spans, spans[i])
                how = f"from {axis} {min(spans[i].values()).start:g} of" if overlap else "where"
                last = said(runs[chain.parts[-1]].title)
                told = f"{said(runs[i].title)} goes on {how} {last}{'' if overlap else ' ended'}: taken for one training."
                joined = _joined(chain.run, runs[i], axis, told)
                chains[before[i]] = _Chain((*chain.parts, i), joined, _spans(joined, axis))
            else:
                note = (
                    (
                        f"{_told(runs, same)} may each go on with the same run: they were not put together with it.",
                    )
                    if fit
                    else ()
                )
                run = replace(runs[i], notes=(*runs[i].notes, *note))
                chains.append(_Chain((i,), run, spans[i]))
    return chains


def _told(runs: Sequence[Run], which: Sequence[int]) -> str:
    return listed([runs[i].title for i in which], 4)


def _paired(
    same: Sequence[int],
    fit: Sequence[int],
    chains: Sequence[_Chain],
    spans: Mapping[int, Mapping[str, _Span]],
) -> dict[int, int]:
    """Run -> the training that it goes on with; none where more runs go on than were there before.

    Seeds that were resumed are paired in their order; else the run goes on with the one that was logged before it.
    """
    exact = [c for c in fit if not _overlap(chains[c].spans, spans[same[0]])]
    fit = exact if len(exact) >= len(same) else fit
    if len(same) > len(fit):
        return {}
    if len(same) == len(fit):
        return dict(zip(same, fit, strict=True))
    free = list(fit)
    found = {}
    for i in same:
        last = {c: chains[c].parts[-1] for c in free}
        found[i] = max(free, key=lambda c: (last[c] < i, last[c] if last[c] < i else -last[c]))
        free.remove(found[i])
    return found


def _goes_on(before: Mapping[str, _Span], after: Mapping[str, _Span]) -> bool:
    """Whether losses begin after the beginning of others, and not long after their end."""
    later = False
    for name, own in after.items():
        other = before[name]
        if own.start <= other.start:
            return False
        spacing = np.fmax(own.spacing, other.spacing)
        if np.isfinite(spacing):
            if own.start > other.end + (_GAP + _NEARLY) * spacing:
                return False
            later |= bool(own.start > other.start + _LATER * spacing)
    return later


def _overlap(before: Mapping[str, _Span], after: Mapping[str, _Span]) -> bool:
    return any(own.start <= before[name].end for name, own in after.items())


def _joined(first: Run, run: Run, axis: _Axis, note: str) -> Run:
    """One run of a training and what goes on with it, which was written later."""
    shift = 1 + max((int(s.order.max()) for s in first.series.values() if len(s.order)), default=-1)
    series = dict(first.series)
    for name, points in run.series.items():
        later = points._replace(order=points.order + shift)
        if name in series:
            pairs = zip(series[name], later, strict=True)
            later = Series(*(np.concatenate(pair) for pair in pairs))
        series[name] = later
    if axis == "epoch" and not _steps_go_on(first, run):
        # Steps that were counted anew would look as if the training went back to its beginning.
        series = {n: s._replace(step=np.full(len(s.step), -1, np.int64)) for n, s in series.items()}
    files = tuple(dict.fromkeys((*first.files, *run.files)))
    notes = tuple(dict.fromkeys((*first.notes, *run.notes, note)))
    return replace(first, files=files, series=series, notes=notes)


def _steps_go_on(first: Run, second: Run) -> bool:
    """Whether steps were counted on, or not at all."""
    own = [(first.series[name].step, second.series[name].step) for name in _losses(second)]
    counted = [(a, b) for a, b in own if len(a) and len(b) and (a.min() >= 0 or b.min() >= 0)]
    return all(a.min() >= 0 and b.min() > a.min() for a, b in counted)
