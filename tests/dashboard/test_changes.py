"""What changed, as the page of a comparison shows it."""

import pytest

from dashboard.changes import gained_and_lost, measure_table
from dashboard.data import Library
from mmaudit.exceptions import RecordError
from mmaudit.report.comparison import Comparison
from mmaudit.report.numbers import with_interval
from mmaudit.report.sides import Sides, sides_of
from tests.dashboard.comparisons import make_comparison
from tests.dashboard.conftest import make_app
from tests.dashboard.requests import body, send
from tests.report.fixtures import empty_report, hostile_report, make_report

_SIDES = Sides("retrained", "Before", "After")


def _pair(**options):
    before, after = (make_report(samples=120, seed=seed, **options) for seed in (0, 1))
    after.record = after.record.model_copy(update={"report_id": "b" * 26})
    return before, after


@pytest.fixture
def comparison():
    return make_comparison(*_pair())


def test_all_rows_of_a_measure_are_in_one_of_its_two_tables(comparison):
    for measure in comparison.measures.values():
        total = sum(len(measure_table(measure, _SIDES, per_class=p, most=10**6).rows) for p in (True, False))  # fmt: skip
        assert total == len(measure.rows)
        assert len(measure_table(measure, _SIDES, per_class=True, most=3).rows) <= 3


def test_cells_are_the_numbers_of_the_comparison(comparison):
    measure = comparison.measures["coalitions"]
    rows = [row for row in measure.rows if row.labels["class"] == "all"]
    table = measure_table(measure, _SIDES, per_class=False)
    for cells, row in zip(table.rows, rows, strict=True):
        assert row.labels["coalition"] in cells[0]
        assert cells[1] == with_interval(row.before, 3)
        assert cells[3] == with_interval(row.difference, 3, signed=True)


def test_gained_and_lost_are_said_where_they_are_known(comparison):
    assert (
        gained_and_lost(comparison) == "Of 120 samples, 7 are right only after and 3 only before."
    )
    assert gained_and_lost(make_comparison(empty_report(), empty_report())) is None


def test_an_empty_comparison_has_a_page(tmp_path):
    before, after = empty_report(), empty_report()
    after.record = after.record.model_copy(update={"report_id": "b" * 26})
    served = _saved(tmp_path, before, after)
    (row,) = served.site.library.comparisons()
    assert "Nothing can be compared" in _page(served, f"/compare/{row.key}")


def _saved(workspace, before, after):
    before.save(workspace / "one")
    after.save(workspace / "two")
    make_comparison(before, after).save(workspace / "two")
    return make_app(workspace)


def _page(served, path):
    answer = send(served, body(served.app, "content.children", {"location.pathname": path}))
    assert answer.status_code == 200
    return answer.get_data(as_text=True).replace("\\u002f", "/")


def test_comparisons_are_listed_and_open(workspace):
    served = _saved(workspace, *_pair())
    (row,) = served.site.library.comparisons()
    assert row.headline == "No clear change"
    assert served.site.library.comparison_at(workspace / "two") == row.key
    assert f"/compare/{row.key}" in _page(served, "/compare")
    text = _page(served, f"/compare/{row.key}")
    for part in ("Verdict", "No clear change", "Before and after", "Every measure", "An invented warning", "/diagnosis/"):  # fmt: skip
        assert part in text


def test_hostile_names_in_a_comparison_stay_text(tmp_path):
    before, after = hostile_report(), hostile_report()
    after.record = after.record.model_copy(update={"report_id": "b" * 26})
    served = _saved(tmp_path, before, after)
    (row,) = served.site.library.comparisons()
    assert _page(served, f"/compare/{row.key}")


def test_two_audits_lead_to_their_comparison_or_to_how_to_make_it(workspace):
    served = _saved(workspace, *_pair())
    library = served.site.library
    keys = {row.place: row.key for row in library.audits().rows}

    def found(before, after):
        values = {"compare-before.value": before, "compare-after.value": after}
        answer = send(served, body(served.app, "compare-found.children", values))
        return answer.get_data(as_text=True).replace("\\u002f", "/")

    assert library.comparisons()[0].key in found(keys["one"], keys["two"])
    assert "mmaudit compare two one" in found(keys["two"], keys["one"])
    assert "different" in found(keys["one"], keys["one"])
    for odd in ("", None, "x", "a" * 26 + "b"):
        assert "mmaudit compare" not in found(odd, keys["one"])


@pytest.mark.parametrize("content", [b"", b"{}", b'{"schema_version": 1}', b"[]"])
def test_a_comparison_that_cannot_be_read_is_not_listed(workspace, content):
    served = _saved(workspace, *_pair())
    (workspace / "bad").mkdir()
    (workspace / "bad" / "comparison.json").write_bytes(content)
    assert len(served.site.library.comparisons()) == 1


def test_only_ids_of_the_list_lead_to_a_comparison(workspace):
    served = _saved(workspace, *_pair())
    (row,) = served.site.library.comparisons()
    _, whole = Library(workspace).comparison(row.key)
    assert isinstance(whole, Comparison)
    for key in ("", "two", "../two", "a" * 26):
        with pytest.raises(RecordError, match="no comparison"):
            served.site.library.comparison(key)


def test_plain_training_is_called_so_and_both_comparisons_have_one_sentence(workspace):
    plain, after = _pair()
    first, _ = _pair()
    first.record = first.record.model_copy(update={"report_id": "c" * 26})
    start = {"parent": "c" * 26, "start": "checkpoint", "recipe": "{}"}
    for report, remedy in ((plain, "joint"), (after, "ogm_ge")):
        report.record = report.record.model_copy(update={"lineage": start | {"remedy": remedy}})
    served = _saved(workspace, first, after)
    (workspace / "two" / "control").mkdir()
    beside = make_comparison(plain, after)
    beside.save(workspace / "two" / "control")
    whole = served.site.library.comparison_at(workspace / "two")
    control = served.site.library.comparison_at(workspace / "two" / "control")
    text = _page(served, f"/compare/{whole}")
    assert "In sum: the accuracy changes by" in text and "whether OGM-GE helps" in text
    text = _page(served, f"/compare/{control}")
    for part in (
        "Plain training and OGM-GE",
        '"Plain training"',
        "are right only with OGM-GE and 3 only with plain training",
    ):
        assert part in text
    assert "In sum" not in text and "only before" not in text
    assert measure_table(beside.measures["coalitions"], sides_of(beside.before, beside.after), per_class=False).headers[1:3] == ("Plain training", "OGM-GE")  # fmt: skip
