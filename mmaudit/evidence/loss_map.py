"""Which logged series are the train and validation losses of which head: written down by the user, or guessed and shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mmaudit.evidence.readers.base import Columns, said
from mmaudit.exceptions import LogError

__all__ = ["JOINT", "HeadMap", "LossMap", "read_map"]

JOINT = "joint"
"""Name of the head that sees all modalities, unless a map names another."""

_MOST_HEADS = 100
_LARGEST_MAP = 100_000
_MOST_NESTED = 1_000


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

    Example:
        >>> found = read_map({"heads": {"audio": {"train": "a/train", "validation": "a/val"}}})
        >>> found.heads["audio"].train, found.joint_head
        ('a/train', None)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    heads: dict[str, HeadMap] = Field(min_length=1, max_length=_MOST_HEADS)
    joint: str | None = None
    columns: Columns = Columns()

    @model_validator(mode="after")
    def _joint_is_a_head(self) -> LossMap:
        if self.joint is not None and self.joint not in self.heads:
            raise ValueError(
                f"joint is '{said(self.joint)}', which is no head ({', '.join(map(said, self.heads))})"
            )
        return self

    @property
    def joint_head(self) -> str | None:
        """The joint head, where there is one."""
        return self.joint if self.joint is not None else (JOINT if JOINT in self.heads else None)

    @property
    def series(self) -> frozenset[str]:
        """All series of the heads."""
        return frozenset(s for head in self.heads.values() for s in (head.train, head.validation))

    @property
    def evaluation_sets(self) -> bool:
        """Whether all heads have one train loss, so that they are several sets of data rather than heads of a model."""
        return len(self.heads) > 1 and len({head.train for head in self.heads.values()}) == 1

    def text(self) -> str:
        """As YAML that :func:`read_map` reads."""
        return yaml.safe_dump(
            self.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True
        )


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
        name = said(Path(source).name)
        source = _parsed(Path(source))
    try:
        return LossMap.model_validate(source)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = said(".".join(map(str, fault["loc"])) or "it")
        raise LogError(
            f"{name}: {where}: {said(fault['msg'], 200)}; expected heads, each with the names of its 'train' and 'validation' series."
        ) from None
    except RecursionError:
        raise LogError(f"{name} is nested too deep for a map of losses.") from None


def _parsed(path: Path) -> Any:
    try:
        if not path.is_file():
            raise LogError(f"{said(str(path), 200)}: no such file; expected a map of losses.")
        if path.stat().st_size > _LARGEST_MAP:
            raise LogError(f"{said(path.name)} is larger than 100 kB, which no map of losses is.")
        text = path.read_text(encoding="utf-8-sig")
        if (
            sum(map(text.count, "[{")) > _MOST_NESTED
            or max((line.count("- ") for line in text.splitlines()), default=0) > _MOST_NESTED
        ):
            raise LogError(f"{said(path.name)} is nested too deep for a map of losses.")
        # A few aliases can stand for billions of values; no map needs one.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise LogError(
                f"{said(path.name)} has YAML aliases, which a map of losses may not have."
            )
        return yaml.safe_load(text)
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        if isinstance(error, LogError):
            raise
        raise LogError(
            f"{said(str(path), 200)} cannot be read as a map of losses ({type(error).__name__})."
        ) from None
