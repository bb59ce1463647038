"""Stand-ins for classes that a trusted pickle names and this machine does not have.

Beside their weights people pickle configurations, schedulers and callbacks of libraries that an audit never needs. Such an
object becomes an empty stand-in that takes whatever the pickle puts into it, so that the weights can be read all the same.
What the weights or the model themselves are made of has to be here: a stand-in there is an error.
"""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["StandIn", "stand_in", "stands_in"]

_DEEPEST = 6


class StandIn:
    """An object of a class that is not here; it keeps nothing."""

    names: str = ""
    """The class, as the pickle names it."""
    reason: str = ""
    """Why it is not here."""

    def __new__(cls, *args: Any, **kwargs: Any) -> StandIn:
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> StandIn:
        """Be a function, too."""
        return self

    def append(self, value: Any) -> None:
        """Take an item, as lists do when they are unpickled."""

    def extend(self, values: Any) -> None:
        """Take items, as lists do when they are unpickled."""

    def add(self, value: Any) -> None:
        """Take an item, as sets do when they are unpickled."""


def stand_in(module: str, name: str, reason: str) -> type[StandIn]:
    """A class to stand in for another.

    Args:
        module: Module of the class that is not here.
        name: Its name in there.
        reason: Why it is not here, as a clause.
    """
    return type("StandIn", (StandIn,), {"names": f"{module}.{name}", "reason": reason})


def stands_in(value: Any, depth: int = _DEEPEST) -> StandIn | type[StandIn] | None:
    """A stand-in that is, or is part of, a value that has to be real; ``None`` where there is none.

    Args:
        value: A model, or anything else that is to be used.
        depth: How far to look into what it is made of.
    """
    if isinstance(value, StandIn) or (isinstance(value, type) and issubclass(value, StandIn)):
        return value
    if isinstance(value, nn.Module):
        for module in _parts(value):
            if isinstance(module, StandIn):
                return module
            found = next(
                (f for part in vars(module).values() if (f := stands_in(part, 1)) is not None),
                None,
            )
            if found is not None:
                return found
        return None
    if depth and isinstance(value, (list, tuple)):
        return next((f for part in value if (f := stands_in(part, depth - 1)) is not None), None)
    return None


def _parts(model: nn.Module) -> list[Any]:
    """A module and everything registered in it, which need not be modules where a class is missing."""
    seen: dict[int, Any] = {}
    waiting: list[Any] = [model]
    while waiting:
        part = waiting.pop()
        if id(part) in seen or part is None:
            continue
        seen[id(part)] = part
        if isinstance(part, nn.Module):
            waiting += vars(part).get("_modules", {}).values()
    return list(seen.values())
