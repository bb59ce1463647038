"""Parts of one run that were written apart: into a folder or a file for each split, or a file for each panel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mmaudit.evidence.readers.base import Run
from mmaudit.evidence.readers.names import (
    LOSS_WORDS,
    PLAIN_WORDS,
    is_about_a_run,
    splits_in,
    splits_of,
    words_in,
)

__all__ = ["join_files", "join_panels", "join_splits"]

_OF_ONE_NUMBER_EACH = {"W&B CSV export", "TensorBoard CSV"}
_OF_ANY_NAME = {"CSV", "JSON lines", "JSON", "W&B history"}
_MEASURES = LOSS_WORDS | {
    "acc",
    "accuracy",
    "f1",
    "auc",
    "auroc",
    "error",
    "score",
    "scores",
    "metric",
}


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
        splits = {split for i in group for split in splits_in(PurePosixPath(runs[i].title).name)}
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
            together = _without_run_words(together)
            found.append(_joined(titles[i] or root, together, named))
        elif i not in inside:
            found.append(run if run.title else replace(run, title=root))
    return found


class _Part(NamedTuple):
    """What the place of a file says of it."""

    key: tuple[Path, str, str]
    """Folder of the training, what its name says beside the split, and the run inside the file."""
    title: str
    """Of the training."""
    name: str
    """What its series are called after."""
    split: str


def join_files(runs: Sequence[Run]) -> list[Run]:
    """Put runs together whose files say that they are the splits of one training, in their names or in those of their folders.

    ``train.csv`` and ``val.csv`` are one run, as are ``seed0_train.csv`` and ``seed0_val.csv``, ``train/log.csv`` and ``val/log.csv``, or
    ``train_audio_loss.csv``, ``val_audio_loss.csv``, ``train_text_loss.csv``, ... with a series each.

    Args:
        runs: Of files with any name.

    Returns:
        As many runs or fewer.
    """
    parts = [_part(run) for run in runs]
    groups: dict[tuple[Path, str, str], list[int]] = {}
    for i, part in enumerate(parts):
        if part is not None:
            groups.setdefault(part.key, []).append(i)
    together: dict[int, Run] = {}
    inside: set[int] = set()
    for group in groups.values():
        own = [part for i in group if (part := parts[i]) is not None]
        if len({part.split for part in own}) < 2:
            continue
        names = [part.name for part in own]
        if len(set(names)) < len(names):
            names = [runs[i].files[0].stem for i in group]
        if len(set(names)) < len(names):
            continue
        members = [replace(runs[i], title=name) for i, name in zip(group, names, strict=True)]
        together[group[0]] = _joined(own[0].title, members, [True] * len(members))
        inside.update(group)
    return [together.get(i, run) for i, run in enumerate(runs) if i in together or i not in inside]


def _part(run: Run) -> _Part | None:
    """What the place of a run's file says of its split; ``None`` where it says none, or several."""
    if run.format not in _OF_ANY_NAME or len(run.files) != 1:
        return None
    file = run.files[0]
    folder = file.resolve().parent
    words = words_in(file.stem)
    if not splits_in(file.stem):
        # A folder for each split, with files that are called alike.
        words = [*words_in(folder.name), *words]
        folder = folder.parent
    named = splits_of(words)
    splits = [split for split in named if split is not None]
    if len(splits) != 1:
        return None
    rest = [word for word, split in zip(words, named, strict=True) if split is None]
    about_run = [word for word in rest if is_about_a_run(word)]
    own_words = [word for word in words if word not in about_run]
    # 'train_loss.csv' and 'val_acc.csv' are of one run; 'base_train.csv' and 'other_val.csv' are not.
    outer = about_run if _MEASURES & {word.lower() for word in rest} else rest
    outer = [word for word in outer if word.lower() not in PLAIN_WORDS]
    own = run.title.removeprefix(file.stem).strip()
    title = " ".join(filter(None, ("_".join(outer) or folder.name or "run", own)))
    return _Part((folder, "_".join(outer), own), title, "_".join(own_words), splits[0])


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


def _without_run_words(runs: Sequence[Run]) -> list[Run]:
    """Parts called ``train`` and ``val`` rather than ``seed0_train`` and ``seed0_val``: what tells runs apart names no head."""
    names = [PurePosixPath(run.title).name for run in runs]
    kept = [
        "_".join(word for word in words_in(name) if not is_about_a_run(word)) or name
        for name in names
    ]
    if any(_of_scalars(run) is not None for run in runs) or len(set(kept)) < len(kept):
        return list(runs)
    # A name without a word about runs stays as it was written.
    return [
        replace(run, title=short) if any(map(is_about_a_run, words_in(name))) else run
        for run, name, short in zip(runs, names, kept, strict=True)
    ]


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
    if len(splits_in(place.name)) != 1:
        return None
    words = words_in(place.name)
    rest = [word for word, split in zip(words, splits_of(words), strict=True) if split is None]
    parent = "" if place.parent.as_posix() == "." else place.parent.as_posix()
    return "/".join(part for part in (parent, "_".join(rest)) if part)
