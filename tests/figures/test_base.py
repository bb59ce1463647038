import pytest

from mmaudit.figures.base import cell, gets, missing_reason, named_cells, no_values
from mmaudit.report.schema import Estimate
from tests.figures.table_reports import report_of, undefined_report


def test_rows_of_a_table_keep_their_order_and_digits():
    half, thin = Estimate(value=0.5), Estimate(value=0.25, n=9, warning="few samples")
    rows = named_cells(("a", "b"), [(half, None), (thin, "said")], 3)
    assert rows == (("a", ".500", "–"), ("b", ".250 !", "said"))
    assert rows[0][1] == cell(half, 3)
    assert named_cells((), ()) == ()


def test_a_table_has_a_row_for_every_name():
    with pytest.raises(ValueError, match="zip"):
        named_cells(("a", "b"), [(None,)])


def test_why_there_is_nothing_is_said_once_and_given_back():
    report = undefined_report("dominance", "one sample is no sample")
    words, reason = no_values(report, "dominance", "Nothing is known", "No share has a value")
    assert reason == missing_reason(report, "dominance") == "one sample is no sample"
    assert words.title == "Nothing is known"
    assert words.takeaway == "No share has a value: one sample is no sample."
    words, reason = no_values(report, "dominance", "Nothing", "No share", "it is another one")
    assert (words.takeaway, reason) == ("No share: it is another one.", "it is another one")


def test_what_was_not_measured_says_so():
    report = report_of("dominance", {}, ("a",))
    assert no_values(report, "competition", "T", "No value")[1] == "it was not measured"


@pytest.mark.parametrize(
    ("score", "digits", "said"),
    [("accuracy", 2, "gets .12 right"), ("R2", 3, "reaches R2 .125"), ("R2", 2, "reaches R2 .12")],
)
def test_a_score_is_told_in_its_own_words(score, digits, said):
    assert gets(score, 0.125, digits) == said
