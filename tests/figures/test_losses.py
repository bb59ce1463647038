"""Figures of a record of losses: what they collect, and that they draw whatever a log may hold."""

import plotly.graph_objects as go
import pytest

from mmaudit import ogr
from mmaudit.figures.blend_weights import blend_weights_info, blend_weights_table
from mmaudit.figures.loss_curves import loss_curves_info, loss_curves_table
from mmaudit.figures.of_losses import LOSS_FIGURES, draw_losses
from mmaudit.figures.ogr import ogr_info, ogr_table
from mmaudit.report.numbers import with_interval
from tests.loss_logs import T, log_text, planted, write_logs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def one(folder):
    return ogr(write_logs(folder), super_epoch=8).record


@pytest.fixture(scope="module")
def five(folder):
    return ogr(write_logs(folder, runs=5, noise=0.01)).record


def rows_of(table):
    assert all(len(row) == len(table.headers) for row in table.rows)
    return table.rows


def test_loss_curves(one, five):
    info = loss_curves_info(one)
    assert [h.head for h in info.heads] == ["audio", "image", "joint"]
    audio = info.heads[0]
    train, held_out = planted("audio")
    assert audio.train.values == pytest.approx(train.tolist())
    assert audio.validation.values == pytest.approx(held_out.tolist())
    assert audio.onset.value == 9 and audio.runs == ()
    assert "audio, image and joint overfit" in info.words.title
    assert len(rows_of(loss_curves_table(info))) == T
    several = loss_curves_info(five).heads[0]
    assert len(several.runs) == 5 and several.validation.banded


def test_ogr(one):
    info = ogr_info(one)
    assert info.heads[0].ratio.at == tuple(range(1, T))
    ends = {h.head: h.ratio.values[-1] for h in info.heads}
    assert max(ends, key=ends.get) in info.words.title
    assert len(rows_of(ogr_table(info))) == T - 1


def test_blend_weights(one):
    info = blend_weights_info(one)
    assert info.windows == (
        "0 to 8",
        "8 to 16",
        "16 to 24",
        "24 to 32",
        "32 to 39",
        "whole training",
    )
    for place in range(len(info.windows)):
        assert sum(row[place].value for row in info.weights) == pytest.approx(1)
    assert len(rows_of(blend_weights_table(info))) == 6


def test_bars_have_intervals_only_where_there_are_some(one, five):
    for record, there in ((one, False), (five, True)):
        bars = draw_losses(record)["blend_weights"].data
        assert all((bar.error_y.array is not None) == there for bar in bars)


def test_a_long_legend_takes_nothing_from_the_drawing(tmp_path):
    heights = []
    for number in (2, 12):
        path = tmp_path / f"{number}.csv"
        names = [f"a modality of many words {i}" for i in range(number)]
        columns = {f"{s}_{name}_loss": planted("audio")[k] for name in names for k, s in enumerate(("train", "val"))}  # fmt: skip
        path.write_text(log_text(heads=(), columns=columns))
        heads = {name: {"train": f"train_{name}_loss", "validation": f"val_{name}_loss"} for name in names}  # fmt: skip
        layout = draw_losses(ogr(path, map={"heads": heads}).record)["ogr"].layout
        heights.append(layout.height - layout.margin.b - layout.margin.t)
        assert layout.margin.b >= 20 * number
    assert abs(heights[0] - heights[1]) < 5


@pytest.mark.parametrize("key", LOSS_FIGURES)
def test_all_draw(one, five, key):
    for record in (one, five):
        figure = LOSS_FIGURES[key].plot(LOSS_FIGURES[key].info(record))
        assert isinstance(figure, go.Figure) and len(figure.data) >= 3
        drawn = {trace.yaxis or "y" for trace in figure.data if trace.y[0] is not None}
        titled = {axis.replace("yaxis", "y") for axis in figure.layout if axis.startswith("yaxis")
                  and figure.layout[axis].title.text}  # fmt: skip
        assert drawn <= titled


def test_an_unusable_head_has_curves_and_no_ogr(tmp_path):
    path = tmp_path / "log.csv"
    whole = sum(planted(head)[0] for head in ("audio", "image", "joint"))
    columns = {"train_loss": whole, "val_loss": planted("joint")[1]}
    path.write_text(log_text(heads=("audio", "image"), columns=columns))
    record = ogr(path).record
    assert len(loss_curves_info(record).heads) == 3
    assert [h.head for h in ogr_info(record).heads] == ["audio", "image"]
    assert "without joint" in ogr_info(record).words.subtitle


@pytest.mark.parametrize("checkpoints", [1, 2])
@pytest.mark.parametrize("heads", [("audio",), ("audio", "image", "joint")])
def test_hardly_anything(tmp_path, checkpoints, heads):
    path = tmp_path / "log.csv"
    path.write_text("".join(log_text(heads=heads).splitlines(keepends=True)[: checkpoints + 1]))
    record = ogr(path).record
    for drawing in LOSS_FIGURES.values():
        info = drawing.info(record)
        assert isinstance(drawing.plot(info), go.Figure)
        rows_of(drawing.table(info))
    assert ("ogr" in draw_losses(record)) == (checkpoints > 1)


def test_many_heads_and_strange_names(tmp_path):
    path = tmp_path / "log.csv"
    columns = {}
    for number in range(20):
        train, held_out = planted("audio")
        name = f"<b>m{number}</b>"
        columns |= {f"a{number}": train, f"b{number}": held_out}
        columns.setdefault("heads", {})
        columns["heads"][name] = {"train": f"a{number}", "validation": f"b{number}"}
    heads = columns.pop("heads")
    path.write_text(log_text(heads=(), columns=columns))
    record = ogr(path, map={"heads": heads}).record
    for key, figure in draw_losses(record).items():
        # What the page shows as a heading is kept whole there, and escaped by the page.
        figure.layout.meta = None
        text = figure.to_json()
        assert "<b>m" not in text and "\\u003cb\\u003em" not in text, key
    assert len(loss_curves_info(record).heads) == 12


def test_the_title_says_the_same_as_the_table_where_runs_end_apart(tmp_path):
    paths = write_logs(tmp_path, runs=3, noise=0.01)
    lines = paths[0].read_text().splitlines(keepends=True)
    paths[0].write_text("".join(lines[: len(lines) // 2]))
    report = ogr(paths)
    found = [report.estimate("overfitting", head=h, quantity="OGR") for h in report.heads]
    highest = max(found, key=lambda estimate: estimate.value)
    assert with_interval(highest) in ogr_info(report.record).words.title
