"""The whole road in a real browser, from an empty data folder to a second dictionary.

Screenshots are kept in screenshots/. With ITDA_PICTURES=folder (`make pictures`) the demo has
its full size and the pictures of the documentation are written there.
"""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from playwright.sync_api import Locator, Page, expect

from itda_core.model.built_in import built_in_folder
from tests.support.browser import (
    PATIENCE,
    PICTURES,
    assert_nothing_failed,
    picture,
    settled,
    to_next,
)
from tools.browser_setup import find_browser, running_app

DEMO_TOKENS = "3072"
SPECIAL = "A 👩‍👩‍👧 family & <script>alert(1)</script> with $x^2$, **stars**, שלום and `code`."

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        find_browser() is None and os.environ.get("CI") != "true", reason="no browser"
    ),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory, model_cache):
    """The app on a data folder that holds nothing but an unpacked SmolLM2, in its own process:
    test_loading.py unpacks it."""
    data = tmp_path_factory.mktemp("data")
    model_cache.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, FileLock(model_cache / "lock"):
        patch.setenv("ITDA_DATA", str(model_cache))
        unpacked = built_in_folder("smollm2-135m")
    (data / "cache" / "models").mkdir(parents=True)
    (data / "cache" / "models" / unpacked.name).symlink_to(unpacked, target_is_directory=True)
    variables = {} if PICTURES else {"ITDA_DEMO_TOKENS": DEMO_TOKENS}
    try:
        with running_app(data, **variables) as address:
            yield address
    finally:
        shutil.rmtree(data, ignore_errors=True)


def test_the_whole_road_from_an_empty_folder_to_a_second_dictionary(address, page, problems):
    page.goto(address)
    build_the_demo(page)
    browse_latents(page)
    decompose_typed_text(page)
    if PICTURES:  # test_decompose.py and test_looks.py test these on a smaller model
        change_and_steer(page)
        map_latents(page)
    decompose_uploaded_text(page)
    compare_layers(page)
    evaluate_dictionaries(page)
    train_a_second_dictionary(page)
    delete_a_dictionary(page)
    assert problems == []


def test_a_copied_link_opens_the_same_latent_in_a_fresh_browser(address, page, problems):
    page.goto(f"{address}/latents?latent=11")
    expect(page.get_by_text("latent 11 ·")).to_be_visible()
    expect(page.get_by_text("Strongest uses", exact=True)).to_be_visible()
    assert_nothing_failed(page)
    assert problems == []


@pytest.mark.parametrize("name", ["", "train", "latents", "decompose", "similarity", "evaluate"])
def test_every_page_fits_a_narrow_screen(address, page, problems, name):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{address}/{name}")
    expect(page.locator("h1")).to_be_visible()
    settled(page)
    picture(page, f"narrow-{name or 'overview'}")
    width = page.evaluate("document.querySelector('.stMain').scrollWidth")
    assert width <= 390
    assert_nothing_failed(page)
    assert problems == []


def build_the_demo(page: Page) -> None:
    expect(page.get_by_text("Nothing here yet")).to_be_visible()
    picture(page, "empty")
    page.get_by_role("button", name="Start the demo").click()
    expect(page.get_by_role("progressbar").first).to_be_visible()
    page.wait_for_timeout(2_000)
    picture(page, "progress")
    expect(page.get_by_text("What to do next")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("3 dictionaries")).to_be_visible(timeout=PATIENCE)
    end_what_follows(page)
    assert_nothing_failed(page)
    picture(page, "overview", documented=True)


def end_what_follows(page: Page) -> None:
    """Maps, scores and evaluations follow the trainings, and take minutes: they are cancelled,
    since the road makes an evaluation itself, and pictures alone need maps and scores."""
    # What follows comes as a training ends, whose own title begins with the model.
    trainings, needed = "^smollm2-135m on sotu, layer", "^(Scores|Map) of"
    for others in (trainings, needed) if PICTURES else (trainings,):
        jobs = page.get_by_text(re.compile(others))
        expect(jobs).to_have_count(0, timeout=PATIENCE)
    if not PICTURES:
        expect(page.get_by_text(re.compile(needed)).first).to_be_visible()
    cancel = page.get_by_role("button", name="Cancel")
    while cancel.count():
        cancel.first.click()
        settled(page)


def browse_latents(page: Page) -> None:
    page.get_by_role("link", name="Browse latents").click()
    expect(page.get_by_text("Strongest uses", exact=True)).to_be_visible()
    count = page.get_by_text(re.compile(r"latents · page 1 of"))
    everything = count.inner_text()
    page.get_by_role("textbox", name="Search the latents").fill("commerce")
    page.keyboard.press("Enter")
    expect(count).not_to_have_text(everything)
    expect(page.get_by_text("Strongest uses", exact=True)).to_be_visible()
    settled(page)
    first = page.url
    to_next(page).click()
    page.wait_for_url(lambda url: url != first)
    page.locator("h1").click()
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(first)
    picture(page, "latents", documented=True, height=1_300)
    page.get_by_role("button", name="more").first.click()
    expect(page.get_by_role("button", name="less").first).to_be_visible()
    assert_nothing_failed(page)
    page.get_by_role("link", name="Decompose its text").click()
    expect(page.get_by_text("Latents of this text")).to_be_visible()


def decompose_typed_text(page: Page) -> None:
    box = page.get_by_role("textbox", name="Text")
    box.fill(SPECIAL)
    box.press("Control+Enter")
    strip = page.locator(".strip", has=page.locator(".token.clickable")).first
    expect(strip).to_contain_text("<script>alert(1)</script>")
    expect(strip).to_contain_text("$x^2$, **stars**, שלום and `code`")
    picture(page, "special")
    page.get_by_role("button", name="Treaty").click()
    token = page.locator(".token.clickable", has_text="treaty")
    token.click()
    expect(page.get_by_text("Token 6:")).to_be_visible()
    page.mouse.move(5, 5)
    picture(page, "decompose", documented=True, height=1_400)
    token.click()
    expect(page.get_by_text("Latents of this text")).to_be_visible()
    page.get_by_role("button", name="Export all terms").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV", exact=True).click()
    header = Path(download.value.path()).read_text().splitlines()[0]
    assert header.startswith("position,token,step,latent,coefficient,share_left")
    with page.expect_download() as download:
        page.get_by_role("button", name="Settings", exact=True).click()
    assert {"run", "prompt"} <= json.loads(Path(download.value.path()).read_text()).keys()
    page.keyboard.press("Escape")
    assert_nothing_failed(page)


def change_and_steer(page: Page) -> None:
    """What the two other views of the Decompose page show of one sentence."""
    lights = page.locator(".light").evaluate_all("all => all.map(one => one.ariaLabel)")
    of_treaty = [re.match(r"latent (\d+)", one)[1] for one in lights if re.search(r"\b6: ", one)]
    here = page.url.partition("&token")[0]
    edits = ",".join(f"{latent}*0" for latent in of_treaty[:2])
    page.goto(f"{here}&token=6&view=what-if&edits={edits}")
    expect(page.get_by_text("KL of the edit")).to_be_visible()
    below_the_bar(page, "×0 removes a latent")
    picture(page, "what-if", documented=True)
    page.goto(f"{here}&view=steer&steer={of_treaty[0]}&strength=0.5&tokens=40")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.get_by_role("button", name="Export the texts")).to_be_visible()
    below_the_bar(page, "Strengths count in")
    picture(page, "steer", documented=True)


def below_the_bar(page: Page, text: str) -> None:
    """Scroll so that a text stands right below the app's own bar, which covers the top."""
    scroll = "one => { one.style.scrollMarginTop = '5rem'; one.scrollIntoView(); }"
    page.get_by_text(text).evaluate(scroll)


def map_latents(page: Page) -> None:
    here = page.url
    page.goto(f"{here.partition('/decompose')[0]}/latents?view=map&search=treaty&colour=hits")
    expect(page.get_by_text("Click a point to open its latent")).to_be_visible(timeout=PATIENCE)
    page.wait_for_timeout(3_000)
    picture(page, "map", documented=True)
    page.goto(here)
    expect(page.locator(".light").first).to_be_visible()


def decompose_uploaded_text(page: Page) -> None:
    page.get_by_role("tab", name="Upload a file").click()
    settled(page)  # nobody is so quick that the file comes while the page is drawn anew
    content = 'number,speech\none,"The army marched, and the navy sailed."\ntwo,too,many\n'
    upload = {"name": "two.csv", "mimeType": "text/csv", "buffer": content.encode()}
    page.locator("input[type=file]").set_input_files(upload)
    expect(page.get_by_text("two.csv").first).to_be_visible()
    expect(page.get_by_text("1 row of two.csv was left out: line 3 has 3 fields")).to_be_visible()
    choose(page, "Column that holds the texts", "speech")
    chosen = page.get_by_role("combobox", name="Text (1 in the file)")
    expect(chosen).to_have_value(re.compile("^1: The army marched"))
    page.get_by_role("button", name="Decompose this text").click()
    expect(page.locator(".token.clickable", has_text="navy")).to_be_visible()
    picture(page, "upload")
    assert_nothing_failed(page)


def compare_layers(page: Page) -> None:
    page.get_by_role("link", name="Similarity").click()
    cells = page.locator(".js-plotly-plot").first.locator(".scatterlayer .trace").first
    expect(cells.locator(".point")).to_have_count(9)
    settled(page)
    cells.locator(".point").nth(3).click(force=True)
    expect(page.get_by_role("heading", name="A layer 15 and B layer 7")).to_be_visible()
    settled(page)
    cells.locator(".point").nth(1).click(force=True)
    expect(page.get_by_role("heading", name="A layer 7 and B layer 15")).to_be_visible()
    page.wait_for_url(re.compile("row=7&column=15"))
    cards = page.get_by_text("Strongest uses", exact=True).locator("visible=true")
    expect(cards).to_have_count(2)  # of a shared token, in A and in B
    page.mouse.move(5, 5)
    picture(page, "similarity", documented=True)
    page.get_by_role("tab", name="Only A layer 7").click()
    shown = page.get_by_text("One source of each word in turn").locator("visible=true")
    expect(shown).to_have_count(1)
    picture(page, "only-a")
    page.get_by_role("tab", name="Words that differ").click()
    picture(page, "words")
    page.get_by_role("combobox", name="B: layer").scroll_into_view_if_needed()
    settled(page)  # a list that is open closes when the page scrolls
    choose(page, "B: layer", "B layer 22")
    expect(page.get_by_role("heading", name="A layer 7 and B layer 22")).to_be_visible()
    page.wait_for_url(re.compile("column=22"))
    assert_nothing_failed(page)
    open_a_copied_cell(page)


def open_a_copied_cell(page: Page) -> None:
    """The link of a cell opens its lists, and the matrix is there as a file."""
    page.goto(page.url)
    expect(page.get_by_role("heading", name="A layer 7 and B layer 22")).to_be_visible()
    page.get_by_role("button", name="Download the matrix").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV", exact=True).first.click()
    header = Path(download.value.path()).read_text().splitlines()[0]
    assert header.startswith("row,column,row_runs,column_runs,value,shared,union")
    page.keyboard.press("Escape")
    assert_nothing_failed(page)
    compare_by_activations(page)


def compare_by_activations(page: Page) -> None:
    """A measure that a job computes is there when the job is done, and again at once."""
    page.get_by_role("combobox", name="Measure").scroll_into_view_if_needed()
    settled(page)  # a list that is open closes when the page scrolls
    choose(page, "Measure", "Source resemblance")
    expect(page.get_by_text("0 of 6 pairs are known.")).to_be_visible()
    page.get_by_role("button", name="Compute (6 pairs)").click()
    card = page.locator(".st-key-jobs")
    expect(card.get_by_text("Comparison of smollm2-135m, 3 layers")).to_be_visible()
    cells = page.locator(".js-plotly-plot").first.locator(".scatterlayer .trace").first
    expect(cells.locator(".point")).to_have_count(9, timeout=PATIENCE)
    expect(page.get_by_text("of 6 pairs are known.")).to_have_count(0, timeout=PATIENCE)
    picture(page, "measure")
    page.goto(page.url)
    expect(page.get_by_text("1.00", exact=True).first).to_be_visible()
    settled(page)
    choose(page, "Measure", "Jaccard of sources")
    assert_nothing_failed(page)


def evaluate_dictionaries(page: Page) -> None:
    """A quick run of the last layer, unless the picture is for the documentation."""
    run, place_of_8 = ("Evaluate (about", 3) if PICTURES else ("Quick run (about", 0)
    page.get_by_role("link", name="Evaluate", exact=True).click()
    for layer in () if PICTURES else (7, 15):
        page.get_by_role("button", name=re.compile(f"Remove .*layer {layer} ")).click()
        settled(page)
    page.get_by_role("button", name=run).click()
    expect(page.get_by_role("progressbar").first).to_be_visible()
    expect(page.get_by_text("One dictionary")).to_be_visible(timeout=4 * PATIENCE)
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0, timeout=PATIENCE)
    points = page.locator(".js-plotly-plot").first.locator(".scatterlayer .point")
    expect(points.nth(place_of_8)).to_be_attached()
    settled(page)
    points.nth(place_of_8).click(force=True)
    expect(page.get_by_text("at L0 8")).to_be_visible()
    assert "at_l0=8" in page.url
    page.mouse.move(5, 5)
    picture(page, "evaluate", documented=True)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as JSON").click()
    [found, *_] = json.loads(Path(download.value.path()).read_text())
    assert found["by_l0"][place_of_8]["l0"] == 8
    page.get_by_text("How often latents are used").scroll_into_view_if_needed()
    picture(page, "evaluate-details")
    assert_nothing_failed(page)


def train_a_second_dictionary(page: Page) -> None:
    page.get_by_role("link", name="Train", exact=True).click()
    expect(page.get_by_text("on this machine")).to_be_visible()
    picture(page, "train", documented=True)
    for layer in ("15", "22"):
        page.get_by_role("button", name=f"Remove {layer}").click()
    for name, value in (("Tokens", "3000"), ("Atoms", "700")):
        field = page.get_by_role("textbox", name=name, exact=True)
        field.fill(value)
        field.press("Enter")
        page.wait_for_timeout(700)
    page.get_by_role("button", name="Start training").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    picture(page, "training")
    expect(dictionary_made_here(page)).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0, timeout=PATIENCE)
    settled(page)
    assert_nothing_failed(page)


def dictionary_made_here(page: Page) -> Locator:
    """Its entry among the dictionaries; the training that made it links to it by the same name."""
    return page.locator("summary").get_by_text("700 latents")


def delete_a_dictionary(page: Page) -> None:
    dictionary_made_here(page).click()
    confirm = page.get_by_role("button", name="Delete permanently")
    for _ in range(3):  # what follows the training draws the page anew, which a click may fall into
        expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
        settled(page)
        page.get_by_role("button", name="Delete …").click()
        settled(page)
        if confirm.count():
            break
    picture(page, "delete")
    confirm.click()
    expect(dictionary_made_here(page)).to_have_count(0)
    assert_nothing_failed(page)


def choose(page: Page, label: str, option: str) -> None:
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option", name=option).click()
