"""Models of branches that exchange information, some with a cut of their own to compare with, and what evidence needs around them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from mmaudit.checkpoint.structure import find_structure
from mmaudit.checkpoint.subject import Subject
from mmaudit.evidence.coalitions import CoalitionEvaluator
from mmaudit.evidence.collecting import Collector
from mmaudit.evidence.data import open_source
from mmaudit.evidence.masks import gather_masks
from mmaudit.evidence.processes import Processes
from mmaudit.evidence.scoring import value_function
from mmaudit.evidence.surroundings import Surroundings
from mmaudit.masking.spec import MaskingSpec
from mmaudit.measures.shapley import shapley_matrix


def surroundings(model, data, spec, work: Path, *, train=None, progress=None, seed=0):
    """An opened audit of a module in memory."""
    spec = MaskingSpec.model_validate(spec)
    subject = Subject(model.eval(), spec, data, train)
    source = open_source(data, spec)
    masks = gather_masks(subject, source, seed=seed)
    collector = None
    for structure in (None, "found"):
        if structure is not None:
            structure = find_structure(
                model, collector.evaluator.caller, collector.prepare(source.first())
            )
        collector = Collector(
            source=source,
            evaluator=CoalitionEvaluator(model, spec, structure, seed=seed),
            masks=masks,
            value=value_function(spec),
            responses=shapley_matrix(len(spec.names)),
            processes=Processes("cpu"),
            progress=progress,
        )
    opened = None if train is None else open_source(train, spec)
    return Surroundings(subject, collector, structure, opened, work, {"seed": seed})


class ScalarMMTM(nn.Module):
    """Z = relu(S0 + S1 - 1); E0 = sigmoid(Z - 1), E1 = sigmoid(-Z)."""

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.relu(first + second - 1)
        return torch.sigmoid(z - 1), torch.sigmoid(-z)


class ScalarModel(nn.Module):
    """Its branches' scores are the gates themselves, against 0."""

    def __init__(self) -> None:
        super().__init__()
        self.mmtm = ScalarMMTM()

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gates = self.mmtm(a, b)
        scores = [torch.stack([gate[:, 0], torch.zeros(len(gate))], 1) for gate in gates]
        return sum(scores) / 2, *scores


class MMTM(nn.Module):
    """Squeeze and excitation across any number of modalities; ``told`` stands in for squeezes, by place."""

    def __init__(self, channels, *, last=False, kind="mean") -> None:
        super().__init__()
        width = sum(channels)
        self.squeeze = nn.Linear(width, width // 2)
        self.excite = nn.ModuleList([nn.Linear(width // 2, c) for c in channels])
        with torch.no_grad():
            for weights in self.parameters():
                weights *= 6  # gates that open and close
        self.last, self.kind = last, kind
        self.told: dict[int, Tensor] = {}

    def forward(self, *features: Tensor) -> list[Tensor]:
        between = [
            tuple(range(1, f.dim() - 1) if self.last else range(2, f.dim())) for f in features
        ]
        squeezes = [self._squeezed(f, dims) for f, dims in zip(features, between)]
        for place, mean in self.told.items():
            squeezes[place] = mean.float().expand_as(squeezes[place])
        z = torch.relu(self.squeeze(torch.cat(squeezes, 1)))
        out = []
        for f, dims, excite in zip(features, between, self.excite):
            gate = torch.sigmoid(excite(z))
            for dim in dims:
                gate = gate.unsqueeze(dim)
            out.append(f * gate)
        return out

    def _squeezed(self, features: Tensor, dims: tuple[int, ...]) -> Tensor:
        if not dims:
            return features
        return features.mean(dims) if self.kind == "mean" else features.amax(dims)


class Pictures(nn.Module):
    """Convolutional branches of any number, with two MMTMs; ``frames`` is one-dimensional."""

    def __init__(self, dims=(2, 2), *, classes=3, kind="mean") -> None:
        super().__init__()
        conv = [None, nn.Conv1d, nn.Conv2d, nn.Conv3d]
        self.first = nn.ModuleList([conv[d](1, 4 + m, 3, padding=1) for m, d in enumerate(dims)])
        self.second = nn.ModuleList(
            [conv[d](4 + m, 4 + m, 3, padding=1) for m, d in enumerate(dims)]
        )
        widths = [4 + m for m in range(len(dims))]
        self.early, self.late = MMTM(widths, kind=kind), MMTM(widths, kind=kind)
        self.heads = nn.ModuleList([nn.Linear(c, classes) for c in widths])

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        features = [torch.relu(layer(x)) for layer, x in zip(self.first, inputs)]
        features = self.early(*features)
        features = [torch.relu(layer(x)) for layer, x in zip(self.second, features)]
        features = self.late(*features)
        scores = [head(f.flatten(2).mean(2)) for head, f in zip(self.heads, features)]
        found = {f"branch{m}": score for m, score in enumerate(scores)}
        return {"fused": torch.stack(scores).mean(0), **found}


class Named(nn.Module):
    """A gate that is called by keyword, and again for every step of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.heads = nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3)])

    def forward(self, sound: Tensor, sight: Tensor) -> dict[str, Tensor]:
        a, b = sound[:, 0], sight[:, 0]
        for step in range(1, sound.shape[1]):
            a, b = self.gate(a + sound[:, step], seen=b + sight[:, step])
        scores = {"sound": self.heads[0](a), "sight": self.heads[1](b)}
        return {"fused": sum(scores.values()) / 2, "by": scores}


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(8, 8)
        self.told: dict[tuple[int, int], Tensor] = {}
        self.calls = 0

    def forward(self, heard: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        squeezes = [
            self.told.get((self.calls, place), f).float().expand_as(f)
            for place, f in enumerate((heard, seen))
        ]
        self.calls += 1
        gates = torch.sigmoid(self.mix(torch.cat(squeezes, 1)))
        return heard * gates[:, :4], seen * gates[:, 4:]


def batches(*tensors: Tensor, names, labels: Tensor, size: int = 16, **more):
    """Batches of a mapping."""
    return [
        {name: t[at : at + size] for name, t in zip(names, tensors)}
        | {"label": labels[at : at + size]}
        | {name: values[at : at + size] for name, values in more.items()}
        for at in range(0, len(labels), size)
    ]
