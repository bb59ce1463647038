"""How often intervals hold the truth: many data sets of one world, each measured as an audit measures its table.

Each data set becomes a table on disk that goes through the measures. All its intervals count, warned or not, since to leave out
the warned ones would select by the outcome; where most of them warn there is nothing to judge.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.special import log_softmax

from mmaudit.evidence.extra_table import write_table
from mmaudit.measures import compute_measures
from mmaudit.measures.mono_modal_response import (
    logit_scale,
    mono_modal_responses,
    response_logliks,
    response_scores,
    response_sizes,
)
from mmaudit.report.schema import Estimate, MeasureResult
from mmaudit.selftest.networks import Reading, written
from mmaudit.selftest.results import CoverageRow
from mmaudit.selftest.truth import Truth, brute_force
from mmaudit.selftest.worlds import Carrier, Source, World, sample
from mmaudit.typing import FloatArray

__all__ = ["SCENARIOS", "Scenario", "check_coverage", "coverage_of"]

LOWEST, HIGHEST = 0.93, 0.97
"""What is promised."""

_ROUNDING = 1e-6
"""Tables hold single precision: what does not vary is not exactly the truth."""

_ERRORS = 3.5
"""Monte Carlo standard errors beyond the promise before a figure counts as off."""


@dataclass(frozen=True)
class Scenario:
    """Data sets of one world.

    Args:
        name: In the table.
        world: What is drawn.
        reading: What the network makes of it.
        samples: In a data set.
    """

    name: str
    world: World
    reading: dict[str, Reading]
    samples: int


_PAIR = {"a": Reading(), "b": Reading(3.0)}
_TWO = {"s": Source(right=0.8), "t": Source(right=0.7)}
_NOISY = {"a": Carrier("s", noise=0.3), "b": Carrier("t", noise=0.3)}

SCENARIOS: tuple[Scenario, ...] = (
    Scenario("200 samples", World(_TWO, _NOISY, classes=3), _PAIR, 200),
    Scenario(
        "1,000 samples, uneven classes", World(_TWO, _NOISY, 3, prior=(0.6, 0.3, 0.1)), _PAIR, 1000
    ),
    Scenario("60 groups of 5", World(_TWO, _NOISY, classes=3, group_size=5), _PAIR, 300),
    Scenario(
        "three modalities",
        World(
            {"s": Source(right=0.75), "t": Source(right=0.65), "u": Source(right=0.5)},
            {
                "a": Carrier("s", noise=0.3),
                "b": Carrier("t", noise=0.3),
                "c": Carrier("u", noise=0.3),
            },
            4,
        ),
        {"a": Reading(), "b": Reading(), "c": Reading(2.0)},
        300,
    ),
)


def check_coverage(
    runs: int, seed: int, progress: Callable[[str, int, int], None] | None = None
) -> list[CoverageRow]:
    """Coverage of every kind of interval over all scenarios.

    Args:
        runs: Data sets of each scenario.
        seed: Of the samples.
        progress: Told how far it is: stage, samples done, all samples.
    """
    rows, before = [], 0
    total = runs * sum(scenario.samples for scenario in SCENARIOS)
    for place, scenario in enumerate(SCENARIOS):

        def tell(done: int, before: int = before, each: int = scenario.samples) -> None:
            if progress is not None:
                progress("Coverage", before + done * each, total)

        rows += coverage_of(scenario, runs, np.random.default_rng([seed, place]), tell)
        before += runs * scenario.samples
    return rows


def coverage_of(
    scenario: Scenario,
    runs: int,
    rng: np.random.Generator,
    tell: Callable[[int], None] | None = None,
) -> list[CoverageRow]:
    """Coverage of one scenario's intervals.

    Args:
        scenario: Which.
        runs: Data sets.
        rng: Draws them.
        tell: Told how many are done.
    """
    world = scenario.world
    model = written(world, scenario.reading)
    truth = brute_force(world, model, "zero", rng, samples=300_000)
    held: dict[str, list[list[bool]]] = defaultdict(list)
    warned: dict[str, int] = defaultdict(int)
    for run in range(runs):
        columns = _columns(world, model, scenario.samples, rng)
        folder = Path(tempfile.mkdtemp(prefix="mmaudit-selftest-"))
        try:
            write_table(folder / "coalitions", columns)
            found, _ = compute_measures(
                folder / "coalitions",
                modalities=tuple(world.modalities),
                classes=tuple(str(k) for k in range(world.classes)),
                grouped=world.group_size > 1,
                seed=run,
                replicates=200,
                only=("coalitions", "responses", "contributions", "interactions", "utilization"),
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        of_run: dict[str, list[bool]] = defaultdict(list)
        for kind, estimate, right in _pairs(found, truth):
            if estimate.low is not None and estimate.high is not None:
                inside = estimate.low - _ROUNDING <= right <= estimate.high + _ROUNDING
                of_run[kind].append(inside)
                warned[kind] += estimate.warning is not None
        for kind, inside_all in of_run.items():
            held[kind].append(inside_all)
        if tell is not None:
            tell(run + 1)
    return [_row(scenario.name, kind, of_kind, warned[kind]) for kind, of_kind in held.items()]


def _row(scenario: str, kind: str, held: list[list[bool]], warned: int) -> CoverageRow:
    """One figure, judged by the spread between data sets, whose intervals go together."""
    shares = np.array([np.mean(of_run) for of_run in held])
    covered, intervals = float(shares.mean()), sum(map(len, held))
    error = max(float(shares.std()), 0.1) / math.sqrt(len(shares))
    claims = warned < intervals / 2
    fine = LOWEST - _ERRORS * error <= covered <= HIGHEST + _ERRORS * error
    return CoverageRow(
        scenario=scenario,
        interval=kind,
        coverage=covered,
        intervals=intervals,
        runs=len(shares),
        warned=warned / intervals,
        right=fine or not claims,
    )


def _pairs(found: dict[str, MeasureResult], truth: Truth) -> Iterator[tuple[str, Estimate, float]]:
    """Every interval with the number that it should hold."""
    for key, result in found.items():
        for row in result.rows:
            labels = row.labels
            if labels["class"] != "all" or row.estimate.value is None:
                continue
            right = _right(key, labels, truth)
            if right is not None:
                what = labels.get("score") or {"s": "log-likelihood", "Acc": "accuracy"}.get(
                    labels["quantity"], ""
                )
                yield f"{key}, {what}" if what else key, row.estimate, right


def _right(key: str, labels: dict[str, str], truth: Truth) -> float | None:
    if key == "coalitions":
        game = truth.accuracy if labels["score"] == "accuracy" else truth.loglik
        return game[_set(labels["coalition"])]
    if key == "utilization" and labels["quantity"] == "u":
        return truth.utilization(labels["modality"], _set(labels["given"]))
    if key == "responses" and labels["empty"] == "exact":
        return truth.responses[labels["modality"]][labels["quantity"] == "s"]
    if labels.get("score") != "accuracy":
        return None
    if key == "contributions" and labels["quantity"] == "value":
        return truth.contributions[labels["modality"]]
    if key == "interactions":
        return truth.interaction(labels["first"], labels["second"])
    return None


def _set(coalition: str) -> frozenset[str]:
    return frozenset() if coalition == "none" else frozenset(coalition.split("+"))


def _columns(
    world: World, model: torch.nn.Module, n: int, rng: np.random.Generator
) -> dict[str, np.ndarray | list[str]]:
    """The coalition table of one data set, under zeros."""
    drawn = sample(world, n, rng)
    names = tuple(world.modalities)
    scores: list[FloatArray] = []
    for coalition in range(2 ** len(names)):
        inputs = {
            name: torch.from_numpy(drawn.inputs[name]) * float(coalition >> m & 1)
            for m, name in enumerate(names)
        }
        with torch.no_grad():
            scores.append(model(**inputs).double().numpy())
    logits, y = np.stack(scores), drawn.label
    logp = log_softmax(logits, axis=2)
    phi = mono_modal_responses(logits, "exact")
    responses = {
        "score": response_scores(phi, y, logit_scale(logits)).T,
        "loglik": response_logliks(phi, y).T,
    }
    return {
        "sample_id": [str(i) for i in range(n)],
        "position": np.arange(n),
        "target": y.astype(np.int32),
        "group": [f"g{g}" for g in drawn.group],
        "present": np.full(n, 2 ** len(names) - 1, np.int32),
        "prediction": logits.argmax(axis=2).T.astype(np.int32),
        "correct": (logits.argmax(axis=2) == y).T.astype(np.uint8),
        "loglik": np.take_along_axis(logp, y[None, :, None], axis=2)[..., 0].T,
        "response_size": response_sizes(logits).T,
        **{f"response_{key}_{e}": v for key, v in responses.items() for e in ("exact", "zero")},
    }
