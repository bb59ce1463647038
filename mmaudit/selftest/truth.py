"""The right answers, worked out in another way than the audit: brute force on many samples, Shapley values by orderings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import log_softmax

from mmaudit.selftest.worlds import World, sample
from mmaudit.typing import FloatArray, IntArray

__all__ = ["MaskName", "Truth", "brute_force", "reference_accuracy"]

MaskName = Literal["zero", "mean", "marginal"]


@dataclass(frozen=True)
class Truth:
    """Scores of all coalitions on many samples.

    Attributes:
        modalities: Names.
        accuracy: Coalition -> accuracy.
        loglik: Coalition -> mean log-likelihood of the label, nats.
        responses: Modality -> accuracy and mean negative log-likelihood (nats) of its mono-modal response.
        samples: How many.
    """

    modalities: tuple[str, ...]
    accuracy: Mapping[frozenset[str], float]
    loglik: Mapping[frozenset[str], float]
    responses: Mapping[str, tuple[float, float]]
    samples: int

    @cached_property
    def contributions(self) -> dict[str, float]:
        """Shapley value of each modality in the accuracy: its mean gain over all orders of arrival."""
        total = dict.fromkeys(self.modalities, 0.0)
        orders = list(itertools.permutations(self.modalities))
        for order in orders:
            here: frozenset[str] = frozenset()
            for name in order:
                total[name] += self.accuracy[here | {name}] - self.accuracy[here]
                here |= {name}
        return {name: value / len(orders) for name, value in total.items()}

    def drop(self, modality: str) -> float:
        """Accuracy of the whole less that without the modality."""
        whole = frozenset(self.modalities)
        return self.accuracy[whole] - self.accuracy[whole - {modality}]

    def utilization(self, modality: str, given: frozenset[str]) -> float:
        """Share of the accuracy that is lost without the modality."""
        return 1 - self.accuracy[given] / self.accuracy[given | {modality}]

    def interaction(self, first: str, second: str) -> float:
        """Shapley interaction of a pair: its mean surplus, over the orders of the others and the place where the pair arrives."""
        pair = frozenset({first, second})
        players = [pair, *(frozenset({name}) for name in self.modalities if name not in pair)]
        surplus, a = [], self.accuracy
        for order in itertools.permutations(players):
            here = frozenset().union(*order[: order.index(pair)])
            surplus.append(a[here | pair] - a[here | {first}] - a[here | {second}] + a[here])
        return float(np.mean(surplus))


def brute_force(
    world: World,
    model: Callable[..., Any],
    mask: MaskName,
    rng: np.random.Generator,
    *,
    samples: int = 100_000,
) -> Truth:
    """Run the model on every coalition of fresh samples, each masked by plain array operations.

    Args:
        world: To draw from.
        model: Called with one tensor for each modality, by name.
        mask: ``zero``, ``mean`` of the data, or ``marginal``: the values of another sample, drawn anew for each.
        rng: Draws samples and donors.
        samples: How many.
    """
    drawn = sample(world, samples, rng)
    donors = sample(world, samples, rng)
    hidden = {
        name: {
            "zero": np.zeros_like(values),
            "mean": np.broadcast_to(values.mean(axis=0), values.shape),
            "marginal": donors.inputs[name][rng.permutation(samples)],
        }[mask]
        for name, values in drawn.inputs.items()
    }
    names = tuple(world.modalities)
    accuracy, loglik, said = {}, {}, {}
    for size in range(len(names) + 1):
        for chosen in itertools.combinations(names, size):
            inputs = {
                name: torch.from_numpy(
                    np.ascontiguousarray(drawn.inputs[name] if name in chosen else hidden[name])
                )
                for name in names
            }
            with torch.no_grad():
                logits = model(**inputs).double().numpy()
            here = frozenset(chosen)
            accuracy[here] = float((logits.argmax(axis=1) == drawn.label).mean())
            loglik[here] = _loglik(logits, drawn.label)
            said[here] = logits
    responses = {}
    for name, response in _responses(names, said).items():
        right = float((response.argmax(axis=1) == drawn.label).mean())
        responses[name] = (right, -_loglik(response, drawn.label))
    return Truth(names, accuracy, loglik, responses, samples)


def _responses(
    names: tuple[str, ...], said: Mapping[frozenset[str], FloatArray]
) -> dict[str, FloatArray]:
    """What each modality adds to the logits, mean over all orders of arrival."""
    total = {name: np.zeros_like(said[frozenset()]) for name in names}
    orders = list(itertools.permutations(names))
    for order in orders:
        here: frozenset[str] = frozenset()
        for name in order:
            total[name] += (said[here | {name}] - said[here]) / len(orders)
            here |= {name}
    return total


def reference_accuracy(
    world: World, model: Callable[..., Any], rng: np.random.Generator, *, samples: int = 100_000
) -> float:
    """Accuracy of a model on many samples."""
    drawn = sample(world, samples, rng)
    with torch.no_grad():
        logits = model(**{name: torch.from_numpy(v) for name, v in drawn.inputs.items()})
    return float((logits.argmax(dim=1).numpy() == drawn.label).mean())


def _loglik(logits: FloatArray, label: IntArray) -> float:
    return float(log_softmax(logits, axis=1)[np.arange(len(label)), label].mean())
