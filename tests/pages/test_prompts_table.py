"""The list of prompts on Decompose: as a table, as a matrix, and two groups compared."""

import numpy as np
import pytest
import streamlit as st

from itda_core.analysis.prompt_table import compare_groups, prompt_table, prompt_table_steps
from pages.components.decompose import prompts_reading
from pages.components.reproduce import prompt_table_lines
from tests.support.app import assert_no_failure, newest, open_page, table_with

PROMPTS = ["The senate met to ratify the treaty", "war and *peace*", "The people asked for land",
           "a cat sat on the mat", "My fellow citizens"]  # fmt: skip


@pytest.fixture
def expected(data, tiny_model):
    run = newest(data, 2)
    return prompt_table(run.dictionary(), tiny_model, PROMPTS, run.config)


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
    said = "Group A has 2 prompts, group B 3 prompts; 1 prompt has no decomposed token"
    assert any(one.value.startswith(f"{said} and is left out. Of ") for one in app.caption)


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


MANY = [f"The people of state {number} asked for land and water" for number in range(40)]


def test_cancelled_prompts_keep_what_was_read_and_go_on(data, tiny_model, monkeypatch):
    run, asked = newest(data, 2), []

    def press_cancel_after_two_batches(*arguments, after):
        """What a click on Cancel does to a run of the page: its callback, and then an end between
        two batches."""
        asked.append(after)
        for number, step in enumerate(prompt_table_steps(*arguments, after=after)):
            if len(asked) == 1 and number == 2:
                key = (str(run.directory), tuple(MANY), "")
                st.session_state[prompts_reading._CANCELLED] = key
                st.rerun()
            yield step

    monkeypatch.setattr(prompts_reading, "prompt_table_steps", press_cancel_after_two_batches)
    app = open_page("decompose", run=run.run_id, view="prompts")
    app.session_state["prompts"] = list(MANY)
    app.query_params["group_a"] = "1,39"
    app.run()
    assert_no_failure(app)
    assert any("Cancelled: 32 of 40 prompts were read." in one.value for one in app.info)
    assert len(table_with(app, "strongest_latents")) == 32
    app.button(key="read_on").click().run()
    assert_no_failure(app)
    assert asked == [0, 32]
    assert not app.info
    shown = table_with(app, "strongest_latents")
    whole = prompt_table(run.dictionary(), tiny_model, MANY, run.config)
    assert shown["tokens"].tolist() == whole.prompts["tokens"].tolist()
    np.testing.assert_allclose(shown["left"], 100 * whole.prompts["left"], rtol=1e-3)
    assert app.query_params["group_a"] in ("1,39", ["1,39"])
    assert shown["group"].tolist()[38] == "A"


def test_a_run_that_is_superseded_ends_between_two_batches(data, monkeypatch):
    """And what it has read is there for the next one."""
    run, ended = newest(data, 2), []

    def click_elsewhere(*arguments, after):
        try:
            for number, step in enumerate(prompt_table_steps(*arguments, after=after)):
                yield step
                if not ended and number == 0:
                    st.rerun()
        finally:
            ended.append(after)

    monkeypatch.setattr(prompts_reading, "prompt_table_steps", click_elsewhere)
    app = open_page("decompose", run=run.run_id, view="prompts")
    app.session_state["prompts"] = list(MANY)
    app.run()
    assert_no_failure(app)
    assert ended == [0, 16]
    assert len(table_with(app, "strongest_latents")) == 40
