"""`itda move` prints what a training prints, where from, and what was left out."""

from tests.support.command_line import one_json


def test_it_prints_each_layers_run_and_the_second_time_makes_none_anew(
    cli, ids, runs_folder, tmp_path, tiny_model_folder
):
    arguments = ["move", runs_folder / ids[0], "--layer", "2,3", "--dtype", "float32"]
    arguments += ["--runs", tmp_path, "--json"]
    told = one_json(cli(*arguments))["runs"]
    assert [(run["layer"], run["moved_from"], run["left_out"]) for run in told] == [
        (2, ids[0], 0),
        (3, ids[0], 0),
    ]
    assert {run["model"] for run in told} == {str(tiny_model_folder)}, "the run's own"
    assert one_json(cli(*arguments))["runs"] == told
    assert {path.name for path in tmp_path.iterdir()} == {run["run_id"] for run in told}


def test_where_to_has_to_be_said(cli, ids, runs_folder):
    code, out, error = cli("move", ids[0], "--runs", runs_folder)
    assert (code, out) == (2, "")
    assert "--model, --revision, --layer or --site" in error
