"""The page in headless Chromium: it loads, draws, fits, answers to pointer and keys, and logs no error."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pointlift.report import write_report

pytestmark = pytest.mark.browser

PHONE, SMALL, DESKTOP = (390, 844), (360, 740), (1280, 900)
PIXELS = """(i) => {
  const canvas = document.querySelectorAll("canvas")[i];
  return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
}"""
SUM = f"((i) => ({PIXELS})(i).reduce((sum, value, k) => (sum * 31 + value * (k % 7)) % 1000003, 0))"
INK = f"((i) => ({PIXELS})(i).filter((value, k) => k % 4 === 3 && value > 0).length)"


@pytest.fixture(scope="module")
def pages(tmp_path_factory, write_run):
    """Path of a page by number of classes; sixteen classes come with clouds."""
    made = {}
    for classes in (3, 16, 40, 69):
        folder = tmp_path_factory.mktemp(f"c{classes}")
        write_run(folder, classes=classes, count=12 * classes, clouds=18 if classes == 16 else 0)
        made[classes] = write_report(folder)
    return made


@pytest.fixture
def show(browser):
    """Open pages, and close them after the test; no page may log an error, throw, or ask for anything."""
    opened = []

    def open_page(path, size=DESKTOP, **options):
        page = browser.open(path, width=size[0], height=size[1], **options)
        opened.append(page)
        return page

    yield open_page
    for page in opened:
        assert page.problems() == []
        page.close()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, SMALL, DESKTOP], ids=["phone", "small", "desktop"])
def test_loads_draws_and_fits(show, pages, size, dark):
    page = show(pages[16], size, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    for i in (0, 17):
        assert page.evaluate(f"{INK}({i})") > 2000, "a cloud covers part of its canvas"
    boxes = page.evaluate("[...document.querySelectorAll('.chart .line')].map(l => l.getBBox().width)")
    assert len(boxes) == 6
    assert min(boxes) > 250
    colours = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    light = [sum(int(v) for v in c[4:-1].split(",")) > 384 for c in colours]
    assert light == [not dark, dark]


@pytest.mark.parametrize("classes", [3, 40, 69])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_any_number_of_classes_fits(show, pages, classes, size):
    page = show(pages[classes], size)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    rows = page.evaluate(
        "[...document.querySelectorAll('.row-names text')]"
        ".map(t => t.getBoundingClientRect()).map(r => [r.top, r.left])"
    )
    tops = [row[0] for row in rows]
    font = page.evaluate("parseFloat(getComputedStyle(document.querySelector('.row-names text')).fontSize)")
    assert min((b - a for a, b in pairwise(tops)), default=99) > font
    edge = page.evaluate("document.querySelector('.row-names').getBoundingClientRect().left")
    assert min(row[1] for row in rows) >= edge, "no name is cut off"


def test_table_sorts_by_click_and_by_keyboard(show, pages):
    page = show(pages[16])
    recall = "[...document.querySelectorAll('#classes tbody tr')].map(r => Number(r.cells[2].dataset.v))"
    button = "document.querySelectorAll('#classes thead button')[2]"
    page.evaluate(f"{button}.click()")
    down = page.evaluate(recall)
    assert down == sorted(down, reverse=True)
    page.evaluate(f"{button}.focus()")
    page.key("Enter")
    assert page.evaluate(recall) == sorted(down)
    assert page.evaluate(f"{button}.closest('th').getAttribute('aria-sort')") == "ascending"


def test_matrix_is_read_by_pointer_and_keys_in_any_order(show, pages):
    page = show(pages[16])
    reading = "document.getElementById('matrix-reading').textContent"
    page.evaluate("document.getElementById('matrix').focus()")
    page.key("ArrowDown")
    first = page.evaluate(reading)
    page.key("ArrowRight")
    names = page.evaluate("pageData.matrix.classes")
    assert first.startswith(f"{names[0]} recognised: ")
    assert page.evaluate(reading).startswith(f"{names[0]} taken for {names[1]}: ")

    page.evaluate(
        "(s => { s.value = 'worst'; s.dispatchEvent(new Event('change')); })(document.getElementById('matrix-order'))"
    )
    order = page.evaluate("pageData.matrix.orders.worst")
    x, y = page.evaluate(
        "(() => { const c = document.getElementById('matrix-cells'); c.scrollIntoView({block: 'center'});"
        "const r = c.getBoundingClientRect(); return [r.left, r.top + Number(c.dataset.top)]; })()"
    )
    cell = page.evaluate("pageData.matrix.cell")
    page.mouse("mouseMoved", x + 2.5 * cell, y + 2.5 * cell)
    assert page.evaluate(reading).startswith(f"{names[order[2]]} recognised: ")
    drawn = page.evaluate(
        f'document.querySelector(\'.cell[data-r="{order[2]}"][data-c="{order[2]}"]\').getBoundingClientRect().top'
    )
    assert drawn == pytest.approx(y + 2 * cell, abs=1)


def test_curves_are_read_together(show, pages):
    page = show(pages[16])
    page.evaluate("document.querySelector('[data-panel=loss]').focus()")
    page.key("Home")
    page.key("ArrowRight")
    shown = page.evaluate("[...document.querySelectorAll('[data-epoch]')].map(b => b.textContent)")
    assert shown == ["1", "1", "1"]
    text = page.evaluate("document.querySelector('[data-panel=loss] [data-value=\"0\"]').textContent")
    assert text == page.evaluate("pageData.panels.loss.series[0].texts[1]")
    page.evaluate("document.activeElement.blur()")
    assert page.evaluate("document.querySelector('[data-epoch]').textContent") == "26", "back to the kept epoch"


def test_clouds_turn_by_keys_and_pointer_and_hold_still_when_asked(show, pages):
    page = show(pages[16], still=True)
    page.evaluate("document.querySelector('canvas').scrollIntoView({block: 'center'})")
    before = page.evaluate(f"{SUM}(0)")
    wait = "new Promise(done => setTimeout(() => done(1), 250))"
    page.evaluate(wait)
    assert page.evaluate(f"{SUM}(0)") == before, "prefers-reduced-motion"

    page.evaluate("document.querySelector('canvas').focus()")
    page.key("ArrowRight")
    turned = page.evaluate(f"{SUM}(0)")
    assert turned != before
    x, y = page.evaluate(
        "(r => [r.left + r.width / 2, r.top + r.height / 2])(document.querySelector('canvas').getBoundingClientRect())"
    )
    page.mouse("mousePressed", x, y, "left")
    page.mouse("mouseMoved", x + 40, y + 10, "left")
    page.mouse("mouseReleased", x + 40, y + 10, "left")
    assert page.evaluate(f"{SUM}(0)") != turned


def test_clouds_turn_by_themselves_and_can_be_paused(show, pages):
    page = show(pages[16])
    page.evaluate("document.querySelector('canvas').scrollIntoView({block: 'center'})")
    wait = "new Promise(done => setTimeout(() => done(1), 400))"
    before = page.evaluate(f"{SUM}(0)")
    page.evaluate(wait)
    assert page.evaluate(f"{SUM}(0)") != before
    page.evaluate("document.getElementById('turning').click()")
    paused = page.evaluate(f"{SUM}(0)")
    page.evaluate(wait)
    assert page.evaluate(f"{SUM}(0)") == paused
    assert page.evaluate("document.getElementById('turning').textContent") == "Turn all"


def test_more_clouds_on_request(show, pages):
    page = show(pages[16], PHONE)
    seen = "[...document.querySelectorAll('.tile')].filter(t => t.offsetWidth > 0).length"
    assert page.evaluate(seen) == 10
    page.evaluate("document.getElementById('more-clouds').click()")
    assert page.evaluate(seen) == 18


def test_evil_names_run_nothing(show, tmp_path, write_run):
    names = [
        "</script><script>window.pwned=1</script>",
        '"><img src=x onerror=window.pwned=1>',
        "<svg onload=window.pwned=1>",
    ]
    write_run(tmp_path, classes=names, count=30, names=(names * 10), clouds=6, accuracy=0.5)
    page = show(write_report(tmp_path))
    page.evaluate("document.getElementById('matrix').focus()")
    page.key("ArrowDown")
    page.key("ArrowRight")
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("document.images.length") == 0
    assert names[0] in page.evaluate("document.getElementById('matrix-reading').textContent")


def test_a_bare_record_loads(show, tmp_path):
    (tmp_path / "record.json").write_text("{}")
    assert "not recorded" in show(write_report(tmp_path), PHONE).evaluate("document.body.textContent")
