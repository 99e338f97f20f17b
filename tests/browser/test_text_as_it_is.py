"""What a person or a file supplied is shown as it is, in a real browser: in every place that a page
can show text in, and on the app's pages."""

import json
import shutil
import subprocess
import sys

import pytest
from playwright.sync_api import Page, expect

from itda_core.runs.run import list_runs
from tests.support.browser import PATIENCE, settled
from tests.support.payloads import PAYLOADS
from tools.browser_setup import REPOSITORY, find_browser, running_app

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no browser"),
]

_PLACES = """(place) => [...place.querySelectorAll(
  '[data-testid="stMarkdownContainer"], [data-testid="stCaptionContainer"]'
)].map((one) => one.textContent)"""
_N_PLACES = 13
"""Of tests/support/shown_as_it_is.py, the hover's not counted"""
_FOREIGN = """() => [...document.querySelectorAll("a, img, script, iframe")]
  .map((one) => one.href?.baseVal ?? one.href ?? one.src ?? "")
  .filter((address) => address && new URL(address, location).hostname.endsWith("evil.example"))"""
_URL_TEXT = "http://evil.example/x www.evil.example -- :red[x] <b>y</b>"


def test_every_payload_is_shown_as_it_is_in_every_place(page: Page, tmp_path):
    with running_app(tmp_path, script="tests/support/shown_as_it_is.py") as address:
        page.goto(address)
        expect(page.locator(".stPlotlyChart .xtick")).to_have_count(len(PAYLOADS), timeout=PATIENCE)
        settled(page)
        assert page.evaluate(_FOREIGN) == []
        for number, text in enumerate(PAYLOADS):
            place = page.locator(f".st-key-place_{number}")
            place.scroll_into_view_if_needed()
            expect(place.get_by_test_id("stSkeleton")).to_have_count(0)
            told = place.evaluate(_PLACES)
            assert f"Between {text} words" in told
            assert sum(text in one for one in told) >= _N_PLACES, (text, told)
        tabs = page.get_by_role("tab").all_text_contents()
        assert tabs == PAYLOADS
        ticks = page.locator(".xtick text").evaluate_all(
            "all => all.map((one) => one.textContent.replaceAll('\\u00a0', ' '))"
        )
        assert ticks == PAYLOADS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dictionary of prompts that are payloads, with payloads as their titles, as its name and as
    its labels."""
    data = tmp_path_factory.mktemp("hostile")
    rows = [
        {"text": f"{text} number {number} of {text}", "title": text}
        for number in range(40)
        for text in PAYLOADS
    ]
    corpus = data / "www.evil.example -- corpus.jsonl"
    corpus.write_text("\n".join(map(json.dumps, rows)))
    command = [sys.executable, "-m", "itda_core", "train", "--model", "tiny-6x128-0"]
    sizes = ["--layers", "2,4", "--max-tokens", "6000", "--max-atoms", "200", "--l0", "6"]
    subprocess.run(
        [*command, *sizes, "--no-scores", "--corpus", str(corpus), "--runs", str(data / "runs")],
        cwd=REPOSITORY, check=True,
    )  # fmt: skip
    runs = list_runs(data / "runs")
    names = {run.run_id: text for run, text in zip(runs, PAYLOADS, strict=False)}
    (data / "names.json").write_text(json.dumps({"version": 1, "names": names}))
    yield data
    shutil.rmtree(data, ignore_errors=True)


VIEWS = [
    "", "train", f"train?model={_URL_TEXT}&corpus={_URL_TEXT}", "latents", "latents?view=map",
    f"latents?search={_URL_TEXT}&latent={_URL_TEXT}", "latents?latent=3",
    f"decompose?text={_URL_TEXT}", f"decompose?text={_URL_TEXT}&token=2",
    f"decompose?text={_URL_TEXT}&token={_URL_TEXT}&latent={_URL_TEXT}&edits={_URL_TEXT}",
    f"decompose?prompt={_URL_TEXT}", f"decompose?text={_URL_TEXT}&view=steer&with={_URL_TEXT}",
    f"decompose?prompts={_URL_TEXT}", "similarity", f"similarity?row={_URL_TEXT}&left={_URL_TEXT}",
    f"similarity?view=latents&same={_URL_TEXT}", f"evaluate?run={_URL_TEXT}",
]  # fmt: skip


def test_no_view_makes_links_or_dashes_of_what_was_supplied(address, page: Page, problems):
    for view in VIEWS:
        page.goto(f"{address}/{view}")
        expect(page.locator("h1")).to_be_visible()
        settled(page)
        assert page.evaluate(_FOREIGN) == [], view
        told = page.locator(".stMain").inner_text()
        assert not any(sign in told for sign in ("a → b", "c — d", "<b>y</b> — ")), view
        for colours in ("stMarkdownColoredText", "stMarkdownColoredBackground"):
            assert page.locator(f".{colours}", has_text="x").count() == 0, view
    assert problems == []
