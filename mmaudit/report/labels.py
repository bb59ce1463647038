"""The labels of the measures' rows: their keys, what a reader means when one is left out, and the names of coalitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mmaudit.report.schema import Record

__all__ = [
    "EMPTY",
    "LABELS",
    "UNSAID",
    "clean",
    "coalition_name",
    "coalition_names",
    "complete",
    "others",
    "primary_score",
    "response_score",
    "scores_of",
    "shorten",
    "task_in",
    "task_of",
]

EMPTY = "none"
"""Name of the empty coalition."""

LABELS: dict[str, tuple[str, ...]] = {
    "coalitions": ("coalition", "score", "class"),
    "responses": ("quantity", "modality", "empty", "class"),
    "contributions": ("modality", "score", "quantity", "class"),
    "interactions": ("first", "second", "score", "class"),
    "utilization": ("quantity", "modality", "given", "class"),
    "mask_sensitivity": ("modality", "quantity", "mask"),
    "capacity_gap": ("modality", "quantity", "mask"),
    "information": ("modality", "quantity", "features"),
    "competition": ("modality", "quantity", "penalty"),
    "branch_utilization": ("quantity", "modality", "given"),
    "missing_modality": ("rate", "quantity"),
    "calibration": ("coalition", "quantity"),
    "confidence_monotonicity": ("coalition",),
    "dominance": ("modality", "quantity"),
}
"""Measure -> keys of its rows' labels."""

UNSAID: dict[str, dict[str, str]] = {
    "coalitions": {"score": "accuracy", "class": "all"},
    "responses": {"quantity": "Acc", "empty": "exact", "class": "all"},
    "contributions": {"score": "accuracy", "quantity": "value", "class": "all"},
    "interactions": {"score": "accuracy", "class": "all"},
    "utilization": {"quantity": "u", "class": "all"},
    "mask_sensitivity": {"quantity": "contribution", "mask": "first"},
    "capacity_gap": {"quantity": "gap", "mask": "first"},
    "information": {"quantity": "above chance", "features": "best"},
    "competition": {"quantity": "pooled", "penalty": "cross-validated"},
    "branch_utilization": {"quantity": "u"},
    "missing_modality": {"quantity": "expected"},
    "calibration": {"quantity": "ece"},
    "confidence_monotonicity": {"coalition": "any"},
    "dominance": {"quantity": "share"},
}
"""Measure -> what a label means where it is not given; scores are those of classification, see :func:`complete`."""

_OF_REGRESSION = {"accuracy": "R2", "Acc": "R2", "log-likelihood": "negative squared error"}
"""Score or quantity of classification -> what stands in its place in a regression."""


def task_of(record: Record) -> str:
    """What the audited model predicts: ``multiclass``, ``binary``, ``segments``, ``multilabel`` or ``regression``."""
    return str(record.spec.get("task", "multiclass"))


def task_in(labels: Iterable[Mapping[str, str]]) -> str:
    """``regression`` where the labels of some rows name its scores, else ``multiclass``: other tasks have the same scores."""
    names = set(_OF_REGRESSION.values())
    found = any(names & {row.get("score"), row.get("quantity")} for row in labels)
    return "regression" if found else "multiclass"


def scores_of(task: str) -> tuple[str, str]:
    """Names of the two scores of a coalition, the primary one first.

    Example:
        >>> scores_of("multilabel"), scores_of("regression")
        (('accuracy', 'log-likelihood'), ('R2', 'negative squared error'))
    """
    return (
        ("R2", "negative squared error") if task == "regression" else ("accuracy", "log-likelihood")
    )


def primary_score(task: str) -> str:
    """Name of the score that contributions and utilization are told in: ``accuracy``, of a regression ``R2``."""
    return scores_of(task)[0]


def coalition_name(present: Iterable[str], modalities: Sequence[str]) -> str:
    """Name a set of present modalities.

    Args:
        present: The names, in any order.
        modalities: All names, in the order of the spec.

    Returns:
        The names in that order joined by ``+``; ``none`` for the empty coalition.

    Example:
        >>> coalition_name({"image", "audio"}, ["audio", "image"]), coalition_name([], ["audio"])
        ('audio+image', 'none')
    """
    inside = set(present)
    return "+".join(name for name in modalities if name in inside) or EMPTY


def coalition_names(modalities: Sequence[str]) -> list[str]:
    """Name all ``2**M`` coalitions in bit order.

    Example:
        >>> coalition_names(["audio", "image"])
        ['none', 'audio', 'image', 'audio+image']
    """
    return [
        coalition_name((name for m, name in enumerate(modalities) if index >> m & 1), modalities)
        for index in range(2 ** len(modalities))
    ]


def others(modality: str, modalities: Sequence[str]) -> str:
    """Name the coalition of all modalities but one."""
    return coalition_name((name for name in modalities if name != modality), modalities)


def response_score(task: str) -> str:
    """Name of the share that mono-modal responses get right: ``Acc``, of a regression ``R2``."""
    return _OF_REGRESSION["Acc"] if task == "regression" else "Acc"


def complete(
    measure: str,
    labels: Mapping[str, str],
    modalities: Sequence[str],
    task: str = "multiclass",
) -> dict[str, str]:
    """Fill in the labels that were not given, and write coalitions in the order of the spec.

    Args:
        measure: Key of the measure.
        labels: What was asked for. ``given="rest"`` means all other modalities.
        modalities: All names, in the order of the spec.
        task: What the model predicts; decides which score is meant.

    Returns:
        The labels to look up; a label without a default stays out.
    """
    unsaid = UNSAID.get(measure, {})
    if task == "regression":
        unsaid = {key: _OF_REGRESSION.get(value, value) for key, value in unsaid.items()}
    filled = {**unsaid, **labels}
    if filled.get("given") == "rest" and "rest" not in modalities:
        filled["given"] = others(filled.get("modality", ""), modalities)
    pair = [filled.get("first", ""), filled.get("second", "")]
    if set(pair) <= set(modalities):
        filled["first"], filled["second"] = sorted(pair, key=list(modalities).index)
    for key in ("coalition", "given"):
        names = filled.get(key, "").split("+")
        if len(set(names)) == len(names) and set(names) <= set(modalities):
            filled[key] = coalition_name(names, modalities)
    return filled


def shorten(text: str, width: int = 24) -> str:
    """Cut a name in the middle, so that names with a common beginning stay apart.

    Example:
        >>> shorten("a_rather_long_name_of_a_class", 13)
        'a_rath…_class'
    """
    text = clean(text) or "(empty)"
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def clean(text: str) -> str:
    r"""Put a foreign text on one line, without control characters that would move a terminal's cursor or turn text round.

    Example:
        >>> clean("a\x1b[2J\n  b")
        'a [2J b'
    """
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
