"""A browser, a page in it, and what went wrong there."""

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.support.browser import EXPECTED_MISSES
from tools.browser_setup import BROWSER_OPTIONS, find_browser

# How fast a page is stands in docs/performance.md; here it may take its time.
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=BROWSER_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def problems():
    """What went wrong in the browser, whatever the test was looking at."""
    return []


@pytest.fixture
def page(browser, problems):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: _note_console(message, problems))
    yield page
    page.close()


def _note_console(message, problems: list[str]) -> None:
    source = message.location.get("url", "")
    if message.type == "error" and not source.endswith(EXPECTED_MISSES):
        problems.append(f"{message.text} ({source})")
