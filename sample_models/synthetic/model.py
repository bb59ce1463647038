"""Late-fusion models whose weights are written down, not trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sample_models.synthetic.cases import CASES, Case
from sample_models.synthetic.data import FEATURES

__all__ = ["BitModel", "build", "construct"]

_SCALE = 4.0


class BitModel(nn.Module):
    """One encoder per modality, giving (says 1, says 0); a head over all of them.

    Args:
        modalities: Their names, in the order of the arguments of ``forward``.
        classes: K.
        parity: Whether the head has the hidden layer that parity needs.
    """

    def __init__(self, modalities: tuple[str, ...], classes: int, *, parity: bool) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(FEATURES, 2, bias=False), nn.ReLU())
                for name in modalities
            }
        )
        width = 2 * len(modalities)
        self.head: nn.Module = nn.Linear(width, classes, bias=False)
        if parity:
            self.head = nn.Sequential(
                nn.Linear(width, 4), nn.ReLU(), nn.Linear(4, classes, bias=False)
            )

    def forward(self, *inputs: Tensor) -> Tensor:
        """Logits, shape ``(B, K)``, of one input ``(B, 6)`` per modality."""
        latents = [encode(x) for encode, x in zip(self.encoders.values(), inputs, strict=True)]
        return self.head(torch.cat(latents, dim=1))


def build(case: str) -> BitModel:
    """The model of a case, without its weights."""
    chosen = CASES[case]
    return BitModel(tuple(chosen.modalities), chosen.classes, parity=chosen.parity)


@torch.no_grad()
def construct(case: str) -> BitModel:
    """The model of a case with the weights that card.md derives.

    All latents are 0 or 1 and all weights multiples of 1, so logits are exact and ties are ties.
    """
    chosen, model = CASES[case], build(case)
    for parameter in model.parameters():
        parameter.zero_()
    for name, told in chosen.modalities.items():
        if told.read is not None:
            weight = model.encoders[name][0].weight
            weight[0, told.read], weight[1, told.read] = 1.0, -1.0
    if chosen.parity:
        _write_parity(model)
    else:
        _write_votes(chosen, model)
    return model


def _write_votes(case: Case, model: BitModel) -> None:
    """Every modality votes for the classes that have its bit as it says."""
    for m, told in enumerate(case.modalities.values()):
        bit = case.sources[told.source].bit
        for label in range(case.classes):
            said_one = label >> bit & 1
            model.head.weight[label, 2 * m + (0 if said_one else 1)] = _SCALE


def _write_parity(model: BitModel) -> None:
    """One hidden unit per pair of answers, on only when both modalities gave them."""
    first, last = model.head[0], model.head[2]
    for unit, (a, b) in enumerate(((1, 1), (1, 0), (0, 1), (0, 0))):
        first.weight[unit, 0 if a else 1] = 1.0
        first.weight[unit, 2 if b else 3] = 1.0
        first.bias[unit] = -1.0
        last.weight[a ^ b, unit] = _SCALE
