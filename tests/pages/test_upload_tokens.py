"""An upload says how many tokens it has, and the estimate is of those."""

from transformers import AutoTokenizer

from itda_core.model import loading as loading_module
from pages.components import explorer as explorer_module
from pages.components.train import needs as needs_module
from tests.support.app import open_page

TEXTS = [(f"Text {number} of war and peace. " * (1 + number)).strip() for number in range(40)]


def test_an_upload_says_how_many_tokens_it_has(data, tiny_model_folder, monkeypatch):
    asked, folder = [], str(tiny_model_folder)
    monkeypatch.setattr(loading_module, "known_models", lambda: [{"model": folder}])
    monkeypatch.setattr(
        needs_module, "likely_estimate", lambda _queue, config, *_about: asked.append(config)
    )
    app = open_page("train")
    app.session_state["model"] = folder
    app.session_state["corpus_kind"] = "Upload"
    app.run()
    app.file_uploader[0].upload("a.txt", "\n\n".join(TEXTS).encode(), "text/plain").run()
    assert not app.exception
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lengths = [len(tokenizer(text)["input_ids"]) for text in TEXTS]
    captions = [one.value for one in app.caption]
    assert f"40 texts, {sum(lengths):,} tokens" in captions
    read = int(0.9 * sum(min(length, asked[-1].context_length) for length in lengths))
    assert asked[-1].max_tokens == read < sum(lengths)
    assert explorer_module.explorer().queue.jobs() == []
