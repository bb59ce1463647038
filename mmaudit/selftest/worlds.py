"""Worlds with known answers: what each modality says about a label, and how inputs carry it.

A label has K classes. A *source* says something about it (the label, a part of it, a summand of it, nothing, the wrong thing) and
is right for a known share of the samples; a modality carries one source as a code in a few coordinates, with noise so small beside
it that the code is read without error. Everything that can be known about the label is therefore known exactly, and two
modalities with one source are copies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from mmaudit.typing import FloatArray, IntArray

__all__ = ["Carrier", "Samples", "Source", "World", "sample", "unimodal_accuracy"]

SourceKind = Literal["label", "part", "summand", "noise", "wrong"]


@dataclass(frozen=True)
class Source:
    """What is said about the label.

    Args:
        kind: ``label``: the class; ``part``: one digit of the label, which then is a number of several digits; ``summand``: one of
            the numbers whose sum modulo K is the label, which says nothing alone; ``noise``: any class; ``wrong``: in training the
            class, in the audited data the next one.
        right: Share of the samples for which it says what it should; else any other value, equally often.
        digit: Of a ``part``: which, the least significant is 0.
    """

    kind: SourceKind = "label"
    right: float = 1.0
    digit: int = 0


@dataclass(frozen=True)
class Carrier:
    """A modality: its source and the shape of its input.

    Args:
        source: Name of the source.
        proxy: Name of a second source of as many values, right less often, in the coordinates after the first one's; left out: none.
        width: Coordinates; there must be one for each value of source and proxy.
        shift: Mean of coordinate j is ``shift * cos(j)``: where it is not 0, an input of zeros is far from the data.
        noise: Standard deviation of the noise in every coordinate; a code has height 1.
    """

    source: str
    proxy: str | None = None
    width: int = 8
    shift: float = 0.0
    noise: float = 0.05


@dataclass(frozen=True)
class World:
    """Labels, sources and modalities.

    Args:
        sources: By name.
        modalities: By name, in order.
        classes: K.
        digits: Values of each digit of the label, where sources say parts of it; their product is K.
        prior: Frequency of each class; left out: all alike. Of no use with summands, whose sum decides.
        group_size: Samples of a group share the label and what sources say; 1: samples are independent.
    """

    sources: dict[str, Source]
    modalities: dict[str, Carrier]
    classes: int = 2
    digits: tuple[int, ...] = ()
    prior: tuple[float, ...] = ()
    group_size: int = 1

    def values(self, source: str) -> int:
        """Number of values that a source takes."""
        given = self.sources[source]
        return self.digits[given.digit] if given.kind == "part" else self.classes

    def frequencies(self) -> FloatArray:
        """Frequency of each class, shape ``(K,)``."""
        return np.array(self.prior or [1 / self.classes] * self.classes)


@dataclass(frozen=True)
class Samples:
    """Drawn samples.

    Attributes:
        inputs: Modality -> float32 ``(n, width)``.
        says: Source -> what it says, ``(n,)``.
        label: ``(n,)``.
        group: Group of each sample, ``(n,)``; all different where samples are independent.
    """

    inputs: dict[str, FloatArray]
    says: dict[str, IntArray]
    label: IntArray
    group: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))


def sample(world: World, n: int, rng: np.random.Generator, *, training: bool = False) -> Samples:
    """Draw samples.

    Args:
        world: Of which.
        n: How many.
        rng: Draws them.
        training: As in training, where a ``wrong`` source is still right.
    """
    number = -(-n // world.group_size)
    group = np.repeat(np.arange(number), world.group_size)[:n]
    label, says = _labels(world, number, rng, training=training)
    label, says = label[group], {name: values[group] for name, values in says.items()}
    inputs = {
        name: _encode(world, carrier, says, rng) for name, carrier in world.modalities.items()
    }
    return Samples(inputs, says, label, group)


def _labels(
    world: World, n: int, rng: np.random.Generator, *, training: bool
) -> tuple[IntArray, dict[str, IntArray]]:
    K = world.classes
    summands = [name for name, source in world.sources.items() if source.kind == "summand"]
    terms = {name: rng.integers(0, K, n) for name in summands}
    label = np.asarray(
        sum(terms.values()) % K if terms else rng.choice(K, n, p=world.frequencies())
    )
    says = {}
    for name, source in world.sources.items():
        should = {
            "label": label,
            "part": label // int(np.prod(world.digits[: source.digit], dtype=int)),
            "summand": terms.get(name, label),
            "noise": rng.integers(0, K, n),
            "wrong": label if training else label + 1,
        }[source.kind] % world.values(name)
        wrong = rng.random(n) >= source.right
        other = (should + rng.integers(1, max(world.values(name), 2), n)) % world.values(name)
        says[name] = np.where(wrong, other, should)
    return label, says


def _encode(
    world: World, carrier: Carrier, says: dict[str, IntArray], rng: np.random.Generator
) -> FloatArray:
    code = says[carrier.source]
    mean = carrier.shift * np.cos(np.arange(carrier.width))
    values = rng.normal(0.0, carrier.noise, (len(code), carrier.width)) + mean
    rows = np.arange(len(code))
    values[rows, code] += 1.0
    if carrier.proxy is not None:
        values[rows, world.values(carrier.source) + says[carrier.proxy]] += 1.0
    return np.asarray(values, dtype=np.float32)


def unimodal_accuracy(world: World, modality: str) -> float:
    """Accuracy of the best prediction from one modality alone, exactly.

    A proxy changes no prediction: where it differs from the source, the source is right more often.

    Example:
        >>> world = World({"s": Source(right=0.9)}, {"a": Carrier("s")}, classes=3)
        >>> round(unimodal_accuracy(world, "a"), 6)
        0.9
    """
    name = world.modalities[modality].source
    source, V, K = world.sources[name], world.values(name), world.classes
    if source.kind in ("summand", "noise"):
        return float(world.frequencies().max())
    table = np.zeros((K, V))
    for k, frequency in enumerate(world.frequencies()):
        below = int(np.prod(world.digits[: source.digit], dtype=int))
        should = {"label": k, "wrong": k + 1, "part": k // below}[source.kind] % V
        table[k] = frequency * (1 - source.right) / max(V - 1, 1)
        table[k, should] = frequency * source.right
    return float(table.max(axis=0).sum())
