"""Plants models at random: kind of fault, modalities, classes, imbalance, sample size, masks, means, evidence, written or trained.

What each modality deserves follows from how it was planted, not from any measure. A trained network that did not learn what it was
planted to learn is trained again on more data, and else left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mmaudit import audit
from mmaudit.findings import find
from mmaudit.selftest.cases import alone, batches_of
from mmaudit.selftest.networks import Reading, trained, written
from mmaudit.selftest.truth import reference_accuracy
from mmaudit.selftest.worlds import Carrier, Source, World, sample


@dataclass
class Planted:
    """A model with its data and the truth about it."""

    kind: str
    world: World
    model: torch.nn.Module
    verdicts: dict[str, str]
    references: dict[str, Any] | None
    training: bool
    mask: str
    samples: int
    seed: int
    rules: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    uninformative: tuple[str, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Plot:
    """What is planted before chance decides the rest."""

    sources: dict[str, Source]
    carriers: dict[str, tuple[str, str | None]]
    reading: dict[str, Reading]
    verdicts: dict[str, str]
    classes: int
    digits: tuple[int, ...] = ()
    best: float | None = None
    even: bool = False
    rules: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


READ, IGNORED = Reading(), Reading(0.0)


def parts(rng, trainable):
    M = int(rng.integers(2, 4))
    digits = tuple(int(rng.integers(2, 4)) for _ in range(M))
    right = rng.uniform(0.85, 1.0, M)
    names = "abc"[:M]
    return Plot(
        {f"s{m}": Source("part", right[m], m) for m in range(M)},
        {n: (f"s{m}", None) for m, n in enumerate(names)},
        dict.fromkeys(names, READ),
        dict.fromkeys(names, "well used"),
        int(np.prod(digits)),
        digits,
        best=float(np.prod(right)),
        even=True,
        never=("worse than its best modality", "leaked label", "identical modalities"),
    )


def copies(rng, trainable):
    K = int(rng.integers(2, 6))
    right = rng.uniform(0.7, 0.92)
    plot = Plot(
        {"s": Source(right=right)},
        {"a": ("s", None), "b": ("s", None)},
        {"a": READ, "b": READ},
        {"a": "redundant", "b": "redundant"},
        K,
        best=right,
        never=("worse than its best modality",),
    )
    if rng.random() < 0.4:
        plot.sources["n"] = Source("noise")
        plot.carriers["c"] = ("n", None)
        plot.reading["c"] = IGNORED
        plot.verdicts["c"] = "uninformative"
    return plot


def xor(rng, trainable):
    K = int(rng.integers(2, 4))
    right = rng.uniform(0.9, 1.0)
    names = "abc"[: 2 if trainable else int(rng.integers(2, 4))]
    plot = Plot(
        {f"s{n}": Source("summand", right) for n in names},
        {n: (f"s{n}", None) for n in names},
        dict.fromkeys(names, READ),
        dict.fromkeys(names, "well used"),
        K,
        best=right ** len(names),
        even=True,
        rules=("synergy",) if len(names) == 2 else (),
        never=("dominance", "leaked label", "worse than its best modality"),
    )
    if rng.random() < 0.3:
        plot.sources["n"] = Source("noise")
        plot.carriers["z"] = ("n", None)
        plot.reading["z"] = IGNORED
        plot.verdicts["z"] = "uninformative"
    return plot


def ignored(rng, trainable):
    K = int(rng.integers(2, 7))
    plot = Plot(
        {"s": Source(right=rng.uniform(0.65, 0.95)), "t": Source(right=rng.uniform(0.65, 0.95))},
        {"a": ("s", None), "b": ("t", None)},
        {"a": READ, "b": IGNORED},
        {"a": "well used", "b": "under-used"},
        K,
        never=("leaked label",),
    )
    for name in "cde"[: int(rng.integers(0, 4))]:
        plot.sources["n" + name] = Source("noise")
        plot.carriers[name] = ("n" + name, None)
        plot.reading[name] = IGNORED
        plot.verdicts[name] = "uninformative"
    return plot


def faint_noise(rng, trainable):
    K = int(rng.integers(2, 5))
    right = rng.uniform(0.75, 0.95)
    return Plot(
        {"s": Source(right=right), "n": Source("noise")},
        {"a": ("s", None), "b": ("n", None)},
        {"a": READ, "b": Reading(rng.uniform(0.2, 0.8))},
        {"a": "well used", "b": "uninformative"},
        K,
        best=right,
        never=("leaked label", "worse than its best modality"),
    )


def harmful(rng, trainable):
    return Plot(
        {"s": Source(right=rng.uniform(0.8, 0.95)), "w": Source("wrong", rng.uniform(0.6, 0.9))},
        {"a": ("s", None), "b": ("w", None)},
        {"a": READ, "b": Reading(rng.uniform(3.8, 4.2))},
        {"a": "well used", "b": "harmful"},
        2,
        rules=("worse than its best modality",),
    )


def proxy(rng, trainable):
    return Plot(
        {
            "s": Source("part", rng.uniform(0.95, 1.0), 0),
            "t": Source("part", rng.uniform(0.95, 1.0), 1),
            "p": Source("part", rng.uniform(0.55, 0.62), 1),
        },
        {"a": ("s", None), "b": ("t", "p")},
        {"a": READ, "b": Reading(proxy=True)},
        {"a": "well used", "b": "under-used"},
        4,
        (2, 2),
        even=True,
    )


def leaked(rng, trainable):
    K = int(rng.integers(2, 6))
    return Plot(
        {"y": Source(), "t": Source(right=rng.uniform(0.6, 0.8)), "n": Source("noise")},
        {"a": ("y", None), "b": ("t", None), "c": ("n", None)},
        {"a": READ, "b": IGNORED, "c": IGNORED},
        {"a": "well used", "b": "under-used", "c": "uninformative"},
        K,
        rules=("leaked label",),
    )


def views(rng, trainable):
    K = int(rng.integers(3, 6))
    right = rng.uniform(0.7, 0.85, 3)
    return Plot(
        {f"s{m}": Source(right=right[m]) for m in range(3)},
        {n: (f"s{m}", None) for m, n in enumerate("abc")},
        {
            n: Reading(float(np.log(right[m] * (K - 1) / (1 - right[m]))))
            for m, n in enumerate("abc")
        },
        dict.fromkeys("abc", "well used"),
        K,
        never=("worse than its best modality", "leaked label", "identical modalities"),
    )


WRITTEN: dict[str, Callable[..., Plot]] = {
    "parts": parts,
    "copies": copies,
    "XOR": xor,
    "ignored": ignored,
    "faint noise": faint_noise,
    "harmful": harmful,
    "proxy": proxy,
    "leaked": leaked,
    "views": views,
}
TRAINED = ("parts", "copies", "XOR", "faint noise", "views", "leaked")
SIZES = (300, 500, 1000, 2000, 4000)


def plant(seed: int) -> Planted | None:
    """One planted model; ``None`` where training did not give what was planted."""
    rng = np.random.default_rng([seed, 42])
    kind = list(WRITTEN)[seed % len(WRITTEN)]
    trainable = kind in TRAINED and bool(rng.random() < 0.4)
    plot = WRITTEN[kind](rng, trainable)
    shift = float(rng.choice([0.0, 0.0, 1.0]))
    prior = ()
    if not plot.even and plot.classes < 5 and rng.random() < 0.3:
        weights = rng.uniform(1.0, 1.6, plot.classes)
        prior = tuple(weights / weights.sum())
    carriers = {}
    for name, (source, other) in plot.carriers.items():
        values = 2 if plot.digits else plot.classes
        values = max(plot.digits) if plot.digits else plot.classes
        width = int(values * (1 if other is None else 2) + rng.integers(0, 6))
        carriers[name] = Carrier(source, other, width, shift, float(rng.uniform(0.05, 0.15)))
    world = World(
        plot.sources,
        carriers,
        plot.classes,
        plot.digits,
        prior,
        group_size=int(rng.choice([1, 1, 1, 3])),
    )
    samples = int(rng.choice(SIZES))
    if world.group_size > 1:
        samples = max(samples, 1000)
    references, training = [(True, False), (True, True), (False, True)][int(rng.integers(3))]
    verdicts = dict(plot.verdicts)
    if trainable:
        model = _learnt(world, tuple(carriers), seed, plot.best)
        if model is None:
            return None
        if kind == "leaked":  # a network that was free to look may look at the other a little
            verdicts.pop("b"), verdicts.pop("c")
    else:
        model = written(world, plot.reading)
    others = None
    if references:
        others = {
            name: trained(world, (name,), seed + 1, epochs=15) if trainable else alone(world, name)
            for name in carriers
        }
    return Planted(
        kind=kind + (", trained" if trainable else ""),
        world=world,
        model=model,
        verdicts=verdicts,
        references=others,
        training=training,
        mask=str(rng.choice(["zero", "zero", "mean" if training else "zero", "marginal"])),
        samples=samples,
        seed=seed,
        rules=plot.rules,
        never=plot.never,
        silent=() if trainable else tuple(n for n, r in plot.reading.items() if r.weight == 0),
        uninformative=tuple(
            n for n, c in carriers.items() if plot.sources[c.source].kind == "noise"
        ),
        notes={"shift": shift, "prior": prior, "grouped": world.group_size},
    )


def _learnt(world, names, seed, best):
    for samples in (3000, 6000):
        model = trained(world, names, seed, samples=samples, epochs=20)
        reached = reference_accuracy(world, model, np.random.default_rng(seed), samples=20_000)
        if best is None or reached > best - 0.02:
            return model
    return None


def audited(planted: Planted):
    """Report and findings of a planted model."""
    rng, world = np.random.default_rng([planted.seed, 7]), planted.world
    spec: dict[str, Any] = {
        "modalities": {n: {"inputs": n, "mask": planted.mask} for n in world.modalities},
        "target": "label",
        "ids": "id",
        "call": {"kwargs": {n: n for n in world.modalities}},
        "classes": [str(k) for k in range(world.classes)],
    }
    if world.group_size > 1:
        spec["group"] = "group"
    train = None
    if planted.training:
        train = batches_of(world, sample(world, 2000, rng, training=True), "train-")
    report = audit(
        planted.model,
        batches_of(world, sample(world, planted.samples, rng)),
        spec,
        train=train,
        references=planted.references,
        seed=planted.seed,
        device="cpu",
        replicates=200,
    )
    return report, find(report.record, report.table("coalitions"))
