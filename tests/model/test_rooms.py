"""Memory that blocks are read into: the next ones take that of those before, and nobody's own."""

import gc
from collections import Counter

import pytest
import torch

from itda_core.model import rooms
from itda_core.model.rooms import Rooms
from tests.support.swept_models import both_kinds, bytes_on_disk, values_of
from tests.support.tiny_models import TEXTS, save_tiny_model


@pytest.fixture
def fresh(monkeypatch):
    """Sizes of the memory that the system is asked for."""
    sizes, ask = [], rooms.mmap.mmap

    def asked(number, size, **how):
        sizes.append(size)
        return ask(number, size, **how)

    monkeypatch.setattr(rooms.mmap, "mmap", asked)
    return sizes


def test_what_is_let_go_of_is_taken_again_by_the_next_of_its_size(fresh):
    some = Rooms()
    one, other = some.take(64), some.take(32)
    with some.kept([64, 32]):
        del one, other
    assert len(some.take(64)) == 64 and len(some.take(32)) == 32
    assert fresh == [64, 32]


def test_what_somebody_holds_is_never_taken(fresh):
    some = Rooms()
    one = some.take(64)
    held = one.view(torch.float32)[3:]
    held.fill_(7.0)
    with some.kept([64]):
        del one
        some.take(64).fill_(255)
    assert held.tolist() == [7.0] * 13
    assert fresh == [64, 64]


def test_no_more_is_kept_than_was_asked_for(fresh):
    some = Rooms()
    held = [some.take(64) for _ in range(3)] + [some.take(16)]
    with some.kept([64, 64, 128]):
        held.clear()
    with some.kept([64]):
        gc.collect()
    again = [some.take(size) for size in (64, 64, 16)]
    assert len(again) == 3
    assert fresh == [64, 64, 64, 16, 64, 16]


def test_what_is_let_go_of_later_goes_back_to_the_system(fresh):
    some = Rooms()
    one = some.take(64)
    with some.kept([64]):
        pass
    del one
    some.take(64)
    with some.kept([64]):
        one = some.take(64)
        del one
    some.clear()
    some.take(64)
    assert fresh == [64] * 4


def test_a_sweep_reads_its_blocks_into_the_memory_of_two(tmp_path, fresh):
    """But for a few tensors: the threads by which transformers puts weights in place may hold their
    last one for a moment longer than a block as small as this one runs."""
    save_tiny_model(tmp_path, n_layers=6)
    resident, model = both_kinds(tmp_path)
    tokens = resident.tokenize(TEXTS)
    fresh.clear()
    found = dict(values_of(model.capture_each([tokens], [5])))
    assert torch.equal(found[0][5], resident.capture(tokens, [5])[5])
    sizes = bytes_on_disk(tmp_path)
    first = [
        size
        for name, size in sizes.items()
        if "embed_tokens" in name or "layers.0." in name or "layers.1." in name
    ]
    of_a_block = sum("layers.1." in name for name in sizes)
    more = Counter(fresh) - Counter(first)
    assert not Counter(first) - Counter(fresh)
    assert more.total() < of_a_block, "of six blocks four are read into what is there"


def test_what_is_converted_leaves_nothing_behind_in_memory(tmp_path, monkeypatch):
    """In bfloat16 from files in float32: what was read is let go of while it is put in place."""
    save_tiny_model(tmp_path, n_layers=5)
    resident, model = both_kinds(tmp_path, dtype="bfloat16")
    kept, take = [], Rooms.take

    def counted(self, size):
        kept.append(sum(map(len, self._free.values())))
        return take(self, size)

    monkeypatch.setattr(Rooms, "take", counted)
    tokens = resident.tokenize(TEXTS)
    assert torch.equal(model.capture(tokens, [4])[4], resident.capture(tokens, [4])[4])
    assert kept and not any(kept)


def test_an_abandoned_sweep_keeps_no_memory(tmp_path):
    _, model = both_kinds(save_tiny_model(tmp_path, n_layers=5))
    steps = model.hidden_each([model.tokenize(TEXTS)], 4)
    next(steps)
    steps.close()
    assert model.newest_reading._next is None
    assert not any(model.newest_reading._rooms._free.values())
