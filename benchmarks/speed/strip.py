"""The token strip by itself in a browser: how long 2,000 tokens take to draw and to light up.

.venv/bin/python -m benchmarks.speed.strip
"""

import numpy as np
from playwright.sync_api import Page, sync_playwright

from benchmarks.common.harness import Report, Spread
from pages.components.token_strip import strip as token_strip
from tools.browser_setup import BROWSER_OPTIONS, find_browser

TOKENS, LIGHTS, ROUNDS = 2_000, 24, 20
DRAW, HOVER = 0.1, 0.016
"""Seconds: what seems instant, and one frame of a screen"""

# Each time ends when the browser has laid out what changed.
_MEASURE = """async ({ source, css, data, rounds }) => {
  const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  document.head.append(Object.assign(document.createElement("style"), { textContent: css }));
  const parentElement = document.createElement("div");
  parentElement.innerHTML = '<div class="strip"></div>';
  document.body.replaceChildren(parentElement);
  const timed = (act) => {
    const started = performance.now();
    act();
    parentElement.getBoundingClientRect();
    return (performance.now() - started) / 1000;
  };
  const found = { draw: [], token: [], light: [] };
  for (let round = 0; round < rounds; round += 1) {
    found.draw.push(timed(() => module.default({ data, parentElement, setStateValue: () => {} })));
    const enter = (all, index) => timed(
      () => all[index % all.length].dispatchEvent(new MouseEvent("mouseenter")));
    found.token.push(enter(parentElement.querySelectorAll(".token"), 97 * round + 5));
    found.light.push(enter(parentElement.querySelectorAll(".light"), round));
  }
  return found;
}"""


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=BROWSER_OPTIONS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        for name, seconds in measure(page).items():
            print(f"{name}: {Spread(tuple(seconds)).times(1e3)} ms")
        browser.close()


def measure(page: Page) -> dict[str, list[float]]:
    """Seconds of each drawing, and of each time that the mouse comes onto a token or a latent."""
    page.goto("about:blank")
    arguments = {
        "source": token_strip.JS,
        "css": token_strip.CSS,
        "data": _data(),
        "rounds": ROUNDS + 1,
    }
    found = page.evaluate(_MEASURE, arguments)
    return {name: seconds[1:] for name, seconds in found.items()}  # the first one compiles


def report_strip(report: Report, page: Page) -> None:
    """The targets of the strip, for docs/performance.md."""
    found = measure(page)
    for name, what, limit in (
        ("draw", f"Drawing a strip of {TOKENS:,} tokens", DRAW),
        ("token", "The mouse on one of its tokens", HOVER),
        ("light", "The mouse on a latent that lights its tokens", HOVER),
    ):
        spread = Spread(tuple(found[name]))
        wanted = f"≤ {limit * 1000:.0f} ms"
        report.target(what, wanted, f"{spread.times(1e3)} ms", spread.median <= limit)


def _data() -> dict:
    """What the Decompose page sends for a text of so many tokens."""
    rng = np.random.default_rng(0)
    words = [f" word{number}" for number in rng.integers(0, 1_000, TOKENS)]
    ends = np.cumsum([len(word) for word in words])
    spans = list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))
    hovers = [f"{word!r}, token {n}\n12.3% left unexplained" for n, word in enumerate(words)]
    row = token_strip.token_row("".join(words), spans, -rng.random(TOKENS), hovers, breaks=True)
    lights = []
    for latent in range(LIGHTS):
        positions = np.sort(rng.choice(TOKENS, 200, replace=False)).tolist()
        light = token_strip.light(latent, "word", "latent", positions, rng.normal(size=200))
        lights.append(light)
    return {"rows": [row], "clickable": True, "locked": None, "lights": lights, "lit": None}


if __name__ == "__main__":
    main()
