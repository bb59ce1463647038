"""Real data that is not part of the repository: beside it, or where ``MMAUDIT_DATA`` points."""

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"


def shared_file(name):
    """Path of a data file; the test is skipped where it is absent."""
    path = Path(os.environ.get("MMAUDIT_DATA", _BESIDE)) / name
    if not path.is_file():
        pytest.skip(f"needs the data file {name}: set MMAUDIT_DATA to the folder that holds it")
    return path
