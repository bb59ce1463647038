"""Arrays as torch takes them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from mmaudit.exceptions import DataError
from mmaudit.report.schema import Note

__all__ = ["to_tensor"]

_WIDER = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}


def to_tensor(
    array: np.ndarray, where: str, note: Callable[[Note], None]
) -> torch.Tensor | list[str]:
    """An array as torch takes it.

    Args:
        array: Any shape.
        where: Beginning of a sentence about it.
        note: Takes the change from float64 to float32.

    Returns:
        A tensor: float64 becomes float32, unsigned integers that torch cannot compute with become wider signed ones, everything
        else stays. Text becomes a list of strings.

    Raises:
        DataError: If there is no such tensor.
    """
    if array.dtype.kind in "US" and array.ndim == 1:
        return [
            item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)
            for item in array.tolist()
        ]
    if array.dtype.kind not in "biufc":
        raise DataError(
            f"{where} has values of type {array.dtype}; expected numbers, or text in one dimension"
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind == "f" and array.dtype.itemsize >= 8:
        note(
            Note(
                kind="information",
                topic="data",
                text=f"{where} was changed from {array.dtype} to float32",
            )
        )
        array = array.astype(np.float32)
    elif array.dtype.name in _WIDER:
        if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
            raise DataError(f"{where} has integers above the largest int64")
        array = array.astype(_WIDER[array.dtype.name])
    elif array.dtype == np.clongdouble:
        array = array.astype(np.complex64)
    return torch.tensor(array)
