import csv
import io
import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmaudit.export.csv_tables import csv_files, safe_cell, to_csv, write_csv
from mmaudit.report import AuditReport
from mmaudit.report.schema import Estimate
from tests.report.fixtures import (
    empty_report,
    hostile_report,
    make_report,
    twelve_report,
    with_findings,
)


def _read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_one_row_per_estimate_and_numbers_untouched():
    report = make_report(samples=60)
    rows = _read(to_csv(report))
    assert len(rows) == sum(len(measure.rows) for measure in report.measures.values())
    place = 0
    for key, measure in report.measures.items():
        for row in measure.rows:
            found, e = rows[place], row.estimate
            place += 1
            assert found["measure"] == key
            for label, value in row.labels.items():
                assert found[label] == value
            for name in ("value", "low", "high"):
                number = getattr(e, name)
                assert found[name] == ("" if number is None else repr(number))
            assert (found["n"], found["unit"]) == (str(e.n), measure.unit)
            assert found["undefined"] == (e.undefined or "")


def test_a_data_frame_reads_it():
    report = make_report(samples=60)
    frame = pd.read_csv(io.StringIO(to_csv(report)), keep_default_na=False, na_values={"value": ""})
    mine = frame[(frame["measure"] == "contributions") & (frame["class"] == "all")]
    assert mine["value"].sum() == pytest.approx(
        sum(
            e.value
            for e in (row.estimate for row in report.rows("contributions", **{"class": "all"}))
        )
    )


def test_why_there_is_no_value_is_in_the_table():
    rows = _read(to_csv(empty_report()))
    reasons = {row["measure"]: row["undefined"] for row in rows}
    assert reasons["coalitions"] == "no sample has a target"
    assert reasons["utilization"].startswith("failed: ZeroDivisionError")


@pytest.mark.parametrize("report", [hostile_report(), make_report(samples=30)])
def test_no_cell_is_a_formula(report):
    names = ("=1+1", "+x", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=x", "\r=x", "＝x", " =x")
    record = report.record
    result = record.measures["contributions"]
    rows = tuple(
        row.model_copy(update={"labels": row.labels | {"class": names[i % len(names)]}})
        for i, row in enumerate(result.rows)
    )
    measures = record.measures | {
        "contributions": result.model_copy(update={"rows": rows, "unit": "=unit"})
    }
    report = AuditReport(record.model_copy(update={"measures": measures}))
    tables = [to_csv(report), *csv_files(report).values()]
    for table in tables:
        for row in csv.reader(io.StringIO(table)):
            for cell in row:
                number = cell.lstrip("+-").replace(".", "", 1).replace("e-", "").isdigit()
                assert number or cell.lstrip()[:1] not in set("=+-@＝＋－＠"), cell
    assert "'=1+1" in tables[0]


def test_what_is_a_number_stays_a_number():
    for text in ("-1", "+0.5", "-1e-05", ".5", "0.25"):
        assert safe_cell(text) == text
    for text in ("-1+1", "--1", "-", "+", "-1e", "-inf", "1 -1"):
        assert safe_cell(text) == (text if text == "1 -1" else f"'{text}")


@given(st.text(max_size=30))
def test_a_safe_cell_is_never_a_formula(text):
    safe = safe_cell(text)
    if safe.lstrip()[:1] in set("=+-@"):
        assert math.isfinite(float(safe)) or "e" in safe.lower()


def test_a_folder_has_a_table_for_each_measure(tmp_path):
    report = with_findings(make_report(samples=60), "under-used", "well used")
    written = write_csv(report, tmp_path / "tables")
    assert {path.name for path in written} == {f"{key}.csv" for key in (*report.measures, "findings")}  # fmt: skip
    contributions = _read((tmp_path / "tables" / "contributions.csv").read_text())
    assert list(contributions[0])[:4] == ["modality", "score", "quantity", "class"]
    assert len(contributions) == len(report.measures["contributions"].rows)
    findings = _read((tmp_path / "tables" / "findings.csv").read_text())
    assert [row["verdict"] for row in findings] == ["", "under-used", "well used"]
    assert findings[1]["remedies"] == "agm, mla"


def test_a_name_that_ends_in_csv_is_one_file(tmp_path):
    report = make_report(samples=60)
    assert write_csv(report, tmp_path / "all.csv") == (tmp_path / "all.csv",)
    assert (tmp_path / "all.csv").read_text() == to_csv(report)


def test_twelve_modalities():
    report = twelve_report()
    assert len(_read(csv_files(report)["coalitions.csv"])) == 4096


def test_names_of_measures_do_not_leave_the_folder(tmp_path):
    report = make_report(samples=30)
    evil = report.measures["coalitions"].model_copy(
        update={"key": "../x", "rows": (), "undefined": "none"}
    )
    record = report.record.model_copy(update={"measures": {"../../x": evil}})
    (path,) = write_csv(AuditReport(record), tmp_path / "t")
    assert path.parent == tmp_path / "t"
    assert _read(path.read_text())[0]["undefined"] == "none"


def test_an_undefined_row_has_no_number():
    report = make_report(("image", "pose"), samples=40)
    rows = [row for row in _read(to_csv(report)) if row["undefined"]]
    assert rows
    assert all(row["value"] == row["low"] == "" for row in rows)
    assert Estimate(undefined="x").value is None
