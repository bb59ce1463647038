"""The text of a log, whatever wrote it: UTF-8, UTF-16 with its mark, and files that are no text at all."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

from mmaudit.evidence.readers.base import check_size, counted, said
from mmaudit.exceptions import LogError

__all__ = ["in_utf8", "is_text", "parsed", "read_document", "text_bytes"]

_MARKS = (
    (codecs.BOM_UTF8, ""),
    # The mark of UTF-32 begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_AT_ONCE = 2**20
_MOST_UNREADABLE = 0.1
_MOST_DIGITS = 4000


def in_utf8(data: bytes) -> bytes:
    r"""Text without the mark it begins with, in UTF-8 also where the mark says UTF-16 or UTF-32.

    Example:
        >>> in_utf8("\ufeffstep,loss".encode("utf-16-le"))
        b'step,loss'
    """
    for mark, coding in _MARKS:
        if data.startswith(mark):
            if not coding:
                return data[len(mark) :]
            return data.decode(coding, "replace").encode("utf-8", "replace")
    return data


def is_text(data: bytes) -> bool:
    """Whether bytes are text in UTF-8, or nearly (a few letters may be in another coding).

    Example:
        >>> is_text(b"step,loss"), is_text(bytes([0, 200, 201, 255]))
        (True, False)
    """
    return b"\0" not in data and _unreadable(data) <= _MOST_UNREADABLE * len(data)


def text_bytes(path: Path, notes: list[str] | None = None) -> bytes:
    """A text file whole, in UTF-8.

    Args:
        path: The file.
        notes: What was found odd is added to it.

    Raises:
        LogError: If it is too large, or no text.
    """
    check_size(path)
    data = in_utf8(path.read_bytes())
    whole = data.rstrip(b"\0")
    if len(whole) < len(data) and whole and notes is not None:
        # A machine that lost its power leaves such a tail.
        notes.append(f"{said(path.name)} ends in zeros: left out.")
    if not is_text(whole):
        raise LogError(f"{said(path.name)} is no text in UTF-8.")
    odd = _unreadable(whole)
    if odd and notes is not None:
        notes.append(
            f"{said(path.name)} is not all in UTF-8: {counted(odd, 'byte')} read as '\ufffd'."
        )
    return whole


def read_document(path: Path, notes: list[str] | None = None) -> Any:
    """A JSON document.

    Args:
        path: The file.
        notes: What was found odd is added to it.

    Raises:
        LogError: If it is no JSON.
    """
    text = text_bytes(path, notes).decode("utf-8", "replace")
    try:
        return parsed(text)
    except (ValueError, RecursionError) as error:
        raise LogError(
            f"{said(path.name)} is no JSON document ({type(error).__name__}); is it cut off, or one object a line?"
        ) from None


def parsed(text: str) -> Any:
    """JSON, also with integers of more digits than Python reads, as infinite numbers.

    Raises:
        ValueError: If it is none.
        RecursionError: If it is nested too deep.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return json.loads(text, parse_int=_whole)


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < _MOST_DIGITS else float(digits)


def _unreadable(data: bytes) -> int:
    """Number of places that are no UTF-8."""
    if data.isascii():
        return 0
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    marks = sum(
        decoder.decode(data[at : at + _AT_ONCE]).count("\ufffd")
        for at in range(0, len(data), _AT_ONCE)
    )
    return max(0, marks - data.count("\ufffd".encode()))
