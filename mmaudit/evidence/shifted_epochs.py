"""Epochs that one of two logs counts from 0 and the other from 1: what speaks for it, and that it is said rather than mended.

Validations before each epoch of training are counted in the same way, so that the numbers alone cannot tell which of the two it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mmaudit.evidence.loss_flags import Flag
from mmaudit.evidence.readers.base import listed, said
from mmaudit.typing import FloatArray

__all__ = ["shifted_epochs"]

_OVERLAP = 0.5


def shifted_epochs(epochs: Mapping[str, tuple[FloatArray, FloatArray]]) -> list[Flag]:
    """Flags of heads whose validations are those of as many epochs as the train losses, all one later, or all one earlier.

    Only where epochs coincide is anything paired wrongly: every fifth epoch, counted from 0 and from 1, is told apart by its number.

    Args:
        epochs: Head -> epochs of its train losses and of its validation losses, each one-dimensional and finite, in any order.

    Returns:
        One flag for all heads with the same epochs, of a head where it is one alone.

    Example:
        >>> at = np.arange(20.0)
        >>> [flag.text[:76] for flag in shifted_epochs({"audio": (at, at + 1), "joint": (at, at + 1)})]
        ['the train losses are of epochs 0 to 19, the validation losses of as many epo']
        >>> shifted_epochs({"audio": (at, at)})
        []
    """
    found: dict[tuple[float, float, bool], list[str]] = {}
    for name, (trained, validated) in epochs.items():
        train, held = np.unique(trained), np.unique(validated)
        if len(train) != len(held) or len(held) < 2 or np.isin(held, train).mean() < _OVERLAP:
            continue
        later = bool((held - train == 1).all())
        if later or (held - train == -1).all():
            found.setdefault((float(train[0]), float(train[-1]), later), []).append(name)
    return [_flag(*which, names, len(epochs)) for which, names in found.items()]


def _flag(first: float, last: float, later: bool, names: list[str], heads: int) -> Flag:
    alone = names[0] if len(names) == 1 else None
    of = "" if len(names) == heads > 1 else f" of {listed([said(name, 40) for name in names])}"
    apart = 1 if later else -1
    text = (
        f"the train losses{of} are of epochs {first:g} to {last:g}, the validation losses of as many epochs, {first + apart:g} to"
        f" {last + apart:g}: they may be counted from 0 and from 1, and then each validation is set against the train loss of the epoch"
        f" {'after' if later else 'before'} it. They are paired as they were logged; if that is one epoch off, number both alike and read"
        " them again."
    )
    return Flag("shifted", alone, text)
