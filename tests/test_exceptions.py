"""The errors of the domain, and how those of others are told."""

import pytest

from mmaudit.exceptions import first_line


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("first.\nsecond"), "first"),
        (ValueError("\n  first \nsecond"), "first"),
        (ValueError(), "ValueError"),
        (MemoryError(), "MemoryError"),
        (ValueError("long" * 100), ("long" * 100)[:300]),
    ],
)
def test_an_error_is_told_in_a_line(error, told):
    assert first_line(error) == told
