"""Which logged series are the train and validation losses of which head: written down by the user, or guessed and shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mmaudit.evidence.readers.base import Columns, said
from mmaudit.exceptions import LogError
from mmaudit.masking.yaml_text import parse_yaml, yaml_fault

__all__ = ["JOINT", "MOST_HEADS", "HeadMap", "LossMap", "read_map"]

JOINT = "joint"
"""Name of the head that sees all modalities, unless a map names another."""

MOST_HEADS = 100
"""Heads of a map at most."""

_EXPECTED = "heads: {audio: {train: NAME, validation: NAME}, ...}, and where they are needed joint: HEAD and columns: {...}"
_COLUMNS = "columns: {epoch: ep, split: phase}"
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
        columns: Which column of a table is what: ``step``, ``epoch``, ``run``, ``name``, ``value``, ``split``, each the name of one.

    As a file, of a log that is a table with rows for each split::

        heads:
          audio: {train: train/audio_loss, validation: val/audio_loss}
          joint: {train: train/loss, validation: val/loss}
        columns: {epoch: ep, split: phase}

    Example:
        >>> found = read_map({"heads": {"audio": {"train": "a/train", "validation": "a/val"}}})
        >>> found.heads["audio"].train, found.joint_head
        ('a/train', None)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    heads: dict[str, HeadMap] = Field(min_length=1, max_length=MOST_HEADS)
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
        """The joint head, where there is one; sets of data have none, unless the map names it."""
        if self.joint is not None:
            return self.joint
        return JOINT if JOINT in self.heads and not self.evaluation_sets else None

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
    content: Any = source
    if isinstance(source, (str, Path)):
        name = said(Path(source).name)
        content = _parsed(Path(source))
    try:
        fault = _fault(content)
        if fault is None:
            return LossMap.model_validate(_with_texts(content))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        fault = f"{'.'.join(map(str, first['loc']))} cannot be used"
    except RecursionError:
        fault = "it is nested too deep"
    expected = "" if fault.endswith(_COLUMNS) else f"; expected {_EXPECTED}"
    raise LogError(f"{name}: {said(fault, 300)}{expected}.")


def _fault(source: Any) -> str | None:
    """What is wrong with a map, in words."""
    if not isinstance(source, Mapping):
        return f"it is {_kind(source)}, not a map of losses"
    unknown = [key for key in source if key not in LossMap.model_fields]
    if unknown:
        return f"'{said(str(unknown[0]))}' is no part of a map of losses ({', '.join(LossMap.model_fields)})"
    heads = source.get("heads")
    if heads is None:
        alone = " (columns alone are said by --columns KEY=NAME)" if "columns" in source else ""
        return f"heads is missing{alone}"
    if not isinstance(heads, Mapping):
        return f"heads is {_kind(heads)}, not names with their series"
    if not 1 <= len(heads) <= MOST_HEADS:
        return f"heads has {len(heads):,} heads, not 1 to {MOST_HEADS}"
    for head, pair in heads.items():
        fault = None if isinstance(pair, HeadMap) else _fault_of_pair(head, pair)
        if fault is not None:
            return fault
    joint = source.get("joint")
    if joint is not None and _text(joint) not in map(_text, heads):
        return f"joint is '{said(str(joint))}', which is no head ({', '.join(said(str(head)) for head in heads)})"
    columns = source.get("columns")
    return None if columns is None or isinstance(columns, Columns) else _fault_of_columns(columns)


def _fault_of_pair(head: Any, pair: Any) -> str | None:
    where = f"heads.{said(str(head))}"
    if _text(head) is None:
        return f"{where} is {_kind(head)}, not a name; put it into quotes"
    if not isinstance(pair, Mapping):
        return f"{where} is {_kind(pair)}, not the names of its 'train' and 'validation' series"
    for key in pair:
        if key not in HeadMap.model_fields:
            return (
                f"{where}.{said(str(key))} is no part of a head, which has 'train' and 'validation'"
            )
    for key in HeadMap.model_fields:
        if pair.get(key) is None:
            return f"{where}.{key} is missing"
        if _text(pair[key]) is None:
            return f"{where}.{key} is {_kind(pair[key])}, not the name of a series"
    return None


def _fault_of_columns(columns: Any) -> str | None:
    known = ", ".join(Columns.model_fields)
    if not isinstance(columns, Mapping):
        return (
            f"columns is {_kind(columns)}; it names columns of a table ({known}), as in {_COLUMNS}"
        )
    for key, value in columns.items():
        if key not in Columns.model_fields:
            return f"columns.{said(str(key))} is no column that can be named ({known}), as in {_COLUMNS}"
        if value is not None and _text(value) is None:
            return f"columns.{key} is {_kind(value)}, not the name of a column, as in {_COLUMNS}"
    return None


def _text(value: Any) -> str | None:
    """A name; YAML reads a column that is called ``0`` as a number."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _with_texts(source: Mapping[str, Any]) -> dict[str, Any]:
    """The map with names in place of numbers, as far as it goes deep."""

    def named(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {_text(key): named(item) for key, item in value.items()}
        return value if _text(value) is None else _text(value)

    return {key: named(value) for key, value in source.items() if value is not None}


def _kind(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, str):
        return f"the text '{said(value, 40)}'"
    return (
        "a list"
        if isinstance(value, list)
        else f"{said(str(value), 40)}"
        if not isinstance(value, Mapping)
        else "a mapping"
    )


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
        return parse_yaml(text)
    except LogError:
        raise
    except UnicodeDecodeError:
        raise LogError(
            f"{said(path.name)} cannot be read as a map of losses: it is no text in UTF-8; expected {_EXPECTED}."
        ) from None
    except (OSError, yaml.YAMLError, RecursionError, ValueError) as error:
        why = yaml_fault(error) if isinstance(error, yaml.YAMLError) else type(error).__name__
        raise LogError(
            f"{said(str(path), 200)} cannot be read as a map of losses: {why}; expected {_EXPECTED}."
        ) from None
