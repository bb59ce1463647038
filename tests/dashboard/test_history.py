"""How a training goes, from its record."""

import json
import math

import pytest

from dashboard.history import (
    coefficients_info,
    curves_table,
    losses_info,
    plot_curves,
    read_curves,
    scores_info,
)


def _line(epoch, split, name, value, step=0):
    row = {"step": step, "epoch": epoch, "split": split, "name": name, "value": value}
    return json.dumps(row) + "\n"


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "history.jsonl"
    lines = []
    for epoch, loss in enumerate([2.0, 1.5, 1.0, 1.25]):
        lines += [
            _line(epoch, "train", "loss", loss / 2),
            _line(epoch, "validation", "loss", loss),
            _line(epoch, "validation", "accuracy", 1 - loss / 4),
            _line(epoch, "remedy", "kappa audio", 1 + loss),
            _line(epoch, "remedy", "kappa image", 1 / (1 + loss)),
        ]
    path.write_text("".join(lines))
    return path


def test_curves_are_what_was_recorded(record):
    curves = {(c.split, c.name): c for c in read_curves(record)}
    assert curves["validation", "loss"].values == (2.0, 1.5, 1.0, 1.25)
    assert curves["validation", "loss"].epochs == (0, 1, 2, 3)
    assert len(curves) == 5


def test_the_title_says_the_latest_and_the_best(record):
    curves = read_curves(record)
    assert (
        losses_info(curves).words.title
        == "Validation loss is 1.250 after 3 epochs, at best 1.000 after 2 epochs"
    )
    assert scores_info(curves).words.title == "Validation accuracy is .688 after 3 epochs"
    assert "kappa audio 2.25" in coefficients_info(curves).words.title


def test_a_torn_line_and_nonsense_are_left_out(record):
    whole = read_curves(record)
    with record.open("ab") as file:
        file.write(b'[1]\nnull\n{"epoch": true}\n\xff\xfe\n')
        file.write(_line(4, "train", "loss", math.inf).encode())
        file.write(_line("4", "train", "loss", 1.0).encode())
        file.write(b'{"step": 9, "epoch": 4, "split": "train", "na')
    assert read_curves(record) == whole


def test_what_a_resumed_training_measured_again_counts_once(record):
    with record.open("a") as file:
        file.write(_line(3, "validation", "loss", 0.5))
    curve = next(c for c in read_curves(record) if (c.split, c.name) == ("validation", "loss"))
    assert curve.values == (2.0, 1.5, 1.0, 0.5)


def test_a_missing_record_is_empty(tmp_path):
    assert read_curves(tmp_path / "none") == ()
    assert read_curves(tmp_path) == ()


def test_long_curves_are_thinned_and_keep_their_end(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("".join(_line(e, "train", "loss", 1.0 / (e + 1)) for e in range(5000)))
    (curve,) = read_curves(path)
    assert len(curve.epochs) <= 400
    assert curve.epochs[-1] == 4999


def test_a_huge_record_is_read_from_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("dashboard.history._MOST_BYTES", 500)
    path = tmp_path / "history.jsonl"
    path.write_text("".join(_line(e, "train", "loss", 1.0) for e in range(100)))
    (curve,) = read_curves(path)
    assert curve.epochs[-1] == 99
    assert len(curve.epochs) < 10


def test_the_number_of_curves_is_bounded(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("".join(_line(0, "remedy", f"c{n}", 1.0) for n in range(1000)))
    assert len(read_curves(path)) == 96
    info = coefficients_info(read_curves(path))
    assert len(info.panels) == len(plot_curves(info).data) == 4


def test_a_modality_has_its_colour_and_marker(record):
    figure = plot_curves(coefficients_info(read_curves(record), ("audio", "image")))
    audio, image = figure.data
    assert audio.line.color == "#0072B2"
    assert image.line.color == "#E69F00"
    assert audio.marker.symbol != image.marker.symbol


def test_training_and_validation_are_told_apart_without_colour(record):
    figure = plot_curves(losses_info(read_curves(record)))
    assert {trace.name: trace.line.dash for trace in figure.data} == {
        "Training loss": "dot",
        "Validation loss": "solid",
    }


@pytest.mark.parametrize("info", [losses_info, scores_info, coefficients_info])
def test_nothing_recorded_is_said(info):
    found = info(())
    assert found.undefined
    assert curves_table(found).rows == ()
    assert plot_curves(found).layout.height > 0


def test_names_are_never_markup(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text(_line(0, "remedy", "<b>x</b>", 1.0))
    figure = plot_curves(coefficients_info(read_curves(path)))
    assert "<b>" not in figure.data[0].name


def test_the_table_has_first_smallest_largest_and_latest(record):
    rows = {row[0]: row[1:] for row in curves_table(losses_info(read_curves(record))).rows}
    assert rows["Validation loss"] == ("2.000", "1.000", "2.000", "1.250", "3")


def test_quantities_have_panels_of_their_own_and_a_range(tmp_path):
    path = tmp_path / "history.jsonl"
    lines = []
    for epoch in (1, 2):
        for name, value in (("kappa", 1.0), ("response loss", 5.0)):
            for modality in ("audio", "image"):
                for tail, part in (("", value), (" (min)", value - 1), (" (max)", value + 1)):
                    lines.append(_line(epoch, "remedy", f"{name} {modality}{tail}", part))
    path.write_text("".join(lines))
    info = coefficients_info(read_curves(path), ("audio", "image"))
    assert info.panels == ("kappa", "response loss")
    assert [c.name for c in info.curves] == [
        "kappa audio", "kappa image", "response loss audio", "response loss image",
    ]  # fmt: skip
    assert info.curves[0].low == (0.0, 0.0)
    figure = plot_curves(info)
    assert [trace.yaxis for trace in figure.data] == ["y"] * 4 + ["y2"] * 4
    assert [trace.fill for trace in figure.data] == ["toself", None] * 4
    assert figure.layout.yaxis2.title.text == "response loss"
    assert curves_table(info).rows[0] == ("kappa audio", "1.000", ".000", "2.000", "1.000", "2")


def test_a_control_stands_beside_the_training_and_not_in_the_title(record):
    curves = (*read_curves(record), *read_curves(record, control=True))
    info = losses_info(curves)
    assert info.words.title.startswith("Validation loss")
    figure = plot_curves(info)
    looks = {trace.name: (trace.line.dash, trace.marker.symbol) for trace in figure.data}
    assert looks["Control validation loss"] == ("dash", "circle-open")
    assert len(set(looks.values())) == 4
    assert len(coefficients_info(curves).curves) == 2, "a control has no coefficients of its own"
