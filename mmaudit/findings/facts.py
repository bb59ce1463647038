"""What a record says about each modality, looked up once: the estimates that findings rest on, as effects."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from mmaudit.findings.alike import Alike
from mmaudit.findings.effects import Effect, any_of, difference, effect_of, holm
from mmaudit.findings.thresholds import Thresholds
from mmaudit.report.labels import coalition_name, others
from mmaudit.report.numbers import NO_RESPONSE
from mmaudit.report.schema import Estimate, Record

__all__ = ["Effects", "Facts", "Mask"]

Mask = Literal["first", "second"]

Effects: TypeAlias = Mapping[str, tuple[Mapping[Mask, Effect], Mapping[Mask, Effect]]]
"""Modality -> contribution and drop, each mask -> effect."""

_MASKS: tuple[Mask, ...] = ("first", "second")
_NORMAL = 1.959964
_HAVE_REMEDIES = ("multiclass", "binary")


@dataclass(frozen=True)
class Facts:
    """A record and the thresholds, and what is asked of them. An answer is ``None`` where the record has none.

    Args:
        record: With its measures.
        thresholds: Of the findings.
        alike: Pairs of modalities, and how often the model errs alike from either.
    """

    record: Record
    thresholds: Thresholds
    alike: tuple[Alike, ...] = ()

    # the audit as a whole -------------------------------------------------------------------------

    def twin(self, modality: str) -> str | None:
        """Another modality that holds the same values in every sample."""
        for pair in self.record.data.identical:
            if modality in pair:
                return pair[1] if modality == pair[0] else pair[0]
        return None

    @property
    def modalities(self) -> tuple[str, ...]:
        """All names, in order."""
        return self.record.modalities

    @cached_property
    def present(self) -> tuple[str, ...]:
        """Modalities that at least one audited sample has."""
        has = self.record.data.present
        return tuple(name for name in self.modalities if has.get(name, 1) > 0)

    @property
    def M(self) -> int:  # noqa: N802 - the field's name
        """Number of modalities that are there."""
        return len(self.present)

    @property
    def alpha(self) -> float:
        """Level of a one-sided claim."""
        return self.thresholds.level / 2

    @cached_property
    def effects(self) -> Effects:
        """What hangs on each modality that is there."""
        return {
            name: (
                {m: e for m in self.masks if (e := self.contribution(name, m)) is not None},
                {m: e for m in self.masks if (e := self.drop(name, m)) is not None},
            )
            for name in self.present
        }

    @cached_property
    def task(self) -> str:
        """What the model predicts, as the spec says it."""
        return str(self.record.spec.get("task", "multiclass"))

    @cached_property
    def score(self) -> str:
        """Name of the primary score: ``accuracy``, or ``R2`` of a regression."""
        result = self.record.measures.get("coalitions")
        scores = [row.labels.get("score") for row in result.rows] if result is not None else []
        return "R2" if "accuracy" not in scores and "R2" in scores else "accuracy"

    @cached_property
    def whole(self) -> Effect | None:
        """Score of the model with all modalities."""
        return self._coalition("+".join(self.modalities))

    @cached_property
    def chance(self) -> float | None:
        """Score of the best constant prediction on the audited samples; ``None`` where the record does not tell."""
        if self.score == "R2":
            return 0.0
        counts = self.record.data.class_counts
        # Targets of several labels are label numbers: their counts say nothing of how often a label is set.
        if self.task == "multilabel" or not counts or sum(counts) == 0:
            return None
        return max(counts) / sum(counts)

    @cached_property
    def next_to_none(self) -> float:
        """A gain in score that is little beside that of the whole model: an equal part of it, within the thresholds."""
        limits = self.thresholds
        start = self.without_any.value if self.without_any is not None else 0.0
        if self.chance is not None:
            start = self.chance
        gain = self.whole.value - start if self.whole is not None else 0.0
        return min(limits.at_chance, max(limits.delta, gain / max(self.M, 1)))

    @cached_property
    def units(self) -> tuple[int, int | None]:
        """Samples and groups behind the score of the whole model."""
        if self.whole is None or not self.whole.rows:
            return 0, None
        estimate = self.whole.rows[0][2]
        return estimate.n, estimate.groups

    @cached_property
    def masks(self) -> tuple[Mask, ...]:
        """Under which masks modalities were hidden."""
        return tuple(
            mask
            for mask in _MASKS
            if any(self.drop(name, mask) is not None for name in self.modalities)
        )

    def words(self, mask: Mask, modality: str) -> str:
        """A mask in words."""
        masks = self.record.masks if mask == "first" else self.record.second_masks
        return masks.get(modality, f"{mask} mask")

    def others_values(self, modality: str) -> Mask | None:
        """The mask that puts values of other samples in place of a modality's own, where there is one.

        What is independent of the target and of the other modalities has no effect under it, however far zeros are from the data.
        """
        for mask in self.masks:
            parts = [part.split(": ")[-1] for part in self.words(mask, modality).split(", ")]
            hidden = [part for part in parts if part != "keep"]
            if hidden and all(part.startswith("marginal") for part in hidden):
                return mask
        return None

    @property
    def can_be_retrained(self) -> bool:
        """Whether there are remedies for the task, and at least two modalities to balance."""
        return self.M > 1 and self.task in _HAVE_REMEDIES

    @property
    def has_encoders(self) -> bool:
        """Whether every modality is known to have an encoder of its own."""
        encoders = self.record.subject.structure.encoders
        return bool(encoders) and all(encoders.get(name) for name in self.modalities)

    @property
    def has_training_data(self) -> bool:
        """Whether the audit knew training data."""
        data = self.record.spec.get("data")
        return isinstance(data, Mapping) and data.get("train") is not None

    # what the model makes of a modality -----------------------------------------------------------

    def contribution(self, modality: str, mask: Mask) -> Effect | None:
        """Shapley value of the primary score."""
        found = self._row("mask_sensitivity", modality=modality, quantity="contribution", mask=mask)
        if found is None and mask == "first":
            found = self._row(
                "contributions",
                modality=modality,
                score=self.score,
                quantity="value",
                **{"class": "all"},
            )
        return found

    def drop(self, modality: str, mask: Mask) -> Effect | None:
        """Score of the whole model less its score without the modality."""
        found = self._row("mask_sensitivity", modality=modality, quantity="drop", mask=mask)
        if found is not None or mask != "first" or self.whole is None:
            return found
        if len(self.modalities) == 1:
            return self.contribution(modality, "first")
        rate = self._row(
            "utilization",
            quantity="u",
            modality=modality,
            given=others(modality, self.modalities),
            **{"class": "all"},
        )
        return None if rate is None else rate.scaled(self.whole.value)

    def silent(self, modality: str) -> bool:
        """Whether the model's response to the modality is numerically nothing."""
        result = self.record.measures.get("responses")
        return any(
            row.labels.get("modality") == modality
            and row.labels.get("class", "all") == "all"
            and NO_RESPONSE in (row.estimate.undefined or "")
            for row in (result.rows if result is not None else ())
        )

    def share(self, modality: str) -> Effect | None:
        """Share of all contributions."""
        return self._row(
            "contributions",
            modality=modality,
            score=self.score,
            quantity="share",
            **{"class": "all"},
        )

    def interaction(self, first: str, second: str) -> Effect | None:
        """Shapley interaction of a pair in the primary score."""
        return self._row(
            "interactions", first=first, second=second, score=self.score, **{"class": "all"}
        )

    def inside(self, modality: str) -> Effect | None:
        """Score of the model with everything else masked, under the first mask."""
        return self._coalition(modality)

    @cached_property
    def without_any(self) -> Effect | None:
        """Score of the model with everything masked."""
        return self._coalition(coalition_name((), self.modalities))

    def inside_above(self, modality: str) -> Effect | None:
        """The same less the score of the best constant prediction: above 0 it proves that the modality says something alone.

        Both are of the same samples; the score in the most frequent class gives their covariance.
        """
        inside, chance = self.inside(modality), self.chance
        if inside is None or chance is None or self.M < 2:
            return None
        if self.score == "R2":
            return inside
        if inside.low is None or inside.high is None:
            return None
        p, q, n = inside.value, chance, max(self.units[0], 1)
        counts, classes = self.record.data.class_counts, self.record.data.classes
        top = self._coalition(modality, classes[counts.index(max(counts))]) if classes else None
        both = q * (top.value if top is not None else p)
        variance = max(p + q - 2 * both - (p - q) ** 2, 0.0)
        independent = math.sqrt(max(p * (1 - p), 1 / n) / n)
        # Groups widen both by about as much as the recorded interval is wider than that of independent samples.
        design = max(1.0, (inside.high - inside.low) / 2 / _NORMAL / independent)
        half = _NORMAL * design * max(math.sqrt(variance / n), 0.5 / n)
        return Effect(p - q, p - q - half, p - q + half, inside.degrees, inside.rows)

    # what a modality could say --------------------------------------------------------------------

    def alone(self, modality: str) -> Effect | None:
        """Score of the reference model of this modality alone."""
        return self._row("capacity_gap", modality=modality, quantity="alone", mask="none")

    def alone_above(self, modality: str) -> Effect | None:
        """The same less the score of the best constant prediction."""
        return self._row("capacity_gap", modality=modality, quantity="above chance", mask="none")

    def gap(self, modality: str, mask: Mask) -> Effect | None:
        """Score of the reference model less that of the joint model given the modality alone."""
        return self._row("capacity_gap", modality=modality, quantity="gap", mask=mask)

    def advantage(self, modality: str) -> Effect | None:
        """Score of the joint model less that of the reference model."""
        return self._row("capacity_gap", modality=modality, quantity="joint advantage", mask="none")

    def drop_without(self, modality: str) -> Effect | None:
        """Score of the joint model less that of a model trained without the modality."""
        return self._row("capacity_gap", modality=modality, quantity="drop without", mask="none")

    @cached_property
    def failed_without(self) -> Mapping[str, Effect]:
        """Modality -> score that its model without it lacks to the joint model with it masked, where that is certain.

        Both are models without the modality. One that was trained for it and is worse by delta or more shows that its training
        failed, not that the modality is needed.
        """
        delta, lacks = self.thresholds.delta, {}
        for name, (_, drops) in self.effects.items():
            trained = self.drop_without(name)
            if trained is not None and _of_the_same_samples(trained, drops.values()):
                lacks[name] = [difference(trained, drop) for drop in drops.values()]
        p_values = holm(
            any_of([e.p_above(0) if e.value >= delta else 1.0 for e in found])
            for found in lacks.values()
        )
        return {
            name: max(found, key=lambda e: e.value if e.p_above(0) <= self.alpha else -math.inf)
            for (name, found), p in zip(lacks.items(), p_values, strict=True)
            if p <= self.alpha
        }

    def trained_without(self, modality: str) -> Effect | None:
        """:meth:`drop_without`, unless that training failed: what may be evidence of need."""
        return None if modality in self.failed_without else self.drop_without(modality)

    def probe(self, modality: str) -> Effect | None:
        """Score of a linear probe."""
        return self._information(modality, self.score)

    def probe_above(self, modality: str) -> Effect | None:
        """The same less the score of the best constant prediction."""
        return self._information(modality, "above chance")

    def probe_gain(self, modality: str) -> Effect | None:
        """Log-likelihood gain of the probe as a share of the entropy of the target."""
        return self._information(modality, "gain")

    def probe_gap(self, modality: str) -> Effect | None:
        """Score of the probe less that of the joint model given the modality alone, under the first mask."""
        probe, inside = self.probe(modality), self.inside(modality)
        return None if probe is None or inside is None else difference(probe, inside)

    # looking up -----------------------------------------------------------------------------------

    @cached_property
    def _index(
        self,
    ) -> dict[tuple[str, frozenset[tuple[str, str]]], tuple[dict[str, str], Estimate]]:
        return {
            (key, frozenset(row.labels.items())): (row.labels, row.estimate)
            for key, result in self.record.measures.items()
            for row in result.rows
        }

    def _row(self, measure: str, **labels: str) -> Effect | None:
        found = self._index.get((measure, frozenset(labels.items())))
        return None if found is None else effect_of(measure, *found)

    def _coalition(self, coalition: str, class_name: str = "all") -> Effect | None:
        return self._row(
            "coalitions", coalition=coalition, score=self.score, **{"class": class_name}
        )

    def _information(self, modality: str, quantity: str) -> Effect | None:
        for features in ("best", "encoder", "inputs"):
            found = self._row(
                "information", modality=modality, quantity=quantity, features=features
            )
            if found is not None:
                return found
        return None


def _of_the_same_samples(trained: Effect, drops: Iterable[Effect]) -> bool:
    """Whether a model was asked about all samples that masking was tried on; of some masks those are fewer, spread over all."""
    counts = [row[2].n for drop in drops for row in drop.rows]
    return bool(counts) and [row[2].n for row in trained.rows] == [max(counts)]
