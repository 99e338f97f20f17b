"""What the browser tests look at and keep pictures of."""

import os
import re
import shutil

from playwright.sync_api import Locator, Page, expect

from tools.browser_setup import REPOSITORY

SCREENSHOTS = REPOSITORY / "screenshots"
PICTURES = os.environ.get("ITDA_PICTURES")
PATIENCE = 400_000
TEXT = "The Senate will ratify the treaty with Spain and"
"""What the pages decompose"""
# Streamlit looks for its server below the page's path first when a page is opened by its link.
EXPECTED_MISSES = ("_stcore/health", "_stcore/host-config")


def assert_nothing_failed(page: Page) -> None:
    expect(page.get_by_test_id("stException")).to_have_count(0)
    expect(page.get_by_test_id("stAlertContentError")).to_have_count(0)


_IS_QUIET = """(milliseconds) => {
  const app = document.querySelector('[data-testid="stApp"]');
  // What a component draws has no text here, but a height; before, a skeleton holds its place.
  const { scrollHeight } = document.querySelector('[data-testid="stMain"]') ?? document.body;
  const seen = `${location.href} ${document.body.innerText.length} ${scrollHeight}`;
  const isRunning = app?.getAttribute("data-test-script-state") !== "notRunning";
  const isDrawn = !document.querySelector('[data-testid="stSkeleton"]');
  if (isRunning || !isDrawn || window.itdaSeen !== seen) {
    window.itdaSeen = seen;
    window.itdaSince = performance.now();
  }
  return performance.now() - window.itdaSince > milliseconds;
}"""


def settled(page: Page, milliseconds: int = 700) -> None:
    """Wait until the page's script has ended, all its components are drawn, and neither its text
    nor its height nor its address changes for so long, on however slow a machine."""
    page.evaluate("window.itdaSeen = null")  # what was quiet before may just not have begun
    page.wait_for_function(_IS_QUIET, arg=milliseconds, polling=100)


def picture(page: Page, name: str, documented: bool = False, height: int = 900) -> None:
    """Keep a screenshot; the documented ones also go to the documentation when asked for. height:
    of the window meanwhile, for what would be cut."""
    page.evaluate("document.activeElement.blur()")
    usual = page.viewport_size
    if height > usual["height"]:
        page.set_viewport_size(usual | {"height": height})
    settled(page)
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
    page.set_viewport_size(usual)
    if documented and PICTURES:
        folder = REPOSITORY / PICTURES
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(SCREENSHOTS / f"{name}.png", folder / f"{name}.png")


def to_next(page: Page) -> Locator:
    """The button that goes to the next latent, beside the one that turns the list's page."""
    return page.get_by_role("button", name=re.compile("^Next(?! page)"))


def to_previous(page: Page) -> Locator:
    """The same of the latent before."""
    return page.get_by_role("button", name=re.compile("^Previous(?! page)"))
