"""A training from a folder of activations, put together on the Train page."""

import pytest

from itda_core.activations.folder import ActivationFolder
from itda_core.activations.recorded import folder_config
from itda_core.config import CorpusSpec, ModelSpec
from itda_core.jobs.queue import JobQueue
from itda_core.training.folder_capture import capture_config, capture_folder
from tests.support.app import assert_no_failure, button, open_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    target = tmp_path_factory.mktemp("captured") / "folder"
    model = ModelSpec(str(tiny_model_folder), dtype="float32")
    config = capture_config(
        model, CorpusSpec(str(tiny_corpus_file)), (1, 2), max_tokens=400, context_length=32, seed=5
    )
    list(capture_folder(config, target, "cpu"))
    return target


@pytest.fixture
def page(empty):
    app = open_page("train")
    app.button_group(key="source").set_value("folder").run()
    assert_no_failure(app)
    return app


def test_the_page_shows_what_is_in_a_folder_and_trains_from_it(page, folder, monkeypatch):
    submitted = []
    monkeypatch.setattr(JobQueue, "submit", lambda _self, config, *_place: submitted.append(config))
    assert button(page, "Start training").disabled
    page.text_input(key="activations").input(str(folder)).run()
    told = " ".join(caption.value for caption in page.caption).replace("`", "")
    assert "tiny-llama on paragraphs.txt · layers 1, 2 of 4 · resid_post · d" in told
    assert "400 tokens, " in told
    assert "context length 32" in told
    page.multiselect(key=f"layers_{folder}").set_value([2])
    tokens = page.text_input(key="train_max_tokens_400")  # as many as the folder has
    assert tokens.value == "400"
    page.text_input(key="train_max_atoms").input("20").run()
    asked_for = "400 tokens beside those held out, fewer than the"
    assert not any(asked_for in caption.value for caption in page.caption)
    tokens.input("70000").run()
    assert any(f"{asked_for} 70,000 asked for" in caption.value for caption in page.caption)
    page.text_input(key="train_max_tokens_400").input("300")
    page.text_input(key="train_max_atoms").input("20")
    page.text_input(key="train_l0").input("4").run()
    assert_no_failure(page)
    assert any("It fits" in caption.value for caption in page.caption)
    button(page, "Start training").click().run()
    expected = folder_config(folder, layers=(2,), max_tokens=300, max_atoms=20, l0=4)
    assert submitted == [expected]
    assert (expected.seed, expected.context_length) == (5, 32)


def test_a_click_does_not_open_the_files_of_a_folder_again(page, folder, monkeypatch):
    page.text_input(key="activations").input(str(folder)).run()
    opened = []
    monkeypatch.setattr(ActivationFolder, "__init__", lambda _self, path: opened.append(path))
    page.text_input(key="train_max_atoms").input("20").run()
    assert_no_failure(page)
    assert any("context length 32" in one.value for one in page.caption)
    assert opened == []


@pytest.mark.parametrize("typed", ["/nowhere/at/all", "\0", "x" * 5_000])
def test_a_folder_that_is_none_is_told(page, typed):
    page.text_input(key="activations").input(typed).run()
    assert_no_failure(page)
    assert any("There is no folder of activations" in one.value for one in page.warning)
    assert button(page, "Start training").disabled
