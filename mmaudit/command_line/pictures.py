"""Tiny pictures of tensors in plain characters: enough to see that a picture is a picture and a mask is a mask.

Shades rather than colours, so that they mean the same in a log file as on a terminal.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmaudit.report.numbers import count

__all__ = ["pictures", "plane", "statistics"]

_BARS = "▁▂▃▄▅▆▇█"
_SHADES = " ░▒▓█"
_WIDTH, _HEIGHT = 28, 10
_MOST_IDS = 8


def statistics(values: npt.NDArray[np.generic]) -> str:
    """Smallest, mean and largest value in a few characters.

    Args:
        values: One sample's input, any shape and dtype.

    Example:
        >>> statistics(np.array([0.0, 0.5, 1.0]))
        'min 0  mean 0.5  max 1'
    """
    numbers = _numbers(values)
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        return "no finite value" if numbers.size else "empty"
    text = f"min {finite.min():.3g}  mean {finite.mean():.3g}  max {finite.max():.3g}"
    odd = numbers.size - finite.size
    return f"{text}  {count(int(odd))} not finite" if odd else text


def plane(values: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.floating], str]:
    """The two-dimensional part of an input that is drawn, and in words which part it is.

    Args:
        values: Shape ``(..., H, W)`` or ``(H, W, C)`` with 3 or 4 channels.

    Returns:
        ``(H, W)``: the mean over 3 or 4 channels, the middle of every other axis; the words are empty where it is everything.

    Example:
        >>> plane(np.zeros((3, 4, 5)))[0].shape, plane(np.zeros((9, 4, 5)))[1]
        ((4, 5), '[4] of 9')
    """
    array = _numbers(values)
    words = []
    if array.ndim >= 3 and array.shape[-1] in (3, 4) and array.shape[-3] not in (1, 3, 4):
        array = array.mean(-1)
        words.append("mean of channels")
    while array.ndim > 2:
        if array.ndim == 3 and array.shape[0] in (3, 4):
            array = array.mean(0)
            words.append("mean of channels")
            continue
        size = array.shape[0]
        if size > 1:
            words.append(f"[{size // 2}] of {size}")
        array = array[size // 2]
    return array, ", ".join(words)


def pictures(*several: npt.NDArray[np.generic]) -> list[list[str]]:
    """Draw an input and its masked stand-in, or any number of like arrays, on one scale.

    Args:
        *several: One sample's values each. The emptiest character stands for the smallest value that is drawn in any of
            them, the fullest for the largest.

    Returns:
        Per array lines of at most 28 characters: shades for two and more dimensions, bars for a vector, the ids for whole
        numbers in a row, the value for a single number.

    Example:
        >>> pictures(np.array([0.0, 0.5, 1.0]), np.zeros(3)), pictures(np.array([101, 7]))
        ([['▁▅█'], ['▁▁▁']], [['101 7']])
    """
    drawn = [_reduced(values) for values in several]
    known = np.concatenate(
        [part[np.isfinite(part)] for part in drawn if not isinstance(part, str)] or [np.zeros(0)]
    )
    limits = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    return [[part] if isinstance(part, str) else _lines(part, limits) for part in drawn]


def _reduced(values: npt.NDArray[np.generic]) -> str | npt.NDArray[np.floating]:
    """The words for an input, or the few numbers that are drawn of it."""
    array = np.asarray(values)
    if array.size == 0:
        return "(empty)"
    if array.size == 1:
        return f"{_numbers(array).item():.4g}"
    if array.ndim == 1 and array.dtype.kind in "iub":
        return _ids(array)
    if array.ndim == 1 or sum(size > 1 for size in array.shape) < 2:
        return _stretches(_numbers(array).reshape(-1))
    return _blocks(plane(array)[0])


def _lines(values: npt.NDArray[np.floating], limits: tuple[float, float]) -> list[str]:
    if values.ndim == 1:
        return [
            "".join(
                "·" if level < 0 else _BARS[level] for level in _levels(values, limits, len(_BARS))
            )
        ]
    levels = _levels(values, limits, len(_SHADES))
    # Characters are twice as high as they are wide.
    wide = 2 if 2 * levels.shape[1] <= _WIDTH else 1
    return [
        "".join(("·" if level < 0 else _SHADES[level]) * wide for level in row) for row in levels
    ]


def _ids(array: npt.NDArray[np.generic]) -> str:
    shown = [str(int(value)) for value in array[:_MOST_IDS]]
    return " ".join(shown) + (f" ... ({array.size})" if array.size > _MOST_IDS else "")


def _numbers(values: npt.NDArray[np.generic]) -> npt.NDArray[np.floating]:
    array = np.asarray(values)
    return np.abs(array) if array.dtype.kind == "c" else array.astype(np.float64)


def _levels(
    values: npt.NDArray[np.floating], limits: tuple[float, float], number: int
) -> npt.NDArray[np.integer]:
    """Level 0 to ``number - 1`` of every value, -1 of what is not finite."""
    low, high = limits
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    known = np.isfinite(scaled)
    levels = np.clip(np.round(np.where(known, scaled, 0) * (number - 1)), 0, number - 1).astype(int)
    return np.where(known, levels, -1)


def _stretches(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """A long vector in few numbers: of every stretch the value farthest from its mean, so that a wave stays one."""
    if values.size <= _WIDTH:
        return values
    stretches = np.array_split(values, _WIDTH)
    return np.array([part[np.argmax(np.abs(part - values.mean()))] for part in stretches])


def _blocks(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """A large plane in few numbers, by means over blocks."""
    height = min(values.shape[0], _HEIGHT)
    width = min(values.shape[1], _WIDTH)
    rows = np.linspace(0, values.shape[0], height + 1).astype(int)[:-1]
    columns = np.linspace(0, values.shape[1], width + 1).astype(int)[:-1]
    summed = np.add.reduceat(np.add.reduceat(values, rows, 0), columns, 1)
    areas = np.outer(np.diff([*rows, values.shape[0]]), np.diff([*columns, values.shape[1]]))
    return np.asarray(summed / areas)
