"""A text's decomposition adds up, term by term, for any text."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from itda_core.analysis.decomposition import decompose
from itda_core.corpus.corpus import prompt_id
from itda_core.errors import InputError
from itda_core.runs.run import list_runs
from tests.support.reference import slow_pursuit
from tests.support.trained_runs import shared_runs

TEXT = "The senate met to ratify the treaty with Spain"
SPECIAL = {
    "emoji": "a 👩‍👩‍👧 and 🎉🎉",
    "combining": "e\u0301te\u0301 Z\u0351\u036b\u0343algo",
    "right to left": "שלום עולם مرحبا",
    "script": "<script>alert('$x$')</script> **bold** `code`",
    "newlines": "one\n\ntwo\r\n\tthree  ",
    "20,000 characters": "treaty 🎉 " * 2_222 + "ab",
    "white space": "    \n\t  ",
    "half a character": "a treaty \ud83d with Spain",
    "zero": "a\x00b c",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    return list_runs(shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file))[1]


@pytest.fixture(scope="module")
def dictionary(run):
    return run.dictionary()


@pytest.fixture
def decomposed(run, dictionary, tiny_model):
    return lambda text: decompose(dictionary, tiny_model, text, run.config)


def activations(model, text, layer=1):
    """The layer's output at every position but the first, by transformers, float64."""
    ids = torch.tensor([model.tokenizer(text)["input_ids"][: model.context_length]])
    with torch.no_grad():
        states = model.module(input_ids=ids, output_hidden_states=True).hidden_states
    return states[layer + 1][0, 1:].double().numpy()


def test_the_terms_are_those_of_matching_pursuit(decomposed, dictionary, tiny_model):
    result = decomposed(TEXT)
    x = activations(tiny_model, TEXT)
    latents, coefficients, _ = slow_pursuit(x, dictionary.atoms, 4)
    assert result.positions.tolist() == list(range(1, len(x) + 1))
    for row in range(len(x)):
        terms = result.terms(row)
        assert terms["step"].tolist() == [0, 1, 2, 3]
        assert terms["latent"].tolist() == latents[row].tolist()
        np.testing.assert_allclose(terms["coefficient"], coefficients[row], rtol=1e-3, atol=1e-4)


def test_of_equal_shares_the_first_token_is_explained_worst(decomposed):
    result = decomposed(TEXT)
    residuals = np.ones((5, 2), np.float32)
    residuals[:, 1] = [0.5, 0.9, 0.1, 0.9, 0.7]  # shares 0.25, 0.81, 0.01, 0.81, 0.49
    made = dataclasses.replace(result, positions=np.arange(1, 6), residuals=residuals)
    assert made.explained_worst(4).tolist() == [1, 3, 4, 0]
    assert made.explained_worst(9).tolist() == [1, 3, 4, 0, 2]


def test_the_terms_add_up_and_what_is_left_is_what_is_missing(decomposed, dictionary, tiny_model):
    result = decomposed(TEXT)
    x = activations(tiny_model, TEXT)
    atoms = dictionary.atoms.double().numpy()
    for row in range(len(x)):
        terms = result.terms(row)
        xhat, whole = np.zeros(16), np.linalg.norm(x[row])
        assert result.residuals[row, 0] == pytest.approx(whole, rel=1e-4)
        for number, term in enumerate(terms.itertuples(), start=1):
            xhat = xhat + term.coefficient * atoms[term.latent]
            left = np.linalg.norm(x[row] - xhat)
            assert result.residuals[row, number] == pytest.approx(left, rel=1e-2, abs=1e-3 * whole)
            assert term.share_left == pytest.approx((left / whole) ** 2, abs=1e-4)
        assert result.shares_left[row] == pytest.approx((left / whole) ** 2, abs=1e-4)
    reconstruction = dictionary.decode(result.codes).double().numpy()
    errors = np.square(x - reconstruction).sum(1) / np.square(x).sum(1)
    np.testing.assert_allclose(result.shares_left, errors, atol=1e-4)


@pytest.fixture
def fitted(dictionary):
    """The dictionary with an offset and orthogonal pursuit."""
    return dataclasses.replace(
        dictionary, pursuit="orthogonal", offset=3 * dictionary.atoms.mean(0)
    )


def test_refitted_coefficients_are_final_and_each_share_is_of_so_many_terms(
    run, fitted, tiny_model
):
    """Against numpy's least squares on the latents of each prefix."""
    result = decompose(fitted, tiny_model, TEXT, run.config)
    x = activations(tiny_model, TEXT) - fitted.offset.double().numpy()
    atoms = fitted.atoms.double().numpy()
    for row in range(len(x)):
        terms, whole = result.terms(row), np.square(x[row]).sum()
        assert result.residuals[row, 0] ** 2 == pytest.approx(whole, rel=1e-4)
        assert terms["latent"].is_unique
        for number in range(1, len(terms) + 1):
            basis = atoms[terms["latent"].iloc[:number]].T
            expected = np.linalg.lstsq(basis, x[row], rcond=None)[0]
            left = np.square(x[row] - basis @ expected).sum() / whole
            assert terms["share_left"].iloc[number - 1] == pytest.approx(left, abs=1e-4)
        np.testing.assert_allclose(terms["coefficient"], expected, rtol=1e-2, atol=1e-3)


def test_tokens_of_a_budget_have_as_many_terms_as_are_counted(run, fitted, tiny_model):
    steps = decompose(fitted, tiny_model, TEXT, run.config).codes.gains.sqrt()
    frugal = dataclasses.replace(fitted, min_projection=float(steps[:, 1:].median()))
    result = decompose(frugal, tiny_model, TEXT, run.config)
    counts = [len(result.terms(row)) for row in range(len(result.positions))]
    assert result.counts.tolist() == counts
    assert min(counts) < max(counts)


def test_each_term_names_the_source_of_its_latent(decomposed, dictionary):
    sources = dictionary.sources.set_index("latent")
    for term in decomposed(TEXT).table().itertuples():
        source = sources.loc[term.latent]
        assert term.source_token == source["token"]
        assert term.source_prompt_id == source["prompt_id"]
        assert (term.source_position, term.source_start, term.source_end) == tuple(
            source[["position", "start", "end"]]
        )


def test_the_table_and_the_records_say_the_same(decomposed):
    result = decomposed(TEXT)
    records = result.to_records()
    table = result.table()
    assert [record["position"] for record in records] == sorted(set(table["position"]))
    for record in records:
        part = table[table["position"] == record["position"]]
        assert set(part["token"]) == {record["token"]}
        assert part["latent"].tolist() == [term["latent"] for term in record["terms"]]
        assert part["coefficient"].tolist() == [term["coefficient"] for term in record["terms"]]
        assert record["share_left"] == pytest.approx(part["share_left"].iloc[-1], abs=1e-6)
        assert record["norm"] > 0


def test_records_are_plain_json_with_numbers_as_numbers(decomposed):
    text = json.dumps(decomposed("a 🎉 <b>").to_records(), allow_nan=False)  # no default= needed
    term = json.loads(text)[0]["terms"][0]
    assert type(term["latent"]) is int
    assert type(term["coefficient"]) is float
    assert type(term["source_start"]) is int


def test_a_source_token_itself_is_explained_by_its_own_latent(decomposed, dictionary, tiny_texts):
    texts = {prompt_id(text): text for text in tiny_texts}
    for source in dictionary.sources.head(10).itertuples():
        result = decomposed(texts[source.prompt_id])
        row = result.positions.tolist().index(source.position)
        first = result.terms(row).iloc[0]
        assert first["latent"] == source.latent
        assert first["coefficient"] == pytest.approx(result.residuals[row, 0], rel=1e-4)
        assert first["source_token"] == result.token_text(source.position)
        assert first["share_left"] < 1e-6


@pytest.mark.parametrize("text", SPECIAL.values(), ids=SPECIAL)
def test_every_text_is_decomposed_to_its_last_character(decomposed, text, tiny_model):
    result = decomposed(text)
    assert result.text == text
    spans = result.spans()
    assert len(spans) == len(result.positions) + 1 <= tiny_model.context_length
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text) or len(spans) == tiny_model.context_length
    for position, (start, end) in enumerate(spans):
        shown = text[start:end].encode("utf-8", "replace").decode()
        assert result.token_text(position).encode("utf-8", "replace").decode() == shown
    assert np.isfinite(result.shares_left).all()
    assert ((result.shares_left >= 0) & (result.shares_left <= 1)).all()
    assert set(result.table()["position"]) <= set(result.positions.tolist())


def test_a_long_text_is_cut_to_what_the_model_takes_not_to_what_was_trained(decomposed, run):
    assert run.config.context_length == 32
    assert len(decomposed("treaty " * 300).positions) == 255


@pytest.mark.parametrize("text", ["", "a", "7"])
def test_fewer_than_two_tokens_are_refused(decomposed, text):
    with pytest.raises(InputError, match=r"fewer than two tokens. Type a few words more"):
        decomposed(text)


def test_with_the_first_position_kept_one_token_is_enough(run, dictionary, tiny_model):
    config = dataclasses.replace(run.config, skip_first=False)
    assert decompose(dictionary, tiny_model, "a", config).positions.tolist() == [0]


@pytest.mark.parametrize("pursuit", ["matching", "orthogonal"])
def test_a_prefix_is_the_decomposition_with_fewer_terms(run, dictionary, tiny_model, pursuit):
    whole = dataclasses.replace(dictionary, pursuit=pursuit)
    short = dataclasses.replace(whole, l0=2)
    found = decompose(whole, tiny_model, TEXT, run.config).prefix(2)
    expected = decompose(short, tiny_model, TEXT, run.config)
    assert found.codes.latents.tolist() == expected.codes.latents.tolist()
    np.testing.assert_allclose(
        found.codes.coefficients, expected.codes.coefficients, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(found.residuals, expected.residuals, rtol=1e-4, atol=1e-4)
    assert len(found.table()) == len(expected.table())


def test_the_table_is_the_terms_of_each_token_one_after_another(decomposed):
    result = decomposed(TEXT).prefix(3)
    table = result.table()
    first = 0
    for row, position in enumerate(result.positions.tolist()):
        terms = result.terms(row)
        here = table.iloc[first : first + len(terms)]
        first += len(terms)
        assert set(here["position"]) == {position}
        assert set(here["token"]) == {result.token_text(position)}
        of_terms = here.drop(columns=["position", "token"]).reset_index(drop=True)
        pd.testing.assert_frame_equal(of_terms, terms.reset_index(drop=True))
        latents = result.codes.latents[row][result.codes.coefficients[row] != 0]
        assert terms["latent"].tolist() == latents.tolist()
    assert first == len(table)
