"""What is wrong with settings that a user wrote, in words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import ValidationError

__all__ = ["setting_faults"]


def setting_faults(error: ValidationError, known: Iterable[str]) -> str:
    """All faults of some settings, in one line.

    Args:
        error: What pydantic found.
        known: Names of the settings that there are; the one that looks most like an unknown name is suggested.

    Example:
        >>> from mmaudit.training import Recipe
        >>> try:
        ...     Recipe(shceduler="cosine", epochs=0)
        ... except ValidationError as error:
        ...     print(setting_faults(error, Recipe.model_fields))
        epochs: Input should be greater than or equal to 1; there is no 'shceduler', did you mean 'scheduler'?
    """
    names = list(known)
    said = []
    for fault in error.errors(include_url=False):
        where = ".".join(map(str, fault["loc"]))
        if fault["type"] != "extra_forbidden" or len(fault["loc"]) > 1:
            said.append(f"{where}: {fault['msg'].removeprefix('Value error, ')}")
            continue
        close = difflib.get_close_matches(where, names, n=1)
        instead = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(names)}"
        said.append(f"there is no '{where[:60]}', {instead if names else 'there are none'}")
    return "; ".join(said)
