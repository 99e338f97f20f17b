"""Latents and Decompose in a real browser: hover, lock, keys, links in a fresh browser, steering,
both themes, a narrow screen. On dictionaries of a small trained model."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from itda_core.analysis.steering import LONGEST
from tests.support.browser import assert_nothing_failed, picture, settled
from tests.support.labels import read_labels
from tools.browser_setup import REPOSITORY, find_browser, running_app

TEXT = "The Senate will ratify the treaty with Spain and"
PLACES = {
    "latent": ("latents?latent=5", "latent 5 ·"),
    "search": ("latents?search=the&in=token&match=word&kind=all", "latents · page 1 of"),
    "map": ("latents?view=map&latent=5", "Map and list"),
    "token": (f"decompose?text={TEXT}&token=4", "Token 4:"),
    "what-if": (f"decompose?text={TEXT}&token=4&view=what-if&after=5", "KL of the edit"),
    "steer": (f"decompose?text={TEXT}&view=steer&steer=7&strength=1.5", "Strengths from"),
}
OTHER_PAGES = {
    "overview": ("", "What to do next"),
    "train": ("train", "Start training"),
    "similarity": ("similarity", "Model A"),
    "evaluate": ("evaluate", "Evaluate"),
}
CONTRAST = (Path(__file__).parent / "contrast.js").read_text()

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no browser"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two layers of a built-in model that is small enough to train in seconds."""
    data = tmp_path_factory.mktemp("explorer")
    command = [sys.executable, "-m", "itda_core", "train", "--model", "tiny-6x128-0", "--layers"]
    sizes = ["--max-tokens", "6000", "--max-atoms", "300", "--l0", "8"]
    subprocess.run(
        [*command, "2,4", *sizes, "--runs", str(data / "runs")], cwd=REPOSITORY, check=True
    )
    yield data
    shutil.rmtree(data, ignore_errors=True)


@pytest.fixture(scope="module")
def address(data):
    """The app on them."""
    with running_app(data) as address:
        yield address


def decompose(page: Page, address: str, query: str = "") -> None:
    page.goto(f"{address}/decompose?text={TEXT}{query}")
    expect(page.locator(".light").first).to_be_visible()
    settled(page)


def backgrounds(page: Page) -> list[str]:
    return page.locator(".token.clickable").evaluate_all(
        "all => all.map(one => one.style.backgroundColor)"
    )


def test_hovering_a_latent_lights_its_tokens_and_a_click_keeps_them_lit(address, page, problems):
    decompose(page, address)
    before = backgrounds(page)
    light = page.locator(".light").first
    light.hover()
    lit = backgrounds(page)
    assert lit != before
    uses = int(light.locator(".count").inner_text().removeprefix("×"))
    assert sum(bool(colour) for colour in lit) == uses
    expect(page.locator(".tip", has_text="explains")).to_be_visible()
    page.mouse.move(5, 5)
    assert backgrounds(page) == before
    light.click()
    expect(page.locator(".light.locked")).to_have_count(1)
    page.mouse.move(5, 5)
    settled(page)
    assert backgrounds(page) == lit
    page.keyboard.press("Escape")
    expect(page.locator(".light.locked")).to_have_count(0)
    page.wait_for_timeout(500)
    assert backgrounds(page) == before
    assert problems == []


def test_a_token_is_locked_by_the_keyboard_alone_and_freed_by_escape(address, page, problems):
    decompose(page, address)
    token = page.locator(".token.clickable").nth(3)
    token.focus()
    page.keyboard.press("Tab")
    focused = page.locator(".token:focus-visible")
    expect(focused).to_have_count(1)
    assert focused.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_text("Token 5:")).to_be_visible()
    expect(page.locator(".token.locked")).to_have_count(1)
    page.wait_for_url(re.compile("token=5"))
    page.keyboard.press("Escape")
    expect(page.get_by_text("Latents of this text")).to_be_visible()
    assert "token=" not in page.url
    assert problems == []


def test_slash_goes_to_the_search_and_the_arrows_through_the_latents(address, page, problems):
    page.goto(f"{address}/latents?kind=all")
    expect(page.get_by_text("Strongest uses")).to_be_visible()
    settled(page)
    search = page.get_by_role("textbox", name="Search the latents")
    page.keyboard.press("/")
    while not search.evaluate("one => one === document.activeElement"):
        page.wait_for_timeout(500)  # the component that listens comes after the page's own text
        page.keyboard.press("/")
    page.keyboard.type("th/e")  # in the field it is a letter like others
    expect(search).to_have_value("th/e")
    search.fill("")
    page.keyboard.press("Enter")
    page.locator("h1").click()
    first = page.url
    page.keyboard.press("ArrowRight")
    page.wait_for_url(lambda url: url != first)
    assert problems == []


def test_the_back_button_goes_to_the_latent_before(address, page, problems):
    page.goto(f"{address}/latents?latent=5&kind=all")
    expect(page.get_by_text("latent 5 ·")).to_be_visible()
    settled(page)
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("latent 6 ·")).to_be_visible()
    page.go_back()
    expect(page.get_by_text("latent 5 ·")).to_be_visible()
    assert_nothing_failed(page)
    assert problems == []


def test_text_lock_and_search_outlast_another_page_and_back_is_one_step(address, page, problems):
    decompose(page, address)
    page.get_by_role("textbox", name="Text").fill("The army of the United States marched")
    page.get_by_role("textbox", name="Text").press("Control+Enter")
    page.locator(".token.clickable", has_text="army").click()
    expect(page.get_by_text(re.compile(r"^Token \d+: ' army'"))).to_be_visible()
    settled(page)
    here = page.url
    page.get_by_role("link", name="Latents").click()
    expect(page.get_by_text("Strongest uses")).to_be_visible()
    search = page.get_by_role("textbox", name="Search the latents")
    search.fill("the")
    search.press("Enter")
    page.wait_for_url(re.compile("search=the"))
    settled(page)
    there = page.url
    page.get_by_role("link", name="Decompose", exact=True).click()
    expect(page.get_by_text(re.compile(r"^Token \d+: ' army'"))).to_be_visible()
    expect(page.get_by_role("textbox", name="Text")).to_have_value(
        "The army of the United States marched"
    )
    settled(page)
    page.go_back()
    page.wait_for_url(there)
    expect(search).to_have_value("the")
    settled(page)
    page.go_back()  # to before the search
    expect(page.get_by_text("Strongest uses")).to_be_visible()
    settled(page)
    page.go_back()
    page.wait_for_url(here)
    expect(page.get_by_text(re.compile(r"^Token \d+: ' army'"))).to_be_visible()
    assert_nothing_failed(page)
    assert problems == []


def test_going_through_latents_writes_no_labels(address, data, page, problems):
    page.goto(f"{address}/latents?latent=5&kind=all")
    for number in range(6, 12):
        page.wait_for_timeout(500)
        page.get_by_role("button", name="Next").click()
        expect(page.get_by_text(f"latent {number} ·")).to_be_visible()
    page.wait_for_timeout(500)
    assert not (data / "labels.jsonl").exists()
    page.get_by_role("textbox", name="Label").fill("a <b>label</b>")
    page.get_by_role("button", name="Previous").click()
    expect(page.get_by_text("latent 10 ·")).to_be_visible()
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_role("textbox", name="Label")).to_have_value("a <b>label</b>")
    assert len((data / "labels.jsonl").read_text().splitlines()) == 1
    assert problems == []


def test_what_is_typed_and_not_entered_is_saved_by_a_pause_and_by_a_click_on_another_row(
    address, data, page, problems
):
    page.goto(f"{address}/latents?latent=20&kind=all")
    label = page.get_by_role("textbox", name="Label")
    expect(page.get_by_text("latent 20 ·")).to_be_visible()
    settled(page)
    label.click()
    page.keyboard.type("a pause")
    expect(page.get_by_text("Saved: label of latent 20.")).to_be_visible()
    expect(label).to_be_focused()
    page.keyboard.type(" and more")
    table = page.get_by_test_id("stDataFrame").first.bounding_box()
    page.mouse.click(table["x"] + 15, table["y"] + 35 * 1.5)  # the first row of its page
    expect(page.get_by_text("latent 15 ·")).to_be_visible()
    kept, bad = read_labels((data / "labels.jsonl").read_bytes())
    assert {one.latent: one.label for one in kept}[20] == "a pause and more"
    assert bad == 0
    assert problems == []


@pytest.mark.parametrize("name", PLACES)
def test_a_copied_link_shows_the_same_in_a_fresh_browser(address, browser, name):
    query, sign = PLACES[name]
    told = []
    links = [f"{address}/{query}"]
    for _ in range(2):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.goto(links[-1])
        expect(page.get_by_text(sign).first).to_be_visible()
        settled(page, 2_000)  # a chart draws its axes last
        assert_nothing_failed(page)
        links.append(page.url)
        told.append(page.locator(".stMain").inner_text())
        context.close()
    assert links[1] == links[2]
    assert told[0] == told[1]


def test_an_example_is_decomposed_with_its_token_locked(address, page, problems):
    page.goto(f"{address}/latents?latent=5&kind=all")
    expect(page.get_by_text("Strongest uses")).to_be_visible()
    row = page.locator(".row", has=page.get_by_role("button", name="decompose")).first
    boxed = row.locator(".token.boxed").inner_text()
    row.get_by_role("button", name="decompose").click()
    expect(page.locator(".token.locked")).to_have_text(boxed)
    expect(page.get_by_text(re.compile(r"^Token \d+:"))).to_be_visible()
    assert_nothing_failed(page)
    assert problems == []


def test_a_token_is_marked_in_the_histogram_of_its_latent(address, page, problems):
    page.goto(f"{address}/latents?latent=5&kind=all")
    expect(page.get_by_text("Strongest uses")).to_be_visible()
    settled(page)
    line = page.locator(".histogram .token-mark")
    at = []
    for number in (0, 7):
        row = page.locator(".row", has=page.locator(".chip")).nth(number)
        row.locator(".token.boxed").hover()
        expect(line).to_have_count(1)
        at.append((float(row.locator(".chip").inner_text()), line.bounding_box()["x"] + 1))
    page.mouse.move(5, 5)
    expect(line).to_have_count(0)
    bars = page.locator(".histogram .bar").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect()).map(one => [one.left, one.right])"
    )
    (strongest, last), (weaker, before) = at
    assert strongest > weaker
    assert before < last < max(right for _, right in bars) + 2
    page.goto(f"{address}/latents?latent=5&kind=all&mark=5:{strongest}")
    told = page.locator(".histogram .told")
    expect(told).to_have_text(f"decomposed token {strongest:+.2f}")
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("latent 6 ·")).to_be_visible()
    expect(told).to_have_count(0)
    assert "mark" not in page.url
    assert problems == []


def test_the_mark_in_a_histogram_outlives_a_change_of_its_width(address, page, problems):
    page.goto(f"{address}/latents?latent=5&kind=all")
    expect(page.get_by_text("Strongest uses")).to_be_visible()
    settled(page)
    page.evaluate(
        "document.addEventListener('itda-mark', (event) => { window.told ??= event.detail; })"
    )
    page.locator(".row", has=page.locator(".chip")).first.locator(".token.boxed").hover()
    line = page.locator(".histogram .token-mark")
    expect(line).to_have_count(1)
    page.mouse.move(5, 5)
    expect(line).to_have_count(0)
    page.evaluate("document.dispatchEvent(new CustomEvent('itda-mark', { detail: window.told }))")
    at = line.get_attribute("x1")
    page.set_viewport_size({"width": 1000, "height": 900})
    expect(line).not_to_have_attribute("x1", at)
    expect(line).to_have_count(1)
    assert problems == []


def test_a_text_is_written_plain_and_steered_side_by_side(address, page, problems):
    decompose(page, address, "&view=steer&steer=7&strength=2&tokens=10")
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.get_by_text("mean log-probability")).to_have_count(2)
    expect(page.get_by_text("As the model is", exact=True)).to_be_visible()
    expect(page.get_by_text("Strength +2")).to_be_visible()
    expect(page.get_by_role("button", name="Export the texts")).to_be_visible()
    picture(page, "steer")
    page.get_by_role("button", name="Strengths from −2 to 2").click()
    expect(page.get_by_text("mean log-probability")).to_have_count(5)
    assert_nothing_failed(page)
    assert problems == []


def test_a_text_that_is_being_written_can_be_stopped_and_stays(address, page, problems):
    decompose(page, address, f"&view=steer&steer=7&strength=2&tokens={LONGEST}")
    page.get_by_role("button", name="Write", exact=True).click()
    streamed = page.get_by_test_id("stText").first
    expect(streamed).to_contain_text(re.compile(r"\w+ \w+ \w+"))
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Export the texts")).to_be_visible()
    plain = page.locator(".stColumn", has=page.get_by_text("As the model is", exact=True)).last
    expect(plain.locator(".token").nth(3)).to_be_visible()
    assert plain.locator(".token").count() < LONGEST
    assert_nothing_failed(page)
    assert problems == []


def test_a_factor_typed_into_the_table_changes_the_prediction(address, page, problems):
    decompose(page, address, "&token=4&view=what-if&after=5")
    edit = page.get_by_test_id("stMetric").filter(has_text="KL of the edit")
    expect(edit).to_contain_text("0.0000")
    settled(page)
    factors = {"x": 60 + 95 + 30, "y": 35 + 17}  # the third column of the first row
    page.locator("[data-testid=stDataFrame] .dvn-scroller").first.click(position=factors)
    page.keyboard.press("Enter")
    page.locator("#portal input").fill("0")
    page.keyboard.press("Enter")
    expect(edit).not_to_contain_text("0.0000")
    page.wait_for_url(re.compile("edits="))
    context = page.context.browser.new_context()
    again = context.new_page()  # the change is in the link
    again.goto(page.url)
    shown = again.get_by_test_id("stMetric").filter(has_text="KL of the edit")
    expect(shown).to_have_text(edit.inner_text(), use_inner_text=True)
    context.close()
    assert_nothing_failed(page)
    assert problems == []


def test_what_if_shows_the_predictions_before_and_after(address, page, problems):
    decompose(page, address, "&token=4&view=what-if")
    expect(page.get_by_text("KL of the reconstruction")).to_be_visible()
    expect(page.get_by_text("Nothing is changed yet")).to_be_visible()
    settled(page)
    picture(page, "what-if")
    assert_nothing_failed(page)
    assert problems == []


def test_a_map_is_made_and_a_point_opens_its_latent(address, page, problems):
    page.goto(f"{address}/latents?view=map&latent=5&kind=all")
    page.get_by_role("button", name="Make the map").click()
    expect(page.get_by_text("Click a point to open its latent")).to_be_visible(timeout=180_000)
    settled(page)
    picture(page, "map")
    box = page.locator(".js-plotly-plot").first.bounding_box()
    left, top = box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"]
    right, bottom = left + 0.6 * box["width"], top + 0.6 * box["height"]
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 5)):
        page.mouse.move(x, y, steps=5)
    page.mouse.up()
    page.wait_for_url(re.compile("latent="))
    expect(page.get_by_role("button", name="Drawn around · free")).to_be_visible()
    page.get_by_role("button", name="Drawn around · free").click()
    expect(page.get_by_text("300 latents")).to_be_visible()
    assert_nothing_failed(page)
    assert problems == []


@pytest.mark.parametrize("name", ["latent", "map", "token", "what-if", "steer", *OTHER_PAGES])
def test_all_text_is_readable_in_both_themes(address, page, name):
    query, sign = (PLACES | OTHER_PAGES)[name]
    for theme in ("dark", "light"):
        page.emulate_media(color_scheme=theme)
        if theme == "dark":
            page.goto(f"{address}/{query}")
        expect(page.get_by_text(sign).first).to_be_visible(timeout=60_000)
        expect(page.locator(".stApp")).to_have_css("color-scheme", theme)
        settled(page)
        picture(page, f"{theme}-{name}")
        found = page.evaluate(CONTRAST, 4.5)
        assert found["judged"] > (30 if name in PLACES else 10)
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


@pytest.mark.parametrize("name", ["map", "what-if", "steer"])
def test_every_view_fits_a_narrow_screen(address, page, problems, name):
    page.set_viewport_size({"width": 390, "height": 844})
    query, sign = PLACES[name]
    page.goto(f"{address}/{query}")
    expect(page.get_by_text(sign).first).to_be_visible(timeout=60_000)
    settled(page)
    picture(page, f"narrow-{name}")
    assert page.evaluate("document.querySelector('.stMain').scrollWidth") <= 390
    assert_nothing_failed(page)
    assert problems == []
