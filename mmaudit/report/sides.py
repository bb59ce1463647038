"""What the two sides of a comparison are called, and how they belong together: remedies by their names, plain training as such."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from mmaudit.report.comparison import Audited
from mmaudit.report.labels import clean, shorten

__all__ = ["Relation", "Sides", "model_name", "remedy_name", "sides_of"]

Relation: TypeAlias = Literal["retrained", "control", "remedies", "models"]
"""A model and what retraining made of it; plain training and a remedy from the same start; two remedies; any two models."""

_PLAIN = "joint"
_NAMES = {
    "agm": "AGM",
    "ogm": "OGM",
    "ogm_ge": "OGM-GE",
    "mla": "MLA",
    "modality_dropout": "modality dropout",
    _PLAIN: "plain training",
}
_RETRAINED = "retrained with "
_LONGEST = 60


class Sides(NamedTuple):
    """The two sides, as they are called in headers and in the running text."""

    relation: Relation
    before: str
    """Header of the first: ``Before``, ``Plain training``, ``AGM``."""
    after: str
    """Header of the second: ``After``, or the name of its remedy."""
    same_budget: bool = False
    """Both were trained with the same recipe from the same start."""

    @property
    def heading(self) -> str:
        """Of a page or table: ``Before and after``, ``Plain training and AGM``."""
        return f"{self.before} and {'after' if self.after == 'After' else self.after}"

    @property
    def against(self) -> str:
        """What the second is held against, where that is a training: ``plain training with the same budget``; else empty."""
        if self.relation not in ("control", "remedies"):
            return ""
        name = "plain training" if self.relation == "control" else self.before
        return f"{name} with the same budget" if self.same_budget else name


def sides_of(before: Audited, after: Audited) -> Sides:
    """Tell what two records are of, from where their models come from.

    Args:
        before: The first record of a comparison.
        after: The second.

    Returns:
        ``Before`` and ``After``, except where both are retrained models and neither was made of the other: then their
        remedies, plain training being one.
    """
    names = [_remedy(one) for one in (before, after)]
    first, second = names
    made_of_it = after.lineage.get("parent") == before.report_id
    if first is None or second is None or made_of_it or first == second:
        relation: Relation = "models" if second is None else "retrained"
        return Sides(relation, "Before", "After")
    keys = ("parent", "start", "recipe")
    same = bool(before.lineage) and all(
        before.lineage.get(key) == after.lineage.get(key) for key in keys
    )
    relation = "control" if first == _NAMES[_PLAIN] else "remedies"
    return Sides(relation, first[:1].upper() + first[1:], second[:1].upper() + second[1:], same)


def remedy_name(key: str) -> str:
    """Write a remedy's key as its name; one that is not known with spaces for underscores.

    Example:
        >>> remedy_name("agm"), remedy_name("ogm_ge"), remedy_name("modality_dropout"), remedy_name("my_own")
        ('AGM', 'OGM-GE', 'modality dropout', 'my own')
    """
    return _NAMES.get(key) or shorten(key.replace("_", " "), _LONGEST)


def model_name(audited: Audited, other: Audited) -> str:
    """What to call a model in a sentence: its remedy where it has one, else its title where that tells it from the other."""
    remedy = _remedy(audited)
    if remedy is not None:
        return remedy
    return "the second model" if audited.title == other.title else shorten(audited.title, _LONGEST)


def _remedy(audited: Audited) -> str | None:
    """The name of its remedy; ``None`` for a model as it came."""
    key = audited.lineage.get("remedy", "")
    told = clean(audited.title.rpartition(_RETRAINED)[2]) if _RETRAINED in audited.title else ""
    if key in _NAMES:
        return _NAMES[key]
    # A remedy of somebody else is called what its own title says.
    if told and (not key or _plain(told) == _plain(key)):
        return _NAMES[_PLAIN] if told == "joint training" else shorten(told, _LONGEST)
    return remedy_name(key) if key else None


def _plain(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())
