"""From a spec to maskers: the table of all masks, and one masker per input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mmaudit.exceptions import SpecError
from mmaudit.masking.base import DropMasker, KeepMasker, Masker
from mmaudit.masking.custom import CustomMasker
from mmaudit.masking.fill import ConstantMasker, TokenMasker, ZeroMasker
from mmaudit.masking.marginal import MarginalMasker
from mmaudit.masking.mean import MeanMasker
from mmaudit.masking.noise import NoiseMasker
from mmaudit.masking.reference import Donors, Moments, Reference
from mmaudit.masking.spec import CustomMask, FillMask, MaskingSpec, MaskSpec, NoiseMask

__all__ = ["MASKERS", "build_maskers", "describe_masks"]

MASKERS: dict[str, type[Masker]] = {
    "zero": ZeroMasker,
    "constant": ConstantMasker,
    "token": TokenMasker,
    "mean": MeanMasker,
    "noise": NoiseMasker,
    "marginal": MarginalMasker,
    "drop": DropMasker,
    "keep": KeepMasker,
    "custom": CustomMasker,
}


def build_maskers(
    spec: MaskingSpec,
    reference: Reference | None = None,
    *,
    seed: int = 0,
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> dict[str, dict[str, Masker]]:
    """Make the maskers of a spec.

    Args:
        spec: Modalities and their masks.
        reference: Statistics and donors; needed where :func:`~mmaudit.masking.reference.needs_reference` says so.
        seed: Of the whole audit.
        functions: Import string -> function, for custom masks.

    Returns:
        Modality -> input -> masker, in the order of the spec.

    Raises:
        SpecError: If a mask lacks what it needs; the sentence names modality and mask and says what to add.
    """
    functions = functions or {}
    return {
        name: {
            input_name: _build(
                name, input_name, modality.mask[input_name], reference, seed, functions
            )
            for input_name in modality.inputs
        }
        for name, modality in spec.modalities.items()
    }


def describe_masks(maskers: Mapping[str, Mapping[str, Masker]]) -> dict[str, str]:
    """Modality -> its mask in words; inputs are named where their masks differ.

    Example:
        >>> describe_masks({"text": {"ids": TokenMasker("text", "ids", 0), "length": KeepMasker("text", "length")}})
        {'text': 'ids: token 0, length: keep'}
    """
    texts = {}
    for name, inputs in maskers.items():
        words = {input_name: masker.describe() for input_name, masker in inputs.items()}
        same = len(set(words.values())) == 1
        texts[name] = (
            next(iter(words.values())) if same else ", ".join(f"{k}: {v}" for k, v in words.items())
        )
    return texts


def _build(
    modality: str,
    input_name: str,
    mask: MaskSpec,
    reference: Reference | None,
    seed: int,
    functions: Mapping[str, Callable[..., Any]],
) -> Masker:
    source = reference.source if reference is not None else "training data"
    if isinstance(mask, FillMask):
        filler = TokenMasker if mask.kind == "token" else ConstantMasker
        return filler(modality, input_name, mask.value)
    if isinstance(mask, NoiseMask):
        needed = mask.mean is None or mask.std is None
        moments = _moments(reference, modality, input_name, mask) if needed else None
        return NoiseMasker(
            modality,
            input_name,
            seed=seed,
            mean=mask.mean,
            std=mask.std,
            moments=moments,
            source=source,
        )
    if isinstance(mask, CustomMask):
        if mask.function not in functions:
            raise SpecError(
                f"modality '{modality}': mask 'custom {mask.function}' needs its function; make the module importable"
            )
        return CustomMasker(
            modality, input_name, function=functions[mask.function], seed=seed, name=mask.function
        )
    if mask.kind == "mean":
        return MeanMasker(
            modality, input_name, _moments(reference, modality, input_name, mask), source
        )
    if mask.kind == "marginal":
        return MarginalMasker(
            modality, input_name, donors=_donors(reference, modality, input_name), seed=seed
        )
    return MASKERS[mask.kind](modality, input_name)


def _moments(
    reference: Reference | None, modality: str, input_name: str, mask: MaskSpec
) -> Moments:
    moments = reference.moments.get(modality, {}).get(input_name) if reference is not None else None
    if moments is None:
        use = "or give the noise both 'mean' and 'std'" if mask.kind == "noise" else "or use 'zero'"
        raise SpecError(
            f"modality '{modality}': mask '{mask.kind}' needs the mean of the training data; add 'data.train' to the spec,"
            f" {use}"
        )
    return moments


def _donors(reference: Reference | None, modality: str, input_name: str) -> Donors:
    donors = reference.donors.get(modality) if reference is not None else None
    if donors is None or input_name not in donors.values:
        raise SpecError(
            f"modality '{modality}': mask 'marginal' needs samples to take values from; add 'data.train' to the spec, or use"
            " 'zero'"
        )
    return donors
