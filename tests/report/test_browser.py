"""The page in headless Chromium: it loads, draws, fits, answers to pointer and keys, and logs no error."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from pointlift.report import ShownPrediction, write_comparison, write_predictions_page, write_report

pytestmark = pytest.mark.browser

PHONE, SMALL, DESKTOP = (390, 844), (360, 740), (1280, 900)
PIXELS = """(i) => {
  const canvas = document.querySelectorAll("canvas")[i];
  return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
}"""
WAIT = "new Promise(done => setTimeout(() => done(1), 250))"
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
    assert shown == ["2", "2", "2"]
    text = page.evaluate("document.querySelector('[data-panel=loss] [data-value=\"0\"]').textContent")
    assert text == page.evaluate("pageData.panels.loss.series[0].texts[1]")
    page.evaluate("document.activeElement.blur()")
    assert page.evaluate("document.querySelector('[data-epoch]').textContent") == "27", "back to the kept epoch"


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


# --- one cloud, large ---

LARGE = "document.querySelector('#viewer canvas')"
LARGE_SUM = SUM.replace('document.querySelectorAll("canvas")[i]', LARGE) + "(0)"
LARGE_INK = INK.replace('document.querySelectorAll("canvas")[i]', LARGE) + "(0)"
SHOWN = "document.getElementById('viewer').open"


def enlarged(page, tile=0):
    """Focus a tile and press Enter."""
    page.evaluate(f"document.querySelectorAll('.tile canvas')[{tile}].focus()")
    page.key("Enter")
    page.evaluate(WAIT)
    assert page.evaluate(SHOWN)


@pytest.mark.parametrize("size", [SMALL, DESKTOP], ids=["small", "desktop"])
def test_enter_enlarges_keys_turn_zoom_reset_and_escape_closes(show, pages, size):
    page = show(pages[16], size, still=True)
    enlarged(page)
    assert page.evaluate(LARGE_INK) > 5000
    assert page.evaluate("document.activeElement === " + LARGE)
    assert page.evaluate("document.querySelector('#viewer').scrollWidth") <= size[0]
    first = page.evaluate(LARGE_SUM)
    seen = [first]
    for key in ("ArrowLeft", "ArrowUp", "+", "-"):
        page.key(key)
        page.evaluate(WAIT)
        seen.append(page.evaluate(LARGE_SUM))
    assert len(set(seen)) == 4, "every key changes the picture"
    assert seen[4] == seen[2], "and minus undoes plus"
    page.key("0")
    page.evaluate(WAIT)
    assert page.evaluate(LARGE_SUM) == first
    page.key("PageDown")
    page.evaluate(WAIT)
    assert page.evaluate(LARGE_SUM) != first, "the next cloud"
    page.key("Escape")
    page.evaluate(WAIT)
    assert not page.evaluate(SHOWN)
    assert page.evaluate("document.activeElement === document.querySelector('.tile canvas')"), "back where it began"


def test_a_click_enlarges_a_drag_does_not_and_a_click_outside_closes(show, pages):
    page = show(pages[16], still=True)
    page.evaluate("document.querySelector('canvas').scrollIntoView({block: 'center'})")
    x, y = middle(page, "canvas")
    page.mouse("mousePressed", x, y, "left")
    page.mouse("mouseMoved", x + 60, y, "left")
    page.mouse("mouseReleased", x + 60, y, "left")
    assert not page.evaluate(SHOWN)
    page.mouse("mousePressed", x, y, "left")
    page.mouse("mouseReleased", x, y, "left")
    assert page.evaluate(SHOWN)
    page.mouse("mousePressed", 5, 450, "left")
    page.mouse("mouseReleased", 5, 450, "left")
    assert not page.evaluate(SHOWN)


def middle(page, selector):
    """The middle of an element on screen."""
    box = f"document.querySelector('{selector}').getBoundingClientRect()"
    return page.evaluate(f"(r => [r.left + r.width / 2, r.top + r.height / 2])({box})")


def test_wheel_and_two_fingers_zoom(show, pages):
    page = show(pages[16], SMALL, still=True)
    enlarged(page)
    x, y = middle(page, "#viewer canvas")
    page.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-200)
    page.evaluate(WAIT)
    near = page.evaluate("Clouds.viewer.view.zoom")
    assert near > 1.3
    page.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=5)
    fingers = [[{"x": x - d, "y": y, "id": 0}, {"x": x + d, "y": y, "id": 1}] for d in (30, 50, 80)]
    page.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=fingers[0])
    for points in fingers[1:]:
        page.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=points)
    page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    assert page.evaluate("Clouds.viewer.view.zoom") == pytest.approx(near * 80 / 30, rel=0.05)


def test_a_finger_turns_a_tile_sideways_and_scrolls_the_page_upwards(show, pages):
    page = show(pages[16], SMALL, still=True)
    page.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=5)
    page.evaluate("document.querySelector('canvas').scrollIntoView({block: 'center'})")
    x, y = middle(page, "canvas")
    yaw, scroll = (page.evaluate(what) for what in ("Clouds.tiles[0].view.yaw", "scrollY"))

    def swipe(dx, dy):
        for i in range(11):
            kind = "touchMove" if i else "touchStart"
            points = [{"x": x + dx * i / 10, "y": y + dy * i / 10, "id": 0}]
            page.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
            page.evaluate("new Promise(requestAnimationFrame)")
        page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        page.evaluate(WAIT)

    swipe(60, 0)
    assert page.evaluate("Clouds.tiles[0].view.yaw") > yaw + 0.3
    assert page.evaluate("scrollY") == scroll
    swipe(0, -150)
    assert page.evaluate("scrollY") > scroll + 80
    assert not page.evaluate(SHOWN), "neither was a tap"


def test_colour_by_height_says_its_scale(show, pages):
    page = show(pages[16], still=True)
    enlarged(page)
    plain = page.evaluate(LARGE_SUM)
    page.evaluate(
        "(s => { s.value = 'height'; s.dispatchEvent(new Event('change')); })"
        "(document.querySelector('#viewer [data-part=mode]'))"
    )
    page.evaluate(WAIT)
    assert page.evaluate(LARGE_SUM) != plain
    legend = page.evaluate("document.querySelector('#viewer [data-part=legend]').textContent")
    assert "low" in legend
    assert "high" in legend


# --- predictions and comparisons ---


def said(label, share, **change):
    answer = {"label": label, "index": 0, "probability": share, "probabilities": {label: share, "other": 1 - share}}
    return SimpleNamespace(**answer | {"error": None, "notes": ()} | change)


@pytest.fixture(scope="module")
def predictions(tmp_path_factory):
    """A page of one large cloud, thirty small ones and an error, with names that want to be code."""
    rng = np.random.default_rng(0)
    evil = "<img src=x onerror=window.pwned=1>"

    def ball(count):
        xyz = rng.normal(size=(count, 3)).astype(np.float32)
        return xyz / np.linalg.norm(xyz, axis=1, keepdims=True)

    def items():
        large = ball(200_000)
        yield ShownPrediction(
            evil, large, said(evil, 0.8), saliency=large[:, 2], part=np.arange(200_000) % 3, part_names=(evil,)
        )
        for i in range(30):
            yield ShownPrediction(f"{i}.ply", ball(200), said("ball", 0.6))
        yield ShownPrediction("bad.ply", np.zeros((0, 3)), said("", 0, error=f"{evil} is no cloud"))

    return write_predictions_page(items(), tmp_path_factory.mktemp("predictions") / "page.html")


@pytest.mark.parametrize(("size", "dark"), [(SMALL, False), (DESKTOP, True)], ids=["small", "dark"])
def test_predictions_page(show, predictions, size, dark):
    page = show(predictions, size, dark=dark, still=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    page.evaluate("document.getElementById('cloud-0').scrollIntoView()")
    page.evaluate(WAIT)
    assert page.evaluate(f"{INK}(0)") > 10_000
    assert page.evaluate("document.getElementById('cloud-legend').textContent").startswith("−0+against the label")
    page.evaluate("document.getElementById('cloud-29').scrollIntoView()")
    page.evaluate(WAIT)
    assert page.evaluate(f"{INK}(29)") > 2000, "drawn when it comes into sight"
    awake = page.evaluate("Clouds.tiles.filter(t => t.context).length")
    assert awake < 31, "and given up when it leaves"
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("document.images.length") == 0


def test_parts_are_named_beside_their_colours_and_up_can_be_changed(show, predictions):
    page = show(predictions, still=True)
    page.evaluate("document.getElementById('cloud-0').scrollIntoView()")
    page.evaluate(WAIT)
    before = page.evaluate(f"{SUM}(0)")
    for name, value in (("cloud-mode", "parts"), ("cloud-up", "x")):
        change = f"s.value = '{value}'; s.dispatchEvent(new Event('change'));"
        page.evaluate(f"(s => {{ {change} }})(document.getElementById('{name}'))")
        after = page.evaluate(f"{SUM}(0)")
        assert after != before
        before = after
    legend = page.evaluate("document.getElementById('cloud-legend').textContent")
    assert legend == "<img src=x onerror=window.pwned=1>12", "a name, and numbers where there is none"


def test_two_hundred_thousand_points_are_drawn_while_they_turn(show, predictions):
    """Fifteen pictures a second from one core, and then some: the bound that docs/reports.md names."""
    page = show(predictions, still=True)
    page.call("Performance.enable", timeDomain="threadTicks")
    enlarged(page)
    assert page.evaluate("Clouds.viewer.cloud.n") == 200_000

    def busy():
        metrics = page.call("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    turn = "for (let i = 0; i < 15; i++) { Clouds.viewer.view.yaw += 0.1; Clouds.viewer.draw(); }"
    page.evaluate(turn)
    before = busy()
    page.evaluate(turn)
    assert (busy() - before) / 15 < 0.066
    assert page.evaluate(LARGE_INK) > 50_000


@pytest.mark.parametrize("size", [SMALL, DESKTOP], ids=["small", "desktop"])
def test_comparison_page(show, tmp_path, write_run, size):
    for name, accuracy in (("a", 0.9), ("b", 0.7), ("c", 0.8)):
        write_run(tmp_path / name, accuracy=accuracy, clouds=18, count=200)
    page = show(write_comparison([tmp_path / name for name in "abc"]), size)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate(f"{INK}(0)") > 2000
    page.evaluate("document.querySelector('[data-panel=accuracy]').focus()")
    page.key("Home")
    assert page.evaluate("document.querySelector('[data-epoch]').textContent") == "1"
    page.evaluate("document.querySelector('#classes thead button').click()")
    names = page.evaluate("[...document.querySelectorAll('#classes tbody tr')].map(r => r.cells[0].dataset.v)")
    assert names == sorted(names)
    enlarged(page)
    assert page.evaluate(LARGE_INK) > 5000
