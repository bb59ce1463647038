import pytest

from mmaudit.figures.competition import competition_info, competition_table, plot_competition
from mmaudit.report import AuditReport
from mmaudit.report.schema import Estimate, LabelledEstimate, MeasureResult
from tests.report.fixtures import HOSTILE, empty_report, make_report


def _report(values, names=("audio", "image"), penalties=("cross-validated", "120")):
    """Modality -> pooled strength; texts are reasons."""
    rows = []
    for name, value in values.items():
        for penalty in penalties:
            for quantity in ("pooled", "whitened", "rank", "lambda", "latent width"):
                if isinstance(value, str):
                    estimate = Estimate(undefined=value)
                elif quantity in ("pooled", "whitened"):
                    estimate = Estimate(value=value, low=value - 0.05, high=value + 0.1, n=300, method="a")  # fmt: skip
                else:
                    estimate = Estimate(value=7.0, n=300)
                labels = {"modality": name, "quantity": quantity, "penalty": penalty}
                rows.append(LabelledEstimate(labels=labels, estimate=estimate))
    result = MeasureResult(key="competition", title="", unit="", rows=tuple(rows))
    record = make_report(names, samples=60).record
    return AuditReport(record.model_copy(update={"measures": {"competition": result}}))


@pytest.mark.parametrize(
    ("values", "title"),
    [
        ({"audio": 0.2, "image": 0.7}, "The joint latent lacks .70 of what image alone knows, most of all modalities"),
        ({"audio": 0.2, "image": "no reference"}, "The joint latent lacks .20 of what audio alone knows"),
        ({"audio": 1.3, "image": 0.1}, "The joint latent holds nothing linear of what audio alone knows (d = 1.30)"),
    ],
)  # fmt: skip
def test_the_title_says_who_lost_most(values, title):
    assert competition_info(_report(values)).words.title == title


def test_strengths_are_collected_and_drawn():
    info = competition_info(_report({"audio": 0.2, "image": 0.7}))
    assert info.penalties == ("cross-validated", "120")
    assert [e.value for e in info.of("whitened", "120")] == [0.2, 0.7]
    assert "penalty of the probe: cross-validated" in info.words.subtitle
    figure = plot_competition(info)
    assert len([trace for trace in figure.data if trace.mode == "markers"]) == 6
    table = competition_table(info)
    assert len(table.headers) == 11 and table.rows[0][1].startswith(".20 [")


def test_one_penalty_and_one_modality():
    info = competition_info(_report({"audio": 0.2}, ("audio",), ("120",)))
    assert info.words.title == "The joint latent lacks .20 of what audio alone knows"
    plot_competition(info)


def test_empty_reports_and_hostile_names():
    for report in (empty_report(), _report({"audio": "no", "image": "no"})):
        info = competition_info(report)
        assert info.undefined is not None
        plot_competition(info)
    figure = plot_competition(competition_info(_report({HOSTILE: 0.1, "b": 0.2}, (HOSTILE, "b"))))
    assert "<script>" not in figure.to_json()
