import pytest

from mmaudit.report.changes import conclusion, main_changes, make_verdict, p_text
from tests.report.comparisons import make_comparison


@pytest.mark.parametrize(
    ("accuracy", "kind", "beginning"),
    [
        (
            (0.013, 0.009),
            "helps",
            "Retraining with AGM helps: the accuracy rises from .948 to .961, +.013 [+.004, +.022] (p .003).",
        ),
        (
            (-0.03, 0.02),
            "hurts",
            "Retraining with AGM hurts: the accuracy falls from .948 to .918, -.030 [-.050, -.010] (p .003).",
        ),
        (
            (0.001, 0.01),
            "does not help",
            "Retraining with AGM does not help: the accuracy stays within .02 of what it was, from .948 to .949, +.001 [-.009, +.011] (p .40).",
        ),
        (
            (0.01, 0.03),
            "too little data",
            "Too little data to say whether retraining with AGM helps: on 600 samples the accuracy goes from .948 to .958, +.010 [-.020, +.040]",
        ),
        ((0.01, 0.0101), "too little data", "Too little data"),
        ((-0.02, 0.03), "too little data", "Too little data"),
        ((0.01, 0.01), "does not help", "Retraining with AGM does not help"),
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
        == "Retraining with AGM does not help: the accuracy stays within .02 of what it was; audio is used more"
    )
    assert verdict.sentence.endswith(
        "audio: response accuracy .24 to .71, +.47 [+.41, +.53] (p .003)."
    )
    less = make_comparison((0.013, 0.009), (-0.1, 0.06)).verdict
    assert less.headline == "Retraining with AGM helps: accuracy +.013; audio is used less"


def test_only_the_corrected_test_counts():
    comparison = make_comparison((0.013, 0.009), (0.47, 0.06))
    row = comparison.row("responses", modality="audio").model_copy(update={"p_holm": 0.06})
    measure = comparison.measures["responses"]
    measures = comparison.measures | {"responses": measure.model_copy(update={"rows": (row,)})}
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
    assert verdict.headline == "The two models answer alike"
    assert (
        verdict.sentence
        == "The two records are of models that answer all 600 samples alike, whatever is masked."
    )


def test_a_warning_on_the_accuracy_is_a_caveat():
    text = "the interval should not be trusted: 30 samples, fewer than 50"
    assert make_comparison(warning=text).verdict.caveats[0] == f"Accuracy: {text}."


def against_plain_training(*args, **options):
    """A comparison with plain training from the same start, told by where both models come from."""
    found = make_comparison(*args, **options)
    told = {"parent": "0", "start": "checkpoint", "recipe": "{}"}
    before = found.before.model_copy(
        update={"report_id": "plain", "lineage": told | {"remedy": "joint"}}
    )
    after = found.after.model_copy(update={"lineage": told | {"remedy": "modality_dropout"}})
    verdict = make_verdict(
        before, after, found.modalities, found.measures, samples=600, same=found.same_answers
    )
    return found.model_copy(update={"before": before, "after": after, "verdict": verdict})


def test_a_verdict_against_plain_training_says_so():
    verdict = against_plain_training((0.001, 0.01)).verdict
    assert verdict.sentence.startswith(
        "Modality dropout does not help against plain training with the same budget: the accuracy stays within .02 of it, "
        "from .948 to .949"
    )
    assert verdict.headline.startswith(
        "Modality dropout does not help against plain training with the same budget"
    )
    little = against_plain_training((0.01, 0.03)).verdict.sentence
    assert "whether modality dropout helps against plain training with the same budget" in little


@pytest.mark.parametrize(
    ("beside", "end"),
    [
        ({"accuracy": (0.013, 0.009)}, "whether modality dropout helps: it does."),
        (
            {"accuracy": (0.001, 0.01)},
            "whether modality dropout helps: it does not, plain training gets as far.",
        ),
        ({"accuracy": (-0.03, 0.02)}, "whether modality dropout helps: it hurts."),
        ({"accuracy": (0.01, 0.03)}, "whether modality dropout helps: too little data to say."),
        ({"accuracy": (0.0, 0.0), "same": True}, "the two answer alike."),
        (
            {"accuracy": (0.013, 0.009), "warning": "30 samples"},
            "it does, on an interval that should not be trusted.",
        ),
        ({"measured": False}, "too little data to say."),
    ],
)
def test_one_sentence_for_both_comparisons(beside, end):
    text = conclusion(make_comparison(lineage={"remedy": "agm"}), against_plain_training(**beside))
    assert text.startswith(
        "In sum: the accuracy changes by +.013 [+.004, +.022] against the model before, and by "
    )
    assert "against plain training with the same budget; only the second says" in text
    assert text.endswith(end)


def test_a_verdict_on_an_interval_with_a_warning_says_so():
    text = "the interval should not be trusted: 30 samples, fewer than 50"
    for change in ((0.013, 0.009), (-0.03, 0.02), (0.001, 0.01), (0.01, 0.03)):
        doubtful, sure = (
            make_comparison(change, warning=text).verdict,
            make_comparison(change).verdict,
        )
        for words in ("headline", "sentence"):
            assert "on an interval that should not be trusted" in getattr(doubtful, words)
            assert "not be trusted" not in getattr(sure, words)


def test_a_model_that_is_no_remedy_keeps_its_title_and_helps_nothing():
    better = make_comparison(names=("resnet", "vgg11")).verdict
    assert better.sentence.startswith("vgg11 is better: the accuracy rises from .948 to .961")
    second = make_comparison((0.001, 0.01), names=("a", "a")).verdict
    assert second.headline.startswith(
        "The second model is no better: the accuracy stays within .02 of that of the first"
    )


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
