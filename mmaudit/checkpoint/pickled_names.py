"""What a pickle would import, read as opcodes: nothing is unpickled.

The names are for the person who decides whether to trust a file. They decide nothing here: a pickle that hides its names is
refused like any other, and shown as hiding them.
"""

from __future__ import annotations

import pickletools
import tarfile
import warnings
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

__all__ = ["HIDDEN", "Names", "names_in_file", "names_in_pickle"]

HIDDEN = "a name that only running it would tell"
"""Stands for an import whose name is put together while the pickle runs."""

_LARGEST = 50_000_000
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


def names_in_pickle(pickled: bytes | IO[bytes] | _Bounded) -> Names:
    """Read the names that one pickle imports.

    Args:
        pickled: The pickle, or a file at its beginning; a file is left behind its end.

    Raises:
        ValueError: If it is no whole pickle; ``pickletools`` raises other types on damage, too.

    Example:
        >>> import collections, pickle
        >>> names_in_pickle(pickle.dumps(collections.OrderedDict(), protocol=4)).names
        ('collections.OrderedDict',)
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # about raw bytes that are taken for text of older protocols
        return _names(pickletools.genops(cast("bytes | IO[bytes]", pickled)))


def names_in_file(path: Path, kind: str) -> tuple[str, ...]:
    """Names that a file of pickles would import, as far as it can be read.

    Args:
        path: The file.
        kind: Its format, a key of :data:`~mmaudit.checkpoint.formats.FORMATS`: ``pickle``, ``torch legacy`` or ``torch tar``.

    Returns:
        The names; empty where the file is damaged or too large to look through.
    """
    found: dict[str, None] = {}
    try:
        if kind == "torch tar":
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    if member.isfile() and member.size <= _LARGEST:
                        _add(archive.extractfile(member), found)
            return tuple(found)
        with path.open("rb") as file:
            for _ in range(_STREAMS if kind == "torch legacy" else 1):
                found |= dict.fromkeys(names_in_pickle(_Bounded(file)).names)
    except (
        Exception
    ):  # damage and bombs are the loader's to report; there may be names all the same
        return tuple(found)
    return tuple(found)


def _add(file: IO[bytes] | None, found: dict[str, None]) -> None:
    if file is None:
        return
    try:
        while True:
            found |= dict.fromkeys(names_in_pickle(file).names)
    except Exception:  # the end of the pickles, with raw numbers behind them
        return


def _names(opcodes: Iterable[tuple[Any, Any, Any]]) -> Names:
    """Follow the strings on the stack, as far as the two last ones."""
    found: dict[str, None] = {}
    newer = False
    recent: list[str | None] = []
    memo: dict[Any, str | None] = {}
    for opcode, argument, _ in opcodes:
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
    return Names(tuple(found), newer)


class _Bounded:
    """A file that ends after so many bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._left = file, _LARGEST

    def read(self, size: int) -> bytes:
        return self._take(self._file.read(min(size, self._left)))

    def readline(self) -> bytes:
        return self._take(self._file.readline(self._left))

    def tell(self) -> int:
        return self._file.tell()

    def _take(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data
