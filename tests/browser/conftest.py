"""A browser, a page in it, what went wrong there, and the app on a small model's dictionaries."""

import shutil
import subprocess
import sys

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.support.browser import EXPECTED_MISSES
from tests.support.once import made_once
from tools.browser_setup import BROWSER_OPTIONS, REPOSITORY, find_browser, running_app

# How fast a page is stands in docs/performance.md; here it may take its time.
expect.set_options(timeout=180_000)


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
    page.set_default_timeout(180_000)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: _note_console(message, problems))
    yield page
    page.close()


def _note_console(message, problems: list[str]) -> None:
    source = message.location.get("url", "")
    if message.type == "error" and not source.endswith(EXPECTED_MISSES):
        problems.append(f"{message.text} ({source})")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two layers of a built-in model that is small enough to train in seconds: a folder of each
    file's own."""
    data = tmp_path_factory.mktemp("explorer")
    shutil.copytree(made_once(tmp_path_factory, "explored", _train), data, dirs_exist_ok=True)
    yield data
    shutil.rmtree(data, ignore_errors=True)


@pytest.fixture(scope="module")
def address(data):
    """The app on them."""
    with running_app(data) as address:
        yield address


def _train(folder) -> None:
    command = [sys.executable, "-m", "itda_core", "train", "--model", "tiny-6x128-0", "--layers"]
    sizes = ["--max-tokens", "6000", "--max-atoms", "300", "--l0", "8", "--no-scores"]
    subprocess.run(
        [*command, "2,4", *sizes, "--runs", str(folder / "runs")], cwd=REPOSITORY, check=True
    )
