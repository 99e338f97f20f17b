"""A dictionary moves to another model, as a newcomer would do it: five latents are labelled, the
dictionary is moved from the page, the labels are there, and the latents that changed most are
opened in both. On a built-in model that is small enough to train in seconds."""

import re

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from itda_core.runs.run import list_runs
from tests.support.browser import assert_nothing_failed, picture, settled, to_next
from tools.browser_setup import find_browser

LABELS = {number: f"name <{number}> of $x$" for number in range(40, 45)}
OTHER = "tiny-6x128-1"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no browser"),
]


def test_labels_move_with_a_dictionary_and_what_changed_most_is_opened(
    address, data, page, problems
):
    [run] = [run for run in list_runs(data / "runs") if run.layer == 4]
    label_latents(page, address, run.run_id)
    move(page, address, run.run_id)
    [moved] = [run for run in list_runs(data / "runs") if run.config.moved_from is not None]
    see_labels(page, address, moved.run_id)
    compare(page, address, run.run_id, moved.run_id)
    open_most_changed(page, most_changed(data))
    assert_nothing_failed(page)
    assert problems == []


def label_latents(page: Page, address: str, run_id: str) -> None:
    page.goto(f"{address}/latents?run={run_id}&latent={min(LABELS)}&kind=all")
    for number, label in LABELS.items():
        expect(page.get_by_text(f"latent {number} ·")).to_be_visible()
        page.get_by_role("textbox", name="Label").fill(label)
        page.keyboard.press("Enter")
        expect(page.get_by_text(f"Saved: label of latent {number}.")).to_be_visible()
        to_next(page).click()


def move(page: Page, address: str, run_id: str) -> None:
    page.goto(f"{address}/train")
    page.locator("summary").get_by_text(re.compile("layer 4")).first.click()
    page.locator(f".st-key-move_{run_id}").get_by_role("button").click()
    model = page.locator(".st-key-move_model").get_by_role("combobox")
    expect(model).to_be_visible()
    settled(page)  # a list that is open while the form is still drawn closes
    model.click()
    page.get_by_role("option", name=OTHER, exact=True).click()
    expect(page.get_by_text("It reads the")).to_be_visible()
    page.locator(".st-key-move_now").get_by_role("button").click()
    # Among the dictionaries: the move that made it links to it by the same name.
    listed = page.locator("summary").get_by_text(re.compile(f"{OTHER} · layer 4"))
    expect(listed).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


def see_labels(page: Page, address: str, run_id: str) -> None:
    page.goto(f"{address}/latents?run={run_id}&latent={min(LABELS)}&kind=all")
    for number, label in LABELS.items():
        expect(page.get_by_text(f"latent {number} ·")).to_be_visible()
        expect(page.get_by_text(f"“{label}”", exact=True)).to_be_visible()
        expect(page.get_by_role("link", name="from tiny-6x128-0 layer 4")).to_be_visible()
        to_next(page).click()


def compare(page: Page, address: str, left: str, right: str) -> None:
    page.goto(f"{address}/similarity?view=latents&left={left}&right={right}")
    expect(page.get_by_text("300 latents have the same source in both.")).to_be_visible()
    page.get_by_role("button", name="Compare their latents").click()
    expect(page.get_by_text("of the latents are used most like")).to_be_visible()
    expect(page.get_by_text("300 of 300 latents with the same source")).to_be_visible()
    settled(page)


def most_changed(data) -> list[int]:
    """A's latents by where the intervals of the correlations end in the file that the job wrote."""
    [file] = (data / "comparisons" / "latents").glob("*.parquet")
    table = pd.read_parquet(file)
    table = table[table[["uses_a", "uses_b"]].max(axis=1) >= 20].dropna(subset="correlation")
    either = table["uses_a"] + table["uses_b"] - table["uses_both"]
    z = np.arctanh(table["correlation"].clip(-0.999999, 0.999999))
    table = table.assign(end=z + 1.96 / np.sqrt(either - 3))
    return table.sort_values(["end", "correlation", "latent_a"])["latent_a"].head(5).tolist()


def open_most_changed(page: Page, numbers: list[int]) -> None:
    table = page.locator("[class*=st-key-same_list] tbody tr")
    for place, number in enumerate(numbers):
        if place:  # the first is open
            table.nth(place).locator("td.quote").click()
        expect(page).to_have_url(re.compile(rf"same={number}\b"))
        for side in "AB":
            card = page.get_by_text(re.compile(rf"^{side}: tiny-6x128-\d · layer 4 · latent"))
            expect(card).to_have_text(re.compile(rf"· latent {number}$"))
        expect(page.get_by_text("Their uses, under each other")).to_be_visible()
    picture(page, "same-latents", height=2_400)
    page.get_by_role("textbox", name="Label or note").fill("name <42>")
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 of 300 latents with the same source")).to_be_visible()
    expect(page.get_by_text(f"“{LABELS[42]}”", exact=True)).to_be_visible()
    there = f"“{LABELS[42]}” from tiny-6x128-0 layer 4"
    expect(page.get_by_text(there, exact=True)).to_be_visible()
