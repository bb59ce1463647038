"""Figures of a record of losses: what they collect, and that they draw whatever a log may hold."""

import plotly.graph_objects as go
import pytest

from mmaudit import ogr
from mmaudit.figures.blend_weights import blend_weights_info, blend_weights_table
from mmaudit.figures.learning_speed import learning_speed_info, learning_speed_table
from mmaudit.figures.loss_curves import loss_curves_info, loss_curves_table
from mmaudit.figures.loss_parts import head_styles
from mmaudit.figures.of_losses import LOSS_FIGURES, draw_losses, loss_drawings
from mmaudit.figures.ogr import ogr_info, ogr_table
from mmaudit.report.numbers import with_interval
from tests.loss_logs import T, log_text, planted, write_logs
from tests.norm_logs import constant, steady, write_log


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def one(folder):
    return ogr(write_logs(folder), super_epoch=8).record


@pytest.fixture(scope="module")
def five(folder):
    return ogr(write_logs(folder, runs=5, noise=0.01)).record


@pytest.fixture(scope="module")
def normed(folder):
    return ogr(steady(folder / "normed.jsonl")).record


@pytest.fixture(scope="module")
def normed_runs(folder):
    logs = [
        write_log(folder / f"run{i}.jsonl", {s: constant(crossing={"audio": 0.04 + i / 500, "image": 0.01}) for s in range(1, 9)})
        for i in range(3)
    ]  # fmt: skip
    return ogr(logs).record


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
def test_all_draw(one, five, normed, normed_runs, key):
    for record in (one, five) if key != "learning_speed" else (normed, normed_runs):
        figure = LOSS_FIGURES[key].plot(LOSS_FIGURES[key].info(record))
        assert isinstance(figure, go.Figure) and len(figure.data) >= 2
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


def test_learning_speed(normed, normed_runs):
    info = learning_speed_info(normed)
    assert info.conditional and [found.branch for found in info.branches] == ["audio", "image"]
    assert info.branches[0].drawn.at == tuple(range(1, 41))
    assert info.branches[0].drawn.values == pytest.approx([0.60206] * 40, abs=1e-5)
    assert info.branches[1].drawn.values == pytest.approx([-0.30103] * 40, abs=1e-5)
    assert info.words.title == "audio learns fastest through the others: .60 at the end"
    assert info.branches[0].style == head_styles(normed)["audio"]
    table = learning_speed_table(info)
    assert table.headers == ("Step", "audio, speed", "image, speed", "Difference")
    assert rows_of(table)[-1] == ("40", ".602", "-.301", ".903")
    drawn = draw_losses(normed)["learning_speed"]
    assert [shape.y0 for shape in drawn.layout.shapes] == [0]
    assert [trace.fill for trace in drawn.data] == [None, None]
    bands = [t for t in draw_losses(normed_runs)["learning_speed"].data if t.fill == "toself"]
    assert len(bands) == 2 and bands[0].x == (*range(1, 9), *range(8, 0, -1))


def test_late_fusion_shows_own_updates(folder):
    record = ogr(steady(folder / "late.jsonl", crossing=None)).record
    info = learning_speed_info(record)
    assert not info.conditional and "late fusion" in info.words.title
    assert info.branches[0].drawn.values == pytest.approx([0.01 * s for s in range(1, 41)])
    assert learning_speed_table(info).headers == ("Step", "audio, own updates", "image, own updates")  # fmt: skip
    figure = draw_losses(record)["learning_speed"]
    assert "own updates" in figure.layout.yaxis.title.text and not figure.layout.shapes


def test_a_record_has_a_place_for_learning_speeds_only_with_norms(one, normed, folder):
    assert "learning_speed" not in loss_drawings(one) and "learning_speed" not in draw_losses(one)
    assert list(loss_drawings(normed)) == list(LOSS_FIGURES)
    bad = write_log(folder / "bad.jsonl", {1: {("audio", "own"): "NaN"}})
    record = ogr(bad).record
    assert "learning_speed" in loss_drawings(record) and "learning_speed" not in draw_losses(record)
    assert "no recorded step" in learning_speed_info(record).undefined
    frozen = write_log(folder / "frozen.jsonl", {1: constant(crossing={"audio": 0.0, "image": 0.0})})  # fmt: skip
    info = learning_speed_info(ogr(frozen).record)
    assert "none has a conditional speed" in info.words.title and not info.conditional


@pytest.mark.parametrize("M", [1, 2, 3, 5, 12, 20])
def test_any_number_of_branches(folder, M):
    names = [f"<b>m{i}</b>" for i in range(M)]
    own, crossing = dict.fromkeys(names, 0.01), {name: 0.01 + i / 100 for i, name in enumerate(names)}  # fmt: skip
    path = write_log(folder / f"m{M}.jsonl", {s: constant(own, crossing) for s in (5, 10)}, heads=names)  # fmt: skip
    info = learning_speed_info(ogr(path).record)
    assert len(info.branches) == min(M, 12)
    figure = LOSS_FIGURES["learning_speed"].plot(info)
    figure.layout.meta = None
    assert "\\u003cb\\u003em" not in figure.to_json()
    rows_of(learning_speed_table(info))


def drawn_of(tmp_path, **curves):
    path = tmp_path / "log.csv"
    columns = {
        f"{split}_{name}_loss": values
        for name, pair in curves.items()
        for split, values in zip(("train", "val"), pair, strict=True)
    }
    path.write_text(log_text(heads=(), columns=columns))
    return ogr(path).record


def test_titles_name_no_head_alone_where_nothing_shows(tmp_path):
    record = drawn_of(tmp_path, video=planted("image"), joint=planted("image"))
    assert blend_weights_info(record).words.title == "Gradient-Blend would weight video and joint about evenly"  # fmt: skip
    title = ogr_info(record).words.title
    assert "about the same as for" in title and "highest" not in title
    clear = drawn_of(tmp_path, audio=planted("audio"), joint=planted("joint"))
    assert "would give most weight to joint" in blend_weights_info(clear).words.title
    assert ogr_info(clear).words.title.endswith("for audio, the highest")


def test_the_title_of_the_curves_is_of_the_heads_that_were_judged(tmp_path):
    train, held_out = planted("audio")
    still = {"video": planted("image", T - 1), "joint": planted("joint", T - 1)}
    assert loss_curves_info(drawn_of(tmp_path, **still)).words.title == "No rise of a validation loss beyond the noise was found"  # fmt: skip
    # the validation loss was divided by 8: what turns there is not overfitting
    record = drawn_of(tmp_path, audio=(train, held_out / 8), **still)
    assert "audio" in record.unusable
    info = loss_curves_info(record)
    assert info.words.title == "No rise of the validation loss beyond the noise was found of video and joint"  # fmt: skip
    assert all(head.onset is None for head in info.heads if head.head == "audio")
    alone = loss_curves_info(drawn_of(tmp_path, audio=(train, held_out / 8)))
    assert "too little of them to say" in alone.words.title


def test_ratios_of_two_heads_are_written_apart(tmp_path):
    record = drawn_of(tmp_path, video=planted("image", T - 1), joint=planted("joint", T - 1))
    told = ogr_info(record).words.takeaway
    ends = [part.split("OGR ")[1].split(",")[0] for part in told.split("; ")]
    assert len(set(ends)) == 2
