"""Verdicts on more than a hundred planted models, none of which the rules were tuned on (those had seeds 1000 to 1099)."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from tests.planted.planting import WRITTEN, audited, plant

SEEDS = range(2000, 2112)
QUICK = range(9)


def judged(seeds):
    """Confusion of verdicts, models that are wholly right, and what must never be."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    confusion, models, never = Counter(), Counter(), []
    try:
        for seed in seeds:
            planted = plant(seed)
            if planted is None:
                continue
            report, findings = audited(planted)
            found = {f.modality: f.verdict for f in findings if f.verdict is not None}
            rules = {f.rule for f in findings}
            right = all(found[name] == verdict for name, verdict in planted.verdicts.items())
            models["right" if right else "wrong"] += 1
            confusion.update((verdict, found[name]) for name, verdict in planted.verdicts.items())
            for name in planted.silent:
                value = report.estimate("contributions", modality=name).value
                if value != 0:
                    never.append((seed, name, "an ignored modality contributes", value))
            for name in planted.uninformative:
                if found[name] == "under-used":
                    never.append((seed, name, "uninformative, called under-used"))
            never += [(seed, "said", rule) for rule in set(planted.never) & rules]
            never += [(seed, "not said", rule) for rule in set(planted.rules) - rules]
    finally:
        torch.set_num_threads(threads)
    return confusion, models, never


def test_every_kind_can_be_planted_and_repeated():
    made = [plant(seed) for seed in QUICK]
    assert {p.kind.removesuffix(", trained") for p in made if p is not None} <= set(WRITTEN)
    again = plant(3)
    assert again.verdicts == made[3].verdicts and again.samples == made[3].samples
    first, second = (list(p.model.parameters()) for p in (again, made[3]))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_at_least_eighty_of_a_hundred_are_definite_and_right():
    confusion, models, never = judged(SEEDS)
    assert models.total() >= 100
    assert never == []
    right = sum(count for (planted, found), count in confusion.items() if planted == found)
    definite = sum(count for (_, found), count in confusion.items() if found != "undetermined")
    assert right >= 0.9 * confusion.total(), confusion
    assert right >= 0.95 * definite, confusion
    assert models["right"] >= 0.8 * models.total(), confusion
