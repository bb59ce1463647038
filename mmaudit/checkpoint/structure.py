"""Which parts of a model belong to which modality, found by watching it and by perturbing its inputs.

Operations are followed first (``tracing``): that gives an upper bound. Then one modality at a time is changed and the outputs
of every module call are compared: that shows dependence that bypasses operations, and confirms the rest. A call whose outputs
depend on exactly one modality is an encoder call; the largest such calls are what an audit evaluates once per batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmaudit.checkpoint.importing import import_callable
from mmaudit.checkpoint.model import (
    OpaqueModel,
    left_as_it_came,
    model_device,
    seeded,
    unwrapped,
    version_of,
)
from mmaudit.checkpoint.observing import (
    FEW_ROWS,
    Observation,
    Observer,
    all_same,
    cloned,
    sample_dim,
)
from mmaudit.checkpoint.roles import Roles
from mmaudit.checkpoint.tracing import (
    Call,
    CallKey,
    EncoderCall,
    Trace,
    trace,
)
from mmaudit.exceptions import MMAuditError, first_line
from mmaudit.masking.calling import Caller
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.masking.paths import find_value, tensor_paths, with_values
from mmaudit.masking.preparing import in_memory_batch
from mmaudit.masking.spec import CustomMask, MaskingSpec, read_spec
from mmaudit.report.schema import StructureRecord

__all__ = [
    "EncoderCall",
    "Structure",
    "find_structure",
    "inspect_structure",
    "mask_functions",
    "perturbed",
]


@dataclass(frozen=True)
class Structure:
    """What is known of a model's inside.

    Attributes:
        record: The part that is stored: modules, encoders, fusion point, latent, head, parameter groups.
        encoder_calls: Calls to evaluate once.
        live_inputs: Masked inputs whose values are read outside encoder calls.
        context: Unmasked tensors of the batch that the model reads.
        fallback: Why encoders cannot be stood in for, ``None`` where they can.
        rows_matter: Why coalitions cannot be packed into one batch, ``None`` where they can.
    """

    record: StructureRecord
    encoder_calls: tuple[EncoderCall, ...] = ()
    live_inputs: frozenset[str] = frozenset()
    context: tuple[str, ...] = ()
    context_read: bool = False
    """Context is read into Python outside encoders, so that what a masked encoder gives may depend on the whole batch."""
    mutates_inputs: bool = False
    mutates_outputs: bool = False
    fallback: str | None = None
    rows_matter: str | None = None

    def __str__(self) -> str:
        from mmaudit.checkpoint.tree import structure_tree

        return structure_tree(self.record)


def inspect_structure(model: Any, batch: Any, spec: MaskingSpec | Mapping[str, Any]) -> Structure:
    """Find which modules and parameters of a model depend on which modality.

    Args:
        model: A module (compiled and wrapped ones are unwrapped), or any callable.
        batch: One batch of the user's data, at least two samples for a full answer.
        spec: Modalities and how the model is called.

    Returns:
        The structure; ``print`` it for the tree. The model is left as it came.

    Raises:
        ModelError: If the model cannot be called as the spec says.
        SpecError: If the spec names modules that do not exist.

    Example:
        >>> import torch
        >>> class Late(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.ears, self.eyes = torch.nn.Linear(3, 4), torch.nn.Linear(5, 4)
        ...         self.head = torch.nn.Linear(8, 2)
        ...     def forward(self, audio, image):
        ...         return self.head(torch.cat([self.ears(audio), self.eyes(image)], 1))
        >>> found = inspect_structure(Late(), [torch.ones(4, 3), torch.ones(4, 5)], {"modalities": {"audio": 0, "image": 1}})
        >>> found.record.encoders, found.record.fusion
        ({'audio': ('ears',), 'image': ('eyes',)}, 'head')
    """
    spec = read_spec(spec, MaskingSpec)
    model = unwrapped(model)
    with left_as_it_came(model), torch.no_grad():
        prepared = in_memory_batch(batch, spec, model_device(model), functions=mask_functions(spec))
        return find_structure(model, Caller(model, spec), prepared)


def mask_functions(
    spec: MaskingSpec, directory: Path | None = None
) -> dict[str, Callable[..., Any]]:
    """Import the functions of custom masks: import string -> function."""
    names = {
        m.function
        for part in spec.modalities.values()
        for m in part.mask.values()
        if isinstance(m, CustomMask)
    }
    return {name: import_callable(name, directory) for name in sorted(names)}


def find_structure(model: Any, caller: Caller, batch: MaskedBatch) -> Structure:
    """As :func:`inspect_structure`, on a prepared batch and a model that is in eval mode already."""
    if not isinstance(model, nn.Module) or isinstance(model, OpaqueModel):
        what = model.kind if isinstance(model, OpaqueModel) else "a plain callable"
        return Structure(
            StructureRecord(unknown=(f"The model is {what}: its parts cannot be seen.",)),
            fallback=f"the model is {what}",
            rows_matter=f"the model is {what}" if batch.spec.batching == "keep" else None,
        )
    return _Finder(model, caller, batch).find()


@dataclass
class _Finder:
    model: nn.Module
    caller: Caller
    batch: MaskedBatch

    def find(self) -> Structure:
        self.spec = self.batch.spec
        self.M = len(self.spec.names)
        self.unknown: list[str] = []
        self.observer = Observer(self.model, self.caller)
        small, interact, stochastic, called = self.observer.few_samples(self.batch)
        with seeded(0):
            base = self.observer.observe(small.whole)
        # Called for other samples than the few looked at, such as experts behind a router.
        self.sometimes = set(called - {name for name, _ in base.order})
        structure = Structure(StructureRecord(stochastic=stochastic), rows_matter=interact)
        if stochastic:
            self.unknown.append(
                "The model is stochastic in evaluation mode: two runs on the same batch differ."
            )
        try:
            structure = self._trace(small, base, structure)
        except MMAuditError:
            raise
        except Exception as error:  # foreign code under a dispatch mode can fail in any way; the audit can do without
            self.unknown.append(
                f"The model cannot be traced ({type(error).__name__}: {first_line(error, 160)})."
            )
            structure = replace(
                structure, fallback=f"the model cannot be traced ({type(error).__name__})"
            )
        if stochastic:
            structure = replace(structure, fallback="the model is stochastic")
        record = structure.record.model_copy(
            update={
                "stochastic": stochastic,
                "samples_interact": interact is not None,
                "unknown": tuple(self.unknown),
            }
        )
        return replace(structure, record=record)

    def _trace(self, small: MaskedBatch, base: Observation, structure: Structure) -> Structure:
        names = self.spec.names
        masked = small.masked_paths
        data = cloned(small.whole)
        tensors = tensor_paths(data)
        reached = {
            id(tensor)
            for path in self.caller.paths(data)
            for tensor in tensor_paths(find_value(data, path)).values()
        }
        context = [path for path in tensors if path not in masked and id(tensors[path]) in reached]
        sources: dict[int, list[Tensor]] = {m: [] for m in range(self.M)}
        for path, modality in masked.items():
            value = find_value(data, path)
            if isinstance(value, Tensor):
                sources[names.index(modality)].append(value)
        for j, path in enumerate(context):
            sources[self.M + j] = [tensors[path]]
        versions = {path: version_of(tensors[path]) for path in tensors}
        spreads = sum(1 << (self.M + j) for j in range(len(context)))
        first = trace(self.model, lambda: self.caller(data), sources, spreads=spreads)
        mutates_inputs = any(
            version_of(tensors[path]) != version for path, version in versions.items()
        )
        mutates_outputs = any(
            version_of(tensor) != version
            for call in first.calls
            for tensor, version in zip(call.outputs, call.versions, strict=True)
        )
        observed, changed_flow = self._perturb(small, base)
        everything = (1 << self.M) - 1
        for call in first.calls:
            call.label |= observed.get(call.key, 0)
            if not call.key[0]:
                first.label |= call.label
        fallback = None
        if changed_flow:
            which = ", ".join(name for m, name in enumerate(names) if changed_flow >> m & 1)
            fallback = f"which modules are called depends on the values of {which}"
            self.unknown.append(f"Which modules are called depends on the values of {which}.")
        encoder_calls = self._encoder_calls(first, context)
        keys = {call.key for call in encoder_calls}
        for bits, stack in first.leaks:
            outside = bits & everything and not keys & set(stack)
            if outside and fallback is None:
                which = ", ".join(name for m, name in enumerate(names) if bits >> m & 1)
                fallback = f"forward reads values of {which} into Python"
        context_read = any(bits >> self.M and not keys & set(stack) for bits, stack in first.leaks)
        roles = Roles(
            self.model, self.spec, first, observed, encoder_calls, self.unknown, self.sometimes
        )
        structure = replace(
            structure,
            record=roles.record(),
            context=tuple(
                path for j, path in enumerate(context) if first.consumed >> (self.M + j) & 1
            ),
            context_read=context_read,
            mutates_inputs=mutates_inputs,
            mutates_outputs=mutates_outputs,
            fallback=structure.fallback or fallback,
        )
        if structure.fallback is None and encoder_calls:
            structure = self._liveness(small, first, encoder_calls, structure)
        return structure

    def _perturb(self, small: MaskedBatch, base: Observation) -> tuple[dict[CallKey, int], int]:
        """Change one modality at a time; which calls' outputs change, and for which modalities the calls themselves do."""
        observed: dict[CallKey, int] = {}
        flow = 0
        for m in range(self.M):
            bit = 1 << m
            for data in (
                small.coalition(((1 << self.M) - 1) & ~bit),
                perturbed(small, self.spec.names[m]),
            ):
                try:
                    with seeded(0):
                        seen = self.observer.observe(data)
                except Exception:  # nonsense values can make foreign code fail; the mask is checked where it is used
                    continue
                if seen.order != base.order:
                    flow |= bit
                    continue
                changed = [
                    k for k, tensors in seen.calls.items() if not all_same(tensors, base.calls[k])
                ]
                for key in changed:
                    observed[key] = observed.get(key, 0) | bit
                if changed:  # other values are tried only where the mask changes nothing: it may be what is there already
                    break
        return observed, flow

    def _encoder_calls(self, first: Trace, context: list[str]) -> list[EncoderCall]:
        """The largest calls that depend on exactly one modality."""
        everything = (1 << self.M) - 1
        chosen: dict[int, EncoderCall] = {}
        for place, call in enumerate(
            first.calls
        ):  # in order of entry: parents come before their children
            bits = call.label & everything
            if self.M > 1 and not call.key[0]:
                continue  # a model that ignores a modality is still no encoder of the other
            if bits.bit_count() != 1 or not call.outputs or self._inside(first, call, set(chosen)):
                continue
            paths = tuple(path for j, path in enumerate(context) if call.label >> (self.M + j) & 1)
            chosen[place] = EncoderCall(call.key, bits.bit_length() - 1, paths)
        return list(chosen.values())

    @staticmethod
    def _inside(first: Trace, call: Call, places: set[int]) -> bool:
        parent = call.parent
        while parent is not None:
            if parent in places:
                return True
            parent = first.calls[parent].parent
        return False

    def _liveness(
        self,
        small: MaskedBatch,
        first: Trace,
        encoder_calls: list[EncoderCall],
        structure: Structure,
    ) -> Structure:
        """Which inputs and which encoder outputs are read by value outside encoder calls, and where their samples run."""
        data = cloned(small.whole)
        tensors = tensor_paths(data)
        masked = [path for path in small.masked_paths if path in tensors]
        inputs = {bit: [tensors[path]] for bit, path in enumerate(masked)}
        opaque: dict[CallKey, tuple[int, ...]] = {}
        counts = {call.key: len(call.outputs) for call in first.calls}
        bit = len(masked)
        for call in encoder_calls:
            opaque[call.key] = tuple(range(bit, bit + counts[call.key]))
            bit += counts[call.key]
        second = trace(self.model, lambda: self.caller(data), inputs, opaque=opaque)
        keys = set(opaque)
        alive = second.label
        for bits, stack in second.leaks:
            if not keys & set(stack):
                alive |= bits
        dims = self._dims(small, second, keys) if structure.rows_matter is None else {}
        finished = []
        for call in encoder_calls:
            found = dims.get(call.key, tuple(None for _ in opaque[call.key]))
            live = tuple(bool(alive >> b & 1) for b in opaque[call.key])
            packable = all(d is not None or not a for d, a in zip(found, live, strict=True))
            finished.append(replace(call, dims=found, live=live, packable=packable))
        return replace(
            structure,
            encoder_calls=tuple(finished),
            live_inputs=frozenset(path for b, path in enumerate(masked) if alive >> b & 1),
        )

    def _dims(
        self, small: MaskedBatch, second: Trace, keys: set[CallKey]
    ) -> dict[CallKey, tuple[int | None, ...]]:
        """Sample dimension of every encoder output, read off batches of two sizes."""
        rows = torch.tensor([0, 1, 0])
        other = self.observer.observe(small.rows(rows).whole)
        dims = {}
        for call in second.calls:
            if call.key in keys and call.key in other.calls:
                pairs = zip(call.outputs, other.calls[call.key], strict=True)
                dims[call.key] = tuple(sample_dim(a, b, FEW_ROWS, len(rows)) for a, b in pairs)
        return dims


def perturbed(batch: MaskedBatch, modality: str) -> Any:
    """The batch with one modality's values replaced by others of the same kind."""
    generator = torch.Generator().manual_seed(0)
    values: dict[str, Any] = {}
    for path, owner in batch.masked_paths.items():
        value = batch.values[path]
        if (
            owner != modality
            or not isinstance(value, Tensor)
            or value.layout is not torch.strided
            or not value.numel()
        ):
            continue
        if value.is_floating_point():
            scale = value.float().std().nan_to_num() + 0.1
            noise = torch.randn(value.shape, generator=generator).to(value.device)
            values[path] = (value.float().flip(0) + scale * noise).to(value.dtype)
        elif value.dtype is torch.bool:
            values[path] = ~value
        else:
            order = torch.randperm(value.numel(), generator=generator).to(value.device)
            values[path] = value.reshape(-1)[order].reshape(value.shape)
    return with_values(batch.whole, values) if values else batch.whole
