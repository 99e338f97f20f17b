"""`itda move` prints what a training prints, where from, and what was left out."""

from itda_core.cli.parser import parse
from itda_core.config import ModelSpec
from itda_core.jobs.queue import JobQueue
from itda_core.jobs.submissions import submit_move
from itda_core.runs.run import read_run
from itda_core.training.moving import move_config, moved_model
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


def test_it_is_not_moved_to_where_it_is(cli, ids, runs_folder, tmp_path):
    run = read_run(runs_folder / ids[0])
    to = ["--layer", f"{run.layer},{run.layer + 1}", "--runs", tmp_path]
    for more in ([], ["--model", run.config.model.name], ["--site", run.site]):
        code, out, error = cli("move", run.directory, *to, *more)
        assert (code, out) == (2, "")
        assert f"It is of layer {run.layer} already. Choose another layer or model." in error
    assert not any(tmp_path.iterdir())


def test_a_job_of_the_queue_is_this_command(
    ids, runs_folder, tmp_path, tiny_model_folder, monkeypatch
):
    """What the job's process is given comes to the settings that were submitted."""
    monkeypatch.setattr(JobQueue, "_watch", lambda _self: None)
    run = read_run(runs_folder / ids[0])
    model = ModelSpec(str(tiny_model_folder), dtype="float32")
    config = move_config(run, model, [2, 3], "resid_pre")
    job = submit_move(JobQueue(tmp_path / "jobs", runs_folder), run, config, "any", 2**30)
    assert (job.kind, job.keeps_checkpoints, job.run_ids) == ("move", True, (run.run_id,))
    assert (
        job.title
        == f"tiny-llama layer 0 on paragraphs.txt moved to {model.name}, layers 2, 3 resid_pre"
    )
    options = parse([job.command, *job.arguments, "--memory", f"{job.memory}B"])
    given = moved_model(run, options.model, options.revision, options.dtype)
    assert move_config(run, given, options.layer, options.site) == config
    assert options.memory == 2**30
