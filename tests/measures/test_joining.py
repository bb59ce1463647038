"""Rows of one table beside those of another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmaudit.evidence.extra_table import write_table
from mmaudit.exceptions import RecordError
from mmaudit.measures.joining import JoinedTable

N = 20_000  # three chunks


@pytest.fixture
def joined(tmp_path: Path) -> JoinedTable:
    write_table(
        tmp_path / "t",
        {
            "sample_id": [f"s{i}" for i in range(N)],
            "one": np.arange(N, dtype=np.float64),
            "two": np.stack([np.arange(N), -np.arange(N)], axis=1),
        },
    )
    return JoinedTable(tmp_path / "t", ["one", "two"])


def ids(places: np.ndarray) -> np.ndarray:
    return np.array([f"s{i}" for i in places], dtype=object)


def test_parts_in_order_some_rows_and_parts_that_begin_again(joined: JoinedTable) -> None:
    everything = np.arange(N)
    even, odd = everything[::2], everything[1::2]
    for places in (even[:4000], even[4000:], odd[:9], odd[7000:], np.array([19_999, 3, 0])):
        found = joined.rows(ids(places))
        assert (found["one"] == places).all()
        assert (found["two"] == np.stack([places, -places], axis=1)).all()


def test_no_ids_have_no_rows(joined: JoinedTable) -> None:
    assert joined.rows(np.array([], dtype=object))["two"].shape == (0, 2)


def test_an_id_that_is_not_there_is_named(joined: JoinedTable) -> None:
    assert joined.rows(ids(np.array([5])))["one"].tolist() == [5]
    with pytest.raises(RecordError, match="lacks sample x; it belongs to another audit"):
        joined.rows(np.array(["s7", "x"], dtype=object))
