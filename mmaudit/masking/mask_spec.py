"""Masks as they are written in a spec, and the strings that name callables and places in a batch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

__all__ = [
    "MASK_KINDS",
    "CustomMask",
    "FillMask",
    "ImportString",
    "MaskSpec",
    "NamedMask",
    "NoiseMask",
    "Strict",
    "ValuePath",
]

MASK_KINDS = {"zero", "mean", "marginal", "drop", "keep", "constant", "token", "noise", "custom"}


class Strict(BaseModel):
    """A part of a spec: unknown keys are faults, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _import_string(value: Any) -> Any:
    if isinstance(value, str) and (
        value.count(":") != 1 or not all(p.strip() for p in value.split(":"))
    ):
        raise ValueError("expected 'package.module:callable'")
    return value


def _path_string(value: Any) -> Any:
    # YAML reads a bare 0 as a number; as a path it means the first element of the batch.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


ImportString = Annotated[str, BeforeValidator(_import_string)]
ValuePath = Annotated[str, BeforeValidator(_path_string), Field(min_length=1)]


class NamedMask(Strict):
    """A mask without settings: ``zero``, ``mean`` of the training data, ``marginal``, ``drop`` (None) or ``keep``."""

    kind: Literal["zero", "mean", "marginal", "drop", "keep"]

    def __str__(self) -> str:
        return self.kind


class FillMask(Strict):
    """Every entry gets one value: a constant, or a token id."""

    kind: Literal["constant", "token"]
    value: float

    def __str__(self) -> str:
        return f"{self.kind} {self.value:g}"


class NoiseMask(Strict):
    """Gaussian noise, drawn anew for each sample id.

    ``mean`` and ``std`` default to those of the training data, entry by entry.
    """

    kind: Literal["noise"] = "noise"
    mean: float | None = None
    std: float | None = Field(default=None, ge=0)

    def __str__(self) -> str:
        return "noise" if self.std is None else f"noise (sd {self.std:g})"


class CustomMask(Strict):
    """A function ``f(values, ids, generator) -> values`` of your own; ``values`` is ``(B, ...)``, ``ids`` a list of B strings."""

    kind: Literal["custom"] = "custom"
    function: ImportString

    def __str__(self) -> str:
        return f"custom {self.function}"


_MASK_FORMS = "zero, mean, marginal, drop, keep, noise, {constant: 0.5}, {token: 0}, {noise: {std: 1}}, {custom: 'module:function'}"


def _short_mask(value: Any) -> Any:
    """Turn the short forms of a mask into its long form."""
    if isinstance(value, str):
        if value in ("zero", "mean", "marginal", "drop", "keep"):
            return NamedMask(kind=value)
        if value == "noise":
            return NoiseMask()
        near = difflib.get_close_matches(
            value, ["zero", "mean", "marginal", "drop", "keep", "noise"], 1
        )
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"unknown mask '{value}'{hint}; allowed: {_MASK_FORMS}")
    if isinstance(value, Mapping) and len(value) == 1 and "kind" not in value:
        ((key, setting),) = value.items()
        if key in ("constant", "token"):
            return {"kind": key, "value": setting}
        if key == "noise":
            return {
                "kind": "noise",
                **(setting if isinstance(setting, Mapping) else {"std": setting}),
            }
        if key == "custom":
            return {"kind": "custom", "function": setting}
        raise ValueError(f"unknown mask '{key}'; allowed: {_MASK_FORMS}")
    return value


MaskSpec = Annotated[
    NamedMask | FillMask | NoiseMask | CustomMask,
    Field(discriminator="kind"),
    BeforeValidator(_short_mask),
]
