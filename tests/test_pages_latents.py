"""What a latent has to do with others, on the Latents page, by AppTest."""

import shutil

import pandas as pd
import pytest
from test_pages import _close_explorer, assert_no_failure, newest, open_page, trained_folder
from tiny import save_tiny_model
from trained import tiny_config, trained

from itda_core.neighbourhood import nearest_atoms, next_tokens
from itda_core.runs import list_runs

__all__ = ["trained_folder"]


@pytest.fixture
def data(trained_folder, data_folder):
    shutil.copytree(trained_folder, data_folder, dirs_exist_ok=True)
    yield data_folder
    _close_explorer()


def open_tab(name, run, latent):
    """The page of a latent with one of the lists open."""
    app = open_page("latents", run=run.run_id, latent=str(latent))
    app.session_state["relations"] = name
    app.run()
    assert_no_failure(app)
    return app


def table_with(app, column):
    return next(one.value for one in app.dataframe if column in one.value)


def told(app):
    return " ".join(element.value for element in [*app.markdown, *app.caption, *app.info])


def most_used(run):
    return int(pd.read_parquet(run.directory / "codes.parquet")["latent"].mode()[0])


def test_the_nearest_atoms_are_listed_with_their_cosines(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, latent="5")
    expected = nearest_atoms(run.dictionary(), 5, 10)
    shown = table_with(app, "cosine")
    assert shown["latent"].tolist() == expected["latent"].tolist()
    assert shown["cosine"].tolist() == pytest.approx(expected["cosine"].tolist())


def test_latents_used_on_the_same_tokens_are_listed_by_lift(data):
    run = newest(data, 2)
    latent = most_used(run)
    shown = table_with(open_tab("Used together", run, latent), "lift")
    codes = pd.read_parquet(run.directory / "codes.parquet")
    uses = codes.groupby("latent")[["prompt_id", "position"]].apply(
        lambda table: set(table.itertuples(index=False, name=None))
    )
    for row in shown.itertuples():
        both = uses[latent] & uses[row.latent]
        assert row.both == len(both) >= 5
    assert shown["lift"].is_monotonic_decreasing


def test_the_next_tokens_of_an_atom_are_listed_at_both_ends(data, tiny_model):
    run = newest(data, 2)
    app = open_tab("Next tokens", run, 5)
    expected = next_tokens(tiny_model, run.dictionary(), 5, 10)
    promoted, suppressed = [one.value for one in app.dataframe if "score" in one.value]
    assert promoted["token_id"].tolist() == expected.promoted["token_id"].tolist()
    assert suppressed["token_id"].tolist() == expected.suppressed["token_id"].tolist()


def test_the_source_is_followed_into_the_other_layers(data):
    run = newest(data, 2)
    codes = pd.read_parquet(newest(data, 1).directory / "codes.parquet")
    explored = set(zip(codes["prompt_id"], codes["position"], strict=True))
    sources = run.dictionary().sources
    latent = next(
        row.latent for row in sources.itertuples() if (row.prompt_id, row.position) in explored
    )
    app = open_tab("In other layers", run, latent)
    shown = table_with(app, "coefficient")
    assert run.run_id not in set(shown["run_id"])
    assert 1 in set(shown["layer"])


def test_an_encoder_says_that_its_atoms_promote_no_token(data_folder, tmp_path, tiny_corpus_file):
    model = save_tiny_model(tmp_path / "encoder", "bert")
    trained(tiny_config(model, tiny_corpus_file, layers=(1,), max_atoms=40), data_folder / "runs")
    try:
        [run] = list_runs(data_folder / "runs")
        assert "predicts no next token" in told(open_tab("Next tokens", run, 3))
        assert "No other dictionary" in told(open_tab("In other layers", run, 3))
    finally:
        _close_explorer()
