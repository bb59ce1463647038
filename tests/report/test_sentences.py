import pytest

from mmaudit.report.labels import coalition_name, coalition_names, complete, others, shorten
from mmaudit.report.numbers import number, with_interval
from mmaudit.report.schema import Estimate
from mmaudit.report.sentences import absent_modalities, find, masks_text, standout
from tests.report.fixtures import STRENGTHS, empty_report, make_report, undefined_rows_report


def _with(report, key, labels, estimate):
    """The record with one estimate replaced."""
    measure = report.measures[key]
    rows = tuple(
        row.model_copy(update={"estimate": estimate})
        if labels.items() <= row.labels.items()
        else row
        for row in measure.rows
    )
    changed = measure.model_copy(update={"rows": rows})
    return report.record.model_copy(update={"measures": report.measures | {key: changed}})


def test_every_sentence_carries_the_number_of_the_record():
    report = make_report(samples=600)
    first, second, *_ = standout(report.record)
    for name in ("audio", "image"):
        assert f"{name} " in first
        assert with_interval(report.estimate("contributions", modality=name)) in first
    assert with_interval(report.estimate("utilization", modality="audio", given="image")) in second
    assert second.startswith("Masking audio costs ")


def test_overlapping_intervals_are_not_ranked():
    report = make_report(samples=600)
    wide = Estimate(value=0.5, low=0.0, high=1.0, n=600)
    record = _with(report, "contributions", {"modality": "audio", "quantity": "value"}, wide)
    assert standout(record)[0].startswith("The intervals of the contributions overlap")


def test_a_modality_that_harms_is_told_as_a_gain_when_masked():
    report = make_report(samples=600)
    harm = Estimate(value=-0.05, low=-0.08, high=-0.02, n=600)
    record = _with(report, "utilization", {"modality": "audio", "given": "image"}, harm)
    assert (
        "Masking audio raises the accuracy by .05 [.02, .08] of it once image is there."
        in standout(record)
    )


def test_synergy_and_overlap_have_opposite_words():
    report = make_report(samples=600)
    overlap = standout(report.record)[2]
    assert "overlap" in overlap
    assert "-" not in overlap, "the sign is in the words"
    synergy = Estimate(value=0.4, low=0.3, high=0.5, n=600)
    record = _with(report, "interactions", {"first": "audio", "second": "image"}, synergy)
    assert (
        standout(record)[2]
        == "audio and image are worth .40 [.30, .50] of accuracy more together than one by one."
    )
    unclear = Estimate(value=0.4, low=-0.3, high=0.5, n=600)
    assert (
        len(standout(_with(report, "interactions", {"first": "audio", "second": "image"}, unclear)))
        == 2
    )


def test_no_response_is_said():
    assert (
        "The model's response to pose is numerically nothing."
        in make_report(("image", "pose"), samples=60).summary()
    )


def test_no_number_no_sentence_and_never_more_than_three():
    assert empty_report().summary() == []
    assert undefined_rows_report().summary() == []
    assert len(make_report(tuple(STRENGTHS), samples=200).summary()) == 3


def test_masks_are_named_once_when_all_are_the_same():
    record = make_report(samples=40).record
    assert masks_text(record) == "zero"
    mixed = record.model_copy(update={"masks": {"audio": "noise", "image": "zero"}})
    assert masks_text(mixed) == "audio: noise, image: zero"


def test_find_fills_labels_in():
    record = make_report(samples=40).record
    assert find(record, "utilization", modality="audio", given="rest") == find(
        record, "utilization", modality="audio", given="image", **{"class": "all"}
    )
    assert find(record, "utilization", modality="nobody") is None
    assert find(record, "nothing") is None


def test_names_of_coalitions():
    names = ("a", "b", "c")
    assert coalition_names(names) == ["none", "a", "b", "a+b", "c", "a+c", "b+c", "a+b+c"]
    assert coalition_name(("c", "a"), names) == "a+c"
    assert others("b", names) == "a+c"
    assert others("a", ("a",)) == "none"
    assert complete("utilization", {"modality": "b", "given": "c+a"}, names)["given"] == "a+c"
    # A modality may be called rest; then it is meant.
    assert (
        complete("utilization", {"modality": "b", "given": "rest"}, ("b", "rest"))["given"]
        == "rest"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, ".00"),
        (-0.0, ".00"),
        (1e-15, ".00"),
        (-0.001, ".00"),
        (-0.0051, "-.01"),
        (0.995, "0.99"),
        (1234.5, "1,234.50"),
        (-1.5, "-1.50"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text.removeprefix("0")


def test_shortened_names_keep_both_ends():
    text = shorten("left/" + "x" * 100 + "/right", 20)
    assert len(text) == 20
    assert text.startswith("left/")
    assert text.endswith("/right")
    assert shorten(" \n\u202e ") == "(empty)"


def test_an_interval_with_a_warning_is_not_told_without_it():
    small = standout(make_report(samples=30).record)
    assert all(text.endswith("(see the warning on this interval).") for text in small[:1])
    assert not any("warning" in text for text in standout(make_report(samples=600).record))


def test_a_modality_that_no_sample_has_is_named_once_and_not_ranked():
    said = "No audited sample has text: nothing can be said about it."
    report = make_report(("audio", "image", "text"), absent=("text",))
    sentences = report.summary()
    assert len(sentences) == 3
    assert sentences[-1] == said
    assert not any("text" in sentence for sentence in sentences[:-1])
    assert "audio contributes least" in sentences[0]
    assert "once image is there" in sentences[1]
    assert absent_modalities(report.record) == ["text"]
    # In records that measured it as a certain zero it is not ranked either.
    zero = Estimate(value=0.0, low=0.0, high=0.0, n=600)
    for labels in ({"modality": "text"}, {"modality": "text", "given": "audio+image"}):
        key = "utilization" if "given" in labels else "contributions"
        assert standout(_with(report, key, labels, zero)) == sentences


def test_what_is_left_when_modalities_are_absent():
    first, last = make_report(absent=("audio",)).summary()
    assert first.startswith("image contributes ")
    assert last == "No audited sample has audio: nothing can be said about it."
    assert make_report(absent=("audio", "image")).summary() == [
        "No audited sample has audio or image: nothing can be said about them."
    ]
