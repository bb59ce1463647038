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

_EPOCH = re.compile(r"(?:^|[^a-z])(?:epochs?|ep)[=_\-. ]?(\d+(?:\.\d+)?)", re.IGNORECASE)
_STEP = re.compile(r"(?:^|[^a-z])(?:global_?step|steps?|iter(?:ation)?s?|it)[=_\-. ]?(\d+)", re.IGNORECASE)  # fmt: skip
_NUMBER = re.compile(r"\d+(?:\.\d+)*")
_WEIGHTS = (".bin", ".ckpt", ".pt", ".pth", ".safetensors")
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
        The checkpoints by epoch, else by step, else by the last number in which their names differ, else in natural order; and where the
        order comes from, in words. A Hugging Face folder says it itself (``trainer_state.json``).

    Raises:
        SpecError: If a pattern finds nothing, some names say an epoch and others do not, two say the same, or the names differ in
            several numbers that would order them differently.
    """
    given = [patterns] if isinstance(patterns, (str, Path)) else list(patterns)
    paths: dict[Path, None] = {}
    for pattern in given:
        paths |= dict.fromkeys(_matching(pattern))
    # One file may be named in several ways.
    paths = dict.fromkeys({path.absolute(): path for path in paths}.values())
    if not paths:
        raise SpecError("no checkpoints are named: expected files, or a pattern such as 'run/epoch*.ckpt'.")  # fmt: skip
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
    numbered = _numbered([labels[path] for path in paths])
    if numbered is not None:
        places = [Place(p, labels[p], float(n), None) for p, n in zip(paths, numbered, strict=True)]
        return _ordered(
            places, "number"
        ), "the last numbers in which the names differ, taken for epochs"
    ordered = sorted(paths, key=lambda path: _natural(labels[path]))
    places = [Place(path, labels[path], float(at), None) for at, path in enumerate(ordered)]
    return tuple(places), "the order of the names, counted from 0"


def _matching(pattern: str | Path) -> list[Path]:
    """The files and folders that a pattern names, sorted.

    Raises:
        SpecError: If there are none, or it is a folder of several checkpoints.
    """
    text = os.path.expanduser(str(pattern))  # noqa: PTH111 - it may be no path
    # A name may have brackets, which mean something in a pattern.
    found = [Path(text)] if Path(text).exists() else [Path(name) for name in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 - an absolute pattern is no Path.glob  # fmt: skip
    if not found:
        raise SpecError(
            f"no checkpoint matches '{pattern}': expected files, or a pattern in quotes such as 'run/epoch*.ckpt'."
        )
    if len(found) == 1 and found[0].is_dir() and not any(found[0].glob("*.json")):
        inside = [path.suffix for path in sorted(found[0].iterdir()) if path.suffix in _WEIGHTS]
        if len(inside) > 1:
            raise SpecError(
                f"'{pattern}' is a folder of {len(inside)} checkpoints: name them by a pattern in quotes, such as"
                f" '{found[0] / ('*' + inside[0])}'."
            )
    return found


def _numbered(labels: Sequence[str]) -> list[int] | None:
    """The whole number in which names differ; of several that order them alike the last. ``None`` where names have no numbers.

    Numbers with a point (``0.532``, a score) order nothing, and versions (``1.2.3``) neither.

    Raises:
        SpecError: If some names have a number and others do not, or several would order the names differently.
    """
    ends = [Path(label).suffix for label in labels]
    # An ending such as .pt2 counts nothing; one that is a number does.
    plain = [label if end[1:].isdigit() else label.removesuffix(end) for label, end in zip(labels, ends, strict=True)]  # fmt: skip
    found = [_NUMBER.findall(text) for text in plain]
    whole = [[int(text) for text in texts if text.isdigit()] for texts in found]
    if not any(whole):
        return None
    if len({len(numbers) for numbers in whole}) > 1:
        few, many = (labels[whole.index(pick(whole, key=len))] for pick in (min, max))
        raise SpecError(
            f"'{few}' and '{many}' are not named alike, so that their order is not known: leave one of the kinds out of the checkpoints."
        )
    columns = [list(column) for column in zip(*whole, strict=True)]
    telling = [column for column in columns if len(set(column)) == len(column)]
    orders = {tuple(sorted(range(len(labels)), key=column.__getitem__)) for column in telling}
    if len(orders) != 1:
        how = "several numbers that would order them differently" if orders else "no number of their own"  # fmt: skip
        raise SpecError(
            f"the names of the checkpoints have {how} ('{labels[0]}'): expected epochs such as in 'epoch=3' or 'ep3', or steps such as in"
            " 'step=100'."
        )
    return telling[-1]


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
