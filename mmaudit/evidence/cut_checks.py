"""Whether holding a squeeze cuts what it should: looked at on the first batch, and said where it does not.

Two questions for every branch and every modality that tells it something. Does the branch still depend on the other modality's
inputs while that modality is held in all cross-modal modules? Then it is told something on another way. And do the modules use
more than the squeeze? They see, once a constant, once the real features shifted so that their squeeze is that constant; a
module that squeezes cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmaudit.evidence.branched_model import BranchedModel
from mmaudit.evidence.cutting import Key, Squeezes
from mmaudit.masking.masked_batch import MaskedBatch, canonical_path
from mmaudit.masking.paths import tensor_paths, with_values
from mmaudit.report.schema import Note

__all__ = ["check_cuts"]

_MOVED, _ROUNDING = 5e-3, 1e-5
"""Scores are different where they differ by more than this share of their spread over samples, and of the largest of them."""
_LOW_PRECISION = 0.1, 1e-2


def check_cuts(model: BranchedModel, batch: MaskedBatch) -> list[Note]:
    """Find out what features look like, and whether holding them cuts what it should.

    Channels come second as a rule. Of modalities whose features are (samples, ..., channels) as far as the modules show, the
    model is told.

    Args:
        model: May be told of modalities whose channels come last.
        batch: Of the audited data.

    Returns:
        What a reader has to know before trusting the rates.
    """
    return _Checks(model, batch).notes()


class _Checks:
    """Answers on one batch, with the squeezes averaged over that batch alone."""

    def __init__(self, model: BranchedModel, batch: MaskedBatch) -> None:
        self._model, self._batch = model, batch
        self._deep: set[str] = set()
        self._uncut = self._record()
        """Scores of every branch as they are."""

    def notes(self) -> list[Note]:
        heard: dict[str, list[str]] = {}
        beyond: dict[str, list[str]] = {}
        found: list[Note] = []
        branches = self._model.spec.outputs
        for other in self._model.telling:
            told = [name for name in branches if name != other and not self._hears(name, other)]
            for name in branches:
                if name != other and name not in told:
                    heard.setdefault(name, []).append(other)
            if other not in self._deep:  # one number for each channel is its own mean
                continue
            modules = self._beyond_squeeze(told, other)
            if modules and self._channels_are_last(told, other):
                text = (
                    f"The features of {other} in cross-modal modules were taken as (samples, ..., channels): the modules use no "
                    "more of them than the means over what lies between."
                )
                found.append(Note(kind="information", topic="evidence", text=text))
            elif modules:
                beyond[other] = modules
        for other, modules in beyond.items():
            use = "modules {} use" if len(modules) > 1 else "module {} uses"
            text = (
                f"Cutting branches: {use.format(', '.join(modules))} more of {other} than the mean of every channel, so that "
                f"holding {other} at its training mean takes away more than a squeeze."
            )
            found.append(Note(kind="warning", topic="evidence", text=text))
        for name, others in heard.items():
            text = (
                f"The branch of {name} still depends on {' and '.join(others)} when all cross-modal modules of the spec are cut: "
                "what it gains on other ways is not in its utilization. Name the modules that are missing under branches.modules."
            )
            found.append(Note(kind="warning", topic="evidence", text=text))
        return found

    def _record(self) -> Mapping[str, Tensor]:
        self._means = Squeezes()
        record = self._model.recording(self._means, self._batch.n)

        def visit(key: Key, tensor: Tensor) -> Tensor:
            if tensor.dim() > 2:
                self._deep.add(key.modality)
            return record(key, tensor)

        return self._model.outputs(self._batch, visit)

    def _held(self, other: str, *, centred: tuple[str, ...] = ()) -> Mapping[str, Tensor]:
        visit = self._model.holding([other], self._means, self._batch.n, centred=centred)
        return self._model.outputs(self._batch, visit)

    def _hears(self, branch: str, other: str) -> bool:
        """Whether a branch that is cut off from another modality answers otherwise when that is taken from other samples."""
        batch = self._batch
        if batch.n < 2:
            return False
        tensors, changed = tensor_paths(batch.whole), {}
        for path in map(canonical_path, batch.spec.modalities[other].inputs.values()):
            dim = batch.dims.get(path)
            if path in tensors and dim is not None:
                changed[path] = tensors[path].roll(1, dim)
        if not changed:
            return False
        visit = self._model.holding([other], self._means, batch.n)
        swapped = self._model.outputs(batch, visit, with_values(batch.whole, changed))
        return self._differ(branch, self._held(other), swapped)

    def _beyond_squeeze(self, branches: list[str], other: str) -> list[str]:
        """Modules that make a difference between features of a squeeze and a constant of that squeeze."""
        held = self._held(other)
        modules = [name for name, places in self._model.spec.modules.items() if other in places]

        def differs(*names: str) -> bool:
            shifted = self._held(other, centred=names)
            return any(self._differ(branch, held, shifted) for branch in branches)

        return [name for name in modules if differs(name)] if differs(*modules) else []

    def _channels_are_last(self, branches: list[str], other: str) -> bool:
        """Whether modules use only the means of the last dimension; if so, the model is told."""
        self._model.channels_last.add(other)
        self._record()
        if not self._beyond_squeeze(branches, other):
            return True
        self._model.channels_last.discard(other)
        self._record()
        return False

    def _differ(self, branch: str, one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
        moved, rounding = (
            (_MOVED, _ROUNDING) if self._model.evaluator.precision is None else _LOW_PRECISION
        )
        a, b, uncut = (scores[branch].double() for scores in (one, two, self._uncut))
        finite = torch.isfinite(a) & torch.isfinite(b) & torch.isfinite(uncut)
        if not bool(finite.any()):
            return False
        spread = uncut.where(finite, -torch.inf).amax(0) - uncut.where(finite, torch.inf).amin(0)
        allowed = moved * float(spread.max()) + rounding * float(uncut[finite].abs().max())
        return float((a - b)[finite].abs().max()) > allowed
