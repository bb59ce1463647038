"""The text of a log, whatever wrote it: UTF-8, UTF-16 with its mark, and files that are no text at all."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

from mmaudit.evidence.readers.base import check_size, counted, said
from mmaudit.exceptions import LogError

__all__ = ["in_utf8", "is_text", "parsed", "read_document", "text_bytes", "why_no_text"]

_MARKS = (
    (codecs.BOM_UTF8, ""),
    # The mark of UTF-32 begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"7z\xbc\xaf\x27\x1c": "7z",
}
_ZIP = b"PK\x03\x04"
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


def why_no_text(name: str, data: bytes) -> str:
    """A sentence on a file that is no text.

    Args:
        name: Of the file.
        data: Its beginning.

    Example:
        >>> why_no_text("log.csv.gz", bytes([0x1F, 0x8B, 8]))
        'log.csv.gz is compressed (gzip): unpack it, and give the file in it.'
    """
    packed = next((what for mark, what in _PACKED.items() if data.startswith(mark)), None)
    if packed is not None:
        return f"{said(name)} is compressed ({packed}): unpack it, and give the file in it."
    if data.startswith(_ZIP):
        return (
            f"{said(name)} is a zip archive, as spreadsheets and files of NumPy and PyTorch are too: unpack it, or export its numbers as CSV "
            "or JSON."
        )
    return f"{said(name)} is no text in UTF-8."


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
        raise LogError(why_no_text(path.name, whole))
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
