import pytest

from mmaudit.report.changes import main_changes, model_name, p_text
from tests.report.comparisons import make_comparison


@pytest.mark.parametrize(
    ("accuracy", "kind", "beginning"),
    [
        (
            (0.013, 0.009),
            "helps",
            "AGM helps: the accuracy rises from .948 to .961, +.013 [+.004, +.022] (p .003).",
        ),
        (
            (-0.03, 0.02),
            "hurts",
            "AGM hurts: the accuracy falls from .948 to .918, -.030 [-.050, -.010] (p .003).",
        ),
        (
            (0.001, 0.01),
            "does not help",
            "AGM does not help: the accuracy stays within .02 of what it was, from .948 to .949, +.001 [-.009, +.011] (p .40).",
        ),
        (
            (0.01, 0.03),
            "too little data",
            "Too little data to say whether AGM helps: on 600 samples the accuracy goes from .948 to .958, +.010 [-.020, +.040]",
        ),
        ((0.01, 0.0101), "too little data", "Too little data"),
        ((-0.02, 0.03), "too little data", "Too little data"),
        ((0.01, 0.01), "does not help", "AGM does not help"),
    ],
)
def test_the_verdict_about_the_accuracy(accuracy, kind, beginning):
    verdict = make_comparison(accuracy).verdict
    assert verdict.kind == kind
    assert verdict.sentence.startswith(beginning)
    assert verdict.sentence.endswith(
        "No modality is used differently, as far as these samples tell."
    )
    assert any("another training seed" in text for text in verdict.caveats)


def test_what_changed_for_a_modality_is_told():
    verdict = make_comparison((0.001, 0.01), (0.47, 0.06)).verdict
    assert verdict.kind == "does not help"
    assert (
        verdict.headline
        == "AGM does not help: the accuracy stays within .02 of what it was; audio is used more"
    )
    assert verdict.sentence.endswith(
        "audio: response accuracy .24 to .71, +.47 [+.41, +.53] (p .003)."
    )
    less = make_comparison((0.013, 0.009), (-0.1, 0.06)).verdict
    assert less.headline == "AGM helps: accuracy +.013; audio is used less"


def test_only_the_corrected_test_counts():
    comparison = make_comparison((0.013, 0.009), (0.47, 0.06))
    row = comparison.row("responses", modality="audio").model_copy(update={"p_holm": 0.06})
    measure = comparison.measures["responses"]
    measures = comparison.measures | {"responses": measure.model_copy(update={"rows": (row,)})}
    from mmaudit.report.changes import make_verdict

    verdict = make_verdict(
        comparison.before, comparison.after, comparison.modalities, measures, samples=600
    )
    assert "No modality is used differently" in verdict.sentence


def test_a_significant_test_decides_even_where_the_interval_is_small():
    assert make_comparison((0.004, 0.003)).verdict.kind == "helps"
    assert make_comparison((0.013, 0.009), p=0.07).verdict.kind == "too little data"


def test_many_modalities_are_counted_not_listed():
    names = tuple(f"m{i}" for i in range(6))
    comparison = make_comparison((0.013, 0.009), (0.47, 0.06), modalities=names)
    rows = tuple(
        row.model_copy(update={"p_holm": 0.001}) for row in comparison.measures["responses"].rows
    )
    from mmaudit.report.changes import make_verdict

    measures = comparison.measures | {
        "responses": comparison.measures["responses"].model_copy(update={"rows": rows})
    }
    sentence = make_verdict(
        comparison.before, comparison.after, names, measures, samples=600
    ).sentence
    assert "m0: response accuracy" in sentence
    assert "3 more modalities are used differently." in sentence


def test_without_an_accuracy_there_is_no_verdict_about_it():
    for comparison in (
        make_comparison(measured=False),
        make_comparison(undefined="no sample of this class"),
    ):
        assert comparison.verdict.kind == "too little data"
    assert "No modality" not in make_comparison(measured=False).verdict.sentence
    assert "it was not measured" in make_comparison(measured=False).verdict.sentence
    assert (
        "no sample of this class"
        in make_comparison(undefined="no sample of this class").verdict.sentence
    )


def test_the_same_answers():
    verdict = make_comparison((0.0, 0.0), same=True).verdict
    assert verdict.kind == "does not help"
    assert verdict.sentence == "AGM does not help: the two models answer all 600 samples alike."


def test_a_warning_on_the_accuracy_is_a_caveat():
    text = "the interval should not be trusted: 30 samples, fewer than 50"
    assert make_comparison(warning=text).verdict.caveats[0] == f"Accuracy: {text}."


@pytest.mark.parametrize(
    ("names", "lineage", "name"),
    [
        (("a", "a, retrained with AGM"), None, "AGM"),
        (("a, retrained with joint training", "a, retrained with AGM"), None, "AGM"),
        (("a", "a"), {"remedy": "mla"}, "mla"),
        (("a", "b"), None, "b"),
        (("a", "a"), None, "the second model"),
    ],
)
def test_names(names, lineage, name):
    comparison = make_comparison(names=names, lineage=lineage)
    assert model_name(comparison.after, comparison.before) == name


def test_main_changes():
    comparison = make_comparison()
    changes = main_changes(comparison.modalities, comparison.measures)
    assert [change.name for change in changes] == [
        "accuracy",
        "audio response accuracy",
        "audio utilization",
        "audio contribution",
        "image response accuracy",
        "image utilization",
        "image contribution",
    ]
    assert main_changes(("audio",), {}) == ()


def test_p_values_are_written_short():
    assert [p_text(p) for p in (None, 0.00049, 0.001, 0.0204, 0.0999, 0.1, 1.0)] == [
        "",
        "p < .001",
        "p .001",
        "p .020",
        "p .100",
        "p .10",
        "p 1.00",
    ]
