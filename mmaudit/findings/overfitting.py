"""What the losses of a training mean: which head overfits first, whether the joint one overfits more, which the blend would favour.

A head whose losses cannot be compared is told as such, and nothing else is said of its overfitting. A head that learns nothing has
an OGR near 0, which would look good: it is told as one that learns nothing. Learning speeds are told beside it where they were recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mmaudit.findings.learning_speed import find_learning_speed
from mmaudit.findings.loss_wording import repeat, said
from mmaudit.report.loss_record import ALL_RUNS, WHOLE, LossRecord
from mmaudit.report.numbers import number, percent, with_interval
from mmaudit.report.schema import Estimate, Finding, FindingEvidence

__all__ = ["FEWEST_FOR_A_TURN", "find_overfitting"]

_LEARNS = 0.02
_TRAINS = 0.05
FEWEST_FOR_A_TURN = 3
"""Checkpoints of which fewer cannot show a turn."""
_APART = 2
_NAMED = 6
_ALIKE = 0.02
_HARMLESS = ("window", "gap", "restart", "order", "not finite", "few checkpoints")
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
    idle = [head for head in usable if _is_idle(record, head)]
    memorising = [head for head in idle if _memorises(record, head)]
    found += _together(record, memorising, _learns_train_set)
    found += _together(record, [head for head in idle if head not in memorising], _learns_nothing)
    # What fits its train set alone overfits from the start; what learns nothing does not overfit, which is no praise.
    active = [head for head in usable if head not in idle or head in memorising]
    found += _turns(record, active)
    if not record.evaluation_sets:
        found += _joint_against_single(record, active)
        found += _blend(record, idle)
    return tuple(sorted([*found, *speeds], key=lambda finding: _LEVELS.index(finding.level)))


def _of(record: LossRecord, head: str, quantity: str, run: str = ALL_RUNS) -> Estimate | None:
    rows = record.rows("overfitting", head=head, run=run, quantity=quantity)
    return rows[0].estimate if rows else None


def _value(record: LossRecord, head: str, quantity: str) -> float | None:
    found = _of(record, head, quantity)
    return None if found is None else found.value


def _evidence(
    record: LossRecord, head: str, quantities: Iterable[str], says: str = ""
) -> tuple[FindingEvidence, ...]:
    found = []
    for quantity in quantities:
        estimate = _of(record, head, quantity)
        if estimate is not None:
            labels = {"head": head, "run": ALL_RUNS, "quantity": quantity}
            found.append(
                FindingEvidence(measure="overfitting", labels=labels, estimate=estimate, says=says)
            )
    return tuple(found)


def _conditions(record: LossRecord, heads: Iterable[str]) -> tuple[str, ...]:
    """What makes the numbers of some heads rough."""
    wanted = set(heads)
    told = [
        flag.text
        for flag in record.flags
        if not flag.unusable and (flag.head is None or flag.head in wanted)
    ]
    first = [t for t in told if not any(f.text == t and f.kind in _HARMLESS for f in record.flags)]
    return tuple(dict.fromkeys([*first, *told]))[:4]


def _not_comparable(record: LossRecord, head: str) -> Finding:
    texts = [flag.text for flag in record.flags if flag.unusable and flag.head == head]
    text = f"No OGR of {said(head)}: {texts[0]}"
    return Finding(
        rule="losses cannot be compared",
        modality=head,
        level="problem",
        text=text,
        because="overfitting is the difference of two losses: both have to be means of the same loss",
        evidence=_evidence(record, head, ("validation at best", "train gain"), "not comparable"),
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
        evidence=_evidence(record, head, ("best checkpoint", "validation at best"), "until then"),
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


def _is_idle(record: LossRecord, head: str) -> bool:
    gained = _value(record, head, "improvement")
    return gained is not None and gained < _LEARNS


def _memorises(record: LossRecord, head: str) -> bool:
    trained, first = _value(record, head, "train gain"), _first_train(record, head)
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
        f"{percent((_value(record, head, 'train gain') or 0.0) / _first_train(record, head))} against "
        f"{percent(max(_value(record, head, 'improvement') or 0.0, 0.0))}"
        for head in heads[:_NAMED]
    ]
    return _about(
        record,
        heads,
        "learns only its train set",
        f"After the first checkpoint {_named(heads)} {'does' if len(heads) == 1 else 'do'} not generalize further: the train loss falls, "
        f"the validation loss does not ({', '.join(told)} at best).",
        f"the validation loss falls by less than {percent(_LEARNS)}, the train loss by more than {percent(_TRAINS)}",
    )


def _learns_nothing(record: LossRecord, heads: list[str]) -> Finding:
    told = [
        percent(max(_value(record, head, "improvement") or 0.0, 0.0)) for head in heads[:_NAMED]
    ]
    one = len(heads) == 1
    return _about(
        record,
        heads,
        "learns nothing",
        f"{_named(heads)} learn{'s' if one else ''} next to nothing after the first checkpoint: the validation loss falls by "
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
            row for head in heads[:_NAMED] for row in _evidence(record, head, quantities)
        ),
        conditions=_conditions(record, heads),
        missing=(
            "What was learnt before the first checkpoint: measure both losses before the training too.",
        ),
    )


def _named(heads: list[str]) -> str:
    shown = [said(head) for head in heads[:_NAMED]]
    if len(heads) > _NAMED:
        return f"{', '.join(shown)} and {len(heads) - _NAMED} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _first_train(record: LossRecord, head: str) -> float:
    values = [run.of_head(head)[1][0] for run in record.runs]
    return sum(values) / len(values)


def _turns(record: LossRecord, heads: list[str]) -> list[Finding]:
    """Which head overfits first, and which do not."""
    onsets = {head: _of(record, head, "first overfitting") for head in heads}
    turning = sorted(
        ((e.value, head, e) for head, e in onsets.items() if e is not None and e.value is not None),
        key=lambda item: (item[0], heads.index(item[1])),
    )
    quantities = ("first overfitting", "best checkpoint", "rise after best", "train gain after best", "OGR")  # fmt: skip
    rest = [head for head in heads if head not in {name for _, name, _ in turning}]
    if not turning:
        if not heads:
            return []
        longest = max(len(run.at) for run in record.runs)
        who = "No head overfits" if len(heads) > 1 else f"{said(heads[0])} does not overfit"
        return [
            Finding(
                rule="no overfitting",
                level="good",
                text=f"{who} within the {longest} checkpoints: no validation loss rises for good.",
                because="a lasting rise of the validation loss, beyond 1 % and beyond noise, while the train loss falls",
                evidence=tuple(
                    row for head in heads for row in _evidence(record, head, ("rise after best",))
                ),
                conditions=_conditions(record, heads),
            )
        ]
    _, first, onset = turning[0]
    word = _place_word(record)
    rise = _of(record, first, "rise after best")
    ends = ""
    if rise is not None and rise.value is not None:
        ends = f": its validation loss ends {percent(rise.value)} above its best"
        fall = _value(record, first, "train gain after best")
        if fall is not None:
            ends += (
                f", while its train loss {'falls' if fall > 0 else 'rises'} by {_small(abs(fall))}"
            )
    then = [f"{said(name)} from {word} {_place(e)}" for _, name, e in turning[1:6]]
    then += [
        f"{said(name)} not {'before it diverged' if name in record.diverged else 'at all'}"
        for name in rest[:6]
    ]
    more = f"; then {', '.join(then)}" if then else ""
    opening = (
        f"{said(first)} overfits{' first' if len(heads) > 1 else ''}, from {word} {_place(onset)}"
    )
    evidence = _evidence(record, first, quantities, "overfits first")
    for _, name, _ in turning[1:]:
        evidence += _evidence(record, name, ("first overfitting",))
    conditions = _conditions(record, [first])
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


def _joint_against_single(record: LossRecord, heads: list[str]) -> list[Finding]:
    joint = record.joint
    alike = [head for head in heads if head not in record.incomparable]
    singles = [head for head in alike if head != joint]
    if joint is None or joint not in alike or not singles:
        return []
    lowest = {
        head: value
        for head in singles
        if (value := _value(record, head, "validation at best")) is not None
    }
    own = _value(record, joint, "validation at best")
    if not lowest or own is None:
        return []
    best = min(lowest, key=lambda head: lowest[head])
    found = []
    if own >= lowest[best]:
        found.append(
            Finding(
                rule="worse than its best head",
                level="attention",
                text=(
                    f"Joint training is no better than {said(best)} alone: at their best the validation losses are {_small(own)} and "
                    f"{_small(lowest[best])}."
                ),
                because="the lowest validation loss of the joint head is not below that of the best other head",
                evidence=(
                    *_evidence(record, joint, ("validation at best",), "joint"),
                    *_evidence(record, best, ("validation at best",), "best other head"),
                ),
                conditions=_conditions(record, [joint, best]),
            )
        )
    apart = _of(record, joint, "OGR less that of the best other head")
    ratios = [_of(record, head, "OGR") for head in (joint, best)]
    evidence = (
        *_evidence(
            record, joint, ("OGR less that of the best other head", "OGR", "dO", "dG"), "joint"
        ),
        *_evidence(record, best, ("OGR", "dO", "dG"), "best other head"),
    )
    if apart is None or apart.value is None or any(r is None or r.value is None for r in ratios):
        return found
    shown = " against ".join(with_interval(r) for r in ratios if r is not None)
    more = apart.value > 0
    values = [abs(r.value) for r in ratios if r is not None and r.value is not None]
    same = abs(apart.value) <= _ALIKE * max(values)
    tested = apart.low is not None and apart.high is not None
    certain = tested and (apart.low or 0.0) * (apart.high or 0.0) > 0
    if same:
        opening = f"Joint training overfits about as much for what it generalizes as {said(best)}, the best other head"
    elif tested and not certain:
        opening = f"Whether joint training overfits more than {said(best)}, the best other head, {len(record.runs)} runs do not settle"
    else:
        opening = f"Joint training overfits {'more' if more else 'less'} for what it generalizes than {said(best)}, the best other head"
    found.append(
        Finding(
            rule="joint against best single head",
            modality=None,
            level="attention" if more and not same and (certain or not tested) else "information",
            text=f"{opening}: OGR over the whole training {shown}{'' if tested else ' (one run: not tested)'}.",
            because="OGR from the first to the last checkpoint, of the joint head and of the other head with the lowest validation loss",
            evidence=evidence,
            conditions=_conditions(record, [joint, best]),
            missing=repeat(record),
        )
    )
    return found


def _blend(record: LossRecord, idle: list[str]) -> list[Finding]:
    result = record.measures.get("blend_weights")
    if result is None:
        return []
    rows = record.rows("blend_weights", run=ALL_RUNS, window=WHOLE, quantity="weight")
    known = [(row, row.estimate.value) for row in rows if row.estimate.value is not None]
    if not known:
        return []
    row, most = max(known, key=lambda item: item[1])
    shown = ", ".join(
        f"{said(one.labels['head'])} {with_interval(one.estimate)}" for one, _ in known[:12]
    )
    favoured = said(row.labels["head"])
    others = sorted(value for one, value in known if one is not row)
    equal = bool(others) and most - others[-1] < 0.01
    ends = "no head is favoured" if equal else f"it favours {favoured}"
    conditions = [row.estimate.warning] if row.estimate.warning else []
    heavy = [one.labels["head"] for one, value in known if value > 1 / (2 * len(known))]
    resting = [head for head in heavy if head in idle]
    if resting:
        have = "has its weight" if len(resting) == 1 else "have their weights"
        conditions.append(
            f"{_named(resting)} learn{'s' if len(resting) == 1 else ''} next to nothing and {have} for overfitting little: the formula "
            "divides by O^2."
        )
        if not equal and row.labels["head"] in idle:
            ends += ", though it learns next to nothing"
    return [
        Finding(
            rule="blend",
            modality=None if equal else row.labels["head"],
            level="information",
            text=f"Gradient-Blend would weight the losses {shown}: {ends}.",
            because=(
                f"weights G / O^2 over the whole training, policy '{result.settings.get('policy', 'clip')}'; estimated from this training, "
                "where the method trains a copy of each head"
            ),
            evidence=tuple(
                FindingEvidence(
                    measure="blend_weights", labels=one.labels, estimate=one.estimate, says="weight"
                )
                for one, _ in known
            ),
            conditions=tuple(conditions),
        )
    ]


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


def _small(value: float) -> str:
    """A loss or a part of one, with as many digits as it needs.

    Example:
        >>> _small(0.5), _small(0.00123), _small(120.0)
        ('.500', '.0012', '120.000')
    """
    return number(value, 3) if abs(value) >= 0.01 or value == 0 else number(value, 4)
