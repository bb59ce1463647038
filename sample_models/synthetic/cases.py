"""The closed-form subjects, declared: what each modality says, how reliably, and what the model reads of it.

The label is a number of B bits. A modality tells one of them through a source that is right for an exact share of the
samples; the model reads the bit itself, a poorer proxy that lies beside it, or nothing. See card.md for the answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

__all__ = ["CASES", "Case", "Source", "Told"]


@dataclass(frozen=True)
class Source:
    """Something that says one bit of the label and is right for an exact share of the samples.

    Sources err independently of each other and of the label; two modalities with one source are copies.
    """

    bit: int
    right: Fraction = Fraction(1)


@dataclass(frozen=True)
class Told:
    """What one modality carries, and what the model makes of it.

    Args:
        source: Name of the source in coordinate 0 of the input.
        proxy: Name of the source in coordinate 1; left out: nothing but noise is there.
        read: Coordinate that the model's encoder reads; ``None``: it multiplies all by 0.
    """

    source: str
    proxy: str | None = None
    read: Literal[0, 1] | None = 0


@dataclass(frozen=True)
class Case:
    """One subject.

    Args:
        bits: B; there are 2**B classes.
        sources: By name.
        modalities: By name, in order.
        parity: The label is not the bits but their parity (two classes), and the head computes it.
        repeats: Samples for every combination of label bits and source errors.
    """

    bits: int
    sources: dict[str, Source]
    modalities: dict[str, Told]
    parity: bool = False
    repeats: int = 1

    @property
    def classes(self) -> int:
        """Number of classes."""
        return 2 if self.parity else 2**self.bits


_MOSTLY = Fraction(9, 10)

CASES: dict[str, Case] = {
    "balanced2": Case(
        bits=2,
        sources={"s0": Source(0, _MOSTLY), "s1": Source(1, _MOSTLY)},
        modalities={"a": Told("s0"), "b": Told("s1")},
        repeats=3,
    ),
    "balanced3": Case(
        bits=3,
        sources={"s0": Source(0), "s1": Source(1), "s2": Source(2)},
        modalities={"a": Told("s0"), "b": Told("s1"), "c": Told("s2")},
        repeats=100,
    ),
    "ignored": Case(
        bits=2,
        sources={"s0": Source(0, _MOSTLY), "s1": Source(1, _MOSTLY)},
        modalities={"a": Told("s0"), "b": Told("s1", read=None)},
        repeats=3,
    ),
    "dominant": Case(
        bits=2,
        sources={"s0": Source(0), "s1": Source(1), "weak": Source(1, Fraction(6, 10))},
        modalities={"a": Told("s0"), "b": Told("s1", proxy="weak", read=1)},
        repeats=25,
    ),
    "redundant": Case(
        bits=1,
        sources={"shared": Source(0, _MOSTLY)},
        modalities={"a": Told("shared"), "b": Told("shared")},
        repeats=50,
    ),
    "xor": Case(
        bits=2,
        sources={"s0": Source(0, _MOSTLY), "s1": Source(1, _MOSTLY)},
        modalities={"a": Told("s0"), "b": Told("s1")},
        parity=True,
        repeats=3,
    ),
    "five": Case(
        bits=3,
        sources={
            "s0": Source(0),
            "shared": Source(1, Fraction(3, 4)),
            "s2": Source(2),
            "coin": Source(2, Fraction(1, 2)),
        },
        modalities={
            "a": Told("s0"),
            "b": Told("shared"),
            "c": Told("shared"),
            "d": Told("s2", read=None),
            "e": Told("coin"),
        },
        repeats=16,
    ),
}
