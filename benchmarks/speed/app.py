"""The app in a real browser on a full data folder: seconds from a click to what it shows.

.venv/bin/python -m benchmarks.speed.app [--quick]
"""

import argparse
import dataclasses
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from benchmarks.common.activations import config, smollm2
from benchmarks.common.harness import Report, Spread
from benchmarks.speed import synthetic
from benchmarks.speed.drawn import L0, make_runs
from benchmarks.speed.strip import report_strip
from itda_core.store.store import Store
from itda_core.training.trainer import train
from tools.browser_setup import BROWSER_OPTIONS, find_browser, running_app

ROUNDS = 9
_CHART = ".js-plotly-plot:not([data-old])"
LATENT, DECOMPOSE, HEATMAP, FIRST_PAGE = 0.3, 0.5, 1.0, 1.0
EDIT, FIRST_TOKEN = 1.0, 1.0
_NEXT = re.compile("^Next(?! page)")  # latent; another button turns the page of the list


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    quick = parser.parse_args().quick
    if find_browser() is None:
        sys.exit("No browser: install Chromium or Chrome to measure the app.")
    small, n_layers = (50, 3) if quick else (1, 30)
    report = Report(
        "app",
        "App",
        "Headless Chromium on the same two cores as the app. The data folder holds 10 "
        "dictionaries with 20 million codes, two models of 30 layers with 4,096 atoms each, and "
        "a dictionary of SmolLM2's layer 7. Seconds from the click until the page shows the "
        "answer.",
    )
    with tempfile.TemporaryDirectory(prefix="itda-bench-") as folder:
        data = Path(folder)
        large, real = _fill(data, small, n_layers)
        with running_app(data) as address, _page() as page:
            _first_page(report, page, address)
            _latents(report, page, address, large)
            _decompose(report, page, address, real)
            _what_if(report, page, address, real)
            _steer(report, page, address, real)
            _similarity(report, page, address, n_layers)
            report_strip(report, page)
    if not quick:
        report.save()


def _fill(data: Path, small: int, n_layers: int) -> tuple[str, str]:
    """A data folder as a diligent user has it after some weeks, imported; returns the ids of a
    dictionary with many codes and of one that a model on this machine made."""
    smollm2()  # converts the built-in model once; the app finds it by the link
    cache = Path(os.environ["ITDA_DATA"]) / "cache"
    (data / "cache").symlink_to(cache.resolve(), target_is_directory=True)
    runs = data / "runs"
    tokens = 20_000_000 // small // 10 // L0
    store = Store(data / "explorer.duckdb")
    drawn = list(make_runs(runs, 10, tokens))
    synthetic.write_models(runs, n_layers=n_layers)
    settings = dataclasses.replace(config(8_192, max_atoms=2_048), layers=(7,))
    *_, last = train(settings, runs)
    store.import_new(runs)
    store.close()
    return drawn[0].run_id, last.finished[0]


@contextmanager
def _page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=BROWSER_OPTIONS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(20_000)
        expect.set_options(timeout=20_000)
        yield page
        browser.close()


def _seconds(act: Callable[[], object], shown: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    shown()
    return time.perf_counter() - started


def _settled(page: Page) -> None:
    """Until the server has nothing more to send: what is drawn late must not count twice."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    page.wait_for_timeout(400)


def _judged(seconds: list[float], limit: float) -> tuple[str, bool]:
    """The spread in milliseconds, and whether its median keeps the limit."""
    spread = Spread(tuple(seconds))
    return f"{spread.times(1e3)} ms", spread.median <= limit


def _first_page(report: Report, page: Page, address: str) -> None:
    shown = page.get_by_text("What to do next")
    seconds = []
    for _ in range(6):
        seconds.append(_seconds(lambda: page.goto(address), lambda: expect(shown).to_be_visible()))
        _settled(page)
    report.table("The first page", [{"": "the server has just started", "seconds": seconds[0]}])
    report.target(
        "Opening the first page", f"≤ {FIRST_PAGE:g} s", *_judged(seconds[1:], FIRST_PAGE)
    )


def _latents(report: Report, page: Page, address: str, run_id: str) -> None:
    page.goto(f"{address}/latents?run={run_id}")
    expect(page.get_by_text("Strongest uses", exact=True)).to_be_visible()
    _settled(page)
    head = page.get_by_text(re.compile(r" · latent \d+ · ")).first
    seconds = []
    for number in range(ROUNDS + 1):
        before = head.inner_text()
        taken = _seconds(
            lambda: page.get_by_role("button", name=_NEXT).click(),
            lambda before=before: page.wait_for_function(
                """before => [...document.querySelectorAll('p')].some(
                    p => / · latent \\d+ · /.test(p.innerText) && p.innerText !== before)
                    && !document.querySelector('[data-stale="true"]')""",
                arg=before,
                polling="raf",
            ),
        )
        seconds += [taken] if number else []
        _settled(page)
    report.target("The next latent", f"≤ {LATENT * 1000:.0f} ms", *_judged(seconds, LATENT))


_SENTENCE = "the Senate will ratify a treaty with Spain and commerce shall flow to every port"


def _decompose(report: Report, page: Page, address: str, run_id: str) -> None:
    page.goto(f"{address}/decompose?run={run_id}")
    strip = page.locator(".strip", has=page.locator(".token.clickable")).first
    expect(strip).to_contain_text("treaty")
    box, seconds = page.get_by_role("textbox", name="Text"), []
    for number in range(1_000, 1_001 + ROUNDS):
        _settled(page)
        box.fill(" ".join([*(_SENTENCE.split() * 5)[:59], str(number)]))  # 59 words and four digits
        taken = _seconds(
            lambda: box.press("Control+Enter"),
            lambda number=number: expect(strip).to_contain_text(str(number)),
        )
        seconds += [taken] if number > 1_000 else []
    report.target(
        "Decomposing a prompt of 64 tokens, not seen before",
        f"≤ {DECOMPOSE * 1000:.0f} ms",
        *_judged(seconds, DECOMPOSE),
    )


_IS_OTHER = """text => [...document.querySelectorAll('[data-testid="stMetric"]')].some(
  one => one.innerText.includes("KL of the edit") && !one.innerText.includes(text))"""
_TEXT = " ".join((_SENTENCE.split() * 5)[:61])  # 64 tokens


def _what_if(report: Report, page: Page, address: str, run_id: str) -> None:
    page.goto(f"{address}/decompose?run={run_id}&text={_TEXT}&view=what-if")
    told = page.get_by_test_id("stMetric").filter(has_text="KL of the edit")
    told = told.get_by_test_id("stMetricValue")
    expect(told).to_have_text("0.0000")
    seconds = []
    for number in range(ROUNDS + 1):
        _settled(page)
        before = told.inner_text()
        row = page.locator(".rows tbody tr").nth(number)
        remove = row.get_by_role("button", name=re.compile("^Remove "))
        taken = _seconds(
            lambda remove=remove: remove.click(),
            # In every frame: `expect` would look after 0.1, 0.35, 0.85 and 1.85 s.
            lambda before=before: page.wait_for_function(_IS_OTHER, arg=before, polling="raf"),
        )
        seconds += [taken] if number else []
    report.target(
        "What if on a prompt of 64 tokens: an edit", f"≤ {EDIT:g} s", *_judged(seconds, EDIT)
    )


# Milliseconds from the click on, looked for in every frame: what was written before stays on the
# page until the new text takes its place.
_WATCH = r"""() => {
  const times = window.itdaTimes = {};
  const clicked = () => { times.click = performance.now(); };
  document.addEventListener("click", clicked, { capture: true, once: true });
  const look = () => {
    const said = document.querySelector('[data-testid="stMain"]').textContent;
    const passed = performance.now() - times.click;
    const isThere = /Strength \+0\.5 · mean/.test(said);
    if (times.click && !times.sign && said.includes("Generating …")) { times.sign = passed; }
    if (times.sign && !isThere) { times.gone = passed; }
    if (times.gone && isThere) { times.first = passed; } else { requestAnimationFrame(look); }
  };
  look();
}"""


def _steer(report: Report, page: Page, address: str, run_id: str) -> None:
    page.goto(f"{address}/decompose?run={run_id}&text={_TEXT}&view=steer&strength=0.5&tokens=10")
    write = page.get_by_role("button", name="Generate", exact=True)
    signs, firsts = [], []
    for number in range(ROUNDS + 1):
        expect(write).to_be_enabled()
        _settled(page)
        page.evaluate(_WATCH)
        write.click()
        page.wait_for_function("() => window.itdaTimes.first")
        times = page.evaluate("() => window.itdaTimes")
        signs += [times["sign"] / 1000] if number else []
        firsts += [times["first"] / 1000] if number else []
    for what, seconds in (("a sign of life", signs), ("the first steered token", firsts)):
        judged = _judged(seconds, FIRST_TOKEN)
        report.target(f"Steering a text of 64 tokens: {what}", f"≤ {FIRST_TOKEN:g} s", *judged)


def _similarity(report: Report, page: Page, address: str, n_layers: int) -> None:
    page.goto(f"{address}/similarity")
    expect(page.get_by_role("combobox", name="Model A")).to_be_visible()
    one, other = (f"{name} · layers 0–{n_layers - 1}" for name in ("smollm2-135m", "smollm2-copy"))
    for label, model in (("Model A", one), ("Model B", one)):
        _choose(page, label, model)
        _settled(page)
    circle = [("Model B", other), ("Model A", other), ("Model B", one), ("Model A", one)]
    n_cells = n_layers**2
    first = [_redrawn(page, n_cells, *step) for step in circle]
    report.table(
        "A 30 × 30 heatmap for the first time: it reads the 30 dictionaries of a model",
        [
            {"": label, "seconds": value}
            for (label, _), value in zip(circle[:1], first, strict=False)
        ],
    )
    seconds: dict[str, list[float]] = {"not asked for before": [], "looked at again": []}
    for name, key in zip([*seconds, "looked at again"], ("word", "word", "token"), strict=True):
        page.get_by_role("radio", name=re.compile(f"^{key}")).click()
        _settled(page)
        seconds[name] += [_redrawn(page, n_cells, *step) for step in circle]
    for name, values in seconds.items():
        report.target(
            f"A 30 × 30 heatmap of dictionaries read before, {name}",
            f"≤ {HEATMAP:g} s",
            *_judged(values, HEATMAP),
        )


def _redrawn(page: Page, n_cells: int, label: str, option: str) -> float:
    """Seconds from a choice until another matrix stands in the place of the one there is."""
    cells = page.locator(_CHART).first.locator(".scatterlayer .trace").first.locator(".point")
    page.evaluate("chart => document.querySelector(chart).dataset.old = 1", _CHART)
    page.get_by_role("combobox", name=label).click()
    wanted = page.get_by_role("option", name=option).first
    return _seconds(wanted.click, lambda: expect(cells).to_have_count(n_cells))


def _choose(page: Page, label: str, option: str) -> None:
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option", name=option).first.click()


if __name__ == "__main__":
    main()
