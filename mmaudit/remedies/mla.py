"""Alternating unimodal adaptation (MLA): one modality is trained after the other, through a head that all share.

Zhang, Yoon, Bansal, Yao: *Multimodal Representation Learning by Alternating Unimodal Adaptation*, CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mmaudit.checkpoint.model import left_as_it_came
from mmaudit.exceptions import ModelError, SpecError
from mmaudit.masking.absence import Absence, find_fills
from mmaudit.masking.calling import Caller
from mmaudit.masking.spec import AuditSpec, FactorySpec, OutputSpec
from mmaudit.remedies.base import Remedy, RemedyOptions
from mmaudit.remedies.mla_model import FACTORY, MLAModel, build
from mmaudit.training.branches import (
    Branch,
    branch_features,
    find_branches,
    trainable_behind,
)
from mmaudit.training.hooks import Means, Micro, State, Training
from mmaudit.training.order import MicroBatch
from mmaudit.training.task import Labelled

__all__ = [
    "MLA",
    "MLAModel",
    "MLAOptions",
    "absorb",
    "absorption_strength",
    "build",
]


def absorb(P: Tensor, mean: Tensor, alpha: float) -> Tensor:
    """Take a direction out of what later head gradients may do (recursive least squares, as in OWM).

    q = P h / (alpha + h^T P h),  P <- P - q h^T P;   after several with one alpha  P = (I + sum h h^T / alpha)^-1

    Args:
        P: Projector so far, shape ``(d, d)``; the identity before the first.
        mean: Mean features h of a batch, shape ``(d,)``.
        alpha: Above 0; the smaller, the less is left of the direction: alpha / (alpha + |h|^2) after one from the identity.

    Returns:
        Shape ``(d, d)``, symmetric.

    Example:
        >>> P = absorb(torch.eye(2, dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64), 0.1)
        >>> torch.tensor([[2.0, 3.0], [-2.0, -3.0]], dtype=torch.float64) @ P
        tensor([[ 0.1818,  3.0000],
                [-0.1818, -3.0000]], dtype=torch.float64)
    """
    towards = P @ mean
    return P - torch.outer(towards, mean @ P) / (alpha + mean @ towards)


def absorption_strength(
    batch: int, batches: int, *, start: float = 0.1, end: float = 0.01
) -> float:
    """Strength (alpha) of one batch: falls geometrically over an epoch and begins anew with the next; 0.1^(1 + b/B) by default.

    Args:
        batch: Number of the batch in its epoch, from 0.
        batches: Of an epoch.
        start: At the first batch.
        end: What it falls towards.

    Example:
        >>> [round(absorption_strength(b, 4), 4) for b in range(4)]
        [0.1, 0.0562, 0.0316, 0.0178]
    """
    return float(start * (end / start) ** (batch / batches))


class MLAOptions(RemedyOptions):
    """Settings of :class:`MLA`."""

    hgm: bool = True
    memory: Literal["cycle", "full", "released"] = "cycle"
    protect: Literal["previous", "current"] = "previous"
    alpha: float = Field(default=0.1, gt=0)
    alpha_end: float = Field(default=0.01, gt=0)
    fusion: Literal["entropy", "fixed"] = "entropy"
    weights: dict[str, float] | None = None
    missing: Literal["skip", "zero"] = "skip"


class MLA(Remedy):
    """Multimodal learning with alternating unimodal adaptation.

    What it changes:
        The fusion is replaced by one linear head that all modalities share. Within a batch the modalities take their steps one after
        the other, in the order of the spec: the loss of modality m alone moves encoder m and the head. Before the head moves,
        its gradient is turned away from the mean features of the other modalities, so that what they need is kept. Where
        encoders give features of unequal width, wider ones get a linear projection, which is trained with its encoder. At
        inference every modality answers for itself, and the logits are averaged with weights that favour low entropy.

    When it helps:
        One modality drowns the others in joint training, and each is informative on its own. It cannot learn what only a
        combination of modalities tells. The order of modalities in the spec matters.

    Cost:
        Encoders once forward and backward per batch, as in joint training; the head and the optimiser step once per modality.
        Accumulation saves no memory, because every modality's step needs the whole batch; several processes exchange gradients
        once per modality.

    Hyperparameters:
        hgm: Modify head gradients at all.
        memory: ``cycle`` protects the latest mean features of the other modalities; ``full`` everything since the beginning, as the
            paper has it, which soon stops the head from learning; ``released`` nothing, which is what the released code does.
        protect: ``previous``, what was trained before; ``current``, the features that are being trained, as the released code
            would if it ran.
        alpha, alpha_end: Strength of the protection (smaller is stronger), at the first batch of an epoch and towards its last.
        fusion: ``entropy``, per sample; ``fixed``, by ``weights``.
        weights: Modality -> weight above 0, for all of them; left out, equal.
        missing: ``skip`` leaves an absent modality out of training and fusion, and renormalises the weights; ``zero`` treats what
            stands in its place as data.

    Source:
        Zhang et al. 2024; the authors' released code for order and conventions.

    Differences from the authors' code:
        Gradient modification runs (released: it finds no parameter and never does), with a scalar denominator, on float64
        means over the whole batch, without renormalising P. Fusion weights are per sample (released: per batch). Absent
        modalities are skipped. Modalities without a step in a batch (no sample has them) leave everything as it is.
    """

    key = "mla"
    title = "MLA"
    Options = MLAOptions
    options: MLAOptions

    def prepare(self, run: Training) -> nn.Module:
        """Build the model of encoders and shared head."""
        self._check_weights()
        model = run.model
        if isinstance(model, MLAModel):
            if model.modalities != self.modalities:
                raise ModelError(
                    f"the model was made by MLA for {', '.join(model.modalities)}: name the same modalities in this order."
                )
            options = self.options
            model.fusion, model.missing = options.fusion, options.missing
            model.weights = options.weights
        else:
            model = self._build(run, super().prepare(run))
        # From here on the outputs are those of the new head.
        self.task.spec = self.task.spec.model_copy(update={"outputs": OutputSpec()})
        self._model = model
        d, M, device = model.width, len(self.modalities), run.device
        self._means = torch.zeros(M, d, dtype=torch.float64, device=device)
        self._seen = [False] * M
        remembered = d if self.options.memory == "full" else 0
        self._memory = torch.eye(remembered, dtype=torch.float64, device=device)
        self._latest, self._updates = -1, 0
        self._recorded = [
            Means([f"unimodal loss {name}", f"head gradient kept {name}"])
            for name in self.modalities
        ]
        return model

    def step(self, run: Training, micros: Sequence[Micro]) -> None:
        """One optimiser step per modality; all encoders have run, once, before the first."""
        count = torch.stack([self._has(batch).double().sum(0) for _, batch in micros]).sum(0)
        self._counts: list[float] = run.reduce(count).tolist()
        self._features: dict[tuple[int, ...], dict[str, Tensor]] = {}
        parts = [m for m, number in enumerate(self._counts) if number > 0]
        for m in parts:
            sums = self._means.new_zeros(self._means.shape[1] + 1)
            self._sums = sums
            for micro, batch in micros:
                run.backward(batch, micro, part=m)
            sums = run.reduce(sums) / self._counts[m]
            kept = self._modify(m, sums[:-1], self._strength(run, micros[-1][0]))
            self._recorded[m].add(torch.stack([sums[-1], kept]))
            run.update(last=m == parts[-1])
        if not parts:
            run.update()
        self._features = {}

    def loss(self, run: Training, batch: Labelled, micro: MicroBatch, part: int) -> Tensor:
        """Mean cross-entropy of one modality's own answer, over the samples that have it."""
        name, model = self.modalities[part], self._model
        bf16 = run.recipe.precision == "bf16"
        with torch.autocast(run.device.type, torch.bfloat16, enabled=bf16):
            if micro.places not in self._features:
                args, kwargs = Caller(model, self.task.spec).arguments(batch.data)
                self._features[micro.places] = model.features(*args, **kwargs)
            features = self._features[micro.places].pop(name, None)
            if features is None:
                raise ModelError(
                    f"MLA: the encoders of {name} were not called in a batch that has it: use a mask other than 'drop'."
                )
            seen = model.projected(name, features)
            logits = model.head(seen)
        has = self._has(batch)[:, part]
        losses = self.task.loss(self.task.scores(logits), batch).where(has, 0.0)
        self._sums[:-1] += seen.detach().double().where(has[:, None], 0.0).sum(0)
        self._sums[-1] += losses.detach().double().sum()
        return run.share(losses, micro) * (micro.total / self._counts[part])

    def coefficients(self) -> dict[str, float]:
        """Loss of every modality, and the share of the head gradient's norm that its modification left."""
        return {name: value for means in self._recorded for name, value in means.take().items()}

    def state(self) -> State:
        """What is protected."""
        kept: dict[str, Tensor | float] = {
            "means": self._means,
            "seen": torch.tensor(self._seen),
            "latest": self._latest,
            "updates": self._updates,
        }
        return {**kept, "memory": self._memory} if self.options.memory == "full" else kept

    def load_state(self, state: State) -> None:
        """What is protected."""
        means, seen, memory = state["means"], state["seen"], state.get("memory", self._memory)
        assert isinstance(means, Tensor) and isinstance(seen, Tensor) and isinstance(memory, Tensor)
        self._means, self._memory = means.to(self._means.device), memory.to(self._memory.device)
        self._seen = [bool(s) for s in seen]
        self._latest, self._updates = int(state["latest"]), int(state["updates"])

    def audit_changes(self, spec: AuditSpec) -> dict[str, Any]:
        """The model is another one: it is built around the user's, and answers in logits."""
        settings = self._model.settings()
        factory = spec.factory
        args: dict[str, Any] = {"factory": factory.factory, "args": factory.args, **settings}
        if factory.factory == FACTORY:
            args = {**factory.args, **settings}
        inside = "" if factory.factory == FACTORY else "model."
        modalities = {
            name: part.model_copy(
                update={
                    "encoders": None
                    if part.encoders is None
                    else tuple(inside + module for module in part.encoders),
                    "latent": None,
                    "head": None,
                }
            )
            for name, part in spec.modalities.items()
        }
        return {
            "model": FactorySpec(factory=FACTORY, args=args),
            "branches": None,
            "call": self.task.spec.call,
            "outputs": OutputSpec(),
            "latent": None,
            "head": None,
            "modalities": modalities,
        }

    def _check_weights(self) -> None:
        weights = self.options.weights
        if weights is None:
            return
        if self.options.fusion != "fixed":
            raise SpecError("MLA: weights are for fusion 'fixed'; leave them out, or ask for that.")
        if set(weights) != set(self.modalities) or min(weights.values()) <= 0:
            raise SpecError(
                f"MLA: weights are {weights}; give one above 0 for each of {', '.join(self.modalities)}."
            )

    def _build(self, run: Training, model: nn.Module) -> MLAModel:
        assert self.structure is not None
        caller = Caller(model, self.task.spec)
        example = self.task.place(self.example, run.device)
        with left_as_it_came(model):
            with torch.no_grad():
                branches = find_branches(model, self.structure, caller, example.masked)
                fills, values = find_fills(caller, example.masked)
                classes = self.task.forward(model, example).shape[1]
            without = [name for name in self.modalities if name not in branches]
            if without:
                raise ModelError(
                    f"MLA trains one encoder at a time, and no module sees {without[0]} alone: use agm or ogm_ge, or name "
                    f"modalities.{without[0]}.encoders."
                )
            self._check_apart(model, branches, caller, self.task.place(self.example, run.device))
        made = MLAModel(
            model,
            branches,
            classes=classes,
            fills=fills,
            fusion=self.options.fusion,
            weights=self.options.weights,
            missing=self.options.missing,
        )
        for key, absence in made.absences.items():
            assert isinstance(absence, Absence)
            absence.set_values(values[self.modalities[int(key)]])
        return made

    def _check_apart(
        self,
        model: nn.Module,
        branches: Mapping[str, Branch],
        caller: Caller,
        example: Labelled,
    ) -> None:
        """Encoders must share nothing that is trained: a step of one would change what another has computed."""
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        owners: dict[int, str] = {}
        args, kwargs = caller.arguments(example.data)
        with torch.enable_grad():
            features = branch_features(model, branches, args, kwargs)
        for modality, vectors in features.items():
            behind = trainable_behind(vectors)
            for leaf in behind:
                other = owners.setdefault(id(leaf), modality)
                if other != modality:
                    raise ModelError(
                        f"MLA trains one encoder at a time, and '{names.get(id(leaf), 'a tensor')}' serves both {other} and "
                        f"{modality}: use agm or ogm_ge, or freeze it."
                    )
            if not behind:
                self.notes.append(
                    f"No gradient reaches the encoders of {modality}: they stay as they are, and only the head learns."
                )

    def _has(self, batch: Labelled) -> Tensor:
        return batch.present if self.options.missing == "skip" else torch.ones_like(batch.present)

    def _strength(self, run: Training, micro: MicroBatch) -> float:
        batches = run.steps // run.recipe.epochs
        batch = (micro.step - 1) % batches
        return absorption_strength(
            batch, batches, start=self.options.alpha, end=self.options.alpha_end
        )

    @torch.no_grad()
    def _modify(self, m: int, mean: Tensor, alpha: float) -> Tensor:
        """Turn the head's gradient away from what is protected, and remember this modality's mean; the share of norm left."""
        P, gradient = self._projector(m, mean, alpha), self._model.head.weight.grad
        kept = mean.new_ones(())
        if P is not None and gradient is not None:
            changed = gradient.double() @ P
            before = gradient.double().norm()
            kept = torch.where(before > 0, changed.norm() / before, kept)
            gradient.copy_(changed)
        self._means[m] = mean
        self._seen[m], self._latest = True, m
        self._updates += 1
        return kept

    def _projector(self, m: int, mean: Tensor, alpha: float) -> Tensor | None:
        """P for the step of modality m; none at the very first step, which has nothing to protect."""
        options = self.options
        if not options.hgm or options.memory == "released" or self._updates == 0:
            return None
        if options.protect == "current":
            protected = [mean]
        elif options.memory == "full":
            protected = [self._means[self._latest]]
        else:
            protected = [self._means[j] for j, seen in enumerate(self._seen) if seen and j != m]
        whole = options.memory == "full"
        P = self._memory if whole else torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
        for direction in protected:
            P = absorb(P, direction, alpha)
        if whole:
            self._memory = P
        return P
