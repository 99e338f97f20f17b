"""The held-out FVU of lists of dictionaries, which a few massive activations must not decide."""

import json
import math

import pytest

from pages.components.held_out import held_out_in
from tests.support.app import newest, open_page, rows_of

# What a training of SmolLM2's layer 15 on a file with long white space had measured.
MASSIVE = {
    "held_out_tokens": 4_016,
    "fvu": 0.0059,
    "fvu_without_massive": 0.37296,
    "massive_held_out_tokens": 6,
}
TOLD = "held-out FVU 0.373 (with 6 massive activations 0.006)"


def write_metrics(run, **said):
    """As if its training had measured that."""
    path = run.directory / "metrics.json"
    path.write_text(json.dumps({**run.metrics, **said}))
    (run.directory / "digests.json").unlink()


def test_massive_activations_are_left_out_and_counted():
    found = held_out_in(MASSIVE)
    assert (found.fvu, found.fvu_of_all) == (0.37296, 0.0059)
    assert (found.tokens, found.massive) == (4_010, 6)
    assert found.in_words() == TOLD
    one = held_out_in({**MASSIVE, "massive_held_out_tokens": 1})
    assert one.in_words() == "held-out FVU 0.373 (with 1 massive activation 0.006)"


@pytest.mark.parametrize(
    ("metrics", "told", "tokens"),
    [
        (  # none is massive
            {"fvu": 0.173, "held_out_tokens": 9, "fvu_without_massive": 0.173,
             "massive_held_out_tokens": 0},
            "held-out FVU 0.173", 9,
        ),
        (  # all are
            {"fvu": 0.5, "held_out_tokens": 2, "fvu_without_massive": None,
             "massive_held_out_tokens": 2},
            "held-out FVU – (with 2 massive activations 0.500)", 0,
        ),
        (  # of early versions
            {"fvu": 0.136, "held_out_tokens": 400},
            "held-out FVU 0.136 (massive activations count, if there are any)",
            400,
        ),
        ({"fvu": None, "held_out_tokens": 0}, "held-out FVU –", 0),
        ({"fvu": None}, "held-out FVU –", 0),
    ],
)  # fmt: skip
def test_what_was_measured_is_said_whatever_is_known_of_it(metrics, told, tokens):
    found = held_out_in(metrics)
    assert found.in_words() == told
    assert found.tokens == tokens


def test_where_massive_activations_were_not_told_apart_they_count():
    found = held_out_in({"fvu": 0.136, "held_out_tokens": 400})
    assert found.massive is None
    assert (found.fvu, found.is_without) == (0.136, False)
    assert math.isnan(held_out_in({"fvu": None}).fvu)


def test_overview_and_train_show_the_fvu_without_massive_activations(own_data):
    run = newest(own_data, 2)
    write_metrics(run, **MASSIVE)
    row = rows_of(open_page("overview"), "runs").set_index("run_id").loc[run.run_id]
    assert row["fvu"] == 0.37296
    assert row["measured_on"] == "4,010 tokens of texts.jsonl; with 6 massive activations 0.006"
    assert any(TOLD in one.value.replace("`", "") for one in open_page("train").caption)


def test_overview_says_of_an_early_run_that_massive_activations_count(own_data):
    run = newest(own_data, 2)
    del run.metrics["fvu_without_massive"], run.metrics["massive_held_out_tokens"]
    write_metrics(run, held_out_tokens=400, fvu=0.136)
    row = rows_of(open_page("overview"), "runs").set_index("run_id").loc[run.run_id]
    assert row["fvu"] == 0.136
    told = "400 tokens of texts.jsonl; massive activations count, if there are any"
    assert row["measured_on"] == told
