"""How numbers are written, once for the terminal, the pages, the figures and the sentences.

A fraction has no leading zero and an interval stands in brackets: ``.81 [.77, .84]``. What has no value says so in words.
"""

from __future__ import annotations

import math

from mmaudit.report.schema import Estimate

__all__ = ["NO_RESPONSE", "count", "duration", "number", "percent", "short_count", "with_interval"]

_LARGE = 1e6

NO_RESPONSE = "no response"
"""Reason of an undefined response that is numerically nothing; shown as it is."""


def number(value: float, digits: int = 2, *, signed: bool = False) -> str:
    """Write a number with fixed decimals and without the zero before the point.

    Args:
        value: Any finite number.
        digits: Decimals.
        signed: Write ``+`` before what is positive.

    Returns:
        The number, without a sign where it rounds to zero; from a million on, where decimals say nothing, in powers of ten.

    Example:
        >>> number(0.8149), number(-0.004), number(1.0), number(-2.5), number(0.03, signed=True)
        ('.81', '.00', '1.00', '-2.50', '+.03')
        >>> number(-181_820_834.2)
        '-1.82e+08'
    """
    text = f"{abs(value):,.{digits}f}" if abs(value) < _LARGE else f"{abs(value):.3g}"
    if text.startswith("0."):
        text = text[1:]
    if not text.strip(".0"):
        return text
    return f"-{text}" if value < 0 else f"+{text}" if signed else text


def with_interval(estimate: Estimate, digits: int = 2, *, signed: bool = False) -> str:
    """Write an estimate with its interval, or why there is none.

    Returns:
        ``.81 [.77, .84]``, ``.81`` where there is no interval, ``no response`` or ``undefined``.

    Example:
        >>> with_interval(Estimate(value=0.01, low=-0.001, high=0.02, n=600))
        '.01 [.00, .02]'
        >>> with_interval(Estimate(undefined="accuracy is 0"))
        'undefined'
    """
    if estimate.value is None:
        return NO_RESPONSE if NO_RESPONSE in (estimate.undefined or "") else "undefined"
    text = number(estimate.value, digits, signed=signed)
    if estimate.low is None or estimate.high is None:
        return text
    low = number(estimate.low, digits, signed=signed)
    return f"{text} [{low}, {number(estimate.high, digits, signed=signed)}]"


def percent(value: float) -> str:
    """Write a fraction in per cent.

    Example:
        >>> percent(0.348), percent(0.004)
        ('35 %', '0.4 %')
    """
    return f"{100 * value:.0f} %" if abs(value) >= 0.01 or value == 0 else f"{100 * value:.1g} %"


def count(value: int) -> str:
    """Write a whole number with commas.

    Example:
        >>> count(1234567)
        '1,234,567'
    """
    return f"{value:,}"


def short_count(value: int) -> str:
    """Write the size of something in at most a few characters.

    Example:
        >>> short_count(38_410), short_count(999), short_count(1_250_000)
        ('38 k', '999', '1.2 M')
    """
    if value < 1000:
        return str(value)
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            scaled = value / size
            return f"{scaled:.1f} {letter}" if scaled < 10 else f"{scaled:.0f} {letter}"
    raise AssertionError(value)


def duration(seconds: float) -> str:
    """Write a time in the unit a person would use.

    Example:
        >>> duration(0.01), duration(0.34), duration(3.2), duration(75), duration(7260)
        ('under 0.1 s', '0.3 s', '3 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 0.05:
        return "under 0.1 s"
    if seconds < 1:
        return f"{seconds:.1f} s"
    whole = math.floor(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
