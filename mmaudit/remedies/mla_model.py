"""The model that MLA trains: encoders of a user's model, one head for all modalities, and a fusion by confidence.

It can be built anew from names and numbers alone, for weights to be loaded into: no data is needed and nothing is inspected.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmaudit.checkpoint.importing import call_factory, import_callable
from mmaudit.checkpoint.model import unwrapped
from mmaudit.exceptions import ModelError
from mmaudit.masking.absence import Absence, Fill
from mmaudit.training.branches import Branch, Branched

__all__ = ["FACTORY", "MLAModel", "build", "confidence_weights", "fused_logits"]

FACTORY = "mmaudit.remedies.mla:build"
"""What audit files of such models name."""


def confidence_weights(logits: Tensor, present: Tensor | None = None) -> Tensor:
    """Weight of each modality in each sample: the surer its own prediction, the larger.

    lambda_m = softmax over m of -e_m,  e_m = entropy of softmax(f_m)

    Args:
        logits: f_m, shape ``(M, n, K)``.
        present: Whether a sample has a modality, bool ``(M, n)``; left out, all have all.

    Returns:
        Shape ``(M, n)``; sums to 1 over modalities, 0 where absent; 1/M in a sample that has none.

    Example:
        >>> confidence_weights(torch.tensor([[[2.0, 0.0]], [[0.0, 0.5]]]))
        tensor([[0.5738],
                [0.4262]])
    """
    return _weights(-torch.special.entr(logits.softmax(-1)).sum(-1), present)


def _weights(scores: Tensor, present: Tensor | None) -> Tensor:
    """Softmax over the modalities that are present."""
    if present is not None:
        none = ~present.any(0)
        scores = scores.masked_fill(~present, -torch.inf).masked_fill(none, 0.0)
    return scores.softmax(0)


def fused_logits(logits: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over modalities; what has no weight is not looked at.

    Args:
        logits: Shape ``(M, n, K)``.
        weights: Shape ``(M, n)``.

    Returns:
        Shape ``(n, K)``.
    """
    used = weights.unsqueeze(-1) > 0
    return (weights.unsqueeze(-1) * logits.where(used, 0.0)).sum(0)


class MLAModel(Branched):
    """The encoders of a user's model with one head for all modalities; called as the user's model is.

    A modality whose inputs all hold what its constant mask gives counts as absent in that sample. (A mask that draws values is
    never seen as absence: what it gives is fused like any other input.)

    Args:
        model: The user's model.
        branches: Modality -> where its features are.
        classes: Number K of classes.
        fills: Modality -> how its inputs look when it is absent.
        fusion: ``entropy`` or ``fixed``, see :class:`MLAOptions`.
        weights: Of fixed fusion, per modality; left out, equal.
        missing: What becomes of an absent modality, see :class:`MLAOptions`.
    """

    def __init__(
        self,
        model: nn.Module,
        branches: Mapping[str, Branch],
        *,
        classes: int,
        fills: Mapping[str, Sequence[Fill]] | None = None,
        fusion: Literal["entropy", "fixed"] = "entropy",
        weights: Mapping[str, float] | None = None,
        missing: Literal["skip", "zero"] = "skip",
    ) -> None:
        super().__init__(model, branches)
        self.modalities = tuple(branches)
        # An input may come by position or by keyword. Read once: a watched model's forward is something else.
        self._argument_names = _positional(model)
        self.fills = {name: tuple((fills or {}).get(name, ())) for name in self.modalities}
        self.fusion, self.missing = fusion, missing
        self.weights = None if weights is None else dict(weights)
        self.classes, self.width = classes, min(branch.width for branch in branches.values())
        # By number: a modality's name need not be a name that torch allows.
        self.projections = nn.ModuleDict(
            {
                str(m): nn.Linear(branch.width, self.width)
                for m, branch in enumerate(branches.values())
                if branch.width != self.width
            }
        )
        self.head = nn.Linear(self.width, classes)
        self.absences = nn.ModuleDict(
            {
                str(m): Absence(self.fills[name])
                for m, name in enumerate(self.modalities)
                if self.fills[name]
            }
        )

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Fused logits, ``(n, K)``.

        Raises:
            ModelError: If every modality was left out of the call, or encoders are called otherwise than they were.
        """
        absent = self._absent(args, kwargs)  # first: the model may overwrite its inputs
        features = self.features(*args, **kwargs)
        if not features:
            raise ModelError("every modality was left out of the call: give at least one.")
        names = [name for name in self.modalities if name in features]
        logits = torch.stack([self.answer(name, features[name]) for name in names])
        present = None
        if absent:
            nowhere = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
            present = torch.stack([~absent.get(name, nowhere) for name in names])
        if self.fusion == "entropy":
            return fused_logits(logits, confidence_weights(logits, present))
        chosen = self.weights or dict.fromkeys(self.modalities, 1.0)
        shares = torch.tensor([chosen[name] for name in names], device=logits.device)
        return fused_logits(
            logits, _weights(shares.log()[:, None].expand(logits.shape[:2]), present)
        )

    def _absent(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
        """Modality -> samples that lack it, where they can be told and are to be skipped."""
        if self.missing != "skip":
            return {}
        named = {**dict(zip(self._argument_names, args, strict=False)), **kwargs}
        ordered = [*args, *(named.get(name) for name in self._argument_names[len(args) :])]
        found: dict[str, Tensor] = {}
        for m, name in enumerate(self.modalities):
            if str(m) in self.absences:
                absence = self.absences[str(m)]
                assert isinstance(absence, Absence)
                inputs = absence.inputs(ordered, named)
                if any(value is not None for value in inputs):
                    found[name] = absence(*inputs)
        return found

    def projected(self, modality: str, features: Tensor) -> Tensor:
        """What the head sees of a modality: its features ``(n, d_m)``, brought to the common width ``(n, d)``."""
        key = str(self.modalities.index(modality))
        return self.projections[key](features) if key in self.projections else features

    def answer(self, modality: str, features: Tensor) -> Tensor:
        """Logits of one modality alone, float32 or wider, ``(n, K)``."""
        logits: Tensor = self.head(self.projected(modality, features))
        return logits if logits.dtype is torch.float64 else logits.float()

    def settings(self) -> dict[str, Any]:
        """What :func:`build` takes beside the factory, as JSON."""
        return {
            "modalities": list(self.modalities),
            "branches": {name: b.model_dump(mode="json") for name, b in self.branches.items()},
            "fills": {
                name: [fill.model_dump(mode="json") for fill in fills]
                for name, fills in self.fills.items()
            },
            "classes": self.classes,
            "fusion": self.fusion,
            "weights": self.weights,
            "missing": self.missing,
        }


def build(
    factory: str,
    args: Mapping[str, Any] | None = None,
    *,
    modalities: Sequence[str],
    branches: Mapping[str, Any],
    classes: int,
    fills: Mapping[str, Sequence[Any]] | None = None,
    fusion: Literal["entropy", "fixed"] = "entropy",
    weights: Mapping[str, float] | None = None,
    missing: Literal["skip", "zero"] = "skip",
) -> MLAModel:
    """Build a model that MLA trained, for its weights to be loaded into; what an audit file of it names.

    Args:
        factory: ``package.module:callable`` that builds the model MLA was applied to.
        args: Of that factory.
        modalities: Their names, in the order in which they were trained.
        branches: See :class:`MLAModel`, as JSON.
        classes: The same.
        fills: The same.
        fusion: The same.
        weights: The same.
        missing: The same.

    Raises:
        ModelError: If the factory does not give a torch module.
    """
    model = unwrapped(call_factory(import_callable(factory), args, name=factory))
    if not isinstance(model, nn.Module):
        raise ModelError(f"'{factory}' gave a {type(model).__name__}; MLA needs a torch module.")
    return MLAModel(
        model,
        {name: Branch.model_validate(branches[name]) for name in modalities},
        classes=classes,
        fills={
            name: [Fill.model_validate(fill) for fill in found]
            for name, found in (fills or {}).items()
        },
        fusion=fusion,
        weights=weights,
        missing=missing,
    )


def _positional(model: nn.Module) -> tuple[str, ...]:
    """Names of what a model's forward takes by position."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return ()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(parameter.name for parameter in parameters if parameter.kind in kinds)
