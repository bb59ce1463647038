from mmaudit.figures.classes import classes_info, classes_table, plot_classes
from mmaudit.report import AuditReport
from tests.report.fixtures import empty_report, make_report


def test_the_info_is_contributions_by_class():
    report = make_report()
    info = classes_info(report)
    assert info.quantity == "contribution"
    assert info.classes == report.classes
    for name, row in zip(info.classes, info.values, strict=True):
        for modality, estimate in zip(info.modalities, row, strict=True):
            assert estimate == report.estimate(
                "contributions", modality=modality, **{"class": name}
            )
    # Without any input the invented model says 0, so nothing contributes to that class.
    assert info.words.title == "In class 0, image counts .00 [.00, .00], overall .78"


def test_without_contributions_it_is_utilization():
    full = make_report()
    measures = {key: value for key, value in full.measures.items() if key != "contributions"}
    info = classes_info(AuditReport(full.record.model_copy(update={"measures": measures})))
    assert info.quantity == "u(m|rest)"
    assert info.values[3][0] == full.estimate(
        "utilization", modality="audio", given="rest", **{"class": "3"}
    )


def test_of_many_classes_the_farthest_are_shown_and_counted():
    names = tuple(f"c{i}" for i in range(120))
    info = classes_info(make_report(classes=names, samples=6000))
    assert len(info.classes) == 40
    assert "c0" in info.classes
    assert "40 of 120 classes shown" in info.words.subtitle
    assert list(info.classes) == [name for name in names if name in info.classes]


def test_small_classes_make_no_headline():
    names = tuple(f"c{i}" for i in range(50))
    info = classes_info(make_report(classes=names, samples=400))
    assert all(e.warning for row in info.values for e in row if e.value is not None)
    assert info.words.title == "No class is clearly apart from the others"


def test_classes_without_samples_are_undefined_and_not_zero():
    names = (*(str(i) for i in range(10)), "never")
    report = make_report(classes=names, samples=12)
    info = classes_info(report)
    figure = plot_classes(info)
    missing = [
        (y, x) for y, row in enumerate(info.values) for x, e in enumerate(row) if e.value is None
    ]
    assert missing
    assert all(figure.data[0].z[y][x] is None for y, x in missing)
    assert {(note.y, note.x) for note in figure.layout.annotations} == set(missing)
    assert "undefined" in classes_table(info).rows[missing[0][0]]


def test_reports_without_classes():
    assert (
        classes_info(make_report(per_class=False)).undefined
        == "nothing was measured class by class"
    )
    assert classes_info(empty_report()).undefined == "no sample has a target"
    plot_classes(classes_info(empty_report()))
