"""The encoders of a user's model, as something that other modules are built on.

A branch is what a model computes of one modality alone: what its encoder calls return and the fusion reads, one vector per
sample. To get it the model's own forward runs, its calls are watched, and it is left as soon as the last encoder has
answered. So nothing has to be known about how inputs reach the encoders, no code is edited, and what comes after the
encoders neither runs nor draws random numbers nor moves its batch statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from mmaudit.checkpoint.model import intercepted
from mmaudit.checkpoint.structure import Structure
from mmaudit.checkpoint.tracing import CallKey, output_tensors
from mmaudit.exceptions import ModelError
from mmaudit.masking.calling import Caller
from mmaudit.masking.masked_batch import MaskedBatch, batch_dimension
from mmaudit.masking.paths import tensor_paths, with_values

__all__ = [
    "Branch",
    "Branched",
    "Tap",
    "branch_features",
    "find_branches",
    "pooled",
    "trainable_behind",
]


class Tap(BaseModel):
    """One tensor that an encoder call returns, and how it becomes a vector per sample."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    module: str
    """Dotted name in the user's model."""
    call: int = 0
    """Running number among the module's calls in one forward."""
    tensor: int = 0
    """Which of the tensors that the call returns."""
    samples: int = 0
    """Dimension that runs over samples."""
    features: int | None = None
    """Dimension that runs over features; ``None`` where there is one number per sample. Others are averaged over."""


class Branch(BaseModel):
    """Where the features of one modality are: the pooled taps, side by side."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    taps: tuple[Tap, ...]
    width: int
    """Number d_m of features."""


class Branched(nn.Module):
    """A module built on the encoders of a user's model.

    Args:
        model: The user's model, whose parameters and buffers become part of this one.
        branches: Modality -> its branch, from :func:`find_branches`.
    """

    def __init__(self, model: nn.Module, branches: Mapping[str, Branch]) -> None:
        super().__init__()
        self.model = model
        self.branches = dict(branches)

    def features(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Features of every modality; see :func:`branch_features`."""
        return branch_features(self.model, self.branches, args, kwargs)


def branch_features(
    model: nn.Module,
    branches: Mapping[str, Branch],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> dict[str, Tensor]:
    """What the encoders make of one batch, differentiable, in the train flags that the modules have.

    Args:
        model: The user's model.
        branches: Modality -> its branch.
        args: As the model's forward takes them.
        kwargs: The same.

    Returns:
        Modality -> features ``(n, d_m)``. A modality whose encoders the forward did not call at all is missing: it was left
        out of the call.

    Raises:
        ModelError: If only some of a modality's encoder calls were made.
    """
    wanted: dict[CallKey, list[tuple[str, int, Tap]]] = {}
    for modality, branch in branches.items():
        for place, tap in enumerate(branch.taps):
            wanted.setdefault((tap.module, tap.call), []).append((modality, place, tap))
    found: dict[tuple[str, int], Tensor] = {}
    total = sum(len(branch.taps) for branch in branches.values())
    counts: dict[str, int] = {}

    def handle(
        name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        key = (name, counts.get(name, 0))
        counts[name] = key[1] + 1
        out = forward(*args, **kwargs)
        if key in wanted:
            tensors = output_tensors(out)
            for modality, place, tap in wanted[key]:
                # At once: what follows may overwrite what an encoder returned.
                found[modality, place] = pooled(tensors[tap.tensor], tap)
            if len(found) == total:
                raise _AllAnsweredError
        return out

    modules = {
        name: model.get_submodule(name) for name in dict.fromkeys(name for name, _ in wanted)
    }
    try:
        with intercepted(modules, handle):
            model(*args, **kwargs)
    except _AllAnsweredError:
        pass
    features: dict[str, Tensor] = {}
    for modality, branch in branches.items():
        parts = [found.get((modality, place)) for place in range(len(branch.taps))]
        made = [part for part in parts if part is not None]
        if not made:
            continue
        if len(made) < len(parts):
            tap = branch.taps[parts.index(None)]
            raise ModelError(
                f"module '{tap.module}' was called {counts.get(tap.module, 0)} times where {tap.call + 1} calls give the "
                f"features of {modality}: its encoders have to be called alike for every batch."
            )
        features[modality] = made[0] if len(made) == 1 else torch.cat(made, 1)
    return features


def pooled(tensor: Tensor, tap: Tap) -> Tensor:
    """One vector per sample: the mean over everything but samples and features.

    Returns:
        Shape ``(n, d)``, no view of the tensor.

    Example:
        >>> maps = torch.arange(24.0).reshape(2, 3, 2, 2)
        >>> pooled(maps, Tap(module="cnn", features=1))
        tensor([[ 1.5000,  5.5000,  9.5000],
                [13.5000, 17.5000, 21.5000]])
    """
    others = [d for d in range(tensor.dim()) if d not in (tap.samples, tap.features)]
    vectors = tensor.mean(others) if others else tensor.clone()
    if tap.features is None:
        return vectors.unsqueeze(1)
    return vectors.T if tap.features < tap.samples else vectors


def find_branches(
    model: nn.Module, structure: Structure, caller: Caller, batch: MaskedBatch
) -> dict[str, Branch]:
    """Where each modality's features are.

    They are what the modality's encoder calls return and something else reads, as far as it is floating point and has a row for
    every sample; where the spec names a modality's encoders, what these return. Sequences ``(n, T, C)`` are averaged over T, maps
    ``(n, C, H, W)`` over H and W. Which dimension holds the features follows from the last layer inside the call that has a number
    of them (convolutions and their norms: the second; linear layers, recurrent ones and layer norms: the last), if the output has
    that size there; failing that the last of three dimensions, the second of more.

    Args:
        model: In evaluation mode; the caller leaves it as it came.
        structure: What is known of its inside.
        caller: Calls it.
        batch: At least one sample.

    Returns:
        Modality -> branch, for those modalities that have one.

    Raises:
        ModelError: If the spec names an encoder that is never called or sees another modality.
    """
    spec = batch.spec
    wanted: dict[CallKey, str] = {}
    known = {call.key: call for call in structure.encoder_calls}
    rows = {row.name: row for row in structure.record.modules}
    for m, (modality, part) in enumerate(spec.modalities.items()):
        if part.encoders is None:
            # The model itself counts as an encoder where there is one modality: it is no part to build on.
            keys = (key for key, call in known.items() if call.modality == m and key[0])
            wanted.update(dict.fromkeys(keys, modality))
            continue
        for name in part.encoders:
            row = rows.get(name)
            if row is None or not row.calls or set(row.modalities) - {modality}:
                seen = ", ".join(row.modalities) if row is not None and row.calls else "nothing"
                raise ModelError(
                    f"the spec calls '{name}' an encoder of {modality}, and it sees {seen}: name a module that sees {modality} alone."
                )
            wanted.update({(name, number): modality for number in range(row.calls)})
    data = batch.whole
    if structure.mutates_inputs or structure.fallback is not None:
        data = with_values(data, {path: t.clone() for path, t in tensor_paths(data).items()})
    outputs, last = _watched(model, lambda: caller(data), wanted)
    found: dict[str, list[tuple[Tap, int]]] = {}
    for key, modality in wanted.items():
        own = spec.modalities[modality].encoders is None
        live = known[key].live if own and key in known else ()
        dims = known[key].dims if key in known else ()
        taken: list[Tensor] = []
        for place, tensor in enumerate(outputs.get(key, ())):
            repeated = any(tensor is other for other in taken)
            if (live and not live[place]) or repeated or not _is_dense(tensor):
                continue
            samples = dims[place] if dims and dims[place] is not None else None
            samples = batch_dimension(tensor, batch.n) if samples is None else samples
            if samples is None or tensor.shape[samples] != batch.n:
                continue
            features = _feature_dimension(tuple(tensor.shape), samples, last.get(key))
            tap = Tap(module=key[0], call=key[1], tensor=place, samples=samples, features=features)
            width = 1 if features is None else tensor.shape[features]
            taken.append(tensor)
            found.setdefault(modality, []).append((tap, width))
    return {
        name: Branch(
            taps=tuple(tap for tap, _ in found[name]), width=sum(width for _, width in found[name])
        )
        for name in spec.names
        if name in found
    }


def trainable_behind(tensor: Tensor) -> list[Tensor]:
    """Leaves that gradients of a tensor reach, found without a backward pass.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> [tuple(leaf.shape) for leaf in trainable_behind(layer(torch.ones(1, 2)))]
        [(1,), (1, 2)]
    """
    if tensor.grad_fn is None:
        return [tensor] if tensor.requires_grad else []
    seen, todo, leaves = {tensor.grad_fn}, [tensor.grad_fn], []
    while todo:
        node = todo.pop(0)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                todo.append(following)
    return leaves


class _AllAnsweredError(BaseException):
    """Leaves a forward whose encoders have all answered; no ``Exception``, so that foreign code does not handle it."""


def _is_dense(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.layout is torch.strided and not tensor.is_nested


def _watched(
    model: nn.Module, call: Callable[[], Any], wanted: Mapping[CallKey, str]
) -> tuple[dict[CallKey, list[Tensor]], dict[CallKey, tuple[int, int]]]:
    """What the wanted calls return, and the last layer with a number of features inside each."""
    outputs: dict[CallKey, list[Tensor]] = {}
    last: dict[CallKey, tuple[int, int]] = {}
    counts: dict[str, int] = {}
    inside: list[CallKey] = []
    modules = dict(model.named_modules())

    def handle(
        name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        key = (name, counts.get(name, 0))
        counts[name] = key[1] + 1
        if key in wanted:
            inside.append(key)
        out = forward(*args, **kwargs)
        layer = _layer_features(modules[name])
        if layer is not None:
            last.update(dict.fromkeys(inside, layer))
        if key in wanted:
            inside.pop()
            outputs[key] = output_tensors(out)
        return out

    with intercepted(modules, handle):
        call()
    return outputs, last


def _layer_features(module: nn.Module) -> tuple[int, int] | None:
    """Dimension and number of the features that a layer returns, where its kind says so."""
    if isinstance(module, (nn.Linear, nn.Bilinear)):
        return -1, module.out_features
    if isinstance(module, nn.modules.conv._ConvNd):
        return 1, module.out_channels
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return 1, module.num_features
    if isinstance(module, nn.GroupNorm):
        return 1, module.num_channels
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and len(module.normalized_shape) == 1:
        return -1, module.normalized_shape[0]
    if isinstance(module, nn.RNNBase):
        return -1, (module.proj_size or module.hidden_size) * (2 if module.bidirectional else 1)
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return -1, module.embedding_dim
    if isinstance(module, nn.MultiheadAttention):
        return -1, module.embed_dim
    return None


def _feature_dimension(
    shape: tuple[int, ...], samples: int, layer: tuple[int, int] | None
) -> int | None:
    """The dimension of an encoder's output that runs over features."""
    others = [d for d in range(len(shape)) if d != samples]
    if len(others) < 2:
        return others[0] if others else None
    if layer is not None:
        preferred = layer[0] % len(shape)
        fitting = [d for d in others if shape[d] == layer[1]]
        if preferred in fitting:
            return preferred
        if len(fitting) == 1:
            return fitting[0]
    return others[-1] if len(others) == 2 else others[0]
