"""What a record says in sentences: facts with their numbers, no verdicts.

The terminal, the pages and the notebook all take their words from here, so that they cannot disagree.
"""

from __future__ import annotations

from mmaudit.report.labels import complete, primary_score, shorten, task_of
from mmaudit.report.numbers import NO_RESPONSE, with_interval
from mmaudit.report.schema import Estimate, Record
from mmaudit.report.statements import advice, of_the_model

__all__ = ["absent_modalities", "find", "masks_text", "standout"]

_MOST = 3


def find(record: Record, measure: str, **labels: str) -> Estimate | None:
    """Look one estimate up; ``None`` where the record has none. Labels are filled in as in ``AuditReport.estimate``."""
    result = record.measures.get(measure)
    if result is None:
        return None
    wanted = complete(measure, labels, record.modalities, task_of(record)).items()
    return next((row.estimate for row in result.rows if wanted <= row.labels.items()), None)


def masks_text(record: Record) -> str:
    """How modalities were made absent: one phrase where all have the same mask."""
    masks = {name: record.masks.get(name, "unknown") for name in record.modalities}
    if len(set(masks.values())) == 1:
        return next(iter(masks.values()))
    return ", ".join(f"{name}: {mask}" for name, mask in masks.items())


def absent_modalities(record: Record) -> list[str]:
    """Modalities that no audited sample has; none where there are no samples at all."""
    if record.data.samples == 0:
        return []
    return [name for name in record.modalities if record.data.present.get(name) == 0]


def standout(record: Record) -> list[str]:
    """Say what stands out.

    Returns:
        At most three sentences, the most telling first. Where the record has findings, theirs: problems of the whole model, then
        what to do. Where it has none: the largest contribution, the modality that costs least once the
        others are there, the one that helps when masked, responses that are nothing, the strongest interaction. Modalities
        that no audited sample has are in none of these; the last sentence, always among the three, names them. Empty where
        the record has no numbers to support any.
    """
    if record.findings:
        problems = [f.text for f in of_the_model(record) if f.level in ("problem", "attention")]
        told = [shorten(text, 400) for text in problems]
        return [*told, *(found.text for found in advice(record))][:_MOST]
    sentences = [
        text
        for text in (
            _largest(record),
            _spare(record),
            _silent(record),
            _together(record),
        )
        if text
    ]
    absent = _absent(record)
    return [*sentences[: _MOST - len(absent)], *absent]


def _present(record: Record) -> list[str]:
    absent = absent_modalities(record)
    return [name for name in record.modalities if name not in absent]


def _absent(record: Record) -> list[str]:
    """At most one sentence."""
    absent = absent_modalities(record)
    if not absent:
        return []
    them = "it" if len(absent) == 1 else "them"
    names = " or ".join(map(_said, absent))
    return [f"No audited sample has {names}: nothing can be said about {them}."]


def _largest(record: Record) -> str | None:
    """The contributions, largest first, as far as they are apart."""
    found = [(name, find(record, "contributions", modality=name)) for name in _present(record)]
    known = [(name, e) for name, e in found if e is not None and e.value is not None]
    if not known:
        return None
    known.sort(key=lambda pair: -(pair[1].value or 0.0))
    name, top = known[0]
    score = _score(record)
    if len(known) == 1:
        return f"{_said(name)} contributes {with_interval(top)} of {score}{_but(top)}."
    last_name, last = known[-1]
    if top.low is not None and last.high is not None and top.low <= last.high:
        return (
            f"The intervals of the contributions overlap: {_said(name)} {with_interval(top)}, "
            f"{_said(last_name)} {with_interval(last)} of {score}{_but(top, last)}."
        )
    return (
        f"{_said(name)} contributes most to {_the(score)}, {with_interval(top)}; "
        f"{_said(last_name)} contributes least, {with_interval(last)}{_but(top, last)}."
    )


def _spare(record: Record) -> str | None:
    """The modality whose masking costs least once all others are there."""
    present = _present(record)
    if len(present) < 2:
        return None
    found = [(name, find(record, "utilization", modality=name, given="rest")) for name in present]
    known = [(name, e) for name, e in found if e is not None and e.value is not None]
    if not known:
        return None
    name, least = min(known, key=lambda pair: pair[1].value or 0.0)
    score = _score(record)
    rest = [other for other in present if other != name]
    there = f"{_said(rest[0])} is there" if len(rest) == 1 else "all others are there"
    if least.high is not None and least.high < 0:
        gain = _opposite(least)
        return f"Masking {_said(name)} raises {_the(score)} by {with_interval(gain)} of it once {there}{_but(least)}."
    return f"Masking {_said(name)} costs {with_interval(least)} of {_the(score)} once {there}{_but(least)}."


def _silent(record: Record) -> str | None:
    silent = []
    for name in _present(record):
        estimate = find(record, "responses", modality=name)
        if estimate is not None and NO_RESPONSE in (estimate.undefined or ""):
            silent.append(name)
    if not silent:
        return None
    return f"The model's response to {' and '.join(map(_said, silent))} is numerically nothing."


def _together(record: Record) -> str | None:
    """The pair whose interaction is farthest from zero, where its interval excludes zero."""
    result = record.measures.get("interactions")
    best: tuple[str, str, Estimate] | None = None
    score = _score(record)
    for row in result.rows if result is not None else ():
        if row.labels.get("score") != score or row.labels.get("class") != "all":
            continue
        e = row.estimate
        if e.value is None or e.low is None or e.high is None or e.low <= 0 <= e.high:
            continue
        if best is None or abs(e.value) > abs(best[2].value or 0.0):
            best = (row.labels.get("first", ""), row.labels.get("second", ""), e)
    if best is None:
        return None
    names = f"{_said(best[0])} and {_said(best[1])}"
    if (best[2].value or 0.0) > 0:
        return f"{names} are worth {with_interval(best[2])} of {score} more together than one by one{_but(best[2])}."
    less = with_interval(_opposite(best[2]))
    return f"{names} overlap: together they are worth {less} of {score} less than one by one{_but(best[2])}."


def _opposite(estimate: Estimate) -> Estimate:
    """The same number told with the opposite sign."""
    value, low, high = (
        None if end is None else -end for end in (estimate.value, estimate.high, estimate.low)
    )
    return estimate.model_copy(update={"value": value, "low": low, "high": high})


def _score(record: Record) -> str:
    return primary_score(task_of(record))


def _the(score: str) -> str:
    return "the accuracy" if score == "accuracy" else score


def _said(name: str) -> str:
    return shorten(name, 40)


def _but(*estimates: Estimate) -> str:
    return " (see the warning on this interval)" if any(e.warning for e in estimates) else ""
