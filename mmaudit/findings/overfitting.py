"""What the losses of a training mean: which head overfits first, whether the joint one overfits more, which the blend would favour.

A head whose losses cannot be compared is told as such, and nothing else is said of its overfitting. A head that learns nothing has
an OGR near 0, which would look good: it is told as one that learns nothing. Learning speeds are told beside it where they were recorded.
"""

from __future__ import annotations

from collections.abc import Callable

from mmaudit.findings.heads_compared import find_blend, find_joint_against_single
from mmaudit.findings.learning_speed import find_learning_speed
from mmaudit.findings.loss_wording import (
    MOST_NAMED,
    conditions_of,
    estimate_of,
    evidence_of,
    named,
    repeat,
    said,
    small,
    value_of,
)
from mmaudit.report.loss_record import LossRecord
from mmaudit.report.numbers import percent
from mmaudit.report.schema import Estimate, Finding

__all__ = ["FEWEST_FOR_A_TURN", "find_overfitting"]

_LEARNS = 0.02
_TRAINS = 0.05
FEWEST_FOR_A_TURN = 3
"""Checkpoints of which fewer cannot show a turn."""
_APART = 2
_FEWEST_FOR_PRAISE = 5
_LEVELS = ("problem", "attention", "information", "good")


def find_overfitting(record: LossRecord) -> tuple[Finding, ...]:
    """State what a record of losses means.

    Args:
        record: With its measures and flags.

    Returns:
        Findings, the most pressing first; each with the estimates that it rests on.
    """
    usable = [head for head in record.heads if head not in record.unusable]
    found = [_not_comparable(record, head) for head in record.heads if head in record.unusable]
    found += [_diverged(record, head) for head in record.diverged]
    speeds = find_learning_speed(record)
    if not record.rows("overfitting"):
        return (*found, *speeds)
    longest = max(len(run.at) for run in record.runs)
    if longest < FEWEST_FOR_A_TURN:
        found.append(_too_few(record, longest))
        return (*found, *speeds)
    usable = [head for head in usable if _checkpoints(record, head) >= FEWEST_FOR_A_TURN]
    idle = [head for head in usable if _is_idle(record, head)]
    memorising = [head for head in idle if _memorises(record, head)]
    found += _together(record, memorising, _learns_train_set)
    found += _together(record, [head for head in idle if head not in memorising], _learns_nothing)
    # What fits its train set alone overfits from the start; what learns nothing does not overfit, which is no praise.
    active = [head for head in usable if head not in idle or head in memorising]
    found += _turns(record, active, idle)
    if not record.evaluation_sets:
        found += find_joint_against_single(record, active)
        found += find_blend(record, idle)
    return tuple(sorted([*found, *speeds], key=lambda finding: _LEVELS.index(finding.level)))


def _not_comparable(record: LossRecord, head: str) -> Finding:
    texts = [flag.text for flag in record.flags if flag.unusable and flag.head == head]
    text = f"No OGR of {said(head)}: {texts[0]}"
    return Finding(
        rule="losses cannot be compared",
        modality=head,
        level="problem",
        text=text,
        because="overfitting is the difference of two losses: both have to be means of the same loss",
        evidence=evidence_of(record, head, ("validation at best", "train gain"), "not comparable"),
        missing=(
            f"The train loss of {said(head)} alone, as a mean over samples: log it (mmaudit.training.LossRecorder does), and name it "
            "in a map, mmaudit ogr LOGS --map FILE.",
        ),
        conditions=tuple(texts[1:]),
    )


def _diverged(record: LossRecord, head: str) -> Finding:
    flag = record.diverged[head]
    return Finding(
        rule="diverged",
        modality=head,
        level="problem" if 2 * flag.runs >= len(record.runs) else "attention",
        text=flag.text[:1].upper() + flag.text[1:],
        because="the last logged values are not finite",
        evidence=evidence_of(record, head, ("best checkpoint", "validation at best"), "until then"),
        missing=(
            "A training of this head that stays finite: a smaller learning rate, clipped gradients, or losses computed in float32.",
        ),
    )


def _too_few(record: LossRecord, longest: int) -> Finding:
    return Finding(
        rule="too few checkpoints",
        level="attention",
        text=f"{longest} checkpoint{'' if longest == 1 else 's'} with both losses: too few to say when a head overfits.",
        because=f"a turn takes at least {FEWEST_FOR_A_TURN} checkpoints",
        missing=("Train and validation losses at more checkpoints, at least five.",),
    )


def _checkpoints(record: LossRecord, head: str) -> int:
    return max(len(run.of_head(head)[0]) for run in record.runs)


def _is_idle(record: LossRecord, head: str) -> bool:
    gained = value_of(record, head, "improvement")
    if gained is None:
        return all(_stands_still(run.of_head(head)) for run in record.runs)
    return gained < _LEARNS


def _stands_still(curves: tuple[list[float], list[float], list[float]]) -> bool:
    """Whether neither loss ever changes, as where all of them are 0 and shares mean nothing."""
    return all(len(set(values)) <= 1 for values in curves[1:])


def _memorises(record: LossRecord, head: str) -> bool:
    trained, first = value_of(record, head, "train gain"), _first_train(record, head)
    return trained is not None and first > 0 and trained > _TRAINS * first


def _together(
    record: LossRecord, heads: list[str], state: Callable[[LossRecord, list[str]], Finding]
) -> list[Finding]:
    """A finding for each of few heads, one for all of many."""
    if len(heads) > _APART:
        return [state(record, heads)]
    return [state(record, [head]) for head in heads]


def _learns_train_set(record: LossRecord, heads: list[str]) -> Finding:
    told = [
        f"{percent((value_of(record, head, 'train gain') or 0.0) / _first_train(record, head))} against "
        f"{percent(max(value_of(record, head, 'improvement') or 0.0, 0.0))}"
        for head in heads[:MOST_NAMED]
    ]
    return _about(
        record,
        heads,
        "learns only its train set",
        f"After the first checkpoint {named(heads)} {'does' if len(heads) == 1 else 'do'} not generalize further: the train loss falls, "
        f"the validation loss does not ({', '.join(told)} at best).",
        f"the validation loss falls by less than {percent(_LEARNS)}, the train loss by more than {percent(_TRAINS)}",
    )


def _learns_nothing(record: LossRecord, heads: list[str]) -> Finding:
    told = [
        percent(max(value_of(record, head, "improvement") or 0.0, 0.0))
        for head in heads[:MOST_NAMED]
    ]
    one = len(heads) == 1
    return _about(
        record,
        heads,
        "learns nothing",
        f"{named(heads)} learn{'s' if one else ''} next to nothing after the first checkpoint: the validation loss falls by "
        f"{', '.join(told)} at best; "
        f"{'its' if one else 'their'} OGR says nothing, however small it is.",
        f"neither loss falls: validation by less than {percent(_LEARNS)}, train by at most {percent(_TRAINS)}",
    )


def _about(record: LossRecord, heads: list[str], rule: str, text: str, because: str) -> Finding:
    quantities = ("improvement", "train gain", "dG", "OGR")
    return Finding(
        rule=rule,
        modality=heads[0] if len(heads) == 1 else None,
        level="attention",
        text=text,
        because=because,
        evidence=tuple(
            row for head in heads[:MOST_NAMED] for row in evidence_of(record, head, quantities)
        ),
        conditions=conditions_of(record, heads),
        missing=(
            "What was learnt before the first checkpoint: measure both losses before the training too.",
        ),
    )


def _first_train(record: LossRecord, head: str) -> float:
    values = [run.of_head(head)[1][0] for run in record.runs]
    return sum(values) / len(values)


def _turns(record: LossRecord, heads: list[str], idle: list[str]) -> list[Finding]:
    """Which head overfits first, and which do not."""
    onsets = {head: estimate_of(record, head, "first overfitting") for head in heads}
    turning = sorted(
        ((e.value, head, e) for head, e in onsets.items() if e is not None and e.value is not None),
        key=lambda item: (item[0], heads.index(item[1])),
    )
    quantities = ("first overfitting", "best checkpoint", "rise after best", "train gain after best", "OGR")  # fmt: skip
    rest = [head for head in heads if head not in {name for _, name, _ in turning}]
    if not turning:
        return _none_found(record, rest, idle)
    _, first, onset = turning[0]
    word = _place_word(record)
    rise = estimate_of(record, first, "rise after best")
    ends = ""
    if rise is not None and rise.value is not None:
        ends = f": its validation loss ends {percent(rise.value)} above its best"
        fall = value_of(record, first, "train gain after best")
        if fall is not None:
            ends += (
                f", while its train loss {'falls' if fall > 0 else 'rises'} by {small(abs(fall))}"
            )
    then = [f"{said(name)} from {word} {_place(e)}" for _, name, e in turning[1:6]]
    more = f"; then {', '.join(then)}" if then else ""
    if rest:
        more += f"; no rise beyond the noise was found of {_until_diverged(record, rest)}"
    opening = (
        f"{said(first)} overfits{' first' if len(heads) > 1 else ''}, from {word} {_place(onset)}"
    )
    evidence = evidence_of(record, first, quantities, "overfits first")
    for _, name, _ in turning[1:]:
        evidence += evidence_of(record, name, ("first overfitting",))
    conditions = conditions_of(record, [first])
    if len(turning) > 1 and not _before(onset, turning[1][2]):
        text = f"The intervals of {said(first)} and {said(turning[1][1])} overlap: which of them comes first is not certain."
        conditions = (text, *conditions)
    return [
        Finding(
            rule="overfits first",
            modality=first,
            level="attention",
            text=f"{opening}{ends}{more}.",
            because=(
                "the first checkpoint from which on the validation loss rises for good, beyond 1 % and beyond noise, while the train "
                "loss does not rise along with it"
            ),
            evidence=evidence,
            conditions=conditions,
            missing=repeat(record),
        )
    ]


def _none_found(record: LossRecord, heads: list[str], idle: list[str]) -> list[Finding]:
    """That no head was found to overfit, of those alone that could have been; no praise where few checkpoints were looked at."""
    judged = [head for head in heads if head not in record.diverged]
    if not judged:
        return []
    checkpoints = {head: _checkpoints(record, head) for head in judged}
    enough = [head for head in judged if checkpoints[head] >= _FEWEST_FOR_PRAISE]
    told = enough or judged
    number = max(checkpoints[head] for head in told)
    losses = "its validation loss" if len(told) == 1 else "their validation losses"
    text = f"No overfitting of {named(told)} was found within the {number} checkpoints: no rise of {losses} beyond the noise"
    text += "." if enough else f"; {number} are too few to say that there is none."
    others = [head for head in record.heads if head not in told]
    if others:
        reasons = [f"{said(head)} ({_why_not(record, head, idle)})" for head in others[:MOST_NAMED]]
        more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
        text += f" Not judged: {', '.join(reasons)}{more}."
    return [
        Finding(
            rule="no overfitting" if enough else "few checkpoints",
            level="good" if enough else "information",
            text=text,
            because=(
                "overfitting is a lasting rise of the validation loss, beyond 1 % and beyond noise, while the train loss falls; a slow rise "
                "within the noise is not found"
            ),
            evidence=tuple(
                row for head in told for row in evidence_of(record, head, ("rise after best",))
            ),
            conditions=conditions_of(record, told),
        )
    ]


def _why_not(record: LossRecord, head: str, idle: list[str]) -> str:
    """Why nothing is said of a head's overfitting."""
    if head in record.unusable:
        return "its losses cannot be compared"
    if head in record.diverged:
        return "it diverged"
    if head in idle:
        return "it learns next to nothing"
    number = _checkpoints(record, head)
    return f"{number} checkpoint{'' if number == 1 else 's'}"


def _until_diverged(record: LossRecord, heads: list[str]) -> str:
    told = [
        said(name) + (" before it diverged" if name in record.diverged else "")
        for name in heads[:MOST_NAMED]
    ]
    if len(heads) > MOST_NAMED:
        told.append(f"{len(heads) - MOST_NAMED} more")
    return " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)


def _before(first: Estimate, second: Estimate) -> bool:
    """Whether one onset is certainly before another; without intervals, by their values."""
    if first.high is None or second.low is None:
        return (first.value or 0.0) < (second.value or 0.0)
    return first.high < second.low


def _place_word(record: LossRecord) -> str:
    return {"epoch": "epoch", "step": "step", "point": "checkpoint"}[record.axis]


def _place(estimate: Estimate) -> str:
    value = estimate.value or 0.0
    text = f"{value:,.0f}" if value.is_integer() else f"{value:,.1f}"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{estimate.low:,.1f}, {estimate.high:,.1f}]"
