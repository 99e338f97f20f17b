"""A run is there whole or not at all, is found by name, and goes when it is told to."""

import json
import shutil
from pathlib import Path

import pytest

from itda_core.config import CONFIG_VERSION
from itda_core.errors import InputError, ItdaError, RunError
from itda_core.files.json_files import write_json
from itda_core.leftovers import temporary_name
from itda_core.runs.interrupted import delete_interrupted, interrupted_trainings
from itda_core.runs.run import RUN_FILES, delete_run, find_run, list_runs, new_run, read_run
from itda_core.sealed import seal
from tests.support.trained_runs import shared_runs, tiny_config


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    return shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file)


@pytest.fixture
def runs(whole, tmp_path):
    """A copy of the folder of three runs, to do harm to."""
    return Path(shutil.copytree(whole, tmp_path / "runs"))


def listed(folder):
    return [run.layer for run in list_runs(folder)]


# Writing


def test_a_new_run_appears_only_when_it_is_whole(tmp_path):
    with new_run(tmp_path, "a-L00") as folder:
        (folder / "file").write_text("half")
        assert not (tmp_path / "a-L00").exists()
        assert listed(tmp_path) == []
        (folder / "file").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a-L00"]
    assert (tmp_path / "a-L00" / "file").read_text() == "whole"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_new_run_that_fails_leaves_nothing(tmp_path, error):
    with pytest.raises(error), new_run(tmp_path, "a-L00") as folder:
        (folder / "config.json").write_text("{}")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_neither_listed_nor_in_the_way(tmp_path):
    left = tmp_path / temporary_name("writing-a-L00")
    left.mkdir()
    (left / "config.json").write_text("{}")
    assert listed(tmp_path) == []
    assert interrupted_trainings(tmp_path) == {}
    with new_run(tmp_path, "a-L00") as folder:
        assert list(folder.iterdir()) == []
        assert folder != left  # another process may still write there
    assert {path.name for path in tmp_path.iterdir()} == {"a-L00", left.name}


def test_json_is_replaced_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"text": "é 👩‍👩‍👧", "number": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"text": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"text": "é 👩‍👩‍👧", "number": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


# Reading


def test_runs_are_listed_oldest_first_then_by_layer(runs):
    assert listed(runs) == [0, 1, 2]
    oldest = list_runs(runs)[2].directory / "config.json"
    oldest.write_text(json.dumps(json.loads(oldest.read_text()) | {"created": "1999-01-01"}))
    seal(oldest.parent)
    assert listed(runs) == [2, 0, 1]


def test_no_folder_holds_no_runs(tmp_path):
    assert listed(tmp_path / "nothing") == []
    assert interrupted_trainings(tmp_path / "nothing") == {}


@pytest.mark.parametrize("file", RUN_FILES)
def test_a_run_that_lacks_a_file_is_left_out_and_the_file_is_named(runs, file):
    damaged = list_runs(runs)[1].directory
    (damaged / file).unlink()
    assert listed(runs) == [0, 2]
    with pytest.raises(RunError, match=f"{damaged.name} is not a whole run: it lacks {file}"):
        read_run(damaged)


@pytest.mark.parametrize("file", ["config.json", "metrics.json"])
@pytest.mark.parametrize(
    "content", [b"", b'{"run_id": "a', b"\xff\xfe\x00", b"null", b"[]", b"{}", b'"text"', b"7"]
)
def test_a_run_with_a_damaged_file_is_left_out_and_named(runs, file, content):
    damaged = list_runs(runs)[1].directory
    (damaged / file).write_bytes(content)
    assert listed(runs) == [0, 2]
    with pytest.raises(RunError, match=damaged.name):
        read_run(damaged)


@pytest.mark.parametrize("key", ["run_id", "training_id", "layer", "created", "config"])
def test_a_run_that_does_not_say_what_it_is_is_left_out_and_named(runs, key):
    damaged = list_runs(runs)[1].directory
    about = json.loads((damaged / "config.json").read_text())
    del about[key]
    (damaged / "config.json").write_text(json.dumps(about))
    assert listed(runs) == [0, 2]
    with pytest.raises(RunError, match=damaged.name):
        read_run(damaged)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"tokens": -5}, "tokens is no whole number from 0 on"),
        ({"fvu": -0.5}, "fvu is below 0"),
        (
            {"held_out_tokens": 3, "massive_held_out_tokens": 4},
            "more are massive activations than there are",
        ),
        ({"massive_held_out_tokens": "six"}, "massive_held_out_tokens is no whole number"),
        ({"held_out_tokens": 4.5}, "held_out_tokens is no whole number"),
        ({"fvu_without_massive": [0.3]}, "fvu_without_massive is no number"),
    ],
)
def test_a_run_whose_held_out_measures_are_no_numbers_is_named(runs, said, why):
    damaged = list_runs(runs)[1]
    path = damaged.directory / "metrics.json"
    path.write_text(json.dumps({**damaged.metrics, **said}))
    assert listed(runs) == [0, 2]
    with pytest.raises(RunError, match=why):
        read_run(damaged.directory)


def test_a_run_of_a_newer_version_is_left_out_and_the_remedy_is_to_update(runs):
    newer = list_runs(runs)[1].directory
    about = json.loads((newer / "config.json").read_text())
    about["config"]["version"] = CONFIG_VERSION + 1
    (newer / "config.json").write_text(json.dumps(about))
    assert listed(runs) == [0, 2]
    with pytest.raises(RunError, match=r"newer version: update") as caught:
        read_run(newer)
    assert "Delete" not in str(caught.value)


# Finding


def test_a_run_is_found_by_its_id_and_by_the_path_of_its_directory(runs, monkeypatch):
    for run in list_runs(runs):
        assert find_run(run.run_id, runs) == run
        assert find_run(str(run.directory), Path("elsewhere")) == run
        assert find_run(f"{run.directory}/", Path("elsewhere")) == run
    monkeypatch.chdir(runs)
    assert find_run(f"./{run.run_id}", Path("elsewhere")).run_id == run.run_id
    monkeypatch.setenv("HOME", str(runs))
    assert find_run(f"~/{run.run_id}", Path("elsewhere")).run_id == run.run_id


def test_a_run_is_found_through_a_link_and_from_within_its_directory(runs, tmp_path, monkeypatch):
    run = list_runs(runs)[1]
    (tmp_path / "link").symlink_to(run.directory)
    assert find_run(str(tmp_path / "link"), runs).run_id == run.run_id
    monkeypatch.chdir(run.directory)
    assert find_run(".", runs).run_id == run.run_id


def test_a_run_under_another_name_is_told_its_name_and_not_called_damaged(runs):
    run = list_runs(runs)[1]
    renamed = run.directory.rename(runs / "my favourite")
    for find in (lambda: read_run(renamed), lambda: find_run("my favourite", runs)):
        with pytest.raises(RunError, match=f"is the run '{run.run_id}' under another name") as told:
            find()
        assert "delete" not in str(told.value).lower()
        assert "damaged" not in str(told.value)
    assert listed(runs) == [0, 2]


@pytest.mark.parametrize(
    "name", ["nothing", "x" * 5_000, "a\x00b", "no/such/path", "🎉", "~no-such-user/x"]
)
def test_an_unknown_name_is_refused_with_the_runs_there_are(runs, name):
    with pytest.raises(InputError, match=r"There are: .*-L00.*-L01.*-L02"):
        find_run(name, runs)


@pytest.mark.parametrize("name", ["", ".", "..", "../..", "/", "../runs", "//", ".hidden"])
def test_a_name_that_leads_to_no_run_is_refused(runs, name, monkeypatch):
    monkeypatch.chdir(runs)
    with pytest.raises(ItdaError):
        find_run(name, runs)


def test_a_name_does_not_lead_out_of_the_folder_of_runs(runs):
    inner = runs / "inner"
    inner.mkdir()
    name = list_runs(runs)[0].run_id
    for leading in (f"../{name}", f"..\\{name}"):
        with pytest.raises(InputError):
            find_run(leading, inner)


# Deleting


def test_a_deleted_run_is_gone_and_the_others_are_whole(runs):
    first, second, third = list_runs(runs)
    delete_run(second.directory)
    assert sorted(path.name for path in runs.iterdir()) == sorted([first.run_id, third.run_id])
    assert [read_run(run.directory) for run in (first, third)] == [first, third]


def test_deleting_that_was_cut_short_leaves_nothing_in_sight(runs, monkeypatch):
    first = list_runs(runs)[0]
    monkeypatch.setattr(shutil, "rmtree", lambda *_arguments, **_options: None)
    delete_run(first.directory)
    monkeypatch.undo()
    assert listed(runs) == [1, 2]
    assert interrupted_trainings(runs) == {}
    again = runs / first.run_id
    [hidden] = runs.glob(f".deleted-{first.run_id}.*")
    shutil.copytree(hidden, again)
    delete_run(read_run(again).directory)  # what the first one left is not in the way
    assert len(list(runs.iterdir())) == 2


def test_an_interrupted_training_is_given_up_and_the_runs_stay(runs, tiny_model_folder):
    left = runs / ".tiny-00000000"
    left.mkdir()
    config = tiny_config(tiny_model_folder, "sotu")
    write_json(left / "config.json", config.to_dict())
    assert interrupted_trainings(runs) == {"tiny-00000000": config}
    delete_interrupted(runs, "tiny-00000000")
    assert interrupted_trainings(runs) == {}
    assert listed(runs) == [0, 1, 2]


def test_a_training_that_the_disk_keeps_is_not_given_up_silently(runs, monkeypatch):
    """A file that is open elsewhere on Windows, or rights that are lacking."""
    left = runs / ".tiny-00000000"
    left.mkdir()
    (left / "lock").touch()
    write_json(left / "config.json", tiny_config("tiny", "sotu").to_dict())
    monkeypatch.setattr(shutil, "rmtree", lambda *_args, **_named: None)
    with pytest.raises(RunError, match=r"tiny-00000000 can't be removed\. Close what uses it"):
        delete_interrupted(runs, "tiny-00000000")


@pytest.mark.parametrize("name", ["", ".", "../", "tiny/..", "/"])
def test_giving_up_a_training_that_there_is_not_deletes_nothing(runs, name):
    (runs / "tiny").mkdir()
    delete_interrupted(runs, name)
    assert listed(runs) == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"version": 99}'])
def test_an_interrupted_training_that_cannot_be_read_is_left_out(runs, content):
    left = runs / ".tiny-00000000"
    left.mkdir()
    (left / "config.json").write_bytes(content)
    assert interrupted_trainings(runs) == {}
