"""Which weights belong to one modality: what methods scale that slow a modality down by its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from mmaudit.checkpoint.model import left_as_it_came
from mmaudit.exceptions import ModelError
from mmaudit.masking.calling import Caller
from mmaudit.remedies.base import Remedy
from mmaudit.remedies.input_channels import channels_by_modality
from mmaudit.training.hooks import Training

__all__ = ["Kind", "ModalityWeight", "modality_weights"]

Kind: TypeAlias = Literal["auto", "conv", "weights"]
"""``conv``: weights with four dimensions; ``weights``: with two or more; ``auto``: the first where every modality has some."""

_MIXING = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class ModalityWeight(NamedTuple):
    """A weight, or the part of a weight, that sees one modality alone."""

    modality: int
    name: str
    parameter: nn.Parameter
    channels: Tensor | None
    """Input channels that carry the modality, int64; ``None`` for the whole weight."""


def modality_weights(remedy: Remedy, run: Training, kind: Kind) -> list[ModalityWeight]:
    """Find the trainable weights of every modality.

    Those that see it alone; where there are none, because modalities are concatenated before the first weight, the block of
    the first mixing module that the modality's input channels go through.

    Args:
        remedy: Its structure, task and example are used; what was chosen is added to its notes.
        run: The training, with its model on the device.
        kind: Which weights.

    Raises:
        ModelError: If a modality has no weights of that kind.
    """
    assert remedy.structure is not None
    groups, trainable = (
        remedy.structure.record.parameter_groups,
        {name: p for name, p in run.model.named_parameters() if p.requires_grad},
    )
    own = [
        [
            ModalityWeight(m, name, trainable[name], None)
            for name in groups.get(modality, ())
            if name in trainable and trainable[name].dim() >= 2
        ]
        for m, modality in enumerate(remedy.modalities)
    ]
    lacking = [m for m, weights in enumerate(own) if not weights]
    if lacking:
        for m, block in _blocks(remedy, run, lacking).items():
            own[m] = [block]
        named = ", ".join(dict.fromkeys(own[m][0].name for m in lacking))
        remedy.notes.append(
            f"No weight sees {_any(remedy, lacking)} alone: its input channels of {named} are modulated in their place."
        )
    convolutions = [[w for w in weights if w.parameter.dim() == 4] for weights in own]
    without = [m for m, weights in enumerate(convolutions) if not weights]
    if kind == "conv" and without:
        raise ModelError(
            f"{remedy.title} with parameters 'conv' scales convolution weights (4 dimensions) that see one modality alone, "
            f"and none sees {_any(remedy, without)} alone: take parameters 'weights'."
        )
    if kind == "auto" and without:
        remedy.notes.append(
            f"All weights are modulated, not convolutions only: none of these sees {_any(remedy, without)} alone."
        )
    chosen = own if kind == "weights" or (kind == "auto" and without) else convolutions
    return [weight for weights in chosen for weight in weights]


def _any(remedy: Remedy, modalities: Sequence[int]) -> str:
    return " or ".join(remedy.modalities[m] for m in modalities)


def _blocks(remedy: Remedy, run: Training, lacking: Sequence[int]) -> dict[int, ModalityWeight]:
    """For modalities without weights of their own, their block of the first module that mixes them with others."""
    model = run.model
    parameters = {id(parameter): (name, parameter) for name, parameter in model.named_parameters()}
    modules = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _MIXING)
        and getattr(module, "groups", 1) == 1
        and id(module.weight) in parameters
        and module.weight.requires_grad
    }
    with left_as_it_came(model):
        batch = remedy.task.place(remedy.example, run.device).masked
        calls = channels_by_modality(model, Caller(model, remedy.task.spec), batch, modules)
    reached: dict[str, Tensor] = {}  # over all calls of a module: its weight is one
    for (name, _), reach in calls.items():
        reached[name] = reached[name] | reach if name in reached else reach
    found = {}
    for m in lacking:
        mixing = [
            key[0] for key, reach in calls.items() if reach[m].any() and reach.any(1).sum() > 1
        ]
        if not mixing:
            raise ModelError(
                f"{remedy.title} slows a modality down by weights that see it alone, and {remedy.modalities[m]} has none, "
                "nor does a trainable Linear or Conv mix it with others: use agm, which needs no such weights."
            )
        reach = reached[mixing[0]]
        others = torch.cat([reach[:m], reach[m + 1 :]]).any(0)
        if bool((reach[m] & others).any()):
            raise ModelError(
                f"{remedy.title} slows a modality down by weights that see it alone, and {remedy.modalities[m]} has none: the "
                f"first module that mixes it, '{mixing[0]}', gets it on the same channels as others (added together before "
                "any weight?): use agm, which needs no such weights."
            )
        name, weight = parameters[id(modules[mixing[0]].weight)]
        channels = reach[m].nonzero().squeeze(1).to(weight.device)
        found[m] = ModalityWeight(m, name, weight, channels)
    return found
