"""A workspace for each test."""

from __future__ import annotations

import pytest

from tests.jobs.place import Place


@pytest.fixture
def place(tmp_path):
    found = Place(tmp_path)
    yield found
    found.end()
