import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmaudit.report.requirements import RequirementError, parse_requirement


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("utilization.audio >= 0.05", ("utilization", "audio", {}, ">=", 0.05)),
        ("accuracy>=.93", ("accuracy", None, {}, ">=", 0.93)),
        ("  R2 < -1e-3 ", ("R2", None, {}, "<", -0.001)),
        ("'negative squared error' >= -3", ("negative squared error", None, {}, ">=", -3.0)),
        (
            "coalitions.coalition=audio+image.score=log-likelihood > -0.4",
            ("coalitions", None, {"coalition": "audio+image", "score": "log-likelihood"}, ">", -0.4),
        ),
        (
            "missing_modality.rate=0.5.quantity=worst >= 0.7",
            ("missing_modality", None, {"rate": "0.5", "quantity": "worst"}, ">=", 0.7),
        ),
        ("missing_modality.rate=0.25 >= 1", ("missing_modality", None, {"rate": "0.25"}, ">=", 1.0)),
        (
            "utilization.audio.given=image.class=3>=0",
            ("utilization", "audio", {"given": "image", "class": "3"}, ">=", 0.0),
        ),
        ("contributions.'l.e >= ye' <= 1", ("contributions", "l.e >= ye", {}, "<=", 1.0)),
        ('contributions."it\'s" <= 1', ("contributions", "it's", {}, "<=", 1.0)),
        (r"contributions.'it\'s' <= 1", ("contributions", "it's", {}, "<=", 1.0)),
        ("verdict.audio == 'well used'", ("verdict", "audio", {}, "==", "well used")),
        ("verdict.audio == well used", ("verdict", "audio", {}, "==", "well used")),
        ("verdict.'my audio' != \"under-used\"", ("verdict", "my audio", {}, "!=", "under-used")),
    ],
)  # fmt: skip
def test_the_grammar(text, read):
    assert tuple(parse_requirement(text))[1:] == read


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a comparison"),
        ("utilization.audio", "a comparison"),
        (">= 1", "the name of a measure"),
        ("utilization..audio > 1", "names joined by dots"),
        ("a. > 1", "behind every dot"),
        ("a.b= > 1", "behind every dot"),
        ("a b > 1", "in quotes"),
        ("a.'b > 1", "a closed quote"),
        ("a.b.c > 1", "label=value in place of 'c'"),
        ("a.x=1.x=2 > 1", "the label 'x' once"),
        ("a.b >= 5 %", "a number"),
        ("a.b >= 0,05", "a number"),
        ("a.b >= nan", "a number"),
        ("a.b >= inf", "a number"),
        ("a.b >= 1e999", "a number"),
        ("a.b >= ", "a number"),
        ("a >= 0.9 >= 0.8", "a number"),
        ("a.b == 0.1", "only verdicts"),
        ("a.b = 0.1", "found ="),
        ("verdict.audio >= 1", "== or !="),
        ("verdict.audio = harmful", "== or !="),
        ("verdict == harmful", "by its modality alone"),
        ("verdict.audio.class=3 == harmful", "by its modality alone"),
        ("verdict.audio == harmfull", "did you mean 'harmful'?"),
        ("__import__('os').system('true') > 0", "names joined by dots"),
    ],
)
def test_what_is_malformed_gets_one_sentence(text, words):
    with pytest.raises(RequirementError) as error:
        parse_requirement(text)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        found = parse_requirement(text)
    except RequirementError:
        return
    assert found.operator in text


@given(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_name_in_quotes_and_any_number_come_back(name, bound):
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    found = parse_requirement(f"contributions.'{quoted}' >= {bound!r}")
    assert (found.name, found.bound) == (name, bound)
