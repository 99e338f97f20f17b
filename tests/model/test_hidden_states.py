"""What a block gave for every batch, brought to the disk and taken up from there."""

import json

import pytest
import torch

from itda_core.model.hidden_states import HiddenStates, KeptStates

SHAPES = [(2, 3, 4), (1, 5, 4)]


def states_of(folder, seed, count=2):
    """Hidden states of `count` batches in memory, and the tensors that they are."""
    random = torch.Generator().manual_seed(seed)
    tensors = [
        torch.randn(shape, generator=random, dtype=torch.float32) for shape in SHAPES[:count]
    ]
    states = HiddenStates(2**20, folder)
    for number, hidden in enumerate(tensors):
        states.write(number, hidden)
    return states, tensors


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_save_that_fails_leaves_what_was_there_and_nothing_else(tmp_path):
    kept = KeptStates(tmp_path, SHAPES, torch.float32)
    states, tensors = states_of(tmp_path, 0)
    kept.save(3, states)
    before = names(tmp_path)
    lacking, _ = states_of(tmp_path, 1, count=1)
    with pytest.raises(KeyError):  # there is no second batch
        kept.save(4, lacking)
    assert names(tmp_path) == before == ["hidden-00003", "hidden-00003.json"]
    assert kept.newest() == 3
    again = HiddenStates(0, tmp_path)
    assert kept.load(3, again) is True
    assert all(torch.equal(again.read(number), hidden) for number, hidden in enumerate(tensors))
    again.close()


def test_all_but_the_newest_are_dropped_also_what_a_crash_left(tmp_path):
    kept = KeptStates(tmp_path, SHAPES, torch.float32)
    kept.save(1, states_of(tmp_path, 0)[0])
    (tmp_path / "hidden-00002").write_bytes(b"cut short")
    (tmp_path / "rows").write_bytes(b"another's")
    kept.save(3, states_of(tmp_path, 1)[0])
    assert names(tmp_path) == ["hidden-00003", "hidden-00003.json", "rows"]
    assert kept.newest() == 3


@pytest.mark.parametrize(
    "said",
    ["", "[]", "null", '{"block": "x"}', '{"block": 7}', "[" * 100_000],
    ids=["empty", "list", "null", "text", "other", "deep"],
)
def test_what_can_not_be_gone_on_from_is_passed_over(tmp_path, said):
    """Or the training would be stuck for ever: a marker of any content, also of another block."""
    kept = KeptStates(tmp_path, SHAPES, torch.float32)
    kept.save(3, states_of(tmp_path, 0)[0])
    marker = tmp_path / "hidden-00003.json"
    whole = json.loads(marker.read_text())
    marker.write_text(json.dumps({**whole, **json.loads(said)}) if said[:1] == "{" else said)
    assert kept.newest() is None


def test_a_flipped_bit_is_noticed_and_all_is_dropped(tmp_path):
    kept = KeptStates(tmp_path, SHAPES, torch.float32)
    kept.save(3, states_of(tmp_path, 0)[0])
    path = tmp_path / "hidden-00003"
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    assert kept.load(3, HiddenStates(2**20, tmp_path)) is False
    assert names(tmp_path) == []


def test_what_an_earlier_version_kept_is_taken_up(tmp_path):
    kept = KeptStates(tmp_path, SHAPES, torch.float32)
    kept.save(3, states_of(tmp_path, 0)[0])
    marker = tmp_path / "hidden-00003.json"
    said = json.loads(marker.read_text())
    marker.write_text(json.dumps({name: said[name] for name in ("block", "batches")}))
    assert kept.load(3, HiddenStates(2**20, tmp_path)) is True
