"""The Decompose page in a real browser: hover, lock, keys, what if, steering. On dictionaries of a
small trained model."""

import re

import pytest
from playwright.sync_api import Page, expect

from itda_core.analysis.steering import LONGEST
from tests.support.browser import TEXT, assert_nothing_failed, picture, settled
from tools.browser_setup import find_browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no browser"),
]


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


def test_a_token_explained_worst_is_named_in_sight_and_locked_by_a_click(address, page, problems):
    decompose(page, address)
    line = page.locator(".jumps")
    expect(line).to_contain_text("Explained worst")
    shares = [float(one.rstrip("%")) for one in line.locator(".count").all_inner_texts()]
    assert len(shares) == 5 and shares == sorted(shares, reverse=True)
    worst = line.locator(".jump").first
    position = worst.inner_text().split(":")[0]
    worst.hover()
    expect(page.locator(".token.pointed")).to_have_count(1)
    worst.click()
    expect(page.get_by_text(f"Token {position}:")).to_be_visible()
    page.wait_for_url(re.compile(f"token={position}(&|$)"))
    expect(page.locator(".token.locked")).to_have_count(1)
    expect(line.locator(".locked")).to_have_count(1)
    line.locator(".locked").click()
    expect(page.get_by_text("Latents of this text")).to_be_visible()
    assert_nothing_failed(page)
    assert problems == []


def test_a_latent_shows_its_card_on_hover_and_opens_from_row_and_card(address, page, problems):
    decompose(page, address, "&token=4")
    row = page.locator(".rows tbody tr").nth(1)
    number = row.locator("td.number").last.inner_text()
    row.hover()
    card = page.locator(".card:popover-open")
    expect(card).to_contain_text(f"latent {number} ·")
    expect(card.locator("svg rect").first).to_be_visible()
    expect(card.get_by_role("link", name="Steer with it")).to_be_visible()
    row.click()
    page.wait_for_url(re.compile(f"latents.*latent={number}(&|$)"))
    expect(page.get_by_text("Strongest uses", exact=True)).to_be_visible()
    settled(page)
    page.go_back()
    expect(page.get_by_text("Token 4:")).to_be_visible()
    settled(page)
    light = page.locator(".light").first
    latent = re.match(r"latent (\d+)", light.get_attribute("aria-label"))[1]
    light.hover()
    expect(card).to_contain_text("explains")
    card.get_by_role("link", name="Open").click()
    page.wait_for_url(re.compile(f"latents.*latent={latent}(&|$)"))
    expect(page.get_by_text("Strongest uses", exact=True)).to_be_visible()
    assert_nothing_failed(page)
    assert problems == []


def test_on_a_narrow_page_the_latent_of_a_row_stays_while_its_columns_are_scrolled(
    address, page, problems
):
    page.set_viewport_size({"width": 390, "height": 900})
    decompose(page, address, "&token=4&view=what-if")
    rows = page.locator(".rows")
    expect(rows.locator("td.actions").first).to_be_visible()
    box = rows.bounding_box()
    assert box["x"] + box["width"] <= 390
    rows.evaluate("one => { one.scrollLeft = 300; }")
    held = rows.locator("td.latent").first.bounding_box()
    assert abs(held["x"] - box["x"]) < 3
    assert rows.locator("td.actions").first.bounding_box()["x"] < box["x"] - 100
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


def test_arrow_keys_go_from_token_to_token_and_stop_at_both_ends(address, page, problems):
    decompose(page, address, "&token=4")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile("token=6"))
    expect(page.get_by_text("Token 6:")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(re.compile("token=5"))
    settled(page)
    last = page.locator(".token.clickable").count()
    for _ in range(last + 3):
        page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile(f"token={last}(&|$)"))
    box = page.get_by_role("textbox", name="Text")
    box.click()
    page.keyboard.press("ArrowLeft")  # moves the cursor in the field
    settled(page)
    assert f"token={last}" in page.url
    assert problems == []


def test_terms_stay_in_sight_beside_a_long_text_and_below_it_on_a_narrow_screen(
    address, page, problems
):
    text = "The%20army%20marched%20to%20the%20river.%20" * 60
    page.goto(f"{address}/decompose?text={text}&token=4")
    heading = page.get_by_text("Token 4:")
    expect(heading).to_be_visible()
    settled(page)
    page.set_viewport_size({"width": 950, "height": 420})
    page.locator(".token.clickable").last.evaluate("one => one.scrollIntoView({block: 'center'})")
    settled(page)
    beside, text_box = heading.bounding_box(), page.locator(".text").last.bounding_box()
    assert 0 < beside["y"] < 200
    assert beside["x"] > text_box["x"] + text_box["width"]
    page.set_viewport_size({"width": 800, "height": 900})
    settled(page)
    beside, text_box = heading.bounding_box(), page.locator(".text").last.bounding_box()
    assert beside["y"] > text_box["y"] + text_box["height"]
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
    expect(page.get_by_text("Strongest uses", exact=True)).to_be_visible()
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
    expect(page.get_by_text("Strongest uses", exact=True)).to_be_visible()
    settled(page)
    page.go_back()
    page.wait_for_url(here)
    expect(page.get_by_text(re.compile(r"^Token \d+: ' army'"))).to_be_visible()
    assert_nothing_failed(page)
    assert problems == []


def test_an_example_is_decomposed_with_its_token_locked(address, page, problems):
    page.goto(f"{address}/latents?latent=5&kind=all")
    expect(page.get_by_text("Strongest uses", exact=True)).to_be_visible()
    row = page.locator(".row", has=page.get_by_role("button", name="decompose")).first
    boxed = row.locator(".token.boxed").inner_text()
    row.get_by_role("button", name="decompose").click()
    expect(page.locator(".token.locked")).to_have_text(boxed)
    expect(page.get_by_text(re.compile(r"^Token \d+:"))).to_be_visible()
    assert_nothing_failed(page)
    assert problems == []


def test_a_text_is_written_plain_and_steered_side_by_side(address, page, problems):
    decompose(page, address, "&view=steer&steer=7&strength=2&tokens=10")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.get_by_text("mean log-probability")).to_have_count(2)
    expect(page.get_by_text("As the model is", exact=True)).to_be_visible()
    expect(page.get_by_text("Strength +2")).to_be_visible()
    expect(page.get_by_role("button", name="Export the texts")).to_be_visible()
    picture(page, "steer")
    page.get_by_role("button", name="Strengths from −1 to 1").click()
    expect(page.get_by_text("by the model as it is", exact=False)).not_to_have_count(2)
    texts = page.locator(".stMarkdown", has_text="mean log-probability")
    expect(texts).to_have_count(9)
    for width in (1280, 390):  # in as many rows as they need: nothing runs off the page
        page.set_viewport_size({"width": width, "height": 900})
        settled(page)
        boxes = [texts.nth(number).bounding_box() for number in range(9)]
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
    assert_nothing_failed(page)
    assert problems == []


def test_a_text_that_is_being_written_can_be_stopped_and_stays(address, page, problems):
    decompose(page, address, f"&view=steer&steer=7&strength=2&tokens={LONGEST}")
    page.get_by_role("button", name="Generate", exact=True).click()
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
    page.get_by_text("Any factor, or another latent instead").click()
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


def test_the_card_of_a_row_leaves_the_text_and_its_row_free(address, page, problems):
    decompose(page, address, "&token=4")
    rows, card = page.locator(".rows"), page.locator(".card:popover-open")
    for width, height in ((1280, 900), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        settled(page)
        for number in (0, 2, 5):
            row = rows.locator("tbody tr").nth(number)
            row.scroll_into_view_if_needed()
            row.hover(position={"x": 12, "y": 8})
            latent = row.locator("td.number").last.inner_text()
            expect(card).to_contain_text(f"latent {latent} ·")
            column, at, line = rows.bounding_box(), card.bounding_box(), row.bounding_box()
            assert column["x"] - 1 <= at["x"]
            assert at["x"] + at["width"] <= column["x"] + column["width"] + 1
            is_below = at["y"] >= line["y"] + line["height"]
            assert is_below or at["y"] + at["height"] <= line["y"]
            picture(page, f"card-of-row-{width}-{number}")
            page.mouse.move(2, 2)
            expect(card).to_have_count(0)
    assert problems == []


def test_selecting_text_in_a_row_does_not_open_its_latent(address, page, problems):
    decompose(page, address, "&token=4")
    settled(page)
    quote = page.locator(".rows tbody tr").nth(1).locator("td.quote")
    box = quote.bounding_box()
    page.mouse.move(box["x"] + 4, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    page.wait_for_timeout(1_000)
    assert "/decompose" in page.url
    page.mouse.click(box["x"] + 100, box["y"] + box["height"] / 2)
    page.wait_for_url(re.compile("/latents"))
    assert problems == []


def test_buttons_at_a_term_edit_it_and_kept_edits_come_back(address, page, problems):
    decompose(page, address, "&token=4&view=what-if")
    edit = page.get_by_test_id("stMetric").filter(has_text="KL of the edit")
    expect(edit).to_contain_text("0.0000")
    settled(page)
    first = page.locator(".rows tbody tr").first
    first.get_by_role("button", name=re.compile("^Remove ")).click()
    page.wait_for_url(re.compile(r"edits=\d+(\*|%2A)0(&|$)"))
    expect(edit).not_to_contain_text("0.0000")
    expect(first.locator("button.pressed")).to_have_text("×0")
    removed = re.search(r"edits=([^&]*)", page.url)[1]
    settled(page)
    page.locator(".rows tbody tr").nth(1).get_by_role("button", name=re.compile("^Turn")).click()
    page.wait_for_url(re.compile("edits=.*(,|%2C)"))
    expect(page.get_by_text("Edits of this text so far")).to_be_visible()
    settled(page)
    for _ in range(2):  # one button takes back what it did
        page.locator("button.pressed").last.click()
        settled(page)
    assert "edits=" not in page.url
    kept = page.locator(".rows tbody tr", has_text=":").filter(has_not_text=",")
    kept.last.click()
    page.wait_for_url(re.compile("edits="))
    settled(page)
    assert removed in page.url
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
