import subprocess
import sys

import pandas as pd
import pytest
from pydantic import ValidationError

from mmaudit.exceptions import RecordError, UndefinedMeasureError
from mmaudit.report.comparison import COMPARISON_NAME, ComparedMeasure, Comparison, Difference
from mmaudit.report.schema import Estimate
from tests.report.comparisons import difference, make_comparison


def test_it_comes_back_as_it_was(tmp_path):
    comparison = make_comparison(undefined="no response")
    file = comparison.save(tmp_path)
    assert file == tmp_path / COMPARISON_NAME
    assert Comparison.load(file) == Comparison.load(tmp_path) == comparison
    named = comparison.save(tmp_path / "deep" / "other.json")
    assert named.read_bytes() == file.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_writing_replaces_in_one_step(tmp_path, monkeypatch):
    make_comparison().save(tmp_path)
    old = (tmp_path / COMPARISON_NAME).read_bytes()
    monkeypatch.setattr(
        type(tmp_path), "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(RecordError, match="No space left"):
        make_comparison((0.2, 0.1)).save(tmp_path)
    assert (tmp_path / COMPARISON_NAME).read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == [COMPARISON_NAME]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text[: len(text) // 2], "damaged or truncated"),
        (lambda text: text.replace('"samples": 600', '"samples": NaN', 1), "holds NaN"),
        (
            lambda text: text.replace('"samples": 600', '"samples": 1e999', 1),
            "too large for a number",
        ),
        (
            lambda text: text.replace('"schema_version": 1', '"schema_version": 7'),
            "version 7; this mmaudit reads version 1",
        ),
        (
            lambda text: text.replace('"schema_version": 1', '"schema_version": true'),
            "version True",
        ),
        (lambda text: text.replace('"verdict"', '"verdikt"'), "no whole comparison"),
        (
            lambda text: text.replace('"p_holm": 0.003', '"p_holm": 1.5', 1),
            "less than or equal to 1",
        ),
        (lambda text: "[]", "expected a mapping"),
        (lambda text: "[" * 100_000, "damaged"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, change, sentence):
    file = make_comparison().save(tmp_path)
    file.write_text(change(file.read_text()))
    with pytest.raises(RecordError, match=sentence) as caught:
        Comparison.load(file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(RecordError, match="cannot read"):
        Comparison.load(tmp_path / "none.json")


def test_no_nan_gets_in():
    with pytest.raises(ValidationError):
        difference({}, float("nan"), 0.1, 0.1)
    settings = make_comparison().model_copy(update={"settings": {"x": float("nan")}})
    with pytest.raises(RecordError, match="no JSON"):
        settings.save("/dev/shm/never.json")


def test_what_is_undefined_has_no_test():
    gone = Estimate(undefined="no response")
    with pytest.raises(ValidationError, match="cannot be tested"):
        Difference(labels={}, before=gone, after=gone, difference=gone, p=0.5, p_holm=0.5)
    with pytest.raises(ValidationError, match="stands with its correction"):
        Difference(labels={}, before=gone, after=gone, difference=gone, p=0.5)


def test_numbers_are_looked_up_as_in_a_report():
    comparison = make_comparison((0.013, 0.009), (0.47, 0.06))
    assert comparison.row("responses", modality="audio").difference.value == 0.47
    assert comparison.row("coalitions", coalition="image+audio").before.value == 0.948
    assert comparison.row("utilization", modality="audio", given="rest").before.value == 0.01
    assert comparison.find("responses", modality="smell") is None
    assert comparison.find("interactions") is None
    assert len(comparison.rows("contributions", quantity="value")) == 2
    assert comparison.rows("interactions") == []
    with pytest.raises(RecordError, match="coalitions, responses"):
        comparison.row("interactions")
    with pytest.raises(RecordError, match="2 rows with no labels"):
        comparison.row("contributions")
    gone = ComparedMeasure(key="interactions", title="", unit="", undefined="one modality")
    less = comparison.model_copy(update={"measures": {"interactions": gone}})
    with pytest.raises(UndefinedMeasureError, match="one modality"):
        less.row("interactions")
    assert less.find("interactions") is None


def test_the_frame_is_tidy():
    comparison = make_comparison(undefined="no response")
    frame = comparison.to_frame()
    assert len(frame) == sum(len(measure.rows) for measure in comparison.measures.values())
    first = frame.iloc[0]
    assert first["measure"] == "coalitions"
    assert pd.isna(first["difference"])
    assert first["undefined"] == "after: no response"
    audio = frame[(frame["measure"] == "responses") & (frame["modality"] == "audio")].iloc[0]
    row = comparison.row("responses", modality="audio")
    for column, value in {
        "before": row.before.value,
        "before_low": row.before.low,
        "after": row.after.value,
        "after_high": row.after.high,
        "difference": row.difference.value,
        "low": row.difference.low,
        "p": row.p,
        "p_holm": row.p_holm,
        "n": 600,
        "test": "paired bootstrap",
        "unit": "fraction",
    }.items():
        assert audio[column] == value
    assert pd.isna(audio["gained"])
    assert list(comparison.to_frame("utilization")["given"]) == ["image", "audio"]
    with pytest.raises(RecordError, match="found 'competition'"):
        comparison.to_frame("competition")


def test_an_empty_comparison_makes_an_empty_frame():
    frame = make_comparison(measured=False).to_frame()
    assert len(frame) == 0
    assert {"measure", "difference", "p_holm"} <= set(frame.columns)


def test_reading_one_needs_neither_torch_nor_pandas(tmp_path):
    file = make_comparison().save(tmp_path)
    code = (
        "import sys; from mmaudit.report.comparison import Comparison; "
        f"Comparison.load({str(file)!r}); print([m for m in ('torch', 'pandas', 'pyarrow', 'plotly') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
