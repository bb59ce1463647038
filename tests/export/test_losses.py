"""A record of losses on a terminal, as Markdown and as a page: all say the same, and names stay names."""

import html
import io
import re
import shutil

import numpy as np
import pytest
from rich.console import Console

from mmaudit import ogr
from mmaudit.export.losses import loss_overview, losses_markdown, print_losses
from mmaudit.export.losses_html import losses_html
from tests.loss_logs import log_text, planted, write_logs
from tests.norm_logs import constant, steady, write_log

HOSTILE = "<script>alert(1)</script>|\x1b[31m*[x](y)"


def printed(record, width=80):
    out = io.StringIO()
    print_losses(record, Console(file=out, width=width, highlight=False))
    return out.getvalue()


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return ogr(write_logs(tmp_path_factory.mktemp("logs"), runs=3, noise=0.01)).record


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    path = tmp_path_factory.mktemp("logs") / "log.csv"
    train, held_out = planted("audio")
    path.write_text(log_text(columns={"a": train, "b": held_out}))
    heads = {
        HOSTILE: {"train": "a", "validation": "b"},
        "v": {"train": "train_image_loss", "validation": "val_image_loss"},
    }
    return ogr(path, map={"heads": heads}, title=HOSTILE).record


def test_all_say_the_findings_and_the_heads(record):
    overview = loss_overview(record)
    texts = {
        "terminal": " ".join(printed(record).split()),
        "markdown": losses_markdown(record).replace("\\", ""),
        "page": losses_html(record),
    }
    for where, text in texts.items():
        for finding in overview.findings:
            for number in re.findall(r"\.\d\d", finding.text):
                assert number in text, where
        for row in overview.rows:
            assert row[0] in text, where
    assert len(overview.rows) == 3 and len(overview.headers) == len(overview.rows[0])


@pytest.fixture(scope="module")
def normed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("norms")
    return ogr([steady(folder / f"{i}.jsonl", every=i) for i in (1, 2)]).record


def test_learning_speeds_are_told_once_each(normed, record):
    line = "Conditional learning speed (log10) at step 40: audio .60 [.60, .60], image -.30"
    assert line in " ".join(printed(normed, 200).split())
    text = losses_markdown(normed)
    section = text.split("## Learning speed")[1].split("##")[0].replace("\\", "")
    assert line in section and "| audio | .602 [.602, .602] |" in section
    page = losses_html(normed)
    assert "How fast the branches learn" in page and "figure-learning_speed" in page
    for without in (printed(record, 200), losses_markdown(record)):
        assert "earning speed" not in without
    page = losses_html(record)
    assert "How fast the branches learn" not in page and "figure-learning_speed" not in page


def test_norms_that_say_nothing_are_told(tmp_path):
    bad = ogr(write_log(tmp_path / "a.jsonl", {3: {("audio", "own"): "Infinity"}})).record
    still = ogr(write_log(tmp_path / "b.jsonl", {3: constant(crossing={"audio": 0.0})})).record
    late = ogr(write_log(tmp_path / "c.jsonl", {3: constant(crossing=None, factor=1e-5)})).record
    for found, told in (
        (bad, "No learning speed: no recorded step"),
        (still, "audio undefined, image undefined (up to here its own parameters"),
        (
            late,
            "Own updates (late fusion, no conditional speed) at step 3: audio 1e-07, image 2e-07.",
        ),
    ):
        assert told in " ".join(printed(found, 200).split())
        assert told in losses_markdown(found).replace("\\", "")
        assert losses_html(found)
    assert any("1 of 1 step with norms left out" in text for text in loss_overview(bad).notes)


def test_the_guess_and_the_doubts_are_told(tmp_path):
    whole = sum(planted(head)[0] for head in ("audio", "image", "joint"))
    path = tmp_path / "log.csv"
    path.write_text(
        log_text(
            heads=("audio", "image"), columns={"train_loss": whole, "val_loss": planted("joint")[1]}
        )
        + "40,1,2"
    )
    record = ogr(path).record
    for text in (" ".join(printed(record, 200).split()), losses_markdown(record)):
        assert "No OGR of joint" in text and "not comparable" in text
        assert "audio: train" in text and "torn" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_lines_fit(record, width):
    assert max(map(len, printed(record, width).splitlines())) <= width


def test_names_are_never_markup(hostile):
    assert "\x1b[31m" not in printed(hostile)
    assert "<script>alert" not in losses_markdown(hostile)
    page = losses_html(hostile)
    assert "<script>alert" not in page
    assert page.count("<script") == 3 and "Content-Security-Policy" in page


def disordered(tmp_path, names=("audio_encoder_head", "video_encoder_head", "fusion_output")):
    """A log with two rows exchanged: each series is out of order."""
    path = tmp_path / "log.csv"
    columns = {}
    for name in names:
        columns[f"train_{name}_loss"], columns[f"test_{name}_loss"] = planted("audio")
    header, *rows = log_text(heads=(), columns=columns).splitlines()
    rows[5], rows[9] = rows[9], rows[5]
    path.write_text("\n".join([header, *rows]) + "\n")
    heads = {name: {"train": f"train_{name}_loss", "validation": f"test_{name}_loss"} for name in names}  # fmt: skip
    return ogr(path, map={"heads": heads}).record


def test_what_holds_for_many_series_is_told_once(tmp_path):
    record = disordered(tmp_path)
    of_series = [flag for flag in record.flags if flag.kind == "restart"]
    assert len(of_series) == 6
    texts = {
        "terminal": " ".join(printed(record).split()),
        "markdown": losses_markdown(record).replace("\\", ""),
        "page": html.unescape(losses_html(record).split("<script")[0]),
    }
    for where, text in texts.items():
        # Files have them beside the findings that they make rough, the page in its provenance, too.
        lists = 1 if where == "terminal" else 1 + len(record.findings) + (where == "page")
        assert 1 <= text.count("went back") <= lists, where
        assert 1 <= text.count("measured on the test set") <= lists, where
        assert text.count("went back") == text.count("; the same of 'test_f"), where
        assert all(f"train_{name}_loss" in text for name in ("audio_encoder_head", "fusion_output"))
    assert len(record.flags) > len(loss_overview(record).warnings)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_names_of_heads_do_not_break(tmp_path, width):
    names = ("audio_encoder_head", "video_encoder_head", "fusion_output")
    text = printed(disordered(tmp_path, names), width)
    table = text.split("Head ")[1].split("\n\n")[0].splitlines()[1:]
    cells = [line.split()[0] for line in table]
    assert len(cells) == 3
    if width >= 80:
        assert set(cells) == set(names)
    assert all("…" in cell or cell in names for cell in cells)


def test_names_that_would_be_cut_alike_are_kept(tmp_path):
    names = [f"the_same_beginning_{i}_and_the_same_end" for i in range(3)]
    text = "".join(printed(disordered(tmp_path, names), 80).split("Head ")[1].split())
    assert all(f"_{i}_" in text for i in range(3))


def test_what_cannot_be_seen_is_told(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(log_text())
    clean = ogr(path).record
    assert clean.flags == ()
    for text in (" ".join(printed(clean).split()), losses_markdown(clean), losses_html(clean)):
        assert "Nothing was found against comparing the losses" in text
        assert "a weighted average of several losses" in text and "augmented data" in text
    whole = sum(planted(head)[0] for head in ("audio", "image", "joint"))
    path.write_text(log_text(heads=("audio", "image"), columns={"train_loss": whole, "val_loss": planted("joint")[1]}))  # fmt: skip
    wrong = ogr(path).record
    assert wrong.unusable
    for text in (" ".join(printed(wrong).split()), losses_markdown(wrong), losses_html(wrong)):
        assert "Nothing was found against" not in text


def test_two_ratios_are_not_written_alike(tmp_path):
    at = np.arange(20)
    fall = np.exp(-at / 5)
    columns = {}
    for name, gap, level in (("video", 0.0028, 0.4), ("joint", 0.0037, 0.3)):
        columns[f"train_{name}_loss"] = level + fall - gap * (1 - fall)
        columns[f"val_{name}_loss"] = level + 0.1 + fall
    path = tmp_path / "log.csv"
    path.write_text("\n".join(",".join(map(str, row)) for row in zip(*([name, *values] for name, values in columns.items()), strict=True)))  # fmt: skip
    rows = loss_overview(ogr(path).record).rows
    assert {row[5] for row in rows} == {".003", ".004"}


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 420])
def test_the_page_in_a_browser(record, hostile, normed, tmp_path, scheme, width):
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, shown in (("record", record), ("hostile", hostile), ("normed", normed)):
            file = tmp_path / f"{name}.html"
            file.write_text(losses_html(shown), encoding="utf-8")
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
            )
            page, asked, said = context.new_page(), [], []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.goto(file.as_uri())
            page.wait_for_timeout(300)
            assert said == []
            assert [u for u in asked if not u.startswith(("file:", "data:", "blob:"))] == []
            assert page.locator(".main-svg").count() >= 3
            hints = page.evaluate(
                "[...document.querySelectorAll('figure.scroll')].map(f => [f.scrollWidth > f.clientWidth,"
                " parseFloat(getComputedStyle(f, '::before').width) > 100])"
            )
            assert all(wide == hint for wide, hint in hints)
            places = page.locator("#figure-learning_speed .main-svg").count()
            assert (places > 0) == (name == "normed")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
