"""The cases of the self-test: worlds, networks, masks, and the verdict that each modality deserves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from mmaudit.report import AuditReport
from mmaudit.report.schema import VerdictName
from mmaudit.selftest.networks import CodeNet, Reading, written
from mmaudit.selftest.truth import MaskName
from mmaudit.selftest.worlds import Carrier, Samples, Source, World, sample

__all__ = ["CASES", "Case", "alone", "batches_of", "run_case"]

_BATCH = 250


@dataclass(frozen=True)
class Case:
    """A planted model.

    Args:
        name: In the table.
        world: What modalities say.
        reading: What the network makes of each.
        verdicts: What each modality deserves.
        mask: How modalities are hidden.
        rules: Findings about the whole model that have to be there.
        never: Such that must not.
        references: Whether the audit has models of single modalities.
        training: Whether it has training data.
        samples: Audited samples.
    """

    name: str
    world: World
    reading: Mapping[str, Reading]
    verdicts: Mapping[str, VerdictName]
    mask: MaskName = "zero"
    rules: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    references: bool = True
    training: bool = False
    samples: int = 1200

    def model(self) -> CodeNet:
        """The network."""
        return written(self.world, self.reading)


def alone(world: World, modality: str) -> nn.Module:
    """The best model of one modality alone: a written network that hears no other."""
    return written(world, {modality: Reading()})


def batches_of(world: World, drawn: Samples, prefix: str = "") -> list[dict[str, Any]]:
    """Samples as an audit takes them."""
    found = []
    for start in range(0, len(drawn.label), _BATCH):
        rows = slice(start, start + _BATCH)
        batch: dict[str, Any] = {
            name: torch.from_numpy(values[rows]) for name, values in drawn.inputs.items()
        }
        batch["label"] = torch.from_numpy(drawn.label[rows])
        batch["id"] = [f"{prefix}{i}" for i in range(start, start + len(drawn.label[rows]))]
        batch["group"] = [f"g{g}" for g in drawn.group[rows]]
        found.append(batch)
    return found


def run_case(case: Case, seed: int) -> AuditReport:
    """Audit a case as a user would.

    Args:
        case: Which.
        seed: Of the samples.
    """
    from mmaudit import audit

    rng, world = np.random.default_rng(seed), case.world
    n = case.samples
    spec: dict[str, Any] = {
        "modalities": {name: {"inputs": name, "mask": case.mask} for name in world.modalities},
        "target": "label",
        "ids": "id",
        "call": {"kwargs": {name: name for name in world.modalities}},
        "classes": [str(k) for k in range(world.classes)],
    }
    if world.group_size > 1:
        spec["group"] = "group"
    train = sample(world, n, rng, training=True) if case.training else None
    return audit(
        case.model(),
        batches_of(world, sample(world, n, rng)),
        spec,
        train=None if train is None else batches_of(world, train, "train-"),
        references={name: alone(world, name) for name in world.modalities}
        if case.references
        else None,
        seed=seed,
        device="cpu",
        replicates=200,
    )


_NOISE = Source("noise")


def _case(name: str, sources: dict[str, Source], modalities: dict[str, Any], **more: Any) -> Case:
    """A case from the short form modality -> (source, reading, verdict)."""
    world = more.pop("world", {})
    carriers = {m: given[0] for m, given in modalities.items()}
    carriers = {m: c if isinstance(c, Carrier) else Carrier(c) for m, c in carriers.items()}
    return Case(
        name=name,
        world=World(sources, carriers, **world),
        reading={m: given[1] for m, given in modalities.items()},
        verdicts={m: given[2] for m, given in modalities.items()},
        **more,
    )


_PARTS = {"s0": Source("part", 0.9, 0), "s1": Source("part", 0.9, 1)}
_FOUR: dict[str, Any] = {"classes": 4, "digits": (2, 2)}
_READ, _IGNORED = Reading(), Reading(0.0)

CASES: tuple[Case, ...] = (
    _case(
        "unique",
        _PARTS,
        {"a": ("s0", _READ, "well used"), "b": ("s1", _READ, "well used")},
        world=_FOUR,
        never=("dominance", "worse than its best modality", "leaked label"),
    ),
    _case(
        "unique, in groups, no reference models",
        _PARTS,
        {"a": ("s0", _READ, "well used"), "b": ("s1", _READ, "well used")},
        world={**_FOUR, "group_size": 5},
        mask="marginal",
        references=False,
        samples=2000,
    ),
    _case(
        "redundant",
        {"s": Source(right=0.85)},
        {"a": ("s", _READ, "redundant"), "b": ("s", _READ, "redundant")},
        world={"classes": 3},
        rules=("identical modalities",),
        never=("worse than its best modality",),
    ),
    _case(
        "XOR",
        {"s": Source("summand", 0.95), "t": Source("summand", 0.95)},
        {"a": ("s", _READ, "well used"), "b": ("t", _READ, "well used")},
        world={"classes": 2},
        rules=("synergy",),
        never=("dominance", "leaked label", "worse than its best modality"),
    ),
    _case(
        "ignored",
        {"s": Source(right=0.8), "t": Source(right=0.85), "n": _NOISE},
        {
            "a": ("s", _READ, "well used"),
            "b": ("t", _IGNORED, "under-used"),
            "c": ("n", _IGNORED, "uninformative"),
        },
        world={"classes": 3},
        rules=("dominance",),
    ),
    _case(
        "ignored, training data in place of reference models",
        {"s": Source(right=0.8), "t": Source(right=0.85), "n": _NOISE},
        {
            "a": ("s", _READ, "well used"),
            "b": ("t", _IGNORED, "under-used"),
            "c": ("n", _IGNORED, "uninformative"),
        },
        world={"classes": 3},
        mask="mean",
        references=False,
        training=True,
        rules=("dominance",),
    ),
    _case(
        "under-used",
        {
            "s0": Source("part", 1.0, 0),
            "s1": Source("part", 1.0, 1),
            "weak": Source("part", 0.6, 1),
        },
        {
            "a": ("s0", _READ, "well used"),
            "b": (Carrier("s1", "weak"), Reading(proxy=True), "under-used"),
        },
        world=_FOUR,
        samples=2000,
    ),
    _case(
        "harmful",
        {"s": Source(right=0.9), "w": Source("wrong", 0.7)},
        {"a": ("s", _READ, "well used"), "b": ("w", Reading(4.0), "harmful")},
        world={"classes": 2},
        rules=("worse than its best modality",),
    ),
    _case(
        "leaked",
        {"y": Source(right=1.0), "t": Source(right=0.7), "n": _NOISE},
        {
            "a": ("y", Reading(20.0), "well used"),
            "b": ("t", _IGNORED, "under-used"),
            "c": ("n", _IGNORED, "uninformative"),
        },
        world={"classes": 4},
        rules=("leaked label", "dominance"),
    ),
    _case(
        "five modalities",
        {
            "s0": Source("part", 0.95, 0),
            "s1": Source("part", 0.9, 1),
            "s2": Source("part", 0.95, 2),
            "n": _NOISE,
        },
        {
            "a": ("s0", _READ, "well used"),
            "b": ("s1", _READ, "redundant"),
            "c": ("s1", _READ, "redundant"),
            "d": ("s2", _IGNORED, "under-used"),
            "e": ("n", _IGNORED, "uninformative"),
        },
        world={"classes": 8, "digits": (2, 2, 2)},
    ),
)
"""Every kind of modality that there is a verdict for, with two, three and five of them and several masks."""
