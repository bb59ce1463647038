"""Parts of one run that a tool wrote apart: into a folder for each split, or a file for each panel."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from mmaudit.evidence.readers.base import Run

__all__ = ["join_panels", "join_splits", "split_of"]

_SPLITS = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(
        ("val", "valid", "validation", "validate", "eval", "evaluation", "dev", "heldout", "holdout"),
        "validation",
    ),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}  # fmt: skip
_OF_ONE_NUMBER_EACH = {"W&B CSV export", "TensorBoard CSV"}


def split_of(word: str) -> str | None:
    """The split that a word names: ``train``, ``validation`` or ``test``.

    Example:
        >>> split_of("val"), split_of("audio")
        ('validation', None)
    """
    return _SPLITS.get(word.lower())


def join_panels(runs: Sequence[Run]) -> list[Run]:
    """Put exports of one number each together where they are of one run: the same title, no series in both."""
    found: list[Run] = []
    for run in runs:
        same = next(
            (
                i
                for i, other in enumerate(found)
                if run.format in _OF_ONE_NUMBER_EACH
                and (other.title, other.format) == (run.title, run.format)
                and not set(other.series) & set(run.series)
            ),
            None,
        )
        if same is None:
            found.append(run)
        else:
            found[same] = _joined(found[same].title, [found[same], run], [False, False])
    return found


def join_splits(runs: Sequence[Run], root: str) -> list[Run]:
    """Put runs together that are one training: titles that differ in the name of a split alone.

    Keras writes the folders ``train`` and ``validation``; ``SummaryWriter.add_scalars("loss", ...)`` writes ``loss_train`` and
    ``loss_val`` below the folder of the run. Series are then called after the folder, ``validation/epoch_loss``.

    Args:
        runs: Titled by their place below a folder, with slashes; the empty title is the folder itself.
        root: Title of what lies in the folder itself.

    Returns:
        As many runs or fewer, none without a title.
    """
    groups: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        key = _of_scalars(run)
        key = _without_split(run.title) if key is None else key
        if key is not None:
            groups.setdefault(key, []).append(i)
    parents = {run.title: i for i, run in enumerate(runs)}
    parts: dict[int, list[int]] = {}
    titles: dict[int, str] = {}
    for key, group in groups.items():
        splits = {split for i in group for split in _splits(PurePosixPath(runs[i].title).name)}
        own = parents.get(key)
        scalars = any(_of_scalars(runs[i]) is not None for i in group)
        if len(splits) < 2 and not (scalars and own is not None):
            continue
        members = [own, *group] if scalars and own is not None and own not in group else group
        parts[min(members)] = members
        titles[min(members)] = key
    inside = {i for group in parts.values() for i in group}
    found = []
    for i, run in enumerate(runs):
        if i in parts:
            together = [runs[k] for k in parts[i]]
            named = [part.title != titles[i] for part in together]
            found.append(_joined(titles[i] or root, together, named))
        elif i not in inside:
            found.append(run if run.title else replace(run, title=root))
    return found


def _joined(title: str, runs: Sequence[Run], named: Iterable[bool]) -> Run:
    """One run of several; series of parts whose name counts are called after it."""
    series = {}
    for run, own in zip(runs, named, strict=True):
        part = PurePosixPath(run.title).name
        series.update({f"{part}/{n}" if own else n: s for n, s in run.series.items()})
    files = tuple(dict.fromkeys(file for run in runs for file in run.files))
    notes = tuple(dict.fromkeys(note for run in runs for note in run.notes))
    told = [PurePosixPath(run.title).name for run, own in zip(runs, named, strict=True) if own]
    if told:
        notes = (*notes, f"{' and '.join(told[:6])} were taken for parts of one run.")
    return Run(title, runs[0].format, files, series, notes)


def _of_scalars(run: Run) -> str | None:
    """Title of the run that a part belongs to where it is one tag of ``add_scalars``: its folder begins with its tag."""
    place = PurePosixPath(run.title)
    tags = [tag.replace("/", "_").replace(" ", "_") for tag in run.series]
    if len(tags) != 1 or run.format != "TensorBoard":
        return None
    if not place.name.startswith(f"{tags[0]}_"):
        return None
    parent = place.parent.as_posix()
    return "" if parent == "." else parent


def _without_split(title: str) -> str | None:
    """The title without the split in its last part; ``None`` where it names none, or more than one."""
    place = PurePosixPath(title)
    if len(_splits(place.name)) != 1:
        return None
    rest = [w for w in _words(place.name) if split_of(w) is None]
    parent = "" if place.parent.as_posix() == "." else place.parent.as_posix()
    return "/".join(part for part in (parent, "_".join(rest)) if part)


def _splits(name: str) -> list[str]:
    found = [split_of(word) for word in _words(name)]
    return [split for split in found if split is not None]


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^A-Za-z0-9]+", name) if word]
