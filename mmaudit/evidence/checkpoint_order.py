"""Which checkpoints there are of a training, and in which order they were taken: their names say it, or the folders themselves."""

from __future__ import annotations

import glob
import itertools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mmaudit.exceptions import SpecError

__all__ = ["Place", "find_checkpoints"]

_EPOCH = re.compile(r"(?:^|[^a-z])(?:epochs?|ep)[=_\-. ]?(\d+)", re.IGNORECASE)
_STEP = re.compile(r"(?:^|[^a-z])(?:global_?step|steps?|iter(?:ation)?s?|it)[=_\-. ]?(\d+)", re.IGNORECASE)  # fmt: skip
_NUMBER = re.compile(r"\d+")
_STATE = "trainer_state.json"
_LARGEST_STATE = 2**26


class Place(NamedTuple):
    """A checkpoint, and where in the training it was taken."""

    path: Path
    label: str
    """How it is called among the others."""
    epoch: float | None
    step: int | None


def find_checkpoints(
    patterns: str | Path | Sequence[str | Path],
) -> tuple[tuple[Place, ...], str]:
    """The checkpoints that some patterns name, in the order of the training.

    Args:
        patterns: Files, folders of one checkpoint each, or patterns such as ``run/epoch*.ckpt`` (``**`` goes into folders).

    Returns:
        The checkpoints by epoch, else by step, else by the last number in their names, else in natural order; and where the order
        comes from, in words. A Hugging Face folder says it itself (``trainer_state.json``).

    Raises:
        SpecError: If a pattern finds nothing, some names say an epoch and others do not, or two say the same.
    """
    given = [patterns] if isinstance(patterns, (str, Path)) else list(patterns)
    paths: dict[Path, None] = {}
    for pattern in given:
        found = sorted(glob.glob(os.path.expanduser(str(pattern)), recursive=True))  # noqa: PTH111, PTH207 - an absolute pattern is no Path.glob
        if not found:
            raise SpecError(
                f"no checkpoint matches '{pattern}': expected files, or a pattern in quotes such as 'run/epoch*.ckpt'."
            )
        paths |= dict.fromkeys(Path(name) for name in found)
    labels = _labels(list(paths))
    said = {path: _said(path, label) for path, label in labels.items()}
    for at, kind in enumerate(("epoch", "step")):
        having = [path for path in paths if said[path][at] is not None]
        if not having or (len(having) < len(paths) and at == 0 and _all_have(said, 1)):
            continue
        if len(having) < len(paths):
            lacks = next(path for path in paths if said[path][at] is None)
            raise SpecError(
                f"'{labels[lacks]}' says no {kind} in its name where '{labels[having[0]]}' does: leave it out of the checkpoints."
            )
        places = [Place(path, labels[path], *said[path]) for path in paths]
        return _ordered(places, kind), f"{kind}s in the names"
    numbers = {path: _NUMBER.findall(labels[path]) for path in paths}
    if all(numbers.values()):
        places = [Place(p, labels[p], float(found[-1]), None) for p, found in numbers.items()]
        if len({place.epoch for place in places}) == len(places):
            return _ordered(places, "epoch"), "the last numbers in the names, taken for epochs"
    ordered = sorted(paths, key=lambda path: _natural(labels[path]))
    places = [Place(path, labels[path], float(at), None) for at, path in enumerate(ordered)]
    return tuple(places), "the order of the names, counted from 0"


def _labels(paths: list[Path]) -> dict[Path, str]:
    """Names from where the paths begin to differ."""
    if len(paths) == 1:
        return {paths[0]: paths[0].name}
    shared = os.path.commonpath([path.absolute() for path in paths])
    return {path: str(path.absolute().relative_to(shared)) for path in paths}


def _said(path: Path, label: str) -> tuple[float | None, int | None]:
    """Epoch and step of a checkpoint, as far as it says them."""
    state = path / _STATE
    if state.is_file() and state.stat().st_size <= _LARGEST_STATE:
        try:
            held = json.loads(state.read_text(encoding="utf-8"))
            epoch, step = held.get("epoch"), held.get("global_step")
        except (ValueError, AttributeError, RecursionError):
            epoch = step = None
        if isinstance(epoch, (int, float)) and isinstance(step, int) and math.isfinite(epoch):
            return float(epoch), step
    epochs, steps = _EPOCH.findall(label), _STEP.findall(label)
    return float(epochs[-1]) if epochs else None, int(steps[-1]) if steps else None


def _all_have(said: Mapping[Path, tuple[float | None, int | None]], at: int) -> bool:
    return all(found[at] is not None for found in said.values())


def _ordered(places: list[Place], kind: str) -> tuple[Place, ...]:
    def key(place: Place) -> tuple[float, float]:
        first = place.step if place.step is not None else -1
        return (float(first), place.epoch or 0) if kind == "step" else (place.epoch or 0, first)

    ordered = sorted(places, key=key)
    for one, other in itertools.pairwise(ordered):
        if key(one) == key(other):
            raise SpecError(
                f"'{one.label}' and '{other.label}' say the same {kind}: name one checkpoint for each."
            )
    return tuple(ordered)


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts ``b2`` before ``b10``."""
    parts = re.split(r"(\d+)", text)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
