"""What the benchmarks draw is what the explorer shows: else they measure an error's page."""

from benchmarks.speed.drawn import draw_scores, make_runs
from itda_core.runs.latent_scores import read_scores
from tests.support.app import assert_no_failure, button, close_explorer, open_page


def test_drawn_dictionaries_and_scores_are_browsed_like_others(data_folder):
    [run] = make_runs(data_folder / "runs", 1, 400)
    draw_scores(run)
    assert read_scores(run).about["judged"] == "strong"
    try:
        app = open_page("latents", run=run.run_id, latent="3")
        button(app, "Next").click().run()
        assert_no_failure(app)
        assert app.query_params["latent"] != "3"
    finally:
        close_explorer()
