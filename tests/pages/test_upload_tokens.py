"""An upload says how many tokens it has, and the estimate is of those."""

import pytest
from transformers import AutoTokenizer

from itda_core.config import ModelSpec
from itda_core.model import built_in
from itda_core.model.model_info import weights_folder
from pages.components import explorer as explorer_module
from pages.components.train import fields, upload_tokens
from pages.components.train import needs as needs_module
from tests.support.app import open_page

TEXTS = [(f"Text {number} of war and peace. " * (1 + number)).strip() for number in range(40)]


def uploaded(folder, texts, monkeypatch):
    """Train with a model chosen and a file of texts uploaded."""
    monkeypatch.setattr(fields, "known_models", lambda: [{"model": folder}])
    app = open_page("train")
    app.session_state["model"] = folder
    app.session_state["corpus_kind"] = "Upload"
    app.run()
    app.file_uploader[0].upload("a.txt", "\n\n".join(texts).encode(), "text/plain").run()
    assert not app.exception
    return app


def test_an_upload_says_how_many_tokens_it_has(data, tiny_model_folder, monkeypatch):
    asked, folder = [], str(tiny_model_folder)
    monkeypatch.setattr(
        needs_module, "likely_estimate", lambda _queue, config, *_about: asked.append(config)
    )
    app = uploaded(folder, TEXTS, monkeypatch)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lengths = [len(tokenizer(text)["input_ids"]) for text in TEXTS]
    captions = [one.value for one in app.caption]
    assert f"40 texts, {sum(lengths):,} tokens" in captions
    read = int(0.9 * sum(min(length, asked[-1].context_length) for length in lengths))
    assert asked[-1].max_tokens == read < sum(lengths)
    about = f"About {read:,} tokens will be read, all that the file has beside those held out"
    assert f"{about}: fewer than the 65,536 asked for." in captions
    assert app.text_input(key="train_max_tokens").value == "65536"  # what a person typed stays
    assert explorer_module.explorer().queue.jobs() == []


@pytest.mark.parametrize(("again", "told"), [(1, "1 more is a repetition"), (3, "3 more are")])
def test_of_texts_that_are_the_same_one_counts(data, tiny_model_folder, monkeypatch, again, told):
    folder = str(tiny_model_folder)
    app = uploaded(folder, [*TEXTS, *TEXTS[5 : 5 + again]], monkeypatch)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = sum(len(tokenizer(text)["input_ids"]) for text in TEXTS)
    [said] = [one.value for one in app.caption if one.value.startswith("40 texts")]
    assert said.startswith(f"40 texts ({told}")
    assert said.endswith(f"), {tokens:,} tokens")


def test_an_upload_says_how_many_of_its_texts_are_cut(data, tiny_model_folder, monkeypatch):
    folder = str(tiny_model_folder)
    app = uploaded(folder, TEXTS, monkeypatch)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lengths = sorted(len(tokenizer(text)["input_ids"]) for text in TEXTS)
    for cut in (3, 1):
        context = lengths[-1 - cut]
        app.text_input(key="train_context_length").set_value(str(context)).run()
        lost = sum(length - context for length in lengths[-cut:])
        are = "1 text is" if cut == 1 else f"{cut} texts are"
        told = [one.value for one in app.caption if "not read" in one.value]
        assert told == [
            f"{are} longer than the context length of {context} tokens: what comes after is not "
            f"read, {lost:,} tokens. More settings has the context length."
        ]
    app.text_input(key="train_context_length").set_value(str(lengths[-1])).run()
    assert not [one.value for one in app.caption if "not read" in one.value]


@pytest.mark.parametrize("is_here", [True, False])
def test_an_upload_with_fewer_tokens_than_atoms_starts_nothing(
    empty, tiny_model_folder, monkeypatch, is_here
):
    """One letter is one token, and one byte where the tokenizer is not here."""
    folder = str(tiny_model_folder)
    if not is_here:
        monkeypatch.setattr(upload_tokens, "weights_folder", lambda _model: None)
    monkeypatch.setattr(fields, "known_models", lambda: [{"model": folder}])
    app = open_page("train")
    app.session_state["model"] = folder
    app.session_state["corpus_kind"] = "Upload"
    app.run()
    app.file_uploader[0].upload("a.txt", b"x", "text/plain").run()
    counted = len(AutoTokenizer.from_pretrained(folder)("x")["input_ids"])
    some = f"{counted} token{'' if counted == 1 else 's'}" if is_here else "1 byte, so no more"
    [told] = [one.value.replace("`", "") for one in app.warning]
    assert told.startswith(f"Atoms (2,048) is more than the uploaded file has: {some}")
    assert next(one for one in app.button if one.label == "Start training").disabled
    app.file_uploader[0].upload("b.txt", ("war " * 3_000).encode(), "text/plain").run()
    app.text_input(key="train_max_atoms").set_value("40").run()
    app.text_input(key="train_context_length").set_value("4000").run()
    assert not app.warning
    assert not next(one for one in app.button if one.label == "Start training").disabled
    app.text_input(key="train_l0").set_value("41").run()
    assert app.warning[0].value.replace("`", "").startswith("L0 (41) is more than Atoms (40)")
    assert next(one for one in app.button if one.label == "Start training").disabled


def test_the_files_of_a_built_in_model_are_found_where_they_lie(tmp_path, monkeypatch):
    """A package's GGUF file once it is unpacked, so that a training's upload is counted then."""
    monkeypatch.setenv("ITDA_DATA", str(tmp_path))
    assert weights_folder(ModelSpec("tiny-6x128-0")).name == "tiny-6x128-0"
    package = tmp_path / "package.gguf"
    package.touch()
    monkeypatch.setattr(built_in, "_place", lambda _model: package)
    assert weights_folder(ModelSpec("smollm2-135m")) is None
    version = built_in.BUILT_IN["smollm2-135m"].version
    unpacked = tmp_path / "cache" / "models" / f"smollm2-135m-{version}"
    unpacked.mkdir(parents=True)
    assert weights_folder(ModelSpec("smollm2-135m")) == unpacked
