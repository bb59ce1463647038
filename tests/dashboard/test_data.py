"""What the list and the diagnosis are read from."""

import json
import os
import shutil
import time

import pytest

from dashboard.data import Library
from dashboard.pages import audits
from dashboard.shelf import scan
from mmaudit.exceptions import RecordError
from mmaudit.report import AuditReport
from tests.dashboard.conftest import add_record
from tests.report.fixtures import HOSTILE, empty_report, hostile_report, make_report


def test_a_row_says_what_the_record_says(workspace):
    report = AuditReport.load(workspace / "first")
    (row,) = Library(workspace).audits().rows
    assert row.key == report.record.report_id
    assert row.title == report.title
    assert row.created == report.record.created
    assert row.samples == 60
    assert row.score == report.score and row.score_name == "accuracy"
    assert dict(row.contributions) == {
        name: report.estimate("contributions", modality=name) for name in report.modalities
    }
    assert [name for name, _ in row.contributions] == list(report.modalities)
    assert row.verdicts == ()
    assert row.place == "first"


def test_verdicts_and_contributions_are_in_the_order_of_the_record(workspace):
    path = workspace / "first" / "report.json"
    record = json.loads(path.read_text())
    first, *others = record["modalities"]
    record["findings"] = [
        {"rule": "dominance", "level": "attention", "text": "one dominates"},
        {"rule": "verdict", "modality": others[-1], "verdict": "well used", "text": "used"},
        {"rule": "verdict", "modality": first, "verdict": "under-used", "text": "not used"},
    ]
    path.write_text(json.dumps(record))
    (row,) = Library(workspace).audits().rows
    assert row.verdicts == ((first, "under-used"), (others[-1], "well used"))
    assert audits._cells(row)["verdicts"] == f"{first} under-used · {others[-1]} well used"
    assert [name for name, _ in row.contributions] == record["modalities"]
    none = audits._cells(row._replace(verdicts=()))
    assert none["verdicts"] == "none"
    many = tuple((f"m{i}", "well used") for i in range(7))
    assert audits._cells(row._replace(verdicts=many))["verdicts"].endswith(
        "m3 well used · and 3 more"
    )


def test_records_are_found_wherever_they_lie_and_the_newest_comes_first(workspace):
    add_record(workspace / "a" / "b" / "c", "b" * 26, samples=20)
    add_record(workspace, "c" * 26, samples=20)
    path = workspace / "a" / "b" / "c" / "report.json"
    record = json.loads(path.read_text())
    record["created"] = "2030-01-01T00:00:00Z"
    path.write_text(json.dumps(record))
    rows = Library(workspace).audits().rows
    assert [row.place for row in rows][0] == "a/b/c"
    assert {row.place for row in rows} == {"a/b/c", "first", "."}


def test_a_record_that_was_replaced_is_read_again_and_one_that_is_gone_is_not_shown(workspace):
    library = Library(workspace)
    assert library.audits().rows[0].title == "audio-visual digits, late fusion"
    shutil.rmtree(workspace / "first")
    add_record(workspace / "first", "b" * 26, samples=20, title="another one")
    assert [row.title for row in library.audits().rows] == ["another one"]
    with pytest.raises(RecordError, match="no audit"):
        library.report("a" * 26)
    shutil.rmtree(workspace / "first")
    assert library.audits().rows == ()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"schema_version": 99}',
        b'{"schema_version": 1}',
        b"\xff\xfe",
        b'{"schema_version": 1, "modalities": "ab", "measures": [], "report_id": 1}',
        b"[" * 100_000,
    ],
)
def test_a_record_that_cannot_be_read_is_named_and_loses_no_other(workspace, content):
    (workspace / "bad").mkdir()
    (workspace / "bad" / "report.json").write_bytes(content)
    listing = Library(workspace).audits()
    assert [row.place for row in listing.rows] == ["first"]
    assert listing.unreadable == ("bad",)


def test_links_hidden_folders_and_tables_are_not_followed(workspace, tmp_path):
    add_record(tmp_path / "elsewhere", "b" * 26, samples=20)
    (workspace / "link").symlink_to(tmp_path / "elsewhere")
    (workspace / "loop").symlink_to(workspace)
    for place in (".hidden", "coalitions"):
        shutil.copytree(tmp_path / "elsewhere", workspace / place)
    (workspace / "filelink").mkdir()
    (workspace / "filelink" / "report.json").symlink_to(tmp_path / "elsewhere" / "report.json")
    assert [row.place for row in Library(workspace).audits().rows] == ["first"]


def test_the_search_is_bounded(workspace, monkeypatch):
    deep = workspace.joinpath(*"abcdefghijk")
    add_record(deep, "b" * 26, samples=20)
    assert [row.place for row in Library(workspace).audits().rows] == ["first"]
    monkeypatch.setattr("dashboard.shelf._MOST_FOLDERS", 2)
    folders, cut = scan(workspace, "report.json")
    assert cut
    assert len(folders) <= 1


def test_a_folder_that_cannot_be_entered_is_passed_over(workspace, monkeypatch):
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "denied")
        return scandir(path)

    (workspace / "closed").mkdir()
    monkeypatch.setattr("dashboard.shelf.os.scandir", denied)
    assert len(Library(workspace).audits().rows) == 1


@pytest.mark.parametrize(
    "key",
    ["", "..", "../first", "first", "/etc/passwd", "%2e%2e", "a" * 25, "a" * 26 + "/x", "\0", HOSTILE],
)  # fmt: skip
def test_only_ids_of_the_list_lead_to_a_record(workspace, key):
    library = Library(workspace)
    assert library.report("a" * 26).title
    with pytest.raises(RecordError, match="the workspace has no audit") as caught:
        library.report(key)
    assert str(workspace) not in str(caught.value)


def test_an_id_that_is_no_id_gets_another_one(workspace):
    for place, report_id in (("p", "../../etc"), ("q", "<script>"), ("r", "x" * 200)):
        add_record(workspace / place, report_id, samples=20)
    library = Library(workspace)
    keys = {row.place: row.key for row in library.audits().rows}
    assert len(keys) == 4
    for place, key in keys.items():
        assert key.isalnum()
        assert library.row(key).place == place
        assert library.key_at(workspace / place) == key


def test_a_copy_of_an_audit_is_shown_once(workspace):
    shutil.copytree(workspace / "first", workspace / "copy")
    assert len(Library(workspace).audits().rows) == 1


@pytest.mark.parametrize("report", [empty_report(), hostile_report(), make_report(("a", "b", "c"))])
def test_every_kind_of_report_has_a_row(tmp_path, report):
    report.save(tmp_path / "it")
    (row,) = Library(tmp_path).audits().rows
    assert len(row.title) <= 160
    assert row.title.isprintable()


def test_a_report_is_read_once_while_it_stays_the_same(workspace):
    library = Library(workspace)
    first = library.report("a" * 26)
    assert library.report("a" * 26) is first
    for number in range(10):
        add_record(workspace / f"n{number}", f"{number:026x}", samples=10)
        library.report(f"{number:026x}")
    assert library.report("a" * 26) is not first, "only a few are kept"


def test_a_thousand_audits_are_listed_in_a_second_and_a_half(tmp_path):
    text = (make_report(samples=60).save(tmp_path / "seed")).read_text()
    record = json.loads(text)
    for number in range(1000):
        folder = tmp_path / f"{number // 100}" / f"{number}"
        folder.mkdir(parents=True)
        record["report_id"] = f"{number:026x}"
        (folder / "report.json").write_text(json.dumps(record))
    library = Library(tmp_path)
    # Time of this process: the machine has other things to do.
    began = time.process_time()
    listing = library.audits()
    cold = time.process_time() - began
    assert len(listing.rows) == 1001
    assert cold < 1.5
    began = time.process_time()
    library.audits()
    assert time.process_time() - began < 0.3
