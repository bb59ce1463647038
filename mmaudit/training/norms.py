"""How large gradients are beside weights, for every group of parameters: what conditional learning speeds are made of.

A branch has parameters of its own, and there are parameters that carry the other modalities into it: of a cross-modal module
what the branch's own output of it is made of (Wu et al. 2022: the shared squeeze and the branch's excitation of an MMTM). Which
are which is read off the graph of one forward, cut at the outputs of the cross-modal modules, so that nothing has to be known
about how such a module is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmaudit.checkpoint.model import intercepted
from mmaudit.checkpoint.structure import find_structure
from mmaudit.evidence.cutting import CrossModal, Key
from mmaudit.exceptions import DataError, ModelError, SpecError
from mmaudit.masking.calling import Caller
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.masking.paths import get_value, map_tensors
from mmaudit.masking.spec import BranchesSpec, MaskingSpec
from mmaudit.training.branches import trainable_behind

__all__ = ["ParameterGroups", "group_norms", "parameter_groups"]


class ParameterGroups(NamedTuple):
    """Names of the trainable parameters of each group."""

    own: dict[str, tuple[str, ...]]
    """Modality -> parameters of its branch, its classifier included; without branches: what sees this modality alone."""
    crossing: dict[str, tuple[str, ...]]
    """Modality -> parameters that carry the others into its branch; empty without branches. A parameter may be in several."""
    shared: tuple[str, ...]
    """Parameters of no single modality; empty where there are branches."""


def parameter_groups(model: nn.Module, spec: MaskingSpec, batch: MaskedBatch) -> ParameterGroups:
    """Which parameters belong to which branch, and which carry the others into it.

    Args:
        model: In evaluation mode; the caller leaves it as it came.
        spec: Modalities; ``branches`` names the branches' outputs and the cross-modal modules.
        batch: A few samples with everything present.

    Raises:
        SpecError: If the branches of the spec are not the model's.
        ModelError: If the model cannot be called as the spec says.
    """
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    if spec.branches is not None:
        own, crossing = _by_branch(model, spec, spec.branches, batch)
        return ParameterGroups(_named(own, names), _named(crossing, names), ())
    with torch.no_grad():
        found = find_structure(model, Caller(model, spec), batch).record.parameter_groups
    trainable = set(names.values())
    groups = {name: tuple(p for p in found.get(name, ()) if p in trainable) for name in spec.names}
    taken = {p for group in groups.values() for p in group} | set(found.get("unused", ()))
    return ParameterGroups(groups, {}, tuple(p for p in names.values() if p not in taken))


def group_norms(model: nn.Module, groups: ParameterGroups) -> dict[str, float]:
    """Squared norms of gradients and weights, pooled over each group.

    Args:
        model: After ``backward`` and before the optimiser's step.
        groups: From :func:`parameter_groups`.

    Returns:
        ``"audio own gradient"``, ``"audio own weight"``, ``"audio crossing gradient"``, ..., ``"shared weight"`` -> squared L2
        norm, names that :mod:`mmaudit.evidence.recorded_norms` reads. A group none of whose parameters has a gradient is left out.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> _ = layer.weight.data.fill_(3.0)
        >>> layer(torch.full((1, 1), 2.0)).sum().backward()
        >>> group_norms(layer, ParameterGroups({"audio": ("weight",)}, {}, ()))
        {'audio own gradient': 4.0, 'audio own weight': 9.0}
    """
    parameters = dict(model.named_parameters())
    wanted = {f"{m} own": names for m, names in groups.own.items()}
    wanted |= {f"{m} crossing": names for m, names in groups.crossing.items()}
    wanted["shared"] = groups.shared
    norms: dict[str, Tensor] = {}
    for title, chosen in wanted.items():
        group = [parameters[name] for name in chosen if name in parameters]
        gradients = [p.grad.detach() for p in group if p.grad is not None]
        if gradients:
            norms[f"{title} gradient"] = _norm(gradients)
            norms[f"{title} weight"] = _norm([p.detach() for p in group])
    if not norms:
        return {}
    # Read together: every number that is read from a device waits for it.
    device = next(iter(norms.values())).device
    found = torch.stack([norm.to(device) for norm in norms.values()]).tolist()
    return {name: value**2 for name, value in zip(norms, found, strict=True)}


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """L2 norm of all entries together."""
    dense = [t.coalesce().values() if t.is_sparse else t for t in tensors]
    return torch.nn.utils.get_total_norm([t.float() for t in dense])


def _named(groups: Mapping[str, set[int]], names: Mapping[int, str]) -> dict[str, tuple[str, ...]]:
    """Ids of parameters as their names, in the model's order."""
    return {
        modality: tuple(name for key, name in names.items() if key in ids)
        for modality, ids in groups.items()
    }


def _by_branch(
    model: nn.Module, spec: MaskingSpec, branches: BranchesSpec, batch: MaskedBatch
) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """Ids of the parameters of every branch, and of those that carry others into it.

    Every output of a cross-modal module becomes a leaf. Whatever reaches a branch's scores, or what a later module is given of
    that branch, without passing such a leaf is the branch's own; the parameters behind the leaves that it starts from cross.
    """
    cross = CrossModal(model, branches)
    modules = {name: model.get_submodule(name) for name in branches.modules}
    inside = {id(p) for module in modules.values() for p in module.parameters()}
    ends: dict[str, list[Tensor]] = {name: [] for name in branches.outputs}
    behind: dict[int, set[int]] = {}
    leaves: list[Tensor] = []

    def arriving(key: Key, features: Tensor) -> Tensor:
        ends.setdefault(key.modality, []).append(features)
        return _leaf(features)[1]

    def leaving(
        name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        def cut(output: Tensor) -> Tensor:
            if not output.is_floating_point():
                return output
            leaf, copy = _leaf(output)
            leaves.append(leaf)
            behind[id(leaf)] = {id(p) for p in trainable_behind(output)} & inside
            return copy

        return map_tensors(forward(*args, **kwargs), cut)

    caller = Caller(model, spec)
    with torch.enable_grad():
        arguments, keywords = caller.arguments(map_tensors(batch.whole, torch.clone))
        with cross.visited(arriving), intercepted(modules, leaving):
            returned = model(*arguments, **keywords)
        for name, path in branches.outputs.items():
            try:
                scores = get_value(returned, path)
            except DataError as error:
                raise ModelError(f"branches.outputs: {name}: {error}") from None
            if not isinstance(scores, Tensor):
                raise SpecError(f"branches.outputs: '{path}' ({name}) is no tensor of scores.")
            ends[name].append(scores)
        own: dict[str, set[int]] = {}
        crossing: dict[str, set[int]] = {}
        for name, tensors in ends.items():
            reached = {id(leaf) for tensor in tensors for leaf in trainable_behind(tensor)}
            own[name] = reached - inside - set(behind)
            crossing[name] = set().union(*(behind[key] for key in reached & set(behind)))
    return own, crossing


def _leaf(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The end of a graph, and a copy of it that may be written to."""
    leaf = tensor.detach().requires_grad_()
    return leaf, leaf.clone()
