"""Prompts as a table: each against its own decomposition, groups against one latent at a time."""

import numpy as np
import pandas as pd
import pytest

from itda_core.analysis.decomposition import decompose
from itda_core.analysis.prompt_table import (
    compare_groups,
    joined,
    prompt_table,
    prompt_table_steps,
)
from itda_core.errors import InputError
from itda_core.evaluation.intervals import resampled_interval
from itda_core.runs.run import list_runs
from tests.support.trained_runs import shared_runs

TEXTS = [
    "The senate met to ratify the treaty with Spain",
    "My fellow citizens, the state of the union is strong",
    "x",
    "The cat sat on the mat while the rain fell",
    "war and peace 👩‍👩‍👧",
    *(f"The people of state {n} asked for land and water" for n in range(40)),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    return list_runs(shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file))[1]


@pytest.fixture(scope="module")
def table_of(run, tiny_model):
    dictionary = run.dictionary()

    def make(thresholds=None, texts=TEXTS):
        return prompt_table(dictionary, tiny_model, texts, run.config, thresholds)

    return make


def test_what_is_read_behind_others_goes_on_where_they_end(run, table_of, tiny_model):
    steps = prompt_table_steps(run.dictionary(), tiny_model, TEXTS, run.config)
    before = [next(steps).value, next(steps).value]
    steps.close()
    n_read = sum(len(table.prompts) for table in before)
    assert 0 < n_read < len(TEXTS)
    rest = prompt_table_steps(run.dictionary(), tiny_model, TEXTS, run.config, after=n_read)
    table, whole = joined([*before, *(step.value for step in rest)]), table_of()
    assert table.prompts["text"].tolist() == TEXTS
    pd.testing.assert_frame_equal(table.prompts, whole.prompts)
    pd.testing.assert_frame_equal(table.uses, whole.uses)


@pytest.mark.parametrize("is_strong", [False, True])
def test_each_row_is_what_decomposing_the_prompt_gives(run, table_of, tiny_model, is_strong):
    thresholds = None
    if is_strong:
        thresholds = np.full(len(run.dictionary()), 0.4, np.float32)
        thresholds[::3] = np.nan
    table = table_of(thresholds)
    assert table.prompts["text"].tolist() == TEXTS
    for number, text in enumerate(TEXTS):
        row = table.prompts.iloc[number]
        own = table.uses[table.uses["prompt"] == number]
        if text == "x":
            assert row.tokens == 0
            assert np.isnan(row.left)
            assert own.empty
            continue
        result = decompose(run.dictionary(), tiny_model, text, run.config)
        squares = np.square(result.residuals.astype(float))
        assert row.tokens == len(result.positions)
        assert row.left == pytest.approx(squares[:, -1].sum() / squares[:, 0].sum(), rel=1e-3)
        terms = result.table().groupby(["position", "latent"])["coefficient"].sum()
        total = (terms**2).sum()
        expected = {}
        for (_, latent), value in terms.items():
            if thresholds is None or not value < thresholds[latent]:
                expected.setdefault(latent, []).append(value)
        shares = {latent: sum(v**2 for v in uses) / total for latent, uses in expected.items()}
        assert set(own["latent"]) == set(expected)
        assert own["share"].is_monotonic_decreasing
        for use in own.itertuples():
            assert use.tokens == len(expected[use.latent])
            assert use.share == pytest.approx(shares[use.latent], rel=1e-2, abs=1e-6)
            largest = max(expected[use.latent], key=abs)
            assert abs(use.coefficient) == pytest.approx(abs(largest), rel=1e-2)


def test_the_matrix_has_each_share_where_it_belongs(table_of):
    table = table_of()
    matrix = table.matrix()
    assert matrix.shape == (len(TEXTS), table.uses["latent"].nunique())
    assert matrix.sum().is_monotonic_decreasing
    assert matrix.to_numpy().sum() == pytest.approx(table.uses["share"].sum())
    for use in table.uses.sample(50, random_state=0).itertuples():
        assert matrix.loc[use.prompt, use.latent] == use.share
    sums = matrix.sum(1).to_numpy()
    np.testing.assert_allclose(sums[table.prompts["tokens"] > 0], 1)
    assert sums[2] == 0


def test_groups_are_compared_as_one_latent_at_a_time(table_of):
    table, a, b = table_of(), [0, 1, 3, 4], list(range(5, 17))
    found, matrix = compare_groups(table, a, b), table.matrix()
    for row in found.itertuples():
        of_a, of_b = (matrix.loc[group, row.latent].to_numpy() for group in (a, b))
        low, high = resampled_interval(lambda x, y: x.mean(1) - y.mean(1), of_a, of_b)
        assert (row.low, row.high) == (pytest.approx(low), pytest.approx(high))
        assert row.difference == pytest.approx(of_a.mean() - of_b.mean())
        assert (row.prompts_a, row.prompts_b) == ((of_a > 0).sum(), (of_b > 0).sum())
    is_sure = (found["low"] * found["high"] > 0).tolist()
    assert is_sure == sorted(is_sure, reverse=True)
    assert any(is_sure)
    assert not all(is_sure)
    assert found["difference"].abs()[: sum(is_sure)].is_monotonic_decreasing


def test_a_prompt_without_a_decomposed_token_is_in_no_group(table_of):
    table, a, b = table_of(), [0, 1, 3], [4, 5, 6]
    assert table.prompts["tokens"][2] == 0
    expected = compare_groups(table, a, b)
    pd.testing.assert_frame_equal(compare_groups(table, [2, *a], b), expected)
    pd.testing.assert_frame_equal(compare_groups(table, a, [*b, 2, 2]), expected)
    with pytest.raises(InputError, match="has 1 and group B 3 prompts with a decomposed token"):
        compare_groups(table, [0, 2], b)


def test_groups_that_are_none_and_an_empty_list_are_refused(table_of):
    table = table_of(texts=TEXTS[:4])
    with pytest.raises(InputError, match="needs two of each"):
        compare_groups(table, [0], [1, 3])
    with pytest.raises(InputError, match="in both groups"):
        compare_groups(table, [0, 1], [1, 3])
    with pytest.raises(InputError, match="no prompt"):
        table_of(texts=[])
    assert table_of(texts=["x"]).uses.empty
