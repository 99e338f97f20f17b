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
