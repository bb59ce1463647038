"""One row of the zoo: a small architecture, its batches, its spec, and what is known about it without running the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmaudit.masking.spec import MaskingSpec

__all__ = [
    "CLASSES",
    "HIDDEN",
    "PAIR",
    "Architecture",
    "Pair",
    "Registry",
    "integers",
    "normal",
    "perceptron",
    "vectors",
]

HIDDEN, CLASSES = 8, 3


@dataclass(frozen=True)
class Architecture:
    """A model nobody wrote for mmaudit.

    ``None`` in a fact means that the answer is a matter of taste and is not checked.
    """

    name: str
    build: Callable[[], Any]
    batch: Callable[[int], Any]
    spec: MaskingSpec
    sizes: tuple[int, ...] = (1, 2, 5, 33)
    encoders: Mapping[str, tuple[str, ...]] | None = None
    """Modality -> largest modules with parameters that see it alone."""
    fusion: tuple[str | None, ...] | None = None
    """Names that are all right for the fusion module."""
    head: str | None = None
    sees: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Module -> modalities that its outputs depend on."""
    calls: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    """Parameter -> group that it belongs to."""
    unused: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    """Modalities that the outputs do not depend on."""
    stochastic: bool = False
    samples_interact: bool | None = False
    differentiable: bool = True
    tolerance: float = 1e-5

    def model(self) -> Any:
        """The model with the same weights each time; the caller's generator is left alone."""
        with torch.random.fork_rng():
            torch.manual_seed(17)
            return self.build()


class Registry(list[Architecture]):
    """Rows in the order of their definition."""

    def row(
        self,
        *,
        batch: Callable[[int], Any] | None = None,
        modalities: Mapping[str, Any] | None = None,
        spec: Mapping[str, Any] | None = None,
        **facts: Any,
    ) -> Callable[[Any], Any]:
        """Enter a module class, or a function that builds a model, under its name."""
        names = modalities or {"a": "a", "v": "v"}
        masking = MaskingSpec.model_validate({"modalities": dict(names), **(spec or {})})

        def enter(build: Any) -> Any:
            self.append(
                Architecture(
                    name=build.__name__,
                    build=build,
                    batch=batch or vectors,
                    spec=masking,
                    **facts,
                )
            )
            return build

        return enter


def normal(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers that depend on the seed and the shape alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def integers(seed: int, low: int, high: int, *shape: int) -> Tensor:
    """Integers in [low, high)."""
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def vectors(size: int) -> dict[str, Tensor]:
    """Modality ``a`` with six numbers per sample, ``v`` with five."""
    return {"a": normal(1, size, 6), "v": normal(2, size, 5), "y": integers(3, 0, CLASSES, size)}


def perceptron(inputs: int, outputs: int = HIDDEN) -> nn.Sequential:
    """Two layers."""
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, outputs))


PAIR: dict[str, Any] = {
    "encoders": {"a": ("enc_a",), "v": ("enc_v",)},
    "fusion": ("head",),
    "head": "head",
}
"""The facts of :class:`Pair` with concatenated features."""


class Pair(nn.Module):
    """An encoder per modality and a linear head."""

    def __init__(self, width: int = 2 * HIDDEN) -> None:
        super().__init__()
        self.enc_a = perceptron(6)
        self.enc_v = perceptron(5)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Any:
        return self.head(torch.cat([self.enc_a(a), self.enc_v(v)], 1))
