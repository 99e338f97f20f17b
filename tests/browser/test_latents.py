"""The Latents page in a real browser: keys, the back button, labels, marks in the histogram. On
dictionaries of a small trained model."""

import pytest
from playwright.sync_api import expect

from tests.support.browser import assert_nothing_failed, settled, to_next, to_previous
from tests.support.labels import read_labels
from tools.browser_setup import find_browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no browser"),
]


def test_slash_goes_to_the_search_and_the_arrows_through_the_latents(address, page, problems):
    page.goto(f"{address}/latents?kind=all")
    expect(page.get_by_text("Strongest uses", exact=True)).to_be_visible()
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
    to_next(page).click()
    expect(page.get_by_text("latent 6 ·")).to_be_visible()
    page.go_back()
    expect(page.get_by_text("latent 5 ·")).to_be_visible()
    assert_nothing_failed(page)
    assert problems == []


def test_going_through_latents_writes_no_labels(address, data, page, problems):
    page.goto(f"{address}/latents?latent=5&kind=all")
    for number in range(6, 12):
        page.wait_for_timeout(500)
        to_next(page).click()
        expect(page.get_by_text(f"latent {number} ·")).to_be_visible()
    page.wait_for_timeout(500)
    assert not (data / "labels.jsonl").exists()
    page.get_by_role("textbox", name="Label").fill("a <b>label</b>")
    to_previous(page).click()
    expect(page.get_by_text("latent 10 ·")).to_be_visible()
    to_next(page).click()
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
    page.locator(".rows tbody tr").first.locator("td.quote").click()  # anywhere in the row
    expect(page.get_by_text("latent 15 ·").first).to_be_visible()  # the other is its row's card
    kept, bad = read_labels((data / "labels.jsonl").read_bytes())
    assert {one.latent: one.label for one in kept}[20] == "a pause and more"
    assert bad == 0
    assert problems == []


def test_a_row_of_the_list_shows_its_card_and_opens_its_latent(address, page, problems):
    page.goto(f"{address}/latents?latent=5&kind=all")
    expect(page.get_by_text("latent 5 ·")).to_be_visible()
    settled(page)
    row, card = page.locator(".rows tbody tr").nth(7), page.locator(".card:popover-open")
    row.locator("td.latent").hover()
    expect(card).to_contain_text("latent 7 ·")
    list_box, box = page.locator(".rows").first.bounding_box(), card.bounding_box()
    assert box["x"] >= list_box["x"] + list_box["width"], "all rows stay free"
    expect(page.locator(".rows tr.chosen td").first).to_have_text("5")
    row.locator("td").first.click()
    expect(page.get_by_text("latent 7 ·").first).to_be_visible()
    expect(page.locator(".rows tr.chosen td").first).to_have_text("7")
    assert "latent=7" in page.url
    page.get_by_text("Related", exact=True).click()
    near = page.locator("[class*=st-key-related_latents] tbody tr").nth(1)
    number = near.locator("td").nth(1).inner_text()
    near.locator("td.quote").click()
    expect(page.get_by_text(f"latent {number} ·").first).to_be_visible()
    assert_nothing_failed(page)
    assert problems == []


def test_a_token_is_marked_in_the_histogram_of_its_latent(address, page, problems):
    page.goto(f"{address}/latents?latent=5&kind=all")
    expect(page.get_by_text("Strongest uses", exact=True)).to_be_visible()
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
    to_next(page).click()
    expect(page.get_by_text("latent 6 ·")).to_be_visible()
    expect(told).to_have_count(0)
    assert "mark" not in page.url
    assert problems == []


def test_the_mark_in_a_histogram_outlives_a_change_of_its_width(address, page, problems):
    page.goto(f"{address}/latents?latent=5&kind=all")
    expect(page.get_by_text("Strongest uses", exact=True)).to_be_visible()
    settled(page)
    page.evaluate(  # a row that is drawn anew tells of no value
        "document.addEventListener('itda-mark', (event) => {"
        " if (event.detail.value) { window.told ??= event.detail; } })"
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
