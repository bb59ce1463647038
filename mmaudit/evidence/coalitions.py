"""The outputs of a model for every coalition of its modalities, at the price of about one pass.

An encoder sees only "its modality present" or "its modality masked". So its calls are evaluated once per batch with the
modality present, and once per distinct masked input (a constant mask gives every sample the same encoder output, up to what
the call reads unmasked, such as lengths); then only the part after the encoders runs for each coalition, many coalitions packed
into one batch. Cost: about ``1 + (2**M - 2) f`` plain passes, f being the share of a pass after the encoders.

Nothing of this is taken on trust: outputs are compared with brute force on the first batch and at random later, and the
evaluator steps down (packed, unpacked, full passes) where they differ, where calls differ, or where samples influence each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmaudit.checkpoint.model import left_as_it_came, model_device, unwrapped
from mmaudit.checkpoint.structure import Structure, find_structure, mask_functions
from mmaudit.checkpoint.tracing import CallKey
from mmaudit.evidence.checking import SpotChecks, distance
from mmaudit.evidence.masked_rows import MaskedRows
from mmaudit.evidence.method import STEP_DOWN, Method, constant_when_empty, first_method
from mmaudit.evidence.packing import coalitions_at_once, packed_inputs, packed_outputs
from mmaudit.evidence.passes import Passes
from mmaudit.evidence.stand_in import CallsDifferError, with_tensors
from mmaudit.exceptions import MMAuditError, ModelError, first_line
from mmaudit.masking.calling import Caller
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.masking.paths import leaf_values
from mmaudit.masking.preparing import in_memory_batch
from mmaudit.masking.spec import MaskingSpec, read_spec

__all__ = ["CoalitionEvaluator", "MismatchError", "evaluate_coalitions"]

_PACKED_ROWS = 1024


class MismatchError(MMAuditError, RuntimeError):
    """A spot check differed from brute force after earlier batches were given out; what they gave must be dropped."""


def evaluate_coalitions(
    model: Any,
    batch: Any,
    spec: MaskingSpec | Mapping[str, Any],
    *,
    differentiable: bool = False,
    optimize: bool = True,
    structure: Structure | None = None,
    seed: int = 0,
) -> dict[frozenset[str], Tensor]:
    """Outputs of a model on one batch for all 2**M coalitions of its modalities.

    Args:
        model: Module or callable; evaluated in eval mode and left as it came.
        batch: One batch, whatever the model's data gives.
        spec: Modalities, masks, how the model is called, where its outputs are.
        differentiable: Keep the graph, so that outputs can be differentiated with respect to parameters and inputs.
        optimize: Evaluate encoders once and pack coalitions; without, every coalition is a pass of its own.
        structure: From :func:`~mmaudit.inspect_structure`; left out, it is found here.
        seed: Of random masks.

    Returns:
        Coalition (the set of present modalities) -> the model's output tensor at ``outputs.path``, shape and dtype as the model
        gives them. Equal to masking and calling the model, to 1e-5 in float32.

    Raises:
        ModelError: If the model cannot be called as the spec says.
        DataError: If the batch does not have what the spec names.

    Example:
        >>> import torch
        >>> def model(a, b):
        ...     return a + 2 * b
        >>> out = evaluate_coalitions(model, [torch.ones(1, 2), torch.ones(1, 2)], {"modalities": {"a": 0, "b": 1}})
        >>> out[frozenset({"b"})]
        tensor([[2., 2.]])
    """
    spec = read_spec(spec, MaskingSpec)
    model = unwrapped(model)
    with left_as_it_came(model):
        prepared = in_memory_batch(
            batch, spec, model_device(model), functions=mask_functions(spec), seed=seed
        )
        with torch.no_grad():
            if structure is None and optimize:
                structure = find_structure(model, Caller(model, spec), prepared)
        evaluator = CoalitionEvaluator(
            model, spec, structure, differentiable=differentiable, optimize=optimize, seed=seed
        )
        outputs = evaluator.evaluate(prepared)
    return {spec.coalition(index): output for index, output in enumerate(outputs)}


class CoalitionEvaluator(Passes):
    """Evaluates batch after batch, remembering what masked encoders give.

    Args:
        model: The unwrapped model, in eval mode.
        spec: Modalities, masks, call and outputs.
        structure: What is known of its inside; ``None`` for full passes.
        differentiable: Keep the graph.
        optimize: ``False`` for full passes.
        reason: Why not, for the record.
        precision: Autocast dtype, ``None`` for the model's own.
        training: For steps of a training: the model changes between batches, so that nothing is remembered, and outputs are not
            compared with brute force (:meth:`evaluate` of an evaluator without it does that).
        seed: Of spot checks, and of every pass of a model that is stochastic or not looked into.

    Attributes:
        method: How coalitions are evaluated now.
        reason: Why not packed.
        notes: Sentences about every step down.
        cost: Counted since :meth:`take_cost` was last called.
    """

    def __init__(
        self,
        model: Any,
        spec: MaskingSpec,
        structure: Structure | None,
        *,
        differentiable: bool = False,
        optimize: bool = True,
        reason: str = "switched off",
        precision: torch.dtype | None = None,
        training: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            model,
            spec,
            structure,
            differentiable=differentiable,
            precision=precision,
            training=training,
            seed=seed,
        )
        self.M = len(spec.names)
        self.grand = 2**self.M - 1
        self.optimize = optimize
        self.method: Method = "full passes"
        self.reason: str | None = reason
        if optimize and structure is not None:
            self.method, self.reason = first_method(spec, structure)
        self.notes: list[str] = []
        self.packed_rows = _PACKED_ROWS
        self._real_inputs = False
        self._masked_rows = MaskedRows(self.calls)
        self._batches = 0
        self._apart: Callable[[], AbstractContextManager[None]] = nullcontext
        self._checks = SpotChecks(self.grand, seed)

    def evaluate(self, batch: MaskedBatch) -> list[Tensor]:
        """Outputs of all coalitions of one batch, in the order of the coalition axis.

        Raises:
            MismatchError: If a spot check fails after the first batch; the method has been stepped down.
        """
        with torch.set_grad_enabled(self.differentiable):
            outputs = self._with_less_memory(batch, self._attempt)
            if self.method != "full passes":
                outputs = self._checked(batch, outputs)
        self._batches += 1
        return outputs

    def try_out(self, batch: MaskedBatch) -> None:
        """Evaluate one batch as an audit does, compared with brute force, so that a training starts with a method that is right."""
        training, self.training = self.training, False
        try:
            with left_as_it_came(self.model):
                self.evaluate(batch)
        finally:
            self.training = training
            self._masked_rows.clear()
            self.take_cost()

    def training_step(self, batch: MaskedBatch) -> list[Tensor]:
        """Outputs of all coalitions but the empty one, within a step of a training.

        Everything present: one pass as the model trains, with its graph (batch statistics are updated here only). The others: in
        evaluation mode, with a graph if ``differentiable``; encoders keep what they returned in the first pass wherever their
        modality is present. Every module has its own train flag afterwards, and the random stream of the training is as the
        first pass left it.

        Returns:
            Outputs in the order of the coalition axis without its first place, ``2**M - 1`` of them.
        """
        assert self.training
        self._apart = self._evaluation_mode
        try:
            return self._attempt(batch)[1:]
        finally:
            self._apart = nullcontext

    def plain(self, batch: MaskedBatch) -> Tensor:
        """Output with everything present; no part of the evidence."""
        with torch.no_grad():
            whole = self._with_less_memory(batch, lambda part: [self._pass(part, self.grand)])
        self.take_cost()
        return whole[0]

    def in_parts(
        self, batch: MaskedBatch, attempt: Callable[[MaskedBatch], list[Tensor]]
    ) -> list[Tensor]:
        """Whatever else is asked of the model for a batch, in halves where memory runs out; no part of the evidence.

        Args:
            batch: To be looked at.
            attempt: Gives tensors with a row for each sample of the batch it is given.
        """
        with torch.no_grad():
            return self._with_less_memory(batch, attempt)

    def _with_less_memory(
        self, batch: MaskedBatch, attempt: Callable[[MaskedBatch], list[Tensor]]
    ) -> list[Tensor]:
        """Evaluate a batch; where memory runs out, with fewer packed rows, then in halves."""
        while True:
            try:
                return attempt(batch)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                message = first_line(error, 120)
            self._masked_rows.clear()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
            if self.method == "packed" and self.packed_rows > batch.n:
                self.packed_rows = max(batch.n, self.packed_rows // 2)
                self._note(
                    f"out of memory: at most {self.packed_rows} rows are packed into one pass"
                )
                continue
            together = self.spec.batching == "keep" or (
                self.structure and self.structure.rows_matter
            )
            if batch.n == 1 or together:
                raise ModelError(
                    f"out of memory on a batch of {batch.n} that cannot be split further: {message}"
                )
            self._note(f"out of memory: batches of {batch.n} are evaluated in halves")
            rows = torch.arange(batch.n)
            halves = [
                self._with_less_memory(batch.rows(half), attempt)
                for half in (rows[: batch.n // 2], rows[batch.n // 2 :])
            ]
            return [torch.cat(pair) for pair in zip(*halves, strict=True)]

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)

    def _attempt(self, batch: MaskedBatch) -> list[Tensor]:
        """Evaluate with the current method, stepping down while it does not work."""
        while True:
            if self.method == "full passes":
                return self._full(batch)
            try:
                return self._packed(batch) if self.method == "packed" else self._unpacked(batch)
            except (MMAuditError, KeyboardInterrupt):
                raise
            except Exception as error:  # foreign code may object to a stand-in in any way
                if _is_out_of_memory(error):
                    raise
                if self.method == "packed" and not self._real_inputs:
                    self._real_inputs = True
                    continue
                self._step_down(
                    f"{type(error).__name__} while encoders were stood in for: {first_line(error, 200)}"
                )

    def _step_down(self, reason: str) -> None:
        lower = STEP_DOWN[self.method]
        self._note(
            f"coalitions are evaluated by method '{lower}' instead of '{self.method}': {reason}"
        )
        self.method, self.reason = lower, reason
        self._masked_rows.clear()

    # The three methods.

    def _full(self, batch: MaskedBatch) -> list[Tensor]:
        """Every coalition a pass of its own; an empty coalition that is the same for all samples is evaluated on one."""
        # Everything present comes first: in a training it moves the batch statistics that the others then use.
        grand = self._pass(batch, self.grand)
        outputs = []
        with self._apart():
            for index in range(self.grand):
                if index == 0 and self.training:
                    outputs.append(grand)  # not asked for; see training_step
                elif index == 0 and self.optimize and self._one_when_empty(batch):
                    outputs.append(self._empty(batch))
                else:
                    outputs.append(self._pass(batch, index))
        return [*outputs, grand]

    def _empty(self, batch: MaskedBatch) -> Tensor:
        self._masked_rows.begin(batch, leaf_values(self.caller.arguments(batch.whole)))
        one = self._masked_rows.empty_output(batch)
        if one is None:
            one = self._pass(batch.rows(torch.zeros(1, dtype=torch.long)), 0)
            self._masked_rows.keep_empty(batch, one)
        return one.expand(batch.n, *one.shape[1:])

    def _unpacked(self, batch: MaskedBatch) -> list[Tensor]:
        """Encoders twice, present and masked; the rest once per coalition, with the batch left whole."""
        grand, present = self._recorded_pass(batch, self.grand)
        with self._apart():
            empty, absent = self._recorded_pass(batch, 0)
            outputs = [empty]
            fresh = self.structure is not None and self.structure.mutates_outputs
            for index in range(1, self.grand):
                values = {}
                for call in self.calls:
                    side = present if index >> call.modality & 1 else absent
                    value = side.values[call.key]
                    values[call.key] = (
                        with_tensors(value, [t.clone() for t in side.tensors[call.key]])
                        if fresh
                        else value
                    )
                outputs.append(self._replay(batch.coalition(index), values, batch.n))
        return [*outputs, grand]

    def _packed(self, batch: MaskedBatch) -> list[Tensor]:
        """Encoders once, distinct masked inputs once, the rest on many coalitions at a time."""
        assert self.structure is not None
        grand, present = self._recorded_pass(batch, self.grand)
        outputs: list[Tensor | None] = [None] * (2**self.M)
        outputs[self.grand] = grand
        with self._apart():
            absent, outputs[0] = self._absent(batch)
            if self.training:
                outputs[0] = grand  # not asked for; see training_step
            todo = [index for index, output in enumerate(outputs) if output is None]
            step = coalitions_at_once(self.calls, present, self.packed_rows // batch.n)
            for at in range(0, len(todo), step):
                chunk = todo[at : at + step]
                values = {
                    call.key: packed_outputs(call, chunk, present, absent, batch.n)
                    for call in self.calls
                }
                inputs = packed_inputs(batch, chunk, self.structure, real=self._real_inputs)
                packed = self._replay(inputs, values, len(chunk) * batch.n)
                if len(packed) != len(chunk) * batch.n:
                    raise CallsDifferError(
                        f"{len(packed)} rows came back for {len(chunk) * batch.n}"
                    )
                for index, output in zip(chunk, packed.split(batch.n), strict=True):
                    outputs[index] = output
        return outputs  # type: ignore[return-value]

    def _absent(self, batch: MaskedBatch) -> tuple[dict[CallKey, list[Tensor]], Tensor | None]:
        """What the encoder calls give when their modality is masked, and the empty coalition's output where known."""
        assert self.structure is not None
        constant = all(
            masker.constant or masker.keeps
            for part in batch.maskers.values()
            for masker in part.values()
        )
        if not constant or self.structure.context_read:
            empty, seen = self._recorded_pass(batch, 0)
            return seen.tensors, empty
        forgets = self.differentiable or self.training
        rows = MaskedRows(self.calls) if forgets else self._masked_rows
        outside = leaf_values(self.caller.arguments(batch.whole))
        for part_rows in rows.missing(batch, outside):
            part = batch.rows(part_rows)
            empty, seen = self._recorded_pass(part, 0)
            rows.keep(part, seen.tensors)
            if self._one_when_empty(batch):
                rows.keep_empty(batch, empty[:1])
        one = rows.empty_output(batch) if self._one_when_empty(batch) else None
        return rows.gather(batch), None if one is None else one.expand(batch.n, *one.shape[1:])

    def _one_when_empty(self, batch: MaskedBatch) -> bool:
        """Whether all samples give the same output once everything is masked, so that one of them has to be evaluated."""
        if self.structure is None or self.differentiable or self.training:
            return False
        return constant_when_empty(self.structure, batch)

    # Checks.

    def _checked(self, batch: MaskedBatch, outputs: list[Tensor]) -> list[Tensor]:
        """The outputs, once a comparison with brute force has not found fault with them."""
        first = self._batches == 0
        due = self._checks.due(batch)
        if not first and not due:
            return outputs
        coalitions = self._checks.coalitions(first=first, whole=self.method == "unpacked")
        difference = self._difference(batch, outputs, coalitions)
        if difference is None:
            return outputs
        reason = f"outputs differ from brute force by {difference:.2g}"
        self._masked_rows.clear()
        if not first:
            self.method, self.reason, self.optimize = "full passes", reason, False
            raise MismatchError(f"a spot check failed: {reason}")
        if self.method == "packed" and not self._real_inputs:
            self._real_inputs = True
        else:
            self._step_down(reason)
        outputs = self._with_less_memory(batch, self._attempt)
        return outputs if self.method == "full passes" else self._checked(batch, outputs)

    def _difference(
        self, batch: MaskedBatch, outputs: list[Tensor], coalitions: list[int]
    ) -> float | None:
        """Largest difference from brute force if it is too large, else ``None``."""
        part, rows = self._checks.part(batch) if self.method == "packed" else (batch, None)
        worst: float | None = None
        self._checking = True
        try:
            with torch.no_grad():
                for index in coalitions:
                    expected = self._pass(part, index)
                    found = outputs[index].detach()
                    if rows is not None:
                        found = found.index_select(0, rows.to(found.device))
                    far, allowed = distance(found, expected, self.precision)
                    cost = self.cost
                    cost.verified_rows += part.n
                    if np.isfinite(far):
                        cost.largest_difference = max(cost.largest_difference or 0.0, far)
                    if far > allowed:
                        worst = max(worst or 0.0, far)
        finally:
            self._checking = False
        return worst


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    return (
        "out of memory" in text or "can't allocate memory" in text or "DefaultCPUAllocator" in text
    )
