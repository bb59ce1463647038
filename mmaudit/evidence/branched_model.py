"""A model whose branches can be cut off from each other: run with what cross-modal modules see of some modalities held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmaudit.checkpoint.model import seeded
from mmaudit.evidence.collecting import Collector
from mmaudit.evidence.cutting import CrossModal, Key, Layout, Squeezes, Visit
from mmaudit.exceptions import DataError, ModelError
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.masking.paths import get_value, map_tensors
from mmaudit.masking.spec import BranchesSpec

__all__ = ["BranchedModel", "Run", "as_it_is"]


class Run(NamedTuple):
    """One evaluation: which branch answers, and which modalities are held."""

    branch: str
    held: tuple[str, ...] = ()
    from_all: bool = False
    """Whether these are all that tell the branch something."""


class BranchedModel:
    """The audited model, run with what its branches are told held or not.

    Args:
        collector: Of the audit: evaluator, device, precision, seed.
        spec: The branches.
    """

    def __init__(self, collector: Collector, spec: BranchesSpec) -> None:
        self.evaluator, self.spec = collector.evaluator, spec
        self._device = collector.processes.device.type
        self.cross = CrossModal(self.evaluator.model, spec)
        self.channels_last: set[str] = set()
        """Modalities whose features are ``(samples, ..., channels)``."""
        known = self.evaluator.spec.names
        told = {name for places in spec.modules.values() for name in places}
        self.telling = tuple(name for name in known if name in told)
        """Modalities that are an argument of a cross-modal module."""

    def runs(self) -> list[Run]:
        """What is evaluated: each branch uncut, cut off from all others and, where these are several, from each of them."""
        found = []
        for branch in self.spec.outputs:
            others = tuple(name for name in self.telling if name != branch)
            found += [Run(branch), Run(branch, others, from_all=True)]
            if len(others) > 1:
                found += [Run(branch, (name,)) for name in others]
        return found

    def outputs(self, batch: MaskedBatch, visit: Visit, data: object = None) -> dict[str, Tensor]:
        """Scores of all branches as the model gives them.

        Args:
            batch: With everything present.
            visit: What cross-modal modules see; see :class:`~mmaudit.evidence.cutting.CrossModal`.
            data: Instead of the batch's own.

        Raises:
            ModelError: If a branch's scores are not where the spec says.
        """
        evaluator = self.evaluator
        # Copies, for models that overwrite what they are given.
        inputs = map_tensors(batch.whole if data is None else data, torch.clone)
        args, kwargs = evaluator.caller.arguments(inputs)
        known = evaluator.structure
        stochastic = known is None or known.record.stochastic
        precision = evaluator.precision
        with (
            torch.no_grad(),
            torch.autocast(self._device, dtype=precision, enabled=precision is not None),
            # Common random numbers: runs differ by what is held alone.
            seeded(evaluator.seed) if stochastic else nullcontext(),
            self.cross.visited(visit),
        ):
            returned = evaluator.model(*args, **kwargs)
        return {name: _scores(returned, name, path) for name, path in self.spec.outputs.items()}

    def layout(self, key: Key, tensor: Tensor, n: int) -> Layout:
        """What the dimensions of features mean."""
        return Layout.of(tensor, n, last=key.modality in self.channels_last)

    def recording(
        self, squeezes: Squeezes, n: int, present: Mapping[str, np.ndarray] | None = None
    ) -> Visit:
        """Adds the squeezes of n samples, or of those among them that have the modality (bool, ``(n,)``)."""

        def visit(key: Key, tensor: Tensor) -> Tensor:
            rows = self.layout(key, tensor, n).squeeze(tensor)
            if present is not None and len(rows) == n:
                rows = rows[torch.from_numpy(present[key.modality])]
            squeezes.add(key, rows)
            return tensor

        return visit

    def holding(
        self,
        held: Iterable[str],
        squeezes: Squeezes,
        n: int,
        *,
        centred: Iterable[str] = (),
    ) -> Visit:
        """Holds what is seen of some modalities at the means.

        Args:
            held: The modalities.
            squeezes: The means.
            n: Samples of the batch.
            centred: Modules in which the features keep their variation and are only shifted so that their squeeze is the mean.
        """
        wanted, shifted = set(held), set(centred)

        def visit(key: Key, tensor: Tensor) -> Tensor:
            if key.modality not in wanted:
                return tensor
            layout, mean = self.layout(key, tensor, n), squeezes.mean(key)
            if layout.channels is not None and tensor.shape[layout.channels] != len(mean):
                raise ModelError(
                    f"module '{key.module}' gets {tensor.shape[layout.channels]} channels of {key.modality}, and got {len(mean)} "
                    "on the data that squeezes are averaged over."
                )
            if key.module in shifted:
                return layout.centred(tensor, mean)
            return layout.spread(mean, tensor)

        return visit


def as_it_is(key: Key, tensor: Tensor) -> Tensor:
    """Holds nothing."""
    return tensor


def _scores(returned: object, name: str, path: str) -> Tensor:
    try:
        found = get_value(returned, path)
    except DataError as error:
        raise ModelError(
            f"branches.outputs.{name}: '{path}' is not in what the model returns: {error}"
        ) from None
    if not isinstance(found, Tensor):
        raise ModelError(
            f"branches.outputs.{name}: '{path}' is a {type(found).__name__} in what the model returns; expected the branch's scores."
        )
    return found.clone()
