"""The list of prompts on Decompose: as a table, as a matrix, and two groups compared."""

import numpy as np
import pytest

from itda_core.analysis.prompt_table import compare_groups, prompt_table_steps
from itda_core.model.steps_of_work import last_value
from pages.components.reproduce import prompt_table_lines
from tests.support.app import assert_no_failure, newest, open_page, table_with

PROMPTS = ["The senate met to ratify the treaty", "war and *peace*", "The people asked for land",
           "a cat sat on the mat", "My fellow citizens"]  # fmt: skip


@pytest.fixture
def expected(data, tiny_model):
    run = newest(data, 2)
    return last_value(prompt_table_steps(run.dictionary(), tiny_model, PROMPTS, run.config))


def opened(data, **query):
    app = open_page("decompose", run=newest(data, 2).run_id, view="prompts")
    app.session_state["prompts"] = list(PROMPTS)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert_no_failure(app)
    return app


def test_an_empty_list_says_where_prompts_are_added(data):
    app = open_page("decompose", run=newest(data, 2).run_id, view="prompts")
    assert_no_failure(app)
    assert any("The list is empty" in one.value for one in app.info)


def test_each_prompt_has_its_tokens_what_is_left_and_its_latents(data, expected):
    table = table_with(opened(data), "strongest_latents")
    assert table["tokens"].tolist() == expected.prompts["tokens"].tolist()
    np.testing.assert_allclose(table["left"], 100 * expected.prompts["left"], rtol=1e-3)
    for row, said in enumerate(table["strongest_latents"]):
        own = expected.uses[expected.uses["prompt"] == row]
        numbers = [int(one.split()[0]) for one in said.split(" · ")]
        assert numbers == own["latent"].tolist()[:3]


def test_the_matrix_has_the_latents_with_the_largest_sums_first(data, expected):
    app = opened(data, prompts_as="matrix", group_a="1,3")
    shown, matrix = table_with(app, "source_token"), expected.matrix()
    assert shown["latent"].tolist() == matrix.columns.tolist()[: len(shown)]
    columns = [str(number + 1) for number in range(len(PROMPTS))]
    np.testing.assert_allclose(
        shown[columns], 100 * matrix.T.to_numpy()[: len(shown)], rtol=1e-2, atol=1e-4
    )


def test_the_groups_of_a_link_are_compared(data, expected):
    app = opened(data, prompts_as="groups", group_a="1,3")
    shown, found = table_with(app, "difference"), compare_groups(expected, [0, 2], [1, 3, 4])
    assert shown["latent"].tolist() == found["latent"].tolist()
    np.testing.assert_allclose(shown["difference"], 100 * found["difference"], rtol=1e-2, atol=1e-4)
    assert app.query_params["group_a"] == "1,3"
    app = opened(data, prompts_as="groups", group_a="1")
    assert any("needs two of each" in one.value for one in app.info)


def test_a_prompt_without_a_decomposed_token_is_counted_out_of_the_groups(data):
    app = opened(data, prompts_as="groups", group_a="1,3")
    app.session_state["prompts"] = [*PROMPTS, "x"]
    app.query_params["group_a"] = "1,3"
    app.run()
    assert_no_failure(app)
    said = "A: 2 prompts, B: 3; 1 prompt has no decomposed token and is left out."
    assert any(one.value.startswith(said) for one in app.caption)


def test_a_link_finds_the_list_again(data):
    name = opened(data).query_params["prompts"]
    app = open_page("decompose", run=newest(data, 2).run_id, view="prompts", prompts=name)
    assert_no_failure(app)
    assert app.session_state["prompts"] == PROMPTS
    app = open_page("decompose", run=newest(data, 2).run_id, view="prompts", prompts="0" * 32)
    assert any("not kept here" in one.value for one in app.warning)


def test_the_lines_print_the_numbers_of_the_table(data, expected, capsys):
    run = newest(data, 2)
    exec(prompt_table_lines(str(run.directory), PROMPTS, [0, 2], False), {})
    said = capsys.readouterr().out
    for left in expected.prompts["left"]:
        assert f"{left:.5f}"[:6] in said
    first = compare_groups(expected, [0, 2], [1, 3, 4]).iloc[0]
    assert f"{first.difference:.5f}"[:6] in said
