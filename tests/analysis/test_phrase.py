"""The latents of a phrase, against its tokens' terms one by one."""

import numpy as np
import pytest

from itda_core.analysis.decomposition import decompose
from itda_core.analysis.phrase import behind_a_stop, phrase_latents, unexplained_of_phrase
from itda_core.runs.run import list_runs
from tests.support.trained_runs import shared_runs

PHRASE = "declared war on Spain"


@pytest.fixture(scope="module")
def result(tmp_path_factory, tiny_model_folder, tiny_corpus_file, tiny_model):
    run = list_runs(shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file))[1]
    return decompose(run.dictionary(), tiny_model, behind_a_stop(f" {PHRASE}\n"), run.config)


def slowly(result, thresholds):
    """latent: {position: coefficient} of the tokens that have a character of the phrase."""
    found = {}
    for row, position in enumerate(result.positions.tolist()):
        start, end = result.spans()[position]
        if not result.text[start:end].strip(". "):
            continue
        sums = {}
        for term in result.terms(row).itertuples():
            sums[term.latent] = sums.get(term.latent, 0.0) + term.coefficient
        for latent, value in sums.items():
            if thresholds is None or np.isnan(thresholds[latent]) or value >= thresholds[latent]:
                found.setdefault(latent, {})[position] = value
    return found


@pytest.mark.parametrize("is_strong", [False, True])
def test_latents_come_by_their_squared_coefficients_on_the_tokens_of_the_phrase(result, is_strong):
    thresholds = None
    if is_strong:
        thresholds = np.full(len(result.sources), 0.5, np.float32)
        thresholds[::2] = np.nan
    expected = slowly(result, thresholds)
    table = phrase_latents(result, thresholds)
    squares = {latent: sum(v**2 for v in uses.values()) for latent, uses in expected.items()}
    assert table["latent"].tolist() == sorted(squares, key=lambda one: (-squares[one], one))
    for row in table.itertuples():
        uses = expected[row.latent]
        position = max(uses, key=lambda one: (abs(uses[one]), -one))
        assert row.squares == pytest.approx(squares[row.latent], rel=1e-5)
        assert (row.tokens, row.position) == (len(uses), position)
        assert row.coefficient == pytest.approx(uses[position], rel=1e-5)
        assert row.token == result.token_text(position)
    assert is_strong == (len(table) < len(phrase_latents(result)))
    assert "".join(result.text[s:e] for s, e in result.spans()) == f". {PHRASE}"


def test_what_its_terms_leave_of_a_phrase_is_that_of_its_tokens_alone(result):
    whole, left, count = 0.0, 0.0, 0
    for row, position in enumerate(result.positions.tolist()):
        if result.spans()[position][1] > 2:  # behind ". "
            whole += float(result.residuals[row, 0]) ** 2
            left += float(result.residuals[row, -1]) ** 2
            count += 1
    found = unexplained_of_phrase(result)
    assert found == (count, pytest.approx(left / whole, rel=1e-6))
    assert count == len(result.positions), "the stop before it is on the first position"
