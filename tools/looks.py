"""Pictures of every page in one go, to look at: how the explorer looks to those who open it.

    python -m tools.looks [--data FOLDER] [--state none one forty busy] [--page NAME …]
        [--out FOLDER]

Each page is opened with no dictionary, with one, with forty and while a job runs, 1280 and 390
pixels wide in light colours and 1440 in dark ones, and is photographed as long as it is. Of each
state and size there are sheets with the pages side by side, sheets/STATE-SIZE-1.png and so on.
--data: a data folder of one's own, in place of those that are made of the models in data/models.
"""

import argparse
import html
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.browser import settled
from tools.browser_setup import BROWSER_OPTIONS, REPOSITORY, find_browser, running_app

PAGES = {
    "overview": "",
    "train": "train",
    "latents": "latents?search=the",
    "latent": "latents?latent=7",
    "map": "latents?view=map",
    "decompose": "decompose?token=6",
    "what-if": "decompose?token=6&view=what-if",
    "steer": "decompose?token=6&view=steer",
    "two": "decompose?token=6&view=two",
    "similarity": "similarity",
    "similarity-models": "similarity?view=models",
    "similarity-latents": "similarity?view=latents",
    "evaluate": "evaluate",
}
LONGEST = 4_000
"""Pixels of a picture from top to bottom"""
_ON_A_SHEET = 6
_SHEET_CSS = """
body { display: grid; gap: 12px; background: #888; font: 16px sans-serif; }
figure { margin: 0; max-height: 780px; overflow: hidden; }
img { width: 100%; }
"""
_MODELS = [f"tiny-{shape}-{seed}" for shape in ("6x128", "12x96") for seed in range(4)]


@dataclass(frozen=True)
class Size:
    """A window and its colours."""

    name: str
    width: int
    height: int
    colours: str
    columns: int = 3
    """of a sheet of its pictures"""


SIZES = [
    Size("1280", 1280, 900, "light"),
    Size("1440-dark", 1440, 900, "dark"),
    Size("390", 390, 844, "light", columns=6),
]


def photograph(browser: Browser, address: str, size: Size, names: list[str], folder: Path) -> None:
    """One picture for each page, in the folder; what a page fails at is said, and the next one
    goes on."""
    window = {"width": size.width, "height": size.height}
    for name in names:
        page = browser.new_page(viewport=window, color_scheme=size.colours)
        try:
            page.goto(f"{address}/{PAGES[name]}")
            page.locator("h1").wait_for(timeout=120_000)
            settled(page, 1_500)
            _stretch(page, window)
            page.screenshot(path=folder / f"{name}.png")
        except Exception as error:
            print(f"{folder.name} {name}: {type(error).__name__}: {str(error)[:200]}")
        page.close()


def _stretch(page: Page, window: dict) -> None:
    """The window as high as the page, which scrolls within it."""
    height = page.evaluate("document.querySelector('.stMain').scrollHeight")
    page.set_viewport_size(window | {"height": min(max(height, window["height"]), LONGEST)})
    settled(page)


def write_sheets(browser: Browser, folder: Path, stem: Path, columns: int) -> None:
    """The pictures of a folder side by side, each with its name: so many on a sheet that they can
    be told. stem: where to; each sheet's number and ending are put behind it; columns: of a
    sheet."""
    names = [name for name in PAGES if (folder / f"{name}.png").exists()]
    for number, start in enumerate(range(0, len(names), _ON_A_SHEET), 1):
        listing = folder / "sheet.html"
        listing.write_text(_sheet(names[start : start + _ON_A_SHEET], columns), encoding="utf-8")
        page = browser.new_page(viewport={"width": 1_600, "height": 900})
        page.goto(listing.as_uri())
        page.wait_for_function("[...document.images].every(image => image.complete)")
        page.screenshot(path=stem.with_name(f"{stem.name}-{number}.png"), full_page=True)
        page.close()
        listing.unlink()


def _sheet(names: list[str], columns: int) -> str:
    figures = "".join(
        f'<figure><figcaption>{html.escape(name)}</figcaption><img src="{name}.png"></figure>'
        for name in names
    )
    grid = f"body {{ grid-template-columns: repeat({columns}, 1fr); }}"
    return f"<meta charset=utf-8><style>{_SHEET_CSS}{grid}</style>{figures}"


def make_data(state: str, data: Path) -> None:
    """A data folder with no dictionary, with one, or with forty of eight models."""
    models = {"none": [], "forty": _MODELS}.get(state, _MODELS[:1])
    for model in models:
        layers = "2" if state != "forty" else "1,2,3,4,5"
        _itda(data, "train", "--model", model, "--layers", layers, *_SIZES)


_SIZES = ["--max-tokens", "4000", "--max-atoms", "300", "--l0", "8"]


def _itda(data: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "itda_core", *arguments, "--runs", str(data / "runs")]
    subprocess.run(command, cwd=REPOSITORY, check=True, stderr=subprocess.DEVNULL)


def _start_a_job(browser: Browser, address: str) -> None:
    """A training that takes longer than the pictures."""
    page = browser.new_page()
    page.goto(f"{address}/train")
    page.get_by_role("button", name="Start training").click(timeout=120_000)
    page.get_by_role("button", name="Cancel").first.wait_for(timeout=120_000)
    page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a data folder; it is not written to")
    states = ["none", "one", "forty", "busy"]
    parser.add_argument("--state", nargs="+", choices=states, default=states)
    parser.add_argument("--page", nargs="+", choices=list(PAGES), default=list(PAGES))
    parser.add_argument("--out", type=Path, default=REPOSITORY / "screenshots" / "looks")
    asked = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=BROWSER_OPTIONS)
        for state in ["own"] if asked.data else asked.state:
            _show_state(browser, state, asked)
        browser.close()
    print(f"Pictures: {asked.out}; sheets: {asked.out / 'sheets'}")


def _show_state(browser: Browser, state: str, asked: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        if asked.data:
            shutil.copytree(asked.data, data)
        else:
            make_data(state, data)
        with running_app(data) as address:
            if state == "busy":
                _start_a_job(browser, address)
            for size in SIZES:
                pictures = asked.out / f"{state}-{size.name}"
                pictures.mkdir(parents=True, exist_ok=True)
                (asked.out / "sheets").mkdir(exist_ok=True)
                photograph(browser, address, size, asked.page, pictures)
                stem = asked.out / "sheets" / f"{state}-{size.name}"
                write_sheets(browser, pictures, stem, size.columns)


if __name__ == "__main__":
    main()
