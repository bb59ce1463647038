"""The joint model's latent, read batch by batch, beside what single modalities alone would say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmaudit.checkpoint.model import intercepted
from mmaudit.evidence.collecting import described
from mmaudit.evidence.concepts import Concept
from mmaudit.evidence.data import Source
from mmaudit.evidence.second_masks import spread
from mmaudit.evidence.surroundings import Surroundings
from mmaudit.exceptions import DataError, MMAuditError
from mmaudit.masking.batches import Batch
from mmaudit.masking.masked_batch import batch_dimension
from mmaudit.masking.paths import tensor_paths
from mmaudit.typing import IntArray

__all__ = ["LatentReader", "LatentRows", "NoLatentError"]


class NoLatentError(MMAuditError):
    """The latent is not what it should be, so that nothing can be probed."""


class LatentRows(NamedTuple):
    """What one batch gives: a row for each sample, or for each of its segments."""

    ids: list[str]
    owners: list[str]
    latent: Tensor
    """Shape ``(r, d)``."""
    concepts: dict[str, Tensor]
    """Modality -> ``(r, q)``."""
    has: dict[str, Tensor]
    """Modality -> whether the row counts, bool ``(r,)``."""


class LatentReader:
    """Runs the model and keeps what enters its head.

    Args:
        surroundings: Of the audit.
        concepts: Modality -> its concept.

    Raises:
        NoLatentError: If the model has none.
    """

    def __init__(self, surroundings: Surroundings, concepts: Mapping[str, Concept]) -> None:
        self._surroundings, self._concepts = surroundings, concepts
        self._name = (surroundings.structure.record.latent or "").removeprefix("input of ")
        model = surroundings.collector.evaluator.model
        modules = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
        if self._name not in modules or not self._name:
            raise NoLatentError("the model has no latent: name its module under 'latent'")
        self._module = modules[self._name]

    def read(
        self, source: Source, wanted: Callable[[str], bool], most: int
    ) -> Iterator[LatentRows]:
        """Latents and concepts of some samples.

        Args:
            source: Whose batches are read.
            wanted: Whether the samples of an owner (a group, else the sample itself) are.
            most: Samples of the source that are read, about, spread over it.

        Yields:
            The rows of one batch after the other.

        Raises:
            NoLatentError: If the head is not called with a row for each sample.
        """
        step = 1
        if source.samples and source.length and source.samples > most:
            step = spread(source.samples, source.length, most)
        done, progress = 0, self._surroundings.collector.progress
        for batch in source.batches(stride=step):
            owners = list(batch.groups) if batch.groups else list(batch.ids)
            chosen = np.flatnonzero([wanted(owner) for owner in owners])
            done += batch.n
            if len(chosen):
                yield self._rows(batch, owners, chosen)
            if progress is not None:
                progress("Competition", done, source.samples)

    def _rows(self, batch: Batch, owners: list[str], chosen: IntArray) -> LatentRows:
        rows = torch.from_numpy(chosen)
        with described(batch):
            latent = self._latent(batch, rows)
            concepts = {name: concept.of(batch)[rows] for name, concept in self._concepts.items()}
        n, parts = len(chosen), 1
        if latent.dim() == 3:
            parts = latent.shape[1]
            fits = all(c.dim() == 3 and c.shape[1] == parts for c in concepts.values())
            if not fits:
                latent, parts = latent.mean(1), 1
        latent = latent.reshape(n * parts, -1)
        concepts = {name: c.reshape(n * parts, -1) for name, c in concepts.items()}
        ids = [batch.ids[i] for i in chosen]
        finite = torch.isfinite(latent).all(1)
        has = {
            name: torch.from_numpy(batch.present[name][chosen]).repeat_interleave(parts)
            & torch.isfinite(c).all(1)
            & finite.cpu()
            for name, c in concepts.items()
        }
        return LatentRows(
            ids if parts == 1 else [f"{i}#{t}" for i in ids for t in range(parts)],
            [owners[i] for i in chosen for _ in range(parts)],
            latent,
            concepts,
            has,
        )

    def _latent(self, batch: Batch, rows: Tensor) -> Tensor:
        """Input of the latent's module for some samples, ``(n, d)`` or ``(n, T, d)``."""
        surroundings = self._surroundings
        prepared, n = surroundings.collector.prepare(batch), batch.n
        if surroundings.structure.rows_matter is None and len(rows) < n:
            with suppress(DataError):  # an input without samples: the batch stays whole
                prepared, n = prepared.rows(rows), len(rows)
        kept: list[Tensor] = []

        def keep(name: str, forward: Any, args: Any, kwargs: Any) -> Any:
            tensors = list(tensor_paths([list(args), dict(kwargs)]).values())
            kept.extend(_features(tensor, self._module, n) for tensor in tensors[:1])
            return forward(*args, **kwargs)

        with intercepted({self._name: self._module}, keep):
            surroundings.collector.evaluator.plain(prepared)
        fitting = [tensor for tensor in kept if len(tensor) == n]
        if not fitting:
            raise NoLatentError(f"module '{self._name}' is not called with a row for each sample")
        # Of a module that is called several times, the last call: what the output is made of.
        return fitting[-1] if n == len(rows) else fitting[-1][rows.to(fitting[-1].device)]


def _features(tensor: Tensor, module: nn.Module | None, n: int) -> Tensor:
    """A latent with samples first and features last, ``(n, d)`` or ``(n, T, d)``; a copy."""
    tensor = tensor.detach()
    dim = batch_dimension(tensor, n)
    if dim is None and tensor.dim() == 2 and len(tensor) % n == 0:
        return tensor.reshape(n, -1, tensor.shape[1]).clone()
    if dim is None:
        return tensor
    tensor = tensor.movedim(dim, 0)
    if tensor.dim() < 3:
        return tensor.reshape(n, -1).clone()
    if not isinstance(module, nn.Linear) and tensor.dim() > 3:
        return tensor.flatten(2).mean(2)
    return tensor.clone() if tensor.dim() == 3 else tensor.flatten(1, -2).mean(1)
