"""What is true of the samples of a batch, in the form that each task has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmaudit.exceptions import DataError
from mmaudit.masking.spec import MaskingSpec

__all__ = ["class_indices", "read_targets"]


def read_targets(value: Any, spec: MaskingSpec, ids: Sequence[str]) -> np.ndarray:
    """Targets as the value functions take them.

    Args:
        value: What the batch has at the target's path, for n samples.
        spec: Says the task, and the names of the classes.
        ids: The n sample ids, for messages.

    Returns:
        Classes in ``[0, K)``, int32 ``(n,)``; for ``segments`` the same, int32 ``(n, T)``, -1 where a segment has none; for
        ``multilabel`` 0, 1 or -1 (unknown), int8 ``(n, L)``; for ``regression`` numbers, float64 ``(n, D)``, NaN where one is
        unknown.

    Raises:
        DataError: If a target is none of these; the sentence names the sample.
    """
    if spec.task == "segments":
        return _segments(value, ids, None if spec.classes is None else len(spec.classes))
    if spec.task == "multilabel":
        return _labels(value, ids, spec.classes)
    if spec.task == "regression":
        return _numbers(value, ids, spec.classes)
    classes = 2 if spec.task == "binary" and spec.classes is None else None
    return class_indices(value, ids, names=spec.classes, classes=classes)


def class_indices(
    value: Any,
    ids: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    classes: int | None = None,
) -> np.ndarray:
    """Labels as classes.

    Args:
        value: n labels: integers, booleans, floats with integer values, ``(n,)`` or ``(n, 1)``; or names.
        ids: The n sample ids, for messages.
        names: Names of the K classes, in order.
        classes: K, where there are no names and it is known.

    Returns:
        Classes in ``[0, K)``, int32 ``(n,)``.

    Raises:
        DataError: If a label is none; the sentence names the sample.

    Example:
        >>> class_indices(["dog", "cat"], ["a", "b"], names=["cat", "dog"])
        array([1, 0], dtype=int32)
    """
    known = len(names) if names is not None else classes
    labels = _array(value)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or len(labels) != len(ids):
        raise DataError(
            f"targets of shape {labels.shape} for {len(ids)} samples; expected one class per sample, shape ({len(ids)},)"
        )
    if labels.dtype.kind in "USO":
        return _from_names(labels.tolist(), ids, names)
    if labels.dtype.kind not in "biuf":
        raise DataError(f"targets of type {labels.dtype}; expected integers in [0, K) or names")
    numbers = labels.astype(np.float64)
    top = known if known is not None else np.iinfo(np.int32).max
    wrong = ~(
        np.isfinite(numbers) & (numbers == np.floor(numbers)) & (numbers >= 0) & (numbers < top)
    )
    if wrong.any():
        at = int(np.argmax(wrong))
        allowed = f"an integer in [0, {known})" if known is not None else "an integer of at least 0"
        raise DataError(f"sample '{ids[at]}' has target {labels[at]!s}; expected {allowed}")
    return numbers.astype(np.int32)


def _from_names(labels: list[Any], ids: Sequence[str], names: Sequence[str] | None) -> np.ndarray:
    texts = [
        label.decode("utf-8", "replace") if isinstance(label, bytes) else label for label in labels
    ]
    if names is None:
        raise DataError(
            f"sample '{ids[0]}' has target '{texts[0]}'; list the names of the classes in the spec ('classes')"
        )
    place = {name: i for i, name in enumerate(names)}
    for sample, label in zip(ids, texts, strict=True):
        if str(label) not in place:
            shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
            raise DataError(
                f"sample '{sample}' has target '{label}'; the spec's classes are {shown}"
            )
    return np.array([place[str(label)] for label in texts], dtype=np.int32)


def _segments(value: Any, ids: Sequence[str], classes: int | None) -> np.ndarray:
    numbers = _table(value, ids, "segments", "one class for each segment")
    if numbers.ndim != 2:
        raise DataError(
            f"targets of shape {numbers.shape} for {len(ids)} samples; task 'segments' expects one class for each segment, shape"
            f" ({len(ids)}, T)"
        )
    top = classes if classes is not None else np.iinfo(np.int32).max
    none = np.isnan(numbers) | (numbers < 0)
    wrong = ~none & ~((numbers == np.floor(numbers)) & (numbers < top))
    if wrong.any():
        at, segment = (int(place) for place in np.argwhere(wrong)[0])
        allowed = f"an integer in [0, {classes})" if classes is not None else "an integer"
        raise DataError(
            f"sample '{ids[at]}' has target {numbers[at, segment]:g} in segment {segment}; expected {allowed}, negative where there"
            " is none"
        )
    return np.where(none, -1, numbers).astype(np.int32)


def _labels(value: Any, ids: Sequence[str], names: Sequence[str] | None) -> np.ndarray:
    numbers = _columns(
        _table(value, ids, "multilabel", "0 or 1 for each label"), ids, names, "labels"
    )
    unknown = np.isnan(numbers) | (numbers < 0)
    wrong = ~unknown & (numbers != 0) & (numbers != 1)
    if wrong.any():
        at, label = (int(place) for place in np.argwhere(wrong)[0])
        raise DataError(
            f"sample '{ids[at]}' has target {numbers[at, label]:g} for label {label}; expected 0 or 1, negative where it is unknown"
            " (classes that exclude each other are task multiclass)"
        )
    return np.where(unknown, -1, numbers).astype(np.int8)


def _numbers(value: Any, ids: Sequence[str], names: Sequence[str] | None) -> np.ndarray:
    numbers = _columns(_table(value, ids, "regression", "numbers"), ids, names, "numbers")
    infinite = np.isinf(numbers)
    if infinite.any():
        at = int(np.argwhere(infinite)[0, 0])
        raise DataError(
            f"sample '{ids[at]}' has an infinite target; expected numbers, NaN where one is unknown"
        )
    return numbers


def _table(value: Any, ids: Sequence[str], task: str, expected: str) -> np.ndarray:
    """Numbers, float64, with one entry or row for each sample."""
    array = _array(value)
    if array.dtype.kind not in "biuf":
        raise DataError(f"targets of type {array.dtype}; task '{task}' expects {expected}")
    if array.ndim == 0 or len(array) != len(ids):
        raise DataError(
            f"targets of shape {array.shape} for {len(ids)} samples; task '{task}' expects {expected}"
        )
    return array.astype(np.float64)


def _columns(
    numbers: np.ndarray, ids: Sequence[str], names: Sequence[str] | None, what: str
) -> np.ndarray:
    """Shape ``(n, width)``, of the width that the names say."""
    found = numbers[:, None] if numbers.ndim == 1 else numbers
    if found.ndim != 2 or not found.shape[1]:
        raise DataError(
            f"targets of shape {numbers.shape} for {len(ids)} samples; expected one row of {what} for each sample"
        )
    if names is not None and found.shape[1] != len(names):
        raise DataError(
            f"targets have {found.shape[1]} {what}, but the spec's classes name {len(names)}: expected as many"
        )
    return found


def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
    try:
        return np.asarray(value)
    except ValueError:
        raise DataError("targets have rows of different lengths; expected one array") from None
