"""Pages of pre-training runs and of features in headless Chromium: rows turn together, dots are chosen."""

from __future__ import annotations

import numpy as np
import pytest

from pointlift.report import ShownFeatures, write_features_page, write_report

pytestmark = pytest.mark.browser

PHONE, DESKTOP = (390, 844), (1280, 900)


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory, write_pretraining):
    folder = tmp_path_factory.mktemp("rebuilt")
    write_pretraining(folder, clouds=6, codes=True, monitor=True)
    return write_report(folder)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """Forty clouds of three classes with names that want to be code; two clouds coloured."""
    rng = np.random.default_rng(0)
    evil = "<img src=x onerror=window.pwned=1>"
    labels = np.arange(40) % 3
    features = (rng.normal(size=(3, 5))[labels] + 0.2 * rng.normal(size=(40, 5))).astype(np.float32)
    clouds = [rng.normal(size=(200, 3)) for _ in range(40)]
    rgb = rng.integers(0, 255, (200, 3)).astype(np.uint8)
    names = [f"{i}.ply" for i in range(39)] + [evil]
    shown = ShownFeatures(features, names, clouds, labels, (evil, "chair", "car"), [(0, rgb), (1, rgb)])
    return write_features_page(shown, tmp_path_factory.mktemp("mapped") / "page.html")


@pytest.mark.parametrize(("size", "dark"), [(PHONE, False), (DESKTOP, True)], ids=["phone", "dark"])
def test_reconstructions_load_draw_and_fit(show, rebuilt, size, dark):
    page = show(rebuilt, size, dark=dark, still=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    for i in range(4):
        assert page.picture(f'canvas[data-cloud="{i}"]')[0] > 1500
    columns = page.evaluate(
        "new Set([...document.querySelectorAll('[data-linked]')][0].querySelectorAll('canvas').values()"
        ".map(c => Math.round(c.getBoundingClientRect().left)).toArray()).size"
    )
    assert columns == (2 if size == PHONE else 4)
    seen = "[...document.querySelectorAll('[data-linked]')].filter(t => t.offsetWidth > 0).length"
    assert page.evaluate(seen) == 4
    page.evaluate("document.getElementById('more-clouds').click()")
    assert page.evaluate(seen) == 6


def test_a_row_turns_together_and_alone(show, rebuilt):
    page = show(rebuilt, still=True)
    first = [f'canvas[data-cloud="{i}"]' for i in range(5)]  # four of one row, and one of the next
    before = [page.picture(canvas) for canvas in first]
    page.evaluate(f"document.querySelector('{first[0]}').focus()")
    page.key("ArrowRight")
    after = [page.picture(canvas) for canvas in first]
    assert [a != b for a, b in zip(before, after, strict=True)] == [True] * 4 + [False]
    yaws = page.evaluate("Clouds.tiles.slice(0, 5).map(tile => tile.view.yaw)")
    assert len(set(yaws[:4])) == 1
    assert yaws[4] < yaws[0]


def test_rows_turn_by_themselves_all_four_alike(show, rebuilt):
    page = show(rebuilt)
    page.evaluate("document.querySelector('[data-linked]').scrollIntoView({block: 'center'})")
    page.wait(500)
    yaws = page.evaluate("Clouds.tiles.slice(0, 4).map(tile => tile.view.yaw)")
    assert len(set(yaws)) == 1
    assert 0.6 < yaws[0] < 0.6 + 1.5 * 0.35, "once a frame, not once a tile"


def test_colours_of_roles_and_codes_have_their_legend(show, rebuilt):
    page = show(rebuilt, still=True)
    legend = "document.getElementById('cloud-legend').textContent"
    assert page.evaluate(legend) == "seenrebuilthidden", "of all clouds, not of the first one"
    before = page.picture('canvas[data-cloud="3"]')
    page.evaluate(
        "(s => { s.value = 'code'; s.dispatchEvent(new Event('change')); })(document.getElementById('cloud-mode'))"
    )
    assert page.picture('canvas[data-cloud="3"]') != before
    assert page.evaluate(legend) == ""


def test_enlarged_and_on_to_the_next_part(show, rebuilt):
    page = show(rebuilt, still=True)
    page.evaluate("document.querySelectorAll('canvas[data-cloud]')[1].focus()")
    page.key("Enter")
    page.wait()
    title = "document.querySelector('#viewer-title').textContent"
    assert page.evaluate(title).startswith("seen 256 points")
    assert "airplane" in page.evaluate(title)
    page.key("PageDown")
    page.wait()
    assert page.evaluate(title).startswith("hidden")


@pytest.mark.parametrize(("size", "dark"), [(PHONE, False), (DESKTOP, True)], ids=["phone", "dark"])
def test_maps_load_draw_and_fit(show, mapped, size, dark):
    page = show(mapped, size, dark=dark, still=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate("document.querySelectorAll('circle[data-i]').length") == 80
    page.evaluate("document.getElementById('chosen-cloud').scrollIntoView()")
    page.wait()
    assert page.picture("#chosen-cloud canvas")[0] > 1500
    assert page.picture("#near-clouds canvas")[0] > 1500
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("document.images.length") == 0


def test_a_click_chooses_a_cloud_and_its_neighbours(show, mapped):
    page = show(mapped, still=True)
    page.evaluate("document.getElementById('maps').scrollIntoView()")
    before = page.picture("#chosen-cloud canvas")
    place = "(r => [r.left + r.width / 2, r.top + r.height / 2])"
    for key in ("pca", "tsne"):
        x, y = page.evaluate(
            f"{place}(document.querySelector('[data-map={key}] circle[data-i=\"7\"]').getBoundingClientRect())"
        )
        page.mouse("mouseMoved", x, y)
        assert page.evaluate("document.getElementById('map-reading').textContent") == "chair 7.ply"
        page.mouse("mousePressed", x, y, "left")
        page.mouse("mouseReleased", x, y, "left")
        captions = page.evaluate(
            "[...document.querySelectorAll('#maps figure.tile figcaption')].map(c => c.textContent)"
        )
        assert captions[0] == "chair7.ply"
        near = page.evaluate("pageData.map.near[7]")
        assert [f"{i}.ply" in said or i == 39 for i, said in zip(near, captions[1:], strict=True)] == [True] * 8
        assert page.evaluate(f"document.querySelectorAll('[data-map={key}] .near-marks circle').length") == 8
    assert page.picture("#chosen-cloud canvas") != before
    page.evaluate("document.querySelector('#chosen-cloud canvas').focus()")
    page.key("Enter")
    page.wait()
    assert page.evaluate("document.querySelector('#viewer-title').textContent") == "chair7.ply"
    assert page.evaluate("Clouds.viewer.cloud.n") == 200


def test_arrow_keys_walk_and_classes_can_be_seen_alone(show, mapped):
    page = show(mapped, still=True)
    page.evaluate("document.querySelector('[data-map=pca]').focus()")
    x = "Number(document.querySelector('[data-map=pca] .mark').getAttribute('cx'))"
    begin = page.evaluate(x)
    for _ in range(60):
        page.key("ArrowRight")
    right = page.evaluate(x)
    widest = page.evaluate(
        "Math.max(...[...document.querySelectorAll('[data-map=pca] circle[data-i]')].map(c => c.cx.baseVal.value))"
    )
    assert right == widest > begin
    page.evaluate("document.querySelector('.class-keys [data-class=\"2\"]').click()")
    assert page.evaluate("document.querySelectorAll('.map .dim').length") == 4
    page.evaluate("document.querySelector('[data-map=pca]').focus()")
    for _ in range(5):
        page.key("ArrowLeft")
    assert page.evaluate("document.getElementById('map-reading').textContent").startswith("car ")
    page.evaluate("document.querySelector('.class-keys [data-class=\"2\"]').click()")
    assert page.evaluate("document.querySelectorAll('.map .dim').length") == 0


def test_wide_tables_fade_where_there_is_more(show, mapped):
    page = show(mapped, (360, 740), still=True)
    box = "document.querySelector('#classes .scroll')"
    assert page.evaluate(f"{box}.className") == "scroll more-right"
    page.evaluate(f"{box}.scrollLeft = 10000")
    page.wait()
    assert page.evaluate(f"{box}.className") == "scroll more-left"
    page.call("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
    page.wait()
    assert page.evaluate(f"{box}.className") == "scroll"
