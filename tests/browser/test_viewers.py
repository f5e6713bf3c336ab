"""Viewers by their pixels: drawn, turned, stepped, slid, and nothing from outside."""

import numpy as np
import pytest
from PIL import Image
from pymatgen.core import Lattice, Structure

import matdesign as design
from matdesign.display import plots
from matdesign.display.pages import page

pytestmark = pytest.mark.browser

CHANGED = 60
"""Summed change of the three colours that counts; what smoothing of edges does is less."""


def moved(before: np.ndarray, after: np.ndarray) -> float:
    """Share of 4 x 4 pixel tiles that differ.

    NGL smooths edges when nothing moves, some time later on a busy machine: single
    pixels on edges may differ between two pictures of one thing, tiles do not.
    """
    assert before.shape == after.shape
    high, wide = (n // 4 * 4 for n in before.shape[:2])
    change = (after - before)[:high, :wide].reshape(high // 4, 4, wide // 4, 4, 3)
    return float((np.abs(change.mean((1, 3))).sum(-1) > CHANGED).mean())


def rock_salt(a: float = 5.64, c: float = 5.64) -> Structure:
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    return Structure(Lattice.tetragonal(a, c), salt.species, salt.frac_coords)


def open_page(browser, tmp_path, body: str) -> None:
    path = tmp_path / "page.html"
    path.write_text(page("test", body), encoding="utf-8")
    browser.page.goto(path.as_uri())
    for figure in browser.page.locator(".crystal-view").all():
        figure.scroll_into_view_if_needed()
        browser.page.wait_for_function(
            "f => f.dataset.ready === '1' || f.dataset.error",
            arg=figure.element_handle(),
        )
        assert figure.get_attribute("data-error") is None
    browser.page.wait_for_timeout(300)


def inked(picture: np.ndarray) -> float:
    return float((picture.min(-1) < 250).mean())


def slide(browser, label: str, value: int) -> None:
    handle = browser.page.get_by_role("slider", name=label)
    handle.evaluate(
        "(s, v) => { s.value = v; s.dispatchEvent(new Event('input', {bubbles: true})); }",
        value,
    )
    browser.page.wait_for_timeout(250)


CANVAS = ".cv-canvas canvas"


def test_a_crystal_is_drawn_turns_by_mouse_and_keys_and_comes_back(browser, tmp_path):
    open_page(browser, tmp_path, design.view(rock_salt()).to_html())
    first = browser.pixels(CANVAS)
    white = (first.min(-1) > 250).mean()
    assert 0.3 < white < 0.95, "blank or full canvas"
    green = (first[..., 1] > first[..., 0] + 40) & (first[..., 1] > first[..., 2] + 40)
    violet = (first[..., 2] > first[..., 1] + 40) & (first[..., 0] > first[..., 1] + 20)
    assert green.mean() > 0.005, "no chlorine"
    assert violet.mean() > 0.005, "no sodium"

    box = browser.page.locator(CANVAS).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    browser.page.mouse.move(x, y)
    browser.page.mouse.down()
    browser.page.mouse.move(x + 90, y + 30, steps=6)
    browser.page.mouse.up()
    browser.page.mouse.move(5, 5)
    browser.page.wait_for_timeout(600)
    turned = browser.pixels(CANVAS)
    assert moved(first, turned) > 0.03

    browser.page.get_by_role("button", name="back to the first view").click()
    browser.page.mouse.move(5, 5)
    browser.page.wait_for_timeout(300)
    assert moved(first, browser.pixels(CANVAS)) < 0.01

    browser.page.locator(".cv-stage").focus()
    for _ in range(4):
        browser.page.keyboard.press("ArrowLeft")
    browser.page.wait_for_timeout(300)
    assert moved(first, browser.pixels(CANVAS)) > 0.03
    browser.clean()


@pytest.mark.parametrize("refit", [True, False])
def test_a_small_crystal_fills_its_viewer_beside_a_large_one(browser, tmp_path, refit):
    wide = Structure(Lattice.cubic(40), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])
    viewer = design.view([rock_salt(), wide, rock_salt()], refit=refit)
    open_page(browser, tmp_path, viewer.to_html())
    small = inked(browser.pixels(CANVAS))
    assert (small > 0.1) is refit
    slide(browser, "crystal", 1)
    assert inked(browser.pixels(CANVAS)) > 0.005
    slide(browser, "crystal", 2)
    again = inked(browser.pixels(CANVAS))
    assert again == pytest.approx(small, rel=0.05)
    browser.page.get_by_role("button", name="back to the first view").click()
    browser.page.wait_for_timeout(300)
    assert inked(browser.pixels(CANVAS)) == pytest.approx(small, rel=0.05)


def test_letters_are_written_on_the_atoms(browser, tmp_path):
    open_page(browser, tmp_path, design.view(rock_salt()).to_html())
    before = browser.pixels(CANVAS)
    browser.page.get_by_role("button", name="element symbols on the atoms").click()
    browser.page.wait_for_timeout(300)
    after = browser.pixels(CANVAS)
    assert moved(before, after) > 0.001
    assert (after.max(-1) < 40).sum() > (before.max(-1) < 40).sum()


def test_the_viewer_and_the_drawing_show_the_same_side(browser, tmp_path):
    """An atom on one corner only: it must sit in the same quarter of both pictures."""
    lone = Structure(Lattice.cubic(6), ["S"], [[0.85, 0.2, 0.8]])
    open_page(browser, tmp_path, design.view(lone, images="none").to_html())

    def centre(picture: np.ndarray) -> np.ndarray:
        yellow = (picture[..., 0] > 150) & (picture[..., 2] < picture[..., 0] - 60)
        return np.argwhere(yellow).mean(0) / picture.shape[:2]

    live = centre(browser.pixels(CANVAS))
    browser.page.evaluate("document.querySelector('.crystal-view').matdesign.unmount()")
    drawn = centre(browser.pixels(".cv-stage"))
    assert np.abs(live - drawn).max() < 0.06


def test_every_frame_of_the_player_is_drawn(browser, tmp_path):
    frames = [rock_salt(c=5.64 + x) for x in (0.0, 1.5, 3.0)]
    body = design.view(frames, ["one", "two", "three"]).to_html()
    open_page(browser, tmp_path, body)
    seen = [browser.pixels(CANVAS)]
    for n, label in ((1, "two"), (2, "three")):
        slide(browser, "crystal", n)
        assert browser.page.locator(".cv-label").inner_text() == label
        assert label in browser.page.locator(".cv-stage").get_attribute("aria-label")
        seen.append(browser.pixels(CANVAS))
    assert moved(seen[0], seen[1]) > 0.02
    assert moved(seen[1], seen[2]) > 0.02
    browser.page.get_by_role("button", name="one on").click()
    browser.page.mouse.move(5, 5)
    browser.page.wait_for_timeout(250)
    assert moved(seen[0], browser.pixels(CANVAS)) < 0.005, "the player goes round"
    browser.page.get_by_role("button", name="play").click()
    browser.page.wait_for_function(
        "document.querySelector('.crystal-view').dataset.frame === '2'"
    )
    browser.clean()


def test_sliders_move_the_crystal(browser, tmp_path):
    def cell(a=5.6, c=5.6):
        return design.view(rock_salt(a, c), images="none")

    body = design.explore(cell, a=(5.0, 6.2, 3), c=(4.4, 6.8, 3)).to_html()
    open_page(browser, tmp_path, body)
    first = browser.pixels(CANVAS)
    slide(browser, "c", 2)
    long = browser.pixels(CANVAS)
    assert moved(first, long) > 0.02
    slide(browser, "a", 0)
    assert moved(long, browser.pixels(CANVAS)) > 0.02
    assert browser.page.locator(".crystal-view").get_attribute("data-frame") == "2"
    browser.clean()


def test_sliders_move_a_plot(browser, tmp_path):
    def line(slope=1.0):
        figure, axes = plots.canvas()
        axes.plot([0, 1], [0, slope], lw=6)
        axes.set_ylim(-2, 2)
        return plots.Plot(figure, f"A line of slope {slope}.")

    open_page(browser, tmp_path, design.explore(line, slope=(-2.0, 2.0, 5)).to_html())
    first = browser.pixels(".md-explore")
    assert (first.min(-1) < 200).mean() > 0.002
    slide(browser, "slope", 0)
    assert moved(first, browser.pixels(".md-explore")) > 0.005
    shown = browser.page.locator(".md-shown img")
    assert shown.count() == 1
    assert shown.get_attribute("alt") == "A line of slope -2.0."
    browser.clean()


def test_with_three_sliders_one_moves_and_the_others_return(browser, tmp_path):
    def line(a=0.0, b=0.0, c=0.0):
        figure, axes = plots.canvas()
        axes.plot([a, b], [0, c])
        return plots.Plot(figure, f"{a} {b} {c}")

    made = design.explore(line, a=(-1.0, 1.0, 3), b=(-1.0, 1.0, 3), c=(-1.0, 1.0, 3))
    open_page(browser, tmp_path, made.to_html())
    alt = "document.querySelector('.md-shown img').alt"
    slide(browser, "a", 2)
    assert browser.page.evaluate(alt) == "1.0 0.0 0.0"
    slide(browser, "c", 0)
    assert browser.page.evaluate(alt) == "0.0 0.0 -1.0"
    assert browser.page.get_by_role("slider", name="a").input_value() == "1"


@pytest.mark.slow
def test_many_viewers_share_the_browsers_sixteen_contexts(browser, tmp_path):
    body = "".join(design.view(rock_salt()).to_html() for _ in range(20))
    open_page(browser, tmp_path, body)
    live = browser.page.locator('.crystal-view[data-ready="1"]').count()
    assert live <= 12
    figures = browser.page.locator(".crystal-view")
    figures.first.scroll_into_view_if_needed()
    browser.page.wait_for_function(
        "document.querySelector('.crystal-view').dataset.ready === '1'"
    )
    browser.page.wait_for_timeout(300)
    again = browser.pixels(CANVAS)
    assert (again.min(-1) < 250).mean() > 0.05
    browser.clean()


def test_without_webgl_the_drawing_stays(chromium, tmp_path):
    context = chromium.new_context()
    tab = context.new_page()
    tab.add_init_script(
        "const get = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {"
        "  return kind.includes('webgl') ? null : get.call(this, kind, ...rest); };"
    )
    path = design.view(rock_salt()).save(tmp_path / "still.html")
    tab.goto(path.as_uri())
    tab.wait_for_function("document.querySelector('.crystal-view').dataset.error")
    assert tab.locator(".cv-stage > svg").is_visible()
    assert tab.locator(".cv-stage > svg circle").count() == 27
    context.close()


def test_what_stands_beside_a_frame_changes_with_it(browser, tmp_path):
    made = design.view([rock_salt(), rock_salt(5.0)], ["first", "second"])
    for n, frame in enumerate(made.data["frames"]):
        bar = f'<rect width="{40 + 40 * n}" height="9"/>'
        frame["beside"] = f'<svg viewBox="0 0 100 9"><title>{n}</title>{bar}</svg>'
    open_page(browser, tmp_path, made.to_html())
    beside = browser.page.locator(".cv-beside rect")
    assert beside.get_attribute("width") == "40"
    slide(browser, "crystal", 1)
    assert beside.get_attribute("width") == "80"
    browser.clean()


def test_what_is_seen_is_saved_as_a_picture(browser, tmp_path):
    open_page(browser, tmp_path, design.view(rock_salt()).to_html())
    assert not browser.page.locator(".cv-still").is_visible()
    with browser.page.expect_download() as waiting:
        browser.page.get_by_role("button", name="save as a picture").click()
    assert waiting.value.suggested_filename == "crystal.png"
    saved = np.asarray(Image.open(waiting.value.path()).convert("RGB")).astype(int)
    shown = browser.pixels(CANVAS)
    assert saved.shape[0] > shown.shape[0]
    assert inked(saved) > 0.3 * inked(shown)
    browser.clean()


def test_a_page_without_style_or_script_says_that_its_picture_is_still(
    browser, tmp_path
):
    path = tmp_path / "bare.html"
    path.write_text(design.view(rock_salt()).to_html(), encoding="utf-8")
    browser.page.goto(path.as_uri())
    assert browser.page.locator(".cv-stage svg").is_visible()
    assert browser.page.locator(".cv-still").is_visible()
