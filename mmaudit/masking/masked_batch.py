"""One batch, and the same batch with any set of modalities masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmaudit.exceptions import DataError
from mmaudit.masking.base import Masker
from mmaudit.masking.paths import find_value, map_tensors, split_path, tensor_paths, with_values
from mmaudit.masking.spec import MaskingSpec

__all__ = [
    "MaskedBatch",
    "Maskers",
    "Template",
    "batch_dimension",
    "canonical_path",
    "known_dimension",
    "sample_dimensions",
    "take_rows",
]

Maskers = Mapping[str, Mapping[str, Masker]]
"""Modality -> input name -> masker."""

Template = tuple[tuple[int, ...], torch.dtype]
"""Shape of one sample and dtype of an input, for batches in which it is absent."""


def sample_dimensions(container: Any, n: int) -> dict[str, int | None]:
    """Path -> dimension that runs over the n samples of a batch, ``None`` where there is none; for every tensor."""
    return {path: batch_dimension(tensor, n) for path, tensor in tensor_paths(container).items()}


def known_dimension(
    path: str, tensor: Tensor, n: int, dims: Mapping[str, int | None] | None
) -> int | None:
    """The dimension over samples as an earlier batch of the same data showed it, else as this one does.

    Sizes alone mislead: a table of ten class prompts looks like samples in a last batch of ten.
    """
    if dims is None or path not in dims:
        return batch_dimension(tensor, n)
    dim = dims[path]
    return dim if dim is not None and dim < tensor.dim() and tensor.shape[dim] == n else None


def batch_dimension(tensor: Tensor, n: int) -> int | None:
    """The dimension that runs over n samples, judged by one tensor: the first, else the next of size n."""
    shape = tensor.shape
    if shape and shape[0] == n:
        return 0
    return next((d for d, size in enumerate(shape) if size == n), None)


def canonical_path(path: str) -> str:
    """A path as :func:`~mmaudit.masking.paths.tensor_paths` writes it."""
    return ".".join(split_path(path)) or "batch"


def take_rows(tensor: Tensor, dim: int, rows: Tensor) -> Tensor:
    """Rows of a tensor along its sample dimension."""
    return tensor.index_select(dim, rows.to(tensor.device))


class MaskedBatch:
    """A batch on the device, with the masked stand-in of every input.

    Args:
        data: The user's batch.
        spec: Modalities and paths.
        maskers: From ``build_maskers``.
        ids: Sample ids, length n; what random masks are drawn by.
        present: Modality -> bool ``(n,)``; where false the sample has no such modality and holds the mask instead.
        device: Where the tensors go.
        templates: Path -> shape and dtype of one sample, used for inputs that are missing altogether.
        dims: Path -> sample dimension where an earlier batch showed it.

    Attributes:
        n: Number of samples.
        whole: The batch with everything present.
        values: Path -> input as the model sees it when its modality is present.
        dims: Path -> sample dimension, ``None`` where there is none, for every tensor of the batch.
    """

    def __init__(
        self,
        data: Any,
        spec: MaskingSpec,
        maskers: Maskers,
        ids: Sequence[str],
        *,
        present: Mapping[str, np.ndarray] | None = None,
        device: torch.device | None = None,
        templates: Mapping[str, Template] | None = None,
        dims: Mapping[str, int | None] | None = None,
    ) -> None:
        self.spec, self.ids, self.n = spec, list(ids), len(ids)
        self.maskers = maskers
        self._masked: dict[str, Tensor | None] = {}
        if device is not None:
            data = map_tensors(data, lambda tensor: tensor.to(device, non_blocking=True))
        self._replaced: dict[str, tuple[str, str]] = {}  # path -> modality, input name
        self.values: dict[str, Any] = {}
        changed: dict[str, Any] = {}
        leaves = tensor_paths(data)
        for modality, part in spec.modalities.items():
            here = None if present is None else present.get(modality)
            for name, path in part.inputs.items():
                masker = maskers[modality][name]
                if masker.keeps:
                    continue
                value = find_value(data, path)
                path = canonical_path(path)
                if (
                    isinstance(value, Tensor) and path not in leaves
                ):  # a field of a named tuple, say, listed by its number
                    path = next((other for other, leaf in leaves.items() if leaf is value), path)
                self._replaced[path] = (modality, name)
                if isinstance(value, np.ndarray):
                    value = torch.as_tensor(value, device=device)
                    changed[path] = value
                if masker.changes_call:
                    if value is not None and here is not None and not here.all():
                        if here.any():
                            raise DataError(
                                f"some samples of a batch lack modality '{modality}', whose mask 'drop' removes an input for all: use another mask or sort the batches."
                            )
                        value = changed[path] = None
                    self.values[path] = value
                    continue
                if value is None:
                    value = changed[path] = self._absent(data, path, modality, device, templates)
                elif not isinstance(value, Tensor):
                    raise DataError(
                        f"input '{name}' of modality '{modality}' (path '{path}') is a {type(value).__name__}; masks need a tensor or array."
                    )
                elif here is not None and not here.all():
                    value = changed[path] = self._fill_absent(path, value, here, dims)
                self.values[path] = value
        self.whole = with_values(data, changed) if changed else data
        self.dims = {
            path: known_dimension(path, tensor, self.n, dims)
            for path, tensor in tensor_paths(self.whole).items()
        }

    @property
    def masked_paths(self) -> dict[str, str]:
        """Path -> modality, for every input that a mask replaces."""
        return {path: modality for path, (modality, _) in self._replaced.items()}

    @property
    def replaced(self) -> dict[str, tuple[str, str]]:
        """Path -> modality and name of the input, for every input that a mask replaces."""
        return dict(self._replaced)

    def masked(self, path: str) -> Tensor | None:
        """The stand-in of an input; ``None`` where the mask drops it. Drawn once per batch."""
        if path not in self._masked:
            modality, name = self._replaced[path]
            masker = self.maskers[modality][name]
            value = self.values[path]
            self._masked[path] = (
                None
                if masker.changes_call
                else self._apply(masker, value, self.dims.get(path) if value is not None else 0)
            )
        return self._masked[path]

    def coalition(self, index: int) -> Any:
        """The batch as the model sees it when only the modalities of a coalition are present.

        Args:
            index: Place on the coalition axis, ``0 <= index < 2**M``.
        """
        out = {
            path: self.masked(path)
            for path, (modality, _) in self._replaced.items()
            if not index >> self.spec.names.index(modality) & 1
        }
        return with_values(self.whole, out) if out else self.whole

    def rows(self, rows: Tensor) -> MaskedBatch:
        """Some samples of this batch, with the same masks.

        Raises:
            DataError: If an input has no dimension that runs over samples.
        """
        for path, modality in self.masked_paths.items():
            if isinstance(self.values[path], Tensor) and self.dims[path] is None:
                raise DataError(
                    f"input '{path}' of modality '{modality}' has no dimension of size {self.n}"
                )
        new = object.__new__(MaskedBatch)
        tensors = tensor_paths(self.whole)
        taken = {
            p: take_rows(t, d, rows) for p, t in tensors.items() if (d := self.dims[p]) is not None
        }
        new.spec, new.maskers, new._replaced, new.dims = (
            self.spec,
            self.maskers,
            self._replaced,
            self.dims,
        )
        new.n, new.ids = len(rows), [self.ids[r] for r in rows.tolist()]
        new.whole = with_values(self.whole, taken)
        new.values = {path: taken.get(path, value) for path, value in self.values.items()}
        new._masked = {}
        for path in self._masked:
            stand_in, dim = self._masked[path], self.dims.get(path)
            new._masked[path] = (
                stand_in if stand_in is None or dim is None else take_rows(stand_in, dim, rows)
            )
        return new

    def _apply(self, masker: Masker, value: Tensor, dim: int | None) -> Tensor:
        dim = dim or 0
        moved = value.movedim(dim, 0) if dim else value
        # Where rows are not samples (the nodes of a graph, say), random masks are drawn by running number.
        ids = self.ids if len(moved) == self.n else [str(row) for row in range(len(moved))]
        masked = masker(moved, ids)
        return masked.movedim(0, dim) if dim else masked

    def _absent(
        self,
        data: Any,
        path: str,
        modality: str,
        device: torch.device | None,
        templates: Mapping[str, Template] | None,
    ) -> Tensor:
        if templates is None or path not in templates:
            raise DataError(
                f"modality '{modality}' has no '{path}' in a batch, which holds {', '.join(tensor_paths(data)) or 'no tensors'}: is the path right? For data that lacks it, add data.train, or use mask 'drop' if the model takes None."
            )
        shape, dtype = templates[path]
        empty = torch.zeros((self.n, *shape), dtype=dtype, device=device)
        return self._apply(self.maskers[modality][self._replaced[path][1]], empty, 0)

    def _fill_absent(
        self, path: str, value: Tensor, here: np.ndarray, dims: Mapping[str, int | None] | None
    ) -> Tensor:
        modality, name = self._replaced[path]
        dim = known_dimension(path, value, self.n, dims)
        if dim is None:
            raise DataError(
                f"some samples lack modality '{modality}', but '{path}' has no dimension of size {self.n}."
            )
        stand_in = self._apply(
            self.maskers[modality][name],
            torch.nan_to_num(value) if value.is_floating_point() else value,
            dim,
        )
        keep = torch.as_tensor(here, device=value.device).view(
            [-1 if d == dim else 1 for d in range(value.dim())]
        )
        return torch.where(keep, value, stand_in)
