"""What a spec says of evidence beside the coalitions: models to compare with, probes, branches, the second mask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mmaudit.masking.mask_spec import MaskSpec, Strict, ValuePath

__all__ = ["BranchesSpec", "ProbeSpec", "ReferencesSpec", "SecondMaskSpec"]


class ReferencesSpec(Strict):
    """Models to compare with: what each modality could say alone, and what could be said without it.

    A single path is the folder that ``mmaudit unimodal --out FOLDER`` wrote. Else modality -> audit file of such a model, or an
    ``.npz`` or ``.parquet`` file with ``id`` (sample ids) and ``scores`` (its outputs for them, of the same kind as the model's).
    """

    alone: dict[str, Path] = Field(default_factory=dict)
    without: dict[str, Path] = Field(default_factory=dict)
    folder: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"folder": value} if isinstance(value, (str, Path)) else value


class ProbeSpec(Strict):
    """How linear probes are fitted, and what the mono-modal concepts are."""

    concept: Literal["centred_logits", "logits"] = "centred_logits"
    """What of a reference model's outputs: less the class mean of each sample, or as they are."""
    concepts: dict[str, Path] = Field(default_factory=dict)
    """Modality -> ``.npz`` or ``.parquet`` file with ``id`` and ``concept`` (``(n, q)``), in place of reference models."""
    penalty: float | Literal["cross-validated"] = "cross-validated"
    """Of the ridge regression, for the sum of squares."""


class BranchesSpec(Strict):
    """A model of branches that exchange information through cross-modal modules (as MMTM)."""

    outputs: dict[str, ValuePath]
    """Modality -> path of its branch's class scores in what the model returns."""
    modules: dict[str, dict[str, ValuePath]]
    """Cross-modal module -> modality -> its argument: a position or a keyword."""


class SecondMaskSpec(Strict):
    """The mask that everything is evaluated under once more, since findings must not hang on how a modality is hidden."""

    mask: MaskSpec | Literal["auto", "off"] = "auto"
    """``auto``: ``marginal`` where the first is none, else ``zero``."""
    samples: int = Field(default=2000, ge=50)
    """At most so many samples, spread over the data."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        value = "off" if value is False else value  # YAML reads a bare off as false
        fields = isinstance(value, Mapping) and set(value) <= {"mask", "samples"}
        return value if fields else {"mask": value}

    @field_validator("mask", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return "off" if value is False else value
