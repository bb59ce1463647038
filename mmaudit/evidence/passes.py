"""Passes of a model over masked batches: whole ones, watched ones, and replays after the encoders; each is counted and timed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmaudit.checkpoint.model import model_device, seeded
from mmaudit.checkpoint.structure import EncoderCall, Structure
from mmaudit.checkpoint.tracing import CallKey
from mmaudit.evidence.cost import Cost
from mmaudit.evidence.stand_in import Recorded, recorded, replaced
from mmaudit.masking.calling import Caller
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.masking.paths import tensor_paths, with_values
from mmaudit.masking.spec import MaskingSpec

__all__ = ["Passes"]


class Passes:
    """Runs a model; what of its inside is kept or stood in for is told by its structure.

    Args:
        model: The unwrapped model, in eval mode.
        spec: Modalities, masks, call and outputs.
        structure: What is known of its inside; ``None`` where nothing is.
        differentiable: Keep the graph.
        precision: Autocast dtype, ``None`` for the model's own.
        training: Within steps of a training, whose random stream and timing are left alone.
        seed: Of every pass of a model that is stochastic or not looked into.

    Attributes:
        calls: The encoder calls.
        cost: Counted since :meth:`take_cost` was last called.
    """

    def __init__(
        self,
        model: Any,
        spec: MaskingSpec,
        structure: Structure | None,
        *,
        differentiable: bool,
        precision: torch.dtype | None,
        training: bool,
        seed: int,
    ) -> None:
        self.training = training
        self.model, self.spec, self.caller = model, spec, Caller(model, spec)
        self.structure = structure
        self.differentiable, self.precision, self.seed = differentiable, precision, seed
        self.calls: tuple[EncoderCall, ...] = structure.encoder_calls if structure else ()
        self.cost = Cost()
        known = dict(model.named_modules()) if self.calls else {}
        self._modules = {call.key[0]: known[call.key[0]] for call in self.calls}
        modules_known = structure.record.modules if structure else ()
        self._known = {module.name: module.calls for module in modules_known}
        self._kept = {call.key: call.live for call in self.calls}
        self._device = model_device(model)
        self._checking = False
        self._aside = False

    def take_cost(self) -> Cost:
        """What was spent since this was last asked."""
        spent, self.cost = self.cost, Cost()
        return spent

    def _pass(self, batch: MaskedBatch, index: int) -> Tensor:
        """Output of one coalition, from a pass of the whole model."""
        with self._running(batch.n):
            # A copy: models may answer in a buffer of their own, which the next call overwrites.
            return self.caller(self._safe(batch.coalition(index))).clone()

    def _recorded_pass(self, batch: MaskedBatch, index: int) -> tuple[Tensor, Recorded]:
        """The same, and what the encoder calls returned."""
        with self._running(batch.n), recorded(self._modules, self._kept, self._known) as seen:
            output = self.caller(self._safe(batch.coalition(index))).clone()
        return output, seen

    def _replay(self, data: Any, values: Mapping[CallKey, Any], rows: int) -> Tensor:
        """Output for inputs whose encoder calls are answered with the values given for them."""
        with self._running(rows, replay=True), replaced(self._modules, values, self._known):
            return self.caller(self._safe(data)).clone()

    def _safe(self, data: Any) -> Any:
        """Copies of the inputs, for models that overwrite what they are given."""
        known = self.structure
        if known is not None and not known.mutates_inputs and known.fallback is None:
            return data
        return with_values(
            data, {path: tensor.clone() for path, tensor in tensor_paths(data).items()}
        )

    @contextmanager
    def _running(self, rows: int, *, replay: bool = False) -> Iterator[None]:
        device = self._device
        with ExitStack() as stack:
            if self.precision is not None:
                stack.enter_context(torch.autocast(device.type, dtype=self.precision))
            drawing = self.structure is None or self.structure.record.stochastic
            if drawing and (not self.training or self._aside):
                # Common random numbers: coalitions differ by their masks alone, and equal seeds give equal audits.
                stack.enter_context(seeded(self.seed))
            start = time.perf_counter()
            yield
        if device.type == "cuda" and not self.training:
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
        cost = self.cost
        if replay:
            cost.replayed_rows += rows
            cost.replayed_seconds += seconds
            return
        cost.full_rows += rows
        # Brute force on a few rows takes part in the cost, not in the share after the encoders.
        if not self._checking:
            cost.timed_rows += rows
            cost.full_seconds += seconds
            for name in self.spec.names:
                cost.encoder_rows[name] = cost.encoder_rows.get(name, 0) + rows

    @contextmanager
    def _evaluation_mode(self) -> Iterator[None]:
        """Passes beside that of a training: as in evaluation, every module's own train flag put back afterwards."""
        modules = self.model.modules() if isinstance(self.model, nn.Module) else ()
        flags = [module for module in modules if module.training]
        try:
            for module in flags:
                module.training = False
            self._aside = True
            with torch.set_grad_enabled(self.differentiable):
                yield
        finally:
            self._aside = False
            for module in flags:
                module.training = True
