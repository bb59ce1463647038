"""Samples a page at a time."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dashboard.samples import column_names, read_samples
from mmaudit.exceptions import RecordError
from mmaudit.report import AuditReport
from mmaudit.report.numbers import number
from tests.report.fixtures import HOSTILE, hostile_report, make_report


@pytest.fixture
def report(tmp_path):
    """250 samples in several shards and row groups."""
    made = make_report(("audio", "image"), samples=250, folder=tmp_path / "r")
    folder = made.table("coalitions")
    shards = sorted(folder.glob("part-*.parquet"))
    table = pa.concat_tables([pq.read_table(shard) for shard in shards])
    for shard in shards:
        shard.unlink()
    pq.write_table(table.slice(0, 90), folder / "part-00000.parquet", row_group_size=40)
    pq.write_table(table.slice(90), folder / "part-00001.parquet", row_group_size=70)
    return made


def _expected(report):
    frame = report.to_frame("samples")
    said = lambda name: [report.classes[k] for k in frame[f"prediction[{name}]"]]  # noqa: E731
    return [
        {
            "sample": row.sample_id,
            "target": report.classes[row.target],
            "together": together,
            "confidence": number(float(sure), 3),
            "right": bool(right),
            "correct": "yes" if right else "no",
            "alone0": audio,
            "alone1": image,
        }
        for row, together, sure, right, audio, image in zip(
            frame.itertuples(),
            said("audio+image"),
            frame["confidence[audio+image]"],
            frame["correct[audio+image]"],
            said("audio"),
            said("image"),
            strict=True,
        )
    ]


@pytest.mark.parametrize(("start", "stop"), [(0, 250), (0, 10), (85, 95), (39, 41), (240, 400), (249, 250)])  # fmt: skip
def test_a_page_is_that_part_of_the_table(report, start, stop):
    page = read_samples(report, start, stop)
    assert list(page.rows) == _expected(report)[start:stop]
    assert page.total == 250


def test_only_wrong_ones_are_counted_and_shown(report):
    wrong = [row for row in _expected(report) if not row["right"]]
    assert 0 < len(wrong) < 250
    page = read_samples(report, 3, 9, only_wrong=True)
    assert list(page.rows) == wrong[3:9]
    assert page.total == len(wrong)


@pytest.mark.parametrize(("start", "stop"), [(250, 300), (5, 5), (9, 3), (-5, 0), (10**8, 10**9)])
def test_a_page_beyond_the_table_is_empty(report, start, stop):
    page = read_samples(report, start, stop)
    assert page.rows == ()
    assert page.total == 250


def test_a_page_is_bounded(report, monkeypatch):
    monkeypatch.setattr("dashboard.samples._MOST", 7)
    assert len(read_samples(report, 0, 10**9).rows) == 7


def test_fields_never_come_from_the_model(tmp_path):
    report = hostile_report(tmp_path / "r")
    fields = column_names(report)
    assert all(field.isalnum() for field in fields)
    assert all(name.isprintable() for name in fields.values())
    page = read_samples(report, 0, 5)
    assert set(page.rows[0]) == {*fields, "right"}
    assert HOSTILE[:9] in "".join(fields.values())


def test_a_single_modality_has_no_others(tmp_path):
    report = make_report(("sound",), samples=20, folder=tmp_path / "r")
    assert list(column_names(report).values())[2] == "Model says from sound"
    assert "alone0" not in read_samples(report, 0, 5).rows[0]


def test_a_damaged_or_missing_table_is_an_error_of_ours(report):
    for shard in report.table("coalitions").glob("part-*.parquet"):
        shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(RecordError, match="damaged"):
        read_samples(report, 0, 10)
    shutil.rmtree(report.table("coalitions"))
    with pytest.raises(RecordError, match="missing"):
        read_samples(report, 0, 10)


def test_a_table_that_was_replaced_is_read_anew(report, tmp_path):
    assert read_samples(report, 0, 1).total == 250
    make_report(("audio", "image"), samples=30, folder=tmp_path / "other")
    folder = report.table("coalitions")
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "other" / "coalitions", folder)
    assert read_samples(AuditReport(report.record, report.folder), 0, 1).total == 30
