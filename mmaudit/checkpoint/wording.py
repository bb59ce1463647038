"""Names that come out of files, made fit for one line of a message.

Keys, paths and class names of a checkpoint are foreign text: they may be long, hold control characters or end a line.
Every message of this package passes them through here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["listed", "shown"]


def shown(text: object, longest: int = 80) -> str:
    r"""One printable line of at most ``longest`` characters; the middle is left out of longer ones.

    Example:
        >>> shown("a\nb"), shown("x" * 100, 9)
        ('a\\nb', 'xxx...xxx')
    """
    line = str(text)
    if isinstance(text, Path):
        longest = max(longest, 100)
    # Long before escaping: a hostile name may hold megabytes.
    if len(line) > 4 * longest:
        line = line[: 2 * longest] + line[-2 * longest :]
    line = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in line
    )
    if len(line) <= longest:
        return line
    half = (longest - 3) // 2
    return f"{line[:half]}...{line[-half:]}"


def listed(names: Iterable[object], most: int = 2, room: int = 120) -> str:
    """The first few names, in about ``room`` characters, and how many more there are.

    Example:
        >>> listed(["a", "b", "c", "d"])
        'a, b (+2)'
    """
    everything = list(names)
    longest = room // max(1, min(most, len(everything)))
    text = ", ".join(shown(name, longest) for name in everything[:most])
    return text if len(everything) <= most else f"{text} (+{len(everything) - most})"
