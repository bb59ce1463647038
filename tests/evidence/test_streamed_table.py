"""Tables that grow with the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmaudit.evidence.streamed_table import written_table
from mmaudit.report.tables import read_chunks


def batch(start: int, n: int, group: str | None = None) -> dict[str, object]:
    rows = np.arange(start, start + n)
    return {
        "sample_id": [str(row) for row in rows],
        "group": [group] * n,
        "number": rows,
        "several": np.stack([rows, rows / 2], axis=1),
    }


def test_batches_become_row_groups(tmp_path: Path) -> None:
    with written_table(tmp_path / "t") as table:
        # Batches without any group, of no row at all, and with groups make one column.
        for start, n, group in ((0, 3000, None), (3000, 0, None), (3000, 2000, "a")):
            table(batch(start, n, group))
        table(batch(5000, 10, "b"))
        assert not list((tmp_path / "t").glob("part-*"))
    (path,) = (tmp_path / "t").iterdir()
    assert path.name == "part-000-000000.parquet"
    assert pq.ParquetFile(path).metadata.num_row_groups == 2
    chunks = list(read_chunks(tmp_path / "t"))
    assert np.concatenate([chunk["number"] for chunk in chunks]).tolist() == list(range(5010))
    groups = np.concatenate([chunk["group"] for chunk in chunks])
    assert [groups[0], groups[3000], groups[5000]] == [None, "a", "b"]
    assert np.concatenate([chunk["several"] for chunk in chunks])[4, 1] == 2.0


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="enough"), written_table(tmp_path / "t") as table:
        table(batch(0, 9000))
        raise RuntimeError("enough")
    assert not (tmp_path / "t").exists()


def test_what_a_killed_run_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / ".part-000-000000.tmp").write_bytes(b"half")
    with written_table(tmp_path / "t") as table:
        table(batch(0, 5))
    assert [path.name for path in (tmp_path / "t").iterdir()] == ["part-000-000000.parquet"]
