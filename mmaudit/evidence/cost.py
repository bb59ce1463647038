"""What the evidence cost: rows, seconds and checks, counted per shard so that nothing is lost by an interruption."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Cost"]


@dataclass
class Cost:
    """Counts of one process since the last shard, or of several added up.

    Attributes:
        full_rows: Rows that went through the whole model.
        replayed_rows: Rows that went through the part after the encoders only.
        full_seconds: Spent on whole passes, brute-force checks left out.
        replayed_seconds: Spent on the part after the encoders.
        encoder_rows: Modality -> rows evaluated by its encoders.
        verified_rows: Rows compared with brute force.
        largest_difference: From brute force, absolute.
        seconds: Wall-clock time.
    """

    full_rows: int = 0
    replayed_rows: int = 0
    timed_rows: int = 0
    full_seconds: float = 0.0
    replayed_seconds: float = 0.0
    encoder_rows: dict[str, int] = field(default_factory=dict)
    verified_rows: int = 0
    largest_difference: float | None = None
    seconds: float = 0.0

    @property
    def fusion_share(self) -> float | None:
        """Measured share f of a plain pass that is spent after the encoders."""
        if not (self.replayed_rows and self.timed_rows and self.full_seconds):
            return None
        return (self.replayed_seconds / self.replayed_rows) / (self.full_seconds / self.timed_rows)

    def passes(self, samples: int) -> float:
        """Cost in plain evaluation passes over so many samples."""
        return (self.full_rows + (self.fusion_share or 0.0) * self.replayed_rows) / max(samples, 1)

    @classmethod
    def total(cls, parts: Iterable[Cost]) -> Cost:
        """Several costs added up."""
        whole = cls()
        for part in parts:
            for name in ("full_rows", "replayed_rows", "timed_rows", "verified_rows"):
                setattr(whole, name, getattr(whole, name) + getattr(part, name))
            for name in ("full_seconds", "replayed_seconds", "seconds"):
                setattr(whole, name, getattr(whole, name) + getattr(part, name))
            for modality, rows in part.encoder_rows.items():
                whole.encoder_rows[modality] = whole.encoder_rows.get(modality, 0) + rows
            if part.largest_difference is not None:
                whole.largest_difference = max(
                    whole.largest_difference or 0.0, part.largest_difference
                )
        return whole
