"""What a click brings is in sight of what was clicked, which stays where it is."""

from playwright.sync_api import expect

from tests.support.browser import settled


def top(locator) -> float:
    return locator.bounding_box()["y"]


def test_a_button_that_queues_a_job_stays_in_place_and_a_toast_answers(page, address, problems):
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{address}/train")
    button = page.get_by_role("button", name="Start training")
    button.scroll_into_view_if_needed()
    settled(page)
    before = top(button)
    button.click()
    toast = page.get_by_test_id("stToast")
    expect(toast).to_contain_text("layers")
    cancel = page.get_by_role("button", name="Cancel")
    expect(cancel).to_have_count(1)  # on the card, which stands above
    settled(page)
    assert abs(top(button) - before) < 2
    cancel.evaluate("button => button.click()")  # where it is, without scrolling there
    expect(cancel).to_have_count(0)
    settled(page)
    assert abs(top(button) - before) < 2
    assert problems == []


def test_what_an_edit_changes_is_said_in_sight_of_its_button(page, address, problems):
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{address}/decompose?token=6&view=what-if")
    row = page.locator(".rows tbody tr").first
    row.wait_for()
    settled(page)
    before = top(row)
    row.locator("button").first.click()
    answer = page.get_by_text("changes most what comes after")
    expect(answer).to_be_in_viewport()
    settled(page)
    assert abs(top(row) - before) < 2
    expect(page.locator(".card:popover-open")).to_have_count(0)  # the mouse is on the button
    assert problems == []


def test_the_card_of_a_row_leaves_the_head_of_its_table_and_the_wheel_free(page, address, problems):
    page.goto(f"{address}/decompose?token=6")
    rows, card = page.locator(".rows"), page.locator(".card:popover-open")
    rows.locator("tbody tr").first.wait_for()
    for height in (640, 800, 1_000):
        page.set_viewport_size({"width": 1280, "height": height})
        settled(page)
        for number in (0, 2):
            row = rows.locator("tbody tr").nth(number)
            row.scroll_into_view_if_needed()
            page.wait_for_timeout(500)  # what scrolls hides a card
            row.hover(position={"x": 12, "y": 8})
            expect(card).to_have_count(1)
            box, line = card.bounding_box(), row.bounding_box()
            head = rows.locator("thead").bounding_box()
            for free in (head, line):
                is_above = box["y"] + box["height"] <= free["y"] + 1
                assert is_above or box["y"] >= free["y"] + free["height"] - 1
            assert box["y"] + box["height"] <= height
            expect(card.get_by_role("link", name="Open")).to_be_in_viewport()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)
            page.wait_for_timeout(400)
            expect(card).to_have_count(1)  # it can be reached
            page.mouse.wheel(0, 40)
            expect(card).to_have_count(0)
            page.mouse.move(2, 2)
    assert problems == []


def test_the_chart_of_a_token_and_its_caption_are_in_sight_at_the_end_of_the_page(
    page, address, problems
):
    for width, height in ((1280, 800), (1440, 900)):
        page.set_viewport_size({"width": width, "height": height})
        page.goto(f"{address}/decompose?token=6")
        caption = page.get_by_text("Each bar is what one more term explains")
        caption.wait_for()
        settled(page)
        column = page.locator(".st-key-sides > div > div > .stColumn").last
        hidden = column.evaluate("one => one.scrollHeight - one.clientHeight")
        assert hidden == 0  # the table alone has a scroll bar of its own
        page.mouse.move(width / 4, height / 2)
        page.mouse.wheel(0, 10_000)
        for part in (page.locator(".st-key-waterfall"), caption):
            expect(part).to_be_in_viewport(ratio=1)
    assert problems == []


def test_the_controls_of_steer_are_in_sight_when_it_opens(page, address, problems):
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{address}/decompose?token=6&view=steer")
    for label in ("Latent", "Strength"):
        expect(page.get_by_label(label, exact=True).first).to_be_in_viewport()
    assert problems == []


def test_what_opens_below_the_window_comes_into_it_and_what_a_link_opens_does_not(
    page, address, problems
):
    page.set_viewport_size({"width": 1280, "height": 560})
    page.goto(address)
    more = page.locator(".rows tbody button").last
    more.wait_for()
    settled(page)
    main = page.get_by_test_id("stMain")
    assert main.evaluate("main => main.scrollTop") == 0
    more.evaluate("button => button.click()")  # where it is, without scrolling there
    expect(page.get_by_role("link", name="Evaluate it")).to_be_in_viewport()
    settled(page)
    main.evaluate("main => main.scrollTo(0, 0)")
    page.locator("h1").click()
    page.wait_for_timeout(1_000)
    assert main.evaluate("main => main.scrollTop") == 0  # once for each click
    page.goto(f"{address}/decompose?token=6&view=steer")
    generate = page.get_by_role("button", name="Generate")
    generate.wait_for()
    settled(page)
    generate.evaluate("button => button.click()")
    expect(page.locator("strong", has_text="As the model is")).to_be_in_viewport()
    assert problems == []


def test_the_picture_of_the_first_page_is_made_for_its_width(page, address, problems):
    page.goto(address)
    pictures = {name: page.locator(f".st-key-picture_{name} img") for name in ("wide", "narrow")}
    for width, shown, hidden in ((1280, "wide", "narrow"), (390, "narrow", "wide")):
        page.set_viewport_size({"width": width, "height": 844})
        expect(pictures[shown]).to_be_visible()
        expect(pictures[hidden]).to_be_hidden()
        drawn = {"wide": 580, "narrow": 330}[shown]
        assert pictures[shown].bounding_box()["width"] > 0.9 * drawn  # its text keeps its size
    assert problems == []


def test_on_a_narrow_page_what_stands_below_the_text_is_whole(page, address, problems):
    page.set_viewport_size({"width": 390, "height": 600})
    page.goto(f"{address}/decompose?token=6&view=steer")
    page.get_by_role("button", name="Generate").wait_for()
    settled(page)
    column = page.locator(".st-key-sides > div > div > .stColumn").last
    assert column.evaluate("one => getComputedStyle(one).overflowY") == "visible"
    assert column.evaluate("one => one.clientHeight") > 600  # more than the window shows
    assert problems == []


def test_a_question_stays_open_where_a_job_ends_and_is_gone_once_it_is_answered(
    page, address, problems
):
    page.goto(f"{address}/train")
    page.get_by_role("button", name="Start training").click()
    cancel = page.get_by_role("button", name="Cancel")
    expect(cancel).to_have_count(1)
    settled(page)
    page.locator("summary").filter(has_text="layer 2").first.click()
    delete = page.get_by_role("button", name="Delete …").locator("visible=true")
    delete.click()
    confirm = page.get_by_role("button", name="Delete permanently")
    expect(confirm).to_be_visible()
    cancel.evaluate("button => button.click()")  # behind the question
    expect(cancel).to_have_count(0)
    settled(page, 3_000)
    expect(confirm).to_be_visible()
    page.get_by_role("button", name="Keep it").click()
    expect(confirm).to_have_count(0)
    delete.click()
    expect(confirm).to_be_visible()
    page.keyboard.press("Escape")
    expect(confirm).to_have_count(0)
    page.get_by_role("link", name="Latents", exact=True).click()
    page.get_by_role("link", name="Train", exact=True).click()
    expect(page.get_by_text("Start training")).to_be_visible()
    settled(page)
    expect(confirm).to_have_count(0)
    assert problems == []
