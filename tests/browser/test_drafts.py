"""What keeps drafts of labels, alone in a page: no rerun drops what is typed and not entered."""

import pytest

from tests.support.app import REPOSITORY

SOURCE = (REPOSITORY / "pages/components/latents/drafts.js").read_text()
START = """async (source) => {
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    window.start = (await import(url)).default;
    window.sent = [];
    const field = document.querySelector("input");
    field.addEventListener("keydown", (event) => {
        if (event.key === "Enter") { window.sent.push(field.value); }
    });
    window.stop = window.start({ data: { fields: ["Label"] } });
}"""


@pytest.mark.parametrize(
    "rerun", ["window.stop()", "window.start({ data: { fields: ['Label'] } })"],
    ids=["taken away", "drawn anew"],
)  # fmt: skip
def test_a_rerun_sends_what_waits_for_a_pause_once(page, problems, rerun):
    page.set_content('<input aria-label="Label">')
    page.evaluate(START, SOURCE)
    page.get_by_role("textbox").click()
    page.keyboard.type("half a wo")
    assert page.evaluate("window.sent") == []
    page.evaluate(rerun + "; 0")
    assert page.evaluate("window.sent") == ["half a wo"]
    page.wait_for_timeout(1_200)
    assert page.evaluate("window.sent") == ["half a wo"]
    page.keyboard.type("rd")
    page.wait_for_timeout(1_200)
    expected = ["half a wo"] if "stop" in rerun else ["half a wo", "half a word"]
    assert page.evaluate("window.sent") == expected
    assert problems == []
