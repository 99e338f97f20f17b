"""Overview's first minute: four words, and one latent and one sentence of the newest dictionary."""

import numpy as np
import pandas as pd

from pages.components.explorer import explorer
from pages.components.text import shown, token_label
from tests.pages.test_scores import scored
from tests.support.app import newest, open_page


def texts(app):
    return "\n".join(one.value for one in [*app.markdown, *app.caption]).replace("\\", "")


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
        table = next(one.value for one in app.dataframe if "source" in one.value)
        assert 1 <= len(table) <= 11
        sources = pd.read_parquet(run.directory / "sources.parquet").set_index("latent")["token"]
        for row in table.itertuples():
            assert row.source == shown(token_label(sources[row.latent]))


def test_the_largest_term_of_each_token_is_that_of_the_codes(data):
    run = newest(data, 2)
    codes = pd.read_parquet(run.directory / "codes.parquet").astype({"prompt_id": str})
    prompt_id = codes["prompt_id"].value_counts().index[0]
    open_page("overview")
    found = explorer().store.uses.strongest_terms(run.run_id, prompt_id)
    own = codes[codes["prompt_id"] == prompt_id]
    sums = own.groupby(["position", "latent"])["coefficient"].sum()
    expected = sums.abs().groupby("position").max()
    np.testing.assert_array_equal(found["position"], expected.index)
    np.testing.assert_allclose(found["coefficient"].abs(), expected, rtol=1e-6)
    signed = [sums[row.position, row.latent] for row in found.itertuples()]
    np.testing.assert_allclose(found["coefficient"], signed, rtol=1e-6)
