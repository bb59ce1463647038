"""Runs that are called after modalities: the heads of one model, logged apart, and no repeats of one training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mmaudit.evidence.readers.base import Run, listed, said
from mmaudit.evidence.readers.names import JOINT_KINDS, is_about_a_run, read_name, words_in

__all__ = ["join_heads"]

_MODALITIES = {
    "audio", "aud", "a", "acoustic", "speech", "sound", "voice", "spectrogram", "image", "images", "img", "i", "picture", "visual",
    "vision", "video", "vid", "v", "rgb", "flow", "depth", "thermal", "infrared", "ir", "frames", "text", "txt", "t", "language",
    "lang", "l", "caption", "tabular", "clinical", "sensor", "imu", "eeg", "ecg", "lidar", "radar", "mrna", "mirna", "protein",
    "methylation", "omics", "pose", "skeleton", "face", "gaze", "touch", "tactile", "force", "proprioception",
}  # fmt: skip
_WHOLE = {word for kind, words in JOINT_KINDS if kind in ("fusion", "whole") for word in words}
_NOT_A_HEAD = {"only", "unimodal", "uni", "single", "head", "modality", "branch"}


def join_heads(runs: Sequence[Run]) -> list[Run]:
    """Put runs together whose titles differ in nothing but a modality, where one of them is called joint, fusion or the like.

    Taken for repeats, their losses would be averaged over heads. Series are then called after the modality, ``audio/train_loss``.

    Args:
        runs: With titles that tell them apart.

    Returns:
        As many runs or fewer.
    """
    if len(runs) < 2:
        return list(runs)
    words = _words(runs)
    shared = set.intersection(*map(set, words))
    words = [[word for word in own if word not in shared] for own in words]
    heads = [
        "_".join(w for w in own if not is_about_a_run(w) and w not in _NOT_A_HEAD) for own in words
    ]
    keys = ["_".join(w for w in own if is_about_a_run(w)) for own in words]
    if len(set(heads)) == len(heads):
        keys = [""] * len(runs)
    groups: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    if not all(_are_heads([heads[i] for i in group]) for group in groups.values()):
        return list(runs)
    if len({_losses(run) for run in runs}) > 1 or None in map(_losses, runs):
        return list(runs)
    return [
        _joined([(heads[i], runs[i]) for i in group], key or "_".join(sorted(shared)) or "heads")
        for key, group in groups.items()
    ]


def _words(runs: Sequence[Run]) -> list[list[str]]:
    """Words of the titles, and of the folders in which the logs of the runs lie apart."""
    folders = [run.files[0].resolve().parent if run.files else Path() for run in runs]
    above = len(Path(os.path.commonpath(folders)).parts) if all(run.files for run in runs) else 0
    found = []
    for run, folder in zip(runs, folders, strict=True):
        place = "/".join((*folder.parts[above:], run.title))
        found.append(list(dict.fromkeys(word.lower() for word in words_in(place))))
    return found


def _are_heads(heads: list[str]) -> bool:
    """Whether names are those of two or more modalities or of all of them, each once."""
    whole = [head for head in heads if set(head.split("_")) <= _WHOLE]
    others = [head for head in heads if head not in whole]
    return (
        len(heads) == len(set(heads)) > 1
        and len(whole) == 1
        and all(head and set(head.split("_")) <= _MODALITIES for head in others)
    )


def _losses(run: Run) -> frozenset[str] | None:
    """Series of losses, where none of them names a head itself."""
    found = {name: read for name in run.series if (read := read_name(name)) is not None}
    if not found or any(read.joint is None and not read.part for read in found.values()):
        return None
    return frozenset(found)


def _joined(parts: Sequence[tuple[str, Run]], title: str) -> Run:
    series = {
        f"{head}/{name}": points for head, run in parts for name, points in run.series.items()
    }
    files = tuple(dict.fromkeys(file for _, run in parts for file in run.files))
    notes = tuple(dict.fromkeys(note for _, run in parts for note in run.notes))
    told = f"The runs {listed([run.title for _, run in parts])} were taken for heads of one model, after which they are called."
    return Run(said(title), parts[0][1].format, files, series, (*notes, told))
