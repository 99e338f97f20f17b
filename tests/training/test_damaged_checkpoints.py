"""A damaged checkpoint costs what came after the one before, and never the training."""

import dataclasses
import errno
import json
import shutil

import pytest

from itda_core.errors import RunError
from itda_core.runs.workspace import Workspace
from itda_core.sealed import DIGESTS_FILE
from itda_core.training import trainer as training
from itda_core.training.trainer import resume, train
from tests.support.checkpoints import load
from tests.support.trained_runs import advance, assert_same_runs, tiny_config, trained

FILES = ("state.json", "1.safetensors", DIGESTS_FILE)


@pytest.fixture(scope="module")
def config(tiny_model_folder, tiny_corpus_file):
    return tiny_config(tiny_model_folder, tiny_corpus_file, layers=(0, 1))


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    trained(config, folder)
    return folder


@pytest.fixture(scope="module")
def stopped(config, tmp_path_factory):
    """A training that was stopped after seven windows, with a checkpoint after each."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
        steps = train(config, folder)
        count = 0
        for step in steps:
            count += step.stage == "training"
            if count == 7:
                break
        steps.close()
    return folder


@pytest.fixture
def left(stopped, tmp_path):
    """A copy: the folder, the training's id, and its checkpoints."""
    folder = shutil.copytree(stopped, tmp_path / "runs")
    [directory] = [path for path in folder.iterdir() if path.name.startswith(".")]
    return folder, directory.name[1:], sorted(directory.glob("checkpoint-*"))


def finished(folder, training_id):
    """The first tokens and the notes of a training that is resumed to its end."""
    steps = [dataclasses.replace(step) for step in resume(training_id, folder)]
    assert steps[-1].stage == "done"
    tokens = next(step.tokens for step in steps if step.stage == "training")
    return tokens, " ".join(note for note in steps[-1].notes if "checkpoint" in note)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


def lose(path):
    path.unlink()


def test_the_last_two_checkpoints_are_kept(left):
    _, _, checkpoints = left
    assert [path.name for path in checkpoints] == ["checkpoint-000000006", "checkpoint-000000007"]
    assert all(file in [path.name for path in checkpoints[1].iterdir()] for file in FILES)


def test_a_whole_checkpoint_is_used_and_nothing_said(left, undisturbed):
    folder, training_id, checkpoints = left
    rows = json.loads((checkpoints[1] / "state.json").read_text())["rows"]["0"]
    tokens, said = finished(folder, training_id)
    assert tokens > rows
    assert said == ""
    assert_same_runs(folder, undisturbed)


def test_what_is_kept_is_checked_file_by_file_and_can_be_stopped_meanwhile(left, undisturbed):
    """By which a command tells what it does, and ends where it is told to."""
    folder, training_id, checkpoints = left
    state = json.loads((checkpoints[1] / "state.json").read_text())
    before = {path: path.read_bytes() for path in folder.rglob("*.f32")}
    for number in range(len(state["arrays"])):
        steps = resume(training_id, folder)
        assert advance(steps, "checking", number + 1).training_id == training_id
        steps.close()
    assert {path: path.read_bytes() for path in folder.rglob("*.f32")} == before
    stages = [step.stage for step in resume(training_id, folder)]
    assert stages.count("checking") == len(state["arrays"])
    assert stages.index("training") > stages.index("checking")
    assert_same_runs(folder, undisturbed)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("spoil", [flip, cut, lose])
def test_a_damaged_checkpoint_is_dropped_and_the_one_before_is_used(left, undisturbed, file, spoil):
    folder, training_id, checkpoints = left
    spoil(checkpoints[1] / file)
    before = json.loads((checkpoints[0] / "state.json").read_text())["rows"]["0"]
    tokens, said = finished(folder, training_id)
    assert tokens > before
    if spoil is lose and file == DIGESTS_FILE:  # it is read as one of an earlier version
        assert said == ""
    else:
        assert said.startswith(
            "A checkpoint of this training could not be used (checkpoint-000000007"
        )
        assert said.endswith("It goes on from the one before.")
    assert_same_runs(folder, undisturbed)


def test_activations_that_are_not_what_was_written_are_made_anew(left, undisturbed):
    """A bit in what both checkpoints count on; and one in what the newest has alone."""
    folder, training_id, checkpoints = left
    sizes = [
        json.loads((path / "state.json").read_text())["arrays"]["activations-0.f32"]["bytes"]
        for path in checkpoints
    ]
    assert sizes[0] < sizes[1]
    file = checkpoints[0].parent / "activations-0.f32"
    whole = file.read_bytes()
    for place, how_on in ((sizes[0], "It goes on from the one before."), (9, "It starts anew.")):
        again = shutil.copytree(folder, folder.with_name(f"again-{place}"))
        content = bytearray(whole)
        content[place] ^= 4
        (again / file.relative_to(folder)).write_bytes(content)
        _, said = finished(again, training_id)
        assert "the activations in activations-0.f32 are not what was written" in said
        assert said.endswith(how_on)
        assert_same_runs(again, undisturbed)


def test_checkpoints_of_a_training_that_starts_anew_are_good_beside_what_was_left(
    left, undisturbed, monkeypatch
):
    """A bit has flipped; the process that starts anew is killed two windows after a checkpoint."""
    folder, training_id, _ = left
    for file in (folder / f".{training_id}").glob("*.f32"):
        flip(file)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    steps = resume(training_id, folder)
    advance(steps, "training", 3)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 1e9)
    advance(steps, "training", 2)
    killed = shutil.copytree(folder, folder.with_name("killed"))
    steps.close()
    _, said = finished(killed, training_id)
    assert said == ""
    assert_same_runs(killed, undisturbed)


def test_where_all_are_damaged_the_training_starts_anew_and_says_so(left, undisturbed):
    folder, training_id, checkpoints = left
    for checkpoint in checkpoints:
        flip(checkpoint / "0.safetensors")
    tokens, said = finished(folder, training_id)
    assert tokens < 100
    assert said.startswith("2 checkpoints of this training could not be used (")
    assert said.endswith("It starts anew.")
    assert_same_runs(folder, undisturbed)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.EMFILE, "Too many open files"),
        PermissionError(errno.EACCES, "Permission denied"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
    ids=["disk", "handles", "rights", "memory", "torch"],
)
@pytest.mark.parametrize("place", ["itda_core.sealed.entry_of", "safetensors.safe_open"])
def test_a_checkpoint_that_only_can_not_be_read_now_is_left(left, monkeypatch, error, place):
    folder, training_id, checkpoints = left
    rows = {path: path.read_bytes() for path in checkpoints[0].parent.glob("*.f32")}
    assert len(rows) >= 2

    def fail(*_args, **_named):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        with pytest.raises(RunError, match=r"checkpoint-000000007 can't be read now"):
            load(Workspace(folder, training_id))
    assert {path: path.read_bytes() for path in rows} == rows
    assert all(checkpoint.is_dir() for checkpoint in checkpoints)
    workspace = Workspace(folder, training_id)
    assert load(workspace) is not None
    assert workspace.notes == []


@pytest.mark.parametrize(
    "content",
    ["", "null", "[]", "{}", '{"arrays": 3}', "[" * 100_000, b"\xff", '{"window": "x", "row": 1}'],
)
def test_a_state_of_a_version_without_digests_is_never_stuck(left, undisturbed, content):
    folder, training_id, checkpoints = left
    for checkpoint in checkpoints:
        (checkpoint / DIGESTS_FILE).unlink()
        path = checkpoint / "state.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    workspace = Workspace(folder, training_id)
    assert load(workspace) is None
    assert workspace.notes
    finished(folder, training_id)
    assert_same_runs(folder, undisturbed)
