import pytest

from mmaudit.figures.comparison import comparison_info, comparison_table, plot_comparison
from tests.report.comparisons import make_comparison
from tests.report.fixtures import HOSTILE


def test_the_title_is_the_takeaway_and_the_subtitle_how():
    info = comparison_info(make_comparison((0.013, 0.009), (0.47, 0.06), groups=40))
    assert info.words.title == "Retraining with AGM helps: accuracy +.013; audio is used more"
    for part in ("the same 600 samples in both, 40 groups", "mask: zero", "paired bootstrap"):
        assert part in info.words.subtitle
    assert (
        "audio response accuracy .24 [.21, .27] before, .71 [.68, .74] after" in info.words.takeaway
    )


def test_markers_and_intervals_are_the_estimates():
    comparison = make_comparison((0.013, 0.009), (0.47, 0.06))
    info = comparison_info(comparison)
    figure = plot_comparison(info)
    drawn = [trace for trace in figure.data if trace.x[0] is not None]
    assert len(drawn) == 2 * len(info.changes) == 14
    for side, traces in (("before", drawn[:7]), ("after", drawn[7:])):
        for trace, change in zip(traces, info.changes, strict=True):
            estimate = getattr(change.row, side)
            assert trace.name == side
            assert trace.x[0] == estimate.value
            assert trace.x[0] + trace.error_x.array[0] == pytest.approx(estimate.high)
            assert trace.marker.symbol.endswith("-open") == (side == "before")
    assert [trace.name for trace in figure.data if trace.showlegend is not False] == [
        "before",
        "after",
    ]
    texts = [note.text for note in figure.layout.annotations]
    assert "+.47 [+.41, +.53]  p .003" in texts
    assert "+.013 [+.004, +.022]  p .003" in texts


def test_of_many_modalities_those_that_changed_most():
    names = tuple(f"m{i}" for i in range(12))
    info = comparison_info(make_comparison((0.0, 0.01), (0.3, 0.1), modalities=names))
    shown = {change.modality for change in info.changes}
    assert len(shown - {None}) == 6
    assert "m0" in shown
    assert "the 6 of 12 modalities that changed most" in info.words.subtitle
    plot_comparison(info)


def test_what_is_undefined_is_said():
    comparison = make_comparison(undefined="no response")
    figure = plot_comparison(comparison_info(comparison))
    assert any("undefined" in note.text for note in figure.layout.annotations)
    assert comparison_table(comparison_info(comparison)).rows[0][2:] == (
        "no response",
        "no response",
        "–",
    )


def test_nothing_to_compare():
    info = comparison_info(make_comparison(measured=False))
    assert info.undefined == "no number has a value in both records"
    assert "no number" in plot_comparison(info).layout.annotations[0].text


@pytest.mark.parametrize(
    "modalities", [("audio",), ("audio", "image"), (f"a{HOSTILE}", "im<b>age</b>")]
)
def test_names_are_no_markup(modalities):
    names = ("a", f"b{HOSTILE}")
    figure = plot_comparison(comparison_info(make_comparison(modalities=modalities, names=names)))
    text = figure.to_json()
    assert "<script" not in text.replace("\\u003c", "<").split('"meta"')[0]
    assert "<b>" not in "".join(figure.layout.yaxis.ticktext)


def test_the_table_says_the_same():
    table = comparison_table(
        comparison_info(make_comparison((0.013, 0.009), (0.47, 0.06), warning="few"))
    )
    assert table.rows[0] == (
        "accuracy",
        ".948 [.918, .978]",
        ".961 [.931, .991]",
        "+.013 [+.004, +.022] !",
        ".003",
    )


def test_plain_training_is_not_called_before():
    comparison = make_comparison()
    start = {"parent": "c", "start": "checkpoint", "recipe": "{}"}
    before = comparison.before.model_copy(update={"lineage": start | {"remedy": "joint"}})
    after = comparison.after.model_copy(update={"lineage": start | {"remedy": "agm"}})
    info = comparison_info(comparison.model_copy(update={"before": before, "after": after}))
    assert comparison_table(info).headers[1:3] == ("Plain training", "AGM")
    assert " Plain training, " in info.words.takeaway and " before" not in info.words.takeaway
    names = {trace.name for trace in plot_comparison(info).data if trace.showlegend is not False}
    assert names & {"Plain training", "AGM"} and not names & {"before", "after"}


def test_a_remedy_of_somebody_else_is_no_markup_in_the_legend():
    comparison = make_comparison()
    told = {"before": "joint", "after": "<b>mine</b>"}
    sides = {
        side: getattr(comparison, side).model_copy(
            update={"title": "m", "lineage": {"remedy": key}}
        )
        for side, key in told.items()
    }
    figure = plot_comparison(comparison_info(comparison.model_copy(update=sides)))
    assert "<b>" not in "".join(trace.name or "" for trace in figure.data)
