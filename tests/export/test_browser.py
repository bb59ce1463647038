"""The page in a real browser: nothing runs that should not, nothing is asked for, every chart draws."""

import shutil

import pytest

from mmaudit.export.html import write_html
from mmaudit.figures import figures_by_part
from tests.report.fixtures import (
    STRENGTHS,
    empty_report,
    hostile_report,
    make_report,
    twelve_report,
    with_every_measure,
    with_findings,
)

pytestmark = pytest.mark.browser

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def _open(browser, report, tmp_path, *, width=1280, scheme="light"):
    """Open the report's page; returns it with what it asked for and what it complained about."""
    file = tmp_path / "report.html"
    write_html(report, file)
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append("dialog"), dialog.dismiss()))
    page.goto(file.as_uri())
    page.wait_for_timeout(200)
    return page, [url for url in asked if not url.startswith(("file:", "data:", "blob:"))], said


def _figures(report):
    return [key for keys in figures_by_part(report).values() for key in keys]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize(
    "report",
    [
        make_report(samples=60),
        make_report(tuple(STRENGTHS), samples=60),
        with_findings(with_every_measure(hostile_report()), "harmful", "under-used"),
        with_findings(twelve_report(), *["under-used", "undetermined"] * 6),
    ],
    ids=["two", "six", "hostile", "twelve"],
)
def test_all_charts_draw_without_a_request_or_a_complaint(browser, report, width, scheme, tmp_path):
    page, asked, said = _open(browser, report, tmp_path, width=width, scheme=scheme)
    assert asked == []
    assert said == []
    assert page.locator(".js-plotly-plot .main-svg").count() >= len(_figures(report))
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "no sideways scrolling"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(245, 246, 248)") == (scheme == "light")
    drawn = page.evaluate(
        "document.getElementById('figure-contributions')._fullLayout.paper_bgcolor"
    )
    assert (drawn.lower() == "#ffffff") == (scheme == "light")
    page.context.close()


def test_hostile_names_do_not_run_even_when_hovered(browser, tmp_path):
    page, asked, said = _open(browser, hostile_report(), tmp_path)
    shown = ""
    for key in _figures(hostile_report()):
        page.locator(f"#figure-{key}").scroll_into_view_if_needed()
        box = page.locator(f"#figure-{key} .main-svg").first.bounding_box()
        for across in (0.3, 0.45, 0.6, 0.75):
            for down in (0.25, 0.4, 0.6):
                page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
                page.wait_for_timeout(20)
                shown += "".join(page.locator(f"#figure-{key} .hoverlayer").all_text_contents())
    assert "</script><s" in shown, "labels appeared, and hold the name as text"
    for part in page.locator("summary").all():
        part.click()
    assert page.title().startswith("Audit: </script>")
    assert page.locator("img").count() == 0
    assert asked == said == []
    page.context.close()


def test_a_verdict_opens_by_keyboard(browser, tmp_path):
    report = with_findings(make_report(samples=60), "under-used", "well used")
    page, asked, said = _open(browser, report, tmp_path)
    summary = page.locator("summary", has_text="audio: under-used")
    assert not page.get_by_text("read and needed beyond delta").first.is_visible()
    summary.focus()
    page.keyboard.press("Enter")
    assert page.get_by_text("read and needed beyond delta").first.is_visible()
    # The word says it without its colour, and the colours differ.
    chips = page.locator("td .verdict")
    assert chips.all_inner_texts() == ["under-used", "well used"]
    colours = chips.evaluate_all("all => all.map(chip => getComputedStyle(chip).color)")
    assert len(set(colours)) == 2
    assert asked == said == []
    page.context.close()


def test_a_script_that_came_in_would_be_stopped(browser, tmp_path):
    """The policy holds even where escaping failed."""
    page, _, said = _open(browser, make_report(samples=60), tmp_path)
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s);"
        " const i = document.createElement('div'); i.innerHTML = '<img src=x onerror=\"window.ran = 1\">';"
        " document.body.append(i); }"
    )
    page.wait_for_timeout(100)
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in text for text in said)
    page.context.close()


def test_nothing_can_be_uploaded(browser, tmp_path):
    page, _, _ = _open(browser, make_report(samples=60), tmp_path)
    page.locator("#figure-contributions").hover()
    titles = page.eval_on_selector_all(
        ".modebar-btn", "all => all.map(b => b.getAttribute('data-title') || '')"
    )
    assert titles, "there is a bar of buttons"
    assert not [
        t for t in titles if any(word in t.lower() for word in ("share", "cloud", "edit", "studio"))
    ]
    page.context.close()


def test_an_empty_report_opens(browser, tmp_path):
    page, asked, said = _open(browser, empty_report(), tmp_path)
    assert asked == said == []
    assert page.locator(".js-plotly-plot").count() == 0
    page.context.close()


def test_the_theme_follows_the_reader_and_paper_is_light(browser, tmp_path):
    page, _, said = _open(browser, make_report(samples=60), tmp_path)
    colour = "document.getElementById('figure-coalitions')._fullLayout.paper_bgcolor.toLowerCase()"
    assert page.evaluate(colour) == "#ffffff"
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(300)
    assert page.evaluate(colour) == "#16181c"
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(colour) == "#ffffff"
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(colour) == "#16181c"
    assert page.locator("details[open]").count() == 0
    assert said == []
    page.context.close()
