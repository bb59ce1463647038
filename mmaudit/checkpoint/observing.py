"""Running a model on a few samples, watching what its module calls return, and telling whether that is the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmaudit.checkpoint.model import intercepted, seeded
from mmaudit.checkpoint.tracing import CallKey, output_tensors
from mmaudit.exceptions import DataError, MMAuditError, first_line
from mmaudit.masking.calling import Caller
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.masking.paths import tensor_paths, with_values

__all__ = [
    "FEW_ROWS",
    "FewSamples",
    "Observation",
    "Observer",
    "all_same",
    "cloned",
    "sample_dim",
]

FEW_ROWS = 2
"""Samples that a structure is found on; enough to see which dimension runs over them."""
_MORE_ROWS = 6
"""Samples that are looked at for whether they influence each other, and for modules that only some of them call."""


class Observation(NamedTuple):
    """What one forward returned."""

    output: Tensor
    calls: dict[CallKey, list[Tensor]]
    """Tensors of each module call, copied."""
    order: list[CallKey]
    """The calls, as they began."""


class FewSamples(NamedTuple):
    """What is looked at in place of a whole batch."""

    batch: MaskedBatch
    together: str | None = None
    """Why samples must stay together, ``None`` where they need not; the batch is then the whole one."""
    stochastic: bool = False
    """Whether two runs on the same samples differ."""
    called: frozenset[str] = frozenset()
    """Modules that some more samples call, as far as was looked."""


@dataclass
class Observer:
    """Runs a model in eval mode, each time on copies of its inputs.

    Args:
        model: Whose modules are watched.
        caller: How it is called.
    """

    model: nn.Module
    caller: Caller

    def output(self, batch: MaskedBatch, seed: int = 0) -> Tensor:
        """The model's output with everything present."""
        with seeded(seed):
            return self.caller(cloned(batch.whole)).clone()

    def two_runs_differ(self, batch: MaskedBatch) -> bool:
        """Whether the output depends on the seed."""
        return not _same(self.output(batch, 0), self.output(batch, 1))

    def observe(self, data: Any) -> Observation:
        """Run a forward on the samples of a batch and keep what every call returned."""
        seen: dict[CallKey, list[Tensor]] = {}
        counts: dict[str, int] = {}
        order: list[CallKey] = []

        def handle(
            name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            key = (name, counts.get(name, 0))
            counts[name] = key[1] + 1
            order.append(key)
            out = forward(*args, **kwargs)
            seen[key] = [tensor.detach().clone() for tensor in output_tensors(out)]
            return out

        with intercepted(dict(self.model.named_modules()), handle):
            output = self.caller(cloned(data)).detach().clone()
        return Observation(output, seen, order)

    def few_samples(self, batch: MaskedBatch) -> FewSamples:
        """A few samples of a batch, or the whole of it where its samples must stay together."""
        if batch.spec.batching == "keep":
            return self._whole(batch, "the spec says 'batching: keep'")
        try:
            small = batch.rows(torch.arange(FEW_ROWS) % batch.n)
            more = batch.rows(torch.arange(_MORE_ROWS) % batch.n)
        except DataError as error:
            return self._whole(batch, f"samples cannot be told apart: {first_line(error, 160)}")
        try:
            with seeded(0):
                seen = self.observe(more.whole)
        except MMAuditError:
            raise
        except Exception:
            return self._whole(batch, "the model does not run on part of a batch")
        whole = seen.output
        # Asked twice: a first run may normalise a weight in place and differ from all that follow.
        if not _same(whole, self.output(more, 1)) and self.two_runs_differ(more):
            return FewSamples(small, stochastic=True)
        called = frozenset(name for name, _ in seen.order)
        for rows in (torch.tensor([2, 0]), torch.tensor([1]), torch.tensor([3])):
            try:
                part = self.output(more.rows(rows))
            except Exception as error:
                name = type(error).__name__
                reason = f"the model does not run on part of a batch ({name})"
                return FewSamples(batch, reason, called=called)
            dim = sample_dim(whole, part, _MORE_ROWS, len(rows))
            if dim is None:
                reason = "the rows of the output are not the rows of the batch"
                return FewSamples(batch, reason, called=called)
            if not _close(whole.index_select(dim, rows.to(whole.device)), part):
                reason = "the output of one sample depends on the others in its batch"
                return FewSamples(batch, reason, called=called)
        return FewSamples(small, called=called)

    def _whole(self, batch: MaskedBatch, reason: str) -> FewSamples:
        return FewSamples(batch, reason, self.two_runs_differ(batch))


def cloned(data: Any) -> Any:
    """A copy whose tensors share no storage, neither with the user's nor with each other."""
    copies = {path: t.clone() for path, t in tensor_paths(data).items()}
    return with_values(data, copies) if copies else data


def sample_dim(a: Tensor, b: Tensor, rows_a: int, rows_b: int) -> int | None:
    """The one dimension whose size goes from ``rows_a`` to ``rows_b``."""
    if a.dim() != b.dim():
        return None
    differing = [d for d in range(a.dim()) if a.shape[d] != b.shape[d]]
    if len(differing) == 1 and (a.shape[differing[0]], b.shape[differing[0]]) == (rows_a, rows_b):
        return differing[0]
    return None


def all_same(a: list[Tensor], b: list[Tensor]) -> bool:
    """Whether tensors are equal pair by pair; not-a-number equals itself."""
    return len(a) == len(b) and all(_comparable(x, y) for x, y in zip(a, b, strict=True))


def _comparable(a: Tensor, b: Tensor) -> bool:
    if a.is_nested and b.is_nested:
        return all_same(list(a.unbind()), list(b.unbind()))
    if a.layout is not torch.strided:
        return (
            a.shape == b.shape and torch.equal(a.to_dense(), b.to_dense()) if a.is_sparse else False
        )
    return _same(a, b) if a.is_floating_point() else a.shape == b.shape and torch.equal(a, b)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(
        torch.nan_to_num(a.detach()), torch.nan_to_num(b.detach())
    )


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    # Batch size changes the order of sums: a thousand roundings at the output's own precision are allowed for.
    tolerance = min(0.05, 1000 * torch.finfo(a.dtype).eps) if a.is_floating_point() else 0.0
    a, b = a.detach().double(), b.detach().double()
    finite = torch.isfinite(a) & torch.isfinite(b)
    scale = max(1.0, a[finite].abs().max().item()) if finite.any() else 1.0
    return bool(((a - b)[finite].abs() <= tolerance * scale).all())
