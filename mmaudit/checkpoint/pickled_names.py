"""What a pickle would import, read as opcodes: nothing is unpickled.

The names are for the person who decides whether to trust a file. They decide nothing here: a pickle that hides its names is
refused like any other, and shown as hiding them. Looking is bounded: a pickle of many steps costs time and memory even where
it builds nothing, and a real one is short beside its tensors.
"""

from __future__ import annotations

import pickletools
import tarfile
import warnings
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

__all__ = [
    "HIDDEN",
    "MOST_STEPS",
    "UNREAD",
    "Names",
    "TooLongError",
    "names_in_file",
    "names_in_pickle",
]

HIDDEN = "a name that only running it would tell"
"""Stands for an import whose name is put together while the pickle runs."""

UNREAD = "more beyond the part that was looked through"
"""Stands for the rest of a pickle that is too long to be followed to its end."""

MOST_STEPS = 1_000_000
"""Opcodes that are followed, about one second; one tensor takes about 40 of them."""

_LARGEST = 20_000_000
_MOST_MEMBERS = 10_000
_STREAMS = 5
"""A torch file of the old format is five pickles in a row: magic number, version, system, objects, keys."""

_STRINGS = frozenset(
    {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING"}
    | {"SHORT_BINSTRING"}
)
_STORES = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_FETCHES = frozenset({"GET", "BINGET", "LONG_BINGET"})
_EXTENSIONS = frozenset({"EXT1", "EXT2", "EXT4"})


class Names(NamedTuple):
    """Dotted names that a pickle imports, in order and once, and whether it uses opcodes newer than torch.save's own."""

    names: tuple[str, ...]
    newer: bool


class TooLongError(ValueError):
    """A pickle goes on beyond what is looked through."""


def names_in_pickle(
    pickled: bytes | IO[bytes], *, most: int = MOST_STEPS, found: dict[str, None] | None = None
) -> Names:
    """Read the names that one pickle imports.

    Args:
        pickled: The pickle, or a file at its beginning; a file is left behind its end.
        most: Opcodes to follow.
        found: Gets the names while they are found, so that those before an error are known.

    Raises:
        TooLongError: If the pickle has more opcodes.
        ValueError: If it is no whole pickle; ``pickletools`` raises other types on damage, too.

    Example:
        >>> import collections, pickle
        >>> names_in_pickle(pickle.dumps(collections.OrderedDict(), protocol=4)).names
        ('collections.OrderedDict',)
    """
    found = {} if found is None else found
    newer = _follow(_steps(pickled, _Budget(most)), found)
    return Names(tuple(found), newer)


def names_in_file(path: Path, kind: str) -> tuple[str, ...]:
    """Names that a file of pickles would import, as far as it can be read.

    Args:
        path: The file.
        kind: Its format, a key of :data:`~mmaudit.checkpoint.formats.FORMATS`: ``pickle``, ``torch legacy`` or ``torch tar``.

    Returns:
        The names before damage, if there is any; with :data:`UNREAD` where the file is too long to be looked through.
    """
    found: dict[str, None] = {}
    budget = _Budget(MOST_STEPS)
    try:
        if kind == "torch tar":
            with tarfile.open(path, "r:") as archive:
                for number, member in enumerate(archive):
                    if number == _MOST_MEMBERS:
                        raise TooLongError
                    _add(archive.extractfile(member) if member.isfile() else None, found, budget)
            return tuple(found)
        with path.open("rb") as file:
            bounded = _Bounded(file)
            for _ in range(_STREAMS if kind == "torch legacy" else 1):
                _follow(_steps(bounded, budget), found)
    except TooLongError:
        found[UNREAD] = None
    except Exception:  # damage is the loader's to report; there may be names all the same
        return tuple(found)
    return tuple(found)


def _add(file: IO[bytes] | None, found: dict[str, None], budget: _Budget) -> None:
    if file is None:
        return
    bounded = _Bounded(file)
    try:
        while True:
            _follow(_steps(bounded, budget), found)
    except TooLongError:
        raise
    except Exception:  # the end of the pickles, with raw numbers behind them
        return


class _Budget:
    """How many opcodes may still be followed."""

    def __init__(self, left: int) -> None:
        self.left = left


def _steps(
    pickled: bytes | IO[bytes] | _Bounded, budget: _Budget
) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
    for opcode, argument, _ in pickletools.genops(cast("bytes | IO[bytes]", pickled)):
        budget.left -= 1
        if budget.left < 0:
            raise TooLongError
        yield opcode, argument


def _follow(steps: Iterable[tuple[pickletools.OpcodeInfo, Any]], found: dict[str, None]) -> bool:
    """Look for the names in a pickle; returns whether it has opcodes newer than torch.save's own."""
    with warnings.catch_warnings():
        # About raw bytes that are taken for text of older protocols.
        warnings.simplefilter("ignore")
        return _follow_strings(steps, found)


def _follow_strings(
    steps: Iterable[tuple[pickletools.OpcodeInfo, Any]], found: dict[str, None]
) -> bool:
    """Follow the strings on the stack, as far as the two last ones."""
    newer = False
    recent: list[str | None] = []
    memo: dict[Any, str | None] = {}
    for opcode, argument in steps:
        name = opcode.name
        if name in ("GLOBAL", "INST"):
            module, _, attribute = str(argument).partition(" ")
            # As in every unpickler: older protocols write the names of Python 2.
            module, attribute = NAME_MAPPING.get((module, attribute), (module, attribute))
            found[f"{IMPORT_MAPPING.get(module, module)}.{attribute}"] = None
            recent.append(None)
        elif name == "STACK_GLOBAL":
            newer = True
            known = recent[-2:] if len(recent) >= 2 else [None]
            found[".".join(k for k in known if k) if all(known) else HIDDEN] = None
            recent = [None]
        elif name in _EXTENSIONS:
            newer = True
            found[HIDDEN] = None
            recent.append(None)
        elif name in _STRINGS:
            recent.append(str(argument))
        elif name == "MEMOIZE":
            memo[len(memo)] = recent[-1] if recent else None
        elif name in _STORES:
            memo[argument] = recent[-1] if recent else None
        elif name in _FETCHES:
            recent.append(memo.get(argument))
        elif name not in ("PROTO", "FRAME"):
            newer |= name == "NEWOBJ_EX"
            recent.append(None)
        del recent[:-2]
    return newer


class _Bounded:
    """A file of which only so many bytes are looked at."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._left = file, _LARGEST

    def read(self, size: int) -> bytes:
        if size > self._left:
            raise TooLongError
        return self._take(self._file.read(size))

    def readline(self) -> bytes:
        line = self._take(self._file.readline(self._left + 1))
        if self._left < 0:
            raise TooLongError
        return line

    def tell(self) -> int:
        return self._file.tell()

    def _take(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data
