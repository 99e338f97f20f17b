"""Links in a fresh browser, the map, both themes and a narrow screen, of every page and view. On
dictionaries of a small trained model."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.support.browser import TEXT, assert_nothing_failed, picture, settled
from tools.browser_setup import find_browser

PLACES = {
    "latent": ("latents?latent=5", "latent 5 ·"),
    "search": ("latents?search=the&in=token&match=word&kind=all", "latents · page 1 of"),
    "map": ("latents?view=map&latent=5", "Map and list"),
    "token": (f"decompose?text={TEXT}&token=4", "Token 4:"),
    "what-if": (f"decompose?text={TEXT}&token=4&view=what-if&after=5", "KL of the edit"),
    "steer": (f"decompose?text={TEXT}&view=steer&steer=7&strength=1.5", "Strengths from"),
    "two": (f"decompose?text={TEXT}&token=4&view=two", "Reproduce both"),
}
OTHER_PAGES = {
    "overview": ("", "What to do next"),
    "train": ("train", "Start training"),
    "similarity": ("similarity", "Best matches"),
    "evaluate": ("evaluate", "Evaluate"),
}
CONTRAST = (Path(__file__).parent / "contrast.js").read_text()

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no browser"),
]


_TOLD = """() => {
  const links = document.querySelector('.stMain .st-key-navigation');
  if (links) links.style.display = 'none';
  return document.querySelector('.stMain').innerText;
}"""
"""What a page says, without the links to others that stand in it where Streamlit runs it alone"""


@pytest.mark.parametrize("name", PLACES)
def test_a_copied_link_shows_the_same_in_a_fresh_browser(address, browser, name):
    query, sign = PLACES[name]
    pages, links = [], [f"{address}/{query}"]
    for _ in range(2):
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.goto(links[-1])
        expect(page.get_by_text(sign).first).to_be_visible()
        settled(page)
        assert_nothing_failed(page)
        links.append(page.url)
        pages.append(page)
    assert links[1] == links[2]
    for _ in range(120):  # charts are drawn last, when nothing else tells of them
        told = [page.evaluate(_TOLD) for page in pages]
        if told[0] == told[1]:
            break
        page.wait_for_timeout(500)
    assert told[0] == told[1]
    for page in pages:
        page.context.close()


_PLACE_OF = """number => {
  const plot = document.querySelector('.js-plotly-plot'), {xaxis, yaxis} = plot._fullLayout;
  const {left, top} = plot.getBoundingClientRect(), points = plot._fullData[0];
  const x = xaxis._offset + xaxis.c2p(points.x[number]);
  return [left + x, top + yaxis._offset + yaxis.c2p(points.y[number])];
}"""
"""Where a point of the map stands on the page"""


def test_a_map_is_made_and_a_point_opens_its_latent(address, page, problems):
    page.goto(f"{address}/latents?view=map&latent=5&kind=all")
    page.get_by_role("button", name="Make the map").click()
    expect(page.get_by_text("Click a point to open its latent")).to_be_visible()
    settled(page)
    picture(page, "map")
    page.mouse.click(*page.evaluate(_PLACE_OF, 123))
    page.wait_for_url(re.compile("latent=123"))
    expect(page.get_by_text("latent 123 ·")).to_be_visible()
    settled(page)
    page.locator('[data-title="Lasso Select"]').click()
    box = page.locator(".js-plotly-plot").first.bounding_box()
    left, top = box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"]
    right, bottom = left + 0.6 * box["width"], top + 0.6 * box["height"]
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 5)):
        page.mouse.move(x, y, steps=5)
    page.mouse.up()
    page.wait_for_url(re.compile("latent="))
    expect(page.get_by_role("button", name="Selected on the map · clear")).to_be_visible()
    page.get_by_role("button", name="Selected on the map · clear").click()
    expect(page.get_by_text("300 latents · page 1 of")).to_be_visible()
    assert_nothing_failed(page)
    assert problems == []


@pytest.mark.parametrize(
    "name", ["latent", "map", "token", "what-if", "steer", "two", *OTHER_PAGES]
)
def test_all_text_is_readable_in_both_themes(address, page, name):
    query, sign = (PLACES | OTHER_PAGES)[name]
    for theme in ("dark", "light"):
        page.emulate_media(color_scheme=theme)
        if theme == "dark":
            page.goto(f"{address}/{query}")
        expect(page.get_by_text(sign).first).to_be_visible()
        expect(page.locator(".stApp")).to_have_css("color-scheme", theme)
        settled(page)
        picture(page, f"{theme}-{name}")
        least = 30 if name in PLACES else 10
        for _ in range(120):  # the project's own components are drawn last, out of sight of settled
            found = page.evaluate(CONTRAST, 4.5)
            if found["judged"] > least:
                break
            page.wait_for_timeout(500)
        assert found["judged"] > least
        assert found["low"] == []


def test_a_number_out_of_range_stops_the_training_and_the_button_stays_readable(
    address, page, problems
):
    page.goto(f"{address}/train")
    start = page.get_by_role("button", name="Start training")
    expect(start).to_be_enabled()
    atoms = page.get_by_role("textbox", name="Atoms", exact=True)
    for typed, words in (
        ("0", "Atoms must be at least 1, got 0"),
        ("12abc", "Atoms must be a whole number such as 2048, got '12abc'"),
        ("", "Atoms must be a whole number such as 2048, got nothing"),
        ("99999999999", "Atoms must be at most 2,147,483,647, got 99999999999"),
    ):
        atoms.fill(typed)
        atoms.blur()  # as a click on the button does
        expect(page.get_by_text(words)).to_be_visible()
        expect(start).to_be_disabled()
    for theme in ("dark", "light"):
        page.emulate_media(color_scheme=theme)
        expect(page.locator(".stApp")).to_have_css("color-scheme", theme)
        settled(page)
        picture(page, f"{theme}-train-refused")
        found = page.evaluate(CONTRAST, 4.5)
        assert found["switchedOff"] >= 1
        assert found["low"] == []
    atoms.fill("256")
    atoms.press("Enter")
    expect(start).to_be_enabled()
    assert problems == []


@pytest.mark.parametrize("name", ["map", "what-if", "steer", "two"])
def test_every_view_fits_a_narrow_screen(address, page, problems, name):
    page.set_viewport_size({"width": 390, "height": 844})
    query, sign = PLACES[name]
    page.goto(f"{address}/{query}")
    expect(page.get_by_text(sign).first).to_be_visible()
    settled(page)
    picture(page, f"narrow-{name}")
    assert page.evaluate("document.querySelector('.stMain').scrollWidth") <= 390
    assert_nothing_failed(page)
    assert problems == []
