"""Which logged series are the train and validation losses of which head: written down by the user, or guessed and shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mmaudit.evidence.readers import Run
from mmaudit.evidence.readers.base import Columns
from mmaudit.exceptions import LogError

__all__ = ["Guess", "HeadMap", "LossMap", "guess_map", "read_map"]

JOINT = "joint"

_SPLITS = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "evaluation", "dev", "heldout"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}  # fmt: skip
_LOSSES = {
    "loss",
    "losses",
    "nll",
    "ce",
    "bce",
    "xent",
    "mse",
    "cross",
    "entropy",
    "crossentropy",
    "criterion",
}
_JOINTS = {
    "joint", "total", "fusion", "fused", "fuse", "multi", "multimodal", "mm", "all", "overall", "combined", "main",
    "mix", "av", "full",
}  # fmt: skip
_EVERY = {"step", "epoch", "batch", "iter", "avg", "mean", "clean", "average"}


class HeadMap(BaseModel):
    """The two series of a head."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: str
    validation: str


class LossMap(BaseModel):
    """Heads and their series, as a YAML file may hold them.

    Args:
        heads: Name -> series, in the order in which they are shown: modalities, and the joint head.
        joint: Name of the joint head; left out: ``joint`` where there is such a head, else none.
        columns: Which column of a table is what.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    heads: dict[str, HeadMap] = Field(min_length=1)
    joint: str | None = None
    columns: Columns = Columns()

    @model_validator(mode="after")
    def _joint_is_a_head(self) -> LossMap:
        if self.joint is not None and self.joint not in self.heads:
            raise ValueError(f"joint is '{self.joint}', which is no head ({', '.join(self.heads)})")
        return self

    @property
    def joint_head(self) -> str | None:
        """The joint head, where there is one."""
        return self.joint if self.joint is not None else (JOINT if JOINT in self.heads else None)

    def text(self) -> str:
        """As YAML that :func:`read_map` reads."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), sort_keys=False)


class Guess(NamedTuple):
    """A map that was found by the names of the series."""

    map: LossMap
    sentences: tuple[str, ...]
    """What was taken for what, and what was left out."""


def read_map(source: LossMap | Mapping[str, Any] | Path | str) -> LossMap:
    """Read a map.

    Args:
        source: A map, a mapping, or a YAML file.

    Raises:
        LogError: If it is no map, in one sentence.
    """
    if isinstance(source, LossMap):
        return source
    name = "the map of losses"
    if not isinstance(source, Mapping):
        path = Path(source)
        name = path.name
        try:
            if path.stat().st_size > 1_000_000:
                raise LogError(f"{name} is larger than 1 MB, which no map of losses is.")
            source = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise LogError(
                f"{path} cannot be read as a map of losses ({type(error).__name__})."
            ) from None
    try:
        return LossMap.model_validate(source)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "it"
        raise LogError(
            f"{name}: {where}: {fault['msg']}; expected heads, each with the names of its 'train' and 'validation' series."
        ) from None


def guess_map(runs: Iterable[Run], *, columns: Columns | None = None) -> Guess:
    """Find heads by the names of their series.

    A name is read as words: one says that it is a loss, one the split, the rest names the head; nothing left over is the joint
    head. A trainer that calls its train loss just ``loss`` is understood.

    Args:
        runs: Whose series all runs have to have.
        columns: Kept in the map.

    Raises:
        LogError: If no head has both a train and a validation loss; the sentence lists the series.
    """
    runs = list(runs)
    names = [name for name in runs[0].series if all(name in run.series for run in runs)]
    found: dict[str, dict[str, list[str]]] = {"train": {}, "validation": {}, "test": {}}
    other = []
    for name in names:
        read = _read_name(name)
        if read is None:
            other.append(name)
        else:
            split, head = read
            found[split].setdefault(head, []).append(name)
    sentences = []
    if not found["validation"] and found["test"]:
        found["validation"] = found["test"]
        sentences.append("No validation loss was logged: the test loss stands in for it.")
    train, validation = found["train"], found["validation"]
    shared = len(train) == 1 and len(validation) > 1 and not set(train) & set(validation) - {JOINT}
    heads: dict[str, HeadMap] = {}
    for head, series in validation.items():
        own = train.get(head)
        if own is None and shared:
            own = next(iter(train.values()))
        if own is not None:
            heads[head] = HeadMap(train=_preferred(own), validation=_preferred(series))
    if not heads:
        shown = ", ".join(f"'{name[:40]}'" for name in names[:12])
        raise LogError(
            f"no head with a train and a validation loss was recognised among the series ({shown or 'none in all runs'}); name them in"
            " a map: heads: {joint: {train: NAME, validation: NAME}}."
        )
    if shared and len(heads) > 1:
        one = next(iter(train.values()))[0]
        sentences.append(
            f"All evaluation sets are compared with the one train loss, '{one}': they are not heads of their own."
        )
    ordered = {head: heads[head] for head in sorted(heads, key=lambda h: h == JOINT)}
    sentences += [
        f"{head}: train '{m.train}', validation '{m.validation}'" for head, m in ordered.items()
    ]
    used = {series for m in ordered.values() for series in (m.train, m.validation)}
    left = [
        n
        for split in ("train", "validation")
        for s in found[split].values()
        for n in s
        if n not in used
    ]
    if left:
        sentences.append("Left out: " + ", ".join(f"'{name}'" for name in left[:8]) + ".")
    return Guess(LossMap(heads=ordered, columns=columns or Columns()), tuple(sentences))


def _read_name(name: str) -> tuple[str, str] | None:
    """Split and head that a name speaks of; ``None`` where it is no loss."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name[:200])
    words = [word for word in re.split(r"[^A-Za-z0-9]+", spaced.lower()) if word]
    if not any(word in _LOSSES for word in words):
        return None
    splits = [_SPLITS[word] for word in words if word in _SPLITS]
    if len(set(splits)) > 1:
        return None
    head = [w for w in words if w not in _SPLITS and w not in _LOSSES and w not in _EVERY]
    joint = not head or (len(head) == 1 and head[0] in _JOINTS)
    # A trainer's 'loss' without a split is that of its training steps.
    split = splits[0] if splits else ("train" if not head else None)
    if split is None:
        return None
    return split, JOINT if joint else "_".join(head)


def _preferred(names: list[str]) -> str:
    """Of several series of one head and split: the clean one, the one for each epoch, the first."""
    for word in ("clean", "epoch"):
        for name in names:
            if word in re.split(r"[^a-z0-9]+", name.lower()):
                return name
    return names[0]
