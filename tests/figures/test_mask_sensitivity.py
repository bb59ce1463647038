import pytest

from mmaudit.figures.mask_sensitivity import (
    mask_sensitivity_info,
    mask_sensitivity_table,
    plot_mask_sensitivity,
)
from mmaudit.report import AuditReport
from mmaudit.report.schema import Estimate, Finding, LabelledEstimate, MeasureResult
from tests.report.fixtures import empty_report, make_report, twelve_report


def _report(rows, names=("audio", "image"), second="marginal (256 donors)"):
    """Rows: (quantity, modality, mask) -> value, or (value, low, high)."""
    estimates = []
    for (quantity, modality, mask), given in rows.items():
        value, low, high = given if isinstance(given, tuple) else (given, given - 0.02, given + 0.02)  # fmt: skip
        estimate = Estimate(undefined="accuracy is 0") if value is None else Estimate(value=value, low=low, high=high, n=300)  # fmt: skip
        labels = {"modality": modality, "quantity": quantity, "mask": mask}
        estimates.append(LabelledEstimate(labels=labels, estimate=estimate))
    result = MeasureResult(key="mask_sensitivity", title="", unit="", rows=tuple(estimates))
    report = make_report(names, samples=60)
    return AuditReport(
        report.record.model_copy(
            update={
                "measures": {"mask_sensitivity": result},
                "second_masks": dict.fromkeys(names, second) if second else {},
            }
        )
    )


def _contributions(*values):
    keys = [("contribution", m, mask) for m in ("audio", "image") for mask in ("first", "second")]
    return dict(zip(keys, values, strict=True))


def test_what_was_measured_is_collected_and_drawn():
    rows = _contributions(0.1, 0.11, 0.5, 0.48) | {
        ("utilization", "audio", "first"): 0.2,
        ("utilization", "audio", "second"): 0.21,
        ("distance", "audio", "first"): 4.2,
        ("distance", "audio", "second"): 1.1,
    }
    info = mask_sensitivity_info(_report(rows))
    assert info.masks == ("zero", "marginal (256 donors)")
    assert list(info.values) == ["contribution", "utilization", "distance"]
    assert [[e.value for e in row] for row in info.values["contribution"]] == [[0.1, 0.11], [0.5, 0.48]]  # fmt: skip
    assert info.flips == ()
    assert info.words.title == "Both masks agree: no contribution changes beyond its interval"
    assert "open marks: second mask (marginal (256 donors))" in info.words.subtitle
    marks = plot_mask_sensitivity(info).data
    assert len(marks) == 6
    assert sorted(mark.marker.symbol.endswith("-open") for mark in marks) == [False] * 3 + [True] * 3  # fmt: skip
    table = mask_sensitivity_table(info)
    assert table.headers[1] == "Contribution, first mask (zero)"
    assert table.rows[0][-2:] == ("4.20 [4.18, 4.22]", "1.10 [1.08, 1.12]")
    assert table.rows[1][-1] == "–"


@pytest.mark.parametrize(
    ("values", "title"),
    [
        ((0.1, -0.1, 0.5, 0.5), "It depends on the mask. The contribution of audio changes its sign"),
        (
            (0.3, 0.1, 0.1, 0.3),
            "It depends on the mask. The contribution of audio is above that of image under the first mask, below it under "
            "the second",
        ),
        (
            (0.1, 0.3, 0.5, 0.5),
            "The contribution of audio is .10 under zero, .30 under marginal (256 donors); no sign or ranking flips",
        ),
        # Intervals that touch 0 or each other turn nothing round.
        ((0.1, (-0.1, -0.3, 0.01), 0.5, 0.5), "The contribution of"),
        ((0.02, -0.02, 0.5, 0.5), "Both masks agree"),
    ],
)  # fmt: skip
def test_the_title_says_what_flips(values, title):
    info = mask_sensitivity_info(_report(_contributions(*values)))
    if title.startswith(("Both", "The contribution of")) and title.endswith(("agree", "of")):
        assert info.flips == ()
        assert info.words.title.startswith(("Both masks agree", "The contribution of"))
    else:
        assert info.words.title == title


def test_one_mask_is_said():
    rows = {key: value for key, value in _contributions(0.1, 0.1, 0.5, 0.5).items() if key[2] == "first"}  # fmt: skip
    info = mask_sensitivity_info(_report(rows, second=None))
    assert info.masks == ("zero",)
    assert info.words.title.startswith("One mask was measured")
    assert len(plot_mask_sensitivity(info).data) == 2


def test_an_undefined_estimate_is_a_word_and_no_mark():
    info = mask_sensitivity_info(_report(_contributions((None, 0, 0), (None, 0, 0), 0.5, 0.5)))
    figure = plot_mask_sensitivity(info)
    assert len(figure.data) == 2
    assert any(note.text == "undefined" for note in figure.layout.annotations)


def test_reports_without_it_say_why():
    for report in (make_report(samples=30), empty_report()):
        info = mask_sensitivity_info(report)
        assert info.undefined == "it was not measured"
        plot_mask_sensitivity(info)
        assert len(mask_sensitivity_table(info).rows) == 2


def test_twelve_modalities():
    info = mask_sensitivity_info(twelve_report())
    assert len(plot_mask_sensitivity(info).data) == 48
    assert len(mask_sensitivity_table(info).headers) == 9


def _judged(report, *findings):
    return AuditReport(report.record.model_copy(update={"findings": findings}))


def test_the_title_says_what_the_findings_say_of_the_masks():
    torn = Finding(
        rule="depends on the mask",
        level="attention",
        text="Whether audio counts depends on how modalities are hidden.",
    )
    other = Finding(rule="dominance", text="image dominates.")
    apart = _report(_contributions((0.07, 0.05, 0.09), (0.003, 0.001, 0.006), 0.5, 0.48))
    assert mask_sensitivity_info(apart).words.title.endswith("no sign or ranking flips")
    title = mask_sensitivity_info(_judged(apart, other, torn)).words.title
    assert title == "Whether audio counts depends on how modalities are hidden"
    assert mask_sensitivity_info(_judged(apart, other)).words.title.endswith("ranking flips")
    flipped = _report(_contributions(0.1, -0.1, 0.5, 0.48))
    assert mask_sensitivity_info(flipped).words.title.startswith("It depends on the mask. ")
    assert mask_sensitivity_info(_judged(flipped, torn)).words.title.startswith("It depends on")
    title = mask_sensitivity_info(_judged(flipped, other)).words.title
    assert title == "The contribution of audio changes its sign"
