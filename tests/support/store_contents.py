"""All that a store holds, compared."""

import pandas as pd


def contents(store):
    """Everything in the database by name, the prompts of each run with their spans, and scores."""
    spans = store.database.query(
        "SELECT run_id, prompt_id, explored, starts, ends FROM run_prompts "
        "JOIN runs USING (run) JOIN prompts USING (prompt) ORDER BY run_id, prompt_id"
    )
    for column in ("starts", "ends"):
        spans[column] = spans[column].map(list)
    scores = store.database.query(
        "SELECT run_id, s.* EXCLUDE (run), q.* EXCLUDE (run) FROM scored s "
        "JOIN latent_scores q USING (run) JOIN runs r USING (run) ORDER BY run_id, latent"
    )
    return {**store.runs.contents(), "run_prompts": spans, "scores": scores}


def assert_same_contents(one, other):
    assert set(one) == set(other)
    for name in one:
        pd.testing.assert_frame_equal(one[name], other[name])
