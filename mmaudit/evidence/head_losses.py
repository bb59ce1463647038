"""Clean losses of a model's heads: of the joint output, and of what each modality says by itself.

What a modality says by itself is the model's own unimodal head, where the user names one, else the modality's mono-modal Shapley
response. The coalitions that the responses need, and the model's own heads, come out of the same pass.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmaudit.checkpoint.model import intercepted
from mmaudit.checkpoint.structure import Structure
from mmaudit.evidence.coalitions import CoalitionEvaluator, MismatchError
from mmaudit.evidence.collecting import Collector, described
from mmaudit.evidence.loss_map import JOINT
from mmaudit.evidence.table import ShardInfo
from mmaudit.exceptions import DataError, ModelError, SpecError
from mmaudit.masking.batches import Batch
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.masking.paths import get_value
from mmaudit.masking.spec import MaskingSpec
from mmaudit.typing import EmptyRule, FloatArray, IntArray

__all__ = [
    "DIFFERED",
    "HeadCollector",
    "HeadEvaluator",
    "HeadSums",
    "known_heads",
    "with_full_passes",
]

DIFFERED = "a spot check differed from brute force, so that everything was evaluated again"
"""Why coalitions are full passes after all."""


def known_heads(heads: Mapping[str, str] | None, spec: MaskingSpec) -> dict[str, str]:
    """The model's own unimodal heads, checked.

    Args:
        heads: Modality -> path of its class scores in what the model returns; what they are (logits, ...) is ``outputs.kind``.
        spec: The modalities.

    Raises:
        SpecError: If a head belongs to no modality, or a modality bears the name of the joint output.
    """
    if JOINT in spec.names:
        raise SpecError(
            f"a modality is called '{JOINT}', which is the name of the model's output among the heads: call it otherwise."
        )
    if not isinstance(heads, Mapping | None):
        raise SpecError(
            f"heads is a {type(heads).__name__}; expected a mapping from modality to the path of its scores in what the model returns."
        )
    for name, path in (heads or {}).items():
        if name not in spec.names:
            near = difflib.get_close_matches(name, spec.names, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise SpecError(
                f"heads: '{name}' is no modality; there are {', '.join(spec.names)}{hint}"
            )
        if not isinstance(path, str) or not path:
            raise SpecError(
                f"heads: {name} is {path!r}; expected the path of its scores in what the model returns, for example '{name}_logits'."
            )
    return dict(heads or {})


@dataclass
class HeadSums:
    """Sums of losses over rows, float64.

    Attributes:
        heads: ``joint`` and the modalities, in this order.
        totals: Head -> sum of its losses, and the number of rows.
        samples: Samples seen.
        nonfinite: Samples left out, because an output of theirs is not finite.
    """

    heads: tuple[str, ...]
    totals: dict[str, tuple[float, int]] = field(default_factory=dict)
    samples: int = 0
    nonfinite: int = 0

    def add(self, head: str, losses: FloatArray) -> None:
        """Add the losses of some rows, shape ``(r,)``."""
        total, rows = self.totals.get(head, (0.0, 0))
        self.totals[head] = (total + float(losses.sum(dtype=np.float64)), rows + len(losses))

    def merge(self, other: HeadSums) -> None:
        """Add what another process has summed."""
        for head, (total, rows) in other.totals.items():
            mine, count = self.totals.get(head, (0.0, 0))
            self.totals[head] = (mine + total, count + rows)
        self.samples += other.samples
        self.nonfinite += other.nonfinite

    def means(self) -> dict[str, float]:
        """Head -> mean loss over its rows; NaN where there is none.

        Example:
            >>> sums = HeadSums(("joint", "audio"))
            >>> sums.add("joint", np.array([0.5, 1.5]))
            >>> sums.means()
            {'joint': 1.0, 'audio': nan}
        """
        found = {}
        for head in self.heads:
            total, rows = self.totals.get(head, (0.0, 0))
            found[head] = total / rows if rows else float("nan")
        return found


class HeadEvaluator(CoalitionEvaluator):
    """Evaluates coalitions, and keeps what the model's own unimodal heads say when everything is present.

    Args:
        model: The unwrapped model, in eval mode.
        spec: Modalities, masks, call and outputs.
        structure: What is known of its inside; ``None`` for full passes.
        own: Modality -> path of its head in what the model returns.
        **options: Those of :class:`~mmaudit.evidence.coalitions.CoalitionEvaluator`.

    Attributes:
        said: Modality -> its head's scores for the batch that was evaluated last.
    """

    def __init__(
        self,
        model: Any,
        spec: MaskingSpec,
        structure: Structure | None,
        *,
        own: Mapping[str, str],
        **options: Any,
    ) -> None:
        super().__init__(model, spec, structure, **options)
        self.own = dict(own)
        self.said: dict[str, Tensor] = {}

    def evaluate(self, batch: MaskedBatch) -> list[Tensor]:
        """As the parent does."""
        with self._listening():
            outputs = super().evaluate(batch)
        self._complete(batch)
        return outputs

    def answer(self, batch: MaskedBatch) -> Tensor:
        """Output with everything present, and what the heads say, in one plain pass."""
        with self._listening():
            output = self.plain(batch)
        self._complete(batch)
        return output

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Keep what the first call of the model returns: of all coalitions the grand one is evaluated first."""
        self.said = {}
        watched = isinstance(self.model, nn.Module) and bool(self.own)

        def keep(
            name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            returned = forward(*args, **kwargs)
            if not self.said:
                self.said = self._read(returned)
            return returned

        with intercepted({"": self.model}, keep) if watched else nullcontext():
            yield

    def _complete(self, batch: MaskedBatch) -> None:
        """Ask the heads in a pass of their own, where the first call was not about the whole batch, or was not seen."""
        whole = all(scores.dim() > 0 and len(scores) == batch.n for scores in self.said.values())
        if not self.own or (self.said and whole):
            return
        args, kwargs = self.caller.arguments(self._safe(batch.whole))
        with torch.no_grad(), self._running(batch.n):
            self.said = self._read(self.model(*args, **kwargs))
        for name, scores in self.said.items():
            if scores.dim() == 0 or len(scores) != batch.n:
                raise ModelError(
                    f"heads: {name} gives scores of shape {tuple(scores.shape)} for {batch.n} samples: expected a row for each."
                )

    def _read(self, returned: Any) -> dict[str, Tensor]:
        found = {}
        for name, path in self.own.items():
            try:
                scores = get_value(returned, path)
            except DataError as error:
                raise ModelError(
                    f"heads: the scores of {name} are not at '{path}' in what the model returns: {error}"
                ) from None
            if not isinstance(scores, Tensor):
                raise ModelError(
                    f"heads: '{path}' ({name}) is a {type(scores).__name__} in what the model returns; expected a tensor of scores."
                )
            found[name] = scores.detach().clone()
        return found


@dataclass
class HeadCollector(Collector):
    """Collects the losses of all heads beside, or without, the coalition table.

    Args:
        empty: What the empty coalition counts in a response.
        coalitions: Whether coalitions are evaluated at all; not needed where every modality has a head of its own.
        sums: What was collected.
    """

    empty: EmptyRule = "exact"
    coalitions: bool = True
    sums: HeadSums = field(default_factory=lambda: HeadSums(()))

    def __post_init__(self) -> None:
        self.sums = HeadSums((JOINT, *self.evaluator.spec.names))

    def measure(self) -> bool:
        """Sum the losses of this process's share of the data, without a table.

        Returns:
            Whether they can be trusted; ``False`` as soon as a spot check fails.

        Raises:
            DataError: If the data cannot be read.
            ModelError: If the model fails on a batch.
        """
        ranks, total = self.processes, self.source.samples
        for batch in self.source.batches(stride=ranks.number, offset=ranks.rank):
            with described(batch):
                prepared = self.prepare(batch)
                if self.coalitions:
                    try:
                        outputs = self.evaluator.evaluate(prepared)
                    except MismatchError:
                        return False
                    self._columns(batch, outputs)
                else:
                    self._answered(batch, prepared)
            if self.progress is not None:
                done = min(self.sums.samples * ranks.number, total or 10**18)
                self.progress(self.stage, done, total)
        return True

    def _columns(
        self, batch: Batch, outputs: list[torch.Tensor]
    ) -> tuple[dict[str, object], ShardInfo]:
        columns, info = super()._columns(batch, outputs)
        loglik, present = np.asarray(columns["loglik"]), np.asarray(columns["present"])
        response = np.asarray(columns[f"response_loglik_{self.empty}"])
        sample = np.asarray(columns["position"]) - batch.start
        kept = self._add_own(batch, np.unique(sample))
        rows = np.isin(sample, kept)
        self.sums.add(JOINT, -loglik[rows, -1])
        for m, name in enumerate(self.evaluator.spec.names):
            if name not in self._said:
                # Without the modality its response is nothing by construction, which is no loss of the head.
                self.sums.add(name, -response[rows & (present >> m & 1).astype(bool), m])
        return columns, info

    def _answered(self, batch: Batch, prepared: MaskedBatch) -> None:
        assert isinstance(self.evaluator, HeadEvaluator)
        losses = self._losses(batch, self.evaluator.answer(prepared))
        sample = self.value.rows(batch).sample
        kept = self._add_own(batch, np.setdiff1d(sample, sample[~np.isfinite(losses)]))
        self.sums.add(JOINT, losses[np.isin(sample, kept)])

    @property
    def _said(self) -> dict[str, Tensor]:
        return self.evaluator.said if isinstance(self.evaluator, HeadEvaluator) else {}

    def _add_own(self, batch: Batch, usable: IntArray) -> IntArray:
        """Add the losses of the model's own heads.

        A sample for which one of them is not finite is left out of all heads: heads are compared, on the same samples.

        Args:
            batch: That was evaluated.
            usable: Places of the samples whose joint outputs are finite.

        Returns:
            Places of the samples that count.
        """
        sample = self.value.rows(batch).sample
        found = {}
        for name, output in self._said.items():
            losses, has = self._losses(batch, output), batch.present[name][sample]
            found[name] = losses, has
            usable = np.setdiff1d(usable, sample[has & ~np.isfinite(losses)])
        for name, (losses, has) in found.items():
            self.sums.add(name, losses[has & np.isin(sample, usable)])
        self.sums.samples += batch.n
        self.sums.nonfinite += len(np.unique(sample)) - len(usable)
        return usable

    def _losses(self, batch: Batch, output: Tensor) -> FloatArray:
        """Loss of every row of a batch, ``(r,)``."""
        scores = self.value.scores(output)
        if len(scores) != batch.n:
            raise ModelError(f"the model gives {len(scores)} rows for {batch.n} targets.")
        judged = self.value.judged(scores.unsqueeze(0), self.value.rows(batch))
        return np.asarray(-judged["loglik"][:, 0])


def with_full_passes(
    make: Callable[[str | None], HeadCollector], collect: Callable[[HeadCollector], bool]
) -> HeadCollector:
    """Collect; again, by full passes, where a spot check differs from brute force in any process.

    Args:
        make: Why coalitions have to be full passes, if they have to -> collector.
        collect: Collects, and says whether that can be trusted.
    """
    collecting = make(None)
    if collecting.processes.any(not collect(collecting)):
        collecting = make(DIFFERED)
        collect(collecting)
    return collecting
