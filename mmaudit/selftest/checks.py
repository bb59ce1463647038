"""The audits of the self-test: every estimate against brute force, every verdict against what was planted."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mmaudit.findings import find
from mmaudit.report import AuditReport
from mmaudit.report.schema import Estimate
from mmaudit.selftest.cases import Case, alone, run_case
from mmaudit.selftest.results import ErrorRow, VerdictRow
from mmaudit.selftest.truth import MaskName, Truth, brute_force, reference_accuracy
from mmaudit.selftest.worlds import unimodal_accuracy

__all__ = ["check_cases", "compared"]

_FARTHEST = 5.0
"""Standard errors that no estimate should be away from the truth."""

_DONORS = 256
_ROUNDING = 1e-5
_PROBE = 0.01
"""How far a linear probe, fitted on as many samples, may stay behind the best prediction."""


@dataclass(frozen=True)
class Compared:
    """One estimate beside the truth.

    Args:
        estimator: Measure and quantity.
        where: Case and labels.
        error: Estimate less truth.
        deviation: Error as a multiple of the standard error, that of the truth included.
        exact: Whether the interval has no width.
    """

    estimator: str
    where: str
    error: float
    deviation: float
    exact: bool


def check_cases(
    cases: Sequence[Case],
    seed: int,
    *,
    samples: int = 100_000,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[list[ErrorRow], list[VerdictRow]]:
    """Audit all cases.

    Args:
        cases: Which.
        seed: Of their samples.
        samples: Of the brute force.
        progress: Told how far it is: stage, samples done, all samples.

    Returns:
        One row for each estimator, and one for each verdict.
    """
    errors: dict[str, list[Compared]] = defaultdict(list)
    verdicts: list[VerdictRow] = []
    for place, case in enumerate(cases):
        report = run_case(case, seed + place)
        for found in compared(case, report, seed + place, samples=samples):
            errors[found.estimator].append(found)
        verdicts += _verdicts(case, report)
        if progress is not None:
            done = sum(case.samples for case in cases[: place + 1])
            progress("Audits", done, sum(case.samples for case in cases))
    return [_summary(name, found) for name, found in errors.items()], verdicts


def compared(
    case: Case, report: AuditReport, seed: int, *, samples: int = 100_000
) -> Iterator[Compared]:
    """Every estimate of a case that has a known truth, beside it.

    Args:
        case: Which.
        report: Its audit.
        seed: Of the brute force.
        samples: Of the brute force.
    """
    rng, model = np.random.default_rng([seed, 1]), case.model()
    second: MaskName = "zero" if case.mask == "marginal" else "marginal"
    truths = {
        mask: brute_force(case.world, model, name, rng, samples=samples)
        for mask, name in (("first", case.mask), ("second", second))
    }
    names = {"first": case.mask, "second": second}
    alone_scores = {
        name: reference_accuracy(case.world, alone(case.world, name), rng, samples=samples)
        for name in (case.world.modalities if case.references else ())
    }
    for key, result in report.measures.items():
        for row in result.rows:
            labels, estimate = row.labels, row.estimate
            if labels.get("class", "all") != "all" or estimate.value is None:
                continue
            mask = labels.get("mask", "first")
            right = _right(case, key, labels, truths.get(mask, truths["first"]), alone_scores)
            if right is None:
                continue
            quantity = labels.get("quantity") or labels.get("score", "")
            estimator = f"{key}: {quantity}" + (
                f", {labels['score']}" if "score" in labels and "quantity" in labels else ""
            )
            drawn = 0.5 / math.sqrt(_DONORS) if names.get(mask) == "marginal" else 0.0
            bias = _PROBE if key == "information" else 0.0
            spread = math.hypot(0.5 / math.sqrt(samples), drawn)
            yield _compare(
                estimator, f"{case.name}, {_words(labels)}", estimate, right, spread, bias
            )


def _compare(
    estimator: str, where: str, estimate: Estimate, right: float, spread: float, bias: float
) -> Compared:
    assert estimate.value is not None
    error = estimate.value - right
    if estimate.low is None or estimate.high is None:
        return Compared(estimator, where, error, 0.0, False)
    half = (estimate.high - estimate.low) / 2
    exact = half < _ROUNDING
    scale = math.hypot(half / float(stats.norm.ppf(0.975)), 0.0 if exact else spread)
    beyond = max(abs(error) - bias - _ROUNDING, 0.0)
    return Compared(estimator, where, error, beyond / max(scale, _ROUNDING), exact)


def _right(
    case: Case, key: str, labels: dict[str, str], truth: Truth, alone_scores: dict[str, float]
) -> float | None:
    """The true value of a row; ``None`` where none is known."""
    name, quantity = labels.get("modality", ""), labels.get("quantity", "value")
    whole = frozenset(case.world.modalities)
    if key == "coalitions":
        game = truth.accuracy if labels["score"] == "accuracy" else truth.loglik
        return game[_set(labels["coalition"])]
    if key == "responses" and labels["empty"] == "exact":
        return truth.responses[name][quantity == "s"]
    if key == "contributions" and quantity == "value" and labels["score"] == "accuracy":
        return truth.contributions[name]
    if key == "interactions" and labels["score"] == "accuracy":
        return truth.interaction(labels["first"], labels["second"])
    if key == "utilization" and quantity == "u":
        return truth.utilization(name, _set(labels["given"]))
    if key == "mask_sensitivity":
        return {
            "contribution": truth.contributions[name],
            "drop": truth.drop(name),
            "utilization": truth.utilization(name, whole - {name}),
        }.get(quantity)
    if key == "capacity_gap":
        score, joint = alone_scores[name], truth.accuracy[whole]
        rest = [alone_scores[other] for other in whole - {name}]
        return {
            "alone": score,
            "above chance": score - float(case.world.frequencies().max()),
            "gap": score - truth.accuracy[frozenset({name})],
            "joint advantage": joint - score,
            "drop without": joint - rest[0] if len(rest) == 1 else None,
        }.get(quantity)
    if key == "information" and quantity == "accuracy" and labels["features"] == "best":
        return unimodal_accuracy(case.world, name)
    return None


def _verdicts(case: Case, report: AuditReport) -> Iterator[VerdictRow]:
    table = report.table("coalitions") if "coalitions" in report.record.tables else None
    findings = find(report.record, table)
    for name, expected in case.verdicts.items():
        found = next((f.verdict for f in findings if f.modality == name and f.verdict), None)
        yield VerdictRow(
            case=case.name,
            about=name,
            expected=expected,
            found=found or "nothing",
            right=found == expected,
        )
    said = {finding.rule for finding in findings}
    for rule in case.rules:
        yield VerdictRow(
            case=case.name,
            about="model",
            expected=rule,
            found=rule if rule in said else "not said",
            right=rule in said,
        )
    for rule in case.never:
        yield VerdictRow(
            case=case.name,
            about="model",
            expected=f"not: {rule}",
            found=rule if rule in said else "not said",
            right=rule not in said,
        )


def _summary(name: str, found: list[Compared]) -> ErrorRow:
    worst = max(found, key=lambda one: one.deviation)
    return ErrorRow(
        estimator=name,
        estimates=len(found),
        largest_error=max(abs(one.error) for one in found),
        mean_error=float(np.mean([abs(one.error) for one in found])),
        largest_deviation=worst.deviation,
        exact=sum(one.exact for one in found),
        worst=worst.where,
        right=worst.deviation <= _FARTHEST,
    )


def _set(coalition: str) -> frozenset[str]:
    return frozenset() if coalition == "none" else frozenset(coalition.split("+"))


def _words(labels: dict[str, str]) -> str:
    keep = ("coalition", "modality", "first", "second", "given", "mask")
    return " ".join(labels[key] for key in keep if labels.get(key, "none") != "none")
