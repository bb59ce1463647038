"""Networks for the worlds: written down, so that what they make of each modality is known, or briefly trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmaudit.selftest.worlds import World, sample

__all__ = ["CodeNet", "Reading", "TrainedNet", "trained", "written"]


@dataclass(frozen=True)
class Reading:
    """What a written network makes of one modality.

    Args:
        weight: Of its voice; 0: it is ignored, below 0: the opposite of what it says is believed.
        proxy: Whether its proxy is read in place of its source.
    """

    weight: float = 4.0
    proxy: bool = False


class CodeNet(nn.Module):
    """An encoder for each modality that reads its code, and a head that adds up what they say.

    Summands are convolved: each says how likely each of its values is, and a masked one says nothing.

    Args:
        world: Modalities, widths, values.
        reading: Modality -> what is made of it; modalities left out are not called.
    """

    def __init__(self, world: World, reading: Mapping[str, Reading]) -> None:
        super().__init__()
        self.names = tuple(reading)
        kinds = {name: world.sources[world.modalities[name].source].kind for name in self.names}
        self.summands = tuple(name for name in self.names if kinds[name] == "summand")
        self.voices = tuple(name for name in self.names if kinds[name] != "summand")
        self.encoders = nn.ModuleDict(
            {
                name: nn.Linear(
                    world.modalities[name].width, world.values(world.modalities[name].source)
                )
                for name in self.names
            }
        )
        values = sum(world.values(world.modalities[name].source) for name in self.voices)
        self.head = nn.Linear(max(values, 1), world.classes)
        self.classes = world.classes
        self.strength = float(
            np.mean([reading[name].weight for name in self.summands]) if self.summands else 0.0
        )

    def forward(self, **inputs: Tensor) -> Tensor:
        """Logits ``(B, K)`` of one input ``(B, width)`` for each modality."""
        codes = {name: self.encoders[name](inputs[name]) for name in self.names}
        first = next(iter(inputs.values()))
        said = [codes[name] for name in self.voices] or [first.new_zeros(len(first), 1)]
        logits: Tensor = self.head(torch.cat(said, dim=1))
        if self.summands:
            belief = codes[self.summands[0]] + 1 / self.classes
            for name in self.summands[1:]:
                belief = _convolved(belief, codes[name] + 1 / self.classes)
            logits = logits + self.strength * belief
        return logits


def _convolved(first: Tensor, second: Tensor) -> Tensor:
    """Circular convolution of the rows: how likely each sum modulo K is."""
    K = first.shape[1]
    place = (torch.arange(K)[:, None] - torch.arange(K)) % K
    return torch.einsum("bi,bki->bk", first, second[:, place.to(second.device)])


@torch.no_grad()
def written(world: World, reading: Mapping[str, Reading]) -> CodeNet:
    """Write the weights down.

    Args:
        world: What modalities say and how.
        reading: What the network makes of each.

    Returns:
        A network whose masked voices are exactly 0 where zeros are the mean of the data.
    """
    net = CodeNet(world, reading)
    for parameter in net.parameters():
        parameter.zero_()
    start = 0
    for name in net.names:
        carrier, read = world.modalities[name], reading[name]
        V = world.values(carrier.source)
        encoder = net.encoders[name]
        assert isinstance(encoder, nn.Linear)
        first = V if read.proxy else 0
        encoder.weight[:, first : first + V] = torch.eye(V)
        mean = carrier.shift * torch.cos(torch.arange(first, first + V, dtype=torch.float64))
        encoder.bias.copy_(-mean - 1 / V)
        if name in net.voices:
            net.head.weight[:, start : start + V] = read.weight * _votes(world, name)
            start += V
        elif read.weight == 0:
            encoder.weight.zero_()
            encoder.bias.zero_()
    prior = torch.as_tensor(world.frequencies())
    net.head.bias.copy_(prior.log() - prior.log().mean())
    return net.eval()


def _votes(world: World, modality: str) -> Tensor:
    """Which classes each value of a source speaks for, shape ``(K, V)``."""
    source = world.sources[world.modalities[modality].source]
    V = world.values(world.modalities[modality].source)
    label = torch.arange(world.classes)
    if source.kind == "part":
        label = label // int(np.prod(world.digits[: source.digit], dtype=int))
    return F.one_hot(label % V, V).float()


class TrainedNet(nn.Module):
    """A small network: an encoder for each modality, their outputs side by side, a head with one hidden layer.

    Args:
        world: Modalities and classes.
        names: Modalities that it sees.
        hidden: Units of encoders and head.
    """

    def __init__(self, world: World, names: tuple[str, ...], hidden: int = 16) -> None:
        super().__init__()
        self.names = names
        self.encoders = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(world.modalities[name].width, hidden), nn.ReLU())
                for name in names
            }
        )
        self.head = nn.Sequential(
            nn.Linear(hidden * len(names), hidden), nn.ReLU(), nn.Linear(hidden, world.classes)
        )

    def forward(self, **inputs: Tensor) -> Tensor:
        """Logits ``(B, K)``."""
        logits: Tensor = self.head(
            torch.cat([self.encoders[name](inputs[name]) for name in self.names], dim=1)
        )
        return logits


def trained(
    world: World,
    names: tuple[str, ...],
    seed: int,
    *,
    samples: int = 2000,
    epochs: int = 30,
    hidden: int = 16,
) -> TrainedNet:
    """Train a network on samples of its own.

    Args:
        world: Drawn as in training.
        names: Modalities that it sees.
        seed: Of samples, weights and order; the global generator stays as it is.
        samples: To train on.
        epochs: Passes over them.
        hidden: See :class:`TrainedNet`.
    """
    drawn = sample(world, samples, np.random.default_rng(seed), training=True)
    inputs = {name: torch.from_numpy(drawn.inputs[name]) for name in names}
    label = torch.from_numpy(drawn.label).long()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        net = TrainedNet(world, names, hidden)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=1e-4)
        for _ in range(epochs):
            for rows in torch.randperm(samples).split(100):
                optimizer.zero_grad()
                logits = net(**{name: values[rows] for name, values in inputs.items()})
                F.cross_entropy(logits, label[rows]).backward()
                optimizer.step()
    return net.eval()
